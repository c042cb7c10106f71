"""Warnings that name the user's line, from however deep inside the package they come."""

import sys
import warnings

#: Whose frames aren't the user's.
_OURS = ("im2col_compat", "torch")


class SlowPathWarning(RuntimeWarning):
    """Something is computed in a slow way, where there is a fast one for most.

    It is given once for an op, or once where the C library or a C compiler is missing, at the user's line, and says why. To silence it:
    ``warnings.simplefilter("ignore", im2col_compat.SlowPathWarning)``.
    """


def warn(message, category=RuntimeWarning):
    """warnings.warn with the line of the innermost frame that is neither this package's nor PyTorch's."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


class Once(object):
    """A warning that is given once in a process."""

    def __init__(self):
        self._given = False

    def __call__(self, message):
        if not self._given:
            self._given = True
            warn(message, SlowPathWarning)
