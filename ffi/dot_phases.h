/* Images sorted by phase. Along each axis block b reads, at tap k, pixel b * stride + k * dilation, counted from the first
 * tap of the first block. That pixel is in phase k * dilation % stride, k * dilation / stride blocks further on than b.
 * Where the pixels of a phase lie side by side, so do those that a tap reads for neighbouring blocks: no tap needs a copy
 * of its own. */
#ifndef DOT_PHASES_H
#define DOT_PHASES_H

#include <string.h>

#include "dot_problem.h"

/* The most elements of one box of all operands. */
#define BOX_ELEMENTS 32768
/* Elements that kernels read and write beyond the last position. */
#define BOX_OVERRUN 128

/* Blocks are handled in boxes. Everything of a box lies in rows that are as long as a phase's: the pixels of each phase,
 * and the blocks' results and gradients. */
struct phases {
    int64_t count[3]; /* phases along each axis */
    int64_t box[3];   /* blocks of one box, at most */
    int64_t boxes[3];
    int64_t size[3];  /* of a phase: a box's blocks, and as many more as its taps reach beyond */
    int level;        /* how many axes, from the first on, are walked one by one; positions along the others are one run */
};

/* Cuts blocks into boxes: fills in all but `level`. A box has `room` elements at most: for each pixel of a phase those of
 * `channels` channels, of each phase, and `others`. Returns 0 where taps reach too far for that. */
int dot_cut(const struct dot_problem *p, int64_t channels, int64_t others, int64_t room, struct phases *phases);
/* Whether kernels for pixels in phases are faster than those for panels. Then fills in `phases`. Of sizes alone. */
int dot_is_direct(const struct dot_problem *p, struct phases *phases);

/* The phase of a tap: phases are counted as the taps that are the first of each. */
static inline int64_t dot_phase_of(const struct phases *s, const struct tap *tap)
{
    return (tap->z % s->count[0] * s->count[1] + tap->y % s->count[1]) * s->count[2] + tap->x % s->count[2];
}

/* How many blocks further on a tap's pixel is along an axis. */
static inline int64_t ahead_of(const struct dot_problem *p, int64_t tap, int axis)
{
    return tap * p->dilation[axis] / p->stride[axis];
}

/* Elements of a channel's phases in a box. */
static inline int64_t phases_volume(const struct phases *s) { return volume(s->count) * volume(s->size); }

/* Where the block (z, y, x) of a box lies. */
static inline int64_t place_of(const struct phases *s, int64_t z, int64_t y, int64_t x)
{
    return (z * s->size[1] + y) * s->size[2] + x;
}

/* Positions from the first to the last of a run in a box of so many blocks. */
static inline int64_t run_length(const struct phases *s, const int64_t *blocks, int level)
{
    return place_of(s, level < 1 ? blocks[0] - 1 : 0, level < 2 ? blocks[1] - 1 : 0, blocks[2]);
}

/* Elements that lie on a grid in an array of three dimensions: those at first + i * step. */
struct grid {
    int64_t size[3];    /* of the array */
    int64_t strides[3];
    int64_t first[3];
    int64_t step[3];
};

/* How several arrays lie: how far from each other in memory, and how far what is taken of them. */
struct several {
    int64_t count;
    int64_t between;
    int64_t apart;
};

/* Short rows are most: a call of memcpy would take as long as what it copies. Copies of a fixed size overlap. */
static inline void copy_short(const void *from, int64_t bytes, void *to)
{
    const char *in = (const char *)from;
    char *out = (char *)to;
    int64_t i;

#define COPY(size)                                                                                                     \
    do {                                                                                                               \
        for (i = 0; i < bytes - size; i += size)                                                                       \
            memcpy(out + i, in + i, size);                                                                             \
        memcpy(out + bytes - size, in + bytes - size, size);                                                           \
    } while (0)
#define ENDS(size)                                                                                                     \
    do {                                                                                                               \
        memcpy(out, in, size);                                                                                         \
        memcpy(out + bytes - size, in + bytes - size, size);                                                           \
    } while (0)
    if (bytes >= 16 && bytes <= 32)
        ENDS(16);
    else if (bytes >= 8 && bytes < 16)
        ENDS(8);
    else if (bytes >= 1024)
        memcpy(out, in, (size_t)bytes);
    else if (bytes >= 16)
        COPY(16);
    else if (bytes >= 4)
        COPY(4);
    else
        COPY(1);
#undef ENDS
#undef COPY
}

/* Elements of a grid, `count` along each axis, one after the other, of each of the arrays. Where an array has none comes
 * `pad`, an element, or if that is NULL what is there stays. */
void dot_take(int64_t element, const void *array, struct several several, const struct grid *grid,
              const int64_t *count, const uint8_t *pad, void *out);
/* The same for a grid whose elements lie two apart in rows, and for those one further on, which come `count` elements
 * after them. */
void dot_take_pairs(int64_t element, const void *array, struct several several, const struct grid *grid,
                    const int64_t *count, const uint8_t *pad, void *out);
/* All bits where the array has an element, and none elsewhere. */
void dot_take_mask(int64_t element, const struct grid *grid, const int64_t *count, void *out);
/* Back to the arrays: `count` elements along each axis, of rows and planes of `size`. */
void dot_put(int64_t element, const void *values, struct several several, const int64_t *size, const int64_t *count,
             const struct grid *grid, void *array);

#endif
