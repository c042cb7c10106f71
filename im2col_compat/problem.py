"""Sizes in, one checked and immutable description out. Every size error is raised here.

Knows no torch and no NumPy: shapes are tuples of ints. The checks are the latest
PyTorch's, in its order and with its exception types, for every engine and every
version, done in Python's unbounded integers. What passes them can't overflow
int64 in C.
"""

import operator
from collections import namedtuple

INT64_MAX = 2**63 - 1

#: Geometries that are kept.
MOST_REMEMBERED = 256


class Geometry(namedtuple("Geometry", "batch channels image kernel dilation padding stride blocks")):
    """What im2col and col2im need to know: tuples with a number for each spatial dimension, outermost first.

    padding has a pair for each: (before, after). Others may keep what they work out of one here, under their own names.
    """

    def __getstate__(self):
        return None  # what others keep needn't be copied with it, nor could be

    @property
    def dims(self):
        return len(self.image)

    @property
    def image_shape(self):
        return (self.batch, self.channels) + self.image

    @property
    def columns_shape(self):
        known = self.__dict__
        if "columns_shape" not in known:
            known["columns_shape"] = (self.batch, self.channels * product(self.kernel), product(self.blocks))
        return known["columns_shape"]


def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def integers(function, name, value, too_large=TypeError, pairs=False):
    """`value` as a plain int or a tuple of plain ints; with `pairs`, of ints and pairs of ints.

    What F.unfold takes: ints, NumPy's and anything else with `__index__`, and any
    iterable of them. Bools, floats, strings and None are a TypeError.
    """
    result = _integers(value, 2 if pairs else 1) if hasattr(value, "__iter__") else _integer(value)
    if result is None:
        raise TypeError(
            "{}(): argument '{}' must be an int or a tuple of ints{}, but got {!r} of type {}".format(
                function, name, " or pairs of ints" if pairs else "", value, type(value).__name__
            )
        )
    for item in _flat(result):
        if abs(item) > INT64_MAX:
            raise too_large("{}(): argument '{}' must fit int64, but got {}".format(function, name, item))
    return result


def _integer(value):
    """A plain int, or None for what isn't an integer."""
    # type(...).__name__ finds NumPy's bool too, without importing NumPy.
    if type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return int(operator.index(value))
    except TypeError:
        return None


def _integers(values, depth):
    """A tuple of plain ints, or of such tuples where depth is 2; None for anything else."""
    if depth == 0 or hasattr(values, "lower"):
        return None
    try:
        values = tuple(values)
    except TypeError:
        return None
    items = tuple(_integers(value, depth - 1) if _integer(value) is None else _integer(value) for value in values)
    return None if None in items else items


def _flat(value):
    if not isinstance(value, tuple):
        return (value,)
    return sum((_flat(item) for item in value), ())


def _wrong_length(function, name, value, expected):
    return RuntimeError(
        "{}(): argument '{}' must be an int or have {}, but got {} values: {}".format(
            function, name, expected, len(value), value
        )
    )


def _each(function, name, value, dims):
    """A number for each spatial dimension."""
    if not isinstance(value, tuple):
        return (value,) * dims
    if len(value) != dims:
        raise _wrong_length(function, name, value, "{} values".format(dims))
    return value


def _sides(function, name, value, dims):
    """Of a padding: (before, after) for each spatial dimension."""
    sides = tuple(side if isinstance(side, tuple) else (side, side) for side in _each(function, name, value, dims))
    for pair in sides:
        if len(pair) != 2:
            raise _wrong_length(function, name, pair, "pairs (before, after)")
    return sides


def _at_least(function, least, name, value):
    if min(_flat(value)) < least:
        raise RuntimeError("{}(): {} must be at least {}, but got {}".format(function, name, least, value))


def _shapes(dims):
    """An image's shapes, as messages name them."""
    return "(C, {0}) or (N, C, {0})".format({1: "L", 2: "H, W", 3: "D, H, W"}.get(dims, "{} sizes".format(dims)))


