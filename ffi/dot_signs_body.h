/* Signs in one instruction set. Expects SUM, and what dot_levels.h defines. */
#include "dot_level.h"

#define VECTORS 2
#define PER_VECTOR ((int)(VECTOR_BYTES / sizeof(uint32_t)))

typedef uint32_t LEVELED(words) __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
#define WORDS LEVELED(words)

/* MASK_OF(m): which taps are there. MASKED(m, a, b): how a and b differ there. It may tell whole words apart only: the
 * unused bits of the last words are zeros in both a and b. COUNTS(v): how many bits are set, in parts of each word.
 * TOTALS(c): these parts, which hold the counts of at most STEP words, added up. */
#if LEVEL == 2
#define STEP INT64_MAX
#define MASK __mmask16
#define MASK_OF(m) _mm512_test_epi32_mask((__m512i)(m), (__m512i)(m))
#define MASKED(m, a, b) ((WORDS)_mm512_maskz_xor_epi32(m, (__m512i)(a), (__m512i)(b)))
#define COUNTS(v) ((WORDS)_mm512_popcnt_epi32((__m512i)(v)))
#define TOTALS(c) (c)
#elif LEVEL == 1
#define MASK WORDS
#define MASK_OF(m) (m)
#define MASKED(m, a, b) ((WORDS)(((a) ^ (b)) & (m)))
/* By tables of the counts of four bits (Mula, Kurz, Lemire, arXiv 1611.07612). */
#define STEP 31
#define COUNTS(v)                                                                                                      \
    ((WORDS)_mm256_add_epi8(                                                                                           \
        _mm256_shuffle_epi8(fours, _mm256_and_si256((__m256i)(v), low)),                                               \
        _mm256_shuffle_epi8(fours, _mm256_and_si256(_mm256_srli_epi16((__m256i)(v), 4), low))))
#define TOTALS(c)                                                                                                      \
    ((WORDS)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)(c), _mm256_set1_epi8(1)), _mm256_set1_epi16(1)))
#else
#define STEP 31
#define MASK WORDS
#define MASK_OF(m) (m)
#define MASKED(m, a, b) ((WORDS)(((a) ^ (b)) & (m)))
#if defined(__aarch64__)
#define COUNTS(v) ((WORDS)vcntq_u8((uint8x16_t)(v)))
#define TOTALS(c) ((WORDS)vpaddlq_u16(vpaddlq_u8((uint8x16_t)(c))))
#else
#define PAIRS(v) ((v) - (((v) >> 1) & 0x55555555))
#define FOURS(p) (((p) & 0x33333333) + (((p) >> 2) & 0x33333333))
#define EIGHTS(f) (((f) + ((f) >> 4)) & 0x0F0F0F0F)
#define COUNTS(v) EIGHTS(FOURS(PAIRS(v)))
#define SIXTEENS(c) (((c) & 0x00FF00FF) + (((c) >> 8) & 0x00FF00FF))
#define TOTALS(c) ((SIXTEENS(c) & 0xFFFF) + (SIXTEENS(c) >> 16))
#endif
#endif

/* How many of the signs differ, and how many there are. */
TARGET INLINE void LEVELED(signs_tile)(const int rows, const int masked, int64_t depth, const uint32_t *w,
                                       const uint32_t *x, const uint32_t *mask, int32_t differ[ROWS][LANES],
                                       int32_t there[LANES])
{
    const WORDS zero = {0};
    WORDS sums[ROWS][VECTORS], present[VECTORS];
    int i, v;
#if LEVEL == 1
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i fours = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* twice */
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
#endif

    ROW_LOOP
    for (v = 0; v < VECTORS; v++) {
        present[v] = zero;
        ROW_LOOP
        for (i = 0; i < rows; i++)
            sums[i][v] = zero;
    }
    while (depth > 0) {
        int64_t k = depth < STEP ? depth : STEP;
        WORDS counts[ROWS][VECTORS], bits[VECTORS];

        depth -= k;
        ROW_LOOP
        for (v = 0; v < VECTORS; v++) {
            bits[v] = zero;
            ROW_LOOP
            for (i = 0; i < rows; i++)
                counts[i][v] = zero;
        }
        for (; k > 0; k--, w += rows, x += LANES) {
            WORDS pixels[VECTORS];
            MASK inside[VECTORS];

            ROW_LOOP
            for (v = 0; v < VECTORS; v++) {
                pixels[v] = *(const WORDS *)(x + v * PER_VECTOR);
                if (masked) {
                    const WORDS m = *(const WORDS *)(mask + v * PER_VECTOR);

                    inside[v] = MASK_OF(m);
                    bits[v] += COUNTS(m);
                }
            }
            ROW_LOOP
            for (i = 0; i < rows; i++) {
                const WORDS one = zero + w[i];

                ROW_LOOP
                for (v = 0; v < VECTORS; v++)
                    counts[i][v] += COUNTS(masked ? MASKED(inside[v], pixels[v], one) : (WORDS)(pixels[v] ^ one));
            }
            if (masked)
                mask += LANES;
        }
        ROW_LOOP
        for (v = 0; v < VECTORS; v++) {
            present[v] += TOTALS(bits[v]);
            ROW_LOOP
            for (i = 0; i < rows; i++)
                sums[i][v] += TOTALS(counts[i][v]);
        }
    }
    ROW_LOOP
    for (v = 0; v < VECTORS; v++) {
        *(WORDS *)(there + v * PER_VECTOR) = present[v];
        ROW_LOOP
        for (i = 0; i < rows; i++)
            *(WORDS *)(differ[i] + v * PER_VECTOR) = sums[i][v];
    }
}

