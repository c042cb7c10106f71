/* Packing, for elements of each size. */
#include "dot_pack.h"

#include <stddef.h>
#include <string.h>

#include "dot_transpose.h"

/* The lanes of a segment that have a pixel at one tap of the kernel, and where in a channel the first of these is. */
struct span {
    int32_t first;
    int32_t last;
    int64_t offset;
};

/* As many spans as are kept: more than there may be segments. */
#define SPANS (2 * POSITIONS)

/* Of a channel's taps [t0, t1), of each of all segments. Returns whether any lane has no pixel. */
static int list_spans(const struct dot_problem *p, int64_t t0, int64_t t1, const struct segment *segments, int n,
                      struct span *spans)
{
    struct tap tap = tap_at(p->kernel, t0);
    int64_t t;
    int i, missing = 0;

    for (t = t0; t < t1; t++, next_tap(p->kernel, &tap))
        for (i = 0; i < n; i++, spans++) {
            const int64_t x = segments[i].x + tap.x * p->dilation[2];
            const int64_t row = row_offset(p, &segments[i], &tap, p->x_strides);
            struct range lanes = {0, 0};

            if (row != PADDING)
                lanes = inside(x, p->stride[2], p->image[2], segments[i].count);
            *spans = (struct span){(int32_t)lanes.first, (int32_t)lanes.last, 0};
            if (lanes.first < lanes.last)
                spans->offset = row + (x + lanes.first * p->stride[2]) * p->x_strides[4];
            missing |= lanes.first > 0 || lanes.last < segments[i].count;
        }
    return missing;
}

/* How far the end of elements of five dimensions is from the first one. */
static int64_t span_of(const int64_t *sizes, const int64_t *strides)
{
    int64_t end = 1;
    int i;

    for (i = 0; i < 5; i++)
        end += (sizes[i] - 1) * larger(0, strides[i]);
    return end;
}

/* What the next panel will want, if there is one: else it may lie beyond all that a pointer can say. */
static inline void prefetch(const void *from, uint64_t bytes)
{
    __builtin_prefetch((const void *)((uintptr_t)from + (uintptr_t)bytes));
}

#define BODY "dot_pack_body.h"
#include "dot_sizes.h"

const void *dot_pack(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1, const struct segment *segments,
                     int n, int64_t lanes, void *panel, void *mask)
{
    const int outside = BY_SIZE(p->kernels->element, pack_columns, p, group, k0, k1, segments, n, lanes, panel);

    if (!p->skips || (!outside && p->last == ~(uint64_t)0))
        return NULL;
    BY_SIZE(p->kernels->element, pack_masks, p, k0, k1, segments, n, lanes, mask);
    return mask;
}

void dot_pack_columns(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                      const struct segment *segments, int n, int64_t lanes, void *panel)
{
    BY_SIZE(p->kernels->element, pack_columns, p, group, k0, k1, segments, n, lanes, panel);
}

void dot_pack_filters(const struct dot_problem *p, int plane, int64_t filter, int rows, int64_t k0, int64_t k1,
                      int64_t step, void *out)
{
    const int64_t e = p->kernels->element;

    if (rows == 1 && step == 1 && dense_weights(p))
        memcpy(out, (const char *)p->w + (plane * weights(p) + filter * taps(p) + k0) * e, (size_t)((k1 - k0) * e));
    else
        BY_SIZE(e, pack_filters, p, plane, filter, rows, k0, k1, step, out);
}

void dot_copy_filter(const struct dot_problem *p, int64_t filter, int64_t k0, int64_t k1, void *out)
{
    dot_pack_filters(p, 0, filter, 1, k0, k1, 1, out);
}

const void *dot_filter(const struct dot_problem *p, int64_t filter, int64_t k0, int64_t k1, void *room)
{
    if (dense_weights(p))
        return (const char *)p->w + (filter * taps(p) + k0) * p->kernels->element;
    dot_copy_filter(p, filter, k0, k1, room);
    return room;
}

void dot_gather(const struct dot_problem *p, int64_t element, const void *result, int64_t filter, int64_t filters,
                const struct segment *segments, int n, int64_t lanes, void *tile)
{
    BY_SIZE(element, gather, p, result, filter, filters, segments, n, lanes, tile);
}

void dot_scatter(const struct dot_problem *p, int64_t element, const void *tile, int64_t filter, int64_t filters,
                 const struct segment *segments, int n, int64_t lanes, void *result)
{
    BY_SIZE(element, scatter, p, tile, filter, filters, segments, n, lanes, result);
}
