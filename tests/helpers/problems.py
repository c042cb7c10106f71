"""Tables of problems, apart from the checks made on them."""

#: (image shape, kernel_size, dilation, padding, stride): asymmetric wherever they can be.
COLUMNS = {
    "one-pixel": ((1, 1, 1, 1), 1, 1, 0, 1),
    "plain": ((2, 3, 4, 5), 3, 1, 0, 1),
    "same-size": ((2, 2, 3, 4), 3, 1, 1, 1),
    "asymmetric": ((2, 2, 5, 4), (2, 3), (2, 1), (1, 2), (1, 2)),
    "strided": ((1, 2, 9, 8), (3, 2), 1, (0, 1), (3, 2)),
    "dilated": ((1, 2, 6, 5), 2, (3, 2), (2, 0), 1),
    "gaps": ((1, 2, 8, 9), 1, 1, 0, (3, 4)),
    "leftover": ((1, 1, 6, 7), (2, 3), 1, 0, (3, 4)),
    "mostly-padding": ((1, 2, 2, 1), (2, 3), 1, (4, 5), (2, 1)),
    "padding-only-columns": ((1, 1, 2, 2), 1, 1, 3, 2),
    "whole-image": ((2, 2, 4, 5), (4, 5), 1, 0, 1),
    "wide": ((1, 1, 2, 1500), (1, 3), 1, (0, 1), 1),
    "wide-strided": ((1, 1, 1, 2100), (1, 5), (1, 3), (0, 4), (1, 2)),
    "no-batch": ((0, 2, 5, 5), 2, 1, 0, 1),
    "top-and-left": ((1, 2, 4, 5), 3, 1, ((1, 0), (2, 1)), 1),
    "bottom-and-right": ((1, 2, 4, 5), (2, 3), (1, 2), (1, (0, 2)), (2, 1)),
    "one-side-only": ((1, 1, 3, 3), 2, 1, ((4, 0), (0, 3)), (3, 2)),
    "line": ((2, 3, 7), (3,), 1, 1, 2),
    "line-of-one-side": ((1, 2, 9), (2,), 3, ((3, 0),), 1),
    "wide-line": ((1, 1, 2100), (3,), 1, 1, 1),
    "volume": ((2, 2, 3, 4, 5), (2, 3, 2), 1, 1, 1),
    "volume-of-one-size": ((1, 2, 4, 4, 5), 3, 1, (0, 1, 2), 2),
    "volume-asymmetric": ((1, 2, 5, 4, 3), (3, 2, 1), (2, 1, 3), ((1, 0), (0, 2), 1), (2, 1, 3)),
    "volume-same-size": ((1, 1, 3, 4, 6), 3, 1, 1, 1),
    "no-batch-of-volumes": ((0, 2, 3, 3, 3), 2, 1, 0, 1),
    "four-dimensions": ((1, 2, 3, 4, 2, 3), (2, 1, 2, 3), (1, 1, 1, 1), (0, 1, 1, (1, 0)), (1, 2, 1, 1)),
    "five-dimensions": ((1, 1, 2, 3, 2, 3, 2), (2, 2, 1, 2, 2), 1, (1, 0, 0, 1, 0), 1),
}

#: (image shape, filters, kernel, stride, padding, dilation, groups)
CONVOLUTIONS = {
    "plain": ((2, 3, 5, 6), 4, (3, 2), 1, 0, 1, 1),
    "one-by-one": ((2, 3, 4, 5), 2, (1, 1), 1, 0, 1, 1),
    "asymmetric": ((1, 2, 7, 6), 3, (2, 3), (1, 2), (1, 2), (2, 1), 1),
    "grouped": ((2, 4, 5, 5), 6, (3, 3), (2, 1), 1, 1, 2),
    "depthwise": ((1, 3, 6, 5), 6, (2, 2), 1, (0, 1), (1, 2), 3),
    "far-padding": ((1, 1, 2, 3), 2, (1, 2), 1, (3, 2), 1, 1),
    "same": ((1, 2, 5, 6), 2, (2, 3), 1, "same", (1, 2), 1),
    "valid": ((1, 2, 5, 6), 2, (2, 3), 2, "valid", 1, 1),
    "one-sided": ((1, 2, 4, 5), 2, (2, 3), (2, 1), ((1, 0), (0, 2)), 1, 1),
    "line": ((2, 3, 9), 4, (3,), 2, 1, 2, 1),
    "line-grouped": ((1, 4, 6), 4, (2,), 1, ((0, 3),), 1, 2),
    "line-same": ((1, 2, 6), 3, (4,), 1, "same", 1, 1),
    "volume": ((2, 2, 3, 4, 5), 3, (2, 3, 2), 1, 1, 1, 1),
    "volume-asymmetric": ((1, 4, 4, 3, 5), 4, (2, 1, 3), (2, 1, 2), (1, (0, 2), 2), (1, 2, 1), 2),
    "volume-same": ((1, 1, 3, 3, 4), 2, (2, 3, 2), 1, "same", (1, 1, 2), 1),
}

#: (image shape, filters, kernel, stride, padding, output_padding, dilation, groups) of transposed convolutions
TRANSPOSED = {
    "plain": ((2, 3, 3, 4), 4, (3, 2), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    "doubling": ((2, 2, 3, 3), 3, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1),
    "odd": ((1, 2, 3, 4), 2, (3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
    "patches": ((1, 2, 2, 3), 2, (2, 3), (2, 3), (0, 0), (0, 0), (1, 1), 1),
    "gaps": ((1, 2, 3, 2), 2, (1, 2), (3, 4), (0, 1), (2, 0), (1, 1), 1),
    "dilated": ((1, 2, 3, 4), 2, (3, 2), (1, 2), (1, 2), (0, 1), (2, 3), 1),
    "common-divisor": ((1, 1, 3, 3), 2, (4, 3), (4, 6), (3, 5), (2, 3), (6, 4), 1),
    "same-step": ((1, 2, 3, 2), 2, (3, 2), (2, 3), (2, 1), (1, 2), (2, 3), 1),
    "cropped": ((1, 2, 5, 4), 2, (2, 3), (1, 2), (2, 3), (0, 1), (1, 1), 1),
    "far-output": ((1, 1, 2, 3), 1, (2, 1), (1, 1), (0, 0), (3, 1), (4, 2), 1),
    "grouped": ((2, 4, 3, 3), 6, (3, 3), (2, 1), (1, 0), (0, 0), (1, 1), 2),
    "depthwise": ((1, 3, 3, 4), 6, (4, 2), (2, 1), (1, 1), (0, 0), (1, 2), 3),
    "line": ((2, 3, 5), 4, (5,), (3,), (2,), (1,), (1,), 1),
    "line-grouped": ((1, 4, 4), 4, (3,), (2,), (0,), (2,), (4,), 2),
    "volume": ((1, 2, 2, 3, 2), 2, (2, 3, 2), (2, 1, 3), (0, 1, 0), (1, 0, 2), (1, 1, 1), 1),
}


def pads(padding, kernel, dilation):
    """(before, after) of each dimension, of a convolution's padding, worked out by hand."""
    if padding == "valid":
        return [(0, 0) for _ in kernel]
    if padding == "same":
        totals = [(k - 1) * (dilation if isinstance(dilation, int) else dilation[i]) for i, k in enumerate(kernel)]
        return [(total // 2, total - total // 2) for total in totals]
    sides = padding if isinstance(padding, tuple) else (padding,) * len(kernel)
    return [side if isinstance(side, tuple) else (side, side) for side in sides]
