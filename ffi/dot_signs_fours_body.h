/* The kernels of bytes of four signs for one type of results. Expects TOTAL and NAME(function). */

TARGET static void NAME(forward_of_four)(const struct dot_kernels *self, int rows, int64_t depth, const void *w,
                                         const void *x, const void *mask, void *out, int64_t stride, int first,
                                         int finite)
{
    int16_t sums[4][FOURS_LANES];
    TOTAL *totals = (TOTAL *)out;
    int i, j;

    (void)self, (void)finite, (void)mask;
    /* Fetching results takes longer than summing signs, even if they are only written over. */
    for (i = 0; i < rows; i++)
        for (j = 0; j < FOURS_LANES; j += 64 / (int)sizeof(TOTAL))
            __builtin_prefetch(totals + i * stride + j, 1);
    fours_sum(rows, depth, w, x, sums);
    for (i = 0; i < rows; i++, totals += stride)
        if (first)
            for (j = 0; j < FOURS_LANES; j++)
                totals[j] = (TOTAL)sums[i][j];
        else
            for (j = 0; j < FOURS_LANES; j++)
                totals[j] += (TOTAL)sums[i][j];
}

static const struct dot_kernels NAME(kernels_of_four) = {
    .rows = 4,
    .lanes = FOURS_LANES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(TOTAL),
    .depth = DOT_DEPTH,
    .forward = NAME(forward_of_four),
};
