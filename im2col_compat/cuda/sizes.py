"""How a problem's operands lie for the kernels: images in three dimensions, and the steps between their elements."""

from collections import namedtuple

from im2col_compat.problem import dense, leads_outside, product

#: An operand of positions, x or the result, in elements: from image to image, from channel to channel, and from plane
#: to plane, row to row and column to column.
Steps = namedtuple("Steps", "image channel plane row column")

_FIELDS = "batch groups filters channels image kernel dilation stride pairs blocks x y rows_of_features"


class Sizes(namedtuple("Sizes", _FIELDS)):
    """Triples are (planes, rows, columns); one and two dimensions are one plane deep.

    filters, channels: of one group; pairs: padding, (before, after); x, y: Steps
    rows_of_features: whether x and the result have their channels last (linear)
    """

    __slots__ = ()

    before = property(lambda self: tuple(first for first, _ in self.pairs))
    taps = property(lambda self: product(self.kernel))
    terms = property(lambda self: self.channels * product(self.kernel))
    length = property(lambda self: product(self.blocks))
    positions = property(lambda self: self.batch * product(self.blocks))
    #: Whether there are several planes, of the image or of padding.
    deep = property(lambda self: max(self.image[0], self.kernel[0], self.blocks[0]) > 1 or any(self.pairs[0]))

    @property
    def pads(self):
        """Whether there are taps outside the image."""
        return leads_outside(self.image, self.kernel, self.dilation, self.stride, self.blocks, self.before)


def of(problem):
    """The Sizes of a problem whose operands are dense."""
    ones = (1,) * (3 - len(problem.image))
    image, kernel, dilation, stride, blocks = [
        ones + numbers for numbers in (problem.image, problem.kernel, problem.dilation, problem.stride, problem.blocks)
    ]
    pairs = ((0, 0),) * len(ones) + tuple(problem.pads)
    if kernel == stride == (1, 1, 1) and blocks == image:
        # Pixel by pixel, an image is one long row.
        image = blocks = (1, 1, product(image))
    channels, filters = problem.groups * problem.channels, problem.groups * problem.filters
    x, y = Steps(*dense((problem.batch, channels) + image)), Steps(*dense((problem.batch, filters) + blocks))
    last = problem.function == "linear"
    if last:
        x, y = Steps(0, 1, 0, 0, channels), Steps(0, 1, 0, 0, filters)
    return Sizes(
        problem.batch, problem.groups, problem.filters, problem.channels, image, kernel, dilation, stride, pairs,
        blocks, x, y, last)  # fmt: skip
