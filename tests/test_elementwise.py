"""Functions whose values depend on other elements, or on how many there are, are refused by name; others never are."""

import numpy as np
import pytest
from helpers.tensors import KINDS, make, some, torch, values

from im2col_compat import Op, conv2d, linear


def product(w, x):
    return w * x


def total(w, x):
    return w * x / abs(w * x).sum()


def share(w, x):
    result = w * x
    return result / (result.numel() if hasattr(result, "numel") else result.size)


def running(w, x):
    return (w * x).cumsum(-1)


def sorted_values(w, x):
    result = w * x
    return result.sort(-1)[0] if hasattr(result, "dim") else np.sort(result, -1)


def turned(w, x):
    result = w * x
    return result.flip(-1) if hasattr(result, "flip") else result[..., ::-1].copy()


OTHERS = [total, share, running, sorted_values, turned]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", OTHERS)
@pytest.mark.parametrize("call", ["conv2d", "linear"])
def test_other_functions_are_refused(call, function, kind):
    """As multiply, with an error that names it."""
    if not hasattr(torch, "flip") and kind != "numpy":
        pytest.skip("these functions are younger")
    shapes = {"conv2d": ((3, 2, 3, 3), (2, 2, 5, 6)), "linear": ((4, 6), (3, 6))}[call]
    w, x = [make(kind, some(shape, seed=i)) for i, shape in enumerate(shapes)]
    with pytest.raises(RuntimeError) as info:
        linear(x, w, op=function) if call == "linear" else conv2d(x, w, op=function)
    assert "multiply" in str(info.value) and "element" in str(info.value)


@pytest.mark.parametrize("kind", KINDS)
def test_other_adds_are_refused(kind):
    """An add that looks at other results."""
    w, x = make(kind, some((4, 6))), make(kind, some((3, 6), seed=1))
    with pytest.raises(RuntimeError) as info:
        linear(x, w, op=Op(product, add=lambda acc, term: acc + term - (acc * 0 + term).sum()))
    assert "add" in str(info.value)


@pytest.mark.skipif(not hasattr(torch, "softmax"), reason="needs torch.softmax")
def test_other_gradients_are_refused():
    """A surrogate gradient that looks at other elements, and a function that captures another one."""
    w, x = make("tensor", some((4, 6)), requires_grad=True), make("tensor", some((3, 6), seed=1))
    with pytest.raises(RuntimeError) as info:
        linear(x, w, op=Op(product, grad_w=lambda w, x: torch.softmax(w * x, 0), grad_x=lambda w, x: w + 0 * x))
    assert "grad_w" in str(info.value)
    for inner, fine in ((torch.abs, True), (lambda v: torch.softmax(v, -1), False), (torch.abs, True)):
        op = Op(lambda w, x: inner(w * x) + 0 * torch.erfinv(0 * x))
        if fine:
            linear(x, w, op=op)
        else:
            with pytest.raises(RuntimeError):
                linear(x, w, op=op)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_elementwise_functions_pass(kind, dtype):
    """Whatever noise, steps, NaN and infinities they have: each gives what plain arithmetic gives."""
    w, x = some((4, 6), dtype), some((3, 6), dtype, seed=1)
    functions = [lambda w, x: (w - x) * (w > x), lambda w, x: (w * 7 + x) * 0 + 3 * w]
    if dtype != "int64":
        functions += [lambda w, x: 1 / (w - w + x - x), lambda w, x: (w * 1e8 + x) - w * 1e8]
    for function in functions:
        with np.errstate(all="ignore"):
            expected = function(w[None], x[:, None]).astype(dtype).sum(-1)
            found = values(linear(make(kind, x), make(kind, w), op=lambda w, x: function(w, x) * (x == x)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_random_functions_pass():
    """What draws random numbers can't be told apart, and isn't refused."""
    w, x = make("tensor", some((4, 6))), make("tensor", some((3, 6), seed=1))
    linear(x, w, op=lambda w, x: w * x * (torch.rand(()) if hasattr(torch, "rand_like") else 1))
