/* The generalised dot product fused with im2col: the whole C interface.
 *
 * y[n, f, l] = ADD over k of MULTIPLY(w[f, k], columns[n, k, l]). The columns are those
 * that im2col would make of the padded image x; they are packed a panel at a time and
 * never exist as a whole. k runs over channel, kernel plane, kernel row, kernel column. Images
 * of two dimensions are one plane deep.
 *
 * A table of kernels (dot_kernels) says what is multiplied and added; dot_forward.c and
 * dot_grad_*.c feed them. As in im2col.h nothing is checked, nothing is allocated and nothing
 * can fail: the caller passes buffers and a workspace as large as dot_workspace says.
 */
#ifndef DOT_H
#define DOT_H

#include <stdint.h>

/* How terms are added. */
#define DOT_SUM 0
#define DOT_MAX 1
#define DOT_MIN 2
#define DOT_FOLD 3
#define DOT_PROD 4
#define DOT_LOGSUMEXP 5
/* The most terms that are added up in one go. Sums of blocks keep long sums accurate. */
#define DOT_DEPTH 512
/* What has faster variants for finite operands: terms, partial derivatives. */
#define DOT_TERMS 1
#define DOT_PARTIALS 2
/* The most numbers that gradients are given of, beside the pixels': a weight and parameters. */
#define DOT_NUMBERS 8
/* Filters that kernels for few positions handle at a time. */
#define DOT_FEW_FILTERS 4
/* fold_grad keeps the running results of so many terms at once, and of every other block of as many only the first. */
#define DOT_KEPT 128

/* The kernels of one op for one type. They handle at most `rows` filters and `lanes` positions at
 * a time; weights come packed [k][rows], columns [k][lanes].
 *
 * A term may have parameters beside w and x. Those that have a number for each weight lie beside the weight, in planes:
 * packed weights are [k][plane][rows], others lie `plane` elements apart. Those of one number for all are scalars. */
