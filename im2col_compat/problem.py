"""Sizes in, one checked and immutable description out. Every size error is raised here.

Knows no torch and no NumPy: shapes are tuples of ints. The checks are the latest PyTorch's, in its order and with its
exception types, for every engine and every version, done in Python's unbounded integers. What passes them can't
overflow int64 in C.

A Geometry describes unfold and fold, a Problem describes conv*, linear and matmul, a Transposed conv_transpose*.
"""

import functools
import itertools
import operator
from collections import namedtuple

from im2col_compat.compat.memo import Memo

INT64_MAX = 2**63 - 1

#: How many checked descriptions are kept, of each function.
MOST_REMEMBERED = 256


class Geometry(namedtuple("Geometry", "batch channels image kernel dilation padding stride blocks")):
    """What im2col and col2im need to know: tuples with a number for each spatial dimension, outermost first.

    padding has a pair for each: (before, after).
    """

    __slots__ = ()

    @property
    def dims(self):
        return len(self.image)

    @property
    def image_shape(self):
        return (self.batch, self.channels) + self.image

    @property
    def columns_shape(self):
        return self.batch, self.channels * product(self.kernel), product(self.blocks)


_FIELDS = "function batch groups filters channels image kernel dilation stride pads blocks w_shape x_shape result_shape"


class Problem(namedtuple("Problem", _FIELDS)):
    """A convolution, linear or matmul call. linear and matmul are convolutions of rows, with a kernel of one.

    function: "conv1d", "conv2d", "conv3d", "linear" or "matmul"
    batch, groups: ints; filters, channels: of one group
    image, kernel, dilation, stride, blocks: a number for each spatial dimension; the image without its padding
    pads: (before, after) for each spatial dimension
    w_shape, x_shape: of the operands, result_shape: of the result, as the caller has them. Of linear and matmul an
        operand of one dimension counts as a matrix.
    """

    __slots__ = ()

    @property
    def is_conv(self):
        return self.function.startswith("conv")

    @property
    def taps(self):
        """Terms of one result."""
        return self.channels * product(self.kernel)

    @property
    def padded_columns(self):
        """The Geometry of a convolution's columns, of the image with its padding around it."""
        image = tuple(size + before + after for size, (before, after) in zip(self.image, self.pads))
        none = ((0, 0),) * len(image)
        channels = self.channels * self.groups
        return Geometry(self.batch, channels, image, self.kernel, self.dilation, none, self.stride, self.blocks)


class Transposed(namedtuple("Transposed", "function batch numbers w_shape x_shape result_shape parts filled")):
    """A transposed convolution, and the ordinary convolutions that are its parts.

    function: "conv_transpose1d" and so on; batch: how many images
    numbers: stride, padding, output_padding, groups and dilation, as F.conv_transpose2d takes them after the bias
    w_shape, x_shape: of the operands, result_shape: of the result, as the caller has them
    parts: Parts, of the results that inputs reach; filled: whether these are all
    """

    __slots__ = ()

    is_conv = True

    @property
    def dims(self):
        return len(self.w_shape) - 2

    @property
    def image(self):
        return self.x_shape[-self.dims :]


class Part(namedtuple("Part", "taps pixels places problem")):
    """Those results of a transposed convolution that are one stride apart: an ordinary convolution of stride 1.

    taps: the part of the kernel; pixels: of the image; places: of the result; a slice for each spatial dimension
    problem: the convolution's. Its kernel runs against the image: one of them is to be reversed. `taps` and the problem
        are for a reversed kernel, or else, as `forwards` says them, for a reversed image.
    """

    __slots__ = ()

    def forwards(self, kernel, image):
        """The same for a reversed image; its result is reversed too."""
        taps, pixels = [
            tuple(
                slice(size - 1 - (s.start + (length - 1) * (s.step or 1)), size - s.start, s.step)
                for size, s, length in zip(sizes, slices, lengths)
            )
            for sizes, slices, lengths in (
                (kernel, self.taps, self.problem.kernel),
                (image, self.pixels, self.problem.image),
            )
        ]
        return Part(taps, pixels, self.places, self.problem._replace(pads=tuple(p[::-1] for p in self.problem.pads)))


def product(numbers):
    result = 1
    for number in numbers:
        result *= number
    return result


