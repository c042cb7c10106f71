"""Pictures of what unfold and fold do. Only this module needs matplotlib."""

from __future__ import division

import operator

import numpy as np

from im2col_compat.columns import fold, unfold
from im2col_compat.engines.choose import use_backend
from im2col_compat.problem import integers, product, unfold_geometry

MOST_CELLS = 10**6  # a picture has no pixels for more, and they would take minutes and gigabytes

# RGB of the least and the greatest number. Blue and orange differ for every kind of colour blindness.
BLUES, ORANGES = ((232, 241, 250), (134, 182, 226)), ((255, 231, 196), (245, 158, 36))
PADDING, OUTSIDE, OUTLINE, TEXT, FAINT = (232, 232, 232), (255, 255, 255), "#b34700", "#222222", "#666666"

# Inches. Cells are CELL wide and high, or smaller where their panel would exceed its (height, width).
WIDTH, MARGIN, TITLE, GAP, CELL = 10.0, 0.25, 0.6, 0.8, 0.36
IMAGE, COLUMNS = (4.0, 4.0), (4.0, WIDTH - 2 * MARGIN)
LEGIBLE, GRID = 6, 8  # points: the smallest text, and the smallest cells that have lines between them


def draw(size, kernel_size, dilation=1, padding=0, stride=1, block=None):
    """A picture of unfold: an image, one block of it, the column that the block becomes, and where fold adds it back.

    size: (H, W) of the image, or one int for both. Its pixels are numbered from 1, row by row.
    kernel_size, dilation, padding, stride: as for unfold.
    block: int, the index of the block and its column. The default is one in the middle.

    Returns a matplotlib.figure.Figure, made without pyplot. Its three axes, in units of cells, show the padded image,
    the columns (kh * kw, L), and how many blocks cover each pixel: fold(unfold(x)) is x times this number. The block is
    orange in each. Cells that are too small for numbers have only colours.

    Raises what unfold raises for kernel_size, dilation, padding and stride, and
    TypeError: for a size or block of a wrong type.
    ValueError: for a size that isn't one or two positive ints, and for more than a million cells.
    IndexError: for a block that doesn't exist.
    ImportError: without matplotlib.
    """
    size = integers("draw", "size", size, too_large=ValueError)
    size = size if isinstance(size, tuple) else (size, size)
    if len(size) != 2 or min(size) < 1:
        raise ValueError("draw(): size must be a positive int or a pair of them, but got {}".format(size))
    geometry = unfold_geometry((1,) + size, kernel_size, dilation, padding, stride)
    if geometry.dims != 2:
        raise ValueError("draw(): kernel_size must be an int or a pair of ints, but got {}".format(kernel_size))
    kernel, dilation, padding, stride, blocks = geometry[3:]
    padded = tuple(length + before + after for length, (before, after) in zip(size, padding))
    if max(product(padded), product(geometry.columns_shape)) > MOST_CELLS:
        message = "draw(): at most {} cells can be drawn, but the padded image has {} and the columns have {}"
        raise ValueError(message.format(MOST_CELLS, _by(padded), _by(geometry.columns_shape[1:])))
    if block is None:
        block = blocks[0] // 2 * blocks[1] + blocks[1] // 2
    if isinstance(block, bool) or not hasattr(block, "__index__"):
        raise TypeError("draw(): block must be an int or None, but got {!r}".format(block))
    block = operator.index(block)
    if not 0 <= block < product(blocks):
        raise IndexError("draw(): block must be from 0 to {}, but got {}".format(product(blocks) - 1, block))
    figure = _figure()

    pixels = np.arange(1, product(size) + 1).reshape((1,) + size)
    places = np.arange(product(padded)).reshape((1,) + padded)
    with use_backend("auto"):  # a forced engine may refuse arrays
        columns = unfold(pixels, kernel, dilation, padding, stride)
        covers = fold(columns, size, kernel, dilation, padding, stride) // pixels
        places = unfold(places, kernel, dilation, 0, stride)[:, block]
    image = np.pad(pixels[0], padding, "constant")
    # fold drops the padding. Blank cells for it put the block where it is in the other image.
    covers = np.pad(covers[0], padding, "constant", constant_values=-1)
    in_image, in_columns = np.zeros(padded, bool), np.zeros(columns.shape, bool)
    in_image.flat[places] = True
    in_columns[:, block] = True

    heights = _extent(padded, IMAGE)[0], _extent(columns.shape, COLUMNS)[0]
    figure.set_size_inches(WIDTH, sum(heights) + GAP + 2 * (MARGIN + TITLE))
    level = MARGIN + TITLE + heights[1] + GAP
    first = _panel(figure, image, in_image, 0.27, level, IMAGE)
    second = _panel(figure, columns, in_columns, 0.5, MARGIN + TITLE, COLUMNS)
    third = _panel(figure, covers, in_image, 0.73, level, IMAGE)
    below = (np.nonzero(in_image)[1].mean(), padded[0] - 0.5)
    _arrow(first, below, second, (block - 0.2, -0.5))
    _arrow(second, (block + 0.2, -0.5), third, below)

    sides = _by([_by(pair, True) for pair in padding], True)
    steps = "kernel {}, stride {}, dilation {}".format(_by(kernel), _by(stride, True), _by(dilation, True))
    _title(first, "image {}, padding {}".format(_by(size), sides), steps, 0.33, 0.12)
    which = "a column for each of the {} blocks, row by row; in orange, block {}".format(_by(blocks), block)
    _title(second, "unfold: {}".format(_by(columns.shape)), which, -0.4 - heights[1], -0.56 - heights[1])
    _title(third, "fold adds it back: {}".format(_by(size)), "how many blocks cover each pixel", 0.33, 0.12)
    return figure


