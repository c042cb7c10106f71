/* The named ops for float. A file for each type, as compiling one takes longer than all else together. */
#define ELEMENT float
#define OF_FLOATS
#define MATH(name) name##f
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define TYPED(name) name##_float32
#include "dot_named_type_body.h"