def leads_outside(*sizes):
    """Whether a convolution has taps outside its image, of the image, kernel, dilation, stride, blocks and padding before."""
    return any(b > 0 or (n - 1) * s + (k - 1) * d - b >= size for size, k, d, s, n, b in zip(*sizes))


def dense(sizes):
    """The strides, in elements, of what is dense and of these sizes."""
    return tuple(product(sizes[axis + 1 :]) for axis in range(len(sizes)))


def channels_last(sizes):
    """The strides of what is dense with its channels last, of sizes (N, C, ...)."""
    steps = dense(sizes[:1] + sizes[2:] + sizes[1:2])
    return (steps[0], steps[-1]) + steps[1:-1]


def integers(function, name, value, too_large=TypeError, pairs=False):
    """`value` as a plain int or a tuple of plain ints; with `pairs`, of ints and pairs of ints.

    What F.unfold takes: ints, NumPy's and anything else with `__index__`, and any
    iterable of them. Bools, floats, strings and None are a TypeError.
    """
    # Tensors without dimensions have an __iter__, and can't be iterated.
    several = hasattr(value, "__iter__") and not (hasattr(value, "dim") and value.dim() == 0)
    result = _integers(value, 2 if pairs else 1) if several else _integer(value)
    if result is None:
        text = "{}(): argument '{}' must be an int or a tuple of ints{}, but got {!r} of type {}"
        raise TypeError(text.format(function, name, " or pairs of ints" if pairs else "", value, type(value).__name__))
    for item in _flat(result):
        if abs(item) > INT64_MAX:
            raise too_large("{}(): argument '{}' must fit int64, but got {}".format(function, name, item))
    return result


def _integer(value):
    """A plain int, or None for what isn't an integer."""
    # type(...).__name__ finds NumPy's bool too, without importing NumPy. (2.4's torch.compile can't compare it.)
    if isinstance(value, bool) or not isinstance(value, int) and type(value).__name__ in ("bool", "bool_"):
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
    # Tuples aren't asked for their index: torch.compile takes the refusal for an error of its own (till 2.6).
    items = tuple(
        _integers(value, depth - 1) if isinstance(value, (tuple, list)) or _integer(value) is None else _integer(value)
        for value in values
    )
    return None if None in items else items


def _flat(value):
    if not isinstance(value, tuple):
        return (value,)
    return sum((_flat(item) for item in value), ())


def _wrong_length(function, name, value, expected):
    text = "{}(): argument '{}' must be an int or have {}, but got {} values: {}"
    return RuntimeError(text.format(function, name, expected, len(value), value))


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
    """The geometry after the last checks, common to all. A stride or dilation that leads out of the padded image leads
    just so far out of it: then sums of two of the numbers can't overflow either."""
    if min(geometry.blocks) < 1:
        text = (
            "{}(): an image of size {} with kernel_size={}, dilation={}, padding={}, stride={} has {} blocks, "
            "but there must be at least one in each direction"
        )
        raise RuntimeError(text.format(function, geometry.image, *(geometry[3:7] + (geometry.blocks,))))
    for size, pads in zip(geometry.image, geometry.padding):
        if size + 2 * max(pads) > INT64_MAX:
            text = "{}(): an image of size {} with padding={} is larger than int64"
            raise RuntimeError(text.format(function, geometry.image, geometry.padding))
    for shape in (geometry.image_shape, geometry.columns_shape):
        if product(max(1, size) for size in shape) > INT64_MAX:
            raise RuntimeError("{}(): a result of shape {} has more elements than int64".format(function, shape))
    padded = tuple(size + before + after for size, (before, after) in zip(geometry.image, geometry.padding))
    stride, dilation = (tuple(map(min, numbers, padded)) for numbers in (geometry.stride, geometry.dilation))
    return geometry._replace(stride=stride, dilation=dilation)


