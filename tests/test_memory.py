"""Extra memory beside results and gradients stays under the stated bound."""

import gc
import os

import pytest
from helpers.processes import run
from helpers.tensors import torch

from im2col_compat import Op, available_backends, chunks, conv2d
from im2col_compat.compat import memory

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


# Operands that aren't dense, gradients that are expanded, words and sums that are larger than what they are made of. Each
# row: a name, what makes the operands, the call, and whether gradients are measured too.
LAYOUTS = MEASURE[: MEASURE.index("op = ")].format(requires_grad=False) + """
from im2col_compat.compat.probes import VARIABLES

bits = ic.Op.from_table(np.arange(65536).reshape(256, 256) % 251)
rows = []

def row(name, operands, call, gradients=False):
    rows.append((name, operands, call, gradients))

def array(dtype, *shape):
    return np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)

def tensor(*shape):
    return torch.from_numpy(array("float32", *shape))

def columns(function, *arguments, **options):
    with ic.use_backend("ffi"):
        return function(*arguments, **options)

conv = lambda x, w: ic.conv2d(x, w, op="l1", stride=4)
linear = lambda x, w: ic.linear(x, w, op="l1")
matmul = lambda a, b: ic.matmul(a, b, op="l1")
weight = lambda: array("float32", 2, 16, 3, 3)
row("Fortran", lambda: (np.asfortranarray(array("float32", 8, 16, 300, 300)), weight()), conv)
row("flipped", lambda: (array("float32", 8, 16, 300, 300)[:, ::-1, ::-1, ::-1], weight()), conv)
row("integers", lambda: (array("int32", 8, 300, 300, 16).transpose(0, 3, 1, 2), weight().astype("int32")), conv)
row("weight", lambda: (array("float32", 4, 6000), array("float32", 6000, 3000).T), linear)
row("input", lambda: (array("float32", 6000, 3000).T, array("float32", 4, 6000)), linear)
row("table", lambda: (array("uint8", 8000, 5000).T, array("uint8", 4, 8000)),
    lambda x, w: ic.linear(x, w, op=bits))
row("words", lambda: (array("bool", 8, 64, 250, 250), array("bool", 64, 1, 3, 3)),
    lambda x, w: ic.conv2d(x, w, op="xnor", stride=8, groups=64))
row("words of an image", lambda: (array("int8", 1, 1, 4000, 4000), array("int8", 2, 1, 3, 3)),
    lambda x, w: ic.conv2d(x, w, op="xnor", stride=8))
row("batches", lambda: (array("float32", 400, 1, 1, 400), array("float32", 1, 400, 400, 1)), matmul)
row("moved batches", lambda: (array("float32", 4, 64), array("float32", 40, 64, 64, 64).swapaxes(0, 1)),
    matmul)
row("fold", lambda: (array("float32", 4, 9 * 16 * 16, 24 * 24)[:, :, ::-1],), lambda x: columns(ic.fold, x, (26, 26), 3))
row("unfold", lambda: (array("float32", 8, 300, 300, 16).transpose(0, 3, 1, 2),),
    lambda x: columns(ic.unfold, x, 3, stride=4))
if torch is not None and not VARIABLES:
    wide = lambda: (tensor(8, 16, 300, 300).transpose(2, 3), torch.from_numpy(weight()))
    row("transposed", wide, conv, True)
    row("expanded", lambda: (tensor(1, 16, 300, 300).expand(8, 16, 300, 300), torch.from_numpy(weight())), conv, True)
    row("transposed weight", lambda: (tensor(4, 6000), tensor(6000, 3000).t()), linear, True)
    row("gradient of a sum", lambda: (tensor(5000, 4), tensor(4000, 4)), linear, True)
    row("repeated batches", lambda: (tensor(64, 1, 64, 64), tensor(1, 64, 64, 64)), matmul, True)
    row("many terms", lambda: (tensor(1, 10**7), tensor(1, 10**7)), lambda x, w: ic.linear(x, w, op="max_plus"), True)
    torch.set_num_threads(1)

def size(tensors):
    return sum(t.nbytes if isinstance(t, np.ndarray) else t.numel() * t.element_size() for t in tensors)

small = array("float32", 1, 2, 6, 6), array("float32", 3, 2, 3, 3)
for op in ("l1", "xnor"):
    ic.conv2d(small[0], small[1], op=op)
for name, operands, call, gradients in rows:
    operands = operands()
    before = start()
    result = call(*operands)
    print("{}: {}".format(name, peak() - before - size([result])))
    if gradients:
        operands = [t.requires_grad_() for t in operands]
        result = call(*operands)
        before = start()
        found = torch.autograd.grad(result.sum(), operands)
        print("{}, gradients: {}".format(name, peak() - before - size(found)))
        del found
    del operands, result
"""

