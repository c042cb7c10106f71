"""Which tile of results a block of threads computes, and in how many parts its terms are taken."""

from collections import namedtuple

#: rows, positions: a block's results; depth: terms in shared memory at a time; rows_each, positions_each: a thread's
#: results; blocks: how many a multiprocessor is to hold, which bounds a thread's registers.
Tile = namedtuple("Tile", "rows positions depth rows_each positions_each blocks")

#: Multiprocessors that are to be busy: an H100's.
PROCESSORS = 132
#: Bytes of shared memory that a block may have.
SHARED = 47 * 1024

#: By how many registers one result takes (1, 2, 4): tiles, the best first where all are full.
#: None of them may spill.
FORWARD = {
    1: (
        Tile(64, 128, 8, 8, 8, 4), Tile(128, 64, 8, 8, 8, 4), Tile(64, 64, 16, 4, 8, 5), Tile(32, 128, 16, 4, 8, 5),
        Tile(16, 128, 16, 4, 8, 8), Tile(4, 512, 8, 4, 8, 8), Tile(128, 16, 16, 8, 4, 8)),
    2: (
        Tile(64, 64, 8, 4, 8, 3), Tile(32, 128, 8, 4, 8, 3), Tile(16, 128, 8, 4, 8, 6), Tile(4, 256, 8, 4, 4, 8),
        Tile(64, 16, 16, 4, 4, 4)),
    4: (
        Tile(64, 32, 8, 4, 4, 4), Tile(32, 64, 8, 4, 4, 4), Tile(4, 256, 8, 4, 4, 4), Tile(64, 16, 8, 4, 4, 4)),
}  # fmt: skip
#: Of the gradient of x, whose results have an operand each in registers, too.
GRAD_X = {
    1: (Tile(64, 64, 8, 4, 8, 4), Tile(32, 128, 8, 4, 8, 4), Tile(16, 128, 8, 4, 8, 8), Tile(4, 256, 8, 4, 4, 8)),
    2: (Tile(64, 32, 8, 4, 4, 4), Tile(32, 64, 8, 4, 4, 4), Tile(4, 256, 8, 4, 4, 4)),
    4: (Tile(32, 64, 8, 4, 4, 2), Tile(4, 256, 8, 4, 4, 2)),
}
#: Of the gradient of w. Its terms are the tile's positions, and positions are added up.
GRAD_W = {
    1: (Tile(64, 64, 8, 4, 8, 4), Tile(32, 32, 16, 4, 4, 8), Tile(16, 32, 16, 4, 4, 8)),
    2: (Tile(32, 64, 8, 4, 4, 3), Tile(16, 32, 8, 4, 4, 4)),
    4: (Tile(32, 64, 8, 4, 4, 2), Tile(16, 32, 8, 4, 4, 2)),
}


def threads(tile):
    return tile.rows // tile.rows_each * (tile.positions // tile.positions_each)


def up(a, b):
    """a, rounded up to a multiple of b."""
    return -(-a // b) * b


def choose(found, rows, positions, terms, groups, row_bytes, position_bytes, splits):
    """(tile, in how many parts the terms are taken), of the tiles found; None where none fits.

    row_bytes, position_bytes: what a row and a position take of shared memory for one term; splits: whether there may
    be several.
    """
    costs = [
        (_cost(tile, parts, rows, positions, terms, groups), i, tile, parts)
        for i, tile in enumerate(found)
        if 2 * tile.depth * (tile.rows * row_bytes + tile.positions * position_bytes) <= SHARED
        for parts in (_PARTS if splits else (1,))
        if parts == 1 or parts * 8 * tile.depth <= terms
    ]
    return min(costs)[2:] if costs else None


def parts(blocks, positions):
    """In how many parts each of so many blocks takes its positions, a block being a depthwise convolution's filter."""
    return max(1, min(4 * PROCESSORS // blocks, positions // 1024))


#: In how many parts terms may be taken.
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: What costs as much as so many terms of a result: the start and the end of a block; another part's result, to be
#: written, read and added.
_AROUND, _JOINED = 24, 44


def _cost(tile, parts, rows, positions, terms, groups):
    """The estimated time, in terms that a multiprocessor computes."""
    blocks = up(rows, tile.rows) // tile.rows * (up(positions, tile.positions) // tile.positions) * groups * parts
    # Results pay for what a thread reads of shared memory, what a block reads of the caches, and for gathering.
    reads = 1.0 + 0.75 * (tile.rows_each + tile.positions_each) / (tile.rows_each * tile.positions_each)
    reads += 7.5 / tile.rows + 4.5 / tile.positions
    each = tile.rows * tile.positions * reads * (up(-(-terms // parts), tile.depth) + _AROUND)
    # What is left after whole rounds doesn't fill the multiprocessors: few blocks wait for memory.
    rounds, rest = divmod(blocks, PROCESSORS * tile.blocks)
    last = -(-rest // PROCESSORS)
    time = each * (rounds * tile.blocks + (last + 0.6 * (1 - float(last) / tile.blocks) if last else 0))
    return time + (_JOINED * parts * rows * groups * float(positions) / PROCESSORS if parts > 1 else 0)
