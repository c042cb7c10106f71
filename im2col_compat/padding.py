"""Padding with an image's own pixels: nn.Conv2d's padding_mode."""

from im2col_compat.compat import graphs
from im2col_compat.compat.arrays import TORCH, enter
from im2col_compat.problem import conv_pads

MODES = ("reflect", "replicate", "circular")  # in the order of nn.Conv2d's messages
#: For each mode: which pixel of an axis is at position i, in the padding or not; how much padding there may be.
_MODES = {
    "reflect": (lambda i, size: size - 1 - abs(size - 1 - abs(i)), lambda size: size - 1),
    "replicate": (lambda i, size: min(max(i, 0), size - 1), lambda size: float("inf")),
    "circular": (lambda i, size: i % size, lambda size: size),
}


def pad_for_conv(input, weight, padding, stride, dilation, mode):
    """The input of a convolution, padded as the convolution asks for. So it needs no more padding.

    input: (N, C, ...) or (C, ...), of any version and dtype.
    weight, padding, stride, dilation: the convolution's; the weight has shape (O, C / groups, ...).
    mode: "reflect", "replicate" or "circular", as in F.pad.

    Raises RuntimeError for padding that exceeds size - 1 for "reflect", or size for "circular".
    """
    if graphs.overridden(input, weight):
        arguments = input, weight, padding, stride, dilation, mode
        return graphs.taken_over(pad_for_conv, (input, weight), *arguments)
    arrays, (x,), leave = enter("pad", ("input",), (input,))
    dims = len(weight.shape) - 2
    if len(x.shape) not in (dims + 1, dims + 2):
        return input  # the convolution refuses it, and says why
    pads = conv_pads(dims, graphs.sizes(weight), padding, stride, dilation)
    if graphs.capturing() and arrays is TORCH:
        # Indices would be those of the sizes that are recorded.
        return TORCH.pad(x, pads, 0, mode)
    pixel, most = _MODES[mode]
    for axis, (before, after) in enumerate(pads, len(x.shape) - dims):
        size = int(x.shape[axis])
        if max(before, after) > most(size):
            message = "conv{}d(): padding_mode={!r} needs padding of at most {} for an input of shape {}, but got {}"
            raise RuntimeError(message.format(dims, mode, most(size), tuple(x.shape), pads))
        if before or after:
            x = arrays.take(x, [pixel(i, size) for i in range(-before, size + after)], axis)
    return leave(x)
