"""Sums of products by PyTorch's own convolution, linear and matmul: forward, and gradients whose partials are products."""

from im2col_compat.codegen import evaluate, factors
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import torch
from im2col_compat.engines import choose as engines
from im2col_compat.paths import native
from im2col_compat.terms import parameters

#: Whether PyTorch has the gradients of a convolution by themselves (1.12 on).
HAS_GRADIENTS = hasattr(getattr(getattr(torch, "ops", None), "aten", None), "convolution_backward")


def of(op, problem, arrays, x):
    """The traced op, where PyTorch computes its products; None where it doesn't."""
    if arrays is not TORCH or op.is_named or engines.forced() is not None or 0 in problem.w_shape + problem.x_shape:
        return None
    if problem.is_conv and not native.serves(problem, arrays):
        return None
    return op.term.product(op, arrays.dtype(x))


def run(op, problem, traced, weights, x):
    """The result for weights and x, of the problem's shapes; differentiable."""
    operands = _operands(traced, weights, x)
    left, right = factors.pair(traced.term)
    w = evaluate.value(left, operands)
    if tuple(w.shape) != tuple(weights[0].shape):  # it is of parameters alone
        w = TORCH.expand(w, weights[0].shape)
    pad = op.pad_value_for(TORCH.dtype(x))
    if _any(problem.pads) and not _vanishes(right, pad, operands):
        image = tuple(size + before + after for size, (before, after) in zip(problem.image, problem.pads))
        operands["x"] = TORCH.pad(x, problem.pads, pad)
        problem = problem._replace(pads=((0, 0),) * len(problem.pads), image=image)
    x = evaluate.value(right, operands)
    if problem.is_conv:
        return native.conv(problem, x, w, None)
    if problem.function == "linear":
        return TORCH.reshape(torch.nn.functional.linear(x, TORCH.reshape(w, problem.w_shape)), problem.result_shape)
    result = torch.matmul(TORCH.reshape(w, problem.w_shape), TORCH.reshape(x, problem.x_shape))
    return TORCH.reshape(result, problem.result_shape)


def _any(pads):
    return any(side > 0 for sides in pads for side in sides)


def _vanishes(right, pad, operands):
    """Whether an input's factor is 0 in the padding, as convolutions have it there. pad: None if taps are left out."""
    if pad is None:
        return True
    x = operands["x"]
    one = TORCH.tensor(TORCH.full(x, (1,) * len(x.shape), pad))
    return float(TORCH.first(evaluate.value(right, {"x": one}))) == 0


def _operands(traced, weights, x):
    """{name in expressions: tensor} of a traced op."""
    operands = {"w": weights[0], "x": x}
    ones, others = (1,) * len(weights[0].shape), list(weights[1:])
    for value in traced.captured:
        if parameters.is_number(value):
            others.append(TORCH.tensor(TORCH.full(x, ones, value)))
        else:
            others.append(TORCH.reshape(value, ones))
    operands.update(zip(traced.others, others))
    return operands


# ---------------------------------------------------------------- gradients
def partial(op, problem, kernels, i, operands, grad):
    """The gradient of x (i = 0) or of the weight (1), where its partial derivative is a product; None where it isn't.

    operands: x, the weight, and others, with which there is none.
    """
    pair = kernels.partials[i]
    if pair is None or not HAS_GRADIENTS or len(operands) > 2 or kernels.captured or not problem.is_conv:
        return None
    operands = {"w": operands[1].detach(), "x": operands[0].detach()}
    if i and _any(problem.pads) and not _vanishes(pair[1], op.pad_value_for(TORCH.dtype(operands["x"])), operands):
        return None
    w_factor, x_factor = [evaluate.value(one, operands) for one in pair]
    batched = len(problem.x_shape) == len(problem.image) + 2
    grad = grad.detach()
    grad, image = (grad, x_factor) if batched else (grad.unsqueeze(0), x_factor.unsqueeze(0))
    pads, padded = tuple(before for before, _ in problem.pads), image
    if any(before != after for before, after in problem.pads):
        pads, padded = (0,) * len(pads), TORCH.pad(image, problem.pads, 0)
    needs = [i == 0, i == 1, False]
    found = torch.ops.aten.convolution_backward(
        grad, padded, w_factor, None, problem.stride, pads, problem.dilation, False, [0] * len(pads), problem.groups, needs
    )[i]  # fmt: skip
    if i:
        return found * w_factor
    if padded is not image:
        inside = [slice(before, before + size) for (before, _), size in zip(problem.pads, problem.image)]
        found = found[(slice(None), slice(None)) + tuple(inside)]
    found = found * image
    return found if batched else found.squeeze(0)
