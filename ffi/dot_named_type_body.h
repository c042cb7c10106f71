/* The named ops of one type: their kernels, in each instruction set, and a list of them, TYPED(dot_named). Expects ELEMENT,
 * MATH(name), FMA(a, b, c), TYPED(name), and OF_FLOATS for floats. */
#include <math.h>
#include <stddef.h>

#include "dot.h"
#include "dot_named.h"
#include "dot_target.h"
#if HAS_AVX && defined(OF_FLOATS)
#include "dot_l1_grads.h"
#endif

#define SUM ELEMENT
#define TOTAL ELEMENT
#define FORWARD 1
#define GRADIENTS 1
#define PANELS 1
#define DIRECT 1
#define FEW 1

/* For INLINE, which the ops need before there is a level. */
#define LEVEL 0
#include "dot_level.h"
#undef LEVEL

#include "dot_ops_body.h"
#define BODY "dot_named_body.h"
#define FEATURES ""
#include "dot_levels.h"

#define KERNELS(name) LEVELS(&name)
#define NAMED(op) {#op, KERNELS(TYPED(op##_kernels))}

const struct dot_named_op TYPED(dot_named)[] = {
    NAMED(l1), NAMED(adder), NAMED(l2), NAMED(xnor), NAMED(max_plus), NAMED(min_plus), {NULL, {NULL, NULL, NULL}},
};
