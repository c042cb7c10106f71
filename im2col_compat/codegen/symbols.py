"""A user's op as expressions: its functions are called with symbols, which record what is done to them.

What a symbol can't record exactly as tensors would compute it raises Untraceable, and counts even where the function
swallows the exception: tensors evaluate the function then. Numbers that a function captures become constants, so an op
that captures any is traced at each call (see fingerprint.py).
"""

import collections
import functools
import numbers
import types

import numpy as np

from im2col_compat.codegen import expression as ex
from im2col_compat.codegen import evaluate, fingerprint, signature
from im2col_compat.codegen.derive import derivative
from im2col_compat.codegen.expression import FUNCTIONS, Untraceable
from im2col_compat.codegen.operations import FUNCTIONAL, METHODS, OPERATIONS, dtype_name
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import NUMPY, TORCH, arrays_of
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import VARIABLES, Tensor, torch
from im2col_compat.problem import product

_FIELDS = "term add grad_w grad_x add_acc add_term others grad_others captured"


class Traced(collections.namedtuple("Traced", _FIELDS)):
    """What trace() returns."""

    __slots__ = ()

    #: All expressions that there are.
    expressions = property(lambda self: [one for one in self[:6] + self.grad_others if one is not None])


#: The most operands beside w and x: parameters, and numbers that functions capture.
MOST_OTHERS = 7
_derivatives = Memo(1000)  # an expression, an operand: the derivative; functions that capture are traced at each call
#: What trace() takes as `captures`.
FEW, ALL = "few", "all"

#: A function of more operations, or of deeper nested ones, is left to tensors.
MOST_NODES = 2000
MOST_DEPTH = 64


class _Foreign(Untraceable):
    """A function uses what only the other kind of array has."""


def trace(op, dtype, arrays=None, captures=None):
    """The expressions of an op's functions, for operands of a dtype (its name). Untraceable where there are none.

    arrays: what the functions are called with, TORCH or NUMPY; by default TORCH where it is installed. Functions that
    only understand NumPy's arrays serve for tensors too, as they do where tensor operations evaluate them.

    captures: which numbers, and tensors of one element, that functions capture become operands: None for none (then numbers
    are literals, and tensors can't be traced), FEW for all but powers by whole numbers, ALL.

    Returns Traced: term, of operands w and x and others; add, of acc and term, None where op.add is a word; grad_w and
    grad_x, d term / dw and d term / dx or their surrogates; add_acc and add_term, the derivatives of add. others: the
    names of further operands: the op's parameters, and what its functions capture, numbers and tensors of one element;
    grad_others: their derivatives; captured: the values of the latter. Integers and NumPy's arrays have no gradients
    (None), and an add function of integers gets int64. RuntimeError for a larger tensor that is captured.
    """
    arrays = arrays or TORCH or NUMPY
    differentiable = arrays is not NUMPY and not dtypes.is_integer(dtype)
    return _traced(lambda arrays: _trace(op, dtype, arrays, differentiable, captures), arrays)


def trace_forward(op, dtype):
    """(term, add) as trace() gives them for tensors, without derivatives. Untraceable where there are none."""
    return _traced(lambda arrays: _trace(op, dtype, arrays, False, None), TORCH)[:2]


def trace_add(op, dtype, arrays):
    """The expression of an op's add alone, for terms of a dtype. Untraceable where there is none."""
    return _traced(lambda arrays: _expression(op.add, "add", ("acc", "term"), dtype, arrays, bools=False), arrays)


def _traced(trace, arrays):
    """What trace(arrays) returns, or trace(NUMPY) where only that understands the functions."""
    try:
        return trace(arrays)
    except LargerCaptured:
        raise
    except Untraceable as error:
        if arrays is NUMPY or not isinstance(error, _Foreign):
            raise
        foreign = error
    except Exception as error:
        raise Untraceable("tracing it raises {}: {}".format(type(error).__name__, error))
    try:
        return trace(NUMPY)
    except Exception:
        raise foreign


class LargerCaptured(RuntimeError):
    """A function captures a tensor of more than one element."""


