"""unfold and fold against nested loops: every engine, kind, dtype and layout."""

import numpy as np
import oracle
import problems
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensors import (
    COMPLEX,
    DTYPES,
    FLOATS,
    KINDS,
    KINDS_AND_DTYPES,
    VARIABLES,
    dtype_of,
    has,
    kind_of,
    make,
    served,
    some,
    torch,
    values,
)

from im2col_compat import available_backends, fold, unfold, use_backend

PROBLEMS = sorted(problems.COLUMNS)


def skip_unless_representable(kind, shape):
    if VARIABLES and kind != "numpy" and 0 in shape:
        pytest.skip("torch 0.3 has no empty tensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_unfold_is_the_nested_loop(engine, kind, problem):
    """Columns hold exactly the pixels that the definition says, and zeros for padding."""
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    skip_unless_representable(kind, shape)
    image = some(shape) + 100
    columns = unfold(make(kind, image), kernel, dilation, padding, stride)
    assert kind_of(columns) == kind
    np.testing.assert_array_equal(values(columns), oracle.unfold(image, kernel, dilation, padding, stride))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_fold_is_the_nested_loop(engine, kind, problem):
    """Every pixel is the sum of the column entries that lie on it; uncovered pixels are zero."""
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    skip_unless_representable(kind, shape)
    columns = some(oracle.unfold(np.zeros(shape), kernel, dilation, padding, stride).shape)
    image = fold(make(kind, columns), shape[2:], kernel, dilation, padding, stride)
    assert kind_of(image) == kind
    np.testing.assert_array_equal(values(image), oracle.fold(columns, shape[2:], kernel, dilation, padding, stride))


@pytest.mark.parametrize("kind,dtype", KINDS_AND_DTYPES)
def test_every_dtype(engine, kind, dtype):
    """Every dtype comes back as itself, with the values of the nested loop."""
    shape, arguments = (2, 3, 7, 6), ((2, 3), (2, 1), (1, 2), (1, 2))
    image = some(shape, dtype)
    columns = unfold(make(kind, image, dtype), *arguments)
    assert dtype_of(columns) == dtype
    expected = oracle.unfold(image, *arguments)
    np.testing.assert_array_equal(values(columns), expected)
    folded = fold(columns, shape[2:], *arguments)
    assert dtype_of(folded) == dtype
    expected = oracle.fold(expected, shape[2:], *arguments)
    np.testing.assert_array_equal(values(folded), expected.astype(bool) if dtype == "bool" else expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in FLOATS + COMPLEX + ["bool"]])
