"""The launches of results whose terms are looked up in a table."""

import numpy as np

from im2col_compat.compat.memo import Memo
from im2col_compat.cuda import sizes, texts, tiles
from im2col_compat.cuda.launches import (
    MOST, Launch, Work, check, check_left_out, columns_of, cut, grid_of, ints_of, join_of, steps_of, taps_of, tile_of,
    to_steps)  # fmt: skip
from im2col_compat.cuda.tiles import Tile, up

#: Entries of a table that is kept in shared memory as a whole; and of the rows of a larger one that a block fetches.
_WHOLE, _FETCHED = 8192, 4096
#: The most terms in shared memory at a time.
_DEPTH = 8
#: A thread has all rows of its block. The best first where all are full.
TILES = (
    Tile(8, 512, _DEPTH, 8, 2, 2), Tile(8, 128, _DEPTH, 8, 1, 6), Tile(1, 512, _DEPTH, 1, 4, 4))  # fmt: skip

_works = Memo(256)


class Entries(object):
    """A table for kernels, known by itself and not by its values.

    array: of int32 or float32, a row for each w and a column for each x
    """

    def __init__(self, array):
        self.array, self._transposed = array, None
        #: How many terms an int32 certainly holds the sum of.
        self.depth = MOST // max(1, int(np.abs(array.astype(np.int64)).max())) if array.dtype == np.int32 else 0

    def transposed(self):
        """That of x and w in each other's place."""
        if self._transposed is None:
            self._transposed = Entries(np.ascontiguousarray(self.array.T))
        return self._transposed


def forward(code, entries, problem, alone):
    """The Work that fills y from bytes w and x. Unservable where kernels don't take it.

    code: texts.of_lookups(), with a pad value; alone: whether there are no other kernels, as there are none.
    """
    return _works.get((code, entries, problem), lambda: _forward(code, entries, sizes.of(problem)))


def _forward(code, entries, s):
    check(s)
    check_left_out(code, s)
    w, x = "w", "x"
    if s.rows_of_features and s.positions < s.filters:
        # Few rows of many features: filters take the place of positions.
        s, entries, w, x = _swapped(s), entries.transposed(), x, w
    table_rows, table_columns = entries.array.shape
    whole, in_parts = entries.array.size <= _WHOLE, not code.add
    # What a row takes of shared memory for a term is what bounds the depth.
    found = [t if whole else t._replace(depth=min(_DEPTH, _FETCHED // (t.rows * table_columns))) for t in TILES]
    tile, splits = tile_of(found, s.filters, s.positions, s.terms, s.groups, 0, 0, in_parts)
    each, splits = cut(s.terms, splits, tile.depth)
    results, left_out = s.filters * s.groups * s.positions, code.pad is None and s.pads
    gathered, launches, buffers = columns_of(code._replace(element="uint8"), s, x, s.x, s.channels)
    to = "partial" if splits > 1 else "y"
    args = [w, gathered.name, entries.array, to, taps_of(s, gathered.steps, splits * each + tile.depth)]
    args += ints_of((code.pad or 0, s.filters, s.terms, each, splits)) + [np.int64(results)]
    args += ints_of((s.positions, s.length) + s.blocks[1:] + s.image + s.stride + s.before)
    args += ints_of(steps_of(gathered.steps, s.channels) + to_steps(s.y, s.filters))
    narrow = code.adds == "sum" and s.terms <= entries.depth
    text = texts.lookups(code, tile, tiles.threads(tile), entries.array.shape, whole, s.deep, left_out, narrow)
    grid = grid_of(up(s.positions, tile.positions) // tile.positions * s.groups * splits, -(-s.filters // tile.rows))
    launches.append(Launch(text, "lookups", grid, tiles.threads(tile), args))
    if splits > 1:
        buffers["partial"] = results * splits, code.numpy_sum
        launches.append(join_of(texts.join(code, False), ["partial"] * 2, ["y", "partial"], splits, results))
    return Work(launches, buffers)


def _swapped(s):
    """Sizes of linear's operands in each other's place."""
    row = (1, 1, s.filters)
    y = sizes.Steps(0, s.filters, 0, 0, 1)
    return s._replace(batch=1, filters=s.positions, image=row, blocks=row, x=s.x, y=y)
