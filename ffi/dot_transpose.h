/* Rows of elements become columns: where channels lie side by side, and positions are wanted so, or the other way round. */
#ifndef DOT_TRANSPOSE_H
#define DOT_TRANSPOSE_H

#include <stdint.h>

/* `rows` rows of `columns` elements, `from_step` elements apart, to `columns` rows of `rows` elements, `to_step` apart. */
void dot_transpose(int64_t element, const void *from, int64_t from_step, int64_t rows, int64_t columns, void *to,
                   int64_t to_step);

#endif
