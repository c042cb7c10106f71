/* The forward call for few positions: a panel would be of lanes that have none. Results are the same, to the bit. */
#include "dot_turned.h"

#include <string.h>

#include "dot_pack.h"

/* The most rows of a tile. */
#define ROWS 4

struct turned {
    const struct dot_problem *p;
    char *y;
    char *pixels;  /* packed: for each group and tile of positions [k][rows] */
    int32_t finite;
};

static int64_t pixels_bytes(const struct dot_problem *p)
{
    return aligned(positions(p) * taps(p) * p->kernels->element);
}

static int64_t panel_of_weights(const struct dot_problem *p)
{
    return aligned(forward_depth(p) * p->kernels->lanes * weight_bytes(p));
}

static int64_t turned_scratch(const struct dot_problem *p)
{
    return panel_of_weights(p) + aligned(positions(p) * p->kernels->lanes * p->kernels->total);
}

int dot_is_turned(const struct dot_problem *p)
{
    const struct dot_kernels *kernels = p->kernels;
    int axis;

    if (!kernels->turned || 2 * positions(p) > kernels->lanes || p->filters < kernels->lanes || volume(p->kernel) != 1)
        return 0;
    for (axis = 0; axis < 3; axis++)
        if (p->before[axis] != 0 || (p->blocks[axis] - 1) * p->stride[axis] >= p->image[axis])
            return 0;
    return 1;
}

static void turned_task(void *context, int64_t task, char *scratch)
{
    const struct turned *f = (const struct turned *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, t = kernels->total, lanes = kernels->lanes, chunks = ceiling(p->filters, lanes);
    const int64_t group = task / chunks, first = task % chunks * lanes, count = smaller(lanes, p->filters - first);
    const int64_t filter = group * p->filters + first, step = kernels->planes * lanes, all = positions(p);
    const char *pixels = f->pixels + group * pixels_bytes(p);
    char *weights = scratch, *out = scratch + panel_of_weights(p);
    struct segment segments[POSITIONS];
    int64_t k, position, depth, i;
    int rows, plane, lane, n;

    for (k = 0; k < taps(p); k += depth) {
        int finite = f->finite;

        depth = smaller(forward_depth(p), taps(p) - k);
        for (plane = 0; plane < kernels->planes; plane++) {
            char *to = weights + plane * lanes * e;

            dot_pack_filters(p, plane, filter, (int)count, k, k + depth, step, to);
            /* As in panels: lanes without a filter repeat the first. */
            for (i = 0; i < depth && count < lanes; i++, to += step * e)
                for (lane = (int)count; lane < lanes; lane++)
                    memcpy(to + lane * e, to, (size_t)e);
        }
        finite = finite && kernels->operands_finite(depth * step, weights);
        for (position = 0; position < all; position += rows) {
            rows = tile_rows(all - position, ROWS);
            kernels->turned(kernels, rows, depth, weights, pixels + (position * taps(p) + k * rows) * e,
                            out + position * lanes * t, k == 0, finite);
        }
    }
    n = dot_list_segments(p, 0, all, segments);
    for (i = 0; i < n; i++) {
        const struct segment *s = &segments[i];

        for (position = 0; position < s->count; position++) {
            const char *from = out + (s->lane + position) * lanes * t;
            char *to = f->y + (s->image * p->y_strides[0] + filter * p->y_strides[1] + s->place +
                               position * p->y_strides[4]) *
                                  t;

            if (p->y_strides[1] == 1)
                memcpy(to, from, (size_t)(count * t));
            else
                for (lane = 0; lane < count; lane++)
                    memcpy(to + lane * p->y_strides[1] * t, from + lane * t, (size_t)t);
        }
    }
}

int64_t dot_turned_workspace(const struct dot_problem *p)
{
    return p->groups * pixels_bytes(p) + p->threads * turned_scratch(p);
}

void dot_turned(const struct dot_problem *p, void *y, void *workspace)
{
    const struct dot_kernels *kernels = p->kernels;
    struct turned f = {p, (char *)y, (char *)workspace, kernels->finite & DOT_TERMS && scalars_finite(p)};
    struct segment segments[POSITIONS];
    int64_t group, position;
    int rows, n;

    for (group = 0; group < p->groups; group++) {
        char *pixels = f.pixels + group * pixels_bytes(p);

        for (position = 0; position < positions(p); position += rows) {
            rows = tile_rows(positions(p) - position, ROWS);
            n = dot_list_segments(p, position, rows, segments);
            dot_pack_columns(p, group, 0, taps(p), segments, n, rows, pixels + position * taps(p) * kernels->element);
        }
        f.finite = f.finite && kernels->operands_finite(positions(p) * taps(p), pixels);
    }
    run(p, p->groups * ceiling(p->filters, kernels->lanes), turned_task, &f,
        (char *)workspace + p->groups * pixels_bytes(p), turned_scratch(p));
}
