/* Packing the signs of one type four to a byte. Expects ELEMENT, its RESULT's name, TYPED(function), where it is not
 * v >= 0, IS_PLUS(v), and HAS_SIGNS where TYPED(signs) is there. Undefines them. */

#ifndef IS_PLUS
#define IS_PLUS(v) ((v) >= 0)
#endif

#ifndef HAS_SIGNS
/* Bytes of which each bit is whether a value is plus. */
TARGET static void TYPED(signs)(const ELEMENT *values, int64_t count, uint8_t *signs)
{
    int64_t j;

    for (j = 0; j < count; j++)
        signs[j] = IS_PLUS(values[j]) ? 0xFF : 0;
}
#endif

TARGET static void TYPED(pixels)(const void *values, int64_t channel, int64_t step, int channels, int64_t count,
                                uint8_t *bytes)
{
    const ELEMENT *v = (const ELEMENT *)values;
    const int64_t most = step >= 1 && step <= NEAR ? BLOCK / step : 0;
    uint8_t signs[FOURS][BLOCK], all[BLOCK];
    int64_t first, j;
    int c;

    if (most == 0) {
        for (j = 0; j < count; j++, v += step) {
            int byte = 0;

            for (c = 0; c < channels; c++)
                byte |= IS_PLUS(v[c * channel]) << c;
            bytes[j] = (uint8_t)byte;
        }
        return;
    }
    /* Where pixels are near each other, those between them are packed, too. */
    for (first = 0; first < count; first += most, bytes += most, v += most * step) {
        const int64_t pixels = smaller(most, count - first), size = (pixels - 1) * step + 1;
        uint8_t *const out = step == 1 ? bytes : all;

        for (c = 0; c < channels; c++)
            TYPED(signs)(v + c * channel, size, signs[c]);
        if (channels == 1)
            for (j = 0; j < size; j++)
                out[j] = signs[0][j] & 1;
        else if (channels == FOURS)
            for (j = 0; j < size; j++)
                out[j] = (uint8_t)((signs[0][j] & 1) | (signs[1][j] & 2) | (signs[2][j] & 4) | (signs[3][j] & 8));
        else
            for (j = 0; j < size; j++)
                out[j] = (uint8_t)((signs[0][j] & 1) | (signs[1][j] & 2) | (channels > 2 ? signs[2][j] & 4 : 0));
        if (step == 2)
            for (j = 0; j < pixels; j++)
                bytes[j] = all[2 * j];
        else if (step > 2)
            for (j = 0; j < pixels; j++)
                bytes[j] = all[step * j];
    }
}

TARGET static void TYPED(weights)(const void *values, int64_t channel, int64_t pixel, int channels, int64_t count,
                           uint8_t *bytes)
{
    const ELEMENT *rows = (const ELEMENT *)values;
    int64_t j;
    int c;

    if (channels == FOURS)
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

/* Of channels that lie side by side: byte i in bits `low` to low + 3. */
TARGET static void TYPED(neighbours)(const ELEMENT *values, int64_t channels, int low, uint8_t *bytes)
{
    const int64_t whole = channels / FOURS;
    uint8_t signs[DENSE];
    int64_t first, i;

    for (first = 0; first < whole; first += DENSE / FOURS) {
        const int64_t count = smaller(DENSE / FOURS, whole - first);

        TYPED(signs)(values + first * FOURS, count * FOURS, signs);
        for (i = 0; i < count; i++) {
            uint32_t four;

            memcpy(&four, signs + i * FOURS, FOURS);
            four &= (uint32_t)0x08040201 << low;
            four |= four >> 16;
            bytes[first + i] = (uint8_t)(four | four >> 8);
        }
    }
}

/* Block by block, as bytes of each pixel, and then of each channel or four. */
TARGET static void TYPED(side_by_side)(const void *values, int64_t channels, int each, int64_t step, int64_t count,
                                       uint8_t *out, int64_t apart)
{
    const ELEMENT *v = (const ELEMENT *)values;
    const int64_t whole = channels / each;
    uint8_t block[PIXELS][DEEP];
    int64_t first, i, j, k;

    for (i = 0; i < count; i += PIXELS) {
        const int64_t pixels = smaller(PIXELS, count - i);

        for (first = 0; first < whole; first += DEEP) {
            const int64_t deep = smaller(DEEP, whole - first);

            for (j = 0; j < pixels; j++) {
                const ELEMENT *pixel = v + (i + j) * step + first * each;

                if (each == FOURS) {
                    TYPED(neighbours)(pixel, deep * FOURS, 0, block[j]);
                } else {
                    TYPED(signs)(pixel, deep, block[j]);
                    for (k = 0; k < deep; k++)
                        block[j][k] &= 1;
                }
            }
            dot_transpose(1, block, DEEP, pixels, deep, out + first * apart + i, apart);
        }
    }
    if (channels % each)
        TYPED(pixels)(v + whole * each, 1, step, (int)(channels % each), count, out + whole * apart);
}

/* First the signs as bytes, then these together. */
TARGET static void TYPED(dense)(const void *values, int64_t channels, int64_t all, uint8_t *bytes)
{
    const ELEMENT *v = (const ELEMENT *)values;
    const int64_t most = DENSE / (FOURS * all) * FOURS, last = channels - channels % FOURS;
    uint8_t *const end = bytes + last / FOURS * all, signs[DENSE + 16];
    int64_t first, c, j;

    if (all == 1) {
        TYPED(neighbours)(v, channels, 1, bytes);
        bytes += last / FOURS;
    }
    memset(signs + DENSE, 0, 16);
    for (first = all == 1 ? last : 0; first < last; first += most) {
        const int64_t count = smaller(most, last - first);

        TYPED(signs)(v + first * all, count * all, signs);
        for (c = 0; c < count; c += FOURS, bytes += all) {
            const uint8_t *four = signs + c * all;

#define BITS_OF(type, i) (*(const type *)(four + (i)*all + j) & (uint8_t)(2 << (i)))
#define BYTES_OF(type) (BITS_OF(type, 0) | BITS_OF(type, 1) | BITS_OF(type, 2) | BITS_OF(type, 3))
            /* What is beyond is written over by what comes next. */
            for (j = 0; j < all && end - (bytes + j) >= 16; j += 16)
                *(sixteen *)(bytes + j) = BYTES_OF(sixteen);
            for (; j < all; j++)
                bytes[j] = (uint8_t)BYTES_OF(uint8_t);
#undef BITS_OF
#undef BYTES_OF
        }
    }
    if (last < channels)
        TYPED(weights)(v + last * all, all, 1, (int)(channels - last), all, bytes);
}

static const struct dot_fours TYPED(fours) = {
    TYPED(pixels),
    TYPED(side_by_side),
    TYPED(weights),
    TYPED(dense),
    PASTE(sum_, RESULT),
};

static const struct dot_kernels TYPED(kernels) = {
    .rows = FOURS_ROWS,
    .lanes = FOURS_LANES,
    .element = sizeof(ELEMENT),
    .planes = 1,
    .numbers = 1,
    .total = sizeof(PASTE(total_, RESULT)),
    .depth = DOT_DEPTH,
    .fours = &TYPED(fours),
};

#undef ELEMENT
#undef RESULT
#undef TYPED
#undef IS_PLUS
#undef HAS_SIGNS
