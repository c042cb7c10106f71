"""What an op's functions depend on, so that a function is traced again only where it may have changed.

A function that reaches nothing but its operands, PyTorch, NumPy and other such functions does the same at each
call. One that captures anything else, a number that is annealed from call to call say, may not.
"""

import types

from im2col_compat.op import CText

#: Modules of which the attributes don't change.
_FIXED = ("torch", "numpy", "math", "operator")


def of(op):
    """A hashable that ops share only if they do the same; None for an op that may do another thing at each call."""
    functions = [op.multiply, op.add, op.grad_w, op.grad_x]
    prints = [part if part is None or isinstance(part, str) else _of_function(part, ()) for part in functions]
    if any(print_ is None and part is not None for print_, part in zip(prints, functions)):
        return None
    return tuple(prints) + (op.identity, op.pad_value)


def _of_function(function, callers):
    if isinstance(function, CText):
        return function.text
    if isinstance(function, types.FunctionType):
        return _of_python(function, callers)
    module = getattr(function, "__module__", None) or getattr(type(function), "__module__", "")
    # Functions in C: operator.mul, torch.min, numpy.minimum.
    in_c = not hasattr(function, "__dict__") and isinstance(function, types.BuiltinFunctionType)
    return function if in_c or type(function).__name__ == "ufunc" and _is_fixed(module) else None


def _of_python(function, callers):
    code = function.__code__
    if function.__closure__ or function.__defaults__ or function in callers:
        return None
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    helpers = []
    # co_names has attributes too: one that is a global's name as well is looked at for nothing.
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            if not _is_fixed(value.__name__):
                return None
        elif isinstance(value, types.FunctionType):
            if not _is_fixed(value.__module__ or ""):
                helpers.append(_of_python(value, callers + (function,)))
        elif value is not None and not isinstance(value, (types.BuiltinFunctionType, type)):
            return None
    # A module that is run again has other globals.
    return None if None in helpers else (code, id(function.__globals__)) + tuple(helpers)


def _is_fixed(module):
    return module.split(".")[0] in _FIXED or module in ("builtins", "__builtin__")
