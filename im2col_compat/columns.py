"""Public unfold and fold."""

from im2col_compat.compat import autograd, graphs, unfolds
from im2col_compat.compat.arrays import enter_one
from im2col_compat.compat.probes import torch
from im2col_compat.engines import choose as backends
from im2col_compat.problem import fold_geometry, unfold_geometry


def unfold(input, kernel_size, dilation=1, padding=0, stride=1, out=None):
    """Sliding blocks of images as columns (im2col): F.unfold of the latest PyTorch, on any, in any number of dimensions.

    input: (N, C, H, W) or (C, H, W), or with any other number of spatial dimensions, (N, C, L), (N, C, D, H, W) and
    so on; a torch tensor of any version (0.3: a Variable or a raw tensor) or a NumPy array, of any float, complex,
    integer or bool dtype.
    kernel_size: a tuple with a size for each spatial dimension, which says how many there are; or an int for all, of
    which there are 3 where input has 5 dimensions, and else 2. So (N, C, L) needs a kernel_size of (k,).
    dilation, stride: an int or such a tuple. padding: the same, in which an item may be a pair (before, after).
    out: where the result is written, of its shape, dtype and device; such calls are not differentiable.

    Returns (N, C * kernel product, L) or (C * kernel product, L), of input's kind and dtype, new (or out) and
    contiguous, L the number of blocks, row by row. Padding is zeros. Differentiable to any order.

    Raises what F.unfold raises: TypeError for arguments of a wrong type, RuntimeError
    for sizes that don't fit or don't fit in memory, or an out that doesn't fit, IndexError for an input of too few
    dimensions. ValueError for an out that is read-only. RuntimeError where the forced engine can't serve the input.
    """
    if graphs.capturing() and out is None and _is_native(kernel_size, padding, len(input.shape) in (3, 4)):
        return torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride)
    arrays, (x, to), leave = enter_one("unfold", input, out)
    geometry = unfold_geometry(tuple(x.shape), kernel_size, dilation, padding, stride)
    unbatched = len(x.shape) == geometry.dims + 1
    return leave(_run("unfold", arrays, x, unbatched, geometry, geometry.columns_shape, to))


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1, out=None):
    """Columns added up into images (col2im), unfold's adjoint: F.fold of the latest PyTorch, on any.

    input: (N, C * kernel product, L) or (C * kernel product, L), of a kind and dtype as for unfold.
    output_size: (H, W) or another number of spatial dimensions; or an int for all. kernel_size: as for unfold; where
    it is an int, output_size says how many spatial dimensions there are, and 2 if it is an int too. The others as
    for unfold.

    Returns (N, C, H, W) or (C, H, W), of input's kind and dtype, new (or out). Pixels that no block
    covers are zero; integers wrap, bool is a logical or. float16 and bfloat16 are
    accumulated in float32 by the engines "ffi" and "slices"; "torch" does what the
    installed PyTorch does (on a CPU it sums in the narrow type). Differentiable to any
    order.

    Raises what F.fold raises: TypeError for arguments of a wrong type, RuntimeError for
    sizes that don't fit together or don't fit in memory, or an out that doesn't fit. RuntimeError where the forced
    engine can't serve the input.
    """
    if graphs.capturing() and out is None and _is_native(kernel_size, padding, _is_pair(output_size)):
        return torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride)
    arrays, (x, to), leave = enter_one("fold", input, out)
    geometry = fold_geometry(tuple(x.shape), output_size, kernel_size, dilation, padding, stride)
    return leave(_run("fold", arrays, x, len(x.shape) == 2, geometry, geometry.image_shape, to))


def _is_native(kernel_size, padding, is_2d):
    """Whether a graph may record F.unfold or F.fold itself."""
    if not unfolds.UNFOLD_IS_CURRENT or backends.forced() not in (None, "torch"):
        return False
    pairs = isinstance(padding, (tuple, list)) and any(isinstance(item, (tuple, list)) for item in padding)
    return is_2d and not pairs and _is_pair(kernel_size)


def _is_pair(size):
    """Whether a size means two dimensions."""
    return not isinstance(size, (tuple, list)) or len(size) == 2


def _run(function, arrays, x, unbatched, geometry, shape, out):
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
        raise RuntimeError(
            "{}(): out must have shape {}, dtype and device {}, but has {} and {}".format(
                function, shape, expected, tuple(out.shape), has
            )
        )
    if autograd.requires_grad(x) or autograd.requires_grad(out) or graphs.transformed():
        raise RuntimeError(
            "{}(): out can't be given where input or out requires grad, or is transformed".format(function)
        )
