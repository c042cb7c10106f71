"""A user's op as expressions: its functions are called with symbols, which record what is done to them.

Whatever a symbol can't record exactly as tensors would compute it raises Untraceable,
even where the function swallows the exception: then tensors evaluate the function.
Numbers that a function captures become constants: kernels.py says when an op is traced anew.
"""

import collections
import functools
import numbers
import types

import numpy as np

from im2col_compat.codegen import expression as ex
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import NUMPY, TORCH, arrays_of
from im2col_compat.compat.probes import VARIABLES, Tensor, torch

Traced = collections.namedtuple("Traced", "term add grad_w grad_x add_acc add_term")

#: More operations than this, or deeper nested, are left to tensors.
MOST_NODES = 2000
MOST_DEPTH = 64


#: 0.3 rounds halves away from zero.
ROUNDS_TO_EVEN = torch is None or torch.round(torch.FloatTensor([2.5]))[0] == 2


class Untraceable(Exception):
    """Why a function can't be made an expression."""


class _Foreign(Exception):
    """A function wants what only the other kind of array has."""


def trace(op, dtype, arrays=None):
    """The expressions of an op's functions, for operands of a dtype (its name). Raises Untraceable.

    arrays: TORCH or NUMPY, what the functions expect; TORCH by default,
    where there is one. As for tensors, functions that only understand arrays serve too.

    Returns Traced: term, of operands w and x; add, of acc and term, None where op.add is a
    word; grad_w and grad_x, d term / dw and d term / dx or their surrogates; add_acc and
    add_term, the derivatives of add. Integers and NumPy's arrays have no gradients (None),
    and an add function of integers gets int64.
    """
    arrays = arrays or TORCH or NUMPY
    differentiable = arrays is not NUMPY and not dtypes.is_integer(dtype)
    try:
        return _trace(op, dtype, arrays, differentiable)
    except _Foreign as error:
        if arrays is NUMPY:
            raise Untraceable(str(error))
        reason = str(error)
    try:
        return _trace(op, dtype, NUMPY, differentiable)
    except (_Foreign, Untraceable):
        raise Untraceable(reason)


def _trace(op, dtype, arrays, differentiable):
    if dtype not in ex.C_TYPES:
        raise Untraceable("operands are {}, which the compiler has no arithmetic for".format(dtype))
    term = _expression(op.multiply, "multiply", ("w", "x"), dtype, arrays)
    integer = dtypes.is_integer(dtype)
    add = grad_w = grad_x = add_acc = add_term = None
    if callable(op.add):
        add = _expression(op.add, "add", ("acc", "term"), "int64" if integer else dtype, arrays, bools=False)
    if differentiable:
        partials = []
        for argument, name in (("grad_w", "w"), ("grad_x", "x")):
            surrogate = getattr(op, argument)
            if surrogate is None:
                partials.append(ex.derivative(term, name))
            else:
                partials.append(_expression(surrogate, argument, ("w", "x"), dtype, arrays))
        grad_w, grad_x = partials
        if add is not None:
            add_acc, add_term = ex.derivative(add, "acc"), ex.derivative(add, "term")
    return Traced(term, add, grad_w, grad_x, add_acc, add_term)


def _expression(function, argument, names, dtype, arrays, bools=True):
    """What a user's function of two tensors returns, as an expression of two operands."""
    session = _Session(dtype, arrays)
    try:
        _check_code(function)
        symbols = [session.symbol(ex.operand(name, dtype)) for name in names]
        result = _callable_with_symbols(function)(*symbols)
        if session.failure is None:
            return _result(session, result, bools)
        reason = session.failure
    except Exception as error:
        reason = session.failure or str(error)
        if session.failure is None and not isinstance(error, Untraceable):
            reason = "it raises {}: {}".format(type(error).__name__, error)
            if session.foreign is not None and isinstance(error, AttributeError):
                raise _Foreign("{}: {}".format(argument, session.foreign))
    raise Untraceable("{}: {}".format(argument, reason))


