"""Gradients on every PyTorch: autograd Functions, what is recorded, and derivatives of parts."""

import contextlib

import numpy as np

from im2col_compat.compat import dtypes, graphs
from im2col_compat.compat.arrays import TORCH, raw, unchanged
from im2col_compat.compat.probes import VARIABLES, Function, torch


def leaf(x, requires_grad):
    """x cut off from its history, to record a new one."""
    if VARIABLES:
        return torch.autograd.Variable(raw(x), requires_grad=requires_grad)
    return x.detach().requires_grad_(requires_grad)


def saved(ctx):
    """What a forward saved, as tensors that know their history."""
    return ctx.saved_variables if VARIABLES else ctx.saved_tensors


def save_operands(ctx, w, x, output):
    """Keep a dot product's operands for its backward; integers have none."""
    ctx.save_for_backward(w, x)
    if not VARIABLES and not dtypes.differentiable(TORCH.dtype(output)):
        ctx.mark_non_differentiable(output)


def requires_grad(x):
    """Whether what happens to x is to be recorded."""
    return not isinstance(x, np.ndarray) and x.requires_grad and (VARIABLES or torch.is_grad_enabled())


def recording(grad):
    """Whether a backward that was handed `grad` is itself recorded (create_graph)."""
    return not grad.volatile if VARIABLES else torch.is_grad_enabled()


def records(*tensors):
    """Whether what is computed of these is to be recorded, for gradients or in forward mode."""
    if VARIABLES:
        return True
    for tensor in tensors:
        if tensor.requires_grad and torch.is_grad_enabled():
            return True
    return graphs.in_forward_mode()


def enable_grad():
    return torch.enable_grad() if hasattr(torch, "enable_grad") else _null_context()


@contextlib.contextmanager
def _null_context():
    yield


def partials(output, inputs, grad_output, create_graph=False):
    """d output / d input for each input, times grad_output; None where there is none."""
    wanted = [i for i, tensor in enumerate(inputs) if tensor.requires_grad]
    result = [None] * len(inputs)
    if wanted and output.requires_grad:
        of = [inputs[i] for i in wanted]
        found = torch.autograd.grad([output], of, [grad_output], create_graph=create_graph, allow_unused=True)
        for i, grad in zip(wanted, found):
            result[i] = grad
    return result


def new_style(function):
    """Let a Function written as torch 2.0's (forward without ctx, then setup_context) work before.

    Only that style composes with torch.func's transforms.
    """
    forward, setup_context = function.forward, function.setup_context

    def forward_with_context(ctx, *inputs):
        output = forward(*inputs)
        setup_context(ctx, inputs, output)
        return output

    if not hasattr(Function, "setup_context"):
        function.forward = staticmethod(forward_with_context)
        function.old_style = function
    elif torch is not None:
        # The old style, and without Function.apply's own Python, costs half as much to call.
        members = {"forward": staticmethod(forward_with_context), "backward": vars(function)["backward"]}
        function.old_style = type(Function)(function.__name__, (_PlainFunction,), members)
    return function


def _plain_function():
    """What Function is without torch.func's transforms, and what it does for tensors that outlived one of these."""
    plain = getattr(getattr(getattr(torch, "autograd", None), "function", None), "_SingleLevelFunction", None)
    unwrap = getattr(graphs.FUNCTORCH, "unwrap_if_dead", None)
    return (Function, unchanged) if plain is None or unwrap is None else (plain, unwrap)


_PlainFunction, _unwrapped = _plain_function()


def apply_function(function, tensors, *arguments):
    """function.apply, of a Function in the new style, to tensors and other arguments: in the old style, which costs
    half as much, where no transform is at work."""
    if graphs.transformed():
        return function.apply(*(tensors + arguments))
    return function.old_style.apply(*(tuple(map(_unwrapped, tensors)) + arguments))


def by_function(x):
    """Whether what is computed of x must go through a Function: for gradients, or torch.func's transforms."""
    return not isinstance(x, np.ndarray) and (records(x) or graphs.transform() is not None or graphs.capturing())


def checkpoint(function, *tensors):
    """function(*tensors), its intermediates computed again in backward; plainly called where that can't be (till 1.10).

    Unlike the Functions here, it gives tensors that `function` captures their gradients too.
    """
    try:
        from torch.utils.checkpoint import checkpoint as torch_checkpoint

        return torch_checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    except (ImportError, ValueError, TypeError):
        return function(*tensors)
