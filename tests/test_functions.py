"""Every scalar function's record: its value, derivatives, NaN and infinities are PyTorch's, and so are its names."""

import ctypes
import itertools
import math
import operator
import os
import random
import subprocess

import numpy as np
import pytest
from helpers import exports, inlined
from helpers.cases import each
from helpers.tensors import VARIABLES, torch

from im2col_compat import Op, linear
from im2col_compat.codegen import compile, functions, print_c, symbols
from im2col_compat.codegen.derive import times
from im2col_compat.codegen.expression import C_TYPES, FUNCTIONS, operand
from im2col_compat.codegen.symbols import Untraceable, trace
from im2col_compat.compat.arrays import NUMPY as ARRAYS
from im2col_compat.compat.memo import Memo

COMPILER = compile.executable("cc") or compile.executable("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


def has_conventions_of_today():
    """Whether PyTorch's derivatives at corners are today's. hardswish's is among the last that changed."""
    if not hasattr(torch, "compile"):
        return False
    corner = torch.tensor([-3.0], requires_grad=True)
    return torch.autograd.grad(torch.nn.functional.hardswish(corner).sum(), corner)[0].item() == 0


TODAY = has_conventions_of_today()
needs_today = pytest.mark.skipif(not TODAY, reason="needs today's torch")
F = None if torch is None else torch.nn.functional

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 2.0, 3.0, -3.0, 6.0, 0.1, 1e-40, -1e-40, 1e30, -1e30, 3e38]
SPECIAL += [float("inf"), -float("inf"), float("nan"), 1e-8, -3.7, 7.0, 20.0, -20.0, 88.0, -88.0, 100.0, -100.0]