def _result(session, result, bools):
    if type(result) is not Symbol:
        session.fail("it returns {}, which was not made from its operands".format(_kind(result)))
    node = result._node
    if node.dtype == "bool":
        if not bools or ex.is_float(session.dtype):
            session.fail("it returns bools, where its operands are {}".format(session.dtype))
        node = ex.cast(node, session.dtype)
    return node


def _kind(value):
    if arrays_of(value) is not None:
        return "a tensor or an array"
    return "a number" if isinstance(value, (numbers.Number, np.generic)) else type(value).__name__


class _Session(object):
    """One function being traced: the dtype of its operands, what they pose as, and what went wrong first."""

    def __init__(self, dtype, arrays):
        self.dtype = dtype
        self.arrays = arrays
        self.failure = None
        self.foreign = None
        self.count = 0

    def fail(self, reason):
        # Kept, for the function may swallow the exception and go on otherwise than it would have with tensors.
        self.failure = self.failure or reason
        raise Untraceable(reason)

    def symbol(self, node):
        self.count += 1
        if self.count > MOST_NODES or node.depth > MOST_DEPTH:
            self.fail("it is too long")
        return Symbol(node, self)

    def lift(self, value, strict=False):
        """An operand of an operation as a node. strict: by NumPy's rules, where the type of a NumPy scalar counts."""
        if type(value) is Symbol:
            if value._session is not self:
                self.fail("it keeps an operand from one call to another")
            return value._node
        if arrays_of(value) is not None:
            if isinstance(value, np.ndarray) and value.dtype == object:
                self.fail("it makes an array of its operands")
            self.fail("it uses a captured {}".format("array" if isinstance(value, np.ndarray) else "tensor"))
        if isinstance(value, (bool, np.bool_)):
            return ex.constant(bool(value), "bool")
        if not isinstance(value, numbers.Real) and not isinstance(value, (np.floating, np.integer)):
            self.fail("it combines its operands with {!r}".format(type(value).__name__))
        if isinstance(value, np.generic) and (strict or self.arrays is NUMPY):
            if np.result_type(value.dtype, self.dtype) != np.dtype(self.dtype):
                self.fail("a NumPy {} changes the dtype {}".format(value.dtype.name, self.dtype))
        if isinstance(value, (numbers.Integral, np.integer)):
            value = int(value)
            low, high = (-(2**53), 2**53) if ex.is_float(self.dtype) else dtypes.limits(self.dtype)
            if not low <= value <= high:
                self.fail("{} can't hold {}".format(self.dtype, value))
        elif isinstance(value, (float, np.floating)):
            value = float(value)
            if not ex.is_float(self.dtype):
                self.fail("it makes floats of integers, with {!r}".format(value))
        else:
            self.fail("it combines its operands with {!r}".format(type(value).__name__))
        node = ex.constant(value, self.dtype)
        if ex.is_float(self.dtype) and abs(node.value) == float("inf") and abs(value) != float("inf"):
            self.fail("{} can't hold {!r}".format(self.dtype, value))
        return node

    def number(self, value, what, strict=False):
        """One operand that must be of numbers."""
        node = self.lift(value, strict)
        if node.dtype == "bool":
            self.fail("{} of bools is not arithmetic that the compiler knows".format(what))
        return node

    def floats(self, value, what):
        node = self.number(value, what)
        if not ex.is_float(node.dtype):
            self.fail("{}() makes floats of integers".format(what))
        return node

    def pair(self, a, b, what, strict=False):
        """Two operands in the dtype of the result: two nodes of numbers, or two of bools."""
        nodes = [self.lift(value, strict) for value in (a, b)]
        if nodes[0].dtype == nodes[1].dtype:
            return nodes
        for i, value in enumerate((a, b)):
            if nodes[1 - i].dtype == "bool" and type(value) is not Symbol:
                # A mask and a number make int64 or float32, whatever the operands are.
                self.fail("{} of bools and a number is not arithmetic that the compiler knows".format(what))
        return [ex.cast(node, self.dtype) if node.dtype == "bool" else node for node in nodes]

    def numbers(self, a, b, what, strict=False):
        nodes = self.pair(a, b, what, strict)
        if nodes[0].dtype == "bool":
            self.fail("{} of bools is not arithmetic that the compiler knows".format(what))
        return nodes

    def truth(self, value):
        """An operand as a condition."""
        node = self.lift(value)
        return node if node.dtype == "bool" else ex.compare("ne", node, ex.constant(0, node.dtype))


