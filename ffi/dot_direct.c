/* The forward call for groups of few filters: their pixels are sorted by phase, and read where they lie. */
#include "dot_direct.h"

#include <string.h>

#include "dot_pack.h"

/* Channels that lie in one cache line, where they lie side by side. */
#define TOGETHER 16
/* Elsewhere, groups that share what is computed of their sizes, and elements of all of these: so that they stay in the
 * first cache. */
#define SHARING 8
#define SHARED_ELEMENTS 4096
/* Terms below which a task isn't worth a thread's while. */
#define TERMS_OF_TASK 100000

struct forward {
    struct direct d;
    char *y;
    int64_t depth; /* terms that are added up in one go */
};

static int64_t bundles(const struct direct *d) { return ceiling(d->p->groups, d->together); }

int64_t dot_direct_items(const struct direct *d) { return volume(d->s.boxes) * d->p->batch * bundles(d); }

int64_t dot_direct_together(const struct direct *d)
{
    const struct dot_problem *p = d->p;
    const int side_by_side = p->x_strides[1] == 1 || p->y_strides[1] == 1;
    const int64_t items = volume(d->s.boxes) * p->batch, least = side_by_side ? 4 : 1;
    int64_t together;

    if (side_by_side)
        together = smaller(p->groups, ceiling(TOGETHER, smaller(p->channels, p->filters)));
    else
        together = larger(1, smaller(smaller(p->groups, SHARING),
                                     SHARED_ELEMENTS / (p->channels * phases_volume(&d->s) + volume(d->s.size))));
    while (together > least && items * ceiling(p->groups, together) < 4 * p->threads)
        together = ceiling(together, 2);
    return together;
}

int64_t dot_direct_share(const struct direct *d)
{
    const int64_t terms = volume(d->s.box) * taps(d->p) * d->p->filters * d->together;
    const int64_t tasks = smaller(dot_direct_items(d) * terms / TERMS_OF_TASK, 16 * d->p->threads);

    return ceiling(dot_direct_items(d), larger(1, tasks));
}

static void find_box(const struct direct *d, struct item *item)
{
    int64_t box = item->box;
    int axis;

    for (axis = 2; axis >= 0; axis--) {
        item->start[axis] = box % d->s.boxes[axis] * d->s.box[axis];
        item->blocks[axis] = smaller(d->s.box[axis], d->p->blocks[axis] - item->start[axis]);
        box /= d->s.boxes[axis];
    }
}

struct item dot_direct_item(const struct direct *d, int64_t number)
{
    const struct dot_problem *p = d->p;
    const int64_t n = bundles(d), group = number % n * d->together;
    struct item item = {group, smaller(d->together, p->groups - group), number / n % p->batch, number / n / p->batch,
                        {0}, {0}};

    find_box(d, &item);
    return item;
}

int dot_direct_next(const struct direct *d, struct item *item)
{
    const int64_t before = item->groups;

    item->group += d->together;
    item->groups = smaller(d->together, d->p->groups - item->group);
    if (item->groups > 0)
        return 0;
    item->group = 0;
    item->groups = smaller(d->together, d->p->groups);
    if (++item->image < d->p->batch)
        return item->groups > before;
    item->image = 0;
    item->box++;
    find_box(d, item);
    return 1;
}

void dot_direct_offsets(const struct dot_problem *p, const struct phases *s, int64_t *offsets)
{
    struct tap tap = {0, 0, 0, 0};
    int64_t k;

    for (k = 0; k < taps(p); k++, next_tap(p->kernel, &tap))
        offsets[k] = (tap.channel * volume(s->count) + dot_phase_of(s, &tap)) * volume(s->size) +
                     place_of(s, ahead_of(p, tap.z, 0), ahead_of(p, tap.y, 1), ahead_of(p, tap.x, 2));
}

struct grid dot_phase_grid(const struct dot_problem *p, const struct phases *s, const int64_t *start, int64_t phase)
{
    struct grid grid;
    int axis;

    for (axis = 2; axis >= 0; axis--) {
        const int64_t tap = phase % s->count[axis];

        phase /= s->count[axis];
        grid.size[axis] = p->image[axis];
        grid.strides[axis] = p->x_strides[2 + axis];
        grid.step[axis] = p->stride[axis];
        grid.first[axis] = start[axis] * p->stride[axis] + tap * p->dilation[axis] % p->stride[axis] - p->before[axis];
    }
    return grid;
}