def test_integer_sums_wrap(engine, kind, dtype):
    """Folding integers is arithmetic modulo 2**bits, as every integer operation of PyTorch is."""
    largest = np.iinfo(dtype).max
    columns = np.full((1, 4, 4), largest, dtype)
    with np.errstate(over="ignore"):
        expected = oracle.fold(columns, 3, 2)
    columns = make(kind, columns, dtype)
    # values() gives int64 for what PyTorch turns into no array.
    np.testing.assert_array_equal(values(fold(columns, 3, 2)).astype(dtype), expected.astype(dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unbatched", [False, True])
def test_layouts(engine, kind, unbatched):
    """Transposed, strided, expanded and channels-last inputs give what their dense copies give."""
    dense = some((2, 3, 6, 8))
    x = make(kind, dense)
    transposed = np.swapaxes(x, 2, 3) if kind == "numpy" else x.transpose(2, 3)
    layouts = [(transposed, np.swapaxes(dense, 2, 3)), (x[:, :, ::2, 1::3], dense[:, :, ::2, 1::3])]
    if kind == "numpy":
        layouts.append((np.broadcast_to(x[:1], (4, 3, 6, 8)), np.broadcast_to(dense[:1], (4, 3, 6, 8))))
        layouts.append((np.asfortranarray(x), dense))
        layouts.append((x[:, :, ::-1], dense[:, :, ::-1]))
    else:
        layouts.append((x[:1].expand(4, 3, 6, 8), np.broadcast_to(dense[:1], (4, 3, 6, 8))))
        if hasattr(torch, "channels_last"):
            layouts.append((x.contiguous(memory_format=torch.channels_last), dense))
    for given_, expected in layouts:
        if unbatched:
            given_, expected = given_[1], expected[1]
        before = values(given_).copy()
        columns = unfold(given_, (3, 2), 1, (1, 0), (1, 2))
        batch = expected[None] if unbatched else expected
        reference = oracle.unfold(batch, (3, 2), 1, (1, 0), (1, 2))
        np.testing.assert_array_equal(values(columns), reference[0] if unbatched else reference)
        np.testing.assert_array_equal(values(given_), before)
        size = expected.shape[-2:]
        columns_t = np.swapaxes(columns, -2, -1) if kind == "numpy" else columns.transpose(-2, -1)
        columns_t = columns_t.copy() if kind == "numpy" else columns_t.contiguous()
        strided = np.swapaxes(columns_t, -2, -1) if kind == "numpy" else columns_t.transpose(-2, -1)
        folded = fold(strided, size, (3, 2), 1, (1, 0), (1, 2))
        reference = oracle.fold(reference, size, (3, 2), 1, (1, 0), (1, 2))
        np.testing.assert_array_equal(values(folded), reference[0] if unbatched else reference)


@pytest.mark.parametrize("kind", KINDS)
def test_result_is_new_and_contiguous(engine, kind):
    """Even a 1 x 1 kernel copies: writing to the result leaves the input alone."""
    x = make(kind, some((1, 2, 3, 4)))
    for result in (unfold(x, 1), unfold(x[0], 1), fold(unfold(x, 1), (3, 4), 1)):
        assert result.flags["C_CONTIGUOUS"] if kind == "numpy" else result.is_contiguous()
        before = values(x).copy()
        data = result.data if kind == "tensor" else result
        data += 1
        np.testing.assert_array_equal(values(x), before)


@pytest.mark.parametrize("kind", KINDS)
def test_nan_and_infinity_stay_where_they_are(engine, kind):
    """Padding is zero whatever the image holds, and nothing is multiplied on the way."""
    image = np.full((1, 1, 2, 2), np.nan)
    image[0, 0, 0, 0] = np.inf
    columns = values(unfold(make(kind, image), 2, padding=1))
    np.testing.assert_array_equal(columns, oracle.unfold(image, 2, padding=1))
    assert (columns == 0).sum() == 20


@pytest.mark.parametrize("kind", KINDS)
def test_numpy_integers_are_sizes(engine, kind):
    """Sizes may be NumPy integers, lists, or anything with __index__."""

    class Three(object):
        def __index__(self):
            return 3

    x = make(kind, some((1, 2, 5, 6)))
    expected = values(unfold(x, 3))
    for size in (np.int64(3), [3, 3], (np.int32(3), Three()), Three(), np.array([3, 3]), iter((3, 3))):
        np.testing.assert_array_equal(values(unfold(x, size)), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_half_sums_are_accumulated_in_float32(engine, kind, dtype):
    """4225 ones add up to 4224 (4225 rounded to a half), where adding in halves, as PyTorch's does, stops at 2048 or 256."""
    # The kernel is as large as the image: every block lies on the pixel in the middle.
    ones = np.ones((1, 65 * 65, 65 * 65), "float32")
    center = values(fold(make(kind, ones, dtype), 65, 65, padding=32))[0, 0, 32, 32]
    assert center == 4224 or engine == "torch"


@pytest.mark.skipif(torch is None or VARIABLES or "ffi" not in available_backends(), reason="needs torch 0.4 and C")
def test_half_conversions_round_to_nearest_even():
    """The C library rounds every float16 and bfloat16 sum exactly as PyTorch rounds a float32."""
    bits = np.arange(65536)
    shuffled = np.random.RandomState(0).permutation(bits)
    for dtype in ("float16", "bfloat16"):
        if not has("tensor", dtype):
            continue
        if dtype == "float16":
            first, second = (b.astype("uint16").view("float16").astype("float32") for b in (bits, shuffled))
        else:
            first, second = ((b.astype("uint32") << 16).view("float32") for b in (bits, shuffled))
        first, second = (torch.from_numpy(values) for values in (first, second))
        columns = torch.stack([first, second]).view(1, 2, 65536).to(getattr(torch, dtype))
        with use_backend("ffi"):
            # Two taps, one pixel apart: each pixel in between is the sum of two halves.
            sums = fold(columns, (1, 65537), (1, 2))[0, 0, 0, 1:65536].float()
        expected = (first[1:] + second[:-1]).to(getattr(torch, dtype)).float()
        assert bool(((sums == expected) | ((sums != sums) & (expected != expected))).all())


SIZES = st.integers(1, 4)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(SIZES, SIZES),
    dilation=st.tuples(SIZES, SIZES),
    padding=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    stride=st.tuples(SIZES, SIZES),
)
def test_engines_agree_and_are_adjoint(shape, kernel, dilation, padding, stride):
    """On any geometry all engines give the nested loop's columns, and <unfold x, y> == <x, fold y>, exactly on integers."""
    counts = [oracle.blocks(size, k, d, p, s) for size, k, d, p, s in zip(shape[2:], kernel, dilation, padding, stride)]
    image = some(shape, seed=1)
    if min(counts) < 1:
        for name in available_backends():
            with use_backend(name), pytest.raises(RuntimeError):
                unfold(make("tensor" if name == "torch" else "numpy", image), kernel, dilation, padding, stride)
        return
    expected = oracle.unfold(image, kernel, dilation, padding, stride)
    y = some(expected.shape, seed=2)
    for name in available_backends():
        for kind in KINDS:
            if not served(name, kind, "float64"):
                continue
            with use_backend(name):
                columns = values(unfold(make(kind, image), kernel, dilation, padding, stride))
                folded = values(fold(make(kind, y), shape[2:], kernel, dilation, padding, stride))
            np.testing.assert_array_equal(columns, expected)
            assert (columns * y).sum() == (image * folded).sum()
