/* Gradients of sums with respect to weights, and with respect to both at once: then columns are packed, and what the
 * two have in common computed, only once. */
#include <string.h>

#include "dot_add.h"
#include "dot_direct.h"
#include "dot_few.h"
#include "dot_pack.h"
#include "dot_workspace.h"

/* Up to so many blocks of positions, sums are added up where they belong. */
#define FEW 16
/* Of more, sums of so many blocks are added up as doubles. */
#define BLOCKS 4
/* The most taps of a channel for which both gradients are computed at once. */
#define MOST_TAPS 256
/* Channels that lie in one cache line, where they lie side by side. */
#define TOGETHER 16
/* With fewer channels, or parts of the batch, both at once would leave threads without work. */
#define LEAST_TASKS 16
/* Parts of the batch, or of images, have a sum each, which take this many bytes at most. */
#define PARTS (4 << 20)

struct grad_w {
    const struct dot_problem *p;
    const char *grad;
    char *dx;            /* NULL where it isn't wanted */
    char *dw;
    double *parts;       /* sums of each part of the batch, as dw is; NULL where there is one part */
    int64_t taps;        /* of one task; with dx, of whole channels */
    int64_t filters;     /* of one task, or with dx, at a time */
    int64_t images;      /* of one part of the batch */
    int64_t rows;        /* of blocks of one strip; all of them, where images aren't cut into strips */
    int64_t turn;        /* 0: every other strip from the first on, 1: those between */
};

/* Filters [f0, f1) and taps [k0, k1) of a group. Their sums are `stride` apart, those of their other numbers `plane`. */
struct tile {
    int64_t group, f0, f1, k0, k1;
    const char *w;
    int64_t w_stride;
    char *dw;
    int64_t stride, plane;
    int finite;
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

/* One block of positions. */
static void grad_w_block(const struct grad_w *f, const struct tile *t, int64_t start, int64_t count, char *scratch)
{
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, vector = kernels->lanes / 2, stride = ceiling(count, vector) * vector;
    const int64_t filters = t->f1 - t->f0, depth = t->k1 - t->k0, filter = t->group * p->filters + t->f0;
    char *panel = scratch, *columns = panel + panel_bytes(p, depth, stride);
    char *mask = columns + (f->dx != NULL ? panel_bytes(p, depth, stride) : 0);
    char *tile = mask + mask_bytes(p, depth, stride), *saved = tile + panel_bytes(p, filters, stride);
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, start, count, segments);
    const void *there = dot_pack(p, t->group, t->k0, t->k1, segments, n, stride, panel, mask);
    int64_t g_stride, y_stride = 0, o;
    const char *g = rows_of(p, f->grad, filter, filters, segments, n, count, stride, tile, &g_stride), *y = NULL;
    int finite = t->finite;

    if (kernels->saved)
        y = rows_of(p, (const char *)p->saved, filter, filters, segments, n, count, stride, saved, &y_stride);
    finite = finite && kernels->operands_finite(depth * stride, panel);
    for (o = 0; finite && o < filters; o++)
        finite = kernels->gradients_finite(count, g + o * g_stride * e);
    if (f->dx != NULL)
        memset(columns, 0, (size_t)(depth * stride * e));
    kernels->grad_w(kernels, filters, depth, count, t->w, t->w_stride, g, g_stride, y, y_stride, panel, stride, there,
                    f->dx != NULL ? columns : NULL, t->dw, t->stride, t->plane, finite);
    if (f->dx != NULL)
        dot_add_columns(p, t->group, t->k0, t->k1, segments, n, stride, columns, f->dx);
}

/* Gradients of all numbers. */
static int64_t all_sums(const struct dot_problem *p) { return p->kernels->numbers * weights(p); }

/* Of so many positions, those in each row of blocks: these lie within images, unless images are small. They depend on
 * shapes alone, and so does the order of sums. */
static int64_t row_of(const struct dot_problem *p, int64_t all)
{
    return length(p) >= 256 ? smaller(all, length(p)) : all;
}

/* Whether sums are added up where they belong: those of few blocks. */
static int adds_in_place(const struct grad_w *f)
{
    const int64_t row = row_of(f->p, f->images * length(f->p));

    return f->parts == NULL && f->images * length(f->p) / row * ceiling(row, POSITIONS) <= FEW;
}

