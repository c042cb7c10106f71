"""What a Work is made of: launches, their arguments, tables and checks."""

from collections import namedtuple

import numpy as np

from im2col_compat.cuda import sizes, texts, tiles
from im2col_compat.cuda.tiles import up
from im2col_compat.problem import product

#: text: a whole source; kernel: the name of its function; grid: three numbers of blocks; threads: of a block; args:
#: each a NumPy scalar, the name of an operand or of a buffer, or a NumPy array, a constant table.
Launch = namedtuple("Launch", "text kernel grid threads args")
#: launches: Launches, in order; buffers: {name: (number of elements, dtype's name)}, which are needed while they run.
Work = namedtuple("Work", "launches buffers")

MOST = 2**31 - 1  # what an int holds
SMALL = 256  # threads of the small kernels' blocks
_SIDE = 32  # of pack.cu's tiles


class Unservable(Exception):
    """Sizes, or an op, that the kernels don't take; the message says why."""


def weights_of(code):
    return ["w"] + ["plane%d" % i for i in range(code.planes)]


def reads_of(code):
    """What a gradient reads of each result beside its gradient, or something else where it reads nothing."""
    return [name if name in code.reads else "g" for name in ("saved", "arg")]


def joined(code, launches, buffers, to, splits, count):
    """The Work of launches that give a gradient in splits."""
    if splits > 1:
        buffers["partial"] = count * splits, code.numpy_value
        launches = launches + [join_of(texts.join_gradients(code), ["partial", "g"], [to, "g"], splits, count)]
    return Work(launches, buffers)


def check(s):
    """Unservable for sizes whose numbers an int can't hold."""
    elements = {
        "x": s.batch * s.groups * s.channels * product(s.image),
        "the weight": s.groups * s.filters * s.terms,
        "the result": s.groups * s.filters * s.positions,
    }
    for name, count in sorted(elements.items()):
        if count > MOST:
            raise Unservable("{} has 2**31 elements or more".format(name))
    reach = [(k - 1) * d for k, d in zip(s.kernel, s.dilation)]
    most = (511, 1023, 1023) if s.deep else (0, 2**15 - 1, 2**15 - 1)
    if any(far > limit for far, limit in zip(reach, most)):
        raise Unservable("the kernel reaches too far")
    long = [size + far + sum(pair) for size, far, pair in zip(s.image, reach, s.pairs)]
    if max(long[:2]) >= 2**29 or long[2] >= 2**30:
        raise Unservable("the padded image is too long")


def check_left_out(code, s):
    """Unservable for an add that starts from the first term, where that may be left out."""
    if code.add and code.start is None and code.pad is None and s.pads:
        raise Unservable("an add without an identity can't leave out padding")


def tile_of(*sizes):
    """What tiles.choose() finds."""
    found = tiles.choose(*sizes)
    if found is None:
        raise Unservable("it has too many parameters")
    return found


