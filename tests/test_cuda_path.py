"""The path by kernels on a GPU, without one: helpers/cuda_stand_in.py stands in for it."""

import warnings

import numpy as np
import pytest
from helpers import cuda_shim as shim
from helpers.tensors import torch

from im2col_compat import (
    BinaryConv2d, Op, QuantConv2d, conv2d, conv_transpose2d, linear, matmul, ops, use_backend)  # fmt: skip
from im2col_compat.compat import graphs
from im2col_compat.compat.warn import SlowPathWarning
from im2col_compat.cuda import device, launches
from im2col_compat.paths import choose

if shim.COMPILER is None or not hasattr(getattr(torch, "testing", None), "assert_close"):
    pytest.skip("needs PyTorch 1.9, and g++", allow_module_level=True)

from helpers.cuda_stand_in import StandIn  # noqa: E402


@pytest.fixture
def gpu(monkeypatch):
    """Tensors are on a GPU from now on."""

    def begin():
        return StandIn(monkeypatch)

    return begin


def tensors(*shapes, **options):
    """Tensors of small multiples of a quarter, of which sums are exact."""
    rng, dtype = np.random.RandomState(len(shapes)), options.get("dtype", "float32")
    return [torch.from_numpy(rng.randint(-8, 9, shape) / 4.0).to(getattr(torch, dtype)) for shape in shapes]


def leaves(values):
    return [value.clone().requires_grad_() for value in values]


def step(call, values):
    """The result of call(*values), and the gradients of all of them for a loss that weighs results."""
    values = leaves(values)
    result = call(*values)
    weights = torch.arange(result.numel(), dtype=result.dtype).view(result.shape) % 5 - 2
    found = torch.autograd.grad((result * weights).sum(), values)
    return [result.detach()] + list(found)


def same_there(gpu, call, values, exact=True):
    """The stand-in, after call gave the same results and gradients on it as on a CPU."""
    expected = step(call, values)
    stand_in = gpu()
    for here, there in zip(expected, step(call, values)):
        assert here.shape == there.shape and here.dtype == there.dtype
        torch.testing.assert_close(there, here, **(dict(rtol=0, atol=0) if exact else dict(rtol=1e-4, atol=1e-5)))
    return stand_in


X, W = (2, 4, 5, 6), (6, 2, 3, 2)


def convolve(op, **options):
    return lambda x, w: conv2d(x, w, None, (2, 1), (1, 2), (1, 2), 2, op, **options)


@pytest.mark.parametrize(
    "op",
    [
        ops.l1,
        ops.max_plus,
        Op(lambda w, x: w + x, "prod"),
        Op(lambda w, x: abs(w - x), pad_value=None),
        Op(lambda w, x: w * x, lambda acc, term: 0.5 * acc + term, identity=1),
    ],
    ids=["l1", "max_plus", "prod", "left out", "own add"],
)
def test_results_and_gradients(gpu, op):
    """Of every reduction; gradients by kernels, or by tensor operations where there are none."""
    stand_in = same_there(gpu, convolve(op), tensors(X, W), exact=op.add not in ("prod",))
    assert "gather" in stand_in.works[0]


def test_logsumexp(gpu):
    """Exponentials are a GPU's."""
    op = Op(lambda w, x: w - x, "logsumexp")
    assert same_there(gpu, convolve(op), tensors(X, W), exact=False).works


SCALED = Op(lambda w, x, t, u: abs(w - x * t) * u)


def test_parameters(gpu):
    """One for each weight, one for each filter, one for all, and a number; each has its gradient."""
    values = tensors(X, W, W, (1, 1, 1, 1))

    def call(x, w, t, u):
        return conv2d(x, w, None, 1, 1, 1, 2, SCALED, params={"t": t, "u": u})

    stand_in = same_there(gpu, call, values)
    assert stand_in.works[0].count("pack") == 2
    x, w, t = values[0], values[1], values[2][:, :1, :1, :1]
    found = conv2d(x, w, None, 1, 1, 1, 2, SCALED, params={"t": t, "u": 0.5})
    expected = conv2d(x, w, None, 1, 1, 1, 2, SCALED, params={"t": t.expand(W).clone(), "u": torch.full(W, 0.5)})
    assert torch.equal(found, expected)


