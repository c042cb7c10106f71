"""unfold and fold against nested loops: every engine, kind, dtype and layout."""

import numpy as np
import pytest
from helpers import oracle, problems
from helpers.tensors import (
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
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import available_backends, fold, unfold, use_backend
from im2col_compat.engines import slices
from im2col_compat.problem import product, unfold_geometry

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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "sizes",
    [
        ((1, 2, 9, 10), (2, 3), (1, 2), (1, 0), (2, 1)),
        ((1, 2, 9, 10), (7, 8), (1, 1), (1, 0), (2, 1)),
        ((2, 1, 12), (5,), (2,), (1,), (4,)),
        ((1, 1, 4, 5, 6), (3, 4, 5), (1, 1, 1), (1, 0, 1), (2, 1, 1)),
    ],
)
def test_slices_are_few(kind, sizes):
    """The engine "slices" takes a slice for each position in the kernel, or for each block where these are fewer. Each pixel
    is summed up in the order of its positions either way, to the bit."""
    shape, kernel, dilation, padding, stride = sizes
    geometry = unfold_geometry(shape, kernel, dilation, padding, stride)
    pairs = list(slices._overlaps(geometry))
    assert 0 < len(pairs) <= min(product(geometry.kernel), product(geometry.blocks))
    columns = np.random.RandomState(0).randn(*geometry.columns_shape).astype(np.float32)
    padded = [size + sum(sides) for size, sides in zip(geometry.image, geometry.padding)]
    expected = np.zeros(shape[:2] + tuple(padded), np.float32)
    parts = columns.reshape(shape[:2] + geometry.kernel + geometry.blocks)
    for position in np.ndindex(*geometry.kernel):
        steps = zip(position, geometry.dilation, geometry.stride, geometry.blocks)
        places = tuple(slice(k * d, k * d + (b - 1) * s + 1, s) for k, d, s, b in steps)
        expected[(Ellipsis,) + places] += parts[(slice(None), slice(None)) + position]
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(geometry.image, geometry.padding))
    with use_backend("slices"):
        image = fold(make(kind, columns, "float32"), shape[2:], kernel, dilation, padding, stride)
        np.testing.assert_array_equal(values(image), expected[(Ellipsis,) + inside])
        np.testing.assert_array_equal(
            values(unfold(make(kind, values(image), "float32"), kernel, dilation, padding, stride)),
            oracle.unfold(values(image), kernel, dilation, padding, stride),
        )


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


@st.composite
def geometries(draw):
    """Shape, kernel, dilation, padding and stride in one to four dimensions."""
    dims = draw(st.integers(1, 4))
    most = {1: 12, 2: 9, 3: 5, 4: 3}[dims]

    def each(values):
        return tuple(draw(values) for _ in range(dims))

    padding = st.one_of(st.integers(0, 5), st.tuples(st.integers(0, 5), st.integers(0, 3)))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3))) + each(st.integers(1, most))
    kernel = each(st.integers(1, min(4, most)))
    return shape, kernel, each(SIZES), each(padding if dims < 4 else st.integers(0, 1)), each(SIZES)


@settings(deadline=None, max_examples=80)
@given(geometries())
def test_engines_agree_and_are_adjoint(geometry):
    """On any geometry all engines give the nested loop's columns, and <unfold x, y> == <x, fold y>, exactly on integers."""
    shape, kernel, dilation, padding, stride = geometry
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


def test_how_many_dimensions():
    """A kernel_size's length says it; an int is for three where there are five dimensions, else for two."""
    with use_backend("auto"):
        five, four, three = (some(shape) for shape in ((1, 2, 3, 4, 5), (2, 3, 4, 5), (3, 4, 5)))
        assert unfold(five, 2).shape == (1, 16, 2 * 3 * 4)
        assert unfold(four, 2).shape == (2, 12, 3 * 4)
        assert unfold(three, 2).shape == (12, 3 * 4)
        np.testing.assert_array_equal(unfold(four, (2, 2, 2)), unfold(four[None], (2, 2, 2))[0])
        np.testing.assert_array_equal(unfold(three, (2,)), oracle.unfold(three, (2,)))
        columns = unfold(five, 2)
        np.testing.assert_array_equal(fold(columns, (3, 4, 5), 2), fold(columns, (3, 4, 5), (2, 2, 2)))
        np.testing.assert_array_equal(fold(columns, (3, 4, 5), 2)[0], fold(columns[0], (3, 4, 5), 2))
        np.testing.assert_array_equal(fold(unfold(three, (2,)), 5, (2,)).shape, three.shape)


# ---------------------------------------------------------------- out=