/* Bytes of a tile's sums, or of their totals. */
static int64_t sums_bytes(const struct grad_w *f, int64_t each)
{
    return adds_in_place(f) ? 0 : aligned(f->p->kernels->numbers * f->filters * f->taps * each);
}

static int64_t grad_w_scratch(const struct grad_w *f)
{
    const struct dot_problem *p = f->p;
    const int64_t e = p->kernels->element, lanes = p->kernels->lanes;
    const int64_t block = smaller(POSITIONS, ceiling(row_of(p, f->images * length(p)), lanes) * lanes);

    return aligned(f->filters * f->taps * e) + sums_bytes(f, e) + sums_bytes(f, sizeof(double)) +
           (f->dx != NULL ? 2 : 1) * panel_bytes(p, f->taps, block) + mask_bytes(p, f->taps, block) +
           (p->kernels->saved ? 2 : 1) * panel_bytes(p, f->filters, block);
}

/* Positions [first, end) of one tile, which are a part of the batch. */
static void grad_w_tile(const struct grad_w *f, struct tile *t, int64_t first, int64_t end, int64_t number,
                        char *scratch)
{
    const struct dot_problem *p = f->p;
    const int64_t e = p->kernels->element, lanes = p->kernels->lanes;
    const int64_t filters = t->f1 - t->f0, depth = t->k1 - t->k0, sums = p->kernels->numbers * filters * depth;
    const int64_t row = row_of(p, end - first);
    const int64_t along = ceiling(row, POSITIONS), block = ceiling(ceiling(row, along), lanes) * lanes;
    const int64_t place = (t->group * p->filters + t->f0) * taps(p) + t->k0;
    const int dense = dense_weights(p), in_place = adds_in_place(f);
    char *w = scratch, *part = w + aligned(f->filters * f->taps * e), *rest = part + sums_bytes(f, e);
    double *total = (double *)rest;
    int64_t start, position, plane, o, blocks = 0;

    rest += sums_bytes(f, sizeof *total);
    t->w = (const char *)p->w + place * e;
    t->w_stride = taps(p);
    if (!dense) {
        /* A copy. There are no parameters. */
        t->w = w;
        t->w_stride = depth;
        for (o = 0; o < filters; o++)
            dot_copy_filter(p, t->group * p->filters + t->f0 + o, t->k0, t->k1, w + o * depth * e);
    }
    t->finite = p->kernels->finite & DOT_PARTIALS && scalars_finite(p);
    for (plane = 0; plane < p->kernels->planes; plane++)
        for (o = 0; t->finite && o < filters; o++)
            t->finite = p->kernels->operands_finite(depth, t->w + (plane * weights(p) + o * t->w_stride) * e);
    t->dw = in_place ? f->dw + place * e : part;
    t->stride = in_place ? taps(p) : depth;
    t->plane = in_place ? weights(p) : filters * depth;
    if (!in_place) {
        memset(part, 0, (size_t)(sums * e));
        memset(total, 0, (size_t)sums * sizeof *total);
    }
    for (start = first; start < end; start += row)
        for (position = 0; position < row; position += block) {
            grad_w_block(f, t, start + position, smaller(block, row - position), rest);
            if (!in_place && ++blocks % BLOCKS == 0)
                dot_add_up(p, sums, part, total);
        }
    if (in_place)
        return;
    dot_add_up(p, sums, part, total);
    for (plane = 0; plane < p->kernels->numbers; plane++)
        for (o = 0; o < filters; o++) {
            const int64_t to = plane * weights(p) + place + o * taps(p);
            const double *from = total + (plane * filters + o) * depth;

            if (f->parts == NULL)
                dot_add_totals(p, depth, from, 1, 0, f->dw + to * e);
            else
                memcpy(f->parts + number * all_sums(p) + to, from, (size_t)depth * sizeof *from);
        }
}

/* Strips of an image. Those of one turn have no pixels in common. */
static int64_t count_strips(const struct grad_w *f) { return ceiling(f->p->blocks[1], f->rows); }
static int64_t strips_of_turn(const struct grad_w *f) { return ceiling(count_strips(f) - f->turn, 2); }

