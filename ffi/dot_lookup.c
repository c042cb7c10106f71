/* Looking up terms: one by one on any machine, by byte permutes where there is AVX-512 VBMI. */
#include "dot_lookup.h"

#include <stddef.h>

#include "dot.h"
#include "dot_target.h"

/* ---------------------------------------------------------------- one by one */

#define SUM int32_t
#define LEVEL 0
#define TARGET
#define NAME(function) function##_0
#include "dot_lookup_one.h"

#if HAS_AVX
#define LEVEL 1
#define TARGET AVX2
#define NAME(function) function##_1
#include "dot_lookup_one.h"

#define LEVEL 2
#define TARGET AVX512
#define NAME(function) function##_2
#include "dot_lookup_one.h"
#endif

const struct dot_kernels *dot_lookups(int level)
{
#if HAS_AVX
    static const struct dot_kernels *const levels[] = {&kernels_0, &kernels_1, &kernels_2};

    return levels[level];
#else
    (void)level;
    return &kernels_0;
#endif
}

/* ---------------------------------------------------------------- by permutes */

#if HAS_AVX
#include <immintrin.h>

#define BYTES 64
/* As many terms as 16 bits can hold the sum of, each being a byte. */
#define TERMS 256

#define PLANES 1
#define ENTRIES 64
#define NAME(function) function##_1_64
#include "dot_lookup_permute.h"
#define ENTRIES 128
#define NAME(function) function##_1_128
#include "dot_lookup_permute.h"
#define ENTRIES 256
#define NAME(function) function##_1_256
#include "dot_lookup_permute.h"
#undef PLANES

#define PLANES 2
#define ENTRIES 64
#define NAME(function) function##_2_64
#include "dot_lookup_permute.h"
#define ENTRIES 128
#define NAME(function) function##_2_128
#include "dot_lookup_permute.h"
#define ENTRIES 256
#define NAME(function) function##_2_256
#include "dot_lookup_permute.h"
#undef PLANES

const struct dot_kernels *dot_permutes(int planes, int entries, int lanes, int level)
{
    static const struct dot_kernels *const known[2][3][2] = {
        {{&narrow_1_64, &wide_1_64}, {&narrow_1_128, &wide_1_128}, {&narrow_1_256, &wide_1_256}},
        {{&narrow_2_64, &wide_2_64}, {&narrow_2_128, &wide_2_128}, {&narrow_2_256, &wide_2_256}},
    };

    if (level < 2 || !__builtin_cpu_supports("avx512vbmi"))
        return NULL;
    return known[planes - 1][entries / 128][lanes / 256];
}
#else
const struct dot_kernels *dot_permutes(int planes, int entries, int lanes, int level)
{
    (void)planes, (void)entries, (void)lanes, (void)level;
    return NULL;
}
#endif
