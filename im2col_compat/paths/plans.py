"""Convolutions, linear and matmul by tensor operations, in blocks: plans for chunks.run. Any op, device and dtype."""

from collections import namedtuple

from im2col_compat.compat import dtypes
from im2col_compat.engines import choose as backends
from im2col_compat.op import NAMED
from im2col_compat.paths import chunks
from im2col_compat.problem import product
from im2col_compat.terms import function as terms


def conv(op, arrays, w, x, geometry):
    """w (groups, filters of a group, K), x (N, C, ...): (N, filters of all groups, blocks along each dimension)."""
    w, x = terms.operands(op, arrays, w, x)
    op, captures = terms.understood(op, arrays, w, x, ConvPlan.w_broadcast, ConvPlan.x_broadcast)
    result = chunks.run(ConvPlan(op, arrays, x, geometry, captures), arrays, w, x)
    return arrays.reshape(result, geometry.output_shape)


def linear(op, arrays, w, x):
    """w (O, K), x (..., K): (..., O)."""
    w = arrays.reshape(w, (1,) * (len(x.shape) - 1) + tuple(w.shape))
    return _contract(op, arrays, w, arrays.unsqueeze(x, len(x.shape) - 1), len(x.shape))


def matmul(op, arrays, w, x):
    """w (..., M, K), x (..., K, N) of one rank, leading dimensions broadcasting: (..., M, N)."""
    rank = len(w.shape)
    return _contract(op, arrays, arrays.unsqueeze(w, rank), arrays.unsqueeze(x, rank - 2), rank - 1)


def _contract(op, arrays, w, x, axis):
    w, x = terms.operands(op, arrays, w, x)
    broadcast = [[p == 1 and q != 1 for p, q in zip(*shapes)] for shapes in ((w.shape, x.shape), (x.shape, w.shape))]
    op, captures = terms.understood(op, arrays, w, x, *broadcast)
    plan = BroadcastPlan(op, arrays, w, x, axis, captures)
    if not w.shape[axis]:
        result = arrays.tensor(arrays.full(x, plan.shape, terms.of_no_terms(op, plan.dtype), plan.dtype))
        # Zero, of both operands, so that there is a gradient, if an empty one.
        return result + 0 * (w.sum() + x.sum()) if dtypes.differentiable(plan.dtype) else result
    return chunks.run(plan, arrays, w, x)