def _remembered(function):
    """Plain arguments are checked once: that costs more than a small call."""
    memo = Memo(MOST_REMEMBERED)

    def checked(*sizes):
        for size in sizes:
            # As keys True and 1.0 would pass for 1; and a graph's sizes are no ints.
            kind = type(size)
            if kind is tuple:
                for number in size:
                    if type(number) is not int:
                        return function(*sizes)
            elif kind is not int and size is not None:
                return function(*sizes)
        known = memo.known(sizes)
        if known is not None:
            return known
        # Not a lambda: torch.compile of 2.0 finds no name of an enclosing function within one.
        return memo.get(sizes, functools.partial(function, *sizes))

    return checked


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
        text = "fold(): input's dimension {} must be divisible by the product of kernel_size={}, but its size is {}"
        raise RuntimeError(text.format(len(shape) - 2, kernel, rows))
    blocks = _blocks(image, kernel, dilation, padding, stride)
    if product(blocks) != length:
        raise RuntimeError(
            "fold(): with output_size={}, kernel_size={}, dilation={}, padding={}, stride={} there are "
            "{} = {} blocks, but input's dimension {} has size {}".format(
                image, kernel, dilation, padding, stride, " * ".join(str(count) for count in blocks), product(blocks),
                len(shape) - 1, length
            ))  # fmt: skip
    channels = rows // product(kernel)
    geometry = _checked("fold", Geometry(batch, channels, image, kernel, dilation, padding, stride, blocks))
    _at_least("fold", 1, "output_size", image)
    return geometry


def _spread(value, dims):
    """A convolution takes a tuple of one value as it takes the value."""
    return value * dims if isinstance(value, tuple) and len(value) == 1 else value


def _conv_integers(function, stride, padding, dilation):
    """The same as plain ints; a padding that is a name stays one."""
    stride = integers(function, "stride", stride, too_large=ValueError)
    if not hasattr(padding, "lower"):
        padding = integers(function, "padding", padding, too_large=ValueError, pairs=True)
    return stride, padding, integers(function, "dilation", dilation, too_large=ValueError)


def _conv_each(function, dims, stride, dilation):
    named = ("stride", stride), ("dilation", dilation)
    return [_each(function, name, _spread(value, dims), dims) for name, value in named]


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
    function = "conv{}d".format(dims)
    stride, padding, dilation = _conv_integers(function, stride, padding, dilation)
    stride, dilation = _conv_each(function, dims, stride, dilation)
    return _conv_pads(function, padding, tuple(int(size) for size in weight_shape[2:]), dilation, stride)


def _conv_problem(dims, shape, weight_shape, bias_shape, stride, padding, dilation, groups):
    """The problem of F.conv1d, conv2d or conv3d on shapes ((N,) C, ...), (O, C / groups, kernel...), (O,) or None."""
    function = "conv{}d".format(dims)
    # Types of all arguments first, as PyTorch's parser does.
    stride, padding, dilation = _conv_integers(function, stride, padding, dilation)
    (groups,) = integers(function, "groups", (groups,), too_large=ValueError)
    stride, dilation = _conv_each(function, dims, stride, dilation)
    if len(shape) not in (dims + 1, dims + 2):
        text = "{}(): input must have shape {}, but got shape {}"
        raise RuntimeError(text.format(function, _shapes(dims), tuple(shape)))
    if len(weight_shape) != dims + 2 or 0 in weight_shape:
        text = "{}(): weight must have shape (O, C / groups, kernel_size of {} values) without zeros, but got shape {}"
        raise RuntimeError(text.format(function, dims, tuple(weight_shape)))
    sizes = tuple(int(size) for size in (shape if len(shape) == dims + 2 else (1,) + tuple(shape)))
    batch, channels, image = sizes[0], sizes[1], sizes[2:]
    weight_sizes = tuple(int(size) for size in weight_shape)
    filters, group_channels, kernel = weight_sizes[0], weight_sizes[1], weight_sizes[2:]
    _at_least(function, 1, "stride", stride)
    _at_least(function, 1, "dilation", dilation)
    if groups < 1 or filters % groups:
        text = "{}(): groups must be at least 1 and divide the {} filters of weight, but got {}"
        raise RuntimeError(text.format(function, filters, groups))
    if channels != group_channels * groups:
        text = "{}(): weight of shape {} with groups={} needs an input of {} channels, but got shape {}"
        raise RuntimeError(text.format(function, tuple(weight_shape), groups, group_channels * groups, tuple(shape)))
    if bias_shape is not None and tuple(bias_shape) != (filters,):
        raise RuntimeError("{}(): bias must have shape ({},), but got {}".format(function, filters, tuple(bias_shape)))
    pads = _conv_pads(function, padding, kernel, dilation, stride)
    padded = tuple(size + before + after for size, (before, after) in zip(image, pads))
    if min(image) < 1:
        raise RuntimeError("{}(): input must have pixels, but got shape {}".format(function, tuple(shape)))
    blocks = _blocks(image, kernel, dilation, pads, stride)
    whole = _checked(function, Geometry(batch, channels, image, kernel, dilation, pads, stride, blocks))
    # Padding may be values, not zeros: then tensor operations make the padded image.
    if product(max(1, size) for size in (batch, channels) + padded) > INT64_MAX:
        text = "{}(): an image of size {} with padding={} has more elements than int64"
        raise RuntimeError(text.format(function, image, pads))
    leading = (batch,) if len(shape) == dims + 2 else ()
    return Problem(
        function, batch, groups, filters // groups, group_channels, image, kernel, whole.dilation, whole.stride, pads,
        blocks, weight_sizes, leading + (channels,) + image, leading + (filters,) + blocks)  # fmt: skip