static void grad_w_task(void *context, int64_t task, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const struct dot_problem *p = f->p;
    const int64_t along = ceiling(taps(p), f->taps), chunks = ceiling(p->filters, f->filters);
    struct tile t = {.k0 = task % along * f->taps};
    int64_t first = 0, end = positions(p), part, strip;

    t.k1 = smaller(taps(p), t.k0 + f->taps);
    task /= along;
    if (f->dx == NULL) {
        t.f0 = task % chunks * f->filters;
        t.f1 = smaller(p->filters, t.f0 + f->filters);
        t.group = task / chunks;
        grad_w_tile(f, &t, first, end, 0, scratch);
        return;
    }
    /* All filters, as they add to the same pixels. */
    t.group = task % p->groups;
    task /= p->groups;
    strip = task % strips_of_turn(f) * 2 + f->turn;
    part = task / strips_of_turn(f);
    first = part * f->images * length(p);
    end = smaller(end, first + f->images * length(p));
    if (count_strips(f) > 1) {
        /* Then the part is one image of one plane. */
        end = smaller(end, first + (strip + 1) * f->rows * p->blocks[2]);
        first += strip * f->rows * p->blocks[2];
    }
    for (t.f0 = 0; t.f0 < p->filters; t.f0 = t.f1) {
        t.f1 = smaller(p->filters, t.f0 + f->filters);
        grad_w_tile(f, &t, first, end, part * count_strips(f) + strip, scratch);
    }
}

/* How many taps and filters a task takes on: fewer until all threads have work. */
static struct grad_w grad_w_split(const struct dot_problem *p)
{
    struct grad_w f = {.p = p, .taps = 64, .filters = 128, .images = p->batch, .rows = p->blocks[1]};

    f.taps = smaller(f.taps, taps(p));
    f.filters = smaller(f.filters, p->filters);
    while (p->groups * ceiling(taps(p), f.taps) * ceiling(p->filters, f.filters) < 4 * p->threads) {
        if (f.taps > 16)
            f.taps = ceiling(f.taps, 2);
        else if (f.filters > 16)
            f.filters = ceiling(ceiling(f.filters, 2), 4) * 4;
        else
            break;
    }
    return f;
}

int64_t dot_grad_w_workspace(const struct dot_problem *p)
{
    const struct grad_w f = grad_w_split(p);

    if (p->kernels->direct_grad_w && dot_is_direct_grad_w(p))
        return dot_direct_grad_w_workspace(p);
    if (p->kernels->few_grads && dot_is_few(p))
        return dot_few_grads_workspace(p);
    return p->threads * grad_w_scratch(&f);
}

void dot_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace)
{
    struct grad_w f = grad_w_split(p);

    if (p->kernels->direct_grad_w && dot_is_direct_grad_w(p)) {
        dot_direct_grad_w(p, grad, dw, workspace);
        return;
    }
    if (p->kernels->few_grads && dot_is_few(p)) {
        dot_few_grads(p, grad, NULL, dw, workspace);
        return;
    }
    f.grad = (const char *)grad;
    f.dw = (char *)dw;
    run(p, p->groups * ceiling(taps(p), f.taps) * ceiling(p->filters, f.filters), grad_w_task, &f,
        (char *)workspace, grad_w_scratch(&f));
}

/* The most parts that there is room for. */
static int64_t most_parts(const struct dot_problem *p)
{
    return larger(1, PARTS / (all_sums(p) * (int64_t)sizeof(double)));
}

/* Images of one part of the batch, for as many tasks as 64 channels are. They depend on shapes alone, and so does the
 * order of sums. */
static int64_t images_of_part(const struct dot_problem *p)
{
    return ceiling(p->batch, smaller(smaller(p->batch, most_parts(p)), ceiling(64, p->groups * p->channels)));
}

/* Rows of blocks of one part: fewer than there are where all images wouldn't be enough tasks. Strips that have a
 * neighbour in common then have no pixels in common. */
static int64_t rows_of_part(const struct dot_problem *p)
{
    const int64_t rows = p->blocks[1], tasks = p->groups * p->channels * p->batch;
    const int64_t reach = (p->kernel[1] - 1) * p->dilation[1];
    int64_t strips;

    if (tasks >= LEAST_TASKS || images_of_part(p) > 1 || p->image[0] * p->blocks[0] > 1)
        return rows;
    strips = larger(1, smaller(ceiling(2 * LEAST_TASKS, tasks), most_parts(p) / p->batch));
    return smaller(rows, larger(ceiling(rows, strips), larger(reach / p->stride[1], ceiling(256, p->blocks[2]))));
}