def cut(count, parts, depth):
    """(terms of a part, parts): so many parts of whole depths."""
    each = up(-(-count // parts), depth)
    return each, -(-count // each)


def grid_of(across, down=1):
    if across > MOST or down > 65535:
        raise Unservable("there are too many results")
    return across, down, 1


def ints_of(numbers):
    return [np.int32(number) for number in numbers]


def pad_of(code):
    return np.dtype(code.numpy_value).type(0 if code.pad is None else code.pad)


def scalars_of(code):
    return ["scalar%d" % i for i in range(len(code.scalars))]


def steps_of(steps, channels):
    """A gathered operand's steps, as gather.cu takes them."""
    return steps.image, channels * steps.channel, steps.plane, steps.row, steps.column


def to_steps(steps, channels):
    """A result's steps, as gather.cu takes them."""
    return steps.image, channels * steps.channel, steps.channel, steps.plane, steps.row, steps.column


def is_whole(steps, blocks):
    """Whether four positions, of which the first is a multiple of four, are neighbours at an address of 16 bytes."""
    dense = steps.column == 1 and steps.row == blocks[2] and steps.plane == blocks[1] * blocks[2]
    return int(dense and product(blocks) % 4 == 0)


def join_of(text, partial, result, splits, count):
    grid = grid_of(up(count, SMALL) // SMALL)
    return Launch(text, "join", grid, SMALL, partial + result + [np.int32(splits), np.int64(count)])


def padded(numbers, length):
    """A table of ints, padded with zeros."""
    table = np.zeros(length, np.int32)
    table[: len(numbers)] = numbers
    return table


def packs_of(code, groups, rows, padded_rows, padded_terms, steps, order):
    """(the Launches that pack the weight, and the parameters beside it; how many elements they fill).

    steps: from row to row and from group to group; order: which of a row's elements each term is.
    """
    planes, count = 1 + code.planes, groups * padded_terms * (1 + code.planes) * padded_rows
    if count > MOST:
        raise Unservable("the packed weight has 2**31 elements or more")
    grid = grid_of(up(padded_terms, _SIDE) // _SIDE * (up(padded_rows, _SIDE) // _SIDE) * groups)
    text, order, found = texts.pack(code), padded(order, len(order)), []
    for plane, name in enumerate(weights_of(code)):
        ints = (planes, plane, rows, len(order), padded_rows, padded_terms) + steps
        found.append(Launch(text, "pack", grid, SMALL, [name, "packed", order] + ints_of(ints)))
    return found, count


#: An operand of positions as a kernel gathers it: its name, and its Steps.
_Gathered = namedtuple("_Gathered", "name steps")


def columns_of(code, s, name, steps, features):
    """(_Gathered, launches, buffers) of x or g, with positions beside each other: rows of features are transposed."""
    if not s.rows_of_features or code.reads and name == "g":
        return _Gathered(name, steps), [], {}
    length = up(s.positions, 4)
    if length * features > MOST:
        raise Unservable("{} has 2**31 elements or more".format(name))
    grid = grid_of(up(features, _SIDE) // _SIDE * (up(length, _SIDE) // _SIDE))
    ints = (1, 0, s.positions, features, length, features, features, 0)
    args = [name, "columns", padded(np.arange(features), features)] + ints_of(ints)
    launch = Launch(texts.transpose(code), "pack", grid, SMALL, args)
    buffers = {"columns": (length * features, code.numpy_element)}
    return _Gathered("columns", sizes.Steps(0, length, 0, 0, 1)), [launch], buffers


def reads_fours(s, gathered, tile):
    """Whether four positions beside each other are so in memory, at an address that 16 divides, for every tap."""
    one = s.kernel == s.stride == (1, 1, 1) and not s.pads and s.image == s.blocks == (1, 1, s.length)
    aligned = gathered.steps.channel % 4 == 0 and (s.length % 4 == 0 or gathered.name == "columns")
    units = tile.positions // 4
    return one and aligned and gathered.steps.column == 1 and tiles.threads(tile) <= units * tile.depth


def taps_of(s, steps, padded_terms):
    """The table of a convolution's taps: for each term where it lies after a position's origin, and its plane, row and
    column."""
    c, z, y, x = [axis.ravel() for axis in np.meshgrid(np.arange(s.channels), *map(np.arange, s.kernel), indexing="ij")]
    return tap_table(s, c, [k * d for k, d in zip((z, y, x), s.dilation)], steps, padded_terms)


def tap_table(s, channels, moves, steps, padded_terms):
    table = np.zeros((padded_terms, 2), np.int32)
    offset = channels * steps.channel + sum(move * step for move, step in zip(moves, steps[2:]))
    bits = (0, 10, 11, 11) if s.deep else (0, 0, 16, 16)
    packed = 0
    for move, width in zip(moves, bits[1:]):
        packed = (packed << width) + (move & (1 << width) - 1)
    table[: len(offset)] = np.stack([offset, (packed + 2**31) % 2**32 - 2**31], 1)
    return table


def check_gradients(code):
    if not code.grads or code.add:
        raise Unservable("kernels have no gradients of it")
    if "saved" in code.reads and code.element != code.dtype:
        raise Unservable("its gradients need a result of {}".format(code.dtype))
