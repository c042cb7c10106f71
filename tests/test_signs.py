"""xnor by bits: packed signs against arithmetic with signs, in every instruction set and by tensor operations."""

import itertools

import numpy as np
import pytest
from helpers import oracle, problems
from helpers.cases import each
from helpers.settings import CONVOLVE, KIND, LEVELS, everywhere, needs_library, needs_torch, setting
from helpers.signs import columns_of, convolution, of_all_sizes, signs
from helpers.tensors import KINDS, VARIABLES, dtype_of, has, kind_of, make, some, torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import conv2d, linear, matmul, ops, use_backend
from im2col_compat.compat import dtypes, unfolds
from im2col_compat.compat.arrays import NUMPY
from im2col_compat.compat.probes import MASKS_ARE_BYTES
from im2col_compat.paths import choose

PACKED = ["float32", "float64", "int8", "int16", "int32", "int64", "bool"]
KINDS_AND_DTYPES = [(kind, dtype) for kind in KINDS for dtype in PACKED + ["uint8"] if has(kind, dtype)]
if MASKS_ARE_BYTES:  # test_masks has these
    KINDS_AND_DTYPES = [pair for pair in KINDS_AND_DTYPES if pair[0] == "numpy" or pair[1] != "uint8"]
#: Around the words of 32 signs, and the 4 channels from which on floats are packed.
CHANNELS = (1, 3, 4, 31, 32, 33, 63, 64, 65, 100, 130)


def result_dtype(dtype):
    return "int64" if dtypes.is_integer(dtype) else dtype


# ---------------------------------------------------------------- results


