"""The scalar functions: one record each. Conventions of derivatives (ties, corners, infinities) are PyTorch's.

A new one is one record here: tests/test_functions.py asks for an entry, and nothing else has to change.
"""

import math

import numpy as np

from im2col_compat.codegen.expression import (
    ANYTHING, FALSE, NEVER, Function, Range, Untraceable, absolute, both, constant, either, eq, exclusive, ge, gt,
    is_constant, is_float, le, lt, ne, negation, passes, select, stops, width,
)  # fmt: skip


def _one(a):
    return constant(1, a.dtype)


def _bounded(y, *of):
    return Range(False, False, any(each.nan for each in of))


def _as_operand(y, a):
    return Range(a.up, a.down, a.nan)


def _as_operands(y, *of):
    return Range(any(each.up for each in of), any(each.down for each in of), any(each.nan for each in of))


# ---------------------------------------------------------------- exponentials and the like

exp = Function(
    "exp", value=np.exp, c="exp", vectors=(2, 22), derivative=lambda y, a: y,
    range=lambda y, a: Range(True, False, a.nan, True),
)  # fmt: skip
log = Function("log", value=np.log, c="log", vectors=(2, 22), derivative=lambda y, a: 1 / a)
log2 = Function("log2", c="log2", vectors=(2, 35), derivative=lambda y, a: 1 / (a * math.log(2)))
exp2 = Function(
    "exp2", c="exp2", vectors=(2, 35), derivative=lambda y, a: y * math.log(2),
    range=lambda y, a: Range(True, False, a.nan, True),
)  # fmt: skip
log1p = Function("log1p", c="log1p", vectors=(2, 35), derivative=lambda y, a: 1 / (a + 1))
expm1 = Function(
    "expm1", c="expm1", vectors=(2, 35), derivative=lambda y, a: y + 1, range=lambda y, a: Range(True, False, a.nan)
)
tanh = Function("tanh", c="tanh", vectors=(2, 35), derivative=lambda y, a: 1 - y * y, range=_bounded)
erf = Function(
    "erf", c="erf", vectors=(2, 35), derivative=lambda y, a: 2 / math.sqrt(math.pi) * exp(-(a * a)), range=_bounded
)
sin = Function(
    "sin", c="sin", vectors=(2, 22), derivative=lambda y, a: cos(a),
    range=lambda y, a: Range(False, False, a.nan or a.up or a.down),
)  # fmt: skip
cos = Function(
    "cos", c="cos", vectors=(2, 22), derivative=lambda y, a: -sin(a),
    range=lambda y, a: Range(False, False, a.nan or a.up or a.down),
)  # fmt: skip
sigmoid = Function(
    "sigmoid", names="sigmoid expit", functional="sigmoid", lower=lambda a: 1 / (1 + exp(-a)),
    derivative=lambda y, a: (1 - y) * y, range=lambda y, a: Range(False, False, a.nan, True),
)  # fmt: skip
sqrt = Function(
    "sqrt", value=np.sqrt, c="sqrt", derivative=lambda y, a: 1 / (2 * y),
    range=lambda y, a: Range(a.up, False, a.nan) if a.never_negative else ANYTHING,
)  # fmt: skip
rsqrt = Function("rsqrt", lower=lambda a: 1 / sqrt(a), derivative=lambda y, a: -0.5 * power(y, 3))
reciprocal = Function(
    "reciprocal", lower=lambda a: 1 / a, derivative=lambda y, a: -(y * y), range=lambda y, a: Range(True, True, a.nan)
)


def _power_by(y, base, exponent):
    if is_constant(exponent, 0):
        return None
    if is_constant(exponent, 1):
        return 1
    lowered = exponent * (base if is_constant(exponent, 2) else y.function(base, exponent - 1))
    return lowered if is_constant(exponent) else stops(eq(exponent, 0), lowered)


def _power_by_exponent(y, base, exponent):
    raised = y * log(base)
    never = both(eq(base, 0), ge(exponent, 0))
    return raised if never is FALSE else stops(never, raised)


def _power(base, exponent):
    plain = _plain_power(base, exponent)
    if plain is not None or not is_constant(exponent):
        return plain
    # Not -3 and -4: the reciprocal of a power overflows before a negative power vanishes.
    square = base * base
    expanded = {3: lambda: square * base, 4: lambda: square * square, -2: lambda: 1 / square}
    expanded.update({0.5: lambda: sqrt(base), -0.5: lambda: 1 / sqrt(base)})
    return expanded[exponent.value]() if exponent.value in expanded else None


def _plain_power(base, exponent):
    if not is_constant(exponent):
        return None
    plain = {0: lambda: _one(base), 1: lambda: base, 2: lambda: base * base, -1: lambda: 1 / base}
    return plain[exponent.value]() if exponent.value in plain else None


