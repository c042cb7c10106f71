"""Op.from_table: look-ups against NumPy's indexing, in every instruction set and by tensor operations."""

import copy
import itertools
import operator
import os
import pickle
import re
import sys
import tempfile
import warnings

import numpy as np
import pytest
from helpers import problems
from helpers.cases import each
from helpers.settings import CONVOLVE, KIND, LEVELS, everywhere, needs_library, setting
from helpers.tables import SPANS, by_loops, convolution, looked_up, operands, product, random_entries
from helpers.tensors import FLOATS, INTEGERS, KINDS, VARIABLES, dtype_of, has, kind_of, make, torch, values

from im2col_compat import Op, SlowPathWarning, conv2d, linear, matmul, use_backend
from im2col_compat.codegen import compile
from im2col_compat.codegen import template as source
from im2col_compat.terms import table_c

BITS = [(1, 1), (1, 8), (8, 1), (2, 3), (4, 4), (6, 7), (7, 6), (8, 8)]
SIGNED = list(itertools.product((False, True), repeat=2))


def tabulated(op, rows=256, columns=256):
    """The terms of an op for all pairs of operands, in the order of their bits."""
    w, x = (np.arange(size) - size // 2 * sign for size, sign in zip((rows, columns), op.multiply.signed))
    found = matmul(w[:, None], x[None], op=op)
    return np.roll(found, [-(size // 2) * sign for size, sign in zip(found.shape, op.multiply.signed)], (0, 1))


def fits(dtype, low, high):
    limits = (0, 1) if dtype == "bool" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return limits[0] <= low and high <= limits[1]


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("span", sorted(SPANS))
@pytest.mark.parametrize("signed", SIGNED, ids=str)
@pytest.mark.parametrize("bits", BITS, ids=str)
def test_tables_of_every_size(bits, signed, span):
    """Sums are exactly those of entries[w, x], for signed, unsigned and mixed operands, whatever entries span."""
    entries = random_entries(bits, span)
    op = Op.from_table(entries, signed=signed)

    def is_looked_up(rows, filters):
        w, x = operands(bits, signed, ((filters, 300), (rows, 300)))
        found = everywhere(lambda: linear(x, w, op=op))
        assert found.dtype == "int64"
        np.testing.assert_array_equal(found, product(entries, w, x))

    each(is_looked_up, [(3, 70), (70, 2)])


@pytest.mark.parametrize("span", sorted(SPANS))
@pytest.mark.parametrize("taps", [255, 256, 257, 512, 513, 1300])
def test_sums_of_the_largest(span, taps):
    """Long sums of nothing but the greatest entry, or the least, overflow nowhere."""

    def is_exact(*bits):
        entries = np.empty([2**count for count in bits], "int64")
        entries[:, ::2], entries[:, 1::2] = SPANS[span]
        op = Op.from_table(entries)
        x = np.concatenate([np.zeros((70, taps), int), np.ones((60, taps), int)])
        found = everywhere(lambda: linear(x, np.ones((2, taps), int), op=op))
        expected = np.repeat([SPANS[span][0] * taps, SPANS[span][1] * taps], [70, 60])
        np.testing.assert_array_equal(found, np.stack([expected, expected], 1))

    each(is_exact, [(8, 8), (3, 6), (2, 7)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pad", [0, 5, -7, None])
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_convolutions_of_tables(kind, problem, pad):
    """Every geometry, of any number of dimensions, padded with any operand or with nothing."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    bits, signed = (5, 4), (False, True)
    entries = random_entries(bits, "two-bytes" if pad else "byte")
    w, x = operands(bits, signed, ((filters, shape[1] // groups) + kernel, shape))
    op, others = Op.from_table(entries, signed=signed, pad_value=pad), (stride, padding, dilation, groups)
    x_, w_, bias = make(kind, x, "int16"), make(kind, w, "uint8"), np.arange(filters) - 1
    conv = CONVOLVE[len(kernel)]
    expected = convolution(entries, w, x, stride, padding, dilation, groups, pad)
    np.testing.assert_array_equal(everywhere(lambda: conv(x_, w_, None, *others, op=op)), expected)
    found = conv(x_[0], w_, make(kind, bias, "int64"), *others, op=op)
    assert kind_of(found) == kind and dtype_of(found) == "int64"
    np.testing.assert_array_equal(values(found), expected[0] + bias.reshape((-1,) + (1,) * len(kernel)))


@pytest.mark.parametrize("span", sorted(SPANS))
def test_larger_convolutions(span):
    """Many channels and positions, whose sums are of several blocks and panels."""

    def is_looked_up(bits, pad):
        signed = (True, False)
        entries = random_entries(bits, span)
        w, x = operands(bits, signed, ((6, 67, 3, 3), (2, 134, 9, 17)))
        op = Op.from_table(entries, signed=signed, pad_value=pad)
        expected = convolution(entries, w, x, (1, 2), (1, 2), 1, 2, pad)
        for isa, threads in itertools.product(LEVELS, (1, 2)):
            with setting(isa, threads):
                found = conv2d(x.astype("uint8"), w.astype("int8"), None, (1, 2), (1, 2), 1, 2, op=op)
            np.testing.assert_array_equal(found, expected, "{} {}".format(isa, threads))

    each(is_looked_up, itertools.product(((8, 8), (6, 7)), (3, None)))


@pytest.mark.parametrize("span", ["byte", "short", "more"])
@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 128, 130, 256, 257, 600])
def test_rows_and_features_in_either_role(count, span):
    """Few rows of many features, and many of few: panels are filled up, and roles turn, without a trace."""
    bits, signed = (7, 5), (True, False)
    entries = random_entries(bits, span)
    op = Op.from_table(entries, signed=signed)

    def is_looked_up(filters, rows, taps):
        w, x = operands(bits, signed, ((filters, taps), (rows, taps)))
        expected = product(entries, w, x)
        np.testing.assert_array_equal(everywhere(lambda: linear(x, w, op=op)), expected)
        np.testing.assert_array_equal(everywhere(lambda: matmul(w, x.T, op=op)), expected.T)
        np.testing.assert_array_equal(everywhere(lambda: linear(x[0], w, op=op)), expected[0])

    each(is_looked_up, [(count, 1, 37), (1, count, 37), (count, 3, 260), (3, count, 260)])


SHAPES = [
    ((3, 7), (7, 4)),
    ((2, 3, 7), (7, 4)),
    ((3, 7), (2, 7, 4)),
    ((2, 1, 3, 7), (5, 7, 4)),
    ((2, 3, 7), (7,)),
    ((7,), (7, 90)),
    ((90, 7), (7,)),
    ((2, 90, 7), (7, 1)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions(kind):
    """linear and matmul take leading dimensions and operands of one dimension, as PyTorch's do."""
    bits, signed = (4, 6), (True, False)
    entries = random_entries(bits, "more")
    op = Op.from_table(entries, signed=signed)

    def is_looked_up(a, b):
        w, x = operands(bits, signed, (a, b))
        w_, x_ = make(kind, w, "int8"), make(kind, x, "uint8")
        columns = x[:, None] if len(b) == 1 else x
        terms = looked_up(entries, (w[None] if len(a) == 1 else w)[..., None], columns[..., None, :, :])
        expected = terms.sum(-2).reshape(np.matmul(w, x).shape)
        np.testing.assert_array_equal(everywhere(lambda: matmul(w_, x_, op=op)), expected)

    each(is_looked_up, SHAPES)
    w, x = operands(bits, signed, ((4, 7), (2, 1, 3, 7)))
    expected = product(entries, w, x.reshape(6, 7)).reshape(2, 1, 3, 4)
    w_, x_ = make(kind, w), make(kind, x)
    np.testing.assert_array_equal(everywhere(lambda: linear(x_, w_, op=op)), expected)
    np.testing.assert_array_equal(everywhere(lambda: linear(x_, w_[0], op=op)), expected[..., 0])


DTYPES = [(kind, dtype) for kind in KINDS for dtype in INTEGERS + ["bool"] if has(kind, dtype)]


@pytest.mark.parametrize("kind,dtype", DTYPES)
def test_operands_of_any_integer_dtype(kind, dtype):
    """Each operand may have any, bools being 0 and 1, with a table that has an entry for it."""

    def is_looked_up(bits, signed):
        w, x = operands(bits, signed, ((70, 9), (5, 9)))
        if not fits(dtype, min(w.min(), x.min()), max(w.max(), x.max())):
            return
        entries = random_entries(bits, "two-bytes")
        op = Op.from_table(entries, signed=signed)
        for dtypes in ((dtype, dtype), ("int64", dtype), (dtype, "int8")):
            w_, x_ = (make(kind, array, name) for array, name in zip((w, x), dtypes))
            for path in ("auto", "slices"):
                with use_backend(path):
                    found = linear(x_, w_, op=op)
                assert dtype_of(found) == "int64"
                np.testing.assert_array_equal(values(found), product(entries, w, x), "{} {}".format(dtypes, path))

    each(is_looked_up, [((1, 1), (False, False)), ((6, 7), (False, False)), ((6, 7), (True, True))])


@pytest.mark.parametrize("signed", SIGNED, ids=str)
def test_exact_products_are_the_convolution_of_integers(signed):
    """A table of w * x gives the convolution of int64."""
    ranges = [np.arange(256) if not sign else np.r_[0:128, -128:0] for sign in signed]
    op = Op.from_table(np.outer(*ranges), signed=signed)
    w, x = operands((8, 8), signed, ((4, 3, 3, 2), (2, 6, 9, 8)))
    found = everywhere(lambda: conv2d(make(KIND, x), make(KIND, w), None, (2, 1), 1, 1, 2, op=op))
    expected = conv2d(x, w, None, (2, 1), 1, 1, 2, op="dot")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tabulated(op), np.outer(*ranges))


@pytest.mark.parametrize("kind", KINDS)
def test_operands_of_any_strides(kind):
    """Parts of other arrays, and transposed ones, are looked up as what they show."""
    entries = random_entries((5, 6), "short")
    w, x = operands((5, 6), (False, False), ((9, 14), (14, 80)))
    op = Op.from_table(entries)

    def is_looked_up(dtype):
        w_, x_ = make(kind, w, dtype), make(kind, x, dtype)
        found = everywhere(lambda: linear((x_.T if kind == "numpy" else x_.t())[1::2, ::2], w_[:, ::2], op=op))
        np.testing.assert_array_equal(found, product(entries, w[:, ::2], x.T[1::2, ::2]))

    each(is_looked_up, ["uint8", "int32"])


def test_empty_operands():
    """No images give no results, no terms give zeros."""
    op = Op.from_table(np.arange(4).reshape(2, 2) + 3)
    assert conv2d(np.zeros((0, 2, 5, 5), "int8"), np.zeros((3, 2, 3, 3), "int8"), op=op).shape == (0, 3, 3, 3)
    found = linear(np.zeros((2, 0), int), np.zeros((3, 0), int), op=op)
    assert found.dtype == "int64" and found.tolist() == [[0, 0, 0], [0, 0, 0]]


# ---------------------------------------------------------------- other reductions, and floats


def saturating(acc, term):
    return (acc + term).clip(-(2**15), 2**15 - 1)


def wrapping(acc, term):
    """An accumulator of 12 bits."""
    return ((acc + term + 2048) & 4095) - 2048


#: add, identity, and the same for the loops, from what they start.
ADDS = {
    "max": ("max", None, max, None),
    "min": ("min", None, min, None),
    "saturating": (saturating, 0, lambda acc, term: max(-(2**15), min(2**15 - 1, acc + term)), 0),
    "from the first": (saturating, None, lambda acc, term: max(-(2**15), min(2**15 - 1, acc + term)), None),
    "wrapping": (wrapping, 5, wrapping, 5),
    "of the user": (lambda acc, term: acc - term, 7, operator.sub, 7),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pad", [0, -3, None])
@pytest.mark.parametrize("name", sorted(ADDS))
def test_other_reductions(name, pad, kind):
    """max, min and an ordered fold of integers, padded or not, by kernels and by tensor operations: loops' results."""
    add, identity, plain, start = ADDS[name]
    entries = random_entries((5, 4), "short")
    w, x = operands((5, 4), (False, True), ((6, 2, 3, 2), (2, 4, 5, 7)))
    op = Op.from_table(entries, signed=(False, True), pad_value=pad, add=add, identity=identity)
    found = everywhere(lambda: conv2d(make(kind, x, "int8"), make(kind, w, "uint8"), None, 2, 1, 1, 2, op=op))
    assert found.dtype == "int64"
    np.testing.assert_array_equal(found, by_loops(entries, w, x, plain, start, 2, 1, 2, pad))
    assert Op.from_table(entries).replace(add=add, identity=identity).add == add


@needs_library
@pytest.mark.parametrize("name", ["max", "min", "saturating", "from the first"])
@pytest.mark.parametrize("count", [1, 63, 130])
def test_other_reductions_of_many_terms(c, name, count):
    """More terms than a block has, in order, and few rows of many features: all in C."""
    add, identity, plain, start = ADDS[name]
    entries = random_entries((8, 8), "byte")
    op = Op.from_table(entries, signed=True, add=add, identity=identity)
    assert "C kernels" in op.explain("int8") and "looked up" in op.explain("int8")
    w, x = operands((8, 8), (True, True), ((count, 700), (3, 700)))
    terms, expected = looked_up(entries, w, x[:, None]), np.empty((3, count), "int64")
    for place in np.ndindex(*expected.shape):
        acc = start
        for term in terms[place]:
            acc = term if acc is None else plain(acc, term)
        expected[place] = acc
    np.testing.assert_array_equal(everywhere(lambda: linear(x, w, op=op)), expected)
    np.testing.assert_array_equal(everywhere(lambda: matmul(w, x.T, op=op)), expected.T)


def test_maxima_of_nothing():
    """A result that no tap reaches is a bound of int64, or an infinity; without an identity it is an error."""
    x, w = np.ones((1, 1, 1, 1), "int8"), np.ones((1, 1, 1, 1), "int8")

    def is_bound(entries, add, expected):
        op = Op.from_table(entries, add=add, pad_value=None)
        found = everywhere(lambda: conv2d(x, w, padding=1, op=op))
        np.testing.assert_array_equal(found[0, 0, 0], [expected] * 3)
        assert found[0, 0, 1, 1] == entries[1, 1]

    cases = [
        (TWO - 9, "max", -(2**63)),
        (TWO, "min", 2**63 - 1),
        (TWO / 2.0, "max", -np.inf),
        (TWO / 2.0, "min", np.inf),
    ]
    each(is_bound, cases)
    with pytest.raises(RuntimeError, match="no term"):
        conv2d(x, w, padding=1, op=Op.from_table(TWO, add=saturating, pad_value=None))


@needs_library
def test_adds_that_are_compiled(c):
    """One compilation serves all tables, and captured numbers are read at each call; what can't be traced is slow."""
    bound = 10

    def add(acc, term):
        return (acc + term).clip(-bound, bound)

    x, w = np.ones((1, 600), "int8"), np.ones((1, 600), "int8")
    for step in (4, 7):
        op = Op.from_table(np.full((2, 2), step), add=add, identity=0)
        for bound in (10, 100, 1000, 10**6):
            assert everywhere(lambda: linear(x, w, op=op)) == min(bound, 600 * step)
    branches = Op.from_table(np.full((2, 2), 3), add=lambda acc, term: acc + term if acc.sum() < 9**9 else acc)
    assert "tensor operations" in branches.explain("int8") and "add: " in branches.explain("int8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert (linear(np.ones((2000, 60), "int8"), np.ones((20, 60), "int8"), op=branches) == 180).all()
    assert [warning.category for warning in said] == [SlowPathWarning]


@pytest.mark.parametrize("kind", KINDS)
def test_adds_of_arrays(kind):
    """An add that only NumPy's arrays understand serves tensors too."""
    entries = random_entries((3, 3), "byte")
    w, x = operands((3, 3), (False, False), ((2, 2, 2, 2), (1, 2, 4, 3)))

    def add(acc, term):
        return np.maximum(np.negative(acc), term).astype(np.int64)

    op = Op.from_table(entries, add=add)
    found = everywhere(lambda: conv2d(make(kind, x, "int8"), make(kind, w, "int8"), op=op))
    np.testing.assert_array_equal(found, by_loops(entries, w, x, lambda acc, term: max(-acc, term)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pad", [0, 3, None])
@pytest.mark.parametrize("add", ["sum", "max", "min", saturating])
def test_tables_of_floats(add, pad, kind):
    """float32 entries give float32 results; max, min and folds are exact, sums as good as those of floats."""
    entries = np.random.RandomState(0).randn(16, 32).astype("float32") * 20000
    w, x = operands((4, 5), (True, False), ((6, 2, 3, 2), (2, 4, 5, 7)))
    identity = 0 if callable(add) else None
    op = Op.from_table(entries, signed=(True, False), pad_value=pad, add=add, identity=identity)

    def call():
        return conv2d(make(kind, x, "uint8"), make(kind, w, "int8"), None, 2, 1, 1, 2, op=op)

    if add == "sum":
        expected = by_loops(entries.astype("float64"), w, x, operator.add, 0, 2, 1, 2, pad)
        found = values(call())
        with use_backend("slices"):
            slow = values(call())
        assert found.dtype == slow.dtype == "float32"
        for result in (found, slow):
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=0.1)
        for isa, threads in itertools.product(LEVELS, (1, 3)):
            with setting(isa, threads):
                np.testing.assert_array_equal(values(call()), found, "{} {}".format(isa, threads))
        return

    def plain(acc, term):
        return {"max": max, "min": min}[add](acc, term) if identity is None else np.float32(saturating(acc, term))

    expected = by_loops(entries, w, x, plain, None if identity is None else np.float32(0), 2, 1, 2, pad)
    found = everywhere(call)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, expected)


def test_long_sums_of_floats():
    """Sums of floats go in blocks: 40000 terms of 1/10 are 4000 to a few parts in a million."""
    op = Op.from_table(np.full((2, 2), 0.1))
    ones = np.ones((3, 40000), "int8")
    np.testing.assert_allclose(linear(ones, ones, op=op), 4000, rtol=5e-6)
    with use_backend("slices"):
        np.testing.assert_allclose(linear(ones, ones, op=op), 4000, rtol=5e-6)


@pytest.mark.parametrize("kind,dtype", [(kind, name) for kind in KINDS for name in FLOATS if has(kind, name)])
def test_floats_of_any_dtype(kind, dtype):
    """Arrays and tensors of any float dtype are tables of float32."""
    entries = np.array([[0.5, -2], [1024, 0]])
    op = Op.from_table(make(kind, entries, dtype))
    assert op.multiply.dtype == "float32" and op.multiply.entries.tolist() == entries.tolist()


def test_floats_that_are_no_numbers():
    """NaN is in each sum, maximum and minimum that meets it; infinities are what they are."""
    entries = np.array([[1, np.nan], [-np.inf, 2.5]])
    x, w = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 1]]), np.array([[0, 0, 0], [0, 1, 0]])

    def is_found(add, expected):
        found = everywhere(lambda: linear(x, w, op=Op.from_table(entries, add=add)))
        np.testing.assert_array_equal(found, np.array(expected, "float32"))

    nan = np.nan
    each(is_found, [("sum", [[3, -np.inf], [nan, 4.5], [nan, nan]]), ("max", [[1, 1], [nan, 2.5], [nan, nan]])])
    is_found("min", [[1, -np.inf], [nan, 1], [nan, nan]])
    op = Op.from_table(entries)
    assert op.multiply == pickle.loads(pickle.dumps(op)).multiply != Op.from_table(np.zeros((2, 2))).multiply
    assert Op.from_table(TWO).multiply != Op.from_table(TWO * 1.0).multiply
    assert "table[uint1, uint1] of float32" in repr(op)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_floats_have_a_bias():
    """A bias of floats is added to results of floats."""
    op = Op.from_table(TWO / 4.0)
    x, w = make("tensor", np.ones((1, 1, 2, 2)), "int8"), make("tensor", np.ones((2, 1, 1, 1)), "int8")
    found = conv2d(x, w, make("tensor", np.array([1, -2.0]), "float32"), op=op)
    assert dtype_of(found) == "float32" and values(found)[0, :, 0, 0].tolist() == [1.25, -1.75]


def test_no_terms():
    """Without terms a sum of floats is 0, a maximum minus infinity, and a fold its identity."""
    x, w = np.zeros((2, 0), int), np.zeros((3, 0), int)

    def is_found(add, identity, expected):
        for kind in ["numpy"] if VARIABLES else KINDS:  # 0.3 has no empty tensors
            op = Op.from_table(TWO / 2.0, add=add, identity=identity)
            found = values(linear(make(kind, x, "int8"), make(kind, w, "int8"), op=op))
            assert found.dtype == "float32" and (found == expected).all() and found.shape == (2, 3)

    each(is_found, [("sum", None, 0), ("max", None, -np.inf), ("min", None, np.inf), (saturating, 3, 3)])


# ---------------------------------------------------------------- what a table is made of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_arrays_and_tensors(kind, dtype):
    """An array or tensor of any integer dtype, which may change afterwards."""
    entries = np.random.RandomState(0).randint(0, 200, (16, 64))
    given = make(kind, entries, dtype)
    op = Op.from_table(given)
    given[0, 0] = 99
    np.testing.assert_array_equal(tabulated(op, 16, 64), entries)
    np.testing.assert_array_equal(tabulated(Op.from_table(entries[:2, :2].tolist()), 2, 2), entries[:2, :2])
    np.testing.assert_array_equal(tabulated(Op.from_table(entries % 2 == 1), 16, 64), entries % 2)


def test_files(tmpdir):
    """.npy, and text whose numbers are separated by commas, semicolons or blanks; of paths too."""
    entries = random_entries((3, 4), "most")
    np.save(str(tmpdir.join("table.npy")), entries.astype("int32"))
    for name, separator in (
        ("table.csv", ","),
        ("spaced.csv", ", "),
        ("half.csv", ";"),
        ("a.txt", " "),
        ("b.dat", "\t"),
    ):
        lines = [separator.join(str(entry) for entry in row) for row in entries]
        tmpdir.join(name).write("\n" + "\n".join(lines) + "\n\n")

    def is_read(path):
        for given in (str(path), path) if hasattr(str, "isidentifier") else (str(path),):
            op = Op.from_table(given, signed=(False, True))
            np.testing.assert_array_equal(tabulated(op, 8, 16), entries)

    each(is_read, tmpdir.listdir())
    assert Op.from_table(str(tmpdir.join("a.txt")), bits=(3, 4)).multiply.bits == (3, 4)


def test_files_of_floats(tmpdir):
    """Text and .npy of floats are tables of floats, in which integers are floats too."""
    entries = np.array([[0.5, -1e30, 3], [np.inf, 7, 1e-3]]).repeat(2, 1)[:, :4].astype("float32")
    np.save(str(tmpdir.join("table.npy")), entries.astype("float64"))
    tmpdir.join("table.csv").write("\n".join(", ".join(str(float(entry)) for entry in row) for row in entries) + "\n")
    tmpdir.join("mixed.csv").write("0.5 0.5 -1e30 -1e30\ninf Infinity 7 7\n")
    for path in tmpdir.listdir():
        np.testing.assert_array_equal(tabulated(Op.from_table(str(path)), 2, 4), entries)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("signed", [False, True])
def test_raw_files(tmpdir, signed, width):
    """.bin: nothing but entries, as tf-approximate writes them; the name says what operands are, or signed= does."""
    values = np.roll(np.arange(256) - 128 * signed, -128 * signed)
    entries = np.outer(values, values) & ~7
    letter, kind = "s" if signed else "u", "<{}{}".format("i" if signed else "u", width)
    named, unnamed = tmpdir.join("mul8{}_1KVB.bin".format(letter)), tmpdir.join("table.bin")
    for path in (named, unnamed):
        path.write_binary(entries.astype(kind).tobytes())
    for op in (Op.from_table(str(named)), Op.from_table(str(unnamed), signed=signed)):
        assert op.multiply.signed == (signed, signed) and op.multiply.bits == (8, 8)
        np.testing.assert_array_equal(tabulated(op), entries)
    assert Op.from_table(str(named), signed=False).multiply.signed == (False, False)
    with pytest.raises(ValueError, match=r"(?s)table\.bin.*signed="):
        Op.from_table(str(unnamed))
    small = tmpdir.join("mul3x4{}.bin".format(letter))
    small.write_binary(entries[:8, :16].astype(kind).tobytes())
    np.testing.assert_array_equal(Op.from_table(str(small)).multiply.entries, entries[:8, :16])
    with pytest.raises(ValueError, match=r"mul3x4..bin.*32 entries.*\(2, 3\).*{} bytes".format(128 * width)):
        Op.from_table(str(small), bits=(2, 3))


def test_names_of_files(tmpdir):
    """A file's name says whether operands are signed, whatever the file has; signed= says it again."""

    def is_told(name, arguments, signed):
        path = str(tmpdir.join(name))
        if name.endswith(".npy"):
            np.save(path, TWO)
        else:
            tmpdir.join(name).write("1 0\n0 1\n")
        assert Op.from_table(path, **arguments).multiply.signed == signed

    both, neither = (True, True), (False, False)
    cases = [
        ("mul1s_a.csv", {}, both),
        ("mul1s.npy", {}, both),
        ("mul1u_a.txt", {}, neither),
        ("mul1smart.csv", {}, neither),
    ]
    cases += [("mul1s_b.csv", dict(signed=(True, False)), (True, False)), ("table.npy", {}, neither)]
    each(is_told, cases)


@pytest.mark.parametrize("signed", SIGNED, ids=str)
def test_functions(signed):
    """A Python function is called with ints of the operands' ranges; NumPy's integers and bools may be returned."""
    calls = []

    def multiply(w, x):
        calls.append((w, x))
        return w * x - 3 * w

    op = Op.from_table(multiply, signed=signed, bits=(3, 2))
    ranges = [range(-size // 2, size // 2) if sign else range(size) for size, sign in zip((8, 4), signed)]
    assert sorted(calls) == sorted(itertools.product(*ranges)) and all(type(v) is int for pair in calls for v in pair)
    w, x = (np.array(values) for values in ranges)
    np.testing.assert_array_equal(matmul(w[:, None], x[None], op=op), w[:, None] * x - 3 * w[:, None])
    assert tabulated(Op.from_table(lambda w, x: w / 4.0 if x else 3, bits=2), 4, 4).tolist()[1] == [3.0] + [0.25] * 3
    of_numpy = Op.from_table(lambda w, x: np.int16(w) < np.int16(x), bits=2)
    np.testing.assert_array_equal(tabulated(of_numpy, 4, 4), np.arange(4)[:, None] < np.arange(4))
    assert Op.from_table(lambda w, x: w | x).multiply.bits == (8, 8)


def test_ops_of_tables_are_copied_and_shown():
    """Pickling and copying keep the table, also after it was used; repr has operands and settings; explain the path."""
    entries = random_entries((8, 5), "short")
    op = Op.from_table(entries, signed=(True, False), pad_value=None)
    assert re.match(r"Op\(table\[int8, uint5\], .*pad_value=None", repr(op)), repr(op)
    w, x = operands((8, 5), (True, False), ((3, 4, 2, 2), (1, 4, 5, 6)))
    expected = convolution(entries, w, x, 1, 1, 1, 1, None)

    def is_the_same(other):
        np.testing.assert_array_equal(conv2d(x, w, padding=1, op=other), expected)
        assert pickle.loads(pickle.dumps(other, 2)).multiply == op.multiply and repr(other) == repr(op)

    each(is_the_same, [op, pickle.loads(pickle.dumps(op)), copy.deepcopy(op), op.replace()])
    assert op.multiply != Op.from_table(entries).multiply
    assert op.multiply != Op.from_table(entries + 1, signed=(True, False)).multiply


@needs_library
def test_explain():
    """How a table is looked up, at each instruction set; not where an engine is forced."""
    op = Op.from_table(np.eye(4, dtype=int))

    def is_explained(isa):
        with setting(isa, 1):
            text = op.explain("int8")
            assert "table[uint2, uint2]" in text and "looked up" in text and isa in text

    each(is_explained, LEVELS)
    with use_backend("slices"):
        assert "tensor operations" in op.explain("int8") and "slices" in op.explain("int8")


# ---------------------------------------------------------------- C


@pytest.fixture
def c(monkeypatch):
    monkeypatch.setenv("IM2COL_COMPAT_QUIET", "1")
    try:
        compile.library("int im2col_compat_nothing;\n", source.FLAGS, "nothing")
    except compile.CannotCompile as error:
        pytest.skip(str(error))


BYTES = np.arange(256)
SIGNED_BYTES = np.r_[0:128, -128:0]
NIBBLES = np.r_[0:8, -8:0]
OCTAL = np.r_[0:4, -4:0]

#: C source, arguments, what operands are, and the table.
C = {
    "of bytes": (
        "uint16_t times(uint8_t w, uint8_t x) { return w * x & ~7; }",
        {},
        "uint8, uint8",
        np.outer(BYTES, BYTES) & ~7,
    ),
    "of signed bytes": (
        "static int16_t times(const int8_t w, const int8_t x)\n{\n    return w * x - w;\n}\n",
        {},
        "int8, int8",
        np.outer(SIGNED_BYTES, SIGNED_BYTES - 1),
    ),
    "of both": (
        "int f(signed char w, unsigned char x) { return w - 2 * x; }",
        {},
        "int8, uint8",
        np.subtract.outer(SIGNED_BYTES, 2 * BYTES),
    ),
    "of ints": (
        "int f(int w, int x) { return w * x + 1; }",
        dict(signed=False),
        "uint8, uint8",
        np.outer(BYTES, BYTES) + 1,
    ),
    "of ints that are signed": (
        "int f(int w, int x) { return w * x + 1; }",
        dict(signed=True, bits=4),
        "int4, int4",
        np.outer(NIBBLES, NIBBLES) + 1,
    ),
    "of bits that are said": (
        "unsigned f(unsigned w, unsigned x) { return w ^ x; }",
        dict(bits=(3, 4)),
        "uint3, uint4",
        np.bitwise_xor.outer(BYTES[:8], BYTES[:16]),
    ),
    "unsigned by name": (
        "uint64_t mul8u_1JFF(const uint64_t B, const uint64_t A) { return B * A + 2 * B; }",
        {},
        "uint8, uint8",
        np.outer(BYTES, BYTES + 2),
    ),
    "signed by name": (
        "int32_t mul8s_1KVB(int32_t a, int32_t b) { return a * b - b; }",
        {},
        "int8, int8",
        np.outer(SIGNED_BYTES - 1, SIGNED_BYTES),
    ),
    "unsigned products of signed": (
        "uint16_t mul8s_1L2H(uint8_t A, uint8_t B) { return (uint16_t)((int8_t)A * (int8_t)B); }",
        {},
        "int8, int8",
        np.outer(SIGNED_BYTES, SIGNED_BYTES),
    ),
    "unsigned products in wide types": (
        "uint64_t mul4s_x(uint64_t a, uint64_t b)\n"
        "{\n    int p = (a & 8 ? (int)a - 16 : (int)a) * (b & 8 ? (int)b - 16 : (int)b);\n    return p & 255;\n}\n",
        {},
        "int4, int4",
        np.outer(NIBBLES, NIBBLES),
    ),
    "bits by name": (
        "uint8_t mul4u_x(uint8_t a, uint8_t b) { return a * b; }",
        {},
        "uint4, uint4",
        np.outer(BYTES[:16], BYTES[:16]),
    ),
    "two bits by name": (
        "unsigned int mul7x4u(unsigned int a, unsigned int b) { return 5 * a + b; }",
        {},
        "uint7, uint4",
        np.add.outer(5 * BYTES[:128], BYTES[:16]),
    ),
    "a table": (
        "static const int16_t lut[4][8] = {{0, 1, 2, -3, 4, 5, 6, 7}, {-1000, 8}, /* {9} */ {1}};",
        dict(signed=False),
        "uint2, uint3",
        np.array([[0, 1, 2, -3, 4, 5, 6, 7], [-1000, 8] + [0] * 6, [1] + [0] * 7, [0] * 8]),
    ),
    "a signed table": (
        "const int mul2s_lut[4][4] = { { 1, 2 }, { 3 }, { 0 }, { -7, 0, 0, 9 } };",
        {},
        "int2, int2",
        np.array([[1, 2, 0, 0], [3, 0, 0, 0], [0] * 4, [-7, 0, 0, 9]]),
    ),
    "one of several": (
        "#define ONE 1\n// int g(int w, int x) { }\nstatic int more(int w, int x) { return w + x; }\n"
        "int f(int w, int x) { return more(w, x) + ONE; }",
        dict(name="f", signed=False),
        "uint8, uint8",
        np.add.outer(BYTES, BYTES) + 1,
    ),
    "of floats": (
        "static float f(int8_t w, uint8_t x) { return w * 0.5f - x; }",
        {},
        "int8, uint8",
        SIGNED_BYTES[:, None] * 0.5 - BYTES,
    ),
    "of doubles": (
        "double mul3s_log(int w, int x) { return w * x == 6 ? 1e-3 : -(double)x; }",
        {},
        "int3, int3",
        np.where(np.outer(OCTAL, OCTAL) == 6, np.float32(1e-3), -OCTAL),
    ),
    "a table of floats": (
        "const float lut[2][4] = {{0.5, -1, 1e30f}, {0}};",
        dict(signed=(True, False)),
        "int1, uint2",
        np.array([[0.5, -1, np.float32(1e30), 0], [0, 0, 0, 0]]),
    ),
}


@pytest.mark.parametrize("case", sorted(C))
def test_c_source(c, case):
    """Functions and tables as they are published: what operands are is said by types, names or arguments."""
    text, arguments, kinds, expected = C[case]
    op = Op.from_table(text, **arguments)
    assert "table[{}]{}".format(kinds, " of float32" if expected.dtype == "float64" else "") in repr(op)
    np.testing.assert_array_equal(tabulated(op, *expected.shape), expected)


def test_c_files(c, tmpdir):
    """.c and .h, with what lies beside them; the file's name says which function, or name= does."""
    tmpdir.join("offset.h").write("#define OFFSET 3\n")
    text = '#include "offset.h"\nint mul2u_a(int w, int x) { return w * x + OFFSET; }\n'
    tmpdir.join("one.c").write(text)
    tmpdir.join("mul2u_b.c").write(text + "int mul2u_b(int w, int x) { return w + x + OFFSET; }\n")
    tmpdir.join("lut.h").write(
        "#ifndef LUT\n#define LUT\nstatic const unsigned char lut[2][2] = {{1, 2}, {3, 255}};\n#endif\n"
    )
    tmpdir.join("mul2s_c.c").write("int product(int w, int x) { return w * x; }\n")
    tmpdir.join("mul2s_1L2H.h").write("const int16_t lut [4][4] = {{1, 2}, {0}, {-5}, {0, 0, 0, 3}};\n")
    two = np.arange(4)

    def is_read(name, arguments, expected):
        found = Op.from_table(str(tmpdir.join(name)), **arguments)
        np.testing.assert_array_equal(tabulated(found, *expected.shape), expected)

    cases = [
        ("one.c", {}, np.outer(two, two) + 3),
        ("mul2s_c.c", {}, np.roll(np.roll(np.outer(two - 2, two - 2), 2, 0), 2, 1)),
        ("mul2s_1L2H.h", {}, np.array([[1, 2, 0, 0], [0, 0, 0, 0], [-5, 0, 0, 0], [0, 0, 0, 3]])),
        ("mul2u_b.c", {}, np.add.outer(two, two) + 3),
        ("mul2u_b.c", dict(name="mul2u_a"), np.outer(two, two) + 3),
        ("lut.h", dict(signed=False), np.array([[1, 2], [3, 255]])),
    ]
    each(is_read, cases)


def test_headers_that_change(c, tmpdir, monkeypatch):
    """A table is that of the headers as they are now, beside the file or where the compiler's environment has them."""
    two = np.arange(4)
    for header in ("deep.h", "one/found.h", "two/found.h"):
        tmpdir.join(header).write("#define OFFSET 3\n", ensure=True)
    tmpdir.join("near.h").write('#include "deep.h"\n')
    tmpdir.join("mul2u_c.c").write('#include "near.h"\nint mul2u_c(int w, int x) { return w * x + OFFSET; }\n')
    tmpdir.join("two/found.h").write("#define OFFSET 5\n")
    found = "#include <found.h>\nint mul2u_d(int w, int x) { return w * x + OFFSET; }\n"

    def offset(table):
        entries = tabulated(Op.from_table(table, bits=2), 4, 4)
        np.testing.assert_array_equal(entries - entries[0, 0], np.outer(two, two))
        return entries[0, 0]

    assert offset(str(tmpdir.join("mul2u_c.c"))) == 3
    tmpdir.join("deep.h").write("#define OFFSET 4\n")
    assert offset(str(tmpdir.join("mul2u_c.c"))) == 4
    for folder, expected in (("one", 3), ("two", 5), ("one", 3)):
        monkeypatch.setenv("CPATH", str(tmpdir.join(folder)))
        assert offset(found) == expected


@pytest.mark.parametrize(
    "text,arguments,error,message",
    [
        ("int f(int w, int x) { return nonesuch(w); }", dict(signed=False), RuntimeError, "nonesuch"),
        ("int f(int w, int x) { return w; }", {}, ValueError, "operands of f in the C source.*signed="),
        ("int f(int8_t w, int x) { return w; }", {}, ValueError, "operands of f.*signed="),
        ("const uint16_t lut[4][4] = {{0}};", {}, ValueError, "operands of lut.*signed="),
        (
            "int f(int w, int x) { return w; } int g(int w, int x) { return x; }",
            {},
            ValueError,
            r"name.*\['f', 'g'\].*None",
        ),
        ("int f(int w, int x) { return w; }", dict(name="g"), ValueError, r"name.*\['f'\].*'g'"),
        ("int f(int w) { return w; }", {}, ValueError, r"name.*\[\]"),
        ("int mul12u_x(int w, int x) { return w; }", {}, ValueError, "8 bits.*mul12u_x.*12"),
        ("const int lut[3][4] = {{0}};", dict(signed=False), ValueError, r"rows.*\(3, 4\)"),
        ("int64_t mul8u(int w, int x) { return (int64_t)w << 40; }", {}, ValueError, "entries.*{}".format(255 * 2**40)),
        ("double mul8u(int w, int x) { return 1e300 * w; }", {}, ValueError, "entries.*float32"),
    ],
)
def test_wrong_c(c, text, arguments, error, message):
    """What isn't a function of two integers or a table, or doesn't compile, is an error that says what is wrong."""
    with pytest.raises(error) as info:
        Op.from_table(text, **arguments)
    assert re.search(message, str(info.value), re.DOTALL), str(info.value)


@pytest.mark.parametrize(
    "text,message",
    [
        ("#include <stdlib.h>\nint f(int w, int x) { if (w == 2) exit(0); return w; }", "ended its process.*exit"),
        ("#include <stdlib.h>\nint f(int w, int x) { if (w == 2) exit(3); return w; }", "ended with 3"),
        ("#include <stdlib.h>\nint f(int w, int x) { if (w == 2) abort(); return w; }", "ended with -6"),
    ],
)
def test_c_that_ends_its_process(c, text, message):
    """C that calls exit or abort is an error that says so."""
    with pytest.raises(RuntimeError) as info:
        Op.from_table(text, bits=2, signed=False)
    assert re.search(message, str(info.value), re.DOTALL), str(info.value)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells how much memory is in use")
def test_c_that_takes_memory(c):
    """C gets no more than a bound. What it makes of that is its own affair; the error says what the bound is."""
    take = """
        #include <stdlib.h>
        int f(int w, int x)
        {
            volatile char *taken = malloc((size_t)%d << 20);
            taken[1] = 3;
            const int result = taken[1] * w + x;
            free((void *)taken);
            return result;
        }
        """
    most = table_c.MOST_MEMORY >> 20
    two = np.arange(4)
    found = tabulated(Op.from_table(take % (most // 2), name="f", bits=2, signed=False), 4, 4)
    np.testing.assert_array_equal(found, np.add.outer(3 * two, two))
    with pytest.raises(RuntimeError) as info:
        Op.from_table(take % (most + 1), name="f", bits=2, signed=False)
    assert "in {} MiB of memory at most, ended with -".format(most) in str(info.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="not a Unix")
def test_c_without_a_directory_for_temporary_files(c, tmpdir, monkeypatch):
    """Where others could move what is in it, C is tabulated below the cache directory, and nothing stays."""
    tmpdir.join("cache").mkdir()
    os.chmod(str(tmpdir.join("cache")), 0o700)
    tmpdir.join("open").mkdir()
    os.chmod(str(tmpdir.join("open")), 0o777)
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", str(tmpdir.join("cache")))
    monkeypatch.setattr(tempfile, "tempdir", str(tmpdir.join("open")))
    text = "int f(int w, int x) { return 5 * w + x; }"
    found = tabulated(Op.from_table(text, bits=2, signed=False), 4, 4)
    np.testing.assert_array_equal(found, np.add.outer(5 * np.arange(4), np.arange(4)))
    assert tmpdir.join("open").listdir() == [] and len(tmpdir.join("cache").listdir()) == 1
    os.chmod(str(tmpdir.join("cache")), 0o777)
    with pytest.raises(RuntimeError) as info:
        Op.from_table(text, bits=2, signed=False)
    assert "isn't private" in str(info.value)


# ---------------------------------------------------------------- errors

TWO = np.eye(2, dtype=int)


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        ((np.zeros((3, 4), int),), ValueError, r"\(3, 4\)"),
        ((np.zeros((2, 512), int),), ValueError, r"\(2, 512\)"),
        ((np.zeros((1, 2), int),), ValueError, r"\(1, 2\)"),
        ((np.zeros(4, int),), ValueError, r"\(4,\)"),
        ((np.zeros((2, 2, 2), int),), ValueError, r"\(2, 2, 2\)"),
        ((np.zeros((0, 0), int),), ValueError, r"\(0, 0\)"),
        ((3,), ValueError, r"\(\)"),
        ((np.eye(2) * 1j,), TypeError, "integer or a float dtype.*complex128"),
        ((np.full((2, 2), 1e39),), ValueError, "entries.*float32"),
        ((np.full((2, 2), 2**31),), ValueError, "entries.*2147483648"),
        ((np.full((2, 2), -(2**31)),), ValueError, "entries.*-2147483648"),
        ((np.full((2, 2), 2**64 - 1, "uint64"),), ValueError, "entries.*18446744073709551615"),
        ((lambda w, x: 2**31,), ValueError, "entries.*2147483648"),
        ((lambda w, x: -(2**100),), ValueError, "entries"),
        ((lambda w, x: w * 1j,), TypeError, r"table\(0, 0\).*int or a float.*0j"),
        ((lambda w, x: None if w == 2 and x else 1,), TypeError, r"table\(2, 1\).*None"),
        ((TWO, 1), ValueError, "signed.*bool.*1"),
        ((TWO, (True, False, True)), ValueError, "signed.*pair.*True, False, True"),
        ((TWO, None, 9), ValueError, "bits.*1 to 8.*9"),
        ((TWO, None, 0), ValueError, "bits.*1 to 8.*0"),
        ((TWO, None, True), ValueError, "bits.*True"),
        ((TWO, None, (2, 2.5)), ValueError, "bits.*2.5"),
        ((TWO, None, (1, 2)), ValueError, r"bits=\(1, 2\).*\(1, 1\)"),
        ((TWO, None, None, "f"), ValueError, "name.*C.*'f'"),
        ((TWO, None, None, None, "zero"), TypeError, "pad_value.*zero"),
        ((TWO, None, None, None, 0, "product"), ValueError, "add.*max.*product"),
        ((TWO, None, None, None, 0, "max", 3), ValueError, "identity.*max"),
        ((TWO, None, None, None, 0, max, "3"), TypeError, "identity.*3"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    """Each wrong argument is named, with what it is and what it must be."""
    with pytest.raises(error) as info:
        Op.from_table(*arguments)
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize(
    "text,message",
    [
        ("1 2\n3\n", r"table\.csv.*\[1, 2\]"),
        ("1 2\n3 x\n", "table.csv.*line 2.*numbers.*3 x"),
        ("1 2\n3 4.5.6\n", "table.csv.*line 2.*numbers"),
        ("", r"\(0, 0\)"),
        ("1 2\n3 {}\n".format(10**30), "entries.*from -2147483647 to 2147483647"),
    ],
)
def test_wrong_text(tmpdir, text, message):
    """The file and the line that is wrong are named."""
    path = tmpdir.join("table.csv")
    path.write(text)
    with pytest.raises(ValueError) as info:
        Op.from_table(str(path))
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["auto", "slices"])
def test_wrong_operands(kind, path):
    """Operands without an entry, and floats, are refused with the argument, the value and the range."""
    op = Op.from_table(np.zeros((4, 16), int), signed=(True, False))
    w, x = np.array([[-2, 1, 0]]), np.array([[15, 0, 3]])

    def is_refused(function, a, b, error, message):
        with pytest.raises(error) as info:
            function(make(kind, a), make(kind, b), op=op)
        assert re.search(message, str(info.value)), str(info.value)

    cases = [
        (linear, x, w + 1, ValueError, r"linear.*weight.*from -2 to 1.*int2, uint4.*has 2"),
        (linear, x, w - 1, ValueError, r"linear.*weight.*from -2 to 1.*has -3"),
        (linear, x + 1, w, ValueError, r"linear.*input.*from 0 to 15.*has 16"),
        (linear, x - 1, w, ValueError, r"linear.*input.*from 0 to 15.*has -1"),
        (linear, x * 1.0, w, TypeError, r"linear.*input.*integer.*float64"),
        (linear, x, w * 1.0, TypeError, r"linear.*weight.*integer.*float64"),
        (matmul, w + 9, x.T, ValueError, "matmul.*: a must"),
        (matmul, w, x.T + 9, ValueError, "matmul.*: b must"),
        (conv2d, x[None, None] + 9, w[None, None], ValueError, "conv2d.*input"),
    ]
    with use_backend(path):
        assert values(linear(make(kind, x, "int16"), make(kind, w, "int64"), op=op)).tolist() == [[0]]
        each(is_refused, cases)


@pytest.mark.parametrize("path", ["auto", "slices"])
@pytest.mark.parametrize("value", [16, -1, 0.5, float("nan")])
def test_wrong_pad_values(path, value):
    """Padding that x can't be is refused, with the value."""
    op = Op.from_table(np.zeros((4, 16), int), pad_value=value)
    x, w = (make(KIND, np.ones((1, 1, 3, 3)), "int64") for _ in range(2))
    with use_backend(path):
        with pytest.raises(ValueError) as info:
            conv2d(x, w, padding=1, op=op)
    assert "pad_value" in str(info.value) and repr(value) in str(info.value)


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
def test_kinds_are_not_mixed():
    """A tensor and an array are refused as for any op, though dtypes may differ."""
    with pytest.raises(TypeError):
        linear(make("numpy", TWO), make("tensor", TWO), op=Op.from_table(TWO))
