"""Tensors whose channels come last in memory: the same bits, and results and gradients that lie as PyTorch's own do."""

import itertools

import numpy as np
import pytest
from helpers.tensors import torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import (
    Conv2d,
    Op,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose2d,
    fold,
    lowlevel,
    ops,
    unfold,
    use_backend,
)
from im2col_compat.codegen import kernels
from im2col_compat.compat import graphs, memory
from im2col_compat.paths import kernels as fused

if not hasattr(torch, "channels_last_3d"):
    pytest.skip("needs memory formats (1.5)", allow_module_level=True)

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
CONVS = {2: conv2d, 3: conv3d}
LEVELS = kernels.LEVELS[: lowlevel.level() + 1] if lowlevel.missing is None else ("baseline",)

OPS = {name: name for name in ("l1", "adder", "l2", "max_plus", "xnor")}
OPS["own"] = Op(lambda w, x: abs(w - x) * x + w)
OPS["own add"] = Op(lambda w, x: w - x, lambda acc, term: acc * 0.5 + term, identity=1)
OPS["prod"] = Op(lambda w, x: (w - x * 0.1 + 2) * 0.5, "prod", pad_value=None)
OPS["logsumexp"] = Op(lambda w, x: w - x, "logsumexp")
OPS["left out"] = ops.max_plus.replace(pad_value=None)

#: (shape of x, shape of w, options): of panels, of few filters, and of shapes whose format strides don't tell.
CASES = {
    "dense": ((2, 20, 9, 11), (18, 20, 3, 3), dict(padding=1)),
    "pixel by pixel": ((2, 20, 9, 11), (18, 20, 1, 1), {}),
    "depthwise": ((2, 21, 9, 11), (21, 1, 3, 3), dict(padding=1, groups=21)),
    "groups of two": ((2, 20, 9, 11), (30, 2, 3, 3), dict(padding=1, groups=10, stride=(2, 1))),
    "few filters": ((3, 5, 9, 11), (4, 5, 3, 3), dict(stride=2, dilation=2, padding=2)),
    "one channel": ((2, 1, 9, 11), (8, 1, 3, 3), {}),
    "one pixel": ((2, 7, 1, 1), (9, 7, 1, 1), {}),
    "one result": ((1, 7, 3, 3), (1, 7, 3, 3), {}),
    "one filter": ((2, 7, 4, 5), (1, 7, 1, 1), {}),
    "volumes": ((2, 5, 4, 5, 6), (6, 5, 2, 3, 2), dict(padding=1)),
}


def strides(shape, last):
    """Those of a new tensor."""
    return torch.empty(shape, memory_format=FORMATS[len(shape) - 2] if last else torch.contiguous_format).stride()


def random(shape, dtype=torch.float32, seed=0):
    return torch.from_numpy(np.random.RandomState(seed).randn(*shape)).to(dtype)


def lying(tensor, last):
    return tensor.to(memory_format=FORMATS[tensor.dim() - 2]) if last else tensor


