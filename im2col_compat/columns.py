"""Public unfold and fold."""

from im2col_compat.compat import autograd, dtypes, graphs, unfolds
from im2col_compat.compat.arrays import TORCH, enter
from im2col_compat.compat.probes import torch
from im2col_compat.engines import choose as backends
from im2col_compat.engines import recorded
from im2col_compat.problem import (
    check_unfold_transpose,
    fold_geometry,
    product,
    remembered_spread,
    unfold_geometry,
    unfold_transpose_spread,
)


def unfold(input, kernel_size, dilation=1, padding=0, stride=1, out=None):
    """The columns of images, their sliding blocks (im2col): F.unfold of the latest PyTorch, on any version.

    input: (N, C, H, W) or (C, H, W), or with any other number of spatial dimensions: (N, C, L), (N, C, D, H, W) and so
        on. A torch tensor of any version (0.3: a Variable or a raw tensor) or a NumPy array, of any float, complex,
        integer or bool dtype.
    kernel_size: a tuple with one size for each spatial dimension. Or an int for all of them: 3 where input has 5
        dimensions, else 2. So (N, C, L) needs a tuple (k,).
    dilation, stride: an int or such a tuple.
    padding: the same, and an item may be a pair (before, after). Padding is zeros.
    out: where to write the result, of its shape, dtype and device. Such a call isn't differentiable.

    Returns (N, C * elements of the kernel, L) or without N, of input's kind and dtype: a new one, or out. L is the
    number of blocks, which are ordered row by row. The result is contiguous, and differentiable to any order.

    Raises what F.unfold raises, and
    TypeError: for arguments of a wrong type.
    IndexError: for an input with too few dimensions.
    RuntimeError: for sizes that don't fit together or in memory, for an out that doesn't fit, and for an input that the
        forced engine can't serve.
    ValueError: for an out that is read-only.
    """
    if graphs.overridden(input):
        return graphs.taken_over(unfold, (input,), input, kernel_size, dilation, padding, stride, out)
    if graphs.capturing() and out is None and _is_native(kernel_size, padding, len(input.shape) in (3, 4)):
        return torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride)
    if graphs.capturing() and out is None and unfolds.UNFOLD_IS_CURRENT and backends.forced() is None:
        return recorded.unfold(input, kernel_size, dilation, padding, stride)
    arrays, (x, to), leave = enter("unfold", ("input", "out"), (input, out))
    geometry = unfold_geometry(tuple(x.shape), kernel_size, dilation, padding, stride)
    unbatched = len(x.shape) == geometry.dims + 1
    return leave(_run("unfold", arrays, x, unbatched, geometry, geometry.columns_shape, to))


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1, out=None):
    """Images as sums of columns (col2im), the adjoint of unfold: F.fold of the latest PyTorch, on any version.

    input: (N, C * elements of the kernel, L) or without N, of a kind and dtype as for unfold.
    output_size: (H, W), or a tuple of another length, or an int for all spatial dimensions.
    kernel_size: as for unfold. If it is an int, output_size says how many dimensions there are, and 2 if both are ints.
    dilation, padding, stride, out: as for unfold.

    Returns (N, C, H, W) or without N, of input's kind and dtype: a new one, or out. Pixels that no block covers are 0.
    Integers wrap, sums of bools are a logical or. The engines "ffi" and "slices" sum float16 and bfloat16 in float32;
    "torch" does what the installed PyTorch does (on a CPU it sums in the narrow type). Differentiable to any order.

    Raises what F.fold raises, and
    TypeError: for arguments of a wrong type.
    RuntimeError: for sizes that don't fit together or in memory, for an out that doesn't fit, and for an input that the
        forced engine can't serve.
    ValueError: for an out that is read-only.
    """
    if graphs.overridden(input):
        return graphs.taken_over(fold, (input,), input, output_size, kernel_size, dilation, padding, stride, out)
    if graphs.capturing() and out is None and _is_native(kernel_size, padding, _is_pair(output_size)):
        return torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride)
    if graphs.capturing() and out is None and unfolds.UNFOLD_IS_CURRENT and backends.forced() is None:
        return recorded.fold(input, output_size, kernel_size, dilation, padding, stride)
    arrays, (x, to), leave = enter("fold", ("input", "out"), (input, out))
    geometry = fold_geometry(tuple(x.shape), output_size, kernel_size, dilation, padding, stride)
    return leave(_run("fold", arrays, x, len(x.shape) == 2, geometry, geometry.image_shape, to))


