/* Gradients of maxima and minima: first which term gave each result, then that term's gradients. */
#include <stddef.h>
#include <string.h>

#include "dot_add.h"
#include "dot_pack.h"
#include "dot_workspace.h"

struct extremum {
    const struct dot_problem *p;
    const char *grad;
    char *dx;            /* dx, dw: NULL where it is not wanted */
    char *dw;
    int32_t *arg;        /* which term gave each result: [panel][filter][lane] */
    int64_t group;
    int64_t f0, f1;      /* filters of one turn, and its positions */
    int64_t start, end;
    double *totals;      /* of dw, for these filters: [filter][number][tap]; NULL where sums are added to dw */
};

/* The most filters at a time. */
#define ARG_FILTERS 512
/* Bytes of `arg`. */
#define ARG_BYTES (2 << 20)
/* The most taps whose gradients are added up at a time. */
#define DW_TAPS (1 << 17)

/* Bytes of the most totals that there may be. Where they would be more, positions are hardly so many that it matters. */
#define TOTALS (16 << 20)

/* How many panels' `arg` there may be at once. */
static int64_t extremum_panels(const struct dot_problem *p)
{
    return larger(1, ARG_BYTES / (smaller(p->filters, ARG_FILTERS) * p->kernels->lanes * 4));
}

static int64_t best_bytes(const struct dot_problem *p)
{
    return panel_bytes(p, smaller(p->filters, ARG_FILTERS), p->kernels->lanes);
}

static void arg_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, lanes = kernels->lanes, depth = forward_depth(p), filters = f->f1 - f->f0;
    const int64_t position = f->start + task * lanes;
    char *panel = scratch, *mask = panel + panel_bytes(p, depth, lanes);
    char *best = mask + mask_bytes(p, depth, lanes), *weights = best + best_bytes(p);
    int32_t *arg = f->arg + task * filters * lanes;
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, position, smaller(lanes, f->end - position), segments);
    int64_t k, o, i;

    for (i = 0; i < filters * lanes; i++)
        arg[i] = -1;
    for (k = 0; k < taps(p); k += depth) {
        const int64_t k1 = smaller(taps(p), k + depth);
        const void *there = dot_pack(p, f->group, k, k1, segments, n, lanes, panel, mask);

        for (o = 0; o < filters; o++)
            kernels->arg(kernels, k1 - k, (int32_t)k,
                         dot_filter(p, f->group * p->filters + f->f0 + o, k, k1, weights), panel,
                         there, best + o * lanes * e, arg + o * lanes);
    }
}

/* Adds one filter's gradients at positions of one panel, to dw, of its taps [k0, k1), or to dx. */
static void add_partials(const struct extremum *f, int64_t filter, int64_t k0, int64_t k1, int64_t start, int64_t count,
                         char *dw, char *dx)
{
    const struct dot_problem *p = f->p;
    const int64_t lanes = p->kernels->lanes, offset = start - f->start;
    const int32_t *arg = f->arg + (offset / lanes * (f->f1 - f->f0) + filter) * lanes + offset % lanes;
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, start, count, segments);

    dot_add_partials(p, f->group, f->f0 + filter, k0, k1, segments, n, arg, f->grad, dw, dx);
}

/* Totals of one filter. */
static int64_t totals_of(const struct dot_problem *p) { return p->kernels->numbers * taps(p); }

/* Bytes of all totals. */
static int64_t totals_bytes(const struct dot_problem *p)
{
    const int64_t bytes = smaller(p->filters, ARG_FILTERS) * totals_of(p) * (int64_t)sizeof(double);

    return positions(p) > POSITIONS && taps(p) <= DW_TAPS && bytes <= TOTALS ? aligned(bytes) : 0;
}

