/* Gradients with respect to pixels, for groups of few filters: each pixel collects those of all blocks that read it. */
#include <string.h>

#include "dot_direct.h"
#include "dot_pack.h"

/* Boxes are of pixels: place q of a phase is its pixel q * stride. */
struct grad_x {
    struct direct d;             /* of places */
    const struct dot_problem *p;
    const char *grad;
    char *dx;
    int64_t *taps;               /* of the kernel, those of one phase after the other */
    int64_t *ends;               /* where each phase's end */
};

/* The same problem, of places instead of blocks. */
static struct dot_problem of_places(const struct dot_problem *p)
{
    struct dot_problem places = *p;
    int axis;

    for (axis = 0; axis < 3; axis++)
        places.blocks[axis] = (p->before[axis] + p->image[axis] - 1) / p->stride[axis] + 1;
    return places;
}

int dot_is_direct_grad_x(const struct dot_problem *p)
{
    const struct dot_problem places = of_places(p);
    struct phases phases;

    return dot_is_direct(&places, &phases);
}

/* Lists the taps of each phase, and where the gradient lies that a pixel has at each, from its place on. */
static void list_taps(const struct grad_x *f)
{
    const struct phases *s = &f->d.s;
    int64_t phase, k, n = 0;

    for (phase = 0; phase < volume(s->count); phase++) {
        struct tap tap = {0, 0, 0, 0};

        for (k = 0; k < volume(f->p->kernel); k++, next_tap(f->p->kernel, &tap))
            if (dot_phase_of(s, &tap) == phase) {
                f->taps[n] = k;
                f->d.offsets[n++] = place_of(s, s->size[0] - s->box[0] - ahead_of(f->p, tap.z, 0),
                                             s->size[1] - s->box[1] - ahead_of(f->p, tap.y, 1),
                                             s->size[2] - s->box[2] - ahead_of(f->p, tap.x, 2));
            }
        f->ends[phase] = n;
    }
}

/* The blocks whose gradients reach an item's places. */
static struct grid blocks_of(const struct grad_x *f, const struct item *item)
{
    struct grid grid = {.step = {1, 1, 1}};
    int axis;

    for (axis = 0; axis < 3; axis++) {
        grid.size[axis] = f->p->blocks[axis];
        grid.first[axis] = item->start[axis] - (f->d.s.size[axis] - f->d.s.box[axis]);
    }
    return grid;
}

/* The parts of a thread's scratch. */
struct rooms {
    char *x, *g, *y, *there, *out, *filter, *weights;
    int64_t *offsets;
};

static int64_t bytes_of(const struct grad_x *f, int64_t elements)
{
    return aligned((elements + BOX_OVERRUN) * f->p->kernels->element);
}

/* Phases whose gradients are put where they belong at once: one, or those of all channels that lie side by side. */
static int64_t phases_at_once(const struct grad_x *f)
{
    return f->p->dx_strides[1] == 1 ? f->d.together * f->p->channels * volume(f->d.s.count) : 1;
}

/* Returns their bytes. */
static int64_t divide(const struct grad_x *f, char *scratch, struct rooms *rooms)
{
    const struct dot_problem *p = f->p;
    const int64_t each = volume(f->d.s.size), terms = p->filters * volume(p->kernel);
    char *next = scratch;

    rooms->x = next, next += bytes_of(f, f->d.together * p->channels * phases_volume(&f->d.s));
    rooms->g = next, next += bytes_of(f, f->d.together * p->filters * each);
    rooms->y = next, next += p->kernels->saved ? bytes_of(f, f->d.together * p->filters * each) : 0;
    rooms->there = next, next += bytes_of(f, p->filters * each);
    rooms->out = next, next += bytes_of(f, phases_at_once(f) * each);
    rooms->filter = next, next += aligned(taps(p) * weight_bytes(p));
    rooms->weights = next, next += aligned(p->channels * terms * weight_bytes(p));
    rooms->offsets = (int64_t *)next, next += aligned(terms * (int64_t)sizeof(int64_t));
    return next - scratch;
}

