"""What autograd and torch.func record of a path by kernels: Functions whose gradients are kernels' too, and whose second
derivatives are tensor operations'. The same for kernels of a CPU and of a GPU.
"""

from im2col_compat.compat import autograd, graphs
from im2col_compat.compat.arrays import TORCH, quiet
from im2col_compat.compat.probes import VARIABLES, Function
from im2col_compat.paths import blocks, layout, merged
from im2col_compat.problem import product
from im2col_compat.terms import parameters


def of(run, forward_of, gradients_of, serves_gradients, again, keeps=False):
    """The Function of a path, of x, the weight, its parameters and captured tensors; then an Op, a Problem and the kernels.

    run(op, problem, kernels, arrays, weights, x): the result, recorded where it has to be
    forward_of(op, problem, kernels, arrays, operands): the result as plain data
    gradients_of(op, problem, kernels, operands, grad, y, needs): the gradients that are needed, as plain data
    servesgradients_of(op, problem, kernels, operands, needs): whether the path has these
    again(op, problem, kernels, weights, x): the kernels for other sizes, of what the op's functions capture now
    keeps: whether forward_of's results may have an attribute `kept`, which gradients_of takes last, if it is called at once
    """

    @autograd.new_style
    class Kernels(Function):
        """Of x, the weight, its parameters and captured tensors."""

        @staticmethod
        def forward(*inputs):
            op, problem, kernels = inputs[-3:]
            return forward_of(op, problem, kernels, TORCH, inputs[:-3])

        @staticmethod
        def setup_context(ctx, inputs, output):
            op, _, kernels = ctx.others = inputs[-3:]
            autograd.save_operands(ctx, inputs[:-3], output, kernels.result_dtype, op.reduction.saves_result)
            if keeps:
                ctx.kept = vars(output).pop("kept", None)

        @staticmethod
        def vmap(info, dims, *inputs):
            op, problem, kernels = inputs[-3:]
            varies = [dim is not None for dim in dims[:-3]]
            larger, w_merged, x_merged, y_merged = merged.of(problem, info.batch_size, any(varies[1:]), varies[0])
            operands = [_samples(t, dim) for t, dim in zip(inputs, dims[:-3])]
            x = x_merged.merge(operands[0])
            weights = tuple(
                w_merged.merge(_of_shape(t, problem.w_shape, dim)) for t, dim in zip(operands[1:], dims[1:])
            )
            kernels = again(op, larger, kernels, weights, x)
            return y_merged.split(run(op, larger, kernels, TORCH, weights, x), problem.result_shape), 0

        @staticmethod
        def backward(ctx, grad):
            operands, y = tuple(autograd.saved(ctx)), None
            op, problem, kernels = ctx.others
            if op.reduction.saves_result:
                operands, y = operands[:-1], operands[-1]
            needs = ctx.needs_input_grad[: len(operands)]
            recorded = graphs.transform() is not None or autograd.recording(grad, *operands)
            if not graphs.only_maps() or not serves_gradients(op, problem, kernels, operands, needs):
                found = autograd.derivatives(_by_tensors(op, problem, kernels), operands, needs, (grad,), recorded)
                return tuple(found) + (None,) * 3
            if not kernels.has_gradients:
                why = "its functions are not tensors', and it has no grad_w and grad_x"
                raise RuntimeError("this op has no gradient: " + why)
            if recorded:
                y = None if y is None else autograd.leaf(y, False)
                found = iter(autograd.apply_function(Gradients, operands + (grad,), y, op, problem, kernels, needs))
            else:
                plain = gradients_of(op, problem, kernels, operands, grad, y, needs, *([ctx.kept] if keeps else []))
                found = iter([quiet(tensor) for tensor in plain])
            return tuple(next(found) if need else None for need in needs) + (None,) * 3

    @autograd.new_style
    class Gradients(Function):
        """The gradients that are needed, by kernels, where they may be differentiated in turn: tensor operations do that."""

        @staticmethod
        def forward(*inputs):
            grad, y, op, problem, kernels, needs = inputs[-6:]
            return tuple(gradients_of(op, problem, kernels, inputs[:-6], grad, y, needs))

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.others = inputs[-4:]
            ctx.save_for_backward(*inputs[:-5])

        @staticmethod
        def vmap(info, dims, *inputs):
            op, problem, kernels, needs = inputs[-4:]
            operands, y, dims, y_dim = inputs[:-5], inputs[-5], dims[:-5], dims[-5]
            shapes = [_sample_shape(t, dim) for t, dim, need in zip(operands, dims, needs) if need]
            # A gradient for each sample needs its operand for each.
            varies = [dim is not None or need for dim, need in zip(dims, needs)]
            larger, w_merged, x_merged, y_merged = merged.of(problem, info.batch_size, any(varies[1:]), varies[0])
            samples = [_samples(t, dim) for t, dim in zip(operands, dims)]
            of_weights = [_of_shape(t, problem.w_shape, dim) for t, dim in zip(samples[1:-1], dims[1:-1])]
            how = [x_merged] + [w_merged] * len(of_weights) + [y_merged]
            moved = [one.merge(t) for one, t in zip(how, samples[:1] + of_weights + samples[-1:])]
            y = None if y is None else y_merged.merge(_samples(y, y_dim))
            merged_shapes = [tuple(t.shape) for t, need in zip(moved, needs) if need]
            weights, x = tuple(moved[1:-1]), moved[0]
            kernels = again(op, larger, kernels, weights, x)
            if len(weights) > 1 or kernels.captured:
                larger, weights, x = expanded(larger, TORCH, weights, x)
            found = autograd.apply_function(Gradients, (x,) + weights + (moved[-1],), y, op, larger, kernels, needs)
            parts = zip([one for one, need in zip(how, needs) if need], found, merged_shapes, shapes)
            parts = tuple(_sum_to_sample(one, d.sum_to_size(whole), shape) for one, d, whole, shape in parts)
            return parts, (0,) * len(parts)

        @staticmethod
        def backward(ctx, *grads):
            operands = tuple(autograd.saved(ctx))
            op, problem, kernels, needs = ctx.others

            def first(*operands):
                operands, grad = operands[:-1], operands[-1]
                found = autograd.derivatives(_by_tensors(op, problem, kernels), operands, needs, (grad,), True)
                wanted = [(d, t) for d, t, need in zip(found, operands, needs) if need]
                return tuple(TORCH.tensor(TORCH.full(t, t.shape, 0)) if d is None else d for d, t in wanted)

            create_graph = autograd.recording(grads[0], *operands)
            found = autograd.derivatives(first, operands, ctx.needs_input_grad[: len(operands)], grads, create_graph)
            return tuple(found) + (None,) * 5

    return Kernels