int dot_direct_outside(const struct dot_problem *p, const struct item *item)
{
    int axis;

    for (axis = 0; axis < 3; axis++) {
        const int64_t first = item->start[axis] * p->stride[axis] - p->before[axis];
        const int64_t last =
            first + (item->blocks[axis] - 1) * p->stride[axis] + (p->kernel[axis] - 1) * p->dilation[axis];

        if (first < 0 || last >= p->image[axis])
            return 1;
    }
    return 0;
}

void dot_direct_take(const struct direct *d, const struct item *item, int pads, char *out)
{
    const struct dot_problem *p = d->p;
    const int64_t e = p->kernels->element, each = volume(d->s.size) * e, phases = volume(d->s.count);
    const int64_t group = item->image * p->x_strides[0] + item->group * p->channels * p->x_strides[1];
    const struct several channels = {item->groups * p->channels, p->x_strides[1], phases_volume(&d->s)};
    /* Every other pixel of a row, and those between. */
    const int pairs = p->stride[2] == 2 && d->s.count[2] == 2 && p->x_strides[4] == 1 && p->x_strides[1] != 1;
    int64_t phase;

    for (phase = 0; phase < phases; phase += pairs ? 2 : 1) {
        const struct grid grid = dot_phase_grid(p, &d->s, item->start, phase);

        (pairs ? dot_take_pairs : dot_take)(e, (const char *)p->x + group * e, channels, &grid, d->s.size,
                                            pads ? p->pad : NULL, out + phase * each);
    }
}

void dot_direct_mask(const struct direct *d, const struct item *item, char *out)
{
    const struct dot_problem *p = d->p;
    const int64_t e = p->kernels->element, each = volume(d->s.size) * e, phases = volume(d->s.count);
    int64_t channel, phase;

    for (phase = 0; phase < phases; phase++) {
        const struct grid grid = dot_phase_grid(p, &d->s, item->start, phase);

        for (channel = 0; channel < p->channels; channel++)
            dot_take_mask(e, &grid, d->s.size, out + (channel * phases + phase) * each);
    }
}

const char *dot_direct_weights(const struct dot_problem *p, int64_t filter, char *room)
{
    const int planes = p->kernels->planes;
    int plane;

    if (planes == 1)
        return (const char *)dot_filter(p, filter, 0, taps(p), room);
    for (plane = 0; plane < planes; plane++)
        dot_pack_filters(p, plane, filter, 1, 0, taps(p), planes, room + plane * p->kernels->element);
    return room;
}

static int64_t x_bytes(const struct direct *d, int64_t groups)
{
    return aligned((groups * d->p->channels * phases_volume(&d->s) + BOX_OVERRUN) * d->p->kernels->element);
}

static int64_t mask_room(const struct direct *d) { return d->p->skips ? x_bytes(d, 1) : 0; }

/* Results that are put where they belong at once: of one filter, or of all whose results lie side by side. */
static int64_t results_at_once(const struct direct *d)
{
    return d->p->y_strides[1] == 1 ? d->together * d->p->filters : 1;
}

static int64_t out_bytes(const struct direct *d)
{
    return aligned((results_at_once(d) * volume(d->s.size) + BOX_OVERRUN) * d->p->kernels->total);
}

static int64_t forward_scratch(const struct direct *d)
{
    return x_bytes(d, d->together) + mask_room(d) + out_bytes(d) + aligned(taps(d->p) * weight_bytes(d->p));
}

