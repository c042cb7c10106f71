#include "im2col.h"

#include <complex.h>
#include <stddef.h>
#include <string.h>

#include "half.h"

/* The smallest i in [low, high] with offset + i * step >= bound, else high. */
static inline int64_t first_at_least(int64_t bound, int64_t offset, int64_t step, int64_t low, int64_t high)
{
    const int64_t distance = bound - offset;
    const int64_t i = distance <= 0 ? 0 : (distance - 1) / step + 1;
    return i < low ? low : i > high ? high : i;
}

struct bytes16 {
    uint64_t halves[2];
};

#define NAME im2col_1
#define ELEMENT uint8_t
#include "im2col_body.h"

#define NAME im2col_2
#define ELEMENT uint16_t
#include "im2col_body.h"

#define NAME im2col_4
#define ELEMENT uint32_t
#include "im2col_body.h"

#define NAME im2col_8
#define ELEMENT uint64_t
#include "im2col_body.h"

#define NAME im2col_16
#define ELEMENT struct bytes16
#include "im2col_body.h"

/* A row's sums on the stack: 16 KiB of the widest type. */
#define TILE 1024

#define NAME col2im_bool
#define STORED uint8_t
#define SUM uint8_t
#define ADD(sum, v) ((sum) = (uint8_t)((sum) | ((v) != 0)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_uint8
#define STORED uint8_t
#define SUM uint8_t
#define ADD(sum, v) ((sum) = (uint8_t)((sum) + (v)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_uint16
#define STORED uint16_t
#define SUM uint16_t
#define ADD(sum, v) ((sum) = (uint16_t)((sum) + (v)))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_uint32
#define STORED uint32_t
#define SUM uint32_t
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_uint64
#define STORED uint64_t
#define SUM uint64_t
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_float16
#define STORED uint16_t
#define SUM float
#define ADD(sum, v) ((sum) += float_of_float16(v))
#define ROUND(sum) float16_of_float(sum)
#include "col2im_body.h"

#define NAME col2im_bfloat16
#define STORED uint16_t
#define SUM float
#define ADD(sum, v) ((sum) += float_of_bfloat16(v))
#define ROUND(sum) bfloat16_of_float(sum)
#include "col2im_body.h"

#define NAME col2im_float32
#define STORED float
#define SUM float
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_float64
#define STORED double
#define SUM double
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_complex64
#define STORED float complex
#define SUM float complex
#define ADD(sum, v) ((sum) += (v))
#define ROUND(sum) (sum)
#include "col2im_body.h"

#define NAME col2im_complex128
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