def _blocks(image, kernel, dilation, padding, stride):
    """How many blocks fit, per dimension; below one where none does."""
    return tuple(
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, k, d, (before, after), s in zip(image, kernel, dilation, padding, stride)
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
    for size, pads in zip(geometry.image, geometry.padding):
        if size + 2 * max(pads) > INT64_MAX:
            raise RuntimeError(
                "{}(): an image of size {} with padding={} is larger than int64".format(
                    function, geometry.image, geometry.padding
                )
            )
    for shape in (geometry.image_shape, geometry.columns_shape):
        if product(max(1, size) for size in shape) > INT64_MAX:
            raise RuntimeError("{}(): a result of shape {} has more elements than int64".format(function, shape))
    return geometry


def _remembered(function):
    """Plain arguments are checked once: that costs more than a small unfold."""
    known = {}

    def geometry(*sizes):
        for size in sizes:
            # As keys True and 1.0 would pass for 1; and a graph's sizes are no ints.
            plain = type(size) is int or size is None
            if not plain and (type(size) is not tuple or [True for i in size if type(i) is not int]):
                return function(*sizes)
        result = known.get(sizes)
        if result is None:
            result = function(*sizes)
            if len(known) >= MOST_REMEMBERED:
                known.clear()
            known[sizes] = result
        return result

    return geometry


@_remembered
def unfold_geometry(shape, kernel_size, dilation, padding, stride):
    """The geometry of unfold on an image of `shape`, (N, C, ...) or (C, ...)."""
    kernel = integers("unfold", "kernel_size", kernel_size)
    dilation = integers("unfold", "dilation", dilation)
    padding = integers("unfold", "padding", padding, pairs=True)
    stride = integers("unfold", "stride", stride)
    dims = len(kernel) if isinstance(kernel, tuple) else 3 if len(shape) == 5 else 2
    if kernel == ():
        raise _wrong_length("unfold", "kernel_size", kernel, "a value for each spatial dimension")
    kernel = _each("unfold", "kernel_size", kernel, dims)
    dilation = _each("unfold", "dilation", dilation, dims)
    padding = _sides("unfold", "padding", padding, dims)
    stride = _each("unfold", "stride", stride, dims)
    _at_least("unfold", 1, "kernel_size", kernel)
    _at_least("unfold", 1, "dilation", dilation)
    _at_least("unfold", 0, "padding", padding)
    _at_least("unfold", 1, "stride", stride)
    if len(shape) not in (dims + 1, dims + 2) or 0 in shape[-dims - 1 :]:
        # PyTorch looks at dimensions 1 and 2 before it counts them.
        missing = len(shape) < 2 or len(shape) == 2 and shape[1] != 0
        raise (IndexError if missing and dims == 2 else RuntimeError)(
            "unfold(): with a kernel_size of {} values, input must have shape {} with only N allowed to be 0, "
            "but got shape {}".format(dims, _shapes(dims), tuple(shape))
        )
    sizes = tuple(int(size) for size in (shape if len(shape) == dims + 2 else (1,) + tuple(shape)))
    image = sizes[2:]
    blocks = _blocks(image, kernel, dilation, padding, stride)
    return _checked("unfold", Geometry(sizes[0], sizes[1], image, kernel, dilation, padding, stride, blocks))


@_remembered
def fold_geometry(shape, output_size, kernel_size, dilation, padding, stride):
    """The geometry of fold on columns of `shape` ((N,) C * kernel product, L)."""
    image = integers("fold", "output_size", output_size)
    kernel = integers("fold", "kernel_size", kernel_size)
    dilation = integers("fold", "dilation", dilation)
    padding = integers("fold", "padding", padding, pairs=True)
    stride = integers("fold", "stride", stride)
    dims = len(kernel) if isinstance(kernel, tuple) else len(image) if isinstance(image, tuple) else 2
    for name, value in (("kernel_size", kernel), ("output_size", image)):
        if value == ():
            raise _wrong_length("fold", name, value, "a value for each spatial dimension")
    image = _each("fold", "output_size", image, dims)
    kernel = _each("fold", "kernel_size", kernel, dims)
    dilation = _each("fold", "dilation", dilation, dims)
    padding = _sides("fold", "padding", padding, dims)
    stride = _each("fold", "stride", stride, dims)
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
            "{} = {} blocks, but input's dimension {} has size {}".format(
                image, kernel, dilation, padding, stride, " * ".join(str(count) for count in blocks), product(blocks),
                len(shape) - 1, length
            )
        )  # fmt: skip
    channels = rows // product(kernel)
    geometry = _checked("fold", Geometry(batch, channels, image, kernel, dilation, padding, stride, blocks))
    _at_least("fold", 1, "output_size", image)
    return geometry


class ConvGeometry(namedtuple("ConvGeometry", "columns pads groups filters")):
    """A convolution: its columns' Geometry on the padded image (so padding is 0 there), and how that image is padded.

    pads: (before, after) for each spatial dimension, groups: int, filters: number of output channels. Others may keep
    what they work out of one here, under their own names.
    """

    @property
    def output_shape(self):
        return (self.columns.batch, self.filters) + self.columns.blocks