#: record -> functions of w and x that use it.
CASES = {
    "add": [operator.add],
    "sub": [operator.sub],
    "mul": [operator.mul],
    "div": [operator.truediv],
    "neg": [lambda w, x: -w],
    "abs": [lambda w, x: abs(w)],
    "sign": [lambda w, x: torch.sign(w)],
    "lt": [lambda w, x: (w < x).to(w.dtype)],
    "le": [lambda w, x: (w <= x).to(w.dtype)],
    "gt": [lambda w, x: (w > x).to(w.dtype)],
    "ge": [lambda w, x: (w >= x).to(w.dtype)],
    "eq": [lambda w, x: (w == x).to(w.dtype)],
    "ne": [lambda w, x: (w != x).to(w.dtype)],
    "and": [lambda w, x: torch.logical_and(w, x).to(w.dtype)],
    "or": [lambda w, x: torch.logical_or(w, x).to(w.dtype)],
    "xor": [lambda w, x: torch.logical_xor(w, x).to(w.dtype)],
    "not": [lambda w, x: torch.logical_not(w).to(w.dtype)],
    "select": [lambda w, x: torch.where(w > x, w, x)],
    "exp": [lambda w, x: torch.exp(w)],
    "exp2": [lambda w, x: torch.exp2(w)],
    "expm1": [lambda w, x: torch.expm1(w)],
    "log": [lambda w, x: torch.log(w)],
    "log2": [lambda w, x: torch.log2(w)],
    "log1p": [lambda w, x: torch.log1p(w)],
    "tanh": [lambda w, x: torch.tanh(w)],
    "erf": [lambda w, x: torch.erf(w)],
    "sin": [lambda w, x: torch.sin(w)],
    "cos": [lambda w, x: torch.cos(w)],
    "sigmoid": [lambda w, x: torch.sigmoid(w)],
    "sqrt": [lambda w, x: torch.sqrt(w)],
    "rsqrt": [lambda w, x: torch.rsqrt(w)],
    "reciprocal": [lambda w, x: torch.reciprocal(w)],
    "pow": [lambda w, x: w**x, lambda w, x: w**3, lambda w, x: w**-0.5],
    "square": [lambda w, x: torch.square(w)],
    "floor": [lambda w, x: torch.floor(w)],
    "ceil": [lambda w, x: torch.ceil(w)],
    "trunc": [lambda w, x: torch.trunc(w)],
    "round": [lambda w, x: torch.round(w)],
    "detach": [lambda w, x: w.detach() * x],
    "frac": [lambda w, x: torch.frac(w)],
    "fmod": [torch and torch.fmod, lambda w, x: torch.fmod(w, 0.3)],
    "remainder": [lambda w, x: w % x, lambda w, x: w % -0.7],
    "floor_divide": [lambda w, x: w.detach() // x.detach() + w, lambda w, x: w.detach() // 0.3],
    "floor_quotient": [lambda w, x: torch.div(w, x, rounding_mode="floor")],
    "trunc_quotient": [lambda w, x: torch.div(w, x, rounding_mode="trunc")],
    "min": [lambda w, x: torch.minimum(w, x)],
    "max": [lambda w, x: torch.maximum(w, x)],
    "clamp_min": [lambda w, x: torch.clamp(w, min=x), lambda w, x: torch.clamp(w, min=0.5)],
    "clamp_max": [lambda w, x: torch.clamp(w, max=x), lambda w, x: torch.clamp(w, max=0.5)],
    "clamp": [lambda w, x: w.clamp(-0.5, 2)],
    "copysign": [lambda w, x: torch.copysign(w, x), lambda w, x: torch.copysign(w, -2.0)],
    "atan2": [lambda w, x: torch.atan2(w, x)],
    "hypot": [lambda w, x: torch.hypot(w, x)],
    "logaddexp": [lambda w, x: torch.logaddexp(w, x)],
    "lerp": [
        lambda w, x: torch.lerp(w, x, 0.3),
        lambda w, x: torch.lerp(w, x, 0.7),
        lambda w, x: torch.lerp(w, x, 1 / (1 + abs(w))),
    ],
    "addcmul": [lambda w, x: torch.addcmul(w, x, w), lambda w, x: torch.addcmul(w, x, x, value=0.3)],
    "isnan": [lambda w, x: torch.isnan(w).to(w.dtype) * x],
    "isinf": [lambda w, x: torch.isinf(w).to(w.dtype) + x],
    "isfinite": [lambda w, x: torch.isfinite(w).to(w.dtype) + x],
    "relu": [lambda w, x: F.relu(w)],
    "relu6": [lambda w, x: F.relu6(w)],
    "leaky_relu": [lambda w, x: F.leaky_relu(w), lambda w, x: F.leaky_relu(w, 0.3)],
    "hardtanh": [lambda w, x: F.hardtanh(w), lambda w, x: F.hardtanh(w, -0.5, 2.5)],
    "hardsigmoid": [lambda w, x: F.hardsigmoid(w)],
    "hardswish": [lambda w, x: F.hardswish(w)],
    "elu": [lambda w, x: F.elu(w), lambda w, x: F.elu(w, 1.7)],
    "softplus": [lambda w, x: F.softplus(w), lambda w, x: F.softplus(w, beta=3, threshold=5)],
    "softsign": [lambda w, x: F.softsign(w)],
    "silu": [lambda w, x: F.silu(w)],
    "mish": [lambda w, x: F.mish(w)],
    "gelu": [lambda w, x: F.gelu(w)],
    "gelu_tanh": [lambda w, x: F.gelu(w, approximate="tanh")],
    "to int32": [lambda w, x: (w * 3).int().to(w.dtype), lambda w, x: (w.int() % 7 - 3).to(w.dtype) * x],
    "to int64": [lambda w, x: (w * 3).long().to(w.dtype) + x, lambda w, x: (w.long() // -3).to(w.dtype) * x],
    "to float32": [lambda w, x: w.float().to(w.dtype) * x],
    "to float64": [lambda w, x: (w.double() * x.double()).to(w.dtype)],
}
#: Records that PyTorch has no function of floats for: NumPy's variants, C's operators, what is of integers alone.
OTHERS = {
    "operand", "constant", "gate", "joined", "numpy_sign", "numpy_pow", "numpy_remainder", "quotient", "rest", "<<",
    ">>", "bitand", "bitor", "bitxor", "invert", "lshift", "rshift",
    "cast to int32", "cast to int64", "to int8", "to uint8", "to int16", "to uint16", "to uint32", "to uint64",
}  # fmt: skip
#: Where a sum cancels, PyTorch's and C's roundings of its parts are told apart.
CANCELS = ("addcmul", "gelu", "gelu_tanh", "lerp", "sigmoid", "tanh")
#: PyTorch itself has zeros of both signs here, depending on the dtype, or on where in a vector an element is.
EITHER_ZERO = ("clamp_max", "clamp_min", "gelu", "lerp")


def kept(name, w, x):
    """Which operands are compared. PyTorch's vectors lose a quotient, or a product, that overflows, and gelu on some
    processors 2 * w: infinities and NaN come of that."""
    finite = np.isfinite(w) & np.isfinite(x)
    if name == "gelu" and w.dtype == np.float32:
        return ~(abs(w) > 1e38) & ~(abs(x) > 1e38)
    with np.errstate(all="ignore"):
        if name in ("fmod", "remainder"):
            parts = [w / x, w / w.dtype.type(0.3), 3 / x]
            return np.all([np.isfinite(part) | ~finite | (x == 0) for part in parts], 0) & (abs(w) < 1e38)
        if name in ("addcmul", "lerp"):
            return np.all([np.isfinite(each * each) | ~np.isfinite(each) for each in (w, x)], 0)
    return np.ones_like(finite)


def test_every_record_has_a_case():
    """A record that a user's function may call is tested by a case of its name."""
    assert {function.name for function in FUNCTIONS} == set(CASES) | OTHERS
    assert not set(CASES) & OTHERS and len({function.name for function in FUNCTIONS}) == len(FUNCTIONS)


def grid(dtype):
    """Every pair of special values, and some random ones."""
    generator = random.Random(0)
    pairs = list(itertools.product(SPECIAL, SPECIAL))
    pairs += [(generator.gauss(0, 3), generator.gauss(0, 3)) for _ in range(300)]
    with np.errstate(all="ignore"):
        w, x = np.array(pairs).astype(dtype).T
    return np.ascontiguousarray(w), np.ascontiguousarray(x)


def compiled(directory, nodes, operands=("w", "x")):
    """A dict of functions of arrays, of a dict of (expression, dtype)s, compiled as one file."""
    texts = [inlined.head()]
    for i, (node, dtype) in enumerate(nodes.values()):
        texts.append(print_c.c_function("f{}".format(i), [(name, dtype) for name in operands], node, dtype))
        texts.append(
            "void loop{0}(const long n, {2}{1} *out) {{ for (long i = 0; i < n; i++) out[i] = f{0}({3}); }}\n".format(
                i, C_TYPES[dtype], "".join("const {} *{}, ".format(C_TYPES[dtype], name) for name in operands),
                ", ".join(name + "[i]" for name in operands)
            )  # fmt: skip
        )
    path = os.path.join(str(directory), "functions")
    with open(path + ".c", "w") as stream:
        stream.write("".join(texts))
    flags = "-O0 -std=gnu99 -fwrapv -fno-math-errno -fno-trapping-math -ffp-contract=off -shared -fPIC".split()
    subprocess.check_call([COMPILER] + flags + ["-o", path + ".so", path + ".c", "-lm"])
    library = ctypes.CDLL(path + ".so")

    def function(i, dtype):
        def call(*arrays):
            out = np.empty_like(arrays[0])
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays + (out,)]
            getattr(library, "loop{}".format(i))(ctypes.c_long(out.size), *pointers)
            return out

        return call

    return {key: function(i, dtype) for i, (key, (_, dtype)) in enumerate(nodes.items())}


@pytest.fixture(scope="module")
def everything(tmpdir_factory):
    """C functions of all cases: (name, index, dtype, "term" or "grad_w" or "grad_x") -> function of two arrays."""
    nodes = {}
    for name, dtype in itertools.product(sorted(CASES), ("float32", "float64")):
        for i, function in enumerate(CASES[name]):
            try:
                traced = trace(Op(function), dtype)
            except (Untraceable, TypeError):
                continue  # the test of this case says why
            for part in ("term", "grad_w", "grad_x"):
                nodes[name, i, dtype, part] = getattr(traced, part), dtype
    return compiled(tmpdir_factory.mktemp("functions"), nodes)


def assert_same(name, found, expected, w, what):
    """Equal but for a few units in the last place; for units of the operands' where a sum cancels."""
    info = np.finfo(w.dtype)
    if name in CANCELS:
        with np.errstate(all="ignore"):
            near = abs(found - expected) <= 8 * float(info.eps) * np.where(abs(w) < 100, 1 + abs(w), 1)
        found = np.where(near, expected, found)
    rtol = 2e-5 if w.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=4 * float(info.tiny), err_msg=what)


@needs_compiler
@needs_today
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_pytorch(everything, name, dtype):
    """Values and derivatives are autograd's, at zeros, ties, infinities, NaN, and on random operands."""
    w, x = grid(dtype)
    keep = kept(name, w, x)
    w, x = w[keep], x[keep]
    for i, function in enumerate(CASES[name]):
        tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in (w, x)]
        result = function(*tensors)
        if (name, i, dtype, "term") not in everything:
            trace(Op(function), dtype)
        value = everything[name, i, dtype, "term"](w, x)
        expected = result.detach().numpy()
        assert_same(name, value, expected, w, "value")
        zeros = (value == 0) & (expected == 0) & (name not in EITHER_ZERO)
        np.testing.assert_array_equal(np.signbit(value[zeros]), np.signbit(expected[zeros]), "signs of zeros")
        gradients = [None, None]
        if result.requires_grad:
            gradients = torch.autograd.grad(result.sum(), tensors, allow_unused=True)
        for part, gradient in zip(("grad_w", "grad_x"), gradients):
            gradient = np.zeros_like(w) if gradient is None else gradient.numpy()
            assert_same(name, everything[name, i, dtype, part](w, x), gradient, w, part)


