from typing import Any, Callable, Dict, Iterable, Literal, Mapping, Optional, Tuple, TypeVar, Union

import numpy
import torch

from im2col_compat import ops as ops

# Tensors give a tensor, arrays an array.
_T = TypeVar("_T", torch.Tensor, "numpy.ndarray[Any, Any]")
_Size = Union[int, Iterable[int]]
# An item may be a pair (before, after).
_Sides = Union[_Size, Iterable[Union[int, Iterable[int]]]]
_Padding = Union[_Sides, Literal["same", "valid"]]
_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_Function = Callable[..., Any]
_Backend = Literal["auto", "torch", "ffi", "slices"]
_Add = Literal["sum", "max", "min", "prod", "logsumexp"]
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
        add: Union[_Add, _Function] = ...,
        identity: Optional[float] = ...,
        pad_value: Optional[float] = ...,
        grad_w: Optional[_Function] = ...,
        grad_x: Optional[_Function] = ...,
        normalize_grad_w: Optional[float] = ...,
        name: Optional[str] = ...,
        grad_params: Optional[Dict[str, Callable[..., Any]]] = ...,
    ) -> None: ...
    def replace(self, **changes: Any) -> Op: ...
    @classmethod
    def from_c(
        cls,
        multiply: str,
        add: str = ...,
        identity: Union[float, str, None] = ...,
        pad_value: Optional[float] = ...,
        grad_w: Optional[str] = ...,
        grad_x: Optional[str] = ...,
        params: Iterable[str] = ...,
        grad_params: Optional[Dict[str, str]] = ...,
    ) -> Op: ...
    @classmethod
    def from_table(
        cls,
        table: Any,
        signed: Union[bool, Tuple[bool, bool], None] = ...,
        bits: Union[int, Tuple[int, int], None] = ...,
        name: Optional[str] = ...,
        pad_value: Optional[float] = ...,
        add: Union[Literal["sum", "max", "min"], _Function] = ...,
        identity: Optional[float] = ...,
    ) -> Op: ...
    def explain(self, dtype: str = ..., device: Any = ...) -> str: ...

_Op = Union[_Name, Op, _Function]
# Of the op, by name.
_Params = Mapping[str, Any]

def unfold(
    input: _T,
    kernel_size: _Size,
    dilation: _Size = ...,
    padding: _Sides = ...,
    stride: _Size = ...,
    out: Optional[_T] = ...,
) -> _T: ...
def fold(
    input: _T,
    output_size: _Size,
    kernel_size: _Size,
    dilation: _Size = ...,
    padding: _Sides = ...,
    stride: _Size = ...,
    out: Optional[_T] = ...,
) -> _T: ...
def unfold_transpose(
    input: _T,
    kernel_size: _Size,
    dilation: _Size = ...,
    padding: _Size = ...,
    stride: _Size = ...,
    output_padding: _Size = ...,
) -> _T: ...
def conv2d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = ...,
    stride: _Size = ...,
    padding: _Padding = ...,
    dilation: _Size = ...,
    groups: int = ...,
    op: _Op = ...,
    params: Optional[_Params] = ...,
) -> _T: ...

conv1d = conv2d
conv3d = conv2d

def conv_transpose2d(
    input: _T,
    weight: _T,
    bias: Optional[_T] = ...,
    stride: _Size = ...,
    padding: _Size = ...,
    output_padding: _Size = ...,
    groups: int = ...,
    dilation: _Size = ...,
    op: _Op = ...,
    params: Optional[_Params] = ...,
) -> _T: ...

conv_transpose1d = conv_transpose2d
conv_transpose3d = conv_transpose2d

def conv_matrix(
    weight: _T,
    input_size: _Size,
    stride: _Size = ...,
    padding: _Padding = ...,
    dilation: _Size = ...,
    groups: int = ...,
    dense: bool = ...,
) -> _T: ...
def linear(input: _T, weight: _T, bias: Optional[_T] = ..., op: _Op = ..., params: Optional[_Params] = ...) -> _T: ...
def matmul(a: _T, b: _T, op: _Op = ..., params: Optional[_Params] = ...) -> _T: ...

class SlowPathWarning(RuntimeWarning): ...

class use_backend:
    def __init__(self, name: _Backend) -> None: ...
    def __enter__(self) -> use_backend: ...
    def __exit__(self, *args: Any) -> None: ...

def backend(x: Any = ...) -> str: ...
def available_backends() -> Tuple[str, ...]: ...

class Unfold(torch.nn.Module):
    kernel_size: _Size
    dilation: _Size
    padding: _Sides
    stride: _Size
    def __init__(
        self, kernel_size: _Size, dilation: _Size = ..., padding: _Sides = ..., stride: _Size = ...
    ) -> None: ...
    def forward(self, input: torch.Tensor) -> torch.Tensor: ...

