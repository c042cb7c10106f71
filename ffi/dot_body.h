/* The kernels of one op for one type and one instruction set. Expects
 *
 *   NAME(function)      names the kernels
 *   OP(function)        names the op's functions: term(fused, one, w..., x), and with gradients grad_x(g, w..., x); with
 *                       FINITE also grad_x_finite;
 *                       for DOT_FOLD and DOT_PROD add(acc, term), and with gradients add_acc(g, acc, term),
 *                       add_term(g, acc, term)
 *   PLANES NUMBERS      of w...: the weight and its parameters, of which the first PLANES lie beside it
 *   WEIGHTS(w, i, step) all of these for the weight w[i], a plane `step` elements after the other, then `scalars`
 *   GRAD_W(number, ...) the gradient of one of these, of (g, w..., x); with FINITE also GRAD_W_FINITE
 *   ELEMENT SUM TOTAL   the types of operands, of sums of a block of k, of results
 *   ADDS                DOT_SUM, DOT_MAX, DOT_MIN, DOT_FOLD, DOT_PROD or DOT_LOGSUMEXP, which needs dot_functions.h
 *   START               what sums start from (for DOT_FOLD: if STARTS, else from the first term)
 *   BETTER(a, b)        for DOT_MAX a > b, for DOT_MIN a < b
 *   PRODUCT             whether a term is left(fused, one, w..., x) * right(fused, one, w..., x)
 *   FMA(a, b, c)        a fused multiply-add of ELEMENTs, for PRODUCT
 *   FORWARD GRADIENTS   which of both there are
 *   PANELS DIRECT FEW   for which ways to feed them: panels of columns, pixels where they lie, or weights where they
 *                       lie, whose lanes are taps
 *   MASKS               whether there are variants that leave taps out
 *   FINITE              whether gradients have faster variants for finite operands
 *   BY_SIGN(function)   where there is hand-written code for finite operands, names it: see dot_l1_grads.h
 *   KEEPS_ZEROS         whether these give 0 for a gradient of 0, whatever the operands, and not NaN
 *   FINITE_TERMS        whether terms have
 *   IS_FINITE(v)        what finite means
 *   DIVIDES             whether a term may divide integers: then none is computed of a tap that is left out
 *   LEVEL TARGET        the instruction set, for dot_level.h, and its attribute
 *
 * "fused" tells whether there is a fused multiply-add. "one" is a 1 that the compiler can't see through: processors
 * with multiply-adders and adders compute w * one - x in the former and sums in the latter.
 *
 * Plain loops, for the compiler's vectoriser. A loop over lanes must become vector instructions, hence no unrolling
 * of it; a loop over rows must be unrolled, so that the tile stays in registers.
 */

#define TAKE_SCALARS                                                                                                   \
    const ELEMENT *const scalars = (const ELEMENT *)self->scalars;                                                     \
    (void)scalars

/* Whether terms are added by the op's add, in order. */
#define FOLDS (ADDS == DOT_FOLD || ADDS == DOT_PROD)
/* Whether a gradient is g times what a term's share of the result is. */
#define SAVED (ADDS == DOT_PROD || ADDS == DOT_LOGSUMEXP)

#if ADDS == DOT_LOGSUMEXP
/* exp(term - y). It is 1 at most, whatever was rounded. */
INLINE ELEMENT NAME(share)(const ELEMENT term, const ELEMENT y)
{
    const ELEMENT below = (term > y ? y : term) - y;
    return sizeof(ELEMENT) == sizeof(float) ? (ELEMENT)share_float((float)below) : (ELEMENT)share_double(below);
}
#define GREATEST ((ELEMENT)(sizeof(ELEMENT) == sizeof(float) ? __FLT_MAX__ : __DBL_MAX__))
#define LOG(v) (sizeof(ELEMENT) == sizeof(float) ? (ELEMENT)log_float((float)(v)) : (ELEMENT)log_double(v))
/* More rows would take more registers than there are: each has a sum and a maximum, and exp takes some, too. */
#define TILE_ROWS 4
#else
#define TILE_ROWS ROWS
#endif

/* Half of a panel's lanes are one vector. */
#define VECTOR (LANES / 2)

#define TERM(function, ...) (SUM)OP(function)(FUSED, one, __VA_ARGS__)
/* A sum with one more term, of the operands that follow it. */
#if ADDS == DOT_SUM && PRODUCT
#define ADDED(acc, ...)                                                                                                \
    (FUSED ? FMA(TERM(left, __VA_ARGS__), TERM(right, __VA_ARGS__), acc)                                               \
           : (acc) + TERM(left, __VA_ARGS__) * TERM(right, __VA_ARGS__))
#elif ADDS == DOT_SUM
#define ADDED(acc, ...) ((acc) + TERM(term, __VA_ARGS__))
#elif FOLDS
#define ADDED(acc, ...) OP(add)(acc, TERM(term, __VA_ARGS__))
#elif ADDS == DOT_LOGSUMEXP
#define ADDED(acc, ...) ((acc) + NAME(share)(TERM(term, __VA_ARGS__), most[i][j]))
#else
#define ADDED(acc, ...) NAME(better)(acc, TERM(term, __VA_ARGS__), finite)

INLINE SUM NAME(better)(const SUM best, const SUM term, const int finite)
{
    const int better = finite ? BETTER(term, best) : (BETTER(term, best) | (term != term));

    return better ? term : best;
}
#endif

/* Rows are filters, and lanes a panel's positions; or where `direct`, rows are runs of positions of one filter, whose pixels
 * lie at offsets from x, a step for each k. */
