/* im2col and col2im on NCHW images: the whole C interface.
 *
 * An image is (batch, channels, height, width) and columns are
 * (batch, channels * kernel height * kernel width, block rows * block columns),
 * both dense and row-major, as PyTorch's F.unfold and F.fold lay them out.
 *
 * Nothing is checked, nothing is allocated and nothing can fail: the caller
 * passes valid, non-overlapping buffers and sizes of which every product fits
 * int64_t. There is no global state; any thread may call anything.
 */
#ifndef IM2COL_H
#define IM2COL_H

#include <stdint.h>

/* Pairs are (vertical, horizontal). */
struct im2col_geometry {
    int64_t batch;
    int64_t channels;
    int64_t image[2];
    int64_t kernel[2];
    int64_t dilation[2];
    int64_t padding[2];
    int64_t stride[2];
    int64_t blocks[2];
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