# ---------------------------------------------------------------- operations

#: name -> function(session, *arguments) that returns a node.
OPERATIONS = {}


def _operation(*names):
    def register(function):
        for name in names:
            OPERATIONS[name] = function
        return function

    return register


def _perform(session, name, args, kwargs=None, strict=False):
    """A Symbol of what an operation makes of its arguments."""
    kwargs = {key: value for key, value in (kwargs or {}).items() if not (key == "out" and value is None)}
    function = OPERATIONS[name]
    if strict and function in _STRICT:
        kwargs["strict"] = True
    try:
        node = function(session, *args, **kwargs)
    except TypeError:
        session.fail("{}() is called with arguments that the compiler doesn't know".format(name))
    return session.symbol(node)


_STRICT = set()


def _binary(names, build, integers=True):
    def operation(session, input, other, strict=False):
        a, b = session.numbers(input, other, names[0], strict)
        if not integers and not ex.is_float(a.dtype):
            session.fail("{} of integers depends on the version of PyTorch".format(names[0]))
        return build(a, b)

    _operation(*names)(operation)
    _STRICT.add(operation)


def _add(session, input, other, alpha=1, strict=False):
    if alpha != 1:
        session.fail("alpha= is unknown to the compiler")
    return ex.add(*session.numbers(input, other, "add", strict))


def _sub(session, input, other, alpha=1, strict=False):
    if alpha != 1:
        session.fail("alpha= is unknown to the compiler")
    for value in (input, other):
        if session.lift(value, strict).dtype == "bool" and type(value) is Symbol:
            session.fail("subtraction with bools is not arithmetic that the compiler knows")
    return ex.sub(*session.numbers(input, other, "sub", strict))


def _mul(session, input, other, strict=False):
    a, b = session.pair(input, other, "mul", strict)
    return ex.both(a, b) if a.dtype == "bool" else ex.mul(a, b)


def _div(session, input, other, rounding_mode=None, strict=False):
    if rounding_mode is not None:
        session.fail("rounding_mode= is unknown to the compiler")
    a, b = session.numbers(input, other, "division", strict)
    if not ex.is_float(a.dtype):
        session.fail("division makes floats of integers")
    return ex.div(a, b)


def _number_over(session, input, other):
    """number / symbol."""
    if session.arrays is NUMPY or type(input) is Symbol:
        return _div(session, input, other)
    # PyTorch multiplies with the reciprocal.
    return ex.mul(ex.unary("reciprocal", session.floats(other, "division")), session.floats(input, "division"))


def _pow(session, input, exponent, strict=False):
    base, exponent = session.numbers(input, exponent, "pow", strict)
    if ex.is_float(base.dtype):
        return ex.power(base, exponent, expands=not strict)
    if ex.is_constant(exponent) and 0 <= exponent.value <= 4:
        return ex.integer_power(base, exponent.value)
    session.fail("integers to this power are unknown to the compiler")


def _array_power(session, input, exponent):
    """array ** exponent, which NumPy computes otherwise than np.power."""
    base, power = session.numbers(input, exponent, "pow")
    if ex.is_float(base.dtype) and type(exponent) is not Symbol and power.value == 0.5:
        return ex.unary("sqrt", base)
    return _pow(session, input, exponent, strict=True)


for _names, _function in (
    (("add",), _add),
    (("sub", "subtract"), _sub),
    (("mul", "multiply"), _mul),
    (("div", "divide", "true_divide"), _div),
    (("pow", "power"), _pow),
):
    _operation(*_names)(_function)
    _STRICT.add(_function)
_operation("number_over")(_number_over)
_operation("array_power")(_array_power)
_binary(("minimum",), ex.minimum)
_binary(("maximum",), ex.maximum)


