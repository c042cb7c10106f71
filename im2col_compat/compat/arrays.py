"""The same few operations on NumPy arrays and on tensors of any PyTorch. ``arrays_of(x)`` is the one that owns x."""

import operator

import numpy as np

from im2col_compat.compat import dtypes, graphs, memory, probes
from im2col_compat.compat.probes import VARIABLES, Tensor, torch

#: Bytes of an operand up to which C gets a dense copy rather than strides.
COPIED = 2**20


class _Arrays(object):
    """What is the same for both kinds."""

    def owns(self, x):
        return isinstance(x, self.type)

    def tensor(self, data):
        """Plain data as what these operations compute with."""
        return data

    def sum_dtype(self, dtype):
        """What to add a dtype's elements in: as wide or wider, and wrapping alike."""
        return "float32" if dtype in dtypes.HALVES else dtype

    def reshape(self, x, shape):
        return x.reshape(shape)

    def shaped(self, x, shape):
        """x in a shape, which it mostly has already."""
        return x if tuple(x.shape) == shape else self.reshape(x, shape)

    def sum(self, x, axis):
        return x.sum(axis)

    def prod(self, x, axis):
        return x.prod(axis)

    def memory_limit(self, x, on_cpu, on_gpu):
        """The bytes that a call on x's device may use, of what is allowed on a CPU and on a GPU."""
        return on_cpu

    def on_gpu(self, *arrays):
        """Whether kernels on a GPU can read the elements of all of these, now."""
        return False

    def channels_last(self, dims, *operands):
        """Whether a convolution of so many dimensions of these has results whose channels come last in memory."""
        return False

    def extremes(self, x):
        """The least and the greatest of x's integers."""
        return int(x.min()), int(x.max())


class _NumPy(_Arrays):
    """Operations on NumPy arrays."""

    name, type, logsumexp = "NumPy arrays", np.ndarray, None
    expand, unsqueeze, stack = staticmethod(np.broadcast_to), staticmethod(np.expand_dims), staticmethod(np.stack)
    matmul, where = staticmethod(np.matmul), staticmethod(np.where)

    def dtype(self, x):
        return x.dtype.name

    def device(self, x):
        return "cpu"

    def is_dense_kind(self, x):
        return x.dtype.kind in "biufc"

    def in_memory(self, *arrays):
        """Whether C can read the elements of all of these, now."""
        return all([self.is_dense_kind(x) and x.dtype.isnative for x in arrays])

    def alike(self, x, y):
        """Whether both have one dtype and are on one device."""
        return x.dtype == y.dtype

    def dense(self, x):
        return np.require(x, requirements="CA")

    def placed(self, x, copied=COPIED):
        """(plain data, None) of what is dense, or of a copy that is; (plain data, strides in elements) of what is not,
        and has more bytes than are copied as a whole."""
        flags = x.flags
        if flags.c_contiguous and flags.aligned:
            return x, None
        strides = [divmod(step, x.itemsize) for step in x.strides]
        if x.nbytes <= copied or not flags.aligned or any([rest for _, rest in strides]):
            return self.dense(x), None
        return x, tuple(step for step, _ in strides)

    def address(self, x):
        return x.__array_interface__["data"][0]

    def empty(self, like, shape, dtype=None, strides=None):
        """New plain data of like's kind, device and (by default) dtype; of other strides than dense ones, where
        channels_last() says so."""
        dtype = like.dtype if dtype is None else np.dtype(dtype)
        memory.check_memory(shape, dtype.itemsize)
        return np.empty(shape, dtype)

    def small(self, like, shape, dtype, strides=None):
        """The same, for what is too small to ask whether there is memory for it."""
        return np.empty(shape, dtype)

    def full(self, like, shape, value, dtype=None, strides=None):
        result = self.empty(like, shape, dtype)
        result.fill(value)
        return result

    def cast(self, x, dtype):
        return x.astype(dtype)

    def permute(self, x, axes):
        return x.transpose(axes)

    def has_memory(self, x):
        """Whether x's elements are somewhere, rather than only said to be."""
        return True

    def takes_results(self, out):
        """Whether C can write a result to out's memory."""
        return self.in_memory(out) and out.flags.c_contiguous and out.flags.aligned and out.flags.writeable

    def overlap(self, a, b):
        """Whether dense a and b share memory."""
        return np.may_share_memory(a, b)

    def touch(self, out):
        """Let those who keep out know that its memory was written to."""

    def assign(self, out, values):
        out[...] = values

    def pad(self, x, pads, value):
        """x with pairs (before, after) of padding along its last axes."""
        first = x.ndim - len(pads)
        sizes = tuple(size + before + after for size, (before, after) in zip(x.shape[first:], pads))
        result = self.full(x, x.shape[:first] + sizes, value)
        result[(Ellipsis,) + tuple(slice(b, b + size) for size, (b, _) in zip(x.shape[first:], pads))] = x
        return result

    def take(self, x, indices, axis):
        return x.take(indices, axis)

    def flip(self, x, axes):
        return x[tuple(slice(None, None, -1 if axis in axes else None) for axis in range(x.ndim))]

    def dense_matrix(self, rows, columns, values, size):
        result = np.zeros(size, values.dtype)
        result[rows, columns] = values
        return result

    def fill(self, x, mask, value):
        """x with `value` where mask is true."""
        return np.where(mask, np.array(value, x.dtype), x)

    def look_up(self, entries, w, x):
        """entries[w, x], of a NumPy array and integers."""
        return entries[w, x]

    def copy(self, x):
        return x.copy()

    def first(self, x):
        """The value of the first element."""
        return x[(0,) * x.ndim].item()

    def add(self, x, y):
        """x + y, where x may be changed."""
        x += y
        return x

    def has_below(self, x, bound):
        """Whether an absolute value in plain data is less."""
        return bool((np.abs(x) < bound).any())

    def exp(self, x):
        return np.exp(x)

    def log(self, x):
        with np.errstate(divide="ignore"):
            return np.log(x)

    def scale(self, x, axis):
        """The greatest along an axis, to measure exponentials by; 0 where it is infinite."""
        most = x.real.max(axis)
        return np.where(np.isfinite(most), most, np.zeros_like(most))

    def max(self, x, axis):
        return x.max(axis)

    def min(self, x, axis):
        return x.min(axis)


