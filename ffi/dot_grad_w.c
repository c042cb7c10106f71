/* Gradients of sums with respect to weights. */
#include <string.h>

#include "dot_direct.h"
#include "dot_pack.h"
#include "dot_workspace.h"

struct grad_w {
    const struct dot_problem *p;
    const char *grad;
    char *dw;
    int64_t taps;     /* of one task */
    int64_t filters;  /* of one task */
};

/* Rows of gradients, or of results: where they are, if that can be, or else in a tile. row: the step between them. */
static const char *rows_of(const struct dot_problem *p, const char *result, int64_t filter, int64_t filters,
                           const struct segment *segments, int n, int64_t count, int64_t stride, char *tile,
                           int64_t *row)
{
    const int64_t e = p->kernels->element;

    if (count == stride && dot_side_by_side(p, segments, n)) {
        *row = p->y_strides[1];
        return result + (segments[0].image * p->y_strides[0] + filter * p->y_strides[1] + segments[0].place) * e;
    }
    dot_gather(p, e, result, filter, filters, segments, n, stride, tile);
    *row = stride;
    return tile;
}

/* One block of positions, for filters [f0, f1) and taps [k0, k1): w and dw are of these, w_stride apart. */
static void grad_w_block(const struct dot_problem *p, const char *grad, const char *w, char *dw, int64_t w_stride,
                         int64_t group, int64_t f0, int64_t f1, int64_t k0, int64_t k1, int64_t start, int64_t count,
                         int finite, char *scratch)
{
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, vector = kernels->lanes / 2, stride = ceiling(count, vector) * vector;
    const int64_t filter = group * p->filters + f0;
    char *panel = scratch, *mask = panel + panel_bytes(p, k1 - k0, stride);
    char *tile = mask + mask_bytes(p, k1 - k0, stride), *saved = tile + panel_bytes(p, f1 - f0, stride);
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, start, count, segments);
    const void *there = dot_pack(p, group, k0, k1, segments, n, stride, panel, mask);
    int64_t g_stride, y_stride = 0, o;
    const char *g = rows_of(p, grad, filter, f1 - f0, segments, n, count, stride, tile, &g_stride), *y = NULL;

    if (kernels->saved)
        y = rows_of(p, (const char *)p->saved, filter, f1 - f0, segments, n, count, stride, saved, &y_stride);
    finite = finite && kernels->operands_finite((k1 - k0) * stride, panel);
    for (o = 0; finite && o < f1 - f0; o++)
        finite = kernels->gradients_finite(count, g + o * g_stride * e);
    kernels->grad_w(kernels, f1 - f0, k1 - k0, count, w, w_stride, g, g_stride, y, y_stride, panel, stride, there, dw,
                    finite);
}

/* Bytes of the copies of one task's weights and of their gradients. */
static int64_t tile_bytes(const struct grad_w *f)
{
    return dense_weights(f->p) ? 0 : aligned(2 * f->filters * f->taps * f->p->kernels->element);
}

static void grad_w_task(void *context, int64_t task, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const struct dot_problem *p = f->p;
    const int64_t along = ceiling(taps(p), f->taps), chunks = ceiling(p->filters, f->filters);
    const int64_t k0 = task % along * f->taps, k1 = smaller(taps(p), k0 + f->taps);
    const int64_t f0 = task / along % chunks * f->filters, f1 = smaller(p->filters, f0 + f->filters);
    const int64_t group = task / along / chunks, e = p->kernels->element, lanes = p->kernels->lanes;
    /* Blocks lie within images, unless these are small. They depend on shapes alone, and so does the order of sums. */
    const int64_t row = length(p) >= 256 ? length(p) : positions(p);
    const int64_t blocks = ceiling(row, POSITIONS), block = ceiling(ceiling(row, blocks), lanes) * lanes;
    const int64_t filter = group * p->filters + f0, row_bytes = (k1 - k0) * e;
    const int dense = dense_weights(p);
    char *to = f->dw + (filter * taps(p) + k0) * e, *w_tile = scratch, *dw = to;
    const char *w = (const char *)p->w + (filter * taps(p) + k0) * e;
    int64_t w_stride = taps(p), plane, o, start, position;
    int finite = p->kernels->finite & DOT_PARTIALS && scalars_finite(p);

    if (!dense) {
        /* Copies of both, since they are as far apart. There are no parameters. */
        w = w_tile;
        dw = w_tile + (f1 - f0) * row_bytes;
        w_stride = k1 - k0;
        for (o = 0; o < f1 - f0; o++) {
            dot_copy_filter(p, filter + o, k0, k1, w_tile + o * row_bytes);
            memcpy(dw + o * row_bytes, to + o * taps(p) * e, (size_t)row_bytes);
        }
        scratch = w_tile + tile_bytes(f);
    }
    for (plane = 0; plane < p->kernels->planes; plane++)
        for (o = 0; finite && o < f1 - f0; o++)
            finite = p->kernels->operands_finite(k1 - k0, w + (plane * weights(p) + o * w_stride) * e);
    for (start = 0; start < positions(p); start += row)
        for (position = 0; position < row; position += block)
            grad_w_block(p, f->grad, w, dw, w_stride, group, f0, f1, k0, k1, start + position,
                         smaller(block, row - position), finite, scratch);
    for (o = 0; !dense && o < f1 - f0; o++)
        memcpy(to + o * taps(p) * e, dw + o * row_bytes, (size_t)row_bytes);
}

/* How many taps and filters a task takes on: fewer until all threads have work. */
static struct grad_w grad_w_split(const struct dot_problem *p)
{
    struct grad_w f = {.p = p, .taps = 64, .filters = 128};

    f.taps = smaller(f.taps, ceiling(taps(p), 4) * 4);
    f.filters = smaller(f.filters, ceiling(p->filters, 2) * 2);
    while (p->groups * ceiling(taps(p), f.taps) * ceiling(p->filters, f.filters) < 4 * p->threads) {
        if (f.taps > 16)
            f.taps = ceiling(f.taps / 2, 4) * 4;
        else if (f.filters > 16)
            f.filters = ceiling(f.filters / 2, 2) * 2;
        else
            break;
    }
    return f;
}

static int64_t grad_w_scratch(const struct dot_problem *p)
{
    const struct grad_w f = grad_w_split(p);

    return tile_bytes(&f) + panel_bytes(p, f.taps, POSITIONS) + mask_bytes(p, f.taps, POSITIONS) +
           (p->kernels->saved ? 2 : 1) * panel_bytes(p, f.filters, POSITIONS);
}

int64_t dot_grad_w_workspace(const struct dot_problem *p)
{
    return p->kernels->direct_grad_w && dot_is_direct_grad_w(p) ? dot_direct_grad_w_workspace(p) : p->threads * grad_w_scratch(p);
}

void dot_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace)
{
    struct grad_w f = grad_w_split(p);

    if (p->kernels->direct_grad_w && dot_is_direct_grad_w(p)) {
        dot_direct_grad_w(p, grad, dw, workspace);
        return;
    }
    f.grad = (const char *)grad;
    f.dw = (char *)dw;
    run(p, p->groups * ceiling(taps(p), f.taps) * ceiling(p->filters, f.filters), grad_w_task, &f,
        (char *)workspace, grad_w_scratch(p));
}
