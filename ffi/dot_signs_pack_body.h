/* Packing the signs of one type, in one instruction set. Expects ELEMENT, PACK and PACK_BYTES, the functions' names, and
 * where it is not v >= 0, IS_PLUS(v). Undefines them. */

#ifndef IS_PLUS
#define IS_PLUS(v) ((v) >= 0)
#endif

TARGET static void PACK(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count,
                        void *out)
{
    const ELEMENT *rows = (const ELEMENT *)values;
    uint32_t *words = (uint32_t *)out;
    int64_t start, j;
    int c;

    if (channel == 1) {
        /* A word is of values that lie side by side. */
        for (j = 0; j < count; j++, rows += pixel) {
            uint32_t word = 0;

            for (c = 0; c < channels; c++)
                word |= (uint32_t)(IS_PLUS(rows[c])) << c;
            words[j] = word;
        }
        return;
    }
    for (start = 0; start < count; start += BLOCK) {
        const int64_t size = count - start < BLOCK ? count - start : BLOCK;
        uint32_t block[BLOCK];

        for (j = 0; j < size; j++)
            block[j] = 0;
        for (c = 0; c < channels; c++) {
            const ELEMENT *row = rows + c * channel + start * pixel;

            if (pixel == 1)
                for (j = 0; j < size; j++)
                    block[j] |= (uint32_t)(IS_PLUS(row[j])) << c;
            else
                for (j = 0; j < size; j++)
                    block[j] |= (uint32_t)(IS_PLUS(row[j * pixel])) << c;
        }
        memcpy(words + start, block, (size_t)size * sizeof *words);
    }
}

TARGET static void PACK_BYTES(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count, void *out)
{
    const ELEMENT *rows = (const ELEMENT *)values;
    int8_t *bytes = (int8_t *)out;
    int64_t j;

    (void)channel, (void)channels;
    if (pixel == 1)
        for (j = 0; j < count; j++)
            bytes[j] = IS_PLUS(rows[j]) ? 1 : -1;
    else
        for (j = 0; j < count; j++)
            bytes[j] = IS_PLUS(rows[j * pixel]) ? 1 : -1;
}

#undef ELEMENT
#undef PACK
#undef PACK_BYTES
#undef IS_PLUS
