"""The path by C kernels: no columns, no terms in memory, gradients included. CPU only.

What kernels can't do, a second derivative, is left to tensor operations in blocks.
"""

from im2col_compat import lowlevel
from im2col_compat.compat import autograd, graphs, memory
from im2col_compat.compat.arrays import NUMPY, TORCH, quiet, raw
from im2col_compat.compat.probes import Function
from im2col_compat.paths import blocks, layout, merged

#: Multiplications after which a call comes back to Python before its next image, so that Ctrl-C gets through.
STEP = 2 * 10**9
#: Multiplications below which a second thread costs more than it brings.
LEAST = 300000


def run(op, problem, kernels, arrays, w, x):
    """The result for w and x, of the problem's shapes."""
    if problem.groups > 1 and not problem.is_conv:
        problem, w, x = _expanded(problem, arrays, w, x)
    if arrays is NUMPY or not (autograd.records(w, x) or graphs.transform()):
        return _forward(op, problem, kernels, arrays, w, x)
    return autograd.apply_function(_Kernels, (w, x), op, problem, kernels)


def takes_samples(w, x):
    """Whether torch.func maps over w and x so that kernels take all samples as one problem."""
    if graphs.transform() is None or not graphs.only_maps() or not TORCH.are_plain_on_cpu(w, x):
        return False
    return all([graphs.unwrapped(operand).numel() > 0 for operand in (w, x)])


def _forward(op, problem, kernels, arrays, w, x):
    how = layout.of(problem, op.pad_value_for(kernels.dtype), kernels.dtype)
    result, to = lowlevel.fresh(arrays, x, problem.result_shape, kernels.result_dtype)
    w, x = arrays.dense(w), arrays.dense(x)
    addresses, address, itemsize = (arrays.address(w), arrays.address(x), to), kernels.address, kernels.itemsize
    if kernels.pack is not None:
        packed = kernels.pack(how, arrays, w, x)
        how, address, itemsize = packed.layout, packed.address, packed.itemsize
        addresses = packed.w, packed.x, to
    divisions = _divisions(kernels)
    _call(lowlevel.FORWARD, how, address, addresses, (itemsize, kernels.result_itemsize))
    _check_divisions(op, kernels, divisions)
    return result


def _divisions(kernels):
    """How often the kernels have divided integers by zero so far."""
    return 0 if kernels.divided_by_zero is None else kernels.divided_by_zero()


def _check_divisions(op, kernels, before):
    """RuntimeError where they have done so since. It may have been another thread's call of the same op."""
    if _divisions(kernels) != before:
        raise RuntimeError("{}: ZeroDivisionError: it divides an integer by zero".format(op))


def _expanded(problem, arrays, w, x):
    """(problem, w, x) of a matmul, the operands expanded where each has batches that the other repeats."""
    batch = tuple(q if p == 1 else p for p, q in zip(problem.w_shape[:-2], problem.x_shape[:-2]))
    shapes = [batch + shape[-2:] for shape in (problem.w_shape, problem.x_shape)]
    w = arrays.expand(arrays.reshape(w, problem.w_shape), shapes[0])
    x = arrays.expand(arrays.reshape(x, problem.x_shape), shapes[1])
    return problem._replace(w_shape=shapes[0], x_shape=shapes[1]), w, x


