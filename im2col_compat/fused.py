"""A dot product by the fused C kernels: no columns, no terms in memory, gradients included. CPU only.

Arguments are checked, kernels chosen and shapes worked out elsewhere (conv.py); what
kernels can't do, a second derivative, is left to the plan of tensor operations.
"""

from collections import namedtuple

import numpy as np

from im2col_compat import features, lowlevel, plans
from im2col_compat.geometry import product

#: Multiplications after which a call comes back to Python before its next image, so that Ctrl-C gets through.
STEP = 2 * 10**9
#: Multiplications below which a second thread costs more than it brings.
LEAST = 300000

#: Terms of one result up to which an add of the user's is differentiated by the kernels, which keep them all.
MOST_FOLDED = 32768

FORWARD, GRAD_X, GRAD_W, GRAD_EXTREMUM, GRAD_FOLD = range(5)


class Problem(
    namedtuple(
        "Problem",
        "batch groups filters channels image kernel dilation stride before blocks x_strides y_shape y_strides pad is_conv",
    )
):
    """What lowlevel.dot needs to know: see struct dot_problem in ffi/dot.h.

    Triples are (depth, vertical, horizontal), two dimensions being one plane deep. y_shape: the result's;
    pad: a number, or None where padded taps are left out.
    """

    __slots__ = ()

    @property
    def taps(self):
        return self.channels * product(self.kernel)

    @property
    def multiplications(self):
        """Of one image."""
        return self.groups * self.filters * self.taps * product(self.blocks)

    def pad_bytes(self, dtype):
        """The pad value as eight bytes in memory."""
        value = np.array([0 if self.pad is None else self.pad]).astype(dtype)
        return tuple(bytearray(value.tobytes().ljust(8, b"\0")))


def conv(op, kernels, arrays, w, x, geometry):
    """As plans.conv2d, for x of one to three dimensions beside batch and channels."""
    columns, channels = geometry.columns, int(x.shape[1])
    ones = (1,) * (5 - len(x.shape))
    image, kernel, dilation, stride, blocks = (
        ones + tuple(int(size) for size in sizes)
        for sizes in (x.shape[2:], columns.kernel, columns.dilation, columns.stride, columns.blocks)
    )
    before = (0,) * len(ones) + tuple(first for first, _ in geometry.pads)
    pixels, length = product(image), product(blocks)
    if kernel == stride == (1, 1, 1) and blocks == image:
        # Pixel by pixel, an image is one long row.
        image = blocks = (1, 1, pixels)
    problem = Problem(
        batch=columns.batch,
        groups=geometry.groups,
        filters=geometry.filters // geometry.groups,
        channels=channels // geometry.groups,
        image=image,
        kernel=kernel,
        dilation=dilation,
        stride=stride,
        before=before,
        blocks=blocks,
        x_strides=(channels * pixels, pixels, image[1] * image[2], image[2], 1),
        y_shape=geometry.output_shape,
        y_strides=(geometry.filters * length, length, 1),
        pad=op.pad_value_for(kernels.dtype),
        is_conv=True,
    )
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.conv(op, features.TORCH, w, x, geometry))


def linear(op, kernels, arrays, w, x):
    """As plans.linear: a 1 x 1 convolution of one row of inputs, whose features are channels."""
    sizes = tuple(int(size) for size in x.shape)
    filters, taps = (int(size) for size in w.shape)
    count = product(sizes[:-1])
    problem = _one_by_one(
        filters=filters,
        channels=taps,
        count=count,
        x_strides=(count * taps, 1, count * taps, count * taps, taps),
        y_shape=sizes[:-1] + (filters,),
        y_strides=(count * filters, 1, filters),
    )
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.linear(op, features.TORCH, w, x))


def matmul(op, kernels, arrays, w, x):
    """As plans.matmul: the same of rows, a batch being one of images, of filters, or of groups."""
    sizes = [tuple(int(size) for size in t.shape) for t in (w, x)]
    batch = tuple(q if p == 1 else p for p, q in zip(sizes[0][:-2], sizes[1][:-2]))
    rows, taps = sizes[0][-2:]
    count = sizes[1][-1]
    images, groups, filters = 1, 1, rows
    if product(sizes[0][:-2]) == 1:
        images = product(batch)
    elif product(sizes[1][:-2]) == 1:
        filters = product(batch) * rows
    else:
        groups = product(batch)
        w, x = (t if size[:-2] == batch else arrays.expand(t, batch + size[-2:]) for t, size in zip((w, x), sizes))
    problem = _one_by_one(
        batch=images,
        groups=groups,
        filters=filters,
        channels=taps,
        count=count,
        x_strides=(groups * taps * count, count, count, count, 1),
        y_shape=batch + (rows, count),
        y_strides=(groups * filters * count, count, 1),
    )
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.matmul(op, features.TORCH, w, x))


def _one_by_one(count, batch=1, groups=1, **others):
    one = (1, 1, 1)
    return Problem(
        batch=batch,
        groups=groups,
        image=(1, 1, count),
        kernel=one,
        dilation=one,
        stride=one,
        before=(0, 0, 0),
        blocks=(1, 1, count),
        pad=0,
        is_conv=False,
        **others
    )


