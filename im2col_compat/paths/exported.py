"""The path of torch.onnx.export: operations of PyTorch's that become standard operators. They compute a forward alone.

Sizes of images and batches may be symbols. So blocks are cut where the weight's sizes say.
"""

import functools

from im2col_compat import chunks
from im2col_compat.codegen import evaluate, symbols
from im2col_compat.compat import dtypes, graphs
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import torch
from im2col_compat.engines import recorded
from im2col_compat.paths import native, products
from im2col_compat.problem import product


def _of_standard(function):
    """function(op, found, weights, x, ...) as one of (op, weights, x, ...), which finds what the op is in a graph: a
    terms.function.Standard. Halves are widened, and rounded once."""

    @functools.wraps(function)
    def call(op, weights, x, *numbers):
        dtype = TORCH.dtype(x)
        wide = "float32" if dtype in dtypes.HALVES else dtype
        found, operands = op.term.in_graph(op, wide), [t.detach() for t in list(weights) + [x]]
        if wide == dtype:
            return function(op, found, operands[:-1], operands[-1], *numbers)
        operands = [TORCH.cast(t, wide) for t in operands]
        return TORCH.cast(function(op, found, operands[:-1], operands[-1], *numbers), dtype)

    return call


@_of_standard
def conv(op, found, weights, x, stride, pads, dilation, groups):
    """A convolution, of pads (before, after) for each dimension."""
    if x.dim() == len(stride) + 1:
        return _conv(op, found, weights, x.unsqueeze(0), stride, pads, dilation, groups).squeeze(0)
    return _conv(op, found, weights, x, stride, pads, dilation, groups)


def _conv(op, found, weights, x, stride, pads, dilation, groups):
    pad, some = op.pad_value_for(TORCH.dtype(x)), any(map(any, pads))
    if found.pair is not None:
        if some and not products.vanishes(found.pair[1], pad):
            x, pads = TORCH.pad(x, pads, pad), ((0, 0),) * len(pads)
        w, x = _factors(op, found.pair, weights, x)
        even = all(before == after for before, after in pads)
        sides = tuple(before for before, _ in pads) if even else pads
        return native.recorded(len(stride), x, w, None, stride, sides, dilation, groups)
    present = TORCH.pad(_ones(x), pads, 0) if some and pad is None else None
    x = TORCH.pad(x, pads, pad or 0) if some else x
    kernel = graphs.sizes(weights[0])[2:]
    weights = _aligned(weights, lambda w: w.flatten(2).unflatten(0, (groups, -1)))  # (G, O, C, taps)
    return _of_columns(op, found, weights, x, present, kernel, stride, dilation)


@_of_standard
def conv_transpose(op, found, weights, x, stride, padding, output_padding, groups, dilation):
    """A transposed convolution: one of the image with its pixels `stride` apart, whose kernel is in reverse order."""
    kernel, dims = graphs.sizes(weights[0])[2:], len(stride)
    if found.pair is not None:
        w, x = _factors(op, found.pair, weights, x)
        function = getattr(torch.nn.functional, "conv_transpose{}d".format(dims))
        return function(x, w, None, stride, padding, output_padding, groups, dilation)
    if x.dim() == dims + 1:
        return conv_transpose(op, weights, x.unsqueeze(0), stride, padding, output_padding, groups, dilation).squeeze(0)
    # Behind the last pixel there are stride - 1 zeros already. What is negative is cut off.
    before = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding)]
    pads = [(b, b + more - (step - 1)) for b, more, step in zip(before, output_padding, stride)]
    absent = max(stride) > 1 or max(map(max, pads)) > 0
    present = TORCH.pad(_apart(_ones(x), stride), pads, 0) if absent else None
    x = TORCH.pad(_apart(x, stride), pads, 0)
    weights = _aligned(weights, lambda w: w.flatten(2).unflatten(0, (groups, -1)).transpose(1, 2))
    return _of_columns(op, found, weights, x, present, kernel, (1,) * dims, dilation, reverse=True)


@_of_standard
def linear(op, found, weights, x):
    if found.pair is not None:
        w, x = _factors(op, found.pair, weights, x)
        return torch.nn.functional.linear(x, w)
    axis = x.dim()
    weights = _aligned(weights, lambda w: w[(None,) * (axis - 1)])
    return _reduced(op, found, weights, x.unsqueeze(-2), None, axis, axis - 1)


@_of_standard
def matmul(op, found, weights, x):
    if found.pair is not None:
        return torch.matmul(*_factors(op, found.pair, weights, x))
    rank = max(weights[0].dim(), x.dim())
    weights = _aligned(weights, lambda w: w[(None,) * (rank - w.dim())].unsqueeze(-1))
    x = x[(None,) * (rank - x.dim())].unsqueeze(-3)
    return _reduced(op, found, weights, x, None, rank - 1, rank - 2)


