/* The named ops for double. */
#define ELEMENT double
#define MATH(name) name
#define FMA(a, b, c) __builtin_fma(a, b, c)
#define TYPED(name) name##_float64
#include "dot_named_type_body.h"
