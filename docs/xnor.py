"""An XNOR network that learns handwritten digits, with and without XNOR-Net's scaling factors.

    python docs/xnor.py

docs/xnor.md explains it step by step. Needs scikit-learn.
"""

import time

import torch
from demo import accuracy, load_digits, train
from torch import nn

from im2col_compat import BinaryConv2d, BinaryLinear


def floats(channels, filters, **settings):
    """A ReLU and a convolution. Layers of signs need no ReLU: a sign isn't linear."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels, filters, 3, padding=1, **settings))


def fully_of_floats(features, outputs):
    return nn.Sequential(nn.ReLU(), nn.Linear(features, outputs))


def binary(**factors):
    return lambda channels, filters, **settings: BinaryConv2d(channels, filters, 3, padding=1, **settings, **factors)


def new_network(conv, fully):
    """As in XNOR-Net, the first and last layers compute with floats. A normalisation precedes all others."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        conv(32, 32, stride=2),
        nn.BatchNorm2d(32),
        conv(32, 32),
        nn.Flatten(),
        nn.BatchNorm1d(32 * 4 * 4),
        fully(32 * 4 * 4, 64),
        nn.BatchNorm1d(64),
        nn.Linear(64, 10),
    )


#: The layers that are compared: (name, convolution, fully connected layer)
KINDS = (
    ("floats", floats, fully_of_floats),
    ("signs", binary(), BinaryLinear),
    ("signs, alpha", binary(alpha=True), lambda *sizes: BinaryLinear(*sizes, alpha=True)),
    ("signs, alpha and K", binary(alpha=True, K=True), lambda *sizes: BinaryLinear(*sizes, alpha=True, K=True)),
)


def teach(network, digits, epochs, rate=0.005):
    """Train at a rate that falls to zero. Yields the test accuracy after each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), rate)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - epoch / epochs)
        train(network, digits, optimizer)
        # As in XNOR-Net, the weights stay where their signs have a gradient.
        for layer in network:
            if isinstance(layer, (BinaryConv2d, BinaryLinear)):
                layer.weight.data.clamp_(-1, 1)
        yield accuracy(network, digits)


def study(digits, epochs=12):
    """Train each kind of network. Yields (name, test accuracy)."""
    for name, conv, fully in KINDS:
        torch.manual_seed(0)
        yield name, list(teach(new_network(conv, fully), digits, epochs))[-1]


def main():
    start = time.time()
    print("| layers | test accuracy |\n|---|---|")
    for name, right in study(load_digits()):
        print("| {} | {:.1f} % |".format(name, 100 * right), flush=True)
    print("{:.0f} seconds in all".format(time.time() - start))


if __name__ == "__main__":
    main()
