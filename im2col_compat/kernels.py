"""Which C kernels compute an op on a dtype: built in, compiled on demand, or none, and why.

IM2COL_COMPAT_ISA names the best instruction set to be used: "baseline", "avx2" or
"avx512"; by default, the best that the machine has.
"""

import os
from collections import namedtuple

from im2col_compat import features, lowlevel
from im2col_compat.op import NAMED

VARIABLE = "IM2COL_COMPAT_ISA"
LEVELS = ("baseline", "avx2", "avx512")


class Kernels(namedtuple("Kernels", "address dtype result_dtype add origin")):
    """address: of a struct dot_kernels; dtype, result_dtype: operands' and results'; add: the op's; origin: in words."""

    __slots__ = ()

    @property
    def itemsize(self):
        return features.ITEMSIZE[self.dtype]

    @property
    def total(self):
        return features.ITEMSIZE[self.result_dtype]


def level():
    """The instruction set in use, as an index into LEVELS. ValueError for an unknown name in the environment."""
    best = lowlevel.level()
    name = os.environ.get(VARIABLE)
    if not name:
        return best
    if name not in LEVELS:
        raise ValueError("{} must be one of {}, but got {!r}".format(VARIABLE, LEVELS, name))
    return min(best, LEVELS.index(name))


def _built_in(op):
    """The named op that computes the same as `op`, or None."""
    for named in NAMED.values():
        same = all(getattr(op, a) is getattr(named, a) for a in ("multiply", "add", "grad_w", "grad_x"))
        if same and (op.pad_value is None) == (named.pad_value is None):
            return named
    return None


def find(op, dtype):
    """(Kernels, None), or (None, the reason why there are none)."""
    if lowlevel.missing:
        return None, lowlevel.missing
    named = _built_in(op)
    if named is not None and dtype in ("float32", "float64"):
        address = lowlevel.named_kernels("{}_{}".format(named.name, dtype), level())
        if address:
            return Kernels(address, dtype, dtype, op.add, "built in, " + LEVELS[level()]), None
    return None, "not yet"
