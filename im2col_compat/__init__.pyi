from typing import Any, Callable, Dict, Iterable, Literal, Mapping, Optional, Tuple, TypeVar, Union

import numpy
import torch

from im2col_compat import ops as ops

# Tensors give a tensor, arrays an array.
_T = TypeVar("_T", torch.Tensor, "numpy.ndarray[Any, Any]")
# One for each spatial dimension, or one for all of them.
_Size = Union[int, Iterable[int]]
# The same, and an item may be a pair (before, after).
_Sides = Union[_Size, Iterable[Union[int, Iterable[int]]]]
# "same" keeps the size, and needs a stride of 1; "valid" is 0.
_Padding = Union[_Sides, Literal["same", "valid"]]
# What layers pad with: the op's pad value, or the input's own pixels.
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
# A multiply, an add, or a gradient.
_Function = Callable[..., Any]
# The names of engines; "auto" is the first that serves the input.
_Backend = Literal["auto", "torch", "ffi", "slices"]
# The names of reductions.
_Add = Literal["sum", "max", "min", "prod", "logsumexp"]
# The names of ops.
_Name = Literal["dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"]

class Op:
    multiply: _Function
    add: Union[_Add, _Function]
    identity: Optional[float]
    pad_value: Optional[float]
    grad_w: Optional[_Function]
    grad_x: Optional[_Function]
    normalize_grad_w: Optional[float]
    name: Optional[str]
    grad_params: Optional[Dict[str, Callable[..., Any]]]
    def __init__(
        self,
        multiply: _Function,
        add: Union[_Add, _Function] = "sum",
        identity: Optional[float] = None,
        pad_value: Optional[float] = 0,
        grad_w: Optional[_Function] = None,
        grad_x: Optional[_Function] = None,
        normalize_grad_w: Optional[float] = None,
        name: Optional[str] = None,
        grad_params: Optional[Dict[str, Callable[..., Any]]] = None,
    ) -> None: ...
    def replace(self, **changes: Any) -> Op: ...
    @classmethod
    def from_c(
        cls,
        multiply: str,
        add: str = "sum",
        identity: Union[float, str, None] = None,
        pad_value: Optional[float] = 0,
        grad_w: Optional[str] = None,
        grad_x: Optional[str] = None,
        params: Iterable[str] = (),
        grad_params: Optional[Dict[str, str]] = None,
    ) -> Op: ...
    @classmethod
    def from_table(
        cls,
        table: Any,
        signed: Union[bool, Tuple[bool, bool], None] = None,
        bits: Union[int, Tuple[int, int], None] = None,
        name: Optional[str] = None,
        pad_value: Optional[float] = 0,
        add: Union[Literal["sum", "max", "min"], _Function] = "sum",
        identity: Optional[float] = None,
    ) -> Op: ...
    def explain(self, dtype: str = "float32", device: Any = "cpu") -> str: ...

# A name, an op, or a function whose terms are summed.
_Op = Union[_Name, Op, _Function]
# The parameters of an op: a number or a tensor, by name.
_Params = Mapping[str, Any]

def unfold(
    input: _T,
    kernel_size: _Size,
    dilation: _Size = 1,
    padding: _Sides = 0,
    stride: _Size = 1,
    out: Optional[_T] = None,
) -> _T: ...
def fold(
    input: _T,
    output_size: _Size,
    kernel_size: _Size,
    dilation: _Size = 1,
    padding: _Sides = 0,
    stride: _Size = 1,
    out: Optional[_T] = None,
) -> _T: ...
def unfold_transpose(
    input: _T,
    kernel_size: _Size,
    dilation: _Size = 1,
    padding: _Size = 0,
    stride: _Size = 1,
    output_padding: _Size = 0,
) -> _T: ...
def conv1d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Padding = 0,
    dilation: _Size = 1,
    groups: int = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv2d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Padding = 0,
    dilation: _Size = 1,
    groups: int = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv3d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Padding = 0,
    dilation: _Size = 1,
    groups: int = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv_transpose1d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Size = 0,
    output_padding: _Size = 0,
    groups: int = 1,
    dilation: _Size = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv_transpose2d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Size = 0,
    output_padding: _Size = 0,
    groups: int = 1,
    dilation: _Size = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv_transpose3d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = None,
    stride: _Size = 1,
    padding: _Size = 0,
    output_padding: _Size = 0,
    groups: int = 1,
    dilation: _Size = 1,
    op: _Op = "dot",
    params: Optional[_Params] = None,
) -> _T: ...
def conv_matrix(
    weight: _T,
    input_size: _Size,
    stride: _Size = 1,
    padding: _Padding = 0,
    dilation: _Size = 1,
    groups: int = 1,
    dense: bool = False,
) -> _T: ...
def linear(
    input: _T, weight: _T, bias: Optional[_T] = None, op: _Op = "dot", params: Optional[_Params] = None
) -> _T: ...
def matmul(a: _T, b: _T, op: _Op = "dot", params: Optional[_Params] = None) -> _T: ...

