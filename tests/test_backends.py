"""Which engine serves what: chosen, forced, refused; and what a fork or a thread sees."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers.processes import anew, run
from helpers.tensors import make, some, torch, values

import im2col_compat
from im2col_compat import available_backends, backend, conv2d, fold, lowlevel, unfold, use_backend
from im2col_compat.compat import unfolds
from im2col_compat.engines import choose as backends


def test_slices_are_always_there():
    """The list has the order of choice and ends with the engine that needs nothing."""
    assert available_backends()[-1] == "slices"
    assert ("torch" in available_backends()) == (torch is not None and hasattr(torch.nn.functional, "unfold"))
    assert ("ffi" in available_backends()) == (lowlevel.missing is None)
    assert backend() == (available_backends()[0])


def test_choice_by_input():
    """Arrays, and dtypes that F.unfold lacks, go to the next engine that serves them."""
    best = [name for name in available_backends() if name != "torch"][0]
    assert backend(np.zeros(3)) == best
    if "torch" in available_backends():
        assert backend(torch.zeros(3)) == "torch"
        assert backend(torch.zeros(3).long()) == best


@pytest.mark.skipif(not unfolds.HAS_UNFOLD, reason="needs F.unfold (0.4)")
def test_what_f_unfold_serves():
    """Floats everywhere, whole since 1.8; all that is differentiable today. Integers never."""
    served = {str(dtype)[6:]: how for (dtype, device), how in unfolds.probed.items() if device == "cpu"}
    for dtype in ("float32", "float64"):
        assert served[dtype] == "whole" or not hasattr(torch, "vander") and served[dtype] == "forward"
    if hasattr(torch, "export"):
        expected = {
            dtype: "whole" for dtype in ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
        }
        assert {dtype: how for dtype, how in served.items() if how and dtype != "bool"} == expected
    assert served["int32"] is None and served["uint8"] is None


def test_forcing_nests_and_ends():
    """A with-block restores what was forced before; a plain call holds."""
    before = backends.forced()
    with use_backend("slices"):
        assert backend() == "slices"
        with use_backend("auto"):
            assert backend() == available_backends()[0]
        assert backend() == "slices"
        try:
            with use_backend("auto"):
                raise KeyError
        except KeyError:
            pass
        assert backend() == "slices"
        inner = use_backend("auto")
        assert backend() == available_backends()[0]
        inner.__exit__()
    assert backends.forced() == before


def test_blocks_of_two_threads():
    """A with block holds for its own thread, and interleaved ones leave nothing behind."""
    before, found, turns = backends.forced(), {}, [threading.Event() for _ in range(4)]

    def work(name, waits, gives):
        turns[waits].wait(10)
        with use_backend(name):
            turns[gives].set()
            found[name] = [backend()]
            turns[waits + 2].wait(10)
            found[name].append(backend())
        turns[3].set()

    workers = [threading.Thread(target=work, args=args) for args in (("slices", 0, 1), ("auto", 1, 2))]
    for worker in workers:
        worker.start()
    turns[0].set()
    for worker in workers:
        worker.join()
    assert found == {"slices": ["slices"] * 2, "auto": [available_backends()[0]] * 2}
    assert backends.forced() == before


def test_calls_end_in_any_order():
    """Each __exit__ takes back its own call, whichever came later; a call that nobody keeps is for good."""
    before = backends.forced()
    one, two = use_backend("slices"), use_backend("auto")
    one.__exit__()
    assert backends.forced() is None
    two.__exit__()
    assert backends.forced() == before
    try:
        use_backend("slices")
        three = use_backend("auto")
        three.__exit__()
        assert backend() == "slices"
    finally:
        use_backend(before or "auto")


def test_unknown_and_missing_engines():
    """An unknown name is a ValueError that lists the known ones, an absent engine a RuntimeError that says why."""
    for name in ("cuda", None, 3, ""):
        with pytest.raises(ValueError) as info:
            use_backend(name)
        assert "slices" in str(info.value) and repr(name) in str(info.value)
    for name in set(backends.NAMES) - set(available_backends()):
        with pytest.raises(RuntimeError) as info:
            use_backend(name)
        assert name in str(info.value)
    assert backends.forced() is None


def test_forcing_is_never_a_silent_switch():
    """A forced engine that can't serve an input says so and why."""
    if "torch" in available_backends():
        with use_backend("torch"):
            for x in (np.zeros((1, 1, 3, 3)), torch.zeros(1, 1, 3, 3).long()):
                for call in (lambda: unfold(x, 2), lambda: fold(x[0], (1, 3), 1), lambda: backend(x)):
                    with pytest.raises(RuntimeError) as info:
                        call()
                    assert "forced" in str(info.value) and "torch" in str(info.value)
    if "ffi" in available_backends() and hasattr(torch, "bfloat16") and hasattr(torch.Tensor, "to_mkldnn"):
        meta = torch.empty(1, 1, 3, 3, device="meta") if hasattr(torch, "compile") else None
        if meta is not None:
            with use_backend("ffi"), pytest.raises(RuntimeError) as info:
                unfold(meta, 2)
            assert "meta" in str(info.value)


