"""The launches of depthwise convolutions, of which each group has one channel and few filters."""

from im2col_compat.cuda import texts, tiles
from im2col_compat.cuda.launches import (
    SMALL,
    Launch,
    Work,
    cut,
    grid_of,
    ints_of,
    joined,
    pad_of,
    reads_of,
    scalars_of,
    weights_of,
)
from im2col_compat.cuda.tiles import up

_ROW = 128  # threads of a block, each of which has a few neighbours


def serves(s):
    """Whether there are kernels of their own for the sizes: a thread has a row of taps in registers, or all of them."""
    span = 3 * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2]
    return s.groups > 1 and s.channels == 1 and s.filters <= 4 and not s.deep and s.taps <= 49 and span <= 32


def forward(code, s, to, arg, adds):
    planes = s.groups * s.filters * s.batch
    text = texts.depthwise(code, s, code.pad is None and s.pads, arg is not None, adds)
    ints = (planes, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = weights_of(code) + ["x", to, arg or "x", pad_of(code)] + ints_of(ints) + scalars_of(code)
    return Work([Launch(text, "depthwise", _runs(s, planes, s.blocks), _ROW, args)], {})


def _runs(s, planes, size):
    """The grid of threads that have a few neighbours each."""
    along = texts.along(s)
    return grid_of(up(planes * size[1] * (up(size[2], along) // along), _ROW) // _ROW)


def grad_x(code, s):
    planes = s.batch * s.groups
    ints = (planes, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = weights_of(code) + ["x", "g"] + reads_of(code) + ["dx"] + ints_of(ints) + scalars_of(code)
    launch = Launch(texts.depthwise_grad_x(code, s), "depthwise_grad_x", _runs(s, planes, s.image), _ROW, args)
    return Work([launch], {})


def grad_w(code, s, number):
    filters = s.groups * s.filters
    each, splits = cut(s.positions, tiles.parts(filters, s.positions), SMALL)
    text = texts.depthwise_grad_w(code, number, s, code.pad is None and s.pads, splits > 1)
    ints = (s.positions, each, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = weights_of(code) + ["x", "g"] + reads_of(code) + ["partial" if splits > 1 else "dw", pad_of(code)]
    launch = Launch(text, "depthwise_grad_w", grid_of(filters * splits), SMALL, args + ints_of(ints) + scalars_of(code))
    return joined(code, [launch], {}, "dw", splits, filters * s.taps)
