"""Terms: what every kind of term says, and the kind that any Python function is. The other kinds extend it."""

import collections
import functools
import types
import weakref

import numpy as np

from im2col_compat.codegen import evaluate, factors, fingerprint, near, once, print_c, signature, symbols, template
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.codegen.expression import OPERAND, postorder
from im2col_compat.compat import autograd, dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH, raw
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Function as AutogradFunction
from im2col_compat.compat.probes import torch
from im2col_compat.compat.warn import Once, SlowPathWarning, warn
from im2col_compat.problem import product
from im2col_compat.terms import elementwise, named

#: How many pieces of C one function may give: where it captures what changes its operations, each call gives another.
MOST_SOURCES = 16
MOST_TRACES = 1000  # how many results of tracing are kept
#: What keys of kernels for a GPU have in place of an instruction set.
GPU = "gpu"
#: The most values along each axis of an operand that functions are tried on.
SAMPLED = 8

_found = Memo(MOST_TRACES)  # what an op is made of: (Kernels, reason)
_traced = Memo(MOST_TRACES)  # what it was traced to: (Kernels, reason)
_sources = Memo(MOST_TRACES)  # the code of an op's functions, dtype, level: what these were traced to, and of whom
_products = Memo(MOST_TRACES)  # what an op is made of, dtype: the traced op if its terms are products
_splits = Memo(MOST_TRACES)  # what an op is made of, dtype: what split() returns
_cannot_compile = Once()


