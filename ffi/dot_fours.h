/* The forward call for products of signs, four to a byte. It packs them itself: pixels box by box, where each tap reads
 * them as they lie, so that no column is packed. Sums are of integers, and the same in any order. */
#ifndef DOT_FOURS_H
#define DOT_FOURS_H

#include "dot_problem.h"

/* Signs in a byte. */
#define FOURS 4
/* The most filters that are summed at a time; positions, which are read and written in whole. */
#define FOURS_ROWS 4
#define FOURS_LANES 64
/* A pixel that is left out. */
#define FOURS_NOTHING 0x80
/* The most taps of a channel that `dense` takes. */
#define FOURS_TAPS 512
/* Bytes whose sum 16 bits hold; and those of a panel, at most. */
#define FOURS_DEPTH 4096

/* What an instruction set does, for one type of operands. */
struct dot_fours {
    /* Byte j: in bit c, whether values[c * channel + j * step] is at least zero, or true, for c < channels <= FOURS. */
    void (*pixels)(const void *values, int64_t channel, int64_t step, int channels, int64_t count, uint8_t *out);
    /* The same of pixels whose channels, any number, lie side by side, `each` of them to a byte: FOURS or 1. Bytes of the
     * next ones are `apart`. */
    void (*side_by_side)(const void *values, int64_t channels, int each, int64_t step, int64_t count, uint8_t *out,
                         int64_t apart);
    /* The first's of weights: these bytes tell how many channels they have, too. */
    void (*weights)(const void *values, int64_t channel, int64_t step, int channels, int64_t count, uint8_t *out);
    /* A filter's weights of all channels, `all` <= FOURS_TAPS of each, that lie one after the other. */
    void (*dense)(const void *values, int64_t channels, int64_t all, uint8_t *out);
    /* Sums for `count` positions, whose pixels of each k lie at offsets[k] from x on: out[i][j], rows `stride` apart,
     * added to what is there unless they are the first. w: [k][rows]. */
    void (*sum)(int rows, int64_t count, int64_t depth, const uint8_t *w, const uint8_t *x, const int64_t *offsets,
                void *out, int64_t stride, int first);
};

int64_t dot_fours_workspace(const struct dot_problem *p);
void dot_fours(const struct dot_problem *p, void *y, void *workspace);

#endif
