"""Which C kernels compute an op on a dtype: built in, compiled on demand, or none, and why.

IM2COL_COMPAT_ISA names the best instruction set to be used: "baseline", "avx2" or
"avx512"; by default, the best that the machine has.
"""

import functools
import os
import warnings
from collections import namedtuple

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen import compile as compiler
from im2col_compat.codegen import fingerprint
from im2col_compat.codegen import symbols as tracing
from im2col_compat.codegen import template as source
from im2col_compat.codegen.expression import C_TYPES
from im2col_compat.compat import dtypes
from im2col_compat.op import NAMED, CText
from im2col_compat.terms import signs
from im2col_compat.terms.table import Table

VARIABLE = "IM2COL_COMPAT_ISA"
LEVELS = ("baseline", "avx2", "avx512")
#: How many sources one function may give: numbers in it that change from call to call must not
#: lead to a compilation each.
MOST_SOURCES = 16

#: Results of tracing that are remembered at most.
MOST_TRACES = 1000

INFINITY = float("inf")

_found = {}  # what an op is made of: (Kernels, reason)
_traced = {}  # what it was traced to: (Kernels, reason)
_libraries = {}  # source: (address, reason)
_sources = {}  # (codes of the functions, dtype, level): what they were traced to
_warned = False


class Kernels(namedtuple("Kernels", "address dtype result_dtype add origin texts packing")):
    """address: of a struct dot_kernels; dtype, result_dtype: operands' and results'; add: "sum", "max", "min" or "fold";
    origin: in words; texts: the op's functions in C, or None where they are built in. packing(problem, kernels, arrays,
    w, x): where operands aren't taken as they are, the same five for what a forward takes instead; or None."""

    __slots__ = ()

    @property
    def gradients(self):
        return self.texts is None or self.texts.gradients

    @property
    def itemsize(self):
        return dtypes.ITEMSIZE[self.dtype]

    @property
    def total(self):
        return dtypes.ITEMSIZE[self.result_dtype]


def level():
    """The instruction set in use, as an index into LEVELS. ValueError for an unknown name in the environment."""
    name = os.environ.get(VARIABLE)
    if not name:
        return lowlevel.level()
    if name not in LEVELS:
        raise ValueError("{} must be one of {}, but got {!r}".format(VARIABLE, LEVELS, name))
    return min(lowlevel.level(), LEVELS.index(name))


def find(op, dtype, arrays):
    """(Kernels, None) for operands of a dtype's name, or (None, the reason why there are none).

    arrays: TORCH or NUMPY, what the op's functions are to be given.
    """
    if lowlevel.missing:
        return None, lowlevel.missing
    if isinstance(op.multiply, Table):
        return _looked_up(op, dtype)
    if dtype not in C_TYPES and dtype not in signs.DTYPES:
        return None, "there are no C kernels for {}".format(dtype)
    # An infinite pad value of integers means that padding is left out.
    pad_fits = op.pad_value in (INFINITY, -INFINITY) or _fits(op.pad_value, dtype)
    if not (pad_fits and _fits(op.identity, "int64" if dtypes.is_integer(dtype) else dtype)):
        return None, "its pad_value or identity isn't a {}".format(dtype)
    # Functions that may give something else at each call are traced at each.
    key = fingerprint.of(op)
    if key is None:
        return _find(op, dtype, arrays)
    key += dtype, arrays.name, level()
    if key not in _found:
        if len(_found) > MOST_TRACES:
            _found.clear()
        _found[key] = _find(op, dtype, arrays)
    return _found[key]


def _find(op, dtype, arrays):
    named, floats, best = _built_in(op), dtype in ("float32", "float64"), level()
    if named is not None and (floats or named is NAMED["xnor"] and dtype in signs.DTYPES):
        # Signs of integers have no gradient, and so no other kernels.
        address = lowlevel.named_kernels("{}_{}".format(named.name, dtype), best) if floats else 0
        packing = functools.partial(signs.packed, level=best) if named is NAMED["xnor"] else None
        origin = "built in, {}{}".format(LEVELS[best], ", for signs packed into words" if packing else "")
        return Kernels(address, dtype, dtype if floats else "int64", op.add, origin, None, packing), None
    if dtype not in C_TYPES:
        return None, "there are no C kernels for {}".format(dtype)
    if isinstance(op.multiply, CText):
        return _compiled(op, source.of_texts(op, dtype), dtype)
    try:
        traced = tracing.trace(op, dtype, arrays)
    except tracing.Untraceable as error:
        return None, str(error)
    key = traced, op.add if isinstance(op.add, str) else None, repr(op.identity), repr(op.pad_value), dtype, level()
    if key not in _traced:
        if _changes(op, key):
            _warn_of_changes(op)
            return None, "it gives other C from call to call"
        if len(_traced) > MOST_TRACES:
            _traced.clear()
        _traced[key] = _compiled(op, source.of_expressions(op, traced, dtype), dtype)
    return _traced[key]


def _fits(value, dtype):
    """Whether a number, or None, is one that a dtype has."""
    if value is None or value != value:
        return not dtypes.is_integer(dtype) or value is None
    if isinstance(value, complex):
        return False
    if abs(value) == INFINITY:
        return not dtypes.is_integer(dtype)
    if not dtypes.is_integer(dtype):
        return abs(value) <= float(np.finfo(dtype).max)
    low, high = dtypes.limits(dtype)
    return int(value) == value and low <= value <= high


def _looked_up(op, dtype):
    if not dtypes.is_integer(dtype):
        return None, "a table takes integers"
    if op.add != "sum":
        return None, "C looks up terms only where they are summed"
    best = level()
    packing = functools.partial(op.multiply.packed, level=best)
    origin = "looked up, {}{}".format(LEVELS[best], ", by byte permutes" if lowlevel.has_permutes(best) else "")
    return Kernels(0, dtype, "int64", op.add, origin, None, packing), None


def _built_in(op):
    """The named op that computes the same as `op`, where its kernels are built in; or None."""
    for name, named in NAMED.items():
        same = all(getattr(op, part) == getattr(named, part) for part in ("multiply", "add", "grad_w", "grad_x"))
        if name != "dot" and same and (op.pad_value is None) == (named.pad_value is None):
            return named
    return None


def _compiled(op, texts, dtype):
    best, reason = level(), source.unsupported(texts)
    if reason is not None:
        return None, reason
    for lower in range(best, -1, -1):
        text = source.source(texts, dtype, lower)
        if text not in _libraries:
            _libraries[text] = _load(text, source.flags(texts, lower), repr(op))
        address, reason = _libraries[text]
        if address:
            origin = "compiled, " + LEVELS[lower]
            return Kernels(address, dtype, source.result_dtype(texts.add, dtype), texts.add, origin, texts, None), None
        if lower == best:
            first = reason
    if not isinstance(op.multiply, CText):
        _warn_once(first)
    return None, first


def _changes(op, key):
    """Whether an op's function has led to too many others before this one."""
    # A function made anew at each call is known by its code, an object by its class.
    codes = tuple(getattr(part, "__code__", type(part)) for part in (op.multiply, op.add, op.grad_w, op.grad_x))
    others = _sources.setdefault(codes + key[-2:], set())
    if len(others) <= MOST_SOURCES:
        others.add(key)
    return len(others) > MOST_SOURCES


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
            stacklevel=7,
        )


def _warn_of_changes(op):
    warnings.warn(
        "im2col_compat: {} captures numbers that change, and each is another piece of C: after {} of them it is "
        "evaluated with tensor operations, which is slower".format(op, MOST_SOURCES),
        RuntimeWarning,
        stacklevel=6,
    )
