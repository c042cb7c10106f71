"""The path by C kernels: no columns, no terms in memory, gradients included. CPU only.

What kernels can't do, a second derivative, is left to tensor operations in blocks.
"""

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.compat import autograd, graphs, memory
from im2col_compat.compat.arrays import COPIED, NUMPY, TORCH, raw
from im2col_compat.compat.probes import VARIABLES
from im2col_compat.paths import copies, layout, products, recorded
from im2col_compat.paths.recorded import expanded, is_scalar, order_of, others_of, summed
from im2col_compat.problem import product
from im2col_compat.terms import parameters

#: Multiplications after which a call comes back to Python before its next image, so that Ctrl-C gets through.
STEP = 2 * 10**9
#: Multiplications below which a second thread costs more than it brings.
LEAST = 300000


def run(op, problem, kernels, arrays, weights, x):
    """The result for weights and x, of the problem's shapes."""
    if len(weights) > 1 or kernels.traced is not None:
        problem, weights, x = expanded(problem, arrays, weights, x)
    operands = (x,) + weights
    if kernels.traced is not None:
        # One without dimensions may be of another dtype, as its gradient is then.
        operands += tuple([arrays.cast(value, kernels.dtype) for value in kernels.captured if arrays.owns(value)])
    if arrays is NUMPY or not (autograd.records(*operands) or graphs.transform()):
        return _forward(op, problem, kernels, arrays, operands)
    return autograd.apply_function(_Kernels, operands, op, problem, kernels)


def lasting(op, problem, kernels):
    """The kernels for all calls of the problem, of plain operands; None where they depend on more than that."""
    if kernels.captured or kernels.others is not None:
        return None
    plain = kernels.pack is None and kernels.product is None and kernels.divided_by_zero is None
    if not plain or copies.is_spread(problem):
        return kernels
    how = _layout(op, problem, kernels)
    if how.batch * how.multiplications >= LEAST:
        return kernels
    return kernels._replace(small=lowlevel.small_forward(how, kernels.address_for(lowlevel.FORWARD, how)))


def run_parts(op, problem, kernels, arrays, w, x, y_strides):
    """The result of a transposed convolution of one group, of strides: C puts each part where it belongs. w: dense plain
    data."""
    x, x_strides = arrays.placed(x, COPIED if y_strides is None else 0)
    if problem.filled:
        result, to = lowlevel.fresh(arrays, x, problem.result_shape, kernels.result_dtype, y_strides)
    else:
        nothing = op.reduction.of_no_terms(op, kernels.result_dtype)
        result = arrays.full(x, problem.result_shape, nothing, kernels.result_dtype, y_strides)
        to = arrays.address(result)
    kernels = _suited(op, kernels, (x, w))
    divisions = _divisions(kernels)
    parts = layout.of_parts(problem, kernels.dtype, op.reduction.in_order, x_strides, y_strides)
    w_from, x_from, itemsize = arrays.address(w), arrays.address(x), kernels.itemsize
    for how, w_start, x_start, y_start in parts:
        addresses = w_from + w_start * itemsize, x_from + x_start * itemsize, to + y_start * kernels.result_itemsize
        _call(lowlevel.FORWARD, how, kernels.address_for, addresses, (itemsize, kernels.result_itemsize))
    _check_divisions(op, kernels, divisions)
    return result


def _forward(op, problem, kernels, arrays, operands):
    """The result for operands: x, the weight, its parameters, and the tensors that the op's functions capture."""
    if kernels.product is not None and not VARIABLES and products.serves(problem, arrays):
        return products.run(op, problem, kernels.product, operands[1:], operands[0])
    dx, y = layout.last_strides(problem, arrays, operands[1], operands[0])
    if kernels.small is not None and y is None:
        (x, x_strides), (w, w_strides) = arrays.placed(operands[0]), arrays.placed(operands[1])
        if x_strides is None and w_strides is None:
            result = arrays.small(x, problem.result_shape, kernels.result_dtype)
            lowlevel.forward(kernels.small, arrays.address(w), arrays.address(x), arrays.address(result))
            return result
    result, to = lowlevel.fresh(arrays, operands[0], problem.result_shape, kernels.result_dtype, y)
    kernels = _suited(op, kernels, operands)
    divisions = _divisions(kernels)
    has_others = len(operands) > 2 or kernels.traced is not None
    if has_others or y is not None:
        w, scalars = operands[1], None
        if has_others:
            w, scalars = _beside(arrays, kernels, arrays.dense(w), operands)
        how, (w, x) = copies.placed(_layout(op, problem, kernels), problem, arrays, (w, operands[0]), dx, y)
        _evaluate(kernels, how, arrays, w, x, to, scalars)
        _check_divisions(op, kernels, divisions)
        return result
    (x, x_strides), (w, w_strides) = arrays.placed(operands[0]), arrays.placed(operands[1])
    if w_strides is None and x_strides is None and not copies.is_spread(problem):
        _evaluate(kernels, _layout(op, problem, kernels), arrays, w, x, to)
    else:
        for how, w_part, x_part, start in copies.for_forward(
            lambda part: _layout(op, part, kernels), problem, arrays, kernels.itemsize, w, x
        ):
            _evaluate(kernels, how, arrays, w_part, x_part, to + start * kernels.result_itemsize)
    _check_divisions(op, kernels, divisions)
    return result


