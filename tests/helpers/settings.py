"""What results must not depend on: instruction sets, numbers of threads, engines."""

import contextlib

import numpy as np
import pytest
from _pytest.monkeypatch import MonkeyPatch
from helpers.tensors import KINDS, dtype_of, torch, values

from im2col_compat import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    lowlevel,
    use_backend,
)
from im2col_compat.compat import memory
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.paths import kernels

CONVOLVE = {1: conv1d, 2: conv2d, 3: conv3d}
TRANSPOSE = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}
#: The instruction sets that this machine has.
LEVELS = c_kernels.LEVELS[:1] if lowlevel.missing else c_kernels.LEVELS[: lowlevel.level() + 1]
#: Tensors where there is torch.
KIND = KINDS[0] if torch is None else "tensor"

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
needs_library = pytest.mark.skipif(bool(lowlevel.missing), reason="needs the C library")


def choose(patch, isa, threads):
    """Let a MonkeyPatch set an instruction set, and so many threads however small a problem is."""
    patch.setenv(c_kernels.VARIABLE, isa)
    patch.setattr(memory, "threads", lambda: threads)
    patch.setattr(kernels, "LEAST", 0)
    patch.setattr(lowlevel, "LEAST_FOR_THREADS", 0)


@contextlib.contextmanager
def setting(isa, threads):
    """An instruction set, and so many threads however small a problem is."""
    patch = MonkeyPatch()
    try:
        choose(patch, isa, threads)
        yield
    finally:
        patch.undo()


def everywhere(call):
    """The values of what call() returns, on which instruction sets, numbers of threads and tensor operations agree."""
    found = []
    for i, isa in enumerate(LEVELS + LEVELS[-1:]):
        with setting(isa, 1 + 2 * (i % 2)):
            found.append(call())
    with use_backend("slices"):
        found.append(call())
    for other in found[1:]:
        assert dtype_of(other) == dtype_of(found[0])
        np.testing.assert_array_equal(values(other), values(found[0]))
    return values(found[0])
