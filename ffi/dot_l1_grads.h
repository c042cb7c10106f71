/* Gradients of "l1" with AVX2, for floats that are finite. The sign of a difference is one instruction of integers: it
 * makes 2, -2 or 0 of the bits of 2 (whose negative, as an integer, is the float -2). Two multiply-adders put that
 * times half a gradient where it belongs. Such products are exact, so sums are those of the template's kernels, to the
 * bit: if half a gradient is exact, too. */
#ifndef DOT_L1_GRADS_H
#define DOT_L1_GRADS_H

#include <immintrin.h>

#include "dot.h"
#include "dot_target.h"

/* The most positions of l1_grad_w_by_sign. */
#define L1_MOST 512
/* The most positions that are added up in one go: the template's RUN. */
#define L1_RUN 128

#define L1_INLINE AVX2 static inline __attribute__((always_inline))

/* Of d, which isn't -0: 2, -2 or 0. */
L1_INLINE __m256 l1_sign(__m256 d)
{
    return _mm256_castsi256_ps(_mm256_sign_epi32(_mm256_set1_epi32(0x40000000), _mm256_castps_si256(d)));
}

/* Whether gradients are finite, and their halves exact: whether none is below twice the least normal float. */
AVX2 static int l1_gradients_by_sign(int64_t count, const void *values)
{
    const float *v = (const float *)values;
    int32_t others = 0;
    int64_t i;

    for (i = 0; i < count; i++) {
        const float a = __builtin_fabsf(v[i]);
        others += !((a >= 2 * __FLT_MIN__ && a <= __FLT_MAX__) | (a == 0));
    }
    return others == 0;
}

/* Four filters and one tap. halves: [filter][L1_MOST], half of the gradients; whole vectors of them. */
L1_INLINE void l1_w_tile(const int both, int64_t count, const __m256 *w, const float *halves, const float *x,
                         float *columns, float *sums)
{
    __m256 acc[4], total[4];
    __m128 half[4], pairs[2];
    int64_t l = 0, end;
    int o;

    for (o = 0; o < 4; o++)
        total[o] = _mm256_setzero_ps();
    while (l < count) {
        end = count - l < L1_RUN ? count : l + L1_RUN;
        for (o = 0; o < 4; o++)
            acc[o] = _mm256_setzero_ps();
        for (; l < end; l += 8) {
            const __m256 pixels = _mm256_loadu_ps(x + l);
            __m256 column = both ? _mm256_loadu_ps(columns + l) : pixels;

            for (o = 0; o < 4; o++) {
                const __m256 sign = l1_sign(_mm256_sub_ps(w[o], pixels)), g = _mm256_loadu_ps(halves + o * L1_MOST + l);

                acc[o] = _mm256_fmadd_ps(sign, g, acc[o]);
                column = _mm256_fnmadd_ps(sign, g, column);
            }
            if (both)
                _mm256_storeu_ps(columns + l, column);
        }
        for (o = 0; o < 4; o++)
            total[o] = _mm256_add_ps(total[o], acc[o]);
    }
    /* Halved again and again, as in the template. */
    for (o = 0; o < 4; o++)
        half[o] = _mm_add_ps(_mm256_castps256_ps128(total[o]), _mm256_extractf128_ps(total[o], 1));
    for (o = 0; o < 2; o++)
        pairs[o] = _mm_add_ps(_mm_movelh_ps(half[2 * o], half[2 * o + 1]), _mm_movehl_ps(half[2 * o + 1], half[2 * o]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm_shuffle_ps(pairs[0], pairs[1], 0x88), _mm_shuffle_ps(pairs[0], pairs[1], 0xdd)));
}

/* dot_kernels' grad_w, for up to L1_MOST positions. Where a filter or a position is missing, gradients are 0. */
AVX2 static void l1_grad_w_by_sign(int64_t filters, int64_t taps, int64_t count, const float *w, int64_t w_stride,
                                   const float *g, int64_t g_stride, const float *x, int64_t x_stride, float *columns,
                                   float *dw, int64_t dw_stride)
{
    const int64_t whole = (count + 7) / 8 * 8;
    float halves[4 * L1_MOST], sums[4];
    __m256 weights[4];
    int64_t f, k, l;
    int o;

    for (f = 0; f < filters; f += 4) {
        const int some = (int)(filters - f < 4 ? filters - f : 4);

        for (o = 0; o < 4; o++) {
            const float *row = g + (f + o) * g_stride;
            float *to = halves + o * L1_MOST;

            for (l = 0; o < some && l < count; l++)
                to[l] = row[l] / 2;
            for (l = o < some ? count : 0; l < whole; l++)
                to[l] = 0;
        }
        for (k = 0; k < taps; k++) {
            /* 0 is added so that no weight is -0. */
            for (o = 0; o < 4; o++)
                weights[o] = _mm256_add_ps(_mm256_broadcast_ss(w + (f + (o < some ? o : 0)) * w_stride + k),
                                           _mm256_setzero_ps());
            if (columns)
                l1_w_tile(1, whole, weights, halves, x + k * x_stride, columns + k * x_stride, sums);
            else
                l1_w_tile(0, whole, weights, halves, x + k * x_stride, NULL, sums);
            for (o = 0; o < some; o++)
                dw[(f + o) * dw_stride + k] += sums[o];
        }
    }
}

L1_INLINE void l1_x_tile(const int rows, int64_t filters, const float *w, const float *g, const float *x,
                         float *columns, int first)
{
    const __m256 half = _mm256_set1_ps(0.5f);
    float negative[4 * 16];
    __m256 acc[8], gradients[2];
    int64_t o;
    int i;

    /* Less than 0, not negated: so that no sum of a weight and one of these is -0. */
    for (i = 0; i < 2 * rows; i++) {
        _mm256_storeu_ps(negative + 8 * i, _mm256_sub_ps(_mm256_setzero_ps(), _mm256_loadu_ps(x + 8 * i)));
        acc[i] = _mm256_setzero_ps();
    }
    for (o = 0; o < filters; o++, w += rows, g += 16) {
        gradients[0] = _mm256_mul_ps(_mm256_loadu_ps(g), half);
        gradients[1] = _mm256_mul_ps(_mm256_loadu_ps(g + 8), half);
        for (i = 0; i < 2 * rows; i++) {
            const __m256 d = _mm256_add_ps(_mm256_broadcast_ss(w + i / 2), _mm256_loadu_ps(negative + 8 * i));

            acc[i] = _mm256_fnmadd_ps(l1_sign(d), gradients[i % 2], acc[i]);
        }
    }
    for (i = 0; i < 2 * rows; i++)
        _mm256_storeu_ps(columns + 8 * i, first ? acc[i] : _mm256_add_ps(_mm256_loadu_ps(columns + 8 * i), acc[i]));
}

/* dot_kernels' grad_x. */
AVX2 static void l1_grad_x_by_sign(int rows, int64_t filters, const float *w, const float *g, const float *x,
                                   float *columns, int first)
{
    switch (rows) {
    case 1:
        l1_x_tile(1, filters, w, g, x, columns, first);
        break;
    case 2:
        l1_x_tile(2, filters, w, g, x, columns, first);
        break;
    default:
        l1_x_tile(4, filters, w, g, x, columns, first);
    }
}

#undef L1_INLINE
#undef L1_RUN

#endif
