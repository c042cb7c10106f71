"""What an engine is: im2col and col2im on plain data, and what makes them unfold and fold.

Each is linear and the other's adjoint, so each one's backward is the other, to any order.
"""

from im2col_compat.compat import autograd
from im2col_compat.compat.arrays import arrays_of
from im2col_compat.compat.probes import Function
from im2col_compat.problem import product


class Engine(object):
    """Computes columns. Subclasses give `name`, `dims`, `refuses`, `im2col` and `col2im`.

    `dims` is the most spatial dimensions that im2col and col2im take; more are done in parts.
    `refuses(arrays, x)` is None, or says why the engine can't serve an image or columns like x.
    `im2col(image, geometry)` and `col2im(columns, geometry)` take and return plain data.
    """

    dims = 2

    def unfold(self, image, geometry):
        """Columns (N, C * kernel product, L) of an image (N, C, ...)."""
        if geometry.dims > self.dims:
            return _unfold_in_parts(self, image, geometry)
        return self._recorded("unfold", self.im2col, image, geometry)

    def fold(self, columns, geometry):
        """The image (N, C, ...) that columns (N, C * kernel product, L) add up to."""
        if geometry.dims > self.dims:
            return _fold_in_parts(self, columns, geometry)
        return self._recorded("fold", self.col2im, columns, geometry)

    def _recorded(self, function, compute, x, geometry):
        if not autograd.by_function(x):
            return compute(x, geometry)
        return autograd.apply_function(_Columns, (x,), geometry, self, function)

    def write(self, function, x, geometry, out):
        """The result of "unfold" or "fold" into out: of the same number of elements, and otherwise any."""
        arrays = arrays_of(out)
        arrays.assign(out, arrays.reshape(getattr(self, function)(x, geometry), tuple(out.shape)))


# ---------------------------------------------------------------- more dimensions than an engine has
def _parts(engine, geometry):
    """The geometry of the last dimensions, to which the others are channels; that of the others, to which each
    pair of a position in the last's kernel and a block of theirs is a pixel of one dimension more; and the shape
    that the second's columns have: (N, C, kernel and blocks of the others, kernel and blocks of the last).
    """
    first = geometry.dims - engine.dims
    outer, inner = [[sizes[:first] for sizes in geometry[2:]], [sizes[first:] for sizes in geometry[2:]]]
    last = type(geometry)(geometry.batch, geometry.channels * product(geometry.image[:first]), *inner)
    pixels = product(last.kernel) * product(last.blocks)
    one = [(pixels,), (1,), (1,), ((0, 0),), (1,), (pixels,)]
    others = type(geometry)(geometry.batch, geometry.channels, *[a + b for a, b in zip(outer, one)])
    shape = tuple(product(sizes) for sizes in (outer[1], outer[5], inner[1], inner[5]))
    return last, others, (geometry.batch, geometry.channels) + shape


def _unfold_in_parts(engine, image, geometry):
    arrays = arrays_of(image)
    last, others, shape = _parts(engine, geometry)
    columns = engine.unfold(arrays.reshape(image, last.image_shape), last)
    columns = engine.unfold(arrays.reshape(columns, others.image_shape), others)
    columns = arrays.permute(arrays.reshape(columns, shape), (0, 1, 2, 4, 3, 5))
    return arrays.reshape(columns, geometry.columns_shape)


def _fold_in_parts(engine, columns, geometry):
    arrays = arrays_of(columns)
    last, others, shape = _parts(engine, geometry)
    columns = arrays.reshape(columns, tuple(shape[i] for i in (0, 1, 2, 4, 3, 5)))
    columns = arrays.reshape(arrays.permute(columns, (0, 1, 2, 4, 3, 5)), others.columns_shape)
    columns = engine.fold(columns, others)
    return arrays.reshape(engine.fold(arrays.reshape(columns, last.columns_shape), last), geometry.image_shape)


# ---------------------------------------------------------------- gradients
def _batched(tensor, dimension):
    """vmap's dimension merged into the batch, and how to part them again."""
    tensor = tensor.movedim(dimension, 0)
    size = tensor.shape[0]
    return tensor.flatten(0, 1), lambda result: result.unflatten(0, (size, -1))


_PLAIN = {"unfold": "im2col", "fold": "col2im"}
_ADJOINT = {"unfold": "fold", "fold": "unfold"}


@autograd.new_style
class _Columns(Function):
    """An engine's unfold or fold."""

    @staticmethod
    def forward(x, geometry, engine, function):
        return getattr(engine, _PLAIN[function])(x, geometry)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.others = inputs[1:]

    @staticmethod
    def backward(ctx, grad):
        geometry, engine, function = ctx.others
        return getattr(engine, _ADJOINT[function])(grad, geometry), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        geometry, engine, function = ctx.others
        return getattr(engine, function)(tangent, geometry)

    @staticmethod
    def vmap(info, in_dims, x, geometry, engine, function):
        merged, part = _batched(x, in_dims[0])
        return part(getattr(engine, function)(merged, geometry._replace(batch=merged.shape[0]))), 0