conv_problem = _remembered(_conv_problem)


#: What conv_transpose* take after the bias, and the least that each may be.
_TRANSPOSED = (("stride", 1), ("padding", 0), ("output_padding", 0), ("dilation", 1))


@_remembered
def conv_transpose_problem(
    dims, shape, weight_shape, bias_shape, stride, padding, output_padding, groups, dilation
):  # fmt: skip
    """The problem of F.conv_transpose1d, 2d or 3d on shapes ((N,) C, ...), (C, O / groups, kernel...), (O,) or None."""
    function = "conv_transpose{}d".format(dims)
    numbers = _window(function, dims, stride, padding, output_padding, dilation)
    (groups,) = integers(function, "groups", (groups,), too_large=ValueError)
    if len(shape) not in (dims + 1, dims + 2):
        text = "{}(): input must have shape {}, but got shape {}"
        raise RuntimeError(text.format(function, _shapes(dims), tuple(shape)))
    if len(weight_shape) != dims + 2 or 0 in weight_shape:
        text = "{}(): weight must have shape (C, O / groups, kernel_size of {} values) without zeros, but got shape {}"
        raise RuntimeError(text.format(function, dims, tuple(weight_shape)))
    w_shape, x_shape = [tuple(int(size) for size in sizes) for sizes in (weight_shape, shape)]
    batch = x_shape[0] if len(x_shape) == dims + 2 else 1
    channels, filters, kernel, image = w_shape[0], w_shape[1] * groups, w_shape[2:], x_shape[-dims:]
    if groups < 1 or channels % groups:
        text = "{}(): groups must be at least 1 and divide the {} channels of weight, but got {}"
        raise RuntimeError(text.format(function, channels, groups))
    if x_shape[-dims - 1] != channels:
        text = "{}(): weight of shape {} needs an input of {} channels, but got shape {}"
        raise RuntimeError(text.format(function, w_shape, channels, x_shape))
    if bias_shape is not None and tuple(bias_shape) != (filters,):
        raise RuntimeError("{}(): bias must have shape ({},), but got {}".format(function, filters, tuple(bias_shape)))
    size = _transposed_size(function, image, kernel, *numbers)
    leading = x_shape[: -dims - 1]
    if product(max(1, length) for length in leading + (filters,) + size) > INT64_MAX:
        raise RuntimeError("{}(): a result of size {} has more elements than int64".format(function, size))
    stride, padding, output_padding, dilation = numbers
    axes = [list(_phases(*sizes)) for sizes in zip(image, kernel, stride, padding, dilation, size)]
    parts = []
    for phases in itertools.product(*axes):
        taps, pixels, places, lengths, pads, gaps = zip(*phases)
        x_part = leading + (channels,) + tuple(s.stop - s.start for s in pixels)
        w_part = (filters, channels // groups) + lengths
        problem = _conv_problem(dims, x_part, w_part, None, 1, pads, gaps, groups)
        parts.append(Part(taps, pixels, places, problem))
    found = sum(product(part.problem.blocks) for part in parts)
    numbers = stride, padding, output_padding, groups, dilation
    result_shape = leading + (filters,) + size
    return Transposed(function, batch, numbers, w_shape, x_shape, result_shape, tuple(parts), found == product(size))


def _window(function, dims, *values):
    """stride, padding, output_padding and dilation as a number for each spatial dimension."""
    found = [integers(function, name, value, ValueError) for (name, _), value in zip(_TRANSPOSED, values)]
    found = [_each(function, name, _spread(value, dims), dims) for (name, _), value in zip(_TRANSPOSED, found)]
    for (name, least), value in zip(_TRANSPOSED, found):
        _at_least(function, least, name, value)
    return found


def _transposed_size(function, image, kernel, stride, padding, output_padding, dilation):
    """The result's spatial sizes, checked."""
    if min(image) < 1:
        raise RuntimeError("{}(): input must have pixels, but their numbers are {}".format(function, image))
    if any(more >= max(sizes) for more, sizes in zip(output_padding, zip(stride, dilation))):
        text = "{}(): output_padding must be smaller than stride or dilation, but got {}, {} and {}"
        raise RuntimeError(text.format(function, output_padding, stride, dilation))
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1
        for n, k, s, p, more, d in zip(image, kernel, stride, padding, output_padding, dilation)
    )
    if min(size) < 1:
        text = "{}(): the result of an input of size {} would have size {}, but must have pixels"
        raise RuntimeError(text.format(function, image, size))
    return size