def _comparison(kind, names):
    def operation(session, input, other, strict=False):
        for one, number in ((input, other), (other, input)):
            # mask == 0 is an idiom; a mask and a larger number are not.
            is_mask = type(one) is Symbol and one._node.dtype == "bool"
            if is_mask and isinstance(number, numbers.Number) and kind in ("eq", "ne") and number in (0, 1):
                return ex.compare(kind, one._node, ex.constant(bool(number), "bool"))
        a, b = session.pair(input, other, "comparison", strict)
        if a.dtype == "bool" and kind not in ("eq", "ne"):
            session.fail("bools are compared by size")
        return ex.compare(kind, a, b)

    _operation(kind, *names)(operation)
    _STRICT.add(operation)


for _kind_name, _names in (
    ("lt", ("less",)),
    ("le", ("less_equal",)),
    ("gt", ("greater",)),
    ("ge", ("greater_equal",)),
    ("eq", ("equal",)),
    ("ne", ("not_equal",)),
):
    _comparison(_kind_name, _names)


def _float_functions(name, names):
    @_operation(name, *names)
    def operation(session, input):
        return ex.unary(name, session.floats(input, name))


for _name, _names in (
    ("exp", ()),
    ("log", ()),
    ("sqrt", ()),
    ("rsqrt", ()),
    ("tanh", ()),
    ("sigmoid", ()),
    ("sin", ()),
    ("cos", ()),
    ("floor", ()),
    ("ceil", ()),
    ("trunc", ("fix",)),
    ("reciprocal", ()),
):
    _float_functions(_name, _names)


@_operation("round", "rint", "around")
def _round(session, input, decimals=0):
    if decimals != 0:
        session.fail("round() to decimals is unknown to the compiler")
    if session.arrays is not NUMPY and not ROUNDS_TO_EVEN:
        session.fail("round() is another function in this version of PyTorch")
    return ex.unary("round", session.floats(input, "round"))


@_operation("neg", "negative")
def _neg(session, input):
    return ex.neg(session.number(input, "negation"))


@_operation("positive", "clone", "contiguous", "copy")
def _same(session, input):
    return session.lift(input)


@_operation("detach")
def _detach(session, input):
    node = session.lift(input)
    return ex.unary("detach", node) if ex.is_float(node.dtype) else node


@_operation("abs", "absolute", "fabs")
def _abs(session, input):
    return ex.absolute(session.number(input, "abs"))


@_operation("sign", "sgn")
def _sign(session, input):
    return ex.sign(session.number(input, "sign"))


@_operation("numpy_sign")
def _numpy_sign(session, input):
    return ex.sign(session.number(input, "sign"), propagates_nan=True)


@_operation("square")
def _square(session, input):
    node = session.number(input, "square")
    return ex.power(node, ex.constant(2, node.dtype)) if ex.is_float(node.dtype) else ex.integer_power(node, 2)


@_operation("relu")
def _relu(session, input, inplace=False):
    if inplace:
        session.fail("it changes a tensor in place (relu)")
    return ex.relu(session.number(input, "relu"))


@_operation("leaky_relu")
def _leaky_relu(session, input, negative_slope=0.01, inplace=False):
    if inplace:
        session.fail("it changes a tensor in place (leaky_relu)")
    node = session.floats(input, "leaky_relu")
    low = ex.mul(node, session.floats(negative_slope, "leaky_relu"))
    return ex.select(ex.compare("gt", node, ex.constant(0, node.dtype)), node, low)


def _clamp(session, input, min=None, max=None):
    bounds = [None if bound is None else session.number(bound, "clamp") for bound in (min, max)]
    given = [bound for bound in bounds if bound is not None]
    if not given or len(given) == 2 and not all(bound.op == "constant" for bound in given):
        session.fail("clamp() takes one bound, or two numbers")
    if any(bound.op == "constant" and bound.value != bound.value for bound in given):
        session.fail("clamp() has a NaN for a bound")
    return ex.clamp(session.number(input, "clamp"), *bounds)


_operation("clamp")(_clamp)
_operation("clamp_min")(lambda session, input, min: _clamp(session, input, min))
_operation("clamp_max")(lambda session, input, max: _clamp(session, input, None, max))


@_operation("clip")
def _clip(session, *args, **kwargs):
    names = {"a_min": "min", "a_max": "max"}
    return _clamp(session, *args, **{names.get(key, key): value for key, value in kwargs.items()})


