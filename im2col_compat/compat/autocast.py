"""Autocast (PyTorch 1.6 on): under it an op of one's own computes in float32, and returns it, as torch.cdist does."""

from im2col_compat.compat.probes import Tensor, torch

HALVES = tuple(getattr(torch, name) for name in ("float16", "bfloat16") if hasattr(torch, name))


def _test():
    """A function that tells whether autocast is on for a device, by its type; None where there is none."""
    if not hasattr(torch, "is_autocast_enabled"):
        return None
    try:
        torch.is_autocast_enabled("cpu")
        return torch.is_autocast_enabled
    except TypeError:  # before 2.4
        of_cpu = getattr(torch, "is_autocast_cpu_enabled", lambda: False)  # 1.10 on
        return lambda device: of_cpu() if device == "cpu" else device == "cuda" and torch.is_autocast_enabled()


_is_on = _test()
_TELLS_CPU = hasattr(Tensor, "is_cpu")  # much faster to ask than the device


def is_on(x):
    """Whether what is computed of x is cast."""
    if _is_on is None or not isinstance(x, Tensor):
        return False
    try:
        return _is_on("cpu" if _TELLS_CPU and x.is_cpu else x.device.type)
    except RuntimeError:  # a device without autocast
        return False


def uncast(call, x, *arguments):
    """call(*arguments) where nothing is cast, with tensors of halves as float32, those of params too."""
    context = (
        torch.autocast(x.device.type, enabled=False) if hasattr(torch, "autocast") else torch.cuda.amp.autocast(False)
    )
    with context:
        return call(*[_widened(argument) for argument in arguments])


def _widened(value):
    if hasattr(value, "keys"):
        return {name: _widened(value[name]) for name in value}
    return value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value
