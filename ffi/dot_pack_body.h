/* Packing, for elements of one size. Expects NAME(function) and WORD; undefines both. See dot_pack.h. */

/* Copies `count` elements that lie `step` apart. Copies of a fixed size are fastest: they copy up to COPIED bytes more,
 * which panels and tiles have room for, but read nothing from `end` on. */
static inline void NAME(copy)(const WORD *in, int64_t step, int64_t count, const WORD *end, WORD *out)
{
    enum { COPY = COPIED / sizeof(WORD) };
    int64_t j = 0, i;

    if (step == 1 && count <= COPY / 2 && in + COPY / 2 <= end) {
        memcpy(out, in, COPIED / 2);
        return;
    }
    if (step == 1)
        for (; j < count && in + j + COPY <= end; j += COPY)
            memcpy(out + j, in + j, COPIED);
    else if (step == 2)
        for (; j < count && in + 2 * (j + COPY) <= end; j += COPY)
            for (i = 0; i < COPY; i++)
                out[j + i] = in[2 * (j + i)];
    for (; j < count; j++)
        out[j] = in[j * step];
}

/* `count` rows of `depth` elements, `stride` apart, to [depth][lanes]. */
static void NAME(to_lanes)(const WORD *rows, int64_t stride, int64_t depth, int64_t count, int64_t lanes, WORD *out)
{
    int64_t k, j, i;

    for (k = 0; k + 16 <= depth; k += 16)
        for (j = 0; j < count; j++)
            for (i = 0; i < 16; i++)
                out[(k + i) * lanes + j] = rows[j * stride + k + i];
    for (; k < depth; k++)
        for (j = 0; j < count; j++)
            out[k * lanes + j] = rows[j * stride + k];
}

/* Returns whether any tap lies outside the image. */
static int NAME(pack_columns)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, WORD *panel)
{
    const int64_t step = p->stride[2] * p->x_strides[4], used = segments[n - 1].lane + segments[n - 1].count;
    const WORD *image = (const WORD *)p->x, *end = image + p->batch * p->x_strides[0];
    /* Then the rows are the same in all channels. */
    const int one_row = p->kernel[0] * p->kernel[1] == 1;
    const int kept = n * p->kernel[2] <= SPANS;
    struct tap tap = tap_at(p->kernel, k0);
    const WORD *channel = image + (group * p->channels + tap.channel) * p->x_strides[1];
    struct span spans[SPANS];
    int64_t rows[POSITIONS], k, j;
    int i, padded = 0;
    WORD pad;

    memcpy(&pad, p->pad, sizeof pad);
    if (p->x_strides[1] == 1 && volume(p->kernel) == 1 && n == 1 && p->batch == 1 && p->before[0] == 0 &&
        p->before[1] == 0 && p->before[2] == 0 && memcmp(p->blocks, p->image, sizeof p->image) == 0) {
        NAME(to_lanes)(channel + segments->x * p->x_strides[4], step, k1 - k0, used, lanes, panel);
        for (k = k0; k < k1; k++)
            for (j = used; j < lanes; j++)
                panel[(k - k0) * lanes + j] = panel[(k - k0) * lanes];
        return 0;
    }
    for (k = k0; k < k1; k++, panel += lanes) {
        if (k == k0 || (tap.x == 0 && !one_row))
            for (i = 0; i < n; i++)
                rows[i] = row_offset(p, &segments[i], &tap, p->x_strides);
        if (k - k0 < p->kernel[2] || !kept)
            list_spans(p, tap.x, segments, n, spans + (kept ? tap.x * n : 0));
        for (i = 0; i < n; i++) {
            const struct span *s = &spans[(kept ? tap.x * n : 0) + i];
            WORD *out = panel + segments[i].lane;
            const int32_t count = segments[i].count;

            if (rows[i] < 0) {
                for (j = 0; j < count; j++)
                    out[j] = pad;
                padded = 1;
                continue;
            }
            if (s->first == 0 && s->last == count) {
                NAME(copy)(channel + rows[i] + s->offset, step, count, end, out);
                continue;
            }
            for (j = 0; j < s->first; j++)
                out[j] = pad;
            if (s->first < s->last)
                NAME(copy)(channel + rows[i] + s->offset, step, s->last - s->first, end, out + s->first);
            for (j = s->last; j < count; j++)
                out[j] = pad;
            padded = 1;
        }
        if (rows[n - 1] >= 0) {
            /* What the next panel will want. */
            const WORD *next =
                channel + rows[n - 1] + spans[(kept ? tap.x * n : 0) + n - 1].offset + segments[n - 1].count * step;
            __builtin_prefetch(next);
            __builtin_prefetch(next + 64 / sizeof *next);
        }
        for (j = used; j < lanes; j++)
            panel[j] = panel[0];
        if (next_tap(p->kernel, &tap))
            channel += p->x_strides[1];
    }
    return padded;
}