def test_captured(gpu):
    """What functions capture is read at each call: a schedule changes numbers, not texts. A tensor gets its gradient."""
    settings, values = {"alpha": 0.5}, tensors(X, W, (1,))

    def call(x, w, beta):
        return convolve(Op(lambda w, x: abs(w - x) * settings["alpha"] + beta))(x, w)

    stand_in = same_there(gpu, call, values)
    texts = set(stand_in.texts)
    settings["alpha"] = 0.25
    assert not torch.equal(call(*values), stand_in.first)
    assert set(stand_in.texts) == texts and len(stand_in.works) > 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "int32"])
def test_dtypes(gpu, dtype):
    """Results are exact, rounded once, and sums of integers are int64."""
    x, w = [(4 * t).to(getattr(torch, dtype)) for t in tensors(X, W)]
    expected = convolve("l1")(x, w)
    stand_in = gpu()
    found = convolve("l1")(x, w)
    assert found.dtype == expected.dtype and torch.equal(found, expected)
    assert stand_in.works


def test_dtypes_without_kernels(gpu):
    """What there are no kernels for goes to tensor operations."""
    x, w = [t.to(torch.complex64) for t in tensors(X, W)]
    call = convolve(Op(lambda w, x: (w - x) * (w + x)))
    expected = call(x, w)
    stand_in = gpu()
    assert torch.equal(call(x, w), expected)
    assert not stand_in.works


@pytest.mark.parametrize(
    "call, shapes",
    [
        (lambda x, w: linear(x, w, op="l1"), [(2, 3, 5), (4, 5)]),
        (lambda x, w: matmul(w, x, op="l1"), [(5, 7), (3, 2, 4, 5)]),
        (lambda x, w: matmul(w, x, op="l1"), [(3, 1, 5, 4), (1, 2, 6, 5)]),
        (lambda x, w: conv_transpose2d(x, w, None, 2, 1, 1, 1, 1, op="l1"), [(1, 2, 3, 4), (2, 3, 3, 2)]),
        (lambda x, w: conv2d(x, w, op="l1"), [(4, 5, 6), (3, 4, 2, 2)]),
    ],
    ids=["linear", "matmul", "both repeated", "transposed", "one image"],
)
def test_functions(gpu, call, shapes):
    """linear, matmul of batches that one or both operands repeat, and the parts of a transposed convolution."""
    assert same_there(gpu, call, tensors(*shapes)).works


def test_operands_that_are_not_dense(gpu):
    """Views, tensors with channels last, and repeated ones."""
    x, w, whole = tensors(X, W, (2, 4, 10, 6))
    call = convolve("l1")
    pairs = [
        (x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), w),
        (whole[:, :, ::2], w.flip(0)),
        (x[:1].expand(X), w[:, :1].expand(W)),
    ]
    expected = [call(*pair) for pair in pairs]
    stand_in = gpu()
    for pair, one in zip(pairs, expected):
        assert torch.equal(call(*pair), one)
    assert len(stand_in.works) == 3


def test_second_derivatives(gpu):
    """First derivatives are kernels', second ones tensor operations'."""
    gpu()
    op = Op(lambda w, x, t: t * (w - x) ** 3)
    x, w, t = [v.double().requires_grad_() for v in tensors((1, 1, 3, 2), (1, 1, 2, 2), (1, 1, 1, 1))]

    def call(x, w, t):
        return conv2d(x, w, op=op, params={"t": t})

    assert torch.autograd.gradgradcheck(call, (x, w, t))
    gradients = torch.autograd.grad(call(x, w, t).sum(), (x, w, t), create_graph=True)
    assert torch.autograd.gradcheck(call, (x, w, t)) and all(gradient.requires_grad for gradient in gradients)


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func")
def test_transforms(gpu):
    """vmap's samples are one call of the kernels; torch.func.grad's are kernels' too."""
    samples, w = tensors((3,) + X, W)

    def loss(w, x):
        return convolve("l1")(x, w).square().sum()

    expected = torch.func.vmap(torch.func.grad(loss), (None, 0))(w, samples)
    stand_in = gpu()
    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(w, samples)
    torch.testing.assert_close(found, expected)
    assert stand_in.works


