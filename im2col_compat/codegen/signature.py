"""What a function's arguments are called, on every Python."""

import functools
import types


def parameters(function):
    """((name, whether it has a default), ...) of what a function takes after its first two arguments; or its `names`."""
    if hasattr(function, "names"):
        return tuple((name, False) for name in function.names)
    return tuple(_arguments(function)[2:])


def _arguments(function):
    if isinstance(function, functools.partial):
        keywords = function.keywords or {}
        return [(name, has or name in keywords) for name, has in _arguments(function.func)[len(function.args) :]]
    if isinstance(function, types.MethodType):
        return _arguments(function.__func__)[1:]
    if not isinstance(function, types.FunctionType):
        call = getattr(type(function), "__call__", None)
        call = getattr(call, "__func__", call)  # Python 2.7's is a method
        return _arguments(call)[1:] if isinstance(call, types.FunctionType) else []
    code = function.__code__
    first = code.co_argcount - len(function.__defaults__ or ())
    found = [(name, i >= first) for i, name in enumerate(code.co_varnames[: code.co_argcount])]
    last = code.co_argcount + getattr(code, "co_kwonlyargcount", 0)
    with_defaults = getattr(function, "__kwdefaults__", None) or {}
    return found + [(name, name in with_defaults) for name in code.co_varnames[code.co_argcount : last]]


def accepted(function, names):
    """Those of the names that a function takes: a surrogate needs not take all of multiply's parameters."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & 8:  # **kwargs
        return names
    known = {name for name, _ in parameters(function)}
    return tuple(name for name in names if name in known)
