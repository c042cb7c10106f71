/* Bytes of workspace for each call of dot.h. Each is computed in the call's own file. */
#ifndef DOT_WORKSPACE_H
#define DOT_WORKSPACE_H

#include "dot.h"

int64_t dot_forward_workspace(const struct dot_problem *p);
int64_t dot_grad_x_workspace(const struct dot_problem *p);
int64_t dot_grad_w_workspace(const struct dot_problem *p);
int64_t dot_grads_workspace(const struct dot_problem *p);
int64_t dot_grad_extremum_workspace(const struct dot_problem *p);
int64_t dot_grad_fold_workspace(const struct dot_problem *p);

#endif