class Fold(torch.nn.Module):
    output_size: _Size
    kernel_size: _Size
    dilation: _Size
    padding: _Sides
    stride: _Size
    def __init__(
        self, output_size: _Size, kernel_size: _Size, dilation: _Size = ..., padding: _Sides = ..., stride: _Size = ...
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
        stride: _Size = ...,
        padding: _Padding = ...,
        dilation: _Size = ...,
        groups: int = ...,
        bias: bool = ...,
        padding_mode: _PaddingMode = ...,
        device: Any = ...,
        dtype: Any = ...,
        op: _Op = ...,
        params: Optional[_Params] = ...,
    ) -> None: ...

class Conv1d(_Conv, torch.nn.Conv1d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv1d, op: _Op, params: Optional[_Params] = ...) -> Conv1d: ...

class Conv2d(_Conv, torch.nn.Conv2d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv2d, op: _Op, params: Optional[_Params] = ...) -> Conv2d: ...

class Conv3d(_Conv, torch.nn.Conv3d):
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv3d, op: _Op, params: Optional[_Params] = ...) -> Conv3d: ...

class _ConvTranspose:
    op: Op
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = ...,
        padding: _Size = ...,
        output_padding: _Size = ...,
        groups: int = ...,
        bias: bool = ...,
        dilation: _Size = ...,
        padding_mode: Literal["zeros"] = ...,
        device: Any = ...,
        dtype: Any = ...,
        op: _Op = ...,
        params: Optional[_Params] = ...,
    ) -> None: ...

class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    @classmethod
    def from_conv(cls, conv: torch.nn.ConvTranspose1d, op: _Op, params: Optional[_Params] = ...) -> ConvTranspose1d: ...

class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    @classmethod
    def from_conv(cls, conv: torch.nn.ConvTranspose2d, op: _Op, params: Optional[_Params] = ...) -> ConvTranspose2d: ...

class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    @classmethod
    def from_conv(cls, conv: torch.nn.ConvTranspose3d, op: _Op, params: Optional[_Params] = ...) -> ConvTranspose3d: ...

class Linear(torch.nn.Linear):
    op: Op
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = ...,
        device: Any = ...,
        dtype: Any = ...,
        op: _Op = ...,
        params: Optional[_Params] = ...,
    ) -> None: ...
    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, op: _Op, params: Optional[_Params] = ...) -> Linear: ...

class _Binary:
    alpha: bool
    K: bool

class BinaryConv2d(_Binary, Conv2d):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = ...,
        padding: _Padding = ...,
        dilation: _Size = ...,
        groups: int = ...,
        bias: bool = ...,
        padding_mode: _PaddingMode = ...,
        device: Any = ...,
        dtype: Any = ...,
        alpha: bool = ...,
        K: bool = ...,
    ) -> None: ...
    @classmethod
    def from_conv(cls, conv: torch.nn.Conv2d, alpha: bool = ..., K: bool = ...) -> BinaryConv2d: ...  # type: ignore[override]

class BinaryLinear(_Binary, Linear):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = ...,
        device: Any = ...,
        dtype: Any = ...,
        alpha: bool = ...,
        K: bool = ...,
    ) -> None: ...
    @classmethod
    def from_linear(cls, linear: torch.nn.Linear, alpha: bool = ..., K: bool = ...) -> BinaryLinear: ...  # type: ignore[override]

class _Quantized:
    qconfig: Any
    narrow_range: bool
    input_scale: torch.Tensor
    input_zero_point: torch.Tensor
    def start_calibration(self, name: str = ...) -> None: ...
    def finish_calibration(self) -> None: ...

class QuantConv2d(_Quantized, Conv2d):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _Size,
        stride: _Size = ...,
        padding: _Padding = ...,
        dilation: _Size = ...,
        groups: int = ...,
        bias: bool = ...,
        padding_mode: _PaddingMode = ...,
        device: Any = ...,
        dtype: Any = ...,
        op: Optional[Op] = ...,
        qconfig: Any = ...,
        narrow_range: bool = ...,
    ) -> None: ...
    @classmethod
    def from_conv(  # type: ignore[override]
        cls, conv: torch.nn.Conv2d, op: Optional[Op] = ..., qconfig: Any = ..., narrow_range: bool = ...
    ) -> QuantConv2d: ...

class QuantLinear(_Quantized, Linear):
    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = ...,
        device: Any = ...,
        dtype: Any = ...,
        op: Optional[Op] = ...,
        qconfig: Any = ...,
        narrow_range: bool = ...,
    ) -> None: ...
    @classmethod
    def from_linear(  # type: ignore[override]
        cls, linear: torch.nn.Linear, op: Optional[Op] = ..., qconfig: Any = ..., narrow_range: bool = ...
    ) -> QuantLinear: ...

_Layers = Union[type, str, Iterable[Union[type, str]], Callable[[str, torch.nn.Module], bool]]

def convert(
    model: torch.nn.Module,
    op: _Op,
    calibrate: Optional[Iterable[Any]] = ...,
    layers: Optional[_Layers] = ...,
    qconfig: Any = ...,
    params: Union[_Params, Callable[[str, torch.nn.Module], _Params], None] = ...,
    narrow_range: Optional[bool] = ...,
) -> torch.nn.Module: ...

__version__: str
