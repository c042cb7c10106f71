"""The named dot products: ``ops.l1`` is what ``op="l1"`` means.

Their functions take tensors of any PyTorch, and NumPy arrays. Those that give gradients take tensors.
"""

from im2col_compat.op import NAMED, Op
from im2col_compat.terms import named
from im2col_compat.terms.signs import absolute, cast, sign
from im2col_compat.terms.signs import product_of_signs as _product_of_signs  # pickles of 0.5.0 look for it here


def _named(name, *args, **kwargs):
    op = NAMED[name] = Op(*args, name=name, **kwargs)
    if not op.is_dot:
        named.register(name, op)
    return op


def _product(w, x):
    return w * x


def _distance(w, x):
    return absolute(w - x)


def _minus_distance(w, x):
    return -absolute(w - x)


def _x_minus_w(w, x):
    return x - w


def _clipped_difference(w, x):
    return (w - x).clamp(-1, 1)


def _squared_distance(w, x):
    difference = w - x
    return difference * difference


def _sign_through_w(w, x):
    return cast(absolute(w) <= 1, w) * sign(x)


def _sign_through_x(w, x):
    return cast(absolute(x) <= 1, x) * sign(w)


def _plus(w, x):
    return w + x


#: Sum of w * x, which F.conv2d (where no engine is forced), F.linear and torch.matmul compute.
dot = _named("dot", _product)

#: Sum of |w - x|, with its true gradient.
l1 = _named("l1", _distance)

#: Minus the sum of |w - x|, with the gradients of AdderNet (arXiv 1912.13200, equations 5 and 6).
adder = _named("adder", _minus_distance, grad_w=_x_minus_w, grad_x=_clipped_difference)

#: Sum of (w - x) ** 2.
l2 = _named("l2", _squared_distance)

#: Sum of s(w) * s(x), s(v) being +1 where v >= 0, else -1; of bools, True is +1. Padded taps are left out. Gradients
#: are straight-through, and zero where the operand's absolute value exceeds 1 (XNOR-Net, arXiv 1603.05279).
xnor = _named("xnor", _product_of_signs, pad_value=None, grad_w=_sign_through_w, grad_x=_sign_through_x)

#: Max of w + x: dilation. The gradient goes to the first k that attains it.
max_plus = _named("max_plus", _plus, add="max", pad_value=-float("inf"))

#: Min of w + x: erosion by a mirrored, negated element.
min_plus = _named("min_plus", _plus, add="min", pad_value=float("inf"))
