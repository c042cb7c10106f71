/* Feeds the kernels of dot.h: packing, blocking, and which thread does what. Knows no op. */
#include "dot.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "parallel.h"

/* Positions of one block of grad_w; as many at most for which segments are listed. */
#define POSITIONS 512
/* Bytes of packed weights that there may be at once. */
#define SLAB (4 << 20)
/* Filters, or taps, that one task takes on at most: bounds a thread's scratch. */
#define CHUNK 256

/* Bytes that are copied at a time, and by which rows of panels and tiles may be overrun: see dot_pack.h. */
#define COPIED 128

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* With room to overrun. */
static inline int64_t aligned(int64_t bytes) { return (bytes + COPIED + 63) / 64 * 64; }

static inline int64_t volume(const struct dot_problem *p) { return p->kernel[0] * p->kernel[1] * p->kernel[2]; }
static inline int64_t taps(const struct dot_problem *p) { return p->channels * volume(p); }
static inline int64_t length(const struct dot_problem *p) { return p->blocks[0] * p->blocks[1] * p->blocks[2]; }
static inline int64_t positions(const struct dot_problem *p) { return p->batch * length(p); }

/* The rows of the next tile, of `left` that are to be handled, `most` at a time: no tile is
 * padded, and 16 is 8 and 8 rather than 12 and 4. */
