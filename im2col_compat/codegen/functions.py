"""The scalar functions: one record each. Conventions of derivatives (ties, corners, infinities) are PyTorch's.

A new one is one record here: tests/test_functions.py asks for an entry, and nothing else has to change.
"""

import math

import numpy as np

from im2col_compat.codegen.expression import (
    ANYTHING, CALLED, INLINED, Function, Range, Untraceable, absolute, both, constant, either, eq, exclusive, ge, gt,
    is_constant, is_float, le, lt, ne, negation, passes, select, stops, width)  # fmt: skip
from im2col_compat.compat.probes import CLAMP_GRADIENTS


def _one(a):
    return constant(1, a.dtype)


def _positive(y, a):
    return Range(True, False, a.nan, True)


def _bounded(y, *of):
    return Range(False, False, any(each.nan for each in of))


def _periodic(y, a):
    return Range(False, False, a.nan or a.up or a.down)


def _as_operands(y, *of):
    return Range(any(each.up for each in of), any(each.down for each in of), any(each.nan for each in of))


# ---------------------------------------------------------------- exponentials and the like
def _library(name, derivative, **facts):
    """A function of the C library, inlined on CPUs."""
    return Function(name, c=name, calls=INLINED, derivative=derivative, **facts)


#: Where sine and cosine are inlined.
_NEAR = {"float32": 8192, "float64": 1048576}
#: Logarithms of all finite numbers but 0 are between these.
_LOGARITHMS = (-1100, 1100)
exp = _library(
    "exp", lambda y, a: y, range=_positive, value=np.exp,
    below="exp_below", between=lambda a: (0, math.exp(a[1]) if a[1] < 700 else float("inf")))  # fmt: skip
log = _library("log", lambda y, a: 1 / a, value=np.log, between=_LOGARITHMS)
log2 = _library("log2", lambda y, a: 1 / (a * math.log(2)), between=_LOGARITHMS)
exp2 = _library("exp2", lambda y, a: y * math.log(2), range=_positive)
log1p = _library("log1p", lambda y, a: 1 / (a + 1), between=_LOGARITHMS)
expm1 = _library("expm1", lambda y, a: y + 1, range=lambda y, a: Range(True, False, a.nan))
tanh = _library("tanh", lambda y, a: 1 - y * y, range=_bounded, between=(-1, 1))
erf = _library("erf", lambda y, a: 2 / math.sqrt(math.pi) * exp(-(a * a)), range=_bounded, between=(-1, 1))
sin = _library("sin", lambda y, a: cos(a), range=_periodic, near=_NEAR, between=(-1, 1))
cos = _library("cos", lambda y, a: -sin(a), range=_periodic, near=_NEAR, between=(-1, 1))
sigmoid = _library(
    "sigmoid", lambda y, a: (1 - y) * y, names="sigmoid expit", functional="sigmoid", between=(0, 1),
    range=lambda y, a: Range(False, False, a.nan, True), value=lambda a: 1 / (1 + np.exp(-a)))  # fmt: skip
sqrt = Function(
    "sqrt", value=np.sqrt, c="sqrt", derivative=lambda y, a: 1 / (2 * y), between=lambda a: (0, max(a[1], 0) ** 0.5),
    range=lambda y, a: Range(a.up, False, a.nan) if a.never_negative else ANYTHING)  # fmt: skip
rsqrt = Function("rsqrt", lower=lambda a: 1 / sqrt(a), derivative=lambda y, a: -0.5 * power(y, 3))
reciprocal = Function(
    "reciprocal", lower=lambda a: 1 / a, derivative=lambda y, a: -(y * y), range=lambda y, a: Range(True, True, a.nan)
)


#: The greatest power that is computed by products.
MOST_MULTIPLIED = 64


def _power_by(y, base, exponent):
    if is_constant(exponent, 0):
        return 0
    if is_constant(exponent, 1):
        return 1
    lowered = exponent * (base if is_constant(exponent, 2) else y.function(base, exponent - 1))
    return lowered if is_constant(exponent) else stops(eq(exponent, 0), lowered)


def _power_by_exponent(y, base, exponent):
    return select(both(eq(base, 0), ge(exponent, 0)), constant(0, base.dtype), y * log(base))