def _aligned(weights, arrange):
    """A weight arranged, and so its parameters, but for those that are one number."""
    whole, shape = arrange(weights[0]), weights[0].shape
    others = [
        w.reshape((1,) * whole.dim()) if product(graphs.sizes(w)) == 1 else arrange(w.expand(shape))
        for w in weights[1:]
    ]
    return [whole] + others


def _factors(op, pair, weights, x):
    """The weight and the input of the ordinary product that sums up terms which are products."""
    names = ["w"] + [symbols.operand_name(name) for name in op.term.names]
    operands = dict(zip(names, weights), x=x)
    w, x = [evaluate.value(side, operands) for side in pair]
    return w.expand(weights[0].shape), x  # it may be of parameters alone


# ---------------------------------------------------------------- columns
def _ones(x):
    """One channel of one image, of ones."""
    return torch.ones_like(x[:1, :1], dtype=torch.float32)


def _apart(x, stride):
    """An image with stride - 1 zeros behind each pixel."""
    for axis, step in enumerate(stride, 2):
        if step > 1:
            pads = [(0, step - 1)] + [(0, 0)] * (x.dim() - axis - 1)
            x = TORCH.pad(x.unsqueeze(axis + 1), pads, 0).flatten(axis, axis + 1)
    return x


def _of_columns(op, found, weights, image, present, kernel, stride, dilation, reverse=False):
    """The reduction of the terms of weights (G, O, C, taps) and a padded image's columns: (N, G O, blocks along each).

    present: an image of one channel, 0 where there is nothing. None if that is nowhere.
    """
    groups, channels = graphs.sizes(weights[0])[0], weights[0].shape[2]
    columns = _columns(image.unflatten(1, (groups, -1)), kernel, stride, dilation, reverse)
    columns = columns.flatten(2, 3).unsqueeze(2)
    absent = None
    if present is not None:
        absent = _columns(present.unsqueeze(1), kernel, stride, dilation, reverse) == 0
        absent = absent.expand((1, 1, channels) + tuple(absent.shape[3:])).flatten(2, 3).unsqueeze(2)
    weights = [w.flatten(2)[(None, Ellipsis) + (None,) * len(kernel)] for w in weights]
    return _reduced(op, found, weights, columns, absent, 3, 2).flatten(1, 2)


def _columns(image, kernel, stride, dilation, reverse):
    """(N, G, C, taps, blocks along each) of an image (N, G, C, ...)."""
    first, last = 3, 3 + len(kernel)
    windows = recorded.windows(image, first, kernel, dilation, stride)
    positions, blocks = list(range(last, last + len(kernel))), list(range(first, last))
    columns = windows.permute([0, 1, 2] + positions + blocks)
    columns = columns.flip(list(range(first, last))) if reverse else columns
    return columns.flatten(first, last - 1)


# ---------------------------------------------------------------- blocks
def _reduced(op, found, weights, x, absent, axis, filters):
    """The reduction along an axis of the terms of operands that broadcast. The axis of filters is the weight's alone.

    Blocks are of so many terms as memory_limit holds, for the present sizes.
    """
    w_sizes, x_sizes = graphs.sizes(weights[0]), graphs.sizes(x)
    count, taps = w_sizes[filters], w_sizes[axis]
    if type(count) is not int or type(taps) is not int:
        return op.reduction.in_graph(op, found, weights, x, axis, absent)
    sizes = [max(map(graphs.expected, pair)) for pair in zip(w_sizes, x_sizes)]
    each = dtypes.ITEMSIZE[op.result_dtype(TORCH.dtype(x))] * product(sizes) // max(1, count * taps)
    room = max(1, chunks.memory_limit // max(1, each))
    # A function adds term by term, and in one order.
    step = taps if op.reduction.function else max(1, min(taps, room))
    results = []
    for part in _cuts(count, max(1, room if op.reduction.function else room // step)):
        sums = []
        for k in _cuts(taps, step):
            w = tuple(_part(t, {filters: part, axis: k}) for t in weights)
            there = None if absent is None else _part(absent, {axis: k})
            sums.append(op.reduction.in_graph(op, found, w, _part(x, {axis: k}), axis, there))
        results.append(sums[0] if len(sums) == 1 else op.reduction.combine(TORCH, torch.stack(sums), 0))
    return results[0] if len(results) == 1 else torch.cat(results, filters)


def _cuts(length, step):
    if step >= length:
        return [None]
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _part(t, parts):
    """A part of an operand along axes; all of it where it broadcasts, or where there is one part."""
    sizes = graphs.sizes(t)
    for axis, part in parts.items():
        if part is not None and sizes[axis] != 1:
            t = t.narrow(axis, part.start, part.stop - part.start)
    return t
