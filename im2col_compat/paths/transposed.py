"""Transposed convolutions: each is ordinary convolutions of stride 1, with parts of the kernel, for parts of the result.

Inputs that a place of the result would find outside the image aren't there at all. So parts leave padded taps out.
"""

import itertools
from collections import namedtuple

from im2col_compat.compat import autograd, dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH, quiet, raw
from im2col_compat.compat.probes import VARIABLES, Function
from im2col_compat.engines import choose as engines
from im2col_compat.paths import choose, layout, native, once, products
from im2col_compat.paths import kernels as c_kernels
from im2col_compat.problem import product


def run(op, problem, arrays, names, w, x, b=None, params=()):
    """The result, of what choose.run takes."""
    if op.is_dot and engines.forced() is None and native.serves_transposed(problem, arrays):
        return native.conv_transpose(problem, x, w, b)
    weights, x = choose.operands(op, problem, arrays, names, w, x, b, params)
    op, weights, x = _before(op, problem, arrays, weights, x)
    result = _of_parts(op, problem, arrays, weights, x)
    return result if b is None else choose.plus(op, arrays, result, b, problem)


def _before(op, problem, arrays, weights, x):
    """(op, weights, x) when what can be computed once an element is."""
    if not problem.parts:
        return op, weights, x
    part, unpadded = problem.parts[0].problem, op.padding_with(None)
    found = once.of(unpadded, part, arrays, x) if products.of(unpadded, part, arrays, x) is None else None
    return (op, weights, x) if found is None else (found[0],) + once.operands(op, found[1], weights, x)


def _of_parts(op, problem, arrays, weights, x):
    result = _in_place(op, problem, arrays, weights, x)
    if result is not None:
        return result
    parts, axes = problem.parts, list(range(len(x.shape) - problem.dims, len(x.shape)))
    # Where the order of terms counts, it is the kernel's. Else it is cheaper to reverse the kernel than the image.
    backwards = op.reduction.in_order
    if backwards:
        x, parts = arrays.flip(x, axes), [part.forwards(problem.w_shape[2:], problem.image) for part in parts]
    how = Kernels(problem.w_shape, problem.numbers[3], not backwards, [part.taps for part in parts])
    # A parameter that is one number is that of all parts.
    split = [_split(arrays, t, how) if tuple(t.shape) == how.shape else (t,) * len(parts) for t in weights]

    def results():
        for i, part in enumerate(parts):
            image = x if part.problem.x_shape == problem.x_shape else x[(Ellipsis,) + part.pixels]
            pads = any([max(sides) > 0 for sides in part.problem.pads])
            kernels = tuple(tensors[i] for tensors in split)
            result = choose.computed(op.padding_with(None if pads else 0), part.problem, arrays, kernels, image)
            yield arrays.flip(result, axes) if backwards else result

    dtype = op.result_dtype(arrays.dtype(x))
    fill = None if problem.filled else op.reduction.of_no_terms(op, dtype)
    strides = layout.last_strides(problem, arrays, weights[0], x)[1]
    whole = Whole(problem.result_shape, strides, dtype, fill, [part.places for part in parts])
    result = layout.with_last(problem, arrays, weights[0], x, _join(arrays, whole, results(), x))
    if not parts and arrays is TORCH and autograd.records(x, *weights):
        result = result + 0 * sum([t.sum() for t in weights], x.sum())  # so that there is a gradient, if of zeros
    return result


def _in_place(op, problem, arrays, weights, x):
    """The result, by C kernels that read operands and write results where they are; None where that can't be."""
    if not problem.parts or problem.numbers[3] > 1 or len(weights) > 1 or arrays.dtype(x) in dtypes.HALVES:
        return None
    if arrays is TORCH and (autograd.records(x, *weights) or graphs.transform() is not None):
        return None
    part = problem.parts[0].problem
    pads = any([max(sides) > 0 for each in problem.parts for sides in each.problem.pads])
    op = op.padding_with(None if pads else 0)
    if products.of(op, part, arrays, x) is not None:
        return None
    path, kernels = choose.kernels_on(op, part, arrays, weights, x)
    if path is not c_kernels or kernels.pack is not None or kernels.product is not None or kernels.traced is not None:
        return None
    y_strides = layout.last_strides(problem, arrays, weights[0], x)[1]
    return arrays.tensor(c_kernels.run_parts(op, problem, kernels, arrays, arrays.dense(weights[0]), x, y_strides))


# ---------------------------------------------------------------- the weight
#: PyTorch 1.0 takes away the inputs of a Function that other Functions follow, when their result is gone, although second
#: derivatives want them still. Where Functions are of the new style (2.0 on) it doesn't.
_KEEPS_INPUTS = hasattr(Function, "setup_context")
#: How a tensor of the weight's shape, (C, O / groups, *kernel), becomes the weights of parts, (O, C / groups, *taps):
#: the shape, the groups, whether the kernel is reversed, and the taps of each part, slices for each dimension.
Kernels = namedtuple("Kernels", "shape groups reversed taps")


