"""What the library should compute, as plain nested loops over NumPy arrays. Shares no code with it."""

import itertools

import numpy as np


def each(value, dims):
    return tuple(value) if isinstance(value, tuple) else (value,) * dims


def pair(value):
    return each(value, 2)


def sides(padding, dims):
    """(before, after) of each dimension."""
    return [each(side, 2) for side in each(padding, dims)]


def blocks(size, kernel, dilation, padding, stride):
    before, after = each(padding, 2)
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _taps(image, kernel, dilation, padding, stride):
    """(row of columns within a channel, block's number, pixel) for every tap that falls on a pixel; and the block counts."""
    dims = len(image)
    kernel, dilation, stride = (each(v, dims) for v in (kernel, dilation, stride))
    padding = sides(padding, dims)
    counts = [blocks(*sizes) for sizes in zip(image, kernel, dilation, padding, stride)]
    taps = []
    for row, k in enumerate(itertools.product(*(range(size) for size in kernel))):
        for block, b in enumerate(itertools.product(*(range(count) for count in counts))):
            pixel = tuple(b[i] * stride[i] - padding[i][0] + k[i] * dilation[i] for i in range(dims))
            if all(0 <= pixel[i] < image[i] for i in range(dims)):
                taps.append((row, block, pixel))
    return taps, int(np.prod(kernel)), int(np.prod(counts))


def unfold(image, kernel, dilation=1, padding=0, stride=1):
    batch, channels = image.shape[:2]
    taps, area, length = _taps(image.shape[2:], kernel, dilation, padding, stride)
    columns = np.zeros((batch, channels * area, length), image.dtype)
    for n, c in itertools.product(range(batch), range(channels)):
        for k, block, pixel in taps:
            columns[n, c * area + k, block] = image[(n, c) + pixel]
    return columns


def fold(columns, size, kernel, dilation=1, padding=0, stride=1):
    size = each(size, len(kernel) if isinstance(kernel, tuple) else 2)
    taps, area, _ = _taps(size, kernel, dilation, padding, stride)
    batch, channels = columns.shape[0], columns.shape[1] // area
    image = np.zeros((batch, channels) + tuple(size), columns.dtype)
    for n, c in itertools.product(range(batch), range(channels)):
        for k, block, pixel in taps:
            image[(n, c) + pixel] += columns[n, c * area + k, block]
    return image


def reduce_terms(multiply, add, start, pairs):
    """add(... add(start, multiply(w, x)) ...); from the first term where start is None."""
    acc = start
    for w, x in pairs:
        term = multiply(w, x)
        acc = term if acc is None else add(acc, term)
    return acc


def conv2d(x, w, multiply, add, start, pad, stride=1, pads=(0, 0, 0, 0), dilation=1, groups=1):
    """x (N, C, H, W), w (O, C / groups, kh, kw); pads (top, bottom, left, right); pad None leaves padded taps out."""
    return conv(x, w, multiply, add, start, pad, pair(stride), (pads[:2], pads[2:]), pair(dilation), groups)


def conv(x, w, multiply, add, start, pad, stride, pads, dilation, groups):
    """The same for any number of dimensions; pads are a (before, after) of each."""
    filters, channels = w.shape[:2]
    image, kernel = x.shape[2:], w.shape[2:]
    sizes = (
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, (before, after), k, d, s in zip(image, pads, kernel, dilation, stride)
    )
    result = np.empty((x.shape[0], filters) + tuple(sizes), object)
    for index in np.ndindex(*result.shape):
        n, o, block = index[0], index[1], index[2:]
        pairs = []
        for tap in np.ndindex(*w.shape[1:]):
            pixel = tuple(b * s + k * d - p[0] for b, s, k, d, p in zip(block, stride, tap[1:], dilation, pads))
            inside = all(0 <= at < size for at, size in zip(pixel, image))
            if inside or pad is not None:
                channel = o // (filters // groups) * channels + tap[0]
                pairs.append((w[(o,) + tap], x[(n, channel) + pixel] if inside else pad))
        result[index] = reduce_terms(multiply, add, start, pairs)
    return result


