/* Gradients with respect to weights, for groups of few filters. */
#include <string.h>

#include "dot_add.h"
#include "dot_direct.h"
#include "dot_pack.h"

/* Positions that are added up in one go, and so many, or more of one item, before their sums are added up as doubles. */
#define POSITIONS_AT_ONCE 1024
#define POSITIONS_IN_ALL 2048
/* Items of one part. */
#define ITEMS_AT_ONCE 64
/* The most gradients of all parts. */
#define MOST_SUMS ((int64_t)1 << 19)

struct grad_w {
    struct direct d;
    const char *grad;
    char *dw;
    double *sums;   /* of each part: [group][part][number][filter][tap] */
    int64_t parts;  /* of a group's items; of sizes alone, and so is the order of sums */
};

struct rooms {
    char *x, *mask, *g, *y, *there, *weights;
    char *sums;  /* of the last items: [group][number][filter][tap] */
};

int dot_is_direct_grad_w(const struct dot_problem *p)
{
    struct phases s;

    /* Positions are one run: none must be counted twice. */
    return dot_is_direct(p, &s) && run_length(&s, s.box, 0) <= 4 * volume(s.box);
}

static int64_t items_of_group(const struct grad_w *f) { return volume(f->d.s.boxes) * f->d.p->batch; }
static int64_t weights_of_group(const struct dot_problem *p) { return p->filters * taps(p); }
static int64_t sums_of_part(const struct dot_problem *p) { return p->kernels->numbers * weights_of_group(p); }

static int64_t count_parts(const struct grad_w *f)
{
    const struct dot_problem *p = f->d.p;
    const int64_t items = items_of_group(f), most = larger(1, MOST_SUMS / (p->groups * sums_of_part(p)));

    return smaller(smaller(items, most), larger(ceiling(items, ITEMS_AT_ONCE), 64 / p->groups));
}

/* Filters whose gradients are taken at once: one, or all that lie side by side. */
static int64_t filters_at_once(const struct grad_w *f)
{
    return f->d.p->y_strides[1] == 1 ? f->d.together * f->d.p->filters : 1;
}

/* From one filter's gradients to the next one's. Beyond the last position there is none. */
static int64_t room_of_filter(const struct grad_w *f) { return volume(f->d.s.size) + BOX_OVERRUN; }

static int64_t bytes_of(const struct grad_w *f, int64_t elements)
{
    return aligned((elements + BOX_OVERRUN) * f->d.p->kernels->element);
}

/* The parts of a thread's scratch. Returns their bytes. */
static int64_t divide(const struct grad_w *f, char *scratch, struct rooms *rooms)
{
    const struct dot_problem *p = f->d.p;
    const int64_t each = volume(f->d.s.size), pixels = p->channels * phases_volume(&f->d.s);
    const int64_t gradients = filters_at_once(f) * room_of_filter(f);
    char *next = scratch;

    rooms->x = next, next += bytes_of(f, f->d.together * pixels);
    rooms->mask = next, next += p->skips ? bytes_of(f, pixels) : 0;
    rooms->g = next, next += bytes_of(f, gradients);
    rooms->y = next, next += p->kernels->saved ? bytes_of(f, gradients) : 0;
    rooms->there = next, next += bytes_of(f, each);
    rooms->weights = next, next += aligned(taps(p) * weight_bytes(p));
    rooms->sums = next, next += aligned(f->d.together * sums_of_part(p) * p->kernels->element);
    return next - scratch;
}

/* One item's gradients of all filters of its groups, added to the rooms' sums. */
static void add_item(const struct grad_w *f, const struct item *item, int another, int masked,
                     const struct rooms *rooms)
{
    static const uint8_t none[8];
    const struct direct *d = &f->d;
    const struct dot_problem *p = d->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, each = volume(d->s.size), length = run_length(&d->s, item->blocks, 0);
    const int64_t pixels = p->channels * phases_volume(&d->s), filters = item->groups * p->filters;
    struct several several = {smaller(filters_at_once(f), filters), p->y_strides[1], room_of_filter(f)};
    struct grid grid = {.step = {1, 1, 1}};
    int64_t o, l;
    int axis, all;

    for (axis = 0; axis < 3; axis++) {
        grid.size[axis] = item->start[axis] + item->blocks[axis];
        grid.first[axis] = item->start[axis];
    }
    if (another)
        dot_take_mask(e, &grid, d->s.size, rooms->there);
    memcpy(grid.strides, p->y_strides + 2, sizeof grid.strides);
    all = kernels->finite & DOT_PARTIALS && scalars_finite(p) &&
          kernels->operands_finite(item->groups * pixels, rooms->x);
    for (o = 0; o < filters; o++) {
        const int64_t filter = item->group * p->filters + o, group = o / p->filters, number = o % several.count;
        const int64_t offset = (item->image * p->y_strides[0] + filter * p->y_strides[1]) * e;
        const char *w = dot_direct_weights(p, filter, rooms->weights), *x = rooms->x + group * pixels * e;
        const char *g = rooms->g + number * several.apart * e, *y = rooms->y + number * several.apart * e;
        char *to = rooms->sums + (group * sums_of_part(p) + o % p->filters * taps(p)) * e;
        int finite;

        if (number == 0) {
            dot_take(e, f->grad + offset, several, &grid, d->s.size, another ? none : NULL, rooms->g);
            if (kernels->saved)
                dot_take(e, (const char *)p->saved + offset, several, &grid, d->s.size, another ? none : NULL,
                         rooms->y);
        }
        finite = all && kernels->operands_finite(taps(p) * kernels->planes, w) && kernels->gradients_finite(each, g);
        for (l = 0; l < length; l += POSITIONS_AT_ONCE)
            kernels->direct_grad_w(kernels, smaller(POSITIONS_AT_ONCE, length - l), taps(p), w, g + l * e,
                                   kernels->saved ? y + l * e : NULL, rooms->there + l * e, d->offsets, x + l * e,
                                   masked ? rooms->mask + l * e : NULL, to, weights_of_group(p), finite);
    }
}

