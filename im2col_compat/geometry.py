"""Sizes in, one checked and immutable description out. Every size error is raised here.

Knows no torch and no NumPy: shapes are tuples of ints. The checks are the latest
PyTorch's, in its order and with its exception types, for every engine and every
version, done in Python's unbounded integers. What passes them can't overflow
int64 in C.
"""

import operator
from collections import namedtuple

INT64_MAX = 2**63 - 1


class Geometry(namedtuple("Geometry", "batch channels image kernel dilation padding stride blocks")):
    """What im2col and col2im need to know; the fields are the C struct's, pairs are (vertical, horizontal)."""

    __slots__ = ()

    @property
    def image_shape(self):
        return (self.batch, self.channels) + self.image

    @property
    def columns_shape(self):
        return (self.batch, self.channels * product(self.kernel), product(self.blocks))


def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def integers(function, name, value, too_large=TypeError):
    """`value` as a tuple of plain ints, or a pair of one int.

    What F.unfold takes: ints, NumPy's and anything else with `__index__`, and any
    iterable of them. Bools, floats, strings and None are a TypeError.
    """
    try:
        items = tuple(value) if hasattr(value, "__iter__") else (value, value)
        # type(...).__name__ finds NumPy's bool too, without importing NumPy.
        if any(type(item).__name__ in ("bool", "bool_") for item in items):
            raise TypeError
        items = tuple(int(operator.index(item)) for item in items)
    except TypeError:
        raise TypeError(
            "{}(): argument '{}' must be an int or a pair of ints, but got {!r} of type {}".format(
                function, name, value, type(value).__name__
            )
        )
    for item in items:
        if abs(item) > INT64_MAX:
            raise too_large("{}(): argument '{}' must fit int64, but got {}".format(function, name, item))
    return items


def _pairs(function, arguments):
    """Type errors of all arguments first, then their lengths, as PyTorch's parser does."""
    pairs = [(name, integers(function, name, value)) for name, value in arguments]
    for name, pair in pairs:
        if len(pair) != 2:
            raise RuntimeError(
                "{}(): argument '{}' must be an int or a pair of ints, but got {} values: {}".format(
                    function, name, len(pair), pair
                )
            )
    return [pair for _, pair in pairs]


def _at_least(function, least, name, pair):
    if min(pair) < least:
        raise RuntimeError("{}(): {} must be at least {}, but got {}".format(function, name, least, pair))