def results(call, x, w, grad_last=False):
    """The result and the gradients."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = call(x, w)
    grad = lying(random(y.shape, y.dtype, 1), grad_last)
    return (y.detach(),) + torch.autograd.grad([y], [x, w], [grad])


def same_bits(found, expected, what):
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(values(one), values(other), str(what))


@pytest.mark.parametrize("case", sorted(CASES))
@pytest.mark.parametrize("op", sorted(OPS))
def test_formats(op, case):
    """The result and the input's gradient have their channels last where the input or the weight has, and the weight's
    gradient where the weight has. No bit depends on the format."""
    shape, w_shape, options = CASES[case]
    dtype = torch.float64 if op == "own" else torch.float32
    x, w, conv = random(shape, dtype), random(w_shape, dtype, 2), CONVS[len(shape) - 2]
    call = lambda x, w: conv(x, w, op=OPS[op], **options)  # noqa: E731
    expected = results(call, x, w)
    for x_last, w_last, grad_last in itertools.product((False, True), repeat=3):
        found = results(call, lying(x, x_last), lying(w, w_last), grad_last)
        last = x_last or w_last
        if lowlevel.missing is None:
            same_bits(found, expected, (x_last, w_last, grad_last))
        wanted = [strides(t.shape, lasts) for t, lasts in zip(found, (last, last, w_last))]
        have = [t.stride() for t in found]
        assert have[:2] == wanted[:2]
        assert have[2] == wanted[2] or lowlevel.missing


@pytest.mark.skipif(lowlevel.missing is not None, reason="needs the C library")
@pytest.mark.parametrize("op", ["l1", "max_plus"])
def test_groups_that_threads_share(monkeypatch, op):
    """A thread may begin in the middle of an image, with fewer groups than come next: their padding is there, too."""
    monkeypatch.setattr(fused, "LEAST", 0)
    x, w = random((4, 20, 23, 23)), random((5, 4, 3, 3), seed=2)
    call = lambda x, w: conv2d(x, w, None, 1, 1, 2, 5, op=op)  # noqa: E731
    monkeypatch.setattr(memory, "threads", lambda: 1)
    expected = results(call, x, w)
    for threads in range(2, 9):
        monkeypatch.setattr(memory, "threads", lambda: threads)
        same_bits(results(call, lying(x, True), w), expected, threads)


def test_strides_are_those_of_pytorch():
    """Those of F.conv2d, for formats that strides don't tell too, and for parts of tensors."""
    x, w = random((2, 4, 5, 6)), random((6, 4, 3, 3))
    pairs = [(lying(x, True), w), (x[:, :1].contiguous(), lying(w[:, :1], True))]
    if [torch.nn.functional.conv2d(*pair).stride() for pair in pairs] != [strides((2, 6, 3, 4), True)] * 2:
        pytest.skip("older versions have other rules, as 1.12 has for one channel")
    inputs = [lying(random(shape), last) for shape, _, _ in CASES.values() if len(shape) == 4 for last in (0, 1)]
    inputs += [lying(random((2, 8, 9, 11)), True)[:, :4, 1:6, 2:8], x.transpose(2, 3), x[:, :1], lying(x, True)[:, :1]]
    inputs += [x[:, :, :1, :1], lying(x, True)[:, :, :1], x[:1, :1, :1, :1], x[..., 1:2], x.expand(2, 4, 5, 6)]
    inputs += [x[:1, :, :1, :1].expand(3, 4, 5, 6), random((4, 5, 6)), random((5, 6, 4)).permute(2, 0, 1)]
    for x in inputs:
        for kernel, w_last in itertools.product((1, min(2, *x.shape[-2:])), (False, True)):
            w = lying(random((3, x.shape[-3], kernel, kernel)), w_last)
            wanted = torch.nn.functional.conv2d(x, w)
            found = conv2d(x, w, op="l1")
            assert found.stride() == wanted.stride(), (x.shape, x.stride(), w.stride())
            same_bits([found], [conv2d(x.contiguous(), w.contiguous(), op="l1")], x.shape)


@pytest.mark.parametrize("op", ["l1", "own", "prod", "max_plus"])
def test_tensor_operations(op):
    """They write results and inputs' gradients that lie so, too."""
    for shape, w_shape, options in (CASES["dense"], CASES["depthwise"], CASES["one filter"]):
        x, w = random(shape), random(w_shape, seed=2)
        with use_backend("slices"):
            expected = results(lambda x, w: conv2d(x, w, op=OPS[op], **options), x, w)
            found = results(lambda x, w: conv2d(x, w, op=OPS[op], **options), lying(x, True), w)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(values(one), values(other), 1e-4, 1e-4)
        assert [t.stride() for t in found[:2]] == [strides(t.shape, True) for t in found[:2]]


