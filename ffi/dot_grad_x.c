/* Gradients of sums with respect to pixels. */
#include <string.h>

#include "dot_add.h"
#include "dot_direct.h"
#include "dot_few.h"
#include "dot_pack.h"
#include "dot_slab.h"
#include "dot_workspace.h"

struct grad_x {
    const struct dot_problem *p;
    struct slab slab;
    const char *grad;
    char *dx;
    char *weights;
    int64_t unit;           /* taps that are handled at a time: whole channels, or part of one */
    int64_t units_of_task;  /* parts of one channel add to the same pixels, so one task does them all */
    int32_t finite;         /* whether all weights are */
};

static int64_t grad_x_unit(const struct dot_problem *p)
{
    int64_t channels;

    if (volume(p->kernel) > CHUNK)
        return CHUNK;
    channels = smaller(p->channels, larger(1, 128 / volume(p->kernel)));
    while (channels > 1 && channels * volume(p->kernel) > 16 &&
           ceiling(p->batch, images_of_task(p)) * p->groups * ceiling(p->channels, channels) < 4 * p->threads)
        channels = ceiling(channels, 2);
    return channels * volume(p->kernel);
}

static void pack_grad_x(void *context, int64_t task, char *scratch)
{
    struct grad_x *f = (struct grad_x *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t e = p->kernels->element, filters = s->f1 - s->f0, depth = s->k1 - s->k0;
    const int64_t units = ceiling(depth, f->unit), group = task / units;
    const int64_t k0 = task % units * f->unit, k1 = smaller(depth, k0 + f->unit);
    const int planes = p->kernels->planes;
    int64_t k, o;
    int rows, plane;

    (void)scratch;
    for (k = k0; k < k1; k += rows) {
        char *packed = f->weights + (group * depth + k) * filters * weight_bytes(p);

        rows = tile_rows(k1 - k, p->kernels->grad_rows);
        for (o = 0; o < filters; o++)
            for (plane = 0; plane < planes; plane++)
                dot_pack_filters(p, plane, (s->g0 + group) * p->filters + s->f0 + o, 1, s->k0 + k, s->k0 + k + rows, 1,
                                 packed + (o * planes + plane) * rows * e);
        if (p->kernels->finite & DOT_PARTIALS && !p->kernels->operands_finite(planes * rows * filters, packed))
            __atomic_store_n(&f->finite, 0, __ATOMIC_RELAXED);
    }
}

/* Rows of a tile, of gradients or results. Lanes without a position get 0. */
static void gather_rows(const struct dot_problem *p, const void *result, int64_t filter, int64_t rows,
                        const struct segment *segments, int n, int64_t count, char *tile)
{
    const int64_t e = p->kernels->element, lanes = p->kernels->lanes;
    int64_t i;

    dot_gather(p, e, result, filter, rows, segments, n, lanes, tile);
    for (i = 0; count < lanes && i < rows; i++)
        memset(tile + (i * lanes + count) * e, 0, (size_t)((lanes - count) * e));
}

static void grad_x_task(void *context, int64_t task, char *scratch)
{
    const struct grad_x *f = (const struct grad_x *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const struct slab *s = &f->slab;
    const int64_t e = kernels->element, lanes = kernels->lanes, filters = s->f1 - s->f0, depth = s->k1 - s->k0;
    const int64_t units = ceiling(depth, f->unit), tasks = ceiling(units, f->units_of_task);
    const int64_t first_unit = task % tasks * f->units_of_task, group = task / tasks % (s->g1 - s->g0);
    const int64_t images = images_of_task(p), image = task / tasks / (s->g1 - s->g0) * images;
    const int64_t end = smaller(p->batch, image + images) * length(p);
    const int64_t last_unit = smaller(units, first_unit + f->units_of_task);
    const int64_t filter = (s->g0 + group) * p->filters + s->f0;
    char *panel = scratch, *columns = panel + panel_bytes(p, f->unit, lanes);
    char *tile = columns + panel_bytes(p, f->unit, lanes);
    char *saved = kernels->saved ? tile + panel_bytes(p, smaller(p->filters, CHUNK), lanes) : NULL;
    struct segment segments[POSITIONS];
    int64_t position, unit, o, k;

    for (position = image * length(p); position < end; position += lanes) {
        const int64_t count = smaller(lanes, end - position);
        const int n = dot_list_segments(p, position, count, segments);

        for (unit = first_unit; unit < last_unit; unit++) {
            const int64_t k0 = unit * f->unit, k1 = smaller(depth, k0 + f->unit);
            int rows, finite;

            dot_pack_columns(p, s->g0 + group, s->k0 + k0, s->k0 + k1, segments, n, lanes, panel);
            finite = f->finite && kernels->operands_finite((k1 - k0) * lanes, panel);
            for (o = 0; o < filters; o += CHUNK) {
                const int64_t chunk = smaller(CHUNK, filters - o);

                gather_rows(p, f->grad, filter + o, chunk, segments, n, count, tile);
                if (saved != NULL)
                    gather_rows(p, p->saved, filter + o, chunk, segments, n, count, saved);
                finite = finite && kernels->gradients_finite(chunk * lanes, tile);
                for (k = k0; k < k1; k += rows) {
                    rows = tile_rows(k1 - k, kernels->grad_rows);
                    kernels->grad_x(kernels, rows, chunk,
                                    f->weights + ((group * depth + k) * filters + o * rows) * weight_bytes(p), tile,
                                    saved, panel + (k - k0) * lanes * e, columns + (k - k0) * lanes * e, o == 0,
                                    finite);
                }
            }
            dot_add_columns(p, s->g0 + group, s->k0 + k0, s->k0 + k1, segments, n, lanes, columns, f->dx);
        }
    }
}

static int64_t grad_x_scratch(const struct dot_problem *p)
{
    const int64_t lanes = p->kernels->lanes;

    return 2 * panel_bytes(p, grad_x_unit(p), lanes) +
           (p->kernels->saved ? 2 : 1) * panel_bytes(p, smaller(p->filters, CHUNK), lanes);
}

static struct slab grad_x_slab(const struct dot_problem *p) { return dot_slab_size(p, 8, grad_x_unit(p)); }

int64_t dot_grad_x_workspace(const struct dot_problem *p)
{
    const struct slab size = grad_x_slab(p);

    if (p->kernels->direct_grad_x && dot_is_direct_grad_x(p))
        return dot_direct_grad_x_workspace(p);
    if (p->kernels->few_grads && dot_is_few(p))
        return dot_few_grads_workspace(p);
    return dot_slab_bytes(p, &size) + p->threads * grad_x_scratch(p);
}

void dot_grad_x(const struct dot_problem *p, const void *grad, void *dx, void *workspace)
{
    const int64_t unit = grad_x_unit(p);
    const struct slab size = grad_x_slab(p);
    struct slab slab = dot_first_slab(p, &size);
    struct grad_x f = {
        .p = p, .grad = (const char *)grad, .dx = (char *)dx, .weights = (char *)workspace, .unit = unit};
    char *scratch = (char *)workspace + dot_slab_bytes(p, &size);

    if (p->kernels->direct_grad_x && dot_is_direct_grad_x(p)) {
        dot_direct_grad_x(p, grad, dx, workspace);
        return;
    }
    if (p->kernels->few_grads && dot_is_few(p)) {
        dot_few_grads(p, grad, dx, NULL, workspace);
        return;
    }
    do {
        const int64_t units = ceiling(slab.k1 - slab.k0, unit);

        f.slab = slab;
        f.finite = p->kernels->finite & DOT_PARTIALS && scalars_finite(p);
        f.units_of_task = volume(p->kernel) > CHUNK ? units : 1;
        run(p, (slab.g1 - slab.g0) * units, pack_grad_x, &f, scratch, 0);
        run(p, ceiling(p->batch, images_of_task(p)) * (slab.g1 - slab.g0) * ceiling(units, f.units_of_task),
            grad_x_task, &f, scratch, grad_x_scratch(p));
    } while (dot_next_slab(p, &size, &slab));
}