/* One filter of a group, whose pixels are x. */
static void forward_filter(const struct forward *f, const struct item *item, int64_t filter, const char *x,
                           const char *mask, int finite, char *out, char *room)
{
    const struct direct *d = &f->d;
    const struct dot_problem *p = d->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, t = kernels->total, depth = f->depth, all_taps = taps(p);
    const int64_t length = run_length(&d->s, item->blocks, d->s.level);
    const int64_t planes = d->s.level > 0 ? item->blocks[0] : 1, rows = d->s.level > 1 ? item->blocks[1] : 1;
    const char *w = dot_direct_weights(p, filter, room);
    const int all = finite && kernels->operands_finite(all_taps * kernels->planes, w);
    int64_t z, y, k;

    for (z = 0; z < planes; z++)
        for (y = 0; y < rows; y++) {
            const int64_t place = place_of(&d->s, z, y, 0);

            for (k = 0; k < all_taps; k += depth)
                kernels->direct(kernels, length, smaller(depth, all_taps - k), w + k * weight_bytes(p), x + place * e,
                                d->offsets + k, mask ? mask + place * e : NULL, out + place * t, k == 0, all);
        }
}

static void forward_item(const struct forward *f, const struct item *item, const char *x, const char *mask,
                         char *out, char *room)
{
    const struct direct *d = &f->d;
    const struct dot_problem *p = d->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, t = kernels->total, pixels = p->channels * phases_volume(&d->s);
    const int64_t filters = item->groups * p->filters, first = item->group * p->filters;
    struct several several = {smaller(results_at_once(d), filters), p->y_strides[1], volume(d->s.size)};
    struct grid grid = {.step = {1, 1, 1}};
    const char *of_group = x;
    int64_t group, o, filter = first, number = 0;
    int axis;

    for (axis = 0; axis < 3; axis++) {
        grid.size[axis] = p->blocks[axis];
        grid.strides[axis] = p->y_strides[2 + axis];
        grid.first[axis] = item->start[axis];
    }
    for (group = 0; group < item->groups; group++, of_group += pixels * e) {
        const int finite =
            kernels->finite & DOT_TERMS && scalars_finite(p) && kernels->operands_finite(pixels, of_group);

        for (o = 0; o < p->filters; o++, filter++) {
            forward_filter(f, item, filter, of_group, mask, finite, out + number * several.apart * t, room);
            if (++number < several.count)
                continue;
            number = 0;
            dot_put(t, out, several, d->s.size, item->blocks, &grid,
                    f->y + (item->image * p->y_strides[0] + (filter + 1 - several.count) * p->y_strides[1]) * t);
        }
    }
}

static void forward_task(void *context, int64_t task, char *scratch)
{
    const struct forward *f = (const struct forward *)context;
    const struct direct *d = &f->d;
    const int64_t end = smaller(dot_direct_items(d), (task + 1) * d->share);
    char *x = scratch, *mask = x + x_bytes(d, d->together), *out = mask + mask_room(d), *room = out + out_bytes(d);
    struct item item = dot_direct_item(d, task * d->share);
    int64_t number;
    int another = 1, masked = 0;

    for (number = task * d->share; number < end; number++) {
        /* Padding is the same for all of a box. */
        dot_direct_take(d, &item, another, x);
        if (another && d->p->skips) {
            masked = dot_direct_outside(d->p, &item);
            if (masked)
                dot_direct_mask(d, &item, mask);
        }
        forward_item(f, &item, x, masked ? mask : NULL, out, room);
        another = dot_direct_next(d, &item);
    }
}

int dot_is_direct_forward(const struct dot_problem *p)
{
    struct phases phases;

    return dot_is_direct(p, &phases);
}

static int64_t offsets_bytes(const struct dot_problem *p) { return aligned(taps(p) * (int64_t)sizeof(int64_t)); }

int64_t dot_direct_workspace(const struct dot_problem *p)
{
    struct direct d = {.p = p};

    dot_is_direct(p, &d.s);
    d.together = dot_direct_together(&d);
    return offsets_bytes(p) + p->threads * forward_scratch(&d);
}

void dot_direct(const struct dot_problem *p, void *y, void *workspace)
{
    struct forward f = {.d = {.p = p, .offsets = (int64_t *)workspace}, .y = (char *)y,
                        .depth = forward_depth(p)};

    dot_is_direct(p, &f.d.s);
    f.d.together = dot_direct_together(&f.d);
    dot_direct_offsets(p, &f.d.s, f.d.offsets);
    f.d.share = dot_direct_share(&f.d);
    run(p, ceiling(dot_direct_items(&f.d), f.d.share), forward_task, &f, (char *)workspace + offsets_bytes(p),
        forward_scratch(&f.d));
}