def _phases(image, kernel, stride, padding, dilation, size):
    """(taps, pixels, places, number of taps, pads, dilation) of each part of a transposed convolution, along one axis.

    Input i and tap k meet at place i * stride + k * dilation - padding. So the taps that reach one place are `step`
    apart, and the inputs that they find there `gap`, backwards.
    """
    common = _common_divisor(stride, dilation)
    step, gap = stride // common, dilation // common
    for tap in range(min(step, kernel)):
        place = (tap * dilation - padding) % stride
        count, reach = (size - 1 - place) // stride + 1, (kernel - 1 - tap) // step
        # The first place's first tap finds input `first`. All that the part reads is from `low` up to `high`.
        first = (place + padding - tap * dilation) // stride
        low, high = first - reach * gap, first + count
        if count < 1 or high < 1 or low >= image:
            continue
        taps = slice(kernel - 1 - tap - reach * step, kernel - tap, step)
        pixels, pads = slice(max(0, low), min(image, high)), (max(0, -low), max(0, high - image))
        yield taps, pixels, slice(place, size, stride), reach + 1, pads, gap


def _common_divisor(a, b):
    while b:
        a, b = b, a % b
    return a


def output_padding_for(function, shape, kernel, stride, padding, dilation, output_size):
    """The output_padding that gives a transposed convolution's result of an input of `shape` the size `output_size`.

    ValueError where none does. As for nn.ConvTranspose2d, output_size may begin with the result's batch and channels.
    """
    dims = len(kernel)
    sizes = tuple(output_size)
    more = len(sizes) - dims
    if more not in (0, len(shape) - dims):
        text = "{}(): output_size must have {} or {} values, but got {}"
        raise ValueError(text.format(function, dims, len(shape), sizes))
    sizes, found = sizes[more:], []
    for n, k, s, p, d, size in zip(shape[-dims:], kernel, stride, padding, dilation, sizes):
        least = (n - 1) * s - 2 * p + d * (k - 1) + 1
        if not least <= size < least + s:
            text = "{}(): with an input of shape {}, output_size must be from {} to {} in each direction, but got {}"
            raise ValueError(text.format(function, tuple(shape), least, least + s - 1, sizes))
        found.append(size - least)
    return tuple(found)


#: unfold_transpose as an unfold of the image with its pixels `stride` apart, whose kernel is in reverse order. pads: (before,
#: after) of that unfold; cuts: how many zeros and pixels it lacks before and after. For each dimension. (No class of its own:
#: PyTorch 2.4's graphs make none.)
Spread = namedtuple("Spread", "kernel dilation stride pads cuts")


def unfold_transpose_spread(dims, kernel_size, dilation, padding, stride, output_padding):
    """The Spread of what unfold_transpose takes. dims: how many spatial dimensions an int means."""
    function = "unfold_transpose"
    kernel = integers(function, "kernel_size", kernel_size)
    if kernel == ():
        raise _wrong_length(function, "kernel_size", kernel, "a value for each spatial dimension")
    dims = len(kernel) if isinstance(kernel, tuple) else dims
    kernel = _each(function, "kernel_size", kernel, dims)
    _at_least(function, 1, "kernel_size", kernel)
    stride, padding, output_padding, dilation = _window(function, dims, stride, padding, output_padding, dilation)
    before = [d * (k - 1) - p for k, d, p in zip(kernel, dilation, padding)]
    sides = [(b, b + more) for b, more in zip(before, output_padding)]
    pads, cuts = [tuple(tuple(max(0, sign * n) for n in pair) for pair in sides) for sign in (1, -1)]
    return Spread(kernel, dilation, stride, pads, cuts)


