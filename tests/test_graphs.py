"""What graphs record: one op is never taken for another, sizes stay dynamic, and torch.fx gets nodes."""

import warnings

import pytest
from helpers.tensors import torch

from im2col_compat import Conv1d, Conv2d, Conv3d, Linear, Op, conv2d, fold, linear, matmul, ops, unfold
from im2col_compat.compat import graphs

if torch is None or not graphs.HAS_LIBRARY:
    pytest.skip("needs torch.library's operators (2.4)", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|TorchScript).*")
MODES = ["zeros", "circular", "replicate", "reflect"]
OPS = {"dot": "dot", "l1": "l1", "own": lambda w, x: w * x * x, "left out": Op(lambda w, x: w * x, pad_value=None)}


def traced(function, *inputs):
    """torch.jit.trace, which warns where something that it can't follow becomes a constant."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        result = torch.jit.trace(function, inputs, check_trace=False)
    assert [one for one in said if issubclass(one.category, torch.jit.TracerWarning)] == []
    return result


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["layer", "function"])
def test_compiled_layers_keep_their_ops(kind):
    """torch.compile keeps one piece of code for all layers of a class, and each computes with its own op."""
    torch._dynamo.reset()
    x, w = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    for op in ["dot", "l1", "l2", Op(lambda w, x: w * x * x), Op(lambda w, x: w + x), ops.adder.replace(pad_value=2)]:
        layer = Conv2d(3, 4, 3, padding=1, op=op)
        function = layer if kind == "layer" else lambda x: conv2d(x, w, padding=1, op=op)  # noqa: B023
        same(torch.compile(function, backend="eager", fullgraph=True)(x), function(x))


@pytest.mark.parametrize("op", sorted(OPS))
@pytest.mark.parametrize("mode", MODES)
def test_sizes_of_layers(mode, op):
    """A trace and an export of a layer take other batches and image sizes, and give gradients."""
    padding = ((1, 0), (0, 2)) if mode == "zeros" else 1
    layer = Conv2d(3, 4, 3, padding=padding, padding_mode=mode, op=OPS[op])
    x, other = torch.rand(2, 3, 8, 9), torch.rand(5, 3, 12, 11)
    sizes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=8), 3: torch.export.Dim("w", min=8)}
    for module in (traced(layer, x), torch.export.export(layer, (x,), dynamic_shapes=(sizes,)).module()):
        leaf = other.clone().requires_grad_()
        same(module(leaf), layer(other))
        same(torch.autograd.grad(module(leaf).sum(), leaf), torch.autograd.grad(layer(leaf).sum(), leaf))


@pytest.mark.parametrize(
    "layer", [Conv1d(3, 4, 3, op="l1"), Conv3d(3, 4, 2, padding=((1, 0),) * 3, op="l1"), Linear(6, 4, op="l1")]
)
def test_other_layers_are_traced(layer):
    """The same of other layers."""
    size = {1: (3, 9), 3: (3, 5, 6, 5), 0: (6,)}[layer.dims]
    module = traced(layer, torch.rand((2,) + size))
    x = torch.rand((5,) + size)
    same(module(x), layer(x))


@pytest.mark.parametrize("op", ["l1", "own"])
def test_functions_are_traced(op):
    """linear and matmul, and an op that nobody else holds."""
    x, w = torch.rand(3, 5), torch.rand(4, 5)
    found = traced(lambda x: linear(x, w, op=OPS[op]) + matmul(w, x.t(), op=OPS[op]).t(), x)
    y = torch.rand(7, 5)
    same(found(y), 2 * linear(y, w, op=OPS[op]))


def test_what_cannot_be_traced_is_refused():
    """An op whose function captures a tensor that requires grad would keep the batch that was traced."""
    gain = torch.ones((), requires_grad=True)
    layer = Conv2d(3, 4, 3, op=lambda w, x: gain * w * x)
    with torch.no_grad(), pytest.raises(RuntimeError, match="jit.trace"):
        traced(layer, torch.rand(2, 3, 8, 8))


HOW = ["trace", "export"]
CASES = {
    dims: [((3,) * dims, 1, 1, 2), ((2,) * dims, 2, ((1, 0),) * dims, 1), ((2,) * dims, 1, 0, 1)] for dims in (1, 2, 3)
}


def slices_by_symbols():
    def every(x, step=2):
        return x[..., ::step]

    try:
        torch.compile(every, backend="eager", fullgraph=True, dynamic=True)(torch.rand(7))
    except torch._dynamo.exc.TorchRuntimeError:  # 2.4
        return False
    return True


@pytest.mark.parametrize("dims,how", [(1, "compile"), (2, "compile")] + [(n, how) for n in (1, 2, 3) for how in HOW])
def test_columns_of_any_size(dims, how):
    """unfold of other batches and sizes, and fold of other batches, in any number of dimensions."""
    if how == "export" and dims == 2 and torch.__version__.startswith("2.6."):
        pytest.skip("2.6 exports F.fold with a guard that its batch isn't the largest int64")
    x, other = torch.rand((2, 3) + (7, 6, 8)[:dims]), torch.rand((5, 3) + (9, 8, 7)[:dims])
    # torch.compile takes long to reason about sizes that are all symbols.
    for arguments in CASES[dims][1:2] if how == "compile" else CASES[dims]:
        columns, more = unfold(x, *arguments), unfold(torch.cat([x, x]), *arguments)
        size = tuple(x.shape[2:])

        def fold_(columns, arguments=arguments, size=size):
            return fold(columns, size, *arguments)

        def unfold_(x, arguments=arguments):
            return unfold(x, *arguments)

        for function, a, b in ((unfold_, x, other), (fold_, columns, more)):
            if how == "trace":
                found = traced(function, a)
            elif how == "compile":
                torch._dynamo.reset()
                found = torch.compile(function, backend="eager", fullgraph=True, dynamic=True)
                if not slices_by_symbols():
                    pytest.skip("needs a torch.compile that slices by steps which may change")
                same(found(a), function(a))
            else:
                module = torch.nn.Module()
                module.forward = function
                b = torch.cat([a, a, a])
                found = torch.export.export(module, (a,), dynamic_shapes=({0: torch.export.Dim("b")},)).module()
            same(found(b), function(b))


def test_wrong_arguments_in_graphs():
    """They are errors while they are recorded."""
    x = torch.rand(2, 3, 8, 8)
    for arguments in ((0,), ((3, 3), 0), ((3, 3), 1, -1), ((3, 3), (1, 1, 1)), ((3, 3, 3, 3),)):
        with pytest.raises((RuntimeError, ValueError)):
            traced(lambda x, arguments=arguments: unfold(x, *arguments), x)
        with pytest.raises((RuntimeError, ValueError)):
            traced(lambda x, arguments=arguments: fold(x, (8, 8), *arguments), torch.rand(2, 27, 36))


class Net(torch.nn.Module):
    def __init__(self, op, mode):
        super(Net, self).__init__()
        self.conv, self.fc, self.op = Conv2d(3, 4, 3, padding=1, padding_mode=mode, op=op), Linear(5, 2, op=op), op

    def forward(self, x):
        y = unfold(self.conv(x), 2, padding=((1, 0), (0, 0)))
        y = fold(y, (8, 8), 2, padding=((1, 0), (0, 0)))
        z = matmul(self.fc.weight, y.flatten(1)[:, :5].t(), op=self.op)
        return self.fc(y.flatten(1)[:, :5]) + z.t()


@pytest.mark.parametrize("mode", ["zeros", "circular"])
@pytest.mark.parametrize("op", ["dot", "l1", "own"])
def test_symbolic_traces(op, mode):
    """torch.fx's symbolic_trace records calls of the public functions, with the op."""
    net, x = Net(OPS[op], mode), torch.rand(2, 3, 8, 8)
    module = torch.fx.symbolic_trace(net)
    same(module(x), net(x))
    targets = {node.target for node in module.graph.nodes}
    assert {conv2d, linear, matmul, unfold, fold} <= targets


