"""Terms that a Python function computes: by C kernels where it can be traced, else by tensor operations."""

from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.codegen import symbols, template
from im2col_compat.compat import autograd, dtypes
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Function as AutogradFunction
from im2col_compat.compat.probes import torch
from im2col_compat.compat.warn import Once, warn
from im2col_compat.terms import named
from im2col_compat.terms.base import Term

#: How many pieces of C one function may give: numbers in it that change from call to call must not lead to a
#: compilation each.
MOST_SOURCES = 16
#: How many results of tracing are kept.
MOST_TRACES = 1000

_found = Memo(MOST_TRACES)  # what an op is made of: (Kernels, reason)
_traced = Memo(MOST_TRACES)  # what it was traced to: (Kernels, reason)
_sources = Memo(MOST_TRACES)  # the code of an op's functions, dtype, level: the set of what these were traced to
_cannot_compile = Once()


def broadcast_shape(w, x):
    """The shape of an operation on two operands of one rank that broadcast."""
    return tuple(int(q if p == 1 else p) for p, q in zip(w.shape, x.shape))


class Function(Term):
    """The kind of term for any other callable."""

    @staticmethod
    def takes(multiply):
        return True

    # ---------------------------------------------------------------- kernels

    def kernels(self, op, dtype, arrays, level):
        # Functions that may give something else at each call are traced at each.
        key = op.fingerprint()
        if key is None:
            return self.found(op, dtype, arrays, level)
        return _found.get(key + (dtype, arrays.name, level), lambda: self.found(op, dtype, arrays, level))

    def found(self, op, dtype, arrays, level):
        """What kernels() keeps."""
        reason = c_kernels.unfit(op, dtype)
        if reason is not None:
            return None, reason
        found = named.kernels(op, dtype, level)
        if found is not None:
            return found, None
        try:
            traced = symbols.trace(op, dtype, arrays)
        except symbols.Untraceable as error:
            return None, str(error)
        key = traced, op.reduction.c_name, repr(op.identity), repr(op.pad_value), dtype, level
        if not _traced.has(key) and _changes(op, key):
            warn(
                "im2col_compat: {} captures numbers that change, and each is another piece of C: after {} of them it is "
                "evaluated with tensor operations, which is slower".format(op, MOST_SOURCES)
            )
            return None, "it gives other C from call to call"
        return _traced.get(key, lambda: self._compiled(op, traced, dtype, level))

    def _compiled(self, op, traced, dtype, level):
        found, reason = c_kernels.compiled(template.of_expressions(op, traced, dtype), dtype, level, repr(op))
        if found is None:
            _cannot_compile(
                "im2col_compat can't compile ops here, and evaluates them with tensor operations, which is slower: {}. "
                "Named ops don't need a compiler".format(reason)
            )
        return found, reason

    def recordable(self, op, dtype):
        try:
            symbols.trace(op, dtype, TORCH)
        except symbols.Untraceable:
            return False
        return True

    def explained(self, op, dtype, arrays, kernels):
        texts = kernels.texts or template.of_expressions(op, symbols.trace(op, dtype, arrays), dtype)
        return texts.functions

    # ---------------------------------------------------------------- tensor operations

    def prepared(self, op, arrays, w, x, w_broadcast, x_broadcast):
        """The functions are called on small operands, made of the first elements of w and x, that broadcast as the real
        ones will: w_broadcast and x_broadcast say along which axes. So functions that only take NumPy arrays are found,
        and those that return a wrong type, shape or dtype: sizes differ along every axis, so that no slice of a result
        passes for a result.
        """
        if op.is_named or 0 in tuple(w.shape) + tuple(x.shape):
            return op, w, x, False
        operands = [_sample(arrays, tensor, broadcast) for tensor, broadcast in ((w, w_broadcast), (x, x_broadcast))]
        if arrays is NUMPY:
            self._try(op, arrays, *operands)
            return op, w, x, False
        trains = w.requires_grad or x.requires_grad
        try:
            captures = self._try(op, arrays, *[autograd.leaf(operand, False) for operand in operands])
            if trains:
                self._try(op, arrays, *[autograd.leaf(operand, True) for operand in operands])
            return op, w, x, captures
        except Exception:
            by_arrays = op.computed_by(_ByArrays(self), op.reduction.by(_by_arrays))
            if not _works(by_arrays, arrays, operands):
                raise
            return by_arrays, w, x, False

    def _try(self, op, arrays, w, x):
        """Call each function once; whether a result requires grad."""
        term = _checked(op, "multiply", arrays, self.multiply(w, x), w, x)
        results = [term] + op.reduction.tried(op, arrays, term)
        if arrays is TORCH and dtypes.differentiable(arrays.dtype(x)):
            for argument in ("grad_w", "grad_x"):
                surrogate = getattr(self, argument)
                if surrogate is not None:
                    _checked(op, argument, arrays, surrogate(w, x), w, x)
        return arrays is TORCH and any(result.requires_grad for result in results)

    def has_surrogates(self, arrays, w, x):
        """Whether functions of one's own differentiate the terms of these operands."""
        surrogates = self.grad_w is not None or self.grad_x is not None
        return surrogates and arrays is TORCH and (w.requires_grad or x.requires_grad)

    def evaluate(self, op, arrays, w, x):
        if self.has_surrogates(arrays, w, x):
            plain_w, plain_x = autograd.leaf(w, False), autograd.leaf(x, False)
            term = _checked(op, "multiply", arrays, self.multiply(plain_w, plain_x), plain_w, plain_x)
            return _Surrogate.apply(w, x, term, op)
        return _checked(op, "multiply", arrays, self.multiply(w, x), w, x)

    def multiplier(self, op, arrays, w, x):
        if not self.has_surrogates(arrays, w, x):
            term = self.multiply(w, x)
            if _checked(op, "multiply", arrays, term, w, x) is term:
                return self.multiply  # which needs no help
        return super(Function, self).multiplier(op, arrays, w, x)

    def true_partial(self, op, w, x, i, grad):
        """grad times d multiply / d operand i, where only the other operand has a surrogate."""
        create_graph = autograd.recording(grad)
        with autograd.enable_grad():
            if not create_graph:
                w, x = autograd.leaf(w, i == 0), autograd.leaf(x, i == 1)
            return autograd.partials(self.multiply(w, x), (w, x), grad, create_graph)[i]


