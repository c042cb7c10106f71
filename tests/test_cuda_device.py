"""What compiles, keeps, loads and launches kernels on a GPU, with stand-ins for cuda.core and for the GPU."""

import os
from collections import namedtuple

import numpy as np
import pytest
from helpers.tensors import VARIABLES, torch

from im2col_compat.codegen import cache
from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import device, texts

if torch is None or VARIABLES or not hasattr(torch.cuda, "is_current_stream_capturing"):
    pytest.skip("needs PyTorch of today", allow_module_level=True)

Launch = namedtuple("Launch", "text kernel grid threads args")
Work = namedtuple("Work", "launches buffers")
Stream = namedtuple("Stream", "cuda_stream")


class Core(object):
    """cuda.core, as far as device.py calls it."""

    def __init__(self):
        self.compiled, self.options, self.loaded, self.launches, self.streams, self.devices = [], [], [], [], [], []
        self.complaint, self.broken, self.spills = None, None, {}

    def ProgramOptions(self, **options):
        return options

    def Program(self, text, kind, options):
        assert kind == "c++"
        return Program(self, text, options)

    @property
    def ObjectCode(self):
        return self

    def from_cubin(self, code):
        if self.broken:
            raise RuntimeError(self.broken)
        self.loaded.append(code)
        return Code(code)

    def LaunchConfig(self, grid, block):
        return grid, block

    @property
    def Stream(self):
        return self

    def from_handle(self, handle):
        self.streams.append(handle)
        return "stream {}".format(handle)

    def Device(self, index):
        self.devices.append(index)
        return self

    def set_current(self):
        pass

    def launch(self, stream, config, kernel, *args):
        self.launches.append((stream, config, kernel, args))


class Code(object):
    def __init__(self, code):
        self.code = code

    def get_kernel(self, name):
        return self.code, name


class Program(object):
    def __init__(self, core, text, options):
        self.core, self.text, self.options = core, text, options

    def compile(self, kind, logs):
        assert kind == "cubin"
        if self.core.complaint:
            raise RuntimeError(self.core.complaint)
        self.core.compiled.append(self.text)
        self.core.options.append(self.options)
        logs.write("8 bytes stack frame, {} bytes spill stores\n".format(self.core.spills.get(self.text, 0)))
        self.code = ("code of " + self.text).encode()
        return self

    def close(self):
        self.text = None


class Gpu(object):
    """What torch.cuda says."""

    def __init__(self):
        self.current, self.stream, self.capturing, self.entered, self.recorded = None, 7, False, [], []

    def device(self, index):
        self.entered.append(index)
        return self

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


@pytest.fixture
def core(monkeypatch, tmpdir):
    core = Core()
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", str(tmpdir.mkdir("cache")))
    monkeypatch.setattr(device, "_core", lambda: core)
    monkeypatch.setattr(device, "_nvrtc_version", lambda: (13, 5))
    for name in ("_loaded", "_refused", "_captured", "_streams"):
        monkeypatch.setattr(device, name, {})
    monkeypatch.setattr(device, "_ready", Memo(4))
    device._thread.__dict__.clear()
    return core


@pytest.fixture
def gpu(monkeypatch, core):
    """The device of CPU tensors, whose index is None, is a GPU."""
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "current_device", lambda: gpu.current)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: Stream(gpu.stream))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: gpu.capturing)
    monkeypatch.setattr(torch.cuda, "device", gpu.device)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda table, stream: gpu.recorded.append(stream.cuda_stream))
    return gpu


TABLE = np.arange(6, dtype=np.int32).reshape(3, 2)


def a_work(text="text"):
    second = Launch("other " + text, "second", (4, 1, 1), 32, ["buffer", "y", TABLE, np.int64(5)])
    first = Launch(text, "first", (np.int64(1), 2, 3), 256, ["x", "buffer", np.float32(0.5), TABLE, "number"])
    return Work([first, second], {"buffer": (10, "float64")})


def operands():
    return {"x": torch.zeros(3), "y": torch.zeros(4), "number": np.float32(2)}


