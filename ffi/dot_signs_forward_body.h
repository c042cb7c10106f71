/* The kernels of words of signs for one type of results, in one instruction set. Expects TOTAL and NAME(function). */

TARGET static void NAME(forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w, const void *x,
                                 const void *mask, void *out, int64_t stride, int first, int finite)
{
    int32_t differ[ROWS][LANES], there[LANES];
    TOTAL *totals = (TOTAL *)out;
    int i, j;

    (void)self, (void)finite;
    /* Fetching results takes longer than counting signs, even if they are only written over. */
    for (i = 0; i < rows; i++)
        for (j = 0; j < LANES; j += 64 / (int)sizeof(TOTAL))
            __builtin_prefetch(totals + i * stride + j, 1);
    LEVELED(signs_count)(rows, depth, w, x, mask, differ, there);
    for (i = 0; i < rows; i++, totals += stride)
        for (j = 0; j < LANES; j++)
            totals[j] = (first ? 0 : totals[j]) + (TOTAL)(there[j] - 2 * differ[i][j]);
}

static const struct dot_kernels NAME(kernels) = {
    .rows = ROWS,
    .lanes = LANES,
    .element = sizeof(uint32_t),
    .planes = 1,
    .numbers = 1,
    .total = sizeof(TOTAL),
    .depth = DOT_DEPTH,
    .forward = NAME(forward),
};
