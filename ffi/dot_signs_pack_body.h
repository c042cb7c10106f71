/* Packing the signs of one type, in one instruction set. Expects ELEMENT, PACK, PACK_BYTES, PACK_PIXELS, PACK_WEIGHTS
 * and PACK_DENSE, the functions' names, and where it is not v >= 0, IS_PLUS(v). Undefines them. */

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

TARGET static void PACK_PIXELS(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count,
                               void *out)
{
    const ELEMENT *a = (const ELEMENT *)values, *b = a + (channels > 1 ? channel : 0);
    const ELEMENT *c = b + (channels > 2 ? channel : 0), *d = c + (channels > 3 ? channel : 0);
    uint8_t *bytes = (uint8_t *)out;
    int64_t j;

#define BYTE(j)                                                                                                        \
    (uint8_t)((IS_PLUS(a[j]) ? 1 : 0) | (IS_PLUS(b[j]) ? 2 : 0) | (IS_PLUS(c[j]) ? 4 : 0) | (IS_PLUS(d[j]) ? 8 : 0))
    if (pixel == 1)
        for (j = 0; j < count; j++)
            bytes[j] = BYTE(j);
    else
        for (j = 0; j < count; j++)
            bytes[j] = BYTE(j * pixel);
#undef BYTE
}

TARGET static void PACK_WEIGHTS(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count,
                                void *out)
{
    const ELEMENT *rows = (const ELEMENT *)values;
    uint8_t *bytes = (uint8_t *)out;
    int64_t j;
    int c;

    if (channels == PER_BYTE)
        for (j = 0; j < count; j++, rows += pixel)
            bytes[j] = (uint8_t)(IS_PLUS(rows[0]) << 1 | IS_PLUS(rows[channel]) << 2 | IS_PLUS(rows[2 * channel]) << 3 |
                                 IS_PLUS(rows[3 * channel]) << 4);
    else
        for (j = 0; j < count; j++, rows += pixel) {
            int byte = 32 * channels;

            for (c = 0; c < channels; c++)
                byte |= IS_PLUS(rows[c * channel]) << (1 + c);
            bytes[j] = (uint8_t)byte;
        }
}

/* Weights of all channels, `all` of each, that lie one after the other: first their signs as bytes, then these
 * together. */
TARGET static void PACK_DENSE(const void *values, int64_t channels, int64_t all, void *out)
{
    const ELEMENT *v = (const ELEMENT *)values;
    const int64_t most = DENSE / (PER_BYTE * all) * PER_BYTE, last = channels - channels % PER_BYTE;
    uint8_t *bytes = (uint8_t *)out, *const end = bytes + last / PER_BYTE * all, signs[DENSE + 16];
    int64_t first, c, j;
    int i;

    memset(signs + DENSE, 0, 16);
    for (first = 0; first < last; first += most) {
        const int64_t count = smaller(most, last - first);

        for (j = 0; j < count * all; j++)
            signs[j] = IS_PLUS(v[first * all + j]);
        for (c = 0; c < count; c += PER_BYTE, bytes += all) {
            const uint8_t *four = signs + c * all;

            j = 0;
            /* What is beyond is written over by what comes next. */
            for (; j < all && end - (bytes + j) >= 16; j += 16) {
                uint8_t row[16];

                for (i = 0; i < 16; i++)
                    row[i] = (uint8_t)(2 * (four[j + i] + 2 * (four[all + j + i] + 2 * (four[2 * all + j + i] +
                                                                                       2 * four[3 * all + j + i]))));
                memcpy(bytes + j, row, 16);
            }
            for (; j < all; j++)
                bytes[j] = (uint8_t)(four[j] << 1 | four[all + j] << 2 | four[2 * all + j] << 3 |
                                     four[3 * all + j] << 4);
        }
    }
    if (last < channels)
        PACK_WEIGHTS(v + last * all, all, 1, (int)(channels - last), all, bytes);
}

#undef ELEMENT
#undef PACK
#undef PACK_BYTES
#undef PACK_PIXELS
#undef PACK_WEIGHTS
#undef PACK_DENSE
#undef IS_PLUS
