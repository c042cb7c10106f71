"""How tensor operations evaluate a problem: which parts of the operands give which part of the result, and how.

A plan says
    lengths   the axes of the result that are cut, outermost first
    dims      for each of them, the result's dimension
    unit      bytes, for one element of the result, of all that is there at once in a forward
    kept      the same for what autograd keeps in a backward
    shape     the result's shape, dtype its dtype, strides its strides where it isn't dense, else None
    dx_strides  those of the gradient of x
    limit     bytes that one call may use
    captures  whether the op's functions capture tensors that require grad
    piece(ranges)         which part of w, x and the result a block of `ranges` (one slice an axis) is
    evaluate(weights, x, piece) the block, from those parts; differentiable
"""

from collections import namedtuple

from im2col_compat import chunks
from im2col_compat.compat import dtypes
from im2col_compat.engines import choose
from im2col_compat.paths import layout
from im2col_compat.problem import product

Piece = namedtuple("Piece", "w x out details")


def of(op, problem, arrays, weights, x):
    """(plan, weights, x): the operands in the shapes that the plan cuts. weights: a weight and its parameters."""
    if problem.is_conv:
        strides = layout.last_strides(problem, arrays, weights[0], x)
        weights = tuple(arrays.reshape(w, (problem.groups, problem.filters, problem.taps)) for w in weights)
        x = arrays.unsqueeze(x, 0) if len(problem.x_shape) == len(problem.image) + 1 else x
        op, weights, x, captures = op.term.prepared(op, arrays, weights, x, ConvPlan.w_broadcast, ConvPlan.x_broadcast)
        return ConvPlan(op, arrays, x, problem, captures, strides), weights, x
    weights = tuple(arrays.shaped(w, problem.w_shape) for w in weights)
    x = arrays.shaped(x, problem.x_shape)
    rank = len(problem.x_shape)
    if problem.function == "linear":
        weights, axis = tuple(arrays.reshape(w, (1,) * (rank - 1) + tuple(w.shape)) for w in weights), rank
        x = arrays.unsqueeze(x, rank - 1)
    else:
        weights = tuple(arrays.unsqueeze(w, rank) for w in weights)
        x, axis = arrays.unsqueeze(x, rank - 2), rank - 1
    w = weights[0]
    broadcast = [[p == 1 and q != 1 for p, q in zip(*shapes)] for shapes in ((w.shape, x.shape), (x.shape, w.shape))]
    op, weights, x, captures = op.term.prepared(op, arrays, weights, x, *broadcast)
    return BroadcastPlan(op, arrays, weights[0], x, axis, captures), weights, x


