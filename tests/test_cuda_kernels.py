"""The CUDA kernels' texts, run on the CPU by helpers/cuda_shim.py, against plain loops."""

import numpy as np
import pytest
from helpers import cuda_shim as shim
from helpers import oracle
from helpers.problems import CONVOLUTIONS, pads
from helpers.tensors import torch

from im2col_compat import Op, ops
from im2col_compat.codegen import symbols
from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import texts, tiles, work
from im2col_compat.cuda.tiles import Tile
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem

# Without PyTorch there are no derivatives to print, and nothing on a GPU.
pytestmark = pytest.mark.skipif(shim.COMPILER is None or torch is None, reason="needs g++ and torch")

#: Small ones, so that problems have several; they differ in which threads load what.
WIDE = Tile(16, 128, 8, 4, 8, 4)
NARROW = Tile(32, 16, 16, 4, 4, 4)


@pytest.fixture
def tiled(monkeypatch):
    """A function that says which tile and how many splits there are from now on."""

    def choose(tile, splits=1):
        monkeypatch.setattr(work, "_works", Memo(256))
        monkeypatch.setattr(tiles, "choose", lambda *args: (tile, splits if args[-1] else 1))

    return choose


def code_of(op, dtype="float32", **kwargs):
    return texts.of_expressions(op, symbols.trace(op, dtype, captures=symbols.FEW), dtype, **kwargs)


def operand(array, dtype):
    inside, _ = shim.guarded(array.shape, array.dtype if array.dtype == np.int32 else dtype)
    inside[...] = array
    return inside


def run(made, code, results, dtype="float32", **operands):
    """Run a Work; results: {name: (shape, dtype)} of what it fills. Returns these arrays, in order of their names."""
    given = {name: operand(t, dtype) if isinstance(t, np.ndarray) else t for name, t in operands.items()}
    new = {name: shim.guarded(*how) for name, how in results.items()}
    given.update((name, array) for name, (array, _) in new.items())
    shim.run(made, given)
    assert all(shim.is_whole(whole) for _, whole in new.values())
    return [new[name][0] for name in sorted(new)]


def forward(code, problem, **operands):
    results = {"y": (problem.result_shape, code.numpy_result)}
    return run(work.forward(code, problem), code, results, code.numpy_element, **operands)[0]