static inline int tile_rows(int64_t left, int most)
{
    if (left >= most && !(most == 12 && left == 16))
        return most;
    return left >= 8 && most == 12 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

static void run(const struct dot_problem *p, int64_t tasks, void (*function)(void *, int64_t, char *), void *context,
                char *scratch, int64_t bytes)
{
    parallel_for(p->threads, p->parallel, tasks, function, context, scratch, bytes);
}

/* ---------------------------------------------------------------- panels */

/* Consecutive positions in one row of blocks of one image. */
struct segment {
    int32_t lane;
    int32_t count;
    int64_t image;
    int64_t place;    /* of the first among its image's positions */
    int64_t z, y, x;  /* of its first tap; maybe outside the image */
};

static int list_segments(const struct dot_problem *p, int64_t start, int64_t count, struct segment *segments)
{
    const int64_t columns = p->blocks[2], rows = start / columns, planes = rows / p->blocks[1];
    int64_t image = planes / p->blocks[0], plane = planes % p->blocks[0], row = rows % p->blocks[1];
    int64_t column = start % columns;
    int n = 0;
    int32_t lane = 0;

    while (lane < count) {
        const int32_t step = (int32_t)smaller(count - lane, columns - column);
        segments[n++] = (struct segment){
            lane,
            step,
            image,
            (plane * p->blocks[1] + row) * columns + column,
            plane * p->stride[0] - p->before[0],
            row * p->stride[1] - p->before[1],
            column * p->stride[2] - p->before[2],
        };
        lane += step;
        column = 0;
        if (++row == p->blocks[1]) {
            row = 0;
            if (++plane == p->blocks[0])
                plane = 0, image++;
        }
    }
    return n;
}

/* Which channel of a group k is of, and where in the kernel it lies: plane, row, column. */
static inline int64_t tap_at(const struct dot_problem *p, int64_t k, int64_t *kz, int64_t *ky, int64_t *kx)
{
    const int64_t rows = k / p->kernel[2], planes = rows / p->kernel[1];

    *kx = k % p->kernel[2];
    *ky = rows % p->kernel[1];
    *kz = planes % p->kernel[0];
    return planes / p->kernel[0];
}

/* Goes on to the next k. Whether that is in the next channel. */
static inline int next_tap(const struct dot_problem *p, int64_t *kz, int64_t *ky, int64_t *kx)
{
    if (++*kx < p->kernel[2])
        return 0;
    *kx = 0;
    if (++*ky < p->kernel[1])
        return 0;
    *ky = 0;
    if (++*kz < p->kernel[0])
        return 0;
    *kz = 0;
    return 1;
}

/* Where in a channel of x, or of dx, the row begins that a segment reads at one plane and row of the kernel; -1 if it is
 * outside the image. */
static inline int64_t row_offset(const struct dot_problem *p, const struct segment *s, int64_t kz, int64_t ky,
                                 const int64_t *strides)
{
    const int64_t z = s->z + kz * p->dilation[0], y = s->y + ky * p->dilation[1];

    if (z < 0 || z >= p->image[0] || y < 0 || y >= p->image[1])
        return -1;
    return s->image * strides[0] + z * strides[2] + y * strides[3];
}

/* Lanes [first, last) of a segment whose pixels, the first at `pixel`, lie in a row of `size`. */
static inline void inside(int64_t pixel, int64_t stride, int64_t size, int32_t count, int32_t *first, int32_t *last)
{
    *first = 0;
    *last = count;
    if (stride == 1) {
        if (pixel < 0)
            *first = (int32_t)smaller(count, -pixel);
        if (pixel + count > size)
            *last = (int32_t)larger(*first, size - pixel);
        return;
    }
    if (pixel < 0)
        *first = (int32_t)smaller(count, (-pixel + stride - 1) / stride);
    if (pixel + (count - 1) * stride >= size)
        *last = (int32_t)larger(*first, size <= pixel ? 0 : (size - pixel + stride - 1) / stride);
}

/* Which lanes of a segment have a pixel at one column of the kernel, and where in its row the first of these is. */
struct span {
    int32_t first;
    int32_t last;
    int64_t offset;
};

/* As many as are kept; with as many segments as can be, those of one column. */
#define SPANS POSITIONS

static void list_spans(const struct dot_problem *p, int64_t kx, const struct segment *segments, int n, struct span *spans)
{
    int i;

    for (i = 0; i < n; i++) {
        const int64_t x = segments[i].x + kx * p->dilation[2];

        inside(x, p->stride[2], p->image[2], segments[i].count, &spans[i].first, &spans[i].last);
        spans[i].offset = (x + spans[i].first * p->stride[2]) * p->x_strides[4];
    }
}

#define NAME(function) function##_1
#define WORD uint8_t
#include "dot_pack.h"
#define NAME(function) function##_2
#define WORD uint16_t
#include "dot_pack.h"
#define NAME(function) function##_4
#define WORD uint32_t
#include "dot_pack.h"
#define NAME(function) function##_8
#define WORD uint64_t
#include "dot_pack.h"

#define BY_SIZE(bytes, function, ...)                                                                                  \
    ((bytes) == 4   ? function##_4(__VA_ARGS__)                                                                        \
     : (bytes) == 8 ? function##_8(__VA_ARGS__)                                                                        \
     : (bytes) == 1 ? function##_1(__VA_ARGS__)                                                                        \
                    : function##_2(__VA_ARGS__))

#define NAME(function) function##_float
#define ELEMENT float
#include "dot_add.h"
#define NAME(function) function##_double
#define ELEMENT double
#include "dot_add.h"

#define BY_TYPE(bytes, function, ...)                                                                                  \
    ((bytes) == 4 ? function##_float(__VA_ARGS__) : function##_double(__VA_ARGS__))

/* Taps [k0, k1) of group `group` at the listed positions, as a panel [k][lanes]; lanes without a position repeat `pad`.
 * Whether any tap lies outside the image. */
static int pack(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1, const struct segment *segments, int n,
                int64_t lanes, void *panel)
{
    return BY_SIZE(p->kernels->element, pack_columns, p, group, k0, k1, segments, n, lanes, panel);
}

/* The same panel with masks: all bits for taps in the image, none for others. */
static void pack_mask(const struct dot_problem *p, int64_t k0, int64_t k1, const struct segment *segments, int n,
                      int64_t lanes, void *mask)
{
    BY_SIZE(p->kernels->element, pack_masks, p, k0, k1, segments, n, lanes, mask);
}

/* ---------------------------------------------------------------- weights */

/* A part of the weights that is packed at once. */
struct slab {
    int64_t g0, g1, f0, f1, k0, k1;
};

/* How far a slab goes in each direction: as far as SLAB allows, groups last; multiples of `filters` and `depth`. */
static struct slab slab_size(const struct dot_problem *p, int64_t filters, int64_t depth)
{
    const int64_t room = SLAB / p->kernels->element, all_taps = taps(p);
    struct slab size = {0, 1, 0, p->filters, 0, all_taps};

    if (p->filters * all_taps <= room)
        size.g1 = smaller(p->groups, room / (p->filters * all_taps));
    else if (filters * all_taps <= room)
        size.f1 = room / all_taps / filters * filters;
    else {
        size.f1 = smaller(p->filters, filters);
        size.k1 = larger(1, room / size.f1 / depth) * depth;
    }
    return size;
}

static int next_slab(const struct dot_problem *p, const struct slab *size, struct slab *slab)
{
    /* taps fastest, so that sums of one result go on in their order */
    if (slab->k1 < taps(p)) {
        slab->k0 = slab->k1;
    } else {
        slab->k0 = 0;
        if (slab->f1 < p->filters) {
            slab->f0 = slab->f1;
        } else {
            slab->f0 = 0;
            slab->g0 = slab->g1;
            if (slab->g0 == p->groups)
                return 0;
        }
    }
    slab->g1 = smaller(p->groups, slab->g0 + size->g1);
    slab->f1 = smaller(p->filters, slab->f0 + size->f1);
    slab->k1 = smaller(taps(p), slab->k0 + size->k1);
    return 1;
}

static struct slab first_slab(const struct dot_problem *p, const struct slab *size)
{
    return (struct slab){0, size->g1, 0, size->f1, 0, smaller(taps(p), size->k1)};
}

static int64_t slab_bytes(const struct dot_problem *p, const struct slab *size)
{
    return aligned(size->g1 * size->f1 * smaller(taps(p), size->k1) * p->kernels->element);
}

/* ---------------------------------------------------------------- forward */

struct forward {
    const struct dot_problem *p;
    struct slab slab;
    char *y;
    char *weights;
    int64_t depth;          /* terms of one block */
    int64_t panels;         /* of one task */
    int64_t tasks_along;    /* tasks that share filters */
    int64_t chunk;          /* filters of one task */
    int32_t ordinary;
};

static int64_t forward_depth(const struct dot_problem *p)
{
    return ceiling(taps(p), ceiling(taps(p), p->kernels->depth));
}

static void pack_forward(void *context, int64_t task, char *scratch)
{
    struct forward *f = (struct forward *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t e = p->kernels->element, filters = s->f1 - s->f0, depth = s->k1 - s->k0;
    const int64_t chunks = ceiling(filters, f->chunk), group = task / chunks;
    const int64_t o0 = task % chunks * f->chunk, o1 = smaller(filters, o0 + f->chunk);
    int64_t o;
    int rows;

    (void)scratch;
    for (o = o0; o < o1; o += rows) {
        const char *source = (const char *)p->w + (((s->g0 + group) * p->filters + s->f0 + o) * taps(p) + s->k0) * e;
        char *packed = f->weights + (group * filters + o) * depth * e;

        rows = tile_rows(o1 - o, p->kernels->rows);
        BY_SIZE(e, transpose, (const void *)source, taps(p), rows, depth, (void *)packed);
        if (p->kernels->ordinary & DOT_TERMS && !p->kernels->all_ordinary(rows * depth, packed))
            __atomic_store_n(&f->ordinary, 0, __ATOMIC_RELAXED);
    }
}

static void forward_task(void *context, int64_t task, char *scratch)
{
    const struct forward *f = (const struct forward *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const struct slab *s = &f->slab;
    const int64_t e = kernels->element, t = kernels->total, lanes = kernels->lanes, filters = s->f1 - s->f0;
    const int64_t chunks = ceiling(filters, f->chunk);
    const int64_t group = task / f->tasks_along / chunks, o0 = task / f->tasks_along % chunks * f->chunk;
    const int64_t o1 = smaller(filters, o0 + f->chunk);
    const int64_t start = task % f->tasks_along * f->panels * lanes;
    const int64_t end = smaller(positions(p), start + f->panels * lanes);
    const int64_t filter = (s->g0 + group) * p->filters + s->f0;
    char *panel = scratch, *mask = panel + aligned(f->depth * lanes * e);
    char *tile = mask + (p->skips ? aligned(f->depth * lanes * e) : 0);
    struct segment segments[POSITIONS];
    int64_t position;

    for (position = start; position < end; position += lanes) {
        const int64_t count = smaller(lanes, end - position);
        const int n = list_segments(p, position, count, segments);
        const int direct =
            count == lanes && p->y_strides[2] == 1 && segments[0].image == segments[n - 1].image;
        char *out = tile;
        int64_t stride = lanes, k, o;
        int rows;

        if (direct) {
            out = f->y + (segments[0].image * p->y_strides[0] + (filter + o0) * p->y_strides[1] + segments[0].place) * t;
            stride = p->y_strides[1];
        } else if (s->k0 > 0) {
            BY_SIZE(t, gather, p, f->y, filter + o0, o1 - o0, segments, n, lanes, tile);
        }
        for (k = s->k0; k < s->k1; k += f->depth) {
            const int64_t depth = smaller(f->depth, s->k1 - k);
            const int padded = pack(p, s->g0 + group, k, k + depth, segments, n, lanes, panel) || ~p->last != 0;
            const int ordinary = f->ordinary && kernels->all_ordinary(depth * lanes, panel);
            const void *taps_there = NULL;

            if (padded && p->skips) {
                pack_mask(p, k, k + depth, segments, n, lanes, mask);
                taps_there = mask;
            }
            for (o = o0; o < o1; o += rows) {
                rows = tile_rows(o1 - o, kernels->rows);
                kernels->forward(kernels, rows, depth,
                                 f->weights + ((group * filters + o) * (s->k1 - s->k0) + (k - s->k0) * rows) * e, panel,
                                 taps_there, out + (o - o0) * stride * t, stride, k == 0, ordinary);
            }
        }
        if (!direct)
            BY_SIZE(t, scatter, p, tile, filter + o0, o1 - o0, segments, n, lanes, f->y);
    }
}

static int64_t forward_chunk(const struct dot_problem *p)
{
    /* Whole tiles. Where there are few panels, more chunks for the threads. */
    const int64_t unit = 2 * 12, panels = ceiling(positions(p), p->kernels->lanes);
    int64_t chunk = CHUNK / unit * unit;

    while (chunk > 2 * unit && p->groups * panels * ceiling(p->filters, chunk) < 4 * p->threads)
        chunk -= unit;
    return chunk;
}

static int64_t forward_scratch(const struct dot_problem *p)
{
    const struct dot_kernels *kernels = p->kernels;
    const int64_t panel = aligned(forward_depth(p) * kernels->lanes * kernels->element);

    return panel + (p->skips ? panel : 0) +
           aligned(smaller(p->filters, forward_chunk(p)) * kernels->lanes * kernels->total);
}

void dot_forward(const struct dot_problem *p, void *y, void *workspace)
{
    const struct slab size = slab_size(p, p->kernels->rows, forward_depth(p));
    struct slab slab = first_slab(p, &size);
    const int64_t panels = ceiling(positions(p), p->kernels->lanes);
    struct forward f = {.p = p, .y = (char *)y, .weights = (char *)workspace, .depth = forward_depth(p)};
    char *scratch = (char *)workspace + slab_bytes(p, &size);

    f.chunk = forward_chunk(p);
    do {
        const int64_t groups = slab.g1 - slab.g0, chunks = ceiling(slab.f1 - slab.f0, f.chunk);

        f.slab = slab;
        f.ordinary = p->kernels->ordinary & DOT_TERMS;
        run(p, groups * chunks, pack_forward, &f, scratch, 0);
        /* Some dozen tasks a thread, so that all end at about the same time. */
        f.panels = larger(1, smaller(panels, groups * chunks * panels / (16 * p->threads)));
        f.tasks_along = ceiling(panels, f.panels);
        run(p, groups * chunks * f.tasks_along, forward_task, &f, scratch, forward_scratch(p));
    } while (next_slab(p, &size, &slab));
}

/* ---------------------------------------------------------------- gradients of sums */

/* Images of one task: pixels' gradients are added up in an order that depends on shapes alone. */
static int64_t images_of_task(const struct dot_problem *p) { return smaller(p->batch, ceiling(256, length(p))); }

struct grad_x {
    const struct dot_problem *p;
    struct slab slab;
    const char *grad;
    char *dx;
    char *weights;
    int64_t unit;           /* taps that are handled at a time: whole channels, or part of one */
    int64_t units_of_task;  /* parts of one channel meet in its pixels, so that one task does them all */
    int32_t ordinary;
};

static int64_t grad_x_unit(const struct dot_problem *p)
{
    int64_t channels;

    if (volume(p) > CHUNK)
        return CHUNK;
    channels = smaller(p->channels, larger(1, 128 / volume(p)));
    while (channels > 1 && channels * volume(p) > 16 &&
           ceiling(p->batch, images_of_task(p)) * p->groups * ceiling(p->channels, channels) < 4 * p->threads)
        channels = ceiling(channels, 2);
    return channels * volume(p);
}

static void pack_grad_x(void *context, int64_t task, char *scratch)
{
    struct grad_x *f = (struct grad_x *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t e = p->kernels->element, filters = s->f1 - s->f0, depth = s->k1 - s->k0;
    const int64_t units = ceiling(depth, f->unit), group = task / units;
    const int64_t k0 = task % units * f->unit, k1 = smaller(depth, k0 + f->unit);
    const char *source = (const char *)p->w + (((s->g0 + group) * p->filters + s->f0) * taps(p) + s->k0) * e;
    int64_t k, o;
    int rows;

    (void)scratch;
    for (k = k0; k < k1; k += rows) {
        char *packed = f->weights + (group * depth + k) * filters * e;

        rows = tile_rows(k1 - k, p->kernels->grad_rows);
        for (o = 0; o < filters; o++)
            memcpy(packed + o * rows * e, source + (o * taps(p) + k) * e, (size_t)(rows * e));
        if (p->kernels->ordinary & DOT_PARTIALS && !p->kernels->all_ordinary(rows * filters, packed))
            __atomic_store_n(&f->ordinary, 0, __ATOMIC_RELAXED);
    }
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
    char *panel = scratch, *columns = panel + aligned(f->unit * lanes * e), *tile = columns + aligned(f->unit * lanes * e);
    struct segment segments[POSITIONS];
    int64_t position, unit, o, k;

    for (position = image * length(p); position < end; position += lanes) {
        const int64_t count = smaller(lanes, end - position);
        const int n = list_segments(p, position, count, segments);

        for (unit = first_unit; unit < last_unit; unit++) {
            const int64_t k0 = unit * f->unit, k1 = smaller(depth, k0 + f->unit);
            int rows, ordinary;

            pack(p, s->g0 + group, s->k0 + k0, s->k0 + k1, segments, n, lanes, panel);
            ordinary = f->ordinary && kernels->all_ordinary((k1 - k0) * lanes, panel);
            for (o = 0; o < filters; o += CHUNK) {
                const int64_t chunk = smaller(CHUNK, filters - o);

                BY_SIZE(e, gather, p, f->grad, (s->g0 + group) * p->filters + s->f0 + o, chunk, segments, n, lanes, tile);
                for (k = 0; count < lanes && k < chunk; k++)
                    memset(tile + (k * lanes + count) * e, 0, (size_t)((lanes - count) * e));
                ordinary = ordinary && kernels->all_finite(chunk * lanes, tile);
                for (k = k0; k < k1; k += rows) {
                    rows = tile_rows(k1 - k, kernels->grad_rows);
                    kernels->grad_x(rows, chunk, f->weights + ((group * depth + k) * filters + o * rows) * e, tile,
                                    panel + (k - k0) * lanes * e, columns + (k - k0) * lanes * e, o == 0, ordinary);
                }
            }
            BY_TYPE(e, add_columns, p, s->g0 + group, s->k0 + k0, s->k0 + k1, segments, n, lanes, columns, f->dx);
        }
    }
}

static int64_t grad_x_scratch(const struct dot_problem *p)
{
    return 2 * aligned(grad_x_unit(p) * p->kernels->lanes * p->kernels->element) +
           aligned(smaller(p->filters, CHUNK) * p->kernels->lanes * p->kernels->element);
}

void dot_grad_x(const struct dot_problem *p, const void *grad, void *dx, void *workspace)
{
    const int64_t unit = grad_x_unit(p);
    const struct slab size = slab_size(p, 8, unit);
    struct slab slab = first_slab(p, &size);
    struct grad_x f = {.p = p, .grad = (const char *)grad, .dx = (char *)dx, .weights = (char *)workspace, .unit = unit};
    char *scratch = (char *)workspace + slab_bytes(p, &size);

    do {
        const int64_t units = ceiling(slab.k1 - slab.k0, unit);

        f.slab = slab;
        f.ordinary = p->kernels->ordinary & DOT_PARTIALS;
        f.units_of_task = volume(p) > CHUNK ? units : 1;
        run(p, (slab.g1 - slab.g0) * units, pack_grad_x, &f, scratch, 0);
        run(p, ceiling(p->batch, images_of_task(p)) * (slab.g1 - slab.g0) * ceiling(units, f.units_of_task),
            grad_x_task, &f, scratch, grad_x_scratch(p));
    } while (next_slab(p, &size, &slab));
}

struct grad_w {
    const struct dot_problem *p;
    const char *grad;
    char *dw;
    int64_t taps;      /* of one task */
    int64_t filters;
};

static void grad_w_block(const struct dot_problem *p, const char *grad, char *dw, int64_t group, int64_t f0, int64_t f1,
                         int64_t k0, int64_t k1, int64_t start, int64_t count, int ordinary, char *scratch)
{
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, vector = kernels->lanes / 2, stride = ceiling(count, vector) * vector;
    const int64_t filter = group * p->filters + f0, weight = filter * taps(p) + k0;
    char *panel = scratch, *mask = panel + aligned((k1 - k0) * stride * e);
    char *tile = mask + (p->skips ? aligned((k1 - k0) * stride * e) : 0);
    struct segment segments[POSITIONS];
    const int n = list_segments(p, start, count, segments);
    const int padded = pack(p, group, k0, k1, segments, n, stride, panel) && p->skips;
    int64_t g_stride = p->y_strides[1], o;
    const char *g =
        grad + (segments[0].image * p->y_strides[0] + filter * p->y_strides[1] + segments[0].place) * e;

    if (p->y_strides[2] != 1 || segments[0].image != segments[n - 1].image || count < stride) {
        BY_SIZE(e, gather, p, grad, filter, f1 - f0, segments, n, stride, tile);
        g = tile;
        g_stride = stride;
    }
    if (padded)
        pack_mask(p, k0, k1, segments, n, stride, mask);
    ordinary = ordinary && kernels->all_ordinary((k1 - k0) * stride, panel);
    for (o = 0; ordinary && o < f1 - f0; o++)
        ordinary = kernels->all_finite(count, g + o * g_stride * e);
    kernels->grad_w(f1 - f0, k1 - k0, count, (const char *)p->w + weight * e, taps(p), g, g_stride, panel, stride,
                    padded ? mask : NULL, dw + weight * e, ordinary);
}

static void grad_w_task(void *context, int64_t task, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const struct dot_problem *p = f->p;
    const int64_t along = ceiling(taps(p), f->taps), chunks = ceiling(p->filters, f->filters);
    const int64_t k0 = task % along * f->taps, k1 = smaller(taps(p), k0 + f->taps);
    const int64_t f0 = task / along % chunks * f->filters, f1 = smaller(p->filters, f0 + f->filters);
    const int64_t group = task / along / chunks, e = p->kernels->element, lanes = p->kernels->lanes;
    /* Blocks lie within images, unless these are small. They depend on shapes alone: sums are added up in one order. */
    const int64_t row = length(p) >= 256 ? length(p) : positions(p);
    const int64_t blocks = ceiling(row, POSITIONS), block = ceiling(ceiling(row, blocks), lanes) * lanes;
    int ordinary = p->kernels->ordinary & DOT_PARTIALS;
    int64_t o, start, position;

    for (o = f0; ordinary && o < f1; o++)
        ordinary = p->kernels->all_ordinary(
            k1 - k0, (const char *)p->w + ((group * p->filters + o) * taps(p) + k0) * e);
    for (start = 0; start < positions(p); start += row)
        for (position = 0; position < row; position += block)
            grad_w_block(p, f->grad, f->dw, group, f0, f1, k0, k1, start + position, smaller(block, row - position),
                         ordinary, scratch);
}

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

    return (p->skips ? 2 : 1) * aligned(f.taps * POSITIONS * p->kernels->element) +
           aligned(f.filters * POSITIONS * p->kernels->element);
}

void dot_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace)
{
    struct grad_w f = grad_w_split(p);

    f.grad = (const char *)grad;
    f.dw = (char *)dw;
    run(p, p->groups * ceiling(taps(p), f.taps) * ceiling(p->filters, f.filters), grad_w_task, &f,
        (char *)workspace, grad_w_scratch(p));
}

/* ---------------------------------------------------------------- gradients of maxima and minima */

struct extremum {
    const struct dot_problem *p;
    const char *grad;
    char *dx;
    char *dw;
    int32_t *arg;     /* [panel][filter][lane] */
    int64_t group;
    int64_t f0, f1;
    int64_t start, end;
};

/* Filters at a time, and bytes of `arg`. */
#define ARG_FILTERS 512
#define ARG_BYTES (2 << 20)

static int64_t extremum_panels(const struct dot_problem *p)
{
    return larger(1, ARG_BYTES / (smaller(p->filters, ARG_FILTERS) * p->kernels->lanes * 4));
}

static void arg_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, lanes = kernels->lanes, depth = forward_depth(p), filters = f->f1 - f->f0;
    const int64_t position = f->start + task * lanes;
    char *panel = scratch, *mask = panel + aligned(depth * lanes * e);
    char *best = mask + (p->skips ? aligned(depth * lanes * e) : 0);
    int32_t *arg = f->arg + task * filters * lanes;
    struct segment segments[POSITIONS];
    const int n = list_segments(p, position, smaller(lanes, f->end - position), segments);
    int64_t k, o, i;

    for (i = 0; i < filters * lanes; i++)
        arg[i] = -1;
    for (k = 0; k < taps(p); k += depth) {
        const int64_t k1 = smaller(taps(p), k + depth);
        const int padded = pack(p, f->group, k, k1, segments, n, lanes, panel) && p->skips;

        if (padded)
            pack_mask(p, k, k1, segments, n, lanes, mask);
        for (o = 0; o < filters; o++)
            kernels->arg(k1 - k, (int32_t)k,
                         (const char *)p->w + ((f->group * p->filters + f->f0 + o) * taps(p) + k) * e, panel,
                         padded ? mask : NULL, best + o * lanes * e, arg + o * lanes);
    }
}

/* One filter's gradients at positions of one panel: to the filter's dw, or to dx. */
static void add_partials(const struct extremum *f, int64_t filter, int64_t start, int64_t count, char *dw, char *dx)
{
    const struct dot_problem *p = f->p;
    const int64_t lanes = p->kernels->lanes, offset = start - f->start;
    const int32_t *arg = f->arg + (offset / lanes * (f->f1 - f->f0) + filter) * lanes + offset % lanes;
    struct segment segments[POSITIONS];
    const int n = list_segments(p, start, count, segments);

    BY_TYPE(p->kernels->element, add_partials, p, f->group, f->f0 + filter, segments, n, arg, f->grad, dw, dx);
}

static void extremum_dw_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const int64_t lanes = f->p->kernels->lanes, e = f->p->kernels->element;
    char *dw = f->dw + (f->group * f->p->filters + f->f0 + task) * taps(f->p) * e;
    int64_t block, position;

    /* Summed up in blocks, as everything is. */
    for (block = f->start; block < f->end; block += POSITIONS) {
        const int64_t end = smaller(f->end, block + POSITIONS);

        memset(scratch, 0, (size_t)(taps(f->p) * e));
        for (position = block; position < end; position += lanes)
            add_partials(f, task, position, smaller(lanes, end - position), scratch, NULL);
        BY_TYPE(e, add, taps(f->p), scratch, dw);
    }
}

static void extremum_dx_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const int64_t lanes = f->p->kernels->lanes, image = f->start / length(f->p) + task;
    const int64_t end = smaller(f->end, (image + 1) * length(f->p));
    int64_t position = larger(f->start, image * length(f->p)), step, o;

    (void)scratch;
    for (; position < end; position += step) {
        step = smaller(lanes - (position - f->start) % lanes, end - position);
        for (o = 0; o < f->f1 - f->f0; o++)
            add_partials(f, o, position, step, NULL, f->dx);
    }
}

static int64_t extremum_scratch(const struct dot_problem *p)
{
    const int64_t panel = aligned(forward_depth(p) * p->kernels->lanes * p->kernels->element);
    const int64_t best = aligned(smaller(p->filters, ARG_FILTERS) * p->kernels->lanes * p->kernels->element);

    return larger(panel + (p->skips ? panel : 0) + best, aligned(taps(p) * p->kernels->element));
}

static int64_t extremum_args(const struct dot_problem *p)
{
    return aligned(extremum_panels(p) * smaller(p->filters, ARG_FILTERS) * p->kernels->lanes * 4);
}

void dot_grad_extremum(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace)
{
    struct extremum f = {.p = p, .grad = (const char *)grad, .dx = (char *)dx, .dw = (char *)dw,
                         .arg = (int32_t *)workspace};
    char *scratch = (char *)workspace + extremum_args(p);
    const int64_t lanes = p->kernels->lanes, step = extremum_panels(p) * lanes;

    for (f.group = 0; f.group < p->groups; f.group++)
        for (f.f0 = 0; f.f0 < p->filters; f.f0 = f.f1) {
            f.f1 = smaller(p->filters, f.f0 + ARG_FILTERS);
            for (f.start = 0; f.start < positions(p); f.start = f.end) {
                f.end = smaller(positions(p), f.start + step);
                run(p, ceiling(f.end - f.start, lanes), arg_task, &f, scratch, extremum_scratch(p));
                if (dw != NULL)
                    run(p, f.f1 - f.f0, extremum_dw_task, &f, scratch, extremum_scratch(p));
                if (dx != NULL)
                    run(p, (f.end - 1) / length(p) - f.start / length(p) + 1, extremum_dx_task, &f, scratch, 0);
            }
        }
}

/* ---------------------------------------------------------------- gradients of an add of the user's */

struct fold {
    const struct dot_problem *p;
    const char *grad;
    char *dx;
    char *dw;
    int64_t filters;  /* of one task of dw */
};

static int64_t fold_history(const struct dot_problem *p)
{
    return aligned((ceiling(taps(p), DOT_KEPT) + DOT_KEPT) * p->kernels->lanes * p->kernels->total);
}

static int64_t fold_scratch(const struct dot_problem *p)
{
    const int64_t e = p->kernels->element;

    return (p->skips ? 3 : 2) * aligned(taps(p) * p->kernels->lanes * e) + fold_history(p) +
           aligned(p->kernels->lanes * e) + aligned(taps(p) * e);
}

static void fold_panel(const struct fold *f, int64_t group, int64_t f0, int64_t f1, int64_t position, int64_t count,
                       char *dw, char *scratch)
{
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, lanes = kernels->lanes, filter = group * p->filters;
    const int64_t panel_bytes = aligned(taps(p) * lanes * e);
    char *panel = scratch, *columns = panel + panel_bytes, *mask = columns + panel_bytes;
    char *history = mask + (p->skips ? panel_bytes : 0), *grads = history + fold_history(p);
    struct segment segments[POSITIONS];
    const int n = list_segments(p, position, count, segments);
    const int padded = pack(p, group, 0, taps(p), segments, n, lanes, panel) && p->skips;
    int64_t o;

    if (padded)
        pack_mask(p, 0, taps(p), segments, n, lanes, mask);
    memset(columns, 0, (size_t)(taps(p) * lanes * e));
    for (o = f0; o < f1; o++) {
        BY_SIZE(e, gather, p, f->grad, filter + o, 1, segments, n, lanes, grads);
        memset(grads + count * e, 0, (size_t)((lanes - count) * e));
        kernels->fold_grad(taps(p), count, (const char *)p->w + (filter + o) * taps(p) * e, panel,
                           padded ? mask : NULL, grads, history, dw, columns);
    }
    if (f->dx != NULL)
        BY_TYPE(e, add_columns, p, group, 0, taps(p), segments, n, lanes, columns, f->dx);
}

static void fold_dw_task(void *context, int64_t task, char *scratch)
{
    const struct fold *f = (const struct fold *)context;
    const int64_t lanes = f->p->kernels->lanes, chunks = ceiling(f->p->filters, f->filters);
    const int64_t f0 = task % chunks * f->filters, f1 = smaller(f->p->filters, f0 + f->filters);
    const int64_t group = task / chunks, e = f->p->kernels->element, all = positions(f->p);
    char *dw = scratch + fold_scratch(f->p) - aligned(taps(f->p) * e);
    int64_t filter, block, position;

    /* Summed up in blocks, as everything is. */
    for (filter = f0; filter < f1; filter++)
        for (block = 0; block < all; block += POSITIONS) {
            memset(dw, 0, (size_t)(taps(f->p) * e));
            for (position = block; position < smaller(all, block + POSITIONS); position += lanes)
                fold_panel(f, group, filter, filter + 1, position, smaller(lanes, all - position), dw, scratch);
            BY_TYPE(e, add, taps(f->p), dw, f->dw + (group * f->p->filters + filter) * taps(f->p) * e);
        }
}

static void fold_dx_task(void *context, int64_t task, char *scratch)
{
    const struct fold *f = (const struct fold *)context;
    const struct dot_problem *p = f->p;
    const int64_t lanes = p->kernels->lanes, images = images_of_task(p);
    const int64_t first = task / p->groups * images, end = smaller(p->batch, first + images) * length(p);
    char *unused = scratch + fold_scratch(p) - aligned(taps(p) * p->kernels->element);
    int64_t position;

    memset(unused, 0, (size_t)(taps(p) * p->kernels->element));
    for (position = first * length(p); position < end; position += lanes)
        fold_panel(f, task % p->groups, 0, p->filters, position, smaller(lanes, end - position), unused, scratch);
}

void dot_grad_fold(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace)
{
    struct fold f = {.p = p, .grad = (const char *)grad, .dx = (char *)dx, .dw = (char *)dw};

    f.filters = larger(1, smaller(32, p->filters * p->groups / (4 * p->threads)));
    if (dw != NULL)
        run(p, p->groups * ceiling(p->filters, f.filters), fold_dw_task, &f, (char *)workspace, fold_scratch(p));
    else
        run(p, p->groups * ceiling(p->batch, images_of_task(p)), fold_dx_task, &f, (char *)workspace,
            fold_scratch(p));
}

/* ---------------------------------------------------------------- workspace */

int64_t dot_workspace(const struct dot_problem *p, int call)
{
    struct slab size;

    switch (call) {
    case 0:
        size = slab_size(p, p->kernels->rows, forward_depth(p));
        return slab_bytes(p, &size) + p->threads * forward_scratch(p);
    case 1:
        size = slab_size(p, 8, grad_x_unit(p));
        return slab_bytes(p, &size) + p->threads * grad_x_scratch(p);
    case 2:
        return p->threads * grad_w_scratch(p);
    case 3:
        return extremum_args(p) + p->threads * extremum_scratch(p);
    default:
        return p->threads * fold_scratch(p);
    }
}

void dot_advise(void *memory, int64_t bytes)
{
#if defined(MADV_HUGEPAGE)
    /* Pages that hold more than this memory too: small pages at its ends would take longer than all the large ones. */
    const uintptr_t page = (uintptr_t)2 << 20, start = (uintptr_t)memory / page * page;
    const uintptr_t end = ((uintptr_t)memory + (uintptr_t)bytes + page - 1) / page * page;

    /* Only a wish: what it returns changes nothing. */
    madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
