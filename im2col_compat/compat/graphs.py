"""Whether PyTorch records a graph or transforms what is computed now."""

from im2col_compat.compat.probes import VARIABLES, torch

FUNCTORCH = getattr(getattr(torch, "_C", None), "_functorch", None)
_forward_ad = getattr(getattr(torch, "autograd", None), "forward_ad", None)
#: An operator of one's own can say its shape and gradient (2.4 on).
HAS_LIBRARY = torch is not None and all(
    hasattr(getattr(torch, "library", None), name)
    for name in ("register_fake", "register_autograd", "fallthrough_kernel")
)


# torch.compiler came with 2.1, is_compiling with 2.3; before, a graph is recorded by what compiling doesn't know.
_is_compiling = getattr(getattr(torch, "compiler", None), "is_compiling", None)


def compiling():
    """Whether torch.compile or torch.export is recording a graph."""
    return _is_compiling is not None and _is_compiling()


def capturing():
    """Whether PyTorch is recording a graph (compile, export, trace): then sizes may be symbols that Python can't check."""
    return torch is not None and (compiling() or _is_tracing())


def _is_tracing():
    if hasattr(torch.jit, "is_tracing"):
        return torch.jit.is_tracing()
    # 0.3's wants Variables, and its graphs never held anything of ours.
    state = None if VARIABLES else getattr(torch._C, "_get_tracing_state", None)
    return state is not None and state() is not None


def in_forward_mode():
    return getattr(_forward_ad, "_current_level", -1) >= 0


def transformed():
    """Whether torch.func or forward mode differentiates, or maps, what is computed now."""
    return in_forward_mode() or transform() is not None


_peek = getattr(FUNCTORCH, "peek_interpreter_stack", None)


def transform():
    """The innermost of torch.func's transforms that are at work; None where there is none."""
    return None if _peek is None else _peek()


dispatch_modes = getattr(getattr(torch, "_C", None), "_len_torch_dispatch_stack", int)


def transforming():
    """Whether operations go to something else than tensors: a dispatch mode (fake tensors, make_fx) or functionalization."""
    if dispatch_modes():
        return True
    if not hasattr(torch._C, "_functionalization_reapply_views_tls"):
        return False
    # Gradients of torch.func's go through autograd Functions as any others do.
    top = transform()
    return top is not None and top.key().name not in ("Grad",)
