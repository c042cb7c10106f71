"""One problem for each of many samples, as torch.func.vmap asks for, as a single one: the samples become images, filters
or groups."""

from collections import namedtuple

from im2col_compat.problem import conv_problem, linear_problem, matmul_problem, product


class Merged(namedtuple("Merged", "samples order shape")):
    """How the samples of an operand, or of a result, are one tensor.

    samples: the shape that they are taken in, the number of samples first, which is 1 where they share one operand
    order: of these dimensions in the tensor; shape: the tensor's
    """

    __slots__ = ()

    def merge(self, tensor):
        """The tensor of samples that lie along dimension 0, or of one that all share."""
        one = tensor.reshape((-1,) + self.samples[1:])
        return one.expand(self.samples).permute(self.order).reshape(self.shape)

    def split(self, tensor, shape):
        """The samples of a tensor again, each of a shape."""
        moved = tensor.reshape([self.samples[axis] for axis in self.order])
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return moved.permute(back).reshape(self.samples[:1] + tuple(shape))


def _in_order(samples, shape):
    return Merged(samples, tuple(range(len(samples))), shape)


def of(problem, size, w_varies, x_varies):
    """(the single problem, w's Merged, x's, the result's), for `size` samples that vary in w, in x, or in both."""
    if problem.is_conv:
        return _of_conv(problem, size, w_varies, x_varies)
    w_shape, x_shape = problem.w_shape, problem.x_shape
    w_samples = (size if w_varies else 1,) + w_shape
    x_samples = (size if x_varies else 1,) + x_shape
    y_samples = (size,) + problem.result_shape
    if problem.function == "linear" and not w_varies:
        w, x, y = _in_order(w_samples, w_shape), _in_order(x_samples, x_samples), _in_order(y_samples, y_samples)
        return linear_problem(x.shape, w.shape, None), w, x, y
    w, x = _in_order(w_samples, w_samples), _in_order(x_samples, x_samples)
    if problem.function == "linear":
        # matmul has rows of features as columns.
        rows, (filters, features) = product(x_shape[:-1]), w_shape
        x = Merged((x_samples[0], rows, features), (0, 2, 1), (x_samples[0], features, rows))
        y = Merged((size, rows, filters), (0, 2, 1), (size, filters, rows))
        return matmul_problem(w.shape, x.shape), w, x, y
    larger = matmul_problem(w.shape, x.shape)
    return larger, w, x, _in_order(y_samples, larger.result_shape)


def _of_conv(problem, size, w_varies, x_varies):
    batch, groups, w_shape = problem.batch, problem.groups, problem.w_shape
    # Where there are groups, filters of other samples are other groups, which have an image of their own.
    x_varies = x_varies or w_varies and groups > 1
    along_channels = (1, 0) + tuple(range(2, 3 + len(problem.image)))
    w = _in_order((size if w_varies else 1,) + w_shape, ((size if w_varies else 1) * w_shape[0],) + w_shape[1:])
    channels = groups * problem.channels
    x_samples = (size if x_varies else 1, batch, channels) + problem.image
    y_samples = (size, batch, w_shape[0]) + problem.blocks
    if w_varies:
        x = Merged(x_samples, along_channels, (batch, x_samples[0] * channels) + problem.image)
        y = Merged(y_samples, along_channels, (batch, size * w_shape[0]) + problem.blocks)
        groups *= x_samples[0]
    else:
        x = _in_order(x_samples, (size * batch, channels) + problem.image)
        y = _in_order(y_samples, (size * batch, w_shape[0]) + problem.blocks)
    numbers = problem.stride, problem.pads, problem.dilation, groups
    return conv_problem(len(problem.image), x.shape, w.shape, None, *numbers), w, x, y
