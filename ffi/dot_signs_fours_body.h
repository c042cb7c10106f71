/* Sums of products of signs, four to a byte, for one type of results. Expects RESULT, its name. Undefines it. */

TARGET static void PASTE(sum_, RESULT)(int rows, int64_t count, int64_t depth, const uint8_t *w, const uint8_t *x,
                                      const int64_t *offsets, void *out, int64_t stride, int first)
{
    int16_t sums[FOURS_ROWS][FOURS_LANES];
    PASTE(total_, RESULT) *totals = (PASTE(total_, RESULT) *)out;
    int64_t start, k;
    int i, j;

    for (start = 0; start < count; start += FOURS_LANES, totals += FOURS_LANES, x += FOURS_LANES) {
        const int half = count - start <= FOURS_LANES / 2, lanes = half ? FOURS_LANES / 2 : FOURS_LANES;

        for (k = 0; k < depth; k += FOURS_DEPTH) {
            fours_sum(rows, half, smaller(FOURS_DEPTH, depth - k), w + k * rows, x, offsets + k, sums);
            for (i = 0; i < rows; i++)
                if (first && k == 0)
                    for (j = 0; j < lanes; j++)
                        totals[i * stride + j] = (PASTE(total_, RESULT))sums[i][j];
                else
                    for (j = 0; j < lanes; j++)
                        totals[i * stride + j] += (PASTE(total_, RESULT))sums[i][j];
        }
    }
}

#undef RESULT
