/* Looking up terms: one by one on any machine, by byte permutes where there is AVX-512 VBMI. */
#include "dot_lookup.h"

#include <stddef.h>

#include "dot.h"
#include "dot_target.h"

/* ---------------------------------------------------------------- one by one */

#define SUM int32_t
#define BODY "dot_lookup_body.h"
#define FEATURES ""
#include "dot_levels.h"

const struct dot_kernels *dot_lookups(int level)
{
    static const struct dot_kernels *const levels[3] = LEVELS(&lookup_kernels);

    return levels[level];
}

/* ---------------------------------------------------------------- by permutes */

#if HAS_AVX
#include <immintrin.h>

#define TARGET AVX512_WITH(",avx512vbmi")
#define BYTES 64
/* Terms that are added up in 16 bits: the sum of 256 bytes still fits. */
#define TERMS 256

#define PLANES 1
#define ENTRIES 64
#include "dot_permute_body.h"
#define PLANES 1
#define ENTRIES 128
#include "dot_permute_body.h"
#define PLANES 1
#define ENTRIES 256
#include "dot_permute_body.h"
#define PLANES 2
#define ENTRIES 64
#include "dot_permute_body.h"
#define PLANES 2
#define ENTRIES 128
#include "dot_permute_body.h"
#define PLANES 2
#define ENTRIES 256
#include "dot_permute_body.h"

/* By planes, entries and lanes. */
#define WIDTHS(shape) {&permute_kernels_##shape##_narrow, &permute_kernels_##shape##_wide}

const struct dot_kernels *dot_permutes(int planes, int entries, int lanes, int level)
{
    static const struct dot_kernels *const known[2][3][2] = {
        {WIDTHS(1x64), WIDTHS(1x128), WIDTHS(1x256)},
        {WIDTHS(2x64), WIDTHS(2x128), WIDTHS(2x256)},
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