@pytest.mark.skipif(not graphs.HAS_LIBRARY, reason="needs PyTorch 2.4")
def test_the_operator_of_graphs(gpu):
    """What torch.compile records computes with kernels, gradients included."""
    x, w = tensors(X, W)
    expected = step(convolve("l1"), (x, w))
    stand_in = gpu()
    numbers = [2, 1, 1, 2, 1, 2, 1, 2, 2]  # stride, dilation, padding before and after, groups
    found = step(lambda x, w: torch.ops.im2col_compat.dot(x, w, numbers, "conv", "l1"), (x, w))
    assert all(torch.equal(one, other) for one, other in zip(found, expected))
    assert stand_in.works


# ---------------------------------------------------------------- what isn't there
WHY = "cuda.core can't be imported (no module): pip install 'cuda-core[cu13]'"


def test_missing(gpu):
    """Tensor operations compute, and it is said why and what to install, once, where it takes long."""
    x, w = tensors((2, 16, 40, 40), (16, 16, 3, 3))
    op = Op(lambda w, x: abs(w - x) * 0.25)
    expected = conv2d(x, w, op=op)
    stand_in = gpu()
    stand_in.why_missing = WHY
    with pytest.warns(SlowPathWarning) as caught:
        assert torch.equal(conv2d(x, w, op=op), expected)
    assert "pip install 'cuda-core[cu13]'" in str(caught[0].message) and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        conv2d(x, w, op=op)
    assert not stand_in.works


def test_explain(monkeypatch, gpu):
    """The path on a GPU, why, what to install, and the functions in C."""
    product, mine = Op(lambda w, x: w * x * x), Op(lambda w, x: abs(w - x) * 3)
    monkeypatch.setattr(device, "missing", lambda: WHY)
    assert "tensor operations" in mine.explain("float32", device="cuda") and WHY in ops.l1.explain(device="cuda:1")
    assert "own conv2d" in product.explain(device="cuda") and "own conv2d" in ops.dot.explain(device="cuda")
    monkeypatch.setattr(device, "missing", lambda: None)
    text = mine.explain("float32", device=torch.device("cuda"))
    assert "CUDA kernels" in text and "fabsf(w - x)" in text and "on cuda" in text
    assert "complex64" in mine.explain("complex64", device="cuda")
    assert "tensor operations" in Op(lambda w, x: w * x.sum()).explain(device="cuda")
    assert "mps" in mine.explain(device="mps")
    with use_backend("slices"):
        assert "slices" in mine.explain(device="cuda")


def test_refused(gpu):
    """What NVRTC doesn't compile, and sizes that kernels don't take, go to tensor operations."""
    x, w = tensors(X, W)
    expected = step(convolve("l1"), (x, w))
    stand_in = gpu()
    stand_in.refusals["gather"] = "NVRTC failed: no such architecture"
    assert all(torch.equal(one, other) for one, other in zip(step(convolve("l1"), (x, w)), expected))
    assert not stand_in.works


def test_sizes_beyond(gpu, monkeypatch):
    """Operands with more elements than an int counts are left to tensor operations."""
    x, w = tensors((1, 2, 7, 9), (2, 2, 3, 3))
    expected = conv2d(x, w, op="l1")
    stand_in = gpu()
    monkeypatch.setattr(launches, "MOST", x.numel() - 1)
    assert torch.equal(conv2d(x, w, op="l1"), expected) and not stand_in.works


def test_what_kernels_do_not_take(gpu):
    """C texts of integers are an error, an add that starts from a term that may be left out goes to tensor operations,
    and a forced engine goes without kernels."""
    x, w = tensors(X, W)
    own = Op(lambda w, x: w * x, lambda acc, term: abs(acc - term) + 1, pad_value=None)
    expected, plain = convolve(own)(x, w), convolve("l1")(x, w)
    stand_in = gpu()
    assert torch.equal(convolve(own)(x, w), expected)
    with pytest.raises(RuntimeError) as info:
        convolve(Op.from_c("w - x"))(x.to(torch.int32), w.to(torch.int32))
    assert "CPUs alone" in str(info.value)
    with use_backend("slices"):
        assert torch.equal(convolve("l1")(x, w), plain)
    assert not stand_in.works