def _power_range(y, base, exponent):
    known = is_constant(y.args[1]) and y.args[1].value
    if known in (1, 2, 3, 4, -1, -2):
        return Range(True, True, base.nan, known in (2, 4))
    return ANYTHING


def _integer_power(a, exponent):
    """a ** exponent of integers, for an exponent from 0 to 4."""
    result = _one(a) if exponent == 0 else a
    for _ in range(exponent - 1):
        result = result * a
    return result


def _of_integers(base, exponent):
    if is_float(base.dtype):
        return None
    if is_constant(exponent) and 0 <= exponent.value <= 4:
        return _integer_power(base, exponent.value)
    raise Untraceable("integers to this power are unknown to the compiler")


def _pow(name, **facts):
    return Function(
        name, "input exponent", "numbers", c="pow", vectors=(2, 22), rewrite=_of_integers, range=_power_range,
        derivative=(_power_by, _power_by_exponent), **facts
    )  # fmt: skip


#: PyTorch doesn't compute the powers 3, 4, 0.5, -0.5 and -2 by pow(), as NumPy does.
numpy_power = _pow("numpy_pow", names=None, lower=_plain_power)
power = _pow("pow", names="pow power", lower=_power, numpy=numpy_power)
square = Function("square", kind="numbers", rewrite=lambda a: power(a, 2) if is_float(a.dtype) else a * a)

# ---------------------------------------------------------------- rounding

floor = Function("floor", value=np.floor, c="floor", derivative=(), range=_as_operand)
ceil = Function("ceil", value=np.ceil, c="ceil", derivative=(), range=_as_operand)
trunc = Function("trunc", names="trunc fix", value=np.trunc, c="trunc", derivative=(), range=_as_operand)
rounded = Function("round", names=None, value=np.rint, c="rint", derivative=(), range=_as_operand)
detached = Function("detach", names=None, lower=lambda a: a, derivative=(), range=_as_operand)
frac = Function("frac", lower=lambda a: a - trunc(a), derivative=1)

# ---------------------------------------------------------------- division with a remainder
# Of integers by a constant that isn't 0: C's own division traps at 0, and where the least integer is divided by -1.

c_quotient = Function("quotient", names=None, c="({} / {})")
c_rest = Function("rest", names=None, c="({} % {})")


def _fmod_of_integers(a, b):
    if is_float(a.dtype):
        return None
    return constant(0, a.dtype) if b.value in (1, -1) else c_rest(a, b)


def _remainder(a, b, numpy=False):
    rest = fmod(a, b)
    if not is_float(a.dtype):
        other = lt if b.value > 0 else gt
        return select(other(rest, 0), rest + b, rest)
    opposite = exclusive(lt(b, 0), lt(rest, 0))
    whole = copysign(constant(0, a.dtype), b) if numpy else rest
    return select(ne(rest, 0), select(opposite, rest + b, rest), whole)


def _floor_of_quotient(a, b):
    if not is_float(a.dtype):
        quotient = _trunc_of_quotient(a, b)
        if b.value in (1, -1):
            return quotient
        rest = c_rest(a, b)
        return select((lt if b.value > 0 else gt)(rest, 0), quotient - 1, quotient)
    rest = fmod(a, b)
    near = (a - rest) / b
    near = select(both(ne(rest, 0), exclusive(lt(b, 0), lt(rest, 0))), near - 1, near)
    low = floor(near)
    low = select(gt(near - low, 0.5), low + 1, low)
    return select(eq(b, 0), a / b, select(ne(near, 0), low, copysign(constant(0, a.dtype), a / b)))


def _trunc_of_quotient(a, b):
    if is_float(a.dtype):
        return trunc(a / b)
    return {1: a, -1: -a}[b.value] if b.value in (1, -1) else c_quotient(a, b)


fmod = Function(
    "fmod", "input other", "divided", c="fmod", vectors=NEVER, lower=_fmod_of_integers,
    derivative=(1, lambda y, a, b: -trunc_quotient(a, b)),
)  # fmt: skip
_by_remainder = (1, lambda y, a, b: -floor_quotient(a, b))
#: NumPy gives a remainder of 0 the divisor's sign.
numpy_remainder = Function(
    "numpy_remainder", "input other", "divided", names=None, lower=lambda a, b: _remainder(a, b, True),
    derivative=_by_remainder,
)  # fmt: skip
remainder = Function(
    "remainder", "input other", "divided", "remainder mod", python="mod", lower=_remainder, derivative=_by_remainder,
    numpy=numpy_remainder,
)  # fmt: skip
floor_quotient = Function(
    "floor_quotient", "input other", "divided", names=None, lower=_floor_of_quotient, derivative=()
)  # fmt: skip
#: // has no derivative in PyTorch, where div(rounding_mode="floor") has one.
floor_divide = Function("floor_divide", "input other", "divided", python="floordiv", lower=_floor_of_quotient)
trunc_quotient = Function(
    "trunc_quotient", "input other", "divided", names=None, lower=_trunc_of_quotient, derivative=()
)  # fmt: skip

