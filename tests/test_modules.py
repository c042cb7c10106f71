"""Conv2d and Linear: the constructors, parameters, state and repr of nn.Conv2d and nn.Linear, and an op."""

import copy
import inspect
import operator
import pickle
import sys

import numpy as np
import pytest
from helpers.tensors import VARIABLES, make, some, torch, values

from im2col_compat import (
    BinaryConv2d,
    BinaryLinear,
    Conv1d,
    Conv2d,
    Conv3d,
    Fold,
    Linear,
    Op,
    Unfold,
    conv2d,
    linear,
    ops,
)

if torch is None:
    pytest.skip("needs torch", allow_module_level=True)

from torch import nn  # noqa: E402


def plus(w, x):
    return w + x


@pytest.mark.parametrize(
    "arguments",
    [
        ((3, 4, 3), {}),
        ((4, 6, (2, 3), (1, 2), (0, 1), 2, 2, False), {}),
        ((4, 6, 3), dict(stride=2, padding=1, dilation=(1, 2), groups=2, bias=True)),
    ],
)
def test_conv2d_is_an_nn_conv2d(arguments):
    """Same parameters after the same seed, same state_dict, same result for w * x, same repr and op."""
    args, kwargs = arguments
    torch.manual_seed(0)
    theirs = nn.Conv2d(*args, **kwargs)
    torch.manual_seed(0)
    ours = Conv2d(*args, op=lambda w, x: w * x, **kwargs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(values(ours.state_dict()[name]), values(value))
    x = make("tensor", some((2, args[0], 9, 8)), "float32")
    np.testing.assert_allclose(values(ours(x)), values(theirs(x)), rtol=1e-4, atol=1e-4)
    assert isinstance(ours, nn.Conv2d)
    plain = Conv2d(*args, **kwargs)
    assert repr(plain) == repr(theirs)[:-1] + ", op=dot)"
    plain.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(values(plain(x)), values(theirs(x)))


LAYERS = {1: (Conv1d, nn.Conv1d), 2: (Conv2d, nn.Conv2d), 3: (Conv3d, nn.Conv3d)}


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("arguments", [{}, dict(stride=2, padding=1, dilation=2, groups=2, bias=False)], ids=str)
def test_layers_of_every_dimension(dims, arguments):
    """Conv1d and Conv3d are nn.Conv1d and nn.Conv3d as Conv2d is nn.Conv2d, and from_conv makes them from these."""
    ours_of, theirs_of = LAYERS[dims]
    theirs = theirs_of(4, 6, 3, **arguments)
    x = make("tensor", some((2, 4) + (7,) * dims), "float32")
    for ours in (ours_of(4, 6, 3, op=lambda w, x: w * x, **arguments), ours_of.from_conv(theirs, lambda w, x: w * x)):
        ours.load_state_dict(theirs.state_dict())
        np.testing.assert_allclose(values(ours(x)), values(theirs(x)), rtol=1e-3, atol=1e-3)
        assert isinstance(ours, theirs_of)
    plain = ours_of(4, 6, 3, **arguments)
    plain.load_state_dict(theirs.state_dict())
    assert repr(plain) == repr(theirs)[:-1] + ", op=dot)"
    np.testing.assert_array_equal(values(plain(x)), values(theirs(x)))
    for other in {1, 2, 3} - {dims}:
        with pytest.raises(TypeError, match="nn.Conv{}d".format(dims)):
            ours_of.from_conv(LAYERS[other][1](1, 1, 1), "l1")


#: NumPy's names for what nn.Conv2d calls padding modes.
MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("op", ["dot", "l1", "max_plus"])
def test_padding_modes(dims, mode, op):
    """The image is padded with its own pixels, as by np.pad, for any op, with gradients."""
    image = some((2, 2) + (4, 5, 3)[:dims])
    pads = ((1, 2), (0, 1), (2, 2))[:dims]
    padded = np.pad(image, ((0, 0), (0, 0)) + pads, mode=MODES[mode])
    layer = LAYERS[dims][0](2, 3, 2, padding=pads, padding_mode=mode, bias=False, op=op).double()
    plain = LAYERS[dims][0](2, 3, 2, bias=False, op=op).double()
    plain.load_state_dict(layer.state_dict())
    x = make("tensor", image, requires_grad=True)
    result = layer(x)
    np.testing.assert_allclose(values(result), values(plain(make("tensor", padded))), rtol=1e-12)
    result.sum().backward()
    assert float(abs(values(x.grad)).sum()) > 0
    assert mode in repr(layer)
    unbatched = layer(make("tensor", image[0]))
    np.testing.assert_allclose(values(unbatched), values(result)[0], rtol=1e-12)


@pytest.mark.skipif(
    "padding_mode" not in nn.Conv2d.__init__.__code__.co_varnames, reason="nn.Conv2d has padding_mode since 1.1"
)
@pytest.mark.parametrize("mode", sorted(MODES))
def test_padding_modes_are_pytorchs(mode):
    """The layer computes what the installed nn.Conv2d does, where that has the mode, and from_conv keeps the mode."""
    try:
        nn.Conv2d(1, 1, 1, padding_mode="nonsense")
    except Exception:
        pass
    else:
        pytest.skip("nn.Conv2d looks at padding_mode since 1.5")
    theirs = nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode=mode).double()
    expected = theirs(make("tensor", some((1, 2, 5, 6))))
    ours = Conv2d.from_conv(theirs, "dot")
    np.testing.assert_allclose(values(ours(make("tensor", some((1, 2, 5, 6))))), values(expected), rtol=1e-12)