INLINE void NAME(tile)(const struct dot_kernels *self, const int rows, const int direct, const int masked,
                       const int finite, int64_t depth, const ELEMENT *restrict w, const ELEMENT *restrict x,
                       const int64_t *restrict offsets, const ELEMENT *restrict mask, TOTAL *restrict out,
                       int64_t stride, int first)
{
    const int filters = direct ? 1 : rows, apart = direct ? LANES : 0;
    /* From one k to the next, of pixels that aren't at offsets. */
    const int step = direct ? 0 : LANES;
    TAKE_SCALARS;
    SUM acc[TILE_ROWS][LANES], start = START;
#define OPERANDS WEIGHTS(w, direct ? 0 : i, filters), pixels[i * apart + j]
#if ADDS == DOT_LOGSUMEXP
    SUM most[TILE_ROWS][LANES];
#endif
    const uint8_t *const whole = masked && !direct ? (const uint8_t *)(mask + depth * LANES) : 0;
    const ELEMENT *pixels = direct ? x + offsets[0] : x, *there;
    ELEMENT one = 1;
    int64_t k = 0;
    int i, j;

    if (FUSED)
        HIDE(one);
    /* Zeros that the compiler knows of would be set by memset, which takes as long as a dozen terms. */
    HIDE(start);
    (void)one;
    (void)mask, (void)whole, (void)there, (void)offsets;
    (void)finite;
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
#if FOLDS
            acc[i][j] = first ? (STARTS ? start : TERM(term, OPERANDS)) : (SUM)out[i * stride + j];
    if (first && !STARTS)
        k = 1, w += PLANES * filters, x += step;
#elif ADDS == DOT_LOGSUMEXP
            most[i][j] = first ? start : out[i * stride + j];
    /* First the greatest term, which measures exponentials: the result is most + log(acc). */
    for (k = 0; k < depth; k++) {
        pixels = x + (direct ? offsets[k] : k * step);
        there = masked ? mask + (direct ? offsets[k] : k * LANES) : 0;
        ROW_LOOP
        for (i = 0; i < rows; i++)
            LANE_LOOP
            for (j = 0; j < LANES; j++) {
                const SUM term = OP(term)(FUSED, one, WEIGHTS(w, k * PLANES * filters + (direct ? 0 : i), filters),
                                          pixels[i * apart + j]);
                const SUM greater = term > most[i][j] ? term : most[i][j];
                most[i][j] = !masked || there[i * apart + j] != 0 ? greater : most[i][j];
            }
    }
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++) {
            /* Infinity less infinity would be NaN. */
            const SUM limit = most[i][j] > GREATEST ? GREATEST : most[i][j];
            acc[i][j] = most[i][j] > GREATEST ? (SUM)INFINITY : 0;
            most[i][j] = limit < -GREATEST ? -GREATEST : limit;
        }
    k = 0;
#else
            acc[i][j] = start;
#endif
    for (; k < depth; k++, w += PLANES * filters, x += step) {
        pixels = direct ? x + offsets[k] : x;
        there = !masked ? 0 : direct ? mask + offsets[k] : mask;
        /* Of most k, no tap is left out. */
        if (masked && (direct || !whole[k])) {
            ROW_LOOP
            for (i = 0; i < rows; i++)
                LANE_LOOP
                for (j = 0; j < LANES; j++) {
#if DIVIDES
                    if (there[i * apart + j] == 0)
                        continue;
#endif
                    const SUM added = ADDED(acc[i][j], OPERANDS);
                    acc[i][j] = there[i * apart + j] != 0 ? added : acc[i][j];
                }
        } else {
            ROW_LOOP
            for (i = 0; i < rows; i++)
                LANE_LOOP
                for (j = 0; j < LANES; j++)
                    acc[i][j] = ADDED(acc[i][j], OPERANDS);
        }
        if (masked && !direct)
            mask += LANES;
    }
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
#if ADDS == DOT_SUM
            out[i * stride + j] = first ? (TOTAL)acc[i][j] : out[i * stride + j] + (TOTAL)acc[i][j];
#elif FOLDS
            out[i * stride + j] = acc[i][j];
#elif ADDS == DOT_LOGSUMEXP
        {
            /* At the end: small terms would be lost beside the sum of many blocks. */
            const SUM before = first ? 0 : NAME(share)(out[i * stride + j], most[i][j]);
            out[i * stride + j] = most[i][j] + LOG(acc[i][j] + before);
        }
#else
        {
            const TOTAL before = out[i * stride + j];
            out[i * stride + j] = first || BETTER(acc[i][j], before) || acc[i][j] != acc[i][j] ? acc[i][j] : before;
        }
#endif
#undef OPERANDS
}

#if FORWARD && PANELS
#define CALL(n)                                                                                                        \
    case n:                                                                                                            \
        if (MASKS && mask)                                                                                             \
            NAME(tile)(self, n, 0, 1, 0, depth, w, x, 0, mask, out, stride, first);                                    \
        else if (FINITE_TERMS && finite)                                                                               \
            NAME(tile)(self, n, 0, 0, 1, depth, w, x, 0, mask, out, stride, first);                                    \
        else                                                                                                           \
            NAME(tile)(self, n, 0, 0, 0, depth, w, x, 0, mask, out, stride, first);                                    \
        break

TARGET static void NAME(forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w, const void *x,
                                 const void *mask, void *out, int64_t stride, int first, int finite)
{
    (void)finite;
    switch (rows) {
        CALL(1);
        CALL(2);
        CALL(4);
#if TILE_ROWS > 4
        CALL(8);
#endif
#if TILE_ROWS > 8
        CALL(12);
#endif
    }
}
#undef CALL
#endif

#if FORWARD && FEW && (ADDS == DOT_SUM || ADDS == DOT_MAX || ADDS == DOT_MIN)
#if ADDS == DOT_SUM
#define JOINED(a, b) ((a) + (b))
#else
#define JOINED(a, b) NAME(better)(a, b, finite)
#endif

