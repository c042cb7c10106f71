"""Layers of XNOR networks: the op xnor, and the scaling factors of XNOR-Net (arXiv 1603.05279)."""

from im2col_compat.compat.arrays import TORCH as arrays
from im2col_compat.modules import Conv2d, Layer, Linear, constructor
from im2col_compat.op import NAMED


class _Binary(Layer):
    """What BinaryConv2d and BinaryLinear have in common. Each has its own `_mean_input(padded)`, the factor K."""

    def _set_own(self, alpha=False, K=False):
        self.op, self.alpha, self.K = NAMED["xnor"], bool(alpha), bool(K)

    def _with_own(self, settings):
        return "{}, alpha={}, K={}".format(super(_Binary, self)._with_own(settings), self.alpha, self.K)

    def forward(self, input):
        padded = self._padded(input)
        result = self._reduced(padded, self.weight, self.op)
        if self.alpha:
            means = self.weight.abs().contiguous().view(self.weight.shape[0], -1).mean(1)
            result = result * self._per_filter(means)
        return self._biased(result * self._mean_input(padded) if self.K else result)


class BinaryConv2d(_Binary, Conv2d):
    """A convolution of signs: Conv2d with op="xnor", and XNOR-Net's scaling factors (arXiv 1603.05279, section 3.2).

    Arguments are nn.Conv2d's, and then
    alpha: whether to multiply the result of each filter by the mean absolute value of its weights.
    K: whether to multiply the result at each position by the mean absolute value of the inputs in its window. Padding
        counts as zeros. Each group has its own means.

    The bias is added last. Signs have straight-through gradients (see ops.xnor). alpha and K have their true gradients.
    Shapes are as for conv2d.

    Raises what Conv2d raises.
    """

    __init__ = constructor(Conv2d.__init__, _Binary._set_own)

    @classmethod
    def from_conv(cls, conv, alpha=False, K=False):
        """A layer with the settings of an nn.Conv2d, sharing its parameters. alpha, K: as for the constructor.

        Raises TypeError for other layers.
        """
        return cls._sharing(conv, alpha, K)

    def _mean_input(self, padded):
        batch, groups = tuple(padded.shape[:-3]), self.groups
        sizes = batch + (groups, self.in_channels // groups) + tuple(padded.shape[-2:])
        means = padded.abs().contiguous().view(*sizes).mean(len(batch) + 1)
        # The mean over each window is a convolution with the settings of this one.
        height, width = self.kernel_size
        box = arrays.tensor(arrays.full(padded, (groups, 1, height, width), 1.0 / (height * width)))
        means = self._reduced(means, box, "dot")
        # All filters of a group have its means.
        group_of = [index // (self.out_channels // groups) for index in range(self.out_channels)]
        return arrays.take(means, group_of, len(batch)) if groups > 1 else means


class BinaryLinear(_Binary, Linear):
    """A fully connected layer of signs: Linear with op="xnor", and XNOR-Net's scaling factors.

    Arguments are nn.Linear's, and then
    alpha: whether to multiply each output by the mean absolute value of its weights.
    K: whether to multiply the results of each input by the mean of its absolute values.

    All else is as for BinaryConv2d, but for the shapes, which are as for linear.
    """

    __init__ = constructor(Linear.__init__, _Binary._set_own)

    @classmethod
    def from_linear(cls, linear, alpha=False, K=False):
        """A layer with the sizes of an nn.Linear, sharing its parameters. alpha, K: as for the constructor.

        Raises TypeError for other layers.
        """
        return cls._sharing(linear, alpha, K)

    def _mean_input(self, padded):
        return padded.abs().mean(padded.dim() - 1, keepdim=True)