def convolution(name, seed=0):
    """(problem, x, w, what oracle.terms takes of the rest) of one of CONVOLUTIONS; values that add up exactly."""
    shape, filters, kernel, stride, padding, dilation, groups = CONVOLUTIONS[name]
    dims = len(kernel)
    w_shape = (filters, shape[1] // groups) + kernel
    sides = tuple(tuple(side) for side in pads(padding, kernel, dilation))
    problem = conv_problem(dims, shape, w_shape, None, stride, sides, dilation, groups)
    rng = np.random.RandomState(seed)
    x, w = [rng.randint(-20, 20, shape) / 4.0 for shape in (shape, w_shape)]
    return problem, x, w, (stride, sides, dilation, groups)


class Case(object):
    """An op, and the same in NumPy: terms, and their derivatives by x, w and parameters: p beside w, s for all."""

    def __init__(self, multiply, by_x, by_w, add="sum", pad=0, by_p=None, by_s=None, **kwargs):
        self.op, self.add, self.pad = Op(multiply, add, pad_value=pad, **kwargs), add, pad
        self.multiply, self.by_x, self.by_w, self.by_p, self.by_s = multiply, by_x, by_w, by_p, by_s
        self.names = [name for name, by in (("p", by_p), ("s", by_s)) if by is not None]

    def code(self, dtype="float32", **kwargs):
        return code_of(self.op, dtype, scalars=tuple(name for name in self.names if name == "s"), **kwargs)

    def columns(self, x, w, how):
        """(x as columns, which of them count), both (N, G, 1, K, L)"""
        stride, sides, dilation, groups = how
        columns, inside = [oracle.unfold(t, w.shape[2:], dilation, sides, stride) for t in (x, np.ones(x.shape))]
        columns, inside = [t.reshape(len(x), groups, 1, -1, t.shape[2]) for t in (columns, inside != 0)]
        return np.where(inside, columns, 0 if self.pad is None else self.pad), inside

    def terms(self, x, w, how, others):
        """(weights and parameters, columns, which are in the image, which count, terms), the latter (N, G, O, K, L)."""
        columns, inside = self.columns(x, w, how)
        args = [t.reshape(1, how[3], len(w) // how[3], -1, 1) if np.shape(t) else t for t in [w] + others]
        with np.errstate(all="ignore"):
            terms = self.multiply(args[0], columns, *args[1:])
        inside = np.broadcast_to(inside, terms.shape)
        counts = inside if self.pad is None else np.ones_like(inside)
        return args, np.broadcast_to(columns, terms.shape), inside, counts, terms

    def reduced(self, counts, terms):
        """(the results, (N, G, O, L); how much of its result's gradient each term gets)"""
        with np.errstate(all="ignore"):
            if self.add == "sum":
                return np.where(counts, terms, 0).sum(3), np.ones(terms.shape)
            if self.add == "prod":
                terms = np.where(counts, terms, 1)
                others = [np.delete(terms, k, 3).prod(3) for k in range(terms.shape[3])]
                return terms.prod(3), np.stack(others, 3)
            if self.add == "logsumexp":
                terms = np.where(counts, terms, -np.inf)
                most = terms.max(3, keepdims=True)
                most = np.where(np.isfinite(most), most, 0)
                result = np.log(np.exp(terms - most).sum(3)) + most[:, :, :, 0]
                return result, np.exp(terms - result[:, :, :, None])
            sign = 1 if self.add == "max" else -1
            terms = np.where(counts, sign * terms, -np.inf)
            first = terms.argmax(3)  # NaN is the greatest
            return sign * terms.max(3), np.arange(terms.shape[3])[:, None] == first[:, :, :, None]

    def gradients(self, x, w, how, others, g):
        """dx, dw and the gradients of parameters, which have a number for each weight"""
        args, columns, inside, counts, terms = self.terms(x, w, how, others)
        grads = self.reduced(counts, terms)[1] * g.reshape(terms.shape[:3] + (1, -1))
        of_x = np.where(inside, grads * self.by_x(args[0], columns, *args[1:]), 0).sum(2)
        stride, sides, dilation, _ = how
        dx = oracle.fold(of_x.reshape(len(x), -1, of_x.shape[3]), x.shape[2:], w.shape[2:], dilation, sides, stride)
        found = [dx]
        for by in [self.by_w, self.by_p, self.by_s]:
            if by is not None:
                found.append(np.where(counts, grads * by(args[0], columns, *args[1:]), 0).sum((0, 4)).reshape(w.shape))
        return found


def sign(v):
    return np.sign(v)


L1 = Case(lambda w, x: abs(w - x), lambda w, x: sign(x - w), lambda w, x: sign(w - x), pad=2)
LEFT_OUT = Case(lambda w, x: w * x + 1, lambda w, x: w, lambda w, x: x, pad=None)
PLANES = Case(
    lambda w, x, p, s: p * abs(w - x) + s * w, lambda w, x, p, s: p * sign(x - w),
    lambda w, x, p, s: p * sign(w - x) + s, by_p=lambda w, x, p, s: abs(w - x),
    by_s=lambda w, x, p, s: w + 0 * x)  # fmt: skip
MAX = Case(lambda w, x: w + x, lambda w, x: np.ones_like(w + x), lambda w, x: np.ones_like(w + x), "max", None)
MIN = Case(lambda w, x, p: p * w - x, lambda w, x, p: -np.ones_like(w + x), lambda w, x, p: p + 0 * x, "min", 1.5,
           by_p=lambda w, x, p: w + 0 * x)  # fmt: skip
PROD = Case(lambda w, x: w * x, lambda w, x: w + 0 * x, lambda w, x: x + 0 * w, "prod", 1)
LOGSUMEXP = Case(lambda w, x: w * x, lambda w, x: w + 0 * x, lambda w, x: x + 0 * w, "logsumexp", None)
CASES = {"l1": L1, "left-out": LEFT_OUT, "planes": PLANES, "max": MAX, "min": MIN, "prod": PROD}
CASES["logsumexp"] = LOGSUMEXP


def close(found, expected, relative=3e-5):
    scale = np.abs(expected[np.isfinite(expected)]).max() if np.isfinite(expected).any() else 1
    return np.allclose(found, expected, relative, relative * scale, equal_nan=True)


def beside(case, w, seed=1):
    """(the parameters as the oracle takes them, the operands that they are)"""
    values = {"p": np.random.RandomState(seed).randint(-8, 8, w.shape) / 4.0, "s": 0.75}
    operands = {"p": ("plane0", values["p"]), "s": ("scalar0", np.float32(0.75))}
    return [values[name] for name in case.names], dict(operands[name] for name in case.names)


def problems(name):
    """The convolutions for one of CASES: all for one. (Without padding, and in three dimensions, texts differ.)"""
    some = ["asymmetric", "far-padding", "grouped", "line", "one-sided"] + ["depthwise"] * (name == "prod")
    return sorted(CONVOLUTIONS) if name == "left-out" else some


@pytest.mark.parametrize("tile, splits", [(WIDE, 1), (NARROW, 3)], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_results(tiled, tile, splits, name):
    """Of all kinds of convolutions, with whole tiles and parts of them, and terms in several splits."""
    tiled(tile, splits)
    case, code = CASES[name], CASES[name].code()
    for problem_name in problems(name):
        problem, x, w, how = convolution(problem_name)
        others, operands = beside(case, w)
        found = forward(code, problem, x=x, w=w, **operands)
        expected, _ = case.reduced(*case.terms(x, w, how, others)[3:])
        expected = expected.reshape(problem.result_shape)
        exact = case.add in ("sum", "max", "min")
        assert np.array_equal(found, expected) if exact else close(found, expected), problem_name


def test_several_blocks(tiled):
    """More filters and positions than a tile has, and no multiple of it."""
    tiled(NARROW, 2)
    problem = conv_problem(2, (3, 5, 9, 7), (2 * 37, 5, 3, 2), None, 1, 1, 1, 1)
    rng = np.random.RandomState(0)
    x, w = [rng.randint(-20, 20, shape) / 4.0 for shape in (problem.x_shape, problem.w_shape)]
    found = forward(L1.code(), problem, x=x, w=w)
    expected = L1.terms(x, w, (1, ((1, 1), (1, 1)), 1, 1), [])[4].sum(3)
    assert np.array_equal(found, expected.reshape(problem.result_shape))


def kept(code, problem, operands, y):
    """The operands that gradients read of each result."""
    made, shape = work.kept(code, problem), problem.result_shape
    if made is None:
        return {"saved": y} if code.reads else {}
    results = {name: (shape, "int32" if name == "arg" else "float32") for name in code.reads}
    return dict(zip(sorted(results), run(made, code, results, **operands)))


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradients(tiled, name):
    """Of x, w and parameters, for all kinds of convolutions."""
    case, code = CASES[name], CASES[name].code()
    tiled(*((WIDE, 1) if name in ("planes", "min") else (NARROW, 3)))
    for problem_name in problems(name):
        problem, x, w, how = convolution(problem_name)
        if case.add == "logsumexp":
            x, w = x / 8, w / 8
        if case.add == "prod":
            x = np.where(x == 0, 0, np.sign(x) * 2.0 ** np.round(x / 4))
        others, operands = beside(case, w)
        g = np.random.RandomState(3).randint(-8, 8, problem.result_shape) / 4.0
        expected = case.gradients(x, w, how, others, g)
        operands.update(x=x, w=w)
        operands.update(kept(code, problem, operands, forward(code, problem, **operands)))
        made = [(work.grad_x(code, problem), "dx", x.shape)]
        made += [(work.grad_w(code, problem, i), "dw", w.shape) for i in range(len(expected) - 1)]
        for (one, to, shape), wanted in zip(made, expected):
            (found,) = run(one, code, {to: (shape, "float32")}, g=g, **operands)
            assert close(found, wanted), (problem_name, to)


@pytest.mark.parametrize("identity", [None, 3])
def test_fold(tiled, identity):
    """A user's add, in the order of the terms, from an identity or the first term."""
    tiled(NARROW, 3)
    code = code_of(Op(lambda w, x: w - x, lambda acc, term: 0.5 * acc + term, identity, None if identity else 1))
    case = Case(lambda w, x: w - x, None, None, pad=None if identity else 1)
    for name in ("asymmetric", "one-sided"):
        problem, x, w, how = convolution(name)
        counts, terms = case.terms(x, w, how, [])[3:]
        shape = (len(x), len(w)) + terms.shape[3:]
        expected = oracle.reduced(terms.reshape(shape), counts.reshape(shape), lambda a, t: 0.5 * a + t, identity)
        assert close(forward(code, problem, x=x, w=w), expected.reshape(problem.result_shape))


def test_depthwise(tiled):
    """Several results a thread, several blocks, and positions in several parts."""
    rng, case = np.random.RandomState(0), LEFT_OUT
    for stride, dilation in ((1, 2), (2, 1)):
        problem = conv_problem(2, (2, 3, 41, 39), (3, 1, 3, 2), None, stride, ((2, 1), (0, 1)), dilation, 3)
        x, w = [rng.randint(-8, 8, shape) / 4.0 for shape in (problem.x_shape, problem.w_shape)]
        g = rng.randint(-2, 2, problem.result_shape) / 2.0
        how = (stride, ((2, 1), (0, 1)), dilation, 3)
        expected, _ = case.reduced(*case.terms(x, w, how, [])[3:])
        assert np.array_equal(forward(case.code(), problem, x=x, w=w), expected.reshape(problem.result_shape))
        wanted = case.gradients(x, w, how, [], g)
        assert len(work.grad_w(case.code(), problem).launches) == 3 - stride
        for one, name, each in zip((work.grad_x, work.grad_w), ("dx", "dw"), wanted):
            made, results = one(case.code(), problem), {name: (each.shape, "float32")}
            assert np.array_equal(run(made, case.code(), results, x=x, w=w, g=g)[0], each)


def each_tile(found):
    return sorted({tile for several in found.values() for tile in several})


#: One that is no multiple of any tile, and one whose positions are read in fours.
SEVERAL = conv_problem(1, (2, 9, 142), (67, 9, 2), None, 1, 0, 1, 1)
FOURS = matmul_problem((67, 18), (18, 284))


@pytest.mark.parametrize("tile", each_tile(tiles.FORWARD), ids=str)
def test_tiles(tiled, tile):
    """Every tile that there is, for results."""
    tiled(tile)
    rng = np.random.RandomState(0)
    for problem in [SEVERAL] + [FOURS] * (
        tile in ((64, 128, 8, 8, 8, 4), (4, 512, 8, 4, 8, 8), (128, 16, 16, 8, 4, 8))
    ):
        x, w = [rng.randint(-20, 20, shape) / 4.0 for shape in (problem.x_shape, problem.w_shape)]
        columns = x[None] if problem is FOURS else oracle.unfold(x, (2,))
        expected = abs(w.reshape(1, 67, 18, 1) - columns.reshape(-1, 1, 18, columns.shape[2])).sum(2)
        assert np.array_equal(forward(L1.code(), problem, x=x, w=w), expected.reshape(problem.result_shape))


@pytest.mark.parametrize("tile", each_tile(tiles.GRAD_X) + each_tile(tiles.GRAD_W), ids=str)
def test_tiles_of_gradients(tiled, tile):
    """Every tile that there is, for gradients."""
    tiled(tile)
    rng, how = np.random.RandomState(0), (1, ((0, 0),), 1, 1)
    x, w, g = [rng.randint(-8, 8, t) / 4.0 for t in (SEVERAL.x_shape, SEVERAL.w_shape, SEVERAL.result_shape)]
    wanted = zip(("dx", "dw"), (work.grad_x, work.grad_w), L1.gradients(x, w, how, [], g))
    for i, (name, make, expected) in enumerate(wanted):
        if tile in each_tile((tiles.GRAD_X, tiles.GRAD_W)[i]):
            results = {name: (expected.shape, "float32")}
            found = run(make(L1.code(), SEVERAL), L1.code(), results, x=x, w=w, g=g)[0]
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "dtype, add",
    [(dtype, "sum") for dtype in sorted(set(texts.DTYPES) - {"float32"})]
    + [(dtype, "max") for dtype in ("float64", "int8", "uint8")],
)
def test_dtypes(tiled, dtype, add):
    """Integers wrap in their dtype, sums are int64."""
    tiled(NARROW, 1)
    problem = convolution("asymmetric")[0]
    rng = np.random.RandomState(0)
    x, w = [rng.randint(0, 255, shape).astype(dtype) for shape in (problem.x_shape, problem.w_shape)]
    code = code_of(Op(lambda w, x: w * x + w, add), dtype)
    with np.errstate(over="ignore"):
        case = Case(lambda w, x: (w * x + w).astype(dtype), None, None, add)
        terms = case.terms(x, w, ((1, 2), ((1, 1), (2, 2)), (2, 1), 1), [])[4]
    expected = terms.sum(3, dtype="int64" if dtype != "float64" else dtype) if add == "sum" else terms.max(3)
    found = forward(code, problem, x=x, w=w)
    assert found.dtype == expected.dtype and np.array_equal(found, expected.reshape(found.shape))


def bfloat16(array):
    """Its bits, rounded to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.int64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def of_bfloat16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


HALVES = {
    "float16": (lambda t: np.asarray(t, np.float16).view(np.uint16), lambda bits: bits.view(np.float16)),
    "bfloat16": (bfloat16, of_bfloat16),
}


@pytest.mark.parametrize("dtype", sorted(HALVES))
def test_halves(tiled, dtype):
    """They are widened, added up in float32, and rounded once; gradients too."""
    tiled(NARROW, 3 if dtype == "float16" else 1)
    to, of = HALVES[dtype]
    problem, x, w, how = convolution("asymmetric")
    x, w = x * 1.01, w / 7
    code = L1.code(element=dtype)
    exact_x, exact_w = [of(to(t)).astype(np.float64) for t in (x, w)]
    expected, _ = L1.reduced(*L1.terms(exact_x, exact_w, how, [])[3:])
    found = forward(code, problem, x=to(x), w=to(w))
    assert np.array_equal(found, to(expected.reshape(found.shape).astype(np.float32)))
    g = np.random.RandomState(3).randint(-8, 8, problem.result_shape) / 4.0
    wanted = L1.gradients(exact_x, exact_w, how, [], g)
    for one, name, expected in zip((work.grad_x(code, problem), work.grad_w(code, problem)), ("dx", "dw"), wanted):
        (found,) = run(one, code, {name: (expected.shape, "uint16")}, "uint16", x=to(x), w=to(w), g=to(g))
        assert np.array_equal(found, to(expected)), name


def test_values_of_maxima(tiled):
    """NaN propagates; the first that attains a maximum, or the first NaN, is named; -1 where there is none."""
    nan, inf = float("nan"), float("inf")
    x = np.array([[1, 3, 3, 2], [nan, 5, nan, 5], [-inf, -inf, -inf, -inf], [inf, nan, 1, inf], [-inf, 1, 1, 0]]).T
    problem = matmul_problem((1, 4), x.shape)
    for splits in (1, 2):
        tiled(NARROW, splits)
        operands = {"w": np.zeros((1, 4)), "x": x}
        results = {"y": ((1, 5), "float32"), "arg": ((1, 5), "int32")}
        arg, y = run(work.forward(MAX.code(), problem, arg=True), MAX.code(), results, **operands)
        assert np.array_equal(arg, [[1, 0, 0, 1, 1]])
        assert np.allclose(y, [[3, nan, -inf, nan, 1]], 0, 0, equal_nan=True)
    far, x, w, _ = convolution("far-padding")
    results = {"y": (far.result_shape, "float32"), "arg": (far.result_shape, "int32")}
    arg, y = run(work.forward(MAX.code(), far, arg=True), MAX.code(), results, x=x, w=w)
    assert arg.min() == -1 and np.array_equal(arg < 0, y == -inf)


def test_values_of_logsumexp(tiled):
    """As torch.logsumexp has them, of terms in one part and in several."""
    nan, inf = float("nan"), float("inf")
    x = np.array(
        [[0, 0], [-inf, -inf], [inf, 1], [1, inf], [inf, inf], [-inf, 3], [3, -inf], [nan, 1], [1, nan], [99, 98]]
    ).T
    code = Case(lambda w, x: w + x, None, None, "logsumexp").code()
    for splits in (1, 2):
        tiled(Tile(32, 16, 8, 4, 4, 4), splits)
        many = np.concatenate([x, np.full((14, 10), -inf)])
        found = forward(code, matmul_problem((1, 16), many.shape), w=np.zeros((1, 16)), x=many)
        expected = [[np.log(2), -inf, inf, inf, inf, 3, 3, nan, nan, 99 + np.log1p(np.exp(-1))]]
        assert np.allclose(found, expected, 1e-6, equal_nan=True)


def test_infinite_operands(tiled):
    """A weight that meets no pixel leaves no NaN there, and an infinite gradient is infinite where it counts alone."""
    tiled(NARROW, 1)
    inf = float("inf")
    problem = conv_problem(1, (1, 1, 3), (1, 1, 3), None, 1, ((1, 1),), 1, 1)
    x, w, g = np.array([[[1, 2, 4.0]]]), np.array([[[inf, 0, 0]]]), np.array([[[1, inf, 1]]])
    for case in (L1, Case(lambda w, x: w * x, lambda w, x: w, lambda w, x: x)):
        how = (1, ((1, 1),), 1, 1)
        with np.errstate(all="ignore"):
            expected = case.gradients(x, w, how, [], g)
        operands = {"x": x, "w": w, "g": g}
        (dx,) = run(work.grad_x(case.code(), problem), case.code(), {"dx": (x.shape, "float32")}, **operands)
        (dw,) = run(work.grad_w(case.code(), problem), case.code(), {"dw": (w.shape, "float32")}, **operands)
        assert np.allclose(dx, expected[0], 0, 0, equal_nan=True) and np.allclose(dw, expected[1], 0, 0, equal_nan=True)


def test_small_products(tiled):
    """Gradients of products of which the result is 0, because a term is or because it is too small."""
    tiled(NARROW, 1)
    x = np.array([[1e-20, 1e-20, 1e-20, 1e30], [0, 2, 3, 4], [0, 0, 3, 4], [2, 3, 5, 7], [1e20, 1e20, 1e-30, 2]]).T
    problem, code, g = matmul_problem((1, 4), x.shape), PROD.code(), np.ones((1, 5))
    operands = {"w": np.ones((1, 4)), "x": x}
    results = {"saved": ((1, 5), "float32"), "arg": ((1, 5), "int32")}
    operands["arg"], operands["saved"] = run(work.kept(code, problem), code, results, **operands)
    (dx,) = run(work.grad_x(code, problem), code, {"dx": (x.shape, "float32")}, g=g, **operands)
    others = np.stack([np.delete(x, k, 0).prod(0) for k in range(4)])
    with np.errstate(over="ignore"):
        assert np.allclose(dx, others.astype(np.float32), 1e-5, 1e-45)


@pytest.mark.parametrize("name", ["l1", "max", "logsumexp"])
def test_linear(tiled, name):
    """Features that come last: forward and gradients."""
    tiled(NARROW, 3)
    case, code, rng = CASES[name], CASES[name].code(), np.random.RandomState(0)
    x, w, g = [rng.randint(-8, 8, shape) / 4.0 for shape in ((21, 35), (34, 35), (21, 34))]
    problem, how = linear_problem(x.shape, w.shape, None), (1, ((0, 0),), 1, 1)
    as_conv, w_conv = x.T[None], w[:, :, None]  # (1, K, N)
    others, operands = beside(case, w)
    expected = case.reduced(
        *case.terms(as_conv, w_conv, how, [t[:, :, None] if np.shape(t) else t for t in others])[3:]
    )[0]
    operands.update(x=x, w=w)
    y = forward(code, problem, **operands)
    assert close(y, expected.reshape(34, 21).T)
    wanted = case.gradients(as_conv, w_conv, how, [t[:, :, None] if np.shape(t) else t for t in others], g.T[None])
    operands.update(kept(code, problem, operands, y))
    (dx,) = run(work.grad_x(code, problem), code, {"dx": (x.shape, "float32")}, g=g, **operands)
    assert close(dx, wanted[0][0].T)
    for i, each in enumerate(wanted[1:]):
        (dw,) = run(work.grad_w(code, problem, i), code, {"dw": (w.shape, "float32")}, g=g, **operands)
        assert close(dw, each[:, :, 0])


@pytest.mark.parametrize(
    "shapes",
    [((34, 35), (35, 21)), ((34, 35), (35, 24)), ((3, 4, 5), (5, 6)), ((4, 5), (3, 5, 8)), ((3, 4, 5), (3, 5, 6))],
)
def test_matmul(tiled, shapes):
    """Batches of either operand or of both."""
    tiled(NARROW, 2)
    rng = np.random.RandomState(0)
    a, b = [rng.randint(-8, 8, shape) / 4.0 for shape in shapes]
    problem = matmul_problem(a.shape, b.shape)
    found = forward(MAX.code(), problem, w=a, x=b)
    assert np.array_equal(found, (a[..., :, :, None] + b[..., None, :, :]).max(-2))


def test_the_same_work(tiled):
    """Tables are the same objects as before: an executor needs to upload them once."""
    problem = convolution("plain")[0]
    assert work.forward(L1.code(), problem) is work.forward(code_of(ops.l1.replace(pad_value=2)), problem)


def test_planes_of_padding(tiled):
    """A volume of one plane, with planes of padding around it."""
    tiled(NARROW, 2)
    problem = conv_problem(3, (2, 2, 1, 3, 4), (2, 2, 1, 2, 2), None, 1, ((2, 1), (0, 0), (1, 0)), 1, 1)
    rng, how = np.random.RandomState(0), (1, ((2, 1), (0, 0), (1, 0)), 1, 1)
    x, w, g = [rng.randint(-8, 8, t) / 4.0 for t in (problem.x_shape, problem.w_shape, problem.result_shape)]
    expected, _ = LEFT_OUT.reduced(*LEFT_OUT.terms(x, w, how, [])[3:])
    assert np.array_equal(forward(LEFT_OUT.code(), problem, x=x, w=w), expected.reshape(problem.result_shape))
    (dx,) = run(work.grad_x(LEFT_OUT.code(), problem), LEFT_OUT.code(), {"dx": (x.shape, "float32")}, x=x, w=w, g=g)
    assert np.array_equal(dx, LEFT_OUT.gradients(x, w, how, [], g)[0])


WRITES = """
extern "C" __global__ void __launch_bounds__(32)
writes(const float *x, float *y, int from, int to)
{
    if (threadIdx.x == 0)
        y[to] = x[from];
}
"""


def test_what_lies_outside_is_found():
    """The helper that runs kernels sees reads and writes beside operands and buffers."""

    def launched(begin, end):
        launch = work.Launch(WRITES, "writes", (1, 1, 1), 32, ["x", "buffer", np.int32(begin), np.int32(end)])
        shim.run(work.Work([launch], {"buffer": (4, "float32")}), {"x": operand(np.zeros(4), "float32")})

    launched(3, 3)
    for end in (-1, 4):
        with pytest.raises(AssertionError, match="wrote outside buffer"):
            launched(0, end)
    x, _ = shim.guarded((4,), "float32")
    y, whole = shim.guarded((4,), "float32")
    x[...] = y[...] = 0
    launch = work.Launch(WRITES, "writes", (1, 1, 1), 32, ["x", "y", np.int32(4), np.int32(0)])
    shim.run(work.Work([launch], {}), {"x": x, "y": y})
    assert np.isnan(y[0]) and shim.is_whole(whole)


BESIDE = """
extern "C" __global__ void __launch_bounds__(32)
beside(float *x, int global, int local)
{
    __shared__ float tile[32];
    float *mine = tile;
    mine[threadIdx.x + local] = 1;
    x[threadIdx.x + global] = mine[threadIdx.x + local];
}
"""


@pytest.mark.skipif(shim.sanitizer() is None, reason="needs AddressSanitizer")
def test_addresses(tiled, monkeypatch):
    """AddressSanitizer finds nothing in each of the templates, of ragged tiles, and does find what is planted."""
    calls, plain_run = [], shim.run

    def noted(made, operands):
        calls.append((made, {name: np.copy(t) if isinstance(t, np.ndarray) else t for name, t in operands.items()}))
        plain_run(made, operands)

    monkeypatch.setattr(shim, "run", noted)
    test_gradients(tiled, "prod")
    test_gradients(tiled, "left-out")
    test_depthwise(tiled)
    test_linear(tiled, "max")
    test_tiles(tiled, Tile(64, 128, 8, 8, 8, 4))
    status, output = shim.sanitize(calls)
    assert status == 0, output
    for where, said in ((0, 1), "global-buffer-overflow"), ((1, 0), "heap-buffer-overflow"):
        launch = work.Launch(BESIDE, "beside", (1, 1, 1), 32, ["x"] + [np.int32(each) for each in where])
        status, output = shim.sanitize([(work.Work([launch], {}), {"x": np.zeros(32, np.float32)})])
        assert status and said in output
