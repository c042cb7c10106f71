"""Engine "slices": slicing and adding only. Any device, any version, no compiled code."""

import itertools

from im2col_compat.compat import probes
from im2col_compat.compat.arrays import TORCH, arrays_of
from im2col_compat.compat.probes import torch
from im2col_compat.engines.base import Engine
from im2col_compat.problem import product


class Slices(Engine):
    name = "slices"
    dims = float("inf")

    def refuses(self, arrays, x):
        if arrays is TORCH and arrays.dtype(x) == "float16" and arrays.device(x) == "cpu" and not probes.CPU_HALF:
            return "PyTorch {} does nothing with float16 on a CPU".format(torch.__version__)
        if not arrays.is_dense_kind(x):
            return "slicing needs dense numbers, and this is a {} of another layout".format(arrays.dtype(x))
        return None

    def im2col(self, image, geometry):
        arrays = arrays_of(image)
        columns = arrays.full(image, _blocks_shape(geometry), 0)
        for index, pixels in _overlaps(geometry):
            columns[index] = image[pixels]
        return arrays.reshape(columns, geometry.columns_shape)

    def col2im(self, columns, geometry):
        arrays = arrays_of(columns)
        dtype = arrays.dtype(columns)
        wide = arrays.sum_dtype(dtype)
        blocks_of = arrays.reshape(columns if wide == dtype else arrays.cast(columns, wide), _blocks_shape(geometry))
        image = arrays.full(columns, geometry.image_shape, 0, wide)
        for index, pixels in _overlaps(geometry):
            if dtype == "bool":
                image[pixels] |= blocks_of[index]
            else:
                image[pixels] += blocks_of[index]
        return image if wide == dtype else arrays.cast(image, dtype)


def _blocks_shape(geometry):
    return (geometry.batch, geometry.channels) + geometry.kernel + geometry.blocks


def _overlaps(geometry):
    """Pairs of an index into columns of _blocks_shape and one into the image, of the same elements. Together they are all
    that isn't padding: the blocks of each position in the kernel, or, where these are fewer, the positions of each block.
    Either way a pixel meets its positions in their order, so that sums are the same to the bit.
    """
    if 0 in (geometry.batch, geometry.channels):
        return  # 1.1 can't copy nothing out of NumPy's memory
    every = (slice(None), slice(None))
    by_block = product(geometry.blocks) < product(geometry.kernel)
    if by_block:
        # A pixel is block * stride + position * dilation - padding: they can take each other's place.
        sizes = {"kernel": geometry.blocks, "blocks": geometry.kernel}
        geometry = geometry._replace(dilation=geometry.stride, stride=geometry.dilation, **sizes)
    along = [[_overlap(geometry, axis, k) for k in range(size)] for axis, size in enumerate(geometry.kernel)]
    # The last block that reads a pixel does so at the first of its positions.
    order = slice(None, None, -1 if by_block else 1)
    for position in itertools.product(*(range(size)[order] for size in geometry.kernel)):
        overlaps = [along[axis][k] for axis, k in enumerate(position)]
        if None not in overlaps:
            blocks, pixels = zip(*overlaps)
            yield every + (blocks + position if by_block else position + blocks), every + pixels


def _overlap(geometry, axis, position):
    """The slice of blocks and the slice of pixels that meet, along one axis; None where none do."""
    stride, size = geometry.stride[axis], geometry.image[axis]
    offset = position * geometry.dilation[axis] - geometry.padding[axis][0]
    first = max(0, -(offset // stride))
    last = min(geometry.blocks[axis] - 1, (size - 1 - offset) // stride)
    if first > last:
        return None
    return slice(first, last + 1), slice(offset + first * stride, offset + last * stride + 1, stride)
