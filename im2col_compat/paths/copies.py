"""Operands for C: as they lie in memory, or as copies of parts, so that no copy is large."""

import itertools

from im2col_compat.compat.arrays import COPIED
from im2col_compat.paths import layout
from im2col_compat.problem import dense, linear_problem, product


def is_spread(problem):
    """Whether a problem is a matmul in which each operand has leading dimensions that the other repeats."""
    return problem.groups > 1 and not problem.is_conv and problem.w_shape[:-2] != problem.x_shape[:-2]


def placed(how, problem, arrays, operands, dx=None, y=None):
    """(layout, plain data) of w, x and perhaps the result's gradient. What C can't walk to in place is copied.

    dx, y: strides of x's gradient and of the result, None where these are dense.
    """
    # Images that have their channels last are packed as fast as they would be copied.
    found = [arrays.placed(operand, COPIED if i == 0 or dx is None else 0) for i, operand in enumerate(operands)]
    tensors, strides = [tensor for tensor, _ in found], [steps for _, steps in found]
    strides += [y] * (3 - len(strides)) + [dx]
    if strides.count(None) == 4:
        return how, tensors
    shapes = layout.whole_shapes(problem)
    for i, tensor in enumerate(tensors):
        if strides[i] is not None and not problem.is_conv:
            tensors[i], strides[i] = arrays.placed(arrays.shaped(tensor, shapes[i]), 0)
    lying = layout.lying(how, problem, tuple(strides))
    for i, tensor in enumerate(tensors):
        if lying is None and strides[i] is not None:
            tensors[i], strides[i] = arrays.dense(tensor), None
            lying = layout.lying(how, problem, tuple(strides))
    return lying, tensors


def for_forward(make, problem, arrays, itemsize, w, x):
    """(layout, w, x, elements of the result before) of parts of a problem that C can be given without large copies.

    make: a problem's layout. Results don't depend on each other, so the parts may be any.
    """
    strides = tuple(arrays.placed(arrays.shaped(t, s))[1] for t, s in zip((w, x), layout.whole_shapes(problem)))
    if not is_spread(problem) and layout.lying(make(problem), problem, strides + (None, None)) is not None:
        parts = [(problem, w, x, 0)]
    elif problem.function == "linear":
        parts = _of_rows(problem, arrays, itemsize, w, x)
    else:
        w, x = _expanded(problem, arrays, w, x)
        parts = ((part, w[cut], x[cut], start) for part, cut, start in _of_matrices(problem, itemsize))
    for part, w_part, x_part, start in parts:
        how, (w_part, x_part) = placed(make(part), part, arrays, (w_part, x_part))
        yield how, w_part, x_part, start


def _of_rows(problem, arrays, itemsize, w, x):
    sizes, (filters, features) = problem.x_shape[:-1], problem.w_shape
    for cut in _cuts(sizes, COPIED // (features * itemsize)):
        part = linear_problem(_lengths(cut) + (features,), (filters, features), None)
        yield part, w, x[cut], _start(sizes, cut) * filters


def _of_matrices(problem, itemsize, order=None):
    """(problem, slices of the leading dimensions, elements of the result before) of parts of a matmul, each of so few
    matrices that copies of these are small; or of one. order: of the dimensions, if not the last is to go on fastest.
    """
    sizes, (rows, taps), columns = layout.leading(problem), problem.w_shape[-2:], problem.x_shape[-1]
    order = range(len(sizes)) if order is None else order
    room = COPIED // (itemsize * max(rows * taps, taps * columns, rows * columns))
    for cut in _cuts([sizes[axis] for axis in order], room):
        cut = tuple(part for _, part in sorted(zip(order, cut), key=lambda pair: pair[0]))
        lengths = _lengths(cut)
        part = problem._replace(
            batch=1, groups=product(lengths), filters=rows, w_shape=lengths + (rows, taps),
            x_shape=lengths + (taps, columns), result_shape=lengths + (rows, columns),
        )  # fmt: skip
        yield part, cut, _start(sizes, cut) * rows * columns


def _expanded(problem, arrays, w, x):
    """The operands of a matmul with all leading dimensions of the result."""
    (w_shape, x_shape, _), lead = layout.whole_shapes(problem), layout.leading(problem)
    return [arrays.expand(arrays.shaped(t, s), lead + s[-2:]) for t, s in ((w, w_shape), (x, x_shape))]


def for_gradient(problem, arrays, itemsize, w, x, grad, of):
    """(problem, w, x, gradient, slices, whether it is the first of these) of parts of a matmul with groups.

    of: 0 for the gradient of w, 1 for that of x, None for both of operands that repeat nothing. slices: of the leading
    dimensions of the gradients that a part adds to.
    """
    shapes, lead = layout.whole_shapes(problem), layout.leading(problem)
    w, x = _expanded(problem, arrays, w, x)
    grad = arrays.shaped(grad, shapes[2])
    repeated = [of is not None and size > shapes[of][axis] for axis, size in enumerate(lead)]
    # What is summed up is in one part, where it can be.
    order = sorted(range(len(lead)), key=lambda axis: repeated[axis])
    for part, cut, _ in _of_matrices(problem, itemsize, order):
        to = tuple(slice(0, 1) if twice else one for twice, one in zip(repeated, cut))
        first = all(one.start == 0 for twice, one in zip(repeated, cut) if twice)
        yield part, w[cut], x[cut], grad[cut], to, first


def _cuts(sizes, room):
    """Tuples of slices, of all axes, into parts that follow each other: each of at most `room` elements, or of one."""
    axes = []
    for size in reversed(sizes):
        step = max(1, min(size, room))
        axes.insert(0, [slice(start, min(start + step, size)) for start in range(0, size, step)])
        room //= step
    return itertools.product(*axes)


def _lengths(cut):
    return tuple(part.stop - part.start for part in cut)


def _start(sizes, cut):
    return sum(part.start * step for part, step in zip(cut, dense(sizes)))