class Function(object):
    """One number out of one weight and one input: multiply(w, x), and what differentiates it. It may have parameters, which
    lie beside the weight: `weights` is a tuple of the weight and the parameters `names`, all of one shape or of one element.

    C kernels evaluate it where it can be traced, else tensor operations do. Other kinds of terms are subclasses that
    answer the same questions. Nobody else asks what kind a term is. `op` is the Op that the term belongs to, with its
    reduction, its pad value and its name in messages.
    """

    only_kernels = False  # whether C kernels alone can evaluate it
    mixes_dtypes = False  # whether w and x may be of different dtypes
    looks_up = False  # whether products are looked up, so that operands are codes, as quantized layers need

    def __init__(self, multiply, grad_w=None, grad_x=None, grad_params=None):
        self.multiply, self.grad_w, self.grad_x = multiply, grad_w, grad_x
        self.grad_params = dict(grad_params or {})
        self.arguments = self.parameters()
        self.names = tuple(name for name, has_default in self.arguments if not has_default)

    def parameters(self):
        """((name, whether it has a default), ...) of the op's parameters."""
        return signature.parameters(self.multiply)

    def are_scalars(self, scalars, count):
        """Of so many operands beside w and x, whether each is one number for all: what functions capture is."""
        return [name in scalars for name in self.names] + [True] * (count - len(self.names))

    @property
    def surrogates(self):
        """The functions that replace derivatives: of the weight, of the input, and of the parameters `names`."""
        return (self.grad_w, self.grad_x) + tuple(self.grad_params.get(name) for name in self.names)

    def call(self, function, weights, x):
        """One of the user's functions, called with operands."""
        if len(weights) == 1:
            return function(weights[0], x)
        given = dict(zip(self.names, weights[1:]))
        names = self.names if function is self.multiply else signature.accepted(_of_user(function), self.names)
        return function(weights[0], x, **{name: given[name] for name in names})

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
    def kernels(self, op, dtype, arrays, level, scalars=()):
        """(Kernels, None) for operands of a dtype, or (None, the reason why there are none).

        scalars: the parameters that are one number for all.
        """
        # What named ops are made of is known, and found at once.
        key = (op.name,) if op.is_named else None if named.name_of(op) is not None else fingerprint.of(op)
        if key is None:  # or functions that may do something else at each call
            return self.found(op, dtype, arrays, level, scalars)
        key += (dtype, arrays.name, level) + scalars
        return _found.get(key, lambda: self.found(op, dtype, arrays, level, scalars))

    def found(self, op, dtype, arrays, level, scalars=()):
        """What kernels() returns and remembers."""
        reason = c_kernels.unfit(op, dtype)
        if reason is not None:
            return None, reason
        found = named.kernels(op, dtype, level)
        if found is not None:
            return found, None
        return self._made(op, dtype, arrays, level, scalars, _compiled)

    def gpu_kernels(self, op, dtype, make, scalars=()):
        """The same for a GPU, of tensors. make(op, traced, dtype, level, scalars) gives the pair; traced is None where
        others than those of expressions are put in."""
        key = (op.name,) if op.is_named else fingerprint.of(op)
        if key is None:
            return self.gpu_found(op, dtype, make, scalars)
        key += (dtype, GPU) + scalars
        return _found.get(key, lambda: self.gpu_found(op, dtype, make, scalars))

    def gpu_found(self, op, dtype, make, scalars=()):
        """What gpu_kernels() returns and remembers."""
        reason = c_kernels.unfit(op, dtype)
        return (None, reason) if reason is not None else self._made(op, dtype, TORCH, GPU, scalars, make)

    def _made(self, op, dtype, arrays, level, scalars, make):
        """The pair that is made of what the op's functions are traced to, remembered by that."""
        try:
            traced = symbols.trace(op, dtype, arrays, symbols.FEW)
            key, most = self._key(op, traced, dtype, level, scalars), MOST_SOURCES
            if not _traced.has(key) and _changes(op, key, most):
                traced, most = symbols.trace(op, dtype, arrays, symbols.ALL), 2 * MOST_SOURCES
                key = self._key(op, traced, dtype, level, scalars)
        except symbols.Untraceable as error:
            return None, str(error)
        reason = None if _traced.has(key) else changing(op, key, most)
        if reason is not None:
            return None, reason
        found, reason = _traced.get(key, lambda: make(op, traced, dtype, level, scalars))
        return (found._replace(traced=traced) if found and traced.captured else found), reason

    def product(self, op, dtype):
        """The traced op, if its terms are products that are summed; None where they aren't. See codegen/factors.py."""
        if not op.reduction.fuses_products or dtype not in dtypes.C_TYPES or dtypes.is_integer(dtype):
            return None
        if any(surrogate is not None for surrogate in self.surrogates):
            return None
        key = fingerprint.of(op)
        if key is not None:
            return _products.get(key + (dtype,), lambda: _product(op, dtype))
        # Traced at each call, unless its code was seen to give something else.
        key = codes(op) + (dtype,)
        found = None if _products.has(key) else _product(op, dtype)
        if found is None:
            _products.get(key, bool)
        return found

    def split(self, op, dtype):
        """(the op that is left, a Split) where parts of the term are computed once an element; None where none is.

        See codegen/once.py. Only of functions that do the same at each call.
        """
        key = fingerprint.of(op) if dtype in dtypes.C_TYPES and not dtypes.is_integer(dtype) else None
        if key is None or any(surrogate is not None for surrogate in self.surrogates):
            return None
        return _splits.get(key + (dtype,), lambda: _split(op, dtype))

    def _key(self, op, traced, dtype, level, scalars):
        """What the C of a traced op depends on."""
        known = traced._replace(captured=()), op.reduction.c_name, repr(op.identity), repr(op.pad_value), scalars
        return known + (dtype, level)

    def is_recordable(self, op, dtype):
        """Whether an operator can stand for the op in a graph. To a tensor that a function captures it gives no gradient."""
        try:
            symbols.trace(op, dtype, TORCH)
        except symbols.Untraceable:
            return fingerprint.of_code(op) is not None
        return True

    def in_graph(self, op, dtype):
        """The op as Standard operations. RuntimeError where it can't be."""
        try:
            term, add = symbols.trace_forward(op, dtype)
        except symbols.Untraceable as error:
            raise cannot_export(op, error)
        names = ["w"] + [symbols.operand_name(name) for name in self.names]
        pair = factors.pair(term) if op.reduction.fuses_products and not dtypes.is_integer(dtype) else None
        return Standard(functools.partial(_value, term, names), add and functools.partial(total, add), pair)

    def explained(self, op, dtype, arrays, kernels):
        """The op's functions in C, as text."""
        texts = kernels.texts or template.of_expressions(op, symbols.trace(op, dtype, arrays), dtype, ())
        return texts.functions

    # ---------------------------------------------------------------- tensor operations
    def prepared(self, op, arrays, weights, x, w_broadcast, x_broadcast):
        """(op, weights, x, captures) for tensor operations: the op in a form that takes such operands, the operands as its
        functions take them, and whether its functions capture a tensor that requires grad.

        The functions are tried on small operands, made of the first elements of weights and x, that broadcast as the real
        ones will: w_broadcast and x_broadcast say along which axes. This finds functions that only take NumPy arrays,
        and those that return a wrong type, shape or dtype. Lengths differ from axis to axis, so that no slice of a
        result passes for a result.
        """
        if op.is_named or 0 in tuple(weights[0].shape) + tuple(x.shape):
            return op, weights, x, False
        operands = [_sample(arrays, w, w_broadcast) for w in weights] + [_sample(arrays, x, x_broadcast)]
        try:
            captures = self._try(op, arrays, operands, False)
            if arrays is TORCH and _requires_grad(weights, x) and not graphs.transformed():
                self._try(op, arrays, operands, True)
            return op, weights, x, captures
        except Exception:
            other = None
            if arrays is TORCH:
                other = _by_expressions(op, operands) if _requires_grad(weights, x) else None
                other = other or _by_arrays(op, operands)
            if other is None:
                symbols.refuse_captured(op)
                raise
            return other, weights, x, False

    def _try(self, op, arrays, operands, requires_grad):
        """Call each function once; whether a result requires grad."""
        operands = operands if arrays is NUMPY else [autograd.leaf(operand, requires_grad) for operand in operands]
        weights, x = tuple(operands[:-1]), operands[-1]
        whether = not requires_grad and not graphs.transformed() and arrays.has_memory(x)
        results = [_tried(op, self.multiply, "multiply", arrays, whether, weights, x)]
        if op.reduction.function is not None:
            term = results[0]
            results.append(op.reduction.added(op, arrays, term, term))
            if whether:
                _refuse_others(op, "add", op.add, arrays, op.add, (term, elementwise.reversed_values(arrays, term)))
        if arrays is NUMPY:
            return False
        for surrogate, argument in zip(self.surrogates, _surrogate_names(self)):
            if surrogate is not None and dtypes.differentiable(arrays.dtype(x)):
                _tried(op, surrogate, argument, arrays, whether, weights, x)
        return any(result.requires_grad for result in results)

    def has_surrogates(self, arrays, weights, x):
        """Whether functions of the user's differentiate the terms of these operands."""
        surrogates = any(surrogate is not None for surrogate in self.surrogates)
        return surrogates and arrays is TORCH and (_requires_grad(weights, x) or graphs.transformed())

    def evaluate(self, op, arrays, weights, x):
        """The terms of operands that broadcast, by tensor operations; differentiable."""
        if not self.has_surrogates(arrays, weights, x):
            return _checked(op, "multiply", arrays, self.call(self.multiply, weights, x), weights, x)
        plain, plain_x = tuple(autograd.leaf(w, False) for w in weights), autograd.leaf(x, False)
        term = _checked(op, "multiply", arrays, self.call(self.multiply, plain, plain_x), plain, plain_x)
        return _Surrogate.apply(term, op, x, *weights)

    def multiplier(self, op, arrays, weights, x):
        """A function (weights, x) that gives the terms of operands like these."""
        if not self.has_surrogates(arrays, weights, x):
            term = self.call(self.multiply, weights, x)
            if _checked(op, "multiply", arrays, term, weights, x) is term:
                return lambda weights, x: self.call(self.multiply, weights, x)  # it needs no help
        return lambda weights, x: self.evaluate(op, arrays, weights, x)

    def true_partial(self, op, operands, i, grad):
        """grad times d multiply / d operand i, where only others have surrogates. operands: x, then weights."""
        needs, create_graph = [each == i for each in range(len(operands))], autograd.recording(grad, *operands)

        def terms(x, *weights):
            return (self.call(self.multiply, weights, x),)

        return autograd.derivatives(terms, operands, needs, (grad,), create_graph)[i]


