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

/* ---------------------------------------------------------------- packing */

struct packing {
    const struct dot_signs *s;
    /* `count` pixels of `channels` channels to words or bytes. */
    void (*pack)(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count, void *out);
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
    int64_t pixel, next;

    for (pixel = start; pixel < end; pixel = next) {
        const int64_t rows = pixel / sizes[2], planes = rows / sizes[1];
        const int64_t place = offset + planes * strides[2] + rows % sizes[1] * strides[3] + pixel % sizes[2] * strides[4];

        next = smaller(end, (pixel / run + 1) * run);
        p->pack((const char *)s->values + place * p->size, strides[1], strides[4],
                (int)smaller(s->channels - channel, p->packed), next - pixel,
                (char *)s->packed + (row * all + pixel) * p->unit);
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
            struct packing p = {s, known[i].words[own], known[i].size, packed, 1, 1, rows};

            if (s->kind == DOT_WORDS)
                p.unit = sizeof(uint32_t);
            else
                p.pack = known[i].bytes[own];
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
