/* Rows become columns, for elements of one size. Expects NAME(function) and WORD; undefines both. See dot_transpose.h. */

static void NAME(transpose)(const void *from, int64_t from_step, int64_t rows, int64_t columns, void *to,
                            int64_t to_step)
{
    const WORD *in = (const WORD *)from;
    WORD *out = (WORD *)to;
    int64_t i, j = 0, l;

    for (; j + 4 <= columns; j += 4) {
        i = 0;
        if (sizeof(WORD) == sizeof(uint32_t))
            for (; i + 4 <= rows; i += 4)
                transpose_square((const uint32_t *)from + i * from_step + j, from_step,
                                 (uint32_t *)to + j * to_step + i, to_step);
        for (; i < rows; i++)
            for (l = j; l < j + 4; l++)
                out[l * to_step + i] = in[i * from_step + l];
    }
    for (; j < columns; j++)
        for (i = 0; i < rows; i++)
            out[j * to_step + i] = in[i * from_step + j];
}

#undef NAME
#undef WORD
