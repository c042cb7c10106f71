/* col2im for one type. Expects NAME(function) and STORED, the type in memory; and, where they differ from what follows,
 * SUM, the type that is added in, ADD(sum, stored) and ROUND(sum). Undefines them all.
 *
 * A tile of pixels is gathered at a time. Its sums live on the stack in the wider type; every pixel is written once.
 * A pixel's terms are added in the order of the kernel's positions, as PyTorch adds them. */

#ifndef SUM
#define SUM STORED
#endif
#ifndef ADD
#define ADD(sum, v) ((sum) += (v))
#endif
#ifndef ROUND
#define ROUND(sum) (sum)
#endif

/* Sums what the columns add to a tile: the pixels [x0, x0 + width) of the rows [y0, y0 + height) of plane z. The blocks
 * of one kernel position reach pixels that are a stride apart. These pixels are a phase, and a phase's sums lie side by
 * side, so that adding runs along vectors: a row of sums is `phases` parts, each `apart` long. */
static inline void NAME(gather)(const struct im2col_geometry *g, const STORED *channel, int64_t z, int64_t y0,
                                int64_t height, int64_t x0, int64_t width, int64_t phases, int64_t apart, SUM *sums)
{
    const int64_t rows = g->blocks[1], cols = g->blocks[2], length = volume(g->blocks), step = g->stride[2];
    const int many = volume(g->kernel) > STREAMS;
    int64_t kz, ky, kx, by, i;

    memset(sums, 0, (size_t)(height * phases * apart) * sizeof *sums);
    for (kz = 0; kz < g->kernel[0]; kz++) {
        /* One plane of blocks, or none. */
        const struct range planes = inside(start_of(g, 0, kz) - z, g->stride[0], 1, g->blocks[0]);

        for (ky = 0; planes.first < planes.last && ky < g->kernel[1]; ky++) {
            const int64_t y = start_of(g, 1, ky) - y0;
            const struct range down = inside(y, g->stride[1], height, rows);
            const int64_t top = down.first, bottom = down.last;

            for (kx = 0; top < bottom && kx < g->kernel[2]; kx++) {
                const int64_t x = start_of(g, 2, kx) - x0;
                const struct range across = inside(x, step, width, cols);
                const int64_t begin = across.first, end = across.last;
                const int64_t pixel = x + begin * step, k = (kz * g->kernel[1] + ky) * g->kernel[2] + kx;
                const STORED *restrict in = channel + k * length + (planes.first * rows + top) * cols + begin;
                int64_t place;

                if (begin >= end)
                    continue;
                place = step == 1 ? pixel : pixel % step * apart + pixel / step;
                for (by = top; by < bottom; by++, in += cols) {
                    SUM *restrict sum = sums + (y + by * g->stride[1]) * phases * apart + place;

                    for (i = 0; many && i < end - begin; i += 64 / (int64_t)sizeof *in)
                        __builtin_prefetch(in + (bottom - top) * cols + i); /* the rows that come next */
                    for (i = 0; i < end - begin; i++)
                        ADD(sum[i], in[i]);
                }
            }
        }
    }
}

/* The rows [first, last) of pixels, of all planes, channels and images. */
static void NAME(pixels)(const struct im2col_geometry *g, int64_t first, int64_t last, const void *columns, void *image)
{
    enum { MOST = TILE / sizeof(SUM), FEW = BAND / sizeof(SUM) };
    const int64_t height = g->image[1], width = g->image[2];
    SUM sums[2 * MOST];
    int64_t row, rows, x0, i, j, phase;

    for (row = first; row < last; row += rows) {
        const int64_t y0 = row % height, z = row / height % g->image[0];
        const STORED *channel =
            (const STORED *)columns + row / height / g->image[0] * volume(g->kernel) * volume(g->blocks);

        rows = smaller(width < FEW ? FEW / width : 1, smaller(height - y0, last - row));
        for (x0 = 0; x0 < width; x0 += MOST) {
            const int64_t count = smaller(width - x0, MOST), phases = smaller(g->stride[2], count);
            const int64_t apart = ceiling(count, phases);
            STORED *out = (STORED *)image + row * width + x0;

            NAME(gather)(g, channel, z, y0, rows, x0, count, phases, apart, sums);
            for (i = 0; i < rows; i++, out += width)
                for (phase = 0; phase < phases; phase++) {
                    const SUM *sum = sums + (i * phases + phase) * apart;

                    if (phases == 1)
                        for (j = 0; j < count; j++)
                            out[j] = ROUND(sum[j]);
                    else
                        for (j = 0; j * phases + phase < count; j++)
                            out[j * phases + phase] = ROUND(sum[j]);
                }
        }
    }
}

void NAME(col2im)(const struct im2col_geometry *g, const void *columns, void *image)
{
    const int64_t rows = g->image[0] * g->image[1];
    const int64_t bytes = volume(g->kernel) * volume(g->blocks) / rows * (int64_t)sizeof(STORED) + 1;

    share(g, NAME(pixels), g->batch * g->channels * rows, bytes, columns, image);
}

#undef NAME
#undef STORED
#undef SUM
#undef ADD
#undef ROUND