def _run(problem, kernels, arrays, w, x, evaluate):
    """The result for w (of any shape, in the order (groups, filters, taps)) and x.

    evaluate(w, x): the same by tensor operations, for second derivatives.
    """
    if arrays is features.NUMPY or not features.records(w, x):
        return _forward(problem, kernels, arrays, w, x)
    return _Fused.apply(w, x, problem, kernels, evaluate)


def _forward(problem, kernels, arrays, w, x):
    result = arrays.empty(x, problem.y_shape, kernels.result_dtype)
    lowlevel.advise(arrays.address(result), product(problem.y_shape) * kernels.total)
    _call(FORWARD, problem, kernels, arrays, arrays.dense(w), arrays.dense(x), result, problem.y_strides)
    return result


def _threads(problem, count):
    if count * problem.multiplications < LEAST:
        return 1
    return features.threads()


def _call(call, problem, kernels, arrays, w, x, result, y_strides, dw=None, dx=None):
    """One of the C calls, some images at a time. result: the result, or the gradient with respect to it."""
    step = max(1, min(problem.batch, STEP // problem.multiplications))
    itemsize = kernels.itemsize
    addresses = [arrays.address(w), arrays.address(x), arrays.address(result)]
    out = [0 if tensor is None else arrays.address(tensor) for tensor in (dx, dw)]
    for start in range(0, problem.batch, step):
        count = min(step, problem.batch - start)
        x_offset = start * problem.x_strides[0] * itemsize
        part = problem._replace(batch=count, y_strides=y_strides)
        lowlevel.dot(
            call,
            part,
            kernels,
            _threads(problem, count),
            addresses[0],
            addresses[1] + x_offset,
            addresses[2] + start * y_strides[0] * (kernels.total if call == FORWARD else itemsize),
            out[0] + x_offset if out[0] else 0,
            out[1],
        )


@features.new_style
class _Fused(features.Function):
    @staticmethod
    def forward(w, x, problem, kernels, evaluate):
        return _forward(problem, kernels, features.TORCH, w, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        w, x, ctx.problem, ctx.kernels, ctx.evaluate = inputs
        features.save_operands(ctx, w, x, output)

    @staticmethod
    def backward(ctx, grad):
        w, x = features.saved(ctx)
        create_graph = features.recording(grad)
        if create_graph or ctx.kernels.add == "fold" and ctx.problem.taps > MOST_FOLDED:
            with features.enable_grad():
                if not create_graph:
                    w, x = (features.leaf(t, need) for t, need in zip((w, x), ctx.needs_input_grad))
                dw, dx = features.partials(ctx.evaluate(w, x), (w, x), grad, create_graph)
            return dw, dx, None, None, None
        if not ctx.kernels.gradients:
            raise RuntimeError(
                "this op has no gradient: its functions are not tensors', and it has no grad_w and grad_x"
            )
        dw, dx = _gradients(ctx.problem, ctx.kernels, w, x, grad, ctx.needs_input_grad[:2])
        return dw, dx, None, None, None


def _gradients(problem, kernels, w, x, grad, needs):
    arrays = features.TORCH
    w_, x_ = arrays.dense(w), arrays.dense(x)
    grad, strides = _strided(problem, arrays, features.raw(grad))
    dw, dx = (_zeros(arrays, like, kernels) if need else None for like, need in zip((w_, x_), needs))
    if kernels.add == "sum":
        if needs[1]:
            _call(GRAD_X, problem, kernels, arrays, w_, x_, grad, strides, dx=dx)
        if needs[0]:
            _call(GRAD_W, problem, kernels, arrays, w_, x_, grad, strides, dw=dw)
    elif kernels.add in ("max", "min"):
        _call(GRAD_EXTREMUM, problem, kernels, arrays, w_, x_, grad, strides, dw, dx)
    else:
        # One at a time: tasks that share neither weights nor pixels are others for each.
        if needs[1]:
            _call(GRAD_FOLD, problem, kernels, arrays, w_, x_, grad, strides, dx=dx)
        if needs[0]:
            _call(GRAD_FOLD, problem, kernels, arrays, w_, x_, grad, strides, dw=dw)
    return [None if tensor is None else features.quiet(tensor) for tensor in (dw, dx)]


def _zeros(arrays, like, kernels):
    shape = tuple(int(size) for size in like.shape)
    result = arrays.empty(like, shape)
    lowlevel.advise(arrays.address(result), product(shape) * kernels.itemsize)
    return result.fill_(0)


def _strided(problem, arrays, grad):
    """The gradient, and its strides in the order of problem.y_strides; copied only where it has more than these."""
    if problem.is_conv and not arrays.is_lazy(grad):
        strides = tuple(grad.stride())
        steps = [(int(size), step) for size, step in zip(grad.shape[2:], strides[2:]) if size != 1] or [(1, 1)]
        if all(outer == size * inner for (_, outer), (size, inner) in zip(steps, steps[1:])):
            return grad, strides[:2] + (steps[-1][1],)
    return arrays.dense(grad), problem.y_strides
