/* Rows of elements become columns, for elements of each size. */
#include "dot_transpose.h"

#include <string.h>

#include "dot_four.h"
#include "dot_problem.h"

/* Four rows of four elements of four bytes. */
static inline void transpose_square(const uint32_t *from, int64_t from_step, uint32_t *to, int64_t to_step)
{
    four in[4], pairs[4], out[4];
    int i;

    for (i = 0; i < 4; i++)
        memcpy(&in[i], from + i * from_step, sizeof *in);
    pairs[0] = FOUR(in[0], in[1], 0, 4, 1, 5);
    pairs[1] = FOUR(in[2], in[3], 0, 4, 1, 5);
    pairs[2] = FOUR(in[0], in[1], 2, 6, 3, 7);
    pairs[3] = FOUR(in[2], in[3], 2, 6, 3, 7);
    out[0] = FOUR(pairs[0], pairs[1], 0, 1, 4, 5);
    out[1] = FOUR(pairs[0], pairs[1], 2, 3, 6, 7);
    out[2] = FOUR(pairs[2], pairs[3], 0, 1, 4, 5);
    out[3] = FOUR(pairs[2], pairs[3], 2, 3, 6, 7);
    for (i = 0; i < 4; i++)
        memcpy(to + i * to_step, &out[i], sizeof *out);
}

#define BODY "dot_transpose_body.h"
#include "dot_sizes.h"

void dot_transpose(int64_t element, const void *from, int64_t from_step, int64_t rows, int64_t columns, void *to,
                   int64_t to_step)
{
    BY_SIZE(element, transpose, from, from_step, rows, columns, to, to_step);
}
