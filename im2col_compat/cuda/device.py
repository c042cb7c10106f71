"""Kernels on a GPU, by cuda.core (PyPI cuda-core): whether it is there, compiling, the cache, loading and launching.

cuda.core and NVRTC, the compiler, are loaded when the first CUDA tensor comes. Memory is PyTorch's; launches go to its
current stream of the operands' device, so that they are ordered, recorded and captured as its own kernels are.
"""

import importlib
import io
import os
import re
import shutil
import sys
import threading

import numpy as np

from im2col_compat.codegen import cache, compile
from im2col_compat.codegen.compile import CannotCompile
from im2col_compat.compat import dtypes
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Tensor, torch
from im2col_compat.cuda import texts

#: What the compiler is told beside the architecture. It may make one instruction of a product and a sum, as PyTorch's does.
#: It is to say how many registers it keeps in local memory.
OPTIONS = {"std": "c++17", "ptxas_options": "-v"}
#: The first that there is a cuda.core for.
PYTHON = (3, 10)
#: How many Works are kept ready to be launched.
MOST_READY = 256
MOST_STREAMS = 1000

_reasons = []  # what missing() found, once it has looked
_loaded = {}  # (device, architecture, text, name): kernel. None is unloaded: a launch, or a graph, may still need it.
_refused = {}  # (device, architecture, text): why it isn't compiled or loaded
_ready = Memo(MOST_READY)  # (id of a Work, device): _Ready, which holds the Work
_captured = {}  # what graphs launch again, which holds their tables
_streams = {}  # PyTorch's handle of a stream: cuda.core's Stream
_thread = threading.local()  # .devices: those whose context is current in this thread


def missing():
    """Why there can be no kernels for GPUs in this process, and what to install; None where there can."""
    if not _reasons:
        _reasons.append(_why_missing())
    return _reasons[0]


def _why_missing():
    if torch is None:
        return "there is no PyTorch"
    cuda = getattr(getattr(torch, "version", None), "cuda", None)
    if not cuda:
        return (
            "this PyTorch is built without CUDA; kernels for a GPU need a build with it, and cuda.core: "
            "pip install 'im2col_compat[cuda]'"
        )
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU, or no driver of one"
    if sys.version_info < PYTHON:
        return "cuda.core needs Python {}.{}".format(*PYTHON)
    install = "pip install 'cuda-core[cu{}]'".format(cuda.split(".")[0])
    try:
        core = importlib.import_module("cuda.core")
    except Exception as error:
        return "cuda.core can't be imported ({}): {}".format(_line(error), install)
    if not hasattr(core, "Program") or not hasattr(core, "ObjectCode"):
        return "cuda.core {} is too old: {}".format(getattr(core, "__version__", ""), install)
    try:
        _nvrtc_version()
    except Exception as error:
        return "there is no NVRTC, the compiler ({}): {}".format(_line(error), install)
    return None


def _line(error):
    """An error's text, in one line."""
    return " ".join(str(error).replace("\0", "").split())[:300]


def _core():
    return sys.modules.get("cuda.core") or importlib.import_module("cuda.core")


def _nvrtc_version():
    found = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    if int(found[0]):
        raise RuntimeError("it doesn't tell its version: {}".format(found[0]))
    return found[1:]


# ---------------------------------------------------------------- compiling
def compiled(text, architecture):
    """(the machine code, a cubin; what the compiler says of it) of a CUDA C text for an architecture, such as "sm_90".

    Of texts.variants(text) it is the first that keeps no registers in local memory, or the one that keeps fewest there.
    CannotCompile where NVRTC refuses.
    """
    best = None
    for each in texts.variants(text):
        code, said = _compiled(each, architecture)
        spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill stores", said))
        if best is None or spilled < best[0]:
            best = spilled, code, said
        if not spilled:
            break
    return best[1:]


def _compiled(text, architecture):
    core, program, log = _core(), None, io.StringIO()
    try:
        program = core.Program(text, "c++", core.ProgramOptions(arch=architecture, **OPTIONS))
        return bytes(program.compile("cubin", logs=log).code), log.getvalue()
    except Exception as error:
        raise CannotCompile(
            "NVRTC failed: {}".format(compile.complaint(1, str(error).replace("\0", "").split("log:")[-1]))
        )
    finally:
        if program is not None:
            program.close()


def cubin(text, architecture, log):
    """The same from the cache, or compiled now. log: a list that gets (seconds, where it is kept, why not in the cache)."""
    name, reason = cache.cubin_name(text, sorted(OPTIONS.items()), architecture, _nvrtc_version()), ""
    directory = path = None
    try:
        directory = cache.kept()
        path = os.path.join(directory, name)
        found = cache.content(path)
        if found is not None:
            return found
    except EnvironmentError as error:
        directory, reason = None, str(error)
    started = compile.now()
    found, _ = compiled(text, architecture)
    seconds = compile.now() - started
    if directory is not None:
        try:
            _keep(found, directory, path)
        except EnvironmentError as error:
            directory, reason = None, "it can't be written: {}".format(error)
    log.append((seconds, directory or "memory", reason))
    return found


