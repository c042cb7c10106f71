/* Adding gradients, for one type. Expects NAME(function) and ELEMENT; undefines both. See dot_add.h. */

static inline void NAME(add_some)(int64_t count, const ELEMENT *from, ELEMENT *to)
{
    int64_t i;

    for (i = 0; i < count; i++)
        to[i] += from[i];
}

/* As add_columns, where the channels of a pixel lie side by side: tap by tap of the kernel, all channels of each. The order
 * of sums is the same. */
static void NAME(add_pixels)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                             const struct segment *segments, int n, int64_t lanes, const void *panel, void *image)
{
    const int64_t step = p->stride[2] * p->dx_strides[4], kernel = volume(p->kernel);
    struct tap tap = {0, 0, 0, 0};
    ELEMENT some[CHANNELS * PIXELS];
    int64_t t, c, j, l;
    int i;

    for (t = 0; t < kernel; t++, next_tap(p->kernel, &tap)) {
        /* Of taps [k0, k1), those that are this one, of channels [c0, c1). */
        const int64_t c0 = ceiling(k0 - t, kernel), c1 = ceiling(k1 - t, kernel);

        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t x = s->x + tap.x * p->dilation[2], row = row_offset(p, s, &tap, p->dx_strides);
            const struct range there = inside(x, p->stride[2], p->image[2], s->count);

            if (row == PADDING)
                continue;
            for (c = c0; c < c1; c += CHANNELS)
                for (j = there.first; j < there.last; j += PIXELS) {
                    const int64_t channels = smaller(CHANNELS, c1 - c), pixels = smaller(PIXELS, there.last - j);
                    const ELEMENT *columns = (const ELEMENT *)panel + (c * kernel + t - k0) * lanes + s->lane + j;
                    ELEMENT *out = (ELEMENT *)image + group * p->channels + c + row +
                                   (x + j * p->stride[2]) * p->dx_strides[4];

                    dot_transpose(sizeof *out, columns, kernel * lanes, channels, pixels, some, CHANNELS);
                    for (l = 0; l < pixels; l++, out += step)
                        if (channels == CHANNELS)
                            NAME(add_some)(CHANNELS, some + l * CHANNELS, out);
                        else
                            NAME(add_some)(channels, some + l * CHANNELS, out);
                }
        }
    }
}

static void NAME(add_columns)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, const void *panel, void *image)
{
    const ELEMENT *columns = (const ELEMENT *)panel;
    const int64_t step = p->stride[2] * p->dx_strides[4];
    struct tap tap = tap_at(p->kernel, k0);
    ELEMENT *channel = (ELEMENT *)image + (group * p->channels + tap.channel) * p->dx_strides[1];
    int64_t k, j;
    int i;

    /* Of fewer channels, pixels are added to one by one faster. */
    if (p->dx_strides[1] == 1 && p->channels >= 4) {
        NAME(add_pixels)(p, group, k0, k1, segments, n, lanes, panel, image);
        return;
    }
    for (k = k0; k < k1; k++, columns += lanes) {
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t x = s->x + tap.x * p->dilation[2], row = row_offset(p, s, &tap, p->dx_strides);
            const struct range lanes_in = inside(x, p->stride[2], p->image[2], s->count);
            const int64_t first = lanes_in.first, last = lanes_in.last;
            ELEMENT *out;

            if (row == PADDING || first >= last)
                continue;
            out = channel + row + (x + first * p->stride[2]) * p->dx_strides[4];
            if (step == 1)
                for (j = first; j < last; j++)
                    out[j - first] += columns[s->lane + j];
            else
                for (j = first; j < last; j++)
                    out[(j - first) * step] += columns[s->lane + j];
        }
        if (next_tap(p->kernel, &tap))
            channel += p->dx_strides[1];
    }
}

static void NAME(add_up)(int64_t count, void *sums, double *totals)
{
    ELEMENT *from = (ELEMENT *)sums;
    int64_t i;

    for (i = 0; i < count; i++)
        totals[i] += from[i];
    memset(sums, 0, (size_t)count * sizeof *from);
}

static void NAME(add_totals)(int64_t count, const double *totals, int64_t parts, int64_t step, void *dw)
{
    ELEMENT *to = (ELEMENT *)dw;
    int64_t i, part;

    for (i = 0; i < count; i++) {
        double total = 0;

        for (part = 0; part < parts; part++)
            total += totals[part * step + i];
        to[i] = (ELEMENT)(to[i] + total);
    }
}

static void NAME(add_partials)(const struct dot_problem *p, int64_t group, int64_t filter, int64_t k0, int64_t k1,
                               const struct segment *segments, int n, const int32_t *arg, const void *grad, void *dw,
                               void *dx)
{
    ELEMENT g[POSITIONS], w[DOT_NUMBERS][POSITIONS], x[POSITIONS], gw[DOT_NUMBERS][POSITIONS], gx[POSITIONS], pad;
    int64_t pixel[POSITIONS], j, count = 0;
    int i = 0, number;

    memcpy(&pad, p->pad, sizeof pad);
    do {
        const struct segment *s = &segments[i];
        const ELEMENT *from = (const ELEMENT *)grad + s->image * p->y_strides[0] +
                              (group * p->filters + filter) * p->y_strides[1] +
                              s->place;

        for (j = 0; j < s->count; j++, count++) {
            const int64_t k = arg[count], at = k < 0 ? 0 : k;
            const struct tap tap = tap_at(p->kernel, at);
            const int64_t c = group * p->channels + tap.channel, x_row = row_offset(p, s, &tap, p->x_strides);
            const int64_t column = s->x + j * p->stride[2] + tap.x * p->dilation[2];
            const int there = x_row != PADDING && column >= 0 && column < p->image[2];

            g[count] = from[j * p->y_strides[4]];
            for (number = 0; number < p->kernels->planes; number++)
                w[number][count] = ((const ELEMENT *)p->w)[number * weights(p) +
                                                           weight_offset(p, group * p->filters + filter, &tap)];
            x[count] = there ? ((const ELEMENT *)p->x)[c * p->x_strides[1] + x_row + column * p->x_strides[4]] : pad;
            pixel[count] = there && k >= 0 ? c * p->dx_strides[1] + row_offset(p, s, &tap, p->dx_strides) +
                                                 column * p->dx_strides[4]
                                           : -1;
        }
    } while (++i < n);
    p->kernels->partials(p->kernels, count, POSITIONS, g, w, x, gw, gx);
    for (j = 0; j < count; j++) {
        for (number = 0; dw != NULL && arg[j] >= k0 && arg[j] < k1 && number < p->kernels->numbers; number++)
            if (p->kernels->wanted >> number & 1)
                ((ELEMENT *)dw)[number * (k1 - k0) + arg[j] - k0] += gw[number][j];
        if (dx != NULL && pixel[j] >= 0)
            ((ELEMENT *)dx)[pixel[j]] += gx[j];
    }
}

#undef NAME
#undef ELEMENT