/* Sums of filters and positions, lanes of which are taps. `left`: how many filters there are, whose last one is repeated. */
INLINE void NAME(few_tile)(const struct dot_kernels *self, const int filters, const int rows, const int finite, int left,
                           int64_t depth, const ELEMENT *restrict w, int64_t w_stride, const ELEMENT *restrict x, int64_t x_stride,
                           TOTAL *restrict out, int64_t stride, int first)
{
    TAKE_SCALARS;
    const ELEMENT *weights[DOT_FEW_FILTERS];
    SUM acc[DOT_FEW_FILTERS * 2][VECTOR], start = START;
    ELEMENT one = 1;
    int64_t k;
    int o, i, j;

    if (FUSED)
        HIDE(one);
    HIDE(start);
    (void)one, (void)finite;
    for (o = 0; o < filters; o++)
        weights[o] = w + (o < left ? o : left - 1) * w_stride;
    for (o = 0; o < filters * rows; o++)
        LANE_LOOP
        for (j = 0; j < VECTOR; j++)
            acc[o][j] = start;
#define OPERANDS WEIGHTS(weights[o], k + j, self->plane), x[i * x_stride + k + j]
    for (k = 0; k + VECTOR <= depth; k += VECTOR)
        ROW_LOOP
        for (o = 0; o < filters; o++)
            ROW_LOOP
            for (i = 0; i < rows; i++)
                LANE_LOOP
                for (j = 0; j < VECTOR; j++)
                    acc[o * rows + i][j] = ADDED(acc[o * rows + i][j], OPERANDS);
    if (k < depth) {
        /* The last vector begins with taps that were added already. */
        const int added = (int)(k + VECTOR - depth);

        k = depth - VECTOR;
        ROW_LOOP
        for (o = 0; o < filters; o++)
            ROW_LOOP
            for (i = 0; i < rows; i++)
                LANE_LOOP
                for (j = 0; j < VECTOR; j++) {
                    const SUM sum = ADDED(acc[o * rows + i][j], OPERANDS);
                    acc[o * rows + i][j] = j < added ? acc[o * rows + i][j] : sum;
                }
    }
#undef OPERANDS
    for (o = 0; o < filters * rows; o++)
        for (j = VECTOR / 2; j > 0; j /= 2)
            for (i = 0; i < j; i++)
                acc[o][i] = JOINED(acc[o][i], acc[o][i + j]);
    for (o = 0; o < filters && o < left; o++)
        for (i = 0; i < rows; i++) {
            const TOTAL sum = (TOTAL)acc[o * rows + i][0], before = out[o * stride + i];

            out[o * stride + i] = first ? sum : JOINED(before, sum);
        }
}

#define CALL(filters, rows)                                                                                            \
    do {                                                                                                               \
        if (FINITE_TERMS && finite)                                                                                    \
            NAME(few_tile)(self, filters, rows, 1, left, depth, w, w_stride, x, x_stride, out, stride, first);         \
        else                                                                                                           \
            NAME(few_tile)(self, filters, rows, 0, left, depth, w, w_stride, x, x_stride, out, stride, first);         \
        w += filters * w_stride, out += filters * stride;                                                              \
    } while (0)

TARGET static void NAME(few)(const struct dot_kernels *self, int filters, int64_t positions, int64_t depth,
                             const void *w_, int64_t w_stride, const void *x_, int64_t x_stride, void *out_,
                             int64_t stride, int first, int finite)
{
    const ELEMENT *x = (const ELEMENT *)x_;
    int64_t i;
    int rows, left;

    (void)finite;
    for (i = 0; i < positions; i += rows, x += rows * x_stride) {
        const ELEMENT *w = (const ELEMENT *)w_;
        TOTAL *out = (TOTAL *)out_ + i;

        rows = positions - i >= 4 ? 4 : positions - i >= 2 ? 2 : 1;
        /* As many sums as leave registers for the rest: eight. */
        if (rows == 4)
            for (left = filters; left > 0; left -= 2)
                CALL(2, 4);
        else if (left = filters, rows == 2)
            CALL(4, 2);
        else
            CALL(4, 1);
    }
}
#undef CALL
#undef JOINED
#endif

#if FORWARD && DIRECT
#define CALL(masked, finite)                                                                                           \
    do {                                                                                                               \
        if (rows == 4)                                                                                                 \
            NAME(tile)(self, 4, 1, masked, finite, depth, w, x, offsets, mask, out, LANES, first);                     \
        else                                                                                                           \
            NAME(tile)(self, 2, 1, masked, finite, depth, w, x, offsets, mask, out, LANES, first);                     \
    } while (0)

TARGET static void NAME(direct)(const struct dot_kernels *self, int64_t count, int64_t depth, const void *w,
                                const void *x_, const int64_t *offsets, const void *mask_, void *out_, int first,
                                int finite)
{
    const ELEMENT *x = (const ELEMENT *)x_, *mask = (const ELEMENT *)mask_;
    TOTAL *out = (TOTAL *)out_;
    int64_t left;
    int rows;

    (void)finite;
    for (left = count; left > 0; left -= rows * LANES, x += rows * LANES, out += rows * LANES) {
        rows = left > 2 * LANES ? 4 : 2;
        if (MASKS && mask_)
            CALL(1, 0);
        else if (FINITE_TERMS && finite)
            CALL(0, 1);
        else
            CALL(0, 0);
        if (mask_)
            mask += rows * LANES;
    }
}
#undef CALL
#endif

TARGET static int NAME(operands_finite)(int64_t count, const void *values)
{
    const ELEMENT *v = (const ELEMENT *)values;
    int32_t others = 0;
    int64_t i;

    (void)v;
    for (i = 0; i < count; i++)
        others += !(IS_FINITE(v[i]));
    return others == 0;
}

#if GRADIENTS

/* For each number there is, a statement in which it is a constant. */
#define EACH_NUMBER(statement)                                                                                         \
    statement(0) statement(1) statement(2) statement(3) statement(4) statement(5) statement(6) statement(7)

TARGET static int NAME(gradients_finite)(int64_t count, const void *values)
{
#ifdef BY_SIGN
    return BY_SIGN(gradients)(count, values);
#else
    const ELEMENT *v = (const ELEMENT *)values;
    int32_t others = 0;
    int64_t i;

    for (i = 0; i < count; i++)
        others += !(v[i] - v[i] == 0);
    return others == 0;
#endif
}

#if ADDS == DOT_SUM || SAVED

