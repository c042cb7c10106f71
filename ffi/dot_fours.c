/* The forward call for products of signs: weights are packed in slabs, pixels in boxes, or in panels where taps reach too
 * far for boxes, or where images are so small that panels hold several. */
#include "dot_fours.h"

#include <stddef.h>
#include <string.h>

#include "dot_direct.h"
#include "dot_pack.h"
#include "dot_slab.h"

/* Bytes of a box's pixels, and of the results that are put in their places at once. */
#define BOX 32768
/* Filters or groups whose results or pixels share cache lines, where these lie side by side. */
#define KEPT 16
/* Positions that are summed at a time, at least. */
#define HALF (FOURS_LANES / 2)
/* Pixels of several rows that are packed at once. */
#define AT_ONCE 4096
/* Terms below which a task isn't worth a thread's while. */
#define TERMS_OF_TASK 2000000
/* Filters of a task, at least. */
#define FILTERS_OF_TASK 32

struct fours {
    const struct dot_problem *p;
    struct dot_problem bytes; /* the same, of which a channel is FOURS of p's */
    struct phases s;
    struct slab slab;
    char *y;
    uint8_t *weights;  /* packed: for each group and tile of filters [k][rows] */
    int64_t *offsets;  /* where each k reads */
    int64_t chunk;     /* filters of one task */
    int64_t share;     /* its groups */
    int64_t bundle;    /* groups whose pixels are packed together */
    int64_t kept;      /* filters whose results are put in their places at once */
    int in_boxes;
};

/* ---------------------------------------------------------------- what is cut, and how large that is */

/* Positions that are summed for a box. */
static int64_t summed(const struct phases *s, int level)
{
    return ceiling(run_length(s, s->box, level), HALF) * HALF * (level > 0 ? s->box[0] : 1) *
           (level > 1 ? s->box[1] : 1);
}

/* How many bytes are packed together, where channels lie side by side: those of all channels of a group, or where it has
 * one, those of several groups. Else 1. */
static int64_t together(const struct dot_problem *p, int64_t groups)
{
    if (p->x_strides[1] != 1)
        return 1;
    return p->channels > 1 ? ceiling(p->channels, FOURS) : groups;
}

static void describe(struct fours *f, const struct dot_problem *p)
{
    int axis;

    f->p = p;
    f->bytes = *p;
    f->bytes.channels = ceiling(p->channels, FOURS);
    f->kept = p->y_strides[1] == 1 ? KEPT : FOURS_ROWS;
    f->bundle = p->channels == 1 ? smaller(KEPT, together(p, p->groups)) : 1;
    /* Kernels of one tap read no pixel twice. */
    f->in_boxes = volume(p->kernel) > 1 &&
                  dot_cut(p, f->bundle * f->bytes.channels, f->kept * p->kernels->total, BOX, &f->s);
    if (!f->in_boxes)
        return;
    f->s.level = 0;
    for (axis = 1; axis < 3; axis++)
        if (summed(&f->s, axis) < summed(&f->s, f->s.level))
            f->s.level = axis;
    f->in_boxes = p->batch * volume(f->s.boxes) * summed(&f->s, f->s.level) <=
                  3 * ceiling(positions(p), FOURS_LANES) * FOURS_LANES;
}

static struct slab slab_of(const struct fours *f)
{
    struct dot_kernels kernels = *f->p->kernels;
    struct dot_problem p = f->bytes;
    struct slab size;

    kernels.element = 1;
    p.kernels = &kernels;
    size = dot_slab_size(&p, FOURS_ROWS, 1);
    /* Filters are never cut: their bytes are few. */
    size.k1 = taps(&p);
    return size;
}

static int64_t slab_bytes(const struct fours *f, const struct slab *size)
{
    return aligned(size->g1 * size->f1 * taps(&f->bytes));
}

static int64_t box_depth(const struct fours *f) { return f->in_boxes ? taps(&f->bytes) : 0; }
static int64_t panel_depth(const struct fours *f) { return smaller(FOURS_DEPTH, taps(&f->bytes)); }

static int64_t offsets_bytes(const struct fours *f)
{
    return aligned(larger(box_depth(f), panel_depth(f)) * (int64_t)sizeof(int64_t));
}