def meetings(image, kernel, size, stride, padding, dilation):
    """For each place of a transposed convolution's result of a size: (tap, pixel) of all that meet there, in the taps' order."""
    found = {place: [] for place in itertools.product(*(range(length) for length in size))}
    for tap in itertools.product(*(range(length) for length in kernel)):
        for pixel in itertools.product(*(range(length) for length in image)):
            place = tuple(i * s + k * d - p for i, s, k, d, p in zip(pixel, stride, tap, dilation, padding))
            if place in found:
                found[place].append((tap, pixel))
    return found


def transposed_size(image, kernel, stride, padding, output_padding, dilation):
    numbers = zip(image, kernel, stride, padding, output_padding, dilation)
    return tuple((n - 1) * s - 2 * p + d * (k - 1) + more + 1 for n, k, s, p, more, d in numbers)


def conv_transpose(x, w, multiply, add, start, nothing, stride, padding, output_padding, dilation, groups):
    """x (N, C, ...), w (C, O / groups, ...). nothing: what a result is that no term reaches."""
    filters, channels, kernel = w.shape[1], w.shape[0] // groups, w.shape[2:]
    size = transposed_size(x.shape[2:], kernel, stride, padding, output_padding, dilation)
    found = meetings(x.shape[2:], kernel, size, stride, padding, dilation)
    result = np.empty((x.shape[0], filters * groups) + size, object)
    for index in np.ndindex(*result.shape):
        n, o, group = index[0], index[1] % filters, index[1] // filters
        pairs = [
            (w[(c, o) + tap], x[(n, c) + pixel])
            for c in range(group * channels, (group + 1) * channels)
            for tap, pixel in found[index[2:]]
        ]
        result[index] = reduce_terms(multiply, add, start, pairs) if pairs else nothing
    return result


def unfold_transpose(x, kernel, dilation, padding, stride, output_padding):
    """The columns of a transposed convolution of x (N, C, ...)."""
    size = transposed_size(x.shape[2:], kernel, stride, padding, output_padding, dilation)
    columns = np.zeros(x.shape[:2] + tuple(kernel) + size, x.dtype)
    for place, met in meetings(x.shape[2:], kernel, size, stride, padding, dilation).items():
        for tap, pixel in met:
            columns[(slice(None),) * 2 + tap + place] = x[(slice(None),) * 2 + pixel]
    return columns.reshape(x.shape[0], x.shape[1] * int(np.prod(kernel)), int(np.prod(size)))


def terms(x, w, multiply, pad, stride, pads, dilation, groups):
    """The same in two steps, with whole arrays: (multiply(w, x), which of them count), both (N, O, taps, blocks)."""
    columns, inside = (unfold(image, w.shape[2:], dilation, pads, stride) for image in (x, np.ones(x.shape, bool)))
    columns, inside = (array.reshape(len(x), groups, 1, -1, array.shape[2]) for array in (columns, inside))
    if pad is not None:
        columns, inside = np.where(inside, columns, pad), np.ones_like(inside)
    weights = w.reshape(groups, len(w) // groups, -1, 1)
    weights, columns, inside = np.broadcast_arrays(weights, columns, inside)
    shape = (len(x), len(w)) + columns.shape[3:]
    return multiply(*(array.reshape(shape) for array in (weights, columns))), inside.reshape(shape)


def reduced(terms, inside, add, start, nothing=None):
    """The second step, tap after tap, (N, O, blocks). nothing: the result where no tap counts, and start is None."""
    counted = np.full(terms[:, :, 0].shape, start is not None)
    acc = np.full_like(terms[:, :, 0], 0 if start is None else start)
    for tap in range(terms.shape[2]):
        here, term = inside[:, :, tap], terms[:, :, tap]
        acc = np.where(here, np.where(counted, add(acc, term), term), acc)
        counted = counted | here
    return acc if counted.all() else np.where(counted, acc, nothing)


def matmul(a, b, multiply, add, start):
    """a (M, K), b (K, N)."""
    result = np.empty((a.shape[0], b.shape[1]), object)
    for i, j in itertools.product(range(a.shape[0]), range(b.shape[1])):
        result[i, j] = reduce_terms(multiply, add, start, [(a[i, k], b[k, j]) for k in range(a.shape[1])])
    return result
