"""Shapes: their operands, how conv2d, linear and matmul become a product of (O, K) and (N, K, L), and true results."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

import im2col_compat


class Problem:
    """`rows` brings w to (O, K), `columns` brings x to (N, K, L), `result` brings (N, O, L) to the result's shape."""

    def operands(self):
        """x and w, the same in every process."""
        generator = torch.Generator().manual_seed(0)
        return tuple(torch.randn(shape, generator=generator) for shape in (self.x_shape, self.w_shape))

    @property
    def macs(self):
        """How many terms there are."""
        return math.prod(self.sizes)

    def reference(self, x, w, multiply, add=torch.sum, backward=False):
        """In float64, a block of the broadcast terms at a time: [y], or [y, gradient of x, gradient of w]."""
        rows, columns = self.rows(w.double()).requires_grad_(backward), self.columns(x.double())
        batch, filters, taps, length = self.sizes
        y = torch.empty(batch, filters, length, dtype=torch.float64)
        grad_rows, grad_columns = 0, torch.empty_like(columns)
        if backward:
            # self.result gives a view of (N, O, L): what is written to it is in grad too.
            grad = torch.empty(batch, filters, length)
            shaped = self.result(grad)
            shaped.copy_(grad_of_result(shaped))
            grad = grad.double()
        step = max(1, 2**18 // (filters * taps))
        for image in range(batch):
            for start in range(0, length, step):
                here = slice(start, start + step)
                block = columns[image, :, here].clone().requires_grad_(backward)
                result = add(multiply(rows[:, :, None], block), 1)
                y[image, :, here] = result.detach()
                if backward:
                    d_rows, grad_columns[image, :, here] = torch.autograd.grad(
                        result, (rows, block), grad[image, :, here]
                    )
                    grad_rows = grad_rows + d_rows
        if not backward:
            return [self.result(y)]
        return [self.result(y), self.image(grad_columns), grad_rows.reshape(self.w_shape)]


@dataclass(frozen=True)
class Conv(Problem):
    batch: int
    channels: int
    size: int
    filters: int
    kernel: int
    padding: int
    stride: int

    def __str__(self):
        name = f"{self.batch}x{self.channels}x{self.size}² → {self.filters}, {self.kernel}x{self.kernel}"
        return name + (f" /{self.stride}" if self.stride > 1 else "")

    @property
    def x_shape(self):
        return self.batch, self.channels, self.size, self.size

    @property
    def w_shape(self):
        return self.filters, self.channels, self.kernel, self.kernel

    @property
    def out(self):
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def sizes(self):
        return self.batch, self.filters, self.channels * self.kernel**2, self.out**2

    def rows(self, w):
        return w.reshape(self.filters, -1)

    def columns(self, x):
        return F.unfold(x, self.kernel, padding=self.padding, stride=self.stride)

    def image(self, columns):
        """The adjoint of `columns`."""
        return F.fold(columns, (self.size, self.size), self.kernel, padding=self.padding, stride=self.stride)

    def result(self, y):
        return y.reshape(self.batch, self.filters, self.out, self.out)

    def broadcast(self, multiply, w, x):
        """Terms and their sum as anyone would write them."""
        return self.result(multiply(self.rows(w)[None, :, :, None], self.columns(x)[:, None]).sum(2))

    def ours(self, x, w, op):
        return im2col_compat.conv2d(x, w, padding=self.padding, stride=self.stride, op=op)

    def native(self, x, w):
        return F.conv2d(x, w, padding=self.padding, stride=self.stride)


@dataclass(frozen=True)
class Depthwise(Conv):
    """A filter for each channel."""

    def __str__(self):
        return super().__str__().replace(f"→ {self.filters}", "depthwise")

    @property
    def w_shape(self):
        return self.filters, 1, self.kernel, self.kernel

    @property
    def macs(self):
        return self.batch * self.channels * self.kernel**2 * self.out**2

    def ours(self, x, w, op):
        return im2col_compat.conv2d(x, w, padding=self.padding, stride=self.stride, groups=self.channels, op=op)

    def native(self, x, w):
        return F.conv2d(x, w, padding=self.padding, stride=self.stride, groups=self.channels)

    def reference(self, x, w, multiply, backward=False):
        """An image at a time."""
        rows, results, grad_rows = w.double().requires_grad_(backward), [], 0
        grad = grad_of_result(torch.empty(self.batch, self.channels, self.out, self.out)).double()
        for image, its_grad in zip(x.double(), grad, strict=True):
            image = image[:, None].requires_grad_(backward)
            columns = F.unfold(image, self.kernel, padding=self.padding, stride=self.stride)
            y = multiply(rows.reshape(self.channels, -1, 1), columns).sum(1).reshape(its_grad.shape)
            d_image, d_rows = torch.autograd.grad(y, (image, rows), its_grad) if backward else (image, 0)
            results.append((y.detach(), d_image[:, 0]))
            grad_rows = grad_rows + d_rows
        y, d_x = (torch.stack(parts) for parts in zip(*results, strict=True))
        return [y, d_x, grad_rows] if backward else [y]


@dataclass(frozen=True)
class Codes(Conv):
    """A convolution of integers of eight bits."""

    def operands(self):
        generator = torch.Generator().manual_seed(0)
        shapes = self.x_shape, self.w_shape
        return tuple(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8) for shape in shapes)

    def columns(self, x):
        """Ours, as F.unfold takes no integers."""
        with im2col_compat.use_backend("ffi"):
            return im2col_compat.unfold(x, self.kernel, padding=self.padding, stride=self.stride)


