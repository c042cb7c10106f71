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

/* A row of `count` elements, of which [first, last) are there. */
static inline void NAME(pad_row)(struct range there, int64_t count, WORD pad, WORD *out)
{
    int64_t l;

    for (l = 0; l < there.first; l++)
        out[l] = pad;
    for (l = there.last; l < count; l++)
        out[l] = pad;
}

/* Of arrays that lie side by side all are taken at once, of others one after the other. */
static void NAME(take)(const void *array, struct several several, const struct grid *g, const int64_t *count,
                       const uint8_t *pad, void *to)
{
    const int64_t step = g->step[2] * g->strides[2];
    const int64_t width = several.between == 1 ? several.count : 1;
    const struct range there = inside(g->first[2], g->step[2], g->size[2], count[2]), none = {0, 0};
    /* Of what isn't there no place is computed: a product of its number might overflow. */
    const int any = there.first < there.last;
    const WORD *first = (const WORD *)array + (any ? (g->first[2] + there.first * g->step[2]) * g->strides[2] : 0);
    WORD *out, other = 0;
    int64_t i, j, c, n;

    if (pad != NULL)
        memcpy(&other, pad, sizeof other);
    for (n = 0; n < several.count; n += width, first += several.between) {
        out = (WORD *)to + n * several.apart;
        for (i = 0; i < count[0]; i++)
            for (j = 0; j < count[1]; j++, out += count[2]) {
                const int64_t z = g->first[0] + i * g->step[0], y = g->first[1] + j * g->step[1];
                const int in = z >= 0 && z < g->size[0] && y >= 0 && y < g->size[1];

                if (in && any) {
                    const WORD *row = first + z * g->strides[0] + y * g->strides[1];

                    if (width == 1)
                        NAME(take_row)(row, step, there.last - there.first, out + there.first);
                    else
                        dot_transpose(sizeof *out, row, step, there.last - there.first, width, out + there.first,
                                      several.apart);
                }
                for (c = 0; pad != NULL && c < width; c++)
                    NAME(pad_row)(in ? there : none, count[2], other, out + c * several.apart);
            }
    }
}

/* `count` pairs of elements: the first of each, and the second of each. */
static inline void NAME(take_pairs_of_row)(const WORD *row, int64_t count, WORD *firsts, WORD *seconds)
{
    int64_t i = 0;

    if (sizeof(WORD) == sizeof(uint32_t) && count >= 4)
        for (;;) {
            split_pairs((const uint32_t *)row + 2 * i, (uint32_t *)firsts + i, (uint32_t *)seconds + i);
            if (i == count - 4)
                return;
            /* The last ones overlap others. */
            i = smaller(i + 4, count - 4);
        }
    for (; i < count; i++) {
        firsts[i] = row[2 * i];
        seconds[i] = row[2 * i + 1];
    }
}

static void NAME(take_pairs)(const void *array, struct several several, const struct grid *g, const int64_t *count,
                             const uint8_t *pad, void *to)
{
    const int64_t plane = volume(count), x = g->first[2];
    /* The second ones begin no later, and end no later. */
    const struct range a = inside(x, 2, g->size[2], count[2]), b = inside(x + 1, 2, g->size[2], count[2]);
    const struct range none = {0, 0};
    WORD *out, other = 0;
    int64_t i, j, n;

    if (pad != NULL)
        memcpy(&other, pad, sizeof other);
    for (n = 0; n < several.count; n++) {
        out = (WORD *)to + n * several.apart;
        for (i = 0; i < count[0]; i++)
            for (j = 0; j < count[1]; j++, out += count[2]) {
                const int64_t z = g->first[0] + i * g->step[0], y = g->first[1] + j * g->step[1];
                const int in = z >= 0 && z < g->size[0] && y >= 0 && y < g->size[1];

                if (in) {
                    const WORD *row =
                        (const WORD *)array + n * several.between + z * g->strides[0] + y * g->strides[1];

                    if (a.first < b.last)
                        NAME(take_pairs_of_row)(row + x + 2 * a.first, b.last - a.first, out + a.first,
                                                out + plane + a.first);
                    if (b.first < smaller(a.first, b.last))
                        out[plane + b.first] = row[x + 2 * b.first + 1];
                    if (larger(a.first, b.last) < a.last)
                        out[b.last] = row[x + 2 * b.last];
                }
                if (pad != NULL) {
                    NAME(pad_row)(in ? a : none, count[2], other, out);
                    NAME(pad_row)(in ? b : none, count[2], other, out + plane);
                }
            }
    }
}

static void NAME(put)(const void *values, struct several several, const int64_t *size, const int64_t *count,
                      const struct grid *g, void *array)
{
    const int64_t step = g->step[2] * g->strides[2];
    const int64_t width = several.between == 1 ? several.count : 1;
    const struct range there = inside(g->first[2], g->step[2], g->size[2], count[2]);
    const int64_t length = there.last - there.first;
    WORD *first, *to;
    int64_t i, j, l, n;

    if (length == 0)
        return;
    first = (WORD *)array + (g->first[2] + there.first * g->step[2]) * g->strides[2];
    for (n = 0; n < several.count; n += width, first += several.between)
        for (i = 0; i < count[0]; i++)
            for (j = 0; j < count[1]; j++) {
                const int64_t z = g->first[0] + i * g->step[0], y = g->first[1] + j * g->step[1];
                const WORD *row =
                    (const WORD *)values + n * several.apart + (i * size[1] + j) * size[2] + there.first;

                if (z < 0 || z >= g->size[0] || y < 0 || y >= g->size[1])
                    continue;
                to = first + z * g->strides[0] + y * g->strides[1];
                if (width > 1)
                    dot_transpose(sizeof *to, row, several.apart, width, length, to, step);
                else if (step == 1)
                    copy_short(row, length * (int64_t)sizeof(WORD), to);
                else
                    for (l = 0; l < length; l++)
                        to[step * l] = row[l];
            }
}

#undef NAME
#undef WORD