#if ADDS == DOT_PROD
/* The product of all others, where no term is 0. */
INLINE ELEMENT NAME(share)(const ELEMENT term, const ELEMENT y) { return y / term; }
#endif
#if SAVED
#define SHARE(y, ...) NAME(share)(OP(term)(FUSED, (ELEMENT)1, __VA_ARGS__), y)
#define EXACT_X(g, y, ...) OP(grad_x)((g) * SHARE(y, __VA_ARGS__), __VA_ARGS__)
#define EXACT_W(number, g, y, ...) GRAD_W(number, (g) * SHARE(y, __VA_ARGS__), __VA_ARGS__)
#else
#define EXACT_X(g, y, ...) OP(grad_x)(g, __VA_ARGS__)
#define EXACT_W(number, g, y, ...) GRAD_W(number, g, __VA_ARGS__)
#endif
#if FINITE
#define PARTIAL_X(g, y, ...) (finite ? OP(grad_x_finite)(g, __VA_ARGS__) : OP(grad_x)(g, __VA_ARGS__))
#define PARTIAL_W(number, g, y, ...)                                                                                   \
    (finite ? GRAD_W_FINITE(number, g, __VA_ARGS__) : GRAD_W(number, g, __VA_ARGS__))
#else
#define PARTIAL_X EXACT_X
#define PARTIAL_W EXACT_W
#endif

#if PANELS
INLINE void NAME(x_tile)(const struct dot_kernels *self, const int rows, const int finite, int64_t filters,
                         const ELEMENT *restrict w, const ELEMENT *restrict g, const ELEMENT *restrict y,
                         const ELEMENT *restrict x, ELEMENT *restrict columns, int first)
{
    TAKE_SCALARS;
    ELEMENT acc[GRAD_ROWS][LANES], zero = 0;
    int64_t o;
    int i, j;

    (void)finite;
    (void)y;
    HIDE(zero);
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
            acc[i][j] = zero;
    for (o = 0; o < filters; o++, w += PLANES * rows, g += LANES) {
        ROW_LOOP
        for (i = 0; i < rows; i++)
            LANE_LOOP
            for (j = 0; j < LANES; j++)
                acc[i][j] += PARTIAL_X(g[j], y[o * LANES + j], WEIGHTS(w, i, rows), x[i * LANES + j]);
    }
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
            columns[i * LANES + j] = first ? acc[i][j] : columns[i * LANES + j] + acc[i][j];
}

#define CALL(n)                                                                                                        \
    case n:                                                                                                            \
        if (FINITE && finite)                                                                                      \
            NAME(x_tile)(self, n, 1, filters, w, g, y, x, columns, first);                                                      \
        else                                                                                                           \
            NAME(x_tile)(self, n, 0, filters, w, g, y, x, columns, first);                                                      \
        break

TARGET static void NAME(grad_x)(const struct dot_kernels *self, int rows, int64_t filters, const void *w, const void *g,
                                const void *y, const void *x, void *columns, int first, int finite)
{
    (void)finite;
#ifdef BY_SIGN
    if (finite) {
        BY_SIGN(grad_x)(rows, filters, (const ELEMENT *)w, (const ELEMENT *)g, (const ELEMENT *)x, (ELEMENT *)columns,
                        first);
        return;
    }
#endif
    switch (rows) {
        CALL(1);
        CALL(2);
        CALL(4);
#if GRAD_ROWS > 4
        CALL(6);
#endif
    }
}
#undef CALL

/* A tile has a few filters and one tap. */
#define W_FILTERS 4
/* The most positions that are added up in one go. */
#define RUN (16 * VECTOR)

/* Of one number, added to dw; where `both`, of the pixels too, added to columns: what the two partial derivatives have in
 * common, an exponential maybe, is computed once. */
INLINE void NAME(w_tile)(const struct dot_kernels *self, const int number, const int filters, const int masked,
                         const int finite, const int both, int64_t count, const ELEMENT *restrict w, int64_t w_stride,
                         const ELEMENT *restrict g, int64_t g_stride, const ELEMENT *restrict y, int64_t y_stride,
                         const ELEMENT *restrict x, const ELEMENT *restrict mask, ELEMENT *restrict columns,
                         ELEMENT *restrict dw, int64_t dw_stride)
{
    TAKE_SCALARS;
    ELEMENT acc[W_FILTERS][VECTOR], sums[W_FILTERS][VECTOR], weights[PLANES * W_FILTERS], zero = 0;
    int64_t l = 0, end;
    int o, j, plane, left;

    (void)number;
    (void)y, (void)y_stride;
    (void)mask;
    (void)finite;
    HIDE(zero);
    for (o = 0; o < filters; o++) {
        for (plane = 0; plane < PLANES; plane++)
            weights[plane * W_FILTERS + o] = w[plane * self->plane + o * w_stride];
        LANE_LOOP
        for (j = 0; j < VECTOR; j++)
            sums[o][j] = zero;
    }
    while (l < count) {
        end = count - l < RUN ? count : l + RUN;
        for (o = 0; o < filters; o++)
            LANE_LOOP
            for (j = 0; j < VECTOR; j++)
                acc[o][j] = zero;
        for (; l + VECTOR <= end; l += VECTOR)
            ROW_LOOP
            for (o = 0; o < filters; o++)
                LANE_LOOP
                for (j = 0; j < VECTOR; j++) {
                    const ELEMENT gradient = g[o * g_stride + l + j], pixel = x[l + j];
#if DIVIDES
                    if (masked && mask[l + j] == 0)
                        continue;
#endif
                    const ELEMENT partial =
                        PARTIAL_W(number, gradient, y[o * y_stride + l + j], WEIGHTS(weights, o, W_FILTERS), pixel);
                    const ELEMENT added = acc[o][j] + partial;
                    acc[o][j] = !masked || mask[l + j] != 0 ? added : acc[o][j];
                    /* Of a tap that is left out, it goes nowhere. */
                    if (both)
                        columns[l + j] +=
                            PARTIAL_X(gradient, y[o * y_stride + l + j], WEIGHTS(weights, o, W_FILTERS), pixel);
                }
        left = (int)(end - l);
        if (left > 0)
            ROW_LOOP
            for (o = 0; o < filters; o++)
                LANE_LOOP
                for (j = 0; j < VECTOR; j++) {
                    const ELEMENT gradient = g[o * g_stride + l + j], pixel = x[l + j];
#if DIVIDES
                    if (j >= left || (masked && mask[l + j] == 0))
                        continue;
#endif
                    const ELEMENT partial =
                        PARTIAL_W(number, gradient, y[o * y_stride + l + j], WEIGHTS(weights, o, W_FILTERS), pixel);
                    const int there = (j < left) & (!masked || mask[l + j] != 0);
                    const ELEMENT added = acc[o][j] + partial;
                    acc[o][j] = there ? added : acc[o][j];
                    if (both)
                        columns[l + j] +=
                            PARTIAL_X(gradient, y[o * y_stride + l + j], WEIGHTS(weights, o, W_FILTERS), pixel);
                }
        for (o = 0; o < filters; o++)
            LANE_LOOP
            for (j = 0; j < VECTOR; j++)
                sums[o][j] += acc[o][j];
        l = end;
    }
    for (o = 0; o < filters; o++) {
        /* Halved again and again, so that every compiler makes the same sum. */
        for (j = VECTOR / 2; j > 0; j /= 2)
            for (l = 0; l < j; l++)
                sums[o][l] += sums[o][l + j];
        dw[o * dw_stride] += sums[o][0];
    }
}

