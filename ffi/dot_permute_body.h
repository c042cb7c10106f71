/* Looking up terms by byte permutes, in rows of PLANES planes of ENTRIES. Expects these; undefines them. */

#define SHAPE(function) PASTE(function##_, PASTE(PLANES, PASTE(x, ENTRIES)))

/* Looks up 64 indices in a plane. A permute ignores the bits of an index that it has no entries for; `high` tells which
 * indices have the top bit set. */
#if ENTRIES == 64
#define LOOK_UP(plane) _mm512_permutexvar_epi8(index, plane[0])
#elif ENTRIES == 128
#define LOOK_UP(plane) _mm512_permutex2var_epi8(plane[0], index, plane[1])
#else
#define LOOK_UP(plane)                                                                                                 \
    _mm512_mask2_permutex2var_epi8(                                                                                    \
        plane[2], _mm512_mask2_permutex2var_epi8(plane[0], index, _knot_mask64(high), plane[1]), high, plane[3])
#endif

TARGET INLINE void SHAPE(permute_add_up)(const int vectors, const struct dot_table *table, int64_t depth,
                                         const uint8_t *w, const uint8_t *x, int64_t *totals, int first)
{
    /* For each plane, in words of 16 bits: the sums of the words, and those of their upper bytes. */
    __m512i both[4][PLANES], upper[4][PLANES];
    const int64_t least = depth * table->least;
    int64_t k;
    int v, p, j;

    ROW_LOOP
    for (v = 0; v < vectors; v++)
        ROW_LOOP
        for (p = 0; p < PLANES; p++)
            both[v][p] = upper[v][p] = _mm512_setzero_si512();
    for (k = 0; k < depth; k++, x += vectors * BYTES) {
        const uint8_t *row = (const uint8_t *)table->rows + (int64_t)w[k] * (PLANES * ENTRIES);
        __m512i plane[PLANES][ENTRIES / BYTES];

        ROW_LOOP
        for (p = 0; p < PLANES; p++)
            ROW_LOOP
            for (j = 0; j < ENTRIES / BYTES; j++)
                plane[p][j] = _mm512_loadu_si512(row + p * ENTRIES + j * BYTES);
        ROW_LOOP
        for (v = 0; v < vectors; v++) {
            const __m512i index = _mm512_loadu_si512(x + v * BYTES);
            const __mmask64 high = ENTRIES == 256 ? _mm512_movepi8_mask(index) : 0;

            (void)high;
            ROW_LOOP
            for (p = 0; p < PLANES; p++) {
                const __m512i found = LOOK_UP(plane[p]);

                both[v][p] = _mm512_add_epi16(both[v][p], found);
                upper[v][p] = _mm512_add_epi16(upper[v][p], _mm512_srli_epi16(found, 8));
            }
        }
    }
    ROW_LOOP
    for (v = 0; v < vectors; v++) {
        uint16_t sums[PLANES][2][BYTES / 2];

        ROW_LOOP
        for (p = 0; p < PLANES; p++) {
            /* The lower bytes' sums: less than 65536, and so right, though `both` has overflowed. */
            _mm512_storeu_si512(sums[p][0], _mm512_sub_epi16(both[v][p], _mm512_slli_epi16(upper[v][p], 8)));
            _mm512_storeu_si512(sums[p][1], upper[v][p]);
        }
        for (j = 0; j < BYTES; j++) {
            const int64_t high = PLANES > 1 ? 256 * (int64_t)sums[PLANES - 1][j % 2][j / 2] : 0;
            const int64_t sum = sums[0][j % 2][j / 2] + high;

            totals[v * BYTES + j] = (first ? 0 : totals[v * BYTES + j]) + sum + least;
        }
    }
}

TARGET static void PASTE(SHAPE(permute_forward), _narrow)(const struct dot_kernels *self, int rows, int64_t depth,
                                                          const void *w, const void *x, const void *mask, void *out,
                                                          int64_t stride, int first, int finite)
{
    (void)rows, (void)mask, (void)stride, (void)finite;
    SHAPE(permute_add_up)(1, (const struct dot_table *)self->table, depth, (const uint8_t *)w, (const uint8_t *)x,
                          (int64_t *)out, first);
}

static const struct dot_kernels PASTE(SHAPE(permute_kernels), _narrow) = {
    .rows = 1,
    .lanes = BYTES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(int64_t),
    .depth = TERMS,
    .forward = PASTE(SHAPE(permute_forward), _narrow),
};

TARGET static void PASTE(SHAPE(permute_forward), _wide)(const struct dot_kernels *self, int rows, int64_t depth,
                                                          const void *w, const void *x, const void *mask, void *out,
                                                          int64_t stride, int first, int finite)
{
    (void)rows, (void)mask, (void)stride, (void)finite;
    SHAPE(permute_add_up)(4, (const struct dot_table *)self->table, depth, (const uint8_t *)w, (const uint8_t *)x,
                          (int64_t *)out, first);
}

static const struct dot_kernels PASTE(SHAPE(permute_kernels), _wide) = {
    .rows = 1,
    .lanes = 4 * BYTES,
    .element = 1,
    .planes = 1,
    .numbers = 1,
    .total = sizeof(int64_t),
    .depth = TERMS,
    .forward = PASTE(SHAPE(permute_forward), _wide),
};

#undef SHAPE
#undef LOOK_UP
#undef PLANES
#undef ENTRIES
