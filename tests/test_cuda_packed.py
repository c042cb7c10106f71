"""The CUDA kernels of words of signs and of look-ups, run on the CPU by helpers/cuda_shim.py, against plain loops."""

import numpy as np
import pytest
from helpers import cuda_shim as shim
from helpers import signs as arithmetic
from helpers import tables
from helpers.problems import CONVOLUTIONS, pads
from helpers.tensors import torch

from im2col_compat import Op
from im2col_compat.codegen import symbols
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import launches, lookups, signs, texts, tiles
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem
from im2col_compat.terms.signs import DTYPES

pytestmark = pytest.mark.skipif(shim.COMPILER is None or torch is None, reason="needs g++ and torch")


@pytest.fixture
def chosen(monkeypatch):
    """A function that says from now on which tile and how many splits there are, and whether columns are packed."""

    def choose(tile=None, splits=1, packed=None):
        monkeypatch.setattr(signs, "_works", Memo(256))
        monkeypatch.setattr(lookups, "_works", Memo(256))
        if tile is not None:
            monkeypatch.setattr(tiles, "choose", lambda *args: (tile, splits if args[-1] else 1))
        if packed is not None:
            monkeypatch.setattr(signs, "_packs_columns", lambda s: packed or s.rows_of_features or s.taps == 1)

    return choose


def run(made, problem, dtype, w, x):
    operands = {}
    for name, array in (("w", w), ("x", x)):
        operands[name], _ = shim.guarded(array.shape, array.dtype)
        operands[name][...] = array
    operands["y"], whole = shim.guarded(problem.result_shape, dtype)
    shim.run(made, operands)
    assert shim.is_whole(whole)
    return operands["y"]