def test_floating_point_operations_are_counted():
    """The operator counts as the convolution that it replaces, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    x, counts = torch.rand(2, 3, 8, 8), []
    for op in ("dot", "l1"):
        torch._dynamo.reset()
        layer = torch.compile(Conv2d(3, 4, 3, op=op), backend="aot_eager")
        with FlopCounterMode(display=False) as counter:
            layer(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda factor: lambda w, x, factor=factor: factor * w * x,
        lambda factor: eval("lambda w, x, *, factor=factor: factor * w * x", {"factor": factor}),
        lambda factor: lambda w, x: factor * w * x,
    ],
    ids=["default", "keyword", "closure"],
)
def test_functions_of_the_same_code(make):
    """torch.compile guards the code of a function, and no more: one that has more than its code is no constant."""
    torch._dynamo.reset()
    x, w = torch.rand(2, 3, 6, 6), torch.rand(4, 3, 3, 3)
    compiled = torch.compile(lambda x, op: conv2d(x, w, op=op), backend="eager")
    for factor in (1.0, 2.0, 3.0):
        same(compiled(x, make(factor)), factor * conv2d(x, w))


def test_plain_functions_as_op():
    """A function made anew at each call is the same op each time: torch.jit.trace compares two traces."""
    x, w = torch.rand(2, 3, 6, 6), torch.rand(4, 3, 3, 3)

    def function(x):
        return conv2d(x, w, op=lambda w, x: w * x * x) + conv2d(x, w, op=torch.maximum)

    same(torch.jit.trace(function, x)(x[:1]), function(x[:1]))
    torch._dynamo.reset()
    same(torch.compile(function, backend="eager", fullgraph=graphs.CONSTANT_FUNCTIONS)(x), function(x))


def test_sizes_alone_are_checked():
    """The device "meta" refuses what a CPU refuses."""
    x, w = torch.empty(2, 3, 6, 6, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    for arguments in ({"stride": 0}, {"dilation": 0}, {"padding": -1}):
        with pytest.raises(RuntimeError, match=next(iter(arguments))):
            conv2d(x, w, op="l1", **arguments)
