"""The latest PyTorch is the oracle where it is installed: its own samples, its module tests, and random arguments."""

import numpy as np
import pytest
from helpers.tensors import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import im2col_compat
from im2col_compat import Fold, Unfold, available_backends, conv2d, fold, unfold, use_backend
from im2col_compat.compat import unfolds

if torch is None or not unfolds.UNFOLD_IS_CURRENT or not hasattr(torch, "export"):
    pytest.skip("the oracle is a current PyTorch", allow_module_level=True)

F = torch.nn.functional
DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128", "bool"]
TOLERANCE = {"float16": 1e-2, "bfloat16": 1e-1}


def opinfo():
    pytest.importorskip("expecttest")
    methods = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    (found,) = [op for op in methods.op_db if op.name == "nn.functional.unfold"]
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorchs_own_samples(engine, dtype):
    """Every sample of F.unfold's OpInfo, and fold of what it unfolds to: result, gradient, strides of the result."""
    if engine == "torch" and dtype != "float32":
        pytest.skip("F.unfold would be compared with itself, one dtype after the other")
    dtype_ = getattr(torch, dtype)
    grad = dtype != "bool"
    samples = list(opinfo().sample_inputs("cpu", dtype_, requires_grad=grad))
    assert len(samples) > 100
    for sample in samples:
        ours, theirs = (sample.input.detach().clone().requires_grad_(grad) for _ in range(2))
        found, expected = unfold(ours, *sample.args, **sample.kwargs), F.unfold(theirs, *sample.args, **sample.kwargs)
        assert torch.equal(found, expected) and found.dtype == expected.dtype and found.stride() == expected.stride()
        arguments = (tuple(sample.input.shape[2:]),) + tuple(sample.args)
        image, image_expected = fold(found, *arguments, **sample.kwargs), F.fold(expected, *arguments, **sample.kwargs)
        close = dict(rtol=TOLERANCE.get(dtype, 1e-6), atol=TOLERANCE.get(dtype, 1e-6) * 10)
        torch.testing.assert_close(image, image_expected, **close)
        if grad:
            cotangent = torch.randn_like(image_expected)
            for result, leaf in ((image, ours), (image_expected, theirs)):
                (leaf.gradient,) = torch.autograd.grad(result, leaf, cotangent)
            torch.testing.assert_close(ours.gradient, theirs.gradient, **close)


def test_pytorchs_module_tests(engine):
    """The Fold and Unfold cases of PyTorch's nn tests hold for our modules: result, gradient, repr and pickling aside."""
    pytest.importorskip("expecttest")
    common = pytest.importorskip("torch.testing._internal.common_nn")
    cases = [case for case in common.get_new_module_tests() if case.get("fullname", "").startswith(("Fold", "Unfold"))]
    assert len(cases) == 6
    for case in cases:
        theirs = case["constructor"]()
        ours_class = {"Fold": Fold, "Unfold": Unfold}[type(theirs).__name__]
        names = ("output_size", "kernel_size", "dilation", "padding", "stride")
        ours = ours_class(**{name: getattr(theirs, name) for name in names if hasattr(theirs, name)})
        assert repr(ours) == repr(theirs)
        leaf = torch.randn(case["input_size"], dtype=torch.float64, requires_grad=True)
        assert torch.equal(ours(leaf), theirs(leaf))
        assert torch.autograd.gradcheck(ours, (leaf,), fast_mode=True)
        assert torch.autograd.gradgradcheck(ours, (leaf,), fast_mode=True)


SIZE = st.one_of(
    st.integers(-1, 4),
    st.tuples(st.integers(0, 4), st.integers(1, 3)),
    st.sampled_from([(), (1,), (1, 2, 3), 2.0, None, True, "2"]),
)
GOOD_SIZE = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 4), st.integers(1, 3)))


def outcome(function, *arguments):
    """What a call gives: its result, or the exception's builtin type."""
    try:
        return function(*arguments)
    except Exception as error:
        return next(
            kind
            for kind in type(error).__mro__
            if kind.__name__ in ("TypeError", "RuntimeError", "IndexError", "ValueError")
        )


def means_two(size):
    """Whether a kernel_size is for two dimensions, the only ones that F.unfold has; wrong ones of no dimension included."""
    return not isinstance(size, tuple) or len(size) in (0, 2)


