/* The named ops' kernels for one type and one instruction set. Expects what dot_body.h does of these. */
#include "dot_level.h"

#define ADDS DOT_SUM
#define START 0
#define PRODUCT 0
#define MASKS 0
#define ORDINARY_TERMS 0
#define IS_ORDINARY(v) ((v) - (v) == 0)

#define ORDINARY 1
#define OP(function) TYPED(l1_##function)
#define NAME(function) LEVELED(l1_##function)
#include "dot_body.h"
#undef OP
#undef NAME
#undef ORDINARY

#define ORDINARY 0
#define OP(function) TYPED(adder_##function)
#define NAME(function) LEVELED(adder_##function)
#include "dot_body.h"
#undef OP
#undef NAME

#undef PRODUCT
#define PRODUCT 1
#define OP(function) TYPED(l2_##function)
#define NAME(function) LEVELED(l2_##function)
#include "dot_body.h"
#undef OP
#undef NAME
#undef PRODUCT
#define PRODUCT 0

#undef MASKS
#define MASKS 1
#define OP(function) TYPED(xnor_##function)
#define NAME(function) LEVELED(xnor_##function)
#include "dot_body.h"
#undef OP
#undef NAME
#undef MASKS
#define MASKS 0

#undef ADDS
#undef START
#undef ORDINARY_TERMS
#undef IS_ORDINARY
#define ORDINARY_TERMS 1
#define OP(function) TYPED(plus_##function)

#define ADDS DOT_MAX
#define BETTER(a, b) ((a) > (b))
#define START -INFINITY
#define IS_ORDINARY(v) ((v) < (ELEMENT)INFINITY)
#define NAME(function) LEVELED(max_plus_##function)
#include "dot_body.h"
#undef NAME
#undef ADDS
#undef BETTER
#undef START
#undef IS_ORDINARY

#define ADDS DOT_MIN
#define BETTER(a, b) ((a) < (b))
#define START INFINITY
#define IS_ORDINARY(v) ((v) > -(ELEMENT)INFINITY)
#define NAME(function) LEVELED(min_plus_##function)
#include "dot_body.h"
#undef NAME
#undef ADDS
#undef BETTER
#undef START
#undef IS_ORDINARY

#undef OP
#undef ORDINARY
#undef ORDINARY_TERMS
#undef MASKS
#undef PRODUCT