def _extremum(name, build):
    @_operation(name)
    def operation(session, input, other=None):
        if type(other) is not Symbol:
            session.fail("{}() of one tensor is a reduction".format(name))
        return build(*session.numbers(input, other, name))


_extremum("min", ex.minimum)
_extremum("max", ex.maximum)


@_operation("where")
def _where(session, condition, *values):
    if len(values) != 2:
        session.fail("where() without values looks at the shape")
    node = session.lift(condition)
    if node.dtype != "bool":
        session.fail("where() needs a condition of bools")
    if not any(type(value) is Symbol for value in values):
        session.fail("where() of two numbers has a dtype of its own")
    return ex.select(node, *session.pair(values[0], values[1], "where"))


@_operation("where_method")
def _where_method(session, input, condition, other):
    return _where(session, condition, input, other)


@_operation("masked_fill")
def _masked_fill(session, input, mask, value):
    node = session.lift(mask)
    if node.dtype != "bool" or type(value) is Symbol:
        session.fail("masked_fill() needs a mask of bools and a number")
    return ex.select(node, session.number(value, "masked_fill"), session.number(input, "masked_fill"))


for _name, _build in (("logical_and", ex.both), ("logical_or", ex.either), ("logical_xor", ex.exclusive)):

    def _logical(session, input, other, build=_build):
        return build(session.truth(input), session.truth(other))

    _operation(_name)(_logical)
_operation("logical_not")(lambda session, input: ex.negation(session.truth(input)))


def _bits(session, a, b, what):
    nodes = [session.lift(value) for value in (a, b)]
    if nodes[0].dtype != nodes[1].dtype:
        session.fail("{} of bools and numbers is unknown to the compiler".format(what))
    if ex.is_float(nodes[0].dtype):
        session.fail("{} of floats isn't defined".format(what))
    return nodes


for _kind_name in ("and", "or", "xor"):

    def _bitwise(session, input, other, kind=_kind_name):
        return ex.bitwise("bit" + kind, *_bits(session, input, other, "bitwise_" + kind))

    _operation("bitwise_" + _kind_name)(_bitwise)
for _kind_name in ("left", "right"):

    def _shift(session, input, other, kind=_kind_name):
        a, b = _bits(session, input, other, kind + "_shift")
        if a.dtype == "bool":
            session.fail("a shift of bools is unknown to the compiler")
        return ex.shift(kind[0] + "shift", a, b)

    _operation("bitwise_{}_shift".format(_kind_name), _kind_name + "_shift")(_shift)


@_operation("bitwise_not", "invert")
def _invert(session, input):
    node = session.lift(input)
    if ex.is_float(node.dtype):
        session.fail("bitwise_not of floats isn't defined")
    return ex.invert(node)


def _filled(session, input, value, dtype=None):
    if session.lift(input).dtype == "bool":
        session.fail("it makes constant bools")
    if dtype is not None and _dtype_name(dtype) != session.dtype:
        session.fail("it makes a constant of another dtype, {}".format(dtype))
    return session.number(value, "a constant")


_operation("zeros_like")(lambda session, input, dtype=None: _filled(session, input, 0, dtype))
_operation("ones_like")(lambda session, input, dtype=None: _filled(session, input, 1, dtype))
_operation("full_like")(lambda session, input, fill_value, dtype=None: _filled(session, input, fill_value, dtype))


def _dtype_name(dtype):
    """The name of what PyTorch or NumPy take for a dtype; None if that isn't known."""
    if isinstance(dtype, str) and dtype.startswith("torch."):
        return dtypes.OLD_DTYPE.get(dtype.split(".")[-1])
    if torch is not None and hasattr(torch, "dtype") and isinstance(dtype, torch.dtype):
        return str(dtype)[6:]
    if isinstance(dtype, type) and dtype.__module__.startswith("torch"):
        return dtypes.OLD_DTYPE.get(dtype.__name__)
    try:
        return np.dtype(dtype).name
    except TypeError:
        return None


