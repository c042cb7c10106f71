/* What im2col and the dot product share: a walk over the taps of a kernel, and which blocks read inside the image. */
#ifndef WALK_H
#define WALK_H

#include <stdint.h>

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
/* How many times b are needed for a. */
static inline int64_t ceiling(int64_t a, int64_t b) { return (a + b - 1) / b; }
/* The volume of a triple (depth, vertical, horizontal). */
static inline int64_t volume(const int64_t *sizes) { return sizes[0] * sizes[1] * sizes[2]; }

/* One row of the columns: a channel, and a position in the kernel. */
struct tap {
    int64_t channel;
    int64_t z, y, x;
};

/* The k-th tap, as F.unfold counts them. */
static inline struct tap tap_at(const int64_t *kernel, int64_t k)
{
    const int64_t rows = k / kernel[2], planes = rows / kernel[1];

    return (struct tap){planes / kernel[0], planes % kernel[0], rows % kernel[1], k % kernel[2]};
}

/* Goes on to the next tap. Returns whether it lies in the next channel. */
static inline int next_tap(const int64_t *kernel, struct tap *tap)
{
    if (++tap->x < kernel[2])
        return 0;
    tap->x = 0;
    if (++tap->y < kernel[1])
        return 0;
    tap->y = 0;
    if (++tap->z < kernel[0])
        return 0;
    tap->z = 0;
    tap->channel++;
    return 1;
}

/* From first up to, but without, last; none where these are equal. */
struct range {
    int64_t first;
    int64_t last;
};

/* Of `count` blocks, those that read one of the pixels 0 ... size - 1. Block i reads pixel `start + i * stride`.
 * Divides only where the blocks cross an end: most don't. Not by ceiling(): the stride may be as large as an int64. */
static inline struct range inside(int64_t start, int64_t stride, int64_t size, int64_t count)
{
    struct range range = {0, count};

    if (stride == 1) {
        if (start < 0)
            range.first = smaller(count, -start);
        if (start + count > size)
            range.last = larger(range.first, size - start);
        return range;
    }
    if (start < 0)
        range.first = smaller(count, (-start - 1) / stride + 1);
    if (start + (count - 1) * stride >= size)
        range.last = larger(range.first, size <= start ? 0 : (size - start - 1) / stride + 1);
    return range;
}

#endif
