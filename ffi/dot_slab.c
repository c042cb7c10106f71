/* Slabs of weights. */
#include "dot_slab.h"

#include "dot_pack.h"

/* Bytes of packed weights that there may be at once. */
#define SLAB (4 << 20)

struct slab dot_slab_size(const struct dot_problem *p, int64_t filters, int64_t depth)
{
    const int64_t room = SLAB / weight_bytes(p), all_taps = taps(p);
    struct slab size = {0, 1, 0, p->filters, 0, all_taps};

    if (p->filters * all_taps <= room)
        size.g1 = smaller(p->groups, room / (p->filters * all_taps));
    else if (filters * all_taps <= room)
        size.f1 = room / all_taps / filters * filters;
    else {
        size.f1 = smaller(p->filters, filters);
        size.k1 = larger(1, room / size.f1 / depth) * depth;
    }
    return size;
}

int64_t dot_slab_bytes(const struct dot_problem *p, const struct slab *size)
{
    return aligned(size->g1 * size->f1 * smaller(taps(p), size->k1) * weight_bytes(p));
}

struct slab dot_first_slab(const struct dot_problem *p, const struct slab *size)
{
    return (struct slab){0, size->g1, 0, size->f1, 0, smaller(taps(p), size->k1)};
}

int dot_next_slab(const struct dot_problem *p, const struct slab *size, struct slab *slab)
{
    if (slab->k1 < taps(p)) {
        slab->k0 = slab->k1;
    } else {
        slab->k0 = 0;
        if (slab->f1 < p->filters) {
            slab->f0 = slab->f1;
        } else {
            slab->f0 = 0;
            slab->g0 = slab->g1;
            if (slab->g0 == p->groups)
                return 0;
        }
    }
    slab->g1 = smaller(p->groups, slab->g0 + size->g1);
    slab->f1 = smaller(p->filters, slab->f0 + size->f1);
    slab->k1 = smaller(taps(p), slab->k0 + size->k1);
    return 1;
}