static int64_t pixels_bytes(const struct fours *f)
{
    return aligned(f->in_boxes ? f->bundle * f->bytes.channels * phases_volume(&f->s) + FOURS_LANES
                               : panel_depth(f) * FOURS_LANES);
}

/* How far the results of a box's filters are apart: what overruns one's must not lie in the next one's. */
static int64_t apart(const struct fours *f) { return volume(f->s.size) + FOURS_LANES; }

/* Filters whose results of a panel are kept: all of a task's where its terms are added up in several goes. */
static int64_t rows_of_tile(const struct fours *f)
{
    return taps(&f->bytes) > FOURS_DEPTH ? smaller(f->p->filters, CHUNK) : FOURS_ROWS;
}

static int64_t scratch_bytes(const struct fours *f)
{
    const int64_t results = f->in_boxes ? f->kept * apart(f) : rows_of_tile(f) * FOURS_LANES;

    return larger(pixels_bytes(f) + aligned(results * f->p->kernels->total), aligned(FOURS_ROWS * taps(&f->bytes)));
}

/* ---------------------------------------------------------------- weights */

static void pack_filter(const struct fours *f, int64_t filter, uint8_t *out)
{
    const struct dot_problem *p = f->p;
    const struct dot_fours *fours = p->kernels->fours;
    const int64_t *s = p->w_strides, *kernel = p->kernel, e = p->kernels->element, all = volume(kernel);
    const char *w = (const char *)p->w + filter * s[0] * e;
    int64_t c, z, y;

    if (s[4] == 1 && s[3] == kernel[2] && s[2] == kernel[1] * kernel[2] && s[1] == all && all <= FOURS_TAPS) {
        fours->dense(w, p->channels, all, out);
        return;
    }
    for (c = 0; c < p->channels; c += FOURS)
        for (z = 0; z < kernel[0]; z++)
            for (y = 0; y < kernel[1]; y++, out += kernel[2])
                fours->weights(w + (c * s[1] + z * s[2] + y * s[3]) * e, s[1], s[4],
                               (int)smaller(FOURS, p->channels - c), kernel[2], out);
}

/* One tile of filters. */
static void pack_task(void *context, int64_t task, char *scratch)
{
    const struct fours *f = (const struct fours *)context;
    const struct slab *s = &f->slab;
    const int64_t filters = s->f1 - s->f0, per_group = ceiling(filters, FOURS_ROWS), depth = taps(&f->bytes);
    const int64_t group = task / per_group, end = smaller(filters, (task % per_group + 1) * FOURS_ROWS);
    const int64_t first = (s->g0 + group) * f->p->filters + s->f0;
    uint8_t *signs = (uint8_t *)scratch;
    int64_t o, k;
    int i, rows;

    for (o = task % per_group * FOURS_ROWS; o < end; o += rows) {
        uint8_t *out = f->weights + (group * filters + o) * depth;

        rows = tile_rows(end - o, FOURS_ROWS);
        if (rows == 1) {
            pack_filter(f, first + o, out);
            continue;
        }
        for (i = 0; i < rows; i++)
            pack_filter(f, first + o + i, signs + i * depth);
        if (rows == FOURS_ROWS)
            for (k = 0; k < depth; k++)
                for (i = 0; i < FOURS_ROWS; i++)
                    out[FOURS_ROWS * k + i] = signs[i * depth + k];
        else
            for (k = 0; k < depth; k++)
                for (i = 0; i < rows; i++)
                    out[rows * k + i] = signs[i * depth + k];
    }
}

/* ---------------------------------------------------------------- boxes */

/* `count` pixels that lie `step` apart, from x on, for `bytes` bytes, from channel c on. */
static void pack_pixels(const struct dot_problem *p, int64_t bytes, int64_t c, const char *x, int64_t step, int64_t count,
                        uint8_t *out, int64_t apart)
{
    const struct dot_fours *fours = p->kernels->fours;

    if (bytes == 1)
        fours->pixels(x, p->x_strides[1], step, (int)smaller(FOURS, p->channels - c), count, out);
    else if (p->channels == 1)
        fours->side_by_side(x, bytes, 1, step, count, out, apart);
    else
        fours->side_by_side(x, p->channels, FOURS, step, count, out, apart);
}

