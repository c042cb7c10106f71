"""Warnings name the line that a user would change, not one of ours."""

import json
import os

import pytest
from helpers.processes import run
from helpers.tensors import torch

from im2col_compat import lowlevel

#: Each case is a call on a line of its own, made in a child of one process, as a warning comes once in each.
SCRIPT = """
import functools, json, os, signal, sys, warnings
import numpy as np
{hidden}
import im2col_compat as ic
try:
    import torch
except ImportError:
    torch = None

of_numpy = np.arange(32.0).reshape(1, 2, 4, 4), np.ones((3, 2, 2, 2))
if torch is not None:
    x, w = (torch.from_numpy(array) for array in of_numpy)
    integers = x.long()
    if not hasattr(torch, "no_grad"):  # 0.3
        x, w, integers = (torch.autograd.Variable(tensor) for tensor in (x, w, integers))

def own(w, x):
    return w * x - 17 * w

def changing(number):
    return ic.Op(lambda w, x: functools.reduce(lambda total, _: total + w, range(number), w * x))

def layer(make):
    layer = make()
    return layer.double() if hasattr(layer, "double") else layer

{cases}

for name in sorted(calls):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        if torch is not None:
            torch.set_num_threads(1)  # a forked child has no threads of its parent's, and would wait for them
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            calls[name]()
        found = [[w.filename, w.lineno - calls[name].__code__.co_firstlineno] for w in caught if {text!r} in str(w.message)]
        sys.stdout.write(json.dumps([name, found]) + chr(10))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""

ARRAYS = {
    "conv1d": "ic.conv1d(of_numpy[0][0], of_numpy[0][0][:, :, :2], op={op})",
    "conv2d": "ic.conv2d(*of_numpy, op={op})",
    "conv3d": "ic.conv3d(of_numpy[0][None], of_numpy[1][:, None], op={op})",
    "linear": "ic.linear(of_numpy[0], of_numpy[0][0, 0], op={op})",
    "matmul": "ic.matmul(*[of_numpy[0]] * 2, op={op})",
}
TENSORS = {
    "conv2d of tensors": "ic.conv2d(x, w, op={op})",
    "Conv2d": "layer(lambda: ic.Conv2d(2, 3, 2, op={op}))(x)",
    "Linear": "layer(lambda: ic.Linear(4, 3, op={op}))(x)",
    "a layer in a layer": "torch.nn.Sequential(layer(lambda: ic.Conv2d(2, 3, 2, op={op})))(x)",
}
COLUMNS = {
    "unfold": "ic.unfold(of_numpy[0], 2)",
    "fold": "ic.fold(np.ones((1, 8, 9)), 4, 2)",
    "backend": "ic.backend(of_numpy[0])",
}
COLUMNS_OF_TENSORS = {
    "unfold of tensors": "ic.unfold(integers, 2)",
    "Unfold": "ic.Unfold(2)(integers)",
    "Fold": "ic.Fold(4, 2)(ic.unfold(integers, 2) if False else integers.view(1, 8, 4)[:, :, :1].repeat(1, 1, 9))",
}


def named_lines(folder, calls, text, hidden="", **environment):
    """For each of the calls, what its warnings with a text name: files, and lines after the call's."""
    cases = ["calls = {"] + ["    {!r}: lambda: {},".format(name, call) for name, call in sorted(calls.items())] + ["}"]
    script = folder.join("script.py")
    script.write(SCRIPT.format(cases="\n".join(cases), text=text, hidden=hidden))
    code = "import runpy; runpy.run_path({!r}, run_name='__main__')".format(str(script))
    out, _ = run(code, IM2COL_COMPAT_CACHE=str(folder.join("cache")), **environment)
    return {name: found for name, found in map(json.loads, out.splitlines())}, str(script)


def of_each(calls, op):
    return {name: call.format(op=op) for name, call in calls.items()}


needs_library = pytest.mark.skipif(bool(lowlevel.missing), reason="needs the C library")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_library
@needs_fork
def test_without_a_compiler(tmpdir):
    """That ops can't be compiled is said once, and names the line that calls the function or the layer."""
    calls = of_each(dict(ARRAYS, **({} if torch is None else TENSORS)), "own")
    found, script = named_lines(tmpdir, calls, "can't compile", CC="/nonexistent/cc")
    assert found == {name: [[script, 0]] for name in calls}


@needs_library
@needs_fork
def test_of_numbers_that_change(tmpdir):
    """That a function gives other C from call to call names the line of the call."""
    calls = of_each(dict(ARRAYS, **({} if torch is None else TENSORS)), "changing(i)")
    # Nothing is kept: functions that live on, as in the graph of a result, are ops of their own.
    calls = {name: "[({}) is None for i in range(40)]".format(call) for name, call in calls.items()}
    found, script = named_lines(tmpdir, calls, "gives another piece of C", CC="/nonexistent/cc")
    assert found and all(lines and lines == [[script, 0]] * len(lines) for lines in found.values()), found


@needs_fork
def test_without_the_c_library(tmpdir):
    """That the C library is missing is said once, and names the line whose engine had to be slower for it."""
    calls = dict(COLUMNS, **of_each({name: ARRAYS[name] for name in ("conv1d", "conv2d", "conv3d")}, "own"))
    if torch is not None:
        calls.update(COLUMNS_OF_TENSORS)
    hidden = 'sys.modules["im2col_compat._im2col"] = None'
    found, script = named_lines(tmpdir, calls, "without its C library", hidden)
    assert found == {name: [[script, 0]] for name in calls}


@needs_library
@needs_fork
def test_slow_ops(tmpdir):
    """That tensor operations evaluate an op is said once for the op, where that takes long, at the line of the call."""
    calls = {
        "small": "ic.conv2d(np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3)), op=lambda w, x: np.sinc(w * x))",
        "large": "[ic.conv2d(np.ones((4, 8, 32, 32)), np.ones((16, 8, 3, 3)), op=lambda w, x: np.sinc(w * x)) for i in range(2)]",
    }
    found, script = named_lines(tmpdir, calls, "evaluated with tensor operations, several")
    assert found == {"small": [], "large": [[script, 0]]}
