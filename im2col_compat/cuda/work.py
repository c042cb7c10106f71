"""A problem as launches of kernels: which grids, tables and temporary buffers.

Executors need to know no more than this: they compile each text, keep each table where the device reads it, and launch.
Operands are dense, and begin at addresses that 16 divides; they are called

    w, plane0, ...      the weight, and the parameters that have a number for each of its own; of its shape
    x                   the input
    scalar0, ...        parameters of one number: NumPy scalars of code.numpy_value, or pointers to such
    y                   the result
    g                   the gradient with respect to y
    saved, arg          what gradients read of each result beside g, of y's shape: code.reads names them. saved, of
                        code.numpy_value, is y itself for logsumexp; else kept() fills them. arg: int32.
    dx, dw              the gradients with respect to x, and to w or one of the parameters: of the weight's shape
"""

import itertools
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
_SMALL = 256  # threads of the small kernels' blocks
_ROW = 128  # threads of depthwise.cu's
_SIDE = 32  # of pack.cu's tiles
_works = Memo(256)


class Unservable(Exception):
    """Sizes, or an op, that the kernels don't take; the message says why."""


def forward(code, problem, arg=False):
    """The Work that fills y from w and x. arg: whether arg, too, gets which term gave each maximum or minimum, the first of
    several, -1 where there is none."""
    return _works.get((code, problem, arg), lambda: _forward(code, problem, "y", "arg" if arg else None, None))


def kept(code, problem):
    """The Work that fills what gradients read, code.reads, from w and x; None where that is nothing, or y."""
    if "arg" not in code.reads:
        return None
    return _works.get(("kept", code, problem), lambda: _kept(code, problem))


def grad_x(code, problem):
    """The Work that fills dx from w, x, g and what code.reads names."""
    return _works.get(("x", code, problem), lambda: _grad_x(code, problem))


def grad_w(code, problem, number=0):
    """The Work that fills dw. number: 0 for the weight's gradient, then the parameters': planes, and then scalars, whose
    gradients are to be summed."""
    return _works.get(("w", number, code, problem), lambda: _grad_w(code, problem, number))


# ---------------------------------------------------------------- results
def _kept(code, problem):
    if "saved" in code.reads:
        return _forward(code, problem, "saved", "arg", "others")
    work = _forward(code, problem, "unused", "arg", None)
    work.buffers["unused"] = product(problem.result_shape), code.numpy_result
    return work