class ConvPlan(object):
    """A convolution of w (groups, filters of a group, K) and x (N, C, ...): (N, groups, filters, blocks along each)."""

    # Terms are (N, groups, filters, K, L).
    w_broadcast = (True, False, False, False, True)
    x_broadcast = (False, False, True, False, False)

    def __init__(self, op, arrays, x, problem, captures, strides):
        self.op, self.arrays, self.captures = op, arrays, captures
        self.dx_strides, self.strides = [s and ((0,) + s)[-2 - len(problem.image) :] for s in strides]
        if self.strides:
            self.strides = self.strides[:1] + (problem.filters,) + self.strides[1:]
        self.columns, self.pads, self.image = problem.padded_columns, problem.pads, problem.image
        self.engine, self.limit = choose.choose(arrays, x, self.columns.dims), _limit(arrays, x)
        self.channels, self.taps = problem.channels, problem.taps
        self.dtype = op.result_dtype(arrays.dtype(x))
        self.pad_value = op.pad_value_for(arrays.dtype(x))
        filters, blocks = problem.filters, problem.blocks
        self.shape = (problem.batch, problem.groups, filters) + blocks
        # Besides the terms, or instead: the pixels that a block's strip moves on by, and a convolution's filters.
        pixels = self.channels * product(problem.stride)
        least = max(pixels, filters) if op.is_dot else pixels
        self.unit, self.kept = _units(op, arrays.dtype(x), self.dtype, max(self.taps, least), filters)
        # A matrix product makes no terms: it takes all filters at once.
        self.lengths = self.shape[:2] + blocks[:-1] + (1 if op.is_dot else filters, blocks[-1])
        last = 2 + len(blocks)
        self.dims = (0, 1) + tuple(range(3, last)) + (2, last)

    def piece(self, ranges):
        n, g, filters, blocks = ranges[0], ranges[1], ranges[-2], ranges[2:-2] + ranges[-1:]
        filters = slice(None) if self.op.is_dot else filters
        reaches = [self._reach(axis, along) for axis, along in enumerate(blocks)]
        channels = slice(g.start * self.channels, g.stop * self.channels)
        pixels = tuple(reach.pixels for reach in reaches)
        return Piece((g, filters), (n, channels) + pixels, (n, g, filters) + tuple(blocks), reaches)

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

    def evaluate(self, weights, x, piece):
        arrays = self.arrays
        batch, channels = int(x.shape[0]), int(x.shape[1])
        image, blocks = [tuple(sizes) for sizes in zip(*[(reach.length, reach.blocks) for reach in piece.details])]
        geometry = self.columns._replace(batch=batch, channels=channels, image=image, blocks=blocks)
        groups, filters, length = channels // self.channels, int(weights[0].shape[1]), product(geometry.blocks)
        strip = self._padded(x, geometry, piece.details, self._filler(x) if self.pad_value is None else self.pad_value)
        columns = arrays.reshape(self.engine.unfold(strip, geometry), (batch, groups, 1, self.taps, length))
        if self.op.is_dot:
            result = arrays.matmul(weights[0], columns[:, :, 0])
        else:
            absent = self._absent(x, geometry, piece.details)
            weights = tuple(arrays.reshape(w, (1, groups, filters, self.taps, 1)) for w in weights)
            result = self.op.reduction.evaluate(self.op, arrays, weights, columns, 3, absent)
        return arrays.reshape(result, (batch, groups, filters) + geometry.blocks)

    def _filler(self, x):
        # Taps that are left out get a value of the input: where a function has a pole at zero,
        # its derivative there, times nothing, would be NaN.
        real = dtypes.differentiable(self.arrays.dtype(x)) and not self.arrays.dtype(x).startswith("complex")
        return self.arrays.first(x) if real and 0 not in tuple(x.shape) else 0

    def _padded(self, x, geometry, reaches, value):
        arrays = self.arrays
        if arrays.owns(value):
            inside = self._ones(x, geometry, reaches)[0] != 0
            return arrays.where(inside, self._padded(x, geometry, reaches, 0), value)
        if any(reach.before is None for reach in reaches):
            return arrays.tensor(arrays.full(x, geometry.image_shape, value))
        pads = [(reach.before, reach.after) for reach in reaches]
        return arrays.pad(x, pads, value) if any(map(any, pads)) else x

    def _ones(self, x, geometry, reaches):
        """One channel of one image, 1 inside and 0 in the padding, and its geometry."""
        one = geometry._replace(batch=1, channels=1)
        ones = self.arrays.tensor(self.arrays.full(x, (1, 1) + tuple(int(size) for size in x.shape[2:]), 1))
        return self._padded(ones, one, reaches, 0), one

    def _absent(self, x, geometry, reaches):
        """Which terms come from padding that the op leaves out: (1, 1, 1, K, L), or None."""
        if self.pad_value is not None or all(reach.before == 0 == reach.after for reach in reaches):
            return None
        arrays = self.arrays
        absent = self.engine.unfold(*self._ones(x, geometry, reaches)) == 0
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
        self.strides = self.dx_strides = None
        sizes = [int(q if p == 1 else p) for p, q in zip(w.shape, x.shape)]
        taps = sizes.pop(axis)
        self.shape = self.lengths = tuple(sizes)
        self.dims = tuple(range(len(sizes)))
        self.dtype, self.limit = op.result_dtype(arrays.dtype(x)), _limit(arrays, x)
        self.unit, self.kept = _units(op, arrays.dtype(x), self.dtype, max(taps, 1), 1)
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
        return Piece(parts[0], parts[1], tuple(ranges), None)

    def evaluate(self, weights, x, piece):
        return self.op.reduction.evaluate(self.op, self.arrays, weights, x, self.axis, None)


def _limit(arrays, x):
    return arrays.memory_limit(x, chunks.memory_limit, chunks.device_memory_limit)


def _units(op, dtype, result_dtype, elements, filters):
    """The plan's unit and kept, for so many elements, terms or others, of each element of the result."""
    itemsize = max(dtypes.ITEMSIZE.get(name, 16) for name in (dtype, result_dtype))
    return op.reduction.held(itemsize, elements, filters)