# ---------------------------------------------------------------- of two numbers or more


def _extremum(kind):
    def lower(a, b):
        for chosen, other in ((a, b), (b, a)):
            # One comparison will do where one side isn't NaN.
            if not is_float(a.dtype) or is_constant(chosen) and chosen.value == chosen.value:
                return select(kind(chosen, other), chosen, other)
        return select(either(kind(a, b), ne(a, a)), a, b)

    def gradient(a, b):
        return select(eq(a, b), constant(0.5, a.dtype), _one(a))

    contrary = gt if kind is lt else lt
    return lower, (
        lambda y, a, b: stops(contrary(a, b), gradient(a, b)),
        lambda y, a, b: stops(kind(a, b), gradient(a, b)),
    )


_lower, _derivative = _extremum(lt)
#: The lesser; NaN if either is.
minimum = Function(
    "min", "input other", "numbers", "minimum", value=np.minimum, lower=_lower, derivative=_derivative,
    range=lambda y, a, b: _as_operands(y, a, b)._replace(never_negative=a.never_negative and b.never_negative),
)  # fmt: skip
_lower, _derivative = _extremum(gt)
maximum = Function(
    "max", "input other", "numbers", "maximum", value=np.maximum, lower=_lower, derivative=_derivative,
    range=_as_operands,
)  # fmt: skip
#: a, but at least low, and then at most high.
clamp_min = Function(
    "clamp_min", names=None, lower=lambda a, low: maximum(low, a), range=_as_operands,
    derivative=(lambda y, a, low: passes(ge(a, low), _one(a)), lambda y, a, low: passes(lt(a, low), _one(a))),
)  # fmt: skip
clamp_max = Function(
    "clamp_max", names=None, lower=lambda a, high: minimum(high, a), range=_as_operands,
    derivative=(lambda y, a, high: passes(le(a, high), _one(a)), lambda y, a, high: passes(gt(a, high), _one(a))),
)  # fmt: skip
clamp = Function(
    "clamp", names=None, lower=lambda a, low, high: minimum(high, maximum(low, a)), range=_as_operands,
    derivative=(lambda y, a, low, high: passes(both(ge(a, low), le(a, high)), _one(a)), None, None),
)  # fmt: skip
copysign = Function(
    "copysign", "input other", c="copysign", free=True,
    derivative=(lambda y, a, b: stops(eq(a, 0), y / a), None),
    range=lambda y, a, b: Range(a.up or a.down, a.up or a.down, a.nan),
)  # fmt: skip


def _over_squares(a, b):
    squares = a * a + b * b
    return select(eq(squares, 0), constant(0, a.dtype), 1 / squares)


atan2 = Function(
    "atan2", "input other", names="atan2 arctan2", c="atan2", vectors=(2, 35), range=_bounded,
    derivative=(lambda y, a, b: b * _over_squares(a, b), lambda y, a, b: -a * _over_squares(a, b)),
)  # fmt: skip
hypot = Function(
    "hypot", "input other", c="hypot", vectors=(2, 35), derivative=(lambda y, a, b: a / y, lambda y, a, b: b / y)
)  # fmt: skip
logaddexp = Function(
    "logaddexp", "input other",
    lower=lambda a, b: select(
        both(eq(absolute(a), float("inf")), eq(a, b)), a, maximum(a, b) + log1p(exp(-absolute(a - b)))
    ),
    derivative=(lambda y, a, b: 1 / (1 + exp(b - a)), lambda y, a, b: 1 / (1 + exp(a - b))),
)  # fmt: skip
lerp = Function(
    "lerp", "input end weight",
    lower=lambda a, b, weight: select(
        lt(absolute(weight), 0.5), a + weight * (b - a), b - (b - a) * (1 - weight)
    ),
    derivative=(lambda y, a, b, weight: 1 - weight, lambda y, a, b, weight: weight, lambda y, a, b, weight: b - a),
)  # fmt: skip
addcmul = Function("addcmul", "input tensor1 tensor2 value=1", rewrite=lambda a, b, c, value: a + value * b * c)
isnan = Function("isnan", rewrite=lambda a: ne(a, a))
isinf = Function("isinf", rewrite=lambda a: eq(absolute(a), float("inf")))
isfinite = Function("isfinite", rewrite=lambda a: lt(absolute(a), float("inf")))

# ---------------------------------------------------------------- activations


def _softplus(a, beta, threshold):
    scaled = a * beta
    return select(gt(scaled, threshold), a, log1p(exp(scaled)) / beta)


