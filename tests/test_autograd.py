"""Derivatives of unfold and fold, to any order, with every engine."""

import warnings

import numpy as np
import pytest
from helpers import oracle, problems
from helpers.tensors import COMPLEX, VARIABLES, make, some, torch, values

from im2col_compat import Fold, Unfold, fold, unfold, use_backend
from im2col_compat.compat import probes, unfolds

if torch is None:
    pytest.skip("needs torch", allow_module_level=True)

from torch.autograd import gradcheck  # noqa: E402
from torch.autograd.gradcheck import gradgradcheck  # noqa: E402

PROBLEMS = [
    name
    for name, (shape, _, _, _, _) in sorted(problems.COLUMNS.items())
    if not name.startswith("wide") and not (VARIABLES and 0 in shape)
]


def random(shape, dtype="float64"):
    generator = np.random.RandomState(0)
    array = generator.randn(*shape)
    return array + 1j * generator.randn(*shape) if dtype in COMPLEX else array


def check_both(function, x):
    # 0.3's gradgradcheck takes a list and adds to it.
    assert gradcheck(function, (x,))
    assert gradgradcheck(function, [x] if VARIABLES else (x,))


def image_size(problem):
    return int(np.prod(problems.COLUMNS[problem][0]))


def columns_size(problem):
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    return oracle.unfold(np.zeros(shape), kernel, dilation, padding, stride).size


# Both functions are linear, and on every geometry each is found to be the other's adjoint, twice: see below. Here are
# small ones, as gradcheck takes long (and refuses empty inputs). Before 1.10 it knows no complex functions.
CHECKED = [(problem, "float64") for problem in PROBLEMS if 0 < image_size(problem) * columns_size(problem) <= 1100]
if hasattr(torch, "resolve_conj"):
    CHECKED += [("one-side-only", "complex128"), ("padding-only-columns", "complex128")]


@pytest.mark.parametrize("problem,dtype", CHECKED)
def test_first_and_second_derivatives(engine, problem, dtype):
    """gradcheck and gradgradcheck hold for unfold and for fold."""
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    x = make("tensor", random(shape, dtype), dtype, requires_grad=True)
    check_both(lambda x: unfold(x, kernel, dilation, padding, stride), x)
    columns = oracle.unfold(np.zeros(shape), kernel, dilation, padding, stride).shape
    y = make("tensor", random(columns, dtype), dtype, requires_grad=True)
    check_both(lambda y: fold(y, shape[2:], kernel, dilation, padding, stride), y)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_gradient_is_the_adjoint(engine, problem):
    """unfold's gradient is the nested loop's fold, fold's its unfold, and so on: exactly, on integers."""
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    image, columns = some(shape), some(oracle.unfold(np.zeros(shape), kernel, dilation, padding, stride).shape, seed=3)
    of_image = oracle.unfold(image, kernel, dilation, padding, stride)
    of_columns = oracle.fold(columns, shape[2:], kernel, dilation, padding, stride)

    def fold_(y):
        return fold(y, shape[2:], kernel, dilation, padding, stride)

    for function, at, weights, first, second in (
        (lambda x: unfold(x, kernel, dilation, padding, stride), image, columns, of_columns, of_image),
        (fold_, columns, image, of_image, of_columns),
    ):
        x, weights = (make("tensor", array, requires_grad=True) for array in (at, weights))
        (gradient,) = torch.autograd.grad([function(x)], [x], [weights], create_graph=True)
        np.testing.assert_array_equal(values(gradient), first)
        if 0 in shape and not gradient.requires_grad:
            continue  # PyTorch 1.0 keeps no graph of views of nothing
        (found,) = torch.autograd.grad([gradient], [weights], [make("tensor", at)])
        np.testing.assert_array_equal(values(found), second)