/* Rows of a phase of `bytes` bytes, from channel c on. */
static void take_phase(const struct fours *f, const struct item *item, int64_t c, int64_t bytes, int64_t phase,
                       int pads, uint8_t *out)
{
    const struct dot_problem *p = f->p;
    const int64_t e = p->kernels->element, *size = f->s.size, apart = phases_volume(&f->s);
    const struct grid g = dot_phase_grid(p, &f->s, item->start, phase);
    const struct range there = inside(g.first[2], g.step[2], g.size[2], size[2]);
    /* Of what isn't there no place is computed: a product of its number might overflow. */
    const int any = there.first < there.last;
    const char *x = (const char *)p->x + (item->image * p->x_strides[0] + (item->group * p->channels + c) * p->x_strides[1] +
                                          (any ? (g.first[2] + there.first * g.step[2]) * g.strides[2] : 0)) * e;
    /* Whether rows follow one another: then several are packed at once, since ends of runs take most of the time. */
    const int follow = bytes == 1 && g.step[1] == 1 && g.step[2] * g.strides[2] == 1 && g.strides[1] == g.size[2] &&
                       there.last - there.first == g.size[2];
    uint8_t rows[AT_ONCE];
    int64_t i, j, l, n, packed = 0, next = 0;

    for (i = 0; i < size[0]; i++)
        for (j = 0; j < size[1]; j++, out += size[2]) {
            const int64_t z = g.first[0] + i * g.step[0], y = g.first[1] + j * g.step[1];
            const int in = any && z >= 0 && z < g.size[0] && y >= 0 && y < g.size[1];
            const int64_t first = in ? there.first : size[2], last = in ? there.last : size[2];

            if (in) {
                const char *row = x + (z * g.strides[0] + y * g.strides[1]) * e;

                if (!follow || last - first > AT_ONCE) {
                    pack_pixels(p, bytes, c, row, g.step[2] * g.strides[2], last - first, out + first, apart);
                } else {
                    if (j == 0 || next == packed) {
                        next = 0;
                        packed = smaller(smaller(size[1] - j, g.size[1] - y), AT_ONCE / (last - first));
                        pack_pixels(p, 1, c, row, 1, packed * (last - first), rows, 0);
                    }
                    copy_short(rows + next++ * (last - first), last - first, out + first);
                }
            }
            for (n = 0; pads && n < bytes; n++) {
                for (l = 0; l < first; l++)
                    out[n * apart + l] = FOURS_NOTHING;
                for (l = last; l < size[2]; l++)
                    out[n * apart + l] = FOURS_NOTHING;
            }
        }
}

/* The pixels of a box, of as many groups as are packed together. pads: whether to pad them too, or what is there stays. */
static void take(const struct fours *f, const struct item *item, int pads, uint8_t *out)
{
    const int64_t phases = volume(f->s.count), bytes = together(f->p, item->groups);
    int64_t c, phase;

    for (c = 0; c < f->p->channels; c += FOURS * bytes, out += phases_volume(&f->s))
        for (phase = 0; phase < phases; phase++)
            take_phase(f, item, c, bytes, phase, pads, out + phase * volume(f->s.size));
}

/* Sums of a box for `rows` filters. */
static void sum_box(const struct fours *f, const struct item *item, int rows, const uint8_t *w, const uint8_t *x, char *out)
{
    const struct dot_kernels *kernels = f->p->kernels;
    const int64_t length = run_length(&f->s, item->blocks, f->s.level);
    const int64_t planes = f->s.level > 0 ? item->blocks[0] : 1, lines = f->s.level > 1 ? item->blocks[1] : 1;
    int64_t z, y;

    for (z = 0; z < planes; z++)
        for (y = 0; y < lines; y++) {
            const int64_t place = place_of(&f->s, z, y, 0);

            kernels->fours->sum(rows, length, taps(&f->bytes), w, x + place, f->offsets, out + place * kernels->total,
                                apart(f), 1);
        }
}