class _ByArrays(Function):
    """A function that only understands NumPy arrays, called with tensors."""

    def __init__(self, term):
        functions = term.multiply, term.grad_w, term.grad_x
        super(_ByArrays, self).__init__(*[None if function is None else _by_arrays(function) for function in functions])

    def has_surrogates(self, arrays, w, x):
        # Autograd sees nothing of what they do.
        return arrays is TORCH and (w.requires_grad or x.requires_grad)

    def true_partial(self, op, w, x, i, grad):
        raise RuntimeError("{}: its functions work on NumPy arrays, so a gradient needs grad_w and grad_x".format(op))


def _changes(op, key):
    """Whether an op's functions have led to too many pieces of C before this one."""
    # A function made anew at each call is known by its code, an object by its class.
    functions = op.multiply, op.add, op.grad_w, op.grad_x
    codes = tuple(getattr(part, "__code__", type(part)) for part in functions)
    others = _sources.get(codes + key[-2:], set)
    if len(others) <= MOST_SOURCES:
        others.add(key)
    return len(others) > MOST_SOURCES


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
    if dtype != (op.term.result_dtype(expected) if argument == "multiply" else expected):
        if dtype != "bool" or not dtypes.is_integer(expected):
            raise TypeError(
                "{}: {} must return the dtype of its operands, {}, but returned {}".format(
                    op, argument, expected, dtype
                )
            )
        result = arrays.cast(result, expected)
    return result


@autograd.new_style
class _Surrogate(AutogradFunction):
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
        term = op.term
        result = []
        for i, (operand, surrogate, argument) in enumerate(((w, term.grad_w, "grad_w"), (x, term.grad_x, "grad_x"))):
            if not ctx.needs_input_grad[i]:
                result.append(None)
            elif surrogate is not None:
                partial = _checked(op, argument, TORCH, surrogate(w, x), w, x)
                if TORCH.dtype(partial).startswith("complex"):
                    partial = partial.conj()  # PyTorch's gradients are conjugate
                result.append(_sum_to(grad * partial, operand.shape))
            else:
                result.append(term.true_partial(op, w, x, i, grad))
        return result[0], result[1], grad if ctx.needs_input_grad[2] else None, None


def _sum_to(value, shape):
    for axis, size in enumerate(shape):
        if size == 1 and value.shape[axis] != 1:
            value = value.sum(axis, keepdim=True)
    return value


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


def _works(op, arrays, operands):
    # A function of its own, for on Python 2 an inner except would change what the outer one raises again.
    try:
        op.term._try(op, arrays, *[autograd.leaf(operand, False) for operand in operands])
    except Exception:
        return False
    return True


def _sample(arrays, tensor, broadcast):
    first = raw(tensor)[(slice(0, 1),) * len(tensor.shape)]
    shape = tuple(1 if alone else 2 + axis for axis, alone in enumerate(broadcast))
    return arrays.dense(arrays.expand(arrays.reshape(first, (1,) * len(shape)), shape))