#: The same, outside graphs: PyTorch 2.4's record no memo.
remembered_spread = _remembered(unfold_transpose_spread)


@_remembered
def check_unfold_transpose(shape, kernel, dilation, padding, stride, output_padding):
    """RuntimeError for an input of unfold_transpose that doesn't suit its other arguments, once these are checked."""
    function, dims = "unfold_transpose", len(kernel)
    if len(shape) not in (dims + 1, dims + 2) or 0 in shape[-dims - 1 :]:
        text = "{}(): input must have shape {} with only N allowed to be 0, but got shape {}"
        raise RuntimeError(text.format(function, _shapes(dims), tuple(shape)))
    numbers = _window(function, dims, stride, padding, output_padding, dilation)
    _transposed_size(function, tuple(shape[-dims:]), kernel, *numbers)


@_remembered
def linear_problem(shape, weight_shape, bias_shape):
    """The problem of F.linear on shapes (..., K), (O, K) or (K,), (O,) or None."""
    if len(shape) < 1 or len(weight_shape) not in (1, 2) or shape[-1] != weight_shape[-1]:
        text = "linear(): input must have shape (..., K) and weight (O, K) or (K,), but got {} and {}"
        raise RuntimeError(text.format(tuple(shape), tuple(weight_shape)))
    if bias_shape is not None and tuple(bias_shape) != tuple(weight_shape[:-1]):
        text = "linear(): bias must have shape {}, but got {}"
        raise RuntimeError(text.format(tuple(weight_shape[:-1]), tuple(bias_shape)))
    sizes, weight_sizes = tuple(int(size) for size in shape), tuple(int(size) for size in weight_shape)
    w_shape = weight_sizes if len(weight_sizes) == 2 else (1,) + weight_sizes
    result_shape = sizes[:-1] + weight_sizes[:-1]
    return _of_rows("linear", 1, 1, w_shape[0], sizes[-1], product(sizes[:-1]), w_shape, sizes, result_shape)


@_remembered
def matmul_problem(a_shape, b_shape):
    """The problem of torch.matmul on shapes (..., M, K) and (..., K, N)."""
    shapes = tuple(a_shape), tuple(b_shape)
    if not shapes[0] or not shapes[1] or shapes[0][-1] != shapes[1][-2 if len(shapes[1]) > 1 else 0]:
        text = "matmul(): a and b must have shapes (..., M, K) and (..., K, N), but got {} and {}"
        raise RuntimeError(text.format(*shapes))
    w, x = [tuple(int(size) for size in shape) for shape in shapes]
    w, x = w if len(w) > 1 else (1,) + w, x if len(x) > 1 else x + (1,)
    rank = max(len(w), len(x))
    w, x = [(1,) * (rank - len(shape)) + shape for shape in (w, x)]
    leading = w[:-2], x[:-2]
    if any(p != q and 1 not in (p, q) for p, q in zip(*leading)):
        raise RuntimeError("matmul(): leading dimensions must broadcast, but got shapes {} and {}".format(*shapes))
    broadcast = tuple(q if p == 1 else p for p, q in zip(*leading))
    # A batch is one of images, of filters, or of groups.
    batch, groups, filters = 1, 1, w[-2]
    if product(leading[0]) == 1:
        batch = product(broadcast)
    elif product(leading[1]) == 1:
        filters = product(broadcast) * w[-2]
    else:
        groups = product(broadcast)
    result_shape = broadcast + (() if len(shapes[0]) == 1 else w[-2:-1]) + (() if len(shapes[1]) == 1 else x[-1:])
    return _of_rows("matmul", batch, groups, filters, w[-1], x[-1], w, x, result_shape)


def _of_rows(function, batch, groups, filters, channels, count, *shapes):
    return Problem(function, batch, groups, filters, channels, (count,), (1,), (1,), (1,), ((0, 0),), (count,), *shapes)
