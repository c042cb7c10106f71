"""What do approximate multipliers do to the accuracy of a network?

A network learns handwritten digits with floats. Then each multiplier, with operands of eight bits, replaces the
products in all of its layers. Then the network is trained a little more with that multiplier. A table and a plot show
the accuracies.

    python docs/multipliers.py [FOLDER]     the plot goes to FOLDER, by default docs/demo

docs/multipliers.md explains it step by step. Needs scikit-learn, matplotlib and tqdm.
"""

import argparse
import os
import time
from collections import namedtuple

import numpy as np
import torch
from demo import accuracy, load_digits, train
from torch import nn

from im2col_compat import Op, convert

# ---------------------------------------------------------------- multipliers of unsigned operands


def exact(a, b):
    return a * b


def truncated(dropped, bits=8):
    """Leave out the partial products of the `dropped` lowest columns (Schulte and Swartzlander, 1993)."""

    def multiply(a, b):
        # Where a has bit i, row i of the partial products is b, shifted by i.
        rows = [(b >> max(0, dropped - i) << max(0, dropped - i)) << i for i in range(bits) if a >> i & 1]
        return sum(rows)

    return multiply


def mitchell(a, b):
    """Add logarithms. They and the antilogarithm are linear between powers of two (Mitchell, 1962)."""
    if a == 0 or b == 0:
        return 0
    p, q = a.bit_length() - 1, b.bit_length() - 1
    # a is 2^p (1 + f), and b is 2^q (1 + g). `fractions` is 2^(p + q) times f + g.
    fractions = ((a - 2**p) << q) + ((b - 2**q) << p)
    return 2 ** (p + q) + fractions if fractions < 2 ** (p + q) else 2 * fractions


def drum(kept):
    """Multiply only `kept` bits of each operand, from its first 1 on (Hashemi, Bahar and Reda, 2015).

    The last of these bits is set to 1. It stands for the bits that are cut off, on average.
    """

    def cut(a):
        shift = a.bit_length() - kept
        return (a, 0) if shift <= 0 else (a >> shift | 1, shift)

    def multiply(a, b):
        (a, up), (b, further) = cut(a), cut(b)
        return a * b << up + further

    return multiply


def of_signed(multiply):
    """A multiplier of signed operands: it multiplies the absolute values, then sets the sign."""

    def with_sign(w, x):
        product = multiply(abs(w), abs(x))
        return -product if (w < 0) != (x < 0) else product

    return with_sign


MULTIPLIERS = (
    ("exact", exact),
    ("truncated, 6 columns", truncated(6)),
    ("truncated, 8 columns", truncated(8)),
    ("truncated, 10 columns", truncated(10)),
    ("Mitchell", mitchell),
    ("DRUM, 6 bits", drum(6)),
    ("DRUM, 4 bits", drum(4)),
    ("DRUM, 3 bits", drum(3)),
)

# ---------------------------------------------------------------- error statistics

Errors = namedtuple("Errors", "mean_absolute worst bias")


def errors(multiply):
    """The errors of a multiplier of unsigned operands of eight bits, over all pairs of operands."""
    differences = Op.from_table(multiply).multiply.entries - np.outer(np.arange(256), np.arange(256))
    return Errors(np.abs(differences).mean(), np.abs(differences).max(), differences.mean())


# ---------------------------------------------------------------- the network


def new_network():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def teach(network, digits, epochs, rate):
    """Train at a rate that falls to zero. Returns the test accuracy."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - epoch / epochs)
        train(network, digits, optimizer)
    return accuracy(network, digits)


Row = namedtuple("Row", "name errors before after")


def study(digits, network, multipliers, epochs=3, watch=lambda steps: steps):
    """Put each multiplier into the network, and train with it. Yields a Row for each."""
    for name, multiply in watch(multipliers):
        op = Op.from_table(of_signed(multiply), signed=True)
        approximate = convert(network, op, calibrate=digits.images.split(64))
        before = accuracy(approximate, digits)
        torch.manual_seed(0)
        yield Row(name, errors(multiply), before, teach(approximate, digits, epochs, 0.0005))


# ---------------------------------------------------------------- what comes out


def table(rows):
    """The rows as markdown."""
    lines = ["| multiplier | MAE | worst case | bias | accuracy | after retraining |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            "| {} | {:.1f} | {} | {:.1f} | {:.1f} % | {:.1f} % |".format(
                row.name, row.errors.mean_absolute, row.errors.worst, row.errors.bias, 100 * row.before, 100 * row.after
            )
        )
    return "\n".join(lines)


def plot(rows, floats, path):
    """Draw the accuracy with each multiplier, before and after retraining, into a file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
    places = np.arange(len(rows))
    axis.barh(places + 0.2, [100 * row.before for row in rows], 0.38, label="as it was trained")
    axis.barh(places - 0.2, [100 * row.after for row in rows], 0.38, label="after retraining")
    axis.axvline(100 * floats, color="black", linewidth=0.8, label="with floats")
    axis.set_yticks(places, ["{}\nMAE {:.0f}".format(row.name, row.errors.mean_absolute) for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("test accuracy, %")
    axis.legend(loc="lower left")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main():
    from tqdm import tqdm

    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description="what approximate multipliers do to a network")
    parser.add_argument("folder", nargs="?", default=os.path.join(here, "demo"), help="where the plot goes")
    folder = parser.parse_args().folder
    if not os.path.isdir(folder):
        os.makedirs(folder)
    start = time.time()
    torch.manual_seed(0)
    digits, network = load_digits(), new_network()
    floats = teach(network, digits, 15, 0.003)
    print("with floats: {:.1f} %".format(100 * floats))
    rows = list(study(digits, network, MULTIPLIERS, watch=tqdm))
    print(table(rows))
    path = os.path.join(folder, "multipliers.png")
    plot(rows, floats, path)
    print("plot: {}; {:.0f} seconds in all".format(os.path.relpath(path), time.time() - start))


if __name__ == "__main__":
    main()
