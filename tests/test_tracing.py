"""What users' functions are traced to: printed as C and compiled, it computes what tensors and arrays do."""

import ctypes
import itertools
import math
import operator
import os
import random
import re
import subprocess

import numpy as np
import pytest
from im2col_compat import Op, ops
from im2col_compat.codegen import compile, expression, functions, print_c
from im2col_compat.codegen.ranges import never_nan
from im2col_compat.codegen.symbols import Untraceable, trace
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import NUMPY as ARRAYS
from im2col_compat.compat.arrays import raw
from im2col_compat.compat.probes import VARIABLES

from helpers import inlined
from helpers.tensors import torch

COMPILER = compile.executable("cc") or compile.executable("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
#: Today's conventions: ties halved between the operands, 0 for the sign of NaN, and whole number promotion.
TODAY = torch is not None and hasattr(torch, "scatter_reduce")  # 1.11
needs_today = pytest.mark.skipif(not TODAY, reason="needs today's torch")

F = None if torch is None else torch.nn.functional
SLOPE = 0.1

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 2.0, 3.0, 0.1, 1e-40, -1e-40, 1e30, -1e30, 3e38]
SPECIAL += [float("inf"), -float("inf"), float("nan"), 1e-8, -3.7, 88.0, 100.0]


def helper(v):
    return v * v + SLOPE


def nested(w, x):
    def inner(v):
        return torch.tanh(v) * SLOPE

    return inner(w) - helper(x)


#: Functions that both PyTorch (of any version that has what they use) and NumPy compute.
BOTH = {
    "l1": lambda w, x: abs(w - x),
    "product": operator.mul,
    "sum of constants": lambda w, x: 2 * w + x * 3 - 0.1,
    "negated": lambda w, x: -abs(w - x) - (-w),
    "division": lambda w, x: w / x + w / 3,
    "squares": lambda w, x: (w - x) ** 2 + x**2,
    "mask times": lambda w, x: (w > x) * w,
    "masks": lambda w, x: ((w > x) & ~(x <= 0) | (w == 0.5) ^ (x != 1)) * (w - x),
    "mask == 0": lambda w, x: ((w > x) == 0) * x,
    "equal masks": lambda w, x: ((w >= 0) == (x >= 0)) * w,
    "helper": lambda w, x: helper(w - x) * x,
    "itself": lambda w, x: x,
    "float32 constant": lambda w, x: w * np.float32(2) + x,
    "clip": lambda w, x: (w - x).clip(-1, 1),
}

TORCH = (
    {}
    if torch is None
    else {
        "abs": lambda w, x: torch.abs(w - x) * x.abs(),
        "minimum": lambda w, x: torch.min(w, x),
        "maximum": lambda w, x: torch.max(w, x) * 2 - w.min(x),
        "max of sums": lambda w, x: torch.max(w + x, w - x),
        "clamp": lambda w, x: (w - x).clamp(-1, 1),
        "clamp min": lambda w, x: torch.clamp(w * x, min=0.5),
        "clamp max": lambda w, x: (w * x).clamp(max=0.5) + x,
        "relu": lambda w, x: F.relu(w - x) + torch.relu(x),
        "sign": lambda w, x: torch.sign(w) * x,
        "sign of difference": lambda w, x: (w - x).sign() * w,
        "exp": lambda w, x: torch.exp(-abs(w - x)),
        "log": lambda w, x: torch.log(w) + x.log(),
        "tanh": lambda w, x: torch.tanh(w * x),
        "sigmoid": lambda w, x: torch.sigmoid(w) * x,
        "sqrt": lambda w, x: torch.sqrt(w * w + x),
        "rsqrt": lambda w, x: torch.rsqrt(w) + x,
        "number over": lambda w, x: 0.1 / w + x.reciprocal(),
        "sin": lambda w, x: torch.sin(w) * x.cos(),
        "floor": lambda w, x: torch.floor(w) + x.ceil() * w + x.trunc(),
        "round": lambda w, x: torch.round(w) - x.round(),
        "cube": lambda w, x: (w - x) ** 3,
        "powers": lambda w, x: w**4 + x**-2,
        "half powers": lambda w, x: w**0.5 * x,
        "power of two": lambda w, x: 2**w + x,
        "pow": lambda w, x: torch.pow(w, x),
        "odd power": lambda w, x: x**2.5 + w**0,
        "nested": nested,
        "masked_fill": lambda w, x: w.masked_fill(x > 0, 2) * x,
        "type_as": lambda w, x: (w > x).type_as(w) * 2 - 1,
        "xnor": ops.xnor.multiply,
        "adder's": ops.adder.grad_x,
        "methods": lambda w, x: w.mul(2).add(x).sub(w).div(3).neg(),
        "function itself": torch.mul,
    }
)
if TODAY:
    TORCH.update({
        "where": lambda w, x: torch.where(w > x, w, x * 2),
        "where number": lambda w, x: torch.where(w > x, w * x, 0.25),
        "where method": lambda w, x: w.where(x.isnan() if False else x > 0, x),
        "to dtype": lambda w, x: (w >= 0).to(w.dtype) * x,
        "real minimum": lambda w, x: torch.minimum(w, x) + torch.maximum(w, x),
        "logical": lambda w, x: torch.logical_and(w > 0, x > 0) * x + torch.logical_not(w) * x,
        "straight through": lambda w, x: (w + (torch.sign(w) - w).detach()) * x,
        "square": lambda w, x: torch.square(w) - x.square(),
        "likes": lambda w, x: torch.maximum(w, torch.zeros_like(w)) + torch.full_like(x, 0.1) * x,
        "leaky": lambda w, x: F.leaky_relu(w - x, 0.1),
        "clamp by tensor": lambda w, x: torch.clamp(w, min=x),
    })  # fmt: skip

