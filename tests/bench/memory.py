"""python memory.py batch channels size filters kernel padding stride: MiB beside the result, and beside the gradients.

From Linux's VmHWM, which can be reset. ru_maxrss of getrusage starts at what the parent process had.
"""

import sys

import torch
from problems import Conv


def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def extra(call):
    """call()'s value, and how far memory rose meanwhile."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    value = call()
    return value, status("VmHWM") - before


def mebibytes(*tensors):
    return sum(t.numel() * t.element_size() for t in tensors) / 2**20


def measure(problem):
    x, w = (t.requires_grad_() for t in problem.operands())
    y, forward = extra(lambda: problem.ours(x, w, "l1"))
    # sum()'s gradient is expanded: it takes no memory.
    _, backward = extra(y.sum().backward)
    return forward - mebibytes(y), backward - mebibytes(x.grad, w.grad)


if __name__ == "__main__":
    (torch.ones(1 << 20) + 1).sum()  # starts PyTorch's threads
    measure(Conv(1, 2, 6, 3, 3, 1, 1))  # loads what is loaded once
    print(*measure(Conv(*map(int, sys.argv[1:]))))
