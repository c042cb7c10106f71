/* im2col for one element size. Expects NAME and ELEMENT; undefines both. */

void NAME(const struct im2col_geometry *g, const void *image, void *columns)
{
    const int64_t height = g->image[0], width = g->image[1];
    const int64_t rows = g->blocks[0], cols = g->blocks[1];
    const ELEMENT *plane = (const ELEMENT *)image;
    ELEMENT *out = (ELEMENT *)columns;
    int64_t c, ky, kx, by, bx;

    for (c = 0; c < g->batch * g->channels; c++, plane += height * width) {
        for (ky = 0; ky < g->kernel[0]; ky++) {
            const int64_t y0 = ky * g->dilation[0] - g->padding[0];
            for (kx = 0; kx < g->kernel[1]; kx++) {
                const int64_t x0 = kx * g->dilation[1] - g->padding[1];
                /* Block columns [begin, end) read inside the image. */
                const int64_t begin = first_at_least(0, x0, g->stride[1], 0, cols);
                const int64_t end = first_at_least(width, x0, g->stride[1], begin, cols);
                for (by = 0; by < rows; by++, out += cols) {
                    const int64_t y = y0 + by * g->stride[0];
                    if (y < 0 || y >= height || begin == end) {
                        memset(out, 0, (size_t)cols * sizeof *out);
                        continue;
                    }
                    memset(out, 0, (size_t)begin * sizeof *out);
                    const ELEMENT *in = plane + y * width + x0 + begin * g->stride[1];
                    if (g->stride[1] == 1)
                        memcpy(out + begin, in, (size_t)(end - begin) * sizeof *out);
                    else
                        for (bx = begin; bx < end; bx++, in += g->stride[1])
                            out[bx] = *in;
                    memset(out + end, 0, (size_t)(cols - end) * sizeof *out);
                }
            }
        }
    }
}

#undef NAME
#undef ELEMENT