# ---------------------------------------------------------------- C texts
GIVEN = Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x="(w < x) - (w > x)")


def test_c_texts(gpu):
    """They are compiled for GPUs as they are, with their gradients."""
    assert len(same_there(gpu, convolve(GIVEN), tensors(X, W)).works) == 3
    assert "fabs(w - x)" in GIVEN.explain("float32", device="cuda")


def test_c_texts_with_parameters(gpu):
    """One for each weight, and one for all."""
    grads = {"grad_w": "t", "grad_x": "-t", "grad_params": {"t": "w - x", "u": "1"}}
    op = Op.from_c("t * (w - x) + u", params=("t", "u"), **grads)

    def call(x, w, t, u):
        return conv2d(x, w, None, 1, 1, 1, 2, op, params={"t": t, "u": u})

    assert same_there(gpu, call, tensors(X, W, W, (1, 1, 1, 1))).works


def test_c_texts_without_gradients(gpu):
    """An add of its own, in the order of the terms; and the message where a gradient is wanted."""
    op = Op.from_c("w * x", add="acc / 2 + term", identity=1)
    x, w = tensors(X, W)
    expected = convolve(op)(x, w)
    stand_in = gpu()
    torch.testing.assert_close(convolve(op)(x, w), expected)
    assert len(stand_in.works) == 1
    with pytest.raises(RuntimeError) as info:
        convolve(op)(x.requires_grad_(), w).sum().backward()
    assert "no gradient" in str(info.value)


# ---------------------------------------------------------------- signs and tables
PACKED = [["pack_columns", "pack_rows", "signs"]]


