/* im2col for one element size. Expects NAME, ELEMENT and, where that is an integer, EVENS (0, 2, 4 ..., as many
 * as there are in a VECTOR); undefines them. */

/* `count` elements, `step` apart. Copies of a fixed size are fastest: they may overrun what is asked for, but not the
 * ends, and what they overrun is written later. */
static inline void NAME(copy)(const ELEMENT *in, const ELEMENT *in_end, int64_t step, int64_t count, ELEMENT *out,
                              const ELEMENT *out_end)
{
    enum { PIECE = COPIED / sizeof(ELEMENT) };
    int64_t i = 0, j;

    (void)j;
    if (step == 1 && count > LONG / (int64_t)sizeof(ELEMENT)) {
        memcpy(out, in, (size_t)count * sizeof *out);
        return;
    }
    if (step == 1)
        for (; i < count && in_end - in >= i + PIECE && out_end - out >= i + PIECE; i += PIECE)
            memcpy(out + i, in + i, COPIED);
#ifdef EVENS
    else if (step == 2)
        for (; i < count && in_end - in >= 2 * (i + PIECE) && out_end - out >= i + PIECE; i += PIECE)
            for (j = 0; j < PIECE; j += VECTOR / sizeof(ELEMENT)) {
                typedef ELEMENT vector __attribute__((vector_size(VECTOR)));
                vector a, b;

                memcpy(&a, in + 2 * (i + j), VECTOR);
                memcpy(&b, in + 2 * (i + j) + VECTOR / sizeof(ELEMENT), VECTOR);
                a = SHUFFLE(a, b, vector, EVENS);
                memcpy(out + i + j, &a, VECTOR);
            }
#endif
    for (; i < count; i++)
        out[i] = in[step * i];
}

/* `rows` times `count` elements, `step` apart. */
static inline void NAME(clear)(ELEMENT *out, int64_t count, int64_t rows, int64_t step)
{
    int64_t row, i;

    if (count > FEW_SIDES)
        for (row = 0; row < rows; row++)
            memset(out + row * step, 0, (size_t)count * sizeof *out);
    else
        for (i = 0; i < count; i++)
            for (row = 0; row < rows; row++)
                memset(out + row * step + i, 0, sizeof *out);
}

/* Rows of columns, each a channel of an image and a position in the kernel. */
static void NAME(rows)(const struct im2col_geometry *g, int64_t first, int64_t last, const void *image, void *columns)
{
    const int64_t height = g->image[1], width = g->image[2], pixels = g->image[0] * height * width;
    const int64_t rows = g->blocks[1], cols = g->blocks[2], length = g->blocks[0] * rows * cols;
    const ELEMENT *in_end = (const ELEMENT *)image + g->batch * g->channels * pixels;
    ELEMENT *out = (ELEMENT *)columns + first * length, *out_end = (ELEMENT *)columns + last * length;
    struct position p = position_of(g, first);
    int64_t row, bz, by;

    for (row = first; row < last; row++, p = next_position(g, p)) {
        const ELEMENT *channel = (const ELEMENT *)image + p.channel * pixels;
        const int64_t z0 = offset_of(g, 0, p.k[0]), y0 = offset_of(g, 1, p.k[1]), x0 = offset_of(g, 2, p.k[2]);
        /* Blocks [begin, end) of a row, and [top, bottom) of a plane's rows, read inside the image. */
        const int64_t begin = first_at_least(0, x0, g->stride[2], 0, cols);
        const int64_t end = first_at_least(width, x0, g->stride[2], begin, cols);
        const int64_t top = first_at_least(0, y0, g->stride[1], 0, rows);
        const int64_t bottom = first_at_least(height, y0, g->stride[1], top, rows);

        for (bz = 0; bz < g->blocks[0]; bz++, out += rows * cols) {
            const int64_t z = z0 + bz * g->stride[0];
            const ELEMENT *in;

            if (z < 0 || z >= g->image[0] || top == bottom || begin == end) {
                memset(out, 0, (size_t)(rows * cols) * sizeof *out);
                continue;
            }
            in = channel + (z * height + y0 + top * g->stride[1]) * width + x0 + begin * g->stride[2];
            if (top > 0)
                memset(out, 0, (size_t)(top * cols) * sizeof *out);
            if (cols == width && g->stride[1] == 1 && g->stride[2] == 1)
                /* The image's rows follow each other as the blocks' do: one copy, of which the sides are wrong. */
                memcpy(out + top * cols + begin, in, (size_t)((bottom - top - 1) * cols + end - begin) * sizeof *out);
            else
                for (by = top; by < bottom; by++, in += g->stride[1] * width)
                    NAME(copy)(in, in_end, g->stride[2], end - begin, out + by * cols + begin, out_end);
            NAME(clear)(out + top * cols, begin, bottom - top, cols);
            NAME(clear)(out + top * cols + end, cols - end, bottom - top, cols);
            if (bottom < rows)
                memset(out + bottom * cols, 0, (size_t)((rows - bottom) * cols) * sizeof *out);
        }
    }
}

void NAME(im2col)(const struct im2col_geometry *g, const void *image, void *columns)
{
    const int64_t rows = g->batch * g->channels * volume(g->kernel);

    share(g, NAME(rows), rows, volume(g->blocks) * (int64_t)sizeof(ELEMENT), image, columns);
}

#undef NAME
#undef ELEMENT
#undef EVENS