def _call(call, how, address, addresses, itemsizes, y_strides=None, dw=0, dx=0):
    """One of the C calls, some images at a time.

    addresses: of w, x, and the result or the gradient with respect to it; itemsizes: of x and the latter.
    """
    w, x, result = addresses
    if y_strides is not None and y_strides != how.y_strides:
        how = how._replace(y_strides=y_strides)
    each = how.multiplications
    step = max(1, STEP // each)
    for start in range(0, how.batch, step):
        part = how if step >= how.batch else how._replace(batch=min(step, how.batch - start))
        threads = 1 if part.batch * each < LEAST else memory.threads()
        x_offset = start * how.x_strides[0] * itemsizes[0]
        y_offset = start * how.y_strides[0] * itemsizes[1]
        to_x = dx + x_offset if dx else 0
        lowlevel.dot(call, part, address, threads, w, x + x_offset, result + y_offset, to_x, dw)


@autograd.new_style
class _Kernels(Function):
    @staticmethod
    def forward(w, x, op, problem, kernels):
        return _forward(op, problem, kernels, TORCH, w, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.others = inputs[2:]
        autograd.save_operands(ctx, inputs[0], inputs[1], output)

    @staticmethod
    def vmap(info, dims, w, x, op, problem, kernels):
        larger, w_merged, x_merged, y_merged = merged.of(
            problem, info.batch_size, *[dim is not None for dim in dims[:2]]
        )
        w, x = [how.merge(_samples(t, dim)) for how, t, dim in zip((w_merged, x_merged), (w, x), dims)]
        return y_merged.split(run(op, larger, kernels, TORCH, w, x), problem.result_shape), 0

    @staticmethod
    def backward(ctx, grad):
        w, x = autograd.saved(ctx)
        op, problem, kernels = ctx.others
        needs, most = ctx.needs_input_grad[:2], op.reduction.most_taps
        recorded = graphs.transform() is not None or autograd.recording(grad, w, x)
        if not graphs.only_maps() or most is not None and problem.taps > most:
            found = autograd.derivatives(_by_tensors(op, problem), (w, x), needs, (grad,), recorded)
            return tuple(found) + (None,) * 3
        if not kernels.has_gradients:
            why = "its functions are not tensors', and it has no grad_w and grad_x"
            raise RuntimeError("this op has no gradient: " + why)
        if recorded:
            found = iter(autograd.apply_function(_Gradients, (w, x, grad), op, problem, kernels, needs))
        else:
            found = iter([quiet(tensor) for tensor in _gradients(op, problem, kernels, w, x, grad, needs)])
        return tuple(next(found) if need else None for need in needs) + (None,) * 3


def _samples(tensor, dim):
    """A tensor with vmap's dimension first, or one that all samples share."""
    return tensor if dim is None else tensor.movedim(dim, 0)


def _sample_shape(tensor, dim):
    shape = list(tensor.shape)
    if dim is not None:
        del shape[dim]
    return shape


def _by_tensors(op, problem):
    """What tensor operations make of operands, as autograd.derivatives takes it."""
    return lambda w, x: (blocks.run(op, problem, TORCH, w, x),)


@autograd.new_style
class _Gradients(Function):
    """The gradients that are needed, by kernels, where they may be differentiated in turn: tensor operations do that."""

    @staticmethod
    def forward(w, x, grad, op, problem, kernels, needs):
        return tuple(_gradients(op, problem, kernels, w, x, grad, needs))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.others = inputs[3:]
        ctx.save_for_backward(*inputs[:3])

    @staticmethod
    def vmap(info, dims, w, x, grad, op, problem, kernels, needs):
        shapes = [_sample_shape(t, dim) for t, dim, need in zip((w, x), dims, needs) if need]
        # A gradient for each sample needs its operand for each.
        varies = [dim is not None or need for dim, need in zip(dims, needs)]
        larger, w_merged, x_merged, y_merged = merged.of(problem, info.batch_size, *varies)
        how = w_merged, x_merged, y_merged
        w, x, grad = [one.merge(_samples(t, dim)) for one, t, dim in zip(how, (w, x, grad), dims)]
        merged_shapes = [tuple(t.shape) for t, need in zip((w, x), needs) if need]
        if larger.groups > 1 and not larger.is_conv:
            larger, w, x = _expanded(larger, TORCH, w, x)
        found = autograd.apply_function(_Gradients, (w, x, grad), op, larger, kernels, needs)
        parts = zip([one for one, need in zip(how, needs) if need], found, merged_shapes, shapes)
        parts = tuple(one.split(d.sum_to_size(whole), shape) for one, d, whole, shape in parts)
        return parts, (0,) * len(parts)

    @staticmethod
    def backward(ctx, *grads):
        operands = autograd.saved(ctx)
        op, problem, _, needs = ctx.others

        def first(w, x, grad):
            found = autograd.derivatives(_by_tensors(op, problem), (w, x), needs, (grad,), True)
            wanted = [(d, t) for d, t, need in zip(found, (w, x), needs) if need]
            return tuple(TORCH.tensor(TORCH.full(t, t.shape, 0)) if d is None else d for d, t in wanted)

        create_graph = autograd.recording(grads[0], *operands)
        found = autograd.derivatives(first, operands, ctx.needs_input_grad[:3], grads, create_graph)
        return tuple(found) + (None,) * 4


def _gradients(op, problem, kernels, w, x, grad, needs):
    """The gradients that are needed, as plain data."""
    how = layout.of(problem, op.pad_value_for(kernels.dtype), kernels.dtype)
    w, x = TORCH.dense(w), TORCH.dense(x)
    grad, strides = _strided(problem, how, raw(grad))
    found = [_zeros(like, kernels) if need else None for like, need in zip((w, x), needs)]
    dw, dx = (0 if tensor is None else TORCH.address(tensor) for tensor in found)
    addresses = TORCH.address(w), TORCH.address(x), TORCH.address(grad)
    divisions = _divisions(kernels)
    for call, gives_w, gives_x in op.reduction.calls(*needs):
        to_w, to_x = dw if gives_w else 0, dx if gives_x else 0
        _call(call, how, kernels.address, addresses, (kernels.itemsize, kernels.itemsize), strides, to_w, to_x)
    _check_divisions(op, kernels, divisions)
    return [tensor for tensor in found if tensor is not None]


def _zeros(like, kernels):
    return lowlevel.fresh(TORCH, like, tuple(int(size) for size in like.shape), kernels.dtype)[0].fill_(0)


def _strided(problem, how, grad):
    """The gradient, and its strides in the order of y_strides; copied only where it has more than these."""
    batched = len(problem.result_shape) == len(problem.image) + 2
    if problem.is_conv and batched and not TORCH.is_lazy(grad):
        strides = tuple(grad.stride())
        steps = [(int(size), step) for size, step in zip(grad.shape[2:], strides[2:]) if size != 1] or [(1, 1)]
        if all(outer == size * inner for (_, outer), (size, inner) in zip(steps, steps[1:])):
            return grad, strides[:2] + (steps[-1][1],)
    return TORCH.dense(grad), how.y_strides
