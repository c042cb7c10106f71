"""Kernels for groups of few filters, which read pixels where they lie: the same results as by panels of columns."""

import numpy as np
import pytest
from helpers.tensors import VARIABLES, make, torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import Op, available_backends, conv1d, conv2d, conv3d, lowlevel, ops, use_backend
from im2col_compat.codegen import kernels
from im2col_compat.compat import memory
from im2col_compat.paths import kernels as fused

if lowlevel.missing:
    pytest.skip("needs the C library", allow_module_level=True)

KIND = "numpy" if torch is None else "tensor"
E = np if torch is None else torch
LEVELS = kernels.LEVELS[: lowlevel.level() + 1]
CONVS = {1: conv1d, 2: conv2d, 3: conv3d}
#: More filters than direct kernels take: then columns are packed.
MANY = 9

OPS = {name: getattr(ops, name) for name in ("l1", "adder", "l2", "max_plus", "min_plus")}
OPS["own"] = Op(lambda w, x: abs(w - x) * x + w)
OPS["own max of what is there"] = Op(lambda w, x: w * x + x, "max", pad_value=None)
OPS["own add"] = Op(lambda w, x: w - x, lambda acc, term: acc * 0.5 + term, identity=1)
# About 1, so that products of hundreds of terms are finite.
OPS["own prod"] = Op(lambda w, x: (w - x * 0.1 + 2) * 0.5, "prod", pad_value=None)
OPS["own logsumexp"] = Op(lambda w, x: w - x, "logsumexp")
OPS["l1 of what is there"] = ops.l1.replace(pad_value=None)
OPS["max_plus of what is there"] = ops.max_plus.replace(pad_value=None)


class Call(object):
    """A convolution of random numbers, of so many dimensions, filters and channels of a group."""

    def __init__(self, seed, batch, groups, filters, channels, image, kernel, stride, padding, dilation):
        random = np.random.RandomState(seed)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
        image = tuple(max(n, need - 2 * pad) for n, need, pad in zip(image, reach, padding))
        self.x = random.randn(*(batch, groups * channels) + image)
        self.w = random.randn(*(groups, filters, channels) + tuple(kernel))
        self.groups, self.others = groups, (stride, padding, dilation, groups)

    def result(self, op, w, dtype, grad=None):
        """The result, and the gradients of x and w if the result's is given; of w (groups, filters, channels, kernel)."""
        needs = grad is not None
        x = make(KIND, self.x, dtype, requires_grad=needs)
        w = make(KIND, w.reshape((-1,) + w.shape[2:]), dtype, requires_grad=needs)
        y = CONVS[self.x.ndim - 2](x, w, None, *self.others, op=op)
        if not needs:
            return values(y)
        y.backward(make("raw" if VARIABLES else KIND, grad, dtype))
        return values(y), values(x.grad), values(w.grad)


def draw(dims):
    size, small = st.integers(1, 20 if dims < 3 else 7), st.integers(1, 3)

    def each(one):
        return st.tuples(*[one] * dims)

    return st.builds(
        Call, st.integers(0, 99), small, small, st.integers(1, 4), small, each(size), each(st.integers(1, 5)),
        each(small), each(st.integers(0, 4)), each(small))  # fmt: skip


calls = st.sampled_from([1, 2, 2, 3]).flatmap(draw)