/* A box of some groups of one image, for some filters of each. */
static void box_task(void *context, int64_t task, char *scratch)
{
    const struct fours *f = (const struct fours *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t t = p->kernels->total, filters = s->f1 - s->f0, chunks = ceiling(filters, f->chunk);
    const int64_t groups = s->g1 - s->g0, shares = ceiling(groups, f->share), first = task % chunks * f->chunk;
    const int64_t end = smaller(filters, first + f->chunk), start = task / chunks % shares * f->share;
    const int64_t stop = smaller(groups, start + f->share);
    const struct direct d = {.p = p, .s = f->s, .together = 1};
    struct item item = dot_direct_item(&d, task / chunks / shares * p->groups + s->g0 + start);
    uint8_t *x = (uint8_t *)scratch;
    char *out = scratch + pixels_bytes(f), *y = f->y + item.image * p->y_strides[0] * t;
    /* Of filters that follow one another in y, those whose results are put there at once. */
    struct several several = {0, p->y_strides[1], apart(f)};
    struct grid grid = {.step = {1, 1, 1}};
    int64_t group, o, filter;
    int axis, rows;

    for (axis = 0; axis < 3; axis++) {
        grid.size[axis] = p->blocks[axis];
        grid.strides[axis] = p->y_strides[2 + axis];
        grid.first[axis] = item.start[axis];
    }
    for (group = start; group < stop; group++, item.group++) {
        if ((group - start) % f->bundle == 0) {
            item.groups = smaller(f->bundle, stop - group);
            take(f, &item, group == start, x);
        }
        for (o = first; o < end; o += rows) {
            rows = tile_rows(end - o, FOURS_ROWS);
            sum_box(f, &item, rows, f->weights + (group * filters + o) * taps(&f->bytes),
                    x + (group - start) % f->bundle * f->bytes.channels * phases_volume(&f->s),
                    out + several.count * several.apart * t);
            several.count += rows;
            filter = item.group * p->filters + s->f0 + o + rows - several.count;
            if (several.count + FOURS_ROWS <= f->kept && (o + rows < end || (filters == p->filters && group + 1 < stop)))
                continue;
            dot_put(t, out, several, f->s.size, item.blocks, &grid, y + filter * p->y_strides[1] * t);
            several.count = 0;
        }
    }
}

/* ---------------------------------------------------------------- panels */

/* Signs of k [k0, k1) at the listed positions: [k][FOURS_LANES]. Lanes without a position have none. */
static void pack_panel(const struct fours *f, int64_t group, int64_t k0, int64_t k1, const struct segment *segments,
                       int n, uint8_t *panel)
{
    const struct dot_problem *p = f->p;
    const int64_t *s = p->x_strides, all = volume(p->kernel);
    /* Those of all channels lie in one panel, or are packed one by one. */
    const int64_t bytes = k1 - k0 == taps(&f->bytes) ? together(p, 1) : 1;
    struct tap tap = tap_at(p->kernel, k0);
    int64_t k;
    int i;

    memset(panel, FOURS_NOTHING, (size_t)((k1 - k0) * FOURS_LANES));
    for (k = k0; k < (bytes > 1 ? all : k1); k++, next_tap(p->kernel, &tap), panel += FOURS_LANES)
        for (i = 0; i < n; i++) {
            const struct segment *one = &segments[i];
            const int64_t row = row_offset(p, one, &tap, s), x = one->x + tap.x * p->dilation[2];
            const struct range there = inside(x, p->stride[2], p->image[2], one->count);

            if (row != PADDING && there.first < there.last)
                pack_pixels(p, bytes, tap.channel * FOURS,
                            (const char *)p->x + ((group * p->channels + tap.channel * FOURS) * s[1] + row +
                                                  (x + there.first * p->stride[2]) * s[4]) * p->kernels->element,
                            p->stride[2] * s[4], there.last - there.first, panel + one->lane + there.first,
                            all * FOURS_LANES);
        }
}

/* A panel of one group's positions, for some filters. */
static void panel_task(void *context, int64_t task, char *scratch)
{
    const struct fours *f = (const struct fours *)context;
    const struct dot_problem *p = f->p;
    const struct slab *s = &f->slab;
    const int64_t t = p->kernels->total, all = taps(&f->bytes), filters = s->f1 - s->f0, groups = s->g1 - s->g0;
    const int64_t chunks = ceiling(filters, f->chunk), first = task % chunks * f->chunk;
    const int64_t end = smaller(filters, first + f->chunk), group = task / chunks % groups;
    const int64_t start = task / chunks / groups * FOURS_LANES, count = smaller(FOURS_LANES, positions(p) - start);
    char *tile = scratch + pixels_bytes(f);
    struct segment segments[FOURS_LANES];
    const int n = dot_list_segments(p, start, count, segments);
    int64_t k, o;
    int rows;

    for (k = 0; k < all; k += FOURS_DEPTH) {
        const int64_t depth = smaller(FOURS_DEPTH, all - k);

        pack_panel(f, s->g0 + group, k, k + depth, segments, n, (uint8_t *)scratch);
        for (o = first; o < end; o += rows) {
            char *out = tile + (depth == all ? 0 : o - first) * FOURS_LANES * t;

            rows = tile_rows(end - o, FOURS_ROWS);
            p->kernels->fours->sum(rows, count, depth, f->weights + (group * filters + o) * all + k * rows,
                                   (const uint8_t *)scratch, f->offsets, out, FOURS_LANES, k == 0);
            if (k + depth == all)
                dot_scatter(p, t, out, (s->g0 + group) * p->filters + s->f0 + o, rows, segments, n, FOURS_LANES, f->y);
        }
    }
}

/* ---------------------------------------------------------------- the call */

int64_t dot_fours_workspace(const struct dot_problem *p)
{
    struct fours f;
    struct slab size;

    describe(&f, p);
    size = slab_of(&f);
    return slab_bytes(&f, &size) + offsets_bytes(&f) + p->threads * scratch_bytes(&f);
}

void dot_fours(const struct dot_problem *p, void *y, void *workspace)
{
    struct fours f;
    struct slab size;
    char *scratch;
    int64_t k;

    describe(&f, p);
    size = slab_of(&f);
    f.y = (char *)y;
    f.weights = (uint8_t *)workspace;
    f.offsets = (int64_t *)(void *)((char *)workspace + slab_bytes(&f, &size));
    scratch = (char *)f.offsets + offsets_bytes(&f);
    if (f.in_boxes)
        dot_direct_offsets(&f.bytes, &f.s, f.offsets);
    else
        for (k = 0; k < panel_depth(&f); k++)
            f.offsets[k] = k * FOURS_LANES;
    f.slab = dot_first_slab(&f.bytes, &size);
    do {
        const int64_t groups = f.slab.g1 - f.slab.g0, filters = f.slab.f1 - f.slab.f0;
        const int64_t places = f.in_boxes ? p->batch * volume(f.s.boxes) : ceiling(positions(p), FOURS_LANES);
        const int64_t terms = positions(p) * groups * filters * taps(p);
        /* Some tasks a thread, so that all end at about the same time. */
        const int64_t tasks = larger(1, smaller(p->threads > 1 ? 4 * p->threads : 1, terms / TERMS_OF_TASK));
        /* Each of a box's tasks packs its pixels. */
        const int64_t chunks = smaller(ceiling(tasks, groups * places), ceiling(filters, FILTERS_OF_TASK));

        f.chunk = ceiling(ceiling(filters, chunks), FOURS_ROWS) * FOURS_ROWS;
        f.share = f.in_boxes && f.chunk >= filters ? ceiling(groups * places, larger(tasks, places)) : 1;
        f.share = smaller(f.share, groups);
        if (!f.in_boxes && rows_of_tile(&f) > FOURS_ROWS)
            f.chunk = smaller(f.chunk, CHUNK);
        run(p, groups * ceiling(filters, FOURS_ROWS), pack_task, &f, scratch, scratch_bytes(&f));
        run(p, ceiling(groups, f.share) * places * ceiling(filters, f.chunk), f.in_boxes ? box_task : panel_task, &f, scratch,
            scratch_bytes(&f));
    } while (dot_next_slab(&f.bytes, &size, &f.slab));
}