OUT = [((2, 3, 6, 5), (3, 2), 1, 1, 1), ((3, 6, 5), (3, 2), 1, 0, 2), ((2, 2, 7), (3,), 2, 1, 1)]
OUT += [((1, 2, 4, 3, 5), 2, 1, ((0, 1), 0, 1), 1), ((1, 1, 2, 3, 2, 3), (1, 2, 2, 1), 1, 0, 1)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape,kernel,dilation,padding,stride", OUT)
def test_out(engine, kind, shape, kernel, dilation, padding, stride):
    """out gets the result and is returned, whatever it held and however it lies; nothing beside it is written."""
    dims = len(kernel) if isinstance(kernel, tuple) else 3
    size = shape[-dims:]
    image = some(shape)
    expected = values(unfold(make(kind, image), kernel, dilation, padding, stride))
    back = values(fold(make(kind, expected), size, kernel, dilation, padding, stride))
    for call, result in (
        (lambda out: unfold(make(kind, image), kernel, dilation, padding, stride, out=out), expected),
        (lambda out: fold(make(kind, expected), size, kernel, dilation, padding, stride, out=out), back),
    ):
        for transposed in (False, True):
            around = make(kind, np.full((3,) + result.shape[:: -1 if transposed else 1], 77.0))
            out = around[1]
            if transposed:
                out = out.transpose(*range(result.ndim)[::-1]) if kind == "numpy" else reverse(out)
            returned = call(out)
            assert kind_of(returned) == kind
            np.testing.assert_array_equal(values(returned), result)
            np.testing.assert_array_equal(values(out), result)
            assert (values(around)[[0, 2]] == 77).all()


def reverse(tensor):
    for axis in range(tensor.dim() // 2):
        tensor = tensor.transpose(axis, tensor.dim() - 1 - axis)
    return tensor


def test_out_may_overlap_the_input(engine):
    """The result is what it is without out, even if out is the input's memory."""
    kind = "tensor" if torch is not None else "numpy"
    memory = make(kind, some((40,)))
    image, out = memory[:25].reshape(1, 1, 5, 5) if kind == "numpy" else memory[:25].view(1, 1, 5, 5), memory[4:40]
    out = out.reshape(1, 4, 9) if kind == "numpy" else out.view(1, 4, 9)
    expected = oracle.unfold(values(image).copy(), 2, 2)
    np.testing.assert_array_equal(values(unfold(image, 2, 2, out=out)), expected)


def test_out_that_does_not_fit(engine):
    """Another shape, dtype or kind, or a recorded gradient, is an error, and out keeps what it has."""
    kind = "tensor" if torch is not None else "numpy"
    image = make(kind, some((1, 2, 4, 4)))
    for shape, dtype in (((1, 8, 8), "float64"), ((8, 9), "float64"), ((1, 8, 9), "float32")):
        out = make(kind, np.full(shape, 7.0), dtype)
        with pytest.raises(RuntimeError, match="out must have shape"):
            unfold(image, 2, out=out)
        assert (values(out) == 7).all()
    with pytest.raises(TypeError):
        unfold(image, 2, out=[1])
    if torch is None:
        return
    with pytest.raises(TypeError):
        unfold(image, 2, out=np.zeros((1, 8, 9)))
    for recorded, out in ((True, False), (False, True)):
        with pytest.raises(RuntimeError, match="requires grad"):
            unfold(
                make(kind, some((1, 2, 4, 4)), requires_grad=recorded),
                2,
                out=make(kind, np.zeros((1, 8, 9)), requires_grad=out),
            )


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs tensors that count changes")
def test_out_is_seen_by_graphs(engine):
    """A tensor that a graph has saved can't be written to unseen."""
    saved = make("tensor", np.ones((1, 4, 9)))
    x = make("tensor", np.ones((1, 4, 9)), requires_grad=True)
    y = (x * saved).sum()
    unfold(make("tensor", some((1, 1, 4, 4))), 2, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="needs float8 (2.1 on)")
@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "complex32"])
def test_unknown_dtypes(name):
    """unfold moves the bytes of dtypes that it knows nothing of; what computes with them names the dtype."""
    dtype = getattr(torch, name)
    x = torch.arange(9.0).reshape(1, 1, 3, 3).to(dtype)
    known = torch.complex64 if name == "complex32" else torch.float32
    expected = unfold(x.to(known), 2, padding=1)
    assert unfold(x, 2, padding=1).dtype == dtype and torch.equal(unfold(x, 2, padding=1).to(known), expected)
    out = torch.empty(expected.shape, dtype=dtype)
    assert unfold(x, 2, padding=1, out=out) is out and torch.equal(out.to(known), expected)
    with pytest.raises(NotImplementedError) as info:
        fold(out, (3, 3), 2, padding=1)
    assert name in str(info.value)


@pytest.mark.parametrize(
    "shape,kernel,stride,padding", [((2, 1, 8, 9), (4, 4), 4, ((1, 0), (0, 0))), ((1, 2, 6), (5,), 1, 3)]
)
def test_few_large_blocks(engine, shape, kernel, stride, padding):
    """Fewer blocks than positions in the kernel."""
    image = some(shape)
    columns = oracle.unfold(image, kernel, 1, padding, stride)
    kind = "tensor" if engine == "torch" else "numpy"
    found = unfold(make(kind, image), kernel, 1, padding, stride)
    np.testing.assert_array_equal(values(found), columns)
    back = fold(make(kind, columns), shape[2:], kernel, 1, padding, stride)
    np.testing.assert_array_equal(values(back), oracle.fold(columns, shape[2:], kernel, 1, padding, stride))
