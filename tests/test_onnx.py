"""torch.onnx.export makes standard operators of everything, and onnxruntime computes the same by them: or an error says no."""

import io
import warnings

import pytest
from helpers import exports, oracle, problems, tables
from helpers.ops import OPS
from helpers.tensors import torch

if exports.missing:
    pytest.skip(exports.missing, allow_module_level=True)

import onnxruntime  # noqa: E402

import im2col_compat as ic  # noqa: E402
from helpers.exports import Calls, Runs  # noqa: E402
from im2col_compat import Op, chunks, lowlevel  # noqa: E402

pytestmark = [
    # What PyTorch and its tools say of themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
F = torch.nn.functional
N = torch.export.Dim("n", min=1, max=64)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def same_as_plain(module, runs, *inputs):
    expected = module(*inputs)
    same(runs(*inputs), list(expected) if isinstance(expected, tuple) else [expected])


def numbers(*shape):
    """Quarters, whose sums are exact."""
    return torch.randint(-8, 9, shape).float() / 4


# ---------------------------------------------------------------- ops
#: Of helpers.ops: each kind of term, padding and reduction once, as an export takes long.
SOME = ["l1", "xnor", "max_plus", "lambda", "only-x", "only-w", "padded", "skipped", "own-add", "own-add-skipped"]


def test_ops_like_loops():
    """Each op's results, of a convolution with uneven padding, stride, dilation and groups, are those of plain loops."""
    torch.manual_seed(0)
    x, w = numbers(2, 4, 5, 4), numbers(4, 2, 2, 1)
    cases = [OPS[name] for name in SOME]
    how = (2, 1), ((1, 0), (0, 2)), (1, 2), 2

    def call(op):
        return lambda module, x: ic.conv2d(x, module.w, None, *how, op=op)

    runs = Runs(Calls([call(case[0]) for case in cases], w=w), (x,))
    for case, found in zip(cases, runs(x)):
        expected = oracle.conv(x.numpy(), w.numpy(), *case[1:] + how)
        same(found, torch.from_numpy(expected.astype("float32")))


SHAPES = ["asymmetric", "depthwise", "same", "one-sided", "line-grouped", "volume-asymmetric"]


def test_convolutions_like_loops():
    """One to three dimensions, every kind of padding, groups: results are those of plain loops."""
    torch.manual_seed(1)
    cases = [problems.CONVOLUTIONS[name] for name in SHAPES]
    inputs = [numbers(*case[0]) for case in cases]
    weights = {"w%d" % i: numbers(f, x[1] // g, *k) for i, (x, f, k, _, _, _, g) in enumerate(cases)}

    def call(i):
        stride, padding, dilation, groups = cases[i][3:]
        function = getattr(ic, "conv%dd" % len(cases[i][2]))
        return lambda module, *xs: function(
            xs[i], getattr(module, "w%d" % i), None, stride, padding, dilation, groups, op="l1"
        )

    runs = Runs(Calls([call(i) for i in range(len(cases))], **weights), tuple(inputs))
    for i, (found, (_, _, kernel, stride, padding, dilation, groups)) in enumerate(zip(runs(*inputs), cases)):
        pads, dims = problems.pads(padding, kernel, dilation), len(kernel)
        sizes = oracle.each(stride, dims), pads, oracle.each(dilation, dims)
        x, w = inputs[i].numpy(), weights["w%d" % i].numpy()
        expected = oracle.conv(x, w, *OPS["l1"][1:] + sizes + (groups,))
        same(found, torch.from_numpy(expected.astype("float32")))


def test_transposed_like_loops():
    """Transposed convolutions too, of an op and of one whose terms are products, where terms are left out."""
    torch.manual_seed(2)
    cases = [problems.TRANSPOSED[name] for name in ("odd", "gaps", "cropped", "depthwise", "line-grouped", "volume")]
    inputs = [numbers(*case[0]) for case in cases]
    weights = {"w%d" % i: numbers(x[1], f // g, *k) for i, (x, f, k, _, _, _, _, g) in enumerate(cases)}
    ops = ["max_plus", "xnor"] * 3

    def call(i):
        stride, padding, output_padding, dilation, groups = cases[i][3:]
        function = getattr(ic, "conv_transpose%dd" % len(cases[i][2]))
        return lambda module, *xs: function(
            xs[i], getattr(module, "w%d" % i), None, stride, padding, output_padding, groups, dilation, op=ops[i]
        )

    runs = Runs(Calls([call(i) for i in range(len(cases))], **weights), tuple(inputs))
    assert runs.count("ConvTranspose") == 3
    for i, found in enumerate(runs(*inputs)):
        _, multiply, add, start, _ = OPS[ops[i]]
        x, w = inputs[i].numpy(), weights["w%d" % i].numpy()
        expected = oracle.conv_transpose(x, w, multiply, add, start, start, *cases[i][3:])
        same(found, torch.from_numpy(expected.astype("float32")))


def test_sizes_that_change():
    """Batches and image sizes stay open, of columns, convolutions, and products of matrices that broadcast."""
    torch.manual_seed(3)
    calls = [
        lambda m, x: ic.unfold(x, (2, 3), (1, 2), ((1, 0), 2), 2),
        lambda m, x: ic.fold(ic.unfold(x[..., :5, :5], 3), 5, 3),
        lambda m, x: ic.conv2d(x, m.w, m.bias, padding=1, groups=2, op="dot"),
        lambda m, x: ic.conv2d(x, m.w, m.bias, (2, 1), ((1, 0), (2, 1)), (1, 2), 2, op="max_plus"),
        lambda m, x: ic.conv2d(x, m.w, m.bias, padding="same", groups=2, op="xnor"),
        lambda m, x: ic.conv_transpose2d(x, m.t, None, 2, 1, 1, op=lambda w, x: (w - x) ** 2),
        lambda m, x: ic.matmul(x, m.rows, op="l1"),
        lambda m, x: ic.linear(x.transpose(1, 3), m.rows[0].t()[:, :4], op="adder"),
    ]
    weights = {"w": numbers(6, 2, 3, 2), "bias": numbers(6), "t": numbers(4, 3, 2, 3), "rows": numbers(1, 7, 3)}
    module = Calls(calls, **weights)
    runs = Runs(module, (numbers(2, 4, 6, 7),), sizes={0: N, 2: torch.export.Dim("h", min=5, max=64)})
    assert runs.count("Conv") == 2
    for batch, height in ((2, 6), (5, 6), (3, 11), (1, 5)):
        same_as_plain(module, runs, numbers(batch, 4, height, 7))


def test_reductions_and_parameters():
    """Each reduction, parameters of every shape, captured numbers, halves."""
    torch.manual_seed(4)
    gain = 1.5
    scaled = Op(lambda w, x, t, u: t * abs(w - x) + u)
    ops = [
        Op(lambda w, x: 1 + w * x / 4, "prod"),
        Op(lambda w, x: w - x, "logsumexp", pad_value=None),
        Op(lambda w, x: w - x, lambda acc, term: acc * 0.5 + term, identity=2, pad_value=None),
        Op(lambda w, x: (gain - x) * torch.where(w > x, w, x.clamp(-1, 1))),
        Op(lambda w, x: w * torch.exp(x)),  # 1 in the padding
    ]
    calls = [lambda m, x, op=op: ic.conv2d(x, m.w, None, padding=1, groups=2, op=op) for op in ops]
    calls += [
        lambda m, x: ic.conv2d(x, m.w, None, padding=1, groups=2, op=scaled, params={"t": m.t, "u": m.one}),
        lambda m, x: ic.conv_transpose2d(x, m.w[:4], op=scaled, params={"t": 2, "u": m.t[:4]}),
        lambda m, x: ic.conv2d(x.half(), m.w.half(), None, groups=2, op="l1"),
        lambda m, x: ic.matmul(
            m.t[:, 0, :, 0].reshape(6, 3), x[..., :3].transpose(2, 3), op=scaled, params={"t": 3, "u": m.one}
        ),
    ]
    module = Calls(calls, w=numbers(6, 2, 3, 2), t=numbers(6, 1, 3, 1), one=numbers(1))
    runs = Runs(module, (numbers(2, 4, 5, 4),), sizes={0: N})
    assert runs.count("Conv") == 1
    for batch in (2, 3):
        same_as_plain(module, runs, numbers(batch, 4, 5, 4))


def test_tables_and_integers():
    """Tables are Gathers, whatever adds up their terms. An operand without an entry is an error where the graph runs."""
    entries = tables.random_entries((4, 4), "short")
    op = Op.from_table(entries, signed=True)
    w, x = [torch.from_numpy(t) for t in tables.operands((4, 4), (True, True), ((6, 2, 3, 2), (2, 4, 5, 4)))]
    calls = [
        lambda m, x: ic.conv2d(x, m.w, None, padding=1, groups=2, op=op),
        lambda m, x: ic.conv2d(x, m.w, None, padding=1, groups=2, op=op.replace(add="max", pad_value=None)),
        lambda m, x: ic.conv2d(
            x, m.w, groups=2, op=op.replace(add=lambda a, t: (a + t).clip(-(2**15), 2**15 - 1), identity=0)
        ),
        lambda m, x: ic.conv2d(x.int(), m.w.int(), None, padding=1, groups=2, op="l1"),
    ]
    module = Calls(calls, w=w)
    runs = Runs(module, (x,), sizes={0: N})
    same_as_plain(module, runs, x)
    same_as_plain(module, runs, x.flip(1)[:1])
    same(runs(x)[0], torch.from_numpy(tables.convolution(entries, w.numpy(), x.numpy(), 1, 1, 1, 2)))
    with pytest.raises(Exception, match="index|indices"):
        runs(x + 9)


def test_blocks(monkeypatch):
    """Terms that take more than memory_limit are computed in blocks, along filters and along what is summed up."""
    torch.manual_seed(5)
    calls = [
        lambda m, x: ic.conv2d(x, m.w, None, padding=1, groups=2, op="l1"),
        lambda m, x: ic.linear(x, m.rows, op="max_plus"),
    ]
    module = Calls(calls, w=numbers(6, 2, 3, 2), rows=numbers(5, 4))
    x = numbers(2, 4, 5, 4)
    assert Runs(module, (x,)).count("ReduceSum") == 1
    # A filter of each of 2 groups has, of 2 images, 5 x 5 blocks of 12 taps: two parts, and each a sum.
    monkeypatch.setattr(chunks, "memory_limit", 2 * 2 * 25 * 4 * 7)
    runs = Runs(module, (x,), sizes={0: N})
    assert runs.count("ReduceSum") == 3 * (2 + 1)
    for batch in (2, 3):
        same_as_plain(module, runs, numbers(batch, 4, 5, 4))


# ---------------------------------------------------------------- layers
def test_layers():
    """A net of layers with ops, and binary ones with their factors."""
    torch.manual_seed(6)
    net = torch.nn.Sequential(
        ic.Conv2d(4, 6, 3, padding=1, op="l1"),
        ic.BinaryConv2d(6, 4, 3, padding=1, groups=2, alpha=True, K=True),
        ic.Conv2d(
            4, 4, 3, padding=2, padding_mode="reflect", op=Op(lambda w, x, t: w + t * x, "max"), params={"t": 0.5}
        ),
        ic.ConvTranspose2d(4, 3, 2, stride=2, op="adder"),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        ic.BinaryLinear(3, 5, K=True),
        ic.Linear(5, 2, op="l2"),
    )
    runs = Runs(net, (torch.randn(2, 4, 6, 7),), sizes={0: N})
    for batch in (2, 3):
        x = torch.randn(batch, 4, 6, 7)
        torch.testing.assert_close(runs(x)[0], net(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("signed", [(True, True), (False, False)], ids=str)
def test_quantized(signed):
    """Quantized layers find the same codes, and give the same results, to the bit."""
    torch.manual_seed(7)
    op = Op.from_table(tables.random_entries((8, 8), "byte"), signed=signed)
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, 2, 1, groups=2), torch.nn.Flatten(), torch.nn.Linear(54, 5))
    net = ic.convert(net, op, calibrate=[torch.randn(8, 4, 5, 6)]).eval()
    runs = Runs(net, (torch.randn(2, 4, 5, 6),), sizes={0: N})
    x = torch.randn(3, 4, 5, 6)
    assert torch.equal(runs(x)[0], net(x))


# ---------------------------------------------------------------- what isn't exported
REFUSED = {
    "captured": (lambda gain: Op(lambda w, x: gain * abs(w - x)), "it uses a captured tensor"),
    "softmax": (lambda _: Op(lambda w, x: torch.softmax(w * x, -1)), "softmax() is a reduction"),
    "no-identity": (
        lambda _: Op(lambda w, x: w - x, lambda a, t: a + t / 2, pad_value=None),
        "its add has no identity",
    ),
}
if not lowlevel.missing:
    REFUSED["from_c"] = lambda _: Op.from_c("fabs(w - x)"), "it is C, which only kernels evaluate"


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_by_name(name):
    """What can't be standard operators is an error, which names the op and says why."""
    make, why = REFUSED[name]
    op, w = make(torch.tensor(0.5)), numbers(6, 2, 3, 2)
    module = Calls([lambda m, x: ic.conv2d(x, m.w, None, padding=1, groups=2, op=op)], w=w)
    with pytest.raises(RuntimeError) as caught:
        torch.onnx.export(module, (numbers(2, 4, 5, 4),), dynamo=True, verbose=False)
    for text in ("{} can't be exported as standard operators".format(op), why):
        assert text in str(caught.value)


def test_older_exporter():
    """torch.onnx.export(dynamo=False) makes graphs of columns and of "dot", for any size, and refuses other ops by name."""
    torch.manual_seed(8)
    w, x = numbers(6, 2, 3, 2), numbers(2, 4, 5, 4)

    def exported(call):
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            axes = {"x": {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(Calls([call], w=w), (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
        return onnxruntime.InferenceSession(file.getvalue())

    for call in (
        lambda m, x: ic.unfold(x, 3, padding=1),
        lambda m, x: ic.conv2d(x, m.w, None, 2, 1, groups=2, op="dot"),
    ):
        session = exported(call)
        for shape in ((2, 4, 5, 4), (3, 4, 7, 6)):
            image = numbers(*shape)
            (found,) = session.run(None, {"x": image.numpy()})
            same(torch.from_numpy(found), call(Calls([], w=w), image))
    with pytest.raises(RuntimeError, match="dynamo=False.* can't export l1: use dynamo=True"):
        exported(lambda m, x: ic.conv2d(x, m.w, None, groups=2, op="l1"))


def test_exported_program():
    """A program that torch.export made holds the operator, which is refused by its name."""
    module = Calls([lambda m, x: ic.conv2d(x, m.w, None, groups=2, op="l1")], w=numbers(6, 2, 3, 2))
    program = torch.export.export(module, (numbers(2, 4, 5, 4),))
    with pytest.raises(RuntimeError, match="im2col_compat.dot"):
        torch.onnx.export(program, dynamo=True, verbose=False)