def takes_samples(are_plain, *operands):
    """Whether torch.func maps over operands so that kernels take all samples as one problem.

    are_plain: whether such are plain tensors of the kernels' device, or samples of them.
    """
    if graphs.transform() is None or not graphs.only_maps() or not are_plain(*operands):
        return False
    return all([graphs.unwrapped(operand).numel() > 0 for operand in operands])


def is_scalar(tensor):
    """Whether a parameter is one number for all weights."""
    return product(int(size) for size in tensor.shape) == 1


def others_of(kernels, operands):
    """What kernels take beside a weight: each parameter's tensor, and each captured number or tensor, in their order."""
    tensors = iter(operands[2:])
    params = [next(tensors) for _ in range(len(operands) - 2 - _captured_tensors(kernels))]
    return params + [value if parameters.is_number(value) else next(tensors) for value in kernels.captured]


def order_of(kernels, operands):
    """For each number that kernels take beside an input, which of the operands after x it is; None where it isn't one."""
    others, places = others_of(kernels, operands), []
    place = 1
    for value in others:
        places.append(None if parameters.is_number(value) else place)
        place += not parameters.is_number(value)
    alone = [parameters.is_number(value) or is_scalar(value) for value in others]
    return [0] + [p for p, one in zip(places, alone) if not one] + [p for p, one in zip(places, alone) if one]


def summed(part, like):
    """The sum of a gradient's parts, in the shape of what it is the gradient of: one number for all."""
    total = like.new(1).fill_(part.sum()) if VARIABLES else part.sum()
    return total.view(*like.shape) if len(like.shape) else total.reshape(())


def _captured_tensors(kernels):
    return sum(not parameters.is_number(value) for value in kernels.captured)


def expanded(problem, arrays, weights, x):
    """(problem, weights, x) with parameters: of a matmul, expanded where each has batches that the other repeats."""
    whole = expanded_problem(problem)
    if whole is problem:
        return problem, weights, x
    shapes = whole.w_shape, whole.x_shape
    weights = tuple(
        w if i and is_scalar(w) else arrays.expand(arrays.reshape(w, problem.w_shape), shapes[0])
        for i, w in enumerate(weights)
    )
    x = arrays.expand(arrays.reshape(x, problem.x_shape), shapes[1])
    return whole, weights, x


def expanded_problem(problem):
    """The problem of operands that are expanded so."""
    if problem.groups == 1 or problem.is_conv:
        return problem
    batch = layout.leading(problem)
    return problem._replace(w_shape=batch + problem.w_shape[-2:], x_shape=batch + problem.x_shape[-2:])


def _samples(tensor, dim):
    """A tensor with vmap's dimension first, or one that all samples share."""
    return tensor if dim is None else tensor.movedim(dim, 0)


def _of_shape(samples, shape, dim):
    """A weight's or a parameter's samples, each in the weight's shape."""
    lead = () if dim is None else (samples.shape[0],)
    return samples.expand(lead + tuple(shape)) if samples.dim() == len(lead) + len(shape) else samples


def _sample_shape(tensor, dim):
    shape = list(tensor.shape)
    if dim is not None:
        del shape[dim]
    return shape


def _by_tensors(op, problem, kernels):
    """What tensor operations make of operands, as autograd.derivatives takes it."""
    if not _captured_tensors(kernels):
        return lambda x, *weights: (blocks.run(op, problem, TORCH, weights, x),)
    op = op.of_expressions(kernels.traced)  # which takes what is captured as parameters
    ones = (1,) * len(problem.w_shape)
    return lambda x, w, *others: (
        blocks.run(op, problem, TORCH, (w,) + tuple(t.reshape(ones) if is_scalar(t) else t for t in others), x),
    )


def _sum_to_sample(how, merged_gradient, shape):
    """Gradients of samples that were merged; a parameter of one number for all has the sum of its weights'."""
    split = how.split(merged_gradient, how.samples[1:])
    whole = split.reshape(split.shape[:1] + tuple(how.samples[1:]))
    if product(shape) == product(how.samples[1:]):
        return whole.reshape(split.shape[:1] + tuple(shape))
    return whole.reshape(split.shape[0], -1).sum(1).reshape(split.shape[:1] + tuple(shape))
