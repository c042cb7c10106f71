"""Which engine serves an input: chosen by itself, or forced by use_backend or IM2COL_COMPAT_BACKEND."""

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.compat import graphs, unfolds
from im2col_compat.compat.arrays import enter
from im2col_compat.compat.probes import torch, torch_missing
from im2col_compat.compat.warn import Once
from im2col_compat.engines import forced as _forced
from im2col_compat.engines.c_library import FFI
from im2col_compat.engines.native import Torch
from im2col_compat.engines.slices import Slices

VARIABLE = _forced.VARIABLE
#: In the order in which they are tried.
ENGINES = (Torch(), FFI(), Slices())
BY_C_FIRST = (ENGINES[1], ENGINES[0], ENGINES[2])
NAMES = tuple(engine.name for engine in ENGINES)

_no_c_library = Once()


def forced():
    """The name of the engine that is forced, or None."""
    name = _forced.name()
    if name == "auto":
        return None
    if name not in NAMES:
        raise ValueError("{} must be 'auto' or one of {}, but got {!r}".format(VARIABLE, NAMES, name))
    return name


class use_backend(object):
    """Force an engine: ``use_backend("ffi")`` for good, ``with use_backend("ffi"):`` for a while.

    name: "torch" (F.unfold and F.fold of the installed PyTorch), "ffi" (the C library), "slices" (tensor slicing), or
    "auto" (the first of these that serves the input, the default). A call holds for the whole process, a with block
    for its thread or asyncio task alone. A backward uses the engine of its forward.

    Raises ValueError for an unknown name, RuntimeError where the engine isn't available.
    """

    def __init__(self, name):
        if name not in NAMES + ("auto",):
            raise ValueError("use_backend(): name must be 'auto' or one of {}, but got {!r}".format(NAMES, name))
        if name not in available_backends() + ("auto",):
            raise RuntimeError("use_backend(): {!r} isn't available: {}".format(name, why_missing(name)))
        self.name, self.entered = name, 0
        _forced.call(self)

    def __enter__(self):
        _forced.uncall(self)
        _forced.enter(self)
        return self

    def __exit__(self, *_):
        if self.entered:
            _forced.leave(self)
        else:
            _forced.uncall(self)


def why_missing(name):
    """Why an engine isn't available here; None where it is."""
    if name == "torch" and not unfolds.HAS_UNFOLD:
        return torch_missing or "PyTorch {} has no F.unfold".format(torch.__version__)
    return lowlevel.missing if name == "ffi" else None


def available_backends():
    """The names of the engines that can serve anything here, in the order in which they are tried."""
    return tuple(name for name in NAMES if why_missing(name) is None)


def choose(arrays, x, dims=2):
    """The engine for x of `dims` dimensions. RuntimeError: the forced one can't serve it. NotImplementedError: none can."""
    name = forced()
    if name is not None:
        engine = ENGINES[NAMES.index(name)]
        why = engine.refuses(arrays, x)
        if why is not None:
            raise RuntimeError("the engine that is forced can't serve this input. {!r}: {}".format(name, why))
        return engine
    refusals = []
    # Of other numbers of dimensions F.unfold makes several steps. Graphs can record no C.
    for engine in ENGINES if dims == 2 or graphs.capturing() else BY_C_FIRST:
        why = engine.refuses(arrays, x)
        if why is None:
            if engine.name == "slices" and arrays.device(x) == "cpu" and lowlevel.missing:
                _no_c_library(
                    "im2col_compat works without its C library, only slower: {}. To have it, install a C compiler, cffi "
                    "and Python's headers, then, in the folder of im2col_compat's source, "
                    "pip install --force-reinstall --no-deps --no-cache-dir .".format(lowlevel.missing)
                )
            return engine
        refusals.append("{!r}: {}".format(engine.name, why))
    raise NotImplementedError("no engine can serve this input. " + "; ".join(refusals))


def backend(x=None):
    """The name of the engine that serves x: "torch", "ffi" or "slices".

    x: a torch tensor or a NumPy array; by default, one of float32 on the CPU, a tensor where PyTorch is installed.

    Raises what unfold(x) would raise.
    """
    if x is None:
        x = np.zeros(1, np.float32) if torch is None else torch.zeros(1)
    arrays, (x,), _ = enter("backend", ("x",), (x,))
    return choose(arrays, x).name
