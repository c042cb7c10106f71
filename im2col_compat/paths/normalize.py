"""AdderNet's adaptive learning rate: the weight's gradient, scaled (arXiv 1912.13200, section 3.3)."""

from im2col_compat.compat import autograd
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import Function


def with_normalized_gradient(w, eta):
    """The weight itself; its gradient g becomes eta * sqrt(number of elements) / |g| * g."""
    return _Normalized.apply(w, eta)


@autograd.new_style
class _Normalized(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(w, eta):
        return w.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.eta = inputs[1]

    @staticmethod
    def jvp(ctx, *tangents):
        raise RuntimeError("normalize_grad_w={} scales a finished gradient, and forward mode has none".format(ctx.eta))

    @staticmethod
    def backward(ctx, grad):
        arrays, dtype = TORCH, TORCH.dtype(grad)
        wide = arrays.cast(grad, arrays.sum_dtype(dtype))
        return arrays.cast(wide * (ctx.eta * grad.numel() ** 0.5 / wide.norm().clamp(min=1e-12)), dtype), None
