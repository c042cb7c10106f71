"""Gradients on every PyTorch: autograd Functions, what is recorded, and derivatives of parts."""

import contextlib
import functools
import operator

import numpy as np

from im2col_compat.compat import dtypes, graphs
from im2col_compat.compat.arrays import raw, unchanged
from im2col_compat.compat.probes import VARIABLES, Function, torch


def leaf(x, requires_grad):
    """x cut off from its history, to record a new one."""
    if VARIABLES:
        return torch.autograd.Variable(raw(x), requires_grad=requires_grad)
    # Inside torch.func's transforms requires_grad_ is refused.
    return x.detach().requires_grad_() if requires_grad else x.detach()


def saved(ctx):
    """What a forward saved, as tensors that know their history."""
    if VARIABLES:
        return list(ctx.saved_variables)
    # A transform that has ended leaves wrappers of its tensors behind, which say that they require grad.
    return [_unwrapped(tensor) for tensor in ctx.saved_tensors]


def sum_to(tensor, shape):
    """The sum along the axes that have size 1 in `shape`, as PyTorch sums the gradient of what was expanded."""
    if hasattr(tensor, "sum_to_size"):
        return tensor.sum_to_size(shape)
    for axis, size in enumerate(shape):
        if size == 1 and tensor.shape[axis] != 1:
            tensor = tensor.sum(axis, keepdim=True)
    return tensor


def save(ctx, *tensors):
    """Keep tensors for a Function's backward, and for its jvp where there is forward mode (1.11 on)."""
    ctx.save_for_backward(*tensors)
    if hasattr(ctx, "save_for_forward"):
        ctx.save_for_forward(*tensors)


def save_operands(ctx, operands, output, dtype, and_output=False):
    """Keep a dot product's operands for its backward, and its result, of a dtype, if that needs it; integers have none."""
    ctx.save_for_backward(*(operands + (output,) if and_output else operands))
    if not VARIABLES and not dtypes.differentiable(dtype):
        ctx.mark_non_differentiable(output)


def requires_grad(x):
    """Whether what happens to x is to be recorded."""
    return not isinstance(x, np.ndarray) and x.requires_grad and (VARIABLES or torch.is_grad_enabled())


def recording(grad, *saved):
    """Whether a backward that was handed `grad`, and has saved tensors, is itself recorded (create_graph)."""
    if VARIABLES:
        return not grad.volatile
    return torch.is_grad_enabled() and any([tensor.requires_grad for tensor in (grad,) + saved])


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


@contextlib.contextmanager
def enabled():
    """Let autograd record, also where a dispatch mode has turned it off for the operators that it hands on (2.4 on)."""
    keys = torch._C.DispatchKey.AutogradFunctionality, torch._C.DispatchKey.ADInplaceOrView
    excluded = [key for key in keys if torch._C._dispatch_tls_is_dispatch_key_excluded(key)]
    for key in excluded:
        torch._C._dispatch_tls_set_dispatch_key_excluded(key, False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for key in excluded:
            torch._C._dispatch_tls_set_dispatch_key_excluded(key, True)


def partials(outputs, inputs, grads, create_graph=False):
    """The sum over outputs of d output / d input, times the output's grad, for each input; None where there is none."""
    wanted = [i for i, tensor in enumerate(inputs) if tensor.requires_grad]
    known = [(output, grad) for output, grad in zip(outputs, grads) if output.requires_grad and grad is not None]
    result = [None] * len(inputs)
    if wanted and known:
        of = [inputs[i] for i in wanted]
        outputs, grads = zip(*known)
        found = torch.autograd.grad(outputs, of, grads, create_graph=create_graph, allow_unused=True)
        for i, grad in zip(wanted, found):
            result[i] = grad
    return result


def derivatives(function, inputs, needs, grads, create_graph):
    """The same for the outputs of function(*inputs), a tuple, and for the inputs that are needed; None for the others."""
    if graphs.transform() is not None:
        found = torch.func.vjp(function, *inputs)[1](tuple(grads))
    else:
        with enable_grad():
            kept = [create_graph and tensor.requires_grad for tensor in inputs]
            inputs = [t if keep else leaf(t, need) for t, keep, need in zip(inputs, kept, needs)]
            found = partials(function(*inputs), inputs, grads, create_graph)
    return [partial if need else None for partial, need in zip(found, needs)]


def _batch_test():
    if hasattr(graphs.FUNCTORCH, "is_legacy_batchedtensor"):  # 2.4 on
        return graphs.FUNCTORCH.is_legacy_batchedtensor
    if not hasattr(getattr(torch, "_C", None), "_dispatch_key_parse"):
        return lambda grad: False
    batched, keys = torch._C._dispatch_key_parse("Batched"), torch._C._dispatch_keys
    return lambda grad: keys(grad).has(batched)


#: Whether a gradient is a batch of gradients: is_grads_batched of torch.autograd.grad. They have no memory.
_is_batch = _batch_test()


def _each_of(backward, ctx, grads):
    """backward(ctx, *grads), for each of a batch of gradients by itself; in batches of batches too."""
    batches = [grad for grad in grads if grad is not None and _is_batch(grad)]
    if not batches:
        return backward(ctx, *grads)
    # Found by trying: a GPU's gradients are computed in a thread that doesn't know how many batches are nested.
    level, batch = max(
        ((level, grad) for level in range(1, _MOST_LEVELS) for grad in batches if _has_level(grad, level)),
        key=operator.itemgetter(0),
    )
    size = torch._remove_batch_dim(batch, level, 1, 0).shape[0]
    parts = [[None] * size if grad is None else torch._remove_batch_dim(grad, level, size, 0) for grad in grads]
    found = zip(*[_each_of(backward, ctx, part) for part in zip(*parts)])
    return tuple(None if one[0] is None else torch._add_batch_dim(torch.stack(one), 0, level) for one in found)


_MOST_LEVELS = 64  # of PyTorch's


def _has_level(grad, level):
    """Whether a batch has a level of nesting: else a dimension of any size stands for it."""
    return any([torch._remove_batch_dim(grad, level, size, 0).shape[0] != size for size in (2, 3)])


def new_style(function):
    """Let a Function written as torch 2.0's (forward without ctx, then setup_context) work before.

    Only that style composes with torch.func's transforms.
    """
    forward, setup_context, backward = function.forward, function.setup_context, vars(function)["backward"].__func__
    function.backward = staticmethod(functools.wraps(backward)(lambda ctx, *grads: _each_of(backward, ctx, grads)))

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
        graphs.import_compiler()
        return function.apply(*(tensors + arguments))
    return function.old_style.apply(*(tuple(map(_unwrapped, tensors)) + arguments))


def by_function(x):
    """Whether what is computed of x must go through a Function: for gradients, or torch.func's transforms."""
    return not isinstance(x, np.ndarray) and (records(x) or graphs.transform() is not None or graphs.capturing())


def checkpoint(function, *tensors):
    """function(*tensors), its intermediates computed again in backward; plainly called where that can't be (till 1.10).

    Unlike the Functions here, it gives tensors that `function` captures their gradients too.
    """
    # On meta there are no intermediates, and PyTorch 2.4 looks for a device.
    if graphs.transformed() or getattr(tensors[0], "is_meta", False):
        return function(*tensors)
    try:
        from torch.utils.checkpoint import checkpoint as torch_checkpoint

        return torch_checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    except (ImportError, ValueError, TypeError):
        return function(*tensors)
