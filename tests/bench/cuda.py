"""The speed of ops on a GPU, where tensor operations evaluate them, beside PyTorch's own. Writes docs/cuda.md.

make bench-cuda, or python tests/bench/cuda.py --output docs, with a CUDA build of PyTorch on a machine with a GPU.
"""

import argparse
import statistics
import warnings
from pathlib import Path

import torch
from torch.nn import functional

import im2col_compat
from im2col_compat import Op, chunks, conv2d
from im2col_compat.compat.warn import SlowPathWarning

BATCH = 32
#: name: channels, size of the image, filters, groups; kernels are 3 x 3, with stride and padding 1
LAYERS = {
    "64 channels, 56 x 56": (64, 56, 64, 1),
    "128 channels, 28 x 28": (128, 28, 128, 1),
    "256 channels, 14 x 14": (256, 14, 256, 1),
    "512 channels, 7 x 7": (512, 7, 512, 1),
    "128 channels, 56 x 56, depthwise": (128, 56, 128, 128),
}
OPS = {
    "l1": "l1",
    "max_plus": "max_plus",
    "xnor": "xnor",
    "exp(-(w - x)^2)": Op(lambda w, x: torch.exp(-((w - x) ** 2))),
}

PAGE = """# Speed on a GPU

im2col_compat {version}, PyTorch {torch}, {gpu}. `make bench-cuda` measures this and writes this page.

There are no kernels for GPUs yet. Tensor operations evaluate every op but "dot", in blocks: a call may take a sixteenth of
the GPU's memory, and at most {limit:.0f} MiB. A batch has {batch} images, kernels are 3 x 3. F.conv2d's times, without TF32, are in
milliseconds, the others are multiples of them: forward and, after the slash, forward and backward, the median of {runs} runs
by CUDA events. cdist is torch.cdist(p=1) of F.unfold's columns, forward. MiB is the memory of l1's forward beside its
result. Results were compared with those of a CPU in float64.

{table}
"""
RUNS = 5


def median_ms(function):
    """The median of a function's milliseconds on the GPU."""
    function()
    times = []
    for _ in range(RUNS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def memory(function):
    """The MiB that a function needs beside its result."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - 4 * result.numel()) / 2**20


def pair(function, x, w):
    """Milliseconds of forward, and of forward and backward."""
    leaves = x.detach().requires_grad_(), w.detach().requires_grad_()
    grad = torch.randn_like(function(x, w))
    return median_ms(lambda: function(x, w)), median_ms(lambda: torch.autograd.grad(function(*leaves), leaves, grad))


def by_cdist(x, w):
    columns = functional.unfold(x, 3, padding=1).transpose(1, 2)
    return torch.cdist(columns, w.flatten(1).expand(len(x), -1, -1), p=1.0)


def row(name, channels, size, filters, groups):
    torch.manual_seed(0)
    x = torch.randn(BATCH, channels, size, size, device="cuda")
    w = torch.randn(filters, channels // groups, 3, 3, device="cuda")
    plain = pair(lambda x, w: functional.conv2d(x, w, padding=1, groups=groups), x, w)
    cells = [name, "{:.2f} / {:.2f} ms".format(*plain)]
    for op in OPS.values():
        found = conv2d(x[:1], w, padding=1, groups=groups, op=op)
        right = conv2d(x[:1].double().cpu(), w.double().cpu(), padding=1, groups=groups, op=op)
        torch.testing.assert_close(found.double().cpu(), right, rtol=1e-3, atol=1e-3)
        ours = pair(lambda x, w: conv2d(x, w, padding=1, groups=groups, op=op), x, w)  # noqa: B023
        cells.append("{:.0f} / {:.0f}".format(*[one / other for one, other in zip(ours, plain)]))
    cells.append("{:.0f}".format(median_ms(lambda: by_cdist(x, w)) / plain[0]) if groups == 1 else "-")
    cells.append("{:.0f}".format(memory(lambda: conv2d(x, w, padding=1, groups=groups, op="l1"))))
    print(" | ".join(cells), flush=True)
    return cells


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="the folder of the page cuda.md")
    output = parser.parse_args().output
    warnings.simplefilter("ignore", SlowPathWarning)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    head = ["layer", "F.conv2d"] + list(OPS) + ["cdist", "MiB"]
    rows = [head, ["---"] * len(head)] + [row(name, *sizes) for name, sizes in LAYERS.items()]
    page = PAGE.format(
        version=im2col_compat.__version__, torch=torch.__version__.split("+")[0], gpu=torch.cuda.get_device_name(),
        limit=chunks.device_memory_limit / 2**20, batch=BATCH, runs=RUNS,
        table="\n".join("| {} |".format(" | ".join(cells)) for cells in rows))  # fmt: skip
    if output:
        (output / "cuda.md").write_text(page)


if __name__ == "__main__":
    main()
