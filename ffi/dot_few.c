/* The forward call for few positions: panels of columns would be of lanes that have none, and packed weights be used but
 * once or twice. So the lanes are taps, whose weights are read where they lie. */
#include "dot_few.h"

#include <string.h>

#include "dot_pack.h"
#include "dot_transpose.h"

/* Positions from which on it is worth finding out whether weights are finite. */
#define WORTH 3
/* Filters that are copied at a time, where weights don't lie along taps: as many as share cache lines. */
#define TOGETHER 16
/* Filters of one task. */
#define FILTERS 64

struct few {
    const struct dot_problem *p;
    char *y;
    char *rows;  /* of pixels: for each group [position][tap] */
    int32_t finite;
};

static const struct tap no_tap;

static int64_t rows_bytes(const struct dot_problem *p)
{
    return aligned(positions(p) * taps(p) * p->kernels->element);
}

/* Terms that are added up in one go: whole vectors, but at the end. */
static int64_t few_depth(const struct dot_problem *p)
{
    return ceiling(forward_depth(p), p->kernels->lanes) * p->kernels->lanes;
}

int dot_is_few(const struct dot_problem *p)
{
    const int64_t lanes = p->kernels->lanes;
    int axis;

    /* Of more positions panels are full, and of fewer taps it takes longer to add up a vector's lanes. */
    if (2 * positions(p) > 3 * lanes || positions(p) * lanes > 2 * taps(p))
        return 0;
    for (axis = 0; axis < 3; axis++)
        if (p->before[axis] != 0 || (p->blocks[axis] - 1) * p->stride[axis] +
                                            (p->kernel[axis] - 1) * p->dilation[axis] >= p->image[axis])
            return 0;
    return 1;
}

/* Whether taps are channels, and lie side by side. */
static int lies_along(const struct dot_problem *p, const int64_t *strides)
{
    return strides[1] == 1 && volume(p->kernel) == 1;
}

static void pack_rows(const struct dot_problem *p, int64_t group, char *rows)
{
    const int64_t bytes = taps(p) * p->kernels->element;
    struct segment segment;
    int64_t position;

    for (position = 0; position < positions(p); position++, rows += bytes) {
        dot_list_segments(p, position, 1, &segment);
        if (lies_along(p, p->x_strides))
            memcpy(rows, (const char *)p->x + (group * p->channels + row_offset(p, &segment, &no_tap, p->x_strides) +
                                               segment.x * p->x_strides[4]) * p->kernels->element, (size_t)bytes);
        else
            dot_pack_columns(p, group, 0, taps(p), &segment, 1, 1, rows);
    }
}

/* All taps of some filters, where they are or in `room`. stride: from one filter to the next. */
static const char *weights_of(const struct dot_problem *p, int64_t filter, int64_t filters, char *room, int64_t *stride)
{
    const int64_t e = p->kernels->element;
    const char *w = (const char *)p->w + filter * p->w_strides[0] * e;
    int64_t o;

    *stride = p->w_strides[0];
    if (lies_along(p, p->w_strides) || dense_weights(p))
        return w;
    *stride = taps(p);
    if (p->w_strides[0] == 1 && volume(p->kernel) == 1)
        dot_transpose(e, w, p->w_strides[1], taps(p), filters, room, *stride);
    else
        for (o = 0; o < filters; o++)
            dot_copy_filter(p, filter + o, 0, taps(p), room + o * *stride * e);
    return room;
}

static void few_task(void *context, int64_t task, char *scratch)
{
    const struct few *f = (const struct few *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, t = kernels->total, chunks = ceiling(p->filters, FILTERS), group = task / chunks;
    const int64_t first = task % chunks * FILTERS, filters = smaller(FILTERS, p->filters - first), all = positions(p);
    const char *rows = f->rows + group * rows_bytes(p), *w = NULL;
    char *out = scratch, *room = out + aligned(FILTERS * all * t);
    struct segment segments[POSITIONS];
    int64_t o, k, depth, stride;
    int i, finite;

    for (o = 0; o < filters; o += DOT_FEW_FILTERS) {
        const int count = (int)smaller(DOT_FEW_FILTERS, filters - o);

        if (o % TOGETHER == 0)
            w = weights_of(p, group * p->filters + first + o, smaller(TOGETHER, filters - o), room, &stride);
        for (k = 0; k < taps(p); k += depth) {
            const char *part = w + (o % TOGETHER * stride + k) * e;

            depth = smaller(few_depth(p), taps(p) - k);
            for (i = 0, finite = f->finite; finite && i < count; i++)
                finite = kernels->operands_finite(depth, part + i * stride * e);
            kernels->few(kernels, count, all, depth, part, stride, rows + k * e, taps(p), out + o * all * t, all, k == 0,
                         finite);
        }
    }
    dot_scatter(p, t, out, group * p->filters + first, filters, segments, dot_list_segments(p, 0, all, segments), all,
                f->y);
}

static int64_t few_scratch(const struct dot_problem *p)
{
    return aligned(FILTERS * positions(p) * p->kernels->total) +
           aligned(smaller(TOGETHER, p->filters) * taps(p) * p->kernels->element);
}

int64_t dot_few_workspace(const struct dot_problem *p)
{
    return p->groups * rows_bytes(p) + p->threads * few_scratch(p);
}

void dot_few(const struct dot_problem *p, void *y, void *workspace)
{
    struct few f = {p, (char *)y, (char *)workspace, 0};
    int64_t group;

    f.finite = p->kernels->finite & DOT_TERMS && positions(p) >= WORTH && scalars_finite(p);
    for (group = 0; group < p->groups; group++) {
        char *rows = f.rows + group * rows_bytes(p);

        pack_rows(p, group, rows);
        f.finite = f.finite && p->kernels->operands_finite(positions(p) * taps(p), rows);
    }
    run(p, p->groups * ceiling(p->filters, FILTERS), few_task, &f, f.rows + p->groups * rows_bytes(p), few_scratch(p));
}
