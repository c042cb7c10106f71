/* Packing signs, and the kernels for words of them. */
#include "dot_signs.h"

#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_target.h"
#include "parallel.h"

#if HAS_AVX
#include <immintrin.h>
#endif

#define BITS 32
/* Pixels that are packed at a time, and that one task takes on. */
#define BLOCK 256
#define TASK (16 * BLOCK)

/* ---------------------------------------------------------------- packing */

struct packing {
    const struct dot_signs *s;
    /* `count` pixels of `channels` channels to words. */
    void (*pack)(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count, uint32_t *words);
    int64_t size;
};

static void pack_task(void *context, int64_t task, char *scratch)
{
    const struct packing *p = (const struct packing *)context;
    const struct dot_signs *s = p->s;
    const int64_t per_group = (s->channels + BITS - 1) / BITS, per_row = (s->pixels + TASK - 1) / TASK;
    const int64_t row = task / per_row, start = task % per_row * TASK;
    const int64_t channel = row % per_group * BITS, group = row / per_group % s->groups, image = row / per_group / s->groups;
    const int64_t left = s->channels - channel, pixels = s->pixels - start;
    const char *values = (const char *)s->values + (image * s->strides[0] + (group * s->channels + channel) * s->strides[1] +
                                                    start * s->strides[2]) * p->size;

    (void)scratch;
    p->pack(values, s->strides[1], s->strides[2], (int)(left < BITS ? left : BITS), pixels < TASK ? pixels : TASK,
            s->words + row * s->pixels + start);
}

#define LEVEL 0
#define TARGET
#define LEVELED(name) name##_0
#include "dot_signs_level.h"

#if HAS_AVX
#define LEVEL 1
#define TARGET AVX2
#define LEVELED(name) name##_1
#include "dot_signs_level.h"

#define LEVEL 2
#define TARGET AVX512_WITH(",avx512vpopcntdq,prfchw")
#define LEVELED(name) name##_2
#include "dot_signs_level.h"
#endif

/* What there is at each level: those without popcounts of vectors that wide do as if they had AVX2 only. */
static int best(int level)
{
#if HAS_AVX
    return level == 2 && !__builtin_cpu_supports("avx512vpopcntdq") ? 1 : level;
#else
    (void)level;
    return 0;
#endif
}

#if HAS_AVX
#define LEVELS(name) {name##_0, name##_1, name##_2}
#else
#define LEVELS(name) {name##_0, name##_0, name##_0}
#endif

void dot_pack_signs(const struct dot_signs *s, const char *dtype, int level)
{
    static const struct {
        const char *dtype;
        int64_t size;
        void (*pack[3])(const void *, int64_t, int64_t, int, int64_t, uint32_t *);
    } known[] = {
        {"float32", 4, LEVELS(pack_float32)}, {"float64", 8, LEVELS(pack_float64)}, {"int8", 1, LEVELS(pack_int8)},
        {"int16", 2, LEVELS(pack_int16)},     {"int32", 4, LEVELS(pack_int32)},     {"int64", 8, LEVELS(pack_int64)},
        {"bool", 1, LEVELS(pack_bool)},
    };
    const int64_t rows = s->batch * s->groups * ((s->channels + BITS - 1) / BITS);
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].dtype, dtype) == 0) {
            struct packing p = {s, known[i].pack[best(level)], known[i].size};
            parallel_for(s->threads, s->parallel, rows * ((s->pixels + TASK - 1) / TASK), pack_task, &p, NULL, 0);
        }
}

const struct dot_kernels *dot_signs(const char *result, int level)
{
    static const struct {
        const char *result;
        const struct dot_kernels *kernels[3];
    } known[] = {
        {"float32", LEVELS(&kernels_float32)},
        {"float64", LEVELS(&kernels_float64)},
        {"int64", LEVELS(&kernels_int64)},
    };
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].result, result) == 0)
            return known[i].kernels[best(level)];
    return NULL;
}