def _split(arrays, w, how):
    """The weights of the parts, of what is of the weight's shape."""
    if arrays is TORCH and _KEEPS_INPUTS and (autograd.records(w) or graphs.transform() is not None):
        return autograd.apply_function(_Split, (w,), how)
    return _parts_of(arrays, w, how)


def _parts_of(arrays, w, how):
    (channels, filters), kernel, groups = how.shape[:2], how.shape[2:], how.groups
    # Channels come last for now: each step moves long runs, which is several times as fast as one step over all.
    w = arrays.reshape(w, (groups, channels // groups, filters * product(kernel)))
    w = arrays.reshape(_swapped(arrays, w), (groups * filters,) + kernel + (channels // groups,))
    dims = len(kernel)
    w = arrays.flip(w, list(range(1, 1 + dims))) if how.reversed else w
    order = (0, 1 + dims) + tuple(range(1, 1 + dims))
    return tuple(arrays.copy(arrays.permute(w[(slice(None),) + taps], order)) for taps in how.taps)


def _whole_of(arrays, parts, how):
    """The tensor of the weight's shape that has such parts, with zeros where there is none."""
    (channels, filters), kernel, groups = how.shape[:2], how.shape[2:], how.groups
    w = arrays.full(parts[0], (groups * filters,) + kernel + (channels // groups,), 0)
    dims = len(kernel)
    for taps, part in zip(how.taps, parts):
        w[(slice(None),) + taps] = raw(arrays.permute(part, (0,) + tuple(range(2, 2 + dims)) + (1,)))
    w = arrays.tensor(w)
    w = arrays.flip(w, list(range(1, 1 + dims))) if how.reversed else w
    w = arrays.reshape(w, (groups, filters * product(kernel), channels // groups))
    return arrays.reshape(_swapped(arrays, w), how.shape)


def _swapped(arrays, matrices):
    """Matrices (G, M, N) as (G, N, M). (PyTorch copies one matrix faster than a batch of them.)"""
    if matrices.shape[0] != 1:
        return arrays.permute(matrices, (0, 2, 1))
    return arrays.unsqueeze(arrays.permute(matrices[0], (1, 0)), 0)


@autograd.new_style
class _Split(Function):
    """_parts_of, whose gradient is put together once. Slices' gradients would each be as large as the tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(w, how):
        return tuple(raw(part) for part in _parts_of(TORCH, quiet(w), how))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.how = inputs[1]

    @staticmethod
    def backward(ctx, *grads):
        return autograd.apply_function(_Merge, grads, ctx.how), None

    @staticmethod
    def jvp(ctx, tangent, _):
        return autograd.apply_function(_Split, (tangent,), ctx.how)


@autograd.new_style
class _Merge(Function):
    """_whole_of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs):
        return raw(_whole_of(TORCH, [quiet(part) for part in inputs[:-1]], inputs[-1]))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.how = inputs[-1]

    @staticmethod
    def backward(ctx, grad):
        return tuple(autograd.apply_function(_Split, (grad,), ctx.how)) + (None,)

    @staticmethod
    def jvp(ctx, *tangents):
        return autograd.apply_function(_Merge, tangents[:-1], ctx.how)


# ---------------------------------------------------------------- the result
#: A tensor of parts: its shape, strides and dtype, what fills it where no part is (None where parts are everywhere), and the
#: places of the parts, slices of its last axes.
Whole = namedtuple("Whole", "shape strides dtype fill places")


def _join(arrays, whole, parts, like):
    """The tensor of such parts, which may be computed one by one."""
    if whole.fill is None and len(whole.places) == 1:
        return next(parts)
    if arrays is NUMPY:
        return _filled(arrays, whole, parts, like)
    first = next(parts, None)
    if first is None:
        return arrays.tensor(_filled(arrays, whole, (), like))
    if autograd.records(first) or graphs.transform() is not None:
        return autograd.apply_function(_Join, (first,) + tuple(parts), whole)
    return arrays.tensor(_filled(arrays, whole, itertools.chain((first,), parts), like))


def _filled(arrays, whole, parts, like):
    if whole.fill is None:
        result = arrays.empty(like, whole.shape, whole.dtype, whole.strides)
    else:
        result = arrays.full(like, whole.shape, whole.fill, whole.dtype, whole.strides)
    for place, part in zip(whole.places, parts):
        result[(Ellipsis,) + place] = raw(part)
    return result


@autograd.new_style
class _Join(Function):
    """Parts as one tensor. Of slices that are set, autograd would copy the tensor for each."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs):
        return _filled(TORCH, inputs[-1], inputs[:-1], inputs[0])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.whole = inputs[-1]
        if not VARIABLES and not dtypes.differentiable(ctx.whole.dtype):
            ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, grad):
        return tuple(grad[(Ellipsis,) + place] for place in ctx.whole.places) + (None,)

    @staticmethod
    def jvp(ctx, *tangents):
        return autograd.apply_function(_Join, tangents[:-1], ctx.whole._replace(fill=0))
