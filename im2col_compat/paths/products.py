"""Sums of products by PyTorch's own convolution, linear and matmul: forward, and gradients whose partials are products."""

from im2col_compat.codegen import evaluate, factors, symbols
from im2col_compat.codegen.expression import is_constant
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import torch
from im2col_compat.engines import choose as engines
from im2col_compat.paths import layout, native
from im2col_compat.problem import product
from im2col_compat.terms import parameters

#: Channels and filters of a group from which on its convolutions are fast, and take little memory.
LEAST_CHANNELS = 16
#: Terms from which on PyTorch finds gradients faster than kernels do, for all the operations that it takes.
LEAST_TERMS = 10**6
#: Bytes of the images, or of their results, whose gradients are found at a time.
ROOM = 4 * 2**20


def _has_gradients():
    """Whether PyTorch has the gradients of a convolution by themselves (1.12 on)."""
    try:
        return callable(torch.ops.aten.convolution_backward)
    except (AttributeError, RuntimeError):  # the latter of old PyTorches' operators
        return False


HAS_GRADIENTS = _has_gradients()


def of(op, problem, arrays, x):
    """The traced op, where PyTorch computes its products; None where it doesn't."""
    if op.is_named or engines.forced() is not None or not serves(problem, arrays):
        return None
    traced = op.term.product(op, arrays.dtype(x))
    if traced is None:
        return None
    captured = [value for value in traced.captured if arrays.owns(value)]
    return traced if all(arrays.device(value) == arrays.device(x) for value in captured) else None


def serves(problem, arrays):
    """Whether PyTorch computes sums of products of a problem."""
    if arrays is not TORCH or 0 in problem.w_shape + problem.x_shape:
        return False
    return not problem.is_conv or native.serves(problem, arrays) and _pads_little(problem)


def run(op, problem, traced, weights, x):
    """The result for weights and x, of the problem's shapes; differentiable."""
    given, operands = x, _operands(traced, weights, x)
    left, right = factors.pair(traced.term)
    w = evaluate.value(left, operands)
    if tuple(w.shape) != tuple(weights[0].shape):  # it is of parameters alone
        w = TORCH.expand(w, weights[0].shape)
    pad = op.pad_value_for(TORCH.dtype(x))
    if any(map(any, problem.pads)) and not vanishes(right, pad):
        image = problem.padded_columns.image
        operands["x"] = TORCH.pad(x, problem.pads, pad)
        problem = problem._replace(pads=((0, 0),) * len(problem.pads), image=image)
    x = evaluate.value(right, operands)
    if problem.is_conv:
        return layout.with_last(problem, TORCH, weights[0], given, native.conv(problem, x, w, None))
    if problem.function == "linear":
        return TORCH.reshape(torch.nn.functional.linear(x, TORCH.reshape(w, problem.w_shape)), problem.result_shape)
    result = torch.matmul(TORCH.reshape(w, problem.w_shape), TORCH.reshape(x, problem.x_shape))
    return TORCH.reshape(result, problem.result_shape)


def _pads_little(problem):
    """Whether an image with its padding isn't much larger: it may have to be made, which kernels don't do."""
    return product(problem.padded_columns.image) <= 4 * product(problem.image) + 2**16


def vanishes(right, pad):
    """Whether an input's factor is known to be 0 in the padding, as convolutions have it. pad: None if taps are left out."""
    return pad is None or is_constant(evaluate.at(right, pad), 0)


def _operands(traced, weights, x):
    """{name in expressions: tensor} of a traced op."""
    operands = {"w": weights[0], "x": x}
    ones, others = (1,) * len(weights[0].shape), list(weights[1:])
    for value in traced.captured:
        if parameters.is_number(value):
            others.append(TORCH.tensor(TORCH.full(x, ones, value)))
        else:
            others.append(TORCH.reshape(TORCH.cast(value, TORCH.dtype(x)), ones))
    operands.update(zip(traced.others, others))
    return operands