static void grad_w_task(void *context, int64_t task, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const struct direct *d = &f->d;
    const struct dot_problem *p = d->p;
    const int64_t e = p->kernels->element, items = items_of_group(f), part = task % f->parts, bundle = task / f->parts;
    const int64_t first = items * part / f->parts, end = items * (part + 1) / f->parts;
    const int64_t bundles = ceiling(p->groups, d->together), groups = smaller(d->together, p->groups - bundle * d->together);
    const int64_t each = sums_of_part(p), some = ceiling(POSITIONS_IN_ALL, volume(d->s.box));
    double *totals = f->sums + (bundle * d->together * f->parts + part) * each;
    struct rooms rooms;
    int64_t number, group, box = -1;
    int masked = 0;

    /* Beyond the last position there is none. */
    memset(scratch, 0, (size_t)divide(f, scratch, &rooms));
    for (group = 0; group < groups; group++)
        memset(totals + group * f->parts * each, 0, (size_t)each * sizeof *totals);
    for (number = first; number < end; number++) {
        const struct item item = dot_direct_item(d, number * bundles + bundle);
        const int another = item.box != box;

        dot_direct_take(d, &item, another, rooms.x);
        if (another && p->skips) {
            masked = dot_direct_outside(p, &item);
            if (masked)
                dot_direct_mask(d, &item, rooms.mask);
        }
        box = item.box;
        add_item(f, &item, another, masked, &rooms);
        if ((number + 1 - first) % some == 0 || number + 1 == end)
            for (group = 0; group < groups; group++)
                dot_add_up(p, each, rooms.sums + group * each * e, totals + group * f->parts * each);
    }
}

static void add_parts(void *context, int64_t group, char *scratch)
{
    const struct grad_w *f = (const struct grad_w *)context;
    const struct dot_problem *p = f->d.p;
    const int64_t count = weights_of_group(p), each = sums_of_part(p);
    int number;

    (void)scratch;
    for (number = 0; number < p->kernels->numbers; number++)
        if (p->kernels->wanted >> number & 1)
            dot_add_totals(p, count, f->sums + group * f->parts * each + number * count, f->parts, each,
                           f->dw + (number * weights(p) + group * count) * p->kernels->element);
}

static int64_t offsets_bytes(const struct dot_problem *p) { return aligned(taps(p) * (int64_t)sizeof(int64_t)); }
static int64_t sums_bytes(const struct grad_w *f)
{
    return aligned(f->d.p->groups * f->parts * sums_of_part(f->d.p) * (int64_t)sizeof(double));
}

int64_t dot_direct_grad_w_workspace(const struct dot_problem *p)
{
    struct grad_w f = {.d = {.p = p}};
    struct rooms rooms;

    dot_is_direct(p, &f.d.s);
    f.d.together = dot_direct_together(&f.d);
    f.parts = count_parts(&f);
    return offsets_bytes(p) + sums_bytes(&f) + p->threads * divide(&f, NULL, &rooms);
}

void dot_direct_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace)
{
    struct grad_w f = {.d = {.p = p, .offsets = (int64_t *)workspace}, .grad = (const char *)grad, .dw = (char *)dw};
    struct rooms rooms;

    dot_is_direct(p, &f.d.s);
    f.d.together = dot_direct_together(&f.d);
    dot_direct_offsets(p, &f.d.s, f.d.offsets);
    f.parts = count_parts(&f);
    f.sums = (double *)((char *)workspace + offsets_bytes(p));
    run(p, ceiling(p->groups, f.d.together) * f.parts, grad_w_task, &f,
        (char *)f.sums + sums_bytes(&f), divide(&f, NULL, &rooms));
    run(p, p->groups, add_parts, &f, NULL, 0);
}
