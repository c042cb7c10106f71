"""Parts of a term that are of one operand alone, computed once an element by tensor operations, before the path is chosen."""

from im2col_compat import lowlevel
from im2col_compat.codegen import evaluate, symbols
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import VARIABLES
from im2col_compat.engines import choose as engines


def of(op, problem, arrays, x):
    """(the op that is left, a codegen.once.Split), or None where terms are computed as a whole."""
    if arrays is not TORCH or VARIABLES or op.is_named or lowlevel.missing or engines.forced() is not None:
        return None
    if 0 in problem.w_shape + problem.x_shape:
        return None
    found = op.term.split(op, arrays.dtype(x))
    if found is None or problem.is_conv and any(map(any, problem.pads)) and not _pads_alike(op, found[0]):
        return None
    return found


def _pads_alike(op, left):
    """Whether it is known what padding is when it is computed before."""
    return (left.pad_value is None) == (op.pad_value is None)


def operands(op, split, weights, x):
    """(weights, x) of the op that is left; differentiable."""
    given = {"w": weights[0], "x": x}
    given.update(zip(map(symbols.operand_name, op.term.names), weights[1:]))
    found = [evaluate.value(split.parts[name], given) for name in ("w",) + split.others + ("x",)]
    return tuple(found[:-1]), found[-1]
