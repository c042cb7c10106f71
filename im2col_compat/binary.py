"""Layers of XNOR networks: xnor, scaled as XNOR-Net scales it (arXiv 1603.05279)."""

from im2col_compat.compat.arrays import TORCH
from im2col_compat.conv import conv2d, linear
from im2col_compat.modules import Conv2d, Linear
from im2col_compat.op import NAMED


class _Binary(object):
    """A layer of which the op is xnor, and alpha and K are settings."""

    def _with_own(self, settings):
        return "{}, alpha={}, K={}".format(super(_Binary, self)._with_own(settings), self.alpha, self.K)


class BinaryConv2d(_Binary, Conv2d):
    """A convolution of signs, Conv2d's with op="xnor", and XNOR-Net's scaling factors (arXiv 1603.05279, section 3.2).

    Arguments are nn.Conv2d's, then
    alpha: whether each filter's result is multiplied by the mean of the filter's weights' sizes
    K: whether each position's result is multiplied by the mean of the sizes of the inputs that it is made of; those
       beyond the border count as zeros. With groups, each has its own.
    Signs get straight-through gradients (see ops.xnor); alpha and K are differentiated as what they are. The bias is
    added at the end. ``BinaryConv2d.from_conv(conv, alpha, K)`` makes one of an nn.Conv2d, sharing its parameters.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
        alpha=False,
        K=False,
    ):
        super(BinaryConv2d, self).__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype,
            NAMED["xnor"],
        )  # fmt: skip
        self.alpha, self.K = bool(alpha), bool(K)

    @classmethod
    def from_conv(cls, conv, alpha=False, K=False):
        """A layer with the settings and the very parameters (shared, not copied) of an nn.Conv2d."""
        new = super(BinaryConv2d, cls).from_conv(conv, NAMED["xnor"])
        new.alpha, new.K = bool(alpha), bool(K)
        return new

    def forward(self, input):
        padded, padding = self._padded(input)
        result = self._convolved(padded, padding, self.weight, None, self.op)
        if self.alpha:
            result = result * self.weight.abs().contiguous().view(self.out_channels, -1).mean(1).view(-1, 1, 1)
        if self.K:
            result = result * self._size_of_input(padded, padding)
        return result if self.bias is None else result + self.bias.view(-1, 1, 1)

    def _size_of_input(self, input, padding):
        unbatched = input.dim() == 3
        batch, channels = 1 if unbatched else input.shape[0], self.in_channels // self.groups
        sizes = (batch, self.groups, channels) + tuple(input.shape[-2:])
        means = input.abs().contiguous().view(*sizes).mean(2)
        # The mean over a window, as a convolution: that has all of a convolution's settings.
        height, width = self.kernel_size
        arrays = TORCH
        box = arrays.tensor(arrays.full(input, (self.groups, 1, height, width), 1.0 / (height * width)))
        means = conv2d(means, box, None, self.stride, padding, self.dilation, self.groups)
        # Each group's for all of its filters.
        filters = [index // (self.out_channels // self.groups) for index in range(self.out_channels)]
        means = arrays.take(means, filters, 1) if self.groups > 1 else means
        return means[0] if unbatched else means


class BinaryLinear(_Binary, Linear):
    """A fully connected layer of signs, with alpha for each output and K for each input: as BinaryConv2d.

    Arguments are nn.Linear's, then alpha and K. ``BinaryLinear.from_linear(linear, alpha, K)`` makes one of an nn.Linear.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, alpha=False, K=False):
        super(BinaryLinear, self).__init__(in_features, out_features, bias, device, dtype, NAMED["xnor"])
        self.alpha, self.K = bool(alpha), bool(K)

    @classmethod
    def from_linear(cls, linear, alpha=False, K=False):
        """A layer with the sizes and the very parameters (shared, not copied) of an nn.Linear."""
        new = super(BinaryLinear, cls).from_linear(linear, NAMED["xnor"])
        new.alpha, new.K = bool(alpha), bool(K)
        return new

    def forward(self, input):
        result = linear(input, self.weight, None, op=self.op)
        if self.alpha:
            result = result * self.weight.abs().mean(1)
        if self.K:
            result = result * input.abs().mean(input.dim() - 1, keepdim=True)
        return result if self.bias is None else result + self.bias