@pytest.mark.parametrize("unbatched", [False, True])
def test_expanded_gradients(engine, unbatched):
    """sum() hands back a gradient of stride 0: it is read as what it stands for."""
    x = make("tensor", some((1, 2, 5, 4)), requires_grad=True)
    unfold(x[0] if unbatched else x, (2, 3)).sum().backward()
    np.testing.assert_array_equal(values(x.grad), oracle.fold(np.ones((1, 12, 8)), (5, 4), (2, 3)))
    y = make("tensor", some((1, 12, 8)), requires_grad=True)
    fold(y[0] if unbatched else y, (5, 4), (2, 3)).sum().backward()
    np.testing.assert_array_equal(values(y.grad), np.ones((1, 12, 8)))


def test_third_derivatives(engine):
    """Derivatives go on as long as one asks."""
    x = make("tensor", some((1, 1, 4, 4)) + 20.0, requires_grad=True)
    y = (unfold(x, 2, padding=1) ** 4).sum()
    expected = 4 * 3 * 2 * values(x)
    for _ in range(3):
        (y,) = torch.autograd.grad([y.sum()], [x], create_graph=True)
    # Each pixel lies in four blocks.
    np.testing.assert_allclose(values(y), 4 * expected)


def test_channels_last_gradients(engine):
    """Gradients in another memory format are read as what they stand for."""
    if not hasattr(torch, "channels_last"):
        pytest.skip("needs memory formats")
    y = make("tensor", some((2, 12, 9)), requires_grad=True)
    image = fold(y, (5, 5), (2, 2), dilation=2)
    grad = make("tensor", some(tuple(image.shape), seed=4))
    image.backward(grad.contiguous(memory_format=torch.channels_last))
    np.testing.assert_array_equal(values(y.grad), oracle.unfold(values(grad), (2, 2), 2))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64", "complex128"])
def test_gradients_of_every_dtype(engine, dtype):
    """A gradient has its input's dtype; complex gradients are conjugated as PyTorch's are: not at all, as all is real."""
    if not probes.CPU_HALF:
        pytest.skip("0.3 to 1.1 compute nothing in float16 on a CPU")
    x = make("tensor", some((1, 2, 5, 4), dtype), dtype, requires_grad=True)
    columns = unfold(x, (2, 3), 1, 1, 2)
    weights = some(tuple(columns.shape), dtype, seed=3)
    columns.backward(make("tensor", weights, dtype))
    assert x.grad.dtype == x.dtype
    np.testing.assert_array_equal(values(x.grad), oracle.fold(weights, (5, 4), (2, 3), 1, 1, 2))


@pytest.mark.skipif(not hasattr(torch, "resolve_conj"), reason="needs lazy conjugation (1.10)")
def test_lazily_conjugated_tensors(engine):
    """A conjugated or negated view is read as what it stands for, not as what lies in memory."""
    x = make("tensor", some((1, 2, 4, 4), "complex128"), "complex128")
    np.testing.assert_array_equal(values(unfold(x.conj(), 2)), values(unfold(x, 2)).conj())
    np.testing.assert_array_equal(values(unfold(x.conj().imag, 2)), -values(unfold(x, 2)).imag)
    columns = unfold(x, 2)
    np.testing.assert_array_equal(values(fold(columns.conj(), 4, 2)), values(fold(columns, 4, 2)).conj())


def test_modules(engine):
    """Unfold and Fold are the functions, have no parameters, and print as nn.Unfold and nn.Fold."""
    x = make("tensor", some((2, 3, 6, 7)))
    modules = Unfold((2, 3), 1, (1, 0), 2), Fold((6, 7), (2, 3), 1, (1, 0), 2)
    columns = modules[0](x)
    np.testing.assert_array_equal(values(columns), values(unfold(x, (2, 3), 1, (1, 0), 2)))
    np.testing.assert_array_equal(values(modules[1](columns)), values(fold(columns, (6, 7), (2, 3), 1, (1, 0), 2)))
    assert repr(modules[0]) == "Unfold(kernel_size=(2, 3), dilation=1, padding=(1, 0), stride=2)"
    assert repr(modules[1]) == "Fold(output_size=(6, 7), kernel_size=(2, 3), dilation=1, padding=(1, 0), stride=2)"
    assert list(modules[0].parameters()) == [] and not modules[1].state_dict()