def problem_of(name):
    """(problem, shapes of w and x, the rest of what arithmetic takes) of one of CONVOLUTIONS."""
    shape, filters, kernel, stride, padding, dilation, groups = CONVOLUTIONS[name]
    w_shape = (filters, shape[1] // groups) + kernel
    sides = tuple(tuple(side) for side in pads(padding, kernel, dilation))
    problem = conv_problem(len(kernel), shape, w_shape, None, stride, sides, dilation, groups)
    return problem, (w_shape, shape), (stride, padding, dilation, groups)


# ---------------------------------------------------------------- signs
def products(problem, dtype, w, x):
    """The kernels' sums of products of signs."""
    return run(signs.forward(dtype, problem, True), problem, dtype if dtype[0] == "f" else "int64", w, x)


def of_signs(dtype, *shapes):
    return [arithmetic.of_all_sizes(dtype, shape, seed) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("packed", [True, False], ids=["columns", "pixels"])
def test_signs(chosen, packed):
    """Of all kinds of convolutions, from words of columns and of pixels."""
    chosen(packed=packed)
    for name in sorted(CONVOLUTIONS):
        problem, shapes, how = problem_of(name)
        w, x = of_signs("float32", *shapes)
        assert np.array_equal(products(problem, "float32", w, x), arithmetic.convolution(x, w, *how)), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_signs(chosen, dtype):
    """NaN is no number that is at least zero, -0.0 is one, and True is +1. Sums of integers are int64."""
    for packed in (True, False):
        chosen(packed=packed)
        problem, shapes, how = problem_of("asymmetric")
        w, x = of_signs(dtype, *shapes)
        assert np.array_equal(products(problem, dtype, w, x), arithmetic.convolution(x, w, *how))


@pytest.mark.parametrize("tile", signs.TILES, ids=str)
def test_tiles_of_signs(chosen, tile):
    """More filters and positions than a tile has, and no multiple of it; whole words, and parts of them; splits."""
    for packed, padding, splits in ((True, 1, 2), (False, 1, 1), (True, 0, 1), (False, 0, 3)):
        chosen(tile, splits, packed)
        shapes = (2 * 67, 37, 3, 3), (3, 2 * 37, 9, 7)
        problem = conv_problem(2, shapes[1], shapes[0], None, 1, padding, 1, 2)
        w, x = of_signs("float32", *shapes)
        found = products(problem, "float32", w, x)
        assert np.array_equal(found, arithmetic.convolution(x, w, 1, padding, 1, 2)), (packed, padding)


@pytest.mark.parametrize("packed", [True, False], ids=["columns", "pixels"])
def test_results_in_fours(chosen, packed):
    """Four neighbours that are written at once, where each row has as many."""
    chosen(signs.TILES[0], 1, packed)
    shapes = (5, 3, 3, 3), (2, 3, 6, 10)
    problem = conv_problem(2, shapes[1], shapes[0], None, 1, 1, 1, 1)
    w, x = of_signs("float32", *shapes)
    assert np.array_equal(products(problem, "float32", w, x), arithmetic.convolution(x, w, 1, 1))


@pytest.mark.parametrize("terms", [1, 31, 32, 128, 129, 160, 161, 256, 257, 400, 401, 513])
def test_numbers_of_words(chosen, terms):
    """Few words are counted one by one, more of them eight at a time."""
    chosen()
    w, x = of_signs("float64", (19, terms), (34, terms))
    expected = np.matmul(arithmetic.signs(x), arithmetic.signs(w).T)
    assert np.array_equal(products(linear_problem(x.shape, w.shape, None), "float64", w, x), expected)
    x = np.ascontiguousarray(x.T)
    assert np.array_equal(products(matmul_problem(w.shape, x.shape), "float64", w, x), expected.T)


@pytest.mark.parametrize("shapes", [((3, 4, 5), (5, 6)), ((4, 5), (3, 5, 8)), ((3, 4, 5), (3, 5, 6))])
def test_matmul_of_signs(chosen, shapes):
    """Batches of either operand or of both."""
    chosen()
    a, b = of_signs("int8", *shapes)
    found = products(matmul_problem(*shapes), "int8", a, b)
    assert np.array_equal(found, np.matmul(arithmetic.signs(a), arithmetic.signs(b)))


def test_which_words():
    """A word for each position where channels don't fill theirs. A depthwise convolution's term is as fast."""

    def packs_columns(x, w):
        made = signs.forward("float32", conv_problem(2, x, w, None, 1, 1, 1, x[1] // w[1]), False)
        return None if made is None else made.launches[0].args[2] == "inside"

    assert packs_columns((2, 16, 14, 14), (64, 16, 3, 3)) and packs_columns((2, 3, 30, 30), (64, 3, 7, 7))
    assert not packs_columns((2, 64, 14, 14), (64, 64, 3, 3)) and not packs_columns((2, 16, 14, 14), (8, 16, 3, 3))
    assert packs_columns((2, 8, 14, 14), (8, 1, 3, 3)) is None


# ---------------------------------------------------------------- look-ups
TABLES = {
    "8 x 8": ((8, 8), (True, True), "more"),
    "8 x 6": ((8, 6), (True, False), "most"),
    "4 x 4": ((4, 4), (False, True), "short"),
    "1 x 1": ((1, 1), (False, False), "byte"),
}


def codes(bits, signed, *shapes):
    w, x = tables.operands(bits, signed, shapes)
    return [t.astype("int8" if is_signed else "uint8") for t, is_signed in zip((w, x), signed)]


def looked_up(op, problem, w, x):
    """The kernels' results."""
    table, add = op.multiply, None
    if op.reduction.function is not None:
        add = symbols.trace_add(op, table.dtype, TORCH)
    code = texts.of_lookups(op, add, table.dtype)._replace(pad=op.pad_value_for(x.dtype.name))
    made = lookups.forward(code, table.on_gpu(), problem, True)
    return run(made, problem, op.result_dtype(x.dtype.name), w, x)


@pytest.mark.parametrize("pad", [None, 1])
@pytest.mark.parametrize("name", sorted(TABLES))
def test_sums(chosen, name, pad):
    """Of all kinds of convolutions, from a table in shared memory and from rows of one; exact, also beyond 32 bits."""
    bits, signed, span = TABLES[name]
    entries = tables.random_entries(bits, span)
    op = Op.from_table(entries, signed, pad_value=pad)
    for i, problem_name in enumerate(sorted(CONVOLUTIONS)):
        chosen(lookups.TILES[i % 2]._replace(depth=2), 1 + i % 3)
        problem, shapes, how = problem_of(problem_name)
        w, x = codes(bits, signed, *shapes)
        expected = tables.convolution(entries, w.astype("int64"), x.astype("int64"), *(how + (pad,)))
        assert np.array_equal(looked_up(op, problem, w, x), expected), problem_name


@pytest.mark.parametrize("tile", lookups.TILES, ids=str)
@pytest.mark.parametrize("name", ["8 x 8", "4 x 4"])
def test_tiles_of_lookups(chosen, tile, name):
    """More filters and positions than a tile has, and no multiple of it."""
    bits, signed, span = TABLES[name]
    entries = tables.random_entries(bits, span)
    op, shapes = Op.from_table(entries, signed), ((2 * 9, 3, 2, 2), (3, 2 * 3, 21, 19))
    w, x = codes(bits, signed, *shapes)
    chosen(tile._replace(depth=2) if name == "8 x 8" else tile)
    problem = conv_problem(2, shapes[1], shapes[0], None, 1, 1, 1, 2)
    expected = tables.convolution(entries, w.astype("int64"), x.astype("int64"), 1, 1, 1, 2)
    assert np.array_equal(looked_up(op, problem, w, x), expected)


@pytest.mark.parametrize("rows", [3, 140])
def test_linear_and_matmul(chosen, rows):
    """Few rows of many features, and many; the table is that of w and x all the same."""
    chosen()
    bits, signed, span = TABLES["8 x 6"]
    entries = tables.random_entries(bits, span)
    op, (w, x) = Op.from_table(entries, signed), codes(bits, signed, (21, 37), (rows, 37))
    expected = tables.product(entries, w.astype("int64"), x.astype("int64"))
    assert np.array_equal(looked_up(op, linear_problem(x.shape, w.shape, None), w, x), expected)
    x = np.ascontiguousarray(x.T)
    assert np.array_equal(looked_up(op, matmul_problem(w.shape, x.shape), w, x), expected.T)


ADDS = {
    "max": ("max", None, max),
    "min": ("min", None, min),
    "saturates": (lambda acc, term: (acc + term).clip(-50, 50), 0, lambda acc, term: min(max(acc + term, -50), 50)),
    "first": (lambda acc, term: acc - 2 * term, None, lambda acc, term: acc - 2 * term),
}


@pytest.mark.parametrize("is_float", [False, True], ids=["integers", "floats"])
@pytest.mark.parametrize("name", sorted(ADDS))
def test_adds(chosen, name, is_float):
    """Maxima, minima and functions, of integers and floats; padding left out, but by an add without an identity."""
    add, identity, in_python = ADDS[name]
    entries = tables.random_entries((4, 4), "byte") + 150
    entries = (entries / 4.0).astype("float32") if is_float else entries
    shapes = (3, 1, 2, 3), (2, 2, 5, 4)
    w, x = codes((4, 4), (True, False), (3, 2, 2, 3), shapes[1])
    for pad in (3,) + (None,) * (name != "first"):
        chosen(lookups.TILES[1]._replace(depth=2), 1 if callable(add) else 2)
        op = Op.from_table(entries, (True, False), pad_value=pad, add=add, identity=identity)
        problem = conv_problem(2, x.shape, w.shape, None, 1, 1, 1, 1)
        expected = tables.by_loops(entries, w, x, in_python, identity, 1, 1, 1, pad)
        assert np.array_equal(looked_up(op, problem, w, x), expected)


def test_no_terms(chosen):
    """What a result of no terms is: the least, or the greatest, or zero; an add without an identity is refused."""
    chosen()
    problem = conv_problem(2, (1, 1, 2, 3), (2, 1, 1, 2), None, 1, (3, 2), 1, 1)
    w, x = codes((4, 4), (False, False), (2, 1, 1, 2), (1, 1, 2, 3))
    entries = tables.random_entries((4, 4), "byte")
    for add, nothing in (("max", -(2**63)), ("min", 2**63 - 1), ("sum", 0)):
        op = Op.from_table(entries, False, pad_value=None, add=add)
        assert looked_up(op, problem, w, x)[0, 0, 0, 0] == nothing
    with pytest.raises(launches.Unservable):
        looked_up(Op.from_table(entries, False, pad_value=None, add=ADDS["first"][0]), problem, w, x)


def test_floats(chosen):
    """Sums of floats, and their order from run to run."""
    chosen(lookups.TILES[0]._replace(depth=2), 3)
    entries = np.random.RandomState(0).randn(256, 256).astype("float32")
    op, (w, x) = Op.from_table(entries, True), codes((8, 8), (True, True), (9, 5, 3, 3), (2, 5, 8, 7))
    problem = conv_problem(2, x.shape, w.shape, None, 1, 1, 1, 1)
    found = looked_up(op, problem, w, x)
    expected = tables.convolution(entries.astype("float64"), w.astype("int64"), x.astype("int64"), 1, 1)
    assert found.dtype == np.float32 and np.allclose(found, expected, 1e-5, 1e-5)
    assert np.array_equal(found, looked_up(op, problem, w, x))
