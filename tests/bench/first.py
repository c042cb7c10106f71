"""python first.py NAME: seconds of CPU of an op's first call, and of its first backward, with the compiler's.

The cache of compiled ops is to be empty.
"""

import os
import sys

import torch
from cases import OWN_OPS

import im2col_compat


def seconds(call):
    """call()'s value, and what it took in this process and in those that it started."""
    before = os.times()
    value = call()
    return value, sum(os.times()[:4]) - sum(before[:4])


def measure(function):
    x, w = torch.randn(1, 4, 8, 8, requires_grad=True), torch.randn(4, 4, 3, 3, requires_grad=True)
    y, forward = seconds(lambda: im2col_compat.conv2d(x, w, op=function))
    _, backward = seconds(y.sum().backward)
    return forward, backward


if __name__ == "__main__":
    measure("l1")  # loads what is loaded once
    print(*measure(OWN_OPS[sys.argv[1]]))
