"""What C texts of expressions need above them: the inlined functions, or where there is no C library, other names."""

from im2col_compat import lowlevel
from im2col_compat.codegen.expression import FUNCTIONS, INLINED


def head():
    lines = ["#include <math.h>", "#include <stdint.h>"]
    if not lowlevel.missing:
        return "\n".join(lines + ["#define SUM float", "#define LEVEL 0", lowlevel.template(0)])
    for name in [function.c for function in FUNCTIONS if function.calls == INLINED and function.c != "sigmoid"]:
        lines += ["#define {0}_float {0}f".format(name), "#define {0}_double {0}".format(name)]
    lines.append("static inline float sigmoid_float(float x) { return 1 / (1 + expf(-x)); }")
    lines.append("static inline double sigmoid_double(double x) { return 1 / (1 + exp(-x)); }")
    return "\n".join(lines) + "\n"
