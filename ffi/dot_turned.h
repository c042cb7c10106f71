/* The forward call for few positions, a linear layer of a row or two: lanes are filters. */
#ifndef DOT_TURNED_H
#define DOT_TURNED_H

#include "dot_problem.h"

/* Whether a problem's sizes are for it. */
int dot_is_turned(const struct dot_problem *p);
int64_t dot_turned_workspace(const struct dot_problem *p);
void dot_turned(const struct dot_problem *p, void *y, void *workspace);

#endif