TRANSFORMS = hasattr(torch, "func")


@pytest.mark.skipif(not TRANSFORMS, reason="needs torch.func (2.0)")
def test_function_transforms(engine):
    """vmap, jvp, jacrev and a vmapped gradient see through every engine."""
    x = make("tensor", some((3, 2, 2, 5, 6)))
    expected = torch.stack([unfold(part, (2, 3), 1, 1, 2) for part in x])
    for dimension in (0, 1, 4):
        moved = x.movedim(0, dimension)
        found = torch.func.vmap(lambda x: unfold(x, (2, 3), 1, 1, 2), in_dims=dimension)(moved)
        assert torch.equal(found, expected)
    images = torch.func.vmap(lambda y: fold(y, (5, 6), (2, 3), 1, 1, 2))(expected)
    assert torch.equal(images, torch.stack([fold(part, (5, 6), (2, 3), 1, 1, 2) for part in expected]))
    out, tangent = torch.func.jvp(lambda x: unfold(x, 2), (x[0],), (x[1],))
    assert torch.equal(out, unfold(x[0], 2)) and torch.equal(tangent, unfold(x[1], 2))
    jacobian = torch.func.jacrev(lambda x: unfold(x, 2))(x[0, :1, :1, :3, :3])
    assert torch.equal(jacobian, torch.autograd.functional.jacobian(lambda x: unfold(x, 2), x[0, :1, :1, :3, :3]))
    per_sample = torch.func.vmap(torch.func.grad(lambda x: (unfold(x, 2) ** 2).sum()))(x)
    weights = torch.stack([fold(2 * unfold(part, 2), (5, 6), 2) for part in x])
    assert torch.equal(per_sample, weights)


@pytest.mark.skipif(not hasattr(torch, "jit") or not hasattr(torch.jit, "trace") or VARIABLES, reason="needs jit.trace")
def test_traced():
    """torch.jit.trace records F.unfold where that is the engine."""
    if not unfolds.HAS_UNFOLD:
        pytest.skip("no F.unfold")
    x = make("tensor", some((1, 2, 5, 6)))
    with use_backend("torch"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            traced = torch.jit.trace(lambda x: fold(unfold(x, 2), (5, 6), 2), (x,))
        np.testing.assert_array_equal(values(traced(x + 1)), values(fold(unfold(x + 1, 2), (5, 6), 2)))


@pytest.mark.skipif(not hasattr(getattr(torch, "export", None), "Dim"), reason="needs torch.export.Dim (2.2)")
def test_captured_whole():
    """torch.export and torch.compile capture unfold and fold without a graph break, dynamic batch included."""

    class Both(torch.nn.Module):
        def forward(self, x):
            return fold(unfold(x, 2), (5, 6), 2)

    x = make("tensor", some((2, 2, 5, 6)), "float32")
    expected = fold(unfold(x, 2), (5, 6), 2)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(Both(), (x,), dynamic_shapes=({0: batch},)).module()
    assert torch.equal(exported(x), expected)
    assert torch.equal(exported(torch.cat([x, x])), torch.cat([expected, expected]))
    compiled = torch.compile(Both(), backend="eager", fullgraph=True, dynamic=True)
    assert torch.equal(compiled(x), expected)
    assert torch.equal(compiled(x[:, :1]), expected[:, :1])


@pytest.mark.skipif(not hasattr(torch, "compile"), reason="needs torch.compile")
def test_compiled_with_any_engine(engine):
    """torch.compile gives the same result around every engine, breaking the graph where it has to."""
    compiled = torch.compile(lambda x: (unfold(x * 2, 2) + 1).sum(), backend="eager")
    x = make("tensor", some((1, 2, 5, 6)), requires_grad=True)
    expected = (unfold(x * 2, 2) + 1).sum()
    found = compiled(x)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(value, x)[0] for value in (found, expected)))
