/* Adding gradients, for one type. Expects NAME and ELEMENT; undefines both. */

/* Taps [k0, k1) of a panel of columns to the pixels they came from. */
static void NAME(add_columns)(const struct dot_problem *p, int64_t group, int64_t k0, int64_t k1,
                              const struct segment *segments, int n, int64_t lanes, const void *panel, void *image)
{
    const ELEMENT *columns = (const ELEMENT *)panel;
    const int64_t step = p->stride[1] * p->dx_strides[3];
    int64_t ky = k0 % area(p) / p->kernel[1], kx = k0 % p->kernel[1], k, j;
    ELEMENT *channel = (ELEMENT *)image + (group * p->channels + k0 / area(p)) * p->dx_strides[1];
    int i;

    for (k = k0; k < k1; k++, columns += lanes) {
        for (i = 0; i < n; i++) {
            const struct segment *s = &segments[i];
            const int64_t y = s->row * p->stride[0] + ky * p->dilation[0] - p->before[0];
            const int64_t x = s->column * p->stride[1] + kx * p->dilation[1] - p->before[1];
            int32_t first, last;
            ELEMENT *out;

            inside(x, p->stride[1], p->image[1], s->count, &first, &last);
            if (y < 0 || y >= p->image[0] || first >= last)
                continue;
            out = channel + s->image * p->dx_strides[0] + y * p->dx_strides[2] +
                  (x + first * p->stride[1]) * p->dx_strides[3];
            if (step == 1)
                for (j = first; j < last; j++)
                    out[j - first] += columns[s->lane + j];
            else
                for (j = first; j < last; j++)
                    out[(j - first) * step] += columns[s->lane + j];
        }
        if (++kx == p->kernel[1]) {
            kx = 0;
            if (++ky == p->kernel[0])
                ky = 0, channel += p->dx_strides[1];
        }
    }
}

static void NAME(add)(int64_t count, const void *values, void *sums)
{
    int64_t i;

    for (i = 0; i < count; i++)
        ((ELEMENT *)sums)[i] += ((const ELEMENT *)values)[i];
}

/* One filter's gradients, each to the weight and the pixel that were chosen: arg holds one k a lane, -1 for none. */
static void NAME(add_partials)(const struct dot_problem *p, int64_t group, int64_t filter, const struct segment *segments,
                               int n, const int32_t *arg, const void *grad, void *dw, void *dx)
{
    const int64_t row = (group * p->filters + filter) * taps(p);
    ELEMENT g[POSITIONS], w[POSITIONS], x[POSITIONS], gw[POSITIONS], gx[POSITIONS], pad;
    int64_t pixel[POSITIONS], j, count = 0;
    int i = 0;

    memcpy(&pad, p->pad, sizeof pad);
    do {
        const struct segment *s = &segments[i];
        const ELEMENT *from = (const ELEMENT *)grad + s->image * p->y_strides[0] +
                              (group * p->filters + filter) * p->y_strides[1] +
                              (s->row * p->blocks[1] + s->column) * p->y_strides[2];

        for (j = 0; j < s->count; j++, count++) {
            const int64_t k = arg[count], at = k < 0 ? 0 : k, c = group * p->channels + at / area(p);
            const int64_t row_y = s->row * p->stride[0] + at % area(p) / p->kernel[1] * p->dilation[0] - p->before[0];
            const int64_t column_x = (s->column + j) * p->stride[1] + at % p->kernel[1] * p->dilation[1] - p->before[1];
            const int there = row_y >= 0 && row_y < p->image[0] && column_x >= 0 && column_x < p->image[1];

            g[count] = from[j * p->y_strides[2]];
            w[count] = ((const ELEMENT *)p->w)[row + at];
            x[count] = there ? ((const ELEMENT *)p->x)[s->image * p->x_strides[0] + c * p->x_strides[1] +
                                                       row_y * p->x_strides[2] + column_x * p->x_strides[3]]
                             : pad;
            pixel[count] = there && k >= 0 ? s->image * p->dx_strides[0] + c * p->dx_strides[1] +
                                                 row_y * p->dx_strides[2] + column_x * p->dx_strides[3]
                                           : -1;
        }
    } while (++i < n);
    p->kernels->partials(count, g, w, x, gw, gx);
    for (j = 0; j < count; j++) {
        if (dw != NULL && arg[j] >= 0)
            ((ELEMENT *)dw)[arg[j]] += gw[j];
        if (dx != NULL && pixel[j] >= 0)
            ((ELEMENT *)dx)[pixel[j]] += gx[j];
    }
}

#undef NAME
#undef ELEMENT