def test_other_dtypes():
    """Halves, integers, signs of bools and looked-up terms."""
    x, w = random((2, 20, 9, 11)) * 40, random((18, 20, 3, 3), seed=2) * 40
    table = Op.from_table(np.arange(256)[:, None] * np.arange(256))
    wanted = strides((2, 18, 9, 11), True)
    for op, dtype in (("l1", torch.int32), ("xnor", torch.bool), (table, torch.uint8), ("l1", torch.bfloat16)):
        for groups in (1, 2):
            ours, theirs = x.to(dtype), w[:, : 20 // groups].to(dtype)
            expected = conv2d(ours, theirs, padding=1, groups=groups, op=op)
            found = conv2d(lying(ours, True), theirs, padding=1, groups=groups, op=op)
            same_bits([found.float()], [expected.float()], (op, dtype))
            assert found.stride() == wanted and found.dtype == expected.dtype
    for op, dtype in (("xnor", torch.float32), (table, torch.uint8)):  # depthwise
        ours, theirs = x.to(dtype), w[:, :1].to(dtype)[:1].expand(20, 1, 3, 3)
        expected = conv2d(ours, theirs, padding=1, groups=20, op=op)
        found = conv2d(lying(ours, True), theirs, padding=1, groups=20, op=op)
        same_bits([found], [expected], (op, dtype))
        assert found.stride() == strides(found.shape, True)


def test_biases_and_parameters():
    """A bias, and an op with parameters of one number for each weight and for all."""
    op = Op(lambda w, x, t, s: w * abs(x - t) * s)
    x, w, t = random((2, 20, 9, 11)), random((18, 20, 3, 3), seed=2), random((18, 20, 3, 3), seed=3)
    call = lambda x, w: conv2d(x, w, random((18,)), padding=1, op=op, params={"t": t, "s": 0.5})  # noqa: E731
    expected, found = results(call, x, w), results(call, lying(x, True), w)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(values(one), values(other), 1e-5, 1e-5)
    assert [t.stride() for t in found[:2]] == [strides(t.shape, True) for t in found[:2]]


def test_products():
    """Terms that are products are PyTorch's convolutions."""
    op = Op(lambda w, x: w * x * x)
    x, w = random((2, 20, 9, 11)), random((18, 20, 3, 3), seed=2)
    found = results(lambda x, w: conv2d(x, w, padding=1, op=op), lying(x, True), w)
    expected = results(lambda x, w: conv2d(x, w, padding=1, op=op), x, w)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(values(one), values(other), 1e-3, 1e-3)
    assert found[0].stride() == strides(found[0].shape, True)


@pytest.mark.parametrize("op", ["l1", "own add", "max_plus"])
def test_transposed(op):
    """Transposed convolutions, whose parts C writes where they belong; with results that nothing reaches, and gradients."""
    x, w = random((2, 6, 5, 7)), random((6, 5, 3, 2), seed=2)
    for stride in (1, 2, 4):
        call = lambda x, w: conv_transpose2d(x, w, stride=stride, padding=1, op=OPS[op])  # noqa: B023, E731
        for x_last, w_last in itertools.product((False, True), repeat=2):
            ours, theirs = lying(x, x_last), lying(w, w_last)
            found, recorded = call(ours, theirs), results(call, ours, theirs)
            same_bits([found] + list(recorded), [call(x, w)] + list(results(call, x, w)), (stride, x_last, w_last))
            assert found.stride() == recorded[0].stride() == strides(found.shape, x_last or w_last)
    if op == "l1":
        found = call(lying(x, True)[0], w)
        same_bits([found], [call(x[0], w)], "one image")


def test_columns_are_dense():
    """unfold's and fold's results are dense, as F.unfold's and F.fold's are."""
    x = random((2, 3, 6, 8))
    columns = unfold(lying(x, True), 3)
    same_bits([columns, fold(columns, (6, 8), 3)], [unfold(x, 3), fold(unfold(x, 3), (6, 8), 3)], "columns")
    assert columns.is_contiguous() and fold(columns, (6, 8), 3).stride() == x.stride()


def test_one_dimension():
    """conv1d has no format: its results are dense, as F.conv1d's are."""
    x, w = random((2, 9, 4)).transpose(1, 2), random((6, 4, 3))
    assert conv1d(x, w, op="l1").stride() == (42, 7, 1)


def test_arrays_are_in_c_order():
    """NumPy arrays are read as they lie, and results are in C order."""
    x, w = values(random((2, 20, 9, 11))), values(random((18, 20, 3, 3), seed=2))
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for conv, options in ((conv2d, dict(padding=1)), (conv_transpose2d, dict(stride=2))):
        v = w if conv is conv2d else w.transpose(1, 0, 2, 3)
        found = conv(last, v, op="l1", **options)
        assert found.flags["C_CONTIGUOUS"]
        np.testing.assert_array_equal(found, conv(x, np.ascontiguousarray(v), op="l1", **options))


def test_layers():
    """A network in channels_last stays so, and its parameters' gradients do."""
    net = torch.nn.Sequential(
        Conv2d(3, 24, 3, padding=1, op="l1"), torch.nn.ReLU(), Conv2d(24, 24, 3, groups=24, op="max_plus"),
        Conv2d(24, 5, 1, op="l1"))  # fmt: skip
    x = random((2, 3, 8, 9))
    expected = net(x)
    expected.sum().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    net = net.to(memory_format=torch.channels_last)
    found = net(lying(x, True))
    found.sum().backward()
    same_bits([found], [expected], "network")
    assert found.stride() == strides(found.shape, True)
    for parameter, grad in zip(net.parameters(), grads):
        np.testing.assert_allclose(values(parameter.grad), values(grad), 1e-5, 1e-5)
        assert parameter.grad.stride() == parameter.stride()


def test_results_can_be_changed():
    """In place, recorded or not: they are no views of what has its channels last."""
    x, w = lying(random((2, 4, 5, 6)), True).requires_grad_(), random((6, 4, 3, 3), seed=2)
    y = conv2d(x, w, op="l1")
    y.mul_(2).relu_()
    y.sum().backward()
    assert x.grad.stride() == x.stride()


shapes = st.tuples(*[st.integers(1, 3), st.integers(1, 20)] + [st.integers(5, 13)] * 2)


@pytest.mark.skipif(lowlevel.missing is not None, reason="needs the C library")
@pytest.mark.parametrize("level", LEVELS)
@settings(max_examples=60, deadline=None)
@given(
    shape=shapes, filters=st.integers(1, 20), depthwise=st.booleans(), kernel=st.integers(1, 4),
    stride=st.integers(1, 3), padding=st.integers(0, 2), dilation=st.integers(1, 2),
    op=st.sampled_from(["l1", "max_plus", "xnor"]), threads=st.integers(1, 2), last=st.tuples(*[st.booleans()] * 3),
    double=st.booleans()
)  # fmt: skip
def test_random_convolutions(
    level, shape, filters, depthwise, kernel, stride, padding, dilation, op, threads, last, double
):
    """On every instruction set, with one thread and with two."""
    groups = shape[1] if depthwise else 1
    dtype = torch.float64 if double else torch.float32
    x, w = random(shape, dtype), random((filters * groups, shape[1] // groups, min(kernel, 3), kernel), dtype, 2)
    call = lambda x, w: conv2d(x, w, None, stride, padding + 2, dilation, groups, op)  # noqa: E731
    patch = pytest.MonkeyPatch() if hasattr(pytest, "MonkeyPatch") else pytest.skip("needs pytest 6.2")
    with patch.context() as here:
        here.setenv("IM2COL_COMPAT_ISA", level)
        here.setattr(fused, "LEAST", 0)
        here.setattr(memory, "threads", lambda: threads)
        expected = results(call, x, w)
        found = results(call, lying(x, last[0]), lying(w, last[1]), last[2])
    same_bits(found, expected, (shape, last))


needs_library = pytest.mark.skipif(not graphs.HAS_LIBRARY, reason="needs torch.library's operators (2.4)")


@needs_library
@pytest.mark.parametrize("case", ["dense", "depthwise", "one channel", "one pixel", "volumes"])
def test_graphs_say_the_same_strides(case):
    """What a graph says of the strides of results and gradients is so; and on the device "meta"."""
    shape, w_shape, options = CASES[case]
    conv = CONVS[len(shape) - 2]
    op = Op(lambda w, x: w * x * x) if case == "one pixel" else "l1"
    call = lambda x, w: conv(x, w, op=op, **options)  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    for x_last, w_last in ((False, False), (True, False), (False, True)):
        x, w = lying(random(shape), x_last), lying(random(w_shape, seed=2), w_last)
        x.requires_grad_(), w.requires_grad_()
        y = compiled(x, w)
        found = torch.autograd.grad([y], [x, w], [torch.ones_like(y)])
        meta = call(x.detach().to("meta"), w.detach().to("meta"))
        assert y.stride() == call(x, w).stride() == meta.stride() == strides(y.shape, x_last or w_last)
        assert [t.stride() for t in found] == [strides(shape, x_last or w_last), strides(w_shape, w_last)]


@needs_library
def test_operator_tells_strides():
    """PyTorch's own check of operators."""
    if not hasattr(torch.library, "opcheck"):
        pytest.skip("needs torch.library.opcheck")
    x, w = lying(random((2, 4, 5, 6)), True), random((6, 4, 3, 3), seed=2)
    arguments = x.requires_grad_(), w.requires_grad_(), [1] * 9, "conv", "l1"
    which = ["test_faketensor", "test_aot_dispatch_dynamic"]
    torch.library.opcheck(torch.ops.im2col_compat.dot.default, arguments, test_utils=which)


@needs_library
def test_sizes_that_change():
    """Graphs of channels-last images take other sizes."""
    layer = Conv2d(3, 24, 3, padding=1, op="l1").to(memory_format=torch.channels_last)
    x, other = lying(random((2, 3, 8, 9)), True), lying(random((5, 3, 12, 11)), True)
    sizes = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    found = torch.export.export(layer, (x,), dynamic_shapes=(sizes,)).module()(other)
    same_bits([found], [layer(other)], "export")
    assert found.stride() == strides(found.shape, True)


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func")
def test_transforms():
    """vmap, and gradients for each sample."""
    x, w = random((3, 2, 4, 5, 6)), random((6, 4, 3, 3), seed=2)
    one = lambda x, w: conv2d(x, w, op="l1")  # noqa: E731
    expected = torch.stack([one(part, w) for part in x])
    last = torch.stack([lying(part, True) for part in x])
    for images in (x, x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3), last):
        same_bits([torch.func.vmap(one, (0, None))(images, lying(w, True))], [expected], "vmap")
    grads = torch.func.vmap(torch.func.grad(lambda x, w: one(x, w).sum(), 1), (0, None))
    np.testing.assert_allclose(values(grads(x, lying(w, True))), values(grads(x, w)), 1e-4, 1e-4)


def test_autocast():
    """Own ops compute in float32 there, of halves that lie so."""
    if not hasattr(torch, "autocast") or not hasattr(torch, "bfloat16"):
        pytest.skip("needs torch.autocast")
    x, w = random((2, 4, 5, 6)), random((6, 4, 3, 3), seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv2d(lying(x.bfloat16(), True), w, op="l1")
        expected = conv2d(x.bfloat16(), w, op="l1")
    same_bits([found.float()], [expected.float()], "autocast")
    assert found.stride() == strides(found.shape, True)


def test_second_derivatives():
    """Which tensor operations compute."""
    x, w = random((1, 2, 4, 5), torch.float64), random((3, 2, 2, 2), torch.float64, 2)
    found = []
    for last in (False, True):
        leaf, weight = lying(x, last).clone().requires_grad_(), w.clone().requires_grad_()
        y = conv2d(leaf, weight, op="l2")
        (dx,) = torch.autograd.grad([(y * y).sum()], [leaf], create_graph=True)
        found.append(torch.autograd.grad([(dx * dx).sum()], [leaf, weight]))
    for one, other in zip(*found):
        np.testing.assert_allclose(values(one), values(other))
