/* Sums of products of signs, four to a byte, by byte shuffles, for AVX2. To each weight there is a table of the products'
 * sums with all pixels, and a shuffle looks 32 pixels up at once: two instructions for 128 terms, where comparing and
 * counting bits takes four. */
#include "dot_signs.h"

#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_fours.h"
#include "dot_target.h"
#include "dot_transpose.h"
#include "walk.h"

#if HAS_AVX
#include <immintrin.h>

#define LEVEL 1
#define SUM int8_t
#define TARGET AVX2
#include "dot_level.h"

/* Bytes of signs of dense weights at a time. */
#define DENSE (FOURS * FOURS_TAPS)
/* Pixels whose channels' signs are put together at a time. */
#define BLOCK 512
/* How far pixels are apart, at most, so that those between them may be packed, too. */
#define NEAR 4
/* Pixels, and bytes of each, that are transposed at a time. */
#define PIXELS 64
#define DEEP 64

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

/* A row for each byte of weights, half of which says which: they are 2 * (bits + 16 * (channels % 4)). */
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

/* Sums of `vectors` of 32 positions each. */
TARGET INLINE void fours_tile(const int rows, const int vectors, int64_t depth, const uint8_t *w, const uint8_t *x,
                              const int64_t *offsets, int16_t sums[FOURS_ROWS][FOURS_LANES])
{
    int i, v, first = 1;

    for (; depth > 0; first = 0) {
        int64_t k = depth < FOURS_STEP ? depth : FOURS_STEP;
        __m256i acc[FOURS_ROWS][2];

        depth -= k;
        ROW_LOOP
        for (i = 0; i < rows; i++)
            acc[i][0] = acc[i][1] = _mm256_setzero_si256();
        for (; k > 0; k--, w += rows, offsets++) {
            const __m256i left = _mm256_loadu_si256((const __m256i *)(const void *)(x + *offsets));
            const __m256i right =
                vectors > 1 ? _mm256_loadu_si256((const __m256i *)(const void *)(x + *offsets + 32)) : left;

            ROW_LOOP
            for (i = 0; i < rows; i++) {
                const __m256i table =
                    _mm256_broadcastsi128_si256(*(const __m128i *)(const void *)(*fours_sums + 8 * (size_t)w[i]));

                ADD_FOUND(acc[i][0], table, left);
                if (vectors > 1)
                    ADD_FOUND(acc[i][1], table, right);
            }
        }
        ROW_LOOP
        for (i = 0; i < rows; i++)
            ROW_LOOP
            for (v = 0; v < 2 * vectors; v++) {
                __m256i *to = (__m256i *)(void *)(sums[i] + 16 * v);
                const __m128i half = v % 2 ? _mm256_extracti128_si256(acc[i][v / 2], 1)
                                           : _mm256_castsi256_si128(acc[i][v / 2]);
                const __m256i wide = _mm256_cvtepi8_epi16(half);

                _mm256_storeu_si256(to, first ? wide : _mm256_add_epi16(_mm256_loadu_si256(to), wide));
            }
    }
}

#define TILE(rows)                                                                                                     \
    do {                                                                                                               \
        if (half)                                                                                                      \
            fours_tile(rows, 1, depth, w, x, offsets, sums);                                                           \
        else                                                                                                           \
            fours_tile(rows, 2, depth, w, x, offsets, sums);                                                           \
    } while (0)

TARGET static void fours_sum(int rows, int half, int64_t depth, const uint8_t *w, const uint8_t *x,
                             const int64_t *offsets, int16_t sums[FOURS_ROWS][FOURS_LANES])
{
    if (rows == 4)
        TILE(4);
    else if (rows == 2)
        TILE(2);
    else
        TILE(1);
}
#undef TILE

/* Of any alignment. */
typedef uint8_t sixteen __attribute__((vector_size(16), aligned(1), may_alias));

typedef float total_float32;
typedef double total_float64;
typedef int64_t total_int64;

#define RESULT float32
#include "dot_signs_fours_body.h"
#define RESULT float64
#include "dot_signs_fours_body.h"
#define RESULT int64
#include "dot_signs_fours_body.h"

/* As the other types' in dot_signs_fours_pack_body.h: compilers don't know that masks are narrowed by saturation. */
TARGET static void signs_float32(const float *values, int64_t count, uint8_t *signs)
{
    const __m256 zero = _mm256_setzero_ps();
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int64_t j;

#define EIGHT(i) _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(values + j + 8 * (i)), zero, _CMP_GE_OQ))
    for (j = 0; count - j >= 32; j += 32) {
        const __m256i halves = _mm256_packs_epi32(EIGHT(0), EIGHT(1)), others = _mm256_packs_epi32(EIGHT(2), EIGHT(3));

        _mm256_storeu_si256((__m256i *)(void *)(signs + j),
                            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(halves, others), order));
    }
    for (; count - j >= 8; j += 8) {
        const __m128i eight = _mm_packs_epi32(_mm256_castsi256_si128(EIGHT(0)), _mm256_extracti128_si256(EIGHT(0), 1));

        _mm_storel_epi64((__m128i *)(void *)(signs + j), _mm_packs_epi16(eight, eight));
    }
#undef EIGHT
    for (; j < count; j++)
        signs[j] = values[j] >= 0 ? 0xFF : 0;
}

#define ELEMENT float
#define RESULT float32
#define HAS_SIGNS
#define TYPED(function) function##_float32
#include "dot_signs_fours_pack_body.h"
#define ELEMENT double
#define RESULT float64
#define TYPED(function) function##_float64
#include "dot_signs_fours_pack_body.h"
#define ELEMENT int8_t
#define RESULT int64
#define TYPED(function) function##_int8
#include "dot_signs_fours_pack_body.h"
#define ELEMENT int16_t
#define RESULT int64
#define TYPED(function) function##_int16
#include "dot_signs_fours_pack_body.h"
#define ELEMENT int32_t
#define RESULT int64
#define TYPED(function) function##_int32
#include "dot_signs_fours_pack_body.h"
#define ELEMENT int64_t
#define RESULT int64
#define TYPED(function) function##_int64
#include "dot_signs_fours_pack_body.h"
#define ELEMENT uint8_t
#define RESULT int64
#define TYPED(function) function##_bool
#define IS_PLUS(v) ((v) != 0)
#include "dot_signs_fours_pack_body.h"
#endif

const struct dot_kernels *dot_signs_fours(const char *dtype, int level)
{
#if HAS_AVX
    static const struct {
        const char *dtype;
        const struct dot_kernels *kernels;
    } known[] = {
        {"float32", &kernels_float32}, {"float64", &kernels_float64}, {"int8", &kernels_int8},
        {"int16", &kernels_int16},     {"int32", &kernels_int32},     {"int64", &kernels_int64},
        {"bool", &kernels_bool},
    };
    size_t i;

    /* AVX-512 without popcounts of vectors does as if it were AVX2. */
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].dtype, dtype) == 0 &&
            (level == 1 || (level == 2 && !__builtin_cpu_supports("avx512vpopcntdq"))))
            return known[i].kernels;
#else
    (void)dtype, (void)level;
#endif
    return NULL;
}
