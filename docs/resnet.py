"""ResNet-20 with each kind of dot product, trained to the end: accuracy, time and memory in one table.

    python docs/resnet.py [--sizes 8 16] [--epochs 40] [--seeds 1] [--device cuda] [--output docs/resnet.md]

The network is that of He et al. (2015) for CIFAR-10. It learns scikit-learn's photographs of handwritten digits, of 8x8
pixels, or enlarged. Each network has a process of its own, whose memory is
measured: on Linux, with glibc. Needs scikit-learn.
"""

import argparse
import copy
import ctypes
import datetime
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections import namedtuple
from concurrent.futures import ProcessPoolExecutor

import torch
import torch.nn.functional as F
from demo import load_digits
from multipliers import mitchell, of_signed
from torch import nn

import im2col_compat
from im2col_compat import BinaryConv2d, Conv2d, Op, convert, ops

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH = 64


# ---------------------------------------------------------------- the network


class Block(nn.Module):
    """Two convolutions and a shortcut, which has no parameters: it leaves pixels out, and adds channels of zeros."""

    def __init__(self, conv, channels, filters, stride):
        super().__init__()
        self.stride, self.more = stride, filters - channels
        self.conv1, self.conv2 = conv(channels, filters, stride), conv(filters, filters, 1)
        self.norm1, self.norm2 = self.norms(channels, filters)

    def norms(self, channels, filters):
        return nn.BatchNorm2d(filters), nn.BatchNorm2d(filters)

    def shortcut(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class BlockOfSigns(Block):
    """As in XNOR-Net a normalisation precedes each convolution: the signs of what a ReLU gives would all be +1."""

    def norms(self, channels, filters):
        return nn.BatchNorm2d(channels), nn.BatchNorm2d(filters)

    def forward(self, x):
        y = self.conv1(self.norm1(x))
        return self.conv2(self.norm2(y)) + self.shortcut(x)


class ResNet20(nn.Module):
    """As in all of the papers, the first and the last layer are ordinary ones."""

    def __init__(self, conv, block=Block):
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        channels, blocks = 16, []
        for filters in (16, 32, 64):
            for i in range(3):
                blocks.append(block(conv, channels, filters, 2 if i == 0 and filters > 16 else 1))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.first(x))))
        return self.last(x.mean((2, 3)))


def with_op(op, spread=False):
    def conv(channels, filters, stride):
        layer = Conv2d(channels, filters, 3, stride, padding=1, bias=False, op=op)
        if spread:  # a distance tells inputs apart only if there are weights between them
            nn.init.normal_(layer.weight)
        return layer

    return conv


def near(network):
    """A network of distances that begins with small ones as the great results, as the others do with products."""
    for block in network.blocks:
        nn.init.constant_(block.norm1.weight, -1)
        nn.init.constant_(block.norm2.weight, -1)
    return network


def of_signs(channels, filters, stride):
    return BinaryConv2d(channels, filters, 3, stride, padding=1, bias=False, alpha=True)


# ---------------------------------------------------------------- training

#: rate: of Adam. claim: the test accuracy with CIFAR-10 that a paper has for this network.
Kind = namedtuple("Kind", "name new rate claim")
KINDS = (
    Kind("dot", lambda: ResNet20(with_op("dot")), 0.005, "92.25 % [1]"),
    # The published code scales the gradients of each layer's weights, too.
    Kind("adder", lambda: ResNet20(with_op(ops.adder.replace(normalize_grad_w=0.2), True)), 0.02, "91.84 % [1]"),
    Kind("l1", lambda: near(ResNet20(with_op("l1", True))), 0.05, "-"),
    Kind("xnor", lambda: ResNet20(of_signs, BlockOfSigns), 0.005, "84.87 % [1]"),
)
TABLE = "table"


def crops(images):
    """The images moved by up to an eighth of their size, as those of CIFAR-10 are in the papers."""
    size = images.shape[-1]
    most = size // 8
    padded = F.pad(images, (most,) * 4)
    down, right = torch.randint(2 * most + 1, (2, len(images), 1, 1), device=images.device)
    places = torch.arange(size, device=images.device)
    rows, columns = down + places.view(1, -1, 1), right + places.view(1, 1, -1)
    return padded[torch.arange(len(images), device=images.device).view(-1, 1, 1), 0, rows, columns].unsqueeze(1)