class ByArrays(Function):
    """A function that only understands NumPy arrays, called with tensors. Autograd sees nothing of what it does."""

    @staticmethod
    def takes(multiply):
        return isinstance(multiply, _OnArrays)

    def parameters(self):
        return signature.parameters(self.multiply.function)

    def has_surrogates(self, arrays, weights, x):
        return _requires_grad(weights, x)

    def true_partial(self, op, operands, i, grad):
        raise RuntimeError("{}: its functions work on NumPy arrays, so a gradient needs grad_w and grad_x".format(op))


#: What a graph of standard operations has of an op, whatever the sizes: terms(weights, x); add(acc, term), None where
#: the reduction has a name; and the factors of terms that are products, None where they aren't.
Standard = collections.namedtuple("Standard", "terms add pair")


def cannot_export(op, why):
    return RuntimeError("{} can't be exported as standard operators: {}".format(op, why))


def _value(term, names, weights, x):
    """The values of a traced term, in the shape to which the operands broadcast."""
    found = evaluate.value(term, dict(zip(names, weights), x=x))
    if {"w", "x"} <= {node.value for node in postorder(term) if node.function is OPERAND}:
        return found
    return torch.broadcast_tensors(found, weights[0], x)[0]


def total(add, acc, term):
    return evaluate.value(add, {"acc": acc, "term": term})


