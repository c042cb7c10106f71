"""What Op.explain tells: which path an op takes, why, and its functions in C."""

from im2col_compat.codegen import symbols as tracing
from im2col_compat.codegen import template as source
from im2col_compat.compat.arrays import NUMPY, TORCH
from im2col_compat.engines import choose as backends
from im2col_compat.op import NAMED
from im2col_compat.paths import find as kernels


def of(op, dtype):
    """The text of Op.explain."""
    arrays = TORCH or NUMPY
    lines = ["{} on {}:".format(op, dtype)]
    forced = backends.forced()
    if op is NAMED["dot"] and arrays is TORCH:
        lines.append("PyTorch's own conv2d, linear and matmul.")
    elif forced is not None:
        lines.append("tensor operations, in blocks: the engine {!r} is forced.".format(forced))
    else:
        found, reason = kernels.find(op, dtype, arrays)
        if found is None:
            lines.append("tensor operations, in blocks: {}.".format(reason))
        else:
            lines.append("C kernels, {}.".format(found.origin))
            if found.packing is not None:
                return "\n".join(lines)
            texts = found.texts or source.of_expressions(op, tracing.trace(op, dtype, arrays), dtype)
            lines.append(texts.functions.replace("static inline __attribute__((always_inline)) ", "").rstrip())
    return "\n".join(lines)