def test_padding_mode_errors():
    """Unknown modes are refused by the constructor, and padding that a mode can't give by the call."""
    with pytest.raises(ValueError, match="padding_mode.*'mirror'"):
        Conv2d(1, 1, 1, padding_mode="mirror")
    x = make("tensor", some((1, 1, 3, 4)), "float32")
    with pytest.raises(RuntimeError, match="reflect.*at most 2"):
        Conv2d(1, 1, 1, padding=3, padding_mode="reflect")(x)
    with pytest.raises(RuntimeError, match="circular.*at most 3"):
        Conv2d(1, 1, 1, padding=4, padding_mode="circular")(x)
    same = Conv2d(1, 1, (2, 3), padding="same", padding_mode="circular")(x)
    assert tuple(same.shape) == (1, 1, 3, 4)


def test_linear_is_an_nn_linear():
    """The same for Linear."""
    for bias in (True, False):
        torch.manual_seed(0)
        theirs = nn.Linear(7, 4, bias)
        torch.manual_seed(0)
        ours = Linear(7, 4, bias, op=lambda w, x: w * x)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        x = make("tensor", some((3, 7)), "float32")
        np.testing.assert_allclose(values(ours(x)), values(theirs(x)), rtol=1e-4, atol=1e-4)
        assert repr(Linear(7, 4, bias, op="l1")) == repr(theirs)[:-1] + ", op=l1)"


@pytest.mark.parametrize("op", ["l1", ops.max_plus, plus, Op(plus, "min")])
def test_op_is_used(op):
    """A layer computes what the function does with its parameters."""
    layer = Conv2d(2, 3, 3, padding=1, op=op)
    x = make("tensor", some((1, 2, 5, 5)), "float32")
    np.testing.assert_array_equal(values(layer(x)), values(conv2d(x, layer.weight, layer.bias, padding=1, op=op)))
    layer = Linear(5, 3, op=op)
    np.testing.assert_array_equal(values(layer(x)), values(linear(x, layer.weight, layer.bias, op=op)))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding):
    """ "same" and "valid" work on every version."""
    layer = Conv2d(2, 3, (2, 3), padding=padding, dilation=(1, 2), op="l1")
    x = make("tensor", some((1, 2, 5, 6)), "float32")
    assert tuple(layer(x).shape) == ((1, 3, 5, 6) if padding == "same" else (1, 3, 4, 2))
    assert layer.padding == padding and "op=l1" in repr(layer)
    dot = Conv2d(2, 3, (2, 3), padding=padding, dilation=(1, 2))
    assert tuple(dot(x).shape) == tuple(layer(x).shape)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(padding="same", stride=2),
        dict(padding="foo"),
        dict(groups=3),
        dict(padding_mode="foo"),
        dict(op="l3"),
    ],
)
def test_wrong_arguments(arguments):
    """What nn.Conv2d refuses with a ValueError, Conv2d refuses with one."""
    with pytest.raises(ValueError):
        Conv2d(4, 6, 3, **arguments)


