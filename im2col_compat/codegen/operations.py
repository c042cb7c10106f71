"""What may be done to operands, by name: what the records of functions describe, and what needs more than they say.

An operation is called with the session that traces and with the arguments as the user gave them, and returns a node.
"""

import ast
import numbers
import platform
import warnings

import numpy as np

from im2col_compat.codegen import expression as ex
from im2col_compat.codegen import functions as fn
from im2col_compat.compat import dtypes
from im2col_compat.compat.probes import torch

#: 0.3 rounds halves away from zero.
ROUNDS_TO_EVEN = torch is None or float(torch.round(torch.FloatTensor([2.5]))[0]) == 2


def _floors():
    # Before 1.13 PyTorch's floor_divide truncated; before 1.20 NumPy's quotient by 0 was NaN.
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's tells that it truncates
        numpy = np.floor_divide(np.ones(1), 0)[0] == float("inf")
        try:
            return numpy, bool(torch.floor_divide(-torch.ones(1), 2)[0] == -1)
        except Exception:
            return numpy, False


#: Whether NumPy's floor_divide is today's, and whether PyTorch's is.
NUMPY_FLOORS, TORCH_FLOORS = _floors()

#: name -> function(session, *arguments) that returns a node.
OPERATIONS = {}
#: The names that are methods' only, not PyTorch's functions'; the names of functions in torch.nn.functional.
METHODS, FUNCTIONAL = set(), {"gelu"}


def operation(names, methods=False):
    def register(function):
        OPERATIONS.update(dict.fromkeys(names.split(), function))
        METHODS.update(names.split() if methods else ())
        return function

    return register


# ---------------------------------------------------------------- operands
def _any(session, values, what):
    return session.together(values, what)


def _unless(refused, reason, nodes_of=_any):
    """What gives the nodes of operands, unless their dtype is refused for a reason."""

    def checked(session, values, what):
        nodes = nodes_of(session, values, what)
        if refused(nodes[0].dtype):
            session.fail(reason.format(what))
        return nodes

    return checked


def _is_bool(dtype):
    return dtype == "bool"


_numbers = _unless(_is_bool, "{} of bools is not arithmetic that the compiler knows")
_floats = _unless(lambda dtype: not ex.is_float(dtype), "{}() makes floats of integers", _numbers)
_ordered = _unless(_is_bool, "bools are compared by size")


def _without_masks(session, values, what):
    if any(session.is_symbol(value) and session.lift(value).dtype == "bool" for value in values):
        session.fail("{} with bools is not arithmetic that the compiler knows".format(what))
    return _numbers(session, values, what)


def _compared(session, values, what):
    for one, number in (values, values[::-1]):
        # mask == 0 is an idiom; a mask and a larger number are not.
        if session.is_symbol(one) and session.lift(one).dtype == "bool":
            if isinstance(number, numbers.Number) and number in (0, 1):
                return [session.lift(one), ex.constant(bool(number), "bool")]
    return session.together(values, what)


def _divided(session, values, what):
    nodes = _numbers(session, values, what)
    if not ex.is_float(nodes[0].dtype) and (not ex.is_constant(nodes[1]) or nodes[1].value == 0):
        session.fail("{} of integers is compiled for a constant divisor alone, which isn't 0".format(what))
    return nodes


def _bits(session, values, what):
    nodes = [session.lift(value) for value in values]
    if len({node.dtype for node in nodes}) > 1:
        nodes = session.together(values, what) if all(map(session.is_symbol, values)) else nodes
    if len({node.dtype for node in nodes}) > 1:
        session.fail("{} of bools and numbers is unknown to the compiler".format(what))
    if ex.is_float(nodes[0].dtype):
        session.fail("{} of floats isn't defined".format(what))
    return nodes


#: What operands a function is defined for -> function(session, values, what) that returns the nodes.
KINDS = {
    "floats": _floats, "numbers": _numbers, "any": _any, "no masks": _without_masks, "ordered": _ordered,
    "compared": _compared, "divided": _divided, "bits": _bits,
    "shifted": _unless(_is_bool, "a shift of bools is unknown to the compiler", _bits),
    "truth": lambda session, values, what: [ex.convert(session.lift(value), "bool") for value in values]}  # fmt: skip


