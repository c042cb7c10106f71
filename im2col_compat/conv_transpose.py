"""Public transposed convolutions: F.conv_transpose1d, 2d and 3d, with `op` as dot product."""

from im2col_compat import graph
from im2col_compat.compat import autocast, graphs
from im2col_compat.conv import LAYER, enter_with
from im2col_compat.op import resolve
from im2col_compat.paths import transposed
from im2col_compat.problem import conv_transpose_problem

_NAMES = {dims: "conv_transpose{}d".format(dims) for dims in (1, 2, 3)}


def conv_transpose1d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, op="dot",
    params=None
):  # fmt: skip
    """F.conv_transpose1d with a dot product of your own: as conv_transpose2d, for (N, C, L) or (C, L)."""
    return _conv(1, input, weight, bias, stride, padding, output_padding, groups, dilation, op, params)


def conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, op="dot",
    params=None
):  # fmt: skip
    """F.conv_transpose2d with a dot product of your own.

    input: (N, C, H, W) or (C, H, W), of kinds and dtypes as for conv2d.
    weight: (C, O / groups, kernel height, kernel width).
    bias: (O,) or None. Each filter's is added to its results, whatever the op.
    stride, dilation: an int or a pair (vertical, horizontal).
    padding: the same. So many rows and columns of results are left out on each side.
    output_padding: the same. So many more are there below and to the right.
    groups, op, params: as for conv2d. Parameters broadcast with weight.

    Returns (N, O, rows, columns) or the same without N, in input's dtype (int64 for sums of integers), rows being
    (H - 1) * stride - 2 * padding + dilation * (kernel height - 1) + output_padding + 1. Input i and tap k meet at the
    result i * stride + k * dilation - padding. A result is op.add over channel, kernel row and kernel column, in this
    order, of op.multiply(weight, input), for those that meet there. Where none do, it is the result of no terms: 0 for
    sums, the least number for a maximum, the identity of an `add` function. The op's pad_value isn't asked.

    Each is computed as the ordinary convolutions of parts of the weight, of which there are as many as the product of
    the strides: with derivatives, memory and speed as for conv2d.

    Raises what F.conv_transpose2d raises, and
    TypeError, ValueError: as for conv2d.
    RuntimeError: for shapes, dtypes or devices that don't fit together, and for results that nothing reaches where an `add`
        function has no identity.
    """
    return _conv(2, input, weight, bias, stride, padding, output_padding, groups, dilation, op, params)


def conv_transpose3d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, op="dot",
    params=None
):  # fmt: skip
    """F.conv_transpose3d with a dot product of your own: as conv_transpose2d, for (N, C, D, H, W) or (C, D, H, W)."""
    return _conv(3, input, weight, bias, stride, padding, output_padding, groups, dilation, op, params)


def _conv(dims, input, weight, bias, stride, padding, output_padding, groups, dilation, op, params):
    if graphs.overridden(input, weight):
        arguments = input, weight, bias, stride, padding, output_padding, groups, dilation, resolve(op), params
        function = (conv_transpose1d, conv_transpose2d, conv_transpose3d)[dims - 1]
        return graphs.taken_over(function, (input, weight), *arguments)
    numbers = stride, padding, output_padding, groups, dilation
    if autocast.is_on(input) and not graph.is_dot(op):
        return autocast.uncast(_conv, input, *((dims, input, weight, bias) + numbers + (op, params)))
    if graphs.elsewhere(input):
        recorded = graph.conv_transpose(*((dims, op, input, weight, bias) + numbers + (params,)))
        if recorded is not None:
            return recorded
        if graph.breaks(op, input, weight):
            return _conv_apart(dims, input, weight, bias, stride, padding, output_padding, groups, dilation, op, params)
    op, arrays, (x, w, b), params, leave = enter_with(_NAMES[dims], LAYER, (input, weight, bias), op, params)
    shapes = tuple(x.shape), tuple(w.shape), None if b is None else tuple(b.shape)
    problem = conv_transpose_problem(*((dims,) + shapes + numbers))
    return leave(transposed.run(op, problem, arrays, ("weight", "input"), w, x, b, params))


_conv_apart = graphs.apart(_conv, graph.WHY)
