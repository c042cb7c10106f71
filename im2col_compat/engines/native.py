"""Engine "torch": F.unfold and F.fold of the installed PyTorch."""

from im2col_compat.compat import memory, unfolds
from im2col_compat.compat.arrays import NUMPY, TORCH
from im2col_compat.compat.probes import torch, torch_missing
from im2col_compat.engines.base import Engine


class Torch(Engine):
    name = "torch"

    def refuses(self, arrays, x):
        if torch is None:
            return torch_missing
        if arrays is NUMPY:
            return "F.unfold takes torch tensors, and this is a NumPy array"
        if not unfolds.HAS_UNFOLD:
            return "PyTorch {} has no F.unfold".format(torch.__version__)
        if unfolds.native_unfold(x) is None:
            dtype, device = arrays.dtype(x), arrays.device(x)
            return "F.unfold of PyTorch {} takes no {} on {}".format(torch.__version__, dtype, device)
        return None

    def unfold(self, image, geometry):
        if _is_uneven(geometry):
            padded = _padded(geometry)
            _check_memory(image, padded.image_shape)
            return self.unfold(TORCH.pad(image, geometry.padding, 0), padded)
        if geometry.dims <= self.dims and unfolds.native_unfold(image) == "whole":
            return _unfold(image, geometry)
        return super(Torch, self).unfold(image, geometry)

    def fold(self, columns, geometry):
        if _is_uneven(geometry):
            image = self.fold(columns, _padded(geometry))
            for axis, (size, (before, _)) in enumerate(zip(geometry.image, geometry.padding)):
                image = image.narrow(axis + 2, before, size)
            return image.contiguous()
        if geometry.dims <= self.dims and unfolds.native_unfold(columns) == "whole":
            return _fold(columns, geometry)
        return super(Torch, self).fold(columns, geometry)

    # For the versions that miss second derivatives or N=0: theirs, between Engine's Functions.

    def im2col(self, image, geometry):
        if geometry.batch == 0:
            return TORCH.empty(image, geometry.columns_shape)
        return _unfold(image, geometry)

    def col2im(self, columns, geometry):
        if geometry.batch == 0:
            return TORCH.empty(columns, geometry.image_shape)
        return _fold(columns, geometry)


def _unfold(image, geometry):
    _check_memory(image, geometry.columns_shape)
    if geometry.dims == 1:
        image, geometry = image.unsqueeze(2), _of_rows(geometry)
    return torch.nn.functional.unfold(image, *_sizes(geometry))


def _fold(columns, geometry):
    _check_memory(columns, geometry.image_shape)
    rows = _of_rows(geometry) if geometry.dims == 1 else geometry
    image = torch.nn.functional.fold(columns, rows.image, *_sizes(rows))
    return image.squeeze(2) if geometry.dims == 1 else image


def _check_memory(x, shape):
    if x.device.type == "cpu":
        memory.check_memory(shape, x.element_size())


def _is_uneven(geometry):
    """Whether the padding differs on both sides, which F.unfold doesn't know."""
    return bool([sides for sides in geometry.padding if sides[0] != sides[1]])


def _sizes(geometry):
    """What F.unfold takes after its input."""
    return geometry.kernel, geometry.dilation, tuple(before for before, _ in geometry.padding), geometry.stride


def _padded(geometry):
    """The same blocks, of the image with its padding around it."""
    image = tuple(size + before + after for size, (before, after) in zip(geometry.image, geometry.padding))
    return geometry._replace(image=image, padding=((0, 0),) * geometry.dims)


def _of_rows(geometry):
    """One dimension as two."""
    ones = [(1,), (1,), (1,), ((0, 0),), (1,), (1,)]
    return type(geometry)(geometry.batch, geometry.channels, *[one + sizes for one, sizes in zip(ones, geometry[2:])])
