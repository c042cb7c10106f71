"""Public conv2d, linear and matmul: F.conv2d, F.linear and torch.matmul with `op` for their dot product."""

from collections import namedtuple

from im2col_compat import backends, chunks, features, terms
from im2col_compat.geometry import conv_geometry, product
from im2col_compat.op import NAMED, resolve


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot"):
    """F.conv2d with a dot product of your own.

    input: (N, C, H, W) or (C, H, W), torch tensors of any version or NumPy arrays, as all
    arguments. weight: (O, C / groups, kernel height, kernel width). bias: (O,) or None,
    added with an ordinary plus, as (O, 1, 1). stride, dilation: an int or a pair
    (vertical, horizontal). padding: the same, or "same" or "valid"; the input is padded
    with the op's pad_value.
    op: a name ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"), an Op, or a
    function of two tensors (w, x), the terms of which are summed.

    Returns (N, O, block rows, block columns) or the same without N: for each filter and
    block, op.add over channel, kernel row, kernel column of op.multiply(weight, input), in
    input's dtype (int64 for sums of integers). Differentiable, twice where the op is.
    Extra memory beside the result and the gradients stays under chunks.memory_limit (64 MiB),
    with the exceptions named there.

    Raises what F.conv2d raises: TypeError for arguments of a wrong type, RuntimeError for
    shapes, dtypes or devices that don't fit together, ValueError for an unknown op.
    """
    op = resolve(op)
    if op is NAMED["dot"] and features.UNFOLD_IS_CURRENT and features.capturing() and backends.forced() is None:
        return features.torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    arrays, (x, w, b), leave = features.enter("conv2d", [("input", input), ("weight", weight), ("bias", bias)])
    geometry = conv_geometry(x.shape, w.shape, None if b is None else b.shape, stride, padding, dilation, groups)
    native = op is NAMED["dot"] and backends.forced() is None and arrays is features.TORCH
    # Before 1.2 PyTorch's own convolution has no empty batches.
    native = native and (geometry.columns.batch > 0 or features.UNFOLD_IS_CURRENT)
    if not native:
        _check_alike(arrays, "conv2d", op, [("input", x), ("weight", w), ("bias", b)])
    unbatched = len(x.shape) == 3
    x = arrays.unsqueeze(x, 0) if unbatched else x
    if native:
        result = _native_conv2d(x, w, b, geometry)
    else:
        w = _with_normalized_gradient(op, arrays, w)
        kernel = (geometry.groups, geometry.filters // geometry.groups, product(w.shape[1:]))
        w = arrays.reshape(w, kernel)
        op, captures = terms.understood(op, arrays, w, x, _ConvPlan.w_broadcast, _ConvPlan.x_broadcast)
        result = chunks.run(_ConvPlan(op, arrays, x, geometry, captures), arrays, w, x)
        result = _plus(arrays, arrays.reshape(result, geometry.output_shape), b, (1, -1, 1, 1))
    return leave(arrays.reshape(result, tuple(result.shape)[1:]) if unbatched else result)


def linear(input, weight, bias=None, op="dot"):
    """F.linear with a dot product of your own.

    input: (..., K), weight: (O, K) or (K,), bias: (O,) or None, added with an ordinary plus.
    Returns (..., O), or (...) for a weight of one dimension. Kinds, dtypes, op, memory,
    derivatives and errors as for conv2d.
    """
    op = resolve(op)
    arrays, (x, w, b), leave = features.enter("linear", [("input", input), ("weight", weight), ("bias", bias)])
    if op is NAMED["dot"] and arrays is features.TORCH:
        return leave(features.torch.nn.functional.linear(x, w, b))
    if len(x.shape) < 1 or len(w.shape) not in (1, 2) or x.shape[-1] != w.shape[-1]:
        raise RuntimeError(
            "linear(): input must have shape (..., K) and weight (O, K) or (K,), but got {} and {}".format(
                tuple(x.shape), tuple(w.shape)
            )
        )
    if b is not None and tuple(b.shape) != tuple(w.shape[:-1]):
        raise RuntimeError("linear(): bias must have shape {}, but got {}".format(tuple(w.shape[:-1]), tuple(b.shape)))
    _check_alike(arrays, "linear", op, [("input", x), ("weight", w), ("bias", b)])
    if op is NAMED["dot"]:
        result = features.np.matmul(x, w.T)
    else:
        w = _with_normalized_gradient(op, arrays, w)
        flat = len(w.shape) == 1
        w = arrays.unsqueeze(w, 0) if flat else w
        w = arrays.reshape(w, (1,) * (len(x.shape) - 1) + tuple(w.shape))
        result = _contract(op, arrays, w, arrays.unsqueeze(x, len(x.shape) - 1), len(x.shape))
        result = result[..., 0] if flat else result
    return leave(_plus(arrays, result, b, (-1,)))


def matmul(a, b, op="dot"):
    """torch.matmul with a dot product of your own: (..., M, K) x (..., K, N) -> (..., M, N).

    a is the weight: a term is op.multiply(a[..., m, k], b[..., k, n]). As for torch.matmul,
    leading dimensions broadcast, and an operand of one dimension is a row (a) or a column
    (b) that the result lacks. Kinds, dtypes, op, memory, derivatives and errors as for conv2d.
    """
    op = resolve(op)
    arrays, (w, x), leave = features.enter("matmul", [("a", a), ("b", b)])
    if op is NAMED["dot"] and arrays is features.TORCH:
        return leave(features.torch.matmul(w, x))
    shapes = tuple(w.shape), tuple(x.shape)
    if not shapes[0] or not shapes[1] or shapes[0][-1] != shapes[1][-2 if len(shapes[1]) > 1 else 0]:
        raise RuntimeError(
            "matmul(): a and b must have shapes (..., M, K) and (..., K, N), but got {} and {}".format(*shapes)
        )
    _check_alike(arrays, "matmul", op, [("a", w), ("b", x)])
    if op is NAMED["dot"]:
        return features.np.asarray(features.np.matmul(w, x))
    w = arrays.unsqueeze(w, 0) if len(shapes[0]) == 1 else w
    x = arrays.unsqueeze(x, 1) if len(shapes[1]) == 1 else x
    rank = max(len(w.shape), len(x.shape))
    batches = [(1,) * (rank - len(t.shape)) + tuple(t.shape[:-2]) for t in (w, x)]
    if any(p != q and 1 not in (p, q) for p, q in zip(*batches)):
        raise RuntimeError("matmul(): leading dimensions must broadcast, but got shapes {} and {}".format(*shapes))
    w = arrays.reshape(w, batches[0] + tuple(w.shape[-2:]) + (1,))
    x = arrays.reshape(x, batches[1] + (1,) + tuple(x.shape[-2:]))
    result = _contract(op, arrays, w, x, rank - 1)
    result = result[..., 0] if len(shapes[1]) == 1 else result
    if len(shapes[0]) == 1:
        result = result[..., 0, :] if len(shapes[1]) > 1 else result[..., 0]
    return leave(features.np.asarray(result) if arrays is features.NUMPY else result)


# ---------------------------------------------------------------- common to the three


def _check_alike(arrays, function, op, arguments):
    arguments = [(name, value) for name, value in arguments if value is not None]
    expected = arrays.dtype(arguments[0][1])
    for name, value in arguments[1:]:
        dtypes = (expected, terms.result_dtype(op, expected)) if name == "bias" else (expected,)
        if arrays.dtype(value) not in dtypes:
            raise RuntimeError(
                "{}(): {} must have {}'s dtype {}, but has {}".format(
                    function, name, arguments[0][0], expected, arrays.dtype(value)
                )
            )
        if arrays.device(value) != arrays.device(arguments[0][1]):
            raise RuntimeError(
                "{}(): {} must be on {}'s device {}, but is on {}".format(
                    function, name, arguments[0][0], arrays.device(arguments[0][1]), arrays.device(value)
                )
            )


def _plus(arrays, result, bias, shape):
    """result + bias, the result being ours to change."""
    if bias is None:
        return result
    bias = arrays.reshape(bias, shape)
    if arrays.dtype(bias) != arrays.dtype(result):
        bias = arrays.cast(bias, arrays.dtype(result))
    return arrays.add(result, bias)


def _native_conv2d(x, w, b, geometry):
    top, bottom, left, right = geometry.pads
    padding = (top, left)
    if (top, left) != (bottom, right):
        x, padding = features.TORCH.pad(x, geometry.pads, 0), 0
    columns = geometry.columns
    return features.torch.nn.functional.conv2d(x, w, b, columns.stride, padding, columns.dilation, geometry.groups)


@features.new_style
class _NormalizedGradient(features.Function):
    """The weight itself; its gradient g becomes eta * sqrt(number of elements) / |g| * g."""

    @staticmethod
    def forward(w, eta):
        return w.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.eta = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        arrays, dtype = features.TORCH, features.TORCH.dtype(grad)
        wide = arrays.cast(grad, arrays.sum_dtype(dtype))
        return arrays.cast(wide * (ctx.eta * grad.numel() ** 0.5 / wide.norm().clamp(min=1e-12)), dtype), None


def _with_normalized_gradient(op, arrays, w):
    if op.normalize_grad_w is None or arrays is features.NUMPY:
        return w
    return _NormalizedGradient.apply(w, op.normalize_grad_w)


# ---------------------------------------------------------------- plans for chunks.run


class _ConvPlan(object):
    """conv2d of w (groups, filters of a group, K) and x (N, C, H, W), as (N, groups, filters, rows, columns)."""

    dims = (0, 1, 3, 2, 4)
    # Terms are (N, groups, filters, K, L).
    w_broadcast = (True, False, False, False, True)
    x_broadcast = (False, False, True, False, False)

    def __init__(self, op, arrays, x, geometry, captures):
        self.op, self.arrays, self.captures = op, arrays, captures
        self.engine = backends.choose(arrays, x)
        self.columns, self.pads = geometry.columns, geometry.pads
        self.image = tuple(int(size) for size in x.shape[2:])
        self.channels = self.columns.channels // geometry.groups
        self.taps = self.channels * product(self.columns.kernel)
        self.dtype = terms.result_dtype(op, arrays.dtype(x))
        self.pad_value = op.pad_value_for(arrays.dtype(x))
        filters = geometry.filters // geometry.groups
        rows, cols = self.columns.blocks
        self.shape = (self.columns.batch, geometry.groups, filters, rows, cols)
        self.is_dot = op is NAMED["dot"]
        # Besides the terms, or instead: the pixels that a block's strip moves on by, and a product's filters.
        pixels = self.channels * product(self.columns.stride)
        self.unit, self.kept = _units(
            op, arrays.dtype(x), self.dtype, self.taps, max(pixels, filters) if self.is_dot else pixels, filters
        )
        # A matrix product makes no terms: it takes all filters at once.
        self.lengths = (self.columns.batch, geometry.groups, rows, 1 if self.is_dot else filters, cols)

    def piece(self, ranges):
        n, g, rows, filters, cols = ranges
        filters = slice(None) if self.is_dot else filters
        y, x = self._reach(0, rows), self._reach(1, cols)
        channels = slice(g.start * self.channels, g.stop * self.channels)
        return chunks.Piece((g, filters), (n, channels, y.pixels, x.pixels), (n, g, filters, rows, cols), (y, x))

    def _reach(self, axis, blocks):
        """What a range of blocks reads along one axis."""
        columns, before, size = self.columns, self.pads[2 * axis], self.image[axis]
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
        y_reach, x_reach = piece.details
        batch, channels = int(x.shape[0]), int(x.shape[1])
        geometry = self.columns._replace(
            batch=batch,
            channels=channels,
            image=(y_reach.length, x_reach.length),
            blocks=(y_reach.blocks, x_reach.blocks),
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
        real = features.differentiable(self.arrays.dtype(x)) and not self.arrays.dtype(x).startswith("complex")
        return self.arrays.first(x) if real and 0 not in tuple(x.shape) else 0

    def _padded(self, x, geometry, reaches, value):
        arrays = self.arrays
        y, x_reach = reaches
        if y.before is None or x_reach.before is None:
            return arrays.tensor(arrays.full(x, geometry.image_shape, value))
        pads = (y.before, y.after, x_reach.before, x_reach.after)
        return arrays.pad(x, pads, value) if any(pads) else x

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


class _BroadcastPlan(object):
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
    itemsize = max(features.ITEMSIZE.get(name, 16) for name in (dtype, result_dtype))
    unit = kept = itemsize * max(taps, least)
    if callable(op.add):
        # Added term by term: a forward holds one at a time, and the columns, which the filters share.
        # A backward makes many small steps, so it may take a larger share.
        unit, kept = itemsize * max(4, -(-max(taps, least) // filters)), max(1, kept // 4)
    return unit, kept


def _contract(op, arrays, w, x, axis):
    broadcast = [[p == 1 and q != 1 for p, q in zip(*shapes)] for shapes in ((w.shape, x.shape), (x.shape, w.shape))]
    op, captures = terms.understood(op, arrays, w, x, *broadcast)
    plan = _BroadcastPlan(op, arrays, w, x, axis, captures)
    if not w.shape[axis]:
        result = arrays.tensor(arrays.full(x, plan.shape, terms.of_no_terms(op, plan.dtype), plan.dtype))
        # Zero, of both operands, so that there is a gradient, if an empty one.
        return result + 0 * (w.sum() + x.sum()) if features.differentiable(plan.dtype) else result
    return chunks.run(plan, arrays, w, x)
