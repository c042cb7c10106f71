"""CUDA kernels on the CPU: the very texts, compiled as C++ with cuda_shim.h. Operands lie between guards: what is read
outside them shows as NaN, and what is written there is an error."""

import ctypes
import hashlib
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from collections import namedtuple

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
COMPILER = shutil.which("g++") if hasattr(shutil, "which") else None
#: Compiling takes longer than running, and linking the C++ library longer than that. Arrays with an index outside of
#: them end the program: these flags need no library.
FLAGS = ["-O0", "-std=c++17", "-w", "-fwrapv", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti", "-nostdinc++"]
FLAGS += ["-nostdlib", "-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"]
LIBRARIES = ["-lm", "-lc"]
#: In a process with AddressSanitizer, see sanitize(): operands lie between what it guards.
SANITIZED = "CUDA_SHIM_SANITIZED" in os.environ
FLAGS += ["-fsanitize=address"] * SANITIZED
GUARD = 0 if SANITIZED else 1024
_loaded = {}


def folder():
    """Where libraries are kept from one session to the next."""
    return os.path.join(os.environ.get("IM2COL_COMPAT_CACHE", tempfile.gettempdir()), "cuda_shim")


def guarded(shape, dtype):
    """A new array of garbage between guards: (array, whole)."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    whole = np.empty(count + 2 * GUARD, dtype)
    whole.view(np.uint8)[:] = 0xFF if dtype.kind == "f" or dtype == np.uint16 else 0x5A
    return whole[GUARD : GUARD + count].reshape(shape), whole


def is_whole(whole):
    """Whether both guards of guarded() are what they were."""
    guards = whole.view(np.uint8)
    size = GUARD * whole.dtype.itemsize
    return len(set(guards[:size].tolist() + guards[len(guards) - size :].tolist())) <= 1


def kernel(text, name):
    """The function that runs a kernel: (grid x, y, z, threads, the kernel's arguments)."""
    declared = re.search(r"\n%s\((.*?)\)\n\{" % name, text, re.S).group(1)
    for macro, value in re.findall(r"#define (SCALARS|OF_PLANES_DECLARED)(.*)", text):
        declared = declared.replace(macro, value)
    parameters = [one.strip() for one in declared.replace("\n", " ").split(",")]
    names = [re.search(r"(\w+)$", one).group(1) for one in parameters]
    source = '#include "cuda_shim.h"\n' + text
    for one, each in zip(parameters, names):
        kind = re.sub(r"^const ([^*]*)$", r"\1", one[: -len(each)])
        source += "static {} argument_{};\n".format(kind, each)
    passed = ", ".join("argument_" + each for each in names)
    source += "static void shim_call() {{ {}({}); }}\n".format(name, passed)
    sizes = "int gx, int gy, int gz, int threads, "
    source += 'extern "C" void shim_{}({})\n{{\n'.format(name, sizes + ", ".join(parameters))
    source += "".join("    argument_{0} = {0};\n".format(each) for each in names)
    source += "    shim_run(gx, gy, gz, threads, shim_call);\n}\n"
    function = getattr(_library(source), "shim_" + name)
    function.parameters = len(parameters)
    return function


def _library(source):
    with open(os.path.join(HERE, "cuda_shim.h")) as header:
        digest = hashlib.sha1((source + header.read() + repr(FLAGS)).encode()).hexdigest()
    if digest not in _loaded:
        base = os.path.join(folder(), digest)
        if not os.path.exists(base + ".so"):
            if not os.path.isdir(folder()):
                os.makedirs(folder())
            mine = "{}.{}".format(base, os.getpid())
            with open(mine + ".cpp", "w") as file:
                file.write(source)
            subprocess.check_call(
                [COMPILER] + FLAGS + ["-I", HERE, mine + ".cpp", "-o", mine + ".so"] + LIBRARIES,
                env=dict(os.environ, LD_PRELOAD=""),
            )
            os.rename(mine + ".so", base + ".so")
            os.remove(mine + ".cpp")
        _loaded[digest] = ctypes.CDLL(base + ".so")
    return _loaded[digest]


_SCALARS = {"i4": ctypes.c_int32, "i8": ctypes.c_int64, "f4": ctypes.c_float, "f8": ctypes.c_double}


def run(work, operands):
    """Run a Work on operands: {name: an array that lies in guarded(), or a NumPy scalar}."""
    arrays, wholes = dict(operands), []
    for name, (count, dtype) in work.buffers.items():
        arrays[name], whole = guarded((count,), dtype)
        wholes.append((name, whole))
    for launch in work.launches:
        values = []
        for arg in launch.args:
            arg = arrays[arg] if isinstance(arg, str) else arg
            if isinstance(arg, np.ndarray):
                assert arg.flags.c_contiguous
                values.append(ctypes.c_void_p(arg.ctypes.data))
            else:
                values.append(_SCALARS["{}{}".format(arg.dtype.kind, arg.dtype.itemsize)](arg.item()))
        sizes = [ctypes.c_int(int(n)) for n in tuple(launch.grid) + (launch.threads,)]
        function = kernel(launch.text, launch.kernel)
        assert len(values) == function.parameters, launch.kernel
        function(*(sizes + values))
    for name, whole in wholes:
        assert is_whole(whole), "a kernel wrote outside " + name


# ---------------------------------------------------------------- AddressSanitizer
_Launch = namedtuple("_Launch", "text kernel grid threads args")
_Work = namedtuple("_Work", "launches buffers")


def sanitizer():
    """Where the compiler's AddressSanitizer is; None where it has none."""
    if COMPILER is None:
        return None
    path = subprocess.check_output([COMPILER, "-print-file-name=libasan.so"]).decode().strip()
    return path if os.path.isabs(path) else None


def sanitize(calls):
    """(exit status, output) of a process of its own that runs calls of run(), (work, operands), with AddressSanitizer.

    It has the classes that are in this file, so that it needs no PyTorch.
    """
    plain = []
    for work, operands in calls:
        plain.append((_Work([_Launch(*launch) for launch in work.launches], work.buffers), operands))
    folder = tempfile.mkdtemp()
    try:
        path = os.path.join(folder, "calls")
        with open(path, "wb") as file:
            pickle.dump(plain, file, 2)
        environment = dict(
            os.environ, PYTHONPATH=os.path.dirname(HERE), LD_PRELOAD=sanitizer(), CUDA_SHIM_SANITIZED="1"
        )
        # Leaks are Python's own. Stacks are memory like any other.
        environment["ASAN_OPTIONS"] = "detect_leaks=0:detect_stack_use_after_return=0"
        code = "from helpers import cuda_shim; cuda_shim.run_all({!r})".format(path)
        done = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = done.communicate()[0].decode("utf-8", "replace")
        return done.returncode, output
    finally:
        shutil.rmtree(folder)


def run_all(path):
    with open(path, "rb") as file:
        calls = pickle.load(file)
    for work, operands in calls:
        # Copies have allocations of their own.
        run(work, {name: np.array(t) if isinstance(t, np.ndarray) else t for name, t in operands.items()})
