"""xnor by bits: signs packed 32 to a word, which C kernels compare all at once and count."""

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.compat import memory
from im2col_compat.compat.arrays import NUMPY
from im2col_compat.problem import product

#: Signs in a word: as many as a lane of results has bits, so that a vector of words gives a vector of results.
BITS = 32
#: What can be packed.
DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "bool")


def packed(problem, kernels, arrays, w, x, level):
    """(problem, kernels, arrays, w, x) for the words of dense w and x, a group's channels being words."""
    channels, taps = problem.channels, product(problem.kernel)
    words = -(-channels // BITS)
    images = (problem.batch, problem.groups, channels, product(problem.image))
    strides = problem.x_strides[0], problem.x_strides[1], problem.x_strides[4]
    x = _pack(arrays, x, kernels.dtype, images, strides, level)
    filters = (problem.groups * problem.filters, 1, channels, taps)
    w = _pack(arrays, w, kernels.dtype, filters, (channels * taps, taps, 1), level)
    pixels, row = product(problem.image), problem.image[2]
    problem = problem._replace(
        channels=words,
        x_strides=(problem.groups * words * pixels, pixels, problem.image[1] * row, row, 1),
        pad=None,
        last=2 ** (channels - BITS * (words - 1)) - 1 if channels % BITS else problem.last,
    )
    address = lowlevel.signs_kernels(kernels.result_dtype, level)
    return problem, kernels._replace(address=address, dtype="uint32", packing=None), NUMPY, w, x


def _pack(arrays, values, dtype, sizes, strides, level):
    batch, groups, channels, pixels = sizes
    words = np.empty((batch, groups, -(-channels // BITS), pixels), np.uint32)
    threads = memory.threads() if product(sizes) >= lowlevel.LEAST_FOR_THREADS else 1
    lowlevel.pack_signs(arrays.address(values), dtype, sizes, strides, lowlevel.address(words), threads, level)
    return words
