"""The picture of unfold: its numbers against plain slicing and loops, its errors, and the command that saves it."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib.figure")

from helpers.processes import run  # noqa: E402

from im2col_compat import use_backend  # noqa: E402
from im2col_compat.__main__ import main  # noqa: E402
from im2col_compat.drawing import draw  # noqa: E402

#: size, kernel, dilation, padding, stride, block; None is the one in the middle.
PROBLEMS = [
    ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), None),
    ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), 0),
    ((5, 5), (3, 3), (1, 1), (1, 1), (1, 1), 24),
    ((6, 9), (3, 2), (2, 3), (2, 1), (2, 2), 5),
    ((4, 7), (2, 3), (1, 1), (0, 0), (3, 4), 1),
    ((1, 1), (1, 1), (1, 1), (2, 2), (1, 1), 0),  # nothing but padding
    ((3, 3), (3, 3), (1, 1), (0, 0), (1, 1), None),
]


def labels(axes):
    """The numbers in the cells: {(row, column): number}."""
    found = {}
    for text in axes.texts:
        if text.get_text().isdigit():
            column, row = text.get_position()
            found[row, column] = int(text.get_text())
    return found


def orange(axes):
    """The (row, column) of the highlighted cells, in row-major order."""
    (image,) = axes.images
    red, _, blue = np.moveaxis(np.asarray(image.get_array()).astype(int), -1, 0)
    return [(row, column) for row, column in zip(*np.nonzero(red > blue))]


def corners(size, kernel, dilation, padding, stride):
    """The first row and column of every block, in the padded image, row by row."""
    last = [n + 2 * p - d * (k - 1) - 1 for n, k, d, p in zip(size, kernel, dilation, padding)]
    return [(y, x) for y in range(0, last[0] + 1, stride[0]) for x in range(0, last[1] + 1, stride[1])]


def slices(corner, kernel, dilation):
    """What a block takes of the padded image."""
    return tuple(slice(at, at + d * (k - 1) + 1, d) for at, k, d in zip(corner, kernel, dilation))


@pytest.mark.parametrize("size,kernel,dilation,padding,stride,block", PROBLEMS)
def test_numbers_and_highlights(size, kernel, dilation, padding, stride, block):
    """Each panel has the numbers that slicing and counting give, and exactly the cells of the block are orange."""
    image, columns, back = draw(size, kernel, dilation, padding, stride, block).axes
    blocks = [slices(corner, kernel, dilation) for corner in corners(size, kernel, dilation, padding, stride)]
    if block is None:
        block = len(blocks) // 2  # there is an odd number of them in each direction
    inside = tuple(slice(pad, pad + length) for pad, length in zip(padding, size))
    padded = np.zeros([length + 2 * pad for length, pad in zip(size, padding)], int)
    padded[inside] = np.arange(size[0] * size[1]).reshape(size) + 1
    counts, chosen = np.zeros_like(padded), np.zeros_like(padded)
    for each in blocks:
        counts[each] += 1
    chosen[blocks[block]] = 1

    assert labels(image) == dict(np.ndenumerate(padded))
    assert orange(image) == list(zip(*np.nonzero(chosen)))
    expected = np.array([padded[each].ravel() for each in blocks]).T
    assert labels(columns) == dict(np.ndenumerate(expected))
    assert orange(columns) == [(row, block) for row in range(kernel[0] * kernel[1])]
    pixels = [(row + padding[0], column + padding[1]) for row, column in np.ndindex(*size)]
    assert labels(back) == {pixel: counts[pixel] for pixel in pixels}
    assert orange(back) == [pixel for pixel in pixels if chosen[pixel]]

    column = [labels(columns)[cell] for cell in orange(columns)]
    assert column == padded[blocks[block]].ravel().tolist() == [labels(image)[cell] for cell in orange(image)]


def test_titles_say_the_shapes():
    """Equal paddings are written once; pairs are (vertical, horizontal)."""
    titles = [axes.get_title() for axes in draw(5, 3, padding=1).axes]
    assert titles == ["image 5 x 5, padding 1", "unfold: 9 x 25", "fold adds it back: 5 x 5"]
    figure = draw((5, 6), (3, 2), (2, 1), (1, 0), (1, 2), 2)
    assert [axes.get_title() for axes in figure.axes][:2] == ["image 5 x 6, padding 1 x 0", "unfold: 6 x 9"]
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "kernel 3 x 2, stride 1 x 2, dilation 2 x 1" in texts
    assert "a column for each of the 3 x 3 blocks, row by row; in orange, block 2" in texts


def test_large_images_have_no_numbers():
    """A panel whose numbers would be too small to read has only colours; the others keep their numbers."""
    image, columns, back = draw(40, 3).axes
    assert not labels(image) and not labels(columns) and not labels(back)
    assert len(orange(image)) == len(orange(columns)) == len(orange(back)) == 9
    image, columns, _ = draw(16, 2).axes
    assert len(labels(image)) == 256 and not labels(columns)


def test_all_lies_within_the_figure(tmpdir):
    """For images from one pixel to long strips, nothing is cut off, and no panel covers another."""
    for size, kernel in ((1, 1), ((1, 900), 1), ((900, 1), (2, 1)), (60, 7), ((5, 5), 3)):
        figure = draw(size, kernel)
        figure.savefig(str(tmpdir.join("unfold.png")))
        boxes = [axes.get_position() for axes in figure.axes]
        assert all(0 < box.x0 < box.x1 < 1 and 0 < box.y0 < box.y1 < 1 for box in boxes)
        assert boxes[0].x1 < boxes[2].x0 and boxes[1].y1 < min(boxes[0].y0, boxes[2].y0)
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            for text in [axes.title] + [text for text in axes.texts if text.get_text()]:
                extent = text.get_window_extent(renderer)
                assert 0 < extent.x0 < extent.x1 < figure.bbox.width
                assert 0 < extent.y0 < extent.y1 < figure.bbox.height


def test_forced_engine_does_not_matter():
    """A forced engine that takes no arrays doesn't prevent drawing."""
    with use_backend("torch"):
        assert len(draw(5, 3).axes) == 3


