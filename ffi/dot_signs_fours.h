/* Sums of products of signs, four to a byte, by byte shuffles, for AVX2. To each weight there is a table of the products'
 * sums with all pixels, and a shuffle looks 32 pixels up at once: two instructions for 128 terms, where comparing and
 * counting bits takes four. */
#ifndef DOT_SIGNS_FOURS_H
#define DOT_SIGNS_FOURS_H

/* Positions in a panel. */
#define FOURS_LANES 64
/* Terms, of up to 4, that a byte holds the sum of. */
#define FOURS_STEP 31

#define BIT(bits, i) ((bits) >> (i)&1)
#define ONES(bits) (BIT(bits, 0) + BIT(bits, 1) + BIT(bits, 2) + BIT(bits, 3))
#define SUM_OF(n, w, x) ((n)-2 * ONES(((w) ^ (x)) & ((1 << (n)) - 1)))
#define OF_WEIGHT(n, w)                                                                                                \
    {SUM_OF(n, w, 0), SUM_OF(n, w, 1), SUM_OF(n, w, 2),  SUM_OF(n, w, 3),  SUM_OF(n, w, 4),  SUM_OF(n, w, 5),          \
     SUM_OF(n, w, 6), SUM_OF(n, w, 7), SUM_OF(n, w, 8),  SUM_OF(n, w, 9),  SUM_OF(n, w, 10), SUM_OF(n, w, 11),         \
     SUM_OF(n, w, 12), SUM_OF(n, w, 13), SUM_OF(n, w, 14), SUM_OF(n, w, 15)}
#define OF_CHANNELS(n)                                                                                                 \
    OF_WEIGHT(n, 0), OF_WEIGHT(n, 1), OF_WEIGHT(n, 2), OF_WEIGHT(n, 3), OF_WEIGHT(n, 4), OF_WEIGHT(n, 5),              \
        OF_WEIGHT(n, 6), OF_WEIGHT(n, 7), OF_WEIGHT(n, 8), OF_WEIGHT(n, 9), OF_WEIGHT(n, 10), OF_WEIGHT(n, 11),        \
        OF_WEIGHT(n, 12), OF_WEIGHT(n, 13), OF_WEIGHT(n, 14), OF_WEIGHT(n, 15)

/* A row for each weight of DOT_WEIGHTS, half of whose bytes say which: of 4 channels first, then of 1, 2 and 3. */
static const int8_t fours_sums[64][16] __attribute__((aligned(64))) = {OF_CHANNELS(4), OF_CHANNELS(1), OF_CHANNELS(2),
                                                                       OF_CHANNELS(3)};
#undef BIT
#undef ONES
#undef SUM_OF
#undef OF_WEIGHT
#undef OF_CHANNELS

/* Of intrinsics, compilers load pixels again for each row, and copy sums from register to register. */
#define ADD_FOUND(sum, table, pixels)                                                                                  \
    do {                                                                                                               \
        __m256i found;                                                                                                 \
        __asm__("vpshufb %2, %1, %0" : "=x"(found) : "x"(table), "x"(pixels));                                         \
        __asm__("vpaddb %1, %0, %0" : "+x"(sum) : "x"(found));                                                         \
    } while (0)

TARGET INLINE void fours_tile(const int rows, int64_t depth, const uint8_t *w, const uint8_t *x,
                              int16_t sums[4][FOURS_LANES])
{
    int i, v, first = 1;

    for (; depth > 0; first = 0) {
        int64_t k = depth < FOURS_STEP ? depth : FOURS_STEP;
        __m256i acc[4][2];

        depth -= k;
        ROW_LOOP
        for (i = 0; i < rows; i++)
            acc[i][0] = acc[i][1] = _mm256_setzero_si256();
        for (; k > 0; k--, w += rows, x += FOURS_LANES) {
            const __m256i left = _mm256_loadu_si256((const __m256i *)(const void *)x);
            const __m256i right = _mm256_loadu_si256((const __m256i *)(const void *)(x + 32));

            ROW_LOOP
            for (i = 0; i < rows; i++) {
                const __m256i table =
                    _mm256_broadcastsi128_si256(*(const __m128i *)(const void *)(*fours_sums + 8 * (size_t)w[i]));

                ADD_FOUND(acc[i][0], table, left);
                ADD_FOUND(acc[i][1], table, right);
            }
        }
        ROW_LOOP
        for (i = 0; i < rows; i++)
            ROW_LOOP
            for (v = 0; v < 4; v++) {
                __m256i *to = (__m256i *)(void *)(sums[i] + 16 * v);
                const __m128i half = v % 2 ? _mm256_extracti128_si256(acc[i][v / 2], 1)
                                           : _mm256_castsi256_si128(acc[i][v / 2]);

                const __m256i wide = _mm256_cvtepi8_epi16(half);

                _mm256_storeu_si256(to, first ? wide : _mm256_add_epi16(_mm256_loadu_si256(to), wide));
            }
    }
}

TARGET static void fours_sum(int rows, int64_t depth, const void *w, const void *x, int16_t sums[4][FOURS_LANES])
{
    if (rows == 4)
        fours_tile(4, depth, (const uint8_t *)w, (const uint8_t *)x, sums);
    else if (rows == 2)
        fours_tile(2, depth, (const uint8_t *)w, (const uint8_t *)x, sums);
    else
        fours_tile(1, depth, (const uint8_t *)w, (const uint8_t *)x, sums);
}

#endif
