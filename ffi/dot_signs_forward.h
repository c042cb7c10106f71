/* The kernels for words in one instruction set, for one type of results. Expects TOTAL and TYPED(name); undefines them. */

TARGET static void TYPED(forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w, const void *x,
                                  const void *mask, void *out, int64_t stride, int first, int ordinary)
{
    int32_t differ[ROWS][LANES], there[LANES];
    TOTAL *totals = (TOTAL *)out;
    int i, j;

    (void)self, (void)ordinary;
    /* Results take longer to fetch, be it only to be written over, than signs to be counted. */
    for (i = 0; i < rows; i++)
        for (j = 0; j < LANES; j += 64 / (int)sizeof(TOTAL))
            __builtin_prefetch(totals + i * stride + j, 1);
    LEVELED(count)(rows, depth, w, x, mask, differ, there);
    for (i = 0; i < rows; i++, totals += stride)
        for (j = 0; j < LANES; j++)
            totals[j] = (first ? 0 : totals[j]) + (TOTAL)(there[j] - 2 * differ[i][j]);
}

static const struct dot_kernels TYPED(kernels) = {
    .rows = ROWS,
    .lanes = LANES,
    .element = sizeof(uint32_t),
    .total = sizeof(TOTAL),
    .depth = DOT_DEPTH,
    .forward = TYPED(forward),
};

#undef TOTAL
#undef TYPED
