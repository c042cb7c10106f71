"""QuantConv2d, QuantLinear and convert: against PyTorch's own fake quantization, and formulas on codes."""

import copy
import pickle

import numpy as np
import pytest

from helpers import oracle, problems
from helpers.tensors import make, some, torch, values
from helpers.tables import by_loops, convolution, random_entries

if torch is None:
    pytest.skip("needs torch", allow_module_level=True)

from im2col_compat import (  # noqa: E402
    Conv1d,
    Conv2d,
    Conv3d,
    Linear,
    Op,
    QuantConv2d,
    QuantLinear,
    conv2d,
    convert,
    linear,
    ops,
)
from im2col_compat.compat import layers  # noqa: E402
from torch import nn  # noqa: E402

F = nn.functional

try:
    quantization, missing = layers.quantization(), None
except ImportError as error:
    quantization, missing = None, str(error)

needs_quantization = pytest.mark.skipif(quantization is None, reason=str(missing))

#: Bits, and whether they are signed, of w and of x.
OPERANDS = {
    "int8": ((8, 8), (True, True)),
    "uint8": ((8, 8), (False, False)),
    "int8, uint8": ((8, 8), (True, False)),
    "uint6, int6": ((6, 6), (False, True)),
    "int4, uint8": ((4, 8), (True, False)),
    "uint4": ((4, 4), (False, False)),
}

#: (in_channels, out_channels, kernel_size, stride, padding, dilation, groups), padding_mode
SETTINGS = {
    "plain": ((3, 4, (3, 3), 1, 0, 1, 1), "zeros"),
    "padded": ((2, 3, (2, 3), (2, 1), (1, 2), (1, 2), 1), "zeros"),
    "grouped": ((4, 6, (3, 2), (1, 2), 1, 1, 2), "zeros"),
    "same": ((2, 3, (2, 3), 1, "same", (1, 2), 1), "zeros"),
    "one-sided": ((2, 3, (2, 3), 1, ((1, 0), (0, 2)), 1, 1), "zeros"),
    "reflect": ((4, 4, (3, 3), 1, (1, 2), 1, 2), "reflect"),
}


def ranges(bits, signed):
    return [(-(2 ** (b - 1)), 2 ** (b - 1) - 1) if sign else (0, 2**b - 1) for b, sign in zip(bits, signed)]


def exact(bits, signed):
    """The op of w * x."""
    codes = [np.arange(low, high + 1) for low, high in ranges(bits, signed)]
    return Op.from_table(np.outer(*(np.roll(each, each[0]) for each in codes)), signed=signed)


def observer(limits, signed, of_channels):
    """The class of PyTorch's observers, with its settings."""
    scheme = ("per_channel" if of_channels else "per_tensor") + ("_symmetric" if signed else "_affine")
    kind = quantization.PerChannelMinMaxObserver if of_channels else quantization.MinMaxObserver
    return kind.with_args(
        quant_min=limits[0],
        quant_max=limits[1],
        dtype=torch.qint8 if signed else torch.quint8,
        qscheme=getattr(torch, scheme),
    )


def qconfig_of(bits, signed, of_channels=False):
    (w, x), (w_signed, x_signed) = ranges(bits, signed), signed
    return quantization.QConfig(activation=observer(x, x_signed, False), weight=observer(w, w_signed, of_channels))


def rounded(values, seen, limits, signed, of_channels):
    """(values as PyTorch fakes their quantization, for the range of those that were seen; scale; zero point)."""
    watcher = observer(limits, signed, of_channels)()
    watcher(seen.detach())
    scale, zero = watcher.calculate_qparams()
    if not of_channels:
        return torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero), *limits), scale, zero
    try:
        faked = torch.fake_quantize_per_channel_affine(values, scale, zero.to(torch.int32), 0, *limits)
    except RuntimeError:  # before 1.10
        faked = torch.fake_quantize_per_channel_affine(values, scale, zero.to(torch.int64), 0, *limits)
    return faked, scale, zero


def padded(x, kernel, padding, dilation, mode):
    """Padded by hand."""
    flat = [side for pair in problems.pads(padding, kernel, dilation)[::-1] for side in pair]
    return F.pad(x, flat, **({} if mode == "zeros" else {"mode": mode}))


def images(channels, seed=0, offset=0.3):
    return torch.from_numpy(np.random.RandomState(seed).randn(3, channels, 6, 7).astype("float32") + offset)


