"""A user's script: every public name, with types. mypy --strict must take it as it is, and it must run."""

import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Union

import numpy as np
import torch
from torch import Tensor, nn

import im2col_compat
from im2col_compat import (
    BinaryConv2d,
    BinaryLinear,
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Fold,
    Linear,
    Op,
    QuantConv2d,
    QuantLinear,
    SlowPathWarning,
    Unfold,
    available_backends,
    backend,
    conv1d,
    conv2d,
    conv3d,
    conv_matrix,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    convert,
    fold,
    linear,
    matmul,
    ops,
    unfold,
    unfold_transpose,
    use_backend,
)

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        assert isinstance(value, getattr(kind, "__origin__", kind)), (value, kind)


Array = np.ndarray[Any, Any]

# ---------------------------------------------------------------- functions, of tensors and of arrays
x, w, b = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3), torch.rand(4)
signals, taps = torch.rand(2, 3, 8), torch.rand(3, 3, 3)
volumes, cubes = torch.rand(1, 3, 4, 4, 4), torch.rand(3, 3, 2, 2, 2)
array, kernel = np.random.rand(2, 3, 8, 8), np.random.rand(4, 3, 3, 3)

assert_type(conv2d(x, w), Tensor)
assert_type(conv2d(x, nn.Parameter(w), b, 2, ((0, 1), (2, 0)), groups=1, op="xnor"), Tensor)
assert_type(conv2d(x, w, padding="same", dilation=[1, 2], op=lambda w, x: abs(w - x)), Tensor)
assert_type(conv2d(array, kernel, op="l1"), Array)
assert_type(conv1d(signals, taps, stride=(2,), op=ops.l1), Tensor)
assert_type(conv3d(volumes, cubes, op="dot"), Tensor)
assert_type(conv_transpose1d(signals, taps, op="l2"), Tensor)
assert_type(conv_transpose2d(x, w[:3], output_padding=1, stride=2, op="max_plus"), Tensor)
assert_type(conv_transpose3d(volumes, cubes, op="dot"), Tensor)
assert_type(conv_transpose2d(array, kernel[:3], op="min_plus"), Array)
assert_type(linear(x, torch.rand(5, 8), torch.rand(5), op="adder"), Tensor)
assert_type(matmul(array, np.random.rand(8, 5), op="l1"), Array)

assert_type(unfold(x, 3, padding=((1, 0), 1), stride=2), Tensor)
assert_type(unfold(array, (3, 3), out=np.empty((2, 27, 36))), Array)
assert_type(fold(unfold(x, 3), (8, 8), 3), Tensor)
assert_type(unfold_transpose(x, 3, stride=2, output_padding=1), Tensor)
assert_type(conv_matrix(w, (8, 8), padding="valid"), Tensor)
assert_type(conv_matrix(kernel, (8, 8), dense=True), Array)


# ---------------------------------------------------------------- ops
def mymult(a: Tensor, b: Tensor) -> Tensor:
    return torch.min(a, b)


def myadd(acc: Tensor, term: Tensor) -> Tensor:
    return torch.max(acc, term)


def scaled(w: Tensor, x: Tensor, t: Tensor) -> Tensor:
    return t * abs(w - x)


op = Op(mymult, myadd, identity=0, pad_value=None, name="fuzzy")
assert_type(op, Op)
name: Optional[str] = op.name
assert_type(op.replace(add="max", identity=None), Op)
assert_type(op.explain("float64", "cpu"), str)
assert_type(ops.xnor, Op)
params: Dict[str, Union[Tensor, float]] = {"t": 0.5}
assert_type(conv2d(x, w, op=Op(scaled, grad_params={"t": lambda w, x, t: w}), params=params), Tensor)
assert_type(conv2d(x, w, op=scaled, params={"t": torch.rand(4, 1, 1, 1)}), Tensor)
in_c = Op.from_c("t * fabs(w - x)", "max", grad_w="t", grad_x="-t", params=("t",), grad_params={"t": "fabs(w - x)"})
assert_type(in_c, Op)
table = Op.from_table(lambda a, b: a * b & ~3, signed=True, bits=(4, 8), add="sum")
assert_type(table, Op)
assert_type(Op.from_table(np.zeros((4, 4), np.int64), add=lambda acc, term: acc + term, identity=0), Op)

# ---------------------------------------------------------------- layers
layers: List[nn.Module] = [
    Conv1d(3, 4, 3, op="l1"),
    Conv3d(3, 4, (1, 2, 2), padding=(0, 1, 1), dtype=torch.float64),
    ConvTranspose1d(3, 4, 3),
    ConvTranspose2d(3, 4, 3, output_padding=1, stride=2, op=ops.adder),
    ConvTranspose3d(3, 4, 3, bias=False),
    Linear(3, 4, op=scaled, params={"t": torch.rand(4, 3)}),
    Unfold(3, padding=1),
    Fold((8, 8), 3),
    BinaryLinear(3, 4, alpha=True, K=True),
    QuantLinear(3, 4, narrow_range=True),
]
layer = Conv2d(3, 4, 3, padding="same", padding_mode="reflect", op=lambda w, x: abs(w - x))
assert_type(layer.op, Op)
assert_type(layer.weight, Tensor)
assert_type(layer.forward(x), Tensor)
conv: nn.Conv2d = layer  # it may be put where PyTorch's is asked for
assert_type(Conv2d.from_conv(nn.Conv2d(3, 4, 3), "adder"), Conv2d)
assert_type(ConvTranspose2d.from_conv(nn.ConvTranspose2d(3, 4, 3), op), ConvTranspose2d)
assert_type(Linear.from_linear(nn.Linear(3, 4), scaled, params={"t": 1.0}), Linear)
assert_type(BinaryConv2d.from_conv(conv, K=True), BinaryConv2d)
assert_type(BinaryConv2d(3, 4, 3, alpha=True).alpha, bool)
quantized = QuantConv2d(3, 4, 3, op=table.replace(pad_value=0))
quantized.start_calibration()
quantized.forward(x)
quantized.finish_calibration()
assert_type(quantized.input_scale, Tensor)

model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())


def chosen(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


assert_type(convert(model, "adder"), nn.Module)
assert_type(convert(model, table, calibrate=[x], narrow_range=True), nn.Module)
assert_type(convert(model, "l1", layers=[nn.Conv2d, "0"]), nn.Module)
assert_type(convert(model, scaled, layers=chosen, params=lambda name, layer: {"t": 1.0}), nn.Module)

# ---------------------------------------------------------------- backends, warnings, drawing
with use_backend("slices") as forced:
    assert_type(forced, use_backend)
    assert_type(backend(x), str)
use_backend("auto")
assert_type(available_backends(), Tuple[str, ...])
kind: type[RuntimeWarning] = SlowPathWarning
assert_type(im2col_compat.__version__, str)
if len(sys.argv) > 1:  # where matplotlib is, a file for the picture
    from im2col_compat.drawing import MOST_CELLS, draw

    draw((5, 5), 3, padding=1, block=4).savefig(sys.argv[1])
    assert_type(MOST_CELLS, int)