def go(work, what="l1"):
    given = operands()
    device.run(work, given, given["x"], what)
    return given


def test_launches(gpu, core, capsys):
    """In order, on the current stream, with addresses, numbers and one copy of a table; the second call makes nothing anew."""
    work = a_work()
    for _ in range(2):
        given = go(work)
        (stream, config, kernel, args), second = core.launches[-2:]
        assert (stream, config, kernel[1]) == ("stream 7", ((1, 2, 3), 256), "first")
        assert args[0] == given["x"].data_ptr() and args[2] == np.float32(0.5) and args[4] == np.float32(2)
        assert second[1] == ((4, 1, 1), 32) and second[3][1] == given["y"].data_ptr()
        assert args[1] == second[3][0] and args[3] == second[3][2] and type(second[3][3]) is np.int64
    assert core.compiled == ["text", "other text"] and len(core.loaded) == 2
    assert core.streams == [7] and core.devices == [None] and len(core.launches) == 4
    assert core.launches[0][3][3] == core.launches[2][3][3]
    assert core.options[0] == {"arch": "sm_90", "std": "c++17", "ptxas_options": "-v"}
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "compiled l1 for sm_90" in told[0]


def test_streams(gpu, core):
    """Another stream gets launches of its own, and the tables' memory isn't reused while it may read them."""
    work = a_work()
    go(work)
    assert gpu.recorded == []
    gpu.stream = 8
    go(work)
    assert [launch[0] for launch in core.launches] == ["stream 7"] * 2 + ["stream 8"] * 2
    assert gpu.recorded == [8]


def test_capture(gpu, core):
    """A graph may launch what is ready, and its tables are kept for good; the rest is an error that says what to do."""
    work = a_work()
    go(work)
    gpu.capturing = True
    go(work)
    assert [each.work for each in device._captured.values()] == [work] and gpu.recorded == []
    with pytest.raises(RuntimeError) as info:
        go(a_work("new"), "my op")
    assert "my op" in str(info.value) and "before the capture" in str(info.value)
    assert core.compiled == ["text", "other text"]
    gpu.capturing = False
    tables = [table for each in device._captured.values() for table in each.tables]
    for i in range(9):
        go(a_work(str(i)))
    assert [table for each in device._captured.values() for table in each.tables] == tables


def test_another_device(gpu, core):
    """Where the operands' device isn't the current one, it is made so."""
    gpu.current = 1
    go(a_work())
    assert gpu.entered == [None] and core.launches


def test_cache(gpu, core, monkeypatch):
    """What was compiled is found by later processes; what is damaged, or of another compiler, is compiled again."""
    name = compile_once(core)
    assert compile_once(core) == name and len(core.compiled) == 1
    path = os.path.join(os.environ["IM2COL_COMPAT_CACHE"], name)
    with open(path, "r+b") as file:
        file.write(b"X")
    compile_once(core)
    assert len(core.compiled) == 2 and cache.content(path) == b"code of a text"
    os.chmod(path, 0o777)
    compile_once(core)
    assert len(core.compiled) == 3
    monkeypatch.setattr(device, "_nvrtc_version", lambda: (13, 6))
    assert device.cubin("a text", "sm_90", []) and device.cubin("a text", "sm_80", [])
    assert len(core.compiled) == 5 and len(os.listdir(os.path.dirname(path))) == 3


def compile_once(core):
    log = []
    assert device.cubin("a text", "sm_90", log) == b"code of a text"
    (name,) = [name for name in os.listdir(os.environ["IM2COL_COMPAT_CACHE"]) if name.endswith(".cubin")]
    return name


def test_cubins_are_removed(gpu, core, monkeypatch):
    """The cache's bound holds for machine code too."""
    monkeypatch.setattr(cache, "MOST", 1)
    for text in ("a", "b"):
        device.cubin(text, "sm_90", [])
    assert len(os.listdir(os.environ["IM2COL_COMPAT_CACHE"])) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_no_cache(gpu, core, monkeypatch, tmpdir, capsys):
    """Where the directory can't be trusted, code stays in memory, and the line on sys.stderr says why."""
    place = tmpdir.mkdir("open")
    os.chmod(str(place), 0o777)
    monkeypatch.setenv("IM2COL_COMPAT_CACHE", str(place))
    go(a_work())
    assert core.launches and not os.listdir(str(place))
    told = capsys.readouterr().err
    assert "memory until this process ends" in told and "chmod" in told