#define CALL(n)                                                                                                        \
    case n:                                                                                                            \
        if (mask)                                                                                                      \
            LEVELED(signs_tile)                                                                                        \
            (n, 1, depth, (const uint32_t *)w, (const uint32_t *)x, (const uint32_t *)mask, differ, there);            \
        else                                                                                                           \
            LEVELED(signs_tile)(n, 0, depth, (const uint32_t *)w, (const uint32_t *)x, NULL, differ, there);           \
        break

TARGET static void LEVELED(signs_count)(int rows, int64_t depth, const void *w, const void *x, const void *mask,
                                        int32_t differ[ROWS][LANES], int32_t there[LANES])
{
    int j;

    switch (rows) {
        CALL(1);
        CALL(2);
        CALL(4);
#if ROWS > 4
        CALL(8);
#endif
#if ROWS > 8
        CALL(12);
#endif
    }
    if (!mask)
        for (j = 0; j < LANES; j++)
            there[j] = (int32_t)depth * BITS;
}
#undef CALL

#define TOTAL float
#define NAME(function) LEVELED(signs_##function##_float32)
#include "dot_signs_forward_body.h"
#include "dot_signs_direct_body.h"
#define TOTAL double
#define NAME(function) LEVELED(signs_##function##_float64)
#include "dot_signs_forward_body.h"
#include "dot_signs_direct_body.h"
#define TOTAL int64_t
#define NAME(function) LEVELED(signs_##function##_int64)
#include "dot_signs_forward_body.h"
#include "dot_signs_direct_body.h"

#define ELEMENT float
#define PACK LEVELED(signs_pack_float32)
#define PACK_BYTES LEVELED(signs_to_bytes_float32)
#include "dot_signs_pack_body.h"
#define ELEMENT double
#define PACK LEVELED(signs_pack_float64)
#define PACK_BYTES LEVELED(signs_to_bytes_float64)
#include "dot_signs_pack_body.h"
#define ELEMENT int8_t
#define PACK LEVELED(signs_pack_int8)
#define PACK_BYTES LEVELED(signs_to_bytes_int8)
#include "dot_signs_pack_body.h"
#define ELEMENT int16_t
#define PACK LEVELED(signs_pack_int16)
#define PACK_BYTES LEVELED(signs_to_bytes_int16)
#include "dot_signs_pack_body.h"
#define ELEMENT int32_t
#define PACK LEVELED(signs_pack_int32)
#define PACK_BYTES LEVELED(signs_to_bytes_int32)
#include "dot_signs_pack_body.h"
#define ELEMENT int64_t
#define PACK LEVELED(signs_pack_int64)
#define PACK_BYTES LEVELED(signs_to_bytes_int64)
#include "dot_signs_pack_body.h"
#define ELEMENT uint8_t
#define PACK LEVELED(signs_pack_bool)
#define PACK_BYTES LEVELED(signs_to_bytes_bool)
#define IS_PLUS(v) ((v) != 0)
#include "dot_signs_pack_body.h"

#undef VECTORS
#undef PER_VECTOR
#undef WORDS
#undef STEP
#undef MASK
#undef MASK_OF
#undef MASKED
#undef COUNTS
#undef TOTALS
#undef PAIRS
#undef FOURS
#undef EIGHTS
#undef SIXTEENS
