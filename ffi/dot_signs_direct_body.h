/* Signs as bytes, for groups of few filters and channels: +1, -1, and 0 where there is none. 32 or 64 of them are a vector,
 * which takes two instructions a term. For one type of results, in one instruction set. Expects TOTAL and NAME(function);
 * undefines them. */

/* m ^ x is -x - 1 where m has all bits, and x where it has none. `negative` makes up for the ones. */
INLINE void NAME(bytes)(const int rows, int64_t depth, const int8_t *restrict w, const int8_t *restrict x,
                        const int64_t *restrict offsets, int8_t negative, TOTAL *restrict out, int first)
{
    int8_t acc[BYTES / VECTOR_BYTES][VECTOR_BYTES];
    int64_t k;
    int i, j;

    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < VECTOR_BYTES; j++)
            acc[i][j] = negative;
    for (k = 0; k < depth; k++) {
        const int8_t *const pixels = x + offsets[k], m = w[k] < 0 ? -1 : 0;

        ROW_LOOP
        for (i = 0; i < rows; i++)
            LANE_LOOP
            for (j = 0; j < VECTOR_BYTES; j++)
                acc[i][j] = (int8_t)(acc[i][j] + (pixels[i * VECTOR_BYTES + j] ^ m));
    }
    for (i = 0; i < rows; i++)
        LANE_LOOP
        for (j = 0; j < VECTOR_BYTES; j++)
            out[i * VECTOR_BYTES + j] = (first ? 0 : out[i * VECTOR_BYTES + j]) + (TOTAL)acc[i][j];
}

TARGET static void NAME(direct)(const struct dot_kernels *self, int64_t count, int64_t depth, const void *w_,
                                const void *x, const int64_t *offsets, const void *mask, void *out, int first,
                                int finite)
{
    const int8_t *w = (const int8_t *)w_;
    int8_t negative = 0;
    int64_t k, l;

    (void)self, (void)mask, (void)finite;
    for (k = 0; k < depth; k++)
        negative = (int8_t)(negative + (w[k] < 0));
    for (l = 0; count - l > BYTES / 2; l += BYTES)
        NAME(bytes)(BYTES / VECTOR_BYTES, depth, w, (const int8_t *)x + l, offsets, negative, (TOTAL *)out + l, first);
    if (l < count)
        NAME(bytes)(BYTES / VECTOR_BYTES / 2, depth, w, (const int8_t *)x + l, offsets, negative, (TOTAL *)out + l, first);
}

static const struct dot_kernels NAME(byte_kernels) = {
    .rows = ROWS,
    .lanes = LANES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(TOTAL),
    .depth = 60, /* as many as bytes hold, twice */
    .direct = NAME(direct),
};

#undef TOTAL
#undef NAME
