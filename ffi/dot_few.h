/* Few positions, as a linear layer of a row or two has: lanes are taps, and weights are read where they lie. */
#ifndef DOT_FEW_H
#define DOT_FEW_H

#include "dot_problem.h"

/* Whether a problem's sizes are for it. */
int dot_is_few(const struct dot_problem *p);
int64_t dot_few_workspace(const struct dot_problem *p);
int64_t dot_few_grads_workspace(const struct dot_problem *p);
void dot_few(const struct dot_problem *p, void *y, void *workspace);
/* Gradients of sums and of what else is added up so, added to dx and to dw; either may be NULL. */
void dot_few_grads(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace);

#endif
