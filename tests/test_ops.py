"""Ops: their gradients, users' functions of every sort, and what wrong ones get."""

import copy
import fractions
import itertools
import operator
import pickle
import re

import numpy as np
import pytest
from helpers import oracle
from helpers.tensors import KINDS, VARIABLES, dtype_of, make, some, torch, values

from im2col_compat import Op, conv2d, linear, matmul, ops
from im2col_compat.compat import unfolds
from im2col_compat.compat.arrays import TORCH, arrays_of, raw

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
if torch is not None:
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck


def plus_one(w, x):
    return w * x + 1


# ---------------------------------------------------------------- what an Op is


def test_unknown_names_list_the_known():
    """A wrong op is a ValueError or a TypeError that says what there is."""
    x = np.ones((1, 1, 3, 3))
    for op, error in (("l3", ValueError), (3, TypeError), (None, TypeError), (["l1"], TypeError)):
        for call in (lambda: conv2d(x, x, op=op), lambda: linear(x, x[0, 0], op=op), lambda: matmul(x, x, op=op)):
            with pytest.raises(error) as info:
                call()
            assert repr(op) in str(info.value)
            for name in ("adder", "dot", "l1", "l2", "max_plus", "min_plus", "xnor"):
                assert name in str(info.value)


@pytest.mark.parametrize(
    "arguments,error,message",
    [
        (dict(multiply=3), TypeError, "multiply.*3"),
        (dict(multiply=None), TypeError, "multiply"),
        (dict(multiply=plus_one, add="mean"), ValueError, "add.*sum.*max.*min.*mean"),
        (dict(multiply=plus_one, add=None), ValueError, "add"),
        (dict(multiply=plus_one, grad_w=1), TypeError, "grad_w"),
        (dict(multiply=plus_one, grad_x="x"), TypeError, "grad_x"),
        (dict(multiply=plus_one, identity=0), ValueError, "identity"),
        (dict(multiply=plus_one, add=plus_one, identity="0"), TypeError, "identity"),
        (dict(multiply=plus_one, pad_value="0"), TypeError, "pad_value"),
        (dict(multiply=plus_one, normalize_grad_w="yes"), TypeError, "normalize_grad_w"),
        (dict(multiply=plus_one, pad_value=10**400), ValueError, "pad_value"),
        (dict(multiply=plus_one, pad_value=-(10**400)), ValueError, "pad_value"),
        (dict(multiply=plus_one, add=plus_one, identity=fractions.Fraction(10**400)), ValueError, "identity"),
        (dict(multiply=plus_one, normalize_grad_w=10**400), ValueError, "normalize_grad_w"),
    ],
)
def test_wrong_ops(arguments, error, message):
    """An Op checks its arguments when it is made, and names the wrong one."""
    with pytest.raises(error) as info:
        Op(**arguments)
    assert re.search(message, str(info.value))


def test_replace_and_repr():
    """replace changes one thing and drops the name; repr tells ops apart."""
    changed = ops.adder.replace(normalize_grad_w=0.2)
    assert changed.multiply is ops.adder.multiply and changed.grad_w is ops.adder.grad_w
    assert changed.normalize_grad_w == 0.2 and ops.adder.normalize_grad_w is None
    assert repr(ops.adder) == "adder" and "normalize_grad_w=0.2" in repr(changed)
    assert repr(Op(plus_one, "max", pad_value=None)) == "Op(plus_one, add='max', pad_value=None)"
    with pytest.raises(TypeError) as info:
        ops.l1.replace(pad=3)
    assert "pad" in str(info.value)


def test_named_ops_pickle_to_themselves():
    """A named op survives pickling and deep copies as the same object; one of module-level functions as an equal one."""
    for name in ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"):
        op = getattr(ops, name)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(op, protocol)) is op
        assert copy.deepcopy(op) is op
    own = pickle.loads(pickle.dumps(Op(plus_one, "max", pad_value=2), 2))
    assert own.multiply is plus_one and own.add == "max" and own.pad_value == 2


