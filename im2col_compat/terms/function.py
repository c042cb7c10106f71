"""Terms: what every kind of term says, and the kind that any Python function is. The other kinds extend it."""

import collections
import functools
import types
import weakref

import numpy as np

from im2col_compat.codegen import fingerprint, symbols, template
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.compat import autograd, dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Function as AutogradFunction
from im2col_compat.compat.probes import torch
from im2col_compat.compat.warn import Once, SlowPathWarning, warn
from im2col_compat.problem import product
from im2col_compat.terms import elementwise, named

#: How many pieces of C one function may give: where it captures a number that changes, each call gives another.
MOST_SOURCES = 16
MOST_TRACES = 1000  # how many results of tracing are kept
#: The most values along each axis of an operand that functions are tried on.
SAMPLED = 8

_found = Memo(MOST_TRACES)  # what an op is made of: (Kernels, reason)
_traced = Memo(MOST_TRACES)  # what it was traced to: (Kernels, reason)
_sources = Memo(MOST_TRACES)  # the code of an op's functions, dtype, level: what these were traced to, and of whom
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
        # What named ops are made of is known, and found at once.
        key = (op.name,) if op.is_named else None if named.name_of(op) is not None else fingerprint.of(op)
        if key is None:  # or functions that may do something else at each call
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
                " evaluated with tensor operations, which is slower".format(op, MOST_SOURCES),
                SlowPathWarning,
            )
            return None, "it gives other C from call to call"
        return _traced.get(key, lambda: _compiled(op, traced, dtype, level))

    def is_recordable(self, op, dtype):
        """Whether an operator can stand for the op in a graph. To a tensor that a function captures it gives no gradient."""
        try:
            symbols.trace(op, dtype, TORCH)
        except symbols.Untraceable:
            return fingerprint.of_code(op) is not None
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
            if arrays is TORCH and (w.requires_grad or x.requires_grad) and not graphs.transformed():
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
        whether = not requires_grad and not graphs.transformed() and arrays.has_memory(x)
        results = [_tried(op, "multiply", arrays, whether, w, x)]
        if op.reduction.function is not None:
            term = results[0]
            results.append(op.reduction.added(op, arrays, term, term))
            if whether:
                _refuse_others(op, "add", op.add, arrays, op.add, (term, elementwise.reversed_values(arrays, term)))
        if arrays is NUMPY:
            return False
        for argument in ("grad_w", "grad_x") if dtypes.differentiable(arrays.dtype(x)) else ():
            if getattr(self, argument) is not None:
                _tried(op, argument, arrays, whether, w, x)
        return any(result.requires_grad for result in results)

    def has_surrogates(self, arrays, w, x):
        """Whether functions of the user's differentiate the terms of these operands."""
        surrogates = self.grad_w is not None or self.grad_x is not None
        return surrogates and arrays is TORCH and (w.requires_grad or x.requires_grad or graphs.transformed())

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
        needs, create_graph = (i == 0, i == 1), autograd.recording(grad, w, x)
        return autograd.derivatives(lambda w, x: (self.multiply(w, x),), (w, x), needs, (grad,), create_graph)[i]


class ByArrays(Function):
    """A function that only understands NumPy arrays, called with tensors. Autograd sees nothing of what it does."""

    @staticmethod
    def takes(multiply):
        return isinstance(multiply, _OnArrays)

    def has_surrogates(self, arrays, w, x):
        return w.requires_grad or x.requires_grad

    def true_partial(self, op, w, x, i, grad):
        raise RuntimeError("{}: its functions work on NumPy arrays, so a gradient needs grad_w and grad_x".format(op))


def codes(op):
    """What the functions of ops made anew at each call have in common, as a key."""
    return tuple(_code(function) for function in (op.multiply, op.add, op.grad_w, op.grad_x))


def _code(function):
    """What a function made anew at each call has in common with the one before: its code, but the numbers. An object is
    known by its class, and a functools.partial by the functions that it is made of."""
    if isinstance(function, functools.partial):
        values = function.args + tuple((function.keywords or {})[name] for name in sorted(function.keywords or {}))
        return ("partial",) + tuple(_code(value) for value in (function.func,) + values)
    code = getattr(function, "__code__", None)
    return type(function) if code is None else (code.co_filename, code.co_firstlineno, code.co_name, code.co_code)


def _changes(op, key):
    """Whether an op's functions have led to too many pieces of C before this one. Those of other functions of this code
    don't count that live on and have led to one only: they are other ops, and not this one as it was before."""
    others, owners = _sources.get(codes(op) + key[-2:], dict), _owners(op)
    others[key] = owners
    pieces = collections.Counter(ids for ids, _ in list(others.values()))
    count = sum(
        1
        for ids, references in list(others.values())
        if ids == owners[0] or pieces[ids] > 1 or any(reference() is None for reference in references)
    )
    if count > MOST_SOURCES:
        others.pop(key, None)
    return count > MOST_SOURCES


def _owners(op):
    """The objects that an op's functions are, or that their methods are of, without keeping them: ids and references."""
    functions = [each for each in (op.multiply, op.add, op.grad_w, op.grad_x) if callable(each)]
    owners = [each.__self__ if isinstance(each, types.MethodType) else each for each in functions]
    try:
        references = tuple(weakref.ref(owner) for owner in owners)
    except TypeError:
        references = (lambda: None,)  # for all that is known, it is gone
    return tuple(id(owner) for owner in owners), references


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

    generate_vmap_rule = True

    @staticmethod
    def forward(w, x, term, op):
        return term.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        w, x, _, ctx.op = inputs
        autograd.save(ctx, w, x)

    @staticmethod
    def jvp(ctx, w_tangent, x_tangent, term_tangent, _):
        (w, x), op = autograd.saved(ctx), ctx.op
        result = term_tangent
        for tangent, argument in ((w_tangent, "grad_w"), (x_tangent, "grad_x")):
            surrogate = getattr(op.term, argument)
            if tangent is None:
                continue
            if surrogate is None:
                raise RuntimeError("{}: forward mode needs {}, as the op differentiates itself".format(op, argument))
            moved = tangent * _checked(op, argument, TORCH, surrogate(w, x), w, x)
            result = moved if result is None else result + moved
        return result

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


def _tried(op, argument, arrays, whether, w, x):
    """What one of the user's functions returns. whether: find out if it works element by element, and refuse it else."""
    function = getattr(op, argument)

    def call(w, x):
        return _checked(op, argument, arrays, function(w, x), w, x)

    result = call(w, x)
    if whether:
        _refuse_others(op, argument, function, arrays, call, (w, x))
    return result


def _refuse_others(op, argument, user, arrays, function, operands):
    if not elementwise.known(user, arrays, function, operands):
        text = (
            "{}: {} must work element by element, but a value of its result depends on other elements, or their number"
        )
        raise RuntimeError(text.format(op, argument))


def _sample(arrays, tensor, broadcast):
    """A few of a tensor's values, in a small shape that broadcasts as the tensor does."""
    shape = tuple(1 if alone else 2 + axis for axis, alone in enumerate(broadcast))
    corner = raw(arrays.dense(tensor[(slice(0, SAMPLED),) * len(tensor.shape)]))
    count = product(int(size) for size in corner.shape)
    corner = arrays.reshape(arrays.tensor(corner), (count,))
    return arrays.reshape(arrays.take(corner, np.arange(product(shape)) % count, 0), shape)
