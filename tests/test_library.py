"""Graphs of torch.compile and torch.export hold convolutions with an op as one operator, or break around them."""

import operator

import numpy as np
import pytest
from helpers.processes import run
from helpers.tensors import make, some, torch, values

from im2col_compat import Conv2d, Linear, Op, conv1d, conv2d, conv3d, fold, linear, matmul, unfold
from im2col_compat.compat import graphs
from im2col_compat import graph as library

if not graphs.HAS_LIBRARY:
    pytest.skip("needs torch.library's operators (2.4)", allow_module_level=True)

OPS = {
    "l1": "l1",
    "xnor": "xnor",
    "max_plus": "max_plus",
    "lambda": lambda w, x: (w - x) ** 2,
    "own-max": Op(operator.mul, "max"),
    "own-add": Op(operator.mul, lambda acc, term: acc * 0.5 + term),
}


class Net(torch.nn.Module):
    """All three functions."""

    def __init__(self, op, padding):
        super(Net, self).__init__()
        self.conv, self.fc = Conv2d(3, 4, (3, 2), (1, 2), padding, op=op), Linear(4, 5, op=op)

    def forward(self, x):
        y = self.conv(x * 2).relu().mean((2, 3))
        return matmul(self.fc(y), self.fc.weight, op=self.fc.op)


@pytest.fixture(autouse=True)
def compiler():
    torch._dynamo.reset()
    torch.manual_seed(0)


def assert_close(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", sorted(OPS))
def test_compiled_whole(op):
    """torch.compile breaks no graph, and result and gradients are what they are without."""
    net, x = Net(OPS[op], (2, 1)), torch.randn(2, 3, 8, 8, requires_grad=True)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    leaves = [x] + list(net.parameters())
    y, expected = compiled(x), net(x)
    assert_close([y], [expected])
    assert_close(torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves))


def test_only_wanted_gradients():
    """A frozen weight, or an image that needs no gradient, costs none."""
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 2, 2, requires_grad=True)
    compiled = torch.compile(lambda x, w: conv2d(x, w, op="l1"), fullgraph=True, backend="aot_eager")
    for wanted, operands in ((w, (x, w)), (x, (x.requires_grad_(), w.detach()))):
        found, expected = compiled(*operands), conv2d(*operands, op="l1")
        assert_close(torch.autograd.grad(found.sum(), [wanted]), torch.autograd.grad(expected.sum(), [wanted]))


@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_exported(padding):
    """torch.export holds it too, for any number of images."""
    net, x = Net("adder", 0), torch.randn(2, 3, 8, 8)
    net.conv = Conv2d(3, 4, (3, 2), padding=padding, op=lambda w, x: abs(w - x))
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    for images in (x, torch.randn(5, 3, 8, 8)):
        assert_close([exported(images)], [net(images)])


def test_exported_graphs_are_saved(tmpdir):
    """A graph with a named op is saved, and loaded by a process that knows nothing of it but im2col_compat."""
    net, x = Conv2d(2, 3, 2, op="l1"), torch.randn(1, 2, 4, 4)
    graph, expected = str(tmpdir.join("graph.pt2")), str(tmpdir.join("expected.pt"))
    torch.export.save(torch.export.export(net, (x,)), graph)
    torch.save((x, net(x).detach()), expected)
    code = (
        "import torch, im2col_compat; x, expected = torch.load({!r}); "
        "print(torch.equal(torch.export.load({!r}).module()(x), expected))"
    ).format(expected, graph)
    assert run(code)[0] == "True"


def test_captured_tensors_get_their_gradients():
    """A function that captures a tensor requiring grad breaks the graph, as an operator would lose the gradient."""
    slope = torch.tensor(0.5, requires_grad=True)
    op = Op(lambda w, x: slope * (w - x) ** 2)
    compiled = torch.compile(lambda x, w: linear(x, w, op=op) * 2, backend="eager")
    x, w = torch.randn(3, 4), torch.randn(2, 4)
    found, expected = compiled(x, w), linear(x, w, op=op) * 2
    assert_close([found], [expected])
    assert_close(torch.autograd.grad(found.sum(), [slope]), torch.autograd.grad(expected.sum(), [slope]))


def test_captured_tensors_that_come_to_require_grad():
    """The same if they do only later, whatever their dtype."""
    slope = torch.full((1,), 0.5, dtype=torch.float64)
    op = Op(lambda w, x: slope * w * x)
    x, w = torch.randn(2, 4).double(), torch.randn(3, 4).double()
    compiled = torch.compile(lambda x, w: linear(x, w, op=op), backend="eager")
    assert not compiled(x, w).requires_grad
    slope.requires_grad_(True)
    (found,), (expected,) = (
        torch.autograd.grad(f(x, w).sum(), [slope]) for f in (compiled, lambda x, w: linear(x, w, op=op))
    )
    assert_close([found], [expected])


def test_second_derivatives():
    """A gradient's gradient comes through a graph."""
    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 2, 2, requires_grad=True)

    def penalty(function):
        (grad,) = torch.autograd.grad(function(x, w).sum(), [x], create_graph=True)
        return torch.autograd.grad((grad.pow(2).sum() - 1) ** 2, [w])

    def plain(x, w):
        return conv2d(x, w, op="l2")

    assert_close(penalty(torch.compile(plain, fullgraph=True, backend="eager")), penalty(plain))