# ---------------------------------------------------------------- what users' functions may be


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "function,error,message",
    [
        (lambda w, x: 3.0, TypeError, "multiply.*float"),
        (lambda w, x: None, TypeError, "multiply.*NoneType"),
        (lambda w, x: (w * x).sum(), (RuntimeError, TypeError), "multiply"),
        (lambda w, x: (w * x)[..., :1], RuntimeError, "multiply.*element by element.*shape"),
        (lambda w, x: w[0] * x[0], RuntimeError, "multiply.*shape"),
        (lambda w, x: arrays_of(x).cast(w * x, "float32"), TypeError, "multiply.*float64.*float32"),
        (lambda w, x: arrays_of(x).cast(w * x, "int64"), TypeError, "multiply.*float64.*int64"),
    ],
)
def test_wrong_results(kind, function, error, message):
    """A function that returns the wrong type, shape or dtype is told what was expected."""
    x, w = make(kind, some((1, 2, 5, 5))), make(kind, some((3, 2, 2, 2)))
    for call in (lambda: conv2d(x, w, op=function), lambda: linear(x[0, 0], x[0, 1], op=function)):
        with pytest.raises(error) as info:
            call()
        assert re.search(message, str(info.value)), str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "add,error",
    [
        (lambda acc, term: 3.0, TypeError),
        (lambda acc, term: (acc + term)[..., :1], RuntimeError),
        (lambda acc, term: arrays_of(acc).cast(acc + term, "float32"), RuntimeError),
    ],
)
def test_wrong_adds(kind, add, error):
    """So is a wrong add."""
    x, w = make(kind, some((1, 2, 5, 5))), make(kind, some((3, 2, 2, 2)))
    with pytest.raises(error) as info:
        conv2d(x, w, op=Op(operator.mul, add))
    assert "add" in str(info.value)


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_of_functions_pass_through(kind):
    """What a user's function raises is what the user sees."""

    def fails(w, x):
        raise ZeroDivisionError("mine")

    x, w = make(kind, some((1, 2, 5, 5))), make(kind, some((3, 2, 2, 2)))
    with pytest.raises(ZeroDivisionError) as info:
        conv2d(x, w, op=fails)
    assert "mine" in str(info.value)
    with pytest.raises(ZeroDivisionError):
        conv2d(x, w, op=Op(operator.mul, fails))


def absolute(array):
    return np.maximum(array, -array) if isinstance(array, np.ndarray) else 1 / 0


@needs_torch
def test_functions_of_arrays_work_on_tensors():
    """A function that only understands NumPy arrays is called with them; gradients then need grad_w and grad_x."""
    x, w = some((2, 2, 5, 5), seed=1), some((3, 2, 2, 2), seed=2)
    expected = oracle.conv2d(x, w, lambda w, x: abs(w - x), operator.add, 0, 0).astype(float)

    def distance(w, x):
        return absolute(w - x)

    def sign(w, x):
        return np.sign(absolute(w) * 0 + w - x)

    for add in ("sum", lambda acc, term: np.add(absolute(acc), term)):
        found = conv2d(make("tensor", x), make("tensor", w), op=Op(distance, add))
        np.testing.assert_array_equal(values(found), expected)

    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    found = conv2d(x_, w_, op=distance)
    np.testing.assert_array_equal(values(found), expected)
    with pytest.raises(RuntimeError) as info:
        found.sum().backward()
    assert "grad_w" in str(info.value)

    conv2d(x_, w_, op=Op(distance, grad_w=sign, grad_x=lambda w, x: -sign(w, x))).sum().backward()
    ours = values(x_.grad), values(w_.grad)
    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    conv2d(x_, w_, op="l1").sum().backward()
    np.testing.assert_array_equal(ours[0], values(x_.grad))
    np.testing.assert_array_equal(ours[1], values(w_.grad))


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
def test_numpy_functions_on_tensors_that_require_grad():
    """NumPy's own functions serve, though they refuse tensors that require grad."""
    x, w = some((1, 2, 4, 4), seed=1), some((3, 2, 2, 2), seed=2)
    op = Op(
        lambda w, x: np.minimum(w, x),
        grad_w=lambda w, x: np.less(w, x).astype(w.dtype),
        grad_x=lambda w, x: np.less_equal(x, w).astype(w.dtype),
    )
    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    found = conv2d(x_, w_, op=op)
    np.testing.assert_array_equal(values(found), oracle.conv2d(x, w, min, operator.add, 0, 0).astype(float))
    found.sum().backward()
    assert values(w_.grad).sum() + values(x_.grad).sum() == 3 * 9 * 8


