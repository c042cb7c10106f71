"""The speed of ops on a GPU, beside PyTorch's own and other ways to compute the same. Writes a part of docs/cuda.md.

make bench-cuda, or python tests/cuda/speed.py [--seconds N], with a CUDA build of PyTorch on a machine with a GPU. What is
left when the seconds are over isn't measured.
"""

import argparse
import statistics
import time
import warnings

import torch
from page import replace
from torch import nn
from torch.nn import functional

import im2col_compat
from im2col_compat import Op, conv2d, matmul, ops
from im2col_compat.compat.warn import SlowPathWarning
from im2col_compat.cuda import device

BATCH = 32
#: name: channels, size of the image, filters, kernel, stride, groups; padded by half of the kernel
LAYERS = {
    "64 channels, 56 x 56": (64, 56, 64, 3, 1, 1),
    "128 channels, 28 x 28": (128, 28, 128, 3, 1, 1),
    "256 channels, 14 x 14": (256, 14, 256, 3, 1, 1),
    "512 channels, 7 x 7": (512, 7, 512, 3, 1, 1),
    "3 channels, 224 x 224, 7 x 7 by 2": (3, 224, 64, 7, 2, 1),
    "256 channels, 56 x 56, 1 x 1": (256, 56, 64, 1, 1, 1),
    "128 channels, 56 x 56, depthwise": (128, 56, 128, 3, 1, 128),
}
OPS = {
    "l1": "l1",
    "max_plus": "max_plus",
    "xnor": "xnor",
    "exp(-(w - x)^2)": Op(lambda w, x: torch.exp(-((w - x) ** 2))),
}

TEXT = """
im2col_compat {version}, PyTorch {torch}, {gpu}. {path}

A batch has {batch} images, kernels are 3 x 3 where nothing else is said. F.conv2d's times, without TF32, are in milliseconds; the
others are multiples of them, forward and, after the slash, forward and backward: medians by CUDA events. TF32 is F.conv2d
with it, cdist is torch.cdist(p=1) of F.unfold's columns, compiled is torch.compile of the broadcast absolute difference of these
columns. MiB is the memory that l1 takes beside its result, forward, and forward and backward. Results were compared with
those of a CPU in float64.

{layers}

{others}
"""
BEGIN = time.perf_counter()
RUNS = 9


class Clock(object):
    """What is left of the seconds."""

    def __init__(self, seconds):
        self.seconds = seconds

    def is_over(self):
        return time.perf_counter() - BEGIN > self.seconds


def median_ms(function):
    """The median of a function's milliseconds on the GPU."""
    function()
    torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    runs = RUNS if time.perf_counter() - start < 0.1 else 1
    times = []
    for _ in range(runs):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        function()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last))
    return statistics.median(times)


def memory(function, beside=0):
    """The MiB that a function needs, less so many bytes."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = function()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before - 4 * beside) / 2**20 if result is not None else 0


class Pair(object):
    """Forward, and forward and backward, of a function of x and w."""

    def __init__(self, function, x, w):
        leaves = x.detach().requires_grad_(), w.detach().requires_grad_()
        grad = torch.randn_like(function(x, w))
        self.results = grad.numel()
        self.forward = lambda: function(x, w)
        self.both = lambda: torch.autograd.grad(function(*leaves), leaves, grad)
        self.elements = x.numel() + w.numel()

    def times(self):
        return median_ms(self.forward), median_ms(self.both)


def tried(function):
    """What it returns, or why it doesn't."""
    try:
        return function()
    except Exception as error:
        print(" ".join(repr(error).split())[:300], flush=True)
        return None
    finally:
        torch.cuda.empty_cache()


def multiples(found, plain):
    return "-" if found is None else " / ".join("{:.3g}".format(one / other) for one, other in zip(found, plain))


def check(call, x, w):
    right = call(x[:1].double().cpu(), w.double().cpu())
    torch.testing.assert_close(call(x[:1], w).double().cpu(), right, rtol=1e-3, atol=1e-3)


