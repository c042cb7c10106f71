/* The kernels that look up terms one by one and add them up in one way. Expects
 *
 *   NAME(function)      names the kernels
 *   ENTRY SUM TOTAL     the types of a table's entries, of sums of a block of k, of results
 *   ADDS                DOT_SUM, DOT_MAX, DOT_MIN or DOT_FOLD
 *   START               what sums start from (for DOT_FOLD: if STARTS, else from the first term)
 *   BETTER(a, b)        for DOT_MAX a > b, for DOT_MIN a < b
 *   OP(function)        for DOT_FOLD names the op's add(acc, term)
 *   TARGET              the instruction set's attribute
 */
#undef LANES
#define LANES 64

#if ADDS == DOT_SUM
#define ACC SUM
#define ADDED(acc, term) ((acc) + (term))
#elif ADDS == DOT_FOLD
#define ACC TOTAL
#define ADDED(acc, term) OP(add)(acc, term)
#else
#define ACC TOTAL
#define ADDED(acc, term) ((BETTER(term, acc) | ((term) != (term))) ? (term) : (acc))
#endif

TARGET static void NAME(forward)(const struct dot_kernels *self, int rows, int64_t depth, const void *w, const void *x,
                                 const void *mask, void *out, int64_t stride, int first, int finite)
{
    const struct dot_table *table = (const struct dot_table *)self->table;
    const uint8_t *weights = (const uint8_t *)w, *pixels = (const uint8_t *)x, *there = (const uint8_t *)mask;
    TOTAL *totals = (TOTAL *)out;
    ACC acc[LANES];
    int64_t k = 0;
    int j;

    (void)rows, (void)stride, (void)finite;
#if ADDS == DOT_SUM
    for (j = 0; j < LANES; j++)
        acc[j] = START;
#elif ADDS == DOT_FOLD && !STARTS
    for (j = 0; j < LANES; j++)
        acc[j] = first ? (ACC)((const ENTRY *)table->rows)[weights[0] * 256 + pixels[j]] : totals[j];
    if (first)
        k = 1, pixels += LANES;
#else
    for (j = 0; j < LANES; j++)
        acc[j] = first ? START : totals[j];
#endif
    for (; k < depth; k++, pixels += LANES) {
        const ENTRY *row = (const ENTRY *)table->rows + weights[k] * 256;

        if (!there) {
            for (j = 0; j < LANES; j++) {
                const ACC term = (ACC)row[pixels[j]];
                acc[j] = ADDED(acc[j], term);
            }
            continue;
        }
        for (j = 0; j < LANES; j++) {
            const ACC term = (ACC)row[pixels[j]], sum = ADDED(acc[j], term);
            acc[j] = there[k * LANES + j] ? sum : acc[j];
        }
    }
    for (j = 0; j < LANES; j++)
#if ADDS == DOT_SUM
        totals[j] = (first ? 0 : totals[j]) + acc[j];
#else
        totals[j] = acc[j];
#endif
}

static const struct dot_kernels NAME(kernels) = {
    .rows = 1,
    .lanes = LANES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(TOTAL),
    .depth = DOT_DEPTH,
    .forward = NAME(forward),
};

#undef ACC
#undef ADDED
