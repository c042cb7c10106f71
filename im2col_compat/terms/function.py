"""A dot product evaluated with tensor operations: multiply all terms, then add along one axis.

Takes operands that broadcast and are small enough (chunks.py sees to that); records
gradients as any tensor operation does.
"""

from im2col_compat.compat import autograd, dtypes
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.probes import Function, torch
from im2col_compat.op import NAMED, Op
from im2col_compat.terms.table import Table

#: Terms summed in one go. Blocks of sums keep long sums accurate where sum() is a plain loop.
BLOCK = 512


def broadcast_shape(w, x):
    """The shape of an operation on two operands of one rank that broadcast."""
    return tuple(int(q if p == 1 else p) for p, q in zip(w.shape, x.shape))


def result_dtype(op, dtype):
    """The dtype (its name) of a dot product of operands of `dtype`."""
    widens = op.add not in ("max", "min") and op is not NAMED["dot"] or isinstance(op.multiply, Table)
    return "int64" if widens and dtypes.is_integer(dtype) else dtype


def operands(op, arrays, w, x):
    """w and x as the op's functions take them: bools are the signs that xnor has for them."""
    if arrays.dtype(x) == "bool" and op.multiply == NAMED["xnor"].multiply:
        return [arrays.cast(operand, "int8") * 2 - 1 for operand in (w, x)]
    return w, x


def evaluate(op, arrays, w, x, axis, absent=None):
    """add along `axis` of multiply(w, x), without that axis.

    w, x: tensors or arrays of one rank and dtype that broadcast. absent: non-zero where a
    term is to be left out, of a shape that broadcasts to the terms'; None if nowhere.
    """
    if callable(op.add):
        return _left_fold(op, arrays, w, x, axis, absent)
    terms = _terms(op, arrays, w, x)
    dtype = arrays.dtype(terms)
    if op.add == "sum":
        return _sum(arrays, terms if absent is None else arrays.fill(terms, absent, 0), axis)
    if absent is not None:
        terms = arrays.fill(terms, absent, lowest(dtype) if op.add == "max" else highest(dtype))
    return arrays.max(terms, axis) if op.add == "max" else arrays.min(terms, axis)


def lowest(dtype):
    return dtypes.limits(dtype)[0] if dtypes.is_integer(dtype) else -float("inf")


def highest(dtype):
    return dtypes.limits(dtype)[1] if dtypes.is_integer(dtype) else float("inf")


def of_no_terms(op, dtype):
    """What a dot product of no terms at all is."""
    if op.add == "sum":
        return 0
    if op.add == "max":
        return lowest(dtype)
    if op.add == "min":
        return highest(dtype)
    if op.identity is None:
        raise RuntimeError("{}: there is no term to add, and no identity to return instead".format(op))
    return op.identity


# ---------------------------------------------------------------- multiply


def _has_surrogates(op, arrays, w, x):
    surrogates = op.grad_w is not None or op.grad_x is not None or isinstance(op, _ByArrays)
    return surrogates and arrays is TORCH and (w.requires_grad or x.requires_grad)


def _multiplier(op, arrays, w, x):
    """What gives the terms of operands like w and x: op.multiply itself where it needs no help."""
    if not _has_surrogates(op, arrays, w, x):
        term = op.multiply(w, x)
        if _checked(op, "multiply", arrays, term, w, x) is term:
            return op.multiply
    return lambda w, x: _terms(op, arrays, w, x)


def _terms(op, arrays, w, x):
    if _has_surrogates(op, arrays, w, x):
        plain_w, plain_x = autograd.leaf(w, False), autograd.leaf(x, False)
        term = _checked(op, "multiply", arrays, op.multiply(plain_w, plain_x), plain_w, plain_x)
        return _Surrogate.apply(w, x, term, op)
    return _checked(op, "multiply", arrays, op.multiply(w, x), w, x)


def _checked(op, argument, arrays, result, w, x):
    """What a user's function of w and x returned, in the shape and dtype that it must have."""
    if not arrays.owns(result):
        raise TypeError(
            "{}: {} must return one of the {}, but returned {}".format(op, argument, arrays.name, type(result).__name__)
        )
    shape = broadcast_shape(w, x)
    if tuple(result.shape) != shape:
        # A function may ignore one operand.
        if tuple(result.shape) not in (tuple(w.shape), tuple(x.shape)):
            raise RuntimeError(
                "{}: {} must work element by element: for operands of shapes {} and {} it must return shape {}, "
                "but returned {}".format(op, argument, tuple(w.shape), tuple(x.shape), shape, tuple(result.shape))
            )
        result = arrays.expand(result, shape)
    dtype, expected = arrays.dtype(result), arrays.dtype(x)
    if dtype != expected and not (isinstance(op.multiply, Table) and argument == "multiply"):
        if dtype != "bool" or not dtypes.is_integer(expected):
            raise TypeError(
                "{}: {} must return the dtype of its operands, {}, but returned {}".format(
                    op, argument, expected, dtype
                )
            )
        result = arrays.cast(result, expected)
    return result