@pytest.fixture(params=LEVELS)
def level(request, monkeypatch):
    monkeypatch.setenv("IM2COL_COMPAT_ISA", request.param)
    monkeypatch.setenv("IM2COL_COMPAT_QUIET", "1")
    # Two threads, however small a problem is.
    monkeypatch.setattr(fused, "LEAST", 0)
    monkeypatch.setattr(memory, "threads", lambda: 2)
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_are_those_of_panels_to_the_bit(level, dtype):
    @settings(deadline=None, max_examples=25)
    @given(call=calls, op=st.sampled_from(sorted(OPS)))
    def is_the_same(call, op):
        many = np.concatenate([call.w] * -(-MANY // call.w.shape[1]), 1)
        found, packed = call.result(OPS[op], call.w, dtype), call.result(OPS[op], many, dtype)
        shape = (found.shape[0], call.groups, -1) + found.shape[2:]
        expected = packed.reshape(shape)[:, :, : call.w.shape[1]]
        np.testing.assert_array_equal(found.reshape(shape), expected)

    is_the_same()


@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_are_those_of_tensor_operations(level, dtype):
    @settings(deadline=None, max_examples=25)
    @given(call=calls, op=st.sampled_from(sorted(OPS)))
    def are_the_same(call, op):
        grad = np.random.RandomState(7).randn(*call.result(OPS[op], call.w, dtype).shape)
        found = call.result(OPS[op], call.w, dtype, grad)
        with use_backend(available_backends()[-1]):
            expected = call.result(OPS[op], call.w, dtype, grad)
        for ours, theirs in zip(found, expected):
            # A gradient is a sum of terms of both signs, as large as the largest gradients: they say how much it may be off.
            bound = np.abs(np.where(np.isfinite(theirs), theirs, 0)).max() * (1e-4 if dtype == "float32" else 1e-11)
            np.testing.assert_allclose(ours, theirs, 0, bound)

    are_the_same()


#: (image, kernel, stride, padding, dilation), of several boxes, phases and runs.
LARGE = {
    "boxes of rows": ((2, 3, 190, 300), (3, 3), 1, 1, 1),
    "boxes of parts of rows": ((1, 2, 40000), (5,), 1, 2, 1),
    "strided": ((2, 3, 151, 260), (3, 5), (2, 3), 2, 1),
    "dilated": ((2, 3, 90, 60), (5, 5), 1, 16, 8),
    "deep": ((1, 2, 30, 40, 70), (3, 3, 3), 1, 1, 1),
}


@pytest.mark.parametrize("name", sorted(LARGE))
@pytest.mark.parametrize("op", ["l1", "l1 of what is there", "max_plus"])
def test_boxes(level, name, op):
    """Large images are cut into boxes: the same results, and the same gradients for any number of threads."""
    shape, kernel, stride, padding, dilation = LARGE[name]
    dims = len(kernel)
    arguments = [n if isinstance(n, tuple) else (n,) * dims for n in (stride, padding, dilation)]
    call = Call(3, shape[0], shape[1], 1, 1, shape[2:], kernel, arguments[0], arguments[1], arguments[2])
    many = np.concatenate([call.w] * MANY, 1)
    found = call.result(OPS[op], call.w, "float32")
    np.testing.assert_array_equal(found, call.result(OPS[op], many, "float32")[:, ::MANY])
    if torch is None or op == "max_plus":
        return
    grad = np.random.RandomState(7).randn(*found.shape)
    several = call.result(OPS[op], call.w, "float32", grad)
    memory.threads = lambda: 1
    for ours, theirs in zip(several, call.result(OPS[op], call.w, "float32", grad)):
        np.testing.assert_array_equal(ours, theirs)
    zeros = np.zeros_like(np.repeat(grad, MANY, 1))
    zeros[:, ::MANY] = grad
    packed = call.result(OPS[op], many, "float32", zeros)
    np.testing.assert_allclose(several[1], packed[1], 1e-5, 1e-5)
    scale = np.abs(several[2]).max()
    np.testing.assert_allclose(several[2], packed[2].reshape(-1, MANY, *packed[2].shape[1:])[:, 0], 1e-4, 1e-4 * scale)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_what_is_not_finite(level):
    """Infinities and NaN of pixels, weights and gradients go where tensor operations have them go."""
    call = Call(5, 2, 3, 1, 1, (9, 11), (3, 3), (1, 1), (1, 1), (1, 1))
    call.x[0, 1, 4, 4], call.x[1, 2, 0, 3], call.w[0, 0, 0, 1, 1] = np.inf, np.nan, -np.inf
    grad = np.random.RandomState(7).randn(2, 3, 9, 11)
    grad[0, 0, 2, 2] = np.inf
    # Tensor operations multiply the zeros that go to all other terms of a maximum.
    for name in sorted(set(OPS) - {"own max of what is there"}):
        found = call.result(OPS[name], call.w, "float32", grad)
        with use_backend(available_backends()[-1]):
            expected = call.result(OPS[name], call.w, "float32", grad)
        for ours, theirs in zip(found, expected):
            np.testing.assert_allclose(ours, theirs, 1e-4, 1e-4, err_msg=name)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_derivatives_without_bound_meet_no_positions_that_are_not(level):
    """A gradient of 0 times an infinite derivative is NaN, but only where there is such a gradient."""
    op = Op(lambda w, x: (w * 0 + 1) * E.sqrt(x), pad_value=1)
    call = Call(5, 1, 2, 1, 1, (9, 11), (3, 3), (1, 1), (1, 1), (2, 2))
    call.x = abs(call.x)
    call.x[0, 0, 0, 0] = 0
    grad = np.ones(call.result(op, call.w, "float64").shape)
    found = call.result(op, call.w, "float64", grad)
    with use_backend(available_backends()[-1]):
        expected = call.result(op, call.w, "float64", grad)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_positions_that_are_not_add_nothing_to_gradients_of_finite_operands(level):
    """What lies between rows and beyond the last one is read, too, and there a derivative may have no bound."""
    of_zero, of_equal = Op(lambda w, x: abs(w - x) / x), Op(lambda w, x: abs(x) / (w - x))
    for op, w, x in ((of_zero, 3, 1), (of_equal, 0, 2), (of_equal, 5, 5)):
        call = Call(5, 2, 4, 1, 1, (11, 13), (3, 3), (1, 1), (0, 0), (1, 1))
        call.x, call.w = 1 + abs(call.x) % 1, 3 + abs(call.w) % 1
        # The last pixel meets only the last tap.
        call.x[:, :, -1, -1] = x
        call.w[..., 0, 0] = w
        grad = np.random.RandomState(7).randn(*call.result(op, call.w, "float32").shape)
        found = call.result(op, call.w, "float32", grad)
        with use_backend(available_backends()[-1]):
            expected = call.result(op, call.w, "float32", grad)
        for ours, theirs in zip(found, expected):
            np.testing.assert_allclose(ours, theirs, 1e-3, 1e-3)