def layer(name, channels, size, filters, kernel, stride, groups, compiles):
    torch.manual_seed(0)
    x = torch.randn(BATCH, channels, size, size, device="cuda")
    w = torch.randn(filters, channels // groups, kernel, kernel, device="cuda")
    how = {"stride": stride, "padding": kernel // 2, "groups": groups}

    def columns(x):
        return functional.unfold(x, kernel, padding=kernel // 2, stride=stride)

    def plain(x, w):
        return functional.conv2d(x, w, **how)

    def by_cdist(x, w):
        return torch.cdist(columns(x).transpose(1, 2), w.flatten(1).expand(len(x), -1, -1), p=1.0)

    def broadcast(x, w):
        return (columns(x).unsqueeze(1) - w.view(1, filters, -1, 1)).abs().sum(2)

    base = Pair(plain, x, w).times()
    cells = [name, "{:.3f} / {:.3f} ms".format(*base)]
    for op in OPS.values():

        def ours(x, w, op=op):
            return conv2d(x, w, op=op, **how)

        def checked(ours=ours):
            check(ours, x, w)
            return Pair(ours, x, w).times()

        cells.append(multiples(tried(checked), base))
    torch.backends.cudnn.allow_tf32 = True
    cells.append(multiples(tried(lambda: Pair(plain, x, w).times()), base))
    torch.backends.cudnn.allow_tf32 = False
    cells.append(multiples(tried(lambda: Pair(by_cdist, x, w).times()) if groups == 1 else None, base))
    compiled = torch.compile(broadcast, dynamic=False) if compiles else None
    cells.append(multiples(tried(lambda: Pair(compiled, x, w).times()) if compiles else None, base))
    l1 = Pair(lambda x, w: conv2d(x, w, op="l1", **how), x, w)
    cells.append("{:.0f} / {:.0f}".format(memory(l1.forward, l1.results), memory(l1.both, l1.results + l1.elements)))
    print(" | ".join(cells), flush=True)
    return cells


# ---------------------------------------------------------------- other figures
TABLES = {
    "8 by 8 bits": Op.from_table(lambda w, x: w * x, signed=True),
    "4 by 4 bits": Op.from_table(lambda w, x: w * x, signed=True, bits=4),
}


def of_codes():
    """Forward of signs and of tables, of a layer as it is in F.conv2d."""
    lines = ["", "| 128 channels, 28 x 28, forward | ms |", "| --- | --- |"]
    x, w = torch.randn(BATCH, 128, 28, 28, device="cuda"), torch.randn(128, 128, 3, 3, device="cuda")
    lines.append("| F.conv2d | {:.3f} |".format(median_ms(lambda: functional.conv2d(x, w, padding=1))))
    calls = [("xnor of floats", x, w, "xnor"), ("xnor of bools", x > 0, w > 0, "xnor")]
    codes = [t.mul(2).round().clamp(-8, 7).to(torch.int8) for t in (x, w)]
    calls += [("a table of " + name,) + tuple(codes) + (op,) for name, op in TABLES.items()]
    for name, x, w, op in calls:
        right = conv2d(x[:1].cpu(), w.cpu(), padding=1, op=op)
        assert torch.equal(conv2d(x[:1], w, padding=1, op=op).cpu(), right), name
        ms = median_ms(lambda x=x, w=w, op=op: conv2d(x, w, padding=1, op=op))
        lines.append("| {} | {:.3f} |".format(name, ms))
    return "\n".join(lines)


def of_matmul():
    a, b = (torch.randn(4096, 4096, device="cuda") for _ in range(2))
    ms = median_ms(lambda: matmul(a, b, op="max_plus"))
    return "max_plus matmul of 4096 x 4096 by 4096 x 4096: {:.2f} ms, {:.1f} T terms a second.".format(
        ms, 4096**3 / ms / 1e9
    )


class Published(torch.autograd.Function):
    """AdderNet's layer as its authors published it: on columns, with all differences in memory."""

    @staticmethod
    def forward(ctx, w, columns):
        ctx.save_for_backward(w, columns)
        return -(w.unsqueeze(2) - columns.unsqueeze(0)).abs().sum(1)

    @staticmethod
    def backward(ctx, grad):
        w, columns = ctx.saved_tensors
        difference = columns.unsqueeze(0) - w.unsqueeze(2)
        dw = (difference * grad.unsqueeze(1)).sum(2)
        dw = dw / dw.norm().clamp(min=1e-12) * dw.numel() ** 0.5 / 5
        return dw, (-difference.clamp(-1, 1) * grad.unsqueeze(1)).sum(0)


def published(x, w, stride):
    n, side = len(x), (x.shape[2] - 1) // stride + 1
    columns = functional.unfold(x, 3, padding=1, stride=stride).permute(1, 2, 0).reshape(w[0].numel(), -1)
    return Published.apply(w.flatten(1), columns).view(len(w), side, side, n).permute(3, 0, 1, 2).contiguous()


ADDER = ops.adder.replace(normalize_grad_w=0.2)
CONVOLUTIONS = {
    "ordinary": lambda x, w, stride: functional.conv2d(x, w, None, stride, 1),
    "adder": lambda x, w, stride: conv2d(x, w, None, stride, 1, op=ADDER),
    "adder, as published": published,
}


class Block(nn.Module):
    def __init__(self, channels, filters, stride, convolve):
        super().__init__()
        self.stride, self.convolve = stride, convolve
        self.first = nn.Parameter(torch.randn(filters, channels, 3, 3) / (9 * channels) ** 0.5)
        self.second = nn.Parameter(torch.randn(filters, filters, 3, 3) / (9 * filters) ** 0.5)
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters) for _ in range(2))

    def forward(self, x):
        y = functional.relu(self.norms[0](self.convolve(x, self.first, self.stride)))
        y = self.norms[1](self.convolve(y, self.second, 1))
        if self.stride > 1:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
        return functional.relu(x + y)


def resnet20(convolve):
    torch.manual_seed(0)
    blocks, channels = [], 16
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        for i in range(3):
            blocks.append(Block(channels, filters, stride if i == 0 else 1, convolve))
            channels = filters
    first = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*first, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).cuda()


