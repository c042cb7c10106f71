"""What an op's functions depend on, so that a function is traced again only where it may have changed.

A function that reaches only its operands, PyTorch, NumPy and other such functions does the same at each call. One that
captures anything else may not: a number, for one, that is annealed from call to call.
"""

import types

#: Modules of which the attributes don't change.
_FIXED = ("torch", "numpy", "math", "operator")


def of(op):
    """A hashable that only ops share that do the same; None for an op that may do another thing at each call."""
    functions = [op.multiply, op.add, op.grad_w, op.grad_x]
    prints = [_of_function(part) for part in functions]
    if any(print_ is None and part is not None for print_, part in zip(prints, functions)):
        return None
    # By their text: to Python, -0.0 is 0.0 and 1 is True.
    return tuple(prints) + (repr(op.identity), repr(op.pad_value))


def _of_function(function):
    if isinstance(function, str) or getattr(function, "is_constant", False) or _is_in_c(function):
        return function
    return _of_python(function) if isinstance(function, types.FunctionType) else None


def _is_in_c(function):
    """operator.mul, torch.min, numpy.minimum; not the method of an object, which may change."""
    if type(function).__name__ == "ufunc":
        return True
    owner = getattr(function, "__self__", None)
    return isinstance(function, types.BuiltinFunctionType) and (
        owner is None
        or isinstance(owner, (types.ModuleType, type))
        or type(owner).__name__ == "_VariableFunctionsClass"
    )


def _of_python(function, callers=()):
    code = function.__code__
    captures = function.__closure__ or function.__defaults__ or getattr(function, "__kwdefaults__", None)
    if captures or function.__dict__ or function in callers:
        return None
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        return None
    reached = []
    # co_names has attributes too: one that is a global's name as well is looked at for nothing.
    for name in code.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            if not _is_fixed(value.__name__):
                return None
        elif isinstance(value, types.FunctionType):
            if not _is_fixed(value.__module__ or ""):
                value = _of_python(value, callers + (function,))
                if value is None:
                    return None
        elif value is not None and not _is_in_c(value):
            return None
        reached.append((name, value))
    return (code,) + tuple(reached)


def _is_fixed(module):
    return module.split(".")[0] in _FIXED