@pytest.mark.parametrize(
    "error,what,arguments",
    [
        (TypeError, "size", dict(size=2.5)),
        (TypeError, "size", dict(size=(5, "5"))),
        (TypeError, "size", dict(size=None)),
        (ValueError, r"size .*\(5, 0\)", dict(size=(5, 0))),
        (ValueError, r"size .*\(-1, -1\)", dict(size=-1)),
        (ValueError, r"size .*\(1, 2, 3\)", dict(size=(1, 2, 3))),
        (ValueError, "1000000 cells .* 500 x 500 .* 9 x 248004", dict(size=500)),
        (ValueError, "1000000 cells .* 20005 x 20005", dict(padding=10**4, stride=10**4)),
        (ValueError, "1000000 cells", dict(size=10**8)),
        (TypeError, "block .*1.5", dict(block=1.5)),
        (TypeError, "block .*True", dict(block=True)),
        (IndexError, "block .* 0 to 8, but got 9", dict(block=9)),
        (IndexError, "block .* 0 to 8, but got -1", dict(block=-1)),
        # unfold's own
        (TypeError, "kernel_size", dict(kernel_size="3")),
        (RuntimeError, "kernel_size", dict(kernel_size=0)),
        (RuntimeError, "stride", dict(stride=0)),
        (RuntimeError, "padding", dict(padding=-1)),
        (RuntimeError, "blocks", dict(kernel_size=6)),
    ],
)
def test_errors(error, what, arguments):
    """Each names the argument, the value and what was expected."""
    with pytest.raises(error, match=what):
        draw(**dict(dict(size=5, kernel_size=3), **arguments))


def test_without_matplotlib(monkeypatch):
    """The error says what is missing and how to get it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="draw.* needs matplotlib .*pip install matplotlib"):
        draw(5, 3)


def command(folder, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-m", "im2col_compat"] + list(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=str(folder),
    )
    out, err = process.communicate()
    return process.returncode, out.decode().strip(), err.decode()


def png_size(path):
    with open(str(path), "rb") as image:
        start = image.read(24)
    assert start[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", start[16:])


def test_command_writes_a_picture(tmpdir, capsys):
    """It prints the path, by default unfold.png."""
    code = (
        "import os, runpy, sys\n"
        "os.chdir({!r})\n"
        "sys.argv[1:] = 'draw --size 5x5 --kernel 3 --padding 1'.split()\n"
        "runpy.run_module('im2col_compat', run_name='__main__')"
    ).format(str(tmpdir))
    assert run(code)[0] == "unfold.png"
    width, height = png_size(tmpdir.join("unfold.png"))
    assert 800 <= width <= 3000 and 600 <= height <= 3000
    assert 20000 < os.path.getsize(str(tmpdir.join("unfold.png"))) < 500000
    path = str(tmpdir.join("other.png"))
    arguments = "draw --size 6x9 --kernel 3x2 --stride 2 --padding 2x1 --dilation 2x3 --block 5 --output".split()
    main(arguments + [path])
    assert capsys.readouterr()[0].strip() == path
    assert png_size(path)[0] == width


GOOD = ["draw", "--size", "5", "--kernel", "3"]


@pytest.mark.parametrize(
    "arguments,expected",
    [
        (["draw", "--size", "5x", "--kernel", "3"], "5x5, but got '5x'"),
        (["draw", "--size", "5"], "--kernel"),
        (["paint"], "draw"),
        (["draw", "--size", "5", "--kernel", "6"], "at least one in each direction"),
        (GOOD + ["--block", "9"], "from 0 to 8, but got 9"),
        (GOOD + ["--output", os.path.join("none", "unfold.png")], "none"),
        (GOOD + ["--output", "unfold.sdrawkcab"], "sdrawkcab"),
    ],
)
def test_command_says_what_is_wrong(tmpdir, capsys, arguments, expected):
    """Wrong arguments and wrong paths end the command with one message on stderr."""
    with tmpdir.as_cwd(), pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code in (1, 2) and not out
    assert expected in err


def test_command_without_matplotlib(tmpdir):
    """A missing matplotlib gives one message on stderr, no traceback and no picture."""
    # python -m looks into the folder where it runs first.
    tmpdir.join("matplotlib.py").write("raise ImportError('No module named matplotlib')")
    code, out, err = command(tmpdir, *GOOD)
    assert code == 1 and not out
    assert err.strip().endswith("pip install matplotlib") and "Traceback" not in err
    assert not tmpdir.join("unfold.png").exists()