struct dot_kernels {
    int32_t rows;       /* the most filters in a tile of forward */
    int32_t grad_rows;  /* the most taps in a tile of grad_x */
    int32_t lanes;      /* positions in a panel */
    int32_t element;    /* bytes of an operand */
    int32_t total;      /* bytes of a result */
    int32_t finite;     /* DOT_TERMS | DOT_PARTIALS */
    int32_t depth;      /* the most terms that forward adds up in one go */
    int32_t planes;     /* 1, the weight, and one for each parameter that has a number for each weight */
    int32_t numbers;    /* planes and scalars */
    int32_t saved;      /* whether gradients need the result */
    const void *table;  /* what forward looks terms up in; or NULL */
    const struct dot_fours *fours; /* what packs signs, four to a byte, and adds up their products; or NULL */
    /* Of one call, filled in by dot_call: */
    const void *scalars;
    int64_t plane;      /* the number of weights */
    uint32_t wanted;    /* bit i: whether the gradient of number i is: planes first, then scalars */
    /* The rows of a tile: out[i][j], rows `stride` apart. A result's first block of k starts
     * anew, others go on from out. mask: [k][lanes], 0 where a tap is left out, else all bits, and then a byte for
     * each k: whether none is; or NULL. */
    void (*forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w, const void *x,
                    const void *mask, void *out, int64_t stride, int first, int finite);
    /* Few positions: out[o][i] of up to DOT_FEW_FILTERS filters o, rows of w, and any positions i, rows of x, where no tap
     * is left out; rows lie w_stride, x_stride and `stride` apart; or NULL. */
    void (*few)(const struct dot_kernels *self, int filters, int64_t positions, int64_t depth, const void *w,
                int64_t w_stride, const void *x, int64_t x_stride, void *out, int64_t stride, int first, int finite);
    /* For the same, of each position i and filter o, whose gradient is g[o][i] and result y[o][i], g_stride apart:
     * columns[i][k], `taps` apart, += the sum over filters of d / dx, unless columns is NULL; and
     * dw[o][k] += the sum over positions of d / dw, unless dw is NULL, for each number that is wanted. */
    void (*few_grads)(const struct dot_kernels *self, int filters, int64_t positions, int64_t taps, const void *w,
                      int64_t w_stride, const void *g, int64_t g_stride, const void *y, const void *x,
                      int64_t x_stride, void *columns, void *dw, int64_t dw_stride, int64_t dw_plane);
    /* One filter's results at `count` positions side by side, whose pixels of each k lie at offsets[k] from x on; out and
     * mask as forward's, mask as x. Handles 4 * lanes at a time: reads and writes as many more; or NULL. */
    void (*direct)(const struct dot_kernels *self, int64_t count, int64_t depth, const void *w, const void *x,
                   const int64_t *offsets, const void *mask, void *out, int first, int finite);
    /* dx[i] = sum over `terms` k of g[offsets[k] + i] * d MULTIPLY(w[k], x[i]) / dx, for `count` pixels side by side; y as g.
     * w: [k][plane]. there: as g, 0 where there is no position, and g and y are 0; else all bits. Overruns as direct. */
    void (*direct_grad_x)(const struct dot_kernels *self, int64_t count, int64_t terms, const void *w, const void *g,
                          const void *y, const void *there, const int64_t *offsets, const void *x, void *dx,
                          int finite);
    /* dw[k] += sum over `count` positions i of g[i] * d MULTIPLY(w[k], x[offsets[k] + i]) / dw, for each number that is
     * wanted, `step` elements apart. mask: as x, or NULL. */
    void (*direct_grad_w)(const struct dot_kernels *self, int64_t count, int64_t taps, const void *w, const void *g,
                          const void *y, const void *there, const int64_t *offsets, const void *x, const void *mask,
                          void *dw, int64_t step, int finite);
    /* columns[i][j] (+)= sum over filters o of g[o][j] * d MULTIPLY(w[o][i], x[i][j]) / dx. y: as g, the result, where
     * gradients need it: g is multiplied by d result / d term; or NULL. */
    void (*grad_x)(const struct dot_kernels *self, int rows, int64_t filters, const void *w, const void *g,
                   const void *y, const void *x, void *columns, int first, int finite);
    /* dw[o][k] += sum over `count` positions of g[o][l] * d MULTIPLY(w[o][k], x[k][l]) / dw, for each number that is
     * wanted, and unless columns is NULL also columns[k][l] += sum over filters of g[o][l] * d MULTIPLY / dx. Reads whole
     * vectors. x_stride is that of mask and columns too. */
    void (*grad_w)(const struct dot_kernels *self, int64_t filters, int64_t taps, int64_t count, const void *w,
                   int64_t w_stride, const void *g, int64_t g_stride, const void *y, int64_t y_stride, const void *x,
                   int64_t x_stride, const void *mask, void *columns, void *dw, int64_t dw_stride, int64_t dw_plane,
                   int finite);
    /* For max and min: which k of the `depth` from `start` on gives best[j], for one filter. */
    void (*arg)(const struct dot_kernels *self, int64_t depth, int32_t start, const void *w, const void *x, const void *mask, void *best,
                int32_t *arg);
    /* One filter's g[j] * d MULTIPLY / dw and / dx, for `count` pairs of operands. Planes of w, and numbers of gw, are
     * `step` elements apart. */
    void (*partials)(const struct dot_kernels *self, int64_t count, int64_t step, const void *g, const void *w,
                     const void *x, void *gw, void *gx);
    /* For an add of the user's, and for products that are 0: one filter's d / dw, added up over the first `count` lanes, and d / dx, added
     * to columns. grad holds d / d result. dw: [number][depth]. history: room for (number of blocks + DOT_KEPT) * lanes
     * results. */
    void (*fold_grad)(const struct dot_kernels *self, int64_t depth, int64_t count, const void *w, const void *x, const void *mask, const void *grad,
                      void *history, void *dw, void *columns);
    /* Whether all weights or pixels are finite; for max and min, one infinity may be as good as a number. */
    int (*operands_finite)(int64_t count, const void *values);
    /* Whether all gradients are finite. */
    int (*gradients_finite)(int64_t count, const void *values);
};

