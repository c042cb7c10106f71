"""The path of "dot": PyTorch's own convolutions, linear and matmul, and NumPy's matmul."""

import numpy as np

from im2col_compat.compat import graphs, unfolds
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import VARIABLES, torch
from im2col_compat.problem import conv_pads


def serves(problem, arrays):
    """Whether PyTorch's own convolution computes a problem."""
    # Before 1.2 it has no empty batches.
    return arrays is TORCH and (problem.batch > 0 or unfolds.UNFOLD_IS_CURRENT)


def conv(problem, x, w, b):
    """F.conv1d's, conv2d's or conv3d's result, bias included."""
    unbatched = len(problem.x_shape) == len(problem.image) + 1
    x, padding = x.unsqueeze(0) if unbatched else x, tuple(before for before, _ in problem.pads)
    if any(before != after for before, after in problem.pads):
        x, padding = TORCH.pad(x, problem.pads, 0), 0
    function = getattr(torch.nn.functional, problem.function)
    result = function(x, w, b, problem.stride, padding, problem.dilation, problem.groups)
    return TORCH.reshape(result, tuple(result.shape)[1:]) if unbatched else result


def serves_transposed(problem, arrays):
    """Whether it computes a transposed one."""
    stride, _, output_padding = problem.numbers[:3]
    # There 0.3's gradients are written beyond their memory.
    overflows = VARIABLES and any([more >= step for more, step in zip(output_padding, stride)])
    return serves(problem, arrays) and not overflows


def conv_transpose(problem, x, w, b):
    """F.conv_transpose1d's, 2d's or 3d's result, bias included."""
    unbatched = len(problem.x_shape) == problem.dims + 1
    function = getattr(torch.nn.functional, problem.function)
    result = function(x.unsqueeze(0) if unbatched else x, w, b, *problem.numbers)
    return TORCH.reshape(result, tuple(result.shape)[1:]) if unbatched else result


def recorded(dims, x, w, b, stride, padding, dilation, groups):
    """The same as a graph records it: of what conv1d, conv2d and conv3d take, and with sizes that may be symbols."""
    if type(padding) in (tuple, list) and any(type(sides) in (tuple, list) for sides in padding):
        pads = [tuple(sides) if type(sides) in (tuple, list) else (sides, sides) for sides in padding]
        if len(pads) != dims or any(len(sides) != 2 or type(p) is not int or p < 0 for sides in pads for p in sides):
            pads = conv_pads(dims, graphs.sizes(w), padding, stride, dilation)  # which says what is wrong
        x, padding = TORCH.pad(x, pads, 0), 0
    return getattr(torch.nn.functional, "conv{}d".format(dims))(x, w, b, stride, padding, dilation, groups)


def of_arrays(problem, w, x):
    """linear's or matmul's result for NumPy arrays, without a bias."""
    w, x = (x, w.T) if problem.function == "linear" else (w, x)
    return np.asarray(np.matmul(w, x))