#define TILE(f, masked, finite)                                                                                        \
    NAME(w_tile)(self, number, f, masked, finite, both, count, w_, w_stride, g_, g_stride, y_, y_stride, x_, mask_,    \
                 columns_, dw_, dw_stride)
#define CALL(f)                                                                                                        \
    do {                                                                                                               \
        if (MASKS && mask)                                                                                             \
            TILE(f, 1, 0);                                                                                             \
        else if (FINITE && finite)                                                                                     \
            TILE(f, 0, 1);                                                                                             \
        else                                                                                                           \
            TILE(f, 0, 0);                                                                                             \
    } while (0)

INLINE void NAME(grad_number)(const struct dot_kernels *self, const int number, const int both, int64_t filters,
                              int64_t taps, int64_t count, const void *w, int64_t w_stride, const void *g,
                              int64_t g_stride, const void *y, int64_t y_stride, const void *x, int64_t x_stride,
                              const void *mask, void *columns, void *dw, int64_t dw_stride, int finite)
{
    int64_t o, k;
    int step;

    (void)finite;
    for (o = 0; o < filters; o += step) {
        const ELEMENT *g_ = (const ELEMENT *)g + o * g_stride, *y_ = y ? (const ELEMENT *)y + o * y_stride : g_;

        step = filters - o >= W_FILTERS ? W_FILTERS : filters - o >= 2 ? 2 : 1;
        for (k = 0; k < taps; k++) {
            const ELEMENT *w_ = (const ELEMENT *)w + o * w_stride + k, *x_ = (const ELEMENT *)x + k * x_stride;
            const ELEMENT *mask_ = mask ? (const ELEMENT *)mask + k * x_stride : x_;
            ELEMENT *columns_ = both ? (ELEMENT *)columns + k * x_stride : 0;
            ELEMENT *dw_ = (ELEMENT *)dw + o * dw_stride + k;

            if (step == W_FILTERS)
                CALL(W_FILTERS);
            else if (step == 2)
                CALL(2);
            else
                CALL(1);
        }
    }
}
#undef CALL
#undef TILE
#undef W_FILTERS
#undef RUN

TARGET static void NAME(grad_w)(const struct dot_kernels *self, int64_t filters, int64_t taps, int64_t count,
                                const void *w, int64_t w_stride, const void *g, int64_t g_stride, const void *y,
                                int64_t y_stride, const void *x, int64_t x_stride, const void *mask, void *columns,
                                void *dw, int64_t dw_stride, int64_t dw_plane, int finite)
{
#define ONE(number)                                                                                                    \
    if (NUMBERS > number && number > 0 && (self->wanted >> number & 1))                                                \
        NAME(grad_number)(self, number, 0, filters, taps, count, w, w_stride, g, g_stride, y, y_stride, x, x_stride,   \
                          mask, 0, (ELEMENT *)dw + number * dw_plane, dw_stride, finite);
#ifdef BY_SIGN
    if (finite && !mask && count <= L1_MOST) {
        BY_SIGN(grad_w)(filters, taps, count, (const ELEMENT *)w, w_stride, (const ELEMENT *)g, g_stride,
                        (const ELEMENT *)x, x_stride, (ELEMENT *)columns, (ELEMENT *)dw, dw_stride);
        return;
    }
#endif
    if (columns)
        NAME(grad_number)(self, 0, 1, filters, taps, count, w, w_stride, g, g_stride, y, y_stride, x, x_stride, mask,
                          columns, dw, dw_stride, finite);
    else if (self->wanted & 1)
        NAME(grad_number)(self, 0, 0, filters, taps, count, w, w_stride, g, g_stride, y, y_stride, x, x_stride, mask,
                          0, dw, dw_stride, finite);
    (void)dw_plane;
    EACH_NUMBER(ONE)
#undef ONE
}
#endif /* PANELS */

#if FEW

/* One position's gradients of a few filters, `width` taps at a time. `both`: of pixels too. */
INLINE int64_t NAME(few_grads_tile)(const struct dot_kernels *self, const int number, const int of_w, const int of_x,
                                    const int width, const int filters, int64_t k, int64_t taps,
                                    const ELEMENT *restrict w, int64_t w_stride, const ELEMENT *restrict g,
                                    const ELEMENT *restrict y, int64_t g_stride, const ELEMENT *restrict x,
                                    ELEMENT *restrict columns, ELEMENT *restrict dw, int64_t dw_stride)
{
    TAKE_SCALARS;
    const int finite = 0;
    ELEMENT gradients[DOT_FEW_FILTERS], results[DOT_FEW_FILTERS], zero = 0;
    int o, j;

    (void)number, (void)finite, (void)results;
    HIDE(zero);
    for (o = 0; o < filters; o++)
        gradients[o] = g[o * g_stride], results[o] = y[o * g_stride];
    for (; k + width <= taps; k += width) {
        ELEMENT sums[VECTOR];

        LANE_LOOP
        for (j = 0; j < width; j++)
            sums[j] = zero;
        ROW_LOOP
        for (o = 0; o < filters; o++)
            LANE_LOOP
            for (j = 0; j < width; j++) {
                if (of_w)
                    dw[o * dw_stride + k + j] += PARTIAL_W(number, gradients[o], results[o],
                                                           WEIGHTS(w, o * w_stride + k + j, self->plane), x[k + j]);
                if (of_x)
                    sums[j] += PARTIAL_X(gradients[o], results[o], WEIGHTS(w, o * w_stride + k + j, self->plane),
                                         x[k + j]);
            }
        if (of_x)
            LANE_LOOP
            for (j = 0; j < width; j++)
                columns[k + j] += sums[j];
    }
    return k;
}

