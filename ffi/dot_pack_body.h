/* Packing, for elements of one size. Expects NAME(function) and WORD; undefines both. See dot_pack.h. */

/* Copies `count` elements that lie `step` apart. Copies of a fixed size are fastest: they copy up to COPIED bytes more,
 * which panels and tiles have room for, but read nothing from `end` on. */
static inline void NAME(copy)(const WORD *in, int64_t step, int64_t count, const WORD *end, WORD *out)
{
    enum { COPY = COPIED / sizeof(WORD) };
    int64_t j = 0, i;

    if (step == 1 && count <= COPY / 2 && end - in >= COPY / 2) {
        memcpy(out, in, COPIED / 2);
        return;
    }
    if (step == 1)
        for (; j < count && end - in >= j + COPY; j += COPY)
            memcpy(out + j, in + j, COPIED);
    else if (step == 2)
        for (; j < count && end - in >= 2 * j + COPY; j += COPY / 2)
            for (i = 0; i < COPY / 2; i++)
                out[j + i] = in[2 * (j + i)];
    for (; j < count; j++)
        out[j] = in[j * step];
}

/* The end of what may be read: the last element of x, wherever it is. */
static const WORD *NAME(end_of_x)(const struct dot_problem *p)
{
    const int64_t sizes[5] = {p->batch, p->groups * p->channels, p->image[0], p->image[1], p->image[2]};

    return (const WORD *)p->x + span_of(sizes, p->x_strides);
}

/* As pack_columns, where the channels of a pixel lie side by side: tap by tap of the kernel, all channels of each. */
static int NAME(pack_pixels)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                             const struct segment *segments, int n, int64_t lanes, WORD *panel)
{
    const int64_t step = p->stride[2] * p->x_strides[4], used = segments[n - 1].lane + segments[n - 1].count;
    const int64_t kernel = volume(p->kernel);
    const WORD *image = (const WORD *)p->x + group * p->channels;
    struct tap tap = {0, 0, 0, 0};
    int64_t t, k, j;
    int i, padded = 0;
    WORD pad;

    memcpy(&pad, p->pad, sizeof pad);
    for (t = 0; t < kernel; t++, next_tap(p->kernel, &tap)) {
        /* Of taps [k0, k1), those that are this one, of channels [c0, c1). */
        const int64_t c0 = ceiling(k0 - t, kernel), c1 = ceiling(k1 - t, kernel);
        WORD *out = panel + (c0 * kernel + t - k0) * lanes;

        for (i = 0; c0 < c1 && i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t row = row_offset(p, s, &tap, p->x_strides), x = s->x + tap.x * p->dilation[2];
            struct range there = {0, 0};

            if (row != PADDING)
                there = inside(x, p->stride[2], p->image[2], s->count);
            if (there.first < there.last)
                dot_transpose(sizeof *out, image + c0 + row + (x + there.first * p->stride[2]) * p->x_strides[4], step,
                              there.last - there.first, c1 - c0, out + s->lane + there.first, kernel * lanes);
            if (there.first == 0 && there.last == s->count)
                continue;
            padded = 1;
            for (k = 0; k < c1 - c0; k++) {
                WORD *to = out + k * kernel * lanes + s->lane;

                for (j = 0; j < there.first; j++)
                    to[j] = pad;
                for (j = there.last; j < s->count; j++)
                    to[j] = pad;
            }
        }
    }
    for (k = k0; k < k1; k++, panel += lanes)
        for (j = used; j < lanes; j++)
            panel[j] = panel[0];
    return padded;
}