def refuse_captured(op):
    """RuntimeError where one of an op's functions captures a tensor of more than one element."""
    for argument, function in (("multiply", op.multiply), ("add", op.add)):
        for here in _reachable(function):
            scope = here.__globals__
            values = [content for _, content in _cells(here)] + list(here.__defaults__ or ())
            for value in values + [scope[name] for name in _names(here.__code__) if name in scope]:
                _refuse_larger("{}: {}: ".format(op, argument), value)


def _refuse_larger(what, value):
    size = 1 if arrays_of(value) is None else product(int(size) for size in value.shape)
    if size != 1:
        text = "{}it captures a tensor of shape {}, which can't go along with the parts that terms are computed in: make it "
        text += "a parameter, multiply(w, x, t), and pass it as params={{'t': tensor}}"
        raise LargerCaptured(text.format(what, tuple(value.shape)))


def operand_name(name):
    """What expressions, and C, call a parameter."""
    safe = all(character in _SAFE for character in name)
    return "p_" + (name if safe else "".join("{:x}".format(ord(character)) for character in name))


_SAFE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


class _Captures(object):
    """The numbers, and tensors of one element, that an op's functions capture: operands of their own, so that one piece of C
    serves whatever their values are."""

    def __init__(self, room, literals):
        # known: the numbers that the code of functions has. literals: whether powers by whole numbers are literals.
        self.values, self.room, self.known, self.literals = [], room, set(), literals

    def operand(self, value, dtype):
        """The operand that stands for a value; None where there is no room left."""
        for i, other in enumerate(self.values):
            if other is value or _is_number(value) and _is_number(other) and repr(other) == repr(value):
                return ex.operand("c{}".format(i), dtype)
        if len(self.values) == self.room:
            return None
        self.values.append(value)
        return ex.operand("c{}".format(len(self.values) - 1), dtype)


def _is_number(value):
    return isinstance(value, (int, float))


def _trace(op, dtype, arrays, differentiable, captures):
    if dtype not in ex.C_TYPES:
        raise Untraceable("operands are {}, which the compiler has no arithmetic for".format(dtype))
    parameters = [(name, operand_name(name)) for name in op.term.names]
    if len(parameters) > MOST_OTHERS:
        raise Untraceable("it has more than {} parameters".format(MOST_OTHERS))
    changes = captures is not None and fingerprint.of(op) is None
    captures = _Captures(MOST_OTHERS - len(parameters), captures is FEW) if changes else None
    term = _expression(op.multiply, "multiply", ("w", "x"), dtype, arrays, True, parameters, captures)
    add, partials = None, [None] * 4
    if callable(op.add):
        total = "int64" if dtypes.is_integer(dtype) else dtype
        add = _expression(op.add, "add", ("acc", "term"), total, arrays, bools=False)
    others, grad_others = [name for _, name in parameters], []
    if differentiable:
        operands = [("w", "grad_w"), ("x", "grad_x")] + [(name, "grad_params") for name in others]
        for (name, argument), surrogate in zip(operands, op.term.surrogates):
            if surrogate is None:
                partial = _derivative(term, name, "multiply")
            else:
                taken = [pair for pair in parameters if pair[0] in signature.accepted(surrogate, op.term.names)]
                partial = _expression(surrogate, argument, ("w", "x"), dtype, arrays, True, taken, captures)
            grad_others.append(partial)
        partials[:2], grad_others = grad_others[:2], grad_others[2:]
        if add is not None:
            partials[2:] = [_derivative(add, name, "add") for name in ("acc", "term")]
    captured = tuple(captures.values) if captures else ()
    for i in range(len(captured)):
        others.append("c{}".format(i))
        if differentiable:
            grad_others.append(_derivative(term, others[-1], "multiply"))
    return Traced(term, add, *(partials + [tuple(others), tuple(grad_others), captured]))


def _derivative(expression, name, argument):
    try:
        return _derivatives.get((expression, name), lambda: derivative(expression, name))
    except Untraceable as error:
        raise Untraceable("{}: {}".format(argument, error))


