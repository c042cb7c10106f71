"""Bounded memory: a function of two tensors, evaluated block by block of its result, forward and backward.

A plan says what is evaluated:
    lengths   the axes that are cut, outermost first
    dims      for each of them, the result's dimension
    unit      bytes, for one element of the result, of all that is there at once in a forward
    kept      the same for what autograd keeps in a backward
    shape     the result's shape
    dtype     the result's dtype
    captures  whether its functions capture tensors that require grad
    piece(ranges)         which part of w, x and the result a block of `ranges` (one slice an axis) is
    evaluate(w, x, piece) the block, from those parts; differentiable
"""

import itertools
from collections import namedtuple

from im2col_compat.compat import autograd
from im2col_compat.compat.arrays import NUMPY, TORCH, quiet, raw
from im2col_compat.compat.probes import Function, torch

#: Bytes of extra memory, columns included, that one call may use beside its result and its
#: gradients. Not cut, and so not bounded: the terms of a single result, where they are more
#: than half a million; the padded image under a single block, where dilation makes that large;
#: a gradient of a gradient (create_graph); functions that capture tensors requiring grad
#: before PyTorch 1.11.
memory_limit = 64 * 2**20

#: One block of terms takes this share of it; the rest is for a function's intermediates,
#: the columns, and what autograd keeps of one block.
SHARE = 32

Piece = namedtuple("Piece", "w x out details")


def run(plan, arrays, w, x):
    """The plan's result for w and x."""
    if arrays is NUMPY:
        return _forward(plan, arrays, w, x)
    if plan.captures and 0 not in plan.shape:
        return _joined(plan, w, x)
    return _Chunks.apply(w, x, plan)


def _steps(plan, unit):
    """How far each axis goes in one block: the innermost axes as far as memory allows."""
    room = max(1, memory_limit // SHARE // max(1, unit))
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


def _forward(plan, arrays, w, x):
    result = arrays.empty(x, plan.shape, plan.dtype)
    for piece in _pieces(plan, plan.unit):
        w_part, x_part = w[piece.w], x[piece.x]
        if arrays is TORCH:
            w_part, x_part = quiet(w_part), quiet(x_part)
        result[piece.out] = raw(plan.evaluate(w_part, x_part, piece))
    return result


def _joined(plan, w, x, ranges=()):
    """The result as a graph of checkpointed blocks, so that captured tensors get their gradients."""
    axis = len(ranges)
    if axis == len(plan.lengths):
        piece = plan.piece(ranges)
        return autograd.checkpoint(lambda w, x: plan.evaluate(w, x, piece), w[piece.w], x[piece.x])
    cuts = _cuts(plan.lengths[axis], _steps(plan, plan.kept)[axis])
    parts = [_joined(plan, w, x, ranges + (cut,)) for cut in cuts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, plan.dims[axis])


@autograd.new_style
class _Chunks(Function):
    @staticmethod
    def forward(w, x, plan):
        return _forward(plan, TORCH, w, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        w, x, ctx.plan = inputs
        autograd.save_operands(ctx, w, x, output)

    @staticmethod
    def backward(ctx, grad):
        w, x = autograd.saved(ctx)
        plan, arrays = ctx.plan, TORCH
        if autograd.recording(grad):
            # A graph of the gradient itself: kept whole, as autograd needs it.
            with autograd.enable_grad():
                whole = plan.piece(tuple(slice(0, length) for length in plan.lengths))
                result = plan.evaluate(w[whole.w], x[whole.x], whole)
                dw, dx = autograd.partials(result, (w, x), grad, create_graph=True)
            return dw, dx, None
        needs = ctx.needs_input_grad[:2]
        sums = [
            arrays.full(operand, operand.shape, 0, arrays.sum_dtype(arrays.dtype(operand))) if need else None
            for operand, need in zip((w, x), needs)
        ]
        for piece in _pieces(plan, plan.kept):
            with autograd.enable_grad():
                parts = [autograd.leaf(w[piece.w], needs[0]), autograd.leaf(x[piece.x], needs[1])]
                result = plan.evaluate(parts[0], parts[1], piece)
                found = autograd.partials(result, parts, grad[piece.out])
            for total, partial, index in zip(sums, found, (piece.w, piece.x)):
                if partial is not None:
                    total[index] += arrays.cast(raw(partial), arrays.dtype(total))
        for i, (total, operand) in enumerate(zip(sums, (w, x))):
            if total is not None:
                sums[i] = quiet(arrays.cast(total, arrays.dtype(operand)))
        return sums[0], sums[1], None