@autograd.new_style
class _Surrogate(Function):
    """`term`, which is multiply(w, x), differentiated by grad_w and grad_x; and as itself, for what multiply captures."""

    @staticmethod
    def forward(w, x, term, op):
        return term.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        w, x, _, ctx.op = inputs
        ctx.save_for_backward(w, x)

    @staticmethod
    def backward(ctx, grad):
        w, x = autograd.saved(ctx)
        op = ctx.op
        result = []
        for i, (operand, surrogate, argument) in enumerate(((w, op.grad_w, "grad_w"), (x, op.grad_x, "grad_x"))):
            if not ctx.needs_input_grad[i]:
                result.append(None)
            elif surrogate is not None:
                partial = _checked(op, argument, TORCH, surrogate(w, x), w, x)
                if TORCH.dtype(partial).startswith("complex"):
                    partial = partial.conj()  # PyTorch's gradients are conjugate
                result.append(_sum_to(grad * partial, operand.shape))
            else:
                result.append(_true_partial(op, w, x, i, grad))
        return result[0], result[1], grad if ctx.needs_input_grad[2] else None, None


def _true_partial(op, w, x, i, grad):
    """grad times d multiply / d operand i, where only the other operand has a surrogate."""
    if isinstance(op, _ByArrays):
        raise RuntimeError("{}: its functions work on NumPy arrays, so a gradient needs grad_w and grad_x".format(op))
    create_graph = autograd.recording(grad)
    with autograd.enable_grad():
        if not create_graph:
            w, x = autograd.leaf(w, i == 0), autograd.leaf(x, i == 1)
        return autograd.partials(op.multiply(w, x), (w, x), grad, create_graph)[i]


def _sum_to(value, shape):
    for axis, size in enumerate(shape):
        if size == 1 and value.shape[axis] != 1:
            value = value.sum(axis, keepdim=True)
    return value


# ---------------------------------------------------------------- add


def _sum(arrays, terms, axis):
    dtype = arrays.dtype(terms)
    if dtypes.is_integer(dtype):
        return arrays.sum(terms if dtype == "int64" else arrays.cast(terms, "int64"), axis)
    if dtype in dtypes.HALVES:
        return arrays.cast(_sum(arrays, arrays.cast(terms, "float32"), axis), dtype)
    count = terms.shape[axis]
    if count <= BLOCK:
        return arrays.sum(terms, axis)
    before = (slice(None),) * axis
    blocks = [arrays.sum(terms[before + (slice(i, i + BLOCK),)], axis) for i in range(0, count, BLOCK)]
    return arrays.sum(arrays.stack(blocks), 0)


def _unbind(arrays, terms, axis):
    if arrays is TORCH and terms.requires_grad:
        return _Unbind.apply(terms, axis)
    return (terms[(slice(None),) * axis + (k,)] for k in range(terms.shape[axis]))


@autograd.new_style
class _Unbind(Function):
    """The parts along an axis. Indexing's own gradient fills a tensor as large as all of them for each."""

    @staticmethod
    def forward(terms, axis):
        return tuple(terms.select(axis, k).clone() for k in range(terms.shape[axis]))

    @staticmethod
    def setup_context(ctx, inputs, outputs):
        ctx.axis = inputs[1]

    @staticmethod
    def backward(ctx, *grads):
        return torch.stack(grads, ctx.axis), None


def _added(op, arrays, acc, term):
    total = op.add(acc, term)
    if not arrays.owns(total):
        raise TypeError(
            "{}: add must return one of the {}, but returned {}".format(op, arrays.name, type(total).__name__)
        )
    expected, found = [(tuple(t.shape), arrays.dtype(t)) for t in (acc, total)]
    if found != expected:
        raise RuntimeError(
            "{}: add must return what it is given, shape {} and dtype {}, but returned shape {} and dtype {}".format(
                op, *(expected + found)
            )
        )
    return total