def _argument(text):
    """(name, default or None, whether nothing but the default will do) of an argument in a record."""
    name, equals, default = text.partition("=")
    return name, ast.literal_eval(default.lstrip("=")) if equals else None, default.startswith("=")


def _of(function):
    """The operation that a record describes."""
    arguments = [_argument(text) for text in function.takes.split()]
    names, what = [name for name, _, _ in arguments], (function.names + function.functional)[0]

    def perform(session, *args, **kwargs):
        given = dict(zip(names, args), **kwargs)
        if len(given) < len(args) + len(kwargs) or set(given) - set(names):
            raise TypeError("too many arguments")
        rule = function.numpy if session.numpy else function
        values = [given[name] for name, default, _ in arguments if default is None]
        nodes = KINDS[function.kind](session, values, what)
        for name, default, fixed in arguments:
            value = given.get(name, default)
            if fixed and (session.is_symbol(value) or value != default):
                change = "it changes a tensor in place ({})".format(what)
                session.fail(change if name == "inplace" else "{}= is unknown to the compiler".format(name))
            if default is not None and not fixed:
                if session.is_symbol(value):
                    session.fail("{}() takes a number for {}".format(what, name))
                nodes.append(session.lift(value, nodes[0].dtype))
        return rule(*nodes)

    return perform


for _function in ex.FUNCTIONS:
    for _name in _function.names + _function.functional:
        operation(_name)(_of(_function))
    FUNCTIONAL.update(_function.functional)


# ---------------------------------------------------------------- what a record doesn't say
@operation("div divide true_divide")
def _div(session, input, other, rounding_mode=None):
    if rounding_mode is not None:
        rounded = {"floor": fn.floor_quotient, "trunc": fn.trunc_quotient}[rounding_mode]
        return rounded(*_divided(session, [input, other], "division"))
    a, b = _numbers(session, [input, other], "division")
    if not ex.is_float(a.dtype):
        session.fail("division makes floats of integers")
    return a / b


@operation("number_over", methods=True)
def _number_over(session, input, other):
    """number / symbol."""
    if session.numpy or session.is_symbol(input):
        return _div(session, input, other)
    # PyTorch multiplies with the reciprocal.
    number, node = _floats(session, [input, other], "division")
    return fn.reciprocal(node) * number


@operation("array_power", methods=True)
def _array_power(session, input, exponent):
    """input ** exponent: for arrays NumPy computes it otherwise than np.power."""
    base, power = _numbers(session, [input, exponent], "pow")
    if session.numpy and not session.is_symbol(exponent) and ex.is_float(base.dtype) and power.value == 0.5:
        return fn.sqrt(base)
    return (fn.numpy_power if session.numpy else fn.power)(base, power)


@operation("floor_divide")
def _floor_divide(session, input, other):
    nodes = _divided(session, [input, other], "//")
    if not (NUMPY_FLOORS or not ex.is_float(nodes[0].dtype) if session.numpy else TORCH_FLOORS):
        session.fail("// is another function in this version of PyTorch or NumPy")
    return fn.floor_divide(*nodes)


@operation("round rint around")
def _round(session, input, decimals=0):
    if decimals != 0:
        session.fail("round() to decimals is unknown to the compiler")
    if not session.numpy and not ROUNDS_TO_EVEN:
        session.fail("round() is another function in this version of PyTorch")
    return fn.rounded(*_floats(session, [input], "round"))


@operation("copy", methods=True)
@operation("positive clone contiguous")
def _same(session, input):
    return session.lift(input)


@operation("detach")
def _detach(session, input):
    node = session.lift(input)
    return fn.detached(node) if ex.is_float(node.dtype) else node


@operation("gelu")
def _gelu(session, input, approximate="none"):
    return {"none": fn.gelu, "tanh": fn.gelu_tanh}[approximate](*_floats(session, [input], "gelu"))


