"""C kernels of one op, dtype and instruction set: their record, and those that are compiled on demand.

IM2COL_COMPAT_ISA names the best instruction set to be used: "baseline", "avx2" or "avx512"; by default, the best that
the machine has.
"""

import os
from collections import namedtuple

from im2col_compat import lowlevel
from im2col_compat.codegen import compile, template
from im2col_compat.codegen.template import Part
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


_FIELDS = "address dtype result_dtype origin texts pack divided_by_zero traced partials product part others small forward"


class Kernels(namedtuple("Kernels", _FIELDS)):
    """C kernels for a term and a reduction.

    address: of the struct dot_kernels that takes the operands as they are; None where only packed ones are taken, or
        where there are no gradients
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
    part: None, or a function of a template.Part that gives its address, of which `address` is the forward call's for
        panels: compiled when it is first asked for; 0 where that fails
    others: None, or a function ({name: (least, greatest) value} of operands) that gives None, or the Kernels for these
    small: None, or for one problem, a small one, what lowlevel.forward() takes
    forward: None, or the address of the struct for the forward call, where that isn't the gradients'
    """

    __slots__ = ()

    def __new__(
        cls, address, dtype, result_dtype, origin, texts, pack, divided_by_zero, traced=None, partials=(), product=None,
        part=None, others=None, small=None, forward=None,
    ):  # fmt: skip
        return super(Kernels, cls).__new__(
            cls, address, dtype, result_dtype, origin, texts, pack, divided_by_zero, traced, partials, product, part,
            others, small, forward,
        )  # fmt: skip

    captured = property(lambda self: () if self.traced is None else self.traced.captured)
    has_gradients = property(lambda self: self.address is not None and (self.texts is None or self.texts.gradients))

    def address_for(self, call, layout):
        """The address of the struct for one of dot.h's calls on operands of a layout. RuntimeError where that can't be
        compiled."""
        if self.forward and call == lowlevel.FORWARD:
            return self.forward
        address = self.address if self.part is None else self._part_for(call, layout)
        if not address:
            raise RuntimeError("{} can't be compiled here any more".format(self.part.what))
        return address

    def serves(self, call, layout):
        """Whether there is such an address."""
        return self.part is None or bool(self._part_for(call, layout))

    def _part_for(self, call, layout):
        gradients, direct = call != lowlevel.FORWARD, lowlevel.prefers_direct(call, layout) and not self.texts.divides
        return direct and self.part(Part(gradients, True)) or self.part(Part(gradients, False))

    itemsize = property(lambda self: dtypes.ITEMSIZE[self.dtype])
    result_itemsize = property(lambda self: dtypes.ITEMSIZE[self.result_dtype])


#: Operands that were packed for a forward: the layout that they were packed for, the address of its kernels, bytes an
#: element, the operands' addresses, elements of the result before the part that they give, and what must live as long as
#: they are used.
class Packed(namedtuple("Packed", "layout address itemsize w x start kept")):
    __slots__ = ()

    def address_for(self, call, layout):
        return self.address


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
        address, divided_by_zero, reason, lower_may_do = _part(texts, dtype, lower, what, Part(False, False))
        if address:
            origin = "compiled, " + LEVELS[lower]
            result_dtype = texts.reduction.result_dtype(dtype)
            part = _Parts(texts, dtype, lower, what)
            return Kernels(address, dtype, result_dtype, origin, texts, None, divided_by_zero, part=part), None
        reasons.append(reason)
        if not lower_may_do:
            break
    return None, reasons[0]


class _Parts(object):
    """The addresses of the parts of an op's kernels, for an instruction set; 0 for what can't be compiled."""

    def __init__(self, texts, dtype, level, what):
        self.arguments, self.addresses, self.what = (texts, dtype, level, what), {}, what

    def __call__(self, part):
        if part not in self.addresses:
            self.addresses[part] = _part(*self.arguments + (part,))[0]
        return self.addresses[part]


def _part(texts, dtype, level, what, part):
    """What _load() returns of one part."""
    source, flags = template.source(texts, dtype, level, part), template.flags(level)
    return _libraries.get(source, lambda: _load(source, flags, ("gradients of " if part.gradients else "") + what))


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