def _expression(function, argument, names, dtype, arrays, bools=True, parameters=(), captures=None):
    """What a user's function of two tensors returns, as an expression of two operands, parameters and captures.

    parameters: pairs of names, the user's and the operand's.
    """
    if isinstance(function, evaluate.Evaluated):
        return function.of_operands(dict(parameters))
    session = _Session(dtype, arrays, captures, argument)
    try:
        _check_code(function)
        if captures is not None:
            captures.known.update(_numbers_in(function))
        symbols = [session.symbol(ex.operand(name, dtype)) for name in names]
        given = {name: session.symbol(ex.operand(stands, dtype)) for name, stands in parameters}
        result = (_substituted(function, {}) if NEEDS_STAND_INS else function)(*symbols, **given)
        if session.failure is None:
            return _result(session, result, bools)
        reason = session.failure
    except LargerCaptured:
        raise
    except Exception as error:
        reason = session.failure or str(error)
        if session.failure is None and not isinstance(error, Untraceable):
            reason = "it raises {}: {}".format(type(error).__name__, error)
            if session.foreign is not None and isinstance(error, AttributeError):
                raise _Foreign("{}: {}".format(argument, session.foreign))
    raise Untraceable("{}: {}".format(argument, reason))


def _result(session, result, bools):
    if type(result) is not Symbol:
        kind = "a number" if isinstance(result, (numbers.Number, np.generic)) else type(result).__name__
        kind = kind if arrays_of(result) is None else "a tensor or an array"
        session.fail("it returns {}, which was not made from its operands".format(kind))
    node, dtype = result._node, session.dtype
    if node.dtype == "bool" and (not bools or ex.is_float(dtype)):
        session.fail("it returns bools, where its operands are {}".format(dtype))
    if node.dtype not in ("bool", dtype):
        session.fail("it changes the dtype from {} to {}".format(dtype, node.dtype))
    return ex.convert(node, dtype)