def test_environment_variable():
    """IM2COL_COMPAT_BACKEND forces an engine in a new process; a wrong value is an error that names it."""
    code = "import im2col_compat; print(im2col_compat.backend())"
    for name in available_backends():
        assert run(code, IM2COL_COMPAT_BACKEND=name)[0] == name
    assert run(code, IM2COL_COMPAT_BACKEND="")[0] == backend()
    code = """
import im2col_compat
try:
    im2col_compat.backend()
except ValueError as error:
    print(error)
"""
    out, _ = run(code, IM2COL_COMPAT_BACKEND="warp")
    assert "IM2COL_COMPAT_BACKEND" in out and "warp" in out and "slices" in out


def test_without_the_c_library():
    """It is missed once, in words, and only where an engine had to be slower for it."""
    code = """
import sys, warnings
sys.modules["im2col_compat._im2col"] = None
import numpy as np
import im2col_compat
assert im2col_compat.available_backends()[-1:] == ("slices",), im2col_compat.available_backends()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(3):
        columns = im2col_compat.unfold(np.arange(16.0).reshape(1, 1, 4, 4), 3)
    image = im2col_compat.fold(columns, 4, 3)
    im2col_compat.conv2d(np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3)), op="l1")
    messages = [str(w.message) for w in caught if "C library" in str(w.message)]
assert len(messages) == 1, messages
assert "C compiler" in messages[0]
try:
    im2col_compat.use_backend("ffi")
except RuntimeError as error:
    assert "_im2col" in str(error)
print(image.sum())
"""
    expected = fold(unfold(np.arange(16.0).reshape(1, 1, 4, 4), 3), 4, 3).sum()
    assert run(code)[0] == str(expected)


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_import_leaves_the_random_state_alone():
    """A seed set before the import gives the same numbers after it."""
    code = "import torch; torch.manual_seed(5); {} print(torch.rand(3).tolist() if hasattr(torch, 'no_grad') else list(torch.rand(3)))"
    assert run(code.format("import im2col_compat;"))[0] == run(code.format(""))[0]


FORK = """
import os, sys, time
import numpy as np
import im2col_compat as ic
torch = ic.compat.probes.torch

# Up to 1.8 autograd's own threads don't survive a fork: it hangs, from 1.6 on it says so.
backward = torch is not None and hasattr(torch, "vander")

def survives():
    try:
        torch.ones(1, requires_grad=True).sum().backward()
        return True
    except RuntimeError as error:
        assert "fork" in str(error)
        return False

def everything():
    results = []
    for name in ic.available_backends():
        with ic.use_backend(name):
            if torch is None:
                x, w = np.ones((4, 8, 16, 16), "f"), np.ones((8, 8, 3, 3), "f")
            else:
                x = torch.autograd.Variable(torch.ones(4, 8, 16, 16), requires_grad=True)
                w = torch.autograd.Variable(torch.ones(8, 8, 3, 3), requires_grad=True)
            for op in ("l1", "max_plus"):
                y = ic.conv2d(x, w, padding=1, op=op)
                if backward:
                    y.sum().backward()
                results.append(float(y.sum() if torch is None else (y.data.sum())))
            c = ic.unfold(x, 3)
            results.append(float((ic.fold(c, 16, 3)).sum() if torch is None else ic.fold(c, 16, 3).data.sum()))
    return results

{threads}
expected = everything()
child = os.fork()
if not child:
    {child_threads}
    backward = backward and survives()
    os._exit(0 if everything() == expected else 3)
deadline = time.time() + 60
while time.time() < deadline:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        print(status)
        break
    time.sleep(0.05)
else:
    os.kill(child, 9)
    print("hangs")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_call_everything():
    """After the parent has called everything, a fork (a DataLoader worker) can too."""
    # As in DataLoader's workers: PyTorch's own operations, ours or not, hang in a child that doesn't set one thread.
    child = "torch is not None and torch.set_num_threads(1)"
    assert run(FORK.format(threads="", child_threads=child))[0] == "0"


CONSTRUCT = """
import sys
sys.modules["torch"] = None
from im2col_compat import Conv2d, Fold, Linear, Unfold

for construct in (lambda: Conv2d(1, 1, 1), lambda: Linear(1, 1), lambda: Unfold(2), lambda: Fold(4, 2)):
    try:
        construct()
    except ImportError as error:
        print("PyTorch" in str(error))