@dataclass(frozen=True)
class Linear(Problem):
    batch: int
    features: int
    filters: int

    def __str__(self):
        return f"linear {self.batch}x{self.features} → {self.filters}"

    @property
    def x_shape(self):
        return self.batch, self.features

    @property
    def w_shape(self):
        return self.filters, self.features

    @property
    def sizes(self):
        return 1, self.filters, self.features, self.batch

    def rows(self, w):
        return w

    def columns(self, x):
        return x.t().contiguous()[None]

    def image(self, columns):
        return columns[0].t()

    def result(self, y):
        return y[0].t()

    def broadcast(self, multiply, w, x):
        return multiply(w, x[:, None]).sum(2)

    def ours(self, x, w, op):
        return im2col_compat.linear(x, w, op=op)

    def native(self, x, w):
        return F.linear(x, w)


@dataclass(frozen=True)
class Matmul(Problem):
    """x is the right operand, (K, L), w the left one, (O, K)."""

    filters: int
    taps: int
    length: int

    def __str__(self):
        return f"{self.filters}x{self.taps} by {self.taps}x{self.length}"

    @property
    def x_shape(self):
        return self.taps, self.length

    @property
    def w_shape(self):
        return self.filters, self.taps

    @property
    def sizes(self):
        return 1, self.filters, self.taps, self.length

    def rows(self, w):
        return w

    def columns(self, x):
        return x[None]

    def result(self, y):
        return y[0]

    def ours(self, x, w, op):
        return im2col_compat.matmul(w, x, op=op)


@dataclass(frozen=True)
class Columns(Problem):
    """unfold of x, and fold of w. w has the shape of x's columns."""

    batch: int
    channels: int
    size: int
    kernel: int
    padding: int
    stride: int
    dims: int = 2
    dtype: str = "float32"

    def __str__(self):
        name = f"{self.batch}x{self.channels}x{self.size}{'⁰¹²³'[self.dims]}, k{self.kernel}"
        name += f" /{self.stride}" if self.stride > 1 else ""
        return name + (f" {self.dtype}" if self.dtype != "float32" else "")

    def operands(self):
        dtype = getattr(torch, self.dtype)
        x, w = super().operands()
        # Integers small enough that sums of them are exact in every dtype.
        return (4 * x).round().to(dtype), (4 * w).round().to(dtype)

    @property
    def x_shape(self):
        return (self.batch, self.channels) + (self.size,) * self.dims

    @property
    def w_shape(self):
        out = (self.size + 2 * self.padding - self.kernel) // self.stride + 1
        return self.batch, self.channels * self.kernel**self.dims, out**self.dims

    @property
    def macs(self):
        return math.prod(self.w_shape)

    @property
    def settings(self):
        """The arguments of unfold after x. fold takes the image's size before them."""
        return (self.kernel,) * self.dims, 1, self.padding, self.stride

    @property
    def image_size(self):
        return (self.size,) * self.dims


def grad_of_result(y):
    """The gradient that a backward starts from."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
