/* Packing: panels of columns, weights as tiles want them, results to and from tiles. Elements are told apart by their
 * size alone. */
#ifndef DOT_PACK_H
#define DOT_PACK_H

#include "dot_segments.h"

/* Bytes that are copied at a time. Rows of panels and tiles may be overrun by as many. */
#define COPIED 128

/* Bytes of a buffer, with room to overrun it; the next one begins where a cache line does. */
static inline int64_t aligned(int64_t bytes) { return (bytes + COPIED + 63) / 64 * 64; }

/* Bytes of a panel of so many taps. */
static inline int64_t panel_bytes(const struct dot_problem *p, int64_t depth, int64_t lanes)
{
    return aligned(depth * lanes * p->kernels->element);
}

/* Bytes of its mask, where there are masks. */
static inline int64_t mask_bytes(const struct dot_problem *p, int64_t depth, int64_t lanes)
{
    return p->skips ? aligned(depth * lanes * p->kernels->element + depth) : 0;
}

/* Taps [k0, k1) of group `group` at the listed positions, as a panel [k][lanes]. Lanes without a position repeat the first,
 * as a term may be one that only real operands can have: a quotient.
 * Where taps may be left out, mask becomes a panel too: all bits for taps in the image, none for others. After it comes
 * a byte for each k: whether all of its taps are in the image.
 * Returns mask, or NULL if no tap is left out. */
const void *dot_pack(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1, const struct segment *segments,
                     int n, int64_t lanes, void *panel, void *mask);

/* The same without a mask. */
void dot_pack_columns(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                      const struct segment *segments, int n, int64_t lanes, void *panel);

/* Taps [k0, k1) of `rows` filters from `filter` on, counted in all groups, to [k][rows], where rows are `step` elements
 * apart. plane: 0 for the weights, others for parameters beside them. */
void dot_pack_filters(const struct dot_problem *p, int plane, int64_t filter, int rows, int64_t k0, int64_t k1,
                      int64_t step, void *out);

/* Weights of taps [k0, k1) of one filter, one after the other. */
void dot_copy_filter(const struct dot_problem *p, int64_t filter, int64_t k0, int64_t k1, void *out);

/* The same where they are, or in `room` where they don't lie so. */
const void *dot_filter(const struct dot_problem *p, int64_t filter, int64_t k0, int64_t k1, void *room);

/* Whether one filter's results at the listed positions lie one after the other. */
static inline int dot_side_by_side(const struct dot_problem *p, const struct segment *segments, int n)
{
    return n == 1 ? p->y_strides[4] == 1 : dense_positions(p) && segments[0].image == segments[n - 1].image;
}

/* Results of `filters` filters from `filter` on, at the listed positions, to a tile [filter][lanes]; and back. */
void dot_gather(const struct dot_problem *p, int64_t element, const void *result, int64_t filter, int64_t filters,
                const struct segment *segments, int n, int64_t lanes, void *tile);
void dot_scatter(const struct dot_problem *p, int64_t element, const void *tile, int64_t filter, int64_t filters,
                 const struct segment *segments, int n, int64_t lanes, void *result);

#endif
