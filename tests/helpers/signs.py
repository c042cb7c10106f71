"""Arithmetic with signs, as NumPy does it."""

import numpy as np
from helpers import oracle, problems

from im2col_compat.compat import dtypes


def of_all_sizes(dtype, shape, seed):
    """Values of a dtype, its largest and those next to zero among them."""
    if dtype == "bool":
        few = [False, True]
    elif dtypes.is_integer(dtype):
        low, high = dtypes.limits(dtype)
        few = [low, high, 0, 1] + ([-1] if low else [])
    else:
        tiny = float(np.nextafter(np.zeros(1, dtype), np.ones(1, dtype))[0])
        few = [0.0, -0.0, tiny, -tiny, 1.5, -1.5, np.inf, -np.inf, np.nan, -np.nan]
    return np.array(few, dtype)[np.random.RandomState(seed).randint(0, len(few), shape)]


def signs(array):
    """+1 and -1, as int64."""
    with np.errstate(invalid="ignore"):
        return np.where(array if array.dtype == bool else array >= 0, 1, -1)


def columns_of(x, kernel, stride, padding, dilation, groups):
    """The signs of an image in columns, (N, groups, taps, blocks), padding being 0; and how many blocks there are."""
    dims = len(kernel)
    pads = tuple(problems.pads(padding, kernel, dilation))
    stride, dilation = oracle.each(stride, dims), oracle.each(dilation, dims)
    columns = oracle.unfold(signs(x), kernel, dilation, pads, stride)
    blocks = tuple(oracle.blocks(*sizes) for sizes in zip(x.shape[2:], kernel, dilation, pads, stride))
    return columns.reshape(len(x), groups, -1, columns.shape[2]), blocks


def convolution(x, w, stride=1, padding=0, dilation=1, groups=1):
    """The convolution of signs, as int64."""
    columns, blocks = columns_of(x, w.shape[2:], stride, padding, dilation, groups)
    sums = np.matmul(signs(w).reshape(groups, len(w) // groups, -1), columns)
    return sums.reshape((len(x), len(w)) + blocks)
