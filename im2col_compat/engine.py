"""What an engine is: im2col and col2im on plain data, and the autograd that makes them unfold and fold.

Each is linear and the other's adjoint, so each one's backward is the other, to any order.
"""

from im2col_compat import features


class Engine(object):
    """Computes columns. Subclasses give `name`, `refuses`, `im2col` and `col2im`.

    `refuses(arrays, x)` is None, or says why the engine can't serve an image or columns like x.
    `im2col(image, geometry)` and `col2im(columns, geometry)` take and return plain data.
    """

    def unfold(self, image, geometry):
        """Columns (N, C * kernel product, L) of an image (N, C, H, W)."""
        if features.NUMPY.owns(image):
            return self.im2col(image, geometry)
        return _Unfold.apply(image, geometry, self)

    def fold(self, columns, geometry):
        """The image (N, C, H, W) that columns (N, C * kernel product, L) add up to."""
        if features.NUMPY.owns(columns):
            return self.col2im(columns, geometry)
        return _Fold.apply(columns, geometry, self)


def _batched(tensor, dimension):
    """vmap's dimension merged into the batch, and how to part them again."""
    tensor = tensor.movedim(dimension, 0)
    size = tensor.shape[0]
    return tensor.flatten(0, 1), lambda result: result.unflatten(0, (size, -1))


@features.new_style
class _Unfold(features.Function):
    @staticmethod
    def forward(image, geometry, engine):
        return engine.im2col(image, geometry)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.geometry, ctx.engine = inputs

    @staticmethod
    def backward(ctx, grad):
        return _Fold.apply(grad, ctx.geometry, ctx.engine), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Unfold.apply(tangent, ctx.geometry, ctx.engine)

    @staticmethod
    def vmap(info, in_dims, image, geometry, engine):
        merged, part = _batched(image, in_dims[0])
        return part(_Unfold.apply(merged, geometry._replace(batch=merged.shape[0]), engine)), 0


@features.new_style
class _Fold(features.Function):
    @staticmethod
    def forward(columns, geometry, engine):
        return engine.col2im(columns, geometry)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.geometry, ctx.engine = inputs

    @staticmethod
    def backward(ctx, grad):
        return _Unfold.apply(grad, ctx.geometry, ctx.engine), None, None

    @staticmethod
    def jvp(ctx, tangent, *_):
        return _Fold.apply(tangent, ctx.geometry, ctx.engine)

    @staticmethod
    def vmap(info, in_dims, columns, geometry, engine):
        merged, part = _batched(columns, in_dims[0])
        return part(_Fold.apply(merged, geometry._replace(batch=merged.shape[0]), engine)), 0