/* As pack_columns, of kernels of one tap, where all pixels lie side by side in the image: returns whether they do. */
static int NAME(pack_one_tap)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, WORD *panel)
{
    static const struct tap tap;
    const int64_t used = segments[n - 1].lane + segments[n - 1].count, stride = p->x_strides[1];
    const WORD *first = (const WORD *)p->x + (group * p->channels + k0) * stride, *end = NAME(end_of_x)(p);
    int64_t places[POSITIONS], k, j;
    int i;

    if (volume(p->kernel) != 1 || p->stride[2] * p->x_strides[4] != 1)
        return 0;
    for (i = 0; i < n; i++) {
        const struct segment *s = &segments[i];
        const int64_t row = row_offset(p, s, &tap, p->x_strides);

        if (row == PADDING || s->x < 0 || s->x + s->count > p->image[2])
            return 0;
        places[i] = row + s->x;
    }
#define ROWS(size)                                                                                                     \
    for (first += places[0], k = k0; k < k1; k++, first += stride, panel += lanes) {                                   \
        memcpy(panel, first, size);                                                                                    \
        prefetch(first, 2 * size - 1);                                                                                 \
    }
    if (n == 1 && used == lanes && lanes * sizeof(WORD) == COPIED / 2)
        ROWS(COPIED / 2)
    else if (n == 1 && used == lanes && lanes * sizeof(WORD) == COPIED)
        ROWS(COPIED)
    else
        for (k = k0; k < k1; k++, first += stride, panel += lanes) {
            for (i = 0; i < n; i++)
                NAME(copy)(first + places[i], 1, segments[i].count, end, panel + segments[i].lane);
            prefetch(first, (uint64_t)(places[n - 1] + segments[n - 1].count + lanes) * sizeof *first);
            for (j = used; j < lanes; j++)
                panel[j] = panel[0];
        }
#undef ROWS
    return 1;
}

/* Rows [0, count) of a panel: what the spans, those of all segments for each row, say of a channel. whole: whether a
 * row is one run of pixels that lie side by side. */
static inline __attribute__((always_inline)) void
NAME(pack_rows)(const WORD *channel, const struct span *s, int64_t count, const struct segment *segments, const int n,
                int64_t step, int whole, const WORD *end, WORD pad, int64_t lanes, WORD *row)
{
    const int64_t bytes = lanes * (int64_t)sizeof(WORD);
    int64_t j;
    int i;

#define ROWS(size)                                                                                                     \
    for (; count > 0; count--, s++, row += lanes) {                                                                    \
        memcpy(row, channel + s->offset, size);                                                                        \
        prefetch(channel, (uint64_t)s->offset * sizeof *channel + 2 * size - 1);                                       \
    }
    if (whole && bytes == COPIED / 2)
        ROWS(COPIED / 2)
    else if (whole && bytes == COPIED)
        ROWS(COPIED)
#undef ROWS
    for (; count > 0; count--, row += lanes) {
        for (i = 0; i < n; i++, s++) {
            WORD *out = row + segments[i].lane;

            if (s->first == 0 && s->last == segments[i].count) {
                NAME(copy)(channel + s->offset, step, s->last, end, out);
                continue;
            }
            for (j = 0; j < s->first; j++)
                out[j] = pad;
            if (s->first < s->last)
                NAME(copy)(channel + s->offset, step, s->last - s->first, end, out + s->first);
            for (j = s->last; j < segments[i].count; j++)
                out[j] = pad;
        }
        if (s[-1].first < s[-1].last) {
            const uint64_t next = (uint64_t)s[-1].offset + (uint64_t)segments[n - 1].count * (uint64_t)step;

            prefetch(channel, next * sizeof *channel);
            if (step > 1)
                prefetch(channel, next * sizeof *channel + 64);
        }
    }
}

