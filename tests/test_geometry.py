"""Bad input raises what the latest PyTorch raises, in its order, with every engine and kind; nothing crashes."""

import json
import random
import re

import numpy as np
import pytest
from helpers.processes import run
from helpers.tensors import KINDS, VARIABLES, make, some, torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import Fold, Unfold, conv2d, conv_matrix, fold, linear, matmul, unfold, use_backend
from im2col_compat.compat.probes import Tensor
from im2col_compat.problem import conv_problem, fold_geometry, unfold_geometry

#: arguments after the input (1, 2, 5, 6), the exception, and what its message must name
UNFOLD_ERRORS = [
    ((3.0,), TypeError, "kernel_size.*3.0"),
    (("33",), TypeError, "kernel_size.*33"),
    ((None,), TypeError, "kernel_size.*None"),
    ((True,), TypeError, "kernel_size.*True"),
    (((3, False),), TypeError, "kernel_size.*False"),
    ((np.bool_(1),), TypeError, "kernel_size"),
    ((np.float64(3),), TypeError, "kernel_size"),
    ((np.array(3),), TypeError, "kernel_size"),
    ((2**63,), TypeError, "kernel_size.*int64"),
    ((-(2**70),), TypeError, "kernel_size.*int64"),
    ((3, "a", -1), TypeError, "dilation"),
    ((0, 1, 1.5), TypeError, "padding"),
    ((3, 1, 0, {}), RuntimeError, "stride"),
    (((),), RuntimeError, "kernel_size.*0 values"),
    (((3,),), RuntimeError, "kernel_size.*1 values"),
    (((3, 3, 3), (1,), (1,), (1,)), RuntimeError, "dilation.*1 values"),
    (((3, 3), 1, ((1, 2),)), RuntimeError, "padding.*1 values"),
    (((3, 3), 1, ((1, 2), (1, 2, 3))), RuntimeError, "padding.*3 values"),
    (((3, 3), 1, (1, ((1, 2), 1))), TypeError, "padding"),
    (((3, 3), 1, ((1, -2), 1)), RuntimeError, "padding must be at least 0.*-2"),
    ((((3, 3), 3),), TypeError, "kernel_size"),
    ((3, 1, 0, ((1, 1), 1)), TypeError, "stride"),
    ((0, (1,)), RuntimeError, "dilation.*1 values"),
    ((0, 0, -1, 0), RuntimeError, "kernel_size must be at least 1.*0, 0"),
    ((3, 0, -1, 0), RuntimeError, "dilation must be at least 1"),
    ((3, 1, -1, 0), RuntimeError, "padding must be at least 0.*-1"),
    ((3, 1, 0, 0), RuntimeError, "stride must be at least 1"),
    ((3, 1, 0, (1, -2)), RuntimeError, r"stride must be at least 1.*\(1, -2\)"),
    ((9,), RuntimeError, r"kernel_size=\(9, 9\).*\(-3, -2\) blocks"),
    ((2, 5), RuntimeError, r"dilation=\(5, 5\)"),
    ((2**62,), RuntimeError, "kernel_size=.4611686018427387904"),
    ((3, 2**62), RuntimeError, "dilation=.4611686018427387904"),
    ((3, 1, 2**62), RuntimeError, "int64"),
    ((3, 1, 2**61), RuntimeError, "int64"),
    ((3, 1, 2**40), RuntimeError, "int64"),
    ((3, 1, 10**7), RuntimeError, "memory"),
    ((1, 1, 10**6), RuntimeError, "memory"),
]

