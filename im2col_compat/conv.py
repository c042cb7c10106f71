"""Public convolutions, linear and matmul: F.conv2d, F.linear, torch.matmul and so on, with `op` as dot product."""

from im2col_compat import graph
from im2col_compat.compat import autocast, graphs
from im2col_compat.compat.arrays import TORCH, enter
from im2col_compat.compat.probes import torch
from im2col_compat.op import resolve
from im2col_compat.paths import choose
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem
from im2col_compat.terms import parameters

_CONVS = {dims: "conv{}d".format(dims) for dims in (1, 2, 3)}


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot", params=None):
    """F.conv1d with a dot product of your own: as conv2d, for (N, C, L) or (C, L) and a weight (O, C / groups, K)."""
    return _conv(1, input, weight, bias, stride, padding, dilation, groups, op, params)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot", params=None):
    """F.conv2d with a dot product of your own.

    input: (N, C, H, W) or (C, H, W). All operands are torch tensors of any version, or all are NumPy arrays. They have one
        dtype, of floats or integers, or another that the op can compute with. With an op of Op.from_table input and weight
        are integers, of any dtypes, and bias has input's dtype or the result's.
    weight: (O, C / groups, kernel height, kernel width).
    bias: (O,) or None. Each filter's is added to its results, whatever the op.
    stride, dilation: an int or a pair (vertical, horizontal).
    padding: the same, or "same" or "valid", or ((top, bottom), (left, right)). The input is padded with the op's pad_value.
    groups: so many parts of the channels, each with its own filters.
    op: a name ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"), an Op, or a function of two tensors (w, x),
        whose terms are summed.
    params: the parameters of the op, what its functions take after w and x, by name: {"t": a number, or a tensor of
        weight's dtype that broadcasts with weight}. They have gradients.

    Returns (N, O, block rows, block columns) or the same without N: for each filter and block, op.add over channel,
    kernel row, kernel column of op.multiply(weight, input), in input's dtype (int64 for sums of integers; but "dot"
    keeps the dtype and wraps in it, as PyTorch and NumPy do). Differentiable, twice where the op is.

    Kernels compute it where they serve the op, the dtype and the device (Op.explain tells). Then extra memory, beside the
    result and the gradients, stays under 16 MiB a thread of a CPU, with the exceptions that the guide names. Else tensor
    operations compute it, and extra memory stays under chunks.memory_limit (64 MiB; on a GPU device_memory_limit), with
    the exceptions named there.

    Raises what F.conv2d raises, and
    TypeError: for arguments of a wrong type, and for params that are missing or unknown.
    RuntimeError: for shapes, dtypes or devices that don't fit together.
    ValueError: for an unknown op, and for operands that a table lacks.
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups, op, params)


def conv3d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, op="dot", params=None):
    """F.conv3d with a dot product of your own: as conv2d, for (N, C, D, H, W) or (C, D, H, W).

    weight: (O, C / groups, kernel depth, height, width); depth comes before height everywhere.
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups, op, params)


def _conv(dims, input, weight, bias, stride, padding, dilation, groups, op, params):
    if graphs.overridden(input, weight):
        arguments = input, weight, bias, stride, padding, dilation, groups, resolve(op), params
        return graphs.taken_over((conv1d, conv2d, conv3d)[dims - 1], (input, weight), *arguments)
    if autocast.is_on(input) and not graph.is_dot(op):
        arguments = dims, input, weight, bias, stride, padding, dilation, groups, op, params
        return autocast.uncast(_conv, input, *arguments)
    if graphs.elsewhere(input):
        recorded = graph.conv(dims, op, input, weight, bias, stride, padding, dilation, groups, params)
        if recorded is not None:
            return recorded
        if graph.breaks(op, input, weight):
            return _conv_apart(dims, input, weight, bias, stride, padding, dilation, groups, op, params)
    op, arrays, (x, w, b), params, leave = enter_with(_CONVS[dims], LAYER, (input, weight, bias), op, params)
    bias_shape = None if b is None else tuple(b.shape)
    problem = conv_problem(dims, tuple(x.shape), tuple(w.shape), bias_shape, stride, padding, dilation, groups)
    return leave(choose.run(op, problem, arrays, ("weight", "input"), w, x, b, params))


