"""Parts of a term that are of one operand alone are computed once an element, and nothing else changes."""

import pytest
from helpers.settings import CONVOLVE, TRANSPOSE, needs_library, needs_torch
from helpers.tensors import VARIABLES, torch

from im2col_compat import Op, linear, matmul, use_backend
from im2col_compat.compat import graphs

pytestmark = [needs_torch, needs_library, pytest.mark.skipif(VARIABLES, reason="0.3 computes whole terms")]

#: name -> (op, its parameters' shapes, which parts are computed before)
OPS = {}
if torch is not None:
    OPS = {
        "x": (Op(lambda w, x: abs(w - torch.tanh(x))), {}, ["x"]),
        "both, padded": (Op(lambda w, x: abs(torch.exp(w) - torch.sigmoid(x)), pad_value=0.5), {}, ["w", "x"]),
        "bare x": (Op(lambda w, x: abs(torch.exp(w) - torch.sigmoid(x)) + x, pad_value=None), {}, ["w"]),
        "parameter": (Op(lambda w, x, s: torch.exp(s) * abs(torch.tanh(w) - x) + w), {"s": (3, 1)}, ["q0", "q1"]),
        "one number": (Op(lambda w, x, s: torch.exp(s) * abs(torch.tanh(w * s) - x)), {"s": (1,)}, ["q0", "w"]),
        "max": (Op(lambda w, x: torch.tanh(w) - torch.exp(x), "max"), {}, ["w", "x"]),
    }


def operands(weight, image, shapes):
    torch.manual_seed(3)
    found = [torch.rand(*shape).double() * 2 - 1 for shape in (weight, image)]
    params = {}
    for name, shape in shapes.items():
        lacking = len(weight) - len(shape) if len(shape) > 1 else 0
        params[name] = torch.rand(*(tuple(shape) + (1,) * lacking)).double().requires_grad_()
    return [t.requires_grad_() for t in found], params


def derivatives(call, w, x, params):
    """The result, first and second gradients."""
    leaves = [w, x] + [params[name] for name in sorted(params)]
    y = call(x, w, params or None)
    first = torch.autograd.grad((y * y).sum(), leaves, create_graph=True)
    return [y] + list(first) + list(torch.autograd.grad(sum((g * g).sum() for g in first), leaves))


CALLS = {
    "conv2d": ((3, 2, 3, 2), (2, 2, 6, 5), lambda op: lambda x, w, p: CONVOLVE[2](x, w, None, 2, 1, op=op, params=p)),
    "conv_transpose2d": (
        (2, 3, 3, 2),
        (2, 2, 4, 5),
        lambda op: lambda x, w, p: TRANSPOSE[2](x, w, None, 2, 1, op=op, params=p),
    ),
    "linear": ((3, 4), (5, 4), lambda op: lambda x, w, p: linear(x, w, op=op, params=p)),
    "matmul": ((3, 4), (4, 5), lambda op: lambda x, w, p: matmul(w, x, op=op, params=p)),
}


@pytest.mark.parametrize("function", sorted(CALLS))
@pytest.mark.parametrize("name", sorted(OPS))
def test_nothing_but_speed_changes(name, function):
    """Results and gradients, first and second, are those of whole terms, which tensor operations compute."""
    op, shapes, _ = OPS[name]
    weight, image, call = CALLS[function]
    if function == "conv_transpose2d":
        shapes = {key: shape if len(shape) == 1 else (1,) + tuple(shape) for key, shape in shapes.items()}
    (w, x), params = operands(weight, image, {key: shape[: len(weight)] for key, shape in shapes.items()})
    if function == "conv_transpose2d" and "s" in params and params["s"].dim() > 1:
        params["s"] = params["s"].detach().reshape(1, 3, 1, 1).requires_grad_()
    found = derivatives(call(op), w, x, params)
    with use_backend("torch" if hasattr(torch.nn.functional, "unfold") else "slices"):
        expected = derivatives(call(op), w, x, params)
    for one, other in zip(found, expected):
        assert one.shape == other.shape
        scale = float(other.detach().abs().max()) or 1
        assert float((one - other).detach().abs().max()) <= 1e-10 * scale


@pytest.mark.parametrize("name", sorted(OPS))
def test_explain_says_what_is_computed_before(name):
    op, _, parts = OPS[name]
    text = op.explain("float64")
    assert "Computed once an element, before:" in text
    before, after = text.split("C kernels")
    assert sorted(line.split(" = ")[0] for line in before.splitlines() if " = " in line) == parts
    assert "tanh(" not in after and ("exp(" not in after or name == "bare x")


def test_what_is_cheap_or_of_both_stays():
    """So do functions of what both operands give, several parts of x, and functions that may change."""
    number = torch.rand(1).item()
    for function in (
        lambda w, x: abs(w - 2 * x),
        lambda w, x: torch.exp(w - x),
        lambda w, x: abs(w - torch.exp(x)) + torch.tanh(x),
        lambda w, x: abs(w - torch.exp(number * x)),
    ):
        assert "once an element" not in Op(function).explain("float64")


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func")
def test_under_vmap():
    op, _, _ = OPS["both, padded"]
    (w, x), _ = operands((3, 2, 3, 2), (2, 2, 6, 5), {})
    many = torch.stack([w, w * 2]).detach()
    found = torch.func.vmap(lambda w: CONVOLVE[2](x, w, op=op, padding=1))(many)
    for one, w in zip(found, many):
        assert torch.allclose(one, CONVOLVE[2](x, w, op=op, padding=1), rtol=1e-12)
    assert graphs.transform() is None