def _keep(content, directory, path):
    folder = cache.work(directory)
    try:
        new = os.path.join(folder, "kernel.cubin")
        cache.write(new, "wb", content)
        cache.put(new, path)
        cache.tidy(directory, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _architecture(index):
    return "sm_{}{}".format(*torch.cuda.get_device_capability(index))


def _kernel(text, name, index, log):
    """The loaded kernel of a text, for a device, which is the current one."""
    architecture = _architecture(index)
    key = index, architecture, text
    if key + (name,) not in _loaded:
        if key in _refused:
            raise CannotCompile(_refused[key])
        try:
            code = cubin(text, architecture, log)
            try:
                _loaded[key + (name,)] = _core().ObjectCode.from_cubin(code).get_kernel(name)
            except Exception as error:
                raise CannotCompile("the driver doesn't load what NVRTC compiled: {}".format(_line(error)))
        except CannotCompile as error:
            _refused[key] = str(error)
            raise
    return _loaded[key + (name,)]


# ---------------------------------------------------------------- launching
class _Ready(object):
    """A Work whose kernels are loaded and whose tables are on a device."""

    def __init__(self, work, like, what):
        index, core = like.device.index, _core()
        self.work = work  # as long as this is here, its id is no other's
        self.stream = _current_stream(index)  # on which the tables' memory was allocated
        self.launches, uploaded, log = [], {}, []
        try:
            kernels = [_kernel(launch.text, launch.kernel, index, log) for launch in work.launches]
        finally:
            if log:
                seconds, places, reasons = zip(*log)
                compile.announce("{} for {}".format(what, _architecture(index)), sum(seconds), places[-1], reasons[-1])
        for launch, kernel in zip(work.launches, kernels):
            config = core.LaunchConfig(grid=tuple(map(int, launch.grid)), block=int(launch.threads))
            arguments, places = list(launch.args), []
            for i, argument in enumerate(arguments):
                if isinstance(argument, str):
                    places.append((i, argument))
                elif isinstance(argument, np.ndarray):
                    if id(argument) not in uploaded:
                        # It waits for the copy, so that any stream may read the table from now on.
                        uploaded[id(argument)] = torch.from_numpy(np.ascontiguousarray(argument)).to(like.device)
                    arguments[i] = uploaded[id(argument)].data_ptr()
            self.launches.append((kernel, config, arguments, places))
        self.tables = list(uploaded.values())


def _current_stream(index):
    return torch.cuda.current_stream(index).cuda_stream


def _wrapped(handle):
    found = _streams.get(handle)
    if found is None:
        if len(_streams) >= MOST_STREAMS:
            _streams.clear()
        found = _streams[handle] = _core().Stream.from_handle(handle)
    return found


def _enter(index):
    """Make the device's context current in this thread: a new thread has none before PyTorch's first call needs it."""
    devices = _thread.__dict__.setdefault("devices", set())
    if index not in devices:
        _core().Device(index).set_current()
        devices.add(index)


def _on_device(function, like, *arguments):
    """function(like, *arguments), where like's device is the current one."""
    index = like.device.index
    if index == torch.cuda.current_device():
        return function(like, *arguments)
    with torch.cuda.device(index):
        return function(like, *arguments)


def refuses(work, like, what):
    """Why a Work can't be launched on like's device; None where it can: then all is compiled, loaded and uploaded.

    what: what the line on sys.stderr calls it, where something is compiled. RuntimeError while a graph is captured, as
    nothing can be uploaded then.
    """
    try:
        _on_device(_make_ready, like, work, what)
    except CannotCompile as error:
        return str(error)
    return None


def _make_ready(like, work, what):
    index = like.device.index
    if not _ready.has((id(work), index)) and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "{}: its kernels aren't loaded yet, and can't be while a CUDA graph is captured. Call it once, with operands of"
            " the same shapes, before the capture, as PyTorch asks for".format(what)
        )
    _enter(index)
    return _ready.get((id(work), index), lambda: _Ready(work, like, what))


def run(work, operands, like, what):
    """Launch a Work on the current stream of like's device. operands: {name: a dense tensor on this device, or a NumPy scalar}.

    CannotCompile where it is refused.
    """
    _on_device(_run, like, work, operands, what)


def _run(like, work, operands, what):
    ready, index = _make_ready(like, work, what), like.device.index
    stream = _current_stream(index)
    if torch.cuda.is_current_stream_capturing():
        _captured[id(ready)] = ready
    elif stream != ready.stream:
        for table in ready.tables:
            table.record_stream(torch.cuda.current_stream(index))
    # Numbers are arguments as they are.
    values = {name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in operands.items()}
    buffers = {
        name: torch.empty(size, dtype=dtypes.TORCH_DTYPES[dtype], device=like.device)
        for name, (size, dtype) in work.buffers.items()
    }
    values.update((name, buffer.data_ptr()) for name, buffer in buffers.items())
    launch, to = _core().launch, _wrapped(stream)
    for kernel, config, arguments, places in ready.launches:
        arguments = list(arguments)
        for i, name in places:
            arguments[i] = values[name]
        launch(to, config, kernel, *arguments)