def _blocks(image, kernel, dilation, padding, stride):
    """How many blocks fit, per dimension; below one where none does."""
    return tuple(
        (size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, d, p, s in zip(image, kernel, dilation, padding, stride)
    )


def _checked(function, geometry):
    """The last checks, common to unfold and fold."""
    if min(geometry.blocks) < 1:
        raise RuntimeError(
            "{}(): an image of size {} with kernel_size={}, dilation={}, padding={}, stride={} has {} blocks, "
            "but there must be at least one in each direction".format(
                function, geometry.image, *(geometry[3:7] + (geometry.blocks,))
            )
        )
    for size, pad in zip(geometry.image, geometry.padding):
        if size + 2 * pad > INT64_MAX:
            raise RuntimeError(
                "{}(): an image of size {} with padding={} is larger than int64".format(
                    function, geometry.image, geometry.padding
                )
            )
    for shape in (geometry.image_shape, geometry.columns_shape):
        if product(max(1, size) for size in shape) > INT64_MAX:
            raise RuntimeError("{}(): a result of shape {} has more elements than int64".format(function, shape))
    return geometry


def unfold_geometry(shape, kernel_size, dilation, padding, stride):
    """The geometry of F.unfold on an image of `shape` ((N,) C, H, W)."""
    kernel, dilation, padding, stride = _pairs(
        "unfold",
        [("kernel_size", kernel_size), ("dilation", dilation), ("padding", padding), ("stride", stride)],
    )
    _at_least("unfold", 1, "kernel_size", kernel)
    _at_least("unfold", 1, "dilation", dilation)
    _at_least("unfold", 0, "padding", padding)
    _at_least("unfold", 1, "stride", stride)
    if len(shape) not in (3, 4) or 0 in shape[-3:]:
        # PyTorch looks at dimensions 1 and 2 before it counts them.
        missing = len(shape) < 2 or len(shape) == 2 and shape[1] != 0
        raise (IndexError if missing else RuntimeError)(
            "unfold(): input must have shape (C, H, W) or (N, C, H, W) with only N allowed to be 0, "
            "but got shape {}".format(tuple(shape))
        )
    batch, channels, height, width = shape if len(shape) == 4 else (1,) + tuple(shape)
    image = (int(height), int(width))
    blocks = _blocks(image, kernel, dilation, padding, stride)
    return _checked("unfold", Geometry(int(batch), int(channels), image, kernel, dilation, padding, stride, blocks))


def fold_geometry(shape, output_size, kernel_size, dilation, padding, stride):
    """The geometry of F.fold on columns of `shape` ((N,) C * kernel height * kernel width, L)."""
    image, kernel, dilation, padding, stride = _pairs(
        "fold",
        [
            ("output_size", output_size),
            ("kernel_size", kernel_size),
            ("dilation", dilation),
            ("padding", padding),
            ("stride", stride),
        ],
    )
    _at_least("fold", 1, "kernel_size", kernel)
    _at_least("fold", 1, "stride", stride)
    _at_least("fold", 1, "dilation", dilation)
    _at_least("fold", 0, "padding", padding)
    if len(shape) not in (2, 3) or 0 in shape[-2:]:
        raise RuntimeError(
            "fold(): input must have shape (C * kernel product, L) or (N, C * kernel product, L) "
            "with only N allowed to be 0, but got shape {}".format(tuple(shape))
        )
    batch, rows, length = (int(size) for size in (shape if len(shape) == 3 else (1,) + tuple(shape)))
    if product(kernel) > INT64_MAX:
        raise RuntimeError("fold(): the product of kernel_size={} overflows int64".format(kernel))
    if rows % product(kernel):
        raise RuntimeError(
            "fold(): input's dimension {} must be divisible by the product of kernel_size={}, "
            "but its size is {}".format(len(shape) - 2, kernel, rows)
        )
    blocks = _blocks(image, kernel, dilation, padding, stride)
    if product(blocks) != length:
        raise RuntimeError(
            "fold(): with output_size={}, kernel_size={}, dilation={}, padding={}, stride={} there are "
            "{} * {} = {} blocks, but input's dimension {} has size {}".format(
                image, kernel, dilation, padding, stride, blocks[0], blocks[1], product(blocks), len(shape) - 1, length
            )
        )
    channels = rows // product(kernel)
    geometry = _checked("fold", Geometry(batch, channels, image, kernel, dilation, padding, stride, blocks))
    _at_least("fold", 1, "output_size", image)
    return geometry


class ConvGeometry(namedtuple("ConvGeometry", "columns pads groups filters")):
    """A conv2d: its columns' Geometry on the padded image (so padding is 0 there), and how that image is padded.

    pads: (top, bottom, left, right), groups: int, filters: number of output channels.
    """

    __slots__ = ()

    @property
    def output_shape(self):
        return (self.columns.batch, self.filters) + self.columns.blocks


def _conv_pair(name, items):
    if len(items) not in (1, 2):
        raise RuntimeError(
            "conv2d(): argument '{}' must be an int or a pair of ints, but got {} values: {}".format(
                name, len(items), items
            )
        )
    return items * 2 if len(items) == 1 else items


def _conv_pads(padding, kernel, dilation, stride):
    """(top, bottom, left, right) of conv2d's `padding`: a tuple of ints, "same" or "valid"."""
    if isinstance(padding, tuple):
        vertical, horizontal = _conv_pair("padding", padding)
        _at_least("conv2d", 0, "padding", (vertical, horizontal))
        return (vertical, vertical, horizontal, horizontal)
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise RuntimeError("conv2d(): padding='same' needs stride 1, but got stride={}".format(stride))
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple(side for total in totals for side in (total // 2, total - total // 2))
    raise RuntimeError("conv2d(): padding must be ints, 'same' or 'valid', but got {!r}".format(padding))


def conv_geometry(shape, weight_shape, bias_shape, stride, padding, dilation, groups):
    """The geometry of F.conv2d on shapes ((N,) C, H, W), (O, C / groups, kernel height, kernel width), (O,) or None."""
    # Types of all arguments first, as PyTorch's parser does.
    stride = integers("conv2d", "stride", stride, too_large=ValueError)
    if not hasattr(padding, "lower"):
        padding = integers("conv2d", "padding", padding, too_large=ValueError)
    dilation = integers("conv2d", "dilation", dilation, too_large=ValueError)
    (groups,) = integers("conv2d", "groups", (groups,), too_large=ValueError)
    stride, dilation = _conv_pair("stride", stride), _conv_pair("dilation", dilation)
    if len(shape) not in (3, 4):
        raise RuntimeError(
            "conv2d(): input must have shape (C, H, W) or (N, C, H, W), but got shape {}".format(tuple(shape))
        )
    if len(weight_shape) != 4 or 0 in weight_shape:
        raise RuntimeError(
            "conv2d(): weight must have shape (O, C / groups, kernel height, kernel width) without zeros, "
            "but got shape {}".format(tuple(weight_shape))
        )
    batch, channels, height, width = (int(size) for size in (shape if len(shape) == 4 else (1,) + tuple(shape)))
    filters, group_channels, kernel_height, kernel_width = (int(size) for size in weight_shape)
    kernel = (kernel_height, kernel_width)
    _at_least("conv2d", 1, "stride", stride)
    _at_least("conv2d", 1, "dilation", dilation)
    if groups < 1 or filters % groups:
        raise RuntimeError(
            "conv2d(): groups must be at least 1 and divide the {} filters of weight, but got {}".format(
                filters, groups
            )
        )
    if channels != group_channels * groups:
        raise RuntimeError(
            "conv2d(): weight of shape {} with groups={} needs an input of {} channels, but got shape {}".format(
                tuple(weight_shape), groups, group_channels * groups, tuple(shape)
            )
        )
    if bias_shape is not None and tuple(bias_shape) != (filters,):
        raise RuntimeError("conv2d(): bias must have shape ({},), but got {}".format(filters, tuple(bias_shape)))
    pads = _conv_pads(padding, kernel, dilation, stride)
    padded = (height + pads[0] + pads[1], width + pads[2] + pads[3])
    if height < 1 or width < 1:
        raise RuntimeError("conv2d(): input must have a height and a width, but got shape {}".format(tuple(shape)))
    blocks = _blocks(padded, kernel, dilation, (0, 0), stride)
    columns = _checked("conv2d", Geometry(batch, channels, padded, kernel, dilation, (0, 0), stride, blocks))
    return ConvGeometry(columns, pads, groups, filters)