#: What the guide promises for a thread.
LIMIT = 16 * 2**20


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
@pytest.mark.skipif("ffi" not in available_backends(), reason="needs the C library")
def test_operands_of_any_layout_are_not_copied():
    """However large operands lie, and whatever a gradient's strides, a call adds less than 16 MiB."""
    # What is freed goes back at once: what malloc keeps is as fragmented as it happens to be.
    output = run(LAYOUTS, OMP_NUM_THREADS="1", MALLOC_MMAP_THRESHOLD_="131072")[0]
    lines = [line.rsplit(": ", 1) for line in output.splitlines()]
    assert len(lines) >= 12
    if getattr(torch, "__version__", "").startswith("1.0."):
        # PyTorch's own backward of what is repeated takes more there, now and then.
        lines = [line for line in lines if line[0] != "repeated batches, gradients"]
    assert {name: float(extra) / 2**20 for name, extra in lines if float(extra) > LIMIT} == {}


def test_results_are_compared_with_what_is_free(monkeypatch):
    """A result for which there is no memory is an error, not a process that the system kills."""
    asked = []
    monkeypatch.setattr(memory, "_meminfo", lambda *keys: asked.append(keys) or 2**29)
    memory.check_memory((2**27,), 4)
    with pytest.raises(
        RuntimeError, match=r"not enough memory: a result of shape \(134217729,\) needs 536870916 bytes"
    ):
        memory.check_memory((2**27 + 1,), 4)
    assert len(asked) == 2
    memory.check_memory((1000, 1000), 4)  # small: nothing is asked
    assert len(asked) == 2


OPS = {
    "abs": Op(lambda w, x: abs(w - x)),
    "product": Op(lambda w, x: 2 * w * x),
    "product of functions": Op(lambda w, x: w.tanh() * x.sin()),
    "own add": Op(lambda w, x: w * x, lambda acc, term: acc * 0.5 + term),
    "own gradients": Op(lambda w, x: w.sign() * x.sign(), grad_w=lambda w, x: x * 1, grad_x=lambda w, x: w * 1),
}


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs today's torch")
@pytest.mark.parametrize("op", ["dot", "l1", "adder", "xnor", "max_plus"] + sorted(OPS))
def test_tensors_go_with_the_last_reference(op):
    """No call leaves tensors in a cycle, for Python to find some time later."""
    # Numbers of elements that other tests' tensors, which a cycle may still hold, don't have.
    sizes = 2 * 17 * 19, 7 * 2 * 3 * 3, 7 * 15 * 17

    def call(requires_grad):
        x, w = torch.randn(1, 2, 17, 19), torch.randn(7, 2, 3, 3, requires_grad=requires_grad)
        y = conv2d(x.requires_grad_(requires_grad), w, op=OPS.get(op, op))
        if requires_grad:
            y.sum().backward()

    for requires_grad in (False, True):
        call(requires_grad)  # compiles what is compiled once
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            call(requires_grad)
            gc.collect()
            assert not any(isinstance(left, torch.Tensor) and left.numel() in sizes for left in gc.garbage)
        finally:
            gc.set_debug(0)
            del gc.garbage[:]
