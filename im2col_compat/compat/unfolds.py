"""What the installed F.unfold and F.fold serve."""

from im2col_compat.compat import dtypes
from im2col_compat.compat.probes import torch


def _probe_unfold(dtype, device):
    """How the installed F.unfold and F.fold serve a dtype on a device.

    "whole": as the latest version does, gradients of every order and N=0 included;
    "forward": they compute it, and the rest is ours to add; None: they don't.
    Runs no backward: before 1.6 that starts threads that a fork loses.
    """
    functional = torch.nn.functional
    try:
        image = torch.zeros((1, 1, 2, 2), dtype=dtype, device=device)
        functional.fold(functional.unfold(image, 1), (2, 2), 1)
    except Exception:  # RuntimeError, KeyError, TypeError, NotImplementedError, by version
        return None
    try:
        # Versions that take N=0 (1.8 on) have double backward too (1.6 on);
        # those that can't differentiate complex numbers say so in the forward.
        empty = image[:0].requires_grad_(dtype.is_floating_point or getattr(dtype, "is_complex", False))
        functional.fold(functional.unfold(empty, 1), (2, 2), 1)
    except Exception:
        return "forward"
    return "whole"


HAS_UNFOLD = torch is not None and hasattr(torch.nn.functional, "unfold")
probed = {}


def native_unfold(x):
    """_probe_unfold for x's dtype and device."""
    key = (x.dtype, x.device.type)
    if key not in probed:
        probed[key] = _probe_unfold(*key)
    return probed[key]


def _takes_unbatched():
    try:
        torch.nn.functional.unfold(torch.zeros(1, 2, 2), 1)
    except Exception:
        return False
    return True


#: F.unfold does all that unfold does (1.13 on), so graph capture may record it as it is.
UNFOLD_IS_CURRENT = HAS_UNFOLD and _takes_unbatched()


if HAS_UNFOLD:
    # Now rather than when met: torch.compile may be tracing by then.
    for _dtype in dtypes.ITEMSIZE:
        if hasattr(torch, _dtype):
            probed[getattr(torch, _dtype), "cpu"] = _probe_unfold(getattr(torch, _dtype), "cpu")