class _Session(object):
    """One function being traced: the dtype of its operands, what they pose as, and what went wrong first.

    captures: the _Captures of the op, None where numbers are literals. argument: what the function is of the op.
    """

    def __init__(self, dtype, arrays, captures=None, argument=""):
        self.captures, self.argument, self.lifts = captures, argument, False
        self.dtype, self.arrays, self.numpy = dtype, arrays, arrays is NUMPY
        self.failure = self.foreign = None
        self.count = 0

    def fail(self, reason):
        # Kept: the function may swallow the exception, and go on as it wouldn't have with tensors.
        self.failure = self.failure or reason
        raise Untraceable(reason)

    def symbol(self, node):
        self.count += 1
        if self.count > MOST_NODES or node.depth > MOST_DEPTH:
            self.fail("it is too long")
        return Symbol(node, self)

    @staticmethod
    def is_symbol(value):
        return type(value) is Symbol

    def perform(self, name, args, kwargs=None, ufunc=False):
        """A Symbol of what an operation makes of its arguments. ufunc: whether NumPy computes it, even of tensors."""
        kwargs = {key: value for key, value in (kwargs or {}).items() if not (key == "out" and value is None)}
        self.numpy = ufunc or self.arrays is NUMPY
        self.lifts = name in _OF_NUMBERS and not (name in _POWERS and self._is_whole(args, kwargs))
        try:
            return self.symbol(OPERATIONS[name](self, *args, **kwargs))
        except Untraceable as error:
            self.fail(str(error))
        except (KeyError, TypeError):
            self.fail("{}() is called with arguments that the compiler doesn't know".format(name))

    def lift(self, value, dtype=None):
        """The node of an operand: a symbol's, or a number's in a dtype, by default the session's."""
        if type(value) is Symbol:
            if value._session is not self:
                self.fail("it keeps an operand from one call to another")
            return value._node
        dtype = dtype or self.dtype
        if arrays_of(value) is not None:
            if isinstance(value, np.ndarray) and value.dtype == object:
                self.fail("it makes an array of its operands")
            return self._captured(value, dtype)
        if isinstance(value, (bool, np.bool_)):
            return ex.constant(bool(value), "bool")
        whole = isinstance(value, (numbers.Integral, np.integer))
        if not whole and not isinstance(value, (float, np.floating)):
            self.fail("it combines its operands with {!r}".format(type(value).__name__))
        # By NumPy's rules the type of a NumPy scalar counts.
        if self.numpy and isinstance(value, np.generic) and np.result_type(value.dtype, dtype) != np.dtype(dtype):
            self.fail("a NumPy {} changes the dtype {}".format(value.dtype.name, dtype))
        given, value = value, int(value) if whole else float(value)
        if whole:
            low, high = (-(2**53), 2**53) if ex.is_float(dtype) else dtypes.limits(dtype)
            if not low <= value <= high:
                self.fail("{} can't hold {}".format(dtype, value))
        elif not ex.is_float(dtype):
            self.fail("it makes floats of integers, with {!r}".format(value))
        node = ex.constant(value, dtype)
        if ex.is_float(dtype) and abs(node.value) == float("inf") and abs(value) != float("inf"):
            self.fail("{} can't hold {!r}".format(dtype, value))
        if self.captures is None or not self.lifts or dtype != self.dtype or given in self.captures.known:
            return node
        return self.captures.operand(float(value) if ex.is_float(dtype) else value, dtype) or node

    def _is_whole(self, args, kwargs):
        """Whether a power is by a whole number, which had better stay a literal: then it is a product."""
        literals = self.captures is not None and self.captures.literals
        return literals and any(_is_number(v) and v % 1 == 0 for v in args + tuple(kwargs.values()))

    def _captured(self, value, dtype):
        """The operand of a tensor of one element."""
        kind = "array" if isinstance(value, np.ndarray) else "tensor"
        if self.captures is not None:
            _refuse_larger("{}: ".format(self.argument), value)
        has_kernels = self.arrays.owns(value) and (self.arrays.in_memory(value) or self.arrays.on_gpu(value))
        if self.captures is None or not has_kernels:
            self.fail("it uses a captured {}".format(kind))
        found = self.arrays.dtype(value)
        same_kind = len(value.shape) == 0 and ex.is_float(found) and ex.is_float(dtype)
        if dtype != self.dtype or found != dtype and not same_kind:
            self.fail("it uses a captured {} of {}".format(kind, found))
        node = self.captures.operand(value, dtype)
        return node if node is not None else self.fail("it captures more than {} numbers".format(MOST_OTHERS))

    def together(self, values, what):
        """The nodes of operands in the dtype that they have together: nodes of numbers, or of bools."""
        kinds = {self.lift(value).dtype for value in values if type(value) is Symbol}
        dtype = self._promoted(kinds - {"bool"})
        nodes = [self.lift(value, dtype) for value in values]
        if all(node.dtype == "bool" for node in nodes):
            return nodes
        if kinds == {"bool"}:
            # A mask and a number make int64 or float32, whatever the operands are.
            self.fail("{} of bools and a number is not arithmetic that the compiler knows".format(what))
        return [ex.convert(node, dtype) for node in nodes]

    def _promoted(self, names):
        if len(names) < 2:
            return names.pop() if names else self.dtype
        promote = np.promote_types if self.arrays is NUMPY else getattr(torch, "promote_types", None)
        if promote is None:
            self.fail("it combines different dtypes")
        found = names.pop()
        for name in names:
            pair = (found, name) if self.arrays is NUMPY else (getattr(torch, found), getattr(torch, name))
            found = dtype_name(promote(*pair))
        return found if found in ex.C_TYPES else self.fail("it makes {}".format(found))


#: The operations of which an operand may be a number that isn't a literal.
_POWERS = {"pow", "power", "array_power"}
_OF_NUMBERS = _POWERS.union(
    "add sub rsub subtract mul multiply div divide true_divide number_over lt le gt ge less less_equal greater "
    "greater_equal maximum minimum where where_method clamp_min clamp_max".split()
)


# ---------------------------------------------------------------- symbols
#: Why there are no operations of some names: {0} is the name, {1} the name without underscores.
_REASONS = {
    "{0}() is a reduction":
        "sum mean prod amin amax aminmax norm std var any all argmin argmax argsort sort topk cumsum cumprod softmax "
        "median mode logsumexp nansum ptp dot matmul mm bmm unique count_nonzero",
    "it looks at, or changes, the shape of its operands ({0})":
        "shape size dim ndim ndimension numel nelement view reshape unsqueeze squeeze expand expand_as t T mT "
        "transpose permute flatten ravel stride strides repeat chunk split narrow swapaxes broadcast_to "
        "broadcast_tensors expand_dims stack cat concatenate unbind nbytes itemsize",
    "it converts its operands to Python numbers or arrays ({1})":
        "item tolist numpy __float__ __int__ __index__ __long__ __complex__ __array__"}  # fmt: skip
