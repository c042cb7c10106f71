/* The C library and generated kernels (kernels.py) on random problems, compared with plain loops: for machines that have
 * no Python here. run.py compiles it for each. Says how many arrays were compared, and fails where one isn't right.
 *
 *   drive SEED
 *
 * Operands are multiples of a quarter, so that sums are exact in any order; only functions as exp() are rounded.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dot.h"
#include "dot_lookup.h"
#include "dot_signs.h"
#include "im2col.h"

/* Problems of each kind and instruction set. */
#define PROBLEMS 24
#define MOST_TERMS 60000
#define CALLS 6
enum { FORWARD, GRAD_X, GRAD_W, GRADS, GRAD_EXTREMUM, GRAD_FOLD };

static uint64_t state;
static long checks, wrong;

static uint32_t number(void)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 20);
}
/* From low to high, these included. */
static int64_t from(int64_t low, int64_t high) { return low + number() % (uint64_t)(high - low + 1); }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---------------------------------------------------------------- types */

enum type { F32, F64, I8, I16, I32, I64, U8, BOOL };
static const char *const names[] = {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"};
static const int sizes[] = {4, 8, 1, 2, 4, 8, 1, 1};

static double get(enum type type, const void *data, int64_t i)
{
    switch (type) {
    case F32: return ((const float *)data)[i];
    case F64: return ((const double *)data)[i];
    case I8: return ((const int8_t *)data)[i];
    case I16: return ((const int16_t *)data)[i];
    case I32: return ((const int32_t *)data)[i];
    case I64: return (double)((const int64_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

static void set(enum type type, void *data, int64_t i, double value)
{
    switch (type) {
    case F32: ((float *)data)[i] = (float)value; break;
    case F64: ((double *)data)[i] = value; break;
    case I8: ((int8_t *)data)[i] = (int8_t)value; break;
    case I16: ((int16_t *)data)[i] = (int16_t)value; break;
    case I32: ((int32_t *)data)[i] = (int32_t)value; break;
    case I64: ((int64_t *)data)[i] = (int64_t)value; break;
    default: ((uint8_t *)data)[i] = (uint8_t)value;
    }
}

static double value(enum type type)
{
    return type == BOOL ? number() & 1 : type == U8 ? number() & 255 : from(-12, 12) / (type < I8 ? 4.0 : 1);
}

/* ---------------------------------------------------------------- memory, with guards at both ends */

#define GUARD 64
#define GUARDED 0xa5

static void *fresh(int64_t bytes)
{
    unsigned char *found = malloc((size_t)bytes + 2 * GUARD);

    if (!found)
        abort();
    memset(found, GUARDED, (size_t)bytes + 2 * GUARD);
    return found + GUARD;
}

static void freed(void *data)
{
    if (data)
        free((unsigned char *)data - GUARD);
}

static int guarded(const void *data, int64_t bytes)
{
    const unsigned char *start = (const unsigned char *)data - GUARD, *end = (const unsigned char *)data + bytes;
    int i, whole = 1;

    for (i = 0; i < GUARD; i++)
        whole &= start[i] == GUARDED && end[i] == GUARDED;
    return whole;
}

static void check(int right, const char *what, const char *which, int level)
{
    checks++;
    if (!right && wrong++ < 20)
        printf("WRONG: %s of %s, level %d, check %ld\n", what, which, level, checks);
}

/* ---------------------------------------------------------------- columns */

static struct im2col_geometry geometry(void)
{
    struct im2col_geometry g;
    int i;

    memset(&g, 0, sizeof g);
    g.batch = from(1, 2), g.channels = from(1, 3), g.threads = from(0, 1) * 3;
    for (i = 0; i < 3; i++) {
        const int flat = i == 0 && number() % 2;
        int64_t after, reach;

        g.kernel[i] = flat ? 1 : from(1, 3), g.dilation[i] = from(1, 2), g.stride[i] = flat ? 1 : from(1, 3);
        g.before[i] = flat ? 0 : from(0, 2), after = flat ? 0 : from(0, 2);
        reach = g.dilation[i] * (g.kernel[i] - 1) + 1;
        g.image[i] = flat ? 1 : most(1, reach - g.before[i] - after) + from(0, i == 2 ? 40 : 6);
        g.blocks[i] = (g.image[i] + g.before[i] + after - reach) / g.stride[i] + 1;
    }
    return g;
}

static int64_t volume(const int64_t *s) { return s[0] * s[1] * s[2]; }

/* For each element of columns, the pixel of a flat image that it is; -1 in the padding. */
static int64_t *pixels(const struct im2col_geometry *g, int64_t *count)
{
    const int64_t kernel = volume(g->kernel), blocks = volume(g->blocks), image = volume(g->image);
    int64_t *found, i, next = 0;

    *count = g->batch * g->channels * kernel * blocks;
    found = fresh(*count * 8);
    for (i = 0; i < *count; i++) {
        const int64_t l = i % blocks, k = i / blocks % kernel, plane = i / blocks / kernel;
        const int64_t at[3] = {l / g->blocks[2] / g->blocks[1], l / g->blocks[2] % g->blocks[1], l % g->blocks[2]};
        const int64_t tap[3] = {k / g->kernel[2] / g->kernel[1], k / g->kernel[2] % g->kernel[1], k % g->kernel[2]};
        int64_t pixel = 0;
        int axis, inside = 1;

        for (axis = 0; axis < 3; axis++) {
            const int64_t place = at[axis] * g->stride[axis] + tap[axis] * g->dilation[axis] - g->before[axis];

            inside &= place >= 0 && place < g->image[axis];
            pixel = pixel * g->image[axis] + place;
        }
        found[next++] = inside ? plane * image + pixel : -1;
    }
    return found;
}

static double half(uint16_t bits, int exponent_bits)
{
    const int fraction = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const int e = bits >> fraction & ((1 << exponent_bits) - 1), f = bits & ((1 << fraction) - 1);
    const double v = ldexp(e ? f + (1 << fraction) : f, (e ? e : 1) - bias - fraction);

    return bits & 0x8000 ? -v : v;
}

/* A number as a half that is no subnormal, by rounding to nearest, ties to even. */
static double rounded(double v, int exponent_bits)
{
    const int fraction = 15 - exponent_bits;
    int e;

    if (v == 0)
        return v;
    frexp(v, &e);
    return ldexp(nearbyint(ldexp(v, fraction + 1 - e)), e - fraction - 1);
}

typedef void columns_function(const struct im2col_geometry *, const void *, void *);

static void check_im2col(void)
{
    static columns_function *const functions[] = {im2col_1, im2col_2, im2col_4, im2col_8, im2col_16};
    static const char *const which[] = {"1 byte", "2 bytes", "4 bytes", "8 bytes", "16 bytes"};
    int s, i, problem;

    for (problem = 0; problem < PROBLEMS; problem++)
        for (s = 0; s < 5; s++) {
            const struct im2col_geometry g = geometry();
            const int64_t bytes = (int64_t)1 << s, all = g.batch * g.channels * volume(g.image);
            int64_t count, j, *where = pixels(&g, &count);
            unsigned char *image = fresh(all * bytes), *columns = fresh(count * bytes);
            int right = 1;

            for (j = 0; j < all * bytes; j++)
                image[j] = (unsigned char)number();
            functions[s](&g, image, columns);
            for (j = 0; j < count; j++)
                for (i = 0; i < bytes; i++)
                    right &= columns[j * bytes + i] == (where[j] < 0 ? 0 : image[where[j] * bytes + i]);
            check(right && guarded(columns, count * bytes), "im2col", which[s], 0);
            freed(image), freed(columns), freed(where);
        }
}

static void check_col2im(void)
{
    static const struct {
        const char *name;
        columns_function *function;
        enum type type;
        int parts, half; /* numbers of an element; bits of a half's exponent */
    } known[] = {
        {"bool", col2im_bool, BOOL, 1, 0},          {"uint8", col2im_uint8, U8, 1, 0},
        {"uint16", col2im_uint16, I16, 1, 0},       {"uint32", col2im_uint32, I32, 1, 0},
        {"uint64", col2im_uint64, I64, 1, 0},       {"float16", col2im_float16, I16, 1, 5},
        {"bfloat16", col2im_bfloat16, I16, 1, 8},   {"float32", col2im_float32, F32, 1, 0},
        {"float64", col2im_float64, F64, 1, 0},     {"complex64", col2im_complex64, F32, 2, 0},
        {"complex128", col2im_complex128, F64, 2, 0},
    };
    size_t t;
    int problem, part;

    for (problem = 0; problem < PROBLEMS; problem++)
        for (t = 0; t < sizeof known / sizeof *known; t++) {
            const struct im2col_geometry g = geometry();
            const enum type type = known[t].type;
            const int parts = known[t].parts, bits = known[t].half;
            const int64_t all = g.batch * g.channels * volume(g.image) * parts;
            int64_t count, j, *where = pixels(&g, &count);
            void *columns = fresh(count * parts * sizes[type]), *image = fresh(all * sizes[type]);
            double *sums = fresh(all * 8);
            int right = 1;

            for (j = 0; j < all; j++)
                sums[j] = 0;
            for (j = 0; j < count * parts; j++) {
                /* Of halves any that are no subnormals, and not large: signs, exponents and fractions. */
                const int exponent = bits ? (1 << (bits - 1)) - 1 + (int)from(-2, 2) : 0;
                const uint16_t word = (uint16_t)(number() << 15 | (unsigned)exponent << (15 - bits) |
                                                 (number() & ((1u << (15 - bits)) - 1)));

                if (bits)
                    ((uint16_t *)columns)[j] = word;
                else
                    set(type, columns, j, value(type));
            }
            for (j = 0; j < count; j++)
                for (part = 0; part < parts && where[j] >= 0; part++) {
                    const int64_t k = j * parts + part;

                    sums[where[j] * parts + part] +=
                        bits ? half(((const uint16_t *)columns)[k], bits) : get(type, columns, k);
                }
            known[t].function(&g, columns, image);
            for (j = 0; j < all; j++)
                if (bits)
                    right &= half(((const uint16_t *)image)[j], bits) == rounded(sums[j], bits);
                else if (type == BOOL || type == U8)
                    right &= get(type, image, j) == (type == BOOL ? sums[j] > 0 : fmod(sums[j], 256));
                else
                    right &= get(type, image, j) == sums[j];
            check(right && guarded(image, all * sizes[type]), "col2im", known[t].name, 0);
            freed(columns), freed(image), freed(sums), freed(where);
        }
}

/* ---------------------------------------------------------------- ops, for loops */

/* The gradients' numbers: 0 is the weight, 1 and on its parameters. */
#define X (-1)
#define MOST_NUMBERS 3

struct op {
    const char *name;
    int adds;
    double (*term)(const double *w, double x);
    double (*partial)(int of, const double *w, double x); /* NULL: there are no gradients */
    double pad;
    int masks; /* whether its kernels can leave taps out */
    int planes, numbers;
    double tolerance; /* 0: exact */
    double (*add)(double acc, double term); /* of a fold, and its derivative by acc */
    double of_acc, start;
};

static double sign(double v) { return v >= 0 ? 1 : -1; }
static double step(double v) { return v > 0 ? 1 : v < 0 ? -1 : 0; }
static double clipped(double v) { return v > 1 ? 1 : v < -1 ? -1 : v; }

static double l1(const double *w, double x) { return fabs(*w - x); }
static double l1_of(int of, const double *w, double x) { return of == X ? step(x - *w) : step(*w - x); }
static double adder(const double *w, double x) { return -fabs(*w - x); }
static double adder_of(int of, const double *w, double x) { return of == X ? clipped(*w - x) : x - *w; }
static double l2(const double *w, double x) { return (*w - x) * (*w - x); }
static double l2_of(int of, const double *w, double x) { return 2 * (of == X ? x - *w : *w - x); }
static double xnor(const double *w, double x) { return sign(*w) * sign(x); }
static double xnor_of(int of, const double *w, double x)
{
    return of == X ? sign(*w) * (fabs(x) <= 1) : sign(x) * (fabs(*w) <= 1);
}
static double plus(const double *w, double x) { return *w + x; }
static double plus_of(int of, const double *w, double x) { (void)of, (void)w, (void)x; return 1; }

static const struct op named[] = {
    {"l1", DOT_SUM, l1, l1_of, 0, 1, 1, 1, 0, NULL, 0, 0},
    {"adder", DOT_SUM, adder, adder_of, 0.5, 1, 1, 1, 0, NULL, 0, 0},
    {"l2", DOT_SUM, l2, l2_of, 0, 1, 1, 1, 0, NULL, 0, 0},
    {"xnor", DOT_SUM, xnor, xnor_of, 0, 1, 1, 1, 0, NULL, 0, 0},
    {"max_plus", DOT_MAX, plus, plus_of, -INFINITY, 1, 1, 1, 0, NULL, 0, 0},
    {"min_plus", DOT_MIN, plus, plus_of, INFINITY, 1, 1, 1, 0, NULL, 0, 0},
};

/* As kernels.py has them. */
static double bell(const double *w, double x) { return w[1] * exp(-(*w - x) * (*w - x)) + w[2] * tanh(x); }
static double bell_of(int of, const double *w, double x)
{
    const double e = exp(-(*w - x) * (*w - x)), t = tanh(x);

    return of == X ? 2 * w[1] * (*w - x) * e + w[2] * (1 - t * t) : of == 0 ? -2 * w[1] * (*w - x) * e : of == 1 ? e : t;
}
static double product(const double *w, double x) { return *w * x; }
static double product_of(int of, const double *w, double x) { return of == X ? *w : x; }
static double quotient(const double *w, double x) { return trunc(*w / x); }
static double halved(double acc, double term) { return acc * 0.5 + term; }
static double saturated(double acc, double term) { return acc + term < 50000 ? acc + term : 50000; }

static const struct op own_bell = {"bell", DOT_SUM, bell, bell_of, 0, 0, 2, 3, 2e-5, NULL, 0, 0};
static const struct op own_logsumexp = {"logsumexp", DOT_LOGSUMEXP, product, product_of, 0, 1, 1, 1, 2e-5, NULL, 0, 0};
static const struct op own_fold = {"fold", DOT_FOLD, product, product_of, 0, 0, 1, 1, 1e-12, halved, 0.5, 1};
static const struct op own_max = {"max", DOT_MAX, plus, plus_of, -INFINITY, 0, 1, 1, 0, NULL, 0, 0};
static const struct op own_l1 = {"l1 of integers", DOT_SUM, l1, NULL, 0, 0, 1, 1, 0, NULL, 0, 0};
static const struct op own_quotient = {"quotient", DOT_SUM, quotient, NULL, 3, 0, 1, 1, 0, NULL, 0, 0};

/* ---------------------------------------------------------------- problems */

static void dense(int64_t *strides, int64_t inner, const int64_t *image)
{
    strides[4] = 1, strides[3] = image[2], strides[2] = image[1] * image[2], strides[1] = volume(image);
    strides[0] = inner * strides[1];
}

/* The same elements in another order: channels last. */
static void last(int64_t *strides, int64_t inner, const int64_t *image)
{
    strides[1] = 1, strides[4] = inner, strides[3] = inner * image[2], strides[2] = strides[3] * image[1];
    strides[0] = inner * volume(image);
}

static int64_t taps(const struct dot_problem *p) { return p->channels * volume(p->kernel); }
static int64_t terms(const struct dot_problem *p)
{
    return p->batch * p->groups * p->filters * volume(p->blocks) * taps(p);
}

static struct dot_problem random_problem(void)
{
    struct dot_problem p;

    do {
        const struct im2col_geometry g = geometry();
        const int kind = number() % 9;
        int axis;

        memset(&p, 0, sizeof p);
        p.batch = g.batch, p.groups = kind < 3 ? from(2, 5) : 1, p.threads = number() % 2 ? 1 : 3;
        /* Few filters in a group are read where they lie; many terms are added up in blocks. */
        p.filters = kind < 2 ? 1 : kind == 2 ? from(2, 8) : from(1, 40);
        p.channels = kind == 3 ? from(60, 140) : kind < 2 ? 1 : from(1, 36);
        memcpy(p.image, g.image, sizeof p.image), memcpy(p.kernel, g.kernel, sizeof p.kernel);
        memcpy(p.dilation, g.dilation, sizeof p.dilation), memcpy(p.stride, g.stride, sizeof p.stride);
        memcpy(p.before, g.before, sizeof p.before), memcpy(p.blocks, g.blocks, sizeof p.blocks);
        p.last = ~(uint64_t)0;
        if (kind == 4) { /* a linear layer, of few rows or of many */
            static const int64_t one[3] = {1, 1, 1}, zero[3];

            p.batch = 1, p.groups = 1, p.filters = from(1, 150), p.channels = from(1, 300);
            memcpy(p.kernel, one, sizeof one), memcpy(p.dilation, one, sizeof one), memcpy(p.stride, one, sizeof one);
            memcpy(p.image, one, sizeof one), memcpy(p.before, zero, sizeof zero);
            p.image[2] = number() % 2 ? from(1, 3) : from(1, 80);
            memcpy(p.blocks, p.image, sizeof p.blocks);
        }
        /* Kernels as large as the image: few positions, and many taps of each. */
        for (axis = 0; kind == 8 && axis < 3; axis++) {
            p.before[axis] = 0, p.blocks[axis] = 1, p.channels = from(20, 80);
            p.image[axis] = p.dilation[axis] * (p.kernel[axis] - 1) + 1;
        }
        if (kind == 4 || kind == 5) {
            last(p.x_strides, p.groups * p.channels, p.image);
            last(p.y_strides, p.groups * p.filters, p.blocks);
        } else {
            dense(p.x_strides, p.groups * p.channels, p.image);
            dense(p.y_strides, p.groups * p.filters, p.blocks);
        }
        memcpy(p.dx_strides, p.x_strides, sizeof p.dx_strides);
        (kind == 6 ? last : dense)(p.w_strides, p.channels, p.kernel);
    } while (terms(&p) > MOST_TERMS);
    return p;
}

/* Operands, and what loops make of them. */
struct data {
    enum type type, total;
    int64_t weights, xs, ys; /* how many there are */
    void *w, *x, *grad;
    double scalars[MOST_NUMBERS];
    double *y, *dx, *dw, *y_sum, *dx_sum, *dw_sum; /* and the sums of absolute values, for tolerances */
};

/* The term k of a result: the pixel's place in x, or -1; whether it counts; the place in w, dense and as it lies. */
struct term {
    int64_t pixel, weight, dense_weight;
    int there;
    double w[MOST_NUMBERS], x;
};

static struct term term_at(const struct dot_problem *p, const struct op *op, const struct data *d, int64_t n, int64_t f,
                           const int64_t *at, int64_t k)
{
    const int64_t *s = p->kernel, channel = k / volume(s), group = f / p->filters;
    const int64_t tap[3] = {k / s[2] / s[1] % s[0], k / s[2] % s[1], k % s[2]};
    struct term t;
    int axis, i;

    t.there = 1, t.pixel = n * p->x_strides[0] + (group * p->channels + channel) * p->x_strides[1];
    t.weight = f * p->w_strides[0] + channel * p->w_strides[1], t.dense_weight = f * taps(p) + k;
    for (axis = 0; axis < 3; axis++) {
        const int64_t place = at[axis] * p->stride[axis] + tap[axis] * p->dilation[axis] - p->before[axis];

        t.there &= place >= 0 && place < p->image[axis];
        t.pixel += place * p->x_strides[2 + axis], t.weight += tap[axis] * p->w_strides[2 + axis];
    }
    for (i = 0; i < op->numbers; i++)
        t.w[i] = i < op->planes ? get(d->type, d->w, i * d->weights + t.weight) : d->scalars[i];
    t.x = t.there ? get(d->type, d->x, t.pixel) : op->pad;
    t.pixel = t.there ? t.pixel : -1;
    t.there |= !p->skips;
    return t;
}

/* Of one result: what it is, and its gradients. */
static void loop(const struct dot_problem *p, const struct op *op, struct data *d, int64_t n, int64_t f, const int64_t *at)
{
    const int64_t *s = p->y_strides, count = taps(p);
    const int64_t place = n * s[0] + f * s[1] + at[0] * s[2] + at[1] * s[3] + at[2] * s[4];
    const double g = op->partial ? get(d->type, d->grad, place) : 0;
    double acc = op->adds == DOT_MAX ? -INFINITY : op->adds == DOT_MIN ? INFINITY : op->start, sum = 0, after = 1;
    int64_t k, best = -1;
    int i;

    for (k = 0; k < count; k++) {
        const struct term t = term_at(p, op, d, n, f, at, k);
        const double v = op->term(t.w, t.x);

        if (!t.there)
            continue;
        sum += fabs(v);
        if (op->adds == DOT_SUM)
            acc += v;
        else if (op->adds == DOT_FOLD)
            acc = op->add(acc, v);
        else if (op->adds == DOT_LOGSUMEXP)
            acc += exp(v);
        else if (best < 0 || (op->adds == DOT_MAX ? v > acc : v < acc))
            acc = v, best = k;
    }
    d->y[place] = acc = op->adds == DOT_LOGSUMEXP ? log(acc) : acc;
    d->y_sum[place] = sum;
    for (k = count - 1; op->partial && k >= 0; k--) {
        const struct term t = term_at(p, op, d, n, f, at, k);
        double share = g;

        if (!t.there || (best >= 0 && k != best))
            continue;
        if (op->adds == DOT_FOLD)
            share *= after, after *= op->of_acc;
        else if (op->adds == DOT_LOGSUMEXP)
            share *= exp(op->term(t.w, t.x) - acc);
        if (t.pixel >= 0) {
            const double v = share * op->partial(X, t.w, t.x);

            d->dx[t.pixel] += v, d->dx_sum[t.pixel] += fabs(v);
        }
        for (i = 0; i < op->numbers; i++) {
            const double v = share * op->partial(i, t.w, t.x);

            d->dw[i * d->weights + t.dense_weight] += v, d->dw_sum[i * d->weights + t.dense_weight] += fabs(v);
        }
    }
}

static double *zeros(int64_t count)
{
    double *found = fresh(count * 8);
    int64_t i;

    for (i = 0; i < count; i++)
        found[i] = 0;
    return found;
}

static void *some(enum type type, int64_t count, int divisors)
{
    void *found = fresh(count * sizes[type]);
    int64_t i;

    for (i = 0; i < count; i++) {
        const double v = value(type);

        set(type, found, i, divisors && v == 0 ? 1 : v);
    }
    return found;
}

static struct data looped(const struct dot_problem *p, const struct op *op, enum type type, enum type total)
{
    struct data d;
    int64_t n, f, l;
    int i;

    d.type = type, d.total = total, d.weights = p->groups * p->filters * taps(p);
    d.xs = p->batch * p->groups * p->channels * volume(p->image);
    d.ys = p->batch * p->groups * p->filters * volume(p->blocks);
    d.w = some(type, d.weights * op->planes, 0), d.x = some(type, d.xs, op->term == quotient);
    d.grad = some(type, d.ys, 0);
    for (i = 0; i < MOST_NUMBERS; i++)
        d.scalars[i] = value(type);
    d.y = zeros(d.ys), d.dx = zeros(d.xs), d.dw = zeros(op->numbers * d.weights);
    d.y_sum = zeros(d.ys), d.dx_sum = zeros(d.xs), d.dw_sum = zeros(op->numbers * d.weights);
    for (n = 0; n < p->batch; n++)
        for (f = 0; f < p->groups * p->filters; f++)
            for (l = 0; l < volume(p->blocks); l++) {
                const int64_t rows = l / p->blocks[2];
                const int64_t at[3] = {rows / p->blocks[1], rows % p->blocks[1], l % p->blocks[2]};

                loop(p, op, &d, n, f, at);
            }
    return d;
}

static void freed_data(struct data *d)
{
    freed(d->w), freed(d->x), freed(d->grad), freed(d->y), freed(d->dx), freed(d->dw);
    freed(d->y_sum), freed(d->dx_sum), freed(d->dw_sum);
}

static int agrees(enum type type, const void *found, const double *expected, const double *sums, int64_t count,
                  double tolerance)
{
    int64_t i;
    int right = guarded(found, count * sizes[type]);

    for (i = 0; i < count; i++) {
        const double a = get(type, found, i), b = expected[i];

        right &= a == b || (tolerance > 0 && fabs(a - b) <= tolerance * (1 + sums[i]));
    }
    return right;
}

/* ---------------------------------------------------------------- the library's calls */

static void call(const struct dot_problem *p, int which, const void *w, const void *x, const void *result,
                 const void *saved, void *dx, void *dw, const void *scalars, uint32_t wanted)
{
    const int64_t bytes = dot_workspace(p, which) + 64;
    void *workspace = fresh(bytes);

    dot_advise(workspace, bytes);
    dot_call(p, which, (uintptr_t)w, (uintptr_t)x, (uintptr_t)result, (uintptr_t)saved, (uintptr_t)dx, (uintptr_t)dw, 0,
             (uintptr_t)scalars, wanted, workspace);
    check(guarded(workspace, bytes), "workspace", "a call", which);
    freed(workspace);
}

/* The kernels of an op: for panels and for pixels where they lie, forward and gradients. */
struct kernels {
    const struct dot_kernels *panels[2], *direct[2];
};

/* Forward, and each way to get gradients. */
static void check_op(const struct op *op, const struct kernels *kernels, enum type type, enum type total, int level)
{
    struct dot_problem p = random_problem();
    struct data d;
    void *y, *scalars;
    int which, i;

    p.skips = op->masks && number() % 3 == 0;
    set(type, p.pad, 0, op->pad);
    if (op->planes > 1)
        dense(p.w_strides, p.channels, p.kernel);
    d = looped(&p, op, type, total);
    y = fresh(d.ys * sizes[total]), scalars = fresh(MOST_NUMBERS * sizes[type]);
    for (i = op->planes; i < op->numbers; i++)
        set(type, scalars, i - op->planes, d.scalars[i]);
    for (which = FORWARD; which < CALLS; which++) {
        const int gives_x = which != GRAD_W, gives_w = which != GRAD_X, gradients = which != FORWARD;
        const int direct = dot_prefers_direct(&p, which) && kernels->direct[gradients];
        void *dx = NULL, *dw = NULL;
        int turn;

        if (gradients && !op->partial)
            break;
        if ((which == GRAD_EXTREMUM) != (op->adds == DOT_MAX || op->adds == DOT_MIN) && which > GRADS)
            continue;
        if ((which == GRAD_FOLD) != (op->adds == DOT_FOLD) && which > GRADS)
            continue;
        if (which >= GRAD_X && which <= GRADS && op->adds != DOT_SUM && op->adds != DOT_LOGSUMEXP)
            continue;
        p.kernels = (direct ? kernels->direct : kernels->panels)[gradients];
        if (!gradients) {
            call(&p, which, d.w, d.x, y, NULL, NULL, NULL, scalars, 1);
            check(agrees(total, y, d.y, d.y_sum, d.ys, op->tolerance), "forward", op->name, level);
            continue;
        }
        /* Of a user's add they come one at a time. */
        for (turn = 0; turn < (which == GRAD_FOLD ? 2 : 1); turn++) {
            const int x_wanted = gives_x && (which != GRAD_FOLD || turn == 0);
            const int w_wanted = gives_w && (which != GRAD_FOLD || turn == 1);

            if (x_wanted)
                dx = fresh(d.xs * sizes[type]), memset(dx, 0, (size_t)(d.xs * sizes[type]));
            if (w_wanted) {
                dw = fresh(op->numbers * d.weights * sizes[type]);
                memset(dw, 0, (size_t)(op->numbers * d.weights * sizes[type]));
            }
            call(&p, which, d.w, d.x, d.grad, p.kernels->saved ? y : NULL, dx, dw, scalars, (1u << op->numbers) - 1);
            if (x_wanted)
                check(agrees(type, dx, d.dx, d.dx_sum, d.xs, op->tolerance), "gradient of x", op->name, level);
            if (w_wanted)
                check(agrees(type, dw, d.dw, d.dw_sum, op->numbers * d.weights, op->tolerance), "gradient of w", op->name,
                      level);
            freed(dx), freed(dw), dx = dw = NULL;
        }
    }
    freed(y), freed(scalars), freed_data(&d);
}

static void check_named(void)
{
    const enum type types[] = {F32, F64};
    size_t i;
    int t, level, problem;

    for (level = 0; level <= dot_level(); level++)
        for (i = 0; i < sizeof named / sizeof *named; i++)
            for (t = 0; t < 2; t++) {
                char name[32];
                const struct dot_kernels *found;
                struct kernels kernels;

                sprintf(name, "%s_%s", named[i].name, names[types[t]]);
                found = dot_named(name, level);
                kernels = (struct kernels){{found, found}, {found, found}};
                for (problem = 0; problem < PROBLEMS; problem++)
                    check_op(&named[i], &kernels, types[t], types[t], level);
            }
}

#define DECLARED(name) const struct dot_kernels *name(void);
#define PARTS(op)                                                                                                      \
    DECLARED(own_##op##_forward_panels) DECLARED(own_##op##_gradients_panels)                                          \
    DECLARED(own_##op##_forward_direct) DECLARED(own_##op##_gradients_direct)
PARTS(bell)
PARTS(logsumexp)
DECLARED(own_max_forward_panels)
DECLARED(own_max_gradients_panels)
DECLARED(own_fold_forward_panels)
DECLARED(own_fold_gradients_panels)
DECLARED(own_l1_forward_panels)
DECLARED(own_l1_forward_direct)
DECLARED(own_quotient_forward_panels)
DECLARED(own_saturated_forward_panels)

static void check_own(void)
{
    const struct kernels of_bell = {{own_bell_forward_panels(), own_bell_gradients_panels()},
                                    {own_bell_forward_direct(), own_bell_gradients_direct()}};
    const struct kernels of_logsumexp = {{own_logsumexp_forward_panels(), own_logsumexp_gradients_panels()},
                                         {own_logsumexp_forward_direct(), own_logsumexp_gradients_direct()}};
    const struct kernels of_max = {{own_max_forward_panels(), own_max_gradients_panels()}, {NULL, NULL}};
    const struct kernels of_fold = {{own_fold_forward_panels(), own_fold_gradients_panels()}, {NULL, NULL}};
    const struct kernels of_l1 = {{own_l1_forward_panels(), NULL}, {own_l1_forward_direct(), NULL}};
    const struct kernels of_quotient = {{own_quotient_forward_panels(), NULL}, {NULL, NULL}};
    int problem;

    for (problem = 0; problem < PROBLEMS; problem++) {
        check_op(&own_bell, &of_bell, F32, F32, 0);
        check_op(&own_logsumexp, &of_logsumexp, F32, F32, 0);
        check_op(&own_max, &of_max, F64, F64, 0);
        check_op(&own_fold, &of_fold, F64, F64, 0);
        check_op(&own_l1, &of_l1, I16, I64, 0);
        check_op(&own_quotient, &of_quotient, I32, I64, 0);
    }
}

/* ---------------------------------------------------------------- signs */

static const struct op signs = {"signs", DOT_SUM, xnor, NULL, 0, 1, 1, 1, 0, NULL, 0, 0};
static double of_bools(const double *w, double x) { return (*w != 0) == (x != 0) ? 1 : -1; }
static const struct op bools = {"signs of bool", DOT_SUM, of_bools, NULL, 0, 1, 1, 1, 0, NULL, 0, 0};

/* Signs of values that lie in some way, packed. */
static void *packed(int64_t batch, int64_t groups, int64_t channels, const int64_t *image, const int64_t *strides,
                    const void *values, enum type type, int kind, int32_t threads, int level)
{
    const int each = kind == DOT_WORDS ? 32 : 1;
    const int64_t bytes = batch * groups * ((channels + each - 1) / each) * volume(image) * (kind == DOT_WORDS ? 4 : 1);
    struct dot_signs s;

    memset(&s, 0, sizeof s);
    s.batch = batch, s.groups = groups, s.channels = channels, s.values = values, s.packed = fresh(bytes);
    memcpy(s.image, image, sizeof s.image), memcpy(s.strides, strides, sizeof s.strides);
    s.kind = kind, s.threads = threads;
    dot_pack_signs(&s, names[type], level);
    check(guarded(s.packed, bytes), "packing", names[type], level);
    return s.packed;
}

static void check_signs_of(enum type type, int kind, int level)
{
    const enum type total = type <= F64 ? type : I64;
    const struct dot_kernels *kernels = dot_signs(names[total], kind, level);
    struct dot_problem p = random_problem(), q;
    struct data d;
    void *w, *x, *y;
    int64_t words;

    if (!kernels)
        return;
    q = p, q.kernels = kernels, q.skips = kind == DOT_WORDS;
    if (kind == DOT_BYTES && !dot_prefers_direct(&q, FORWARD))
        return;
    p.skips = 1;
    d = looped(&p, type == BOOL ? &bools : &signs, type, total);
    w = packed(p.groups * p.filters, 1, p.channels, p.kernel, p.w_strides, d.w, type, kind, p.threads,
               level);
    x = packed(p.batch, p.groups, p.channels, p.image, p.x_strides, d.x, type, kind, p.threads, level);
    words = kind == DOT_WORDS ? (p.channels + 31) / 32 : p.channels;
    if (kind == DOT_WORDS && p.channels % 32)
        q.last = ((uint64_t)1 << p.channels % 32) - 1;
    q.channels = words;
    dense(q.x_strides, p.groups * words, p.image), dense(q.w_strides, words, p.kernel);
    y = fresh(d.ys * sizes[total]);
    call(&q, FORWARD, w, x, y, NULL, NULL, NULL, NULL, 1);
    check(agrees(total, y, d.y, d.y_sum, d.ys, 0), "signs", names[type], level);
    freed(w), freed(x), freed(y), freed_data(&d);
}

/* The same by kernels that pack them by themselves, on x86-64. */
static void check_fours_of(enum type type, int level)
{
    const enum type total = type <= F64 ? type : I64;
    struct dot_problem p = random_problem();
    struct data d;
    void *y;

    if (!(p.kernels = dot_signs_fours(names[type], level)))
        return;
    p.skips = 1;
    d = looped(&p, type == BOOL ? &bools : &signs, type, total);
    y = fresh(d.ys * sizes[total]);
    call(&p, FORWARD, d.w, d.x, y, NULL, NULL, NULL, NULL, 1);
    check(agrees(total, y, d.y, d.y_sum, d.ys, 0), "signs by fours", names[type], level);
    freed(y), freed_data(&d);
}

static void check_signs(void)
{
    const enum type types[] = {F32, F64, I8, I16, I32, I64, BOOL};
    const int kinds[] = {DOT_WORDS, DOT_BYTES};
    int t, kind, level, problem;

    for (level = 0; level <= dot_level(); level++)
        for (t = 0; t < 7; t++)
            for (problem = 0; problem < PROBLEMS; problem++) {
                for (kind = 0; kind < 2; kind++)
                    check_signs_of(types[t], kinds[kind], level);
                check_fours_of(types[t], level);
            }
}

/* ---------------------------------------------------------------- tables */

static int32_t entries[256 * 256];
static float float_entries[256 * 256];
static uint8_t planes[256 * 2 * 256];
static int looks_up_floats;

static double looked_up(const double *w, double x)
{
    const int64_t place = (int64_t)*w * 256 + (int64_t)x;

    return looks_up_floats ? float_entries[place] : entries[place];
}

static void check_lookup(const struct dot_kernels *found, const char *name, int adds, enum type total, int permutes,
                         int level)
{
    struct op op = {name, adds, looked_up, NULL, (double)from(0, 255), 0, 1, 1, 0, saturated, 0, 0};
    struct dot_problem p = random_problem();
    struct dot_kernels kernels = *found;
    struct dot_table table = {permutes ? (const void *)planes : looks_up_floats ? (const void *)float_entries : entries,
                              permutes ? -1000 : 0};
    struct data d;
    void *y;

    kernels.table = &table, p.kernels = &kernels;
    p.skips = !permutes && adds != DOT_FOLD && number() % 3 == 0;
    p.pad[0] = (uint8_t)op.pad;
    d = looped(&p, &op, U8, total);
    y = fresh(d.ys * sizes[total]);
    if (total != F32) {
        int64_t i;

        /* What no term is better than. */
        for (i = 0; i < d.ys; i++)
            d.y[i] = d.y[i] == INFINITY ? 9223372036854775807.0 : d.y[i] == -INFINITY ? -9223372036854775808.0 : d.y[i];
    }
    call(&p, FORWARD, d.w, d.x, y, NULL, NULL, NULL, NULL, 1);
    check(agrees(total, y, d.y, d.y_sum, d.ys, 0), "look-ups", name, level);
    freed(y), freed_data(&d);
}

static void check_lookups(void)
{
    static const char *const adds[] = {"sum", "max", "min"};
    static const int codes[] = {DOT_SUM, DOT_MAX, DOT_MIN};
    int i, add, level, problem;

    for (i = 0; i < 256 * 256; i++) {
        const int entry = (int)from(-1000, 20000);

        entries[i] = entry, float_entries[i] = (float)entry / 4;
        planes[i / 256 * 512 + i % 256] = (uint8_t)(entry + 1000);
        planes[i / 256 * 512 + 256 + i % 256] = (uint8_t)((entry + 1000) >> 8);
    }
    for (level = 0; level <= dot_level(); level++)
        for (problem = 0; problem < PROBLEMS; problem++) {
            for (looks_up_floats = 0; looks_up_floats < 2; looks_up_floats++)
                for (add = 0; add < 3; add++) {
                    char name[16];

                    sprintf(name, "%s_%s", adds[add], looks_up_floats ? "float32" : "int32");
                    check_lookup(dot_lookups(name, level), name, codes[add], looks_up_floats ? F32 : I64, 0, level);
                }
            looks_up_floats = 0;
            for (i = 64; i <= 256; i *= 4)
                if (dot_permutes(2, 256, i, level))
                    check_lookup(dot_permutes(2, 256, i, level), "permutes", DOT_SUM, I64, 1, level);
        }
    for (problem = 0; problem < PROBLEMS; problem++)
        check_lookup(own_saturated_forward_panels(), "an own add", DOT_FOLD, I64, 0, 0);
}

/* ---------------------------------------------------------------- all */

static void stage(const char *name, void (*function)(void))
{
    const long before = checks;

    function();
    printf("%s: %ld\n", name, checks - before);
    fflush(stdout);
}

int main(int count, char **arguments)
{
    state = 88172645463325252u + 977u * (count > 1 ? strtoul(arguments[1], NULL, 10) : 0);
    stage("im2col", check_im2col);
    stage("col2im", check_col2im);
    stage("named ops", check_named);
    stage("compiled ops", check_own);
    stage("signs", check_signs);
    stage("look-ups", check_lookups);
    printf("instruction sets: %d\nchecks: %ld\nwrong: %ld\n", dot_level() + 1, checks, wrong);
    return wrong != 0;
}