INLINE void NAME(few_number)(const struct dot_kernels *self, const int number, const int of_w, const int of_x,
                             int filters, int64_t positions, int64_t taps, const ELEMENT *w, int64_t w_stride,
                             const ELEMENT *g, int64_t g_stride, const ELEMENT *y, const ELEMENT *x, int64_t x_stride,
                             ELEMENT *columns, ELEMENT *dw, int64_t dw_stride)
{
    int64_t i, k;
    int o;

#define TILE(width, filters, k, o)                                                                                     \
    NAME(few_grads_tile)(self, number, of_w, of_x, width, filters, k, taps, w + (o) * w_stride, w_stride,              \
                         g + (o) * g_stride + i, y + (o) * g_stride + i, g_stride, x + i * x_stride,                   \
                         columns + (of_x ? i * taps : 0), dw + (of_w ? (o) * dw_stride : 0), dw_stride)
    for (i = 0; i < positions; i++)
        if (filters == DOT_FEW_FILTERS) {
            k = TILE(VECTOR, DOT_FEW_FILTERS, 0, 0);
            TILE(1, DOT_FEW_FILTERS, k, 0);
        } else
            for (o = 0; o < filters; o++) {
                k = TILE(VECTOR, 1, 0, o);
                TILE(1, 1, k, o);
            }
#undef TILE
}

TARGET static void NAME(few_grads)(const struct dot_kernels *self, int filters, int64_t positions, int64_t taps,
                                   const void *w, int64_t w_stride, const void *g, int64_t g_stride, const void *y,
                                   const void *x, int64_t x_stride, void *columns, void *dw, int64_t dw_stride,
                                   int64_t dw_plane)
{
#define CALL(number, of_w, of_x)                                                                                       \
    NAME(few_number)(self, number, of_w, of_x, filters, positions, taps, (const ELEMENT *)w, w_stride,                 \
                     (const ELEMENT *)g, g_stride, (const ELEMENT *)(y ? y : g), (const ELEMENT *)x, x_stride,         \
                     (ELEMENT *)columns, (ELEMENT *)dw + (of_w ? number * dw_plane : 0), dw_stride)
#define ONE(number)                                                                                                    \
    if (NUMBERS > number && number > 0 && dw && (self->wanted >> number & 1))                                          \
        CALL(number, 1, 0);
    if (columns && dw && (self->wanted & 1))
        CALL(0, 1, 1);
    else if (columns)
        CALL(0, 0, 1);
    else if (self->wanted & 1)
        CALL(0, 1, 0);
    EACH_NUMBER(ONE)
#undef ONE
#undef CALL
}
#endif /* FEW */

#if DIRECT

/* Rows are the next positions, as forward's. */
INLINE void NAME(direct_x_tile)(const struct dot_kernels *self, const int rows, const int finite, int64_t terms,
                                const ELEMENT *restrict w, const ELEMENT *restrict g, const ELEMENT *restrict y,
                                const ELEMENT *restrict there, const int64_t *restrict offsets,
                                const ELEMENT *restrict x, ELEMENT *restrict dx)
{
    TAKE_SCALARS;
    ELEMENT acc[2][LANES], zero = 0;
    int64_t k;
    int i, j;

    (void)y, (void)there, (void)finite;
    HIDE(zero);
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
            acc[i][j] = zero;
    for (k = 0; k < terms; k++, w += PLANES) {
        const ELEMENT *const gradients = g + offsets[k], *const results = y + (SAVED ? offsets[k] : 0);
        const ELEMENT *const is = there + offsets[k];

        (void)results;
        ROW_LOOP
        for (i = 0; i < rows; i++)
            LANE_LOOP
            for (j = 0; j < LANES; j++) {
                const ELEMENT partial = PARTIAL_X(gradients[i * LANES + j], results[i * LANES + j], WEIGHTS(w, 0, 1),
                                                  x[i * LANES + j]);
                acc[i][j] += (finite && KEEPS_ZEROS) || is[i * LANES + j] != 0 ? partial : 0;
            }
    }
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < LANES; j++)
            dx[i * LANES + j] = acc[i][j];
}

TARGET static void NAME(direct_grad_x)(const struct dot_kernels *self, int64_t count, int64_t terms, const void *w,
                                       const void *g, const void *y, const void *there, const int64_t *offsets,
                                       const void *x, void *dx, int finite)
{
    int64_t l;

    (void)finite;
    for (l = 0; l < count; l += 2 * LANES) {
        const ELEMENT *g_ = (const ELEMENT *)g + l, *y_ = y ? (const ELEMENT *)y + l : g_;
        const ELEMENT *there_ = (const ELEMENT *)there + l, *x_ = (const ELEMENT *)x + l;

        if (FINITE && finite)
            NAME(direct_x_tile)(self, 2, 1, terms, w, g_, y_, there_, offsets, x_, (ELEMENT *)dx + l);
        else
            NAME(direct_x_tile)(self, 2, 0, terms, w, g_, y_, there_, offsets, x_, (ELEMENT *)dx + l);
    }
}

