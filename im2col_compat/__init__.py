"""Convolution with your own dot product, on any PyTorch from 0.3 to today."""

from im2col_compat import ops
from im2col_compat.backends import available_backends, backend, use_backend
from im2col_compat.columns import fold, unfold
from im2col_compat.conv import conv2d, linear, matmul
from im2col_compat.modules import Conv2d, Fold, Linear, Unfold
from im2col_compat.op import Op

__version__ = "0.3.0"
__all__ = [
    "Conv2d",
    "Fold",
    "Linear",
    "Op",
    "Unfold",
    "available_backends",
    "backend",
    "conv2d",
    "fold",
    "linear",
    "matmul",
    "ops",
    "unfold",
    "use_backend",
]