def step(network, optimizer, images, labels):
    optimizer.zero_grad()
    F.cross_entropy(network(images), labels).backward()
    optimizer.step()


def teach(network, digits, epochs, rate):
    """Train at a rate that falls to zero along a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    steps = epochs * -(-len(digits.images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(digits.images)).split(BATCH):
            step(network, optimizer, crops(digits.images[batch]), digits.labels[batch])
            schedule.step()
            # As in XNOR-Net, the weights stay where their signs have a gradient.
            for layer in network.modules():
                if isinstance(layer, BinaryConv2d):
                    layer.weight.data.clamp_(-1, 1)


def accuracy(network, digits):
    network.eval()
    with torch.no_grad():
        right = [
            (network(images).argmax(1) == labels).float()
            for images, labels in zip(digits.test_images.split(BATCH), digits.test_labels.split(BATCH))
        ]
    return torch.cat(right).mean().item()


def enlarged(digits, size):
    """Digits of size x size pixels, by bilinear interpolation."""
    return digits._replace(
        **{
            name: F.interpolate(getattr(digits, name) / 16, size=(size, size), mode="bilinear", align_corners=False)
            for name in ("images", "test_images")
        }
    )


def with_table(network, digits):
    """The network of "dot", all of whose blocks multiply by Mitchell's logarithms, with eight bits."""
    op = Op.from_table(of_signed(mitchell), signed=True)
    return convert(network, op, calibrate=digits.images.split(BATCH), layers=lambda name, _: name.startswith("blocks"))


def in_turns(network, rate, digits, rounds=15):
    """The median ratio of the times of a training step: the network's, divided by that of an ordinary ResNet-20."""
    ordinary = ResNet20(with_op("dot")).to(digits.images.device)
    images, labels = digits.images[:BATCH], digits.labels[:BATCH]
    ratios, contestants = [], []
    for one in (network, ordinary):
        one.train()
        contestants.append((one, torch.optim.Adam(one.parameters(), rate)))
    for _ in range(rounds):
        times = []
        for one, optimizer in contestants:
            start = time.perf_counter()
            step(one, optimizer, images, labels)
            if images.is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[3:])


def start_of_peak(device):
    """Bytes that are taken now; from here on the most are counted."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed would count as taken
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak (proc(5))
    return of_this_process("VmRSS")


def peak(device):
    return torch.cuda.max_memory_allocated() if device.startswith("cuda") else of_this_process("VmHWM")


def of_this_process(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(what))


Row = namedtuple("Row", "name size seed accuracy before time memory")


def train(name, size, seed, epochs, device):
    """Train one network to the end. A Row for each that comes out: "dot" is then given a table, too."""
    torch.set_num_threads(1)  # layers are so small that threads would mostly wait for each other
    torch.manual_seed(seed)
    digits = enlarged(load_digits(), size)
    digits = digits._replace(**{name: value.to(device) for name, value in digits._asdict().items()})
    kind = next(kind for kind in KINDS if kind.name == name)
    network = kind.new().to(device)

    def taught(name, network, epochs, rate, before=None):
        # All that is loaded and compiled once is there from here on.
        time = in_turns(copy.deepcopy(network), rate, digits)
        taken = start_of_peak(device)
        teach(network, digits, epochs, rate)
        memory = peak(device) - taken
        return Row(name, size, seed, accuracy(network, digits), before, time, memory)

    rows = [taught(name, network, epochs, kind.rate)]
    if name == "dot":
        approximate = with_table(network, digits)
        before = accuracy(approximate, digits)
        rows.append(taught(TABLE, approximate, max(1, epochs // 8), kind.rate / 10, before))
    return rows


def study(sizes, seeds, epochs, device):
    """All rows, as trainings end."""
    spawn = multiprocessing.get_context("spawn")
    for size in sizes:
        for kind in KINDS:
            for seed in range(seeds):
                with ProcessPoolExecutor(1, mp_context=spawn) as alone:
                    yield from alone.submit(train, kind.name, size, seed, epochs, device).result()


# ---------------------------------------------------------------- what comes out


def table(rows):
    """The rows as markdown, a line for all seeds of a size and a kind."""
    claims = dict({kind.name: kind.claim for kind in KINDS}, **{TABLE: "-"})
    lines = [
        "| pixels | dot product | test accuracy | training step | memory | CIFAR-10, in papers |",
        "|---|---|---|---|---|---|",
    ]
    for size in sorted({row.size for row in rows}):
        for name, claim in claims.items():
            here = [row for row in rows if (row.size, row.name) == (size, name)]
            if not here:
                continue
            right = "{} %".format(percents([row.accuracy for row in here]))
            if name == TABLE:
                right += ", {} % before training".format(percents([row.before for row in here]))
            lines.append(
                "| {0}x{0} | {1} | {2} | {3:.1f} | {4:.0f} MB | {5} |".format(
                    size,
                    name,
                    right,
                    statistics.median(row.time for row in here),
                    statistics.median(row.memory for row in here) / 1e6,
                    claim,
                )
            )
    return "\n".join(lines)


def percents(rights):
    """The mean of accuracies, with the least and the greatest."""
    mean = "{:.1f}".format(100 * statistics.mean(rights))
    return mean if len(rights) == 1 else "{} ({:.1f} to {:.1f})".format(mean, 100 * min(rights), 100 * max(rights))


PAGE = """# ResNet-20 with each dot product

