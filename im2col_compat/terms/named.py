"""The ops whose kernels are built into the C library (ffi/dot_named_type_body.h). ops.py names them."""

from im2col_compat import lowlevel
from im2col_compat.codegen.kernels import LEVELS, Kernels

DTYPES = ("float32", "float64")  # of operands that there are kernels for
_names = {}  # what an op is made of: the name of its kernels in C


def register(name, op):
    """From now on the kernels of this name compute `op`, and all ops that are made of the same."""
    _names[_parts(op)] = name


def _parts(op):
    return op.multiply, op.add, op.grad_w, op.grad_x


def name_of(op):
    """The name of an op's kernels; None where there are none."""
    try:
        return _names.get(_parts(op))
    except TypeError:
        return None  # a function without a hash is none of ours


def kernels(op, dtype, level):
    """An op's Kernels for a dtype; None where there are none."""
    name = name_of(op) if dtype in DTYPES else None
    if name is None:
        return None
    address = lowlevel.named_kernels("{}_{}".format(name, dtype), level)
    return Kernels(address, dtype, dtype, "built in, " + LEVELS[level], None, None, None)
