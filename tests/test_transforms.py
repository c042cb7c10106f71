"""torch.func's transforms, batched gradients and forward mode, of every kind of op and every public function."""

import pytest

from helpers.tensors import torch

from im2col_compat import Op, conv1d, conv2d, conv3d, linear, lowlevel, matmul

if torch is None or not hasattr(torch, "func"):
    pytest.skip("needs torch.func (2.0 on)", allow_module_level=True)


def sign(v):
    return (v >= 0).type_as(v) * 2 - 1


OPS = {
    "dot": "dot",
    "l1": "l1",
    "l2": "l2",
    "adder": "adder",
    "xnor": "xnor",
    "max_plus": "max_plus",
    "own": lambda w, x: w * torch.tanh(x),
    "own surrogates": Op(
        lambda w, x: sign(w) * sign(x), grad_w=lambda w, x: sign(x) * (abs(w) < 2), grad_x=lambda w, x: sign(w) * abs(x)
    ),
    "own add": Op(lambda w, x: w * x, add=lambda acc, term: acc + term * torch.sigmoid(acc)),
    "left out": Op(lambda w, x: w * x, pad_value=None),
    "tensor operations": lambda w, x: w * x + 0 * torch.erfc(x),
}
if not lowlevel.missing:
    OPS["C"] = Op.from_c("w * x", grad_w="x", grad_x="w")
#: Without a function that tensor operations could differentiate or map.
ONLY_C = {"C"}
CALLS = {
    "conv1d": (lambda w, x, op: conv1d(x, w, padding=1, op=op), (4, 3, 3), (2, 3, 7)),
    "conv2d": (lambda w, x, op: conv2d(x, w, stride=2, padding=1, op=op), (4, 3, 3, 3), (2, 3, 6, 5)),
    "conv3d": (lambda w, x, op: conv3d(x, w, op=op), (2, 1, 2, 2, 2), (1, 1, 3, 4, 3)),
    "linear": (lambda w, x, op: linear(x, w, op=op), (4, 5), (3, 5)),
    "matmul": (lambda w, x, op: matmul(w, x, op=op), (2, 4, 5), (5, 3)),
}
EVERY = pytest.mark.parametrize("op", sorted(OPS))
FUNCTIONS = pytest.mark.parametrize("name", sorted(CALLS))


def operands(name, batch=None):
    torch.manual_seed(0)
    _, w, x = CALLS[name]
    before = () if batch is None else (batch,)
    return torch.randn(before + w, dtype=torch.float64), torch.randn(before + x, dtype=torch.float64)


def called(name, op):
    return lambda w, x: CALLS[name][0](w, x, OPS[op])


def gradients(function, w, x, grad=None):
    w, x = w.detach().requires_grad_(), x.detach().requires_grad_()
    result = function(w, x)
    return torch.autograd.grad(result, (w, x), torch.ones_like(result) if grad is None else grad)


@EVERY
@FUNCTIONS
def test_grad(name, op):
    """torch.func.grad gives what autograd gives."""
    function, (w, x) = called(name, op), operands(name)
    found = torch.func.grad(lambda w, x: function(w, x).sum(), argnums=(0, 1))(w, x)
    torch.testing.assert_close(found, gradients(function, w, x))


@EVERY
@FUNCTIONS
def test_vjp(name, op):
    """What torch.func.vjp returns is called when the transform has ended, twice, with a graph or without."""
    function, (w, x) = called(name, op), operands(name)
    result, pull = torch.func.vjp(function, w, x)
    grad = torch.randn_like(result)
    expected = gradients(function, w, x, grad)
    torch.testing.assert_close(pull(grad), expected)
    with torch.no_grad():
        torch.testing.assert_close(pull(grad), expected)


@EVERY
@pytest.mark.parametrize("name", ["conv2d", "linear"])
def test_vjp_of_one_operand(name, op):
    """Only one operand is differentiated, and the other is a constant, or has a gradient of another graph."""
    function, (w, x) = called(name, op), operands(name)
    expected = gradients(function, w, x)
    # A gradient of the gradient would be possible in the second case, which C has none of.
    for other in (x,) if op in ONLY_C else (x, x.clone().requires_grad_()):
        result, pull = torch.func.vjp(lambda w: function(w, other), w)
        torch.testing.assert_close(pull(torch.ones_like(result))[0], expected[0])


@pytest.mark.parametrize("op", sorted(set(OPS) - ONLY_C))
@FUNCTIONS
def test_forward_mode(name, op):
    """A tangent times a gradient is the same number from either side, by torch.func.jvp and by dual numbers."""
    function, (w, x) = called(name, op), operands(name)
    tangents = torch.randn_like(w), torch.randn_like(x)
    result, tangent = torch.func.jvp(function, (w, x), tangents)
    torch.testing.assert_close(result, function(w, x))
    grad = torch.randn_like(result)
    expected = sum((d * t).sum() for d, t in zip(gradients(function, w, x, grad), tangents))
    torch.testing.assert_close((tangent * grad).sum(), expected)
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(*pair) for pair in zip((w, x), tangents)]
        found = torch.autograd.forward_ad.unpack_dual(function(*duals)).tangent
    torch.testing.assert_close(found, tangent)