def _spread(value, dims):
    """A convolution takes a tuple of one value as it takes the value."""
    return value * dims if isinstance(value, tuple) and len(value) == 1 else value


def _conv_integers(function, stride, padding, dilation):
    """The same as plain ints; a padding that is a name stays one."""
    stride = integers(function, "stride", stride, too_large=ValueError)
    if not hasattr(padding, "lower"):
        padding = integers(function, "padding", padding, too_large=ValueError, pairs=True)
    return stride, padding, integers(function, "dilation", dilation, too_large=ValueError)


def _conv_pads(function, padding, kernel, dilation, stride):
    """Pairs (before, after) of a convolution's `padding`: ints, pairs, "same" or "valid"."""
    dims = len(kernel)
    if not hasattr(padding, "lower"):
        pads = _sides(function, "padding", _spread(padding, dims), dims)
        _at_least(function, 0, "padding", pads)
        return pads
    if padding == "valid":
        return ((0, 0),) * dims
    if padding == "same":
        if max(stride) != 1:
            raise RuntimeError("{}(): padding='same' needs stride 1, but got stride={}".format(function, stride))
        totals = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return tuple((total // 2, total - total // 2) for total in totals)
    raise RuntimeError("{}(): padding must be ints, 'same' or 'valid', but got {!r}".format(function, padding))


def conv_pads(dims, weight_shape, padding, stride, dilation):
    """Pairs (before, after) for each spatial dimension, of what conv1d, conv2d and conv3d take as padding."""
    function, kernel = "conv{}d".format(dims), tuple(int(size) for size in weight_shape[2:])
    stride, padding, dilation = _conv_integers(function, stride, padding, dilation)
    stride = _each(function, "stride", _spread(stride, dims), dims)
    dilation = _each(function, "dilation", _spread(dilation, dims), dims)
    return _conv_pads(function, padding, kernel, dilation, stride)


@_remembered
def conv_geometry(dims, shape, weight_shape, bias_shape, stride, padding, dilation, groups):
    """The geometry of F.conv1d, conv2d or conv3d on shapes ((N,) C, ...), (O, C / groups, kernel...), (O,) or None."""
    function = "conv{}d".format(dims)
    # Types of all arguments first, as PyTorch's parser does.
    stride, padding, dilation = _conv_integers(function, stride, padding, dilation)
    (groups,) = integers(function, "groups", (groups,), too_large=ValueError)
    stride = _each(function, "stride", _spread(stride, dims), dims)
    dilation = _each(function, "dilation", _spread(dilation, dims), dims)
    if len(shape) not in (dims + 1, dims + 2):
        raise RuntimeError(
            "{}(): input must have shape {}, but got shape {}".format(function, _shapes(dims), tuple(shape))
        )
    if len(weight_shape) != dims + 2 or 0 in weight_shape:
        raise RuntimeError(
            "{}(): weight must have shape (O, C / groups, kernel_size of {} values) without zeros, "
            "but got shape {}".format(function, dims, tuple(weight_shape))
        )
    sizes = tuple(int(size) for size in (shape if len(shape) == dims + 2 else (1,) + tuple(shape)))
    batch, channels, image = sizes[0], sizes[1], sizes[2:]
    weight_sizes = tuple(int(size) for size in weight_shape)
    filters, group_channels, kernel = weight_sizes[0], weight_sizes[1], weight_sizes[2:]
    _at_least(function, 1, "stride", stride)
    _at_least(function, 1, "dilation", dilation)
    if groups < 1 or filters % groups:
        raise RuntimeError(
            "{}(): groups must be at least 1 and divide the {} filters of weight, but got {}".format(
                function, filters, groups
            )
        )
    if channels != group_channels * groups:
        raise RuntimeError(
            "{}(): weight of shape {} with groups={} needs an input of {} channels, but got shape {}".format(
                function, tuple(weight_shape), groups, group_channels * groups, tuple(shape)
            )
        )
    if bias_shape is not None and tuple(bias_shape) != (filters,):
        raise RuntimeError("{}(): bias must have shape ({},), but got {}".format(function, filters, tuple(bias_shape)))
    pads = _conv_pads(function, padding, kernel, dilation, stride)
    padded = tuple(size + before + after for size, (before, after) in zip(image, pads))
    if min(image) < 1:
        raise RuntimeError("{}(): input must have pixels, but got shape {}".format(function, tuple(shape)))
    none = ((0, 0),) * dims
    blocks = _blocks(padded, kernel, dilation, none, stride)
    columns = _checked(function, Geometry(batch, channels, padded, kernel, dilation, none, stride, blocks))
    return ConvGeometry(columns, pads, groups, filters)
