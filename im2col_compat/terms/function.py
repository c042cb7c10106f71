"""Terms: what every kind of term says, and the kind that any Python function is. The other kinds extend it."""

from im2col_compat.codegen import fingerprint, symbols, template
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.compat import autograd, dtypes
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Function as AutogradFunction
from im2col_compat.compat.probes import torch
from im2col_compat.compat.warn import Once, warn
from im2col_compat.terms import named

#: How many pieces of C one function may give: where it captures a number that changes, each call gives another.
MOST_SOURCES = 16
MOST_TRACES = 1000  # how many results of tracing are kept

_found = Memo(MOST_TRACES)  # what an op is made of: (Kernels, reason)
_traced = Memo(MOST_TRACES)  # what it was traced to: (Kernels, reason)
_sources = Memo(MOST_TRACES)  # the code of an op's functions, dtype, level: the set of what these were traced to
_cannot_compile = Once()


class Function(object):
    """One number out of one weight and one input: multiply(w, x), and what differentiates it.

    C kernels evaluate it where it can be traced, else tensor operations do. Other kinds of terms are subclasses that
    answer the same questions. Nobody else asks what kind a term is. `op` is the Op that the term belongs to, with its
    reduction, its pad value and its name in messages.
    """

    only_kernels = False  # whether C kernels alone can evaluate it
    mixes_dtypes = False  # whether w and x may be of different dtypes
    looks_up = False  # whether products are looked up, so that operands are codes, as quantized layers need

    def __init__(self, multiply, grad_w=None, grad_x=None):
        self.multiply, self.grad_w, self.grad_x = multiply, grad_w, grad_x

    @staticmethod
    def takes(multiply):
        """Whether Op's argument `multiply` is of this kind."""
        return True

    def operands(self, arrays, function, w, x):
        """(w, x) as the paths take them, from pairs (name, value). function: what messages call the caller."""
        return w[1], x[1]

    def result_dtype(self, dtype):
        """The dtype of the terms of operands of a dtype. Dtypes go by their names."""
        return dtype

    def pad_limits(self, dtype):
        """The least and the greatest integer that an input of an integer dtype may be padded with."""
        return dtypes.limits(dtype)

    # ---------------------------------------------------------------- kernels
    def kernels(self, op, dtype, arrays, level):
        """(Kernels, None) for operands of a dtype, or (None, the reason why there are none)."""
        key = (op.name,) if op.is_named else fingerprint.of(op)
        if key is None:  # functions that may do something else at each call
            return self.found(op, dtype, arrays, level)
        return _found.get(key + (dtype, arrays.name, level), lambda: self.found(op, dtype, arrays, level))

    def found(self, op, dtype, arrays, level):
        """What kernels() returns and remembers."""
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
                "im2col_compat: {} captures numbers that change, and each is another piece of C: after {} of them it is"
                " evaluated with tensor operations, which is slower".format(op, MOST_SOURCES)
            )
            return None, "it gives other C from call to call"
        return _traced.get(key, lambda: _compiled(op, traced, dtype, level))

    def recordable(self, op, dtype):
        """Whether a graph may record the op as an operator. A tensor that a function captures would get no gradient."""
        try:
            symbols.trace(op, dtype, TORCH)
        except symbols.Untraceable:
            return False
        return True

    def explained(self, op, dtype, arrays, kernels):
        """The op's functions in C, as text."""
        texts = kernels.texts or template.of_expressions(op, symbols.trace(op, dtype, arrays), dtype)
        return texts.functions

    # ---------------------------------------------------------------- tensor operations
    def prepared(self, op, arrays, w, x, w_broadcast, x_broadcast):
        """(op, w, x, captures) for tensor operations: the op in a form that takes such operands, the operands as its
        functions take them, and whether its functions capture a tensor that requires grad.

        The functions are tried on small operands, made of the first elements of w and x, that broadcast as the real
        ones will: w_broadcast and x_broadcast say along which axes. This finds functions that only take NumPy arrays,
        and those that return a wrong type, shape or dtype. Lengths differ from axis to axis, so that no slice of a
        result passes for a result.
        """
        if op.is_named or 0 in tuple(w.shape) + tuple(x.shape):
            return op, w, x, False
        operands = [_sample(arrays, tensor, broadcast) for tensor, broadcast in ((w, w_broadcast), (x, x_broadcast))]
        try:
            captures = self._try(op, arrays, operands, False)
            if arrays is TORCH and (w.requires_grad or x.requires_grad):
                self._try(op, arrays, operands, True)
            return op, w, x, captures
        except Exception:
            by_arrays = None if arrays is NUMPY else _by_arrays(op, operands)
            if by_arrays is None:
                raise
            return by_arrays, w, x, False

    def _try(self, op, arrays, operands, requires_grad):
        """Call each function once; whether a result requires grad."""
        w, x = operands if arrays is NUMPY else [autograd.leaf(operand, requires_grad) for operand in operands]
        results = [_checked(op, "multiply", arrays, self.multiply(w, x), w, x)]
        if op.reduction.function is not None:
            results.append(op.reduction.added(op, arrays, results[0], results[0]))
        if arrays is NUMPY:
            return False
        for argument in ("grad_w", "grad_x") if dtypes.differentiable(arrays.dtype(x)) else ():
            surrogate = getattr(self, argument)
            if surrogate is not None:
                _checked(op, argument, arrays, surrogate(w, x), w, x)
        return any(result.requires_grad for result in results)

    def has_surrogates(self, arrays, w, x):
        """Whether functions of the user's differentiate the terms of these operands."""
        surrogates = self.grad_w is not None or self.grad_x is not None
        return surrogates and arrays is TORCH and (w.requires_grad or x.requires_grad)

    def evaluate(self, op, arrays, w, x):
        """The terms of operands that broadcast, by tensor operations; differentiable."""
        if not self.has_surrogates(arrays, w, x):
            return _checked(op, "multiply", arrays, self.multiply(w, x), w, x)
        plain_w, plain_x = autograd.leaf(w, False), autograd.leaf(x, False)
        term = _checked(op, "multiply", arrays, self.multiply(plain_w, plain_x), plain_w, plain_x)
        return _Surrogate.apply(w, x, term, op)

    def multiplier(self, op, arrays, w, x):
        """A function (w, x) that gives the terms of operands like w and x."""
        if not self.has_surrogates(arrays, w, x):
            term = self.multiply(w, x)
            if _checked(op, "multiply", arrays, term, w, x) is term:
                return self.multiply  # it needs no help
        return lambda w, x: self.evaluate(op, arrays, w, x)

    def true_partial(self, op, w, x, i, grad):
        """grad times d multiply / d operand i, where only the other operand has a surrogate."""
        create_graph = autograd.recording(grad)
        with autograd.enable_grad():
            if not create_graph:
                w, x = autograd.leaf(w, i == 0), autograd.leaf(x, i == 1)
            return autograd.partials(self.multiply(w, x), (w, x), grad, create_graph)[i]


