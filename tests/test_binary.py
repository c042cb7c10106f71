"""BinaryConv2d and BinaryLinear: XNOR-Net's formulas, worked out with NumPy."""

import copy
import pickle

import numpy as np
import pytest

from helpers import oracle, problems
from helpers.tensors import VARIABLES, dtype_of, make, some, torch, values
from helpers.signs import columns_of, convolution, signs

if torch is None:
    pytest.skip("needs torch", allow_module_level=True)

from im2col_compat import BinaryConv2d, BinaryLinear, Conv2d, ops  # noqa: E402
from torch import nn  # noqa: E402

FACTORS = [(False, False), (True, False), (False, True), (True, True)]

#: (in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
SETTINGS = {
    "plain": (3, 4, (3, 3), 1, 0, 1, 1),
    "asymmetric": (2, 3, (2, 3), (1, 2), (1, 2), (2, 1), 1),
    "grouped": (4, 6, (3, 2), (2, 1), 1, 1, 2),
    "depthwise": (5, 10, (3, 3), 1, (2, 0), (1, 2), 5),
    "words": (40, 3, (2, 2), 1, 1, 1, 1),
    "one-sided": (2, 3, (2, 3), 1, ((1, 0), (0, 2)), 1, 1),
    "same": (2, 2, (2, 3), 1, "same", (1, 2), 1),
}