@pytest.mark.parametrize("kind,dtype", KINDS_AND_DTYPES)
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_convolutions_of_signs(kind, dtype, problem):
    """Zero is +1 with either sign, NaN is -1, padding counts nothing; sums of integers and bools are int64."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    x, w = of_all_sizes(dtype, shape, 1), of_all_sizes(dtype, (filters, shape[1] // groups) + kernel, 2)
    x_, w_, others = make(kind, x), make(kind, w), (None, stride, padding, dilation, groups)
    conv = CONVOLVE[len(kernel)]
    expected = convolution(x, w, stride, padding, dilation, groups)
    np.testing.assert_array_equal(everywhere(lambda: conv(x_, w_, *others, op="xnor")), expected)
    found = conv(x_[0], w_, *others, op="xnor")
    assert kind_of(found) == kind and dtype_of(found) == result_dtype(dtype)
    np.testing.assert_array_equal(values(found), expected[0])


@pytest.mark.parametrize("kernel", [(1, 1), (1, 2), (3, 3), (5, 5), (4, 8), (5, 7)])
@pytest.mark.parametrize("channels", [5, 31, 32, 33, 70])
def test_weights_of_every_size(channels, kernel):
    """Words of small kernels' weights, picked from those that lie one after the other, or turned: the same results."""
    x, w = of_all_sizes("float32", (1, channels, 6, 9), 1), of_all_sizes("float32", (5, channels) + kernel, 2)
    turned = np.ascontiguousarray(w.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    expected = convolution(x, w, 1, 0, 1, 1)
    for weight in (w, turned):
        np.testing.assert_array_equal(everywhere(lambda: conv2d(x, weight, op="xnor")), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_masks(kind):
    """Masks are signs, whatever a comparison gives: xnor of x >= 0 is that of x. Before 1.2 it gives uint8."""
    x, w = (make(kind, of_all_sizes("float32", shape, 1)) for shape in ((2, 37, 6, 5), (3, 37, 2, 2)))
    masks = x >= 0, w >= 0
    assert dtype_of(masks[0]) == ("uint8" if MASKS_ARE_BYTES and kind != "numpy" else "bool")
    expected = conv2d(x, w, None, 1, 1, op="xnor")
    expected = np.array(values(expected)).astype("int64")
    found = everywhere(lambda: conv2d(masks[0], masks[1], None, 1, 1, op="xnor"))
    assert found.dtype == "int64" and (expected < 0).any()
    np.testing.assert_array_equal(found, expected)
    rows = [mask.reshape(-1, 37) if kind == "numpy" else mask.contiguous().view(-1, 37) for mask in masks]
    for found in (
        linear(rows[0], rows[1], op="xnor"),
        matmul(rows[0], rows[1].T if kind == "numpy" else rows[1].t(), op="xnor"),
    ):
        pairs = [2 * values(part).astype("int64") - 1 for part in rows]
        np.testing.assert_array_equal(values(found), pairs[0].dot(pairs[1].T))


@pytest.mark.skipif(not MASKS_ARE_BYTES, reason="needs a PyTorch whose comparisons make uint8")
def test_larger_bytes_are_no_masks():
    """Numbers that are no mask are refused, by name: all their signs would be +1."""
    mask = make("tensor", [[0, 1, 1]], "uint8")
    with pytest.raises(ValueError, match="linear.*signs of weight are unknown.*uint8 is a mask"):
        linear(mask, mask * 2, op="xnor")


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("groups", [1, 3])
def test_channels_around_words(channels, groups):
    """Bits that a group's last word doesn't need count nothing, with padding and without, for any number of filters."""

    def are_the_signs(i, dtype):
        filters = groups * (1, 2, 5, 13)[i % 4]
        shape = (2, groups * channels, 6, 13)
        x, w = of_all_sizes(dtype, shape, i), of_all_sizes(dtype, (filters, channels, 3, 2), i + 9)
        for others in ((1, 0, 1, groups), ((1, 2), (2, 1), (2, 1), groups)):
            found = everywhere(lambda: conv2d(x, w, None, *others, op="xnor"))
            assert found.dtype == result_dtype(dtype)
            np.testing.assert_array_equal(found, convolution(x, w, *others))

    each(are_the_signs, enumerate(PACKED[::2] if groups == 1 else PACKED[1::2]))


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions_of_many_channels(dims):
    """Lines and volumes of more than a word of channels."""
    sizes, kernel = ((31,), (4,)) if dims == 1 else ((3, 4, 5), (2, 3, 2))
    x, w = of_all_sizes("float32", (2, 2 * 37) + sizes, 1), of_all_sizes("float32", (4, 37) + kernel, 2)
    others = (2, 1, 1, 2)
    found = everywhere(lambda: CONVOLVE[dims](make(KIND, x), make(KIND, w), None, *others, op="xnor"))
    np.testing.assert_array_equal(found, convolution(x, w, *others))


@pytest.mark.parametrize("kind,dtype", KINDS_AND_DTYPES)
@pytest.mark.parametrize("taps", [1, 31, 32, 33, 130, 993, 4099])
def test_linear_and_matmul_of_signs(kind, dtype, taps):
    """Any number of features, any leading dimensions, operands of one dimension included."""
    x, w = of_all_sizes(dtype, (2, 1, 17, taps), 1), of_all_sizes(dtype, (5, taps), 2)
    x_, w_ = make(kind, x), make(kind, w)
    expected = np.matmul(signs(x), signs(w).T)
    np.testing.assert_array_equal(everywhere(lambda: linear(x_, w_, op="xnor")), expected)
    np.testing.assert_array_equal(everywhere(lambda: linear(x_, w_[0], op="xnor")), expected[..., 0])
    other = of_all_sizes(dtype, (3, taps, 6), 3)

    def is_numpys(a, b):
        found = everywhere(lambda: matmul(make(kind, a), make(kind, b), op="xnor"))
        np.testing.assert_array_equal(found, np.matmul(signs(a), signs(b)))

    pairs = (x[0, 0], other), (x, other[0]), (w[None, None], other), (w[0], other), (other.swapaxes(1, 2), w[0])
    each(is_numpys, pairs)


@pytest.mark.parametrize("dtype", PACKED)
@pytest.mark.parametrize("taps", [512 * 32, 512 * 32 + 1, 40000])
def test_long_dot_products(dtype, taps):
    """More than a block of 512 words, where all signs differ, none does, or some do."""
    x = np.concatenate([of_all_sizes(dtype, (4, taps), 1), np.ones((1, taps), dtype)])
    negative = np.zeros((1, taps), dtype) if dtype == "bool" else -np.ones((1, taps), dtype)
    w = np.concatenate([of_all_sizes(dtype, (2, taps), 2), np.ones((1, taps), dtype), negative])
    expected = np.matmul(signs(x), signs(w).T)
    assert expected[-1].tolist()[2:] == [taps, -taps]

    def is_numpys(isa):
        with setting(isa, 2):
            np.testing.assert_array_equal(linear(x, w, op="xnor"), expected)

    each(is_numpys, LEVELS)


@pytest.mark.parametrize("sign", [1, -1])
def test_long_dot_products_beside_padding(sign):
    """What is inside is counted right where there is much of it, and all of it is alike."""
    x, w = np.ones((1, 17000, 2, 3), "float32"), np.full((2, 17000, 2, 2), sign, "float32")
    expected = sign * 17000 * np.array([[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]])

    def is_right(isa):
        with setting(isa, 2):
            np.testing.assert_array_equal(conv2d(x, w, padding=1, op="xnor")[0], np.stack([expected, expected]))

    each(is_right, LEVELS)


def test_large_images():
    """Rows of pixels that are packed in several tasks."""
    x, w = of_all_sizes("int8", (2, 35, 67, 131), 1), of_all_sizes("int8", (3, 35, 1, 1), 2)
    expected = np.matmul(signs(w)[:, :, 0, 0], signs(x).reshape(2, 35, -1)).reshape(2, 3, 67, 131)

    def is_numpys(isa, threads):
        with setting(isa, threads):
            np.testing.assert_array_equal(conv2d(x, w, op="xnor"), expected)

    each(is_numpys, itertools.product(LEVELS, (1, 2)))


@settings(deadline=None, max_examples=60)
@given(
    dtype=st.sampled_from(PACKED),
    isa=st.sampled_from(LEVELS),
    threads=st.sampled_from([1, 2]),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.integers(1, 14)),
    image=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_any_geometry(dtype, isa, threads, sizes, image, kernel, stride, padding, dilation):
    """Random geometries of random numbers of channels."""
    batch, groups, channels, filters = sizes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    image = tuple(max(size, need - 2 * pad) for size, need, pad in zip(image, reach, padding))
    x = of_all_sizes(dtype, (batch, groups * channels) + image, 1)
    w = of_all_sizes(dtype, (groups * filters, channels) + kernel, 2)
    with setting(isa, threads):
        found = conv2d(x, w, None, stride, padding, dilation, groups, op="xnor")
    np.testing.assert_array_equal(found, convolution(x, w, stride, padding, dilation, groups))


@pytest.mark.parametrize("kind", KINDS)
def test_operands_of_any_strides(kind):
    """Operands that are transposed, or parts of others, have the signs that they show."""

    def turned(array):
        return (array.swapaxes if isinstance(array, np.ndarray) else array.transpose)(1, 3)

    x, w = some((2, 9, 8, 2 * 34), seed=1), some((3, 2, 3, 34), seed=2)
    expected = convolution(turned(x)[:, ::2, 1:], turned(w))
    x_, w_ = turned(make(kind, x))[:, ::2, 1:], turned(make(kind, w))
    np.testing.assert_array_equal(everywhere(lambda: conv2d(x_, w_, op="xnor")), expected)
    rows = some((70, 6), seed=3), some((140, 5), seed=4)
    a, b = make(kind, rows[0]), make(kind, rows[1])
    a = a.T if kind == "numpy" else a.t()
    found = everywhere(lambda: matmul(a, b[::2], op="xnor"))
    np.testing.assert_array_equal(found, np.matmul(signs(rows[0].T), signs(rows[1][::2])))


@pytest.mark.skipif(not unfolds.UNFOLD_IS_CURRENT, reason="needs a torch of today")
@pytest.mark.parametrize("isa", LEVELS)
def test_xnor_is_pytorchs_convolution_of_signs(isa):
    """Exactly F.conv2d of the signs, the bias added at the end."""
    random = np.random.RandomState(0)
    x, w, b = (torch.from_numpy(random.randn(*shape)).float() for shape in ((2, 140, 9, 11), (6, 70, 3, 2), (6,)))
    with setting(isa, 2):
        found = conv2d(x, w, b.round(), (2, 1), (1, 2), (1, 2), 2, op="xnor")
    plus = [torch.where(t >= 0, torch.ones_like(t), -torch.ones_like(t)) for t in (x, w)]
    expected = torch.nn.functional.conv2d(plus[0], plus[1], b.round(), (2, 1), (1, 2), (1, 2), 2)
    np.testing.assert_array_equal(values(found), values(expected))


# ---------------------------------------------------------------- which ops


@needs_library
def test_which_ops_are_packed():
    """xnor of every such dtype is built in, under another name too; explain says so."""

    def is_packed(dtype):
        for op in (ops.xnor, ops.xnor.replace()):
            found, reason = choose.kernels_for(op, dtype, NUMPY)
            assert reason is None and (found.pack or found.forward) and found.result_dtype == result_dtype(dtype)
        assert not has(KIND, dtype) or "built in" in ops.xnor.explain(dtype)

    each(is_packed, PACKED)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("value", [0, -1])
def test_padding_that_has_a_sign(dtype, value):
    """xnor with a pad value isn't xnor: its padding counts."""
    x, w = of_all_sizes(dtype, (1, 40, 4, 5), 1), of_all_sizes(dtype, (3, 40, 2, 3), 2)
    op = ops.xnor.replace(pad_value=value)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), "constant", constant_values=value)
    found = everywhere(lambda: conv2d(make(KIND, x), make(KIND, w), padding=2, op=op))
    np.testing.assert_array_equal(found, convolution(padded, w))


