"""Public unfold and fold."""

from im2col_compat import backends, features
from im2col_compat.geometry import fold_geometry, unfold_geometry


def unfold(input, kernel_size, dilation=1, padding=0, stride=1):
    """Sliding blocks of images as columns (im2col): F.unfold of the latest PyTorch, on any.

    input: (N, C, H, W) or (C, H, W), a torch tensor of any version (0.3: a Variable
    or a raw tensor) or a NumPy array, of any float, complex, integer or bool dtype.
    kernel_size, dilation, padding, stride: an int or a pair (vertical, horizontal).

    Returns (N, C * kh * kw, L) or (C * kh * kw, L), of input's kind and dtype, new and
    contiguous, L the number of blocks, row by row. Padding is zeros. Differentiable to
    any order.

    Raises what F.unfold raises: TypeError for arguments of a wrong type, RuntimeError
    for sizes that don't fit or don't fit in memory, IndexError for an input of too few
    dimensions. RuntimeError where the forced engine can't serve the input.
    """
    if _records_native():
        return features.torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride)
    arrays, (x,), leave = features.enter("unfold", [("input", input)])
    geometry = unfold_geometry(x.shape, kernel_size, dilation, padding, stride)
    return leave(_run(arrays, x, len(x.shape) == 3, geometry.columns_shape, "unfold", geometry))


def fold(input, output_size, kernel_size, dilation=1, padding=0, stride=1):
    """Columns added up into images (col2im), unfold's adjoint: F.fold of the latest PyTorch, on any.

    input: (N, C * kh * kw, L) or (C * kh * kw, L), of a kind and dtype as for unfold.
    output_size: (H, W) or one int for both; the others as for unfold.

    Returns (N, C, H, W) or (C, H, W), of input's kind and dtype. Pixels that no block
    covers are zero; integers wrap, bool is a logical or. float16 and bfloat16 are
    accumulated in float32 by the engines "ffi" and "slices"; "torch" does what the
    installed PyTorch does (on a CPU it sums in the narrow type). Differentiable to any
    order.

    Raises what F.fold raises: TypeError for arguments of a wrong type, RuntimeError for
    sizes that don't fit together or don't fit in memory. RuntimeError where the forced
    engine can't serve the input.
    """
    if _records_native():
        return features.torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride)
    arrays, (x,), leave = features.enter("fold", [("input", input)])
    geometry = fold_geometry(x.shape, output_size, kernel_size, dilation, padding, stride)
    return leave(_run(arrays, x, len(x.shape) == 2, geometry.image_shape, "fold", geometry))


def _records_native():
    return features.UNFOLD_IS_CURRENT and features.capturing() and backends.forced() in (None, "torch")


def _run(arrays, x, unbatched, shape, function, geometry):
    engine = backends.choose(arrays, x)
    if arrays.device(x) == "cpu":
        features.check_memory(shape, features.ITEMSIZE.get(arrays.dtype(x), 1))
    result = getattr(engine, function)(x[None] if unbatched else x, geometry)
    return arrays.reshape(result, shape[1:]) if unbatched else result