def _cast(session, node, name):
    if name == node.dtype:
        return node
    if name == "bool":
        return ex.compare("ne", node, ex.constant(0, node.dtype))
    if node.dtype == "bool" and name == session.dtype:
        return ex.cast(node, name)
    session.fail("it changes the dtype from {} to {}".format(node.dtype, name))


@_operation("to", "type", "astype")
def _to(session, input, dtype):
    node = session.lift(input)
    if type(dtype) is Symbol:
        return _cast(session, node, dtype._node.dtype)
    name = _dtype_name(dtype)
    if name is None:
        session.fail("it moves or converts a tensor to {!r}".format(dtype))
    return _cast(session, node, name)


@_operation("type_as")
def _type_as(session, input, other):
    return _cast(session, session.lift(input), session.lift(other).dtype)


for _name, _dtype in (
    ("float", "float32"),
    ("double", "float64"),
    ("char", "int8"),
    ("byte", "uint8"),
    ("short", "int16"),
    ("int", "int32"),
    ("long", "int64"),
    ("bool", "bool"),
):

    def _as(session, input, dtype=_dtype):
        return _cast(session, session.lift(input), dtype)

    _operation(_name)(_as)

# ---------------------------------------------------------------- symbols

_REDUCTIONS = set(
    "sum mean prod amin amax aminmax norm std var any all argmin argmax argsort sort topk cumsum cumprod softmax "
    "median mode logsumexp nansum ptp dot matmul mm bmm unique count_nonzero".split()
)
_SHAPES = set(
    "shape size dim ndim ndimension numel nelement view reshape unsqueeze squeeze expand expand_as t T mT transpose "
    "permute flatten ravel stride strides repeat chunk split narrow swapaxes broadcast_to broadcast_tensors "
    "expand_dims stack cat concatenate unbind nbytes itemsize".split()
)
_NUMBERS = set("item tolist numpy __float__ __int__ __index__ __long__ __complex__ __array__".split())
#: Names that are methods of neither kind of array, or mean something else there.
_NOT_METHODS = set("number_over array_power numpy_sign where_method fabs rint around positive leaky_relu".split())


def _unknown(name):
    """Why there is no operation of this name."""
    if name in _REDUCTIONS:
        return "{}() is a reduction".format(name)
    if name in _SHAPES:
        return "it looks at, or changes, the shape of its operands ({})".format(name)
    if name in _NUMBERS:
        return "it converts its operands to Python numbers or arrays ({})".format(name.strip("_"))
    if name.endswith("_") and not name.endswith("__"):
        return "it changes a tensor in place ({})".format(name)
    return "{} is unknown to the compiler".format(name)


class Symbol(object):
    """What a traced function gets for a tensor."""

    __slots__ = ("_node", "_session")

    def __init__(self, node, session):
        object.__setattr__(self, "_node", node)
        object.__setattr__(self, "_session", session)

    def __getattr__(self, name):
        session = self._session
        if name.startswith("__"):
            # Protocols that NumPy and PyTorch look for.
            raise AttributeError(name)
        array = session.arrays is NUMPY
        if not hasattr(np.ndarray if array else Tensor, name):
            if hasattr(Tensor if array else np.ndarray, name):
                session.foreign = session.foreign or "{} have no {}".format(session.arrays.name, name)
            raise AttributeError("{} have no {}".format(session.arrays.name, name))
        if name == "dtype":
            return self._dtype()
        if array and name in ("min", "max"):
            session.fail("{}() is a reduction".format(name))
        if name == "where" and not array:
            return functools.partial(_call_method, self, "where_method")
        if name in OPERATIONS and name not in _NOT_METHODS:
            return functools.partial(_call_method, self, name)
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
        # torch 1.5 doesn't pass the types.
        args, kwargs = (tuple(rest) + ((), None))[1:3] if len(rest) != 2 or _passes_types(rest) else rest
        return _call_torch(function, args, kwargs or {})

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        session = self._session
        if method != "__call__":
            session.fail("np.{}.{} is a reduction".format(ufunc.__name__, method))
        out = kwargs.pop("out", None)
        if out is not None or kwargs:
            session.fail("np.{} is called with out= or other arguments".format(ufunc.__name__))
        name = _UFUNCS.get(ufunc)
        if name is None:
            session.fail("np.{} is unknown to the compiler".format(ufunc.__name__))
        return _perform(session, name, inputs, strict=True)

    def __array_function__(self, function, types, args, kwargs):
        return _call_numpy(function, self._session, args, kwargs)


