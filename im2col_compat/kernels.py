"""Which C kernels compute an op on a dtype: built in, compiled on demand, or none, and why.

IM2COL_COMPAT_ISA names the best instruction set to be used: "baseline", "avx2" or
"avx512"; by default, the best that the machine has.
"""

import os
import warnings
import weakref
from collections import namedtuple

from im2col_compat import compiler, features, lowlevel, source, tracing
from im2col_compat.expression import C_TYPES
from im2col_compat.op import NAMED

VARIABLE = "IM2COL_COMPAT_ISA"
LEVELS = ("baseline", "avx2", "avx512")
#: How many sources one function may give: numbers in it that change from call to call must not
#: lead to a compilation each.
MOST_SOURCES = 8

_found = weakref.WeakKeyDictionary()  # op: {(dtype, kind of arrays, level): (Kernels, reason)}
_libraries = {}  # source: (address, reason)
_sources = {}  # code of a function: the sources that it gave
_warned = False


class Kernels(namedtuple("Kernels", "address dtype result_dtype add origin texts")):
    """address: of a struct dot_kernels; dtype, result_dtype: operands' and results'; add: "sum", "max", "min" or "fold";
    origin: in words; texts: the op's functions in C, or None where they are built in."""

    __slots__ = ()

    @property
    def itemsize(self):
        return features.ITEMSIZE[self.dtype]

    @property
    def total(self):
        return features.ITEMSIZE[self.result_dtype]


def level():
    """The instruction set in use, as an index into LEVELS. ValueError for an unknown name in the environment."""
    name = os.environ.get(VARIABLE)
    if not name:
        return lowlevel.level()
    if name not in LEVELS:
        raise ValueError("{} must be one of {}, but got {!r}".format(VARIABLE, LEVELS, name))
    return min(lowlevel.level(), LEVELS.index(name))


def find(op, dtype, arrays):
    """(Kernels, None) for operands of a dtype's name, or (None, the reason why there are none)."""
    if lowlevel.missing:
        return None, lowlevel.missing
    key = dtype, arrays.name, level()
    found = _found.setdefault(op, {})
    if key not in found:
        found[key] = _find(op, dtype, arrays)
    return found[key]


def _find(op, dtype, arrays):
    if dtype not in C_TYPES:
        return None, "there are no C kernels for {}".format(dtype)
    named = _built_in(op, dtype)
    if named is not None:
        address = lowlevel.named_kernels("{}_{}".format(named.name, dtype), level())
        return Kernels(address, dtype, dtype, op.add, "built in, " + LEVELS[level()], None), None
    try:
        texts = texts_of(op, dtype, arrays)
    except tracing.Untraceable as error:
        return None, str(error)
    reason = source.unsupported(texts.math)
    if reason is None and not texts.starts_somehow:
        reason = "an add without an identity can't leave out padding in C"
    if reason is not None:
        return None, reason
    return _compiled(op, texts, dtype)


def texts_of(op, dtype, arrays):
    """The op's functions in C. Raises tracing.Untraceable."""
    return source.of_expressions(op, tracing.trace(op, dtype, arrays), dtype)


def _built_in(op, dtype):
    """The named op that computes the same as `op`, where its kernels are built in; or None."""
    if dtype not in ("float32", "float64"):
        return None
    for name, named in NAMED.items():
        same = all(getattr(op, part) is getattr(named, part) for part in ("multiply", "add", "grad_w", "grad_x"))
        if name != "dot" and same and (op.pad_value is None) == (named.pad_value is None):
            return named
    return None


def _compiled(op, texts, dtype):
    best = level()
    for lower in range(best, -1, -1):
        text = source.source(texts, dtype, lower)
        if text not in _libraries:
            if _changes(op, text):
                return None, "it gives other C from call to call"
            _libraries[text] = _load(text, source.flags(texts, lower), repr(op))
        address, reason = _libraries[text]
        if address:
            origin = "compiled, " + LEVELS[lower]
            return Kernels(address, dtype, source.result_dtype(texts.add, dtype), texts.add, origin, texts), None
        if lower == best:
            first = reason
    _warn_once(first)
    return None, first


def _changes(op, text):
    code = getattr(op.multiply, "__code__", None)
    if code is None:
        return False
    sources = _sources.setdefault(code, set())
    sources.add(hash(text))
    return len(sources) > MOST_SOURCES


def _load(text, flags, what):
    import ctypes

    try:
        library = ctypes.CDLL(compiler.library(text, flags, what))
    except (compiler.CannotCompile, OSError) as error:
        return 0, str(error)
    entry = getattr(library, source.ENTRY)
    entry.restype = ctypes.c_void_p
    return entry(), None


def _warn_once(reason):
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "im2col_compat can't compile ops here, and evaluates them with tensor operations, which is slower: {}. "
            "Named ops don't need a compiler".format(reason),
            RuntimeWarning,
            stacklevel=6,
        )
