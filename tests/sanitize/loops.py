"""What the library should compute, by NumPy alone: the pixel that each tap of each block is, then whole arrays of terms."""

import numpy as np


def counts(image, kernel, dilation, padding, stride):
    """How many blocks there are along each axis. In Python's integers, as all sizes here: none can overflow."""
    sizes = zip(image, kernel, dilation, padding, stride)
    return tuple((size + before + after - d * (k - 1) - 1) // s + 1 for size, k, d, (before, after), s in sizes)


def pixels(image, kernel, dilation, padding, stride):
    """(taps, blocks): which pixel of a flat image it is, -1 in the padding."""
    index, gone = np.zeros((1, 1), np.int64), np.zeros((1, 1), bool)
    several = counts(image, kernel, dilation, padding, stride)
    for size, k, d, (before, _), s, count in zip(image, kernel, dilation, padding, stride, several):
        places = [[block * s + tap * d - before for block in range(count)] for tap in range(k)]
        axis = np.array([[place if 0 <= place < size else -1 for place in row] for row in places], np.int64)
        shape = len(index) * k, index.shape[1] * count
        index = (index[:, None, :, None] * size + axis[None, :, None, :]).reshape(shape)
        gone = (gone[:, None, :, None] | (axis < 0)[None, :, None, :]).reshape(shape)
    return np.where(gone, -1, index)


def unfold(x, where, fill=0):
    """Columns (N, C * taps, blocks) of x, (N, C, ...)."""
    flat = x.reshape(x.shape[:2] + (-1,))
    columns = flat[:, :, where]
    columns[:, :, where < 0] = fill
    return columns.reshape(len(x), -1, where.shape[1])


def fold(columns, where, shape, dtype=None):
    """The image of a shape (N, C, ...) that columns add up to."""
    columns = columns.reshape(shape[:2] + where.shape)
    image = np.zeros(shape[:2] + (int(np.prod(shape[2:])),), dtype or columns.dtype)
    for tap, row in enumerate(where):
        inside = row >= 0
        # No two blocks have the same pixel at one tap.
        image[:, :, row[inside]] += columns[:, :, tap, inside]
    return image.reshape(shape)


class Terms(object):
    """The terms of w, (groups, filters, K), and x, (batch, groups, K, L), and what follows from them.

    there: (K, L), which taps count. reduction: "sum", "max", "min", "prod", "logsumexp", or (factor, identity) of a fold acc * factor + term,
    which starts from the first term where identity is None: then all taps count.
    """

    def __init__(self, term, reduction, w, x, there):
        self.w, self.x = w[None, :, :, :, None], x[:, :, None]
        self.there, self.reduction = np.broadcast_to(there, x.shape[2:]), reduction
        self.values = term(self.w, self.x)

    def result(self):
        """(batch, groups, filters, L)."""
        values, whole = self.values, self.values.dtype.kind in "iub"
        if self.reduction in ("max", "min"):
            none = {"max": -np.inf, "min": np.inf}[self.reduction]
            if whole:
                none = getattr(np.iinfo(values.dtype), {"max": "min", "min": "max"}[self.reduction])
            return getattr(np.where(self.there, values, np.asarray(none, values.dtype)), self.reduction)(3)
        if self.reduction == "prod":
            return np.where(self.there, values, 1).prod(3, dtype=np.int64 if whole else np.float64)
        if self.reduction == "logsumexp":
            values = np.where(self.there, values.astype(np.float64), -np.inf)
            most = values.max(3, keepdims=True)
            most = np.where(np.isfinite(most), most, 0)
            return np.log(np.exp(values - most).sum(3)) + most[:, :, :, 0]
        if self.reduction == "sum":
            return np.where(self.there, values, 0).sum(3, dtype=np.int64 if whole else np.float64)
        factor, identity = self.reduction
        acc = values[:, :, :, 0] if identity is None else np.full_like(values[:, :, :, 0], identity)
        for k in range(identity is None, values.shape[3]):
            acc = np.where(self.there[k], acc * values.dtype.type(factor) + values[:, :, :, k], acc)
        return acc

    def gradients(self, grad, grad_w, grad_x):
        """(dw, dx): (groups, filters, K) and columns (batch, groups, K, L), for grad, (batch, groups, filters, L)."""
        grad, there = grad[:, :, :, None, :].astype(np.float64), self.there
        if self.reduction in ("max", "min"):
            losing = np.where(there, self.values, -np.inf if self.reduction == "max" else np.inf)
            first = getattr(losing, "arg" + self.reduction)(3)[:, :, :, None, :]
            there = there & (np.arange(self.values.shape[3]).reshape(-1, 1) == first)
        elif self.reduction == "prod":
            values = np.where(there, self.values, 1).astype(np.float64)
            ones = np.ones_like(values[:, :, :, :1])
            before = np.concatenate([ones, values[:, :, :, :-1]], 3).cumprod(3)
            after = np.concatenate([ones, values[:, :, :, :0:-1]], 3).cumprod(3)[:, :, :, ::-1]
            grad = grad * before * after
        elif self.reduction == "logsumexp":
            result = self.result()[:, :, :, None]
            result = np.where(np.isfinite(result), result, 0)  # where no term is there
            grad = grad * np.exp(np.where(there, self.values.astype(np.float64), -np.inf) - result)
        elif self.reduction != "sum":
            # Those that come after a term scale it.
            after = there.sum(0) - there.cumsum(0)
            grad = grad * np.power(float(self.reduction[0]), after)
        grad = np.where(there, grad, 0)
        shape = self.values.shape
        dw, dx = [np.broadcast_to(grad * partial(self.w, self.x), shape) for partial in (grad_w, grad_x)]
        return dw.sum((0, 4)), dx.sum(2)