def _passes_types(rest):
    return not isinstance(rest[1], dict)


def _call_method(symbol, name, *args, **kwargs):
    return _perform(symbol._session, name, (symbol,) + args, kwargs)


def _define(name, operation, reflected=False):
    def method(self, other):
        return _perform(self._session, operation, (other, self) if reflected else (self, other))

    method.__name__ = name
    setattr(Symbol, name, method)


for _name, _operation_name in (
    ("add", "add"),
    ("sub", "sub"),
    ("mul", "mul"),
    ("and", "bitwise_and"),
    ("or", "bitwise_or"),
    ("xor", "bitwise_xor"),
    ("lshift", "left_shift"),
    ("rshift", "right_shift"),
):
    _define("__{}__".format(_name), _operation_name)
    _define("__r{}__".format(_name), _operation_name, True)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _define("__{}__".format(_name), _name)
for _name in ("div", "truediv"):
    _define("__{}__".format(_name), "div")
    _define("__r{}__".format(_name), "number_over", True)


def _power_operator(self, exponent, reflected=False):
    name = "array_power" if self._session.arrays is NUMPY else "pow"
    return _perform(self._session, name, (exponent, self) if reflected else (self, exponent))


Symbol.__pow__ = _power_operator
Symbol.__rpow__ = lambda self, base: _power_operator(self, base, True)
Symbol.__neg__ = lambda self: _perform(self._session, "neg", (self,))
Symbol.__pos__ = lambda self: self
Symbol.__abs__ = lambda self: _perform(self._session, "abs", (self,))
Symbol.__invert__ = lambda self: _perform(self._session, "bitwise_not", (self,))


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
_refuse("floordiv rfloordiv mod rmod divmod rdivmod", "// and % are unknown to the compiler")
_refuse("matmul rmatmul", "@ is a reduction")
_refuse("enter exit call", "it does to its operands what isn't arithmetic")
_refuse("copy deepcopy reduce_ex reduce", "it copies its operands (copy)")

# ---------------------------------------------------------------- PyTorch's and NumPy's functions


def _torch_functions():
    """PyTorch's functions and what operation each is."""
    found = {}
    if torch is None:
        return found
    functional = torch.nn.functional
    for name in OPERATIONS:
        if name in ("where_method", "number_over", "array_power", "numpy_sign", "copy", "to", "type", "bool", "float"):
            continue
        # Of the functional module only what is its own: 0.3's has operator.mul in it.
        for module in (torch, functional) if name in ("relu", "sigmoid", "tanh", "leaky_relu") else (torch,):
            function = getattr(module, name, None)
            if callable(function) and not isinstance(function, type):
                found[function] = name
    return found


# Looked up in vars(np): getattr() also finds names, such as "float", that NumPy warns about.
_UFUNCS = {
    vars(np)[name]: name for name in OPERATIONS if isinstance(vars(np).get(name), np.ufunc) and name not in ("sign",)
}
_UFUNCS[np.sign] = "numpy_sign"
_NUMPY_FUNCTIONS = {
    vars(np)[name]: name
    for name in "where clip zeros_like ones_like full_like round around copy fix".split()
    if name in vars(np) and not isinstance(vars(np)[name], np.ufunc)
}
_TORCH_FUNCTIONS = _torch_functions()


def _session_of(values):
    for value in values:
        if type(value) is Symbol:
            return value._session
        if isinstance(value, (list, tuple)):
            session = _session_of(value)
            if session is not None:
                return session
    return None


def _call_torch(function, args, kwargs):
    session = _session_of(list(args) + list(kwargs.values()))
    name = _TORCH_FUNCTIONS.get(function)
    if session.arrays is NUMPY:
        session.fail("it calls torch for NumPy arrays")
    if name is None:
        for value in list(args) + list(kwargs.values()):
            if type(value) is not Symbol and arrays_of(value) is not None:
                session.lift(value)
        short = getattr(function, "__name__", str(function))
        reason = _unknown(short)
        session.fail("torch." + reason if reason.startswith(short) else reason)
    return _perform(session, name, args, kwargs)


