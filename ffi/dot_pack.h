/* Packing for elements of one size. Expects NAME and WORD; undefines both. */

static int NAME(pack_columns)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, WORD *panel)
{
    const int64_t step = p->stride[1] * p->x_strides[3];
    const int64_t used = segments[n - 1].lane + segments[n - 1].count;
    int64_t ky = k0 % area(p) / p->kernel[1], kx = k0 % p->kernel[1], k, j;
    const WORD *channel = (const WORD *)p->x + (group * p->channels + k0 / area(p)) * p->x_strides[1];
    int i, padded = 0;
    WORD pad;

    memcpy(&pad, p->pad, sizeof pad);
    for (k = k0; k < k1; k++, panel += lanes) {
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t y = s->row * p->stride[0] + ky * p->dilation[0] - p->before[0];
            const int64_t x = s->column * p->stride[1] + kx * p->dilation[1] - p->before[1];
            WORD *out = panel + s->lane;
            int32_t first, last;

            inside(x, p->stride[1], p->image[1], s->count, &first, &last);
            if (y < 0 || y >= p->image[0])
                first = last = s->count;
            if (last - first < s->count) {
                padded = 1;
                for (j = 0; j < first; j++)
                    out[j] = pad;
                for (j = last; j < s->count; j++)
                    out[j] = pad;
            }
            if (first < last) {
                const WORD *in =
                    channel + s->image * p->x_strides[0] + y * p->x_strides[2] + (x + first * p->stride[1]) * p->x_strides[3];

                if (step != 1)
                    for (j = first; j < last; j++)
                        out[j] = in[(j - first) * step];
                else if (last - first == 32)
                    memcpy(out + first, in, 32 * sizeof *in);
                else if (last - first == 16)
                    memcpy(out + first, in, 16 * sizeof *in);
                else
                    for (j = first; j < last; j++)
                        out[j] = in[j - first];
            }
        }
        for (j = used; j < lanes; j++)
            panel[j] = pad;
        if (++kx == p->kernel[1]) {
            kx = 0;
            if (++ky == p->kernel[0])
                ky = 0, channel += p->x_strides[1];
        }
    }
    return padded;
}

static void NAME(pack_ones)(const struct dot_problem *p, int64_t k0, int64_t k1, const struct segment *segments, int n,
                            int64_t lanes, WORD *mask, const void *one)
{
    int64_t ky = k0 % area(p) / p->kernel[1], kx = k0 % p->kernel[1], k, j;
    WORD word;
    int i;

    memcpy(&word, one, sizeof word);
    memset(mask, 0, (size_t)((k1 - k0) * lanes) * sizeof *mask);
    for (k = k0; k < k1; k++, mask += lanes) {
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t y = s->row * p->stride[0] + ky * p->dilation[0] - p->before[0];
            const int64_t x = s->column * p->stride[1] + kx * p->dilation[1] - p->before[1];
            int32_t first, last;

            inside(x, p->stride[1], p->image[1], s->count, &first, &last);
            if (y >= 0 && y < p->image[0])
                for (j = first; j < last; j++)
                    mask[s->lane + j] = word;
        }
        if (++kx == p->kernel[1]) {
            kx = 0;
            if (++ky == p->kernel[0])
                ky = 0;
        }
    }
}

/* `rows` rows of `depth`, `stride` apart, to [depth][rows]. */
static void NAME(transpose)(const WORD *source, int64_t stride, int rows, int64_t depth, WORD *out)
{
    int64_t k;
    int i;

    if (rows == 12)
        for (k = 0; k < depth; k++, out += 12)
            for (i = 0; i < 12; i++)
                out[i] = source[i * stride + k];
    else
        for (k = 0; k < depth; k++, out += rows)
            for (i = 0; i < rows; i++)
                out[i] = source[i * stride + k];
}

/* Some filters' results at the listed positions, from the result to a tile [filter][lanes], and back. */
static void NAME(gather)(const struct dot_problem *p, const void *result, int64_t filter, int64_t filters,
                         const struct segment *segments, int n, int64_t lanes, void *rows)
{
    WORD *tile = (WORD *)rows;
    int64_t o, j;
    int i;

    for (i = 0; i < n; i++) {
        const struct segment *s = &segments[i];
        const WORD *from = (const WORD *)result + s->image * p->y_strides[0] + filter * p->y_strides[1] +
                           (s->row * p->blocks[1] + s->column) * p->y_strides[2];

        for (o = 0; o < filters; o++)
            for (j = 0; j < s->count; j++)
                tile[o * lanes + s->lane + j] = from[o * p->y_strides[1] + j * p->y_strides[2]];
    }
}

static void NAME(scatter)(const struct dot_problem *p, const void *rows, int64_t filter, int64_t filters,
                          const struct segment *segments, int n, int64_t lanes, void *result)
{
    const WORD *tile = (const WORD *)rows;
    int64_t o, j;
    int i;

    for (i = 0; i < n; i++) {
        const struct segment *s = &segments[i];
        WORD *to = (WORD *)result + s->image * p->y_strides[0] + filter * p->y_strides[1] +
                   (s->row * p->blocks[1] + s->column) * p->y_strides[2];

        if (p->y_strides[1] == 1) {
            for (j = 0; j < s->count; j++)
                for (o = 0; o < filters; o++)
                    to[o + j * p->y_strides[2]] = tile[o * lanes + s->lane + j];
            continue;
        }
        for (o = 0; o < filters; o++)
            for (j = 0; j < s->count; j++)
                to[o * p->y_strides[1] + j * p->y_strides[2]] = tile[o * lanes + s->lane + j];
    }
}

#undef NAME
#undef WORD
