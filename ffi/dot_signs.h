/* Dot products of signs: packed 32 to a word, compared by exclusive or, counted by popcount; or packed 4 to a byte, and
 * looked up.
 *
 * A word has as many bits as a lane of sums, so a vector of words gives a vector of results.
 */
#ifndef DOT_SIGNS_H
#define DOT_SIGNS_H

#include <stdint.h>

/* How the sign of values[n, g, c, pixel] is packed. The packed are dense; a sign is plus where the value is at least zero,
 * or true. As words: bit c % 32 of packed[n, g, c / 32, pixel] is 1 where it is; unused bits are 0. As bytes:
 * packed[n, g, c, pixel] is +1 or -1. */
#define DOT_WORDS 0
#define DOT_BYTES 1

struct dot_signs {
    int64_t batch;
    int64_t groups;
    int64_t channels;    /* of one group */
    int64_t image[3];    /* depth, vertical, horizontal */
    int64_t strides[5];  /* in elements: image, channel, plane, row, column */
    const void *values;
    void *packed;
    int32_t kind;        /* DOT_WORDS or DOT_BYTES */
    int32_t threads;
    void *parallel;      /* GOMP_parallel, or NULL for threads of our own */
};

/* dtype: "float32", "float64", "int8", "int16", "int32", "int64" or "bool". level: as dot_named's. */
void dot_pack_signs(const struct dot_signs *s, const char *dtype, int level);

/* The kernels for words or bytes, where the results are "float32", "float64" or "int64"; they have no gradients. Those
 * for bytes serve what dot_prefers_direct says. */
const struct dot_kernels *dot_signs(const char *result, int kind, int level);

/* The forward kernels for operands of a dtype, whose signs the call packs itself. NULL where the instruction set has
 * something better, or can't do it. Padding is left out, whatever the problem's pad. */
const struct dot_kernels *dot_signs_fours(const char *dtype, int level);

#endif