def _call_numpy(function, session, args, kwargs):
    name = _NUMPY_FUNCTIONS.get(function)
    if name is None:
        reason = _unknown(getattr(function, "__name__", str(function)))
        session.fail("np." + reason if reason[0] != "i" else reason)
    return _perform(session, name, args, kwargs)


def _dispatches(function):
    """Whether a function of PyTorch or NumPy lets a symbol say what it does."""
    symbol = _Session("float32", TORCH or NUMPY).symbol(ex.operand("w", "float32"))
    try:
        return type(function(symbol)) is Symbol
    except Exception:
        return False


#: Where either doesn't (before torch 1.7 and NumPy 1.17), functions are given stand-ins for both.
NEEDS_STAND_INS = not _dispatches(np.zeros_like) or torch is not None and not _dispatches(torch.abs)

# ---------------------------------------------------------------- stand-ins


class _StandIn(object):
    """A module, whose functions a symbol can be given to."""

    def __init__(self, module):
        self.__module = module

    def __getattr__(self, name):
        return _stand_in(getattr(self.__module, name))


def _is_theirs(name):
    return (name or "").split(".")[0] in ("torch", "numpy")


def _stand_in(value):
    """What a function gets to see for a module or function of PyTorch's or NumPy's; anything else is itself."""
    if isinstance(value, types.ModuleType):
        return _StandIn(value) if _is_theirs(value.__name__) else value
    if isinstance(value, (type, np.ufunc)) or not callable(value) or isinstance(value, types.MethodType):
        return value
    try:
        known = value in _TORCH_FUNCTIONS or value in _NUMPY_FUNCTIONS
    except TypeError:
        return value
    if not known and not _is_theirs(getattr(value, "__module__", None)) and not _is_builtin_of_torch(value):
        return value

    @functools.wraps(value, assigned=())
    def call(*args, **kwargs):
        session = _session_of(list(args) + list(kwargs.values()))
        if session is None:
            return value(*args, **kwargs)
        if value in _NUMPY_FUNCTIONS or (getattr(value, "__module__", None) or "").startswith("numpy"):
            return _call_numpy(value, session, args, kwargs)
        return _call_torch(value, args, kwargs)

    return call


def _is_builtin_of_torch(value):
    # Those of old versions name no module.
    if torch is None or not isinstance(value, types.BuiltinFunctionType):
        return False
    name = getattr(value, "__name__", "")
    return getattr(torch, name, None) is value


def _plain(value):
    """Whether this is a Python function of the user's."""
    return isinstance(value, types.FunctionType) and not _is_theirs(value.__module__)


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


def _callable_with_symbols(function):
    return _substituted(function, {}) if NEEDS_STAND_INS else function


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
    closure = None
    if value.__closure__:
        # One that refers to itself through a cell can't be made before its cell.
        memo[value] = value
        for cell, content in _cells(value):
            changed = _substituted(content, memo)
            cells.append(cell if changed is content else _cell(changed))
        closure = tuple(cells)
    copy = types.FunctionType(value.__code__, scope, value.__name__, value.__defaults__, closure)
    copy.__kwdefaults__ = getattr(value, "__kwdefaults__", None)
    memo[value] = copy
    for name in _names(value.__code__):
        if name in scope:
            scope[name] = _substituted(scope[name], memo)
    return copy


def _cell(value):
    return (lambda: value).__closure__[0]


def _check_code(function):
    """Refuse functions that treat tensors by their type: a symbol has none of theirs."""
    seen, waiting = set(), [getattr(function, "__func__", function)]
    while waiting:
        here = waiting.pop()
        if not _plain(here) or here in seen:
            continue
        seen.add(here)
        names = _names(here.__code__)
        for name in ("isinstance", "issubclass", "is_tensor"):
            if name in names:
                raise Untraceable("it looks at the type of its operands ({})".format(name))
        scope = here.__globals__
        waiting.extend(getattr(scope[name], "__func__", scope[name]) for name in names if name in scope)
        waiting.extend(content for _, content in _cells(here))
