"""Engine "torch": F.unfold and F.fold of the installed PyTorch."""

from im2col_compat import features
from im2col_compat.engine import Engine


class Torch(Engine):
    name = "torch"

    def refuses(self, arrays, x):
        if features.torch is None:
            return features.torch_missing
        if arrays is features.NUMPY:
            return "F.unfold takes torch tensors, and this is a NumPy array"
        if not features.HAS_UNFOLD:
            return "PyTorch {} has no F.unfold".format(features.torch.__version__)
        if features.native_unfold(x) is None:
            return "F.unfold of PyTorch {} takes no {} on {}".format(
                features.torch.__version__, arrays.dtype(x), arrays.device(x)
            )
        return None

    def unfold(self, image, geometry):
        if _is_native(image, geometry):
            _check_memory(image, geometry.columns_shape)
            return _functional().unfold(image, *_sizes(geometry))
        if any(before != after for before, after in geometry.padding):
            padded = _padded(geometry)
            _check_memory(image, padded.image_shape)
            image, geometry = features.TORCH.pad(image, geometry.padding, 0), padded
        return super(Torch, self).unfold(image, geometry)

    def fold(self, columns, geometry):
        if _is_native(columns, geometry):
            _check_memory(columns, geometry.image_shape)
            return _functional().fold(columns, geometry.image, *_sizes(geometry))
        if any(before != after for before, after in geometry.padding):
            image = super(Torch, self).fold(columns, _padded(geometry))
            for axis, (size, (before, _)) in enumerate(zip(geometry.image, geometry.padding)):
                image = image.narrow(axis + 2, before, size)
            return image.contiguous()
        return super(Torch, self).fold(columns, geometry)

    # For other than two dimensions, and the versions that miss second derivatives or N=0: theirs, between Engine's Functions.

    def im2col(self, image, geometry):
        if geometry.batch == 0:
            return features.TORCH.empty(image, geometry.columns_shape)
        _check_memory(image, geometry.columns_shape)
        if geometry.dims == 1:
            image, geometry = image.unsqueeze(2), _of_rows(geometry)
        return _functional().unfold(image, *_sizes(geometry))

    def col2im(self, columns, geometry):
        if geometry.batch == 0:
            return features.TORCH.empty(columns, geometry.image_shape)
        _check_memory(columns, geometry.image_shape)
        rows = geometry if geometry.dims == 2 else _of_rows(geometry)
        image = _functional().fold(columns, rows.image, *_sizes(rows))
        return image if geometry.dims == 2 else image.squeeze(2)


def _check_memory(x, shape):
    if x.device.type == "cpu":
        features.check_memory(shape, x.element_size())


def _functional():
    return features.torch.nn.functional


def _is_native(x, geometry):
    """Whether F.unfold and F.fold do it, gradients and all."""
    padding = geometry.padding
    return len(padding) == 2 and features.native_unfold(x) == "whole" and all(p[0] == p[1] for p in padding)


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