def _left_fold(op, arrays, w, x, axis, absent):
    # Term by term: all of them at once would leave room for few results in one block, and each step costs a call.
    before = (slice(None),) * axis
    widens = dtypes.is_integer(arrays.dtype(x))
    acc, started = None, None
    x_parts = iter(_unbind(arrays, x, axis))
    for k, w_part in enumerate(_unbind(arrays, w, axis)):
        x_part = next(x_parts)
        if k == 0:
            multiply = _multiplier(op, arrays, w_part, x_part)
        term = multiply(w_part, x_part)
        if widens:
            term = arrays.cast(term, "int64")
        gone = None
        if absent is not None:
            gone = arrays.expand(absent[before + (k,)], term.shape)
        if k == 0 and op.identity is not None:
            acc = arrays.tensor(arrays.full(term, term.shape, op.identity))
        if acc is None:
            # What a function returns may be its operand itself, and results are new.
            acc, started = arrays.copy(term), None if gone is None else gone == 0
            continue
        total = op.add(acc, term) if k > 1 else _added(op, arrays, acc, term)
        if gone is not None:
            total = arrays.where(gone, acc, total)
            if started is not None:
                # Up to the first tap that is there, acc is no sum of anything yet.
                total = arrays.where(started == 0, term, total)
                started = arrays.where(gone, started, gone == 0)
        acc = total
    if started is not None and not bool(started.all()):
        of_no_terms(op, arrays.dtype(acc))
    return acc


# ---------------------------------------------------------------- functions that only understand NumPy arrays


class _ByArrays(Op):
    """An op whose functions are called with NumPy arrays."""

    def __init__(self, op):
        arguments = dict(vars(op))
        for argument in ("multiply", "add", "grad_w", "grad_x"):
            if callable(arguments[argument]):
                arguments[argument] = _by_arrays(arguments[argument])
        super(_ByArrays, self).__init__(**arguments)


def _by_arrays(function):
    def call(*tensors):
        like = tensors[0]
        result = function(*[raw(tensor.detach()).cpu().numpy() for tensor in tensors])
        if not NUMPY.owns(result):
            return result
        result = TORCH.tensor(torch.from_numpy(result.copy()))
        return result.cuda() if like.is_cuda else result

    call.__name__ = getattr(function, "__name__", repr(function))
    return call


def understood(op, arrays, w, x, w_broadcast, x_broadcast):
    """(op, captures): the op in a form that takes these operands, and whether its functions capture a tensor that requires grad.

    Found by calling its functions on small operands, made of the first elements of w and x,
    that broadcast as the real ones will: w_broadcast and x_broadcast say along which axes.
    Also where functions that return a wrong type, shape or dtype are found out: sizes differ
    along every axis here, so that no slice of a result passes for a result.
    """
    if op.is_named or 0 in tuple(w.shape) + tuple(x.shape):
        return op, False
    operands = [_sample(arrays, tensor, broadcast) for tensor, broadcast in ((w, w_broadcast), (x, x_broadcast))]
    if arrays is NUMPY:
        _try(op, arrays, *operands)
        return op, False
    trains = w.requires_grad or x.requires_grad
    try:
        captures = _try(op, arrays, *[autograd.leaf(operand, False) for operand in operands])
        if trains:
            _try(op, arrays, *[autograd.leaf(operand, True) for operand in operands])
        return op, captures
    except Exception:
        by_arrays = _ByArrays(op)
        if not _works(by_arrays, arrays, operands):
            raise
        return by_arrays, False


def _works(op, arrays, operands):
    # A function of its own, for on Python 2 an inner except would change what the outer one raises again.
    try:
        _try(op, arrays, *[autograd.leaf(operand, False) for operand in operands])
    except Exception:
        return False
    return True


def _sample(arrays, tensor, broadcast):
    first = raw(tensor)[(slice(0, 1),) * len(tensor.shape)]
    shape = tuple(1 if alone else 2 + axis for axis, alone in enumerate(broadcast))
    return arrays.dense(arrays.expand(arrays.reshape(first, (1,) * len(shape)), shape))


def _try(op, arrays, w, x):
    """Call each function once; whether a result requires grad."""
    term = _checked(op, "multiply", arrays, op.multiply(w, x), w, x)
    results = [term]
    if callable(op.add):
        results.append(_added(op, arrays, term, term))
    if arrays is TORCH and dtypes.differentiable(arrays.dtype(x)):
        for argument in ("grad_w", "grad_x"):
            surrogate = getattr(op, argument)
            if surrogate is not None:
                _checked(op, argument, arrays, surrogate(w, x), w, x)
    return arrays is TORCH and any(result.requires_grad for result in results)