class ByArrays(Function):
    """A function that only understands NumPy arrays, called with tensors. Autograd sees nothing of what it does."""

    @staticmethod
    def takes(multiply):
        return isinstance(multiply, _OnArrays)

    def has_surrogates(self, arrays, w, x):
        return w.requires_grad or x.requires_grad

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


def _compiled(op, traced, dtype, level):
    found, reason = c_kernels.compiled(template.of_expressions(op, traced, dtype), dtype, level, repr(op))
    if found is None:
        _cannot_compile(
            "im2col_compat can't compile ops here, and evaluates them with tensor operations, which is slower: {}. "
            "Named ops don't need a compiler".format(reason)
        )
    return found, reason


def _checked(op, argument, arrays, result, w, x):
    """What a user's function of w and x returned, in the shape and dtype that it must have."""
    if not arrays.owns(result):
        message = "{}: {} must return one of the {}, but returned {}"
        raise TypeError(message.format(op, argument, arrays.name, type(result).__name__))
    found, w_shape, x_shape = tuple(result.shape), tuple(w.shape), tuple(x.shape)
    shape = tuple(int(q if p == 1 else p) for p, q in zip(w_shape, x_shape))
    if found != shape:
        # A function may ignore one operand.
        if found not in (w_shape, x_shape):
            raise RuntimeError(
                "{}: {} must work element by element: for operands of shapes {} and {} it must return shape {}, "
                "but returned {}".format(op, argument, w_shape, x_shape, shape, found)
            )
        result = arrays.expand(result, shape)
    dtype, expected = arrays.dtype(result), arrays.dtype(x)
    if dtype == (op.term.result_dtype(expected) if argument == "multiply" else expected):
        return result
    if dtype == "bool" and dtypes.is_integer(expected):
        return arrays.cast(result, expected)
    message = "{}: {} must return the dtype of its operands, {}, but returned {}"
    raise TypeError(message.format(op, argument, expected, dtype))


@autograd.new_style
class _Surrogate(AutogradFunction):
    """`term`, which is multiply(w, x). grad_w and grad_x give the gradients of w and x, autograd those of captures."""

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
        result, op = [None, None, grad if ctx.needs_input_grad[2] else None, None], ctx.op
        for i, (operand, argument) in enumerate(((w, "grad_w"), (x, "grad_x"))):
            surrogate = getattr(op.term, argument)
            if not ctx.needs_input_grad[i]:
                continue
            if surrogate is None:
                result[i] = op.term.true_partial(op, w, x, i, grad)
                continue
            partial = _checked(op, argument, TORCH, surrogate(w, x), w, x)
            if TORCH.dtype(partial).startswith("complex"):
                partial = partial.conj()  # PyTorch's gradients are conjugate
            result[i] = _sum_to(grad * partial, operand.shape)
        return tuple(result)


def _sum_to(value, shape):
    for axis, size in enumerate(shape):
        if size == 1 and value.shape[axis] != 1:
            value = value.sum(axis, keepdim=True)
    return value


def _by_arrays(op, operands):
    """An op like this one that calls its functions with NumPy arrays; None if they fail on these, too."""
    functions = [name for name in ("multiply", "add", "grad_w", "grad_x") if callable(getattr(op, name))]
    new = op.replace(name=op.name, **{name: _OnArrays(getattr(op, name)) for name in functions})
    # In prepared(), this except would change what Python 2 raises again.
    try:
        new.term._try(new, TORCH, operands, False)
    except Exception:
        return None
    return new


class _OnArrays(object):
    """A function of NumPy arrays as one of tensors."""

    def __init__(self, function):
        self.function, self.__name__ = function, getattr(function, "__name__", repr(function))

    def __call__(self, *tensors):
        result = self.function(*[raw(tensor.detach()).cpu().numpy() for tensor in tensors])
        if not NUMPY.owns(result):
            return result
        result = TORCH.tensor(torch.from_numpy(result.copy()))
        return result.cuda() if tensors[0].is_cuda else result


def _sample(arrays, tensor, broadcast):
    first = raw(tensor)[(slice(0, 1),) * len(tensor.shape)]
    shape = tuple(1 if alone else 2 + axis for axis, alone in enumerate(broadcast))
    return arrays.dense(arrays.expand(arrays.reshape(first, (1,) * len(shape)), shape))
