/* Dot products of which the terms are looked up in a table: term = table[w][x], for operands of eight bits or fewer.
 *
 * Operands are bytes, the bits of signed ones too. What table and operands mean, and how the rows are laid out, is
 * settled by the caller.
 */
#ifndef DOT_LOOKUP_H
#define DOT_LOOKUP_H

#include <stdint.h>

/* What dot_kernels.table points to. */
struct dot_table {
    const void *rows;  /* one for each byte that a weight can be, of `entries` */
    int64_t least;     /* added to each entry */
};

/* Kernels that look up `lanes` (64 or 256) entries at once by byte permutes. A row is one or two planes (low bytes, then
 * high bytes) of 64, 128 or 256 entries, of which bytes of x have as many low bits as say which. They leave out no taps.
 * NULL where this machine, or the level, has no such instructions. */
const struct dot_kernels *dot_permutes(int planes, int entries, int lanes, int level);

/* Kernels that look up entry by entry, in rows of 256 int32_t. `depth` of a copy must be so small that the sum of as many
 * entries is an int32_t. */
const struct dot_kernels *dot_lookups(int level);

#endif