# ---------------------------------------------------------------- gradients
def gradients(op, problem, kernels, needs, operands, grad):
    """[gradient of x, of the weight, of its parameters, ...] that are needed and whose partial derivatives are products;
    None for others.

    operands: x, the weight, its parameters and captured tensors, with which there are none.
    """
    found, pairs = [None] * len(operands), kernels.partials
    if not pairs or not HAS_GRADIENTS or kernels.captured or problem.function == "matmul":
        return found
    pad, pads = op.pad_value_for(kernels.dtype), any(map(any, problem.pads))
    fits = [pair is not None and (i == 0 or not pads or vanishes(pair[1], pad)) for i, pair in enumerate(pairs)]
    wanted = [i for i, (need, fit) in enumerate(zip(needs, fits)) if need and fit]
    if not wanted or min(problem.channels, problem.filters) < LEAST_CHANNELS or not _pads_little(problem):
        return found
    if product(problem.result_shape) * problem.taps < LEAST_TERMS:
        return found
    # What isn't finite would meet the zeros of the padding.
    if not bool(torch.isfinite(grad.sum())):
        return found
    (x, w), grad = [operand.detach() for operand in operands[:2]], grad.detach()
    if problem.function == "linear":
        x, grad, w = x.reshape(-1, problem.channels), grad.reshape(-1, problem.filters), w.reshape(problem.w_shape)
    elif len(problem.x_shape) == len(problem.image) + 1:
        x, grad = x.unsqueeze(0), grad.unsqueeze(0)
    names = ["w"] + [symbols.operand_name(name) for name in op.term.names]
    weights = dict(zip(names, [w] + [operand.detach() for operand in operands[2:]]))
    of_w = _factor(pairs[0][0], weights, w) if 0 in wanted else w
    dx_strides = layout.last_strides(problem, TORCH, operands[1], operands[0])[0]
    dx = TORCH.empty(x, x.shape, strides=dx_strides) if 0 in wanted else None
    sums = {pairs[i][1]: TORCH.full(w, w.shape, 0) for i in wanted if i}  # by the factor of the input's
    step = max(1, ROOM // (4 * max(product(x.shape[1:]), product(grad.shape[1:]))))
    for start in range(0, x.shape[0], step):
        part = slice(start, start + step)
        for turn, right in enumerate(list(sums) or [None]):
            both = [turn == 0 and dx is not None, right is not None]
            of_x = x[part] if right is None else _factor(right, {"x": x[part]}, x[part])
            to_x, to_w = _parts(problem, both, of_w, of_x, grad[part])
            if both[0]:
                torch.mul(to_x, _factor(pairs[0][1], {"x": x[part]}, x[part]), out=dx[part])
            if both[1]:
                sums[right] += to_w
    for i in wanted:
        one = sums[pairs[i][1]] * _factor(pairs[i][0], weights, w) if i else dx
        if i > 1 and product(operands[i].shape) == 1:
            found[i] = one.sum().reshape(operands[i].shape)
        else:
            found[i] = TORCH.reshape(one, problem.w_shape if i else problem.x_shape)
    return found


def _factor(expression, operands, like):
    """A factor's values, in the shape of `like`: it may be a number, or of parameters that are one number for all."""
    if is_constant(expression):
        return TORCH.tensor(TORCH.full(like, like.shape, expression.value))
    return TORCH.expand(evaluate.value(expression, operands, plain=True), like.shape)


def _parts(problem, wanted, w, x, grad):
    """The gradients of an ordinary convolution's, or linear's, input and weight."""
    if problem.function == "linear":
        return grad.mm(w) if wanted[0] else None, grad.t().mm(x) if wanted[1] else None
    pads, padded = tuple(before for before, _ in problem.pads), x
    if any(before != after for before, after in problem.pads):
        pads, padded = (0,) * len(pads), TORCH.pad(x, problem.pads, 0)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        grad, padded, w, None, problem.stride, pads, problem.dilation, False, [0] * len(pads), problem.groups,
        wanted + [False])  # fmt: skip
    if wanted[0] and padded is not x:
        inside = [slice(before, before + size) for (before, _), size in zip(problem.pads, problem.image)]
        dx = dx[(slice(None), slice(None)) + tuple(inside)]
    return dx, dw
