"""How much memory there is, and the threads that C computes with."""

import os

from im2col_compat.compat.probes import torch


def _meminfo(*keys):
    """Bytes that Linux says there are under some keys, or None where it doesn't say."""
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = dict(line.split(":", 1) for line in lines)
        return sum(int(kilobytes[key].split()[0]) * 1024 for key in keys)
    except (IOError, OSError, KeyError, ValueError):
        return None


def _machine_memory():
    """Bytes of memory and swap, or None where the system doesn't say."""
    found = _meminfo("MemTotal", "SwapTotal")
    if found is not None:
        return found
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


MACHINE_MEMORY = _machine_memory()
MOST_MEMORY = MACHINE_MEMORY or 2**63 - 1
#: Bytes from which on a result is compared with what is free: to ask for that takes longer than a small one.
LEAST_TO_ASK = min(2**28, MOST_MEMORY // 16)


def check_memory(shape, itemsize):
    """RuntimeError for a CPU result for which there is no memory: an overcommitting system would kill the process."""
    size = itemsize
    for length in shape:
        size *= length
    if size < LEAST_TO_ASK:
        return
    free = _meminfo("MemAvailable", "SwapFree")
    if size > MOST_MEMORY or free is not None and size > free:
        text = "not enough memory: a result of shape {} needs {} bytes, but this machine has {}"
        has = "{}".format(MACHINE_MEMORY) if free is None else "{}, of which {} are free".format(MACHINE_MEMORY, free)
        raise RuntimeError(text.format(tuple(shape), size, has))


_PROCESS = os.getpid()
_parallel = None


def threads():
    """How many threads to compute with: PyTorch's number, or as many as this process may use."""
    if torch is not None:
        return torch.get_num_threads()
    try:
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    except (KeyError, ValueError):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def parallel():
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch has loaded; 0 where there is none.

    Not in a forked child: its threads are still the parent's.
    """
    global _parallel
    if os.getpid() != _PROCESS:
        return 0
    if _parallel is None:
        _parallel = _find_parallel()
    return _parallel


def _find_parallel():
    try:
        with open("/proc/self/maps") as lines:
            paths = sorted({line.split(None, 5)[5].strip() for line in lines if "libgomp" in line or "libiomp" in line})
        import ctypes

        for path in paths:
            runtime = ctypes.CDLL(path)  # loaded already: found again, not loaded twice
            if hasattr(runtime, "GOMP_parallel"):
                return ctypes.cast(runtime.GOMP_parallel, ctypes.c_void_p).value
    except (IOError, OSError, IndexError, ImportError):
        pass
    return 0
