/* Looking up terms: one by one on any machine, by byte permutes where there is AVX-512 VBMI. */
#include "dot_lookup.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_target.h"

/* ---------------------------------------------------------------- one by one */

#define TYPED(name) name##_int32
#define ENTRY int32_t
#define SUM int32_t
#define TOTAL int64_t
#define LEAST INT64_MIN
#define GREATEST INT64_MAX
#define BODY "dot_lookup_body.h"
#define FEATURES ""
#include "dot_levels.h"
#undef TYPED
#undef ENTRY
#undef SUM
#undef TOTAL
#undef LEAST
#undef GREATEST

#define TYPED(name) name##_float32
#define ENTRY float
#define SUM float
#define TOTAL float
#define LEAST -INFINITY
#define GREATEST INFINITY
#define BODY "dot_lookup_body.h"
#define FEATURES ""
#include "dot_levels.h"

#define LOOKUPS(add)                                                                                                   \
    {#add "_int32", LEVELS(&lookup_##add##_kernels_int32)}, {#add "_float32", LEVELS(&lookup_##add##_kernels_float32)}

const struct dot_kernels *dot_lookups(const char *name, int level)
{
    static const struct {
        const char *name;
        const struct dot_kernels *levels[3];
    } known[] = {LOOKUPS(sum), LOOKUPS(max), LOOKUPS(min)};
    size_t i;

    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].levels[level];
    return NULL;
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