`docs/resnet.py` writes this page (`make study-resnet`). It trains the ResNet-20 of
[He et al.](https://arxiv.org/abs/1512.03385) for CIFAR-10, with its 18 layers of blocks computed by each of five dot
products:

- **dot**: the ordinary one.
- **adder**: `-|w - x|`, with the gradients of [AdderNet](https://arxiv.org/abs/1912.13200) [1].
- **l1**: `|w - x|`, with its true gradients.
- **xnor**: signs, with the scaling factor alpha of [XNOR-Net](https://arxiv.org/abs/1603.05279).
- **table**: the trained network of dot, whose products are looked up in a table of eight bits: Mitchell's logarithms, from
  [another tutorial](multipliers.md). Then it is trained for an eighth as long.

{table}

Accuracies are {accuracies} {epochs} epochs, with batches of {batch}, Adam, and a rate
that falls along a cosine. A training step is in steps of an ordinary ResNet-20, which takes turns with it, on one thread.
Memory is the most that training took on top of what was there before it, mostly layers' inputs.

**The data are small.** The study downloads nothing: these networks learn scikit-learn's {images} handwritten digits of 8x8
pixels, and are tested with {tests} others: one is {one:.1f} %. Larger ones are the same digits, enlarged. What this page
shows is that networks of that depth train to the end, and what that costs. The true gradients of l1 are signs, and learn
most slowly, which is why AdderNet has others. Which dot product is best on harder data, digits can't say: the papers'
accuracies stand beside for that. They are those of AdderNet's paper [1], whose binary networks are of signs, too.

- im2col_compat: {version}, PyTorch {torch}, {device}
- Processor: {machine}
- Command: `{command}`, {minutes:.0f} minutes, {date}
"""


def machine():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(": ")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description="ResNet-20 with each kind of dot product")
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="a page to write")
    arguments = parser.parse_args()
    start, rows = time.time(), []
    for row in study(arguments.sizes, arguments.seeds, arguments.epochs, arguments.device):
        print(row, flush=True)
        rows.append(row)
    print(table(rows))
    if arguments.output:
        digits = load_digits()
        page = PAGE.format(
            table=table(rows),
            accuracies=(
                "of one training of"
                if arguments.seeds == 1
                else "means of {} trainings (least to greatest) of".format(arguments.seeds)
            ),
            epochs=arguments.epochs,
            batch=BATCH,
            images=len(digits.images),
            tests=len(digits.test_images),
            one=100 / len(digits.test_images),
            version=im2col_compat.__version__,
            torch=torch.__version__,
            device=arguments.device,
            machine=machine(),
            command=" ".join(["python docs/resnet.py"] + sys.argv[1:]),
            minutes=(time.time() - start) / 60,
            date=datetime.date.today(),
        )
        with open(arguments.output, "w") as file:
            file.write(page)


if __name__ == "__main__":
    main()