def _power(base, exponent, numpy=False):
    """What a power is without pow(), None where it isn't. NumPy computes fewer powers so than PyTorch does."""
    if not is_constant(exponent):
        return None
    square = base * base
    plain = {0: _one(base), 1: base, 2: square, -1: 1 / base}
    if not numpy:
        # Not -3 and -4: the reciprocal of a power overflows before a negative power vanishes.
        plain.update({3: square * base, 4: square * square, -2: 1 / square, 0.5: sqrt(base), -0.5: 1 / sqrt(base)})
    if exponent.value in plain:
        return plain[exponent.value]
    twice = exponent.value * 2
    if not 2 < twice <= 2 * MOST_MULTIPLIED or twice % 1:
        return None
    # A call of pow() takes as long as dozens of products.
    found = _whole_power(base, int(twice // 2))
    # Of minus infinity the root is NaN, but not the power.
    infinite = eq(base, -float("inf"))
    return select(infinite, constant(float("inf"), base.dtype), found * sqrt(base)) if twice % 2 else found


def _whole_power(base, exponent):
    if exponent == 1:
        return base
    half = _whole_power(base, exponent // 2)
    return half * half * base if exponent % 2 else half * half


def _power_range(y, base, exponent):
    known = is_constant(y.args[1]) and y.args[1].value
    if known in (-1, -2) or known in range(1, MOST_MULTIPLIED + 1):
        return Range(True, True, base.nan, known > 0 and known % 2 == 0)
    return ANYTHING


def _of_integers(base, exponent):
    if is_float(base.dtype):
        return None
    if not is_constant(exponent) or not 0 <= exponent.value <= 4:
        raise Untraceable("integers to this power are unknown to the compiler")
    result = base if exponent.value else _one(base)
    for _ in range(exponent.value - 1):
        result = result * base
    return result


def _pow(name, **facts):
    return Function(
        name, "input exponent", "numbers", c="pow", calls=INLINED, rewrite=_of_integers, range=_power_range,
        derivative=(_power_by, _power_by_exponent), **facts)  # fmt: skip


numpy_power = _pow("numpy_pow", names=None, lower=lambda base, exponent: _power(base, exponent, True))
power = _pow("pow", names="pow power", lower=_power, numpy=numpy_power)
square = Function("square", kind="numbers", rewrite=lambda a: power(a, 2) if is_float(a.dtype) else a * a)

# ---------------------------------------------------------------- rounding
def _rounding(name, value, c, names=""):
    return Function(
        name, names=names, value=value, c=c, derivative=0, range=_as_operands, between=lambda a: (a[0] - 1, a[1] + 1)
    )


floor = _rounding("floor", np.floor, "floor")
ceil = _rounding("ceil", np.ceil, "ceil")
trunc = _rounding("trunc", np.trunc, "trunc", "trunc fix")
rounded = _rounding("round", np.rint, "rint", None)
detached = Function("detach", names=None, lower=lambda a: a, derivative=(), range=_as_operands)
frac = Function("frac", lower=lambda a: a - trunc(a), derivative=1)

# ---------------------------------------------------------------- division with a remainder
# Of integers by a constant that isn't 0: C's own division traps at 0, and where the least integer is divided by -1.

c_quotient = Function("quotient", names=None, c="({} / {})")
c_rest = Function("rest", names=None, c="({} % {})")


def _fmod_of_integers(a, b):
    if is_float(a.dtype):
        return None
    return constant(0, a.dtype) if b.value in (1, -1) else c_rest(a, b)


def _is_opposite(rest, b):
    """Whether the rest of a truncated quotient, unless it is 0, has another sign than the divisor."""
    return exclusive(lt(b, 0), lt(rest, 0)) if is_float(b.dtype) else (lt if b.value > 0 else gt)(rest, 0)


def _remainder(a, b, numpy=False):
    rest = fmod(a, b)
    moved = select(_is_opposite(rest, b), rest + b, rest)
    if not is_float(a.dtype):
        return moved
    # NumPy gives a remainder of 0 the divisor's sign.
    return select(ne(rest, 0), moved, copysign(constant(0, a.dtype), b) if numpy else rest)


def _floor_of_quotient(a, b):
    if not is_float(a.dtype):
        quotient = _trunc_of_quotient(a, b)
        return quotient if b.value in (1, -1) else select(_is_opposite(c_rest(a, b), b), quotient - 1, quotient)
    rest = fmod(a, b)
    near = (a - rest) / b
    near = select(both(ne(rest, 0), _is_opposite(rest, b)), near - 1, near)
    low = floor(near)
    low = select(gt(near - low, 0.5), low + 1, low)
    return select(eq(b, 0), a / b, select(ne(near, 0), low, copysign(constant(0, a.dtype), a / b)))


def _trunc_of_quotient(a, b):
    if is_float(a.dtype):
        return trunc(a / b)
    return {1: a, -1: -a}[b.value] if b.value in (1, -1) else c_quotient(a, b)


def _division(name, lower, derivative=(), names=None, **facts):
    return Function(name, "input other", "divided", names, lower=lower, derivative=derivative, **facts)


fmod = _division("fmod", _fmod_of_integers, (1, lambda y, a, b: -trunc_quotient(a, b)), "fmod", c="fmod", calls=CALLED)
_by_remainder = (1, lambda y, a, b: -floor_quotient(a, b))
numpy_remainder = _division("numpy_remainder", lambda a, b: _remainder(a, b, True), _by_remainder)
remainder = _division("remainder", _remainder, _by_remainder, "remainder mod", python="mod", numpy=numpy_remainder)
floor_quotient = _division("floor_quotient", _floor_of_quotient, (0, 0))
#: // has no derivative in PyTorch, where div(rounding_mode="floor") has one.
floor_divide = _division("floor_divide", _floor_of_quotient, None, "floor_divide", python="floordiv")
trunc_quotient = _division("trunc_quotient", _trunc_of_quotient, (0, 0))


# ---------------------------------------------------------------- of two numbers or more
def _extremum(name, better, worse, value, range):
    """The lesser or the greater of two numbers; NaN if either is."""

    def lower(a, b):
        for chosen, other in ((a, b), (b, a)):
            # One comparison will do where one side isn't NaN.
            if not is_float(a.dtype) or is_constant(chosen) and chosen.value == chosen.value:
                return select(better(chosen, other), chosen, other)
        return select(either(better(a, b), ne(a, a)), a, b)

    def share(a, b):
        return select(eq(a, b), constant(0.5, a.dtype), _one(a))

    return Function(
        name, "input other", "numbers", name + "imum", value=value, lower=lower, range=range,
        derivative=(lambda y, a, b: stops(worse(a, b), share(a, b)), lambda y, a, b: stops(better(a, b), share(a, b))),
    )  # fmt: skip


def _minimum_range(y, a, b):
    return _as_operands(y, a, b)._replace(never_negative=a.never_negative and b.never_negative)


minimum = _extremum("min", lt, gt, np.minimum, _minimum_range)
maximum = _extremum("max", gt, lt, np.maximum, _as_operands)


def _where(condition):
    """A derivative that is 1 where a condition of the operands holds, and 0 elsewhere."""
    return lambda y, a, *others: passes(condition(a, *others), _one(a))


def _clamping(name, lower, *derivative):
    return Function(name, names=None, lower=lower, derivative=derivative, range=_as_operands)


def _at_bound(kind, i, reached, passed, extremum=None):
    """The derivative by what is clamped (i = 0), or by a bound (1): 1 where a bound is passed, and what the installed
    PyTorch has where it is reached. If that is a share, it is an extremum's derivative."""

    def derivative(y, a, *bounds):
        share = CLAMP_GRADIENTS.get(kind if all(map(is_constant, bounds)) else kind + " tensor", (1, 0))[i]
        if share not in (0, 1):
            return extremum.derivative[i](y, a, *bounds)
        return passes((reached if share else passed)(a, *bounds), _one(a))

    return derivative


clamp_min = _clamping(
    "clamp_min", lambda a, low: maximum(low, a),
    _at_bound("min", 0, ge, gt, maximum), _at_bound("min", 1, le, lt, maximum))  # fmt: skip
clamp_max = _clamping(
    "clamp_max", lambda a, high: minimum(high, a),
    _at_bound("max", 0, le, lt, minimum), _at_bound("max", 1, ge, gt, minimum))  # fmt: skip
#: a, but at least low, and then at most high.
clamp = _clamping(
    "clamp", lambda a, low, high: minimum(high, maximum(low, a)),
    _at_bound(
        "both", 0, lambda a, low, high: both(ge(a, low), le(a, high)),
        lambda a, low, high: both(gt(a, low), lt(a, high)),
    ), None, None)  # fmt: skip
copysign = Function(
    "copysign", "input other", c="copysign", free=True,
    derivative=(lambda y, a, b: select(eq(a, 0), constant(0, a.dtype), y / a), 0),
    range=lambda y, a, b: Range(a.up or a.down, a.up or a.down, a.nan))  # fmt: skip


def _over_squares(a, b):
    squares = a * a + b * b
    return select(eq(squares, 0), constant(0, a.dtype), 1 / squares)


atan2 = _library(
    "atan2", (lambda y, a, b: b * _over_squares(a, b), lambda y, a, b: -a * _over_squares(a, b)),
    takes="input other", names="atan2 arctan2", range=_bounded, between=(-4, 4))  # fmt: skip
hypot = _library("hypot", (lambda y, a, b: a / y, lambda y, a, b: b / y), takes="input other")
logaddexp = Function(
    "logaddexp", "input other",
    lower=lambda a, b: select(
        both(eq(absolute(a), float("inf")), eq(a, b)), a, maximum(a, b) + log1p(exp(-absolute(a - b)))
    ),
    derivative=(lambda y, a, b: 1 / (1 + exp(b - a)), lambda y, a, b: 1 / (1 + exp(a - b))))  # fmt: skip
lerp = Function(
    "lerp", "input end weight",
    lower=lambda a, b, weight: select(lt(absolute(weight), 0.5), a + weight * (b - a), b - (b - a) * (1 - weight)),
    derivative=(lambda y, a, b, weight: 1 - weight, lambda y, a, b, weight: weight, lambda y, a, b, weight: b - a),
)  # fmt: skip
addcmul = Function("addcmul", "input tensor1 tensor2 value=1", rewrite=lambda a, b, c, value: a + value * b * c)
isnan = Function("isnan", rewrite=lambda a: ne(a, a))
isinf = Function("isinf", rewrite=lambda a: eq(absolute(a), float("inf")))
isfinite = Function("isfinite", rewrite=lambda a: lt(absolute(a), float("inf")))


# ---------------------------------------------------------------- activations
def _tanh_of_gelu(a):
    return tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * (a * a * a)))


def _gelu_tanh_by(y, a):
    curve = _tanh_of_gelu(a)
    inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * (a * a))
    return 0.5 * (1 + curve) + 0.5 * a * (1 - curve * curve) * inner