NUMPY = {
    "np.abs": lambda w, x: np.abs(w - x),
    "np.where": lambda w, x: np.where(w > x, w, x * 2),
    "np.clip": lambda w, x: np.clip(w - x, -1, 1),
    "np.minimum": lambda w, x: np.minimum(w, x) + np.maximum(w, 0.5),
    "np.sign": lambda w, x: np.sign(w - x) * w,
    "np.less": lambda w, x: np.less(w, x).astype(w.dtype) * x,
    "np scalar": lambda w, x: np.float32(2) * w - x,
    "np.power": lambda w, x: np.power(w, 3) + x**0.5,
    "np.exp": lambda w, x: np.exp(w) * np.tanh(x),
    "number over array": lambda w, x: 3 / w + x,
    "np.add": lambda w, x: np.add(w, x) / np.sqrt(x),
}

#: By these alone a value may be off by a few units in the last place.
INEXACT = {f.name for f in expression.FUNCTIONS if f.calls} | {"sqrt", "pow"}
counter = itertools.count()


def compiled(directory, sources, arguments, dtype):
    """The functions f0, f1, ... of sources, called element by element on arrays. They are compiled as one file."""
    ctype = expression.C_TYPES[dtype]
    path = os.path.join(str(directory), "f{}".format(next(counter)))
    with open(path + ".c", "w") as file:
        file.write(inlined.head())
        for number, source in enumerate(sources):
            loop = "void loop{3}(const long n, {0}{1} *out) {{ for (long i = 0; i < n; i++) out[i] = f{3}({2}); }}\n"
            pointers = "".join("const {} *a{}, ".format(ctype, i) for i in range(arguments))
            elements = ", ".join("a{}[i]".format(i) for i in range(arguments))
            file.write(source + loop.format(pointers, ctype, elements, number))
    flags = "-O1 -std=gnu99 -fwrapv -fno-math-errno -fno-trapping-math -ffp-contract=off -shared -fPIC".split()
    subprocess.check_call([COMPILER] + flags + ["-o", path + ".so", path + ".c", "-lm"])
    library = ctypes.CDLL(path + ".so")

    def function(number):
        def call(*arrays):
            arrays = [np.ascontiguousarray(array, dtype) for array in arrays]
            out = np.empty_like(arrays[0])
            pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays + [out]]
            getattr(library, "loop{}".format(number))(ctypes.c_long(out.size), *pointers)
            return out

        return call

    return [function(number) for number in range(len(sources))]


def grid(dtype):
    """Every pair of special values, and some random ones."""
    generator = random.Random(0)
    chosen = [value for value in SPECIAL]
    pairs = list(itertools.product(chosen, chosen))
    pairs += [(generator.gauss(0, 2), generator.gauss(0, 2)) for _ in range(300)]
    with np.errstate(all="ignore"):
        w, x = np.array(pairs).astype(dtype).T
    return np.ascontiguousarray(w), np.ascontiguousarray(x)


def run(directory, nodes, dtype, w, x):
    """(value, C source) of each node."""
    parameters = [("w", dtype), ("x", dtype)]
    sources = [print_c.c_function("f{}".format(i), parameters, node, dtype) for i, node in enumerate(nodes)]
    return [(function(w, x), text) for function, text in zip(compiled(directory, sources, 2, dtype), sources)]


