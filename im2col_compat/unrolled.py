"""conv_matrix: a convolution as one matrix, which multiplies the flattened image."""

import numpy as np

from im2col_compat.compat import dtypes, memory
from im2col_compat.compat.arrays import NUMPY, enter
from im2col_compat.compat.probes import VARIABLES
from im2col_compat.engines.slices import Slices
from im2col_compat.problem import Geometry, conv_problem, integers, product


def conv_matrix(weight, input_size, stride=1, padding=0, dilation=1, groups=1, dense=False):
    """The matrix M for which M @ x.flatten() is F.conv2d(x, weight, None, stride, padding, dilation, groups).flatten().

    weight: (O, C / groups, kernel height, kernel width), a torch tensor or a NumPy array. With one or three spatial
        dimensions M is the matrix of F.conv1d or F.conv3d.
    input_size: the shape of x, (H, W), (C, H, W) or (N, C, H, W). C follows from weight if it isn't given.
    stride, padding, dilation, groups: as for conv2d.
    dense: False for a sparse matrix. NumPy arrays and PyTorch 0.3 have none, and need True.

    Returns M, (elements of the output, elements of the input), of weight's dtype. A sparse M is a coalesced COO tensor
    with one value for each multiplication of the convolution. M is differentiable with respect to weight, to any order.
    Its transpose is the transposed convolution.

    Raises
    TypeError: for arguments of a wrong type.
    RuntimeError: for sizes that don't fit together or in memory, and where a sparse matrix can't be had.
    """
    arrays, (w,), leave = enter("conv_matrix", ("weight",), (weight,))
    dims, shape = len(w.shape) - 2, tuple(w.shape)
    if arrays.dtype(w) not in dtypes.ITEMSIZE:
        message = "conv_matrix(): weight must be of floats, complex numbers, integers or bools, but its dtype is {}"
        raise TypeError(message.format(arrays.dtype(w)))
    if dims not in (1, 2, 3):
        raise RuntimeError("conv_matrix(): weight must have 3, 4 or 5 dimensions, but got shape {}".format(shape))
    if not dense and (arrays is NUMPY or VARIABLES):
        raise RuntimeError("conv_matrix(): {} have no sparse matrix here: use dense=True".format(arrays.name))
    sizes = integers("conv_matrix", "input_size", input_size)
    sizes = sizes if isinstance(sizes, tuple) else (sizes,) * dims
    if len(sizes) == dims:
        (groups,) = integers("conv_matrix", "groups", (groups,))
        sizes = (int(shape[1]) * groups,) + sizes
    problem = conv_problem(dims, sizes, shape, None, stride, padding, dilation, groups)
    size = product(problem.result_shape), product(problem.x_shape)
    count, itemsize = product(problem.padded_columns.columns_shape) * problem.filters, dtypes.ITEMSIZE[arrays.dtype(w)]
    memory.check_memory((count,), 4 * 8 + itemsize)
    if dense:
        memory.check_memory(size, itemsize)
    rows, columns, taps = _entries(problem)
    values = arrays.take(arrays.reshape(w, (-1,)), taps, 0)
    make = arrays.dense_matrix if dense else arrays.sparse_matrix
    return leave(make(rows, columns, values, size))


def _entries(problem):
    """Row, column and index of the weight of each entry, ordered by row and then column, as int64 arrays."""
    image, groups, channels, filters = problem.image, problem.groups, problem.channels, problem.groups * problem.filters
    taps, length, pixels = product(problem.kernel), product(problem.blocks), product(image)
    geometry = Geometry(1, 1, image, problem.kernel, problem.dilation, problem.pads, problem.stride, problem.blocks)
    # Which pixel each tap of each block is; -1 in the padding, which im2col fills with zeros.
    numbers = np.arange(1, pixels + 1, dtype=np.int64).reshape((1, 1) + image)
    pixel = Slices().im2col(numbers, geometry)[0] - 1
    # The ordered entries of one filter, then those of all filters and images.
    block, channel, tap = np.nonzero(np.broadcast_to(pixel.T[:, None] >= 0, (length, channels, taps)))
    n, o = np.arange(problem.batch).reshape(-1, 1, 1), np.arange(filters).reshape(-1, 1)
    row = (n * filters + o) * length + block
    column = ((n * groups + o // problem.filters) * channels + channel) * pixels + pixel[tap, block]
    weight = np.broadcast_to((o * channels + channel) * taps + tap, row.shape)
    return row.ravel(), column.ravel(), weight.ravel()