# ---------------------------------------------------------------- of one another

#: What a record is called with in place of w: where backward has gone through the record, it goes on through one that
#: jumps, has a corner or a pole, or gives NaN.
INNER = {
    "corner": lambda w, x: abs(w - x),
    "product": operator.mul,
    "pole": operator.truediv,
    "root": lambda w, x: torch.sqrt(w - x),
    "jump": lambda w, x: torch.round(w - x),
    "choice": lambda w, x: torch.minimum(w, x),
}
POWERS = (0, 1, 2, 3, 4, 0.5, 1.5, -0.5, -1, -2)
OUTER = dict(CASES, powers=[lambda w, x, power=power: w**power for power in POWERS])
OUTER["pole"] = [lambda w, x: 2 / w, lambda w, x: w / 0.0, lambda w, x: (w > x).to(w.dtype) * w]
CORNERS = [0.0, -0.0, 1.0, -1.0, 0.5, -2.0, 3.0, -3.0, 6.0, float("inf"), -float("inf"), float("nan")]


def composed(outer, inner):
    return lambda w, x: outer(inner(w, x), x)


@pytest.fixture(scope="module")
def of_one_another(tmpdir_factory):
    """C functions of g, w and x: (name, index, inner, "grad_w" or "grad_x", whether operands are finite)."""
    nodes, g = {}, operand("g", "float32")
    for name, inner in itertools.product(sorted(OUTER), sorted(INNER)):
        for i, outer in enumerate(OUTER[name]):
            traced = trace(Op(composed(outer, INNER[inner])), "float32")
            for part, finite in itertools.product(("grad_w", "grad_x"), (False, True)):
                nodes[name, i, inner, part, finite] = times(g, getattr(traced, part), finite), "float32"
    return compiled(tmpdir_factory.mktemp("composed"), nodes, ("g", "w", "x"))


