/* Looking up terms one by one, in one instruction set. Expects SUM, and what dot_levels.h defines. */
#include "dot_level.h"
#undef LANES
#define LANES 64

TARGET static void LEVELED(lookup_forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w,
                                           const void *x, const void *mask, void *out, int64_t stride, int first,
                                           int finite)
{
    const struct dot_table *table = (const struct dot_table *)self->table;
    const uint8_t *weights = (const uint8_t *)w, *pixels = (const uint8_t *)x, *there = (const uint8_t *)mask;
    int64_t *totals = (int64_t *)out;
    int32_t sums[LANES] = {0};
    int64_t k;
    int j;

    (void)rows, (void)stride, (void)finite;
    for (k = 0; k < depth; k++, pixels += LANES) {
        const int32_t *row = (const int32_t *)table->rows + weights[k] * 256;

        if (there == NULL) {
            for (j = 0; j < LANES; j++)
                sums[j] += row[pixels[j]];
            continue;
        }
        for (j = 0; j < LANES; j++)
            sums[j] += there[k * LANES + j] ? row[pixels[j]] : 0;
    }
    for (j = 0; j < LANES; j++)
        totals[j] = (first ? 0 : totals[j]) + sums[j];
}

static const struct dot_kernels LEVELED(lookup_kernels) = {
    .rows = 1,
    .lanes = LANES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(int64_t),
    .depth = DOT_DEPTH,
    .forward = LEVELED(lookup_forward),
};
