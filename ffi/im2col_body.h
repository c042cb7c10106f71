/* im2col for one element size. Expects NAME(function), ELEMENT and, where that is an integer, EVENS: 0, 2, 4 ..., as
 * many as a VECTOR has elements. Undefines them. */

/* Copies `count` elements that lie `step` apart. Copies of a fixed size are fastest. They may write more than `count`
 * elements, which later copies overwrite, but never beyond the ends. */
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

/* Clears `count` elements at the start of each of `rows` rows, which lie `step` apart. */
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

/* The rows [first, last) of the columns. A row is a tap, of the channels of all images. */
static void NAME(rows)(const struct im2col_geometry *g, int64_t first, int64_t last, const void *image, void *columns)
{
    const int64_t height = g->image[1], width = g->image[2], pixels = volume(g->image);
    const int64_t rows = g->blocks[1], cols = g->blocks[2], length = volume(g->blocks);
    const ELEMENT *in_end = (const ELEMENT *)image + g->batch * g->channels * pixels;
    ELEMENT *out = (ELEMENT *)columns + first * length, *out_end = (ELEMENT *)columns + last * length;
    struct tap tap = tap_at(g->kernel, first);
    int64_t row, bz, by;

    for (row = first; row < last; row++, next_tap(g->kernel, &tap)) {
        const ELEMENT *channel = (const ELEMENT *)image + tap.channel * pixels;
        const int64_t z0 = start_of(g, 0, tap.z), y0 = start_of(g, 1, tap.y), x0 = start_of(g, 2, tap.x);
        /* Blocks of a row, and rows of blocks, that read inside the image. */
        const struct range across = inside(x0, g->stride[2], width, cols);
        const struct range down = inside(y0, g->stride[1], height, rows);
        const int64_t begin = across.first, end = across.last, top = down.first, bottom = down.last;

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
                /* The image's rows follow each other as the blocks' do: one copy, whose sides are then cleared. */
                memcpy(out + top * cols + begin, in, (size_t)((bottom - top - 1) * cols + end - begin) * sizeof *out);
            else
                for (by = top; by < bottom; by++)
                    NAME(copy)(in + (by - top) * g->stride[1] * width, in_end, g->stride[2], end - begin,
                               out + by * cols + begin, out_end);
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