@needs_compiler
@needs_today
@pytest.mark.parametrize("name", sorted(OUTER))
def test_corners(of_one_another, name):
    """Gradients are autograd's for each operand, at zeros, ties, infinities and NaN, on the way back from one function
    through another; and the texts for finite operands give what the exact ones do."""
    operands = list(itertools.product([1.0, -2.0, 0.0], CORNERS, CORNERS))
    # As many as fill vectors: some of PyTorch's functions give another gradient at NaN for what is left over.
    operands += operands[: -len(operands) % 64]
    g, w, x = np.array(operands, np.float32).T.copy()
    finite = np.isfinite(w) & np.isfinite(x)
    for (i, outer), inner in itertools.product(enumerate(OUTER[name]), sorted(INNER)):
        operands = [torch.from_numpy(array.copy()).requires_grad_() for array in (w, x)]
        result = outer(INNER[inner](*operands), operands[1])
        gradients = None, None
        if result.requires_grad:
            gradients = torch.autograd.grad(result, operands, torch.from_numpy(g), allow_unused=True)
        for part, gradient in zip(("grad_w", "grad_x"), gradients):
            expected = np.zeros_like(w) if gradient is None else gradient.numpy()
            for kept, which in ((np.ones_like(finite), False), (finite, True)):
                found = of_one_another[name, i, inner, part, which](g, w, x)[kept]
                # Of 1 - sigmoid, a last bit of 1 is left.
                what = "{} of {}, {}, {}".format(name, inner, part, "finite" if which else "any")
                np.testing.assert_allclose(found, expected[kept], rtol=1e-4, atol=4e-6, err_msg=what)


@needs_today
@needs_compiler
@pytest.mark.parametrize("rows", [15, 16])
def test_corner_of_a_root(rows):
    """What a gradient is depends on no other row, nor on how many there are."""
    x, w = (torch.ones(shape, requires_grad=True) for shape in ((rows, 3), (2, 3)))
    linear(x, w, op=Op(lambda w, x: (w - x).abs().sqrt())).sum().backward()
    assert x.grad.isnan().all() and w.grad.isnan().all()


