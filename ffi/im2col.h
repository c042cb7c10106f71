/* im2col and col2im on images of up to three dimensions: the whole C interface.
 *
 * An image is (batch, channels, depth, height, width) and columns are
 * (batch, channels * volume of the kernel, number of blocks), both dense and
 * row-major, as PyTorch's F.unfold and F.fold lay them out. Fewer dimensions are
 * leading ones of size one.
 *
 * Nothing is checked, nothing is allocated and nothing can fail: the caller
 * passes valid, non-overlapping buffers and sizes of which every product fits
 * int64_t. Sizes are at least 1; batch, channels and before may be 0. There is no
 * global state; any thread may call anything.
 */
#ifndef IM2COL_H
#define IM2COL_H

#include <stdint.h>

/* Triples are (depth, vertical, horizontal). */
struct im2col_geometry {
    int64_t batch;
    int64_t channels;
    int64_t image[3];
    int64_t kernel[3];
    int64_t dilation[3];
    int64_t before[3];   /* padding in front, above and to the left; on the other sides, as much as blocks need */
    int64_t stride[3];
    int64_t blocks[3];
    int32_t threads;     /* 0 is 1 */
    void *parallel;      /* GOMP_parallel, or NULL for threads of our own */
};

/* im2col moves elements and never looks at them, so it is named by their size
 * in bytes. A padded position becomes all zero bytes. */
void im2col_1(const struct im2col_geometry *g, const void *image, void *columns);
void im2col_2(const struct im2col_geometry *g, const void *image, void *columns);
void im2col_4(const struct im2col_geometry *g, const void *image, void *columns);
void im2col_8(const struct im2col_geometry *g, const void *image, void *columns);
void im2col_16(const struct im2col_geometry *g, const void *image, void *columns);

/* col2im adds, so it is named by type. Pixels that no block covers become zero.
 * Integers wrap (signed ones share the unsigned code), bool is a logical or,
 * float16 and bfloat16 are accumulated in float and rounded once. */
void col2im_bool(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_uint8(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_uint16(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_uint32(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_uint64(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_float16(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_bfloat16(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_float32(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_float64(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_complex64(const struct im2col_geometry *g, const void *columns, void *image);
void col2im_complex128(const struct im2col_geometry *g, const void *columns, void *image);

/* The compiler's name and version. */
const char *im2col_compiler(void);

#endif
