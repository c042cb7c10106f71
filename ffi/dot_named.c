/* The kernels of the named ops, for float and double, in each instruction set, and the choice among these. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_target.h"
#if HAS_AVX
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

#define ELEMENT float
#define OF_FLOATS
#define MATH(name) name##f
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define TYPED(name) name##_float32
#include "dot_ops_body.h"
#define BODY "dot_named_body.h"
#define FEATURES ""
#include "dot_levels.h"
#undef ELEMENT
#undef OF_FLOATS
#undef MATH
#undef FMA
#undef TYPED

#define ELEMENT double
#define MATH(name) name
#define FMA(a, b, c) __builtin_fma(a, b, c)
#define TYPED(name) name##_float64
#include "dot_ops_body.h"
#define BODY "dot_named_body.h"
#define FEATURES ""
#include "dot_levels.h"

#define NAMED(op) {#op "_float32", LEVELS(&op##_kernels_float32)}, {#op "_float64", LEVELS(&op##_kernels_float64)}

static const struct {
    const char *name;
    const struct dot_kernels *levels[3];
} ops[] = {NAMED(l1), NAMED(adder), NAMED(l2), NAMED(xnor), NAMED(max_plus), NAMED(min_plus)};

const struct dot_kernels *dot_named(const char *name, int level)
{
    size_t i;

    for (i = 0; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i].name, name) == 0)
            return ops[i].levels[level];
    return NULL;
}

int dot_level(void)
{
#if HAS_AVX
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 1;
#endif
    return 0;
}