def test_function_transforms_are_left_alone():
    """torch.func.grad inside the compiled function, and forward mode, which is right where a graph makes it possible."""
    x, w = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 2, 2)
    gradient = torch.func.grad(lambda x: conv2d(x, w, op="l2").sum())
    assert_close([torch.compile(gradient, backend="aot_eager")(x)], [gradient(x)])
    tangent = torch.compile(lambda x: torch.func.jvp(lambda x: conv2d(x, w, op="l2"), (x,), (x,))[1], backend="eager")
    try:
        found = tangent(x)
    except Exception:
        return  # as it is without a graph
    assert_close([found], [torch.autograd.functional.jvp(lambda x: conv2d(x, w, op="l2"), x, x)[1]])


def test_ops_made_in_the_graph():
    """An op that is made where it is compiled is no constant: the graph breaks, the result is the same."""
    x, w = torch.randn(3, 4), torch.randn(2, 4)
    for function in (lambda x, w: linear(x, w, op=lambda w, x: w * x + 1), lambda x, w: linear(x, w, op=Op(max_of))):
        assert_close([torch.compile(function, backend="eager")(x, w)], [function(x, w)])


@pytest.mark.parametrize(
    "arguments",
    [
        dict(bias=torch.ones(4, 1)),
        dict(bias=torch.ones(4).double()),
        dict(stride=[2, 1, 1]),
        dict(padding=[1, 2, 1, 2]),
        dict(padding="sam"),
        dict(dilation=1.5),
        dict(groups=3),
    ],
    ids=str,
)
def test_wrong_arguments(arguments):
    """What is refused without a graph is refused in one, in the same words."""
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with pytest.raises(Exception) as expected:
        conv2d(x, w, op="l1", **arguments)
    with pytest.raises(type(expected.value)) as found:
        torch.compile(lambda x, w: conv2d(x, w, op="l1", **arguments), backend="eager")(x, w)
    assert str(expected.value) in str(found.value)


def test_unusual_arguments():
    """Lists of one size, images without a batch, same padding of even kernels: as without a graph."""
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 2, 2)
    unusual = (
        dict(stride=[2]),
        dict(padding="same"),
        dict(padding="valid", dilation=(1, 2)),
        dict(bias=torch.ones(4)),
    )

    def all_of_them(x, w):
        return [conv2d(x, w, op="l1", **arguments) for arguments in unusual]

    compiled = torch.compile(all_of_them, backend="eager")
    for image in (x, x[0]):
        assert_close(compiled(image, w), all_of_them(image, w))


def test_another_thread_compiles():
    """PyTorch's flag of compiling is one for all threads: an operator that runs must not record itself."""
    x, w = torch.randn(1, 2, 5, 5, requires_grad=True), torch.randn(3, 2, 2, 2)
    expected = conv2d(x, w, op="l1")
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        found = conv2d(x, w, op="l1")
    finally:
        torch.compiler._is_compiling_flag = before
    assert_close([found], [expected])
    assert_close(*[torch.autograd.grad(y.sum(), [x]) for y in (found, expected)])


def test_ops_of_other_processes_are_refused():
    """Own ops have names that no other process has. They live as long as graphs may."""
    first, op = Op(operator.sub), Op(operator.sub)
    name = library.key(first.token, torch.float32)
    assert torch.equal(
        torch.ops.im2col_compat.dot(torch.ones(2, 2), torch.ones(2, 2), [], "linear", name), torch.zeros(2, 2)
    )
    with pytest.raises(RuntimeError) as info:
        torch.ops.im2col_compat.dot(torch.ones(2, 2), torch.ones(2, 2), [], "linear", "f" * 32 + " 3")
    assert "named ops" in str(info.value)
    assert library.key(op.token, torch.float32) == library.key(op.token, torch.float32) != name


def max_of(w, x):
    return torch.max(w, x)


def test_integers():
    """Sums of integers are int64 in graphs too."""
    x, w = make("tensor", some((1, 2, 4, 4), "uint8"), "uint8"), make("tensor", some((3, 2, 2, 2), "uint8"), "uint8")
    op = Op(lambda w, x: w ^ x)
    found = torch.compile(lambda x, w: conv2d(x, w, op=op), fullgraph=True, backend="aot_eager")(x, w)
    assert found.dtype == torch.int64 and torch.equal(found, conv2d(x, w, op=op))


@pytest.mark.parametrize("function,shapes", [("linear", [(3, 4), (2, 4)]), ("matmul", [(2, 3, 4), (4, 5)])])
def test_the_operator_is_one(function, shapes):
    """PyTorch's own examination of an operator finds nothing."""
    operands = [torch.randn(shape, requires_grad=True) for shape in shapes]
    torch.library.opcheck(torch.ops.im2col_compat.dot.default, (operands[0], operands[1], [], function, "l1"))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_other_dimensions(dims):
    """unfold and convolutions in one to three dimensions, and uneven padding, need no break of the graph."""
    x = torch.randn((2, 3) + (6, 5, 4)[:dims], requires_grad=True)
    w, pads = torch.randn((2, 3) + (2,) * dims), ((1, 0),) * dims
    conv = (conv1d, conv2d, conv3d)[dims - 1]

    def all_of_them(x):
        return (
            unfold(x, (2,) * dims, padding=1),
            unfold(x, (2,) * dims, padding=pads),
            fold(unfold(x, (2,) * dims), x.shape[2:], (2,) * dims),
            conv(x, w, padding=1, op="l1"),
        )

    found, expected = torch.compile(all_of_them, backend="aot_eager", fullgraph=True)(x), all_of_them(x)
    assert len(found) == 4
    assert_close(found, expected)
    # Each by itself, as one's gradient would make up for another's.
    for ours, theirs in zip(found, expected):
        assert_close(*(torch.autograd.grad(y.pow(2).sum(), x, retain_graph=True) for y in (ours, theirs)))
