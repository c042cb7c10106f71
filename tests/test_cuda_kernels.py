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
        monkeypatch.setattr(tiles, "forward", lambda rows, positions, terms, *_: (tile, min(splits, terms)))

    return choose


def code_of(op, dtype="float32", **kwargs):
    return texts.of_expressions(op, symbols.trace(op, dtype, captures=symbols.FEW), dtype, **kwargs)


def operand(array, dtype):
    inside, _ = shim.guarded(array.shape, dtype)
    inside[...] = array
    return inside


def forward(code, problem, x, w, dtype="float32", **others):
    operands = {"x": operand(x, dtype), "w": operand(w, dtype)}
    operands.update((name, operand(t, dtype) if isinstance(t, np.ndarray) else t) for name, t in others.items())
    operands["y"], whole = shim.guarded(problem.result_shape, code.result_dtype)
    shim.run(work.forward(code, problem), operands)
    assert shim.is_whole(whole)
    return operands["y"]


def convolution(name, seed=0):
    """(problem, x, w, what oracle.terms takes of the rest) of one of CONVOLUTIONS; values of float32 that add up exactly."""
    shape, filters, kernel, stride, padding, dilation, groups = CONVOLUTIONS[name]
    dims = len(kernel)
    w_shape = (filters, shape[1] // groups) + kernel
    sides = tuple(tuple(side) for side in pads(padding, kernel, dilation))
    problem = conv_problem(dims, shape, w_shape, None, stride, sides, dilation, groups)
    rng = np.random.RandomState(seed)
    x, w = [rng.randint(-20, 20, shape) / 4.0 for shape in (shape, w_shape)]
    return problem, x, w, (stride, sides, dilation, groups)


L1 = Op(lambda w, x: abs(w - x), pad_value=2)
LEFT_OUT = Op(lambda w, x: w * x + 1, pad_value=None)


@pytest.mark.parametrize("tile, splits", [(WIDE, 1), (NARROW, 3)], ids=["wide", "narrow"])
@pytest.mark.parametrize("op, multiply", [(L1, lambda w, x: abs(w - x)), (LEFT_OUT, lambda w, x: w * x + 1)])
def test_sums(tiled, tile, splits, op, multiply):
    """Of all kinds of convolutions, with whole tiles and parts of them, and terms in several splits."""
    tiled(tile, splits)
    code = code_of(op)
    for name in sorted(CONVOLUTIONS):
        problem, x, w, how = convolution(name)
        found = forward(code, problem, x, w)
        terms, inside = oracle.terms(x, w, multiply, op.pad_value, *how)
        expected = (terms * inside).sum(2).reshape(problem.result_shape)
        assert np.array_equal(found, expected), name


def test_several_blocks(tiled):
    """More filters and positions than a tile has, and no multiple of it."""
    tiled(NARROW, 2)
    problem = conv_problem(2, (3, 5, 9, 7), (2 * 37, 5, 3, 2), None, 1, 1, 1, 1)
    rng = np.random.RandomState(0)
    x, w = [rng.randint(-20, 20, shape) / 4.0 for shape in (problem.x_shape, problem.w_shape)]
    found = forward(code_of(L1), problem, x, w)
    terms, _ = oracle.terms(x, w, lambda w, x: abs(w - x), 2, 1, ((1, 1), (1, 1)), 1, 1)
    assert np.array_equal(found, terms.sum(2).reshape(problem.result_shape))


def test_the_same_work(tiled):
    """Tables are the same objects as before: an executor needs to upload them once."""
    problem = convolution("plain")[0]
    assert work.forward(code_of(L1), problem) is work.forward(code_of(ops.l1.replace(pad_value=2)), problem)
