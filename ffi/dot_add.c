/* Adding gradients, for each type. */
#include "dot_add.h"

#include <stddef.h>
#include <string.h>

#include "dot_transpose.h"

/* Channels and pixels that are added at a time where channels lie side by side. */
#define CHANNELS 16
#define PIXELS 32

#define NAME(function) function##_float
#define ELEMENT float
#include "dot_add_body.h"
#define NAME(function) function##_double
#define ELEMENT double
#include "dot_add_body.h"

#define BY_TYPE(function, ...)                                                                                         \
    (p->kernels->element == sizeof(float) ? function##_float(__VA_ARGS__) : function##_double(__VA_ARGS__))

void dot_add_columns(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1, const struct segment *segments,
                     int n, int64_t lanes, const void *panel, void *image)
{
    BY_TYPE(add_columns, p, group, k0, k1, segments, n, lanes, panel, image);
}

void dot_add_up(const struct dot_problem *p, int64_t count, void *sums, double *totals)
{
    BY_TYPE(add_up, count, sums, totals);
}

void dot_add_totals(const struct dot_problem *p, int64_t count, const double *totals, int64_t parts, int64_t step,
                    void *dw)
{
    BY_TYPE(add_totals, count, totals, parts, step, dw);
}

void dot_add_numbers(const struct dot_problem *p, int64_t count, const double *totals, void *dw)
{
    int number;

    for (number = 0; number < p->kernels->numbers; number++)
        dot_add_totals(p, count, totals + number * count, 1, 0,
                       (char *)dw + number * weights(p) * p->kernels->element);
}

void dot_add_partials(const struct dot_problem *p, int64_t group, int64_t filter, int64_t k0, int64_t k1,
                      const struct segment *segments, int n, const int32_t *arg, const void *grad, void *dw, void *dx)
{
    BY_TYPE(add_partials, p, group, filter, k0, k1, segments, n, arg, grad, dw, dx);
}