@operation("clamp clip")
def _clamp(session, input, min=None, max=None, a_min=None, a_max=None):
    bounds = [a_min if min is None else min, a_max if max is None else max]
    given = [bound for bound in bounds if bound is not None]
    nodes = _numbers(session, [input] + given, "clamp")
    if not given or len(given) == 2 and not all(map(ex.is_constant, nodes[1:])):
        session.fail("clamp() takes one bound, or two numbers")
    if any(ex.is_constant(bound) and bound.value != bound.value for bound in nodes[1:]):
        session.fail("clamp() has a NaN for a bound")
    return (fn.clamp if len(given) == 2 else fn.clamp_max if bounds[0] is None else fn.clamp_min)(*nodes)


operation("clamp_min")(lambda session, input, min: _clamp(session, input, min))
operation("clamp_max")(lambda session, input, max: _clamp(session, input, None, max))


def _extremum(function):
    @operation(function.name)
    def perform(session, input, other=None):
        if not session.is_symbol(other):
            session.fail("{}() of one tensor is a reduction".format(function.name))
        return function(*_numbers(session, [input, other], function.name))


_extremum(fn.minimum)
_extremum(fn.maximum)


@operation("where")
def _where(session, condition, *values):
    if len(values) != 2:
        session.fail("where() without values looks at the shape")
    node = session.lift(condition)
    if node.dtype != "bool":
        session.fail("where() needs a condition of bools")
    if not any(map(session.is_symbol, values)):
        session.fail("where() of two numbers has a dtype of its own")
    return ex.select(node, *session.together(values, "where"))


@operation("where_method", methods=True)
def _where_method(session, input, condition, other):
    return _where(session, condition, input, other)


@operation("masked_fill")
def _masked_fill(session, input, mask, value):
    condition = session.lift(mask)
    if condition.dtype != "bool" or session.is_symbol(value):
        session.fail("masked_fill() needs a mask of bools and a number")
    return ex.select(condition, *_numbers(session, [value, input], "masked_fill"))


@operation("full_like")
def _full_like(session, input, fill_value, dtype=None):
    node = session.lift(input)
    if node.dtype == "bool":
        session.fail("it makes constant bools")
    if dtype is not None and dtype_name(dtype) != node.dtype:
        session.fail("it makes a constant of another dtype, {}".format(dtype))
    return session.lift(fill_value, node.dtype)


operation("zeros_like")(lambda session, input, dtype=None: _full_like(session, input, 0, dtype))
operation("ones_like")(lambda session, input, dtype=None: _full_like(session, input, 1, dtype))


# ---------------------------------------------------------------- dtypes
def dtype_name(dtype):
    """The name of a dtype, in any form in which PyTorch or NumPy take one; None of anything else."""
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
    # What a float gives that its integer can't hold: PyTorch's is x86's for 32 and 64 bits, and varies for 8 and 16.
    whole = name != "bool" and not ex.is_float(name) and ex.is_float(node.dtype)
    exact = name in ("int32", "int64") and platform.machine() in ("x86_64", "AMD64") if whole else name in ex.C_TYPES
    if name != "bool" and not exact:
        session.fail("it changes the dtype from {} to {}".format(node.dtype, name))
    return ex.convert(node, name)


@operation("to type astype", methods=True)
def _to(session, input, dtype):
    name = session.lift(dtype).dtype if session.is_symbol(dtype) else dtype_name(dtype)
    if name is None:
        session.fail("it moves or converts a tensor to {!r}".format(dtype))
    return _cast(session, session.lift(input), name)


@operation("type_as", methods=True)
def _type_as(session, input, other):
    return _cast(session, session.lift(input), session.lift(other).dtype)


def _casting(name, dtype):
    operation(name, methods=True)(lambda session, input: _cast(session, session.lift(input), dtype))


for _name, _dtype in (
    ("float", "float32"), ("double", "float64"), ("char", "int8"), ("byte", "uint8"), ("short", "int16"),
    ("int", "int32"), ("long", "int64"), ("bool", "bool"),
):  # fmt: skip
    _casting(_name, _dtype)
