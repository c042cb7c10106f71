"""Public convolutions, linear and matmul: F.conv2d, F.linear, torch.matmul and so on with `op` for their dot product."""

import numpy as np

from im2col_compat.compat import autograd, graphs, unfolds
from im2col_compat.compat.arrays import NUMPY, TORCH, enter
from im2col_compat.compat.probes import Function, torch
from im2col_compat.engines import choose as backends
from im2col_compat.op import NAMED, CText, resolve
from im2col_compat.paths import find as kernels
from im2col_compat.paths import graph as library
from im2col_compat.paths import kernels as fused
from im2col_compat.paths import plans
from im2col_compat.problem import conv_geometry, product
from im2col_compat.terms import function as terms
from im2col_compat.terms.table import Table


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot"):
    """F.conv1d with a dot product of your own: as conv2d, for (N, C, L) or (C, L) and a weight (O, C / groups, K)."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, op)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot"):
    """F.conv2d with a dot product of your own.

    input: (N, C, H, W) or (C, H, W), torch tensors of any version or NumPy arrays, as all
    arguments. weight: (O, C / groups, kernel height, kernel width). bias: (O,) or None,
    added with an ordinary plus, as (O, 1, 1). stride, dilation: an int or a pair
    (vertical, horizontal). padding: the same, or "same" or "valid", or ((top, bottom), (left, right)); the input is
    padded with the op's pad_value.
    op: a name ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"), an Op, or a
    function of two tensors (w, x), the terms of which are summed. For Op.from_table operands are integers, of any dtypes.

    Returns (N, O, block rows, block columns) or the same without N: for each filter and
    block, op.add over channel, kernel row, kernel column of op.multiply(weight, input), in
    input's dtype (int64 for sums of integers). Differentiable, twice where the op is.
    Computed by C kernels where these serve the op, dtype and device (``Op.explain`` tells), and extra memory
    beside the result and the gradients stays under 16 MiB a thread (but xnor packs 32 elements of its operands into 4
    bytes, and tables take operands as bytes); else by tensor operations, and it stays under chunks.memory_limit
    (64 MiB), with the exceptions named there.

    Raises what F.conv2d raises: TypeError for arguments of a wrong type, RuntimeError for
    shapes, dtypes or devices that don't fit together, ValueError for an unknown op, or for operands that a table lacks.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, op)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot"):
    """F.conv3d with a dot product of your own: as conv2d, for (N, C, D, H, W) or (C, D, H, W).

    weight: (O, C / groups, kernel depth, height, width); depth comes before height everywhere.
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, op)


def _conv(dims, input, weight, bias, stride, padding, dilation, groups, op):
    if _in_graph():
        recorded = library.conv(dims, op, input, weight, bias, stride, padding, dilation, groups)
        if recorded is not None:
            return recorded
    return _computed(dims, input, weight, bias, stride, padding, dilation, groups, op)


def _computed(dims, input, weight, bias, stride, padding, dilation, groups, op):
    op, function = resolve(op), "conv{}d".format(dims)
    if op is NAMED["dot"] and unfolds.UNFOLD_IS_CURRENT and graphs.capturing() and backends.forced() is None:
        return getattr(torch.nn.functional, function)(input, weight, bias, stride, padding, dilation, groups)
    arrays, (x, w, b), leave = enter(function, [("input", input), ("weight", weight), ("bias", bias)])
    geometry = conv_geometry(
        dims, tuple(x.shape), tuple(w.shape), None if b is None else tuple(b.shape), stride, padding, dilation, groups
    )
    native = op is NAMED["dot"] and backends.forced() is None and arrays is TORCH
    # Before 1.2 PyTorch's own convolution has no empty batches.
    native = native and (geometry.columns.batch > 0 or unfolds.UNFOLD_IS_CURRENT)
    if not native:
        _check_alike(arrays, function, op, [("input", x), ("weight", w), ("bias", b)])
        w, x = _operands(arrays, function, op, ("weight", w), ("input", x))
    unbatched = len(x.shape) == dims + 1
    x = arrays.unsqueeze(x, 0) if unbatched else x
    if native:
        result = _native(function, x, w, b, geometry)
    else:
        w = _with_normalized_gradient(op, arrays, w)
        w = arrays.reshape(w, (geometry.groups, geometry.filters // geometry.groups, product(w.shape[1:])))
        chosen = _kernels(op, arrays, w, x)
        if chosen is None:
            result = plans.conv(op, arrays, w, x, geometry)
        else:
            result = fused.conv(op, chosen, arrays, w, x, geometry)
        result = _plus(arrays, result, b, (1, -1) + (1,) * dims)
    return leave(arrays.reshape(result, tuple(result.shape)[1:]) if unbatched else result)


def linear(input, weight, bias=None, op="dot"):
    """F.linear with a dot product of your own.

    input: (..., K), weight: (O, K) or (K,), bias: (O,) or None, added with an ordinary plus.
    Returns (..., O), or (...) for a weight of one dimension. Kinds, dtypes, op, memory,
    derivatives and errors as for conv2d.
    """
    if _in_graph():
        recorded = library.linear(op, input, weight, bias)
        if recorded is not None:
            return recorded
    return _linear(input, weight, bias, op)


def _linear(input, weight, bias, op):
    op = resolve(op)
    arrays, (x, w, b), leave = enter("linear", [("input", input), ("weight", weight), ("bias", bias)])
    if op is NAMED["dot"] and arrays is TORCH:
        return leave(torch.nn.functional.linear(x, w, b))
    if len(x.shape) < 1 or len(w.shape) not in (1, 2) or x.shape[-1] != w.shape[-1]:
        raise RuntimeError(
            "linear(): input must have shape (..., K) and weight (O, K) or (K,), but got {} and {}".format(
                tuple(x.shape), tuple(w.shape)
            )
        )
    if b is not None and tuple(b.shape) != tuple(w.shape[:-1]):
        raise RuntimeError("linear(): bias must have shape {}, but got {}".format(tuple(w.shape[:-1]), tuple(b.shape)))
    _check_alike(arrays, "linear", op, [("input", x), ("weight", w), ("bias", b)])
    w, x = _operands(arrays, "linear", op, ("weight", w), ("input", x))
    if op is NAMED["dot"]:
        result = np.matmul(x, w.T)
    else:
        w = _with_normalized_gradient(op, arrays, w)
        flat = len(w.shape) == 1
        w = arrays.unsqueeze(w, 0) if flat else w
        chosen = _kernels(op, arrays, w, x)
        if chosen is None:
            result = plans.linear(op, arrays, w, x)
        else:
            result = fused.linear(op, chosen, arrays, w, x)
        result = result[..., 0] if flat else result
    return leave(_plus(arrays, result, b, (-1,)))


def matmul(a, b, op="dot"):
    """torch.matmul with a dot product of your own: (..., M, K) x (..., K, N) -> (..., M, N).

    a is the weight: a term is op.multiply(a[..., m, k], b[..., k, n]). As for torch.matmul,
    leading dimensions broadcast, and an operand of one dimension is a row (a) or a column
    (b) that the result lacks. Kinds, dtypes, op, memory, derivatives and errors as for conv2d.
    """
    if _in_graph():
        recorded = library.matmul(op, a, b)
        if recorded is not None:
            return recorded
    return _matmul(a, b, op)


def _matmul(a, b, op):
    op = resolve(op)
    arrays, (w, x), leave = enter("matmul", [("a", a), ("b", b)])
    if op is NAMED["dot"] and arrays is TORCH:
        return leave(torch.matmul(w, x))
    shapes = tuple(w.shape), tuple(x.shape)
    if not shapes[0] or not shapes[1] or shapes[0][-1] != shapes[1][-2 if len(shapes[1]) > 1 else 0]:
        raise RuntimeError(
            "matmul(): a and b must have shapes (..., M, K) and (..., K, N), but got {} and {}".format(*shapes)
        )
    _check_alike(arrays, "matmul", op, [("a", w), ("b", x)])
    w, x = _operands(arrays, "matmul", op, ("a", w), ("b", x))
    if op is NAMED["dot"]:
        return np.asarray(np.matmul(w, x))
    w = arrays.unsqueeze(w, 0) if len(shapes[0]) == 1 else w
    x = arrays.unsqueeze(x, 1) if len(shapes[1]) == 1 else x
    rank = max(len(w.shape), len(x.shape))
    batches = [(1,) * (rank - len(t.shape)) + tuple(t.shape[:-2]) for t in (w, x)]
    if any(p != q and 1 not in (p, q) for p, q in zip(*batches)):
        raise RuntimeError("matmul(): leading dimensions must broadcast, but got shapes {} and {}".format(*shapes))
    w, x = (arrays.reshape(t, batch + tuple(t.shape[-2:])) for t, batch in zip((w, x), batches))
    chosen = _kernels(op, arrays, w, x)
    if chosen is None:
        result = plans.matmul(op, arrays, w, x)
    else:
        result = fused.matmul(op, chosen, arrays, w, x)
    result = result[..., 0] if len(shapes[1]) == 1 else result
    if len(shapes[0]) == 1:
        result = result[..., 0, :] if len(shapes[1]) > 1 else result[..., 0]
    return leave(np.asarray(result) if arrays is NUMPY else result)


# ---------------------------------------------------------------- common to the three


def _in_graph():
    """Whether this is being compiled or exported, where one operator can be recorded for it."""
    return graphs.HAS_LIBRARY and graphs.compiling() and backends.forced() is None


def _check_alike(arrays, function, op, arguments):
    arguments = [(name, value) for name, value in arguments if value is not None]
    expected = arrays.dtype(arguments[0][1])
    for name, value in arguments[1:]:
        dtypes = (expected, terms.result_dtype(op, expected)) if name == "bias" else (expected,)
        # A table's operands are its own business.
        if arrays.dtype(value) not in dtypes and (name == "bias" or not isinstance(op.multiply, Table)):
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


def _operands(arrays, function, op, w, x):
    """The values of two (name, value) pairs, as the op takes them."""
    if isinstance(op.multiply, Table):
        return op.multiply.operands(arrays, function, (w, x))
    return w[1], x[1]


def _kernels(op, arrays, w, x):
    """The C kernels for these operands; None where tensor operations do it."""
    if op is NAMED["dot"] or backends.forced() is not None or 0 in tuple(w.shape) + tuple(x.shape):
        return None
    found, reason = None, "only kernels evaluate it, and they take CPU memory"
    if arrays.in_memory(w) and arrays.in_memory(x):
        found, reason = kernels.find(op, arrays.dtype(x), arrays)
    if found is None and isinstance(op.multiply, CText):
        raise RuntimeError("{}: {}".format(op, reason))
    return found


def _plus(arrays, result, bias, shape):
    """result + bias, the result being ours to change."""
    if bias is None:
        return result
    bias = arrays.reshape(bias, shape)
    if arrays.dtype(bias) != arrays.dtype(result):
        bias = arrays.cast(bias, arrays.dtype(result))
    return arrays.add(result, bias)


def _native(function, x, w, b, geometry):
    columns, padding = geometry.columns, tuple(before for before, _ in geometry.pads)
    if any(before != after for before, after in geometry.pads):
        x, padding = TORCH.pad(x, geometry.pads, 0), 0
    native = getattr(torch.nn.functional, function)
    return native(x, w, b, columns.stride, padding, columns.dilation, geometry.groups)


@autograd.new_style
class _NormalizedGradient(Function):
    """The weight itself; its gradient g becomes eta * sqrt(number of elements) / |g| * g."""

    @staticmethod
    def forward(w, eta):
        return w.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.eta = inputs[1]

    @staticmethod
    def backward(ctx, grad):
        arrays, dtype = TORCH, TORCH.dtype(grad)
        wide = arrays.cast(grad, arrays.sum_dtype(dtype))
        return arrays.cast(wide * (ctx.eta * grad.numel() ** 0.5 / wide.norm().clamp(min=1e-12)), dtype), None


def _with_normalized_gradient(op, arrays, w):
    if op.normalize_grad_w is None or arrays is NUMPY:
        return w
    return _NormalizedGradient.apply(w, op.normalize_grad_w)


def _conv_of_numbers(input, weight, numbers, op, named=None):
    stride, dilation, padding, groups = library.conv_numbers(numbers)
    return _computed(len(stride), input, weight, None, stride, named or padding, dilation, groups, op)


library.register(
    conv=_conv_of_numbers,
    conv_same=lambda input, weight, numbers, op: _conv_of_numbers(input, weight, numbers, op, "same"),
    linear=lambda input, weight, numbers, op: _linear(input, weight, None, op),
    matmul=lambda a, b, numbers, op: _matmul(a, b, op),
)
