/* Packing signs, and the kernels for words of them. */
#include "dot_signs.h"

#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_target.h"
#include "parallel.h"
#include "walk.h"

#if HAS_AVX
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__clang__)
/* Where vectors are made up of scalars, a tile is too much to be unrolled. */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif

#define BITS 32
/* Bytes of signs that are added up at a time. */
#define BYTES 128
/* Pixels that are packed at a time. */
#define BLOCK 256
/* Pixels that one task takes on. */
#define TASK (16 * BLOCK)
/* Pixels, at most, that are worth picking the bits of. */
#define PICKED 32

/* ---------------------------------------------------------------- packing */

struct packing {
    const struct dot_signs *s;
    /* `count` pixels of `channels` channels to words or bytes. */
    void (*pack)(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count, void *out);
    /* All `count` pixels of channels that follow each other, to words. Or NULL. */
    void (*dense)(const void *values, int channels, int count, uint32_t *words);
    int64_t size;
    int64_t packed; /* channels in a word, or byte */
    int64_t unit;   /* its bytes */
    int64_t rows;   /* of one task */
    int64_t all_rows;
};

/* Pixels [start, end) of what one word or byte holds the channels of, in a row of the packed. */
static void pack_row(const struct packing *p, int64_t row, int64_t start, int64_t end)
{
    const struct dot_signs *s = p->s;
    const int64_t per_group = ceiling(s->channels, p->packed), all = volume(s->image);
    const int64_t channel = row % per_group * p->packed, group = row / per_group % s->groups;
    const int64_t image = row / per_group / s->groups;
    const int64_t *strides = s->strides, *sizes = s->image;
    const int64_t offset = image * strides[0] + (group * s->channels + channel) * strides[1];
    /* Pixels that are equally far from each other: all, or those of a row. */
    const int64_t run =
        strides[3] == sizes[2] * strides[4] && strides[2] == sizes[1] * strides[3] ? all : sizes[2];
    const int channels = (int)smaller(s->channels - channel, p->packed);
    int64_t pixel, next;

    if (p->dense && strides[1] == all && strides[4] == 1 && run == all && all <= PICKED) {
        p->dense((const char *)s->values + offset * p->size, channels, (int)all, (uint32_t *)s->packed + row * all);
        return;
    }
    for (pixel = start; pixel < end; pixel = next) {
        const int64_t rows = pixel / sizes[2], planes = rows / sizes[1];
        const int64_t place = offset + planes * strides[2] + rows % sizes[1] * strides[3] + pixel % sizes[2] * strides[4];

        next = smaller(end, (pixel / run + 1) * run);
        p->pack((const char *)s->values + place * p->size, strides[1], strides[4],
                channels, next - pixel, (char *)s->packed + (row * all + pixel) * p->unit);
    }
}

static void pack_task(void *context, int64_t task, char *scratch)
{
    const struct packing *p = (const struct packing *)context;
    const int64_t all = volume(p->s->image), per_row = ceiling(all, TASK), start = task % per_row * TASK;
    int64_t row = task / per_row * p->rows;
    const int64_t last = smaller(p->all_rows, row + p->rows);

    (void)scratch;
    for (; row < last; row++)
        pack_row(p, row, start, smaller(all, start + TASK));
}

#define SUM uint32_t
#define BODY "dot_signs_body.h"
#define FEATURES ",avx512vpopcntdq,prfchw"
#include "dot_levels.h"

#if HAS_AVX
/* Small kernels' weights: their signs come in the order in which they lie, and each tap picks its own. */
__attribute__((target("avx512f,bmi2"))) static void pick(const void *values_, int channels, int taps, uint32_t *words)
{
    const float *values = (const float *)values_;
    const int all = channels * taps;
    uint64_t every = 0;
    int i, j, tap = 0, channel = 0;

    for (i = 0; i < 64; i += taps)
        every |= (uint64_t)1 << i;
    for (i = 0; i < taps; i++)
        words[i] = 0;
    for (i = 0; i < all; i += 64) {
        uint64_t bits = 0, ones = every;

        for (j = 0; j < 64 && i + j < all; j += 16) {
            const int left = all - i - j;
            const __mmask16 there = left < 16 ? (__mmask16)((1 << left) - 1) : (__mmask16)-1;
            const __m512 v = _mm512_maskz_loadu_ps(there, values + i + j);

            bits |= (uint64_t)_mm512_mask_cmp_ps_mask(there, v, _mm512_setzero_ps(), _CMP_GE_OQ) << j;
        }
        for (j = 0; j < taps; j++, ones <<= 1) {
            words[tap] |= (uint32_t)_pext_u64(bits, ones) << channel;
            if (++tap == taps)
                tap = 0, channel++;
        }
        /* The first bit of the next 64. */
        tap = (i + 64) % taps, channel = (i + 64) / taps;
    }
}
#endif

/* ---------------------------------------------------------------- the choice */

/* The level whose functions this machine has: AVX-512 without popcounts of vectors does as if it were AVX2. */
static int best(int level)
{
#if HAS_AVX
    return level == 2 && !__builtin_cpu_supports("avx512vpopcntdq") ? 1 : level;
#else
    (void)level;
    return 0;
#endif
}

void dot_pack_signs(const struct dot_signs *s, const char *dtype, int level)
{
    static const struct {
        const char *dtype;
        int64_t size;
        void (*words[3])(const void *, int64_t, int64_t, int, int64_t, void *);
        void (*bytes[3])(const void *, int64_t, int64_t, int, int64_t, void *);
    } known[] = {
#define KNOWN(name, size)                                                                                              \
    {#name, size, LEVELS(signs_pack_##name), LEVELS(signs_to_bytes_##name)}
        KNOWN(float32, 4), KNOWN(float64, 8), KNOWN(int8, 1), KNOWN(int16, 2), KNOWN(int32, 4), KNOWN(int64, 8),
        KNOWN(bool, 1),
#undef KNOWN
    };
    const int64_t packed = s->kind == DOT_WORDS ? BITS : 1;
    const int64_t rows = s->batch * s->groups * ceiling(s->channels, packed);
    const int own = best(level);
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].dtype, dtype) == 0) {
            struct packing p = {s, known[i].bytes[own], NULL, known[i].size, packed, 1, 1, rows};

            if (s->kind == DOT_WORDS) {
                p.pack = known[i].words[own], p.unit = sizeof(uint32_t);
#if HAS_AVX
                if (own == 2 && strcmp(dtype, "float32") == 0 && __builtin_cpu_supports("bmi2"))
                    p.dense = pick;
#endif
            }
            /* Rows of weights are short. */
            p.rows = larger(1, TASK / (packed * volume(s->image)));
            parallel_for(s->threads, s->parallel, ceiling(rows, p.rows) * ceiling(volume(s->image), TASK), pack_task,
                         &p, NULL, 0);
        }
}

const struct dot_kernels *dot_signs(const char *result, int kind, int level)
{
    static const struct {
        const char *result;
        const struct dot_kernels *words[3], *bytes[3];
    } known[] = {
#define KNOWN(name) {#name, LEVELS(&signs_kernels_##name), LEVELS(&signs_byte_kernels_##name)}
        KNOWN(float32), KNOWN(float64), KNOWN(int64),
#undef KNOWN
    };
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].result, result) == 0)
            return kind == DOT_WORDS ? known[i].words[best(level)] : known[i].bytes[best(level)];
    return NULL;
}