def assert_same(found, expected, exact, dtype, source):
    if exact:
        np.testing.assert_array_equal(found, expected, err_msg=source)
    else:
        tiny = float(np.finfo(dtype).tiny)
        rtol = 2e-5 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=4 * tiny, err_msg=source)


def is_exact(*nodes):
    kinds = {part.op for node in nodes for part in expression.postorder(node)}
    return not kinds & (INEXACT | {"sigmoid", "rsqrt"})


@needs_compiler
@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(set(TORCH) | set(BOTH)))
def test_tensors(tmpdir, name, dtype):
    """Printed C computes what PyTorch computes, and its derivatives are autograd's."""
    function = TORCH.get(name) or BOTH[name]
    w, x = grid(dtype)
    if name in ("sin", "tanh", "nested"):
        # libm and PyTorch's vectors agree where reducing the argument is easy, and 1 - tanh ** 2 isn't all rounding.
        keep = (abs(w) < 2) & (abs(x) < 2)
        w, x = w[keep], x[keep]
    if name == "sigmoid" and not TODAY:
        w = np.where(abs(w) < 50, w, 50).astype(dtype)  # old versions' exp vanishes elsewhere
    tensors = [torch.from_numpy(array.copy()) for array in (w, x)]
    if VARIABLES:
        tensors = [torch.autograd.Variable(tensor, requires_grad=True) for tensor in tensors]
    else:
        tensors = [tensor.requires_grad_() for tensor in tensors]
    try:
        result = function(*tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        pytest.skip("not with this torch: {}".format(error))
    try:
        traced = trace(Op(function), dtype)
    except Untraceable as error:
        assert "version" in str(error) and not TODAY
        return
    parts = run(tmpdir, [traced.term] + [traced.grad_w, traced.grad_x] * TODAY, dtype, w, x)
    found, source = parts[0]
    expected = raw(result if VARIABLES else result.detach()).numpy()
    if not TODAY:
        # Old versions lose NaN on the way (max, clamp), and their vectors' exp and the like lose more.
        assert np.isnan(found[np.isnan(expected)]).all(), source
        kept = np.isfinite(found)
        np.testing.assert_allclose(found[kept], expected[kept], rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-37)
        return
    assert_same(found, expected, is_exact(traced.term), dtype, source)
    expected = [None, None]
    if result.requires_grad:
        expected = torch.autograd.grad(result.sum(), tensors, allow_unused=True)
    for (found, source), theirs, tensor in zip(parts[1:], expected, tensors):
        theirs = torch.zeros_like(tensor) if theirs is None else theirs
        assert_same(found, theirs.numpy(), False, dtype, source)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(set(NUMPY) | set(BOTH)))
def test_arrays(tmpdir, name, dtype):
    """The same for NumPy."""
    function = NUMPY.get(name) or BOTH[name]
    w, x = grid(dtype)
    with np.errstate(all="ignore"):
        expected = function(w, x)
    traced = trace(Op(function), dtype, ARRAYS)
    ((found, source),) = run(tmpdir, [traced.term], dtype, w, x)
    assert_same(found, expected, is_exact(traced.term), dtype, source)


INTEGERS = {
    "product": lambda w, x: w * x,
    "l1": lambda w, x: abs(w - x),
    "negated": lambda w, x: -w + x * 3 - 1,
    "and": lambda w, x: (w & x) | 1,
    "xor": lambda w, x: ~(w ^ x),
    "shifts": lambda w, x: (w << 3) + (x >> 2),
    "by shifts": lambda w, x: (w << x) + (w >> x),
    "compared": lambda w, x: w > x,
    "masks": lambda w, x: ((w > x) & (x != 0) | (w == 2)) * x,
    "equal masks": lambda w, x: (w >= 1) == (x >= 1),
    "square": lambda w, x: w**2 - x**3,
}


