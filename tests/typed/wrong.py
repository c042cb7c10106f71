"""Uses that mypy must refuse: each line that ends in the code of an error, and no other."""

import numpy as np
import torch
from torch import nn

from im2col_compat import (
    BinaryConv2d,
    Conv2d,
    Linear,
    Op,
    QuantConv2d,
    conv2d,
    convert,
    linear,
    matmul,
    ops,
    unfold,
    use_backend,
)
from im2col_compat.drawing import draw

x, w = torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3)
array = np.random.rand(2, 3, 8, 8)

conv2d(x, array)  # error: type-var
conv2d(x, w, op="xnorr")  # error: arg-type
conv2d(x, w, ops="xnor")  # error: call-arg
conv2d(x, w, padding="full")  # error: arg-type
conv2d(x, w, groups="2")  # error: arg-type
conv2d(x, w, params=[1])  # error: arg-type
conv2d(x)  # error: call-arg
unfold(x, "3")  # error: arg-type
unfold(x, 3, padding="same")  # error: arg-type
y: int = conv2d(x, w)  # error: assignment
z: torch.Tensor = matmul(array, array)  # error: assignment
linear(x, w, "l1")  # error: type-var
Op("w * x")  # error: arg-type
Op(torch.min, "mean")  # error: arg-type
Op(torch.min, identity="0")  # error: arg-type
Op.from_c(torch.min)  # error: arg-type
Op.from_table(array, add="prod")  # error: arg-type
ops.l3  # error: attr-defined
ops.l1.explain(torch.float32)  # error: arg-type
Conv2d(3, 4)  # error: call-arg
Conv2d(3, 4, 3, padding_mode="mirror")  # error: arg-type
Conv2d(3, 4, 3, alpha=True)  # error: call-arg
Conv2d.from_conv(nn.Linear(3, 4), "l1")  # error: arg-type
Linear.from_linear(nn.Linear(3, 4))  # error: call-arg
BinaryConv2d(3, 4, 3, op="l1")  # error: call-arg
QuantConv2d(3, 4, 3, op="l1")  # error: arg-type
convert(x, "l1")  # error: arg-type
use_backend("cuda")  # error: arg-type
draw("5", 3)  # error: arg-type