LAYER = "input", "weight", "bias"


def enter_with(function, names, tensors, op, params):
    """(op, arrays, tensors, params, leave) of a call: the Op, operands as the paths compute with them, the values of the
    op's parameters, and what gives a result as the caller has it."""
    op = resolve(op)
    if params is None and not op.term.arguments:
        arrays, tensors, leave = enter(function, names, tensors)
        return op, arrays, tensors, (), leave
    given, values = parameters.given(function, op, params)
    places = [i for i, value in enumerate(values) if not parameters.is_number(value)]
    labels = tuple(parameters.label(given[i]) for i in places)
    arrays, found, leave = enter(function, names + labels, tensors + tuple(values[i] for i in places))
    values = list(values)
    for i, value in zip(places, found[len(names) :]):
        values[i] = value
    return op.with_parameters(given), arrays, found[: len(names)], tuple(values), leave


def linear(input, weight, bias=None, op="dot", params=None):
    """F.linear with a dot product of your own.

    input: (..., K), of kinds and dtypes as for conv2d.
    weight: (O, K) or (K,).
    bias: (O,), or () for a weight of one dimension, or None; added to the results.
    op, params: as for conv2d. Parameters broadcast with weight.

    Returns (..., O), or (...) for a weight of one dimension. Dtypes, memory, derivatives and errors are as for conv2d.
    """
    if graphs.overridden(input, weight):
        return graphs.taken_over(linear, (input, weight), input, weight, bias, resolve(op), params)
    if autocast.is_on(input) and not graph.is_dot(op):
        return autocast.uncast(linear, input, input, weight, bias, op, params)
    if graphs.elsewhere(input):
        recorded = graph.linear(op, input, weight, bias, params)
        if recorded is not None:
            return recorded
        if graph.breaks(op, input, weight):
            return _linear_apart(input, weight, bias, op, params)
    op, arrays, (x, w, b), params, leave = enter_with("linear", LAYER, (input, weight, bias), op, params)
    if op.is_dot and arrays is TORCH:
        return leave(torch.nn.functional.linear(x, w, b))
    problem = linear_problem(tuple(x.shape), tuple(w.shape), None if b is None else tuple(b.shape))
    return leave(choose.run(op, problem, arrays, ("weight", "input"), w, x, b, params))


def matmul(a, b, op="dot", params=None):
    """torch.matmul with a dot product of your own: (..., M, K) x (..., K, N) -> (..., M, N).

    a, b: of kinds and dtypes as for conv2d. a is the weight: a term is op.multiply(a[..., m, k], b[..., k, n]). As for
        torch.matmul, leading dimensions broadcast, and an operand of one dimension is a row (a) or a column (b) that the
        result lacks.
    op, params: as for conv2d. Parameters broadcast with a.

    Dtypes, memory, derivatives and errors are as for conv2d.
    """
    if graphs.overridden(a, b):
        return graphs.taken_over(matmul, (a, b), a, b, resolve(op), params)
    if autocast.is_on(a) and not graph.is_dot(op):
        return autocast.uncast(matmul, a, a, b, op, params)
    if graphs.elsewhere(a):
        recorded = graph.matmul(op, a, b, params)
        if recorded is not None:
            return recorded
        if graph.breaks(op, a, b):
            return _matmul_apart(a, b, op, params)
    op, arrays, (w, x), params, leave = enter_with("matmul", ("a", "b"), (a, b), op, params)
    if op.is_dot and arrays is TORCH:
        return leave(torch.matmul(w, x))
    problem = matmul_problem(tuple(w.shape), tuple(x.shape))
    return leave(choose.run(op, problem, arrays, ("a", "b"), w, x, None, params))


_conv_apart, _linear_apart, _matmul_apart = [graphs.apart(call, graph.WHY) for call in (_conv, linear, matmul)]