def _gelu_by(y, a):
    return 0.5 * (1 + erf(a * math.sqrt(0.5))) + a * (exp(-0.5 * (a * a)) * (1 / math.sqrt(2 * math.pi)))


def _mish_by(y, a):
    curve = tanh(log1p(exp(a)))
    return curve + a * sigmoid(a) * (1 - curve * curve)


def _hard(a):
    return minimum(maximum(a + 3, constant(0, a.dtype)), constant(6, a.dtype))


def _activation(name, takes="input inplace==False", **facts):
    return Function(name, takes, names=None, functional=name, **facts)


relu = Function(
    "relu", "input inplace==False", "numbers", functional="relu",
    lower=lambda a: select(gt(constant(0, a.dtype), a), constant(0, a.dtype), a),
    derivative=lambda y, a: stops(le(a, 0), _one(a)), range=lambda y, a: Range(a.up, False, a.nan, True))  # fmt: skip
relu6 = Function("relu6", "input inplace==False", functional="relu6", rewrite=lambda a: hardtanh(a, 0, 6))
leaky_relu = _activation(
    "leaky_relu", "input negative_slope=0.01 inplace==False", rewrite=lambda a, slope: select(gt(a, 0), a, a * slope)
)
hardtanh = _activation(
    "hardtanh", "input min_val=-1 max_val=1 inplace==False", lower=lambda a, low, high: minimum(maximum(a, low), high),
    derivative=(_where(lambda a, low, high: both(gt(a, low), lt(a, high))), None, None))  # fmt: skip
