/* Images sorted by phase: how boxes are cut, and grids of elements for each size. */
#include "dot_phases.h"

#include <stddef.h>
#include <string.h>

#include "dot_four.h"
#include "dot_transpose.h"

/* Filters of a group whose columns aren't worth packing. */
#define MOST_FILTERS 8
/* Blocks along one axis of a box, and how far taps reach at most: so that nothing overflows. */
#define MOST_BLOCKS 8192

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

/* Lanes that kernels compute for one box, where a call takes as long as two panels. */
static int64_t lanes_of(const struct phases *s, int level)
{
    /* Those of AVX2 and floats: the choice is the same for all. */
    const int64_t lanes = 16, pairs = ceiling(run_length(s, s->box, level), 2 * lanes);

    return (pairs + 1) * 2 * lanes * (level > 0 ? s->box[0] : 1) * (level > 1 ? s->box[1] : 1);
}

int dot_cut(const struct dot_problem *p, int64_t channels, int64_t others, int64_t room, struct phases *s)
{
    int64_t reach[3], each;
    int axis;

    for (axis = 0; axis < 3; axis++) {
        s->count[axis] = smaller(p->stride[axis] / common_divisor(p->stride[axis], p->dilation[axis]), p->kernel[axis]);
        reach[axis] = ahead_of(p, p->kernel[axis] - 1, axis);
        if (reach[axis] > MOST_BLOCKS)
            return 0;
        s->box[axis] = smaller(p->blocks[axis], MOST_BLOCKS);
        s->size[axis] = s->box[axis] + reach[axis];
    }
    if (channels > room || channels * volume(s->count) > room - others)
        return 0;
    each = channels * volume(s->count) + others;
    for (axis = 0; axis < 3; axis++) {
        const int64_t slice = each * volume(s->size) / s->size[axis];

        if (slice * s->size[axis] > room)
            s->box[axis] = larger(1, room / slice - reach[axis]);
        s->boxes[axis] = ceiling(p->blocks[axis], s->box[axis]);
        s->box[axis] = ceiling(p->blocks[axis], s->boxes[axis]);
        s->size[axis] = s->box[axis] + reach[axis];
    }
    return each * volume(s->size) <= room;
}

int dot_is_direct(const struct dot_problem *p, struct phases *s)
{
    int axis;

    if (p->filters > MOST_FILTERS || p->last != ~(uint64_t)0 ||
        !dot_cut(p, p->channels, p->filters, BOX_ELEMENTS, s) ||
        3 * p->channels * phases_volume(s) > 4 * taps(p) * volume(s->box))
        return 0;
    s->level = 0;
    for (axis = 1; axis < 3; axis++)
        if (lanes_of(s, axis) < lanes_of(s, s->level))
            s->level = axis;
    return lanes_of(s, s->level) <= 4 * volume(s->box);
}

/* Four pairs of elements of four bytes: the first of each, and the second. */
static inline void split_pairs(const uint32_t *pairs, uint32_t *firsts, uint32_t *seconds)
{
    four left, right, out;

    /* One by one: in an array, GCC would keep them in memory. */
    memcpy(&left, pairs, sizeof left);
    memcpy(&right, pairs + 4, sizeof right);
    out = FOUR(left, right, 0, 2, 4, 6);
    memcpy(firsts, &out, sizeof out);
    out = FOUR(left, right, 1, 3, 5, 7);
    memcpy(seconds, &out, sizeof out);
}

#define BODY "dot_phases_body.h"
#include "dot_sizes.h"

void dot_take(int64_t element, const void *array, struct several several, const struct grid *grid,
              const int64_t *count, const uint8_t *pad, void *out)
{
    BY_SIZE(element, take, array, several, grid, count, pad, out);
}

void dot_take_pairs(int64_t element, const void *array, struct several several, const struct grid *grid,
                    const int64_t *count, const uint8_t *pad, void *out)
{
    BY_SIZE(element, take_pairs, array, several, grid, count, pad, out);
}

void dot_take_mask(int64_t element, const struct grid *grid, const int64_t *count, void *out)
{
    static const uint64_t bits = ~(uint64_t)0;
    static const uint8_t none[8];
    struct grid same = *grid;

    memset(same.strides, 0, sizeof same.strides);
    dot_take(element, &bits, (struct several){1, 0, 0}, &same, count, none, out);
}

void dot_put(int64_t element, const void *values, struct several several, const int64_t *size, const int64_t *count,
             const struct grid *grid, void *array)
{
    BY_SIZE(element, put, values, several, size, count, grid, array);
}
