/* Gradients of a fold, whose add is the user's. */
#include <stddef.h>
#include <string.h>

#include "dot_add.h"
#include "dot_pack.h"
#include "dot_workspace.h"

/* Positions of one block of dw's sums. */
#define BLOCK 128

struct fold {
    const struct dot_problem *p;
    const char *grad;
    char *dx;         /* either is NULL */
    char *dw;
    int64_t filters;  /* of one task of dw */
};

static int64_t fold_history(const struct dot_problem *p)
{
    return aligned((ceiling(taps(p), DOT_KEPT) + DOT_KEPT) * p->kernels->lanes * p->kernels->total);
}

static int64_t fold_totals(const struct dot_problem *p)
{
    return aligned(p->kernels->numbers * taps(p) * (int64_t)sizeof(double));
}

static int64_t fold_scratch(const struct dot_problem *p)
{
    const int64_t lanes = p->kernels->lanes;

    return 2 * panel_bytes(p, taps(p), lanes) + mask_bytes(p, taps(p), lanes) + fold_history(p) +
           panel_bytes(p, 1, lanes) + panel_bytes(p, taps(p), 1) + panel_bytes(p, p->kernels->numbers * taps(p), 1) +
           fold_totals(p);
}

/* Gradients for filters [f0, f1) of a group at `count` positions: added to dw, and to f->dx unless that is NULL. */
static void fold_panel(const struct fold *f, int64_t group, int64_t f0, int64_t f1, int64_t position, int64_t count,
                       char *dw, char *scratch)
{
    const struct dot_problem *p = f->p;
    const struct dot_kernels *kernels = p->kernels;
    const int64_t e = kernels->element, lanes = kernels->lanes, filter = group * p->filters;
    char *panel = scratch, *columns = panel + panel_bytes(p, taps(p), lanes);
    char *mask = columns + panel_bytes(p, taps(p), lanes);
    char *history = mask + mask_bytes(p, taps(p), lanes), *grads = history + fold_history(p);
    char *weights = grads + panel_bytes(p, 1, lanes);
    struct segment segments[POSITIONS];
    const int n = dot_list_segments(p, position, count, segments);
    const void *there = dot_pack(p, group, 0, taps(p), segments, n, lanes, panel, mask);
    int64_t o;

    memset(columns, 0, (size_t)(taps(p) * lanes * e));
    for (o = f0; o < f1; o++) {
        dot_gather(p, e, f->grad, filter + o, 1, segments, n, lanes, grads);
        memset(grads + count * e, 0, (size_t)((lanes - count) * e));
        kernels->fold_grad(kernels, taps(p), count, dot_filter(p, filter + o, 0, taps(p), weights), panel, there, grads,
                           history, dw, columns);
    }
    if (f->dx != NULL)
        dot_add_columns(p, group, 0, taps(p), segments, n, lanes, columns, f->dx);
}

static void fold_dw_task(void *context, int64_t task, char *scratch)
{
    const struct fold *f = (const struct fold *)context;
    const int64_t lanes = f->p->kernels->lanes, chunks = ceiling(f->p->filters, f->filters);
    const int64_t f0 = task % chunks * f->filters, f1 = smaller(f->p->filters, f0 + f->filters);
    const int64_t group = task / chunks, e = f->p->kernels->element, all = positions(f->p);
    const int64_t count = f->p->kernels->numbers * taps(f->p);
    char *to = scratch + fold_scratch(f->p) - fold_totals(f->p), *dw = to - aligned(count * e);
    double *totals = (double *)to;
    int64_t filter, block, position;

    memset(dw, 0, (size_t)(count * e));
    for (filter = f0; filter < f1; filter++) {
        memset(totals, 0, (size_t)count * sizeof *totals);
        /* Added up in blocks, as all sums are. */
        for (block = 0; block < all; block += BLOCK) {
            for (position = block; position < smaller(all, block + BLOCK); position += lanes)
                fold_panel(f, group, filter, filter + 1, position, smaller(lanes, all - position), dw, scratch);
            dot_add_up(f->p, count, dw, totals);
        }
        dot_add_numbers(f->p, taps(f->p), totals, f->dw + (group * f->p->filters + filter) * taps(f->p) * e);
    }
}

static void fold_dx_task(void *context, int64_t task, char *scratch)
{
    const struct fold *f = (const struct fold *)context;
    const struct dot_problem *p = f->p;
    const int64_t lanes = p->kernels->lanes, images = images_of_task(p);
    const int64_t first = task / p->groups * images, end = smaller(p->batch, first + images) * length(p);
    const int64_t bytes = p->kernels->numbers * taps(p) * p->kernels->element;
    char *unused = scratch + fold_scratch(p) - fold_totals(p) - aligned(bytes);
    int64_t position;

    memset(unused, 0, (size_t)bytes);
    for (position = first * length(p); position < end; position += lanes)
        fold_panel(f, task % p->groups, 0, p->filters, position, smaller(lanes, end - position), unused, scratch);
}

int64_t dot_grad_fold_workspace(const struct dot_problem *p) { return p->threads * fold_scratch(p); }

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
