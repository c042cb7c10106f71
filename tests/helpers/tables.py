"""Tables of terms, their operands, and look-ups as NumPy does them."""

import itertools

import numpy as np
from helpers import oracle, problems

MOST = 2**31 - 1
#: The least and the greatest entry: spans of one byte, of two, of more; and what sums of 32 bits can't hold.
SPANS = {
    "byte": (-300, -45),
    "two-bytes": (-300, -44),
    "short": (-40000, 25535),
    "more": (-40000, 25536),
    "most": (-MOST, MOST),
}


def random_entries(bits, span, seed=0):
    """A table with every operand's own entries, the least and the greatest of the span among them."""
    low, high = SPANS[span]
    entries = np.random.RandomState(seed).randint(low, high + 1, [2**count for count in bits]).astype("int64")
    entries[0, 0], entries[-1, -1] = low, high
    return entries


def operands(op_bits, signed, shapes, seed=1):
    """(w, x) of all that operands can be, as int64."""
    random = np.random.RandomState(seed)
    found = []
    for bits, sign, shape in zip(op_bits, signed, shapes):
        low = -(2 ** (bits - 1)) if sign else 0
        found.append(random.randint(low, low + 2**bits, shape).astype("int64"))
        found[-1].flat[:2] = low, low + 2**bits - 1
    return found


def looked_up(entries, w, x):
    """entries[w, x], where negative operands are their bits."""
    return entries[w % entries.shape[0], x % entries.shape[1]]


def product(entries, w, x):
    """linear's (N, O), of w (O, K) and x (N, K)."""
    return looked_up(entries, w, x[:, None]).sum(2)


def convolution(entries, w, x, stride=1, padding=0, dilation=1, groups=1, pad=0):
    """conv's result; pad: what is padded with, or None."""
    kernel = w.shape[2:]
    pads = tuple(problems.pads(padding, kernel, dilation))
    stride, dilation = oracle.each(stride, len(kernel)), oracle.each(dilation, len(kernel))
    columns, inside = (oracle.unfold(image, kernel, dilation, pads, stride) for image in (x, np.ones_like(x)))
    columns = np.where(inside, columns, pad or 0).reshape(len(x), groups, 1, -1, columns.shape[2])
    inside = inside.reshape(columns.shape)
    terms = looked_up(entries, w.reshape(groups, len(w) // groups, -1, 1), columns)
    blocks = [oracle.blocks(*sizes) for sizes in zip(x.shape[2:], kernel, dilation, pads, stride)]
    return (terms if pad is not None else terms * inside).sum(3).reshape([len(x), len(w)] + blocks)


def by_loops(entries, w, x, add, start=None, stride=1, padding=0, groups=1, pad=0):
    """conv2d's result, term by term: add(acc, term) in the order of k, from `start` or from the first term."""
    (filters, channels), kernel = w.shape[:2], w.shape[2:]
    blocks = [(size + 2 * padding - k) // stride + 1 for size, k in zip(x.shape[2:], kernel)]
    result = np.empty([len(x), filters] + blocks, entries.dtype)
    for place in np.ndindex(*result.shape):
        n, o, rows = place[0], place[1], place[2:]
        acc = start
        for c, u, v in itertools.product(range(channels), range(kernel[0]), range(kernel[1])):
            i, j = rows[0] * stride - padding + u, rows[1] * stride - padding + v
            inside = 0 <= i < x.shape[2] and 0 <= j < x.shape[3]
            if not inside and pad is None:
                continue
            pixel = x[n, o // (filters // groups) * channels + c, i, j] if inside else pad
            term = entries[w[o, c, u, v] % entries.shape[0], pixel % entries.shape[1]]
            acc = term if acc is None else add(acc, term)
        result[place] = acc
    return result