def same(found, expected):
    if isinstance(expected, type):
        return found is expected
    return not isinstance(found, type) and found.shape == expected.shape and torch.equal(found, expected)


@settings(deadline=None, max_examples=300)
@given(
    shape=st.lists(st.integers(0, 6), min_size=0, max_size=5),
    arguments=st.one_of(
        st.tuples(GOOD_SIZE, GOOD_SIZE, st.one_of(st.just(0), GOOD_SIZE), GOOD_SIZE), st.tuples(SIZE, SIZE, SIZE, SIZE)
    ),
)
def test_unfold_succeeds_and_fails_alike(shape, arguments):
    """For any shape and arguments, good or bad, every engine does what F.unfold does, in two dimensions."""
    assume(len(shape) != 5 and means_two(arguments[0]))
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    expected = outcome(F.unfold, x, *arguments)
    for name in available_backends():
        with use_backend(name):
            assert same(outcome(unfold, x, *arguments), expected), (name, outcome(unfold, x, *arguments), expected)


@settings(deadline=None, max_examples=300)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    arguments=st.one_of(
        st.tuples(GOOD_SIZE, GOOD_SIZE, st.one_of(st.just(0), GOOD_SIZE), GOOD_SIZE), st.tuples(SIZE, SIZE, SIZE, SIZE)
    ),
    wrong=st.one_of(
        st.none(),
        st.lists(st.integers(0, 12), min_size=0, max_size=4),
        st.sampled_from([(3,), 3, (0, 3), (-1, 2), "4", None]),
    ),
)
def test_fold_succeeds_and_fails_alike(size, arguments, wrong):
    """As for unfold: columns that fit, columns of any other shape, and wrong output sizes."""
    assume(means_two(arguments[0]) and wrong != (3,))
    try:
        shape = tuple(F.unfold(torch.zeros((2, 2) + size), *arguments).shape)
    except Exception:
        shape = (2, 8, 9)
    if isinstance(wrong, list):
        shape = wrong
    columns = torch.arange(float(np.prod(shape))).reshape(shape)
    output = wrong if wrong is not None and not isinstance(wrong, list) else size
    expected = outcome(F.fold, columns, output, *arguments)
    for name in available_backends():
        with use_backend(name):
            assert same(outcome(fold, columns, output, *arguments), expected), (name, expected)


CONV_SIZE = st.one_of(
    st.integers(-1, 3),
    st.tuples(st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(1, 3)),
    st.sampled_from([(), (1, 1, 1), 1.0, None, True]),
)


@settings(deadline=None, max_examples=200)
@given(
    shape=st.lists(st.integers(1, 6), min_size=3, max_size=4),
    filters=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=CONV_SIZE,
    padding=st.one_of(CONV_SIZE, st.sampled_from(["same", "valid", "foo"])),
    dilation=CONV_SIZE,
    groups=st.integers(-1, 3),
    channels=st.integers(0, 1),
)
def test_conv2d_succeeds_and_fails_alike(shape, filters, kernel, stride, padding, dilation, groups, channels):
    """For any arguments, good or bad, w * x does what F.conv2d does."""
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    per_group = max(1, shape[-3] // max(1, groups)) + channels
    w = torch.arange(float(filters * per_group * kernel[0] * kernel[1])).reshape((filters, per_group) + kernel)
    arguments = (x, w, None, stride, padding, dilation, groups)
    expected = outcome(F.conv2d, *arguments)
    for op in ("dot", lambda w, x: w * x):
        found = outcome(lambda *a: conv2d(*a, op=op), *arguments)
        if isinstance(expected, type):
            assert found is expected
        else:
            torch.testing.assert_close(found, expected)


def test_every_name_of_the_public_interface():
    """What the documentation promises is there, and nothing else."""
    assert sorted(im2col_compat.__all__) == sorted(
        "unfold fold Unfold Fold conv1d conv2d conv3d conv_matrix linear matmul Conv1d Conv2d Conv3d Linear "
        "BinaryConv2d BinaryLinear QuantConv2d QuantLinear convert Op ops backend use_backend available_backends "
        "conv_transpose1d conv_transpose2d conv_transpose3d ConvTranspose1d ConvTranspose2d ConvTranspose3d "
        "unfold_transpose SlowPathWarning".split()
    )
    for name in im2col_compat.__all__:
        assert getattr(im2col_compat, name).__doc__
