"""What 0.5.0 pickled and saved loads, and gives the numbers that it gave there. saved/make.py made the files."""

import importlib
import io
import json
import os
import pickle
import tarfile
import warnings

import im2col_compat
import numpy as np
import pytest
from im2col_compat import conv2d, ops

try:
    import torch
except ImportError:
    torch = None

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "saved", "0.5.0.tar.bz2")
with tarfile.open(PATH, "r:bz2") as archive:
    MEMBERS = dict((name, archive.extractfile(name).read()) for name in archive.getnames())
ARRAYS = np.load(io.BytesIO(MEMBERS["arrays.npz"]))
CASES = json.loads(MEMBERS["cases.json"].decode("ascii"))

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")


def cases(kind):
    return pytest.mark.parametrize("case", [c for c in CASES if c["kind"] == kind], ids=lambda c: str(c["name"]))


def loaded(name, load):
    """What load() gives. A test is skipped where PyTorch or Python lack something that the file names."""
    try:
        with warnings.catch_warnings():
            # Old files have the text of classes, and PyTorch tells where it has changed.
            warnings.simplefilter("ignore")
            return load(MEMBERS[name + ".pickle"])
    except (ImportError, AttributeError) as error:
        if "im2col_compat" in str(error):
            raise
        pytest.skip("this file needs another PyTorch or Python: {}".format(error))


def torch_load(tmpdir):
    """A function that reads what torch.save has written; 0.3 reads real files only."""

    def load(text):
        path = tmpdir.join("saved")
        path.write_binary(text)
        return torch.load(str(path), **({"weights_only": False} if hasattr(torch, "compile") else {}))

    return load


def unless_missing(call):
    """What call() gives. A test is skipped where PyTorch lacks what its own layers or quantized ones in the file need."""
    try:
        return call()
    except (ImportError, AttributeError) as error:
        if "quantized layers need" not in str(error) and "'ReLU' object has no attribute" not in str(error):
            raise
        pytest.skip(str(error))


def tensor(array, requires_grad=False):
    # Of 0.3 that takes a Variable.
    return torch.autograd.Variable(torch.from_numpy(array), requires_grad=requires_grad)


def assert_same(found, case, key=None):
    expected = ARRAYS[key or case["name"]]
    assert found.dtype == expected.dtype
    if case["exact"]:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@cases("op")
def test_ops(case):
    """A pickled op of any kind loads, and conv2d gives the result, and the weight's gradient, that it gave in 0.5.0."""
    if "torch" in case["needs"] and torch is None:
        pytest.skip("needs torch")
    op = loaded(case["name"], pickle.loads)
    if "compiler" in case["needs"] and "C kernels" not in op.explain(str(case["dtype"])):
        pytest.skip("needs a C compiler")
    x, w = ARRAYS["x." + case["dtype"]], ARRAYS["w." + case["dtype"]]
    if "torch" not in case["needs"]:
        return assert_same(conv2d(x, w, padding=1, op=op), case)
    x, w = tensor(x), tensor(w, case["gradient"])
    y = conv2d(x, w, padding=1, op=op)
    assert_same(y.data.numpy(), case)
    if case["gradient"]:
        y.sum().backward()
        assert_same(w.grad.data.numpy(), case, case["name"] + ".gradient")


@pytest.mark.parametrize("name", ["dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"])
def test_named_ops_are_themselves(name):
    """A pickled named op loads as the named op itself, not as a copy."""
    assert loaded(name, pickle.loads) is getattr(ops, name)


@needs_torch
@cases("layer")
def test_layers(case, tmpdir):
    """A saved layer loads with its settings, op and parameters, and gives the result that it gave in 0.5.0."""
    layer = loaded(case["name"], torch_load(tmpdir))
    assert_same(unless_missing(lambda: layer(tensor(ARRAYS[case["name"] + ".input"]))).data.numpy(), case)


@needs_torch
@cases("state")
def test_state_dicts(case, tmpdir):
    """A saved state dict loads into a layer made today: all keys match, and the result is the one that 0.5.0 gave."""
    state = loaded(case["name"], torch_load(tmpdir))
    options = dict((str(name), value) for name, value in case["options"].items())
    layer = unless_missing(lambda: getattr(im2col_compat, case["layer"])(*case["arguments"], **options))
    layer.load_state_dict(state)
    assert_same(layer(tensor(ARRAYS[case["name"] + ".input"])).data.numpy(), case)


@pytest.mark.parametrize(
    "path",
    """
    modules.Conv1d modules.Conv2d modules.Conv3d modules.Linear modules.Unfold modules.Fold
    op.Op op.CText op.resolve op.NAMED table.Table
    ops.dot ops.l1 ops.adder ops.l2 ops.xnor ops.max_plus ops.min_plus
    binary.BinaryConv2d binary.BinaryLinear quantized.QuantConv2d quantized.QuantLinear
    columns.unfold columns.fold conv.conv1d conv.conv2d conv.conv3d conv.linear conv.matmul
    conversion.convert drawing.draw
    """.split(),
)
def test_import_paths(path):
    """0.5.0's names can be imported from where they were, and are what the package itself exports."""
    module, name = path.split(".")
    found = getattr(importlib.import_module("im2col_compat." + module), name)
    if name in im2col_compat.__all__:
        assert found is getattr(im2col_compat, name)