"""


def test_without_torch_construction_says_why():
    """The layers can be imported and named, but not constructed."""
    assert anew(CONSTRUCT)[0].split() == ["True"] * 4


@pytest.mark.skipif(torch is None, reason="needs torch")
def test_dataloader_workers():
    """unfold and conv2d with an op work in DataLoader workers, after the parent has used them."""
    from torch.utils.data import DataLoader

    parent = Item()[3]
    found = list(DataLoader(Item(), batch_size=1, num_workers=2))
    assert len(found) == 4
    np.testing.assert_array_equal(np.asarray(values(found[3][0])), np.asarray(values(parent)))


class Item(object):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        x = torch.ones(1, 2, 6, 6) * i
        columns = unfold(x, 3)
        return conv2d(x, torch.ones(3, 2, 3, 3), op="l1")[0] + columns.sum()


def test_threads():
    """Calls from several threads at once give what one thread gives."""
    x, w = make("numpy", some((2, 3, 20, 20))), make("numpy", some((4, 3, 3, 3)))
    expected = conv2d(x, w, op="l1")
    results = [None] * 8

    def work(i):
        for _ in range(5):
            results[i] = conv2d(x, w, op="l1")

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results:
        np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("name", [name for name in available_backends() if name != "torch"])
def test_the_engine_is_captured_in_the_forward(name, monkeypatch):
    """A backward outside the with-block uses the forward's engine."""
    x = make("tensor", some((1, 1, 4, 4)), requires_grad=True)
    with use_backend(name):
        columns = unfold(x, 2)
    engine = backends.ENGINES[backends.NAMES.index(name)]
    col2im, calls = engine.col2im, []
    monkeypatch.setattr(engine, "col2im", lambda *arguments: calls.append(arguments) or col2im(*arguments))
    (columns * columns).sum().backward()
    assert values(x.grad).shape == (1, 1, 4, 4)
    assert len(calls) == 1


def test_report():
    """python -m im2col_compat names the versions, every engine with its reason, and the threads."""
    process = subprocess.Popen(
        [sys.executable, "-m", "im2col_compat"], stdout=subprocess.PIPE, cwd=os.path.dirname(__file__)
    )
    text = process.communicate()[0].decode()
    assert process.returncode == 0
    for expected in (
        "Python",
        "PyTorch",
        "engine 'torch'",
        "engine 'ffi'",
        "engine 'slices'",
        "CUDA kernels",
        "threads",
        im2col_compat.__version__,
    ):
        assert expected in text
    assert "engine chosen:   {}".format(backend()) in text
    if torch is not None:
        assert torch.__version__ in text
    if lowlevel.missing is None:
        assert lowlevel.compiler() in text
    assert np.__version__ in text


# ---------------------------------------------------------------- tensors that are not what they seem


@pytest.mark.skipif(torch is None or not hasattr(torch, "_efficientzerotensor"), reason="needs lazy zeros (1.11)")
def test_lazy_zeros():
    """Zeros that take no memory are zeros to every engine that takes them."""
    for name in ("auto", "torch", "slices"):
        with use_backend(name):
            assert float(abs(unfold(torch._efficientzerotensor((1, 1, 4)), (2,))).sum()) == 0
    if "ffi" in available_backends():
        with use_backend("ffi"), pytest.raises(RuntimeError, match="no memory"):
            unfold(torch._efficientzerotensor((1, 1, 4)), (2,))


@pytest.mark.skipif(not hasattr(torch, "compiler"), reason="needs today's torch")
def test_simulated_tensors():
    """Fake tensors have shapes and no memory; what make_fx records computes what was computed."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    with FakeTensorMode():
        for shape, kernel in (((1, 2, 5), (2,)), ((1, 2, 5, 5), 2), ((1, 2, 4, 5, 6), 2)):
            columns = unfold(torch.randn(shape), kernel)
            assert tuple(columns.shape) == unfold(np.zeros(shape), kernel).shape
        assert unfold(torch.ones((1, 1, 5, 5), dtype=torch.int64), 2).shape == (1, 4, 16)
    for mode in ("real", "fake", "symbolic"):
        for shape, kernel in (((1, 2, 5), (2,)), ((1, 2, 5, 5), 2), ((1, 2, 4, 5, 6), 2)):
            x = torch.randn(shape)
            recorded = make_fx(lambda x: unfold(x, kernel), tracing_mode=mode)(torch.ones(shape))
            assert torch.equal(recorded(x), unfold(x, kernel))


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func (2.0)")
def test_out_and_transforms():
    """A derivative would be lost: out is refused."""
    x, out = torch.randn(1, 1, 5), torch.zeros(1, 2, 4)
    with pytest.raises(RuntimeError, match="out can't be given"):
        torch.func.jvp(lambda x: unfold(x, (2,), out=out), (x,), (x,))


def test_a_geometry_can_be_copied():
    """What is remembered of it isn't part of it."""
    import copy
    import pickle

    from im2col_compat.problem import unfold_geometry

    unfold(np.zeros((1, 1, 4, 4), "float32"), 2)
    geometry = unfold_geometry((1, 1, 4, 4), 2, 1, 0, 1)
    for same in (copy.deepcopy(geometry), pickle.loads(pickle.dumps(geometry, 2))):
        assert same == geometry and type(same) is type(geometry)