/* Returns whether any tap lies outside the image. */
static int NAME(pack_columns)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, WORD *panel)
{
    const int64_t used = segments[n - 1].lane + segments[n - 1].count, kernel = volume(p->kernel);
    const int64_t step = p->stride[2] * p->x_strides[4], c0 = k0 / kernel, most = SPANS / n;
    /* All of a channel's taps, or of one channel those that are wanted. */
    const int one = c0 == (k1 - 1) / kernel;
    const int64_t first = one ? k0 % kernel : 0, last = one ? first + k1 - k0 : kernel;
    const WORD *image = (const WORD *)p->x + group * p->channels * p->x_strides[1], *end = NAME(end_of_x)(p);
    struct span spans[SPANS];
    int64_t c, t, k, j;
    int missing = 0, padded = 0;
    WORD pad;

    if (p->x_strides[1] == 1 && p->channels > 1)
        return NAME(pack_pixels)(p, group, k0, k1, segments, n, lanes, panel);
    if (NAME(pack_one_tap)(p, group, k0, k1, segments, n, lanes, panel))
        return 0;
    memcpy(&pad, p->pad, sizeof pad);
    for (c = c0; c * kernel < k1; c++)
        /* Row after row, as copies overrun these. */
        for (t = first; t < last; t += most) {
            const int64_t from = larger(k0, c * kernel + t), to = smaller(k1, c * kernel + smaller(last, t + most));

            /* Where taps lie is the same in all channels. */
            if (c == c0 || most < last - first) {
                missing = list_spans(p, t, smaller(last, t + most), segments, n, spans);
                padded |= missing;
            }
            if (from >= to)
                continue;
#define PACK(n)                                                                                                        \
    NAME(pack_rows)(image + c * p->x_strides[1], spans + (from - c * kernel - t) * n, to - from, segments, n, step,    \
                    !missing && n == 1 && used == lanes && step == 1, end, pad, lanes, panel + (from - k0) * lanes)
            if (n == 1)
                PACK(1);
            else
                PACK(n);
#undef PACK
        }
    for (k = k0; used < lanes && k < k1; k++, panel += lanes)
        for (j = used; j < lanes; j++)
            panel[j] = panel[0];
    return padded;
}

static void NAME(pack_masks)(const struct dot_problem *p, int64_t k0, int64_t k1, const struct segment *segments, int n,
                             int64_t lanes, WORD *mask)
{
    const size_t row = (size_t)lanes * sizeof(WORD);
    const int64_t kernel = volume(p->kernel);
    struct tap tap = tap_at(p->kernel, k0);
    uint8_t *whole = (uint8_t *)(mask + (k1 - k0) * lanes);
    /* Whether all segments lie in the image at this row of the kernel, and at the one before. */
    int i, rows = 0, before = 0;
    int64_t k, j;

    for (k = k0; k < k1; k++, mask += lanes, whole++, next_tap(p->kernel, &tap)) {
        const WORD bits = (WORD)(tap.channel == p->channels - 1 ? p->last : ~(uint64_t)0);

        if (k - k0 == kernel && p->last == ~(uint64_t)0) {
            /* All other channels are the same. */
            const int64_t all = (k1 - k0) * lanes;
            int64_t done = kernel * lanes;

            for (mask -= done; done < all; done += smaller(done, all - done))
                memcpy(mask + done, mask, (size_t)smaller(done, all - done) * sizeof *mask);
            for (; k < k1; k++, whole++)
                *whole = whole[-kernel];
            return;
        }
        if (k - k0 >= kernel && bits == (WORD)~(uint64_t)0) {
            /* The same as in the channel before. */
            memcpy(mask, mask - kernel * lanes, row);
            *whole = whole[-kernel];
            continue;
        }
        if (k == k0 || tap.x == 0) {
            before = rows && (tap.y > 0 || tap.z > 0);
            rows = 1;
            for (i = 0; rows && i < n; i++)
                rows = row_offset(p, &segments[i], &tap, p->x_strides) != PADDING;
        }
        if (rows && before && k - k0 >= p->kernel[2]) {
            memcpy(mask, mask - p->kernel[2] * lanes, row);
            *whole = whole[-p->kernel[2]];
            continue;
        }
        memset(mask, 0, row);
        *whole = rows && bits == (WORD)~(uint64_t)0;
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const struct range there = inside(s->x + tap.x * p->dilation[2], p->stride[2], p->image[2], s->count);

            *whole &= there.first == 0 && there.last == s->count;
            if (row_offset(p, s, &tap, p->x_strides) != PADDING)
                for (j = there.first; j < there.last; j++)
                    mask[s->lane + j] = bits;
        }
    }
}

