#include "im2col.h"

#include <complex.h>
#include <stddef.h>
#include <string.h>

#include "half.h"
#include "parallel.h"

/* Bytes that are copied at a time, and above which the system's memcpy is worth a call. */
#define COPIED 64
#define LONG 512
/* Elements at a row's side that are cleared one by one, all rows of one after the other. */
#define FEW_SIDES 8
/* Bytes that a thread takes on at a time. */
#define SHARE (1 << 17)

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t volume(const int64_t *sizes) { return sizes[0] * sizes[1] * sizes[2]; }

/* The smallest i in [low, high] with offset + i * step >= bound, else high. */
static inline int64_t first_at_least(int64_t bound, int64_t offset, int64_t step, int64_t low, int64_t high)
{
    const int64_t distance = bound - offset;
    const int64_t i = distance <= 0 ? 0 : step == 1 ? distance : (distance - 1) / step + 1;
    return i < low ? low : i > high ? high : i;
}

/* What one row of columns is: a channel, of all images, and a position in the kernel. */
struct position {
    int64_t channel;
    int64_t k[3];
};

static inline struct position position_of(const struct im2col_geometry *g, int64_t row)
{
    const int64_t *kernel = g->kernel;

    return (struct position){
        row / volume(kernel),
        {row / kernel[2] / kernel[1] % kernel[0], row / kernel[2] % kernel[1], row % kernel[2]},
    };
}

static inline struct position next_position(const struct im2col_geometry *g, struct position p)
{
    int axis;

    for (axis = 2; axis >= 0; axis--) {
        if (++p.k[axis] < g->kernel[axis])
            return p;
        p.k[axis] = 0;
    }
    p.channel++;
    return p;
}

/* The first pixel along an axis of the blocks, at a position in the kernel. */
static inline int64_t offset_of(const struct im2col_geometry *g, int axis, int64_t k)
{
    return k * g->dilation[axis] - g->before[axis];
}

/* Which block has a pixel at kernel position k along an axis; -1 for none. */
static inline int64_t block_of(const struct im2col_geometry *g, int axis, int64_t k, int64_t pixel)
{
    const int64_t distance = pixel + g->before[axis] - k * g->dilation[axis], block = distance / g->stride[axis];

    return distance < 0 || block >= g->blocks[axis] || block * g->stride[axis] != distance ? -1 : block;
}

/* ---------------------------------------------------------------- threads */

typedef void filler(const struct im2col_geometry *g, int64_t first, int64_t last, const void *source, void *destination);

struct work {
    const struct im2col_geometry *g;
    filler *fill;
    int64_t rows;
    int64_t step;
    const void *source;
    void *destination;
};

static void fill_share(void *context, int64_t task, char *scratch)
{
    const struct work *w = (const struct work *)context;
    const int64_t first = task * w->step, last = w->rows - first < w->step ? w->rows : first + w->step;

    (void)scratch;
    w->fill(w->g, first, last, w->source, w->destination);
}

/* Rows, of so many bytes, are independent of each other. */
static void share(const struct im2col_geometry *g, filler *fill, int64_t rows, int64_t bytes, const void *source,
                  void *destination)
{
    const int64_t step = bytes < SHARE ? SHARE / bytes : 1;
    struct work work = {g, fill, rows, step, source, destination};

    if (g->threads < 2)
        fill(g, 0, rows, source, destination);
    else
        parallel_for(g->threads, g->parallel, (rows + step - 1) / step, fill_share, &work, NULL, 0);
}

/* ---------------------------------------------------------------- element sizes and types */

/* Bytes of a vector that every machine has, or that the compiler makes up. */
#define VECTOR 16
#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, type, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, type, ...) __builtin_shuffle(a, b, (type){__VA_ARGS__})
#endif

struct bytes16 {
    uint64_t halves[2];
};

#define NAME(function) function##_1
#define ELEMENT uint8_t
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#include "im2col_body.h"

#define NAME(function) function##_2
#define ELEMENT uint16_t
#define EVENS 0, 2, 4, 6, 8, 10, 12, 14
#include "im2col_body.h"

#define NAME(function) function##_4
#define ELEMENT uint32_t
#define EVENS 0, 2, 4, 6
#include "im2col_body.h"

#define NAME(function) function##_8
#define ELEMENT uint64_t
#define EVENS 0, 2
#include "im2col_body.h"

#define NAME(function) function##_16
#define ELEMENT struct bytes16
#include "im2col_body.h"

/* Bytes of pixels of one row whose sums are on the stack at once; with room for phases twice as many. */
#define TILE (1 << 13)
/* The same of several rows. Few: as many streams as the kernel has positions are read side by side, and short pieces of
 * each keep all of them flowing. Beyond so many the processor needs to be told what comes next. */
#define BAND 512
#define STREAMS 16

#define NAME(function) function##_bool
#define STORED uint8_t
#define SUM uint8_t
#define ADD(sum, v) ((sum) = (uint8_t)((sum) | ((v) != 0)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_uint8
#define STORED uint8_t
#define SUM uint8_t
#define ADD(sum, v) ((sum) = (uint8_t)((sum) + (v)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_uint16
#define STORED uint16_t
#define SUM uint16_t
#define ADD(sum, v) ((sum) = (uint16_t)((sum) + (v)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_uint32
#define STORED uint32_t
#define SUM uint32_t
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_uint64
#define STORED uint64_t
#define SUM uint64_t
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_float16
#define STORED uint16_t
#define SUM float
#define ADD(sum, v) ((sum) += float_of_float16(v))
#define ROUND(sum) float16_of_float(sum)
#include "col2im_body.h"

#define NAME(function) function##_bfloat16
#define STORED uint16_t
#define SUM float
#define ADD(sum, v) ((sum) += float_of_bfloat16(v))
#define ROUND(sum) bfloat16_of_float(sum)
#include "col2im_body.h"

#define NAME(function) function##_float32
#define STORED float
#define SUM float
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_float64
#define STORED double
#define SUM double
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_complex64
#define STORED float complex
#define SUM float complex
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME(function) function##_complex128
#define STORED double complex
#define SUM double complex
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

const char *im2col_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown compiler";
#endif
}
