/* Positions as segments: runs within one row of blocks, whose pixels lie at one stride. */
#ifndef DOT_SEGMENTS_H
#define DOT_SEGMENTS_H

#include "dot_problem.h"

/* The most positions that are listed at once, and those of one block of grad_w. */
#define POSITIONS 512

/* Consecutive positions in one row of blocks of one image. */
struct segment {
    int32_t lane;     /* of the first position, in the panel */
    int32_t count;
    int64_t image;
    int64_t place;    /* where its results begin, from the first of a filter in this image on */
    int64_t z, y, x;  /* of the first position's first tap; maybe outside the image */
};

/* Lists `count` positions from `start` on. Returns how many segments they are. */
int dot_list_segments(const struct dot_problem *p, int64_t start, int64_t count, struct segment *segments);

#define PADDING INT64_MIN

/* Where in a channel of x, or of dx, the row begins that a segment reads at a tap; PADDING if there is no such row. */
static inline int64_t row_offset(const struct dot_problem *p, const struct segment *s, const struct tap *tap,
                                 const int64_t *strides)
{
    const int64_t z = s->z + tap->z * p->dilation[0], y = s->y + tap->y * p->dilation[1];

    if (z < 0 || z >= p->image[0] || y < 0 || y >= p->image[1])
        return PADDING;
    return s->image * strides[0] + z * strides[2] + y * strides[3];
}

#endif
