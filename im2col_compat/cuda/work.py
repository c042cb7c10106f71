"""A problem as launches of kernels: which grids, tables and temporary buffers.

Executors need to know no more than this: they compile each text, keep each table where the device reads it, and launch.
"""

from collections import namedtuple

import numpy as np

from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import sizes, texts, tiles
from im2col_compat.cuda.tiles import up
from im2col_compat.problem import product

#: text: a whole source; kernel: the name of its function; grid: three numbers of blocks; threads: of a block; args: each a
#: NumPy scalar, the name of an operand or of a buffer, or a NumPy array, a constant table.
Launch = namedtuple("Launch", "text kernel grid threads args")
#: launches: Launches, in order; buffers: {name: (number of elements, dtype's name)}, which are needed while they run.
Work = namedtuple("Work", "launches buffers")

MOST = 2**31 - 1  # what an int holds
NOWHERE = -(2**29)  # the row of a tap that is outside of all images
_SMALL = 256  # threads of the small kernels' blocks
_works = Memo(256)


class Unservable(Exception):
    """Sizes that the kernels don't take; the message says which."""


def forward(code, problem, arg=False):
    """The Work that fills y from w and x: operands "w", "plane0" ..., "x", "scalar0" ..., "y".

    arg: whether "arg" (int32, of y's shape) gets which term gave each maximum or minimum, -1 where there is none.
    """
    return _works.get((code, problem, arg), lambda: _forward(code, problem, arg))


def _forward(code, problem, arg):
    s = sizes.of(problem)
    _check(s)
    tile, splits = tiles.forward(s.filters, s.positions, s.terms, s.groups, _registers(code, arg), not code.fold)
    each = up(-(-s.terms // splits), tile.depth)
    splits = -(-s.terms // each)
    padded_rows, padded_terms = up(s.filters, tile.rows), up(s.terms, each) + tile.depth
    buffers = {"packed": (s.groups * padded_terms * (1 + code.planes) * padded_rows, code.numpy_value)}
    packs = _packs(code, s.groups, s.filters, s.terms, padded_rows, padded_terms, s.terms, np.arange(s.terms))
    results = s.batch * s.groups * s.filters * s.length
    left_out = code.pad is None and s.pads
    text = texts.gather(code, tile, s.deep, left_out, splits > 1, arg)
    to, arg_to = ("y", "arg" if arg else "y") if splits == 1 else ("partial", "partial_arg" if arg else "partial")
    ints = (s.filters, padded_rows, s.terms, padded_terms, each, splits)
    more = (s.positions, s.length, s.blocks[1], s.blocks[2]) + s.image + s.stride + s.before
    more += (s.x.image, s.channels * s.x.channel, s.x.plane, s.x.row, s.x.column)
    more += (s.y.image, s.filters * s.y.channel, s.y.channel, s.y.plane, s.y.row, s.y.column)
    pad = np.dtype(code.numpy_value).type(0 if code.pad is None else code.pad)
    args = ["packed", "x", to, arg_to, _taps(s, padded_terms), pad] + _ints(ints) + [np.int64(results)] + _ints(more)
    args += ["scalar%d" % i for i in range(len(code.scalars))]
    grid = up(s.positions, tile.positions) // tile.positions * s.groups * splits, padded_rows // tile.rows, 1
    launches = packs + [Launch(text, "gather", _grid(grid), tiles.threads(tile), args)]
    if splits > 1:
        buffers["partial"] = results * splits, code.numpy_sum
        if arg:
            buffers["partial_arg"] = results * splits, "int32"
        args = [to, arg_to, "y", "arg" if arg else "y", np.int32(splits), np.int64(results)]
        launches.append(Launch(texts.join(code, arg), "join", _blocks(results), _SMALL, args))
    return Work(launches, buffers)


def _registers(code, arg):
    """How many registers one result takes."""
    words = np.dtype(code.numpy_sum).itemsize // 4 * (2 if code.adds == "logsumexp" else 1) + arg
    return 1 if words == 1 else 2 if words == 2 else 4


def _check(s):
    """Unservable for sizes whose numbers an int can't hold."""
    elements = {
        "x": s.batch * s.groups * s.channels * product(s.image),
        "the weight": s.groups * s.filters * s.terms,
        "the result": s.groups * s.filters * s.positions,
    }
    for name, count in sorted(elements.items()):
        if count > MOST:
            raise Unservable("{} has 2**31 elements or more".format(name))
    reach = [(k - 1) * d + b for k, d, b in zip(s.kernel, s.dilation, s.before)]
    if max(s.image[1] + reach[1], s.image[0] + reach[0]) >= -NOWHERE or s.image[2] + reach[2] > MOST // 2:
        raise Unservable("the padded image is too long")


def _grid(grid):
    if grid[0] > MOST or grid[1] > 65535:
        raise Unservable("there are too many results")
    return grid


def _blocks(count, more=1):
    return _grid((up(count, _SMALL) // _SMALL, more, 1))


def _ints(numbers):
    return [np.int32(number) for number in numbers]


def _packs(code, groups, rows, terms, padded_rows, padded_terms, row_step, order):
    """The Launches that pack the weight, and the parameters beside it. order: which of a row's elements each term is."""
    order = np.ascontiguousarray(order, np.int32)
    grid, text, planes = _blocks(padded_terms * padded_rows, groups), texts.pack(code), 1 + code.planes
    found = []
    for plane, name in enumerate(["w"] + ["plane%d" % i for i in range(code.planes)]):
        ints = (planes, plane, rows, terms, padded_rows, padded_terms, row_step, rows * row_step)
        found.append(Launch(text, "pack", grid, _SMALL, [name, "packed", order] + _ints(ints)))
    return found


def _taps(s, padded_terms):
    """The table of a convolution's taps: for each term where it lies after a position's origin, and its plane, row and
    column."""
    c, z, y, x = [axis.ravel() for axis in np.meshgrid(np.arange(s.channels), *map(np.arange, s.kernel), indexing="ij")]
    z, y, x = [k * d for k, d in zip((z, y, x), s.dilation)]
    table = np.zeros((padded_terms, 4), np.int32)
    table[:, 2] = NOWHERE
    offset = c * s.x.channel + z * s.x.plane + y * s.x.row + x * s.x.column
    table[: len(c)] = np.stack([offset, z, y, x], 1)
    return table
