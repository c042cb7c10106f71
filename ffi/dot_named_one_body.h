/* The kernels of one named op: dot_body.h, told of the op what was not said before. Expects OP and NAME, and those of
 * FINITE, PRODUCT and ADDS that differ from what is below. Undefines all that belongs to one op. */

#ifndef FINITE
#define FINITE 0
#endif
#ifndef PRODUCT
#define PRODUCT 0
#endif
#ifndef ADDS
#define ADDS DOT_SUM
#endif

#define MASKS 1
#define DIVIDES 0
#define KEEPS_ZEROS 1
#define PLANES 1
#define NUMBERS 1
#define WEIGHTS(w, i, step) (w)[i]
#define GRAD_W(number, ...) OP(grad_w)(__VA_ARGS__)
#define GRAD_W_FINITE(number, ...) OP(grad_w_finite)(__VA_ARGS__)
#if ADDS == DOT_SUM
#define START 0
#define FINITE_TERMS 0
#define IS_FINITE(v) ((v) - (v) == 0)
#elif ADDS == DOT_MAX
#define START -INFINITY
#define BETTER(a, b) ((a) > (b))
#define FINITE_TERMS 1
#define IS_FINITE(v) ((v) < (ELEMENT)INFINITY) /* -infinity, which pads, is as good as a number */
#else
#define START INFINITY
#define BETTER(a, b) ((a) < (b))
#define FINITE_TERMS 1
#define IS_FINITE(v) ((v) > -(ELEMENT)INFINITY)
#endif

#include "dot_body.h"

#undef OP
#undef NAME
#undef FINITE
#undef PRODUCT
#undef MASKS
#undef ADDS
#undef DIVIDES
#undef KEEPS_ZEROS
#undef PLANES
#undef NUMBERS
#undef WEIGHTS
#undef GRAD_W
#undef GRAD_W_FINITE
#undef START
#undef BETTER
#undef FINITE_TERMS
#undef IS_FINITE
