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


def is_on(x):
    """Whether what is computed of x is cast."""
    # PyTorch knows no autocast of sizes alone.
    return _is_on is not None and isinstance(x, Tensor) and x.device.type != "meta" and _is_on(x.device.type)


def off(x):
    """A context in which nothing is cast."""
    return (
        torch.autocast(x.device.type, enabled=False) if hasattr(torch, "autocast") else torch.cuda.amp.autocast(False)
    )


def widened(value):
    """A tensor of halves as float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value


def widened_all(params):
    """The same for what params= is given."""
    return params if params is None else {name: widened(params[name]) for name in params}
