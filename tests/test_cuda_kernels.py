"""The CUDA kernels' texts, run on the CPU by helpers/cuda_shim.py, against plain loops."""

import numpy as np
import pytest
from helpers import cuda_shim as shim
from helpers import oracle
from helpers.problems import CONVOLUTIONS, pads

from im2col_compat import Op, ops
from im2col_compat.codegen import symbols
from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import texts, tiles, work
from im2col_compat.cuda.tiles import Tile
from im2col_compat.problem import conv_problem, product

pytestmark = pytest.mark.skipif(shim.COMPILER is None, reason="no g++")

#: Small ones, so that problems have several; they differ in which threads load what.
WIDE = Tile(16, 128, 8, 4, 8, 4)
NARROW = Tile(32, 16, 16, 4, 4, 4)


@pytest.fixture
def tiled(monkeypatch):
    """A function that says which tile and how many splits there are from now on."""

    def choose(tile, splits=1):
        monkeypatch.setattr(work, "_works", Memo(256))
        for name in ("forward", "grad_x", "grad_w"):
            monkeypatch.setattr(tiles, name, lambda *args: (tile, 1 if args[-1] is False else splits))

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
    """An op, and the same in NumPy: terms, and their derivatives by x, w and parameters (p beside w, s a number for all)."""

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
        """(weights and parameters, columns, which are in the image, which count, terms), all but the first (N, G, O, K, L)."""
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
    lambda w, x, p, s: p * sign(w - x) + s, by_p=lambda w, x, p, s: abs(w - x), by_s=lambda w, x, p, s: w + 0 * x)  # fmt: skip
MAX = Case(lambda w, x: w + x, lambda w, x: np.ones_like(w + x), lambda w, x: np.ones_like(w + x), "max", None)
MIN = Case(lambda w, x, p: p * w - x, lambda w, x, p: -np.ones_like(w + x), lambda w, x, p: p + 0 * x, "min", 1.5,
           by_p=lambda w, x, p: w + 0 * x)  # fmt: skip
PROD = Case(lambda w, x: w * x, lambda w, x: w + 0 * x, lambda w, x: x + 0 * w, "prod", 1)
LOGSUMEXP = Case(lambda w, x: w * x, lambda w, x: w + 0 * x, lambda w, x: x + 0 * w, "logsumexp", None)
CASES = {
    "l1": L1, "left-out": LEFT_OUT, "planes": PLANES, "max": MAX, "min": MIN, "prod": PROD, "logsumexp": LOGSUMEXP}  # fmt: skip


def close(found, expected, relative=3e-5):
    scale = np.abs(expected[np.isfinite(expected)]).max() if np.isfinite(expected).any() else 1
    return np.allclose(found, expected, relative, relative * scale, equal_nan=True)


def beside(case, w, seed=1):
    """(the parameters as the oracle takes them, the operands that they are)"""
    values = {"p": np.random.RandomState(seed).randint(-8, 8, w.shape) / 4.0, "s": 0.75}
    operands = {"p": ("plane0", values["p"]), "s": ("scalar0", np.float32(0.75))}
    return [values[name] for name in case.names], dict(operands[name] for name in case.names)


@pytest.mark.parametrize("tile, splits", [(WIDE, 1), (NARROW, 3)], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_results(tiled, tile, splits, name):
    """Of all kinds of convolutions, with whole tiles and parts of them, and terms in several splits."""
    tiled(tile, splits)
    case, code = CASES[name], CASES[name].code()
    for problem_name in sorted(CONVOLUTIONS):
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


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradients(tiled, name):
    """Of x, w and parameters, for all kinds of convolutions."""
    case, code = CASES[name], CASES[name].code()
    tiled(*((WIDE, 1) if name in ("planes", "min") else (NARROW, 3)))
    for problem_name in sorted(CONVOLUTIONS):
        problem, x, w, how = convolution(problem_name)
        if case.add == "logsumexp":
            x, w = x / 8, w / 8
        if case.add == "prod":
            x = np.where(x == 0, 0, np.sign(x) * 2.0 ** np.round(x / 4))
        others, operands = beside(case, w)
        g = np.random.RandomState(3).randint(-8, 8, problem.result_shape) / 4.0
        expected = case.gradients(x, w, how, others, g)
        operands.update(x=x, w=w)
        shape = problem.result_shape
        if code.reads == ("saved",):
            operands["saved"] = forward(code, problem, **operands)
        elif code.reads:
            kept = run(
                work.kept(code, problem),
                code,
                {n: (shape, {"arg": "int32"}.get(n, "float32")) for n in code.reads},
                **operands
            )
            operands.update(zip(sorted(code.reads), kept))
        made = [(work.grad_x(code, problem), "dx", x.shape)]
        made += [(work.grad_w(code, problem, i), "dw", w.shape) for i in range(len(expected) - 1)]
        for (one, to, shape), wanted in zip(made, expected):
            (found,) = run(one, code, {to: (shape, "float32")}, g=g, **operands)
            assert close(found, wanted), (problem_name, to)


def test_the_same_work(tiled):
    """Tables are the same objects as before: an executor needs to upload them once."""
    problem = convolution("plain")[0]
    assert work.forward(L1.code(), problem) is work.forward(code_of(ops.l1.replace(pad_value=2)), problem)
