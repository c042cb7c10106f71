"""A problem as launches of kernels: which grids, tables and temporary buffers.

Executors need to know no more than this: they compile each text, keep each table where the device reads it, and launch.
Operands are dense; they and the buffers begin at addresses that 16 divides. They are called

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
from im2col_compat.cuda import depthwise, sizes, texts, tiles
from im2col_compat.cuda.launches import (
    SMALL, Launch, Unservable, Work, check, check_gradients, check_left_out, columns_of, cut, grid_of, ints_of, is_whole, join_of,
    joined, packs_of, pad_of, padded, reads_fours, reads_of, scalars_of, steps_of, tap_table, taps_of, tile_of,
    to_steps, weights_of)  # fmt: skip
from im2col_compat.cuda.tiles import up
from im2col_compat.problem import product

_works = Memo(256)


def forward(code, problem, arg=False):
    """The Work that fills y from w and x. arg: whether arg, too, gets which term gave each maximum or minimum: the
    first of several, -1 where there is none. Unservable where kernels don't take it; so all of these."""
    return _remembered(_forward, code, problem, "y", "arg" if arg else None, None)


def kept(code, problem):
    """The Work that fills what gradients read, code.reads, from w and x; None where that is nothing, or y."""
    return _remembered(_kept, code, problem) if "arg" in code.reads else None


def grad_x(code, problem):
    """The Work that fills dx from w, x, g and what code.reads names."""
    return _remembered(_grad_x, code, problem)


def grad_w(code, problem, number=0):
    """The Work that fills dw. number: 0 for the weight's gradient, then the parameters': planes, and then scalars, each
    weight's part of whose gradients is there."""
    return _remembered(_grad_w, code, problem, number)


def _remembered(make, code, *args):
    # The pad value by its text: to Python, -0.0 is 0.0.
    return _works.get((make, code, repr(code.pad)) + args, lambda: make(code, *args))


# ---------------------------------------------------------------- results
def _kept(code, problem):
    if "saved" in code.reads:
        return _forward(code, problem, "saved", "arg", "others")
    work = _forward(code, problem, "unused", "arg", None)
    work.buffers["unused"] = product(problem.result_shape), code.numpy_result
    return work