@needs_today
@needs_compiler
def test_clamp_at_its_bounds(tmpdir, monkeypatch):
    """Clamp's gradient at a bound is the installed version's. It may be nobody's, as that of numbers since 2.15, or be
    shared, as that of tensors."""
    cases = {
        "min": lambda w, x: w.clamp(min=1),
        "max": lambda w, x: w.clamp(max=1),
        "both": lambda w, x: w.clamp(-1, 1),
        "min tensor": lambda w, x: w.clamp(min=x),
        "max tensor": lambda w, x: w.clamp(max=x),
    }
    w = np.array([-3, -1, 0, 1, 3], np.float32)
    x = np.ones_like(w)
    shares = {"as it is": dict(functions.CLAMP_GRADIENTS)}
    shares.update((str(share), dict.fromkeys(cases, share)) for share in itertools.product([0, 1], repeat=2))
    of_numbers = {name: (0, 0) for name in cases if "tensor" not in name}
    shares["2.15"] = dict({"min tensor": (0.5, 0.5), "max tensor": (0.5, 0.5)}, **of_numbers)
    nodes, expected = {}, {}
    for how, name in itertools.product(shares, cases):
        monkeypatch.setattr(functions, "CLAMP_GRADIENTS", shares[how])
        monkeypatch.setattr(symbols, "_derivatives", Memo(9))
        traced = trace(Op(cases[name]), "float32")
        tensors = [torch.from_numpy(array.copy()).requires_grad_() for array in (w, x)]
        gradients = torch.autograd.grad(cases[name](*tensors).sum(), tensors, allow_unused=True)
        for i, part in enumerate(("grad_w", "grad_x")):
            nodes[how, name, part] = getattr(traced, part), "float32"
            gradient = np.zeros_like(w) if gradients[i] is None else gradients[i].numpy()
            if how != "as it is" and not (i == 1 and "tensor" not in name):
                gradient[abs(w) == 1 if name == "both" else w == 1] = shares[how][name][i]
            expected[how, name, part] = gradient
    for key, function in compiled(tmpdir, nodes).items():
        np.testing.assert_array_equal(function(w, x), expected[key], err_msg=str(key))


# ---------------------------------------------------------------- on every version

#: record -> its value, as Python's floats have it.
FORMULAS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": lambda w, x: w / x,
    "neg": lambda w, x: -w,
    "abs": lambda w, x: abs(w),
    "sign": lambda w, x: (w > 0) - (w < 0),
    "lt": lambda w, x: w < x,
    "le": lambda w, x: w <= x,
    "gt": lambda w, x: w > x,
    "ge": lambda w, x: w >= x,
    "select": max,
    "exp": lambda w, x: math.exp(w),
    "exp2": lambda w, x: 2**w,
    "expm1": lambda w, x: math.expm1(w),
    "log": lambda w, x: math.log(w),
    "log2": lambda w, x: math.log(w) / math.log(2),
    "log1p": lambda w, x: math.log1p(w),
    "tanh": lambda w, x: math.tanh(w),
    "erf": lambda w, x: math.erf(w),
    "sin": lambda w, x: math.sin(w),
    "cos": lambda w, x: math.cos(w),
    "sigmoid": lambda w, x: 1 / (1 + math.exp(-w)),
    "sqrt": lambda w, x: math.sqrt(w),
    "rsqrt": lambda w, x: 1 / math.sqrt(w),
    "reciprocal": lambda w, x: 1 / w,
    "pow": operator.pow,
    "square": lambda w, x: w * w,
    "floor": lambda w, x: math.floor(w),
    "ceil": lambda w, x: math.ceil(w),
    "trunc": lambda w, x: math.trunc(w),
    "round": lambda w, x: math.floor(w + 0.5),
    "frac": lambda w, x: w - math.trunc(w),
    "fmod": math.fmod,
    "remainder": lambda w, x: w - math.floor(w / x) * x,
    "floor_quotient": lambda w, x: math.floor(w / x),
    "trunc_quotient": lambda w, x: math.trunc(w / x),
    "min": min,
    "max": max,
    "clamp_min": max,
    "clamp_max": min,
    "clamp": lambda w, x: min(max(w, -0.5), 2),
    "copysign": math.copysign,
    "atan2": math.atan2,
    "hypot": math.hypot,
    "logaddexp": lambda w, x: math.log(math.exp(w) + math.exp(x)),
    "lerp": lambda w, x: 0.7 * w + 0.3 * x,
    "addcmul": lambda w, x: w + x * w,
    "relu": lambda w, x: max(w, 0),
    "relu6": lambda w, x: min(max(w, 0), 6),
    "leaky_relu": lambda w, x: w if w > 0 else 0.01 * w,
    "hardtanh": lambda w, x: min(max(w, -1), 1),
    "hardsigmoid": lambda w, x: min(max(w + 3, 0), 6) / 6,
    "hardswish": lambda w, x: w * min(max(w + 3, 0), 6) / 6,
    "elu": lambda w, x: w if w > 0 else math.expm1(w),
    "softplus": lambda w, x: math.log1p(math.exp(w)),
    "softsign": lambda w, x: w / (1 + abs(w)),
    "silu": lambda w, x: w / (1 + math.exp(-w)),
    "mish": lambda w, x: w * math.tanh(math.log1p(math.exp(w))),
    "gelu": lambda w, x: w * (1 + math.erf(w / math.sqrt(2))) / 2,
    "gelu_tanh": lambda w, x: w * (1 + math.tanh(math.sqrt(2 / math.pi) * (w + 0.044715 * w**3))) / 2,
    "to int64": lambda w, x: int(w * 3) + x,
}
POSITIVE = ("log", "log2", "log1p", "sqrt", "rsqrt", "pow")
RECORDS = {record.name: record for record in FUNCTIONS}


