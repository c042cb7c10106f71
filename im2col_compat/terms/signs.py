"""Products of signs, by bits: C kernels look up sums of four, packed into a byte; or they compare 32 signs at once, packed
into a word, and count those that differ."""

import functools

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen import factors, symbols
from im2col_compat.codegen.kernels import LEVELS, Kernels, Packed
from im2col_compat.compat import dtypes, memory
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import MASKS_ARE_BYTES
from im2col_compat.cuda import signs as gpu_signs
from im2col_compat.problem import dense, product
from im2col_compat.terms import named
from im2col_compat.terms.function import GPU, Function

#: Signs in a word: as many as a lane of results has bits, so that a vector of words gives a vector of results.
BITS = 32
#: Bytes of words of w, and of x, at a time.
ROOM = 2 * 2**20
#: Channels of a group up to which signs are bytes where kernels read them where they lie, and what pads these.
MOST_CHANNELS, NOTHING = 16, (0,) * 8
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

    def found(self, op, dtype, arrays, level, scalars=()):
        if not _can_be_packed(op, dtype):
            return super(Signs, self).found(op, dtype, arrays, level, scalars)
        # Kernels for floats give the gradients, with the op's own surrogates; integers have none.
        floats, reason = (
            super(Signs, self).found(op, dtype, arrays, level, scalars) if dtype in named.DTYPES else (None, None)
        )
        forward = lowlevel.fours_kernels(dtype, level)
        origin = "built in, {}, for signs packed into {}".format(LEVELS[level], "bytes" if forward else "words")
        pack = None if forward else functools.partial(_packed, dtype, level)
        if floats is None:
            return Kernels(None, dtype, _result_dtype(dtype), origin, None, pack, None, forward=forward), None
        partials = floats.partials
        if op.is_named and arrays is TORCH:
            partials = factors.partials(op, symbols.trace(op, dtype, arrays))
        # product: PyTorch's convolution of the signs would be slower.
        return floats._replace(
            origin=origin, pack=pack, result_dtype=dtype, partials=partials, product=None, forward=forward
        ), None

    def gpu_found(self, op, dtype, make, scalars=()):
        found, reason = super(Signs, self).gpu_found(op, dtype, make, scalars)
        if not _can_be_packed(op, dtype):
            return found, reason
        found = make(op, None, dtype, GPU, scalars)[0] if found is None else found
        origin = found.origin + ", for signs packed into words"
        return found._replace(origin=origin, packed=functools.partial(gpu_signs.forward, dtype)), None

    def prepared(self, op, arrays, weights, x, w_broadcast, x_broadcast):
        if arrays.dtype(x) == "bool":
            w, x = (arrays.cast(operand, "int8") * 2 - 1 for operand in (weights[0], x))  # True is +1
            weights = (w,)
        return super(Signs, self).prepared(op, arrays, weights, x, w_broadcast, x_broadcast)


def _can_be_packed(op, dtype):
    """Whether words of signs give an op's result: the sum of those that are there."""
    return dtype in DTYPES and op.reduction.fuses_products and op.pad_value is None


def _of_bytes(arrays, function, name, mask):
    """The signs of a mask, where masks are bytes: 1 is +1."""
    if 0 not in tuple(mask.shape) and arrays.extremes(mask)[1] > 1:
        text = (
            "{}(): the signs of {} are unknown: to this PyTorch uint8 is a mask, of 0 and 1, but it has larger numbers"
        )
        raise ValueError(text.format(function, name))
    return arrays.cast(mask, "int8") * 2 - 1


def _packed(dtype, level, layout, arrays, w, x):
    """Packed, for each part of the result: w and x as words of signs, which take the place of a group's channels; or as
    bytes, where groups have few filters and channels."""
    channels = layout.channels
    if channels <= MOST_CHANNELS and channels * product(layout.image) <= ROOM:
        as_bytes = layout._replace(pad=NOTHING)
        if lowlevel.prefers_direct(lowlevel.FORWARD, as_bytes):
            for packed in _bytes(dtype, level, as_bytes, arrays, w, x):
                yield packed
            return
    address, words = lowlevel.signs_kernels(_result_dtype(dtype), lowlevel.WORDS, level), -(-channels // BITS)
    last = 2 ** (channels - BITS * (words - 1)) - 1 if channels % BITS else layout.last
    size, itemsize = dtypes.ITEMSIZE[dtype], BITS // 8
    w_from, x_from, w_words, packed_from = arrays.address(w), arrays.address(x), None, None
    most = max(layout.filters * product(layout.kernel), layout.batch * product(layout.image))
    if itemsize * words * layout.groups * most <= ROOM:
        parts = [(layout, 0, 0, 0)]
    else:
        parts = layout.parts(ROOM // (itemsize * words))
    for part, w_start, x_start, y_start in parts:
        if w_words is None or w_start != packed_from:
            sizes = part.groups * part.filters, 1, channels, part.kernel
            w_words = _pack(w_from + w_start * size, dtype, sizes, part.w_strides, level, lowlevel.WORDS)
            packed_from = w_start
        sizes = part.batch, part.groups, channels, part.image
        x_words = _pack(x_from + x_start * size, dtype, sizes, part.x_strides, level, lowlevel.WORDS)
        packed = part._replace(
            channels=words,
            x_strides=dense((part.batch, part.groups * words) + part.image),
            w_strides=dense((part.groups * part.filters, words) + part.kernel),
            pad=None,
            multiplications=part.multiplications // channels * words,
            last=last,
        )
        addresses = lowlevel.address_of(w_words), lowlevel.address_of(x_words)
        yield Packed(packed, address, itemsize, addresses[0], addresses[1], y_start, (w_words, x_words))


def _bytes(dtype, level, layout, arrays, w, x):
    """The same as bytes: +1, -1, and 0 for what pads."""
    address = lowlevel.signs_kernels(_result_dtype(dtype), lowlevel.BYTES, level)
    size, w_from, x_from = dtypes.ITEMSIZE[dtype], arrays.address(w), arrays.address(x)
    for part, w_start, x_start, y_start in layout.parts(ROOM // layout.channels):
        filters, channels = part.groups * part.filters, part.channels
        w_sizes, x_sizes = (filters, 1, channels, part.kernel), (part.batch, part.groups, channels, part.image)
        signs = _pack(w_from + w_start * size, dtype, w_sizes, part.w_strides, level, lowlevel.BYTES), _pack(
            x_from + x_start * size, dtype, x_sizes, part.x_strides, level, lowlevel.BYTES
        )
        packed = part._replace(
            x_strides=dense((part.batch, part.groups * channels) + part.image),
            w_strides=dense((filters, channels) + part.kernel),
        )
        yield Packed(packed, address, 1, lowlevel.address_of(signs[0]), lowlevel.address_of(signs[1]), y_start, signs)


def _result_dtype(dtype):
    """The dtype of sums."""
    return dtype if dtype in named.DTYPES else "int64"


def _pack(values, dtype, sizes, strides, level, kind):
    batch, groups, channels, image = sizes
    each, unit = (BITS, np.uint32) if kind == lowlevel.WORDS else (1, np.uint8)
    packed = np.empty((batch, groups, -(-channels // each)) + image, unit)
    threads = memory.threads() if channels * packed.size >= lowlevel.LEAST_FOR_THREADS else 1
    lowlevel.pack_signs(values, dtype, sizes, strides, lowlevel.address_of(packed), kind, threads, level)
    return packed