def _forward(code, problem, to, arg, adds):
    """to, arg: the operands that are filled, arg None where it isn't wanted; adds: another reduction than the op's."""
    s = sizes.of(problem)
    check(s)
    check_left_out(code, s)
    if depthwise.serves(s):
        return depthwise.forward(code, s, to, arg, adds)
    size, found = (
        np.dtype(code.numpy_value).itemsize,
        tiles.FORWARD[_class(_registers(code, arg) * (1 + (code.planes > 0)))],
    )
    in_parts = not (code.add or adds)
    tile, splits = tile_of(
        found, s.filters, s.positions, s.terms, s.groups, size * (1 + code.planes), size + 1, in_parts
    )
    each, splits = cut(s.terms, splits, tile.depth)
    rows, terms, partial = up(s.filters, tile.rows), splits * each + tile.depth, splits > 1
    x, launches, buffers = columns_of(code, s, "x", s.x, s.channels)
    order, results = np.arange(s.terms), s.filters * s.groups * s.positions
    packs, packed = packs_of(code, s.groups, s.filters, rows, terms, (s.terms, s.filters * s.terms), order)
    buffers["packed"] = packed, code.numpy_value
    left_out = code.pad is None and s.pads
    text = texts.forward(code, tile, s.deep, left_out, reads_fours(s, x, tile), partial, arg is not None, adds)
    filled = ["partial" if partial else to, "partial_arg" if partial and arg else arg or "x"]
    # Of gradients there is nothing.
    args = ["packed", x.name] + filled + ["x", "x", "x", taps_of(s, x.steps, terms), _NONE, pad_of(code)]
    args += ints_of((s.filters, rows, s.terms, terms, each, splits)) + [np.int64(results)]
    args += ints_of((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)
    args += ints_of(steps_of(x.steps, s.channels) + (s.taps,) + to_steps(s.y, s.filters) + (is_whole(s.y, s.blocks), 0))
    grid = grid_of(up(s.positions, tile.positions) // tile.positions * s.groups * splits, rows // tile.rows)
    launches += packs + [Launch(text, "gather", grid, tiles.threads(tile), args + scalars_of(code))]
    if partial:
        buffers["partial"] = results * splits, code.numpy_sum
        if arg:
            buffers["partial_arg"] = results * splits, "int32"
        launches.append(join_of(texts.join(code, arg is not None), filled, [to, arg or "x"], splits, results))
    return Work(launches, buffers)


_NONE = np.zeros(1, np.int32)  # a table that isn't read


def _registers(code, arg):
    """How many registers one result takes."""
    return np.dtype(code.numpy_sum).itemsize // 4 * (2 if code.reads == ("saved",) else 1) + (arg is not None)


def _class(registers):
    """Which of the lists of tiles."""
    return 1 if registers <= 1 else 2 if registers == 2 else 4


# ---------------------------------------------------------------- gradients
def _grad_x(code, problem):
    s = sizes.of(problem)
    check(s)
    check_gradients(code)
    if depthwise.serves(s):
        return depthwise.grad_x(code, s)
    axes = [list(_phases(*axis)) for axis in zip(s.image, s.kernel, s.stride, s.dilation, s.before, s.blocks)]
    parts = list(itertools.product(*axes))
    elements = product(problem.x_shape)
    g, launches, buffers = columns_of(code, s, "g", s.y, s.filters)
    if any(not axis.taps for part in parts for axis in part):
        fill = ["dx", np.int64(elements)]
        launches.append(Launch(texts.fill(code), "fill", grid_of(up(elements, SMALL) // SMALL), SMALL, fill))
    packed, splits = 0, 1
    for part in parts:
        if all(axis.taps for axis in part):
            made, count, splits = _of_phase(code, s, g, part, elements, len(parts) == 1)
            launches, packed = launches + made, max(packed, count)
    buffers["packed"] = packed, code.numpy_value
    return joined(code, launches, buffers, "dx", splits, elements)  # one, where there are several parts


def _of_phase(code, s, g, part, elements, alone):
    """(launches, elements of the packed weight, splits) of the gradient of some pixels.

    part: a _Phase for each axis; alone: whether these are all pixels.
    """
    counts = tuple(axis.count for axis in part)
    positions, count = s.batch * product(counts), s.filters * product(len(axis.taps) for axis in part)
    found = tiles.GRAD_X[_class(_gradient_registers(code) * (1 + (code.planes > 1)))]
    row_bytes = np.dtype(code.numpy_value).itemsize * (1 + code.planes)
    tile, splits = tile_of(found, s.channels, positions, count, s.groups, row_bytes, _read_bytes(code) + 1, alone)
    each, splits = cut(count, splits, tile.depth)
    rows, terms = up(s.channels, tile.rows), splits * each + tile.depth
    o, z, y, x = [each.ravel() for each in np.meshgrid(np.arange(s.filters), *[a.taps for a in part], indexing="ij")]
    number = (z * s.kernel[1] + y) * s.kernel[2] + x
    moves = [-((k * d - axis.rest) // step) for k, d, axis, step in zip((z, y, x), s.dilation, part, s.stride)]
    packs, packed = packs_of(
        code, s.groups, s.channels, rows, terms, (s.taps, s.filters * s.terms), o * s.terms + number)  # fmt: skip
    # Where a tap leads out of the positions. An arg there is none's; and a gradient of 0 may do.
    leaves = any(axis.leaves for axis in part)
    left_out = leaves and ("saved" in code.reads or not (code.safe or "arg" in code.reads))
    text = texts.grad_x(code, tile, s.deep, left_out, reads_fours(s, g, tile), splits > 1)
    to = s.x._replace(plane=s.x.plane * s.stride[0], row=s.x.row * s.stride[1], column=s.x.column * s.stride[2])
    first = sum(axis.first * step for axis, step in zip(part, s.x[2:]))
    args = ["packed", g.name, "partial" if splits > 1 else "dx", "x", "x"] + reads_of(code)
    args += [tap_table(s, o, moves, g.steps, terms), padded(number, terms), np.dtype(code.numpy_value).type(0)]
    args += ints_of((s.channels, rows, count, terms, each, splits)) + [np.int64(elements)]
    args += ints_of(
        (positions, product(counts)) + counts[1:] + s.blocks + (1, 1, 1) + tuple(-axis.base for axis in part)
    )
    args += ints_of(steps_of(g.steps, s.filters) + (s.taps,) + to_steps(to, s.channels))
    args += ints_of((alone and is_whole(s.x, s.image), first)) + scalars_of(code)
    grid = grid_of(up(positions, tile.positions) // tile.positions * s.groups * splits, rows // tile.rows)
    return packs + [Launch(text, "gather", grid, tiles.threads(tile), args)], packed, splits


#: Pixels that are one stride apart, along one axis: the first, how many, the taps that reach them, the position that
#: the first finds by a tap of 0 beyond `rest`, and whether a tap leads out of the positions.
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
    check(s)
    check_gradients(code)
    if depthwise.serves(s):
        return depthwise.grad_w(code, s, number)
    found = tiles.GRAD_W[_class(_gradient_registers(code) * (1, 2, 4)[min(2, code.planes)])]
    term_bytes = np.dtype(code.numpy_value).itemsize + 1
    tile, splits = tile_of(found, s.filters, s.terms, s.positions, s.groups, _read_bytes(code), term_bytes, True)
    each, splits = cut(s.positions, splits, tile.depth)
    terms, count = up(s.terms, tile.positions), s.groups * s.filters * s.terms
    text = texts.grad_w(code, number, tile, s.deep, code.pad is None and s.pads, splits > 1, s.rows_of_features)
    args = weights_of(code) + ["x", "g"] + reads_of(code) + ["partial" if splits > 1 else "dw"]
    args += [taps_of(s, s.x, terms), pad_of(code)] + ints_of((s.filters, s.terms, each, splits)) + [np.int64(count)]
    args += ints_of((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)
    args += ints_of(steps_of(s.x, s.channels) + to_steps(s.y, s.filters)) + scalars_of(code)
    grid = grid_of(terms // tile.positions * s.groups * splits, up(s.filters, tile.rows) // tile.rows)
    return joined(code, [Launch(text, "grad_w", grid, tiles.threads(tile), args)], {}, "dw", splits, count)


def _gradient_registers(code):
    """How many registers a result takes."""
    return np.dtype(code.numpy_value).itemsize // 4 * (2 if "saved" in code.reads else 1)


def _read_bytes(code):
    """What a result takes of shared memory: its gradient, and what code.reads names."""
    size = np.dtype(code.numpy_value).itemsize
    return size + size * ("saved" in code.reads) + 4 * ("arg" in code.reads)