@needs_torch
def test_captured_tensors_get_their_gradients():
    """A function may capture a parameter; it is trained with the rest, non-leaf ones too."""
    x, w = (
        make("tensor", some(shape, seed=i), requires_grad=True) for i, shape in enumerate([(2, 3, 6, 5), (4, 3, 3, 2)])
    )
    slope = make("tensor", np.array([1.5]), requires_grad=True)

    def loss(function):
        return (function(slope * slope) ** 2).sum() + (slope * slope).sum()

    ours = loss(lambda square: conv2d(x, w, padding=1, op=lambda w, x: square * (w * x)))
    expected = loss(lambda square: square * torch.nn.functional.conv2d(x, w, padding=1))
    np.testing.assert_allclose(values(ours), values(expected))
    found = torch.autograd.grad([ours], [x, w, slope])
    for our, their in zip(found, torch.autograd.grad([expected], [x, w, slope])):
        np.testing.assert_allclose(values(our), values(their))
    added = matmul(
        x[0, 0], w[0, :1, :, :].view(1, 6)[:, :5].t(), op=Op(operator.mul, lambda acc, term: acc + slope * term)
    )
    assert torch.autograd.grad([added.sum()], [slope])[0] is not None


# ---------------------------------------------------------------- gradients

SMOOTH = {
    "dot": "dot",
    "l1": "l1",
    "l2": "l2",
    "max_plus": "max_plus",
    "min_plus": "min_plus",
    "product": lambda w, x: w * x,
    "cubic": lambda w, x: w * x * x + w,
    "skipping": Op(lambda w, x: w * x + w, pad_value=None),
    "own-add": Op(operator.mul, lambda acc, term: acc * 0.5 + term * term, identity=0.5),
    "own-add-first": Op(operator.mul, lambda acc, term: acc * 0.5 + term * term),
    "own-max": Op(lambda w, x: w * w + x, "max", pad_value=None),
}


def distinct(shape, seed):
    """Values no two sums or differences of which are as close as gradcheck's steps, so that no kink is met."""
    return np.random.RandomState(seed).randn(*shape) * 5


@needs_torch
@pytest.mark.parametrize("op", sorted(SMOOTH))
def test_first_and_second_derivatives(engine, op):
    """gradcheck and gradgradcheck hold for conv2d with every op, stride, padding, dilation and groups included."""
    x, w = distinct((1, 2, 4, 3), 1), distinct((2, 1, 2, 2), 2)
    x_, w_ = (make("tensor", array / 5, requires_grad=True) for array in (x, w))
    b = make("tensor", some((2,)), requires_grad=True)

    def function(x, w, b):
        return conv2d(x, w, b, (2, 1), (1, 0), (1, 2), 2, op=SMOOTH[op])

    assert gradcheck(function, (x_, w_, b))
    assert gradgradcheck(function, [x_, w_, b] if VARIABLES else (x_, w_, b))


@needs_torch
@pytest.mark.parametrize("op", sorted(SMOOTH))
def test_derivatives_of_linear_and_matmul(op):
    """The same for linear and matmul, where operands broadcast."""
    a, b = distinct((2, 1, 2, 3), 1), distinct((2, 3, 2), 2)
    a_, b_ = (make("tensor", array / 5, requires_grad=True) for array in (a, b))
    for function in (
        lambda a, b: matmul(a, b, op=SMOOTH[op]),
        lambda a, b: linear(a, b.transpose(1, 2)[0], op=SMOOTH[op]),
    ):
        assert gradcheck(function, (a_, b_))
        assert gradgradcheck(function, [a_, b_] if VARIABLES else (a_, b_))


@needs_torch
@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)])
def test_only_what_is_asked_for(needs):
    """An operand that doesn't require grad gets none."""
    x, w = (make("tensor", some((1, 2, 4, 4), seed=i), requires_grad=need) for i, need in enumerate(needs))
    y = conv2d(x, w, op="l1")
    assert y.requires_grad == any(needs)
    if any(needs):
        y.sum().backward()
    for tensor, need in zip((x, w), needs):
        assert (tensor.grad is not None) == need


def adder_by_definition(x, w, grad):
    """AdderNet (arXiv 1912.13200), equations 2, 5 and 6, as loops over a stride-1 convolution."""
    y = np.zeros((x.shape[0], w.shape[0], x.shape[2] - w.shape[2] + 1, x.shape[3] - w.shape[3] + 1))
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, t, m, q in itertools.product(*(range(size) for size in y.shape)):
        for k, i, j in itertools.product(*(range(size) for size in w.shape[1:])):
            difference = x[n, k, m + i, q + j] - w[t, k, i, j]
            y[n, t, m, q] -= abs(difference)
            dw[t, k, i, j] += difference * grad[n, t, m, q]
            dx[n, k, m + i, q + j] += min(max(-difference, -1), 1) * grad[n, t, m, q]
    return y, dx, dw