_REASON_OF = {name: reason for reason, names in _REASONS.items() for name in names.split()}


def _unknown(name):
    """Why there is no operation of this name."""
    in_place = name.endswith("_") and not name.endswith("__")
    otherwise = "it changes a tensor in place ({0})" if in_place else "{0} is unknown to the compiler"
    return _REASON_OF.get(name, otherwise).format(name, name.strip("_"))


class Symbol(object):
    """What a traced function gets for a tensor."""

    __slots__ = ("_node", "_session")

    def __init__(self, node, session):
        object.__setattr__(self, "_node", node)
        object.__setattr__(self, "_session", session)

    def __getattr__(self, name):
        session = self._session
        if name.startswith("__"):
            raise AttributeError(name)  # a protocol that NumPy or PyTorch looks for
        array = session.arrays is NUMPY
        if not hasattr(np.ndarray if array else Tensor, name):
            if hasattr(Tensor if array else np.ndarray, name):
                session.foreign = session.foreign or "{} have no {}".format(session.arrays.name, name)
            raise AttributeError("{} have no {}".format(session.arrays.name, name))
        if name == "dtype":
            return self._dtype()
        if array and name in ("min", "max"):
            session.fail("{}() is a reduction".format(name))
        operation = "where_method" if name == "where" and not array else name
        if operation in OPERATIONS:
            return lambda *args, **kwargs: session.perform(operation, (self,) + args, kwargs)
        session.fail(_unknown(name))

    def _dtype(self):
        name = self._node.dtype
        if self._session.arrays is NUMPY:
            return np.dtype(name)
        if VARIABLES:
            raise AttributeError("dtype")
        # Before 1.2 comparisons make uint8.
        return getattr(torch, name if hasattr(torch, name) else "uint8")

    def __setattr__(self, name, value):
        self._session.fail("it sets an attribute of a tensor ({})".format(name))

    def __hash__(self):
        return id(self)

    def __repr__(self):
        return "<symbol of {}>".format(self._node.dtype)

    @classmethod
    def __torch_function__(cls, function, *rest):
        # After the function torch gives types, args and kwargs, but 1.5 no types.
        args, kwargs = rest if len(rest) == 2 and isinstance(rest[1], dict) else (rest + ((), None))[1:3]
        return _call_torch(function, args, kwargs or {})

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        session = self._session
        if method != "__call__":
            session.fail("np.{}.{} is a reduction".format(ufunc.__name__, method))
        if kwargs.pop("out", None) is not None or kwargs:
            session.fail("np.{} is called with out= or other arguments".format(ufunc.__name__))
        name = _UFUNCS.get(ufunc)
        if name is None:
            session.fail("np.{} is unknown to the compiler".format(ufunc.__name__))
        return session.perform(name, inputs, ufunc=True)

    def __array_function__(self, function, types, args, kwargs):
        return _call_numpy(function, self._session, args, kwargs)


def _define(name, operation, reflected=False):
    def method(self, other):
        return self._session.perform(operation, (other, self) if reflected else (self, other))

    method.__name__ = name
    setattr(Symbol, name, method)


def _define_unary(name, operation):
    setattr(Symbol, name, lambda self: self._session.perform(operation, (self,)))


for _function in FUNCTIONS:
    for _name in _function.python:
        if _function.takes == "input":
            _define_unary("__{}__".format(_name), _function.names[0])
        else:
            _define("__{}__".format(_name), _function.names[0])
            if _function.result is None:
                _define("__r{}__".format(_name), _function.names[0], True)
for _name in ("div", "truediv"):
    _define("__{}__".format(_name), "div")
    _define("__r{}__".format(_name), "number_over", True)
_define("__pow__", "array_power")
_define("__rpow__", "array_power", True)
Symbol.__pos__ = lambda self: self


def _refuse(names, reason):
    for name in names.split():

        def method(self, *args, **kwargs):
            self._session.fail(reason)

        setattr(Symbol, "__{}__".format(name), method)


