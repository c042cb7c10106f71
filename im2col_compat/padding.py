"""Padding with an image's own pixels, as nn.Conv2d's padding_mode names it."""

from im2col_compat.compat.arrays import enter
from im2col_compat.problem import conv_pads


def _reflect(i, size):
    return -i if i < 0 else 2 * (size - 1) - i if i >= size else i


def _replicate(i, size):
    return min(max(i, 0), size - 1)


def _circular(i, size):
    return i % size


#: Which pixel stands at position i of an axis, and how many pixels of padding there may be on one side.
_MODES = {
    "reflect": (_reflect, lambda size: size - 1),
    "replicate": (_replicate, lambda size: float("inf")),
    "circular": (_circular, lambda size: size),
}
MODES = ("reflect", "replicate", "circular")


def pad_for_conv(input, weight, padding, stride, dilation, mode):
    """input, (N, C, ...) or (C, ...), with the padding that a convolution with this weight (O, C / groups, ...) asks for.

    mode: "reflect", "replicate" or "circular", each as F.pad has it, on every version and dtype. RuntimeError for
    padding that a mode can't give: at least the size for "reflect", more than it for "circular".
    """
    arrays, (x,), leave = enter("pad", [("input", input)])
    dims = len(weight.shape) - 2
    if len(x.shape) not in (dims + 1, dims + 2):
        return input  # which the convolution will refuse
    pads = conv_pads(dims, weight.shape, padding, stride, dilation)
    pixel, most = _MODES[mode]
    for axis, (before, after) in zip(range(len(x.shape) - dims, len(x.shape)), pads):
        size = int(x.shape[axis])
        if max(before, after) > most(size):
            raise RuntimeError(
                "conv{}d(): padding_mode={!r} needs padding of at most {} for an input of shape {}, but got {}".format(
                    dims, mode, most(size), tuple(x.shape), pads
                )
            )
        if before or after:
            x = arrays.take(x, [pixel(i, size) for i in range(-before, size + after)], axis)
    return leave(x)
