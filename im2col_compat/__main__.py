"""``python -m im2col_compat``: what a bug report needs. ``python -m im2col_compat draw``: a picture of unfold."""

import argparse
import platform
import sys
import warnings

import numpy as np

from im2col_compat import __version__, backend, drawing, lowlevel
from im2col_compat.codegen import kernels
from im2col_compat.compat import memory
from im2col_compat.compat.probes import torch, torch_missing
from im2col_compat.cuda import device
from im2col_compat.engines import choose as backends


def report():
    """The lines that ``python -m im2col_compat`` prints."""
    library, python = lowlevel.missing, "{} {}".format(platform.python_implementation(), platform.python_version())
    if not library:
        library = "built with {}, cffi {}".format(lowlevel.compiler(), __import__("_cffi_backend").__version__)
    lines = [("im2col_compat", __version__), ("Python", python), ("platform", platform.platform())]
    lines += [("NumPy", np.__version__), ("PyTorch", torch_missing if torch is None else torch.__version__)]
    lines += [("C library", library)]
    lines += [("engine {!r}".format(str(name)), backends.why_missing(name) or "available") for name in backends.NAMES]
    lines += [("engine chosen", _chosen()), ("C kernels", lowlevel.missing or kernels.LEVELS[kernels.level()])]
    lines += [("CUDA kernels", device.missing() or "available")]
    lines += [("threads", memory.threads())]
    return ["{:<17}{}".format(name + ":", value) for name, value in lines]


def _chosen():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the lines above say it already
            chosen = backend()
        if backends.forced():
            return "{}, forced by use_backend or {}".format(chosen, backends.VARIABLE)
    except (RuntimeError, ValueError) as error:
        return "none: {}".format(error)
    kind = "NumPy array" if torch is None else "CPU tensor"
    return "{}, the first available one that serves a float32 {}".format(chosen, kind)


def _size(text):
    try:
        sizes = tuple(int(number) for number in text.split("x"))
    except ValueError:
        sizes = ()
    if len(sizes) not in (1, 2):
        raise argparse.ArgumentTypeError("expected a number, or two as in 5x5, but got {!r}".format(text))
    return sizes if len(sizes) == 2 else sizes[0]


def main(arguments):
    """Run the command line. Without arguments, print the report."""
    if not arguments:
        print("\n".join(report()))
        return
    without, about = "Without a command, print what a bug report needs.", "draw what unfold does, into a file"
    parser = argparse.ArgumentParser(prog="python -m im2col_compat", description=without)
    command = parser.add_subparsers(metavar="COMMAND").add_parser("draw", help=about, description=about)
    size = dict(type=_size, metavar="HxW")
    both = "size of the image; one number stands for both, here and below"
    command.add_argument("--size", required=True, help=both, **size)
    command.add_argument("--kernel", required=True, **size)
    for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
        command.add_argument("--" + name, default=default, help="{} if not given".format(default), **size)
    command.add_argument("--block", type=int, metavar="I", help="the block to show; one in the middle if not given")
    command.add_argument("--output", default="unfold.png", metavar="FILE", help="unfold.png if not given")
    given = parser.parse_args(arguments)
    try:
        figure = drawing.draw(given.size, given.kernel, given.dilation, given.padding, given.stride, given.block)
        figure.savefig(given.output, facecolor=figure.get_facecolor())
    except (EnvironmentError, ImportError, IndexError, RuntimeError, TypeError, ValueError) as error:
        command.exit(1, "{}: {}\n".format(command.prog, error))
    print(given.output)


if __name__ == "__main__":
    main(sys.argv[1:])