hardsigmoid = _activation(
    "hardsigmoid", lower=lambda a: _hard(a) / 6,
    # PyTorch's is a float's sixth for doubles, too.
    derivative=lambda y, a: passes(both(gt(a, -3), lt(a, 3)), constant(np.float32(1.0 / 6), a.dtype)))  # fmt: skip
hardswish = _activation(
    "hardswish", lower=lambda a: a * _hard(a) / 6,
    derivative=lambda y, a: stops(le(a, -3), select(ge(a, 3), _one(a), a / 3 + 0.5)))  # fmt: skip
elu = _activation(
    "elu", "input alpha=1 inplace==False", lower=lambda a, alpha: select(lt(a, 0), expm1(a) * alpha, a),
    derivative=(lambda y, a, alpha: select(gt(a, 0), _one(a), alpha * exp(a)), None))  # fmt: skip
softplus = _activation(
    "softplus", "input beta=1 threshold=20",
    lower=lambda a, beta, most: select(gt(a * beta, most), a, log1p(exp(a * beta)) / beta),
    derivative=(
        lambda y, a, beta, most: select(gt(a * beta, most), _one(a), exp(a * beta) / (exp(a * beta) + 1)), None, None
    ))  # fmt: skip
softsign = _activation("softsign", "input", rewrite=lambda a: a / (absolute(a) + 1))
silu = _activation(
    "silu", lower=lambda a: a / (1 + exp(-a)), derivative=lambda y, a: sigmoid(a) * (1 + a * (1 - sigmoid(a)))
)
mish = _activation("mish", lower=lambda a: a * tanh(log1p(exp(a))), derivative=_mish_by)
gelu = Function("gelu", names=None, lower=lambda a: a * 0.5 * (1 + erf(a * math.sqrt(0.5))), derivative=_gelu_by)
gelu_tanh = Function(
    "gelu_tanh", names=None, lower=lambda a: 0.5 * a * (1 + _tanh_of_gelu(a)), derivative=_gelu_tanh_by)  # fmt: skip