/* Four rows to one, in a way that becomes vector instructions. */
static void NAME(interleave)(const WORD *rows, int64_t stride, int64_t depth, WORD *restrict out)
{
    const WORD *a = rows, *b = a + stride, *c = b + stride, *d = c + stride;
    int64_t k;

    for (k = 0; k < depth; k++) {
        out[4 * k] = a[k];
        out[4 * k + 1] = b[k];
        out[4 * k + 2] = c[k];
        out[4 * k + 3] = d[k];
    }
}

static void NAME(pack_filters)(const struct dot_problem *p, int plane, int64_t filter, int rows, int64_t k0, int64_t k1,
                               int64_t step, WORD *out)
{
    const WORD *source = (const WORD *)p->w + plane * weights(p) + filter * p->w_strides[0];
    const int64_t stride = p->w_strides[0], depth = k1 - k0;
    struct tap tap;
    int64_t k;
    int i;

    if (!dense_weights(p)) {
        tap = tap_at(p->kernel, k0);
        for (k = 0; k < depth; k++, out += step, next_tap(p->kernel, &tap)) {
            const WORD *weight = source + weight_offset(p, 0, &tap);

            for (i = 0; i < rows; i++)
                out[i] = weight[i * stride];
        }
        return;
    }
    source += k0;
    if (sizeof(WORD) == sizeof(uint32_t) && rows % 4 == 0)
        dot_transpose(sizeof *out, source, stride, rows, depth, out, step);
    else if (rows == 4 && step == 4)
        NAME(interleave)(source, stride, depth, out);
    else if (rows == 12)
        for (k = 0; k < depth; k++, out += step)
            for (i = 0; i < 12; i++)
                out[i] = source[i * stride + k];
    else
        for (k = 0; k < depth; k++, out += step)
            for (i = 0; i < rows; i++)
                out[i] = source[i * stride + k];
}

static void NAME(gather)(const struct dot_problem *p, const void *result, int64_t filter, int64_t filters,
                         const struct segment *segments, int n, int64_t lanes, void *rows)
{
    /* The end of what may be read: a gradient may be part of a larger tensor. */
    const int64_t sizes[5] = {p->batch, p->groups * p->filters, p->blocks[0], p->blocks[1], p->blocks[2]};
    const WORD *end = (const WORD *)result + span_of(sizes, p->y_strides);
    int64_t o;
    int i;

    if (p->y_strides[1] == 1 && filters > 1) {
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];

            dot_transpose(sizeof *end, (const WORD *)result + s->image * p->y_strides[0] + filter + s->place,
                          p->y_strides[4], s->count, filters, (WORD *)rows + s->lane, lanes);
        }
        return;
    }
    for (o = 0; o < filters; o++) {
        const WORD *from = (const WORD *)result + (filter + o) * p->y_strides[1];
        WORD *tile = (WORD *)rows + o * lanes;

        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];

            NAME(copy)(from + s->image * p->y_strides[0] + s->place, p->y_strides[4], s->count, end, tile + s->lane);
        }
        prefetch(from, ((uint64_t)(segments[n - 1].image * p->y_strides[0] + segments[n - 1].place) +
                        (uint64_t)segments[n - 1].count * (uint64_t)p->y_strides[4]) *
                           sizeof *from);
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
        WORD *to = (WORD *)result + s->image * p->y_strides[0] + filter * p->y_strides[1] + s->place;

        if (p->y_strides[1] == 1) {
            dot_transpose(sizeof *to, tile + s->lane, lanes, filters, s->count, to, p->y_strides[4]);
            continue;
        }
        for (o = 0; o < filters; o++)
            for (j = 0; j < s->count; j++)
                to[o * p->y_strides[1] + j * p->y_strides[4]] = tile[o * lanes + s->lane + j];
    }
}

#undef NAME
#undef WORD