@needs_compiler
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("name", sorted(INTEGERS))
def test_integers(tmpdir, name, dtype):
    """Integers wrap in their own dtype, as NumPy's and PyTorch's do."""
    low, high = dtypes.limits(dtype)
    values = sorted({low, low + 1, high, high - 1, high // 2, 0, 1, 2, 3, 5, 7, 8, 31, 63, 64, 100} | set(range(-3, 0)))
    if name == "by shifts" and np.__version__.startswith("1."):
        values = [value for value in values if 0 <= value < 8]  # beyond, old versions do what the processor does
    values = [value for value in values if low <= value <= high]
    w, x = (np.array(column, dtype) for column in zip(*itertools.product(values, values)))
    traced = trace(Op(INTEGERS[name]), dtype, ARRAYS)
    assert traced.grad_w is None and traced.grad_x is None
    with np.errstate(all="ignore"):
        nodes, expected = [traced.term], [INTEGERS[name](w, x).astype(dtype)]
    if TODAY and dtype in ("int8", "uint8", "int16", "int32", "int64"):
        nodes.append(trace(Op(INTEGERS[name]), dtype).term)
        expected.append(INTEGERS[name](torch.from_numpy(w), torch.from_numpy(x)).numpy().astype(dtype))
    for (found, source), theirs in zip(run(tmpdir, nodes, dtype, w, x), expected):
        np.testing.assert_array_equal(found, theirs, err_msg=source)


TIMES = {
    "l1": ops.l1,
    "xnor": ops.xnor,
    "adder": ops.adder,
    "max": Op(lambda w, x: torch.max(w, x)),
    "clamp": Op(lambda w, x: (w - x).clamp(-1, 1)),
    "relu": Op(lambda w, x: torch.relu(w - x)),
    "masked l1": Op(lambda w, x: -abs(w - x) * ((w > x).type_as(w) * 2 - 1)),
    "squares": Op(lambda w, x: (w - x) ** 2),
    "division": Op(lambda w, x: w / x),
    "first": Op(lambda w, x: w.abs()),
}


@needs_compiler
@needs_today
@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("name", sorted(TIMES))
def test_times_a_gradient(tmpdir, name, finite):
    """The product with a gradient is backward's: the exact text's for infinities and NaN, too."""
    op = TIMES[name]
    traced = trace(op, "float32")
    w, x = grid("float32")
    parameters = [("w", "float32"), ("x", "float32")]
    sources = [
        print_c.c_times_function("f{}".format(i), "g", parameters, node, "float32", finite)
        for i, node in enumerate((traced.grad_w, traced.grad_x))
    ]
    for i, function in enumerate(compiled(tmpdir, sources, 3, "float32")):
        for gradient in (0.5, -3.0, 0.0, float("inf"), float("nan")):
            g = np.full_like(w, gradient)
            w_, x_ = (torch.from_numpy(array.copy()).requires_grad_() for array in (w, x))
            surrogate = (op.grad_w, op.grad_x)[i]
            if surrogate is not None:
                expected = torch.from_numpy(g) * surrogate(w_, x_).detach()
            else:
                expected = torch.autograd.grad(op.multiply(w_, x_), (w_, x_), torch.from_numpy(g), allow_unused=True)[i]
                expected = torch.zeros_like(w_) if expected is None else expected
            found, expected = function(g, w, x), expected.detach().numpy()
            if finite:
                kept = (abs(w) < 1e10) & (abs(x) < 1e10) & np.isfinite(g)
                found, expected = found[kept], expected[kept]
            np.testing.assert_array_equal(found, expected, err_msg=sources[i])


@needs_torch
def test_finite_texts_are_the_same_where_they_can_be():
    """Texts differ only where a special value makes a difference."""
    parameters = [("w", "float32"), ("x", "float32")]

    def texts(node):
        return [print_c.c_times_function("f", "g", parameters, node, "float32", flag) for flag in (False, True)]

    for function, same in ((lambda w, x: abs(w - x), False), (lambda w, x: (w - x) ** 2, True), (operator.mul, True)):
        exact, finite = texts(trace(Op(function), "float32").grad_w)
        assert (exact == finite) == same
    exact, finite = texts(trace(Op(lambda w, x: abs(w - x)), "float32").grad_w)
    assert "copysignf" in finite and "copysignf" not in exact
    # A difference of products may be infinity less infinity.
    exact, finite = texts(trace(Op(lambda w, x: abs(w * w - x * x)), "float32").grad_w)
    assert "copysignf" not in finite


def test_balanced():
    """One sum or difference goes through a macro, and nothing dearer does."""
    parameters = [("w", "float32"), ("x", "float32")]
    for function, macro in (
        (lambda w, x: abs(w - x), "fabsf(DIFFERENCE(w, x))"),
        (lambda w, x: w + x, "PLUS(w, x)"),
        (lambda w, x: w * x + x, None),
        (lambda w, x: w + x - 1, None),
        (lambda w, x: w * x, None),
    ):
        text = print_c.c_function("f", parameters, trace(Op(function), "float32").term, "float32", balanced=True)
        assert "f(const int fused, const float one, const float w, const float x)" in text
        assert (macro in text) if macro else ("PLUS" not in text and "DIFFERENCE" not in text)


def test_never_nan():
    """What can be NaN is, and what can't isn't."""
    w, x = expression.operand("w", "float32"), expression.operand("x", "float32")
    finite = {"w": (False,) * 3, "x": (False,) * 3}
    lowest = {"w": (False,) * 3, "x": (False, True, False)}
    difference, product = expression.sub(w, x), expression.mul(w, x)
    two = expression.constant(2, "float32")
    for node, operands, expected in (
        (difference, finite, True),
        (difference, lowest, True),
        (expression.sub(difference, difference), finite, False),
        (product, finite, True),
        (product, lowest, False),
        (expression.mul(x, two), lowest, True),
        (expression.mul(difference, product), finite, False),
        (expression.add(product, product), finite, False),
        (expression.div(w, x), finite, False),
        (expression.div(w, two), finite, True),
        (functions.exp(difference), finite, True),
        (functions.sqrt(w), finite, False),
        (functions.sqrt(expression.absolute(w)), finite, True),
        (functions.tanh(difference), finite, True),
        (functions.log(w), finite, False),
        (expression.sign(expression.div(w, x)), finite, True),
        (functions.maximum(w, x), lowest, True),
    ):
        assert never_nan(node, operands) == expected, node


def test_functions():
    """An expression's calls are known, those inside other operations too."""
    traced = trace(Op(lambda w, x: w * x), "float32")
    assert print_c.called(traced.term) == []
    w, x = (expression.operand(name, "float32") for name in "wx")
    assert print_c.called(functions.silu(w)) == []
    assert print_c.called(functions.remainder(w, x)) == ["fmod"]
    third = expression.constant(0.3, "float32")
    for how, text in ((True, "pow_float(w, 0.3f)"), (False, "powf(w, 0.3f)")):
        found = print_c.c_function("f", [("w", "float32")], functions.power(w, third), "float32", inlined=how)
        assert "return {};".format(text) in found
    # Sines are inlined where operands are near to 0 alone.
    for how, text in ((True, "sinf(w)"), (print_c.NEAR, "sin_float(w)"), (False, "sinf(w)")):
        found = print_c.c_function("f", [("w", "float32")], functions.sin(w), "float32", inlined=how)
        assert "return {};".format(text) in found


@needs_compiler
def test_repeated_parts_are_printed_once(tmpdir):
    """A part that is used twice gets a name."""
    traced = trace(Op(lambda w, x: (w - x) * (w - x)), "float32")
    text = print_c.c_function("f", [("w", "float32"), ("x", "float32")], traced.term, "float32")
    assert text.count("w - x") == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64"])
@pytest.mark.parametrize("name", ["dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"])
def test_named_ops_trace(name, dtype):
    """The named ops do, as far as they are for the dtype."""
    traced = trace(getattr(ops, name), dtype)
    assert traced.add is None and (traced.grad_w is None) == (torch is None or dtypes.is_integer(dtype))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_add_functions(dtype):
    """An add function's operands are acc and term; int64 for integers."""
    traced = trace(Op(operator.mul, lambda acc, term: acc * 2 + term * term), dtype)
    operands = {node.value: node.dtype for node in expression.postorder(traced.add) if node.op == "operand"}
    kind = "float32" if dtype == "float32" else "int64"
    assert operands == {"acc": kind, "term": kind}
    if dtype == "float32" and torch is not None:
        assert expression.is_constant(traced.add_acc, 2)


def swallowing(w, x):
    try:
        return w.sum() * x
    except Exception:
        return w * x


def branching(w, x):
    if w > x:
        return w
    return x


def in_place(w, x):
    w = w * 2
    w += x
    return w


CAPTURED = np.ones(3)
UNTRACEABLE = {
    "branch": (branching, "float32", "branches on a value"),
    "and": (lambda w, x: w > 0 and x, "float32", "branches on a value"),
    "swallowing": (swallowing, "float32", "sum.*reduction"),
    "sum": (lambda w, x: (w * x).sum(), "float32", "sum.*reduction"),
    "max": (lambda w, x: w.max() * x, "float32", "max.*reduction"),
    "shape": (lambda w, x: w * x.shape[0], "float32", "shape"),
    "index": (lambda w, x: w[0] * x, "float32", "index"),
    "iterate": (lambda w, x: [v for v in w], "float32", "iterat"),
    "float": (lambda w, x: float(w) * x, "float32", "number"),
    "math": (lambda w, x: math.exp(w) * x, "float32", "number"),
    "number": (lambda w, x: 3.0, "float32", "returns a number"),
    "None": (lambda w, x: None, "float32", "NoneType"),
    "array": (lambda w, x: CAPTURED, "float32", "array"),
    "captured": (lambda w, x: w * CAPTURED, "float32", "captured array"),
    "captured left": (lambda w, x: CAPTURED * w, "float32", "captured array"),
    "bools": (lambda w, x: w > x, "float32", "returns bools"),
    "raises": (lambda w, x: 1 / 0, "float32", "ZeroDivisionError"),
    "in place": (in_place, "float32", "in place"),
    "isinstance": (lambda w, x: w if isinstance(w, np.ndarray) else x, "float32", "isinstance"),
    "integer division": (lambda w, x: w / x, "int32", "floats of integers"),
    "integer times float": (lambda w, x: w * 0.5, "int32", "floats of integers"),
    "too large": (lambda w, x: w * 300, "int8", "300"),
    "mask arithmetic": (lambda w, x: (w > 0) + (x > 0), "int8", "bools"),
    "mask times number": (lambda w, x: (w > 0) * 2, "int8", "bools"),
    "floor division": (lambda w, x: w // x, "int8", "//"),
    "loops": (lambda w, x: sum([w * i for i in range(5000)]), "float32", "too long"),
    "dtype": (lambda w, x: w * x, "float16", "float16"),
    "np.sum": (lambda w, x: np.add.reduce(w), "float32", "reduction|convert"),
    "attribute": (lambda w, x: setattr(w, "a", 1) or w, "float32", "attribute"),
}
if TODAY:
    PARAMETER = torch.ones(3)
    UNTRACEABLE.update({
        "tensor": (lambda w, x: w * PARAMETER, "float32", "captured tensor"),
        "tensor left": (lambda w, x: PARAMETER * w, "float32", "captured tensor"),
        "tensor of no dimension": (lambda w, x: torch.tensor(2.0) + w, "float32", "captured tensor"),
        "torch.add of tensor": (lambda w, x: torch.add(PARAMETER, w), "float32", "captured tensor"),
        "random": (lambda w, x: torch.rand_like(w) * x, "float32", "rand_like.*unknown"),
        "torch.sum": (lambda w, x: torch.sum(w * x), "float32", "sum.*reduction"),
        "two bounds": (lambda w, x: torch.clamp(w, x, w), "float32", "clamp"),
        "in-place method": (lambda w, x: w.mul_(x), "float32", "in place.*mul_"),
        "to int": (lambda w, x: (w * x).int(), "float32", "float32 to int32"),
    })  # fmt: skip


@pytest.mark.parametrize("name", sorted(UNTRACEABLE))
def test_untraceable(name):
    """What can't be traced says why."""
    function, dtype, message = UNTRACEABLE[name]
    with pytest.raises(Untraceable) as info:
        trace(Op(function), dtype)
    assert re.search(message, str(info.value)), str(info.value)
    assert "multiply" in str(info.value) or dtype == "float16"


@needs_torch
def test_untraceable_names_the_function():
    """The reason says which of an op's functions it is about."""
    for argument in ("add", "grad_w", "grad_x"):
        with pytest.raises(Untraceable) as info:
            trace(Op(operator.mul, **{argument: lambda a, b: a[0]}), "float32")
        assert str(info.value).startswith(argument)


@needs_torch
def test_shared_parts_stay_shared():
    """What is used over and over is neither walked nor printed over and over."""

    def tower(w, x):
        for _ in range(20):
            w = w + w.abs() * 0.5
            x = x * x
        return w * x

    traced = trace(Op(tower), "float32")
    for node in (traced.grad_w, traced.grad_x):
        parameters = [("w", "float32"), ("x", "float32")]
        assert len(print_c.c_times_function("f", "g", parameters, node, "float32", True)) < 20000


def test_functions_are_left_alone():
    """Where stand-ins are needed, the user's function and what it refers to stay as they were."""
    before = nested.__globals__["helper"], nested.__globals__["np"]
    trace(Op(lambda w, x: helper(w) * x), "float32")
    assert (nested.__globals__["helper"], nested.__globals__["np"]) == before
