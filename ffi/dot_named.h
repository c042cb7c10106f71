/* The lists of named ops, one for each type. A name of NULL ends them. */
#ifndef DOT_NAMED_H
#define DOT_NAMED_H

#include "dot.h"

struct dot_named_op {
    const char *name;
    const struct dot_kernels *levels[3];
};

extern const struct dot_named_op dot_named_float32[], dot_named_float64[];

#endif