@needs_torch
def test_adder_is_addernets(engine):
    """Result, full-precision weight gradient and clipped input gradient are the paper's."""
    x, w = some((2, 3, 5, 4), seed=1) / 8, some((4, 3, 3, 2), seed=2) / 8
    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    y = conv2d(x_, w_, op="adder")
    grad = some(tuple(y.shape), seed=3)
    y.backward(make("tensor", grad))
    for found, expected in zip((y, x_.grad, w_.grad), adder_by_definition(x, w, grad)):
        np.testing.assert_allclose(values(found), expected, rtol=1e-12, atol=1e-12)


@needs_torch
def test_normalized_weight_gradient():
    """normalize_grad_w scales the finished weight gradient g to eta * sqrt(n) / |g| * g, and leaves the rest alone."""
    x, w = some((2, 3, 5, 4), seed=1) / 8, some((4, 3, 3, 2), seed=2) / 8
    gradients = []
    for op in (ops.adder, ops.adder.replace(normalize_grad_w=0.2)):
        for function in (conv2d, lambda x, w, op: linear(x, w[:, 0, 0, :].contiguous().repeat(1, 2), op=op)):
            x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
            function(x_, w_, op=op).sum().backward()
            gradients.append((values(x_.grad), values(w_.grad)))
    for plain, normal in zip(gradients[:1], gradients[2:3]):
        np.testing.assert_array_equal(plain[0], normal[0])
        np.testing.assert_allclose(normal[1], plain[1] * 0.2 * w.size**0.5 / np.linalg.norm(plain[1]))
    assert abs(gradients[3][1]).sum() > 0 and not np.allclose(gradients[3][1], gradients[1][1])


@needs_torch
@pytest.mark.parametrize("padding", [0, 2])
def test_xnor_is_the_convolution_of_signs(engine, padding):
    """Exactly F.conv2d of the signs, zero counting as +1 and zero padding as nothing, on ReLU outputs too."""
    random = np.random.RandomState(0)
    x, w = random.randn(2, 4, 7, 6), random.randn(6, 2, 3, 3)
    for image in (x, np.maximum(x, 0), np.zeros(x.shape)):
        x_, w_ = make("tensor", image, "float32", requires_grad=True), make("tensor", w, "float32", requires_grad=True)
        signs = [make("tensor", np.where(array >= 0, 1, -1), "float32") for array in (image, w)]
        found = conv2d(x_, w_, None, (2, 1), padding, 1, 2, op="xnor")
        expected = torch.nn.functional.conv2d(signs[0], signs[1], None, (2, 1), padding, 1, 2)
        np.testing.assert_array_equal(values(found), values(expected))
        # Straight through: as if the signs had been multiplied, where the operand's size is at most 1.
        found.sum().backward()
        leaves = [make("tensor", values(sign), "float32", requires_grad=True) for sign in signs]
        torch.nn.functional.conv2d(leaves[0], leaves[1], None, (2, 1), padding, 1, 2).sum().backward()
        for operand, array, leaf in ((x_, image, leaves[0]), (w_, w, leaves[1])):
            np.testing.assert_array_equal(values(operand.grad), values(leaf.grad) * (abs(array) <= 1))


@needs_torch
@pytest.mark.parametrize("op", ["max_plus", "min_plus"])
def test_ties_go_to_the_first(op):
    """Among equal terms the gradient goes to the first in the order of k."""
    x = make("tensor", np.ones((1, 2, 2, 2)), requires_grad=True)
    w = make("tensor", np.zeros((1, 2, 2, 2)), requires_grad=True)
    conv2d(x, w, op=op).sum().backward()
    expected = np.zeros((1, 2, 2, 2))
    expected[0, 0, 0, 0] = 1
    np.testing.assert_array_equal(values(x.grad), expected)
    np.testing.assert_array_equal(values(w.grad), expected)


