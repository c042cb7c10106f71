/* Rows of elements become columns, for elements of each size. */
#include "dot_transpose.h"

#include <string.h>

#include "dot_problem.h"
#include "platform.h"

typedef uint32_t four __attribute__((vector_size(16)));

/* Four rows of four elements of four bytes. */
static inline void transpose_square(const uint32_t *from, int64_t from_step, uint32_t *to, int64_t to_step)
{
    four in[4], pairs[4], out[4];
    int i;

    for (i = 0; i < 4; i++)
        memcpy(&in[i], from + i * from_step, sizeof *in);
    pairs[0] = SHUFFLE(in[0], in[1], four, 0, 4, 1, 5);
    pairs[1] = SHUFFLE(in[2], in[3], four, 0, 4, 1, 5);
    pairs[2] = SHUFFLE(in[0], in[1], four, 2, 6, 3, 7);
    pairs[3] = SHUFFLE(in[2], in[3], four, 2, 6, 3, 7);
    out[0] = SHUFFLE(pairs[0], pairs[1], four, 0, 1, 4, 5);
    out[1] = SHUFFLE(pairs[0], pairs[1], four, 2, 3, 6, 7);
    out[2] = SHUFFLE(pairs[2], pairs[3], four, 0, 1, 4, 5);
    out[3] = SHUFFLE(pairs[2], pairs[3], four, 2, 3, 6, 7);
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