def calibrated(name, operands, op=None, of_channels=True, own=False):
    """(a calibrated QuantConv2d, the images that were seen)."""
    settings, mode = SETTINGS[name]
    torch.manual_seed(1)
    bits, signed = OPERANDS[operands]
    qconfig = qconfig_of(bits, signed, of_channels) if own else None
    layer = QuantConv2d(*settings, padding_mode=mode, op=op or exact(bits, signed), qconfig=qconfig)
    layer.weight.data.add_(0.05)
    seen = images(settings[0])
    return convert(layer, layer.op, calibrate=[seen[:1], (seen[1:], "a label")], qconfig=qconfig), seen


# ---------------------------------------------------------------- results


@needs_quantization
@pytest.mark.parametrize("of_channels", [True, False])
@pytest.mark.parametrize("operands", sorted(OPERANDS))
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_exact_products_are_fake_quantization(name, operands, of_channels):
    """Result and gradients are F.conv2d's of operands that PyTorch has rounded, beyond the calibrated range too."""
    (bits, signed), ((_, _, kernel, stride, padding, dilation, groups), mode) = OPERANDS[operands], SETTINGS[name]
    layer, seen = calibrated(name, operands, of_channels=of_channels, own=not of_channels)
    w_range, x_range = ranges(bits, signed)
    results = []
    for ours in (True, False):
        x = (seen * 1.5).requires_grad_()
        w, b = (parameter.detach().clone().requires_grad_() for parameter in (layer.weight, layer.bias))
        if ours:
            y, (w, b) = layer(x), (layer.weight, layer.bias)
        else:
            x_ = rounded(x, seen, x_range, signed[1], False)[0]
            w_ = rounded(w, w, w_range, signed[0], of_channels)[0]
            y = F.conv2d(padded(x_, kernel, padding, dilation, mode), w_, b, stride, 0, dilation, groups)
        y.backward(torch.from_numpy(np.random.RandomState(5).randn(*y.shape).astype("float32")))
        results.append([values(t) for t in (y, x.grad, w.grad, b.grad)])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    assert (results[0][1] == 0).any() and (results[0][1] != 0).any()
    with torch.no_grad():
        np.testing.assert_array_equal(values(layer(seen * 1.5)), results[0][0])
        np.testing.assert_allclose(values(layer(seen[0] * 1.5)), results[0][0][0], rtol=1e-6, atol=1e-6)


