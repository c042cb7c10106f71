"""A dot product by the fused C kernels: no columns, no terms in memory, gradients included. CPU only.

Arguments are checked, kernels chosen and shapes worked out elsewhere (conv.py); what
kernels can't do, a second derivative, is left to the plan of tensor operations.
"""

from collections import namedtuple

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.compat import autograd, memory
from im2col_compat.compat.arrays import NUMPY, TORCH, quiet, raw
from im2col_compat.compat.probes import Function
from im2col_compat.paths import plans
from im2col_compat.problem import product

#: Multiplications after which a call comes back to Python before its next image, so that Ctrl-C gets through.
STEP = 2 * 10**9
#: Multiplications below which a second thread costs more than it brings.
LEAST = 300000

#: Terms of one result up to which an add of the user's is differentiated by the kernels, which keep them all.
MOST_FOLDED = 32768

#: A mask of all bits.
ALL = 2**64 - 1

FORWARD, GRAD_X, GRAD_W, GRAD_EXTREMUM, GRAD_FOLD = range(5)


class Problem(
    namedtuple(
        "Problem",
        "batch groups filters channels image kernel dilation stride before blocks x_strides y_shape y_strides pad last "
        "is_conv",
    )
):
    """What lowlevel.dot needs to know: see struct dot_problem in ffi/dot.h.

    Triples are (depth, vertical, horizontal), two dimensions being one plane deep. y_shape: the result's;
    pad: a number, or None where padded taps are left out. last: the mask of a group's last channel.
    """

    __slots__ = ()

    @property
    def taps(self):
        return self.channels * product(self.kernel)

    @property
    def multiplications(self):
        """Of one image."""
        return self.groups * self.filters * self.taps * product(self.blocks)

    @property
    def pads(self):
        """Whether there are taps outside the image."""
        sizes = zip(self.image, self.kernel, self.dilation, self.stride, self.blocks, self.before)
        return any(b > 0 or (n - 1) * s + (k - 1) * d - b >= size for size, k, d, s, n, b in sizes)

    @property
    def turns(self):
        """Whether filters and positions can take each other's place: where both are rows of features."""
        return not self.is_conv and self.batch == self.groups == 1 and self.x_strides[1] == 1

    def turned(self):
        """The problem of x and w in each other's place."""
        count, filters, taps = self.blocks[2], self.filters, self.channels
        return self._replace(
            filters=count,
            image=(1, 1, filters),
            blocks=(1, 1, filters),
            x_strides=(filters * taps, 1, filters * taps, filters * taps, taps),
            y_strides=(count * filters, filters, 1),
        )

    def pad_bytes(self, dtype):
        """The pad value as eight bytes in memory."""
        if self.pad is None:
            return (0,) * 8
        value = np.array([self.pad]).astype(dtype)
        return tuple(bytearray(value.tobytes().ljust(8, b"\0")))


def conv(op, kernels, arrays, w, x, geometry):
    """As plans.conv, for one to three spatial dimensions."""
    problem = geometry.__dict__.get("problem")
    if problem is None:
        problem = geometry.problem = _conv_problem(geometry)
    problem = problem._replace(pad=op.pad_value_for(kernels.dtype))
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.conv(op, TORCH, w, x, geometry))


def _conv_problem(geometry):
    columns = geometry.columns
    ones = (1,) * (3 - columns.dims)
    kernel, dilation, stride, blocks = (
        ones + sizes for sizes in (columns.kernel, columns.dilation, columns.stride, columns.blocks)
    )
    # The columns' image is the padded one.
    image = ones + tuple(size - sum(pads) for size, pads in zip(columns.image, geometry.pads))
    pixels, length = product(image), product(blocks)
    if kernel == stride == (1, 1, 1) and blocks == image:
        # Pixel by pixel, an image is one long row.
        image = blocks = (1, 1, pixels)
    return Problem(
        batch=columns.batch,
        groups=geometry.groups,
        filters=geometry.filters // geometry.groups,
        channels=columns.channels // geometry.groups,
        image=image,
        kernel=kernel,
        dilation=dilation,
        stride=stride,
        before=(0,) * len(ones) + tuple(first for first, _ in geometry.pads),
        blocks=blocks,
        x_strides=(columns.channels * pixels, pixels, image[1] * image[2], image[2], 1),
        y_shape=geometry.output_shape,
        y_strides=(geometry.filters * length, length, 1),
        pad=0,
        last=ALL,
        is_conv=True,
    )


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
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.linear(op, TORCH, w, x))


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
    return _run(problem, kernels, arrays, w, x, lambda w, x: plans.matmul(op, TORCH, w, x))


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
        last=ALL,
        is_conv=False,
        **others
    )


