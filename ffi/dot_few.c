/* Few positions, forward and gradients of sums: panels of columns would be of lanes that have none, and packed weights be used but
 * once or twice. So the lanes are taps, whose weights are read where they lie. */
#include "dot_few.h"

#include <string.h>

#include "dot_add.h"
#include "dot_pack.h"
#include "dot_transpose.h"

/* Positions from which on it is worth finding out whether weights are finite. */
#define WORTH 3
/* Filters that are copied at a time, where weights don't lie along taps: as many as share cache lines. */
#define TOGETHER 16
/* Bytes of the rows that are read and written for each few filters' gradients. */
#define ROOM (16 << 10)
/* Bytes of rows that are copied, at most: whether they are, how operands lie decides, but whether this is for them, not. */
#define MOST_COPIED (4 << 20)
/* Filters of one task: of the forward call. */
#define FILTERS 64

struct few {
    const struct dot_problem *p;
    char *y;           /* of the forward call */
    const char *grad;  /* of gradients, of which dx or dw may be NULL */
    char *dx, *dw;
    int64_t strip;     /* taps of one task: of gradients */
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
    /* Rows of both operands may have to be copied. */
    if (larger(TOGETHER, p->groups * positions(p)) * taps(p) > MOST_COPIED / p->kernels->element)
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

/* Taps [k0, k1) of some filters, where they are or in `room`. stride: from one filter to the next. */
static const char *weights_of(const struct dot_problem *p, int64_t filter, int64_t filters, int64_t k0, int64_t k1,
                              char *room, int64_t *stride)
{
    const int64_t e = p->kernels->element;
    const char *w = (const char *)p->w + filter * p->w_strides[0] * e;
    int64_t o;

    *stride = p->w_strides[0];
    if (lies_along(p, p->w_strides) || dense_weights(p))
        return w + k0 * e;
    *stride = k1 - k0;
    if (p->w_strides[0] == 1 && volume(p->kernel) == 1)
        dot_transpose(e, w + k0 * p->w_strides[1] * e, p->w_strides[1], *stride, filters, room, *stride);
    else
        for (o = 0; o < filters; o++)
            dot_copy_filter(p, filter + o, k0, k1, room + o * *stride * e);
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
            w = weights_of(p, group * p->filters + first + o, smaller(TOGETHER, filters - o), 0, taps(p),
                           room, &stride);
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
    struct few f = {.p = p, .y = (char *)y, .rows = (char *)workspace};
    int64_t group;

    f.finite = p->kernels->finite & DOT_TERMS && positions(p) >= WORTH && scalars_finite(p);
    for (group = 0; group < p->groups; group++) {
        char *rows = f.rows + group * rows_bytes(p);

        pack_rows(p, group, rows);
        f.finite = f.finite && p->kernels->operands_finite(positions(p) * taps(p), rows);
    }
    run(p, p->groups * ceiling(p->filters, FILTERS), few_task, &f, f.rows + p->groups * rows_bytes(p), few_scratch(p));
}

/* Gradients of all filters and of the taps [k0, k1) of a group: tasks share no pixels of dx's rows, and no weights. */
static void few_grads_task(void *context, int64_t task, char *scratch)
{
    const struct few *f = (const struct few *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, all = positions(p), strips = ceiling(taps(p), f->strip), group = task / strips;
    const int64_t k0 = task % strips * f->strip, k1 = smaller(taps(p), k0 + f->strip), depth = k1 - k0;
    const char *rows = f->rows + group * rows_bytes(p) + k0 * e, *w = NULL;
    const int64_t tile = aligned(smaller(CHUNK, p->filters) * all * e);
    char *g = scratch, *y = kernels->saved ? g + tile : NULL, *columns = g + (kernels->saved ? 2 : 1) * tile;
    char *room = columns + aligned(all * f->strip * e);
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, 0, all, segments);
    int64_t chunk, o, i, stride;

    for (chunk = 0; chunk < p->filters; chunk += CHUNK) {
        const int64_t filter = group * p->filters + chunk, filters = smaller(CHUNK, p->filters - chunk);

        dot_gather(p, e, f->grad, filter, filters, segments, n, all, g);
        if (y != NULL)
            dot_gather(p, e, p->saved, filter, filters, segments, n, all, y);
        memset(columns, 0, (size_t)(all * depth * e));
        for (o = 0; o < filters; o += DOT_FEW_FILTERS) {
            if (o % TOGETHER == 0)
                w = weights_of(p, filter + o, smaller(TOGETHER, filters - o), k0, k1, room, &stride);
            kernels->few_grads(kernels, (int)smaller(DOT_FEW_FILTERS, filters - o), all, depth,
                               w + o % TOGETHER * stride * e, stride, g + o * all * e, all,
                               y == NULL ? NULL : y + o * all * e, rows, taps(p), f->dx == NULL ? NULL : columns,
                               f->dw == NULL ? NULL : f->dw + ((filter + o) * taps(p) + k0) * e, taps(p), weights(p));
        }
        for (i = 0; f->dx != NULL && i < all; i++) {
            struct segment segment;

            dot_list_segments(p, i, 1, &segment);
            dot_add_columns(p, group, k0, k1, &segment, 1, 1, columns + i * depth * e, f->dx);
        }
    }
}

/* As many taps as leave room in the first cache for what is read and written of all positions; whole channels, whose taps
 * may be of the same pixels. */
static int64_t strip_of(const struct dot_problem *p)
{
    const int64_t unit = volume(p->kernel) == 1 ? 4 * p->kernels->lanes : volume(p->kernel);
    int64_t units = larger(1, ROOM / (2 * positions(p) * p->kernels->element) / unit);

    while (units > 1 && p->groups * ceiling(taps(p), units * unit) < 2 * p->threads)
        units = ceiling(units, 2);
    return smaller(taps(p), units * unit);
}

static int64_t few_grads_scratch(const struct dot_problem *p)
{
    const int64_t e = p->kernels->element, filters = smaller(CHUNK, p->filters);

    return (p->kernels->saved ? 2 : 1) * aligned(filters * positions(p) * e) +
           aligned(positions(p) * strip_of(p) * e) + aligned(smaller(TOGETHER, p->filters) * strip_of(p) * e);
}

int64_t dot_few_grads_workspace(const struct dot_problem *p)
{
    return p->groups * rows_bytes(p) + p->threads * few_grads_scratch(p);
}

void dot_few_grads(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace)
{
    struct few f = {.p = p, .grad = (const char *)grad, .dx = (char *)dx, .dw = (char *)dw, .strip = strip_of(p),
                    .rows = (char *)workspace};
    int64_t group;

    for (group = 0; group < p->groups; group++)
        pack_rows(p, group, f.rows + group * rows_bytes(p));
    run(p, p->groups * ceiling(taps(p), f.strip), few_grads_task, &f, f.rows + p->groups * rows_bytes(p),
        few_grads_scratch(p));
}