@needs_quantization
@pytest.mark.parametrize("operands", sorted(OPERANDS))
@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_other_tables_are_looked_up(name, operands):
    """scale * (sum of table[w, x] - x_zero * sum of w - w_zero * sum of (x - x_zero)), padding being x_zero."""
    bits, signed = OPERANDS[operands]
    (_, filters, kernel, stride, padding, dilation, groups), mode = SETTINGS[name]
    entries = random_entries(bits, "short")
    layer, seen = calibrated(name, operands, Op.from_table(entries, signed=signed))
    w_range, x_range = ranges(bits, signed)
    x, x_scale, x_zero = rounded(seen, seen, x_range, signed[1], False)
    w, w_scale, w_zero = rounded(layer.weight.detach(), layer.weight, w_range, signed[0], True)
    w_scale, w_zero = (values(t).reshape(-1, 1, 1).astype("float64") for t in (w_scale, w_zero))
    assert signed[1] or int(x_zero) != 0
    x = values(padded(x, kernel, padding, dilation, mode)).astype("float64")
    x_codes = (x / float(x_scale)).round().astype("int64") + int(x_zero)
    w_codes = (values(w) / w_scale[..., None] + w_zero[..., None]).round().astype("int64")
    sums = convolution(entries, w_codes, x_codes, stride, 0, dilation, groups)
    columns = oracle.unfold(x_codes - int(x_zero), kernel, dilation, 0, stride)
    of_x = columns.reshape(len(x), groups, -1, columns.shape[2]).sum(2).repeat(filters // groups, 1).reshape(sums.shape)
    of_w = w_codes.reshape(filters, -1).sum(1).reshape(-1, 1, 1)
    expected = w_scale * float(x_scale) * (sums - int(x_zero) * of_w - w_zero * of_x)
    found = values(layer(seen)) - values(layer.bias).reshape(-1, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * abs(expected).max())


@needs_quantization
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("operands", sorted(OPERANDS))
@pytest.mark.parametrize("shape", [(9,), (5, 9), (2, 3, 9)])
def test_linear_layers(shape, operands, bias):
    """QuantLinear is F.linear of rounded operands, with any leading dimensions, gradients included."""
    bits, signed = OPERANDS[operands]
    seen = torch.from_numpy(np.random.RandomState(0).randn(*shape).astype("float32"))
    layer = convert(nn.Linear(9, 4, bias), exact(bits, signed), calibrate=[seen])
    assert isinstance(layer, QuantLinear)
    w_range, x_range = ranges(bits, signed)
    x, x_ = (seen.clone().requires_grad_() for _ in range(2))
    w = layer.weight.detach().clone().requires_grad_()
    y = layer(x)
    w_ = rounded(w, w, w_range, signed[0], True)[0]
    expected = F.linear(rounded(x_, seen, x_range, signed[1], False)[0], w_, layer.bias)
    grad = torch.from_numpy(some(tuple(y.shape), seed=2)).float()
    y.backward(grad.clone())  # with old PyTorch the bias's gradient may share its memory
    expected.backward(grad)
    for found, right in ((y, expected), (x.grad, x_.grad), (layer.weight.grad, w.grad)):
        np.testing.assert_allclose(values(found), values(right), rtol=1e-5, atol=1e-5)


@needs_quantization
def test_gradients_are_those_of_the_exact_product():
    """However wrong a table is, its layer's gradients are those of the layer with exact products."""
    results = []
    for op in (exact((8, 8), (True, True)), Op.from_table(np.zeros((256, 256), int), signed=True)):
        layer, seen = calibrated("padded", "int8", op)
        x = seen.clone().requires_grad_()
        y = layer(x)
        y.backward(torch.from_numpy(some(tuple(y.shape))).float())
        results.append([values(t) for t in (y, x.grad, layer.weight.grad, layer.bias.grad)])
    assert (results[1][0] == results[1][0][:1, :, :1, :1]).all() and not np.allclose(results[0][0], results[1][0])
    for found, expected in zip(results[0][1:], results[1][1:]):
        np.testing.assert_array_equal(found, expected)


NARROW = [(operands, own) for operands in ("int8", "int8, uint8", "uint6, int6", "uint4") for own in (False, True)]


@needs_quantization
@pytest.mark.parametrize("operands,own", NARROW)
def test_narrower_ranges(operands, own):
    """Without the least code of signed operands a scale is the largest absolute value by 127; qconfig's ranges may be
    narrower as well. Results and gradients are those of operands rounded so."""
    bits, signed = OPERANDS[operands]
    narrow = [(low + sign, high) for (low, high), sign in zip(ranges(bits, signed), signed)]
    how = {"narrow_range": True}
    if own:
        narrow = [(low // 2, high // 2) for low, high in narrow]
        parts = [observer(limits, sign, not i) for i, (limits, sign) in enumerate(zip(narrow, signed))]
        how = {"qconfig": quantization.QConfig(activation=parts[1], weight=parts[0])}
    seen, model = images(2), nn.Conv2d(2, 3, 3, padding=1)
    layer = convert(model, exact(bits, signed), [seen], **how)
    if signed[1] and not own:
        expected = float(seen.abs().max()) / (2 ** (bits[1] - 1) - 1)
        np.testing.assert_allclose(float(layer.input_scale), expected, rtol=1e-6)
    assert ("narrow_range=True" in repr(layer)) == layer.narrow_range == (not own)
    x, x_ = ((seen * 1.5).requires_grad_() for _ in range(2))
    w_ = model.weight.detach().clone().requires_grad_()
    y = layer(x)
    expected = F.conv2d(
        padded(rounded(x_, seen, narrow[1], signed[1], False)[0], (3, 3), 1, 1, "zeros"),
        rounded(w_, w_, narrow[0], signed[0], True)[0],
        model.bias,
    )
    y.sum().backward()
    expected.sum().backward()
    for found, right in ((y, expected), (x.grad, x_.grad), (layer.weight.grad, w_.grad)):
        np.testing.assert_allclose(values(found), values(right), rtol=1e-5, atol=2e-5)
    other = convert(layer, Op.from_table(lambda w, x: w * x & ~1, signed=signed, bits=bits))  # not calibrated anew
    assert other.narrow_range == layer.narrow_range and (other.qconfig is None) == (not own)
    assert float(other.input_scale) == float(layer.input_scale)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(values(copied(x)), values(y))


def saturating(acc, term):
    return torch.clamp(acc + term, -(2**13), 2**13 - 1)


@needs_quantization
@pytest.mark.parametrize("operands", ["int8", "int8, uint8", "uint8"])
def test_accumulators_that_saturate(operands):
    """The codes' products are added up by the op's function, term by term; gradients are those of the exact sum."""
    bits, signed = OPERANDS[operands]
    layer, seen = calibrated("padded", operands)
    entries = layer.op.multiply.entries
    op = Op.from_table(entries, signed=signed, add=saturating, identity=0)
    other, wide = convert(layer, op), convert(layer, op.replace(add=lambda acc, term: acc + term))
    (_, _, kernel, stride, padding, dilation, _), _ = SETTINGS["padded"]
    w_range, x_range = ranges(bits, signed)
    x, x_scale, x_zero = rounded(seen, seen, x_range, signed[1], False)
    w, w_scale, w_zero = rounded(layer.weight.detach(), layer.weight, w_range, signed[0], True)
    w_scale, w_zero = (values(t).reshape(-1, 1, 1).astype("float64") for t in (w_scale, w_zero))
    x_codes = (values(x).astype("float64") / float(x_scale)).round().astype("int64") + int(x_zero)
    w_codes = (values(w) / w_scale[..., None] + w_zero[..., None]).round().astype("int64")
    pads = ((0, 0), (0, 0)) + tuple((p, p) for p in padding)
    columns = oracle.unfold(np.pad(x_codes, pads, "constant", constant_values=int(x_zero)), kernel, dilation, 0, stride)
    terms = entries[w_codes.reshape(3, -1, 1), columns[:, None]]
    sums = np.zeros(terms.shape[:2] + terms.shape[3:], "int64")
    for k in range(terms.shape[2]):
        sums = np.clip(sums + terms[:, :, k], -(2**13), 2**13 - 1)
    assert (sums != terms.sum(2)).any()
    sums = sums - int(x_zero) * w_codes.reshape(3, -1).sum(1)[:, None]
    sums = sums - w_zero[..., 0] * (columns - int(x_zero)).sum(1)[:, None]
    y, plain = other(seen), layer(seen)
    expected = (w_scale[..., 0] * float(x_scale) * sums).reshape(y.shape) + values(layer.bias).reshape(-1, 1, 1)
    np.testing.assert_allclose(values(y), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(values(wide(seen)), values(plain))
    found = torch.autograd.grad(y.sum(), other.weight)[0], torch.autograd.grad(plain.sum(), layer.weight)[0]
    np.testing.assert_array_equal(*map(values, found))


@needs_quantization
@pytest.mark.parametrize("add", ["max", "min"])
def test_maxima_of_products(add):
    """max and min of the codes' products, times the scales; gradients go to the product that is the largest."""
    op = exact((8, 8), (True, True)).replace(add=add)
    layer = QuantConv2d(4, 6, 3, padding=1, groups=2, op=op)
    seen = images(4)
    layer = convert(layer, op, [seen])
    x, x_ = ((seen * 1.5).requires_grad_() for _ in range(2))
    w_ = layer.weight.detach().clone().requires_grad_()
    rounded_x = rounded(x_, seen, (-128, 127), True, False)[0]
    rounded_w = rounded(w_, w_, (-128, 127), True, True)[0]
    expected = conv2d(rounded_x, rounded_w, layer.bias, 1, 1, 1, 2, op=Op(lambda w, x: w * x, add=add))
    y = layer(x)
    y.sum().backward()
    expected.sum().backward()
    for found, right in ((y, expected), (x.grad, x_.grad), (layer.weight.grad, w_.grad)):
        np.testing.assert_allclose(values(found), values(right), rtol=1e-5, atol=2e-5)
    entries = random_entries((8, 8), "short")
    other = convert(layer, Op.from_table(entries, signed=True, add=add))
    x_scale = float(layer.input_scale)
    w_scale = values(rounded(w_, w_, (-128, 127), True, True)[1]).astype("float64").reshape(-1, 1, 1)
    x_codes = (values(rounded_x).astype("float64") / x_scale).round().astype("int64")
    w_codes = (values(rounded_w).astype("float64") / w_scale[..., None]).round().astype("int64")
    found = by_loops(entries, w_codes, x_codes, {"max": max, "min": min}[add], None, 1, 1, 2)
    expected = w_scale * x_scale * found + values(layer.bias).reshape(-1, 1, 1)
    np.testing.assert_allclose(values(other(seen * 1.5)), expected, rtol=1e-5, atol=1e-5)
    unsigned = exact((8, 8), (True, False)).replace(add=add)
    convert(layer, unsigned, [seen.abs()])(seen.abs())  # zero points are 0
    with pytest.raises(ValueError, match="zero points.*{}".format(add)):
        convert(layer, unsigned, [seen])(seen)


@needs_quantization
@pytest.mark.parametrize("operands", ["int8", "int8, uint8", "uint8"])
def test_tables_of_floats(operands):
    """A table of floats that are integers gives what that of the integers gives; fractions count."""
    layer, seen = calibrated("grouped", operands)
    entries, signed = layer.op.multiply.entries, OPERANDS[operands][1]
    other = convert(layer, Op.from_table(entries.astype("float32"), signed=signed))
    np.testing.assert_allclose(values(other(seen)), values(layer(seen)), rtol=1e-5, atol=1e-5)
    if operands == "int8":
        half = convert(layer, Op.from_table(entries * 0.5, signed=signed))
        bias = values(layer.bias).reshape(-1, 1, 1)
        np.testing.assert_allclose(values(half(seen)) - bias, (values(layer(seen)) - bias) / 2, rtol=1e-4, atol=1e-5)


@needs_quantization
def test_weights_are_rounded_as_they_are():
    """The range of the weights follows them, the range of the input stays."""
    layer, seen = calibrated("plain", "int8")
    before = float(layer.input_scale)
    layer.bias.data.zero_()
    once = values(layer(seen))
    layer.weight.data.mul_(16)
    np.testing.assert_allclose(values(layer(seen)), 16 * once, rtol=1e-6)
    layer(100 * seen)
    assert float(layer.input_scale) == before


@needs_quantization
def test_all_zeros():
    """Inputs and weights that are all zero give the bias."""
    for operands in sorted(OPERANDS):
        bits, signed = OPERANDS[operands]
        layer = nn.Conv2d(2, 3, 3, padding=1)
        layer.weight.data.zero_()
        found = convert(layer, exact(bits, signed), calibrate=[torch.zeros(1, 2, 5, 5)])
        expected = values(layer.bias).reshape(-1, 1, 1) + np.zeros((1, 3, 5, 5))
        np.testing.assert_allclose(values(found(torch.zeros(1, 2, 5, 5))), expected, rtol=1e-6)


# ---------------------------------------------------------------- state


@needs_quantization
def test_calibration_is_part_of_the_state():
    """state_dict, pickle and deepcopy keep it; without it there is an error that says what to do."""
    layer, seen = calibrated("padded", "int8, uint8")
    expected = values(layer(seen))
    fresh = QuantConv2d(*SETTINGS["padded"][0], op=layer.op)
    for call in (lambda: fresh(seen), lambda: QuantLinear(7, 2)(seen)):
        with pytest.raises(RuntimeError, match="Quant(Conv2d|Linear).*input.*convert.*load_state_dict"):
            call()
    assert set(layer.state_dict()) == set(nn.Conv2d(1, 1, 1).state_dict()) | {"input_scale", "input_zero_point"}
    fresh.load_state_dict(layer.state_dict())
    for other in (fresh, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(values(other(seen)), expected)
        assert repr(other) == repr(layer) and "op=Op(table[int8, uint8]" in repr(layer)


@needs_quantization
def test_from_layers_shares_parameters():
    """from_conv and from_linear keep settings and share the parameters; the default op is exact, for signed bytes."""
    conv, fc = nn.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), 2, 2, False).eval(), nn.Linear(3, 2)
    ours = QuantConv2d.from_conv(conv)
    assert ours.weight is conv.weight and ours.bias is None and not ours.training
    assert (ours.stride, ours.padding, ours.groups) == (conv.stride, conv.padding, conv.groups)
    assert "table[int8, int8]" in repr(ours.op) and (ours.op.multiply.entries[3, -5], ours.op.pad_value) == (-15, 0)
    ours = QuantLinear.from_linear(fc, exact((2, 3), (False, True)))
    assert ours.weight is fc.weight and ours.bias is fc.bias and ours.training
    assert "table[uint2, int3]" in repr(ours)
    for wrong in (lambda: QuantConv2d.from_conv(fc), lambda: QuantLinear.from_linear(conv)):
        with pytest.raises(TypeError):
            wrong()


@needs_quantization
def test_calibration_sees_what_comes_to_each_layer():
    """Ranges are those of the inputs that layers get in eval mode, unquantized, over all batches."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.9), nn.ReLU(), nn.Conv2d(3, 2, 2))
    model[1].running_mean.fill_(0.25)
    batches = [images(2, seed) * (1 + seed) for seed in range(3)]
    op = exact((8, 8), (True, False))
    found = convert(model, op, batches)
    assert torch.equal(found[1].running_mean, model[1].running_mean) and not found[1].num_batches_tracked
    x, model = torch.cat(batches), model.eval()
    for i in (0, 4):
        watcher = observer((0, 255), False, False)()
        watcher(model[:i](x).detach() if i else x)
        scale, zero = watcher.calculate_qparams()
        np.testing.assert_allclose(float(found[i].input_scale), float(scale), rtol=1e-6)
        assert int(found[i].input_zero_point) == int(zero)
    again = convert(found, op, [batches[0]])  # quantized layers are calibrated without their quantization
    watcher = observer((0, 255), False, False)()
    watcher(model[:4](batches[0]).detach())
    np.testing.assert_allclose(float(again[4].input_scale), float(watcher.calculate_qparams()[0]), rtol=1e-6)


@needs_quantization
def test_training_lowers_the_loss():
    """A converted network is fitted to what the original computes, and its parameters are in the optimiser."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 2))
    x = images(2)
    target = model(x).detach()
    net = convert(model, Op.from_table(lambda w, x: w * x & ~255, signed=True), [x])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(25):
        loss = F.mse_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses) < 0.5 * losses[0], losses


# ---------------------------------------------------------------- convert: which layers


class Net(nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.features = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 2))
        self.classifier = nn.Linear(3 * 3 * 4, 5)

    def forward(self, x):
        return self.classifier(self.features(x).view(len(x), -1))


def is_conv(name, module):
    return isinstance(module, nn.Conv2d)


ALL = ["features.0", "features.2", "classifier"]
CHOICES = [
    (None, ALL),
    (nn.Linear, ["classifier"]),
    (nn.Conv2d, ALL[:2]),
    ("features.2", ["features.2"]),
    ("features.[02]", ALL[:2]),
    (is_conv, ALL[:2]),
    (lambda name, module: name.endswith("2"), ["features.2"]),
    (["features.0", nn.Linear], ["features.0", "classifier"]),
    (("class*", "features.0"), ["features.0", "classifier"]),
]


@pytest.mark.parametrize("op", ["adder", pytest.param("table", marks=needs_quantization)])
@pytest.mark.parametrize("layers,expected", CHOICES)
def test_which_layers(layers, expected, op):
    """By type, name, pattern, function or several of these; the original stays as it is, and shares nothing."""
    torch.manual_seed(0)
    model = Net()
    model.features[0].eval()
    before = {name: values(value).copy() for name, value in model.state_dict().items()}
    x = make("tensor", some((2, 2, 6, 7)), "float32")
    output = values(model(x))
    if op == "adder":
        kinds, found = (Conv2d, Linear), convert(model, op, layers=layers)
    else:
        kinds, found = (QuantConv2d, QuantLinear), convert(model, exact((8, 8), (True, True)), [x], layers=layers)
    modules = dict(found.named_modules())
    assert {name for name, module in modules.items() if type(module) in kinds} == set(expected)
    assert list(found._modules) == list(model._modules) and type(found) is Net
    assert {name: module.training for name, module in found.named_modules() if name not in expected} == {
        name: module.training for name, module in model.named_modules() if name not in expected
    }
    assert [modules[name].training for name in expected] == [name != "features.0" for name in expected]
    for parameter in found.parameters():
        parameter.data.mul_(0)
    np.testing.assert_array_equal(values(model(x)), output)
    assert {type(module) for module in model.modules()} == {Net, nn.Sequential, nn.Conv2d, nn.ReLU, nn.Linear}
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(values(value), before[name])


def test_plain_ops():
    """With any other op, layers become those that compute with it."""
    for conv, own, sizes in ((nn.Conv1d, Conv1d, (7,)), (nn.Conv2d, Conv2d, (5, 6)), (nn.Conv3d, Conv3d, (4, 5, 3))):
        found = convert(nn.Sequential(conv(2, 3, 2), nn.ReLU()), "l1")
        assert type(found[0]) is own and found[0].op is ops.l1
        x = make("tensor", some((1, 2) + sizes), "float32")
        expected = own.from_conv(found[0], "l1")(x).clamp(min=0)
        np.testing.assert_array_equal(values(found(x)), values(expected))
    fc = nn.Linear(4, 3)
    x = make("tensor", some((2, 4)), "float32")
    found = convert(fc, "max_plus")
    assert type(found) is Linear and found is not fc
    np.testing.assert_array_equal(values(found(x)), values(linear(x, fc.weight, fc.bias, op="max_plus")))
    again = convert(found, lambda w, x: w * x)
    np.testing.assert_allclose(values(again(x)), values(fc(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op", ["adder", pytest.param("table", marks=needs_quantization)])
def test_what_is_shared_stays_shared(op):
    """A layer in two places is converted once; layers of one weight go on having one."""
    shared, tied = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
    tied.weight = shared.weight
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(shared, tied))
    x = make("tensor", some((1, 2, 3, 3)), "float32")
    arguments = (op,) if op == "adder" else (exact((8, 8), (True, True)), [x])
    found = convert(model, *arguments)
    assert found[0] is found[2] is found[3][0] is not shared and type(found[0]) is not nn.Conv2d
    assert found[3][1].weight is found[0].weight is not shared.weight and found[3][1] is not found[0]
    assert type(found[3][1]) is type(found[0]) and len(list(found.parameters())) == 3
    found(x)
    one = convert(model, *arguments, layers="0")
    assert type(one[0]) is type(found[0]) and one[2] is one[0]


@needs_quantization
def test_reconverting():
    """Another table for the same operands keeps the calibration; others need their own; plain ops leave nothing."""
    torch.manual_seed(0)
    x, model, bytes_ = images(2)[:, :, :6], Net(), exact((8, 8), (True, False))
    first = convert(model, bytes_, [x])
    zero = Op.from_table(np.zeros((256, 256), int), signed=(True, False))
    second = convert(first, zero)
    for name in ALL:
        one, two = (dict(net.named_modules())[name] for net in (first, second))
        assert float(one.input_scale) == float(two.input_scale) > 0 and two.op is zero and one.op is bytes_
        assert two.input_scale is not one.input_scale
        assert int(one.input_zero_point) == int(two.input_zero_point)
    assert int(first.features[0].input_zero_point) != 0
    found = values(second(x))  # the same for whatever there is
    assert (found == found[:1]).all() and not (values(first(x)) == found).any()
    np.testing.assert_array_equal(values(convert(second, bytes_)(x)), values(first(x)))
    assert float(convert(first, zero, [2 * x]).features[0].input_scale) == 2 * float(first.features[0].input_scale)
    with pytest.raises(ValueError, match="'features.0'.*int4.*calibrate"):
        convert(first, exact((4, 4), (True, True)))
    convert(first, exact((4, 4), (True, True)), [x])(x)
    plain = convert(first, "l1")
    assert list(plain.state_dict()) == list(model.state_dict())
    assert [type(plain.features[0]), type(plain.classifier)] == [Conv2d, Linear]
    expected = conv2d(x, model.features[0].weight, model.features[0].bias, op="l1")
    np.testing.assert_array_equal(values(plain.features[0](x)), values(expected))
    np.testing.assert_array_equal(values(convert(plain, bytes_, [x])(x)), values(first(x)))


# ---------------------------------------------------------------- errors


class Unused(nn.Module):
    def __init__(self):
        super(Unused, self).__init__()
        self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def wrong_conversions():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv1d(2, 2, 1))
    return [
        (lambda: convert(model, "l1", layers="conv"), ValueError, r"layers.*\['0', '1', '2'\].*'conv'"),
        (lambda: convert(model, "l1", layers=["0", nn.Linear]), ValueError, "layers.*Linear"),
        (lambda: convert(model, "l1", layers=[3]), TypeError, "layers.*3"),
        (lambda: convert(model, "l1", layers=[]), ValueError, "no layers"),
        (lambda: convert(model, "l1", layers=lambda name, module: False), ValueError, "no layers"),
        (lambda: convert(nn.ReLU(), "l1"), ValueError, "no layers"),
        (lambda: convert(model, "l1", layers="1"), TypeError, "'1'.*nn.Conv1d.*nn.Linear.*ReLU"),
        (lambda: convert(model, "l3"), ValueError, "l3"),
        (lambda: convert(model, "l1", calibrate=[1]), ValueError, "calibrate.*from_table.*l1"),
        (lambda: convert(model, "l1", qconfig=1), ValueError, "qconfig.*from_table.*l1"),
        (lambda: convert(model, "l1", narrow_range=True), ValueError, "narrow_range.*from_table.*l1"),
    ]


@pytest.mark.parametrize("case", range(len(wrong_conversions())))
def test_wrong_conversions(case):
    """Errors name the names without a layer, the layers that can't be converted, and the arguments that tables need."""
    call, error, message = wrong_conversions()[case]
    with pytest.raises(error, match=message):
        call()


def wrong_quantizations():
    op, net, x = (
        exact((8, 8), (True, True)),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv1d(2, 2, 1)),
        torch.ones(1, 2, 3, 3),
    )
    bad = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))
    broken = nn.Conv2d(2, 2, 1)
    broken.weight.data[0, 0, 0, 0] = float("nan")
    channels = qconfig_of((8, 8), (True, True), True)
    return [
        (lambda: QuantConv2d(1, 1, 1, op="adder"), TypeError, "QuantConv2d.*from_table.*adder"),
        (lambda: QuantLinear(1, 1, op=lambda w, x: w * x), TypeError, "QuantLinear.*from_table"),
        (lambda: QuantLinear(1, 1, op="max_plus"), TypeError, "QuantLinear.*from_table"),
        (
            lambda: QuantLinear(1, 1, op=op, qconfig=qconfig_of((8, 8), (True, True)), narrow_range=True),
            ValueError,
            "QuantLinear.*narrow_range.*qconfig",
        ),
        (lambda: convert(net[0], op), ValueError, "calibrate.*batches"),
        (lambda: convert(bad, op), ValueError, "'1'.*calibrated.*calibrate must"),
        (lambda: convert(net, op, [x], layers="1"), TypeError, "'1'.*nn.Conv2d.*nn.Linear.*Conv1d"),
        (lambda: convert(bad, op, []), ValueError, "calibrate.*there is none"),
        (lambda: convert(bad, op, [x, x * float("inf")]), ValueError, "'1'.*input.*finite"),
        (lambda: convert(bad, op, [(x * float("nan"), 1)]), ValueError, "'1'.*input.*finite"),
        (lambda: convert(broken, op, [x])(x), ValueError, "QuantConv2d.*weight.*finite"),
        (lambda: convert(Unused(), op, [torch.ones(1, 2)]), ValueError, "'unused'.*no input"),
        (
            lambda: QuantConv2d(1, 1, 1, op=exact((8, 7), (True, True)), qconfig=qconfig_of((8, 8), (True, True))),
            ValueError,
            r"activation.*within \(-64, 63\).*table\[int8, int7\].*\(-128, 127\)",
        ),
        (
            lambda: convert(bad, op, [x], qconfig=qconfig_of((8, 8), (False, True))),
            ValueError,
            r"weight.*\(-128, 127\).*\(0, 255\)",
        ),
        (
            lambda: QuantLinear(1, 1, op=op, qconfig=quantization.QConfig(channels.weight, channels.weight)),
            ValueError,
            "activation.*one range.*PerChannel",
        ),
    ]


@needs_quantization
@pytest.mark.parametrize("case", range(len(wrong_quantizations()) if quantization else 0))
def test_wrong_quantizations(case):
    """Wrong ops, observers and calibrations are errors that name the layer and what is wrong."""
    call, error, message = wrong_quantizations()[case]
    with pytest.raises(error, match="(?s)" + message):
        call()


@pytest.mark.skipif(quantization is not None, reason="needs a torch without such observers")
def test_without_observers():
    """Quantized layers need PyTorch's observers, and the error says so; other conversions don't."""
    with pytest.raises(ImportError, match="PyTorch 1.7"):
        QuantConv2d(1, 1, 1)
    with pytest.raises(ImportError, match="PyTorch 1.7"):
        convert(nn.Linear(1, 1), Op.from_table(np.eye(2, dtype=int)), [make("tensor", np.ones((1, 1)))])