def _suited(op, kernels, operands):
    """The kernels for these operands."""
    if kernels.others is None:
        return kernels
    pad = op.pad_value_for(kernels.dtype)
    values = [value if parameters.is_number(value) else raw(value) for value in others_of(kernels, operands)]
    ranges = {name: _ends(value) for name, value in zip(kernels.texts.others, values)}
    ends = _ends(raw(operands[0]))
    ranges.update(w=_ends(raw(operands[1])), x=ends if pad is None else (min(ends[0], pad), max(ends[1], pad)))
    found = kernels.others(ranges)
    return kernels if found is None else found._replace(traced=kernels.traced)


def _ends(value):
    """The least and the greatest value."""
    if parameters.is_number(value):
        return value, value
    return (float(value.min()), float(value.max())) if product(int(size) for size in value.shape) else (0, 0)


def _layout(op, problem, kernels):
    return layout.of(problem, op.pad_value_for(kernels.dtype), kernels.dtype)


def _evaluate(kernels, how, arrays, w, x, to, scalars=None):
    if kernels.pack is None:
        itemsizes = kernels.itemsize, kernels.result_itemsize
        addresses = arrays.address(w), arrays.address(x), to
        _call(lowlevel.FORWARD, how, kernels.address_for, addresses, itemsizes, scalars)
        return
    for packed in kernels.pack(how, arrays, w, x):
        addresses = packed.w, packed.x, to + packed.start * kernels.result_itemsize
        itemsizes = packed.itemsize, kernels.result_itemsize
        _call(lowlevel.FORWARD, packed.layout, packed.address_for, addresses, itemsizes)


def _beside(arrays, kernels, w, operands):
    """(planes, scalars) as C takes them: the dense weight with its parameters that have a number for each weight, and those
    of one number for all, in an array."""
    others = others_of(kernels, operands)
    planes = [value for value in others if not parameters.is_number(value) and not is_scalar(value)]
    if planes:
        shape = tuple(int(size) for size in w.shape)
        together = arrays.empty(w, (1 + len(planes),) + shape)
        for i, plane in enumerate([w] + planes):
            together[i] = raw(plane)
        w = together
    numbers = [value if parameters.is_number(value) else arrays.first(raw(value)) for value in others]
    scalars = [number for number, value in zip(numbers, others) if parameters.is_number(value) or is_scalar(value)]
    return w, np.array(scalars, kernels.dtype)


def _divisions(kernels):
    """How often the kernels have divided integers by zero so far."""
    return 0 if kernels.divided_by_zero is None else kernels.divided_by_zero()


def _check_divisions(op, kernels, before):
    """RuntimeError where they have done so since. It may have been another thread's call of the same op."""
    if _divisions(kernels) != before:
        raise RuntimeError("{}: ZeroDivisionError: it divides an integer by zero".format(op))