def codes(op):
    """What the functions of ops made anew at each call have in common, as a key."""
    return tuple(_code(function) for function in (op.multiply, op.add) + op.term.surrogates)


def _code(function):
    """What a function made anew at each call has in common with the one before: its code, but the numbers. An object is
    known by its class, and a functools.partial by the functions that it is made of."""
    if isinstance(function, functools.partial):
        values = function.args + tuple((function.keywords or {})[name] for name in sorted(function.keywords or {}))
        return ("partial",) + tuple(_code(value) for value in (function.func,) + values)
    code = getattr(getattr(function, "whole", function), "__code__", None)
    return type(function) if code is None else (code.co_filename, code.co_firstlineno, code.co_name, code.co_code)


def _changes(op, key, most):
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
    if count > most:
        others.pop(key, None)
    return count > most


def changing(op, key, most=MOST_SOURCES):
    """Why an op stays without kernels for what it was traced to, the key: said aloud; None where it needn't."""
    if not _changes(op, key, most):
        return None
    warn(
        "im2col_compat: {} gives another piece of C from call to call: after {} of them it is evaluated with tensor"
        " operations, which is slower".format(op, MOST_SOURCES),
        SlowPathWarning,
    )
    return "it gives other C from call to call"


def _owners(op):
    """The objects that an op's functions are, or that their methods are of, without keeping them: ids and references."""
    functions = [each for each in (op.multiply, op.add) + op.term.surrogates if callable(each)]
    owners = [each.__self__ if isinstance(each, types.MethodType) else each for each in functions]
    try:
        references = tuple(weakref.ref(owner) for owner in owners)
    except TypeError:
        references = (lambda: None,)  # for all that is known, it is gone
    return tuple(id(owner) for owner in owners), references


def _product(op, dtype):
    try:
        traced = symbols.trace(op, dtype, TORCH, symbols.FEW)
    except symbols.Untraceable:
        return None
    return traced if factors.pair(traced.term) is not None else None


def _split(op, dtype):
    try:
        found = once.split(symbols.trace(op, dtype, TORCH).term)
    except symbols.Untraceable:
        return None
    return found and (op.left(found, once.pad_value(found.parts["x"], op.pad_value_for(dtype))), found)


def compiled(op, texts, dtype, level):
    """(Kernels, None) of an op's texts, or (None, reason), which is said where nothing can be compiled."""
    found, reason = c_kernels.compiled(texts, dtype, level, repr(op))
    if found is None and template.unsupported(texts) is None:
        _cannot_compile(
            "im2col_compat can't compile ops here, and evaluates them with tensor operations, which is slower: {}. "
            "Named ops don't need a compiler".format(reason)
        )
    return found, reason


def _compiled(op, traced, dtype, level, scalars, inlined=print_c.NEAR):
    found, reason = compiled(op, template.of_expressions(op, traced, dtype, scalars, inlined), dtype, level)
    if found is None:
        return None, reason
    if inlined == print_c.NEAR and near.asks(traced.expressions):
        far = functools.partial(_compiled, op, traced, dtype, level, scalars, True)
        found = found._replace(others=functools.partial(_of_far, op, traced, far))
    # The user's own gradients are kernels', and go along with PyTorch's sums.
    is_product = op.reduction.fuses_products and not traced.captured and factors.pair(traced.term) is not None
    product = traced if is_product and traced.grad_w is not None else None
    return found._replace(partials=factors.partials(op, traced), product=product), None


def _of_far(op, traced, far, operands):
    """None where kernels serve the operands of these ranges, else those that call the C library. far: compiles them."""
    if near.holds(traced.expressions, operands):
        return None
    found, reason = far()
    if found is None:
        raise RuntimeError("{}: {}".format(op, reason))
    return found


def _of_user(function):
    return function.function if isinstance(function, _OnArrays) else function


def _requires_grad(weights, x):
    return any([operand.requires_grad for operand in weights + (x,)])


def _surrogate_names(term):
    """What messages call a term's surrogates."""
    return ("grad_w", "grad_x") + tuple("grad_params[{!r}]".format(name) for name in term.names)