@needs_torch
def test_surrogates_replace_partial_derivatives():
    """grad_w and grad_x stand for the term's derivatives, alone or together, and are differentiated in turn."""
    x, w = some((1, 2, 3, 3), seed=1), some((2, 2, 2, 2), seed=2)

    def weighted(op):
        x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
        y = conv2d(x_, w_, op=op)
        return y, x_, w_

    plain = lambda w, x: w * w * x  # noqa: E731
    cases = [
        (dict(), lambda w, x: 2 * w * x, lambda w, x: w * w),
        (dict(grad_w=lambda w, x: 3 * w + x), lambda w, x: 3 * w + x, lambda w, x: w * w),
        (dict(grad_x=lambda w, x: w - x), lambda w, x: 2 * w * x, lambda w, x: w - x),
        (dict(grad_w=lambda w, x: x * x, grad_x=lambda w, x: w * x), lambda w, x: x * x, lambda w, x: w * x),
        (dict(grad_w=lambda w, x: x, grad_x=lambda w, x: w), lambda w, x: x, lambda w, x: w),
    ]
    for surrogates, by_w, by_x in cases:
        y, x_, w_ = weighted(Op(plain, **surrogates))
        y.sum().backward()
        # sum over all terms of the partials, by hand: 4 blocks of 2 x 2 taps
        dx, dw = np.zeros(x.shape), np.zeros(w.shape)
        for o, c, i, j, r, q in itertools.product(range(2), range(2), range(2), range(2), range(2), range(2)):
            dw[o, c, i, j] += by_w(w[o, c, i, j], x[0, c, r + i, q + j])
            dx[0, c, r + i, q + j] += by_x(w[o, c, i, j], x[0, c, r + i, q + j])
        np.testing.assert_allclose(values(x_.grad), dx)
        np.testing.assert_allclose(values(w_.grad), dw)

    # d/dx of the surrogate x * x for dw is 2 x; d/dw of the surrogate w * x for dx is x.
    y, x_, w_ = weighted(Op(plain, grad_w=lambda w, x: x * x, grad_x=lambda w, x: w * x))
    gx, gw = torch.autograd.grad([y.sum()], [x_, w_], create_graph=True)
    second = torch.autograd.grad([gw.sum()], [x_], create_graph=True)[0]
    counts = values(conv_counts())
    np.testing.assert_allclose(values(second), 2 * x * counts * 2)
    second = torch.autograd.grad([gx.sum()], [w_])[0]
    np.testing.assert_allclose(
        values(second), [[[[x[0, c, i : i + 2, j : j + 2].sum() for j in (0, 1)] for i in (0, 1)] for c in (0, 1)]] * 2
    )


def conv_counts():
    """How many blocks of 2 x 2 cover each pixel of a 3 x 3 image."""
    return np.array([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]])


@needs_torch
def test_wrong_surrogates():
    """A surrogate of the wrong shape or dtype is named."""
    for name in ("grad_w", "grad_x"):
        for function, error in (
            (lambda w, x: (w * x)[..., :1], RuntimeError),
            (lambda w, x: 1.0, TypeError),
            (lambda w, x: TORCH.cast(w * x, "float32"), TypeError),
        ):
            x, w = (make("tensor", some((1, 2, 4, 4), seed=i), requires_grad=True) for i in (0, 1))
            with pytest.raises(error) as info:
                conv2d(x[:, :, :, :3], w[:, :, :2, :2], op=Op(operator.mul, **{name: function}))
            assert name in str(info.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["l1", "adder", "l2", "xnor", "max_plus", "min_plus"])
def test_a_named_op_is_its_functions(kind, name):
    """Passing a named op's functions as an own Op changes nothing."""
    named = getattr(ops, name)
    x, w = make(kind, some((2, 2, 5, 5), seed=1)), make(kind, some((3, 2, 2, 3), seed=2))
    expected = conv2d(x, w, padding=1, op=name)
    assert dtype_of(expected) == "float64"
    np.testing.assert_array_equal(values(conv2d(x, w, padding=1, op=named.replace())), values(expected))


# ---------------------------------------------------------------- regressions


@needs_torch
def test_captured_tensors_beside_surrogates():
    """A captured tensor gets its gradient also where the op has surrogates, or a name of its own."""
    x, w = some((3, 4), seed=1), some((2, 4), seed=2)
    for op in (
        dict(grad_w=lambda w, x: x),
        dict(grad_w=lambda w, x: x, grad_x=lambda w, x: w),
        dict(name="mine"),
        dict(name="dot"),
    ):
        slope = make("tensor", np.array([0.5]), requires_grad=True)
        x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
        linear(x_, w_, op=Op(lambda w, x: slope * w * x, **op)).sum().backward()
        np.testing.assert_allclose(values(slope.grad), [(x[:, None] * w).sum()])
        assert x_.grad is not None and w_.grad is not None