class SlowPathWarning(RuntimeWarning): ...

class use_backend:
    def __init__(self, name: _Backend) -> None: ...
    def __enter__(self) -> use_backend: ...
    def __exit__(self, *args: Any) -> None: ...

def backend(x: Any = None) -> str: ...
def available_backends() -> Tuple[str, ...]: ...

class Unfold(torch.nn.Module):
    kernel_size: _Size
    dilation: _Size
    padding: _Sides
    stride: _Size
    def __init__(self, kernel_size: _Size, dilation: _Size = 1, padding: _Sides = 0, stride: _Size = 1) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class Fold(torch.nn.Module):
    output_size: _Size
    kernel_size: _Size
    dilation: _Size
    padding: _Sides
    stride: _Size
    def __init__(
        self, output_size: _Size, kernel_size: _Size, dilation: _Size = 1, padding: _Sides = 0, stride: _Size = 1
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

# Typing can't append arguments to another constructor's. So each kind of layer has a whole list.
class _Conv:
    op: Op
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Padding = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: _PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        op: _Op = "dot",
        params: Optional[_Params] = None,
    ) -> None: ...

class Conv1d(_Conv, torch.nn.Conv1d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv1d, op: _Op, params: Optional[_Params] = None) -> Conv1d: ...

class Conv2d(_Conv, torch.nn.Conv2d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv2d, op: _Op, params: Optional[_Params] = None) -> Conv2d: ...

class Conv3d(_Conv, torch.nn.Conv3d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv3d, op: _Op, params: Optional[_Params] = None) -> Conv3d: ...

class _ConvTranspose:
    op: Op
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Size = 0,
        output_padding: _Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: _Size = 1,
        padding_mode: Literal["zeros"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        op: _Op = "dot",
        params: Optional[_Params] = None,
    ) -> None: ...

class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    @classmethod
    def from_conv(
        cls, conv: torch.nn.ConvTranspose1d, op: _Op, params: Optional[_Params] = None
    ) -> ConvTranspose1d: ...

class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    @classmethod
    def from_conv(
        cls, conv: torch.nn.ConvTranspose2d, op: _Op, params: Optional[_Params] = None
    ) -> ConvTranspose2d: ...

class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    @classmethod
    def from_conv(
        cls, conv: torch.nn.ConvTranspose3d, op: _Op, params: Optional[_Params] = None
    ) -> ConvTranspose3d: ...

class Linear(torch.nn.Linear):
    op: Op
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        op: _Op = "dot",
        params: Optional[_Params] = None,
    ) -> None: ...
    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, op: _Op, params: Optional[_Params] = None) -> Linear: ...

class _Binary:
    alpha: bool
    K: bool

class BinaryConv2d(_Binary, Conv2d):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Padding = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: _PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        alpha: bool = False,
        K: bool = False,
    ) -> None: ...
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv2d, alpha: bool = False, K: bool = False) -> BinaryConv2d: ...  # type: ignore[override]

class BinaryLinear(_Binary, Linear):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        alpha: bool = False,
        K: bool = False,
    ) -> None: ...
    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, alpha: bool = False, K: bool = False) -> BinaryLinear: ...  # type: ignore[override]

class _Quantized:
    qconfig: Any
    narrow_range: bool
    input_scale: torch.Tensor
    input_zero_point: torch.Tensor
    def start_calibration(self, name: str = "") -> None: ...
    def finish_calibration(self) -> None: ...

class QuantConv2d(_Quantized, Conv2d):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = 1,
        padding: _Padding = 0,
        dilation: _Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: _PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        op: Optional[Op] = None,
        qconfig: Any = None,
        narrow_range: bool = False,
    ) -> None: ...
    @classmethod
    def from_conv(  # type: ignore[override]
        cls, conv: torch.nn.Conv2d, op: Optional[Op] = None, qconfig: Any = None, narrow_range: bool = False
    ) -> QuantConv2d: ...

class QuantLinear(_Quantized, Linear):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        op: Optional[Op] = None,
        qconfig: Any = None,
        narrow_range: bool = False,
    ) -> None: ...
    @classmethod
    def from_linear(  # type: ignore[override]
        cls, linear: torch.nn.Linear, op: Optional[Op] = None, qconfig: Any = None, narrow_range: bool = False
    ) -> QuantLinear: ...

# A type, a name or a pattern for names, several of these, or a function of a name and a layer.
_Layers = Union[type, str, Iterable[Union[type, str]], Callable[[str, torch.nn.Module], bool]]

def convert(
    model: torch.nn.Module,
    op: _Op,
    calibrate: Optional[Iterable[Any]] = None,
    layers: Optional[_Layers] = None,
    qconfig: Any = None,
    params: Union[_Params, Callable[[str, torch.nn.Module], _Params], None] = None,
    narrow_range: Optional[bool] = None,
) -> torch.nn.Module: ...

__version__: str
