"""How a problem's operands and result lie in memory: ffi/dot.h's struct dot_problem, without addresses."""

import itertools
from collections import namedtuple

import numpy as np

from im2col_compat.compat import graphs
from im2col_compat.compat.memo import Memo
from im2col_compat.problem import channels_last, dense, leads_outside, product

#: A mask of all bits.
ALL = 2**64 - 1

_layouts = Memo(256)


_FIELDS = "batch groups filters channels image kernel dilation stride before blocks x_strides dx_strides w_strides"


class Layout(namedtuple("Layout", _FIELDS + " y_strides pad last transposes multiplications")):
    """Triples are (depth, vertical, horizontal), one and two dimensions being one plane deep.

    x_strides, dx_strides: of image, channel, plane, row, column; w_strides: of filter, channel, plane, row, column;
        y_strides: of image, filter, plane, row, column; all in elements
    pad: the pad value, as eight bytes in memory; None where padded taps are left out
    last: the mask of a group's last channel
    transposes: whether filters and positions can take each other's place: where both are rows of features
    multiplications: of one image
    """

    __slots__ = ()

    @property
    def pads(self):
        """Whether there are taps outside the image."""
        return leads_outside(self.image, self.kernel, self.dilation, self.stride, self.blocks, self.before)

    def parts(self, room):
        """(layout, elements of w, x and the result before) of parts of the result, whose filters have at most `room` taps
        of a channel, and whose images and groups as many pixels of a channel; or which can't be cut further."""
        taps, pixels = product(self.kernel), product(self.image)
        groups = max(1, min(self.groups, room // max(self.filters * taps, pixels)))
        filters = self.filters if self.filters * taps <= room else max(1, room // taps)
        batch = max(1, min(self.batch, room // (groups * pixels)))
        each = self.multiplications // (self.groups * self.filters * product(self.blocks))
        for group, filter, image in itertools.product(
            range(0, self.groups, groups), range(0, self.filters, filters), range(0, self.batch, batch)
        ):
            part = self._replace(
                groups=min(groups, self.groups - group),
                filters=min(filters, self.filters - filter),
                batch=min(batch, self.batch - image),
            )
            f = group * self.filters + filter
            x, y = image * self.x_strides[0] + group * self.channels * self.x_strides[1], image * self.y_strides[0]
            for strip, x_start, y_start in part.strips(room // (part.groups * part.batch)):
                strip = strip._replace(multiplications=each * strip.groups * strip.filters * product(strip.blocks))
                yield strip, f * self.w_strides[0], x + x_start, y + f * self.y_strides[1] + y_start

    def strips(self, room, axis=0):
        """(layout, elements of x and the result before) of strips of so few pixels, cut along an axis and those after."""
        if axis == 3 or product(self.image) <= room:
            yield self, 0, 0
            return
        size, stride = self.image[axis], self.stride[axis]
        reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
        step = max(1, (room * size // product(self.image) - reach) // stride + 1)
        for block in range(0, self.blocks[axis], step):
            count, first = min(step, self.blocks[axis] - block), block * stride - self.before[axis]
            start, stop = max(0, first), min(size, first + (count - 1) * stride + reach)
            if start >= stop:  # padding alone
                start, stop = 0, 1
            strip = self._replace(
                image=_changed(self.image, axis, stop - start),
                blocks=_changed(self.blocks, axis, count),
                before=_changed(self.before, axis, start - first),
            )
            for part, x, y in strip.strips(room, axis + 1):
                yield part, x + start * self.x_strides[2 + axis], y + block * self.y_strides[2 + axis]

    def transposed(self):
        """The layout of x and w in each other's place."""
        row, x, w, y = (1, 1, self.filters), self.x_strides, self.w_strides, self.y_strides
        return self._replace(
            filters=self.blocks[2], image=row, blocks=row, x_strides=(0, w[1], 0, 0, w[0]),
            w_strides=(x[4],) + (x[1],) * 4, y_strides=(0, y[4], 0, 0, y[1]),
        )  # fmt: skip


def of(problem, pad, dtype):
    """The layout of a problem's dense operands, for a pad value (or None) of a dtype."""
    # By its text: to Python, -0.0 is 0.0.
    return _layouts.get((problem, repr(pad), dtype), lambda: _layout(problem, _bytes(pad, dtype)))


def _bytes(pad, dtype):
    if pad is None:
        return None
    return tuple(bytearray(np.array([pad]).astype(dtype).tobytes().ljust(8, b"\0")))


def _layout(problem, pad):
    ones = (1,) * (3 - len(problem.image))
    sizes = [ones + numbers for numbers in (problem.image, problem.kernel, problem.dilation, problem.stride)]
    image, blocks = sizes[0], ones + problem.blocks
    before = (0,) * len(ones) + tuple(first for first, _ in problem.pads)
    channels, filters, count = problem.groups * problem.channels, problem.groups * problem.filters, product(blocks)
    pixels = product(image)
    if sizes[1] == sizes[3] == (1, 1, 1) and blocks == image:
        # Pixel by pixel, an image is one long row.
        image = blocks = (1, 1, pixels)
    x_strides, y_strides = dense((problem.batch, channels) + image), dense((problem.batch, filters) + blocks)
    if problem.function == "linear":
        # Features come last.
        x_strides, y_strides = (0, 1, 0, 0, channels), (0, 1, 0, 0, filters)
    w_strides = dense((filters, problem.channels) + sizes[1])
    return Layout(
        problem.batch, problem.groups, problem.filters, problem.channels, image, sizes[1], sizes[2], sizes[3], before,
        blocks, x_strides, x_strides, w_strides, y_strides, pad, ALL, problem.function == "linear",
        filters * count * problem.taps,
    )  # fmt: skip


def last_strides(problem, arrays, w, x):
    """(strides of x's gradient, of the result) of a convolution, where these have their channels last; else (None, None)."""
    if not problem.is_conv or not arrays.channels_last(len(problem.w_shape) - 2, x, w):
        return None, None
    shapes = problem.x_shape, problem.result_shape
    return _layouts.get(shapes + (problem.w_shape,), lambda: _last_strides(problem, shapes))


def _last_strides(problem, shapes):
    unbatched = len(problem.x_shape) < len(problem.w_shape)
    return tuple(channels_last((1,) + shape)[1:] if unbatched else channels_last(shape) for shape in shapes)


def with_last(problem, arrays, w, x, result):
    """The result of such operands, or a copy, where it is dense and should have its channels last."""
    if not problem.is_conv or len(problem.x_shape) < len(problem.w_shape) or graphs.transform() is not None:
        return result
    last = arrays.channels_last(len(problem.w_shape) - 2, x, w)
    return arrays.with_channels_last(result, last) if last else result


def of_parts(problem, dtype, backwards, x_strides, y_strides):
    """(layout, elements of w, x and the result before) of each part of a transposed convolution, one of one group, whose
    weight is dense. x_strides, y_strides: of the image and the result, None where these are dense. backwards: whether it
    is the image that is reversed, and not the kernel."""
    # By what the parts follow from: slices are no keys.
    sizes = problem[: problem._fields.index("parts")]
    return _layouts.get(
        (sizes, dtype, backwards, x_strides, y_strides),
        lambda: [_of_part(problem, part, dtype, backwards, x_strides, y_strides) for part in problem.parts],
    )


def _of_part(problem, part, dtype, backwards, x_strides, y_strides):
    channels, filters = problem.w_shape[:2]
    kernel, image, size = problem.w_shape[2:], problem.image, problem.result_shape[-problem.dims :]
    part = part.forwards(kernel, image) if backwards else part
    # For each axis: where the first tap, pixel and place are, and the steps between them.
    taps = [(s.start, s.step or 1) for s in part.taps]
    pixels = [(s.start, 1) for s in part.pixels]
    places = [(s.start, s.step) for s in part.places]
    if backwards:
        pixels = [(n - 1 - start, -1) for n, (start, _) in zip(image, pixels)]
        counts = part.problem.blocks
        places = [(start + (count - 1) * step, -step) for count, (start, step) in zip(counts, places)]
    else:
        taps = [(n - 1 - start, -step) for n, (start, step) in zip(kernel, taps)]
    w, x, y = dense((channels, filters) + kernel), x_strides, y_strides
    x, y = x or dense((1, channels) + image), y or dense((1, filters) + size)
    x, y = [((0,) + steps)[-2 - problem.dims :] for steps in (x, y)]  # which lack those of images where there is one
    one, zeros, ones = part.problem, (0,) * (3 - problem.dims), (1,) * (3 - problem.dims)
    starts, steps = [], []
    for walk, strides in ((taps, w[2:]), (pixels, x[2:]), (places, y[2:])):
        starts.append(sum(start * stride for (start, _), stride in zip(walk, strides)))
        steps.append(zeros + tuple(step * stride for (_, step), stride in zip(walk, strides)))
    pads = any(max(sides) > 0 for sides in one.pads)
    how = Layout(
        one.batch, 1, filters, channels, ones + one.image, ones + one.kernel, ones + one.dilation, (1, 1, 1),
        zeros + tuple(before for before, _ in one.pads), ones + one.blocks, x[:2] + steps[1], x[:2] + steps[1],
        (w[1], w[0]) + steps[0], y[:2] + steps[2], None if pads else _bytes(0, dtype), ALL, False,
        filters * product(one.blocks) * one.taps,
    )  # fmt: skip
    return (how,) + tuple(starts)


def _changed(sizes, axis, size):
    return sizes[:axis] + (size,) + sizes[axis + 1 :]


def whole_shapes(problem):
    """The shapes of w, x and the result, with every dimension that a caller may leave out."""
    if problem.is_conv:
        x_shape = (problem.batch, problem.groups * problem.channels) + problem.image
        return problem.w_shape, x_shape, (problem.batch, problem.groups * problem.filters) + problem.blocks
    w_shape, x_shape = problem.w_shape, problem.x_shape
    if problem.function == "linear":
        return w_shape, x_shape, x_shape[:-1] + w_shape[:1]
    return w_shape, x_shape, leading(problem) + (w_shape[-2], x_shape[-1])


def leading(problem):
    """The leading dimensions of a matmul's result."""
    return tuple(q if p == 1 else p for p, q in zip(problem.w_shape[:-2], problem.x_shape[:-2]))


def lying(how, problem, strides):
    """The layout of operands, and of the result or its gradient, that lie as their strides say; None where C can't walk
    so. strides: of w, x, y and x's gradient, of whole_shapes, in elements; None for what is dense.
    """
    return _layouts.get((how, problem, strides), lambda: _lying(how, problem, strides))


def _lying(how, problem, strides):
    w_shape, x_shape, y_shape = whole_shapes(problem)
    shapes = w_shape, x_shape, y_shape, x_shape
    # Where there is one image, its strides may be missing.
    w, x, y, dx = [dense(t) if s is None else ((0,) + s)[-len(t) :] for t, s in zip(shapes, strides)]
    last = len(x_shape) - 1
    # Axes of x and y: images; channels or filters; positions. And how many of w's are filters.
    if problem.is_conv:
        axes, filters = ([0], [1], range(2, last + 1)), 1
    elif problem.function == "linear":
        axes, filters = ([], [last], range(last)), 1
    else:
        images = last - 1 if problem.batch > 1 else 0
        axes, filters = (range(images), range(images, last), [last]), last
    heads = [_together(w_shape[:filters], w[:filters])]
    for shape, own in ((x_shape, x), (x_shape, dx), (y_shape, y)):
        heads += [_together([shape[i] for i in of], [own[i] for i in of]) for of in axes[:2]]
    pixels = [[t[i] for i in axes[2]] for t in (x, dx, y)]
    image, blocks = how.image, how.blocks
    if how.kernel == how.stride == (1, 1, 1) and problem.blocks == problem.image:
        # Pixel by pixel: rows that lie one after the other are one.
        sizes, pixels = _joined([x_shape[i] for i in axes[2]], pixels)
        image = blocks = (1,) * (3 - len(sizes)) + tuple(sizes)
    if None in heads or len(image) > 3:
        return None
    zeros = (0,) * (3 - len(pixels[0]))
    x, dx, y = [tuple(heads[i : i + 2]) + zeros + tuple(one) for i, one in zip((1, 3, 5), pixels)]
    taps = tuple(w[filters:])
    w = how.w_strides if strides[0] is None else (heads[0],) + taps[:1] + (0,) * (4 - len(taps)) + taps[1:]
    transposes = how.transposes and image[:2] == (1, 1)
    return how._replace(
        image=image, blocks=blocks, x_strides=x, dx_strides=dx, w_strides=w, y_strides=y, transposes=transposes
    )


def _joined(sizes, several):
    """(sizes, several) without axes of size 1, and where all of the strides in `several` allow it two axes as one."""
    result = []
    for size, steps in zip(sizes, zip(*several)):
        if size == 1:
            continue
        if result and all(outer == size * inner for outer, inner in zip(result[-1][1], steps)):
            size *= result.pop()[0]
        result.append((size, steps))
    return [size for size, _ in result], [[steps[i] for _, steps in result] for i in range(len(several))]


def _together(sizes, strides):
    """How far elements along several axes are from each other, or None where there is no single distance."""
    (steps,) = _joined(sizes, [strides])[1]
    return None if len(steps) > 1 else steps[0] if steps else 0
