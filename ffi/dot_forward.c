/* The forward call: tiles of results, from packed weights and panels of columns. */
#include "dot_direct.h"
#include "dot_few.h"
#include "dot_fours.h"
#include "dot_pack.h"
#include "dot_slab.h"
#include "dot_workspace.h"

struct forward {
    const struct dot_problem *p;
    struct slab slab;
    char *y;
    char *weights;        /* packed: for each tile of filters [k][plane][rows] */
    int64_t depth;        /* terms of one block */
    int64_t panels;       /* of one task */
    int64_t tasks_along;  /* tasks that share filters */
    int64_t chunk;        /* filters of one task */
    int32_t finite;       /* whether all weights are */
};

static void pack_forward(void *context, int64_t task, char *scratch)
{
    struct forward *f = (struct forward *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t e = p->kernels->element, filters = s->f1 - s->f0, depth = s->k1 - s->k0;
    const int64_t chunks = ceiling(filters, f->chunk), group = task / chunks;
    const int64_t o0 = task % chunks * f->chunk, o1 = smaller(filters, o0 + f->chunk);
    const int planes = p->kernels->planes;
    int64_t o;
    int rows, plane;

    (void)scratch;
    for (o = o0; o < o1; o += rows) {
        char *packed = f->weights + (group * filters + o) * depth * weight_bytes(p);

        rows = tile_rows(o1 - o, p->kernels->rows);
        for (plane = 0; plane < planes; plane++)
            dot_pack_filters(p, plane, (s->g0 + group) * p->filters + s->f0 + o, rows, s->k0, s->k1, planes * rows,
                             packed + plane * rows * e);
        if (p->kernels->finite & DOT_TERMS && !p->kernels->operands_finite(planes * rows * depth, packed))
            __atomic_store_n(&f->finite, 0, __ATOMIC_RELAXED);
    }
}

static void forward_task(void *context, int64_t task, char *scratch)
{
    const struct forward *f = (const struct forward *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const struct slab *s = &f->slab;
    const int64_t t = kernels->total, lanes = kernels->lanes, filters = s->f1 - s->f0;
    const int64_t chunks = ceiling(filters, f->chunk);
    const int64_t group = task / f->tasks_along / chunks, o0 = task / f->tasks_along % chunks * f->chunk;
    const int64_t o1 = smaller(filters, o0 + f->chunk);
    const int64_t start = task % f->tasks_along * f->panels * lanes;
    const int64_t end = smaller(positions(p), start + f->panels * lanes);
    const int64_t filter = (s->g0 + group) * p->filters + s->f0;
    char *panel = scratch, *mask = panel + panel_bytes(p, f->depth, lanes);
    char *tile = mask + mask_bytes(p, f->depth, lanes);
    struct segment segments[POSITIONS];
    int64_t position;

    for (position = start; position < end; position += lanes) {
        const int64_t count = smaller(lanes, end - position);
        const int n = dot_list_segments(p, position, count, segments);
        const int direct = count == lanes && dot_side_by_side(p, segments, n);
        char *out = tile;
        int64_t stride = lanes, k, o;
        int rows;

        if (direct) {
            out = f->y +
                  (segments[0].image * p->y_strides[0] + (filter + o0) * p->y_strides[1] + segments[0].place) * t;
            stride = p->y_strides[1];
        } else if (s->k0 > 0) {
            dot_gather(p, t, f->y, filter + o0, o1 - o0, segments, n, lanes, tile);
        }
        for (k = s->k0; k < s->k1; k += f->depth) {
            const int64_t depth = smaller(f->depth, s->k1 - k);
            const void *there = dot_pack(p, s->g0 + group, k, k + depth, segments, n, lanes, panel, mask);
            const int finite = f->finite && kernels->operands_finite(depth * lanes, panel);

            for (o = o0; o < o1; o += rows) {
                rows = tile_rows(o1 - o, kernels->rows);
                kernels->forward(kernels, rows, depth,
                                 f->weights + ((group * filters + o) * (s->k1 - s->k0) + (k - s->k0) * rows) *
                                                  weight_bytes(p),
                                 panel, there, out + (o - o0) * stride * t, stride, k == 0, finite);
            }
        }
        if (!direct)
            dot_scatter(p, t, tile, filter + o0, o1 - o0, segments, n, lanes, f->y);
    }
}

static int64_t forward_chunk(const struct dot_problem *p)
{
    /* Chunks are whole tiles. Where panels are few there are more chunks, so that all threads have work. */
    const int64_t unit = 2 * 12, panels = ceiling(positions(p), p->kernels->lanes);
    int64_t chunk = CHUNK / unit * unit;

    while (chunk > 2 * unit && p->groups * panels * ceiling(p->filters, chunk) < 4 * p->threads)
        chunk -= unit;
    return chunk;
}

static int64_t forward_scratch(const struct dot_problem *p)
{
    const struct dot_kernels *kernels = p->kernels;
    const int64_t depth = forward_depth(p), lanes = kernels->lanes;

    return panel_bytes(p, depth, lanes) + mask_bytes(p, depth, lanes) +
           aligned(smaller(p->filters, forward_chunk(p)) * lanes * kernels->total);
}

static struct slab forward_slab(const struct dot_problem *p)
{
    return dot_slab_size(p, p->kernels->rows, forward_depth(p));
}

int64_t dot_forward_workspace(const struct dot_problem *p)
{
    const struct slab size = forward_slab(p);

    if (p->kernels->fours)
        return dot_fours_workspace(p);
    if (p->kernels->direct && dot_is_direct_forward(p))
        return dot_direct_workspace(p);
    if (p->kernels->few && dot_is_few(p))
        return dot_few_workspace(p);
    return dot_slab_bytes(p, &size) + p->threads * forward_scratch(p);
}

void dot_forward(const struct dot_problem *p, void *y, void *workspace)
{
    const struct slab size = forward_slab(p);
    struct slab slab = dot_first_slab(p, &size);
    const int64_t panels = ceiling(positions(p), p->kernels->lanes);
    struct forward f = {.p = p, .y = (char *)y, .weights = (char *)workspace, .depth = forward_depth(p)};
    char *scratch = (char *)workspace + dot_slab_bytes(p, &size);

    if (p->kernels->fours) {
        dot_fours(p, y, workspace);
        return;
    }
    if (p->kernels->direct && dot_is_direct_forward(p)) {
        dot_direct(p, y, workspace);
        return;
    }
    if (p->kernels->few && dot_is_few(p)) {
        dot_few(p, y, workspace);
        return;
    }
    f.chunk = forward_chunk(p);
    do {
        const int64_t groups = slab.g1 - slab.g0, chunks = ceiling(slab.f1 - slab.f0, f.chunk);

        f.slab = slab;
        f.finite = p->kernels->finite & DOT_TERMS && scalars_finite(p);
        run(p, groups * chunks, pack_forward, &f, scratch, 0);
        /* Some dozen tasks a thread, so that all end at about the same time. */
        f.panels = larger(1, smaller(panels, groups * chunks * panels / (16 * p->threads)));
        f.tasks_along = ceiling(panels, f.panels);
        run(p, groups * chunks * f.tasks_along, forward_task, &f, scratch, forward_scratch(p));
    } while (dot_next_slab(p, &size, &slab));
}