static void extremum_dw_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const struct dot_problem *p = f->p;
    const int64_t lanes = p->kernels->lanes, e = p->kernels->element;
    char *dw = f->dw + (f->group * p->filters + f->f0 + task) * taps(p) * e;
    int64_t block, position, k0;

    for (k0 = 0; k0 < taps(p); k0 += DW_TAPS) {
        const int64_t k1 = smaller(taps(p), k0 + DW_TAPS), count = p->kernels->numbers * (k1 - k0);
        double *own = (double *)(scratch + aligned(count * e)), *totals = own;

        if (f->totals != NULL)
            totals = f->totals + task * totals_of(p);
        else
            memset(own, 0, (size_t)count * sizeof *own);
        memset(scratch, 0, (size_t)(count * e));
        /* Added up in blocks, as all sums are. */
        for (block = f->start; block < f->end; block += POSITIONS) {
            const int64_t end = smaller(f->end, block + POSITIONS);

            for (position = block; position < end; position += lanes)
                add_partials(f, task, k0, k1, position, smaller(lanes, end - position), scratch, NULL);
            dot_add_up(p, count, scratch, totals);
        }
        if (f->totals == NULL)
            dot_add_numbers(p, k1 - k0, own, dw + k0 * e);
    }
}

static void add_totals_task(void *context, int64_t task, char *scratch)
{
    const struct extremum *f = (const struct extremum *)context;
    const struct dot_problem *p = f->p;

    (void)scratch;
    dot_add_numbers(p, taps(p), f->totals + task * totals_of(p),
                    f->dw + (f->group * p->filters + f->f0 + task) * taps(p) * p->kernels->element);
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
            add_partials(f, o, 0, taps(f->p), position, step, NULL, f->dx);
    }
}

static int64_t extremum_scratch(const struct dot_problem *p)
{
    const int64_t depth = forward_depth(p), lanes = p->kernels->lanes;
    const int64_t sums = p->kernels->numbers * smaller(taps(p), DW_TAPS);

    return larger(panel_bytes(p, depth, lanes) + mask_bytes(p, depth, lanes) + best_bytes(p) + panel_bytes(p, depth, 1),
                  panel_bytes(p, sums, 1) + aligned(sums * (int64_t)sizeof(double)));
}

static int64_t extremum_args(const struct dot_problem *p)
{
    return aligned(extremum_panels(p) * smaller(p->filters, ARG_FILTERS) * p->kernels->lanes * 4);
}

int64_t dot_grad_extremum_workspace(const struct dot_problem *p)
{
    return extremum_args(p) + totals_bytes(p) + p->threads * extremum_scratch(p);
}

void dot_grad_extremum(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace)
{
    struct extremum f = {.p = p, .grad = (const char *)grad, .dx = (char *)dx, .dw = (char *)dw,
                         .arg = (int32_t *)workspace};
    char *totals = (char *)workspace + extremum_args(p), *scratch = totals + totals_bytes(p);
    const int64_t lanes = p->kernels->lanes, step = extremum_panels(p) * lanes;

    f.totals = dw != NULL && scratch > totals ? (double *)totals : NULL;
    for (f.group = 0; f.group < p->groups; f.group++)
        for (f.f0 = 0; f.f0 < p->filters; f.f0 = f.f1) {
            f.f1 = smaller(p->filters, f.f0 + ARG_FILTERS);
            if (f.totals != NULL)
                memset(totals, 0, (size_t)totals_bytes(p));
            for (f.start = 0; f.start < positions(p); f.start = f.end) {
                f.end = smaller(positions(p), f.start + step);
                run(p, ceiling(f.end - f.start, lanes), arg_task, &f, scratch, extremum_scratch(p));
                if (dw != NULL)
                    run(p, f.f1 - f.f0, extremum_dw_task, &f, scratch, extremum_scratch(p));
                if (dx != NULL)
                    run(p, (f.end - 1) / length(p) - f.start / length(p) + 1, extremum_dx_task, &f, scratch, 0);
            }
            if (f.totals != NULL)
                run(p, f.f1 - f.f0, add_totals_task, &f, scratch, 0);
        }
}