def test_what_is_not_compiled(gpu, core):
    """What NVRTC complains about is the reason, and isn't tried again; so is what the driver says."""
    core.complaint = "5: NVRTC_ERROR, compilation log:\n\nnvrtc: error: invalid value for -arch\n\0"
    reasons = [device.refuses(a_work(), torch.zeros(1), "l1") for _ in range(2)]
    assert reasons == ["NVRTC failed: nvrtc: error: invalid value for -arch"] * 2
    core.complaint = None
    assert device.refuses(a_work(), torch.zeros(1), "l1") == reasons[0]
    core.broken = "CUDA_ERROR_INVALID_IMAGE:\nis invalid"
    reason = device.refuses(a_work("another"), torch.zeros(1), "l1")
    assert "driver" in reason and "CUDA_ERROR_INVALID_IMAGE: is invalid" in reason
    core.broken = None
    assert device.refuses(a_work("a third"), torch.zeros(1), "l1") is None


def test_local_memory(core):
    """A text that would keep registers there is compiled with less of its loop written out, and then for fewer blocks."""
    like = "#define UNROLLED {}\n#define BLOCKS {}\n".format
    made = [like(*numbers) for numbers in ((4, 5), (2, 5), (1, 5), (1, 3), (1, 2), (1, 1))]
    assert list(texts.variants(made[0])) == made and list(texts.variants("others")) == ["others"]
    assert list(texts.variants(like(1, 0)))[:3] == [like(1, 0), like(1, 8), like(1, 6)]
    for count, best in ((0, 0), (3, 3), (6, 4)):
        core.compiled, core.spills = [], {text: abs(4 - i) + 1 for i, text in enumerate(made[:count])}
        code, said = device.compiled(made[0], "sm_90")
        assert code == ("code of " + made[best]).encode() and core.compiled == made[: count + 1]
        assert "{} bytes spill".format(core.spills.get(made[best], 0)) in said


# ---------------------------------------------------------------- whether it is there
class Module(object):
    def __init__(self, **names):
        self.__dict__.update(names)


def reason(monkeypatch, cuda="13.0", available=True, core=None, nvrtc=None, python=(2, 7)):
    def found(name):
        module = {"cuda.core": core, "cuda.bindings.nvrtc": nvrtc}[name]
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(device.importlib, "import_module", found)
    monkeypatch.setattr(device, "_reasons", [])
    monkeypatch.setattr(device, "PYTHON", python)
    return device.missing()


def test_missing(monkeypatch):
    """What isn't there, and what to install."""
    whole, old = Module(Program=1, ObjectCode=1), Module(__version__="0.1.1")
    nvrtc = Module(nvrtcVersion=lambda: (0, 13, 5))
    assert reason(monkeypatch, core=whole, nvrtc=nvrtc) is None
    install = "pip install 'cuda-core[cu13]'"
    assert "built without CUDA" in reason(monkeypatch, cuda=None) and "im2col_compat[cuda]" in reason(monkeypatch, None)
    assert "no GPU" in reason(monkeypatch, available=False)
    assert "Python 9.9" in reason(monkeypatch, python=(9, 9))
    text = reason(monkeypatch, core=ImportError("No module named 'cuda'"))
    assert "cuda.core" in text and "No module named" in text and install in text
    text = reason(monkeypatch, "12.8", core=old)
    assert "0.1.1 is too old" in text and "cuda-core[cu12]" in text
    text = reason(monkeypatch, core=whole, nvrtc=RuntimeError("no\nlibnvrtc"))
    assert "NVRTC" in text and "no libnvrtc" in text and install in text
    assert "NVRTC" in reason(monkeypatch, core=whole, nvrtc=Module(nvrtcVersion=lambda: (1, None, None)))
