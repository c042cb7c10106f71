/* Grids, for elements of one size. Expects NAME(function) and WORD; undefines both. See dot_phases.h. */

/* `count` elements that lie `step` apart, to one after the other. */
static inline void NAME(take_row)(const WORD *row, int64_t step, int64_t count, WORD *out)
{
    int64_t i;

    if (step == 1)
        copy_short(row, count * (int64_t)sizeof(WORD), out);
    else if (step == 2)
        for (i = 0; i < count; i++)
            out[i] = row[2 * i];
    else
        for (i = 0; i < count; i++)
            out[i] = row[step * i];
}

/* Of `width` arrays that lie side by side. */
static void NAME(take)(const void *array, int64_t width, int64_t apart, const struct grid *g, const int64_t *count,
                       const uint8_t *pad, void *to)
{
    const int64_t step = g->step[2] * g->strides[2];
    const struct range there = inside(g->first[2], g->step[2], g->size[2], count[2]);
    /* Of what isn't there no place is computed: a product of its number might overflow. */
    const int any = there.first < there.last;
    const WORD *first = (const WORD *)array + (any ? (g->first[2] + there.first * g->step[2]) * g->strides[2] : 0);
    WORD *out = (WORD *)to, other = 0;
    int64_t i, j, l, c;

    if (pad != NULL)
        memcpy(&other, pad, sizeof other);
    for (i = 0; i < count[0]; i++)
        for (j = 0; j < count[1]; j++, out += count[2]) {
            const int64_t z = g->first[0] + i * g->step[0], y = g->first[1] + j * g->step[1];
            const int in = z >= 0 && z < g->size[0] && y >= 0 && y < g->size[1];

            if (in && any) {
                const WORD *row = first + z * g->strides[0] + y * g->strides[1];

                if (width == 1)
                    NAME(take_row)(row, step, there.last - there.first, out + there.first);
                else
                    dot_transpose(sizeof *out, row, step, there.last - there.first, width, out + there.first, apart);
            }
            if (pad == NULL)
                continue;
            for (c = 0; c < width; c++) {
                for (l = 0; l < (in ? there.first : count[2]); l++)
                    out[c * apart + l] = other;
                for (l = in ? there.last : count[2]; l < count[2]; l++)
                    out[c * apart + l] = other;
            }
        }
}

static void NAME(put)(const void *values, int64_t width, int64_t apart, const int64_t *size, const int64_t *count,
                      const struct grid *g, void *array)
{
    const int64_t step = g->step[2] * g->strides[2];
    const struct range there = inside(g->first[2], g->step[2], g->size[2], count[2]);
    const int64_t length = there.last - there.first;
    WORD *first, *to;
    int64_t i, j, l;

    if (length == 0)
        return;
    first = (WORD *)array + (g->first[2] + there.first * g->step[2]) * g->strides[2];
    for (i = 0; i < count[0]; i++)
        for (j = 0; j < count[1]; j++) {
            const int64_t z = g->first[0] + i * g->step[0], y = g->first[1] + j * g->step[1];
            const WORD *row = (const WORD *)values + (i * size[1] + j) * size[2] + there.first;

            if (z < 0 || z >= g->size[0] || y < 0 || y >= g->size[1])
                continue;
            to = first + z * g->strides[0] + y * g->strides[1];
            if (width > 1)
                dot_transpose(sizeof *to, row, apart, width, length, to, step);
            else if (step == 1)
                copy_short(row, length * (int64_t)sizeof(WORD), to);
            else
                for (l = 0; l < length; l++)
                    to[step * l] = row[l];
        }
}

#undef NAME
#undef WORD