# ---------------------------------------------------------------- gradients


@needs_torch
@pytest.mark.parametrize("channels", [3, 40])
def test_gradients_go_straight_through(channels):
    """They are those of the product of signs, where the operand's size is at most 1; packing changes nothing."""
    others = ((2, 1), (1, 2), (1, 2), 2)
    x, w = some((2, 2 * channels, 5, 6), seed=1) / 4, some((6, channels, 3, 2), seed=2) / 4
    columns, blocks = columns_of(x, w.shape[2:], *others)
    expected = convolution(x, w, *others)
    grad = some(expected.shape, seed=3)
    by_group = grad.reshape(2, 2, 3, -1)
    dw = np.matmul(by_group, columns.swapaxes(2, 3)).sum(0).reshape(w.shape) * (abs(w) <= 1)
    spread = np.matmul(signs(w).reshape(2, 3, -1).swapaxes(1, 2), by_group)
    dx = oracle.fold(spread.reshape(2, -1, grad[0, 0].size), x.shape[2:], w.shape[2:], (1, 2), (1, 2), (2, 1))

    def go_through(isa, path):
        with setting(isa, 2), use_backend(path):
            x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
            y = conv2d(x_, w_, None, *others, op="xnor")
            y.backward(make("raw" if VARIABLES else "tensor", grad))
        for found, right in ((y, expected), (x_.grad, dx * (abs(x) <= 1)), (w_.grad, dw)):
            np.testing.assert_array_equal(values(found), right)

    each(go_through, itertools.product(LEVELS, ("auto", "slices")))


@needs_torch
def test_gradients_of_linear():
    """The same by matrix products, beyond a block of words; NaN has none."""
    x, w = some((5, 17000), seed=1) / 4, some((3, 17000), seed=2) / 4
    x[0, 0] = w[0, 1] = np.nan
    grad = some((5, 3), seed=3)
    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    linear(x_, w_, op="xnor").backward(make("raw" if VARIABLES else "tensor", grad))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(values(x_.grad), np.matmul(grad, signs(w)) * (abs(x) <= 1))
        np.testing.assert_array_equal(values(w_.grad), np.matmul(grad.T, signs(x)) * (abs(w) <= 1))
