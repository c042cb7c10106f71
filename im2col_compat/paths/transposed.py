"""Transposed convolutions: each is ordinary convolutions of stride 1, with parts of the kernel, for parts of the result.

Inputs that a place of the result would find outside the image aren't there at all. So parts leave padded taps out.
"""

from collections import namedtuple

from im2col_compat.compat import autograd, dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.probes import VARIABLES, Function
from im2col_compat.engines import choose as engines
from im2col_compat.paths import choose, native


def run(op, problem, arrays, names, w, x, b=None):
    """The result for checked w and x, of the problem's shapes, plus a bias. names: what messages call w and x."""
    if op.is_dot and engines.forced() is None and native.serves(problem, arrays):
        return native.conv_transpose(problem, x, w, b)
    w, x = choose.operands(op, problem, arrays, names, w, x, b)
    result = _of_parts(op, problem, arrays, w, x)
    return result if b is None else choose.plus(arrays, result, b, problem)


def _of_parts(op, problem, arrays, w, x):
    dims, axes = problem.dims, _last_axes(problem.dims, x)
    w, parts, backwards = _as_filters(problem, arrays, w), problem.parts, op.reduction.in_order
    # Where the order of terms counts, it is the kernel's. Else it is cheaper to reverse the kernel than the image.
    if backwards:
        x, parts = arrays.flip(x, axes), [part.forwards(w.shape[2:], problem.image) for part in parts]
    else:
        w = arrays.flip(w, _last_axes(dims, w))

    def results():
        for part, kernel in zip(parts, _split(arrays, w, [part.taps for part in parts])):
            image = x if part.problem.x_shape == problem.x_shape else x[(Ellipsis,) + part.pixels]
            pads = any([max(sides) > 0 for sides in part.problem.pads])
            result = choose.evaluated(op.padding_with(None if pads else 0), part.problem, arrays, kernel, image)
            yield arrays.flip(result, axes) if backwards else result

    dtype = op.result_dtype(arrays.dtype(x))
    fill = None if problem.filled else op.reduction.of_no_terms(op, dtype)
    places = [part.places for part in parts]
    result = _join(arrays, _Whole(problem.result_shape, dtype, fill, places), results(), x)
    if not parts and arrays is TORCH and autograd.records(w, x):
        result = result + 0 * (w.sum() + x.sum())  # so that there is a gradient, if of zeros
    return result


def _last_axes(dims, x):
    return list(range(len(x.shape) - dims, len(x.shape)))


def _as_filters(problem, arrays, w):
    """What is of the weight's shape, (C, O / groups, *kernel), as an ordinary convolution's: (O, C / groups, *kernel)."""
    groups, (channels, filters), kernel = problem.numbers[3], problem.w_shape[:2], problem.w_shape[2:]
    if groups > 1:
        w = arrays.reshape(w, (groups, channels // groups, filters) + kernel)
        w = arrays.permute(w, (0, 2, 1) + tuple(range(3, 3 + len(kernel))))
        return arrays.reshape(w, (groups * filters, channels // groups) + kernel)
    return arrays.permute(w, (1, 0) + tuple(range(2, 2 + len(kernel))))


#: A tensor of parts: its shape and dtype, what fills it where no part is (None where parts are everywhere), and the
#: places of the parts, slices of its last axes.
_Whole = namedtuple("_Whole", "shape dtype fill places")


def _split(arrays, whole, places):
    """The parts of a tensor at some places."""
    if arrays is TORCH and len(places) > 1 and (autograd.records(whole) or graphs.transform() is not None):
        return autograd.apply_function(_Split, (whole,), places)
    return [whole[(Ellipsis,) + place] for place in places]


def _join(arrays, whole, parts, like):
    """The tensor of such parts, which may be computed one by one."""
    if whole.fill is None and len(whole.places) == 1:
        return next(parts)
    if arrays is NUMPY:
        return _filled(arrays, whole, parts, like)
    first = next(parts, None)
    if first is None or not (autograd.records(first) or graphs.transform() is not None):
        return arrays.tensor(_filled(arrays, whole, parts if first is None else _chained(first, parts), like))
    return autograd.apply_function(_Join, (first,) + tuple(parts), whole)


def _chained(first, others):
    yield first
    for other in others:
        yield other


def _filled(arrays, whole, parts, like):
    if whole.fill is None:
        result = arrays.empty(like, whole.shape, whole.dtype)
    else:
        result = arrays.full(like, whole.shape, whole.fill, whole.dtype)
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


@autograd.new_style
class _Split(Function):
    """One tensor as parts. Slices' gradients would each be as large as the tensor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(whole, places):
        return tuple(whole[(Ellipsis,) + place].clone() for place in places)

    @staticmethod
    def setup_context(ctx, inputs, output):
        whole, places = inputs
        ctx.whole = _Whole(tuple(whole.shape), TORCH.dtype(whole), 0, places)

    @staticmethod
    def backward(ctx, *grads):
        return autograd.apply_function(_Join, grads, ctx.whole), None

    @staticmethod
    def jvp(ctx, tangent, _):
        return autograd.apply_function(_Split, (tangent,), ctx.whole.places)
