"""unfold and fold as graphs record them: PyTorch's own operations, whose sizes may stay symbols. Any number of dimensions.

torch.compile looks into all of this, so arguments are ints, tuples and lists here, and no map()s. PyTorch's operations check the rest.
"""

from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import torch
from im2col_compat.problem import product


def unfold(x, kernel, dilation, padding, stride):
    """unfold of an image of any sizes."""
    dims = len(kernel) if isinstance(kernel, (tuple, list)) else 3 if x.dim() == 5 else 2
    kernel, dilation, padding, stride = _window("unfold", dims, kernel, dilation, padding, stride)
    unbatched = _unbatched("unfold", x, dims + 1)
    x = x.unsqueeze(0) if unbatched else x
    if max([max(sides) for sides in padding]) > 0:
        x = TORCH.pad(x, padding, 0)
    x = windows(x, 2, kernel, dilation, stride)
    blocks, positions = list(range(2, dims + 2)), list(range(dims + 2, 2 * dims + 2))
    columns = x.permute([0, 1] + positions + blocks).flatten(1, dims + 1).flatten(2)
    return columns.squeeze(0) if unbatched else columns


def windows(x, first, kernel, dilation, stride):
    """The blocks of an image without padding. Its axes from `first` on become: blocks along each, positions along each."""
    for axis, (size, gap, step) in enumerate(zip(kernel, dilation, stride), first):
        x = x.unfold(axis, (size - 1) * gap + 1, step)[..., ::gap]
    return x


def fold(x, size, kernel, dilation, padding, stride):
    """fold of any batch of columns."""
    given = [value for value in (kernel, size) if isinstance(value, (tuple, list))] or [(size, size)]
    dims = len(given[0])
    size = _each("fold", "output_size", size, dims)
    kernel, dilation, padding, stride = _window("fold", dims, kernel, dilation, padding, stride)
    unbatched = _unbatched("fold", x, 2)
    padded = [length + before + after for length, (before, after) in zip(size, padding)]
    image = _fold(x.unsqueeze(0) if unbatched else x, padded, kernel, dilation, stride)
    for axis, (length, (before, _)) in enumerate(zip(size, padding), 2):
        image = image.narrow(axis, before, length)
    return image.squeeze(0) if unbatched else image


def _fold(x, size, kernel, dilation, stride):
    """fold without padding. F.fold has two dimensions; what is left is channels to it."""
    native = torch.nn.functional.fold
    if len(size) == 1:
        one = [(1,) + tuple(numbers) for numbers in (size, kernel, dilation, stride)]
        return native(x, one[0], one[1], one[2], 0, one[3]).squeeze(2)
    if len(size) == 2:
        return native(x, tuple(size), kernel, dilation, 0, stride)
    n = len(size) - 2
    blocks = [(p - d * (k - 1) - 1) // s + 1 for p, k, d, s in zip(size, kernel, dilation, stride)]
    channels, pixels = x.shape[1] // product(kernel), product(size[n:])
    outer, inner = product(kernel[:n]), product(kernel[n:])
    x = x.reshape(-1, channels, outer, inner, product(blocks[:n]), product(blocks[n:])).permute(0, 1, 2, 4, 3, 5)
    x = _fold(x.reshape(-1, inner, product(blocks[n:])), size[n:], kernel[n:], dilation[n:], stride[n:])
    x = x.reshape(-1, channels, outer, product(blocks[:n]), pixels).permute(0, 1, 4, 2, 3)
    x = x.reshape(-1, channels * pixels * outer, product(blocks[:n]))
    x = _fold(x, size[:n], kernel[:n], dilation[:n], stride[:n])
    return x.reshape(-1, channels, pixels, product(size[:n])).transpose(2, 3).reshape(-1, channels, *size)


def _unbatched(function, x, least):
    if x.dim() not in (least, least + 1):
        text = "{}(): input must have {} or {} dimensions, but has {}"
        raise RuntimeError(text.format(function, least, least + 1, x.dim()))
    return x.dim() == least


def _window(function, dims, kernel, dilation, padding, stride):
    named = ("kernel_size", kernel), ("dilation", dilation), ("padding", padding), ("stride", stride)
    kernel, dilation, padding, stride = [_each(function, name, value, dims) for name, value in named]
    padding = [tuple(sides) if isinstance(sides, (tuple, list)) else (sides, sides) for sides in padding]
    if min(kernel) < 1 or min(dilation) < 1 or min(stride) < 1 or min([min(sides) for sides in padding]) < 0:
        raise RuntimeError(
            "{}(): kernel_size, dilation and stride must be at least 1, and padding 0, but got {}, {}, {} and {}".format(
                function, kernel, dilation, stride, padding
            )
        )
    return kernel, dilation, padding, stride


def _each(function, name, value, dims):
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * dims
    if len(values) != dims:
        text = "{}(): argument '{}' must be an int or have {} values, but got {} values: {}"
        raise RuntimeError(text.format(function, name, dims, len(values), values))
    return values