/* Of so many taps those that are `left`: the others repeat the last one, and go nowhere. */
INLINE void NAME(direct_w_tile)(const struct dot_kernels *self, const int number, const int taps, const int masked,
                                const int finite, int64_t left, int64_t count, const ELEMENT *restrict w, const ELEMENT *restrict g,
                                const ELEMENT *restrict y, const ELEMENT *restrict there,
                                const int64_t *restrict offsets, const ELEMENT *restrict x,
                                const ELEMENT *restrict mask, ELEMENT *restrict dw)
{
    TAKE_SCALARS;
    ELEMENT acc[4][LANES], weights[PLANES * 4], zero = 0;
    int64_t pixels[4], l;
    int k, j, plane;

    (void)number, (void)finite;
    (void)y, (void)there, (void)mask;
    HIDE(zero);
    for (k = 0; k < taps; k++) {
        for (plane = 0; plane < PLANES; plane++)
            weights[plane * 4 + k] = w[(k < left ? k : left - 1) * PLANES + plane];
        pixels[k] = offsets[k < left ? k : left - 1];
        LANE_LOOP
        for (j = 0; j < LANES; j++)
            acc[k][j] = zero;
    }
    for (l = 0; l < count; l += LANES)
        ROW_LOOP
        for (k = 0; k < taps; k++) {
            const ELEMENT *const v = x + pixels[k] + l, *const is = masked ? mask + pixels[k] + l : there + l;

            LANE_LOOP
            for (j = 0; j < LANES; j++) {
                const ELEMENT partial = PARTIAL_W(number, g[l + j], y[l + j], WEIGHTS(weights, k, 4), v[j]);
                acc[k][j] += (finite && KEEPS_ZEROS) || (there[l + j] != 0 && is[j] != 0) ? partial : 0;
            }
        }
    for (k = 0; k < taps; k++) {
        for (j = LANES / 2; j > 0; j /= 2)
            for (l = 0; l < j; l++)
                acc[k][l] += acc[k][l + j];
        if (k < left)
            dw[k] += acc[k][0];
    }
}

#define CALL(n)                                                                                                        \
    do {                                                                                                               \
        if (MASKS && mask_)                                                                                            \
            NAME(direct_w_tile)(self, number, n, 1, 0, left, count, w_, g, y_, there, offsets + k, x, mask_, dw_ + k);       \
        else if (FINITE && finite)                                                                                     \
            NAME(direct_w_tile)(self, number, n, 0, 1, left, count, w_, g, y_, there, offsets + k, x, mask_, dw_ + k);       \
        else                                                                                                           \
            NAME(direct_w_tile)(self, number, n, 0, 0, left, count, w_, g, y_, there, offsets + k, x, mask_, dw_ + k);       \
    } while (0)

INLINE void NAME(direct_number)(const struct dot_kernels *self, const int number, int64_t count, int64_t taps,
                                const void *w, const void *g, const void *y, const void *there, const int64_t *offsets,
                                const void *x, const void *mask, void *dw, int64_t step, int finite)
{
    const ELEMENT *y_ = (const ELEMENT *)(y ? y : g), *mask_ = (const ELEMENT *)mask;
    ELEMENT *dw_ = (ELEMENT *)dw + number * step;
    int64_t k;

    (void)finite;
    for (k = 0; k < taps;) {
        const ELEMENT *w_ = (const ELEMENT *)w + k * PLANES;
        const int64_t left = taps - k;

        if (left % 4 == 0) {
            CALL(4);
            k += 4;
        } else {
            CALL(3);
            k += 3;
        }
    }
}
#undef CALL

TARGET static void NAME(direct_grad_w)(const struct dot_kernels *self, int64_t count, int64_t taps, const void *w,
                                       const void *g, const void *y, const void *there, const int64_t *offsets,
                                       const void *x, const void *mask, void *dw, int64_t step, int finite)
{
#define ONE(number)                                                                                                    \
    if (NUMBERS > number && (self->wanted >> number & 1))                                                              \
        NAME(direct_number)(self, number, count, taps, w, g, y, there, offsets, x, mask, dw, step, finite);
    EACH_NUMBER(ONE)
#undef ONE
}
#endif /* DIRECT */

#undef PARTIAL_X
#undef PARTIAL_W
#undef EXACT_X
#undef EXACT_W
#ifdef SHARE
#undef SHARE
#endif
#endif /* DOT_SUM, SAVED */

#if PANELS && (ADDS == DOT_MAX || ADDS == DOT_MIN)

TARGET static void NAME(arg)(const struct dot_kernels *self, int64_t depth, int32_t start, const void *w_,
                             const void *x_, const void *mask_, void *best_, int32_t *arg)
{
    TAKE_SCALARS;
    const ELEMENT *w = (const ELEMENT *)w_, *x = (const ELEMENT *)x_, *mask = (const ELEMENT *)mask_;
    SUM best[LANES];
    int32_t where[LANES];
    ELEMENT one = 1;
    int64_t k;
    int j;

    (void)one;
    for (j = 0; j < LANES; j++)
        best[j] = ((SUM *)best_)[j], where[j] = arg[j];
    for (k = 0; k < depth; k++, x += LANES) {
        LANE_LOOP
        for (j = 0; j < LANES; j++) {
#if DIVIDES
            if (mask && mask[j] == 0)
                continue;
#endif
            const SUM term = OP(term)(0, one, WEIGHTS(w, k, self->plane), x[j]);
            const int there = !mask || mask[j] != 0;
            /* The first that is there, a better one, or the first NaN. */
            const int taken =
                there & ((where[j] < 0) | BETTER(term, best[j]) | ((term != term) & (best[j] == best[j])));
            best[j] = taken ? term : best[j];
            where[j] = taken ? (int32_t)(start + k) : where[j];
        }
        if (mask)
            mask += LANES;
    }
    for (j = 0; j < LANES; j++)
        ((SUM *)best_)[j] = best[j], arg[j] = where[j];
}

TARGET static void NAME(partials)(const struct dot_kernels *self, int64_t count, int64_t step, const void *g_,
                                  const void *w_, const void *x_, void *gw_, void *gx_)
{
    TAKE_SCALARS;
    const ELEMENT *g = (const ELEMENT *)g_, *w = (const ELEMENT *)w_, *x = (const ELEMENT *)x_;
    ELEMENT *gw = (ELEMENT *)gw_, *gx = (ELEMENT *)gx_;
    int64_t i;

    for (i = 0; i < count; i++)
        gx[i] = OP(grad_x)(g[i], WEIGHTS(w, i, step), x[i]);
#define ONE(number)                                                                                                    \
    for (i = 0; NUMBERS > number && i < count; i++)                                                                    \
        gw[number * step + i] = GRAD_W(number, g[i], WEIGHTS(w, i, step), x[i]);
    EACH_NUMBER(ONE)
#undef ONE
}
#endif

