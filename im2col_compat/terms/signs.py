"""Products of signs, by bits: C kernels compare 32 signs at once, packed into a word, and count those that differ."""

import functools

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen.kernels import LEVELS, Kernels, Packed
from im2col_compat.compat import memory
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import MASKS_ARE_BYTES
from im2col_compat.problem import product
from im2col_compat.terms import named
from im2col_compat.terms.function import Function

#: Signs in a word: as many as a lane of results has bits, so that a vector of words gives a vector of results.
BITS = 32
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "bool")  # of what can be packed


def absolute(v):
    """|v|. Variables of 0.3 have the method only, arrays the builtin only."""
    return v.abs() if hasattr(v, "abs") else abs(v)


def cast(mask, like):
    """A mask as numbers of another tensor's dtype."""
    return mask.type_as(like) if hasattr(mask, "type_as") else mask.astype(like.dtype)


def sign(v):
    """+1 where v >= 0, else -1."""
    return cast(v >= 0, v) * 2 - 1


def product_of_signs(w, x):
    """sign(w) * sign(x)."""
    return sign(w) * sign(x)


class Signs(Function):
    """The term product_of_signs, which xnor has."""

    @staticmethod
    def takes(multiply):
        return multiply == product_of_signs

    def operands(self, arrays, function, w, x):
        if arrays is not TORCH or not MASKS_ARE_BYTES or arrays.dtype(x[1]) != "uint8":
            return w[1], x[1]
        return tuple(_of_bytes(arrays, function, *operand) for operand in (w, x))

    def found(self, op, dtype, arrays, level):
        if dtype not in DTYPES or op.pad_value is not None or named.name_of(op) is None:
            return super(Signs, self).found(op, dtype, arrays, level)
        floats = named.kernels(op, dtype, level)
        # The kernels for floats give the gradients; integers have none.
        address, result_dtype = (None, "int64") if floats is None else (floats.address, dtype)
        origin = "built in, {}, for signs packed into words".format(LEVELS[level])
        return Kernels(address, dtype, result_dtype, origin, None, functools.partial(_packed, dtype, level), None), None

    def prepared(self, op, arrays, w, x, w_broadcast, x_broadcast):
        if arrays.dtype(x) == "bool":
            w, x = (arrays.cast(operand, "int8") * 2 - 1 for operand in (w, x))  # True is +1
        return super(Signs, self).prepared(op, arrays, w, x, w_broadcast, x_broadcast)


def _of_bytes(arrays, function, name, mask):
    """The signs of a mask, where masks are bytes: 1 is +1."""
    if 0 not in tuple(mask.shape) and arrays.extremes(mask)[1] > 1:
        text = (
            "{}(): the signs of {} are unknown: to this PyTorch uint8 is a mask, of 0 and 1, but it has larger numbers"
        )
        raise ValueError(text.format(function, name))
    return arrays.cast(mask, "int8") * 2 - 1


def _packed(dtype, level, layout, arrays, w, x):
    """Packed: dense w and x as words of signs. The words take the place of a group's channels."""
    channels, taps, pixels, row = layout.channels, product(layout.kernel), product(layout.image), layout.image[2]
    words = -(-channels // BITS)
    strides = layout.x_strides[0], layout.x_strides[1], layout.x_strides[4]
    x = _pack(arrays, x, dtype, (layout.batch, layout.groups, channels, pixels), strides, level)
    filters = layout.groups * layout.filters
    w = _pack(arrays, w, dtype, (filters, 1, channels, taps), (channels * taps, taps, 1), level)
    layout = layout._replace(
        channels=words,
        x_strides=(layout.groups * words * pixels, pixels, layout.image[1] * row, row, 1),
        pad=None,
        multiplications=layout.multiplications // channels * words,
        last=2 ** (channels - BITS * (words - 1)) - 1 if channels % BITS else layout.last,
    )
    address = lowlevel.signs_kernels(dtype if dtype in named.DTYPES else "int64", level)  # by the dtype of sums
    return Packed(layout, address, 4, lowlevel.address_of(w), lowlevel.address_of(x), (w, x))


def _pack(arrays, values, dtype, sizes, strides, level):
    batch, groups, channels, pixels = sizes
    words = np.empty((batch, groups, -(-channels // BITS), pixels), np.uint32)
    threads = memory.threads() if product(sizes) >= lowlevel.LEAST_FOR_THREADS else 1
    lowlevel.pack_signs(arrays.address(values), dtype, sizes, strides, lowlevel.address_of(words), threads, level)
    return words