static void NAME(pack_masks)(const struct dot_problem *p, int64_t k0, int64_t k1, const struct segment *segments, int n,
                             int64_t lanes, WORD *mask)
{
    const size_t row = (size_t)lanes * sizeof(WORD);
    const int64_t kernel = volume(p->kernel);
    struct tap tap = tap_at(p->kernel, k0);
    /* Whether all segments lie in the image at this row of the kernel, and at the one before. */
    int i, whole = 0, before = 0;
    int64_t k, j;

    for (k = k0; k < k1; k++, mask += lanes, next_tap(p->kernel, &tap)) {
        const WORD bits = (WORD)(tap.channel == p->channels - 1 ? p->last : ~(uint64_t)0);

        if (k - k0 == kernel && p->last == ~(uint64_t)0) {
            /* All other channels are the same. */
            const int64_t all = (k1 - k0) * lanes;
            int64_t done = kernel * lanes;

            for (mask -= done; done < all; done += smaller(done, all - done))
                memcpy(mask + done, mask, (size_t)smaller(done, all - done) * sizeof *mask);
            return;
        }
        if (k - k0 >= kernel && bits == (WORD)~(uint64_t)0) {
            /* The same as in the channel before. */
            memcpy(mask, mask - kernel * lanes, row);
            continue;
        }
        if (k == k0 || tap.x == 0) {
            before = whole && (tap.y > 0 || tap.z > 0);
            whole = 1;
            for (i = 0; whole && i < n; i++)
                whole = row_offset(p, &segments[i], &tap, p->x_strides) >= 0;
        }
        if (whole && before && k - k0 >= p->kernel[2]) {
            memcpy(mask, mask - p->kernel[2] * lanes, row);
            continue;
        }
        memset(mask, 0, row);
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const struct range there = inside(s->x + tap.x * p->dilation[2], p->stride[2], p->image[2], s->count);

            if (row_offset(p, s, &tap, p->x_strides) >= 0)
                for (j = there.first; j < there.last; j++)
                    mask[s->lane + j] = bits;
        }
    }
}

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

static void NAME(gather)(const struct dot_problem *p, const void *result, int64_t filter, int64_t filters,
                         const struct segment *segments, int n, int64_t lanes, void *rows)
{
    /* The end of what may be read: a gradient may be part of a larger tensor. */
    const WORD *end = (const WORD *)result + (p->batch - 1) * p->y_strides[0] +
                      (p->groups * p->filters - 1) * p->y_strides[1] + (length(p) - 1) * p->y_strides[2] + 1;
    int64_t o;
    int i;

    if (p->y_strides[1] == 1 && n == 1) {
        NAME(to_lanes)((const WORD *)result + segments->image * p->y_strides[0] + filter +
                       segments->place * p->y_strides[2],
                   p->y_strides[2], filters, segments->count, lanes, (WORD *)rows);
        return;
    }
    for (o = 0; o < filters; o++) {
        const WORD *from = (const WORD *)result + (filter + o) * p->y_strides[1];
        WORD *tile = (WORD *)rows + o * lanes;

        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];

            NAME(copy)(from + s->image * p->y_strides[0] + s->place * p->y_strides[2], p->y_strides[2], s->count, end,
                       tile + s->lane);
        }
        __builtin_prefetch(from + segments[n - 1].image * p->y_strides[0] +
                           (segments[n - 1].place + segments[n - 1].count) * p->y_strides[2]);
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
                   s->place * p->y_strides[2];

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