@needs_torch
def test_poles_under_padding_that_is_left_out():
    """A term that is infinite at zero has finite gradients where padding counts nothing."""
    x, w = abs(some((1, 1, 4, 4), seed=1)) + 1, some((1, 1, 3, 3), seed=2)
    x_, w_ = (make("tensor", array, requires_grad=True) for array in (x, w))
    conv2d(x_, w_, padding=1, op=Op(lambda w, x: w / x, pad_value=None)).sum().backward()
    padded = np.pad(1.0 / x[0, 0], 1, "constant")
    expected = [[padded[i : i + 4, j : j + 4].sum() for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(values(w_.grad)[0, 0], expected)
    assert np.isfinite(values(x_.grad)).all()


@needs_torch
def test_no_images_and_no_terms_have_gradients():
    """Empty batches and empty reductions can be differentiated."""
    if VARIABLES:
        pytest.skip("torch 0.3 has no empty tensors")
    w = make("tensor", some((3, 2, 3, 3)), requires_grad=True)
    x = torch.zeros((0, 2, 5, 5), dtype=torch.float64, requires_grad=True)
    for op in ("dot", "l1", "max_plus", "xnor"):
        y = conv2d(x, w, op=op)
        assert tuple(y.shape) == (0, 3, 3, 3)
        # Old PyTorch's own broadcasting has no gradient of empty tensors to record.
        (grad,) = torch.autograd.grad([y.sum()], [w], create_graph=unfolds.UNFOLD_IS_CURRENT)
        assert tuple(grad.shape) == (3, 2, 3, 3) and not values(grad).any()
    a, b = (torch.zeros(shape, requires_grad=True) for shape in ((3, 0), (2, 0)))
    linear(a, b, op="l1").sum().backward()
    assert tuple(a.grad.shape) == (3, 0) and tuple(b.grad.shape) == (2, 0)


@pytest.mark.skipif(torch is None or not hasattr(torch, "resolve_conj"), reason="needs complex arithmetic")
def test_complex_surrogates_are_derivatives():
    """grad_w and grad_x are d term / dw and d term / dx; conjugating them is the library's business."""
    gradients = []
    for op in (lambda w, x: w * x, Op(operator.mul, grad_w=lambda w, x: x, grad_x=lambda w, x: w)):
        x, w = (
            make("tensor", some(shape, "complex128", i), "complex128", requires_grad=True)
            for i, shape in enumerate([(3, 4), (2, 4)])
        )
        linear(x, w, op=op).abs().sum().backward()
        gradients.append((values(x.grad), values(w.grad)))
    for found, expected in zip(*gradients):
        np.testing.assert_allclose(found, expected)


@needs_torch
def test_operands_are_left_as_they_are():
    """No call changes an operand's values, or where they are stored."""
    base = make("raw" if VARIABLES else "tensor", some((3, 3, 2, 4)))
    if VARIABLES:
        w = torch.nn.Parameter(base.transpose(0, 3))
    else:
        w = torch.nn.Parameter(base.transpose(0, 3).detach())
    x = make("tensor", some((1, 3, 6, 6)))
    pointers = [raw(tensor).data_ptr() for tensor in (x, w)]
    before = [values(tensor).copy() for tensor in (x, w)]
    for op in ("l1", "xnor", Op(lambda w, x: x, lambda acc, term: acc + term), "dot"):
        conv2d(x, w, make("tensor", some((4,)) + 100.0), op=op)
    assert [raw(tensor).data_ptr() for tensor in (x, w)] == pointers and not w.is_contiguous()
    for tensor, value in zip((x, w), before):
        np.testing.assert_array_equal(values(tensor), value)
    x, slope = make("tensor", np.ones((3, 1))), make("tensor", np.array([1.0]), requires_grad=True)
    identity = Op(lambda w, x: x, lambda acc, term: acc + slope * term)
    linear(x, make("tensor", np.ones((1, 1))), make("tensor", np.array([100.0])), op=identity)
    np.testing.assert_array_equal(values(x), np.ones((3, 1)))


def test_a_bias_fits_the_result():
    """An int64 bias goes with int64 sums, not with an int8 maximum, where it would wrap."""
    x = np.ones((1, 1, 2, 2), "int8")
    assert conv2d(x, x, np.array([1000]), op="l1").item() == 1000
    with pytest.raises(RuntimeError) as info:
        conv2d(x, x, np.array([1000]), op="max_plus")
    assert "bias" in str(info.value)
    assert Op(operator.mul, pad_value=np.float32(1)).pad_value == 1