def _checked(op, argument, arrays, result, weights, x):
    """What a user's function of weights and x returned, in the shape and dtype that it must have."""
    if not arrays.owns(result):
        message = "{}: {} must return one of the {}, but returned {}"
        raise TypeError(message.format(op, argument, arrays.name, type(result).__name__))
    found, w_shape, x_shape = tuple(result.shape), tuple(weights[0].shape), tuple(x.shape)
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
    """`term`, which is multiply's. Surrogates give the gradients of x and weights, autograd those of captured tensors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(term, op, x, *weights):
        return term.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.op = inputs[1]
        autograd.save(ctx, *inputs[2:])

    @staticmethod
    def jvp(ctx, term_tangent, _, *tangents):
        operands, op = tuple(autograd.saved(ctx)), ctx.op
        result = term_tangent
        for tangent, surrogate, argument in zip(tangents, *_by_operand(op.term)):
            if tangent is None:
                continue
            if surrogate is None:
                raise RuntimeError("{}: forward mode needs {}, as the op differentiates itself".format(op, argument))
            moved = tangent * _partial(op, surrogate, argument, operands)
            result = moved if result is None else result + moved
        return result

    @staticmethod
    def backward(ctx, grad):
        operands, op = tuple(autograd.saved(ctx)), ctx.op
        result = [grad if ctx.needs_input_grad[0] else None, None] + [None] * len(operands)
        for i, (surrogate, argument) in enumerate(zip(*_by_operand(op.term))):
            if not ctx.needs_input_grad[2 + i]:
                continue
            if surrogate is None:
                result[2 + i] = op.term.true_partial(op, operands, i, grad)
                continue
            partial = _partial(op, surrogate, argument, operands)
            if TORCH.dtype(partial).startswith("complex"):
                partial = partial.conj()  # PyTorch's gradients are conjugate
            result[2 + i] = _sum_to(grad * partial, operands[i].shape)
        return tuple(result)


def _by_operand(term):
    """A term's surrogates and their names, each in the order x, weight, parameters."""
    return [each[1::-1] + each[2:] for each in (term.surrogates, _surrogate_names(term))]


def _partial(op, surrogate, argument, operands):
    x, weights = operands[0], operands[1:]
    return _checked(op, argument, TORCH, op.term.call(surrogate, weights, x), weights, x)


def _sum_to(value, shape):
    for axis, size in enumerate(shape):
        if size == 1 and value.shape[axis] != 1:
            value = value.sum(axis, keepdim=True)
    return value


def _by_expressions(op, operands):
    """An op like this one, made of what a symbol understands and a tensor doesn't (0.3's Variables: abs()), which has a
    gradient; None where that is nothing, or has none."""
    try:
        traced = symbols.trace(op, TORCH.dtype(operands[0]), TORCH)
        new = None if traced.grad_w is None else op.of_expressions(traced)
        if new is not None:
            new.term._try(new, TORCH, operands, True)
        return new
    except Exception:
        return None


def _by_arrays(op, operands):
    """An op like this one that calls its functions with NumPy arrays; None if they fail on these, too."""
    functions = [name for name in ("multiply", "add", "grad_w", "grad_x") if callable(getattr(op, name))]
    functions = functions[1:] if op.term.looks_up else functions  # a table takes tensors
    changes = {name: _OnArrays(getattr(op, name)) for name in functions}
    changes["grad_params"] = {name: _OnArrays(function) for name, function in op.term.grad_params.items()}
    new = op.replace(name=op.name, **changes).with_parameters(op.term.names)
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

    def __call__(self, *tensors, **params):
        params = {name: _as_array(tensor) for name, tensor in params.items()}
        result = self.function(*[_as_array(tensor) for tensor in tensors], **params)
        if not NUMPY.owns(result):
            return result
        result = TORCH.tensor(torch.from_numpy(result.copy()))
        return result.cuda() if tensors[0].is_cuda else result


def _as_array(tensor):
    return raw(tensor.detach()).cpu().numpy()


def _tried(op, function, argument, arrays, whether, weights, x):
    """What one of the user's functions returns. whether: find out if it works element by element, and refuse it else."""

    def call(*operands):
        weights, x = operands[:-1], operands[-1]
        return _checked(op, argument, arrays, op.term.call(function, weights, x), weights, x)

    result = call(*weights + (x,))
    if whether:
        _refuse_others(op, argument, function, arrays, call, weights + (x,))
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