def unfold_transpose(input, kernel_size, dilation=1, padding=0, stride=1, output_padding=0):
    """The columns of a transposed convolution.

    input, kernel_size, dilation, stride: as for unfold.
    padding, output_padding: as for conv_transpose2d.

    Returns (N, C * elements of the kernel, L) or without N, of input's kind and dtype. L is the number of results of
    conv_transpose2d, which are ordered row by row. Row (c, k) of a column is the input that tap k finds there in channel
    c, and 0 where it finds none. So a weight (C, O, *kernel), as a matrix (O, C * elements of the kernel), times the
    columns is the transposed convolution. Differentiable to any order.

    Raises what unfold raises.
    """
    if graphs.overridden(input):
        arguments = input, kernel_size, dilation, padding, stride, output_padding
        return graphs.taken_over(unfold_transpose, (input,), *arguments)
    arrays, (x,), leave = enter("unfold_transpose", ("input",), (input,))
    dims = 3 if len(x.shape) == 5 else 2
    spread_of = unfold_transpose_spread if graphs.capturing() else remembered_spread
    spread = spread_of(dims, kernel_size, dilation, padding, stride, output_padding)
    if not graphs.capturing():
        check_unfold_transpose(tuple(x.shape), spread.kernel, dilation, padding, stride, output_padding)
    columns = unfold(_spread(arrays, x, spread), spread.kernel, spread.dilation, spread.pads)
    shape, taps = tuple(columns.shape), product(spread.kernel)
    if taps > 1:
        apart = arrays.reshape(columns, shape[:-2] + (shape[-2] // taps, taps, shape[-1]))
        columns = arrays.reshape(arrays.flip(apart, [len(shape) - 1]), shape)
    return leave(columns)


def _spread(arrays, x, spread):
    """x with its pixels as far apart as a Spread says, zeros between them, and without what it cuts off."""
    dims = len(spread.kernel)
    leading, image = tuple(x.shape[:-dims]), tuple(x.shape[-dims:])
    if max(spread.stride) > 1:
        x = arrays.reshape(x, leading + sum([(size, 1) for size in image], ()))
        x = arrays.pad(x, sum([[(0, 0), (0, step - 1)] for step in spread.stride], []), 0)
        x = arrays.reshape(x, leading + tuple(size * step for size, step in zip(image, spread.stride)))
    # The last pixel has zeros behind it too.
    cuts = [(before, after + step - 1) for (before, after), step in zip(spread.cuts, spread.stride)]
    if any(map(any, cuts)):
        x = x[(Ellipsis,) + tuple(slice(before, -after if after else None) for before, after in cuts)]
    return x


def _is_native(kernel_size, padding, is_2d):
    """Whether a graph can record F.unfold or F.fold itself instead of the engine."""
    if not unfolds.UNFOLD_IS_CURRENT or backends.forced() not in (None, "torch"):
        return False
    pairs = isinstance(padding, (tuple, list)) and any(isinstance(item, (tuple, list)) for item in padding)
    return is_2d and not pairs and _is_pair(kernel_size)


def _is_pair(size):
    """Whether a size means two dimensions."""
    return not isinstance(size, (tuple, list)) or len(size) == 2


def _run(function, arrays, x, unbatched, geometry, shape, out):
    dtype = arrays.dtype(x)
    if arrays is TORCH and dtype not in dtypes.ITEMSIZE and arrays.is_dense_kind(x):
        if function == "fold" or x.requires_grad:
            raise NotImplementedError("{}(): there is no arithmetic for {}".format(function, dtype))
        # Bytes are moved, whatever they mean: those of a zero are zero in every dtype.
        alike = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        to = out if out is None or out.dtype != x.dtype else out.view(alike)
        result = _run(function, arrays, x.view(alike), unbatched, geometry, shape, to)
        return result.view(x.dtype) if out is None else out
    engine = backends.choose(arrays, x, geometry.dims)
    shape = shape[1:] if unbatched else shape
    if out is not None:
        _check_out(function, arrays, x, out, shape)
    if unbatched:
        x = arrays.unsqueeze(x, 0)
    if out is not None:
        engine.write(function, x, geometry, out)
        return out
    result = getattr(engine, function)(x, geometry)
    return arrays.reshape(result, shape) if unbatched else result


def _check_out(function, arrays, x, out, shape):
    has, expected = [(arrays.dtype(t), arrays.device(t)) for t in (out, x)]
    if tuple(out.shape) != shape or has != expected:
        text = "{}(): out must have shape {}, dtype and device {}, but has {} and {}"
        raise RuntimeError(text.format(function, shape, expected, tuple(out.shape), has))
    if autograd.requires_grad(x) or autograd.requires_grad(out) or graphs.transformed():
        text = "{}(): out can't be given where input or out requires grad, or is transformed"
        raise RuntimeError(text.format(function))
