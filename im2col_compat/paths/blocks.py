"""The path by tensor operations: any op, device and dtype, block by block of the result, so that memory is bounded."""

import itertools

from im2col_compat.compat import autograd, dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH, quiet, raw
from im2col_compat.compat.probes import Function, torch
from im2col_compat.paths import layout, plans
from im2col_compat.terms import parameters

#: One block of terms takes this share of it; the rest is for a function's intermediates,
#: the columns, and what autograd keeps of one block.
SHARE = 32


def run(op, problem, arrays, weights, x):
    """The result for weights (a weight and its parameters) and x, of the problem's shapes."""
    if arrays is TORCH and arrays.dtype(x) not in dtypes.ITEMSIZE:
        raise NotImplementedError("{}(): there is no arithmetic for {}".format(problem.function, arrays.dtype(x)))
    given = weights[0], x
    plan, weights, x = plans.of(op, problem, arrays, parameters.expanded(arrays, weights), x)
    if 0 in plan.shape and graphs.mapped():  # which _Blocks, that mapping has no rule for, would take
        return arrays.reshape(_constant(plan, arrays, weights, x, 0), problem.result_shape)
    if not problem.taps:
        value = plan.op.reduction.of_no_terms(plan.op, plan.dtype)
        return arrays.reshape(_constant(plan, arrays, weights, x, value), problem.result_shape)
    if arrays is NUMPY:
        result = _forward(plan, arrays, weights, x)
    elif plan.captures and 0 not in plan.shape or graphs.mapped():
        result = _joined(plan, weights, x)
    else:
        result = _Blocks.apply(x, plan, *weights)
    return layout.with_last(problem, arrays, given[0], given[1], arrays.reshape(result, problem.result_shape))


def _constant(plan, arrays, weights, x, value):
    result = arrays.tensor(arrays.full(x, plan.shape, value, plan.dtype))
    # Zero, of all operands, so that there is a gradient, if an empty one.
    differentiable = dtypes.differentiable(arrays.dtype(x))
    return result + 0 * sum([w.sum() for w in weights], x.sum()) if differentiable else result


def _steps(plan, unit):
    """How far each axis goes in one block: the innermost axes as far as memory allows."""
    room = max(1, plan.limit // SHARE // max(1, unit))
    steps = []
    for length in reversed(plan.lengths):
        steps.insert(0, max(1, min(length, room)))
        room = max(1, room // steps[0])
    return steps


def _cuts(length, step):
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _pieces(plan, unit):
    axes = [_cuts(length, step) for length, step in zip(plan.lengths, _steps(plan, unit))]
    return (plan.piece(ranges) for ranges in itertools.product(*axes))


def _forward(plan, arrays, weights, x):
    result = arrays.empty(x, plan.shape, plan.dtype, plan.strides)
    for piece in _pieces(plan, plan.unit):
        parts = [x[piece.x]] + [w[piece.w] for w in weights]
        if arrays is TORCH:
            parts = [quiet(part) for part in parts]
        result[piece.out] = raw(plan.evaluate(tuple(parts[1:]), parts[0], piece))
    return result


def _joined(plan, weights, x, ranges=()):
    """The result as a graph of checkpointed blocks, so that captured tensors get their gradients."""
    axis = len(ranges)
    if axis == len(plan.lengths):
        piece = plan.piece(ranges)
        parts = [x[piece.x]] + [w[piece.w] for w in weights]
        return autograd.checkpoint(lambda x, *weights: plan.evaluate(weights, x, piece), *parts)
    cuts = _cuts(plan.lengths[axis], _steps(plan, plan.kept)[axis])
    parts = [_joined(plan, weights, x, ranges + (cut,)) for cut in cuts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, plan.dims[axis])


@autograd.new_style
class _Blocks(Function):
    @staticmethod
    def forward(x, plan, *weights):
        return _forward(plan, TORCH, weights, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.plan = inputs[1]
        autograd.save_operands(ctx, inputs[:1] + inputs[2:], output, TORCH.dtype(output))

    @staticmethod
    def backward(ctx, grad):
        operands = tuple(autograd.saved(ctx))  # x, then weights
        plan, arrays = ctx.plan, TORCH
        needs = ctx.needs_input_grad[:1] + ctx.needs_input_grad[2:]
        if graphs.transform() is not None or autograd.recording(grad, *operands):
            # A graph of the gradient itself: kept whole, as autograd needs it.
            whole = plan.piece(tuple(slice(0, length) for length in plan.lengths))

            def evaluate(x, *weights):
                return (plan.evaluate(tuple(w[whole.w] for w in weights), x[whole.x], whole),)

            found = autograd.derivatives(evaluate, operands, needs, (grad,), True)
            return (found[0], None) + tuple(found[1:])
        strides = (plan.dx_strides,) + (None,) * (len(operands) - 1)
        sums = [
            arrays.full(operand, operand.shape, 0, arrays.sum_dtype(arrays.dtype(operand)), s) if need else None
            for operand, need, s in zip(operands, needs, strides)
        ]
        for piece in _pieces(plan, plan.kept):
            indices = [piece.x] + [piece.w] * (len(operands) - 1)
            with autograd.enable_grad():
                parts = [autograd.leaf(o[index], need) for o, index, need in zip(operands, indices, needs)]
                result = plan.evaluate(tuple(parts[1:]), parts[0], piece)
                found = autograd.partials([result], parts, [grad[piece.out]])
            for total, partial, index in zip(sums, found, indices):
                if partial is not None:
                    total[index] += arrays.cast(raw(partial), arrays.dtype(total))
        for i, (total, operand) in enumerate(zip(sums, operands)):
            if total is not None:
                sums[i] = quiet(arrays.cast(total, arrays.dtype(operand)))
        return (sums[0], None) + tuple(sums[1:])