def by_formula(name, w, x):
    return np.array([float(FORMULAS[name](*pair)) for pair in zip(w.tolist(), x.tolist())])


def points(name):
    """Operands that are nowhere near a kink or a jump, and with which all formulas are defined."""
    generator = random.Random(1)
    w, x = (np.array([generator.gauss(0, 2) for _ in range(300)]) for _ in range(2))
    return (abs(w) + 0.1 if name in POSITIVE else w), x


def ways(name):
    """(how, function, kind of arrays) for what the installed PyTorch, and NumPy, have of a record."""
    if torch is not None:
        function = CASES[name][0]
        try:
            ones = torch.ones(1)
            function(*((torch.autograd.Variable(ones),) * 2 if VARIABLES else (ones, ones)))
            yield "torch", function, None
        except (AttributeError, RuntimeError, TypeError, ValueError):
            pass  # a later version's
    for number in RECORDS[name].names:
        ufunc = vars(np).get(number)
        if isinstance(ufunc, np.ufunc):
            plain = call(ufunc, RECORDS[name])
            cast = (lambda w, x, plain=plain: plain(w, x).astype(w.dtype)) if RECORDS[name].result else plain
            yield "numpy." + number, cast, ARRAYS


@pytest.fixture(scope="module")
def of_this_version(tmpdir_factory):
    """record -> {(how, part): a function of arrays} of what is installed; {(record, how): why it isn't traced}."""
    nodes, reasons = {}, {}
    for name in sorted(FORMULAS):
        for how, function, arrays in ways(name):
            try:
                traced = trace(Op(function), "float64", *([] if arrays is None else [arrays]))
            except Untraceable as error:
                reasons[name, how] = str(error)
                continue
            for part in ("term", "grad_w", "grad_x"):
                if getattr(traced, part) is not None:
                    nodes[name, how, part] = getattr(traced, part), "float64"
    found = {name: {} for name in FORMULAS}
    for (name, how, part), function in compiled(tmpdir_factory.mktemp("formulas"), nodes).items():
        found[name][how, part] = function
    return found, reasons


@needs_compiler
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_formulas(of_this_version, name):
    """Whatever the version, values are the formula's in Python's floats, and derivatives its difference quotients."""
    functions = of_this_version[0][name]
    reasons = [reason for (record, _), reason in of_this_version[1].items() if record == name]
    assert all("version" in reason for reason in reasons), reasons
    if not functions:
        pytest.skip("neither this PyTorch nor this NumPy has it")
    w, x = points(name)
    step = 1e-6
    expected = {
        "term": by_formula(name, w, x),
        "grad_w": (by_formula(name, w + step, x) - by_formula(name, w - step, x)) / (2 * step),
        "grad_x": (by_formula(name, w, x + step) - by_formula(name, w, x - step)) / (2 * step),
    }

    def is_the_formulas(how, part):
        found = functions[how, part](w, x)
        if part == "term":
            np.testing.assert_allclose(found, expected[part], rtol=1e-12, atol=1e-14)
        else:
            np.testing.assert_allclose(found, expected[part], rtol=1e-5, atol=1e-7)

    each(is_the_formulas, sorted(functions))


