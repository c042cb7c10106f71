"""The kinds of terms. An op's term is of the first kind that takes its `multiply`."""

from im2col_compat.terms.c_text import CTerm
from im2col_compat.terms.function import ByArrays, Function
from im2col_compat.terms.signs import Signs
from im2col_compat.terms.table import Lookup

KINDS = (CTerm, Lookup, Signs, ByArrays, Function)


def of(multiply, grad_w, grad_x, grad_params=None):
    """The term of Op's arguments."""
    return next(kind for kind in KINDS if kind.takes(multiply))(multiply, grad_w, grad_x, grad_params)
