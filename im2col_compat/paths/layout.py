"""How a problem's operands and result lie in memory: ffi/dot.h's struct dot_problem, without addresses."""

from collections import namedtuple

import numpy as np

from im2col_compat.compat.memo import Memo
from im2col_compat.problem import product

#: A mask of all bits.
ALL = 2**64 - 1

_layouts = Memo(256)


_FIELDS = "batch groups filters channels image kernel dilation stride before blocks x_strides y_strides pad last"


class Layout(namedtuple("Layout", _FIELDS + " transposes multiplications")):
    """Triples are (depth, vertical, horizontal), one and two dimensions being one plane deep.

    x_strides: of image, channel, plane, row, pixel; y_strides: of image, filter, position; both in elements
    pad: the pad value, as eight bytes in memory; None where padded taps are left out
    last: the mask of a group's last channel
    transposes: whether filters and positions can take each other's place: where both are rows of features
    multiplications: of one image
    """

    __slots__ = ()

    @property
    def pads(self):
        """Whether there are taps outside the image."""
        sizes = zip(self.image, self.kernel, self.dilation, self.stride, self.blocks, self.before)
        return any(b > 0 or (n - 1) * s + (k - 1) * d - b >= size for size, k, d, s, n, b in sizes)

    def transposed(self):
        """The layout of x and w in each other's place."""
        count, filters, taps = self.blocks[2], self.filters, self.channels
        all_taps, row = filters * taps, (1, 1, filters)
        strides = {"x_strides": (all_taps, 1, all_taps, all_taps, taps), "y_strides": (count * filters, filters, 1)}
        return self._replace(filters=count, image=row, blocks=row, **strides)


def of(problem, pad, dtype):
    """The layout of a problem's dense operands, for a pad value (or None) of a dtype."""
    # By its text: to Python, -0.0 is 0.0.
    return _layouts.get((problem, repr(pad), dtype), lambda: _layout(problem, _bytes(pad, dtype)))


def _bytes(pad, dtype):
    if pad is None:
        return None
    return tuple(bytearray(np.array([pad]).astype(dtype).tobytes().ljust(8, b"\0")))


def _layout(problem, pad):
    ones = (1,) * (3 - len(problem.image))
    sizes = [ones + numbers for numbers in (problem.image, problem.kernel, problem.dilation, problem.stride)]
    image, blocks = sizes[0], ones + problem.blocks
    before = (0,) * len(ones) + tuple(first for first, _ in problem.pads)
    channels, filters, count = problem.groups * problem.channels, problem.groups * problem.filters, product(blocks)
    pixels = product(image)
    if sizes[1] == sizes[3] == (1, 1, 1) and blocks == image:
        # Pixel by pixel, an image is one long row.
        image = blocks = (1, 1, pixels)
    x_strides, y_strides = (channels * pixels, pixels, image[1] * image[2], image[2], 1), (filters * count, count, 1)
    if problem.function == "linear":
        # Features come last.
        row = count * channels
        x_strides, y_strides = (row, 1, row, row, channels), (count * filters, 1, filters)
    return Layout(
        problem.batch, problem.groups, problem.filters, problem.channels, image, sizes[1], sizes[2], sizes[3], before,
        blocks, x_strides, y_strides, pad, ALL, problem.function == "linear", filters * count * problem.taps,
    )  # fmt: skip