@needs_compiler
def test_every_version_has_formulas(of_this_version):
    """Most records have a function in NumPy, or in the oldest PyTorch, that is traced."""
    hows = {how.split(".")[0] for functions in of_this_version[0].values() for how, _ in functions}
    assert hows == ({"numpy"} if torch is None else {"numpy", "torch"})
    assert len([name for name, functions in of_this_version[0].items() if functions]) >= 30


# ---------------------------------------------------------------- names


#: Arguments that are operands, in tests of names.
def call(function, record):
    count = len([text for text in record.takes.split() if "=" not in text])
    if record is functions.lerp:
        return lambda w, x: function(w, x, 0.3)
    if record is functions.addcmul:
        return lambda w, x: function(w, x, x)
    return (lambda w, x: function(w)) if count == 1 else (lambda w, x: function(w, x))


def modules(record):
    """(where, name, function) of every name of a record that PyTorch has."""
    special = getattr(torch, "special", None)
    for name, module in itertools.product(record.names, (torch, special, torch.Tensor)):
        if hasattr(module, name) and not isinstance(getattr(module, name), type):
            method = module is torch.Tensor
            function = (lambda w, *rest: getattr(w, name)(*rest)) if method else getattr(module, name)
            yield name, function
    for name in record.functional:
        if hasattr(F, name):
            yield name, getattr(F, name)


CALLED = [record for record in FUNCTIONS if (record.names or record.functional) and record.kind != "bits"]


@needs_today
@pytest.mark.parametrize("record", [record for record in CALLED if record.kind != "shifted"], ids=repr)
def test_names(record):
    """A function of torch, torch.special, torch.nn.functional and a tensor's method make the same expression."""
    terms = set()
    for name, function in modules(record):
        if record.kind in ("ordered", "compared", "truth") or record.result or record.name.startswith("is"):
            cast = call(function, record)
            terms.add(trace(Op(lambda w, x: cast(w, x).to(w.dtype)), "float32").term)
        else:
            found = call(function, record)
            detached = record is functions.floor_divide
            term = lambda w, x: found(w.detach(), x.detach()) if detached else found(w, x)
            terms.add(trace(Op(term), "float32").term)
    assert len(terms) == 1


@needs_compiler
def test_numpy(tmpdir):
    """NumPy's functions of the same names compute the same."""
    nodes, expected = {}, {}
    for record, dtype in itertools.product(CALLED, ("float32", "float64")):
        w, x = grid(dtype)
        for name in record.names:
            ufunc = vars(np).get(name)
            if not isinstance(ufunc, np.ufunc) or record.kind == "shifted":
                continue
            plain = call(ufunc, record)
            function = (lambda w, x, plain=plain: plain(w, x).astype(w.dtype)) if record.result else plain
            if record.name.startswith("is"):
                function = lambda w, x, plain=plain: plain(w, x).astype(w.dtype)
            with np.errstate(all="ignore"):
                expected[name, dtype] = record.name, function(w, x), w, x
            try:
                nodes[name, dtype] = trace(Op(function), dtype, ARRAYS).term, dtype
            except Untraceable as error:
                assert "another function in this version" in str(error)
                del expected[name, dtype]
    found = compiled(tmpdir, nodes)
    assert len(nodes) > 80
    for key, (name, value, w, x) in expected.items():
        # NumPy's sine and exponential of floats are within 2 units, the C library's within 1.
        assert_same(name, found[key](w, x), value, w, key[0])