#: PyTorch's arguments of the constructors, with what is given for them here.
CONV = [
    ("in_channels", 2), ("out_channels", 4), ("kernel_size", (2, 3)), ("stride", (1, 2)), ("padding", (1, 0)),
    ("dilation", (2, 1)), ("groups", 2), ("bias", False), ("padding_mode", "circular"), ("device", None),
    ("dtype", None),
]  # fmt: skip
LINEAR = [("in_features", 3), ("out_features", 2), ("bias", False), ("device", None), ("dtype", None)]
CONSTRUCTORS = [
    (Conv2d, CONV + [("op", "l1"), ("params", None)]),
    (Linear, LINEAR + [("op", "l1"), ("params", None)]),
    (BinaryConv2d, CONV + [("alpha", True), ("K", True)]),
    (BinaryLinear, LINEAR + [("alpha", True), ("K", True)]),
]


@pytest.mark.parametrize("layer,arguments", CONSTRUCTORS)
def test_arguments_by_position_and_name(layer, arguments):
    """PyTorch's arguments come first and ours last, with any number given by position; subclasses pass them on."""

    class Own(layer):
        def __init__(self, *args, **kwargs):
            super(Own, self).__init__(*args, **kwargs)

    names = [name for name, _ in arguments]
    if hasattr(inspect, "signature"):
        assert list(inspect.signature(layer).parameters) == names
    expected = repr(layer(**dict(arguments)))
    for count in range(len(arguments) + 1):
        positional = [value for _, value in arguments[:count]]
        assert repr(layer(*positional, **dict(arguments[count:]))) == expected
    assert repr(Own(*positional)) == expected.replace(layer.__name__, "Own")


@pytest.mark.parametrize("layer,arguments", CONSTRUCTORS)
def test_arguments_that_do_not_fit(layer, arguments):
    """Arguments that are missing, unknown, given twice or too many are a TypeError with their name or number."""
    values = [value for _, value in arguments]
    for args, kwargs, message in (
        (values[:1], {}, arguments[1][0] if sys.version_info[0] > 2 else "argument"),
        (values[:3], {"strides": 1}, "strides"),
        (values, {arguments[0][0]: 1}, arguments[0][0]),
        (values, {arguments[-1][0]: 1}, arguments[-1][0]),
        (values + [1], {}, str(len(values))),
    ):
        with pytest.raises(TypeError) as info:
            layer(*args, **kwargs)
        assert message in str(info.value)


def test_from_conv_shares_parameters():
    """Converting keeps settings and shares the parameters, so optimisers and state go on as before."""
    conv = nn.Conv2d(4, 6, (2, 3), (1, 2), (1, 0), 2, 2, False).eval()
    ours = Conv2d.from_conv(conv, "adder")
    assert ours.weight is conv.weight and ours.bias is None and not ours.training
    assert repr(ours) == repr(conv)[:-1] + ", op=adder)"
    fc = nn.Linear(3, 2)
    ours = Linear.from_linear(fc, plus)
    assert ours.weight is fc.weight and ours.bias is fc.bias and ours.training
    x = make("tensor", some((4, 3)), "float32")
    np.testing.assert_array_equal(values(ours(x)), values(linear(x, fc.weight, fc.bias, op=plus)))
    state = torch.get_rng_state()
    normed = nn.utils.parametrizations if hasattr(nn.utils, "parametrizations") else nn.utils
    normed = getattr(normed, "weight_norm", nn.utils.weight_norm)(nn.Conv2d(2, 3, 3))
    torch.set_rng_state(state)
    before = torch.get_rng_state()
    x = make("tensor", some((1, 2, 4, 4)), "float32")
    expected = conv2d(x, normed.weight, normed.bias, op="l1")
    found = Conv2d.from_conv(normed, "l1")
    assert isinstance(found, Conv2d) and len(list(found.parameters())) == 3
    np.testing.assert_array_equal(values(found(x)), values(expected))
    if hasattr(normed, "parametrizations"):  # taken off one layer, it stays on the other
        nn.utils.parametrize.remove_parametrizations(found, "weight")
        np.testing.assert_array_equal(values(found(x)), values(expected))
        np.testing.assert_array_equal(values(normed.weight), values(found.weight))
    Conv2d.from_conv(conv, "l1")
    assert (torch.get_rng_state() == before).all()
    for wrong in (fc, None, 3):
        with pytest.raises(TypeError):
            Conv2d.from_conv(wrong, "l1")
    with pytest.raises(TypeError):
        Linear.from_linear(conv, "l1")
    with pytest.raises(ValueError):
        Linear.from_linear(fc, "l3")


