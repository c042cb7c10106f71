"""convert in odd cases: models that don't call their layers, precisions, threads; test_quantized.py has the others."""

import copy
import threading
import warnings

import numpy as np
import pytest
from im2col_compat import Conv2d, Linear, Op, convert, matmul
from im2col_compat.compat import layers

from helpers.tensors import VARIABLES, torch

pytestmark = pytest.mark.skipif(torch is None, reason="needs torch")
nn = torch.nn if torch is not None else None


def has_observers():
    try:
        layers.quantization()
    except ImportError:
        return False
    return True


needs_observers = pytest.mark.skipif(not has_observers(), reason="needs torch.quantization's observers")


def product():
    return Op.from_table(lambda w, x: w * x, signed=True)


@pytest.mark.skipif(not hasattr(nn, "TransformerEncoderLayer"), reason="needs nn.TransformerEncoderLayer")
@pytest.mark.skipif(not hasattr(torch, "inference_mode"), reason="needs a current nn.TransformerEncoderLayer")
def test_layers_that_a_fast_path_does_not_call():
    """A converted encoder layer calls its new layers, recorded or not; attention keeps the layer it doesn't call."""
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0).eval()
    x = torch.randn(5, 2, 8)
    converted = convert(model, "l1")
    recorded = converted(x).detach()
    with torch.no_grad():
        np.testing.assert_allclose(converted(x).numpy(), recorded.numpy(), atol=1e-3)
        assert float((converted(x) - model(x)).abs().max()) > 0.1
    assert type(converted.linear1) is Linear and type(converted.self_attn.out_proj) is type(model.self_attn.out_proj)
    with pytest.raises(TypeError) as info:
        convert(model, "l1", layers="self_attn.out_proj")
    assert "self_attn.out_proj" in str(info.value)


@pytest.mark.parametrize("arguments", [{"model": 3}, {"layers": 3}])
def test_arguments_of_wrong_types(arguments):
    """A model that is none, and layers of a wrong type, are a TypeError that names the argument."""
    with pytest.raises(TypeError) as info:
        convert(**dict({"model": nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "op": "l1"}, **arguments))
    assert list(arguments)[0] in str(info.value)


@needs_observers
@pytest.mark.parametrize(
    "error, batches", [(TypeError, 3), (TypeError, [()]), (TypeError, [{"x": 1}]), (ValueError, [])]
)
def test_errors_of_calibration(error, batches):
    """Wrong batches are an error that names calibrate."""
    with pytest.raises(error) as info:
        convert(nn.Linear(2, 2), product(), calibrate=batches)
    assert "calibrate" in str(info.value)


@needs_observers
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_models_of_any_precision(dtype):
    """Codes and sums are as exact in half precision as in single: only rounding to eight bits remains."""
    torch.manual_seed(0)
    model, x = nn.Linear(300, 6), torch.randn(20, 300)
    expected = model(x)
    kind = getattr(torch, dtype)
    try:
        copy.deepcopy(model).to(kind)(x.to(kind))
    except RuntimeError as error:
        pytest.skip("PyTorch itself can't: {}".format(error))
    converted = convert(copy.deepcopy(model).to(kind), product(), calibrate=[x.to(kind)])
    found = converted(x.to(kind))
    assert found.dtype == kind and converted.weight.dtype == kind
    found.sum().backward()
    assert float((found.float() - expected).abs().max().detach()) < 0.03


@pytest.mark.skipif(VARIABLES, reason="0.3's tensors take long to compare")
def test_threads_share_a_new_table():
    """Threads that use an op for the first time at once get the right sums."""
    rng = np.random.RandomState(0)
    w, x = rng.randint(0, 256, (4, 600)).astype(np.uint8), rng.randint(0, 256, (600, 300)).astype(np.uint8)
    table = rng.randint(0, 60000, (256, 256))
    expected = np.stack([table[row[:, None], x].sum(0) for row in w])
    for _ in range(20):
        op, wrong = Op.from_table(table), []

        def work(op=op, wrong=wrong):
            wrong.append(not np.array_equal(matmul(w, x, op=op), expected))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == [False] * 4


def standardized():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            return nn.functional.conv2d(x, self.weight - self.weight.mean(), self.bias)

    return Standardized(3, 4, 3)


def doubled():
    class Doubled(nn.Conv2d):
        def _conv_forward(self, x, *others):
            return super(Doubled, self)._conv_forward(x * 2, *others)

    return Doubled(3, 4, 3)


def patched():
    layer = nn.Conv2d(3, 4, 3)
    layer.forward = lambda x: x
    return layer


@pytest.mark.parametrize("make", [standardized, doubled, patched])
def test_a_forward_of_its_own_is_kept(make):
    """A layer that computes something else stays as it is, and that is said; named, it is an error."""
    net = nn.Sequential(make(), nn.Conv2d(4, 2, 1))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = convert(net, "l1")
    assert type(found[0]) is type(net[0]) and type(found[1]) is Conv2d
    assert len(said) == 1 and "'0'" in str(said[0].message) and "forward" in str(said[0].message)
    for layers in ("0", ["1", "0"]):
        with pytest.raises(TypeError) as info:
            convert(net, "l1", layers=layers)
        assert "'0'" in str(info.value) and "forward" in str(info.value)
    with pytest.raises(ValueError) as info:
        convert(nn.Sequential(make()), "l1")
    assert "forward" in str(info.value)
    with pytest.raises(TypeError) as info:
        Conv2d.from_conv(net[0], "l1")
    assert "forward" in str(info.value)


def test_subclasses_without_a_forward_are_converted():
    """What only has another constructor or other attributes computes as its base does."""

    class Named(nn.Conv2d):
        def __init__(self):
            super(Named, self).__init__(3, 4, 3)
            self.note = "mine"

    found = convert(nn.Sequential(Named()), "l1")
    assert type(found[0]) is Conv2d and found[0].note == "mine"


def test_patterns_choose_among_what_can_be_converted():
    """Patterns, types and functions pass over other layers."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    for layers in ("*", nn.Module, lambda name, module: True):
        assert [type(layer) for layer in convert(net, "l1", layers=layers)] == [Conv2d, nn.ReLU, Conv2d]