static int64_t parts_of(const struct dot_problem *p)
{
    return ceiling(p->batch, images_of_part(p)) * ceiling(p->blocks[1], rows_of_part(p));
}

/* Whether neither gradient is computed where pixels lie. */
static int none_direct(const struct dot_problem *p)
{
    return !(p->kernels->direct_grad_x && dot_is_direct_grad_x(p)) &&
           !(p->kernels->direct_grad_w && dot_is_direct_grad_w(p));
}

static int few_at_once(const struct dot_problem *p)
{
    return p->kernels->few_grads && none_direct(p) && dot_is_few(p);
}

static int both_at_once(const struct dot_problem *p)
{
    return none_direct(p) && volume(p->kernel) <= MOST_TAPS &&
           p->groups * p->channels * parts_of(p) >= LEAST_TASKS;
}

static int64_t parts_bytes(const struct dot_problem *p)
{
    return parts_of(p) > 1 ? aligned(parts_of(p) * all_sums(p) * (int64_t)sizeof(double)) : 0;
}

static struct grad_w grads_split(const struct dot_problem *p, void *dx, void *workspace)
{
    const int64_t kernel = volume(p->kernel), parts = parts_of(p), images = images_of_part(p);
    struct grad_w f = {.p = p, .dx = (char *)dx, .filters = smaller(CHUNK, p->filters), .images = images,
                       .rows = rows_of_part(p)};
    /* Few positions leave room for more taps, and gradients that are gathered for each task are better used by many. */
    const int64_t most = length(p) >= 256 ? 64 : 128, row = row_of(p, images * length(p));
    const int64_t taps = most * smaller(4, larger(1, POSITIONS / row));
    int64_t channels = smaller(p->channels, larger(1, taps / kernel));

    /* Where channels lie side by side, whole cache lines of them. */
    if (p->x_strides[1] == 1)
        channels = smaller(p->channels, ceiling(channels, TOGETHER) * TOGETHER);
    while (channels > 1 && parts * p->groups * ceiling(p->channels, channels) < 4 * p->threads)
        channels = ceiling(channels, 2);
    f.taps = ceiling(p->channels, ceiling(p->channels, channels)) * kernel;
    f.parts = parts > 1 ? (double *)workspace : NULL;
    return f;
}

int64_t dot_grads_workspace(const struct dot_problem *p)
{
    /* It asks only whether there are dx and parts. */
    double there;
    const struct grad_w f = grads_split(p, &there, &there);

    if (few_at_once(p))
        return dot_few_grads_workspace(p);
    if (!both_at_once(p))
        return larger(dot_grad_x_workspace(p), dot_grad_w_workspace(p));
    return parts_bytes(p) + p->threads * grad_w_scratch(&f);
}

static void add_parts(void *context, int64_t task, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const int64_t start = task * 1024, count = smaller(1024, all_sums(f->p) - start);

    (void)scratch;
    dot_add_totals(f->p, count, f->parts + start, parts_of(f->p), all_sums(f->p),
                   f->dw + start * f->p->kernels->element);
}

void dot_grads(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace)
{
    struct grad_w f = grads_split(p, dx, workspace);
    const int64_t tasks = ceiling(p->batch, f.images) * p->groups * ceiling(taps(p), f.taps);
    char *scratch = (char *)workspace + parts_bytes(p);

    if (few_at_once(p)) {
        dot_few_grads(p, grad, dx, dw, workspace);
        return;
    }
    if (!both_at_once(p)) {
        dot_grad_x(p, grad, dx, workspace);
        dot_grad_w(p, grad, dw, workspace);
        return;
    }
    f.grad = (const char *)grad;
    f.dw = (char *)dw;
    /* Neighbouring strips add to the same pixels: one turn after the other. */
    for (f.turn = 0; f.turn < 2; f.turn++)
        run(p, tasks * strips_of_turn(&f), grad_w_task, &f, scratch, grad_w_scratch(&f));
    if (f.parts != NULL)
        run(p, ceiling(all_sums(p), 1024), add_parts, &f, scratch, 0);
}