/* A group's weights: [channel][phase][filter][tap]. */
static void pack(const struct grad_x *f, int64_t group, const struct rooms *rooms)
{
    const struct dot_problem *p = f->p;
    const int64_t bytes = weight_bytes(p), of_kernel = volume(p->kernel), phases = volume(f->d.s.count);
    int64_t o, channel, phase, t;

    for (o = 0; o < p->filters; o++) {
        const char *w = dot_direct_weights(p, group * p->filters + o, rooms->filter);

        for (channel = 0; channel < p->channels; channel++)
            for (phase = 0, t = 0; phase < phases; phase++) {
                const int64_t first = t, count = f->ends[phase] - first;
                char *to = rooms->weights + ((channel * of_kernel + first) * p->filters + o * count) * bytes;

                for (; t < f->ends[phase]; t++, to += bytes)
                    memcpy(to, w + (channel * of_kernel + f->taps[t]) * bytes, (size_t)bytes);
            }
    }
}

/* Gradients of a phase, to the first `channels` of the item's channels from `channel` on. */
static void put_phase(const struct grad_x *f, const struct item *item, int64_t channel, int64_t channels, int64_t phase,
                      const char *out)
{
    const struct dot_problem *p = f->p;
    const struct several several = {channels, p->dx_strides[1], phases_volume(&f->d.s)};
    struct grid grid = dot_phase_grid(p, &f->d.s, item->start, phase);

    memcpy(grid.strides, p->dx_strides + 2, sizeof grid.strides);
    channel += item->group * p->channels;
    dot_put(p->kernels->element, out, several, f->d.s.size, item->blocks, &grid,
            f->dx + (item->image * p->dx_strides[0] + channel * p->dx_strides[1]) * p->kernels->element);
}

/* One channel's pixels of one phase, whose taps are those from `first` on, of the item's group of a number. */
static void grad_phase(const struct grad_x *f, const struct item *item, int64_t group, int64_t channel, int64_t phase,
                       int64_t first, int finite, const struct rooms *rooms, char *out)
{
    const struct direct *d = &f->d;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, each = volume(d->s.size), count = f->ends[phase] - first;
    const int64_t length = run_length(&d->s, item->blocks, d->s.level);
    const int64_t planes = d->s.level > 0 ? item->blocks[0] : 1, rows = d->s.level > 1 ? item->blocks[1] : 1;
    const char *x = rooms->x + ((group * p->channels + channel) * volume(d->s.count) + phase) * each * e;
    const int64_t of_group = group * p->filters * each * e;
    const char *w = rooms->weights + (channel * volume(p->kernel) + first) * p->filters * weight_bytes(p);
    int64_t o, t, z, y;

    for (o = 0; o < p->filters; o++)
        for (t = 0; t < count; t++)
            rooms->offsets[o * count + t] = o * each + d->offsets[first + t];
    for (z = 0; z < planes; z++)
        for (y = 0; y < rows; y++) {
            const int64_t place = place_of(&d->s, z, y, 0) * e;

            kernels->direct_grad_x(kernels, length, p->filters * count, w, rooms->g + of_group + place,
                                   kernels->saved ? rooms->y + of_group + place : NULL, rooms->there + place,
                                   rooms->offsets, x + place, out + place, finite);
        }
}

/* Takes an item's operands. */
static void take(const struct grad_x *f, const struct item *item, int another, const struct rooms *rooms)
{
    static const uint8_t none[8];
    const struct direct *d = &f->d;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, each = volume(d->s.size);
    const int64_t offset = (item->image * p->y_strides[0] + item->group * p->filters * p->y_strides[1]) * e;
    const struct several filters = {item->groups * p->filters, p->y_strides[1], each};
    struct grid grid = blocks_of(f, item);
    int64_t o;

    for (o = 0; another && o < p->filters; o++)
        dot_take_mask(e, &grid, d->s.size, rooms->there + o * each * e);
    dot_direct_take(d, item, another, rooms->x);
    memcpy(grid.strides, p->y_strides + 2, sizeof grid.strides);
    dot_take(e, f->grad + offset, filters, &grid, d->s.size, another ? none : NULL, rooms->g);
    if (kernels->saved)
        dot_take(e, (const char *)p->saved + offset, filters, &grid, d->s.size, another ? none : NULL, rooms->y);
}