def training(name):
    network = resnet20(CONVOLUTIONS[name])
    x, labels = torch.randn(128, 3, 32, 32, device="cuda"), torch.randint(10, (128,), device="cuda")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

    def step():
        optimizer.zero_grad()
        functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
        return network

    step()
    return median_ms(step), memory(step)


def of_training(clock):
    lines = ["", "| a training step of ResNet-20, 128 images | ms | MiB |", "| --- | --- | --- |"]
    for name in CONVOLUTIONS:
        found = None if clock.is_over() else tried(lambda name=name: training(name))
        lines.append(
            "| {} | {} | {} |".format(name, *("- -".split() if found is None else map("{:.1f}".format, found)))
        )
    return "\n".join(lines)


def table(rows):
    return "\n".join("| {} |".format(" | ".join(cells)) for cells in [rows[0], ["---"] * len(rows[0])] + rows[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1e9)
    clock = Clock(parser.parse_args().seconds)
    warnings.simplefilter("ignore", SlowPathWarning)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    rows = [["layer", "F.conv2d"] + list(OPS) + ["TF32", "cdist", "compiled", "MiB"]]
    for i, (name, sizes) in enumerate(LAYERS.items()):
        found = None if clock.is_over() else tried(lambda name=name, sizes=sizes, i=i: layer(name, *sizes, i in (1, 3)))
        rows += [] if found is None else [found]
    others = [] if clock.is_over() else [tried(of_matmul), tried(of_codes), tried(lambda: of_training(clock))]
    print("\n".join(filter(None, others)), flush=True)
    missing = device.missing()
    path = "Kernels compute it." if missing is None else "Tensor operations compute it, in blocks: {}.".format(missing)
    replace("measured", TEXT.format(
        version=im2col_compat.__version__, torch=torch.__version__.split("+")[0], gpu=torch.cuda.get_device_name(),
        batch=BATCH, path=path, layers=table(rows), others="\n".join(filter(None, others))))  # fmt: skip


if __name__ == "__main__":
    main()