def _by(pair, short=False):
    return str(pair[0]) if short and pair[0] == pair[1] else "{} x {}".format(*pair)


def _figure():
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("draw() needs matplotlib ({}). To have it: pip install matplotlib".format(error))
    return FigureCanvasAgg(Figure(facecolor="white")).figure  # before matplotlib 3.1, savefig needs a canvas


def _extent(cells, limit):
    """The (height, width) of a panel of so many cells. The cells of images are square, except in long strips."""
    sides = [min(CELL * count, most) for count, most in zip(cells, limit)]
    cell = min(side / count for side, count in zip(sides, cells))
    return sides if limit is COLUMNS else [min(s, max(CELL, cell * count)) for s, count in zip(sides, cells)]


def _panel(figure, numbers, chosen, centre, bottom, limit):
    """Axes with a cell for each of `numbers`; -1 leaves a cell out. `centre` is a fraction of the figure's width."""
    (rows, cols), (height, width) = numbers.shape, _extent(numbers.shape, limit)
    total = figure.get_figheight()
    axes = figure.add_axes([centre - width / WIDTH / 2, bottom / total, width / WIDTH, height / total])
    axes.axis("off")

    shade = (numbers / max(1, numbers.max()))[..., None]
    colours = np.where(chosen[..., None], *[low + shade * np.subtract(high, low) for low, high in (ORANGES, BLUES)])
    colours[(numbers == 0) & ~chosen] = PADDING
    colours[numbers < 0] = OUTSIDE
    axes.imshow(colours.astype(np.uint8), interpolation="nearest", aspect="auto")
    if numbers.min() < 0:
        _outline(axes, (-0.5, rows - 0.5), (-0.5, cols - 0.5), color=FAINT, linewidth=0.8, linestyle=":")

    high, wide = 72 * height / rows, 72 * width / cols  # of a cell, in points
    if min(high, wide) > GRID:
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, cols - 0.5, "white", linewidth=1)
        axes.vlines(np.arange(1, cols) - 0.5, -0.5, rows - 0.5, "white", linewidth=1)
    points = min(0.44 * high, 1.15 * wide / len(str(numbers.max())))  # a bold digit is 0.7 of its size wide
    for (row, col), number in np.ndenumerate(numbers if points >= LEGIBLE else np.zeros((0, 0))):
        if number >= 0:
            weight, colour = "bold" if chosen[row, col] else "normal", TEXT if number else FAINT
            axes.text(col, row, str(number), size=points, weight=weight, color=colour, ha="center", va="center")
    _outline(axes, *[(at.min() - 0.5, at.max() + 0.5) for at in np.nonzero(chosen)], color=OUTLINE, linewidth=2)
    axes.set_xlim(-0.5, cols - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    return axes


def _outline(axes, down, across, **line):
    xs, ys = np.take(across, [0, 1, 1, 0, 0]), np.take(down, [0, 0, 1, 1, 0])
    axes.plot(xs, ys, clip_on=False, solid_joinstyle="miter", **line)


def _arrow(start, place, end, tip):
    """An arrow from a place in the cells of one panel to a place in the cells of another."""
    arrow = dict(arrowstyle="-|>", color=OUTLINE, linewidth=1.5, shrinkA=4, shrinkB=4)
    places = dict(xycoords=end.transData, textcoords=start.transData, annotation_clip=False)
    end.annotate("", tip, place, arrowprops=arrow, **places)


def _title(axes, title, explanation, *inches):
    """A title and the line below it, each so many inches above the panel."""
    height = axes.get_position().height * axes.figure.get_figheight()
    first, second = (1 + distance / height for distance in inches)
    axes.set_title(title, y=first, size=13, weight="bold", color=TEXT, va="baseline")
    axes.text(0.5, second, explanation, transform=axes.transAxes, size=10, color=FAINT, ha="center")
