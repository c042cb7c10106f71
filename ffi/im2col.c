/* im2col by element size, col2im by type, and how threads share them. */
#include "im2col.h"

#include <complex.h>
#include <stddef.h>
#include <string.h>

#include "half.h"
#include "parallel.h"
#include "platform.h"
#include "walk.h"

/* Bytes that are copied at a time. */
#define COPIED 64
/* Bytes from which a call of the system's memcpy is worth its while. */
#define LONG 512
/* Up to so many elements at a row's side are cleared column by column: the first of all rows, then the second. */
#define FEW_SIDES 8
/* Bytes that a thread takes on at a time. */
#define SHARE (1 << 17)

/* The pixel along an axis that the first block reads at a position in the kernel; negative in the padding. */
static inline int64_t start_of(const struct im2col_geometry *g, int axis, int64_t k)
{
    return k * g->dilation[axis] - g->before[axis];
}

/* ---------------------------------------------------------------- threads */

typedef void filler(const struct im2col_geometry *g, int64_t first, int64_t last, const void *source,
                    void *destination);

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
    const int64_t first = task * w->step;

    (void)scratch;
    w->fill(w->g, first, smaller(w->rows, first + w->step), w->source, w->destination);
}

/* Fills rows of `bytes` bytes each. No row depends on another. */
static void share(const struct im2col_geometry *g, filler *fill, int64_t rows, int64_t bytes, const void *source,
                  void *destination)
{
    const int64_t step = bytes < SHARE ? SHARE / bytes : 1;
    struct work work = {g, fill, rows, step, source, destination};

    if (g->threads < 2)
        fill(g, 0, rows, source, destination);
    else
        parallel_for(g->threads, g->parallel, ceiling(rows, step), fill_share, &work, NULL, 0);
}

/* ---------------------------------------------------------------- element sizes and types */

/* Bytes of a vector that every machine has; where one does not, the compiler makes it up. */
#define VECTOR 16

/* A complex number lies where its parts may, and so may what a dtype that PyTorch alone knows is moved as: not at a
 * multiple of its size. */
typedef uint32_t __attribute__((aligned(2))) bytes4;
typedef uint64_t __attribute__((aligned(4))) bytes8;

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
#define ELEMENT bytes4
#define EVENS 0, 2, 4, 6
#include "im2col_body.h"

#define NAME(function) function##_8
#define ELEMENT bytes8
#define EVENS 0, 2
#include "im2col_body.h"

#define NAME(function) function##_16
#define ELEMENT struct bytes16
#include "im2col_body.h"

/* col2im sums a tile of pixels on the stack: so many bytes of one row, and room for twice as many where a stride makes
 * phases. */
#define TILE (1 << 13)
/* Bytes of a tile of several rows. Few: the columns of every kernel position are a stream of their own, and short
 * pieces of each keep all of them flowing. */
#define BAND 512
/* From so many streams on the processor needs to be told what comes next. */
#define STREAMS 16

#define NAME(function) function##_bool
#define STORED uint8_t
#define ADD(sum, v) ((sum) = (uint8_t)((sum) | ((v) != 0)))
#include "col2im_body.h"

#define NAME(function) function##_uint8
#define STORED uint8_t
#include "col2im_body.h"

#define NAME(function) function##_uint16
#define STORED uint16_t
#include "col2im_body.h"

#define NAME(function) function##_uint32
#define STORED uint32_t
#include "col2im_body.h"

#define NAME(function) function##_uint64
#define STORED uint64_t
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
#include "col2im_body.h"

#define NAME(function) function##_float64
#define STORED double
#include "col2im_body.h"

#define NAME(function) function##_complex64
#define STORED float complex
#include "col2im_body.h"

#define NAME(function) function##_complex128
#define STORED double complex
#include "col2im_body.h"

const char *im2col_compiler(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}