#: arguments after the input (1, 18, 12)
FOLD_ERRORS = [
    (((5.0, 6), 3), TypeError, "output_size"),
    ((None, 3), TypeError, "output_size.*None"),
    ((True, 3), TypeError, "output_size.*True"),
    (((5, 6), 2**63), TypeError, "kernel_size.*int64"),
    (((5,), (3,)), RuntimeError, "3 = 3 blocks.*12"),
    (((5,), (3, 3)), RuntimeError, "output_size.*1 values"),
    (((5, 6), (3,)), RuntimeError, "output_size.*2 values"),
    (((), 3), RuntimeError, "output_size.*0 values"),
    (((5, 6), 0, 0, -1, 0), RuntimeError, "kernel_size must be at least 1"),
    (((5, 6), 3, 0, -1, 0), RuntimeError, "stride must be at least 1"),
    (((5, 6), 3, 0, -1), RuntimeError, "dilation must be at least 1"),
    (((5, 6), 3, 1, -1), RuntimeError, "padding must be at least 0"),
    (((5, 6), 2**32), RuntimeError, "kernel_size.*overflows"),
    (((5, 6), 2**31), RuntimeError, "divisible.*18"),
    (((5, 6), 2), RuntimeError, r"divisible.*\(2, 2\).*18"),
    (((6, 6), 3), RuntimeError, "4 . 4 = 16 blocks.*12"),
    (((2, 2), 3), RuntimeError, "0 . 0 = 0 blocks"),
    (((0, 6), 3), RuntimeError, "blocks"),
    (((2**62, 6), 3), RuntimeError, "blocks"),
    (((5, 6), 3, 2**62), RuntimeError, "blocks"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments,error,message", UNFOLD_ERRORS, ids=lambda value: str(value)[:30])
def test_unfold_errors(engine, kind, arguments, error, message):
    """The first wrong argument in PyTorch's order is named, with its value, whatever the engine."""
    with pytest.raises(error) as info:
        unfold(make(kind, some((1, 2, 5, 6))), *arguments)
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arguments,error,message", FOLD_ERRORS, ids=lambda value: str(value)[:30])
def test_fold_errors(engine, kind, arguments, error, message):
    """As for unfold; a kernel whose area overflows is an error, not the death of the process."""
    with pytest.raises(error) as info:
        fold(make(kind, some((1, 18, 12))), *arguments)
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize(
    "shape,error",
    [
        ((), IndexError),
        ((0,), IndexError),
        ((5,), IndexError),
        ((0, 5), IndexError),
        ((5, 5), IndexError),
        ((5, 0), RuntimeError),
        ((0, 5, 5), RuntimeError),
        ((5, 0, 5), RuntimeError),
        ((5, 5, 0), RuntimeError),
        ((0, 2, 0, 5), RuntimeError),
        ((1, 0, 5, 5), RuntimeError),
        ((1, 2, 5, 0), RuntimeError),
        ((1, 2, 5, 5, 0), RuntimeError),
        ((1, 0, 5, 5, 5), RuntimeError),
        ((1, 2, 5, 5, 5, 5), RuntimeError),
    ],
)
def test_unfold_ranks(shape, error):
    """Only N may be 0, and there are three or four dimensions."""
    with pytest.raises(error) as info:
        unfold_geometry(shape, 3, 1, 0, 1)
    assert str(shape) in str(info.value)


@pytest.mark.parametrize("shape", [(), (5,), (0, 12), (18, 0), (1, 0, 12), (1, 18, 0), (1, 1, 18, 12)])
def test_fold_ranks(shape):
    """Only N may be 0, and there are two or three dimensions."""
    with pytest.raises(RuntimeError) as info:
        fold_geometry(shape, (5, 6), 3, 1, 0, 1)
    assert str(shape) in str(info.value)


def test_empty_fold_images_are_refused():
    """(-1) x (-1) blocks have a product of one, and still there is no image."""
    for size in ((0, 0), (-1, -1)):
        with pytest.raises(RuntimeError):
            fold(np.ones((1, 4, 1)), size, 2)


@pytest.mark.parametrize("function", [unfold, lambda x, k: fold(x, 5, k)])
@pytest.mark.parametrize("value", [None, [1], 3, "x", [[1.0]]])
def test_inputs_of_other_types(function, value):
    """What is no array is a TypeError that says what it is."""
    with pytest.raises(TypeError) as info:
        function(value, 3)
    assert "'input'" in str(info.value) and type(value).__name__ in str(info.value)


@pytest.mark.parametrize("dtype", [object, "U3", "M8[s]", "m8[s]", "V4", [("a", "f4")]])
def test_arrays_that_are_no_numbers(dtype):
    """Arrays of objects, strings, dates or records are refused by name: their bytes are not for copying, or adding."""
    nothing, numbers = np.zeros((1, 1, 3, 3), dtype), np.zeros((1, 1, 3, 3))
    for argument, function in (
        ("input", lambda: unfold(nothing, 2)),
        ("out", lambda: unfold(numbers, 2, out=nothing)),
        ("input", lambda: fold(nothing[0], 3, 1)),
        ("input", lambda: conv2d(nothing, numbers)),
        ("weight", lambda: conv2d(numbers, nothing, op="l1")),
        ("bias", lambda: conv2d(numbers, numbers, nothing[0, 0, 0])),
        ("input", lambda: linear(nothing, nothing)),
        ("b", lambda: matmul(numbers, nothing, op="xnor")),
        ("weight", lambda: conv_matrix(nothing, 3, dense=True)),
    ):
        with pytest.raises(TypeError) as info:
            function()
        assert "'{}'".format(argument) in str(info.value) and str(np.dtype(dtype)) in str(info.value)


def test_masked_arrays():
    """A masked array is refused by name: there would be nothing to see of its mask in the result."""
    masked, numbers = np.ma.masked_array(np.ones((1, 1, 3, 3)), np.eye(3)), np.ones((1, 1, 3, 3))
    for argument, function in (
        ("input", lambda: unfold(masked, 2)),
        ("out", lambda: unfold(numbers, 3, out=np.ma.masked_array(np.ones((1, 9, 1))))),
        ("input", lambda: fold(masked[0], 3, 1)),
        ("input", lambda: conv2d(masked, numbers)),
        ("weight", lambda: conv2d(numbers, masked, op="l1")),
        ("bias", lambda: conv2d(numbers, numbers, masked[0, 0, 0, :1])),
        ("weight", lambda: linear(numbers, masked[0, 0])),
        ("a", lambda: matmul(masked, numbers, op="xnor")),
        ("weight", lambda: conv_matrix(masked, 3, dense=True)),
    ):
        with pytest.raises(TypeError) as info:
            function()
        assert "'{}' is a masked array".format(argument) in str(info.value)
    assert unfold(masked.filled(0), 3).sum() == 6


def test_other_byte_orders():
    """A big-endian array gives the same as a little-endian one; a big-endian out is filled."""
    image = some((1, 2, 5, 5))
    for dtype in (">f8", "<f8", ">i4"):
        columns = unfold(image.astype(dtype), 3)
        assert columns.dtype.isnative
        np.testing.assert_array_equal(columns, unfold(image, 3))
        np.testing.assert_array_equal(fold(columns, 5, 3), fold(unfold(image, 3), 5, 3))
        out = np.zeros(columns.shape, dtype)
        assert unfold(image.astype(dtype), 3, out=out) is out
        np.testing.assert_array_equal(out, columns)


def test_arguments_have_pytorchs_order_and_names():
    """Positions and keywords are those of F.unfold and F.fold."""
    image = some((1, 1, 6, 7))
    columns = unfold(input=image, kernel_size=2, dilation=3, padding=1, stride=2)
    np.testing.assert_array_equal(columns, unfold(image, 2, 3, 1, 2))
    np.testing.assert_array_equal(
        fold(input=columns, output_size=(6, 7), kernel_size=2, dilation=3, padding=1, stride=2),
        fold(columns, (6, 7), 2, 3, 1, 2),
    )
    with pytest.raises(TypeError):
        unfold(image)
    with pytest.raises(TypeError):
        unfold(image, 3, size=1)


# ---------------------------------------------------------------- conv2d, linear, matmul

X, W, B = (1, 4, 5, 6), (6, 4, 3, 3), (6,)
CONV_ERRORS = [
    (X, W, B, dict(stride=0), RuntimeError, "stride.*0"),
    (X, W, B, dict(stride=(1, 2, 3)), RuntimeError, "stride.*3 values"),
    (X, W, B, dict(stride=()), RuntimeError, "stride.*0 values"),
    (X, W, B, dict(stride=1.0), TypeError, "stride.*1.0"),
    (X, W, B, dict(stride=None), TypeError, "stride.*None"),
    (X, W, B, dict(stride=True), TypeError, "stride.*True"),
    (X, W, B, dict(stride=2**63), ValueError, "stride.*int64"),
    (X, W, B, dict(dilation=0), RuntimeError, "dilation.*0"),
    (X, W, B, dict(dilation=4), RuntimeError, r"dilation=\(4, 4\)"),
    (X, W, B, dict(padding=-1), RuntimeError, "padding.*-1"),
    (X, W, B, dict(padding="foo"), RuntimeError, "padding.*'foo'"),
    (X, W, B, dict(padding="same", stride=2), RuntimeError, "same.*stride"),
    (X, W, B, dict(padding=1.5), TypeError, "padding.*1.5"),
    (X, W, B, dict(padding=None), TypeError, "padding.*None"),
    (X, W, B, dict(padding=2**62), RuntimeError, "int64"),
    (X, W, B, dict(padding=2**70), ValueError, "padding.*int64"),
    (X, W, B, dict(groups=0), RuntimeError, "groups.*0"),
    (X, W, B, dict(groups=-1), RuntimeError, "groups.*-1"),
    (X, W, B, dict(groups=2), RuntimeError, "8 channels"),
    (X, W, B, dict(groups=True), TypeError, "groups.*True"),
    (X, W, B, dict(groups=2.0), TypeError, "groups.*2.0"),
    (X, (5, 2, 3, 3), None, dict(groups=2), RuntimeError, "groups.*5 filters"),
    (X, (6, 3, 3, 3), B, {}, RuntimeError, "3 channels"),
    (X, W, (5,), {}, RuntimeError, r"bias.*\(6,\).*\(5,\)"),
    (X, W, (1, 6), {}, RuntimeError, "bias"),
    ((5, 6), W, None, {}, RuntimeError, r"input.*\(5, 6\)"),
    (X, (4, 3, 3), None, {}, RuntimeError, "weight"),
    ((1, 4, 2, 6), W, None, {}, RuntimeError, "blocks"),
    (X, (6, 4, 7, 3), None, {}, RuntimeError, "blocks"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", ["dot", "l1"])
@pytest.mark.parametrize("x,w,b,arguments,error,message", CONV_ERRORS, ids=lambda value: str(value)[:30])
def test_conv2d_errors(kind, op, x, w, b, arguments, error, message):
    """The exceptions of F.conv2d, for every op, naming the argument and its value."""
    operands = [None if shape is None else make(kind, some(shape)) for shape in (x, w, b)]
    with pytest.raises(error) as info:
        conv2d(*operands, op=op, **arguments)
    assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize("shape", [(1, 0, 5, 5), (1, 4, 0, 6)])
def test_conv2d_without_pixels(shape):
    """No channels, or no height, is an error rather than an empty or invented result."""
    with pytest.raises(RuntimeError):
        conv2d(np.zeros(shape), np.zeros((2, shape[1], 3, 3)), padding=2, op="l1")


@pytest.mark.parametrize("kind", KINDS)
def test_mixtures_are_refused(kind):
    """Operands of different dtypes or kinds: RuntimeError or TypeError, as PyTorch has it, naming the operand."""
    x, w = make(kind, some(X)), make(kind, some(W))
    for function, a, b in (
        (conv2d, x, w),
        (linear, x, make(kind, some((5, 6)))),
        (matmul, x, make(kind, some((1, 4, 6, 5)))),
    ):
        name = "b" if function is matmul else "weight"
        with pytest.raises(RuntimeError) as info:
            function(a, make(kind, some(b.shape), "float32"), op="l1")
        assert name in str(info.value) and "float32" in str(info.value)
        for other in ([1.0], 3.0, None):
            with pytest.raises(TypeError):
                function(a, other, op="l1")
        for other in KINDS:
            if other != kind:
                with pytest.raises(TypeError):
                    function(a, make(other, some(b.shape)), op="l1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "x,w,b",
    [
        ((3, 4), (5, 3), None),
        ((3, 4), (2, 5, 4), None),
        ((3, 4), (5, 4), (4,)),
        ((3, 4), (5, 4), (5, 1)),
        ((3, 4), (4,), (1,)),
    ],
)
def test_linear_errors(kind, x, w, b):
    """Shapes that don't fit are a RuntimeError that shows them."""
    operands = [None if shape is None else make(kind, some(shape)) for shape in (x, w, b)]
    with pytest.raises(RuntimeError) as info:
        linear(*operands, op="l1")
    assert str(b or w) in str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("a,b", [((3, 4), (3, 4)), ((2, 3, 4), (3, 4, 3)), ((3,), (4,)), ((3, 4), (3,))])
def test_matmul_errors(kind, a, b):
    """Shapes that don't fit are a RuntimeError that shows them."""
    with pytest.raises(RuntimeError) as info:
        matmul(make(kind, some(a)), make(kind, some(b)), op="l1")
    assert str(a) in str(info.value) and str(b) in str(info.value)


def test_sizes_are_checked_before_memory_is_taken():
    """A convolution whose result can't fit in the machine raises at once."""
    x, w = np.zeros((1, 1, 4, 4), "float32"), np.zeros((1, 1, 1, 1), "float32")
    for padding in (10**6, 10**9, 2**31, 2**61):
        with pytest.raises(RuntimeError):
            conv2d(x, w, padding=padding, op="l1")


def test_conv_problem_of_same_padding():
    """An even kernel's extra pixel of padding goes to the bottom and to the right, as in PyTorch."""
    geometry = conv_problem(2, (1, 1, 5, 5), (1, 1, 2, 4), None, 1, "same", (1, 2), 1)
    assert geometry.pads == ((0, 1), (3, 3))
    assert geometry.result_shape == (1, 1, 5, 5)


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
def test_sparse_tensors_are_refused():
    """A layout without strides is a clear error."""
    sparse = torch.zeros(1, 1, 3, 3).to_sparse() if hasattr(torch.Tensor, "to_sparse") else None
    if sparse is None:
        pytest.skip("no to_sparse")
    for name in ("ffi", "slices"):
        if name in __import__("im2col_compat").available_backends():
            with use_backend(name), pytest.raises(RuntimeError) as info:
                unfold(sparse, 2)
            assert name in str(info.value)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_modules_check_when_called():
    """Unfold and Fold store what they are given, as nn.Unfold and nn.Fold do, and check in forward."""
    module = Unfold((3, 3, 3))
    assert module.kernel_size == (3, 3, 3)
    x = make("tensor", some((1, 2, 5, 6)))
    with pytest.raises(RuntimeError):
        module(x)
    with pytest.raises(RuntimeError):
        Fold(5, 0)(x[0])
    assert Tensor


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs tensors without dimensions (0.4 on)")
def test_tensors_of_one_integer():
    """They are sizes, as for PyTorch; tensors of floats are not."""
    x, two = make("tensor", some((1, 2, 6, 6))), torch.tensor(2)
    np.testing.assert_array_equal(values(unfold(x, two, two, torch.tensor(1), two)), values(unfold(x, 2, 2, 1, 2)))
    np.testing.assert_array_equal(values(unfold(x, (two, 2))), values(unfold(x, 2)))
    with pytest.raises(TypeError):
        unfold(x, torch.tensor(2.0))


HUGE = """
import itertools
import json

import numpy as np

from im2col_compat import conv1d, conv2d, conv3d, fold, lowlevel, unfold

outcomes = []
for function, size, kernel, stride, dilation, pads in json.loads({!r}):
    blocks = [
        (n + before + after - d * (k - 1) - 1) // s + 1
        for n, k, s, d, (before, after) in zip(size, kernel, stride, dilation, pads)
    ]
    if min(blocks) < 1 or np.prod([float(count) for count in blocks]) > 200:
        continue
    size, kernel, stride, dilation, pads = [tuple(sizes) for sizes in (size, kernel, stride, dilation, pads)]
    pads, dims = tuple(map(tuple, pads)), len(size)
    image, weight = np.arange(1.0, 1 + np.prod(size)).reshape(size), np.arange(np.prod(kernel)).reshape(kernel)
    columns = np.full(kernel + tuple(blocks), -np.inf if function == "max_plus" else 0)
    summed = np.zeros(size)
    for k in itertools.product(*map(range, kernel)):
        for block in itertools.product(*map(range, blocks)):
            pixel = tuple(i * s + j * d - p[0] for i, j, s, d, p in zip(block, k, stride, dilation, pads))
            if all(0 <= i < n for i, n in zip(pixel, size)):
                columns[k + block] = image[pixel]
                summed[pixel] += image[pixel]
    columns = columns.reshape(weight.size, -1)
    try:
        if function == "unfold":
            found, expected = unfold(image[None], kernel, dilation, pads, stride), columns
        elif function == "fold":
            found, expected = fold(columns, size, kernel, dilation, pads, stride), summed[None]
        else:
            conv = [conv1d, conv2d, conv3d][dims - 1]
            found = conv(image[None], weight[None, None] * 1.0, None, stride, pads, dilation, op=function)
            terms = abs(weight.reshape(-1, 1) - columns) if function == "l1" else weight.reshape(-1, 1) + columns
            expected = (terms.sum(0) if function == "l1" else terms.max(0)).reshape(found.shape)
    except RuntimeError as error:
        # Tensor operations pad strips of the image, which may be larger than the memory.
        refused = "not enough memory" in str(error) and lowlevel.missing is not None
        assert refused or "int64" in str(error) and "padding=" in str(error), error
        outcomes.append(0)
    else:
        np.testing.assert_array_equal(found, expected, str((function, size, kernel, stride, dilation, pads)))
        outcomes.append(1)
print(" ".join(map(str, [sum(outcomes), len(outcomes)])))
"""


def huge_case(chosen):
    """Sizes of one call, many of them about as large as an int64 is; it often has a few blocks."""

    def number():
        exponent = chosen.choice((20, 31, 32, 60, 61, 62, 63))
        return max(1, min(2**exponent + chosen.choice((0, 0, 2**61)) + chosen.randint(-6, 6), 2**63 - 1))

    dims = chosen.randint(1, 3)
    size, kernel, stride, dilation, pads = case = [[] for _ in range(5)]
    for _ in range(dims):
        size.append(chosen.randint(1, 4))
        kernel.append(chosen.randint(1, 3))
        dilation.append(chosen.choice((1, 2, number())))
        pads.append([chosen.choice((0, 1, number() if chosen.random() < 0.7 else 0)) for _ in range(2)])
        room = size[-1] + sum(pads[-1]) - dilation[-1] * (kernel[-1] - 1) - 1
        step = room // chosen.randint(1, 3) + chosen.randint(-1, 1) if room > 0 else 1
        stride.append(max(1, min(chosen.choice((step, step, number())), 2**63 - 1)))
    return [chosen.choice(("unfold", "fold", "l1", "max_plus"))] + case


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_huge_sizes_are_right_or_refused(seed):
    """Strides, dilations and paddings about as large as an int64 lead to no other pixel, and not out of the image. In a
    process of their own, as what reads outside it crashes."""
    chosen = random.Random(seed)
    cases = [huge_case(chosen) for _ in range(200)]
    pad = 2**62 + 2**61
    cases.append(["l1", [2], [1], [pad - 3], [1], [[pad, 0]]])
    right, count = run(HUGE.format(json.dumps(cases)))[0].split()
    assert int(count) > int(right) > 10