#if PANELS && FOLDS

TARGET static void NAME(fold_grad)(const struct dot_kernels *self, int64_t depth, int64_t count, const void *w_,
                                   const void *x_, const void *mask_, const void *grad_, void *history_, void *dw_,
                                   void *columns_)
{
    TAKE_SCALARS;
    const ELEMENT *w = (const ELEMENT *)w_, *x = (const ELEMENT *)x_, *mask = (const ELEMENT *)mask_;
    const int64_t blocks = (depth + DOT_KEPT - 1) / DOT_KEPT;
    SUM *starts = (SUM *)history_, *kept = starts + blocks * LANES;
    ELEMENT *dw = (ELEMENT *)dw_, *columns = (ELEMENT *)columns_;
    SUM acc[LANES], grad[LANES];
    ELEMENT one = 1, of_terms[LANES], partial[LANES];
    int64_t k, b;
    int j;

    (void)one;
    for (j = 0; j < LANES; j++)
        grad[j] = ((const SUM *)grad_)[j], acc[j] = STARTS ? (SUM)(START) : 0;
    for (k = 0; k < depth; k++) {
        if (k % DOT_KEPT == 0)
            for (j = 0; j < LANES; j++)
                starts[k / DOT_KEPT * LANES + j] = acc[j];
        LANE_LOOP
        for (j = 0; j < LANES; j++) {
            const SUM term = (SUM)OP(term)(0, one, WEIGHTS(w, k, self->plane), x[k * LANES + j]);
            const SUM sum = !STARTS && k == 0 ? term : OP(add)(acc[j], term);
            acc[j] = !mask || mask[k * LANES + j] != 0 ? sum : acc[j];
        }
    }
    for (b = blocks - 1; b >= 0; b--) {
        const int64_t first = b * DOT_KEPT, last = first + DOT_KEPT < depth ? first + DOT_KEPT : depth;

        for (j = 0; j < LANES; j++)
            acc[j] = starts[b * LANES + j];
        for (k = first; k < last; k++)
            LANE_LOOP
            for (j = 0; j < LANES; j++) {
                const SUM term = (SUM)OP(term)(0, one, WEIGHTS(w, k, self->plane), x[k * LANES + j]);
                const SUM sum = !STARTS && k == 0 ? term : OP(add)(acc[j], term);
                kept[(k - first) * LANES + j] = acc[j];
                acc[j] = !mask || mask[k * LANES + j] != 0 ? sum : acc[j];
            }
        for (k = last - 1; k >= first; k--) {
            LANE_LOOP
            for (j = 0; j < LANES; j++) {
                const SUM before = kept[(k - first) * LANES + j];
                const SUM term = (SUM)OP(term)(0, one, WEIGHTS(w, k, self->plane), x[k * LANES + j]);
                const int there = !mask || mask[k * LANES + j] != 0;
                const SUM of_term = !STARTS && k == 0 ? grad[j] : OP(add_term)(grad[j], before, term);
                const SUM of_acc = OP(add_acc)(grad[j], before, term);
                const ELEMENT of_x =
                    OP(grad_x)((ELEMENT)of_term, WEIGHTS(w, k, self->plane), x[k * LANES + j]);
                grad[j] = there ? of_acc : grad[j];
                columns[k * LANES + j] += there ? of_x : 0;
                of_terms[j] = (ELEMENT)of_term;
            }
#define ONE(number)                                                                                                    \
    if (NUMBERS > number) {                                                                                            \
        LANE_LOOP                                                                                                      \
        for (j = 0; j < LANES; j++) {                                                                                  \
            const ELEMENT of_w =                                                                                       \
                GRAD_W(number, of_terms[j], WEIGHTS(w, k, self->plane), x[k * LANES + j]);                             \
            partial[j] = !mask || mask[k * LANES + j] != 0 ? of_w : 0;                                                 \
        }                                                                                                              \
        for (j = 1; j < count; j++)                                                                                    \
            partial[0] += partial[j];                                                                                  \
        dw[number * depth + k] += partial[0];                                                                          \
    }
            EACH_NUMBER(ONE)
#undef ONE
        }
    }
}
#endif
#undef EACH_NUMBER
#endif /* GRADIENTS */
#undef TAKE_SCALARS

static const struct dot_kernels NAME(kernels) = {
    .rows = TILE_ROWS,
    .grad_rows = GRAD_ROWS,
    .lanes = LANES,
    .element = sizeof(ELEMENT),
    .total = sizeof(TOTAL),
    .depth = DOT_DEPTH,
    .saved = SAVED,
    .planes = PLANES,
    .numbers = NUMBERS,
    .finite = (FINITE ? DOT_PARTIALS : 0) | (FINITE_TERMS ? DOT_TERMS : 0),
#if FORWARD && PANELS
    .forward = NAME(forward),
#endif
#if FORWARD && FEW && (ADDS == DOT_SUM || ADDS == DOT_MAX || ADDS == DOT_MIN)
    .few = NAME(few),
#endif
#if FORWARD && DIRECT
    .direct = NAME(direct),
#endif
    .operands_finite = NAME(operands_finite),
#if GRADIENTS
    .gradients_finite = NAME(gradients_finite),
#if ADDS == DOT_SUM || SAVED
#if PANELS
    .grad_x = NAME(grad_x),
    .grad_w = NAME(grad_w),
#endif
#if DIRECT
    .direct_grad_x = NAME(direct_grad_x),
    .direct_grad_w = NAME(direct_grad_w),
#endif
#if FEW
    .few_grads = NAME(few_grads),
#endif
#endif
#if PANELS && FOLDS
    .fold_grad = NAME(fold_grad),
#elif PANELS && (ADDS == DOT_MAX || ADDS == DOT_MIN)
    .arg = NAME(arg),
    .partials = NAME(partials),
#endif
#endif
};

#undef FOLDS
#undef SAVED
#undef TILE_ROWS
#undef TERM
#undef VECTOR
#undef ADDED
#undef GREATEST
#undef LOG
