/* Finding the kernels of a named op, and the machine's best instruction set. */
#include <stddef.h>
#include <string.h>

#include "dot.h"
#include "dot_named.h"
#include "dot_target.h"

static const struct {
    const char *ending;
    const struct dot_named_op *ops;
} types[] = {{"_float32", dot_named_float32}, {"_float64", dot_named_float64}};

const struct dot_kernels *dot_named(const char *name, int level)
{
    const struct dot_named_op *op;
    size_t type, length;

    for (type = 0; type < sizeof types / sizeof *types; type++)
        for (op = types[type].ops; op->name; op++) {
            length = strlen(op->name);
            if (strncmp(name, op->name, length) == 0 && strcmp(name + length, types[type].ending) == 0)
                return op->levels[level];
        }
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