def _softplus_by(y, a, beta, threshold):
    scaled = exp(a * beta)
    return select(gt(a * beta, threshold), _one(a), scaled / (scaled + 1))


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


relu = Function(
    "relu", "input inplace==False", "numbers", functional="relu",
    lower=lambda a: select(gt(constant(0, a.dtype), a), constant(0, a.dtype), a),
    derivative=lambda y, a: stops(le(a, 0), _one(a)), range=lambda y, a: Range(a.up, False, a.nan, True),
)  # fmt: skip
relu6 = Function("relu6", "input inplace==False", functional="relu6", rewrite=lambda a: hardtanh(a, 0, 6))
leaky_relu = Function(
    "leaky_relu", "input negative_slope=0.01 inplace==False", names=None, functional="leaky_relu",
    rewrite=lambda a, slope: select(gt(a, 0), a, a * slope),
)  # fmt: skip
hardtanh = Function(
    "hardtanh", "input min_val=-1 max_val=1 inplace==False", names=None, functional="hardtanh",
    lower=lambda a, low, high: minimum(maximum(a, low), high),
    derivative=(lambda y, a, low, high: passes(both(gt(a, low), lt(a, high)), _one(a)), None, None),
)  # fmt: skip
hardsigmoid = Function(
    "hardsigmoid", "input inplace==False", names=None, functional="hardsigmoid", lower=lambda a: _hard(a) / 6,
    # Of doubles PyTorch's is a float's sixth too.
    derivative=lambda y, a: passes(both(gt(a, -3), lt(a, 3)), constant(np.float32(1.0 / 6), a.dtype)),
)  # fmt: skip
hardswish = Function(
    "hardswish", "input inplace==False", names=None, functional="hardswish", lower=lambda a: a * _hard(a) / 6,
    derivative=lambda y, a: stops(le(a, -3), select(ge(a, 3), _one(a), a / 3 + 0.5)),
)  # fmt: skip
elu = Function(
    "elu", "input alpha=1 inplace==False", names=None, functional="elu",
    lower=lambda a, alpha: select(lt(a, 0), expm1(a) * alpha, a),
    derivative=(lambda y, a, alpha: select(gt(a, 0), _one(a), alpha * exp(a)), None),
)  # fmt: skip
softplus = Function(
    "softplus", "input beta=1 threshold=20", names=None, functional="softplus", lower=_softplus,
    derivative=(_softplus_by, None, None),
)  # fmt: skip
softsign = Function("softsign", names=None, functional="softsign", rewrite=lambda a: a / (absolute(a) + 1))
silu = Function(
    "silu", "input inplace==False", names=None, functional="silu", lower=lambda a: a / (1 + exp(-a)),
    derivative=lambda y, a: sigmoid(a) * (1 + a * (1 - sigmoid(a))),
)  # fmt: skip
mish = Function(
    "mish", "input inplace==False", names=None, functional="mish", lower=lambda a: a * tanh(log1p(exp(a))),
    derivative=_mish_by,
)  # fmt: skip
gelu = Function(
    "gelu", names=None, lower=lambda a: a * 0.5 * (1 + erf(a * math.sqrt(0.5))), derivative=_gelu_by
)  # fmt: skip
gelu_tanh = Function(
    "gelu_tanh", names=None, lower=lambda a: 0.5 * a * (1 + _tanh_of_gelu(a)), derivative=_gelu_tanh_by
)  # fmt: skip

# ---------------------------------------------------------------- bits of integers, and bools


def _of_bools(function):
    return lambda a, b: function(a, b) if a.dtype == "bool" else None


bitwise_and = Function(
    "bitand",
    "input other",
    "bits",
    "bitwise_and",
    python="and",
    value=np.bitwise_and,
    rewrite=_of_bools(both),
    c="({} & {})",
)
bitwise_or = Function(
    "bitor",
    "input other",
    "bits",
    "bitwise_or",
    python="or",
    value=np.bitwise_or,
    rewrite=_of_bools(either),
    c="({} | {})",
)
bitwise_xor = Function(
    "bitxor",
    "input other",
    "bits",
    "bitwise_xor",
    python="xor",
    value=np.bitwise_xor,
    rewrite=_of_bools(exclusive),
    c="({} ^ {})",
)
invert = Function(
    "invert", "input", "bits", "bitwise_not invert", python="invert", value=np.invert, c="(~{})",
    rewrite=lambda a: negation(a) if a.dtype == "bool" else None,
)  # fmt: skip
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


#: By less than 0, or more bits than there are, is by all of them, as in PyTorch.
left_shift = Function(
    "lshift", "input other", "shifted", "bitwise_left_shift left_shift", python="lshift", lower=_left_shift
)
right_shift = Function(
    "rshift", "input other", "shifted", "bitwise_right_shift right_shift", python="rshift", lower=_right_shift
)
