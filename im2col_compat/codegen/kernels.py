"""C kernels of one op, dtype and instruction set: their record, and those that are compiled on demand.

IM2COL_COMPAT_ISA names the best instruction set to be used: "baseline", "avx2" or "avx512"; by default, the best that
the machine has.
"""

import os
from collections import namedtuple

from im2col_compat import lowlevel
from im2col_compat.codegen import compile, template
from im2col_compat.compat import dtypes
from im2col_compat.compat.memo import Memo

VARIABLE = "IM2COL_COMPAT_ISA"
LEVELS = ("baseline", "avx2", "avx512")

# What os.environ keeps: to look there takes no errors raised and caught for a name that isn't there, as at each call.
_environment = getattr(os.environ, "_data", os.environ)
_KEY = os.environ.encodekey(VARIABLE) if hasattr(os.environ, "encodekey") else VARIABLE

#: source: (address, what counts divisions by zero or None, why there is no library, whether a lower level may do)
_libraries = Memo(1000)


def level():
    """The instruction set in use, as an index into LEVELS. ValueError if the environment names an unknown one."""
    name = _environment.get(_KEY)
    if not name:
        return lowlevel.level()
    name = os.environ[VARIABLE]
    if name not in LEVELS:
        raise ValueError("{} must be one of {}, but got {!r}".format(VARIABLE, LEVELS, name))
    return min(lowlevel.level(), LEVELS.index(name))


_FIELDS = "address dtype result_dtype origin texts pack divided_by_zero traced partials product others"


class Kernels(namedtuple("Kernels", _FIELDS)):
    """C kernels for a term and a reduction, complete: nothing is filled in later.

    address: of the struct dot_kernels that takes the operands as they are; None where only packed ones are taken
    dtype, result_dtype: of the operands and the result
    origin: where the kernels come from, in words
    texts: the op's functions in C (template.Texts), None where they are built in
    divided_by_zero: None, or a function that tells how often integers were divided by zero
    pack: None, or a function (layout, arrays, w, x) of operands that lie as the layout says: what a forward takes
        instead, a Packed for each part of the result
    partials: pairs of factors of the partial derivatives by x, by w and by parameters, None where one isn't a product,
        and of other ops ()
    traced: None, or as of this call the op's expressions with the numbers, and tensors of one element, that it captures
    product: None, or the op's expressions where its terms are products: PyTorch sums these, and kernels give gradients
    others: None, or a function ({name: (least, greatest) value} of operands) that gives None, or the Kernels for these
    """

    __slots__ = ()

    def __new__(
        cls, address, dtype, result_dtype, origin, texts, pack, divided_by_zero, traced=None, partials=(), product=None,
        others=None,
    ):  # fmt: skip
        parts = address, dtype, result_dtype, origin, texts, pack, divided_by_zero, traced, partials, product, others
        return super(Kernels, cls).__new__(cls, *parts)

    captured = property(lambda self: () if self.traced is None else self.traced.captured)
    has_gradients = property(lambda self: self.address is not None and (self.texts is None or self.texts.gradients))
    itemsize = property(lambda self: dtypes.ITEMSIZE[self.dtype])
    result_itemsize = property(lambda self: dtypes.ITEMSIZE[self.result_dtype])


#: Operands that were packed for a forward: the layout that they were packed for, the address of its kernels, bytes an
#: element, the operands' addresses, elements of the result before the part that they give, and what must live as long as
#: they are used.
Packed = namedtuple("Packed", "layout address itemsize w x start kept")


def unfit(op, dtype):
    """Why there can be no arithmetic in C for an op on a dtype; None where there can."""
    if dtype not in dtypes.C_TYPES:
        return "there are no C kernels for {}".format(dtype)
    # An infinite pad value of integers means that padding is left out.
    pad_fits = op.pad_value in (float("inf"), -float("inf")) or dtypes.holds(dtype, op.pad_value)
    if not (pad_fits and dtypes.holds("int64" if dtypes.is_integer(dtype) else dtype, op.identity)):
        return "its pad_value or identity isn't a {}".format(dtype)
    return None


def compiled(texts, dtype, best, what):
    """(Kernels, None) of an op's texts, for the instruction set `best` or one below it; or (None, reason)."""
    reason = template.unsupported(texts)
    if reason is not None:
        return None, reason
    reasons = []
    for lower in range(best, -1, -1):
        source = template.source(texts, dtype, lower)
        flags = template.flags(lower)
        address, divided_by_zero, reason, lower_may_do = _libraries.get(source, lambda: _load(source, flags, what))
        if address:
            origin = "compiled, " + LEVELS[lower]
            result_dtype = texts.reduction.result_dtype(dtype)
            return Kernels(address, dtype, result_dtype, origin, texts, None, divided_by_zero), None
        reasons.append(reason)
        if not lower_may_do:
            break
    return None, reasons[0]


def _load(source, flags, what):
    import ctypes  # takes long, and only compiled kernels need it

    def opened():
        return ctypes.CDLL(compile.library(source, flags, what, "kernels"))

    try:
        try:
            library = opened()
        except OSError:
            # Another process may just have removed it, as the oldest of many. If so, it is compiled again.
            library = opened()
    except compile.OtherFlags as error:
        return 0, None, str(error), True
    except (compile.CannotCompile, OSError) as error:
        return 0, None, str(error), False
    entry = getattr(library, template.ENTRY)
    entry.restype = ctypes.c_void_p
    return entry(), getattr(library, template.DIVIDED_BY_ZERO, None), None, False