_HAS_FLIP = hasattr(Tensor, "flip")  # 0.4.1 on; PyTorch 2.4's graphs don't ask a tensor for it
#: What a Tensor has that doesn't change where operations go.
_DISPATCH = getattr(Tensor, "__torch_dispatch__", None)
_STRIDED = getattr(torch, "strided", None)
#: The types whose elements lie where they say.
_PLAIN = () if torch is None else (torch.Tensor, torch.nn.Parameter)


def _no(x):
    return False


# What a tensor may be that its memory doesn't say: conjugated or negated later (1.10 on), zero (1.11 on).
_names = ("is_conj", "is_neg", "_is_zerotensor") if hasattr(Tensor, "resolve_neg") else ("",) * 3
#: Whether there are memory formats (1.5 on).
_HAS_FORMATS = hasattr(torch, "channels_last_3d")
_is_conj, _is_neg, _is_zero = [getattr(Tensor, name, _no) for name in _names]
_is_quantized = operator.attrgetter("is_quantized") if hasattr(Tensor, "is_quantized") else _no
_is_meta = operator.attrgetter("is_meta") if hasattr(Tensor, "is_meta") else _no
# is_cpu came with 1.11.
if hasattr(Tensor, "is_cpu"):
    _is_cpu = operator.attrgetter("is_cpu")
else:

    def _is_cpu(x):
        return not x.is_cuda if VARIABLES else x.device.type == "cpu"


def _is_last(dims, sizes, steps):
    """Whether PyTorch takes a tensor of these sizes and strides for one with its channels last."""
    if len(sizes) == dims + 1:
        sizes, steps = (1,) + tuple(sizes), (sizes[0] * steps[0],) + tuple(steps)
    least = 0
    for axis in [1] + list(range(dims + 1, 1, -1)) + [0]:
        # Where axes of one element leave it open, it isn't.
        if sizes[axis] == 0 or steps[axis] < least or axis == 0 and least == steps[1]:
            return False
        least = steps[axis] * max(sizes[axis], 1)
    return steps[1] != 0