_refuse("bool nonzero", "it branches on a value (bool() of an operand, as if, and, or, not do)")
_refuse("float int long index complex trunc round floor ceil", "it converts its operands to Python numbers (float())")
_refuse("array", "it converts its operands to an array")
_refuse("getitem setitem delitem", "it indexes its operands")
_refuse("iter len reversed contains", "it looks at the shape of its operands (len() or iteration)")
_refuse(
    "iadd isub imul idiv itruediv ifloordiv imod ipow iand ior ixor ilshift irshift imatmul",
    "it changes a tensor in place (+= or the like)",
)
_refuse("divmod rdivmod", "divmod() is unknown to the compiler")
_refuse("matmul rmatmul", "@ is a reduction")
_refuse("enter exit call", "it does to its operands what isn't arithmetic")
_refuse("copy deepcopy reduce_ex reduce", "it copies its operands (copy)")


# ---------------------------------------------------------------- PyTorch's and NumPy's functions
def _torch_functions():
    """PyTorch's functions -> the names of their operations."""
    found = {}
    for name in () if torch is None else set(OPERATIONS) - METHODS:
        # Of the functional module only what is its own: 0.3's has operator.mul in it.
        functional = [torch.nn.functional] if name in FUNCTIONAL else []
        for module in [torch, getattr(torch, "special", None)] + functional:
            function = getattr(module, name, None)
            if callable(function) and not isinstance(function, type):
                found[function] = name
    return found


# Looked up in vars(np): getattr() also finds names, such as "float", that NumPy warns about.
_UFUNCS = {vars(np)[name]: name for name in OPERATIONS if isinstance(vars(np).get(name), np.ufunc)}
_NUMPY_FUNCTIONS = {
    vars(np)[name]: name
    for name in "where clip zeros_like ones_like full_like round around copy fix".split()
    if name in vars(np) and not isinstance(vars(np)[name], np.ufunc)
}
_TORCH_FUNCTIONS = _torch_functions()


def _session_of(values):
    """The session of a symbol among values, or in lists and tuples among them; None if there is none."""
    for value in values:
        if type(value) is Symbol:
            return value._session
        session = _session_of(value) if isinstance(value, (list, tuple)) else None
        if session is not None:
            return session
    return None


def _call_torch(function, args, kwargs):
    values = list(args) + list(kwargs.values())
    session, name = _session_of(values), _TORCH_FUNCTIONS.get(function) or _of_method(function)
    if session.arrays is NUMPY:
        session.fail("it calls torch for NumPy arrays")
    if name is None:
        for value in values:
            if type(value) is not Symbol and arrays_of(value) is not None:
                session.lift(value)
        short = getattr(function, "__name__", str(function))
        reason = _unknown(short)
        session.fail("torch." + reason if reason.startswith(short) else reason)
    return session.perform(name, args, kwargs)


def _of_method(function):
    """The operation of a tensor's method, as a captured tensor's is called with a symbol; None where there is none."""
    name = getattr(function, "__name__", "")
    plain = {"truediv": "div"}.get(name.strip("_"), name.strip("_"))
    return plain if plain in _OF_NUMBERS and getattr(Tensor, name, None) == function else None


def _call_numpy(function, session, args, kwargs):
    name = _NUMPY_FUNCTIONS.get(function)
    if name is None:
        reason = _unknown(getattr(function, "__name__", str(function)))
        session.fail("np." + reason if reason[0] != "i" else reason)
    return session.perform(name, args, kwargs)


def _dispatches(function):
    """Whether a function of PyTorch or NumPy lets a symbol say what it does."""
    symbol = _Session("float32", TORCH or NUMPY).symbol(ex.operand("w", "float32"))
    try:
        return type(function(symbol)) is Symbol
    except Exception:
        return False


#: Before torch 1.7 and NumPy 1.17 their functions don't: a user's functions are given stand-ins for both modules then.
NEEDS_STAND_INS = not _dispatches(np.zeros_like) or torch is not None and not _dispatches(torch.abs)