@pytest.mark.parametrize("op", sorted(set(OPS) - ONLY_C))
@FUNCTIONS
def test_vmap(name, op):
    """vmap gives what a loop gives, over either operand and both."""
    function, (w, x) = called(name, op), operands(name, 3)
    each = [function(*pair) for pair in zip(w, x)]
    torch.testing.assert_close(torch.func.vmap(function)(w, x), torch.stack(each))
    over_x = torch.func.vmap(function, (None, 0))(w[0], x)
    torch.testing.assert_close(over_x, torch.stack([function(w[0], one) for one in x]))
    over_w = torch.func.vmap(function, (0, None))(w, x[0])
    torch.testing.assert_close(over_w, torch.stack([function(one, x[0]) for one in w]))


@pytest.mark.parametrize("op", sorted(set(OPS) - ONLY_C))
@pytest.mark.parametrize("name", ["conv2d", "linear", "matmul"])
def test_gradients_per_sample(name, op):
    """vmap of grad."""
    function, (w, x) = called(name, op), operands(name, 3)
    found = torch.func.vmap(torch.func.grad(lambda w, x: function(w, x).sum()), (None, 0))(w[0], x)
    torch.testing.assert_close(found, torch.stack([gradients(function, w[0], one)[0] for one in x]))


@pytest.mark.parametrize("op", sorted(set(OPS) - ONLY_C))
@pytest.mark.parametrize("name", ["conv2d", "linear", "matmul"])
def test_batched_gradients(name, op):
    """is_grads_batched gives a loop's gradients."""
    function, (w, x) = called(name, op), operands(name)
    w, x = w.requires_grad_(), x.requires_grad_()
    result = function(w, x)
    grads = torch.randn((3,) + tuple(result.shape), dtype=result.dtype)
    found = torch.autograd.grad(result, (w, x), grads, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(result, (w, x), grad, retain_graph=True) for grad in grads]
    torch.testing.assert_close(found, tuple(map(torch.stack, zip(*each))))


@pytest.mark.parametrize("op", ["l2", "own", "own surrogates", "own add", "left out", "tensor operations"])
def test_second_derivatives(op):
    """jacrev of grad is autograd's gradient of a gradient."""
    function, (w, x) = called("linear", op), operands("linear")
    once = torch.func.grad(lambda w: function(w, x).pow(2).sum())
    found = torch.func.jacrev(once)(w)
    w = w.requires_grad_()
    (grad,) = torch.autograd.grad(function(w, x).pow(2).sum(), w, create_graph=True)
    expected = [torch.autograd.grad(one, w, retain_graph=True)[0] for one in grad.reshape(-1)]
    torch.testing.assert_close(found, torch.stack(expected).reshape(found.shape))


@pytest.mark.skipif("C" not in OPS, reason="needs the C library")
def test_what_only_c_evaluates_is_refused():
    """There is no forward mode of an op in C: an error, and no wrong number."""
    function, (w, x) = called("linear", "C"), operands("linear")
    with pytest.raises(RuntimeError, match="forward mode"):
        torch.func.jvp(function, (w, x), (w, x))


SHAPES = [((4, 5), (5,)), ((5,), (5, 2)), ((4, 5), (3, 5, 2)), ((3, 4, 5), (5, 2)), ((3, 1, 4, 5), (2, 5, 2))]


@pytest.mark.parametrize("a,b", SHAPES)
def test_samples_of_any_shape(a, b):
    """vmap of first and second gradients of matmul, whose operands may have one dimension or broadcast."""
    torch.manual_seed(0)
    a, b = torch.randn((3,) + a, dtype=torch.float64), torch.randn((3,) + b, dtype=torch.float64)

    def value(a, b):
        return (matmul(a, b, op="l2") ** 2).sum()

    def penalty(a, b):
        return sum((g**2).sum() for g in torch.func.grad(value, argnums=(0, 1))(a, b))

    for function in (value, penalty):
        gradient = torch.func.grad(function, argnums=(0, 1))
        found, each = torch.func.vmap(gradient)(a, b), [gradient(*pair) for pair in zip(a, b)]
        torch.testing.assert_close(found, tuple(torch.stack(parts) for parts in zip(*each)))


@EVERY
def test_no_samples(op):
    """vmap over nothing, and over empty samples, gives empty results."""
    w = torch.ones(4, 5, dtype=torch.float64)
    for sizes in ((0, 3, 5), (3, 0, 5)):
        x = torch.ones(sizes, dtype=torch.float64)
        if op in ONLY_C:
            continue
        assert torch.func.vmap(lambda x: linear(x, w, op=OPS[op]))(x).shape == sizes[:2] + (4,)


@pytest.mark.parametrize("op", ["l2", "own", "own add"])
def test_hessians(op):
    """Forward mode over a gradient, against the gradient of a gradient."""
    (w, x), function = operands("linear"), called("linear", op)

    def total(w):
        return (function(w, x) ** 2).sum()

    torch.testing.assert_close(torch.func.hessian(total)(w), torch.autograd.functional.hessian(total, w))
