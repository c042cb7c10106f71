/* Dot products whose terms are looked up in a table: term = table[w][x], for operands of eight bits or fewer.
 *
 * Operands are bytes, the bits of signed ones too. The caller decides what table and operands mean, and lays out the
 * rows.
 */
#ifndef DOT_LOOKUP_H
#define DOT_LOOKUP_H

#include <stdint.h>

/* What dot_kernels.table points to. */
struct dot_table {
    const void *rows;  /* one for each byte that a weight can be, of `entries` */
    int64_t least;     /* added to each entry */
};

/* Kernels that look up `lanes` (64 or 256) entries at once by byte permutes; they leave out no taps. A row is one
 * plane, of the entries' low bytes, or two, the second of their high bytes. A plane has 64, 128 or 256 entries, and the
 * low 6, 7 or 8 bits of x say which.
 * NULL where this machine, or the level, has no such instructions. */
const struct dot_kernels *dot_permutes(int planes, int entries, int lanes, int level);

/* Kernels that look up entry by entry, in rows of 256, and add up, by their name: the way, "sum", "max" or "min", and
 * the type of entries, "int32" (results are int64_t) or "float32" (results are float); as "sum_int32". The caller copies
 * them, and for sums of int32_t sets `depth` so small that an int32_t holds the sum of as many entries. NULL for an
 * unknown name. */
const struct dot_kernels *dot_lookups(const char *name, int level);

#endif
