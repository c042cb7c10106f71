"""What the library should compute, as plain nested loops over NumPy arrays. Shares no code with it."""

import itertools

import numpy as np


def pair(value):
    return tuple(value) if isinstance(value, tuple) else (value, value)


def blocks(size, kernel, dilation, padding, stride):
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _taps(height, width, kernel, dilation, padding, stride):
    """(row of columns within a channel, block index, y, x) for every tap that falls on a pixel; and the block counts."""
    (kh, kw), (dh, dw), (ph, pw), (sh, sw) = (pair(v) for v in (kernel, dilation, padding, stride))
    rows, cols = blocks(height, kh, dh, ph, sh), blocks(width, kw, dw, pw, sw)
    taps = []
    for ky, kx, by, bx in itertools.product(range(kh), range(kw), range(rows), range(cols)):
        y, x = by * sh - ph + ky * dh, bx * sw - pw + kx * dw
        if 0 <= y < height and 0 <= x < width:
            taps.append((ky * kw + kx, by * cols + bx, y, x))
    return taps, kh * kw, rows * cols


def unfold(image, kernel, dilation=1, padding=0, stride=1):
    batch, channels, height, width = image.shape
    taps, area, length = _taps(height, width, kernel, dilation, padding, stride)
    columns = np.zeros((batch, channels * area, length), image.dtype)
    for n, c in itertools.product(range(batch), range(channels)):
        for k, block, y, x in taps:
            columns[n, c * area + k, block] = image[n, c, y, x]
    return columns


def fold(columns, size, kernel, dilation=1, padding=0, stride=1):
    height, width = pair(size)
    taps, area, _ = _taps(height, width, kernel, dilation, padding, stride)
    batch, channels = columns.shape[0], columns.shape[1] // area
    image = np.zeros((batch, channels, height, width), columns.dtype)
    for n, c in itertools.product(range(batch), range(channels)):
        for k, block, y, x in taps:
            image[n, c, y, x] += columns[n, c * area + k, block]
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
    (sh, sw), (dh, dw) = pair(stride), pair(dilation)
    top, bottom, left, right = pads
    batch, _, height, width = x.shape
    filters, channels, kh, kw = w.shape
    rows = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
    cols = (width + left + right - dw * (kw - 1) - 1) // sw + 1
    result = np.empty((batch, filters, rows, cols), object)
    for n, o, r, q in itertools.product(*(range(size) for size in result.shape)):
        pairs = []
        for c, ky, kx in itertools.product(range(channels), range(kh), range(kw)):
            y, z = r * sh + ky * dh - top, q * sw + kx * dw - left
            inside = 0 <= y < height and 0 <= z < width
            if inside or pad is not None:
                channel = o // (filters // groups) * channels + c
                pairs.append((w[o, c, ky, kx], x[n, channel, y, z] if inside else pad))
        result[n, o, r, q] = reduce_terms(multiply, add, start, pairs)
    return result


def matmul(a, b, multiply, add, start):
    """a (M, K), b (K, N)."""
    result = np.empty((a.shape[0], b.shape[1]), object)
    for i, j in itertools.product(range(a.shape[0]), range(b.shape[1])):
        result[i, j] = reduce_terms(multiply, add, start, [(a[i, k], b[k, j]) for k in range(a.shape[1])])
    return result
