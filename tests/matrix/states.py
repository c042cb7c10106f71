"""State dicts move between versions of PyTorch: saved by one, loaded by another, the same results.

    python states.py save FOLDER NAME     layers with every named op, their input and result, in FOLDER/NAME.pth
    python states.py load FOLDER          every .pth there

Runs on any Python and PyTorch.
"""

import glob
import os
import sys

import numpy as np
import torch
from im2col_compat import Conv2d, ops
from torch.autograd import Variable

NAMES = ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus")
assert all(hasattr(ops, name) for name in NAMES)
# PyTorch since 1.6 writes another format, which versions before can't read, unless told; 0.3 lacks a function that files
# of 0.4 and later name. docs/guide.md tells users the same.
LEGACY = {"_use_new_zipfile_serialization": False} if hasattr(torch.serialization, "_open_zipfile_writer") else {}
if not hasattr(torch._utils, "_rebuild_tensor_v2"):

    def _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks):
        return torch._utils._rebuild_tensor(storage, offset, size, stride)

    torch._utils._rebuild_tensor_v2 = _rebuild_tensor_v2


def net(name):
    return torch.nn.Sequential(Conv2d(2, 3, 3, padding=1, op=name), torch.nn.BatchNorm2d(3), Conv2d(3, 4, 2, op=name))


def result(layers, x):
    return layers(Variable(x)).data


def save(path):
    torch.manual_seed(0)
    saved = {"input": torch.randn(2, 2, 6, 5)}
    for name in NAMES:
        layers = net(name).eval()
        saved[name] = dict(layers.state_dict(), result=result(layers, saved["input"]))
    torch.save(saved, path, **LEGACY)


def load(path):
    saved = torch.load(path)
    for name in NAMES:
        layers = net(name).eval()
        state = dict(saved[name])
        expected = state.pop("result")
        # 0.3 and its BatchNorm2d know no count of batches.
        known = layers.state_dict()
        layers.load_state_dict(dict({key: known[key] for key in known}, **{k: state[k] for k in state if k in known}))
        found = result(layers, saved["input"])
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    folder = sys.argv[2]
    if sys.argv[1] == "save":
        save(os.path.join(folder, sys.argv[3] + ".pth"))
    else:
        for path in sorted(glob.glob(os.path.join(folder, "*.pth"))):
            load(path)
            print("torch {} has loaded {}".format(torch.__version__, os.path.basename(path)))