def factors(x, w, stride, padding, dilation, groups):
    """alpha, (O, 1, 1); and K of the filters' groups, (N, O, block rows, block columns)."""
    pads = tuple(problems.pads(padding, w.shape[2:], dilation))
    columns = oracle.unfold(abs(x), w.shape[2:], dilation, pads, stride)
    means = columns.reshape(len(x), groups, -1, columns.shape[2]).mean(2)
    blocks = columns_of(x, w.shape[2:], stride, padding, dilation, groups)[1]
    means = np.repeat(means, len(w) // groups, 1).reshape((len(x), len(w)) + blocks)
    return abs(w).reshape(len(w), -1).mean(1).reshape(-1, 1, 1), means


def operands(settings, seed=0):
    channels, filters, kernel = settings[:3]
    random = np.random.RandomState(seed)
    return (
        random.randn(2, channels, 6, 7),
        random.randn(filters, channels // settings[6], *kernel),
        random.randn(filters),
    )


def layer_of(settings, w, b, **arguments):
    layer = BinaryConv2d(*settings, bias=b is not None, **arguments).double()
    for parameter, array in ((layer.weight, w), (layer.bias, b)):
        if array is not None:
            parameter.data.copy_(make("raw" if VARIABLES else "tensor", array))
    return layer


@pytest.mark.parametrize("alpha,K", FACTORS)
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_binary_convolutions(name, alpha, K):
    """sign(x) * sign(w) * alpha * K + bias: mean absolute values of each filter's weights and each window's inputs."""
    x, w, b = operands(SETTINGS[name])
    expected = convolution(x, w, *SETTINGS[name][3:]).astype(float)
    of_filter, of_window = factors(x, w, *SETTINGS[name][3:])
    expected = expected * (of_filter if alpha else 1) * (of_window if K else 1)
    for bias in (b, None):
        layer = layer_of(SETTINGS[name], w, bias, alpha=alpha, K=K)
        found = layer(make("tensor", x))
        plus = 0 if bias is None else b.reshape(-1, 1, 1)
        np.testing.assert_allclose(values(found), expected + plus, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(values(layer(make("tensor", x[0]))), values(found)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha,K", FACTORS)
@pytest.mark.parametrize("shape", [(9,), (5, 9), (2, 3, 9)])
def test_binary_linear(shape, alpha, K):
    """The same for fully connected layers, with any leading dimensions."""
    random = np.random.RandomState(0)
    x, w, b = random.randn(*shape), random.randn(4, 9), random.randn(4)
    expected = np.matmul(signs(x), signs(w).T) * (abs(w).mean(1) if alpha else 1)
    expected = expected * (abs(x).mean(-1)[..., None] if K else 1)
    for bias in (True, False):
        layer = BinaryLinear(9, 4, bias, alpha=alpha, K=K).double()
        layer.weight.data.copy_(make("raw" if VARIABLES else "tensor", w))
        if bias:
            layer.bias.data.copy_(make("raw" if VARIABLES else "tensor", b))
        found = values(layer(make("tensor", x)))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected + (b if bias else 0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode,pad", [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")])
def test_padding_modes(mode, pad):
    """The pixels of the padding have signs and absolute values as all others do, also without a batch."""
    settings = (4, 6, (2, 3), 1, (1, 2), 1, 2)
    x, w, b = operands(settings)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)), mode=pad)
    of_filter, of_window = factors(padded, w, 1, 0, 1, 2)
    expected = convolution(padded, w, groups=2) * of_filter * of_window + b.reshape(-1, 1, 1)
    layer = layer_of(settings, w, b, padding_mode=mode, alpha=True, K=True)
    for image, right in ((x, expected), (x[0], expected[0])):
        np.testing.assert_allclose(values(layer(make("tensor", image))), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("alpha,K", FACTORS)
@pytest.mark.parametrize("name", ["asymmetric", "grouped"])
def test_gradients(name, alpha, K):
    """Gradients are straight-through for signs, and the true ones for alpha and K, means of absolute values."""
    x, w, b = operands(SETTINGS[name])
    stride, padding, dilation, groups = SETTINGS[name][3:]
    of_signs = convolution(x, w, stride, padding, dilation, groups)
    of_filter, of_window = factors(x, w, stride, padding, dilation, groups)
    of_filter, of_window = of_filter if alpha else 1, of_window if K else 1
    grad = np.random.RandomState(9).randn(*of_signs.shape)

    def by_group(array):
        return array.reshape(len(x), groups, len(w) // groups, -1)

    def image(columns):
        return oracle.fold(
            columns.reshape(len(x), -1, grad[0, 0].size), x.shape[2:], w.shape[2:], dilation, padding, stride
        )

    to_signs = by_group(grad * of_filter * of_window)
    columns = columns_of(x, w.shape[2:], stride, padding, dilation, groups)[0]
    dw = np.matmul(to_signs, columns.swapaxes(2, 3)).sum(0).reshape(w.shape) * (abs(w) <= 1)
    dx = image(np.matmul(signs(w).reshape(groups, len(w) // groups, -1).swapaxes(1, 2), to_signs)) * (abs(x) <= 1)
    if alpha:
        to_alpha = (grad * of_signs * of_window).sum((0, 2, 3)).reshape(-1, 1, 1, 1)
        dw = dw + to_alpha * np.sign(w) / w[0].size
    if K:
        to_window = by_group(grad * of_signs * of_filter).sum(2)[:, :, None]
        dx = dx + image(np.repeat(to_window, w[0].size, 2)) * np.sign(x) / w[0].size
    layer, x_ = layer_of(SETTINGS[name], w, b, alpha=alpha, K=K), make("tensor", x, requires_grad=True)
    layer(x_).backward(make("raw" if VARIABLES else "tensor", grad))
    for found, expected in ((x_.grad, dx), (layer.weight.grad, dw), (layer.bias.grad, grad.sum((0, 2, 3)))):
        np.testing.assert_allclose(values(found), expected, rtol=1e-10, atol=1e-10)


def test_from_layers_shares_parameters():
    """Settings are kept and the parameters themselves shared; another layer is a TypeError."""
    conv = nn.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), 2, 2, False).eval()
    ours = BinaryConv2d.from_conv(conv, K=True)
    assert ours.weight is conv.weight and ours.bias is None and not ours.training
    assert (ours.alpha, ours.K, ours.stride, ours.groups) == (False, True, (1, 2), 2) and ours.op is ops.xnor
    x = make("tensor", some((1, 4, 5, 9)), "float32")
    layer = BinaryConv2d(4, 6, (2, 3), (1, 2), (1, 0), 2, 2, False, K=True)
    layer.load_state_dict(conv.state_dict())
    np.testing.assert_array_equal(values(ours(x)), values(layer(x)))
    fc = nn.Linear(3, 2)
    ours = BinaryLinear.from_linear(fc, True)
    assert ours.weight is fc.weight and ours.bias is fc.bias and ours.training and (ours.alpha, ours.K) == (True, False)
    for make_one in (lambda: BinaryConv2d.from_conv(fc), lambda: BinaryLinear.from_linear(conv)):
        with pytest.raises(TypeError):
            make_one()


def test_they_are_layers():
    """state_dict and parameters are nn.Conv2d's; repr has op, alpha and K; copies and pickles compute the same."""
    torch.manual_seed(0)
    theirs = nn.Conv2d(3, 4, 3)
    torch.manual_seed(0)
    layer = BinaryConv2d(3, 4, 3, alpha=True)
    assert isinstance(layer, (nn.Conv2d, Conv2d)) and list(layer.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(values(layer.state_dict()[name]), values(value))
    assert repr(layer) == "Binary" + repr(theirs)[:-1] + ", op=xnor, alpha=True, K=False)"
    fc = BinaryLinear(5, 2, K=1)
    assert repr(fc) == "Binary" + repr(nn.Linear(5, 2))[:-1] + ", op=xnor, alpha=False, K=True)"
    for one, shape in ((layer, (2, 3, 5, 5)), (fc, (2, 5))):
        x = make("tensor", some(shape), "float32")
        expected = values(one(x))
        assert expected.dtype == "float32"
        for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            np.testing.assert_array_equal(values(other(x)), expected)
            assert repr(other) == repr(one) and other.op is ops.xnor


@pytest.mark.skipif(VARIABLES, reason="0.3 converts with .double()")
def test_device_and_dtype():
    """device= and dtype= are nn.Conv2d's."""
    layer = BinaryConv2d(2, 3, 3, device="cpu", dtype=torch.float64, alpha=True, K=True)
    assert dtype_of(layer(make("tensor", some((1, 2, 4, 4))))) == "float64"
    layer = BinaryLinear(2, 3, device="cpu", dtype=torch.float64, alpha=True, K=True)
    assert dtype_of(layer(make("tensor", some((1, 2))))) == "float64"


def test_training_lowers_the_loss():
    """A network of both layers learns what another computes."""
    torch.manual_seed(0)

    def network():
        return nn.Sequential(BinaryConv2d(2, 4, 3, alpha=True, K=True), nn.ReLU(), BinaryConv2d(4, 2, 4, alpha=True))

    teacher, net = network(), network()
    x = make("tensor", np.random.RandomState(0).randn(16, 2, 6, 6), "float32")
    target = make("tensor", values(teacher(x)), "float32")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(values(loss)))
    assert min(losses) < 0.5 * losses[0], losses
