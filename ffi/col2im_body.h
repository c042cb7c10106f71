/* col2im for one type. Expects NAME, STORED (the type in memory), SUM (the type
 * added in), ADD(sum, stored) and ROUND(sum); undefines them all.
 *
 * Each pixel is gathered, a tile of a row at a time, so that the sums live on
 * the stack in the wider type and every pixel is written once. A pixel's terms
 * are added in the order of the kernel's positions, as PyTorch adds them. */

void NAME(const struct im2col_geometry *g, const void *columns, void *image)
{
    const int64_t height = g->image[0], width = g->image[1];
    const int64_t rows = g->blocks[0], cols = g->blocks[1];
    const STORED *plane = (const STORED *)columns;
    STORED *out = (STORED *)image;
    SUM sums[TILE];
    int64_t c, y, tile, ky, kx, i;

    for (c = 0; c < g->batch * g->channels; c++) {
        for (y = 0; y < height; y++) {
            for (tile = 0; tile < width; tile += TILE) {
                const int64_t count = width - tile < TILE ? width - tile : TILE;
                memset(sums, 0, (size_t)count * sizeof *sums);
                for (ky = 0; ky < g->kernel[0]; ky++) {
                    const int64_t below = y + g->padding[0] - ky * g->dilation[0];
                    const int64_t by = below / g->stride[0];
                    if (below < 0 || by >= rows || by * g->stride[0] != below)
                        continue;
                    for (kx = 0; kx < g->kernel[1]; kx++) {
                        const int64_t step = g->stride[1];
                        const int64_t x0 = kx * g->dilation[1] - g->padding[1];
                        const int64_t begin = first_at_least(tile, x0, step, 0, cols);
                        const int64_t end = first_at_least(tile + count, x0, step, begin, cols);
                        if (begin == end)
                            continue;
                        const STORED *in = plane + ((ky * g->kernel[1] + kx) * rows + by) * cols + begin;
                        SUM *sum = sums + (x0 + begin * step - tile);
                        if (step == 1)
                            for (i = 0; i < end - begin; i++)
                                ADD(sum[i], in[i]);
                        else
                            for (i = 0; i < end - begin; i++)
                                ADD(sum[i * step], in[i]);
                    }
                }
                for (i = 0; i < count; i++)
                    *out++ = ROUND(sums[i]);
            }
        }
        plane += g->kernel[0] * g->kernel[1] * rows * cols;
    }
}

#undef NAME
#undef STORED
#undef SUM
#undef ADD
#undef ROUND