def _run(problem, kernels, arrays, w, x, evaluate):
    """The result for w (of any shape, in the order (groups, filters, taps)) and x.

    evaluate(w, x): the same by tensor operations, for second derivatives.
    """
    if arrays is NUMPY or not autograd.records(w, x):
        return _forward(problem, kernels, arrays, w, x)
    return _Fused.apply(w, x, problem, kernels, evaluate)


def _forward(problem, kernels, arrays, w, x):
    result = arrays.empty(x, problem.y_shape, kernels.result_dtype)
    lowlevel.advise(arrays.address(result), product(problem.y_shape) * kernels.total)
    w, x, to = arrays.dense(w), arrays.dense(x), arrays.address(result)
    if kernels.packing is not None:
        problem, kernels, arrays, w, x = kernels.packing(problem, kernels, arrays, w, x)
    _call(FORWARD, problem, kernels, (arrays.address(w), arrays.address(x), to), problem.y_strides)
    return result


def _threads(problem, count):
    if count * problem.multiplications < LEAST:
        return 1
    return memory.threads()


def _call(call, problem, kernels, addresses, y_strides, dw=0, dx=0):
    """One of the C calls, some images at a time, on the addresses of w, x and the result, or the gradient with respect to it."""
    step = max(1, min(problem.batch, STEP // problem.multiplications))
    w, x, result = addresses
    for start in range(0, problem.batch, step):
        count = min(step, problem.batch - start)
        x_offset = start * problem.x_strides[0] * kernels.itemsize
        part = problem._replace(batch=count, y_strides=y_strides)
        lowlevel.dot(
            call,
            part,
            kernels,
            _threads(problem, count),
            w,
            x + x_offset,
            result + start * y_strides[0] * (kernels.total if call == FORWARD else kernels.itemsize),
            dx + x_offset if dx else 0,
            dw,
        )


@autograd.new_style
class _Fused(Function):
    @staticmethod
    def forward(w, x, problem, kernels, evaluate):
        return _forward(problem, kernels, TORCH, w, x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        w, x, ctx.problem, ctx.kernels, ctx.evaluate = inputs
        autograd.save_operands(ctx, w, x, output)

    @staticmethod
    def backward(ctx, grad):
        w, x = autograd.saved(ctx)
        create_graph = autograd.recording(grad)
        if create_graph or ctx.kernels.add == "fold" and ctx.problem.taps > MOST_FOLDED:
            with autograd.enable_grad():
                if not create_graph:
                    w, x = (autograd.leaf(t, need) for t, need in zip((w, x), ctx.needs_input_grad))
                dw, dx = autograd.partials(ctx.evaluate(w, x), (w, x), grad, create_graph)
            return dw, dx, None, None, None
        if not ctx.kernels.gradients:
            raise RuntimeError(
                "this op has no gradient: its functions are not tensors', and it has no grad_w and grad_x"
            )
        dw, dx = _gradients(ctx.problem, ctx.kernels, w, x, grad, ctx.needs_input_grad[:2])
        return dw, dx, None, None, None


def _gradients(problem, kernels, w, x, grad, needs):
    arrays = TORCH
    w_, x_ = arrays.dense(w), arrays.dense(x)
    grad, strides = _strided(problem, arrays, raw(grad))
    dw, dx = (_zeros(arrays, like, kernels) if need else None for like, need in zip((w_, x_), needs))
    to_w, to_x = (0 if tensor is None else arrays.address(tensor) for tensor in (dw, dx))
    addresses = arrays.address(w_), arrays.address(x_), arrays.address(grad)
    if kernels.add in ("max", "min"):
        _call(GRAD_EXTREMUM, problem, kernels, addresses, strides, to_w, to_x)
    else:
        # One at a time: tasks that share neither weights nor pixels are others for each.
        for_x, for_w = (GRAD_X, GRAD_W) if kernels.add == "sum" else (GRAD_FOLD, GRAD_FOLD)
        if needs[1]:
            _call(for_x, problem, kernels, addresses, strides, dx=to_x)
        if needs[0]:
            _call(for_w, problem, kernels, addresses, strides, dw=to_w)
    return [None if tensor is None else quiet(tensor) for tensor in (dw, dx)]


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