INTEGERS = {
    "remainder": [lambda w, x: w % 7, lambda w, x: w % 3 + x % 1],
    "floor_divide": [lambda w, x: w // 7, lambda w, x: w // 1 + x // 100],
    "fmod": [lambda w, x: np.fmod(w, 7)],
    "negative": [
        lambda w, x: np.fmod(w, -7) + np.fmod(x, -1),
        lambda w, x: w % -7 + x % -1,
        lambda w, x: w // -7 + w // -100,
        lambda w, x: x // -1,
    ],
}


@needs_compiler
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "uint32"])
def test_integer_division(tmpdir, dtype):
    """// and % of integers by a constant are Python's, and never trap; by anything else they aren't compiled."""
    info = np.iinfo(dtype)
    values = sorted({info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 6, 7, 8, 99, 100} | set(range(-8, 0)))
    values = np.array([value for value in values if info.min <= value <= info.max], dtype)
    cases = [f for name in INTEGERS if info.min < 0 or name != "negative" for f in INTEGERS[name]]
    nodes = {i: (trace(Op(function), dtype, ARRAYS).term, dtype) for i, function in enumerate(cases)}
    # Old NumPy itself traps where the least integer is divided by -1.
    fine = values > info.min if info.min < 0 else values >= 0
    for i, function in compiled(tmpdir, nodes).items():
        with np.errstate(all="ignore"):
            expected = cases[i](values[fine], values[fine])
        np.testing.assert_array_equal(function(values, values)[fine], expected)
    for function in (operator.mod, operator.floordiv, lambda w, x: 5 // x, lambda w, x: w % 0):
        with pytest.raises(Untraceable, match="constant divisor"):
            trace(Op(function), dtype, ARRAYS)


REFUSED = {
    "small integers": (lambda w, x: w.char().float(), "float32 to int8"),
    "returned": (lambda w, x: (w * x).long(), "float32 to int64"),
    "halves": (lambda w, x: w.half() * x, "float32 to float16|half"),
    "floats of integers": (lambda w, x: (w.int() * 0.5).to(w.dtype), "floats of integers"),
    "quotient's derivative": (lambda w, x: w // x, "floor_divide has no derivative"),
    "slope": (lambda w, x: F.leaky_relu(w, x), "takes a number"),
    "in place": (lambda w, x: F.silu(w, inplace=True), "in place"),
    "alpha": (lambda w, x: torch.add(w, x, alpha=2), "alpha"),
    "unknown": (lambda w, x: F.gelu(w, approximate="none, or so"), "gelu"),
    "too many": (lambda w, x: torch.atan2(w, x, x), "atan2"),
}


@needs_today
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused(name):
    """What can't be done exactly is left to tensors, with a reason."""
    function, reason = REFUSED[name]
    with pytest.raises(Untraceable, match=reason):
        trace(Op(function), "float32")


@needs_compiler
@needs_today
def test_clamp_of_a_comparison(tmpdir):
    """What a comparison gives can be clamped."""
    node = trace(Op(lambda w, x: (w > x).float().clamp(0, 0.5)), "float32").term
    w, x = grid("float32")
    np.testing.assert_array_equal(compiled(tmpdir, {0: (node, "float32")})[0](w, x), (w > x) * np.float32(0.5))


def test_any_exception_is_a_reason(monkeypatch):
    """An error inside the tracer is a reason not to trace, too."""
    monkeypatch.setattr(functions.minimum, "range", None)
    monkeypatch.setattr(functions.maximum, "derivative", 3)
    monkeypatch.setattr(symbols, "_derivatives", Memo(9))
    if TODAY:
        with pytest.raises(Untraceable, match="TypeError"):
            trace(Op(lambda w, x: torch.maximum(w, x)), "float32")


@needs_compiler
@needs_today
def test_kernels():
    """Compiled as vectors, the functions compute what tensor operations do."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(rows, 9, generator=generator) for rows in (7, 5))
    op = Op(
        lambda w, x: torch.log2(w * w + 1) * torch.exp2(x) + torch.erf(w - x)
        + torch.atan2(w, x) + (w * x * 1e19).long().to(w.dtype) * 1e-18
    )  # fmt: skip
    x_, w_ = x.clone().requires_grad_(), w.clone().requires_grad_()
    expected = op.multiply(w_, x_[:, None]).sum(2)
    result = linear(x.requires_grad_(), w.requires_grad_(), op=op)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    for found, theirs in zip(torch.autograd.grad(result.sum(), (x, w)), torch.autograd.grad(expected.sum(), (x_, w_))):
        torch.testing.assert_close(found, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(exports.missing is not None, reason=str(exports.missing))
@exports.quietly
def test_exported():
    """torch.onnx makes standard operators of all, but for what PyTorch's exporter itself can't, or does otherwise."""
    w = torch.tensor([-3.7, -2.5, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 2.5, 3.0, 7.0, 20.0])
    x = torch.tensor([-2.0, -0.7, 0.1, 0.3, 1.0, 2.0, 3.0])[:, None]
    others = {"copysign", "hypot", "floor_quotient", "remainder", "floor_divide", "atan2"}
    functions = [cases[0] for name, cases in sorted(CASES.items()) if name not in others]
    calls = [lambda module, w, x, f=f: linear(x, w[:, None], op=f) for f in functions]
    runs = exports.Runs(exports.Calls(calls), (w, x))
    for function, found in zip(functions, runs(w, x)):
        expected = function(*torch.broadcast_tensors(w, x))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)