class _Torch(_Arrays):
    """The same on tensors of any PyTorch; what 0.3 calls Variables or raw tensors."""

    name, type, logsumexp = "torch tensors", Tensor, staticmethod(probes.logsumexp) if probes.logsumexp else None

    def dtype(self, x):
        if VARIABLES:
            return dtypes.OLD_DTYPE[raw(x).type().split(".")[-1]]
        return dtypes.TORCH_NAMES.get(x.dtype) or str(x.dtype)[6:]  # "torch.float32"

    def device(self, x):
        if VARIABLES:
            return "cuda:{}".format(x.get_device()) if x.is_cuda else "cpu"
        # Most are, and a device takes long to print.
        return "cpu" if x.device.type == "cpu" else str(x.device)

    def in_memory(self, *tensors):
        # Tensors of subclasses, and what a graph is recorded with, have no memory or not the one that counts.
        if VARIABLES:
            return not any([x.is_cuda for x in tensors])
        if not self.are_plain_on_cpu(*tensors):
            return False
        return graphs.idle() or not (graphs.capturing() or graphs.transforming())

    def are_plain_on_cpu(self, *tensors):
        """Whether these are plain tensors of a CPU, or samples of such."""
        for x in tensors:
            if type(x) not in _PLAIN or not _is_cpu(x) or x.layout is not _STRIDED or _is_quantized(x) or _is_zero(x):
                return False
        return True

    def on_gpu(self, *tensors):
        return self.are_plain_on_gpu(*tensors) and not (graphs.capturing() or graphs.transforming())

    def are_plain_on_gpu(self, *tensors):
        """Whether these are plain tensors of a CUDA device, or samples of such."""
        for x in tensors:
            if not x.is_cuda or type(x) not in _PLAIN or not self.is_dense_kind(x) or _is_zero(x):
                return False
        return not VARIABLES

    def alike(self, x, y):
        if VARIABLES:
            return self.dtype(x) == self.dtype(y) and self.device(x) == self.device(y)
        return x.dtype == y.dtype and (_is_cpu(x) and _is_cpu(y) or x.device == y.device)

    def is_dense_kind(self, x):
        return VARIABLES or x.layout == torch.strided and not _is_quantized(x)

    def dense(self, x):
        x = raw(x)
        if not x.is_contiguous():
            # 0.3's HalfTensor on a CPU lacks contiguous().
            x = x.contiguous() if hasattr(x, "contiguous") else x.new(*x.size()).copy_(x)
        return x.resolve_conj().resolve_neg() if _is_conj(x) or _is_neg(x) else x

    def placed(self, x, copied=COPIED):
        x = raw(x)
        lazy = self.is_lazy(x)
        if x.is_contiguous() and not lazy:
            return x, None
        if lazy or x.numel() * dtypes.ITEMSIZE[self.dtype(x)] <= copied:
            return self.dense(x), None
        return x, tuple(x.stride())

    def is_lazy(self, x):
        """Whether x isn't what its memory says."""
        return _is_conj(x) or _is_neg(x)

    def address(self, x):
        return x.data_ptr()

    def empty(self, like, shape, dtype=None, strides=None):
        dtype = self.dtype(like) if dtype is None else dtype
        if _is_cpu(like):
            memory.check_memory(shape, dtypes.ITEMSIZE.get(dtype, 1))
        return self.small(like, shape, dtype, strides)

    def small(self, like, shape, dtype, strides=None):
        if strides is not None:
            # No view of what has its channels last: views that a Function gives can't be changed in place.
            return torch.empty_strided(shape, strides, dtype=dtypes.TORCH_DTYPES[dtype], device=like.device)
        if VARIABLES:
            # Without sizes it would have no elements.
            return getattr(torch.cuda if like.is_cuda else torch, dtypes.OLD_TYPE[dtype])(*(shape or (1,)))
        return like.new_empty(shape, dtype=dtypes.TORCH_DTYPES[dtype])

    def full(self, like, shape, value, dtype=None, strides=None):
        return self.empty(like, shape, dtype, strides).fill_(value)

    def cast(self, x, dtype):
        if VARIABLES:
            return x.type(("torch.cuda." if x.is_cuda else "torch.") + dtypes.OLD_TYPE[dtype])
        return x.to(getattr(torch, dtype))

    def channels_last(self, dims, *operands):
        # As PyTorch's own convolutions have them: where the input or the weight has.
        if not _HAS_FORMATS or dims == 1:
            return False
        for x in operands:
            steps = x.stride()
            # A number, and no symbol: the step between channels is 1, or the image's where there is one channel.
            if type(steps[-dims - 1]) is int and steps[-dims - 1] <= steps[-1] and _is_last(dims, x.shape, steps):
                return True
        return False

    def with_channels_last(self, x, last):
        """x, or a copy that has its channels last, or is dense."""
        if not last:
            return x.contiguous()
        # Unlike contiguous(), it counts the strides of axes that have one element.
        return x.to(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)

    def sum_dtype(self, dtype):
        # PyTorch has the wider unsigned types (2.3 on), but doesn't add them.
        return "int64" if dtype in ("uint16", "uint32", "uint64") else super(_Torch, self).sum_dtype(dtype)

    def reshape(self, x, shape):
        # Not contiguous(): 0.3's gives the caller's own Variable another storage.
        return (x if x.is_contiguous() else x.clone()).view(shape) if VARIABLES else x.reshape(shape)

    def expand(self, x, shape):
        return x.expand(*shape)

    def unsqueeze(self, x, axis):
        return x.unsqueeze(axis)

    def tensor(self, data):
        return torch.autograd.Variable(data) if VARIABLES else data

    def stack(self, parts):
        return torch.stack(parts)

    def matmul(self, a, b):
        return torch.matmul(a, b)

    def permute(self, x, axes):
        return x.permute(*axes)

    def has_memory(self, x):
        if VARIABLES:
            return True
        if type(x) is not torch.Tensor and getattr(type(x), "__torch_dispatch__", None) is not _DISPATCH:
            return False
        return not (graphs.dispatch_modes() or _is_zero(x) or _is_meta(x))

    def memory_limit(self, x, on_cpu, on_gpu):
        if not x.is_cuda or not hasattr(torch.cuda, "get_device_properties"):
            return on_cpu
        return min(on_gpu, torch.cuda.get_device_properties(x.get_device()).total_memory // 16)

    def takes_results(self, out):
        return self.in_memory(out) and out.is_contiguous() and not self.is_lazy(out)

    def overlap(self, a, b):
        sizes = [t.numel() * dtypes.ITEMSIZE[self.dtype(t)] for t in (a, b)]
        return a.data_ptr() < b.data_ptr() + sizes[1] and b.data_ptr() < a.data_ptr() + sizes[0]

    def touch(self, out):
        if not VARIABLES:
            out.narrow(0, 0, 0).zero_()  # tensors that a graph has saved count changes

    def assign(self, out, values):
        raw(out).copy_(raw(values))

    def pad(self, x, pads, value, mode="constant"):
        return torch.nn.functional.pad(x, [side for pair in reversed(pads) for side in pair], mode, value)

    def _indices(self, like, indices):
        indices = torch.from_numpy(np.array(indices, np.int64))
        if VARIABLES:
            indices = indices.cuda() if like.is_cuda else indices
            return self.tensor(indices) if isinstance(like, Tensor) else indices
        return indices.to(like.device)

    def take(self, x, indices, axis):
        return x.index_select(axis, self._indices(x, indices))

    def flip(self, x, axes):
        axes = [axis for axis in axes if x.shape[axis] != 1]
        if axes and _HAS_FLIP:
            return x.flip(axes)
        for axis in axes:
            x = self.take(x, list(range(int(x.shape[axis]) - 1, -1, -1)), axis)
        return x

    def dense_matrix(self, rows, columns, values, size):
        zeros = self.tensor(self.full(values, (size[0] * size[1],), 0))
        result = zeros.scatter(0, self._indices(values, rows * size[1] + columns), values)
        return self.reshape(result, size)

    def sparse_matrix(self, rows, columns, values, size):
        # The entries are in order, each once. Versions that can't be told (before 2.1) find out when they need to.
        can_be_told = "is_coalesced" in (torch.sparse_coo_tensor.__doc__ or "")
        known = {"is_coalesced": True, "check_invariants": False} if can_be_told else {}
        return torch.sparse_coo_tensor(self._indices(values, np.stack([rows, columns])), values, size, **known)

    def fill(self, x, mask, value):
        if VARIABLES:
            # 0.3's masked_fill takes no infinity.
            return x.masked_scatter(self.expand(mask, x.shape), self.tensor(self.full(x, x.size(), value)))
        return x.masked_fill(mask, value)

    def where(self, mask, a, b):
        if hasattr(torch, "where"):
            return torch.where(mask, a, b)
        return self.fill(a, mask == 0, 0) + self.fill(b, mask, 0)

    def look_up(self, entries, w, x):
        # By hand: 0.3 indexes with no two tensors that broadcast.
        sizes, operands = entries.shape, [self.cast(t, "int64") for t in (w, x)]
        w, x = [t + self.cast(t < 0, "int64") * size for t, size in zip(operands, sizes)]
        index = w * sizes[1] + x
        table = torch.from_numpy(entries.reshape(-1).copy())
        table = self.tensor(table.cuda() if index.is_cuda else table) if VARIABLES else table.to(index.device)
        return self.reshape(table.index_select(0, self.reshape(index, (index.numel(),))), tuple(index.shape))

    def extremes(self, x):
        x = graphs.unwrapped(raw(x))
        if 0 in tuple(x.shape):
            return 0, 0  # of no samples
        # The wider unsigned types have no min().
        return super(_Torch, self).extremes(x.cpu().numpy() if self.dtype(x) in ("uint16", "uint32", "uint64") else x)

    def copy(self, x):
        return x.clone()

    def first(self, x):
        first = raw(x)[(0,) * x.dim()]
        # Of vmap's there is one for each, and no number.
        return first if VARIABLES else first.detach() if graphs.mapped() else first.item()

    def add(self, x, y):
        # 0.3 refuses to change a Variable of which there is a view, and vmap what doesn't differ from sample to sample.
        return x + y if VARIABLES or graphs.transform() is not None else x.add_(y)

    def has_below(self, x, bound):
        return bool((x.abs() < bound).any())

    def exp(self, x):
        return x.exp()

    def log(self, x):
        return x.log()

    def scale(self, x, axis):
        most = x.detach().max(axis)[0]
        # 0.3 compares with no infinity.
        return self.fill(most, most - most != 0, 0)

    def max(self, x, axis):
        return self._extremum(x, x.max, axis)

    def min(self, x, axis):
        return self._extremum(x, x.min, axis)

    def _extremum(self, x, extremum, axis):
        """The extremum, differentiated as the first element that attains it; a NaN is one."""
        value = extremum(axis)[0]
        if probes.TIES_GO_FIRST or not x.requires_grad:
            return value
        attained = ((x == value.unsqueeze(axis)) | (x != x)).long()
        count = x.shape[axis]
        shape = [1] * x.dim()
        shape[axis] = count
        countdown = torch.arange(count, 0, -1).long().to(x.device).view(shape)
        return x.gather(axis, count - (attained * countdown).max(axis, keepdim=True)[0]).squeeze(axis)


NUMPY = _NumPy()
TORCH = None if torch is None else _Torch()


def arrays_of(x):
    """NUMPY or TORCH, whichever owns x; plain data included. None for anything else."""
    if isinstance(x, np.ndarray):
        return NUMPY
    if torch is not None and (isinstance(x, Tensor) or torch.is_tensor(x)):
        return TORCH
    return None


def raw(x):
    """Plain data of a tensor or of plain data."""
    return x.data if VARIABLES and isinstance(x, Tensor) else x


def quiet(x):
    """Plain data as a tensor to compute with where nothing is recorded (inside Function.forward)."""
    return torch.autograd.Variable(x, volatile=True) if VARIABLES else x


#: Arguments that may be None.
_OPTIONAL = ("bias", "out")


def enter(function, names, values):
    """The operations for, and the tensors of, a public function's arguments.

    Returns (arrays, values, leave); leave(result) goes back to what came in: on 0.3
    raw tensors are computed with as Variables and returned as raw tensors. A bias and
    an out may be None, and stay None. Operands of another byte order are copied into this machine's. TypeError for
    other types, for a mixture, for arrays of what is no number, and for masked ones.
    """
    for name, value in zip(names, values):
        if VARIABLES or not isinstance(value, Tensor) and (value is not None or name not in _OPTIONAL):
            break
    else:
        return TORCH, values, unchanged  # what comes below, without its cost
    given = [(name, value) for name, value in zip(names, values) if value is not None or name not in _OPTIONAL]
    for name, value in given:
        if arrays_of(value) is None:
            text, tensor = "{}(): argument '{}' must be a {}NumPy array, but got {}", (
                "torch tensor or a " if torch else ""
            )
            raise TypeError(text.format(function, name, tensor, type(value).__name__))
    kinds = {(arrays_of(value), isinstance(value, Tensor)) for _, value in given}
    if len(kinds) > 1:
        found = ", ".join("{}: {}".format(name, type(value).__name__) for name, value in given)
        raise TypeError("{}(): arguments must all be of one kind, but got {}".format(function, found))
    ((kind, is_tensor),) = kinds
    if kind is NUMPY:
        return kind, [_in_order(function, name, value) for name, value in zip(names, values)], unchanged
    if is_tensor:
        return kind, values, unchanged
    return kind, [value if value is None else quiet(value) for value in values], lambda result: result.data


def _in_order(function, name, value):
    """A NumPy array of numbers, in the machine's byte order; an out keeps its own."""
    if value is None:
        return None
    if value.dtype.kind not in "biufc":
        text = "{}(): argument '{}' must be an array of numbers, but its dtype is {}"
        raise TypeError(text.format(function, name, value.dtype))
    if type(value) is not np.ndarray and hasattr(value, "mask"):
        text = "{}(): argument '{}' is a masked array, whose mask would be ignored: pass its filled()"
        raise TypeError(text.format(function, name))
    return value if value.dtype.isnative or name == "out" else value.astype(value.dtype.newbyteorder("="))


def unchanged(result):
    return result
