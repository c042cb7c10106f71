"""The same results on a GPU: every engine that serves it, kernels and tensor operations, every op, derivatives."""

import threading

import numpy as np
import pytest
from helpers import problems
from helpers.ops import OPS
from helpers.settings import CONVOLVE
from helpers.tensors import make, some, torch, values

from im2col_compat import (
    Op,
    QuantConv2d,
    available_backends,
    backend,
    chunks,
    conv2d,
    conv_transpose2d,
    fold,
    linear,
    matmul,
    ops,
    unfold,
    use_backend,
)
from im2col_compat.cuda import device

if torch is None or not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

ENGINES = [name for name in available_backends() if name != "ffi"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("problem", ["plain", "asymmetric", "mostly-padding", "gaps"])
def test_columns(name, dtype, problem):
    """unfold and fold on the GPU are those on the CPU."""
    if name == "torch" and dtype in ("int32", "uint8"):
        pytest.skip("F.unfold takes no integers")
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    x = make("tensor", some(shape, dtype), dtype)
    with use_backend(name):
        columns = unfold(x.cuda(), kernel, dilation, padding, stride)
        image = fold(columns, shape[2:], kernel, dilation, padding, stride)
    expected = unfold(x, kernel, dilation, padding, stride)
    assert columns.is_cuda and columns.dtype == x.dtype
    np.testing.assert_array_equal(values(columns), values(expected))
    np.testing.assert_array_equal(values(image), values(fold(expected, shape[2:], kernel, dilation, padding, stride)))


@pytest.mark.parametrize("op", sorted(OPS))
def test_convolution(op):
    """Results and gradients of every op on the GPU are those on the CPU."""
    results = []
    for cuda in (False, True):
        leaves = [
            make("tensor", some(shape, seed=i) / 4, requires_grad=True)
            for i, shape in enumerate([(2, 4, 6, 5), (6, 2, 3, 2), (6,)])
        ]
        tensors = [leaf.cuda() if cuda else leaf for leaf in leaves]
        y = conv2d(tensors[0], tensors[1], tensors[2], (2, 1), (1, 2), (1, 2), 2, op=OPS[op][0])
        (y * y).sum().backward()
        results.append([values(y)] + [values(leaf.grad) for leaf in leaves])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- kernels
needs_kernels = pytest.mark.skipif(device.missing() is not None, reason=str(device.missing()))


@pytest.fixture
def launched(monkeypatch):
    """The names of the kernels that were launched, in order."""
    names, run = [], device.run

    def counted(work, *arguments):
        names.extend(launch.kernel for launch in work.launches)
        run(work, *arguments)

    monkeypatch.setattr(device, "run", counted)
    return names


def tensors(*shapes, **options):
    """Tensors of small multiples of a quarter, of which sums are exact, on the CPU."""
    rng, dtype = np.random.RandomState(len(shapes)), getattr(torch, options.get("dtype", "float32"))
    return [torch.from_numpy(rng.randint(-8, 9, shape) / 4.0).to(dtype) for shape in shapes]


def step(call, inputs):
    """The result of call(*inputs), and the gradients of all for a loss that weighs results."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    result = call(*inputs)
    weights = torch.arange(result.numel(), dtype=result.dtype, device=result.device).view(result.shape) % 5 - 2
    return [t.detach().cpu() for t in (result,) + torch.autograd.grad((result * weights).sum(), inputs)]


def compare(call, inputs, rtol=0, atol=0):
    """They are the same on the GPU and on the CPU."""
    for here, there in zip(step(call, inputs), step(call, [tensor.cuda() for tensor in inputs])):
        torch.testing.assert_close(there, here, rtol=rtol, atol=atol)


REDUCTIONS = {
    "sum": (Op(lambda w, x: abs(w - x)), 0),
    "sum, left out": (Op(lambda w, x: abs(w - x), pad_value=None), 0),
    "max": (Op(lambda w, x: w + x, "max", pad_value=-float("inf")), 0),
    "min": (Op(lambda w, x: w - x, "min", pad_value=None), 0),
    "prod": (Op(lambda w, x: 0.3 * w + 0.1 * x + 0.7, "prod"), 1e-3),
    "logsumexp": (Op(lambda w, x: w - x, "logsumexp", pad_value=None), 1e-4),
    "in C": (Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x="(w < x) - (w > x)"), 0),
    "own": (Op(lambda w, x: w * x, lambda acc, term: 0.5 * acc + term, identity=1), 1e-4),
}


@needs_kernels
@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_reductions(launched, name, problem):
    """Every reduction, of one to three dimensions, with padding, stride, dilation and groups; gradients too."""
    (op, tolerance), sizes = REDUCTIONS[name], problems.CONVOLUTIONS[problem]
    shape, filters, kernel, stride, padding, dilation, groups = sizes
    inputs = tensors(shape, (filters, shape[1] // groups) + tuple(kernel))
    convolve = CONVOLVE[len(kernel)]
    compare(lambda x, w: convolve(x, w, None, stride, padding, dilation, groups, op), inputs, tolerance, tolerance)
    assert launched


@needs_kernels
@pytest.mark.parametrize("op", ["l1", "max_plus"])
@pytest.mark.parametrize(
    "x, w, stride, groups",
    [
        ((8, 64, 56, 56), (64, 64, 3, 3), 1, 1),
        ((8, 512, 7, 7), (512, 512, 3, 3), 1, 1),
        ((4, 3, 64, 64), (64, 3, 7, 7), 2, 1),
        ((4, 128, 28, 28), (128, 1, 3, 3), 1, 128),
        ((2, 16, 33, 35), (70, 8, 3, 3), 2, 2),
    ],
)
def test_layers(launched, op, x, w, stride, groups):
    """Sizes of networks, whose tiles differ. Sums of quarters are exact in any order."""
    inputs = tensors(x, w)
    compare(lambda x, w: conv2d(x, w, None, stride, w.shape[2] // 2, 1, groups, op), inputs)
    assert launched


@needs_kernels
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("op", ["l1", "max_plus"])
def test_dtypes(launched, dtype, op):
    """Halves are rounded once, integers wrap, and sums of them are int64: exactly as on the CPU."""
    x, w = [(4 * t.abs()).to(getattr(torch, dtype)) for t in tensors((2, 5, 9, 8), (7, 5, 3, 2))]
    op = ops.l1 if op == "l1" else Op(lambda w, x: w + x, "max", pad_value=None)
    there = x.cuda()
    expected, found = conv2d(x, w, padding=1, op=op), conv2d(there, w.cuda(), padding=1, op=op)
    assert found.device == there.device and found.dtype == expected.dtype and torch.equal(found.cpu(), expected)
    assert launched


@needs_kernels
def test_functions(launched):
    """linear, matmul and transposed convolutions."""
    compare(lambda x, w: linear(x, w, op="l1"), tensors((5, 3, 40), (70, 40)))
    compare(lambda a, b: matmul(a, b, op="max_plus"), tensors((3, 1, 33, 20), (1, 2, 20, 65)))
    compare(lambda x, w: conv_transpose2d(x, w, None, 2, 1, 1, 2, op="l1"), tensors((2, 4, 6, 5), (4, 3, 3, 2)))
    assert launched


@needs_kernels
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_signs_of_all_kinds(launched, problem):
    """Of floats, with their gradients, and of bools."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    inputs = tensors(shape, (filters, shape[1] // groups) + tuple(kernel))

    def convolve(x, w):
        return CONVOLVE[len(kernel)](x, w, None, stride, padding, dilation, groups, "xnor")

    compare(convolve, inputs, 1e-5, 1e-4)
    bools = [t > 0 for t in inputs]
    assert torch.equal(convolve(*[t.cuda() for t in bools]).cpu(), convolve(*bools))
    assert launched.count("signs")


@needs_kernels
@pytest.mark.parametrize(
    "x, w, stride, groups",
    [
        ((8, 64, 56, 56), (64, 64, 3, 3), 1, 1),
        ((8, 512, 7, 7), (512, 512, 3, 3), 1, 1),
        ((4, 3, 64, 64), (64, 3, 7, 7), 2, 1),
        ((4, 16, 32, 32), (16, 16, 3, 3), 1, 1),
        ((4, 64, 28, 28), (6, 32, 1, 1), 1, 2),
        ((4, 64, 28, 28), (64, 1, 3, 3), 1, 64),
    ],
)
def test_layers_of_codes(launched, x, w, stride, groups):
    """Signs and tables of sizes of networks; exact."""
    x, w = tensors(x, w)
    codes = [(2 * t).to(torch.int8) for t in (x, w)]
    tables = [Op.from_table(lambda w, x: w * x + 1, signed=True, bits=bits) for bits in (6, 8)]
    tables += [tables[0].replace(add="max"), tables[1].replace(pad_value=None)]
    for op, (x, w) in [("xnor", (x, w)), ("xnor", (x > 0, w > 0))] + [(table, codes) for table in tables]:
        call = [stride, w.shape[2] // 2, 1, groups, op]
        found = conv2d(x.cuda(), w.cuda(), None, *call)
        expected = conv2d(x, w, None, *call)
        assert found.dtype == expected.dtype and torch.equal(found.cpu(), expected)
    assert launched.count("lookups") == 4


@needs_kernels
def test_functions_of_codes(launched):
    """linear and matmul of signs and of tables, of few rows and of many; a quantized layer."""
    table = Op.from_table(lambda w, x: w * x + 1, signed=True)
    for rows in (3, 700):
        x, w = tensors((rows, 300), (40, 300))
        codes = [(2 * t).to(torch.int8) for t in (x, w)]
        for op, (x, w) in [("xnor", (x, w)), (table, codes)]:
            assert torch.equal(linear(x.cuda(), w.cuda(), op=op).cpu(), linear(x, w, op=op))
            found = matmul(x.cuda(), w.t().contiguous().cuda(), op=op)
            assert torch.equal(found.cpu(), matmul(x, w.t().contiguous(), op=op))
    assert {"signs", "lookups", "pack_rows", "pack_columns"} <= set(launched)
    layer, x = QuantConv2d(3, 5, 3, padding=1), torch.randn(2, 3, 9, 8)
    layer.start_calibration()
    layer(x)
    layer.finish_calibration()
    expected = layer(x)
    torch.testing.assert_close(layer.cuda()(x.cuda()).cpu(), expected)


@needs_kernels
def test_parameters(launched):
    """For each weight, for each filter, one for all, numbers, and what functions capture."""
    op = Op(lambda w, x, t, u: abs(w - x * t) * u)
    for shape in ((6, 4, 3, 3), (6, 1, 1, 1), (1, 1, 1, 1)):
        inputs = tensors((2, 4, 9, 8), (6, 4, 3, 3), shape)
        compare(lambda x, w, t: conv2d(x, w, padding=1, op=op, params={"t": t, "u": 0.5}), inputs)
    scale = {"by": 0.5}

    def captured(x, w, beta):
        return conv2d(x, w, padding=1, op=Op(lambda w, x: abs(w - x) * scale["by"] + beta))

    for scale["by"] in (0.5, 0.25):
        compare(captured, tensors((2, 4, 9, 8), (6, 4, 3, 3), (1,)))
    assert launched


@needs_kernels
@pytest.mark.parametrize("op", ["l1", "max_plus", "xnor"])
def test_the_same_bits(op):
    """In each run, forward and backward: no sum depends on which block comes first."""
    inputs = [torch.randn(shape, device="cuda") for shape in ((16, 64, 14, 14), (96, 64, 3, 3))]
    runs = [step(lambda x, w: conv2d(x, w, padding=1, op=op), inputs) for _ in range(4)]
    assert all(torch.equal(one, first) for run in runs for one, first in zip(run, runs[0]))


@needs_kernels
def test_operands_in_any_place(launched):
    """Views, other layouts, and addresses that 16 doesn't divide."""
    x, w = tensors((2, 4, 9, 8), (6, 4, 3, 3))
    expected = conv2d(x, w, op="l1")
    shifted = torch.cat([torch.zeros(1), x.reshape(-1)]).cuda()[1:].view(x.shape)
    for there in (
        shifted,
        x.cuda().contiguous(memory_format=torch.channels_last),
        torch.stack([x, x], 4).cuda()[..., 0],
    ):
        assert torch.equal(conv2d(there, w.cuda(), op="l1").cpu(), expected)


@needs_kernels
def test_streams_and_threads():
    """On the current stream, in order with what is there; and in a thread that has called nothing of CUDA before."""
    x, w = [t.cuda() for t in tensors((8, 32, 28, 28), (48, 32, 3, 3))]
    expected, found = conv2d(x, w, op="l1"), []
    for _ in range(3):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            late = torch.zeros_like(x)
            torch.cuda._sleep(2 * 10**7)
            late.add_(x)
            found.append(conv2d(late, w, op="l1"))
        torch.cuda.current_stream().wait_stream(stream)
    thread = threading.Thread(target=lambda: found.append(conv2d(x, w, op="l1")))
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    assert len(found) == 4 and all(torch.equal(one, expected) for one in found)


@needs_kernels
@pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_another_device():
    """The operands' device counts, not the current one."""
    x, w = tensors((2, 4, 9, 8), (6, 4, 3, 3))
    expected = step(lambda x, w: conv2d(x, w, op="l1"), (x, w))
    found = step(lambda x, w: conv2d(x, w, op="l1"), (x.to("cuda:1"), w.to("cuda:1")))
    assert torch.cuda.current_device() == 0 and all(torch.equal(*pair) for pair in zip(found, expected))


@needs_kernels
@pytest.mark.parametrize("op", ["l1", "max_plus", "xnor"])
def test_graphs(op):
    """CUDA graphs capture forward and backward, and replay them on other values; but not what was never called."""
    x, w = [torch.randn(shape, device="cuda", requires_grad=True) for shape in ((4, 16, 14, 14), (24, 16, 3, 3))]

    def both():
        return torch.autograd.grad(conv2d(x, w, padding=1, op=op).square().sum(), (x, w))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        both()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = both()
    with torch.no_grad():
        x.normal_(), w.normal_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(one, other) for one, other in zip(captured, both()))
    with pytest.raises(RuntimeError) as info, torch.cuda.graph(torch.cuda.CUDAGraph()):
        conv2d(x.detach()[:, :, 3:], w.detach(), op=op)
    assert "before the capture" in str(info.value)


@needs_kernels
def test_autocast_and_graph_operators():
    """Under autocast ops compute in float32; torch.compile's operator takes the kernels."""
    x, w = [torch.randn(shape, device="cuda") for shape in ((2, 4, 9, 8), (6, 4, 3, 3))]
    expected = conv2d(x.half().float(), w, op="l1")
    with torch.autocast("cuda", torch.float16):
        found = conv2d(x.half(), w, op="l1")
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    compiled = torch.compile(lambda x, w: conv2d(x, w, op="l1") * 2, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, w), conv2d(x, w, op="l1") * 2)


