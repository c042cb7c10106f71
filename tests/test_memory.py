"""Extra memory beside results and gradients stays under the stated bound."""

import os

import pytest
from helpers.processes import run
from helpers.tensors import torch

from im2col_compat import chunks

# A process of its own, so that its peak is this call's: columns alone would take 104 MB, terms two or three times that.
MEASURE = """
import numpy as np
import im2col_compat as ic
from im2col_compat.compat.probes import torch

def memory(key):
    with open("/proc/self/status") as lines:
        return [int(line.split()[1]) * 1024 for line in lines if line.startswith(key)][0]

def start():
    # The peak starts anew: a new process has its parent's.
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
    return memory("VmRSS:")

def peak():
    return memory("VmHWM:")

def make(*shape):
    array = np.random.RandomState(0).rand(*shape).astype("float32")
    if torch is None:
        return array
    return torch.autograd.Variable(torch.from_numpy(array), requires_grad={requires_grad})

op = {op}
small = make(1, 2, 6, 6), make(3, 2, 3, 3)
y = ic.conv2d(small[0], small[1], padding=1, op=op)  # loads what is loaded once
if {requires_grad}:
    y.sum().backward()
x, w = make(*{x}), make(*{w})
before = start()
y = ic.conv2d(x, w, padding=1, op=op)
result = np.prod([int(size) for size in y.shape]) * 4
forward = peak() - before - result
print(forward)
if {requires_grad}:
    # sum()'s gradient is expanded: it takes no memory
    y.sum().backward()
    gradients = sum(np.prod([int(size) for size in t.shape]) * 4 for t in (x, w))
    print(peak() - before - result - gradients)
"""

SHAPES = [((4, 16, 224, 224), (2, 16, 3, 3)), ((1, 2, 1200, 1200), (3, 2, 3, 3))]


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
@pytest.mark.parametrize(
    "x,w,op",
    [shapes + (op,) for shapes in SHAPES for op in ("'l1'", "'dot'", "'xnor'", "lambda w, x: w * x + w")]
    + [SHAPES[1] + ("ic.Op(lambda w, x: w * x, lambda a, t: a + t)",)],
)
def test_extra_memory_is_bounded(x, w, op):
    """Forward and backward of a convolution whose columns take 100 MB add less than chunks.memory_limit."""
    code = MEASURE.format(x=x, w=w, op=op, requires_grad=torch is not None)
    if op == "'dot'":
        code = code.replace("op = ", "ic.use_backend(ic.available_backends()[-1])\nop = ")
    output = run(code)[0].split()
    assert len(output) == (1 if torch is None else 2)
    for extra in output:
        assert float(extra) <= chunks.memory_limit, "{:.0f} MB".format(float(extra) / 1e6)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
@pytest.mark.parametrize(
    "call",
    [
        "ic.conv2d(make(1, 3, 2048, 2048), make(1, 3, 1, 1), stride=16, op='l1')",
        "ic.conv2d(make(1, 1, 512, 512), make(128, 1, 1, 1), op='dot')",
        "ic.linear(make(1, 300000), make(1, 300000), op=ic.Op(lambda w, x: w * x, lambda a, t: a + t))",
    ],
    ids=["wide-stride", "many-filters", "long-add"],
)
def test_shapes_that_once_took_more(call):
    """Strides that pass over pixels, products of many filters, own adds of many terms."""
    if "300000" in call and torch is not None:
        call = call.replace("300000", "30000")
    code = MEASURE[: MEASURE.index("op = ")].format(requires_grad=False) + """
with ic.use_backend(ic.available_backends()[-1]):
    ic.conv2d(make(1, 2, 6, 6), make(3, 2, 3, 3), op="l1")
    before = start()
    make_ = make
    operands = []
    def make(*shape):
        operands.append(make_(*shape))
        return operands[-1]
    y = {call}
    held = sum(np.prod([int(size) for size in t.shape]) * 12 for t in operands) + np.prod([int(size) for size in y.shape]) * 4
    print(peak() - before - held)
""".replace("{call}", call)
    extra = run(code)[0]
    assert float(extra) <= chunks.memory_limit, "{:.0f} MB".format(float(extra) / 1e6)