@pytest.mark.skipif(VARIABLES, reason="0.3 converts with .double()")
def test_device_and_dtype():
    """device= and dtype= work on versions whose layers don't know them."""
    layer = Conv2d(2, 3, 3, device="cpu", dtype=torch.float64, op="l1")
    assert layer.weight.dtype == layer.bias.dtype == torch.float64
    assert Linear(2, 3, dtype=torch.float64).weight.dtype == torch.float64


def test_layers_are_saved_copied_and_trained(tmpdir):
    """pickle, torch.save and deepcopy keep the op; a step of SGD lowers the loss."""
    torch.manual_seed(0)
    net = nn.Sequential(
        Conv2d(1, 4, 3, op="adder"), nn.ReLU(), Conv2d(4, 2, 3, op=Op(plus, "max")), Unfold(2), Fold(4, 2)
    )
    x = make("tensor", some((2, 1, 8, 8)), "float32")
    expected = values(net(x))
    path = str(tmpdir.join("net"))  # 0.3 saves to real files only
    torch.save(net, path)
    loaded = torch.load(path, **({"weights_only": False} if hasattr(torch, "compile") else {}))
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), loaded):
        np.testing.assert_array_equal(values(other(x)), expected)
        assert other[0].op is ops.adder
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    losses = []
    for _ in range(5):
        loss = (net(x) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(values(loss)))
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1]


class Net(nn.Module):
    def __init__(self, op):
        super(Net, self).__init__()
        self.conv, self.fc = Conv2d(1, 4, 3, op=op), Linear(4 * 6 * 6, 2, op=op)

    def forward(self, x):
        return self.fc(self.conv(x).view(-1, 4 * 6 * 6))


@pytest.mark.parametrize(
    "op",
    ["dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus", plus, Op(plus, "max"), Op(operator.mul, operator.add)],
    ids=lambda op: getattr(op, "__name__", str(op)),
)
def test_every_op_trains(op):
    """A network of both layers learns what another with the same op computes."""
    torch.manual_seed(0)
    teacher, net = Net(op), Net(op)
    x = make("tensor", np.random.RandomState(0).randn(16, 1, 8, 8), "float32")
    target = make("tensor", values(teacher(x)), "float32")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        loss = nn.functional.mse_loss(net(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(values(loss)))
    assert min(losses) < 0.5 * losses[0], losses


def test_scaling_of_weights_is_refused():
    """PyTorch's fusion with a batch norm scales the weight of whatever it gets, which is wrong for another op."""
    fusion = pytest.importorskip("torch.nn.utils.fusion")
    norm = torch.nn.BatchNorm2d(4).eval()
    norm.running_var.fill_(4)
    x = torch.randn(2, 3, 5, 5)
    plain = Conv2d(3, 4, 3).eval()
    fused = fusion.fuse_conv_bn_eval(plain, norm)
    np.testing.assert_allclose(values(fused(x)), values(norm(plain(x))), rtol=1e-4, atol=1e-5)
    layer = Conv2d(3, 4, 3, op="l1").eval()
    with pytest.raises(TypeError, match="op=l1"):
        fusion.fuse_conv_bn_eval(layer, norm)
    for op in ("l1", torch.max):  # anyone else may, whatever op was set to
        layer.op = op
        layer.weight = torch.nn.Parameter(2 * layer.weight)


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_tools_that_ask_for_the_type_leave_layers_alone():
    """Quantization swaps nn.Conv2d by its very type."""
    quantization = pytest.importorskip("torch.ao.quantization")
    if not hasattr(quantization, "default_qconfig"):
        pytest.skip("torch.ao.quantization is a part of torch.quantization here (1.10)")
    net = torch.nn.Sequential(Conv2d(3, 4, 3, op="l1")).eval()
    net.qconfig = quantization.default_qconfig
    swapped = quantization.convert(quantization.prepare(net))
    x = torch.randn(2, 3, 5, 5)
    assert type(swapped[0]) is Conv2d and torch.equal(swapped(x), net(x))