def _call(call, how, address_for, addresses, itemsizes, scalars=None, dw=0, dx=0, wanted=1, saved=0):
    """One of the C calls, some images at a time, or parts of one.

    address_for: Kernels.address_for. addresses: of w, x, and the result or the gradient with respect to it; itemsizes: of
    x and the latter. saved: the address of the result, which lies as the gradient does, for gradients that need it.
    """
    each = how.multiplications
    if call == lowlevel.GRADS and each > STEP:
        # Each can be cut in its own way.
        for call, to_w, to_x in ((lowlevel.GRAD_X, 0, dx), (lowlevel.GRAD_W, dw, 0)):
            _call(call, how, address_for, addresses, itemsizes, scalars, to_w, to_x, wanted, saved)
        return
    scalars = 0 if scalars is None else lowlevel.address_of(scalars)
    w, x, result = addresses
    if how.batch * each < LEAST:
        lowlevel.dot(call, how, address_for(call, how), 1, w, x, result, saved, dx, dw, scalars, wanted)
        return
    step = max(1, STEP // each)
    for start in range(0, how.batch, step):
        part = how if step >= how.batch else how._replace(batch=min(step, how.batch - start))
        threads = 1 if part.batch * each < LEAST else memory.threads()
        x_offset = start * how.x_strides[0] * itemsizes[0]
        y_offset = start * how.y_strides[0] * itemsizes[1]
        to_x = dx + start * how.dx_strides[0] * itemsizes[0] if dx else 0
        y = saved and saved + y_offset
        if each <= STEP:
            address = address_for(call, part)
            lowlevel.dot(call, part, address, threads, w, x + x_offset, result + y_offset, y, to_x, dw, scalars, wanted)
            continue
        for turn, w_start, x_start, y_start, dx_start, dw_start in _turns(call, part, not scalars):
            lowlevel.dot(
                call, turn, address_for(call, turn), threads, w + w_start * itemsizes[0],
                x + x_offset + x_start * itemsizes[0],
                result + y_offset + y_start * itemsizes[1], y and y + y_start * itemsizes[1],
                to_x and to_x + dx_start * itemsizes[0], dw and dw + dw_start * itemsizes[0], scalars, wanted,
            )  # fmt: skip


def _turns(call, how, alone):
    """(layout, elements of w, x, y, dx and dw before) of parts of one image, where they change no sum: Ctrl-C gets through
    between them. alone: whether weights have no parameters beside them."""
    by_pixels = how.kernel == how.stride == (1, 1, 1) and how.blocks == how.image
    share = STEP / float(how.multiplications)
    if call == lowlevel.GRAD_W and how.groups == 1 and alone:
        step = max(1, int(how.filters * share))
        for first in range(0, how.filters, step):
            turn = how._replace(filters=min(step, how.filters - first))
            taps = how.channels * product(how.kernel)
            yield turn, first * how.w_strides[0], 0, first * how.y_strides[1], 0, first * taps
    elif call == lowlevel.FORWARD or call == lowlevel.GRAD_X and by_pixels:
        room = max(512, int(product(how.image) * share))
        of_dx = how._replace(x_strides=how.dx_strides)
        for (turn, x, y), (_, dx, _) in zip(how.strips(room), of_dx.strips(room)):
            yield turn, 0, x, y, dx, 0
    else:
        yield how, 0, 0, 0, 0, 0


def _gradients(op, problem, kernels, operands, grad, y, needs):
    """The gradients that are needed, as plain data. y: the result, for a reduction that saves it, else None."""
    found = products.gradients(op, problem, kernels, needs, operands, grad)
    needs = [need and one is None for need, one in zip(needs, found)]
    if any(needs):
        add = _add_to if len(operands) == 2 and not kernels.captured else _add_to_all
        kernels = _suited(op, kernels, operands)
        divisions = _divisions(kernels)
        add(op, problem, kernels, operands, grad, y, needs, found)
        _check_divisions(op, kernels, divisions)
    if found[1] is not None and problem.is_conv and TORCH.channels_last(len(problem.w_shape) - 2, raw(operands[1])):
        found[1] = TORCH.with_channels_last(found[1], True)
    return [tensor for tensor in found if tensor is not None]


def _add_to(op, problem, kernels, operands, grad, y, needs, found):
    """Put the gradients that are needed of x and w into `found`."""
    dx_strides = layout.last_strides(problem, TORCH, raw(operands[1]), raw(operands[0]))[0]
    steps = dx_strides, None
    to = [_zeros(like, like.shape, kernels, s) if need else None for like, need, s in zip(operands, needs, steps)]
    if problem.groups > 1 and not problem.is_conv:
        _add_gradients_in_parts(op, problem, kernels, operands[1], operands[0], grad, y, to[::-1])
    else:
        _add_gradients(op, problem, kernels, operands[1], operands[0], grad, y, to[::-1], dx_strides)
    found[:] = [one if new is None else new for one, new in zip(found, to)]


def _add_to_all(op, problem, kernels, operands, grad, y, needs, found):
    """The same, of parameters and captured tensors too."""
    x, w = raw(operands[0]), TORCH.dense(operands[1])
    planes, scalars = _beside(TORCH, kernels, w, operands)
    order = order_of(kernels, operands)
    wanted = sum(1 << bit for bit, i in enumerate(order) if i is not None and needs[1 + i])
    dx_strides = layout.last_strides(problem, TORCH, raw(operands[1]), x)[0]
    dx = _zeros(x, x.shape, kernels, dx_strides) if needs[0] else None
    dw = _zeros(w, ((len(order),) if len(order) > 1 else ()) + tuple(w.shape), kernels) if wanted else None
    to_w, to_x = (0 if tensor is None else TORCH.address(tensor) for tensor in (dw, dx))
    grad, y = _alike(grad, y)
    how, tensors = copies.placed(_layout(op, problem, kernels), problem, TORCH, (planes, x, grad), dx_strides)
    addresses, itemsizes = tuple(map(TORCH.address, tensors)), (kernels.itemsize,) * 2
    saved = 0 if y is None else TORCH.address(y)
    for call, gives_w, gives_x in op.reduction.calls(bool(wanted), needs[0], TORCH, y):
        _call(
            call, how, kernels.address_for, addresses, itemsizes, scalars,
            to_w if gives_w else 0, to_x if gives_x else 0, wanted, saved)  # fmt: skip
    if needs[0]:
        found[0] = dx
    for bit, i in enumerate(order):
        if i is not None and needs[1 + i]:
            part = dw if len(order) == 1 else dw[bit]
            like = raw(operands[1 + i])
            found[1 + i] = part if tuple(like.shape) == tuple(part.shape) else summed(part, like)


def _zeros(like, shape, kernels, strides=None):
    return lowlevel.fresh(TORCH, raw(like), tuple(int(size) for size in shape), kernels.dtype, strides)[0].fill_(0)


def _alike(grad, y):
    """The gradient, and the result if that is needed: then both lie alike."""
    if y is None or grad.stride() == y.stride() and not TORCH.is_lazy(raw(grad)):
        return grad, y
    return TORCH.dense(raw(grad)), TORCH.dense(y)


def _add_gradients(op, problem, kernels, w, x, grad, y, to, dx_strides=None):
    """Add the gradients to tensors of zeros, or None: of w, which is dense, and of x."""
    grad, y = _alike(grad, y)
    how, tensors = copies.placed(_layout(op, problem, kernels), problem, TORCH, (w, x, grad), dx_strides)
    dw, dx = (0 if tensor is None else TORCH.address(tensor) for tensor in to)
    addresses, itemsizes = tuple(map(TORCH.address, tensors)), (kernels.itemsize,) * 2
    saved = 0 if y is None else TORCH.address(y)
    for call, gives_w, gives_x in op.reduction.calls(to[0] is not None, to[1] is not None, TORCH, y):
        to_w, to_x = dw if gives_w else 0, dx if gives_x else 0
        _call(call, how, kernels.address_for, addresses, itemsizes, None, to_w, to_x, saved=saved)


def _add_gradients_in_parts(op, problem, kernels, w, x, grad, y, to):
    """The same for a matmul with groups, whose operands may be repeated: then their gradients are summed."""
    whole = [t if t is None else TORCH.reshape(t, s) for t, s in zip(to, layout.whole_shapes(problem))]
    turns = [None] if not copies.is_spread(problem) else [i for i in (0, 1) if to[i] is not None]
    for of in turns:
        parts, y_parts = [
            copies.for_gradient(problem, TORCH, kernels.itemsize, raw(w), raw(x), raw(t), of) for t in (grad, y)
        ]
        for part, w_part, x_part, grad_part, cut, first in parts:
            y_part = None if y is None else next(y_parts)[3]
            sums = [None if t is None or of not in (None, i) else t[cut] for i, t in enumerate(whole)]
            if of is None or part.groups == 1:
                found = sums
            else:
                shape = (part.w_shape, part.x_shape)[of]
                found = [None if t is None else _zeros(t, shape, kernels) for t in sums]
            _add_gradients(op, part, kernels, w_part, x_part, grad_part, y_part, found)
            if found is not sums:
                total = autograd.sum_to(found[of], sums[of].shape)
                sums[of].copy_(total) if first else sums[of].add_(total)


def _serves_gradients(op, problem, kernels, operands, needs):
    most, packed_alone = op.reduction.most_taps, kernels.address is None and not op.term.only_kernels
    if packed_alone or most is not None and problem.taps > most:
        return False
    how = _layout(op, problem, kernels)
    return not kernels.has_gradients or all([kernels.serves(call, how) for call in op.reduction.grad_calls])


def _again(op, problem, kernels, weights, x):
    return op.term.kernels(op, kernels.dtype, TORCH, c_kernels.level())[0]


_Kernels = recorded.of(run, _forward, _gradients, _serves_gradients, _again)
