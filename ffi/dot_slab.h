/* Slabs: parts of the weights that are packed at once, each as large as memory for packed weights allows. */
#ifndef DOT_SLAB_H
#define DOT_SLAB_H

#include "dot_problem.h"

/* Groups [g0, g1), filters [f0, f1) of each and taps [k0, k1) of these. */
struct slab {
    int64_t g0, g1, f0, f1, k0, k1;
};

/* How far a slab goes in each direction: taps first, then filters, then groups. Where it can't take them all, it takes
 * a multiple of `filters` and of `depth`. */
struct slab dot_slab_size(const struct dot_problem *p, int64_t filters, int64_t depth);
int64_t dot_slab_bytes(const struct dot_problem *p, const struct slab *size);

struct slab dot_first_slab(const struct dot_problem *p, const struct slab *size);
/* Goes on to the next slab. Returns 0 after the last. Taps go on fastest: so the sums of a result keep their order. */
int dot_next_slab(const struct dot_problem *p, const struct slab *size, struct slab *slab);

#endif
