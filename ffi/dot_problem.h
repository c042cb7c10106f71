/* What all files of the dot product ask of a problem, and how they run its tasks. */
#ifndef DOT_PROBLEM_H
#define DOT_PROBLEM_H

#include "dot.h"
#include "parallel.h"
#include "walk.h"

/* Filters, or taps, that one task takes on at most. This bounds a thread's scratch. */
#define CHUNK 256

/* The function for elements of so many bytes. */
#define BY_SIZE(bytes, function, ...)                                                                                  \
    ((bytes) == 4   ? function##_4(__VA_ARGS__)                                                                        \
     : (bytes) == 8 ? function##_8(__VA_ARGS__)                                                                        \
     : (bytes) == 1 ? function##_1(__VA_ARGS__)                                                                        \
                    : function##_2(__VA_ARGS__))

/* Terms of one result. */
static inline int64_t taps(const struct dot_problem *p) { return p->channels * volume(p->kernel); }
/* Weights of all filters, and bytes of one with its parameters beside it. */
static inline int64_t weights(const struct dot_problem *p) { return p->groups * p->filters * taps(p); }
static inline int64_t weight_bytes(const struct dot_problem *p) { return p->kernels->planes * p->kernels->element; }
/* Whether parameters that are one number for all are finite. */
static inline int scalars_finite(const struct dot_problem *p)
{
    return p->kernels->numbers == p->kernels->planes ||
           p->kernels->operands_finite(p->kernels->numbers - p->kernels->planes, p->kernels->scalars);
}
/* Terms that forward adds up in one go: equal parts of a result's terms. */
static inline int64_t forward_depth(const struct dot_problem *p)
{
    return ceiling(taps(p), ceiling(taps(p), p->kernels->depth));
}

/* Where the tap of a filter lies in w. */
static inline int64_t weight_offset(const struct dot_problem *p, int64_t filter, const struct tap *tap)
{
    const int64_t *s = p->w_strides;

    return filter * s[0] + tap->channel * s[1] + tap->z * s[2] + tap->y * s[3] + tap->x * s[4];
}
/* Whether the weights lie one after the other. */
static inline int dense_weights(const struct dot_problem *p)
{
    const int64_t *s = p->w_strides, *kernel = p->kernel;

    return s[4] == 1 && s[3] == kernel[2] && s[2] == kernel[1] * kernel[2] && s[1] == volume(kernel) && s[0] == taps(p);
}

/* Positions in one image, and in all. */
static inline int64_t length(const struct dot_problem *p) { return volume(p->blocks); }
static inline int64_t positions(const struct dot_problem *p) { return p->batch * length(p); }

/* Whether the results of one filter in one image lie one after the other. */
static inline int dense_positions(const struct dot_problem *p)
{
    const int64_t *s = p->y_strides, *blocks = p->blocks;

    return s[4] == 1 && (blocks[1] == 1 || s[3] == blocks[2]) && (blocks[0] == 1 || s[2] == blocks[1] * blocks[2]);
}

/* Images of one task, where tasks add to pixels. Depends on shapes alone, and so does the order of these sums. */
static inline int64_t images_of_task(const struct dot_problem *p) { return smaller(p->batch, ceiling(256, length(p))); }

/* The rows of the next tile, where `left` rows are to be handled, `most` at a time. No tile is padded, and 16 is
 * 8 and 8 rather than 12 and 4. */
static inline int tile_rows(int64_t left, int most)
{
    if (left >= most && !(most == 12 && left == 16))
        return most;
    return left >= 8 && most == 12 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* Runs function(context, task, scratch) for each task; each thread has `bytes` of scratch. */
static inline void run(const struct dot_problem *p, int64_t tasks, void (*function)(void *, int64_t, char *),
                       void *context, char *scratch, int64_t bytes)
{
    parallel_for(p->threads, p->parallel, tasks, function, context, scratch, bytes);
}

#endif
