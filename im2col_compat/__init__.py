"""Convolution with your own dot product, on any PyTorch from 0.3 to today."""

from im2col_compat import ops
from im2col_compat.binary import BinaryConv2d, BinaryLinear
from im2col_compat.columns import fold, unfold, unfold_transpose
from im2col_compat.compat.warn import SlowPathWarning
from im2col_compat.conv import conv1d, conv2d, conv3d, linear, matmul
from im2col_compat.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from im2col_compat.conversion import convert
from im2col_compat.engines.choose import available_backends, backend, use_backend
from im2col_compat.modules import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Fold,
    Linear,
    Unfold,
)
from im2col_compat.op import Op
from im2col_compat.quantized import QuantConv2d, QuantLinear
from im2col_compat.unrolled import conv_matrix

__version__ = "1.0.0"
__all__ = [
    "BinaryConv2d", "BinaryLinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "Fold", "Linear", "Op", "QuantConv2d", "QuantLinear", "SlowPathWarning", "Unfold", "available_backends", "backend",
    "conv1d", "conv2d", "conv3d", "conv_matrix", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convert",
    "fold", "linear", "matmul", "ops", "unfold", "unfold_transpose", "use_backend"]  # fmt: skip