# ---------------------------------------------------------------- stand-ins
class _StandIn(object):
    """A module of PyTorch's or NumPy's, with functions that take symbols."""

    def __init__(self, module):
        self.__module = module

    def __getattr__(self, name):
        return _stand_in(getattr(self.__module, name))


def _is_theirs(name):
    return name.split(".")[0] in ("torch", "numpy")


def _stand_in(value):
    """What a user's function is given for a module or function of PyTorch's or NumPy's; anything else is itself."""
    if isinstance(value, types.ModuleType):
        return _StandIn(value) if _is_theirs(value.__name__) else value
    if isinstance(value, (type, np.ufunc)) or not callable(value) or isinstance(value, types.MethodType):
        return value
    module = getattr(value, "__module__", None) or ""
    # Old versions' functions in C name no module.
    theirs = isinstance(value, types.BuiltinFunctionType) and getattr(torch, value.__name__, None) is value
    try:
        if not (value in _TORCH_FUNCTIONS or value in _NUMPY_FUNCTIONS or theirs or _is_theirs(module)):
            return value
    except TypeError:  # it can't be hashed
        return value

    @functools.wraps(value, assigned=())
    def call(*args, **kwargs):
        session = _session_of(list(args) + list(kwargs.values()))
        if session is None:
            return value(*args, **kwargs)
        if value in _NUMPY_FUNCTIONS or module.startswith("numpy"):
            return _call_numpy(value, session, args, kwargs)
        return _call_torch(value, args, kwargs)

    return call


def _plain(value):
    """Whether this is a Python function of the user's."""
    return isinstance(value, types.FunctionType) and not _is_theirs(value.__module__ or "")


def _names(code):
    """Every name in a function's code, functions inside it included."""
    names = set(code.co_names)
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            names |= _names(value)
    return names


def _cells(function):
    """The cells of a function's closure and what is in them; one may be empty."""
    for cell in function.__closure__ or ():
        try:
            yield cell, cell.cell_contents
        except ValueError:
            yield cell, None


def _substituted(value, memo):
    """A user's function, with stand-ins for what it refers to."""
    if isinstance(value, types.MethodType) and _plain(value.__func__):
        return types.MethodType(_substituted(value.__func__, memo), value.__self__)
    if not _plain(value):
        return _stand_in(value)
    if value in memo:
        return memo[value]
    scope = dict(value.__globals__)
    cells = []
    for cell, content in _cells(value):
        # A function that refers to itself through a cell stays as it is there: it can't be made before its cell.
        memo[value] = value
        changed = _substituted(content, memo)
        cells.append(cell if changed is content else _cell(changed))
    copy = types.FunctionType(value.__code__, scope, value.__name__, value.__defaults__, tuple(cells) or None)
    copy.__kwdefaults__ = getattr(value, "__kwdefaults__", None)
    memo[value] = copy
    for name in _names(value.__code__):
        if name in scope:
            scope[name] = _substituted(scope[name], memo)
    return copy


def _cell(value):
    return (lambda: value).__closure__[0]


def _check_code(function):
    """Refuse functions that ask for the type of their operands: a symbol is neither a tensor nor an array."""
    for here in _reachable(function):
        names = _names(here.__code__)
        for name in ("isinstance", "issubclass", "is_tensor"):
            if name in names:
                raise Untraceable("it looks at the type of its operands ({})".format(name))


def _numbers_in(function):
    """The numbers that a function's code has, and that of the functions which it calls: these don't change."""
    found, waiting = set(), [here.__code__ for here in _reachable(function)]
    while waiting:
        for value in waiting.pop().co_consts:
            if isinstance(value, types.CodeType):
                waiting.append(value)
            elif isinstance(value, numbers.Real):
                found.update((value, -value))
    return found


def _reachable(function):
    """The Python functions that a function may call, itself among them."""
    while isinstance(function, functools.partial):
        function = function.func
    seen, waiting = set(), [getattr(function, "__func__", function)]
    while waiting:
        here = waiting.pop()
        if not _plain(here) or here in seen:
            continue
        seen.add(here)
        yield here
        names = _names(here.__code__)
        scope = here.__globals__
        waiting.extend(getattr(scope[name], "__func__", scope[name]) for name in names if name in scope)
        waiting.extend(content for _, content in _cells(here))
