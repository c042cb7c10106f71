/* Adding gradients to the pixels and the weights that they belong to. */
#ifndef DOT_ADD_H
#define DOT_ADD_H

#include "dot_segments.h"

/* Adds taps [k0, k1) of a panel of columns to the pixels that they came from. */
void dot_add_columns(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1, const struct segment *segments,
                     int n, int64_t lanes, const void *panel, void *image);

/* Adds `count` sums to their totals, and sets them to 0. */
void dot_add_up(const struct dot_problem *p, int64_t count, void *sums, double *totals);

/* Adds to `count` gradients of weights their totals: each is in `parts` parts, which are `step` apart. */
void dot_add_totals(const struct dot_problem *p, int64_t count, const double *totals, int64_t parts, int64_t step,
                    void *dw);

/* The same for `count` of one filter's weights and for their parameters: totals is [number][count], dw the first one's
 * place among all. */
void dot_add_numbers(const struct dot_problem *p, int64_t count, const double *totals, void *dw);

/* Adds one filter's gradients, each to the weight and the pixel that gave the result: arg holds one k a lane, -1 for
 * none. dw: [number][k - k0], of taps [k0, k1) alone. Either may be NULL. */
void dot_add_partials(const struct dot_problem *p, int64_t group, int64_t filter, int64_t k0, int64_t k1,
                      const struct segment *segments, int n, const int32_t *arg, const void *grad, void *dw, void *dx);

#endif
