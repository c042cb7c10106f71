/* The kernels of all named ops for one type and one instruction set. Expects what dot_body.h does of these. */
#include "dot_level.h"

#define OP(function) TYPED(l1_##function)
#define NAME(function) LEVELED(TYPED(l1_##function))
#define FINITE 1
#if LEVEL == 1 && defined(OF_FLOATS)
#define BY_SIGN(function) l1_##function##_by_sign
#endif
#include "dot_named_one_body.h"
#undef BY_SIGN

#define OP(function) TYPED(adder_##function)
#define NAME(function) LEVELED(TYPED(adder_##function))
#include "dot_named_one_body.h"

#define OP(function) TYPED(l2_##function)
#define NAME(function) LEVELED(TYPED(l2_##function))
#define PRODUCT 1
#include "dot_named_one_body.h"

#define OP(function) TYPED(xnor_##function)
#define NAME(function) LEVELED(TYPED(xnor_##function))
#include "dot_named_one_body.h"

#define OP(function) TYPED(plus_##function)
#define NAME(function) LEVELED(TYPED(max_plus_##function))
#define ADDS DOT_MAX
#include "dot_named_one_body.h"

#define OP(function) TYPED(plus_##function)
#define NAME(function) LEVELED(TYPED(min_plus_##function))
#define ADDS DOT_MIN
#include "dot_named_one_body.h"