@pytest.mark.parametrize("channels, works", [(40, PACKED), (2, [["depthwise"]])])
def test_signs(gpu, channels, works):
    """Forward from words, unless a group has one channel; the gradients are straight-through as before."""
    groups = 1 if channels > 2 else 2
    values = tensors((2, channels, 5, 6), (6, channels // groups, 3, 2))

    def call(x, w):
        return conv2d(x, w, None, (2, 1), (1, 2), (1, 2), groups, "xnor")

    stand_in = same_there(gpu, call, values)
    assert [each for each in stand_in.works if each[-1] in ("signs", "depthwise")] == works


def test_signs_of_other_dtypes(gpu):
    """Of bools, which have no other kernels, of integers, and of halves, which are widened."""
    x, w = tensors(X, W)
    pairs = [(x > 0, w > 0), (x.to(torch.int8), w.to(torch.int8)), (x.half(), w.half())]
    pairs.append((tensors((2, 2, 5, 6))[0] > 0, tensors((6, 1, 3, 2))[0] > 0))
    expected = [convolve("xnor")(*pair) for pair in pairs]
    stand_in = gpu()
    for pair, one in zip(pairs, expected):
        found = convolve("xnor")(*pair)
        assert found.dtype == one.dtype and torch.equal(found, one)
    assert [each[-1] for each in stand_in.works] == ["signs"] * 4


def test_functions_of_signs(gpu):
    """linear, matmul of repeated batches, and two parts of a transposed convolution that have padding to leave out."""
    calls = [
        (lambda x, w: linear(x, w, op="xnor"), tensors((7, 40), (5, 40))),
        (lambda x, w: matmul(w, x, op="xnor"), tensors((3, 1, 5, 4), (1, 2, 6, 5))),
        (lambda x, w: conv_transpose2d(x, w, None, 2, 1, 1, 1, 1, op="xnor"), tensors((1, 2, 3, 4), (2, 3, 3, 2))),
    ]
    expected = [step(call, values) for call, values in calls]
    stand_in = gpu()
    for (call, values), whole in zip(calls, expected):
        for one, other in zip(step(call, values), whole):
            torch.testing.assert_close(one, other)
    assert sum(each[-1] == "signs" for each in stand_in.works) == 4


@pytest.mark.parametrize("pad", [None, 0])
def test_own_gradients_of_signs(gpu, pad):
    """Other surrogates than xnor's, which go with the packed forward too; another padding doesn't."""
    own = ops.xnor.replace(grad_x=lambda w, x: w * 0.5, grad_w=lambda w, x: x, pad_value=pad)
    assert ("signs" in same_there(gpu, convolve(own), tensors(X, W)).works[0]) == (pad is None)


def codes_of(*shapes):
    return [(2 * t).to(torch.int8) for t in tensors(*shapes)]


TABLE = Op.from_table(lambda w, x: w * x + 1, signed=True, bits=6)
LARGE = Op.from_table(lambda w, x: w * x + 1, signed=True)


@pytest.mark.parametrize("op", [TABLE, LARGE], ids=["in shared memory", "rows of it"])
def test_tables(gpu, op):
    """Sums, maxima and minima, functions of the accumulator, and padding left out."""
    saturating = {"add": lambda acc, term: (acc + term).clip(-60, 60), "identity": 0}
    changed = [op, op.replace(pad_value=None), op.replace(add="max"), op.replace(**saturating)]
    x, w = codes_of(X, W)
    expected = [convolve(each)(x, w) for each in changed]
    row, rows = codes_of((3, 40), (50, 40))
    by_rows = linear(row, rows, op=op)
    stand_in = gpu()
    for each, one in zip(changed, expected):
        found = convolve(each)(x, w)
        assert found.dtype == one.dtype and torch.equal(found, one)
    assert torch.equal(linear(row, rows, op=op), by_rows)
    assert torch.equal(convolve(op)(x.to(torch.int64), w), expected[0])
    assert [each[-1] in ("lookups", "join") for each in stand_in.works] == [True] * 6
    # What doesn't add up so in C stays with tensor operations.
    product = op.replace(add="prod")
    assert convolve(product)(x, w).shape == expected[0].shape and len(stand_in.works) == 6


def test_quantized_layers(gpu):
    """Codes are looked up by kernels, the padding is the code of zero: each op is another one, of the same table."""
    torch.manual_seed(0)
    layer = QuantConv2d(3, 5, 3, padding=1, op=Op.from_table(lambda w, x: w * x, signed=(True, False)))
    x = torch.rand(2, 3, 6, 5) - 0.25
    layer.start_calibration()
    layer(x)
    layer.finish_calibration()
    expected = step(lambda x: layer(x), [x])
    stand_in = gpu()
    for _ in range(2):
        for one, other in zip(step(lambda x: layer(x), [x]), expected):
            torch.testing.assert_close(one, other)
    assert [each for each in stand_in.works if "lookups" in each] == [["lookups"]] * 2
    assert len({text for text in stand_in.texts if "lookups(" in text}) == 1


def test_binary_layers(gpu):
    """With their scaling factors."""
    torch.manual_seed(0)
    layer, x = BinaryConv2d(40, 5, 3, padding=1, alpha=True, K=True), torch.randn(2, 40, 6, 5)
    stand_in = same_there(gpu, lambda x: layer(x), [x], exact=False)
    assert ["pack_columns", "pack_rows", "signs"] in stand_in.works


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func")
def test_transforms_of_signs_and_tables(gpu):
    """vmap's samples are one call of these kernels."""
    samples, w = tensors((3,) + X, W)
    codes = [(2 * t).to(torch.int8) for t in (samples, w)]
    calls = [(convolve("xnor"), (samples, w)), (convolve(TABLE), codes)]
    expected = [torch.func.vmap(call, (0, None))(*values) for call, values in calls]
    stand_in = gpu()
    for (call, values), one in zip(calls, expected):
        assert torch.equal(torch.func.vmap(call, (0, None))(*values), one)
    assert len(stand_in.works) == 2


def test_explain_signs_and_tables(monkeypatch, gpu):
    monkeypatch.setattr(device, "missing", lambda: None)
    for dtype in ("float32", "bool"):
        assert "signs packed into words" in ops.xnor.explain(dtype, device="cuda")
    assert "op_grad" in ops.xnor.explain(device="cuda")
    assert "looked up" in TABLE.explain("int8", device="cuda")
    assert "a table takes integers" in TABLE.explain("float32", device="cuda")


def test_cpu_tensors_ask_for_no_gpu(monkeypatch):
    """Nothing of this is looked at for CPU tensors."""
    x, w = tensors(X, W)
    monkeypatch.setattr(choose.cuda, "kernels_for", None)
    monkeypatch.setattr(device, "missing", None)
    convolve("l1")(x, w)
