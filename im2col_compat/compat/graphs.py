"""Whether PyTorch records a graph or transforms what is computed now."""

import functools
import importlib
import sys
import warnings

from im2col_compat.compat.probes import VARIABLES, Tensor, torch

FUNCTORCH = getattr(getattr(torch, "_C", None), "_functorch", None)
_forward_ad = getattr(getattr(torch, "autograd", None), "forward_ad", None)
_library = getattr(torch, "library", None)
#: An operator of one's own can say its shape and gradient (2.4 on).
HAS_LIBRARY = all(hasattr(_library, "register_" + name) for name in ("fake", "autograd"))


#: Whether torch.compile or torch.export is recording a graph. (torch.compiler says it from 2.3 on.)
compiling = getattr(getattr(torch, "_utils", None), "is_compiling", bool)
compiling = getattr(getattr(torch, "compiler", None), "is_compiling", compiling)
#: Whether torch.compile makes constants of functions as it should. (Not 2.4; is_exporting came with 2.7.)
CONSTANT_FUNCTIONS = hasattr(getattr(torch, "compiler", None), "is_exporting")
#: Whether it is torch.compile, or what else breaks a graph where it has to.
breakable = getattr(getattr(torch, "compiler", None), "is_dynamo_compiling", bool)


def capturing():
    """Whether PyTorch is recording a graph (compile, export, trace): sizes may be symbols, which Python can't check."""
    return compiling() or tracing()


def for_onnx():
    """Whether torch.onnx records a graph, which is to have standard operations alone."""
    return capturing() and torch.onnx.is_in_onnx_export()


def elsewhere(tensor):
    """Whether results don't go to memory: a graph is recorded, a dispatch mode is active, or there are sizes alone."""
    return compiling() or tracing() or bool(dispatch_modes()) or getattr(tensor, "is_meta", False)


def _tracing_of_old():
    # 0.3's wants Variables, and its graphs never held anything of ours.
    state = None if VARIABLES or torch is None else getattr(torch._C, "_get_tracing_state", None)
    return state is not None and state() is not None


# torch.jit.is_tracing calls it. 0.3 has another of this name, which asks about Variables.
tracing = torch._C._is_tracing if hasattr(getattr(torch, "jit", None), "is_tracing") else _tracing_of_old


def sizes(tensor):
    """A tensor's sizes, to be looked at. torch.jit.trace warns of each size that becomes a number."""
    # 2.4's torch.compile knows no getattr with a default, of tensors.
    shape = tensor.shape if isinstance(tensor, Tensor) else getattr(tensor, "shape", ())
    if compiling() or not tracing():
        return shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(int(size) for size in shape)


def expected(size):
    """The number that a size is at present, be it a symbol; 1 where that isn't known."""
    node = getattr(size, "node", None)  # (int() would make the symbol that number for good)
    number = size if node is None else node.hint
    return 1 if number is None else int(number)


def overridden(*values):
    """Whether one of these stands for a tensor and takes functions over: what torch.fx traces with (1.7 on)."""
    for value in values:
        if not isinstance(value, Tensor) and hasattr(type(value), "__torch_function__"):
            return True
    return False


def taken_over(function, values, *arguments):
    """What those of the values that are `overridden` make of function(*arguments)."""
    return torch.overrides.handle_torch_function(function, [v for v in values if overridden(v)], *arguments)


def in_forward_mode():
    return getattr(_forward_ad, "_current_level", -1) >= 0


def transformed():
    """Whether torch.func or forward mode differentiates, or maps, what is computed now."""
    return in_forward_mode() or transform() is not None


#: The innermost of torch.func's transforms that are at work; None where there is none.
transform = getattr(FUNCTORCH, "peek_interpreter_stack", lambda: None)


def idle():
    """Whether nothing at all records or transforms: what costs least to ask, and holds for most calls."""
    return not (compiling() or tracing() or dispatch_modes() or transform() or in_forward_mode())


def outside(function):
    """(function(), the names of the transforms) with none of torch.func's transforms at work, from the innermost out."""
    names, left = [], []
    try:
        while transform() is not None:
            names.append(transform().key().name)
            left.append(FUNCTORCH.pop_dynamic_layer_stack())
        return function(), names
    finally:
        while left:
            FUNCTORCH.push_dynamic_layer_stack(left.pop())


_stack = getattr(FUNCTORCH, "get_interpreter_stack", None)  # 2.3 on


def _levels():
    """The names of all of torch.func's transforms that are at work."""
    if transform() is None:
        return ()
    return outside(bool)[1] if _stack is None else [level.key().name for level in _stack()]


dispatch_modes = getattr(getattr(torch, "_C", None), "_len_torch_dispatch_stack", int)


def transforming():
    """Whether operations go to something else than tensors: a dispatch mode (fake, make_fx) or functionalization."""
    return bool(dispatch_modes()) or mapped()


def mapped():
    """Whether anything but gradients is at work: vmap, forward mode, functionalization."""
    # Gradients of torch.func's go through autograd Functions as any others do.
    return in_forward_mode() or any([name != "Grad" for name in _levels()])


def only_maps():
    """Whether nothing but vmap and gradients is at work, whose samples an autograd Function can merge."""
    if in_forward_mode() or dispatch_modes() or capturing():
        return False
    return all([name in ("Vmap", "Grad") for name in _levels()])


def unwrapped(tensor):
    """The tensor that torch.func's transforms work on, of all samples."""
    while FUNCTORCH is not None and FUNCTORCH.is_functorch_wrapped_tensor(tensor):
        tensor = FUNCTORCH.get_unwrapped(tensor)
    return tensor


def import_compiler():
    """Imports what Functions import under transforms in 2.3, which fails there, before they do."""
    if _FUNCTIONS_IMPORT and "torch._dynamo" not in sys.modules:
        outside(functools.partial(importlib.import_module, "torch._dynamo"))


_call = getattr(getattr(getattr(torch, "_ops", None), "HigherOrderOperator", None), "__call__", None)
_FUNCTIONS_IMPORT = "torch._dynamo" in getattr(getattr(_call, "__code__", None), "co_names", ())


def apart(function, why):
    """The function, at which torch.compile breaks its graph instead of looking into it. why: what it says then."""
    compiler = importlib.import_module("torch._compile") if breakable is not bool else None
    if not hasattr(compiler, "_disable_dynamo"):
        return function
    # torch.compiler.disable itself would import the compiler now.
    result = compiler._disable_dynamo(function)
    result._torchdynamo_disable, result._torchdynamo_disable_msg = True, why
    return result
