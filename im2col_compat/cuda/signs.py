"""The launches of sums of products of signs, which are packed into words of 32 and counted."""

import numpy as np

from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import depthwise, sizes, texts, tiles
from im2col_compat.cuda.launches import (
    MOST, SMALL, Launch, Unservable, Work, check, cut, grid_of, ints_of, is_whole, join_of, steps_of, taps_of, tile_of,
    to_steps)  # fmt: skip
from im2col_compat.cuda.tiles import Tile, up
from im2col_compat.problem import dense, product

BITS = 32
_WARPS = 8  # of pack_rows.cu's blocks
_DEPTH = 8  # of signs.cu's tiles, in words
#: The best first where all are full. None of them may spill.
TILES = (
    Tile(64, 64, _DEPTH, 4, 8, 4), Tile(32, 128, _DEPTH, 4, 8, 3), Tile(16, 128, _DEPTH, 4, 4, 4),
    Tile(4, 128, _DEPTH, 4, 4, 12), Tile(64, 16, _DEPTH, 4, 4, 7))  # fmt: skip

_works = Memo(256)


def forward(dtype, problem, alone):
    """The Work that fills y, of floats for operands of floats and else of int64, from w and x of a dtype. Unservable
    where kernels don't take it. Taps that lead out of the image count as nothing.

    alone: whether there are no other kernels; else None where these are faster.
    """
    s = sizes.of(problem)
    if not alone and depthwise.serves(s):
        return None
    return _works.get((dtype, problem), lambda: _forward(dtype, s))


def _forward(dtype, s):
    check(s)
    packed = _packs_columns(s)  # whether there is a word for each position and word of w
    words = -(-s.terms // BITS) if packed else s.taps * _words_of_pixel(s)
    tile, splits = tile_of(TILES, s.filters, s.positions, words, s.groups, 4, 8, True)
    each, splits = cut(words, splits, _DEPTH)
    rows, padded, results = up(s.filters, tile.rows), splits * each, s.filters * s.groups * s.positions
    if packed:
        x, buffers, order = sizes.Steps(0, words * s.positions, 0, 0, 0), {}, _in_words(np.arange(s.terms)[None])
        taps, launches = np.zeros((1, 2), np.int32), [_pack_columns(dtype, s, words, buffers)]
    else:
        x, buffers, order = _pixels(s), {}, _order_of_channels(s)
        taps, launches = taps_of(s._replace(channels=_words_of_pixel(s)), x, padded), [_pack_pixels(dtype, s, buffers)]
    _check(buffers["x_words"][0], s.groups * padded * rows)
    buffers["w_words"] = s.groups * padded * rows, "int32"
    launches.append(_pack_rows(dtype, "w", order, padded, s.groups, s.filters, rows, s.terms))
    to = "partial" if splits > 1 else "y"
    args = ["w_words", "x_words", "inside" if "inside" in buffers else "x_words", to, taps]
    args += ints_of((s.filters, rows, words, padded, each, splits)) + [np.int64(results)] + _of_positions(s)
    args += ints_of(steps_of(x, 1 if packed else _words_of_pixel(s)) + (s.terms, s.channels) + s.kernel + s.dilation)
    args += ints_of(to_steps(s.y, s.filters) + (is_whole(s.y, s.blocks),))
    result = dtype if dtype.startswith("float") else "int64"
    text = texts.signs(tile, s.deep, packed, s.pads, "int32" if splits > 1 else result)
    grid = grid_of(up(s.positions, tile.positions) // tile.positions * s.groups * splits, rows // tile.rows)
    launches.append(Launch(text, "signs", grid, tiles.threads(tile), args))
    if splits > 1:
        buffers["partial"] = results * splits, "int32"
        launches.append(join_of(texts.join_signs(result), ["partial"] * 2, ["y", "partial"], splits, results))
    return Work(launches, buffers)


def _words_of_pixel(s):
    return -(-s.channels // BITS)


def _packs_columns(s):
    """Whether columns are packed, and not the image: that takes a load for each tap, and saves words where channels
    don't fill them. A load is taken to cost what comparing words does."""
    if s.rows_of_features or s.taps == 1:
        return True
    columns = -(-s.terms // BITS)
    loads = s.batch * product(s.image) * s.channels
    fits = s.groups * columns * s.positions <= MOST
    return fits and s.positions * (s.terms + s.filters * columns) < (
        loads + s.positions * s.filters * s.taps * _words_of_pixel(s)
    )


def _check(*counts):
    if max(counts) > MOST:
        raise Unservable("there are 2**31 words of signs or more")


def _pixels(s):
    """The Steps of words of a pixel's channels, [group][word][image][pixel]."""
    steps = dense((s.groups, _words_of_pixel(s), s.batch) + s.image)
    return sizes.Steps(steps[2], steps[1], *steps[3:])


def _of_positions(s):
    return ints_of((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)


# ---------------------------------------------------------------- packing
def _in_words(order):
    """Which of a row's elements each bit of its words is, -1 for none, of arrays that begin with a word each."""
    lines, count = order.shape
    found = np.full((lines, up(count, BITS)), -1, np.int32)
    found[:, :count] = order
    return found.ravel()


def _order_of_channels(s):
    """The same of a weight whose words are of a tap's channels: words of channels first, then taps."""
    order = _in_words(np.arange(s.channels)[None] * s.taps).reshape(-1, 1, BITS)
    taps = np.arange(s.taps).reshape(1, -1, 1)
    return np.where(order < 0, -1, order + taps).astype(np.int32).ravel()


def _pack_rows(dtype, name, order, words, groups, rows, padded_rows, step):
    table = np.full(words * BITS, -1, np.int32)
    table[: len(order)] = order
    grid = grid_of(up(padded_rows, BITS) // BITS * (up(words, _WARPS) // _WARPS) * groups)
    ints = rows, padded_rows, words, step, rows * step
    return Launch(
        texts.pack_rows(dtype), "pack_rows", grid, BITS * _WARPS, [name, name + "_words", table] + ints_of(ints)
    )


def _pack_columns(dtype, s, words, buffers):
    """The Launch that fills x_words, of positions, and inside, where taps lead out of the image."""
    buffers["x_words"] = s.groups * words * s.positions, "int32"
    if s.rows_of_features:
        return _pack_rows(dtype, "x", np.arange(s.terms), words, 1, s.positions, s.positions, s.terms)
    if s.pads:
        buffers["inside"] = words * s.length, "int32"
    return _packing(dtype, s, s.x, words, "inside" if s.pads else "x_words")


def _pack_pixels(dtype, s, buffers):
    """The Launch that fills x_words, of pixels."""
    words, ones, zeros = _words_of_pixel(s), (1, 1, 1), ((0, 0),) * 3
    buffers["x_words"] = s.groups * words * s.batch * product(s.image), "int32"
    by_pixels = s._replace(kernel=ones, dilation=ones, stride=ones, pairs=zeros, blocks=s.image)
    return _packing(dtype, by_pixels, s.x, words, "x_words")


def _packing(dtype, s, steps, words, inside):
    taps = taps_of(s, steps, s.terms)
    args = ["x", "x_words", inside, taps] + ints_of((s.terms, words)) + _of_positions(s)
    args += ints_of(steps_of(steps, s.channels))
    text = texts.pack_columns(dtype, s.deep, s.pads)
    grid = grid_of(up(s.positions, SMALL) // SMALL * words * s.groups)
    return Launch(text, "pack_columns", grid, SMALL, args)