struct dot_problem {
    int64_t batch;
    int64_t groups;
    int64_t filters;       /* of one group */
    int64_t channels;      /* of one group */
    int64_t image[3];      /* triples are (depth, vertical, horizontal) */
    int64_t kernel[3];
    int64_t dilation[3];
    int64_t stride[3];
    int64_t before[3];     /* padding in front, above and to the left */
    int64_t blocks[3];
    /* In elements, and any: also of operands that are parts of others, or repeat elements, or run backwards. */
    int64_t x_strides[5];  /* image, channel, plane, row, column */
    int64_t dx_strides[5];
    int64_t w_strides[5];  /* filter, of all groups; channel, plane, row, column */
    int64_t y_strides[5];  /* image, filter, plane, row, column; of the result, or of its gradient */
    const void *w;         /* dense, (planes, groups, filters, channels * kernel), where there are parameters */
    const void *x;
    const void *saved;     /* for gradients that need it: the result, which lies as its gradient does */
    uint8_t pad[8];        /* an element */
    int32_t skips;         /* whether padded taps are left out, instead of being `pad` */
    uint64_t last;         /* the mask of a group's last channel: all bits, unless signs fill only part of a word */
    int32_t threads;
    void *parallel;        /* GOMP_parallel, or NULL for threads of our own */
    const struct dot_kernels *kernels;
};

/* Whether a call is better served by kernels that read pixels where they lie: those of groups of few filters. Then kernels
 * without panels will do; without direct ones, kernels for panels will. Of sizes alone. */
int dot_prefers_direct(const struct dot_problem *p, int call);

/* Bytes of workspace for each of the calls: 0 forward, 1 grad_x, 2 grad_w, 3 grads, 4 grad_extremum, 5 grad_fold. */
int64_t dot_workspace(const struct dot_problem *p, int call);

void dot_forward(const struct dot_problem *p, void *y, void *workspace);
/* Gradients are added to dx and dw, which the caller has zeroed. dw is dense, (numbers, groups, filters, channels *
 * kernel): a scalar's gradient comes in as many parts as there are weights. grad has y's strides. */
void dot_grad_x(const struct dot_problem *p, const void *grad, void *dx, void *workspace);
void dot_grad_w(const struct dot_problem *p, const void *grad, void *dw, void *workspace);
/* Both, in less time than one after the other where there are enough channels. Then the weight's is wanted. */
void dot_grads(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace);
/* Both gradients where the add is max or min; dx or dw may be NULL. */
void dot_grad_extremum(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace);
/* One of the gradients where the add is the user's; the other is NULL. */
void dot_grad_fold(const struct dot_problem *p, const void *grad, void *dx, void *dw, void *workspace);
/* The call of a number, with addresses in place of the problem's w, x, saved and parallel, and with the scalars' and
 * what is wanted in place of the kernels'. result: y or grad. saved, dx, dw: 0 where they aren't wanted. workspace: 64
 * bytes more than dot_workspace says, of any alignment. */
void dot_call(const struct dot_problem *p, int call, uintptr_t w, uintptr_t x, uintptr_t result, uintptr_t saved,
              uintptr_t dx, uintptr_t dw, uintptr_t parallel, uintptr_t scalars, uint32_t wanted, void *workspace);

/* Asks for huge pages for memory that was not written yet: page faults are most of the time of a large fresh result. */
void dot_advise(void *memory, int64_t bytes);

/* The built-in kernels of a named op ("l1_float32") for the best of this machine's instruction sets that is not above
 * `level` (0 baseline, 1 AVX2, 2 AVX-512); NULL for an unknown name. */
const struct dot_kernels *dot_named(const char *name, int level);
/* The best level this machine has. */
int dot_level(void);
/* C source that a user's op is compiled with: what comes before it (0) and after it (1), or after the add of an op whose
 * terms are looked up (2). */
const char *dot_template(int part);

#endif