# ---------------------------------------------------------------- bits of integers, and bools
def _bitwise(name, value, sign, of_bools):
    return Function(
        "bit" + name, "input other", "bits", "bitwise_" + name, python=name, value=value, c="({} " + sign + " {})",
        rewrite=lambda a, b: of_bools(a, b) if a.dtype == "bool" else None)  # fmt: skip


bitwise_and = _bitwise("and", np.bitwise_and, "&", both)
bitwise_or = _bitwise("or", np.bitwise_or, "|", either)
bitwise_xor = _bitwise("xor", np.bitwise_xor, "^", exclusive)
invert = Function(
    "invert", "input", "bits", "bitwise_not invert", python="invert", value=np.invert, c="(~{})",
    rewrite=lambda a: negation(a) if a.dtype == "bool" else None)  # fmt: skip
c_left_shift = Function("<<", names=None, c="({} << {})")
c_right_shift = Function(">>", names=None, c="({} >> {})")


def _inside(b):
    inside = lt(b, width(b.dtype))
    return inside if b.dtype.startswith("uint") else both(ge(b, 0), inside)


def _left_shift(a, b):
    return select(_inside(b), c_left_shift(a, bitwise_and(b, width(a.dtype) - 1)), constant(0, a.dtype))


def _right_shift(a, b):
    most = constant(width(a.dtype) - 1, a.dtype)
    if a.dtype.startswith("uint"):
        return select(_inside(b), c_right_shift(a, bitwise_and(b, most)), constant(0, a.dtype))
    return c_right_shift(a, select(_inside(b), b, most))


#: As in PyTorch, a shift by less than 0, or by more bits than there are, is one by all of them.
left_shift = Function(
    "lshift", "input other", "shifted", "bitwise_left_shift left_shift", python="lshift", lower=_left_shift
)
right_shift = Function(
    "rshift", "input other", "shifted", "bitwise_right_shift right_shift", python="rshift", lower=_right_shift
)
