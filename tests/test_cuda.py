"""The same results on a GPU: every engine that serves it, every op, first and second derivatives."""

import numpy as np
import pytest
from helpers import problems
from helpers.ops import OPS
from helpers.tensors import make, some, torch, values

from im2col_compat import available_backends, backend, chunks, conv2d, fold, unfold, use_backend

if torch is None or not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

ENGINES = [name for name in available_backends() if name != "ffi"]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int32", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("problem", ["plain", "asymmetric", "mostly-padding", "gaps"])
def test_columns(name, dtype, problem):
    """unfold and fold on the GPU are those on the CPU."""
    if name == "torch" and dtype in ("int32", "uint8"):
        pytest.skip("F.unfold takes no integers")
    shape, kernel, dilation, padding, stride = problems.COLUMNS[problem]
    x = make("tensor", some(shape, dtype), dtype)
    with use_backend(name):
        columns = unfold(x.cuda(), kernel, dilation, padding, stride)
        image = fold(columns, shape[2:], kernel, dilation, padding, stride)
    expected = unfold(x, kernel, dilation, padding, stride)
    assert columns.is_cuda and columns.dtype == x.dtype
    np.testing.assert_array_equal(values(columns), values(expected))
    np.testing.assert_array_equal(values(image), values(fold(expected, shape[2:], kernel, dilation, padding, stride)))


@pytest.mark.parametrize("op", sorted(OPS))
def test_convolution(op):
    """Results and gradients of every op on the GPU are those on the CPU."""
    results = []
    for cuda in (False, True):
        leaves = [
            make("tensor", some(shape, seed=i) / 4, requires_grad=True)
            for i, shape in enumerate([(2, 4, 6, 5), (6, 2, 3, 2), (6,)])
        ]
        tensors = [leaf.cuda() if cuda else leaf for leaf in leaves]
        y = conv2d(tensors[0], tensors[1], tensors[2], (2, 1), (1, 2), (1, 2), 2, op=OPS[op][0])
        (y * y).sum().backward()
        results.append([values(y)] + [values(leaf.grad) for leaf in leaves])
    for found, expected in zip(*results):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_the_c_library_refuses():
    """Forcing "ffi" on a GPU tensor is an error; mixed devices are one too."""
    x = make("tensor", some((1, 1, 4, 4))).cuda()
    assert backend(x) in ENGINES
    if "ffi" in available_backends():
        with use_backend("ffi"), pytest.raises(RuntimeError) as info:
            unfold(x, 2)
        assert "cuda" in str(info.value)
    with pytest.raises(RuntimeError) as info:
        conv2d(x, x.cpu(), op="l1")
    assert "weight" in str(info.value) and "cuda" in str(info.value)


@pytest.mark.parametrize("op", ["l1", "max_plus"])
def test_memory(op):
    """Tensor operations stay under the limit for GPUs, where the terms would take five times as much."""
    x, w = torch.randn(8, 64, 56, 56, device="cuda"), torch.randn(96, 64, 3, 3, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    y = conv2d(x, w, padding=1, op=op)
    assert torch.cuda.max_memory_allocated() - before - 4 * y.numel() <= chunks.device_memory_limit


def test_batched_gradients():
    """is_grads_batched, whose gradients a GPU computes in another thread."""
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        x, w, grads = [torch.randn(s).to(device) for s in ((1, 2, 5, 4), (3, 2, 2, 2), (4, 1, 3, 4, 3))]
        x, w = x.requires_grad_(), w.requires_grad_()
        found.append(torch.autograd.grad(conv2d(x, w, op="l1"), (x, w), grads, is_grads_batched=True))
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-4, atol=1e-5)