def _forward(code, problem, to, arg, adds):
    s = sizes.of(problem)
    _check(s)
    if _is_depthwise(s):
        return _depthwise(code, s, to, arg, adds)
    size = np.dtype(code.numpy_value).itemsize
    found = tiles.FORWARD[_class(_registers(code, arg) * (2 if code.planes else 1))]
    tile, splits = _tile(
        found, s.filters, s.positions, s.terms, s.groups, size * (1 + code.planes), size + 1, not (code.add or adds)
    )
    each, splits = _cut(s.terms, splits, tile.depth)
    padded_rows, padded_terms = up(s.filters, tile.rows), splits * each + tile.depth
    x, launches, buffers = _columns(code, s, "x", s.x, s.channels)
    order = _table(lambda: np.arange(s.terms), s.terms)
    packs, packed = _packs(
        code, s.groups, s.filters, s.terms, padded_rows, padded_terms, (s.terms, s.filters * s.terms), order
    )
    results, partial = s.filters * s.groups * s.positions, splits > 1
    fours = _fours(s, x, tile)
    text = texts.forward(code, tile, s.deep, code.pad is None and s.pads, fours, partial, arg is not None, adds)
    buffers.update(packed=(packed, code.numpy_value))
    written = ["partial" if partial else to, "partial_arg" if partial and arg else arg or "x"]
    args = ["packed", x.name] + written + ["x"] * 3 + [_taps(s, x.steps, padded_terms), order, _pad(code)]
    args += _ints((s.filters, padded_rows, s.terms, padded_terms, each, splits)) + [np.int64(results)]
    args += _ints((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)
    args += _ints(
        _steps(x.steps, s.channels) + (s.taps,) + _to(s.y, s.filters) + (_whole(s.y, s.blocks), 0)
    ) + _scalars(code)
    grid = _grid(up(s.positions, tile.positions) // tile.positions * s.groups * splits, padded_rows // tile.rows)
    launches += packs + [Launch(text, "gather", grid, tiles.threads(tile), args)]
    if partial:
        buffers["partial"] = results * splits, code.numpy_sum
        if arg:
            buffers["partial_arg"] = results * splits, "int32"
        launches.append(_join(texts.join(code, arg is not None), written, [to, arg or "x"], splits, results))
    return Work(launches, buffers)


def _registers(code, arg):
    """How many registers one result takes."""
    return np.dtype(code.numpy_sum).itemsize // 4 * (2 if code.reads == ("saved",) else 1) + (arg is not None)


def _class(registers):
    """Which of the lists of tiles."""
    return 1 if registers <= 1 else 2 if registers == 2 else 4


# ---------------------------------------------------------------- gradients
def _grad_x(code, problem):
    s = sizes.of(problem)
    _check(s)
    _check_gradients(code)
    if _is_depthwise(s):
        return _depthwise_grad_x(code, s)
    phases = [list(_phases(*axis)) for axis in zip(s.image, s.kernel, s.stride, s.dilation, s.before, s.blocks)]
    g, launches, buffers = _columns(code, s, "g", s.y, s.filters)
    elements, kernel, packed, size = product(problem.x_shape), s.taps, 0, np.dtype(code.numpy_value).itemsize
    parts = [part for part in itertools.product(*phases)]
    if any(not axis.taps for part in parts for axis in part):
        grid = _grid(up(elements, _SMALL) // _SMALL)
        launches.append(Launch(texts.fill(code), "fill", grid, _SMALL, ["dx", np.int64(elements)]))
    for part in parts:
        if not all(axis.taps for axis in part):
            continue
        counts = tuple(axis.count for axis in part)
        length = product(counts)
        positions, terms = s.batch * length, s.filters * product(len(axis.taps) for axis in part)
        whole_image = len(parts) == 1
        found = tiles.GRAD_X[_class(_gradient_registers(code) * (2 if code.planes > 1 else 1))]
        tile, splits = _tile(
            found,
            s.channels,
            positions,
            terms,
            s.groups,
            size * (1 + code.planes),
            _gradient_bytes(code) + 1,
            whole_image,
        )
        each, splits = _cut(terms, splits, tile.depth)
        padded_rows, padded_terms = up(s.channels, tile.rows), splits * each + tile.depth
        o, z, y, x = [
            v.ravel() for v in np.meshgrid(np.arange(s.filters), *[axis.taps for axis in part], indexing="ij")
        ]
        number = (z * s.kernel[1] + y) * s.kernel[2] + x
        order = _table(lambda: o * s.terms + number, padded_terms)
        numbers = _table(lambda: number, padded_terms)
        moves = [-((k * d - axis.rest) // step) for k, d, axis, step in zip((z, y, x), s.dilation, part, s.stride)]
        taps = _tap_table(s, o, moves, g.steps, padded_terms)
        packs, count = _packs(
            code, s.groups, s.channels, terms, padded_rows, padded_terms, (kernel, s.filters * s.terms), order)  # fmt: skip
        packed = max(packed, count)
        left_out = not code.safe and "arg" not in code.reads and any(axis.leaves for axis in part)
        left_out = left_out or "saved" in code.reads and any(axis.leaves for axis in part)
        partial = splits > 1
        text = texts.grad_x(code, tile, s.deep, left_out, _fours(s, g, tile), partial)
        first = sum(axis.first * step for axis, step in zip(part, s.x[2:]))
        to = s.x._replace(**{n: step * t for n, step, t in zip(("plane", "row", "column"), s.x[2:], s.stride)})
        args = (
            ["packed", g.name, "partial" if partial else "dx", "x", "x"] + _reads(code) + [taps, numbers, _zero(code)]
        )
        args += _ints((s.channels, padded_rows, terms, padded_terms, each, splits)) + [np.int64(elements)]
        args += _ints((positions, length) + counts[1:] + s.blocks + (1, 1, 1) + tuple(-axis.base for axis in part))
        whole = whole_image and _whole(s.x, s.image)
        args += _ints(_steps(g.steps, s.filters) + (kernel,) + _to(to, s.channels) + (whole, first)) + _scalars(code)
        grid = _grid(up(positions, tile.positions) // tile.positions * s.groups * splits, padded_rows // tile.rows)
        launches += packs + [Launch(text, "gather", grid, tiles.threads(tile), args)]
        if partial:
            buffers["partial"] = elements * splits, code.numpy_value
            launches.append(_join(texts.join_gradients(code), ["partial", "g"], ["dx", "g"], splits, elements))
    buffers["packed"] = packed, code.numpy_value
    return Work(launches, buffers)


#: Pixels that are one stride apart, along one axis: the first, how many, the taps that reach them, the position that the first
#: finds by a tap of 0 beyond `rest`, and whether a tap leads out of the positions.
_Phase = namedtuple("_Phase", "first count taps base rest leaves")


def _phases(size, kernel, stride, dilation, before, blocks):
    for rest in range(stride):
        first = (rest - before) % stride
        count, base = len(range(first, size, stride)), (first + before - rest) // stride
        if count:
            taps = [k for k in range(kernel) if k * dilation % stride == rest]
            moves = [(k * dilation - rest) // stride for k in taps]
            leaves = bool(taps) and (base - max(moves) < 0 or base + count - 1 - min(moves) >= blocks)
            yield _Phase(first, count, taps, base, rest, leaves)


def _grad_w(code, problem, number):
    s = sizes.of(problem)
    _check(s)
    _check_gradients(code)
    if _is_depthwise(s):
        return _depthwise_grad_w(code, s, number)
    found = tiles.GRAD_W[_class(_gradient_registers(code) * (1, 2, 4)[min(2, code.planes)])]
    size = np.dtype(code.numpy_value).itemsize + 1
    tile, splits = _tile(found, s.filters, s.terms, s.positions, s.groups, _gradient_bytes(code), size, True)
    each, splits = _cut(s.positions, splits, tile.depth)
    padded_terms, weights, partial = up(s.terms, tile.positions), s.groups * s.filters * s.terms, splits > 1
    text = texts.grad_w(code, number, tile, s.deep, code.pad is None and s.pads, partial, s.rows_of_features)
    args = _weights(code) + ["x", "g"] + _reads(code) + ["partial" if partial else "dw"]
    args += [_taps(s, s.x, padded_terms), _pad(code)] + _ints((s.filters, s.terms, each, splits)) + [np.int64(weights)]
    args += _ints((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)
    args += _ints(_steps(s.x, s.channels) + _to(s.y, s.filters)) + _scalars(code)
    grid = _grid(padded_terms // tile.positions * s.groups * splits, up(s.filters, tile.rows) // tile.rows)
    return _joined(code, [Launch(text, "grad_w", grid, tiles.threads(tile), args)], {}, "dw", splits, weights)


# ---------------------------------------------------------------- groups of one channel
def _is_depthwise(s):
    """Whether there are kernels of their own for the sizes: a thread has a row of taps in registers, or all of them."""
    span = 3 * s.stride[2] + (s.kernel[2] - 1) * s.dilation[2]
    return s.groups > 1 and s.channels == 1 and s.filters <= 4 and not s.deep and s.taps <= 49 and span <= 32


def _weights(code):
    return ["w"] + ["plane%d" % i for i in range(code.planes)]


def _depthwise(code, s, to, arg, adds):
    text, planes = (
        texts.depthwise(code, s, code.pad is None and s.pads, arg is not None, adds),
        s.groups * s.filters * s.batch,
    )
    ints = (planes, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = _weights(code) + ["x", to, arg or "x", _pad(code)] + _ints(ints) + _scalars(code)
    return Work([Launch(text, "depthwise", _runs(s, planes, s.blocks), _ROW, args)], {})


def _runs(s, planes, size):
    """The grid of threads that have a few neighbours each."""
    along = texts.along(s)
    return _grid(up(planes * size[1] * (up(size[2], along) // along), _ROW) // _ROW)


def _depthwise_grad_x(code, s):
    planes = s.batch * s.groups
    ints = (planes, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = _weights(code) + ["x", "g"] + _reads(code) + ["dx"] + _ints(ints) + _scalars(code)
    launch = Launch(texts.depthwise_grad_x(code, s), "depthwise_grad_x", _runs(s, planes, s.image), _ROW, args)
    return Work([launch], {})


def _depthwise_grad_w(code, s, number):
    filters = s.groups * s.filters
    each, splits = _cut(s.positions, tiles.parts(filters, s.positions), _SMALL)
    text = texts.depthwise_grad_w(code, number, s, code.pad is None and s.pads, splits > 1)
    ints = (s.positions, each, s.groups, s.filters) + s.image[1:] + s.blocks[1:] + s.before[1:]
    args = _weights(code) + ["x", "g"] + _reads(code) + ["partial" if splits > 1 else "dw", _pad(code)]
    launch = Launch(text, "depthwise_grad_w", _grid(filters * splits), _SMALL, args + _ints(ints) + _scalars(code))
    return _joined(code, [launch], {}, "dw", splits, filters * s.taps)


def _reads(code):
    """What a gradient reads of each result beside its gradient, or something else where it reads nothing."""
    return [name if name in code.reads else "g" for name in ("saved", "arg")]


def _joined(code, launches, buffers, to, splits, count):
    """The Work of launches that give a gradient in splits."""
    if splits > 1:
        buffers["partial"] = count * splits, code.numpy_value
        launches = launches + [_join(texts.join_gradients(code), ["partial", "g"], [to, "g"], splits, count)]
    return Work(launches, buffers)


def _check_gradients(code):
    if not code.grads or code.add:
        raise Unservable("kernels have no gradients of it")
    if "saved" in code.reads and code.element != code.dtype:
        raise Unservable("its gradients need a result of {}".format(code.dtype))


def _gradient_registers(code):
    return np.dtype(code.numpy_value).itemsize // 4 * (2 if "saved" in code.reads else 1)


# ---------------------------------------------------------------- what the launches are made of
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
    reach = [(k - 1) * d for k, d in zip(s.kernel, s.dilation)]
    most = (511, 1023, 1023) if s.deep else (0, 2**15 - 1, 2**15 - 1)
    if any(far > limit for far, limit in zip(reach, most)):
        raise Unservable("the kernel reaches too far")
    long = [size + far + sum(pair) for size, far, pair in zip(s.image, reach, s.pairs)]
    if max(long[:2]) >= 2**29 or long[2] >= 2**30:
        raise Unservable("the padded image is too long")


def _tile(*sizes):
    """What tiles.choose() finds."""
    found = tiles.choose(*sizes)
    if found is None:
        raise Unservable("it has too many parameters")
    return found


def _gradient_bytes(code):
    """What a result takes of shared memory: its gradient, and what code.reads names."""
    size = np.dtype(code.numpy_value).itemsize
    return size + size * ("saved" in code.reads) + 4 * ("arg" in code.reads)


def _cut(count, parts, depth):
    """(terms of a part, parts): so many parts of whole depths."""
    each = up(-(-count // parts), depth)
    return each, -(-count // each)


def _grid(across, down=1):
    if across > MOST or down > 65535:
        raise Unservable("there are too many results")
    return across, down, 1


def _ints(numbers):
    return [np.int32(number) for number in numbers]


def _pad(code):
    return np.dtype(code.numpy_value).type(0 if code.pad is None else code.pad)


def _zero(code):
    return np.dtype(code.numpy_value).type(0)


def _scalars(code):
    return ["scalar%d" % i for i in range(len(code.scalars))]


def _steps(steps, channels):
    """A gathered operand's steps, as gather.cu takes them."""
    return steps.image, channels * steps.channel, steps.plane, steps.row, steps.column


def _to(steps, channels):
    """A result's steps, as gather.cu takes them."""
    return steps.image, channels * steps.channel, steps.channel, steps.plane, steps.row, steps.column


def _whole(steps, blocks):
    """Whether four positions, of which the first is a multiple of four, are neighbours at an address of 16 bytes."""
    dense = steps.column == 1 and steps.row == blocks[2] and steps.plane == blocks[1] * blocks[2]
    return int(dense and product(blocks) % 4 == 0)


def _join(text, partial, result, splits, count):
    grid = _grid(up(count, _SMALL) // _SMALL)
    return Launch(text, "join", grid, _SMALL, partial + result + [np.int32(splits), np.int64(count)])


def _table(make, length):
    """A table of ints, padded with zeros."""
    table, made = np.zeros(length, np.int32), make()
    table[: len(made)] = made
    return table


def _packs(code, groups, rows, terms, padded_rows, padded_terms, steps, order):
    """(the Launches that pack the weight, and the parameters beside it; how many elements they fill). steps: from row to row
    and from group to group; order: which of a row's elements each term is."""
    planes, count = 1 + code.planes, groups * padded_terms * (1 + code.planes) * padded_rows
    if count // groups > MOST:
        raise Unservable("the packed weight has 2**31 elements or more")
    grid, found = _grid(up(padded_terms, _SIDE) // _SIDE * (up(padded_rows, _SIDE) // _SIDE) * groups), []
    for plane, name in enumerate(_weights(code)):
        ints = (planes, plane, rows, terms, padded_rows, padded_terms) + steps
        found.append(Launch(texts.pack(code), "pack", grid, _SMALL, [name, "packed", order] + _ints(ints)))
    return found, count


#: An operand of positions as a kernel gathers it: its name, and its Steps.
_Gathered = namedtuple("_Gathered", "name steps")


def _columns(code, s, name, steps, features):
    """(_Gathered, launches, buffers) of x or g, with positions beside each other: rows of features are transposed."""
    if not s.rows_of_features or code.reads and name == "g":
        return _Gathered(name, steps), [], {}
    padded = up(s.positions, 4)
    grid = _grid(up(features, _SIDE) // _SIDE * (up(padded, _SIDE) // _SIDE))
    ints = (1, 0, s.positions, features, padded, features, features, 0)
    args = [name, "columns", _table(lambda: np.arange(features), features)] + _ints(ints)
    launch = Launch(texts.transpose(code), "pack", grid, _SMALL, args)
    buffers = {"columns": (padded * features, code.numpy_element)}
    return _Gathered("columns", sizes.Steps(0, padded, 0, 0, 1)), [launch], buffers


def _fours(s, gathered, tile):
    """Whether four positions beside each other are so in memory, at an address that 16 divides, for every tap."""
    one = s.kernel == s.stride == (1, 1, 1) and not s.pads and s.image == s.blocks == (1, 1, s.length)
    aligned = gathered.steps.channel % 4 == 0 and (s.length % 4 == 0 or gathered.name == "columns")
    units = tile.positions // 4
    return one and aligned and gathered.steps.column == 1 and tiles.threads(tile) <= units * tile.depth


def _taps(s, steps, padded_terms):
    """The table of a convolution's taps: for each term where it lies after a position's origin, and its plane, row and
    column."""
    c, z, y, x = [axis.ravel() for axis in np.meshgrid(np.arange(s.channels), *map(np.arange, s.kernel), indexing="ij")]
    return _tap_table(s, c, [k * d for k, d in zip((z, y, x), s.dilation)], steps, padded_terms)


def _tap_table(s, channels, moves, steps, padded_terms):
    table = np.zeros((padded_terms, 2), np.int32)
    offset = channels * steps.channel + sum(move * step for move, step in zip(moves, steps[2:]))
    bits = (0, 10, 11, 11) if s.deep else (0, 0, 16, 16)
    packed = 0
    for move, width in zip(moves, bits[1:]):
        packed = (packed << width) + (move & (1 << width) - 1)
    table[: len(offset)] = np.stack([offset, (packed + 2**31) % 2**32 - 2**31], 1)
    return table
