"""Parts of a term that are of one operand alone are computed once an element, and nothing else changes."""

import pytest
from helpers.settings import CONVOLVE, TRANSPOSE, needs_library, needs_torch
from helpers.tensors import VARIABLES, torch

from im2col_compat import Op, linear, matmul, use_backend

pytestmark = [needs_torch, needs_library, pytest.mark.skipif(VARIABLES, reason="0.3 computes whole terms")]

#: name -> (op, what its parameter has a number for, which parts are computed before)
OPS = {}
if torch is not None:
    OPS = {
        "x": (Op(lambda w, x: abs(w - torch.tanh(x))), None, ["x"]),
        "both, padded": (Op(lambda w, x: abs(torch.exp(w) - torch.sigmoid(x)), pad_value=0.5), None, ["w", "x"]),
        "bare x": (Op(lambda w, x: abs(torch.exp(w) - torch.sigmoid(x)) + x, pad_value=None), None, ["w"]),
        "parameter": (Op(lambda w, x, s: torch.exp(s) * abs(torch.tanh(w) - x) + w), "filter", ["q0", "q1"]),
        "one number": (Op(lambda w, x, s: torch.exp(s) * abs(torch.tanh(w * s) - x)), "all", ["q0", "w"]),
        "max": (Op(lambda w, x: torch.tanh(w) - torch.exp(x), "max"), None, ["w", "x"]),
    }

#: function -> (shapes of a weight, of a parameter with a number for each filter, of an input; the call)
CALLS = {
    "conv2d": ((3, 2, 3, 2), (3, 1, 1, 1), (2, 2, 6, 5), lambda x, w, **options: CONVOLVE[2](x, w, None, 2, 1, **options)),
    "conv_transpose2d": (
        (2, 3, 3, 2), (1, 3, 1, 1), (2, 2, 4, 5), lambda x, w, **options: TRANSPOSE[2](x, w, None, 2, 1, **options)),
    "linear": ((3, 4), (3, 1), (5, 4), linear),
    "matmul": ((3, 4), (3, 1), (4, 5), lambda x, w, **options: matmul(w, x, **options)),
}  # fmt: skip


def random(*shape):
    return (torch.rand(*shape).double() * 2 - 1).requires_grad_()


def derivatives(call, w, x, op, params):
    """The result, first and second gradients."""
    leaves = [w, x] + list(params.values())
    y = call(x, w, op=op, params=params or None)
    first = torch.autograd.grad((y * y).sum(), leaves, create_graph=True)
    return [y] + list(first) + list(torch.autograd.grad(sum((g * g).sum() for g in first), leaves))


@pytest.mark.parametrize("function", sorted(CALLS))
@pytest.mark.parametrize("name", sorted(OPS))
def test_nothing_but_speed_changes(name, function):
    """Results and gradients, first and second, are those of whole terms, which tensor operations compute."""
    op, of, _ = OPS[name]
    weight, for_filters, image, call = CALLS[function]
    torch.manual_seed(3)
    w, x = random(*weight), random(*image)
    params = {} if of is None else {"s": random(*(for_filters if of == "filter" else (1,)))}
    found = derivatives(call, w, x, op, params)
    with use_backend("slices"):
        expected = derivatives(call, w, x, op, params)
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
    op, w, x = OPS["both, padded"][0], random(3, 2, 3, 2), random(2, 2, 6, 5)
    many = torch.stack([w, w * 2]).detach()
    found = torch.func.vmap(lambda w: CONVOLVE[2](x, w, op=op, padding=1))(many)
    for one, w in zip(found, many):
        assert torch.allclose(one, CONVOLVE[2](x, w, op=op, padding=1), rtol=1e-12)