@needs_kernels
def test_second_derivatives():
    op = Op(lambda w, x, t: t * (w - x) ** 3)
    x, w, t = [v.double().cuda().requires_grad_() for v in tensors((1, 2, 3, 2), (2, 2, 2, 2), (2, 1, 1, 1))]
    assert torch.autograd.gradgradcheck(lambda x, w, t: conv2d(x, w, op=op, params={"t": t}), (x, w, t))


@needs_kernels
def test_explain():
    assert "CUDA kernels" in ops.l1.explain(device="cuda") and "fabsf" in ops.l1.explain(device="cuda")


def test_the_c_library_refuses():
    """Forcing "ffi" on a GPU tensor is an error; mixed devices are one too."""
    x = make("tensor", some((1, 1, 4, 4))).cuda()
    assert backend(x) in ENGINES
    if "ffi" in available_backends():
        with use_backend("ffi"), pytest.raises(RuntimeError) as info:
            unfold(x, 2)
        assert "cuda" in str(info.value)
    with pytest.raises(RuntimeError) as info:
        conv2d(x, x.cpu(), op="l1")
    assert "weight" in str(info.value) and "cuda" in str(info.value)


@pytest.mark.parametrize("op", ["l1", "max_plus"])
def test_memory(op):
    """Tensor operations stay under the limit for GPUs, where the terms would take five times as much."""
    x, w = torch.randn(8, 64, 56, 56, device="cuda"), torch.randn(96, 64, 3, 3, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = conv2d(x, w, padding=1, op=op)
    assert torch.cuda.max_memory_allocated() - before - 4 * y.numel() <= chunks.device_memory_limit


def test_batched_gradients():
    """is_grads_batched, whose gradients a GPU computes in another thread."""
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        x, w, grads = [torch.randn(s).to(device) for s in ((1, 2, 5, 4), (3, 2, 2, 2), (4, 1, 3, 4, 3))]
        x, w = x.requires_grad_(), w.requires_grad_()
        found.append(torch.autograd.grad(conv2d(x, w, op="l1"), (x, w), grads, is_grads_batched=True))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-4, atol=1e-5)