/* Whether all operands of the item's group of a number are finite, of which the weights were packed. */
static int all_finite(const struct grad_x *f, int64_t group, const struct rooms *rooms)
{
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t pixels = p->channels * phases_volume(&f->d.s), results = p->filters * volume(f->d.s.size);

    return kernels->finite & DOT_PARTIALS && scalars_finite(p) &&
           kernels->operands_finite(p->filters * taps(p) * kernels->planes, rooms->weights) &&
           kernels->operands_finite(pixels, rooms->x + group * pixels * kernels->element) &&
           kernels->gradients_finite(results, rooms->g + group * results * kernels->element);
}

static void grad_item(const struct grad_x *f, const struct item *item, const struct rooms *rooms)
{
    const struct dot_problem *p = f->p;
    const int64_t phases = volume(f->d.s.count), each = volume(f->d.s.size) * p->kernels->element;
    const int at_once = p->dx_strides[1] == 1;
    int64_t group, channel, phase, number = 0;

    for (group = 0; group < item->groups; group++) {
        int finite;

        pack(f, item->group + group, rooms);
        finite = all_finite(f, group, rooms);
        for (channel = 0; channel < p->channels; channel++)
            for (phase = 0; phase < phases; phase++) {
                char *out = rooms->out + (at_once ? number++ : 0) * each;

                grad_phase(f, item, group, channel, phase, phase > 0 ? f->ends[phase - 1] : 0, finite, rooms, out);
                if (!at_once)
                    put_phase(f, item, group * p->channels + channel, 1, phase, out);
            }
    }
    for (phase = 0; at_once && phase < phases; phase++)
        put_phase(f, item, 0, item->groups * p->channels, phase, rooms->out + phase * each);
}

static void grad_x_task(void *context, int64_t task, char *scratch)
{
    const struct grad_x *f = (const struct grad_x *)context;
    const struct direct *d = &f->d;
    const int64_t end = smaller(dot_direct_items(d), (task + 1) * d->share);
    struct item item = dot_direct_item(d, task * d->share);
    struct rooms rooms;
    int64_t number;
    int another = 1;

    divide(f, scratch, &rooms);
    for (number = task * d->share; number < end; number++) {
        take(f, &item, another, &rooms);
        grad_item(f, &item, &rooms);
        another = dot_direct_next(d, &item);
    }
}

/* Lists of the taps of a kernel: which, where, and where each phase's end. */
static int64_t list_bytes(const struct dot_problem *p) { return aligned(volume(p->kernel) * (int64_t)sizeof(int64_t)); }

int64_t dot_direct_grad_x_workspace(const struct dot_problem *p)
{
    const struct dot_problem places = of_places(p);
    struct grad_x f = {.p = p, .d = {.p = &places}};
    struct rooms rooms;

    dot_is_direct(&places, &f.d.s);
    f.d.together = dot_direct_together(&f.d);
    return 3 * list_bytes(p) + p->threads * divide(&f, NULL, &rooms);
}

void dot_direct_grad_x(const struct dot_problem *p, const void *grad, void *dx, void *workspace)
{
    const struct dot_problem places = of_places(p);
    char *lists = (char *)workspace;
    struct grad_x f = {.p = p, .d = {.p = &places}, .grad = (const char *)grad, .dx = (char *)dx};
    struct rooms rooms;

    dot_is_direct(&places, &f.d.s);
    f.d.together = dot_direct_together(&f.d);
    f.d.offsets = (int64_t *)lists;
    f.taps = (int64_t *)(lists + list_bytes(p));
    f.ends = (int64_t *)(lists + 2 * list_bytes(p));
    list_taps(&f);
    f.d.share = dot_direct_share(&f.d);
    run(p, ceiling(dot_direct_items(&f.d), f.d.share), grad_x_task, &f, lists + 3 * list_bytes(p),
        divide(&f, NULL, &rooms));
}
