"""What an op's functions depend on, so that a function is traced again only where it may have changed.

A function that reaches only its operands, PyTorch, NumPy and other such functions does the same at each call. One that
captures anything else may not: a number, for one, that is annealed from call to call. Nor may one that asks PyTorch
for more than arithmetic, as for a random number, or whether gradients are enabled; or one that asks Python, with
globals() or eval(). So only names are let pass that are known to be arithmetic.
"""

import dis
import math
import operator
import types

from im2col_compat.codegen.operations import OPERATIONS
from im2col_compat.compat import dtypes
from im2col_compat.compat.memo import Memo

#: Modules of which these names' attributes don't change.
_FIXED = ("torch", "torch.nn", "torch.nn.functional", "torch.special", "numpy", "math", "operator")
#: Names of Python's own, of modules and of numbers that depend on nothing but arguments.
_NAMES = (
    "abs all any bool complex divmod enumerate float int len list long map max min pow range reversed round set slice "
    "sorted sum tuple type xrange zip isinstance issubclass True False None Exception TypeError ValueError "
    "RuntimeError NotImplementedError AssertionError torch nn functional special Tensor dtype finfo iinfo eps tiny "
    "smallest_normal"
)
_PURE = set(OPERATIONS) | set(dtypes.ITEMSIZE) | set(_NAMES.split())
_PURE.update(name for module in (math, operator) for name in vars(module) if not name.startswith("_"))


#: Modules of the functions of named ops, which do the same at each call.
_OWN = ("im2col_compat.ops", "im2col_compat.terms.signs")
#: How many functions' names are kept.
MOST_CODES = 1000
_globals = Memo(MOST_CODES)  # code: see _asked()


class Mark(object):
    """An op's fingerprint, `value`, for as long as it holds: to see that it does takes much less than to take it again."""

    def __init__(self):
        self.value, self.functions, self.names = None, [], []

    def holds(self):
        """Whether the functions are still what they were, and the globals that they ask for."""
        for function, code in self.functions:
            if function.__code__ is not code or _captures(function):
                return False
        for scope, name, value in self.names:
            if scope.get(name, _NOTHING) is not value:
                return False
        return True


_NOTHING = object()


def mark(op):
    """The op's Mark, always the same while it holds; None for an op that may do another thing at each call."""
    if op.mark is None or not op.mark.holds():
        new = Mark()
        new.value = _of_op(op, True, new)
        op.mark = None if new.value is None else new
    return op.mark


def of(op):
    """A hashable that only ops share that do the same; None for an op that may do another thing at each call."""
    found = mark(op)
    return None if found is None else found.value


def of_code(op):
    """A hashable that only ops share whose functions are the same, whatever they ask; None where they capture anything."""
    return _of_op(op, False, Mark())


def of_function(function, strict=True):
    """The same for one function; strict: or of_code() of it."""
    return _of_function(function, strict, Mark())


def _of_op(op, strict, mark):
    functions = (op.multiply, op.add) + op.term.surrogates
    prints = [_of_function(part, strict, mark) for part in functions]
    if any(print_ is None and part is not None for print_, part in zip(prints, functions)):
        return None
    # By their text: to Python, -0.0 is 0.0 and 1 is True.
    return tuple(prints) + (op.term.names, repr(op.identity), repr(op.pad_value))


def _of_function(function, strict, mark):
    if isinstance(function, str) or getattr(function, "is_constant", False) or _is_in_c(function, strict):
        return function
    if isinstance(function, types.FunctionType) and function.__module__ in _OWN and not function.__closure__:
        return function
    return _of_python(function, strict, mark) if isinstance(function, types.FunctionType) else None


def _is_in_c(function, strict):
    """operator.mul, torch.min, numpy.minimum; not the method of an object, which may change, nor time.time."""
    if type(function).__name__ == "ufunc":
        return True
    owner = getattr(function, "__self__", None)
    return (
        isinstance(function, types.BuiltinFunctionType)
        and (
            owner is None
            or isinstance(owner, (types.ModuleType, type))
            or type(owner).__name__ == "_VariableFunctionsClass"
        )
        and (not strict or function.__name__ in _PURE)
    )


def _captures(function):
    captured = function.__closure__ or function.__defaults__ or getattr(function, "__kwdefaults__", None)
    return bool(captured or function.__dict__)


def _of_python(function, strict, mark, callers=()):
    code, scope = function.__code__, function.__globals__
    if _captures(function) or function in callers:
        return None
    mark.functions.append((function, code))
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    if strict:
        names = _globals.get(code, lambda: _asked(code))
        if names is None or not all(name in scope for name in names):
            return None
    reached = []
    # co_names has attributes too: one that is a global's name as well is looked at for nothing.
    for name in code.co_names:
        value = scope.get(name)
        mark.names.append((scope, name, scope.get(name, _NOTHING)))
        if isinstance(value, types.ModuleType):
            if not (value.__name__ in _FIXED if strict else _is_fixed(value.__name__)):
                return None
        elif isinstance(value, types.FunctionType):
            if not _is_fixed(value.__module__ or ""):
                value = _of_python(value, strict, mark, callers + (function,))
                if value is None:
                    return None
            elif strict and value.__name__ not in _PURE:
                return None
        elif value is not None and not _is_in_c(value, strict):
            return None
        reached.append((name, value))
    return (code,) + tuple(reached)


def _asked(code):
    """The names that code uses and that aren't known to be pure: all must be globals of the user's. None where one is an
    attribute, or imported."""
    names = tuple(name for name in code.co_names if name not in _PURE)
    if names and hasattr(dis, "get_instructions"):  # Python 2.7 takes an attribute for the global of its name
        for instruction in dis.get_instructions(code):
            if instruction.argval in names and instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                return None
    return names


def _is_fixed(module):
    return module.split(".")[0] in ("torch", "numpy", "math", "operator")