class ConvPlan(object):
    """A convolution of w (groups, filters of a group, K) and x (N, C, ...), as (N, groups, filters, blocks along each)."""

    # Terms are (N, groups, filters, K, L).
    w_broadcast = (True, False, False, False, True)
    x_broadcast = (False, False, True, False, False)

    def __init__(self, op, arrays, x, geometry, captures):
        self.op, self.arrays, self.captures = op, arrays, captures
        self.columns, self.pads = geometry.columns, geometry.pads
        self.engine = backends.choose(arrays, x, self.columns.dims)
        self.image = tuple(int(size) for size in x.shape[2:])
        self.channels = self.columns.channels // geometry.groups
        self.taps = self.channels * product(self.columns.kernel)
        self.dtype = terms.result_dtype(op, arrays.dtype(x))
        self.pad_value = op.pad_value_for(arrays.dtype(x))
        filters = geometry.filters // geometry.groups
        blocks = self.columns.blocks
        self.shape = (self.columns.batch, geometry.groups, filters) + blocks
        self.is_dot = op is NAMED["dot"]
        # Besides the terms, or instead: the pixels that a block's strip moves on by, and a product's filters.
        pixels = self.channels * product(self.columns.stride)
        self.unit, self.kept = _units(
            op, arrays.dtype(x), self.dtype, self.taps, max(pixels, filters) if self.is_dot else pixels, filters
        )
        # A matrix product makes no terms: it takes all filters at once.
        self.lengths = self.shape[:2] + blocks[:-1] + (1 if self.is_dot else filters, blocks[-1])
        last = 2 + len(blocks)
        self.dims = (0, 1) + tuple(range(3, last)) + (2, last)

    def piece(self, ranges):
        n, g, filters, blocks = ranges[0], ranges[1], ranges[-2], ranges[2:-2] + ranges[-1:]
        filters = slice(None) if self.is_dot else filters
        reaches = [self._reach(axis, along) for axis, along in enumerate(blocks)]
        channels = slice(g.start * self.channels, g.stop * self.channels)
        pixels = tuple(reach.pixels for reach in reaches)
        return chunks.Piece((g, filters), (n, channels) + pixels, (n, g, filters) + tuple(blocks), reaches)

    def _reach(self, axis, blocks):
        """What a range of blocks reads along one axis."""
        columns, before, size = self.columns, self.pads[axis][0], self.image[axis]
        start = blocks.start * columns.stride[axis] - before
        stop = (blocks.stop - 1) * columns.stride[axis] - before
        stop += (columns.kernel[axis] - 1) * columns.dilation[axis] + 1
        first, last = max(0, start), min(size, stop)
        count = blocks.stop - blocks.start
        if first >= last:
            # Padding alone. A pixel is named all the same: 0.3 has no empty slices.
            return _Reach(slice(0, 1), None, None, stop - start, count)
        return _Reach(slice(first, last), first - start, stop - last, stop - start, count)

    def evaluate(self, w, x, piece):
        arrays = self.arrays
        batch, channels = int(x.shape[0]), int(x.shape[1])
        geometry = self.columns._replace(
            batch=batch,
            channels=channels,
            image=tuple(reach.length for reach in piece.details),
            blocks=tuple(reach.blocks for reach in piece.details),
        )
        groups, filters, length = channels // self.channels, int(w.shape[1]), product(geometry.blocks)
        strip = self._padded(x, geometry, piece.details, self._filler(x) if self.pad_value is None else self.pad_value)
        columns = arrays.reshape(self.engine.unfold(strip, geometry), (batch, groups, 1, self.taps, length))
        if self.is_dot:
            result = arrays.matmul(w, columns[:, :, 0])
        else:
            absent = self._absent(x, geometry, piece.details)
            w = arrays.reshape(w, (1, groups, filters, self.taps, 1))
            result = terms.evaluate(self.op, arrays, w, columns, 3, absent)
        return arrays.reshape(result, (batch, groups, filters) + geometry.blocks)

    def _filler(self, x):
        # Taps that are left out get a value of the input: where a function has a pole at zero,
        # its derivative there, times nothing, would be NaN.
        real = dtypes.differentiable(self.arrays.dtype(x)) and not self.arrays.dtype(x).startswith("complex")
        return self.arrays.first(x) if real and 0 not in tuple(x.shape) else 0

    def _padded(self, x, geometry, reaches, value):
        arrays = self.arrays
        if any(reach.before is None for reach in reaches):
            return arrays.tensor(arrays.full(x, geometry.image_shape, value))
        pads = [(reach.before, reach.after) for reach in reaches]
        return arrays.pad(x, pads, value) if any(map(any, pads)) else x

    def _absent(self, x, geometry, reaches):
        """Which terms come from padding that the op leaves out: (1, 1, 1, K, L), or None."""
        if self.pad_value is not None or all(reach.before == 0 == reach.after for reach in reaches):
            return None
        arrays = self.arrays
        one = geometry._replace(batch=1, channels=1)
        ones = arrays.tensor(arrays.full(x, (1, 1) + tuple(int(size) for size in x.shape[2:]), 1))
        absent = self.engine.unfold(self._padded(ones, one, reaches, 0), one) == 0
        kernel, length = product(geometry.kernel), product(geometry.blocks)
        absent = arrays.expand(arrays.reshape(absent, (1, 1, kernel, length)), (1, self.channels, kernel, length))
        return arrays.reshape(absent, (1, 1, 1, self.taps, length))


#: pixels: the slice of the image. before, after: how many pixels of padding on either
#: side, None where there is padding alone. length: all of these. blocks: how many.
_Reach = namedtuple("_Reach", "pixels before after length blocks")


class BroadcastPlan(object):
    """add along `axis` of multiply(w, x), for operands that broadcast."""

    def __init__(self, op, arrays, w, x, axis, captures):
        self.op, self.arrays, self.axis, self.captures = op, arrays, axis, captures
        sizes = list(terms.broadcast_shape(w, x))
        taps = sizes.pop(axis)
        self.shape = self.lengths = tuple(sizes)
        self.dims = tuple(range(len(sizes)))
        self.dtype = terms.result_dtype(op, arrays.dtype(x))
        self.unit, self.kept = _units(op, arrays.dtype(x), self.dtype, taps, 1, 1)
        self.cut = [self._cut(operand) for operand in (w, x)]

    def _cut(self, operand):
        sizes = [int(size) for size in operand.shape]
        del sizes[self.axis]
        return [size != 1 for size in sizes]

    def piece(self, ranges):
        parts = []
        for cut in self.cut:
            part = [r if c else slice(None) for r, c in zip(ranges, cut)]
            part.insert(self.axis, slice(None))
            parts.append(tuple(part))
        return chunks.Piece(parts[0], parts[1], tuple(ranges), None)

    def evaluate(self, w, x, piece):
        return terms.evaluate(self.op, self.arrays, w, x, self.axis)


def _units(op, dtype, result_dtype, taps, least, filters):
    """The plan's unit and kept, for `taps` terms and at least `least` other elements of each element of the result."""
    itemsize = max(dtypes.ITEMSIZE.get(name, 16) for name in (dtype, result_dtype))
    unit = kept = itemsize * max(taps, least)
    if callable(op.add):
        # Added term by term: a forward holds one at a time, and the columns, which the filters share.
        # A backward makes many small steps, so it may take a larger share.
        unit, kept = itemsize * max(4, -(-max(taps, least) // filters)), max(1, kept // 4)
    return unit, kept
