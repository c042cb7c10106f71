"""Every difference between PyTorch versions, Python versions, and PyTorch and NumPy. No maths.

Differences are found by probing for the feature; the versions named in comments
are only where a reader may look. NUMPY and TORCH offer the same few operations on
arrays and on tensors; `arrays(x)` is the one that owns x.

torch 0.3 has two kinds of tensor that do not mix: a Variable, which records
gradients, and the raw tensor inside it. Here "tensor" means a Variable there;
"plain data" means what carries no history: a raw tensor there, a tensor elsewhere.
"""

import contextlib
import importlib
import os

import numpy as np

try:
    import torch

    torch_missing = None
except ImportError as error:
    torch = None
    torch_missing = "PyTorch can't be imported ({})".format(error)

#: 0.3: Variables are not tensors.
VARIABLES = torch is not None and not isinstance(torch.zeros(1), torch.autograd.Variable)
#: What a public function records gradients for.
Tensor = () if torch is None else torch.autograd.Variable if VARIABLES else torch.Tensor
Function = object if torch is None else torch.autograd.Function

#: Bytes an element, of every dtype with a name common to PyTorch and NumPy.
ITEMSIZE = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
HALVES = ("float16", "bfloat16")

_OLD_TYPE = {
    "float16": "HalfTensor", "float32": "FloatTensor", "float64": "DoubleTensor", "uint8": "ByteTensor",
    "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor", "int64": "LongTensor",
}  # fmt: skip
_OLD_DTYPE = {name: dtype for dtype, name in _OLD_TYPE.items()}
_dtypes = {} if torch is None else {name: getattr(torch, name) for name in ITEMSIZE if hasattr(torch, name)}
_names = {dtype: name for name, dtype in _dtypes.items()}


def is_integer(dtype):
    """Whether a dtype's name is an integer's or bool's."""
    return dtype.startswith(("int", "uint", "bool"))


def differentiable(dtype):
    """Whether a dtype's name is a float's or a complex's."""
    return dtype.startswith(("float", "bfloat", "complex"))


def limits(dtype):
    """The least and the greatest value of an integer or bool dtype's name."""
    return (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


# ---------------------------------------------------------------- memory


def _machine_memory():
    """Bytes of memory and swap, or None where the system doesn't say."""
    try:
        with open("/proc/meminfo") as lines:
            kilobytes = dict(line.split(":", 1) for line in lines)
        return sum(int(kilobytes[key].split()[0]) * 1024 for key in ("MemTotal", "SwapTotal"))
    except (IOError, OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


MACHINE_MEMORY = _machine_memory()
MOST_MEMORY = MACHINE_MEMORY or 2**63 - 1


def check_memory(shape, itemsize):
    """RuntimeError for a CPU result larger than the machine: an overcommitting system would kill the process."""
    size = itemsize
    for length in shape:
        size *= length
    if size > MOST_MEMORY:
        raise RuntimeError(
            "not enough memory: a result of shape {} needs {} bytes, but this machine has {}".format(
                tuple(shape), size, MACHINE_MEMORY
            )
        )


# ---------------------------------------------------------------- arrays and tensors


class _NumPy(object):
    """Operations on NumPy arrays."""

    name = "NumPy arrays"

    def owns(self, x):
        return isinstance(x, np.ndarray)

    def dtype(self, x):
        return x.dtype.name

    def device(self, x):
        return "cpu"

    def is_dense_kind(self, x):
        return x.dtype.kind in "biufc"

    def in_memory(self, x):
        """Whether C can read x's elements, now."""
        return self.is_dense_kind(x) and x.dtype.isnative

    def dense(self, x):
        return np.require(x, requirements="CA")

    def address(self, x):
        return x.__array_interface__["data"][0]

    def empty(self, like, shape, dtype=None):
        """New plain data of like's kind, device and (by default) dtype."""
        dtype = like.dtype if dtype is None else np.dtype(dtype)
        check_memory(shape, dtype.itemsize)
        return np.empty(shape, dtype)

    def full(self, like, shape, value, dtype=None):
        result = self.empty(like, shape, dtype)
        result.fill(value)
        return result

    def cast(self, x, dtype):
        return x.astype(dtype)

    def sum_dtype(self, dtype):
        """What to add a dtype's elements in: as wide or wider, and wrapping alike."""
        return "float32" if dtype in HALVES else dtype

    def reshape(self, x, shape):
        return x.reshape(shape)

    def expand(self, x, shape):
        return np.broadcast_to(x, shape)

    def unsqueeze(self, x, axis):
        return np.expand_dims(x, axis)

    def tensor(self, data):
        """Plain data as what these operations compute with."""
        return data

    def stack(self, parts):
        return np.stack(parts)

    def matmul(self, a, b):
        return np.matmul(a, b)

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

    def dense_matrix(self, rows, columns, values, size):
        result = np.zeros(size, values.dtype)
        result[rows, columns] = values
        return result

    def fill(self, x, mask, value):
        """x with `value` where mask is true."""
        return np.where(mask, np.array(value, x.dtype), x)

    def where(self, mask, a, b):
        return np.where(mask, a, b)

    def look_up(self, entries, w, x):
        """entries[w, x], of a NumPy array and integers."""
        return entries[w, x]

    def extremes(self, x):
        """The least and the greatest of x's integers."""
        return int(x.min()), int(x.max())

    def copy(self, x):
        return x.copy()

    def first(self, x):
        """The value of the first element."""
        return x[(0,) * x.ndim].item()

    def add(self, x, y):
        """x + y, where x may be changed."""
        x += y
        return x

    def sum(self, x, axis):
        return x.sum(axis)

    def max(self, x, axis):
        return x.max(axis)

    def min(self, x, axis):
        return x.min(axis)


#: What a Tensor has that doesn't change where operations go.
_DISPATCH = getattr(Tensor, "__torch_dispatch__", None)

#: Lazy conjugation and negation (1.10 on) are flags that memory knows nothing of.
_LAZY = [pair for pair in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")) if hasattr(Tensor, pair[1])]


class _Torch(object):
    """The same on tensors of any PyTorch; what 0.3 calls Variables or raw tensors."""

    name = "torch tensors"

    def owns(self, x):
        return isinstance(x, Tensor)

    def dtype(self, x):
        if VARIABLES:
            return _OLD_DTYPE[raw(x).type().split(".")[-1]]
        return _names.get(x.dtype) or str(x.dtype)[6:]  # "torch.float32"

    def device(self, x):
        if VARIABLES:
            return "cuda:{}".format(x.get_device()) if x.is_cuda else "cpu"
        # Most are, and a device takes long to print.
        return "cpu" if x.device.type == "cpu" else str(x.device)

    def in_memory(self, x):
        # Tensors of subclasses, and what a graph is recorded with, have no memory or not the one that counts.
        if VARIABLES:
            return not x.is_cuda
        plain = type(x) in (torch.Tensor, torch.nn.Parameter) and not (capturing() or _transforming())
        return plain and self.has_memory(x) and self.device(x) == "cpu" and self.is_dense_kind(x)

    def is_dense_kind(self, x):
        return VARIABLES or x.layout == torch.strided and not getattr(x, "is_quantized", False)

    def dense(self, x):
        x = raw(x)
        if not x.is_contiguous():
            # 0.3's HalfTensor on a CPU lacks contiguous().
            x = x.contiguous() if hasattr(x, "contiguous") else x.new(*x.size()).copy_(x)
        for is_lazy, resolve in _LAZY:
            x = getattr(x, resolve)() if getattr(x, is_lazy)() else x
        return x

    def is_lazy(self, x):
        """Whether x isn't what its memory says."""
        return any([getattr(x, is_lazy)() for is_lazy, _ in _LAZY])

    def address(self, x):
        return x.data_ptr()

    def empty(self, like, shape, dtype=None):
        dtype = self.dtype(like) if dtype is None else dtype
        if self.device(like) == "cpu":
            check_memory(shape, ITEMSIZE.get(dtype, 1))
        if VARIABLES:
            return getattr(torch.cuda if like.is_cuda else torch, _OLD_TYPE[dtype])(*shape)
        return like.new_empty(shape, dtype=_dtypes[dtype])

    def full(self, like, shape, value, dtype=None):
        return self.empty(like, shape, dtype).fill_(value)

    def cast(self, x, dtype):
        if VARIABLES:
            return x.type(("torch.cuda." if x.is_cuda else "torch.") + _OLD_TYPE[dtype])
        return x.to(getattr(torch, dtype))

    def sum_dtype(self, dtype):
        # PyTorch has the wider unsigned types (2.3 on), but doesn't add them.
        return "float32" if dtype in HALVES else "int64" if dtype in ("uint16", "uint32", "uint64") else dtype

    def reshape(self, x, shape):
        if VARIABLES:
            # Not contiguous(): 0.3's gives the caller's own Variable another storage.
            return (x if x.is_contiguous() else x.clone()).view(shape)
        return x.reshape(shape)

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
        return not (_dispatch_modes() or hasattr(x, "_is_zerotensor") and x._is_zerotensor())

    def takes_results(self, out):
        return self.in_memory(out) and out.is_contiguous() and not self.is_lazy(out)

    def overlap(self, a, b):
        (a_start, a_end), (b_start, b_end) = [
            (t.data_ptr(), t.data_ptr() + t.numel() * ITEMSIZE[self.dtype(t)]) for t in (a, b)
        ]
        return a_start < b_end and b_start < a_end

    def touch(self, out):
        if not VARIABLES:
            out.narrow(0, 0, 0).zero_()  # tensors that a graph has saved count changes

    def assign(self, out, values):
        raw(out).copy_(raw(values))

    def pad(self, x, pads, value):
        return torch.nn.functional.pad(x, [side for pair in reversed(pads) for side in pair], value=value)

    def _indices(self, like, indices):
        indices = torch.from_numpy(np.array(indices, np.int64))
        if VARIABLES:
            return self.tensor(indices.cuda() if like.is_cuda else indices)
        return indices.to(like.device)

    def take(self, x, indices, axis):
        return x.index_select(axis, self._indices(x, indices))

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
        return self.reshape(table.index_select(0, self.reshape(index, (-1,))), tuple(index.shape))

    def extremes(self, x):
        x = raw(x)
        if self.dtype(x) in ("uint16", "uint32", "uint64"):
            x = x.cpu().numpy()  # these have no min()
        return int(x.min()), int(x.max())

    def copy(self, x):
        return x.clone()

    def first(self, x):
        first = raw(x)[(0,) * x.dim()]
        return first if VARIABLES else first.item()

    def add(self, x, y):
        # 0.3 refuses to change a Variable of which there is a view.
        return x + y if VARIABLES else x.add_(y)

    def sum(self, x, axis):
        return x.sum(axis)

    def max(self, x, axis):
        return self._extremum(x, x.max, axis)

    def min(self, x, axis):
        return self._extremum(x, x.min, axis)

    def _extremum(self, x, extremum, axis):
        """The extremum, differentiated as the first element that attains it; a NaN is one."""
        value = extremum(axis)[0]
        if TIES_GO_FIRST or not x.requires_grad:
            return value
        attained = ((x == value.unsqueeze(axis)) | (x != x)).long()
        count = x.shape[axis]
        shape = [1] * x.dim()
        shape[axis] = count
        countdown = torch.arange(count, 0, -1).long().to(x.device).view(shape)
        return x.gather(axis, count - (attained * countdown).max(axis, keepdim=True)[0]).squeeze(axis)


def _ties_go_first():
    ones = torch.ones(1, 3, 2)
    return int(ones.max(1)[1].sum()) == 0 and int(ones.transpose(1, 2).min(2)[1].sum()) == 0


#: Whether max and min over an axis give the gradient to the first of equal elements (1.0 has it otherwise).
TIES_GO_FIRST = torch is not None and _ties_go_first()

NUMPY = _NumPy()
TORCH = None if torch is None else _Torch()


def arrays(x):
    """NUMPY or TORCH, whichever owns x; plain data included. None for anything else."""
    if isinstance(x, np.ndarray):
        return NUMPY
    if torch is not None and (isinstance(x, Tensor) or torch.is_tensor(x)):
        return TORCH
    return None


def _has_cpu_half():
    try:
        torch.zeros(1).half().fill_(0)
    except (AttributeError, RuntimeError):
        return False
    return True


#: Whether PyTorch can do anything with float16 on a CPU (1.2 on).
CPU_HALF = torch is not None and _has_cpu_half()

# ---------------------------------------------------------------- 0.3's two kinds of tensor


def raw(x):
    """Plain data of a tensor or of plain data."""
    return x.data if VARIABLES and isinstance(x, Tensor) else x


def quiet(x):
    """Plain data as a tensor to compute with where nothing is recorded (inside Function.forward)."""
    return torch.autograd.Variable(x, volatile=True) if VARIABLES else x


def leaf(x, requires_grad):
    """x cut off from its history, to record a new one."""
    if VARIABLES:
        return torch.autograd.Variable(raw(x), requires_grad=requires_grad)
    return x.detach().requires_grad_(requires_grad)


def enter(function, arguments):
    """The operations for, and the tensors of, a public function's arguments ((name, value) pairs).

    Returns (arrays, values, leave); leave(result) goes back to what came in: on 0.3
    raw tensors are computed with as Variables and returned as raw tensors. A bias and
    an out may be None, and stay None. TypeError for other types, and for a mixture.
    """
    given = [(name, value) for name, value in arguments if value is not None or name not in ("bias", "out")]
    if not VARIABLES and all([isinstance(value, Tensor) for _, value in given]):
        return TORCH, [value for _, value in arguments], _unchanged  # what comes below, without its cost
    for name, value in given:
        if arrays(value) is None:
            raise TypeError(
                "{}(): argument '{}' must be a {}NumPy array, but got {}".format(
                    function, name, "" if torch is None else "torch tensor or a ", type(value).__name__
                )
            )
    kinds = {(arrays(value), isinstance(value, Tensor)) for _, value in given}
    if len(kinds) > 1:
        raise TypeError(
            "{}(): arguments must all be of one kind, but got {}".format(
                function, ", ".join("{}: {}".format(name, type(value).__name__) for name, value in given)
            )
        )
    ((kind, is_tensor),) = kinds
    if kind is NUMPY or is_tensor:
        return kind, [value for _, value in arguments], _unchanged
    values = [value if value is None else quiet(value) for _, value in arguments]
    return kind, values, lambda result: result.data


def enter_one(function, input, out):
    """The same for a function of input and out."""
    if out is None and not VARIABLES and isinstance(input, Tensor):
        return TORCH, (input, None), _unchanged
    return enter(function, [("input", input), ("out", out)])


def _unchanged(result):
    return result


# ---------------------------------------------------------------- autograd


def saved(ctx):
    """What a forward saved, as tensors that know their history."""
    return ctx.saved_variables if VARIABLES else ctx.saved_tensors


def save_operands(ctx, w, x, output):
    """Keep a dot product's operands for its backward; integers have none."""
    ctx.save_for_backward(w, x)
    if not VARIABLES and is_integer(TORCH.dtype(output)):
        ctx.mark_non_differentiable(output)


def requires_grad(x):
    """Whether what happens to x is to be recorded."""
    return not isinstance(x, np.ndarray) and x.requires_grad and (VARIABLES or torch.is_grad_enabled())


def recording(grad):
    """Whether a backward that was handed `grad` is itself recorded (create_graph)."""
    return not grad.volatile if VARIABLES else torch.is_grad_enabled()


def records(*tensors):
    """Whether what is computed of these is to be recorded, for gradients or in forward mode."""
    if VARIABLES:
        return True
    for tensor in tensors:
        if tensor.requires_grad and torch.is_grad_enabled():
            return True
    return _in_forward_mode()


_functorch = getattr(getattr(torch, "_C", None), "_functorch", None)
_forward_ad = getattr(getattr(torch, "autograd", None), "forward_ad", None)


def _in_forward_mode():
    return getattr(_forward_ad, "_current_level", -1) >= 0


def enable_grad():
    return torch.enable_grad() if hasattr(torch, "enable_grad") else _null_context()


@contextlib.contextmanager
def _null_context():
    yield


def partials(output, inputs, grad_output, create_graph=False):
    """d output / d input for each input, times grad_output; None where there is none."""
    wanted = [i for i, tensor in enumerate(inputs) if tensor.requires_grad]
    result = [None] * len(inputs)
    if wanted and output.requires_grad:
        found = torch.autograd.grad(
            [output], [inputs[i] for i in wanted], [grad_output], create_graph=create_graph, allow_unused=True
        )
        for i, grad in zip(wanted, found):
            result[i] = grad
    return result


def new_style(function):
    """Let a Function written as torch 2.0's (forward without ctx, then setup_context) work before.

    Only that style composes with torch.func's transforms.
    """
    forward, setup_context = function.forward, function.setup_context

    def forward_with_context(ctx, *inputs):
        output = forward(*inputs)
        setup_context(ctx, inputs, output)
        return output

    if not hasattr(Function, "setup_context"):
        function.forward = staticmethod(forward_with_context)
        function.old_style = function
    elif torch is not None:
        # The old style, and without Function.apply's own Python, costs half as much to call.
        members = {"forward": staticmethod(forward_with_context), "backward": vars(function)["backward"]}
        function.old_style = type(Function)(function.__name__, (_PlainFunction,), members)
    return function


def _plain_function():
    """What Function is without torch.func's transforms, and what it does for tensors that outlived one of these."""
    plain = getattr(getattr(getattr(torch, "autograd", None), "function", None), "_SingleLevelFunction", None)
    unwrap = getattr(_functorch, "unwrap_if_dead", None)
    return (Function, _unchanged) if plain is None or unwrap is None else (plain, unwrap)


_PlainFunction, _unwrapped = _plain_function()


def apply(function, tensor, *arguments):
    """function.apply of a Function in the new style that has one tensor."""
    if transformed():
        return function.apply(tensor, *arguments)
    return function.old_style.apply(_unwrapped(tensor), *arguments)


def by_function(x):
    """Whether what is computed of x must go through a Function: for gradients, or torch.func's transforms."""
    return not isinstance(x, np.ndarray) and (records(x) or _transform() is not None or capturing())


def checkpoint(function, *tensors):
    """function(*tensors), its intermediates computed again in backward; plainly called where that can't be (before 1.11).

    Unlike the Functions here, it gives tensors that `function` captures their gradients too.
    """
    try:
        from torch.utils.checkpoint import checkpoint as torch_checkpoint

        return torch_checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)
    except (ImportError, ValueError, TypeError):
        return function(*tensors)


# ---------------------------------------------------------------- threads

_PROCESS = os.getpid()
_parallel = None


def threads():
    """How many threads to compute with: PyTorch's number, or as many as this process may use."""
    if torch is not None:
        return torch.get_num_threads()
    try:
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    except (KeyError, ValueError):
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def parallel():
    """The address of GOMP_parallel in the OpenMP runtime that PyTorch has loaded; 0 where there is none.

    Not in a forked child: its threads are still the parent's.
    """
    global _parallel
    if os.getpid() != _PROCESS:
        return 0
    if _parallel is None:
        _parallel = _find_parallel()
    return _parallel


def _find_parallel():
    try:
        with open("/proc/self/maps") as lines:
            paths = sorted({line.split(None, 5)[5].strip() for line in lines if "libgomp" in line or "libiomp" in line})
        import ctypes

        for path in paths:
            runtime = ctypes.CDLL(path)  # loaded already: found again, not loaded twice
            if hasattr(runtime, "GOMP_parallel"):
                return ctypes.cast(runtime.GOMP_parallel, ctypes.c_void_p).value
    except (IOError, OSError, IndexError, ImportError):
        pass
    return 0


# ---------------------------------------------------------------- modules


#: Layers take device= and dtype= (1.9 on). Constructing one to see would draw random numbers.
HAS_FACTORY = torch is not None and "device" in torch.nn.Linear.__init__.__code__.co_varnames


def factory(device, dtype):
    """Those of a layer's device= and dtype= that its constructor takes here."""
    return {"device": device, "dtype": dtype} if HAS_FACTORY else {}


def place(module, device, dtype):
    """Do to a new layer what its constructor couldn't."""
    if HAS_FACTORY or device is None and dtype is None:
        return
    if not hasattr(module, "to"):
        raise TypeError("PyTorch {} knows no device= and dtype=; use .cuda(), .double()".format(torch.__version__))
    module.to(*[place for place in (device, dtype) if place is not None])


def is_parametrized(module):
    """Whether torch.nn.utils.parametrize (1.9 on) computes parameters of a layer."""
    parametrize = getattr(torch.nn.utils, "parametrize", None)
    return parametrize is not None and parametrize.is_parametrized(module)


# ---------------------------------------------------------------- quantization


def quantization():
    """The module of PyTorch's observers (torch.ao.quantization from 1.10 on). ImportError where it has none that fit."""
    for name in ("torch.ao.quantization", "torch.quantization"):
        try:
            found = importlib.import_module(name)
            found.PerChannelMinMaxObserver(quant_min=0, quant_max=15)  # ranges of one's own: 1.7 on
            return found
        except (AttributeError, ImportError, TypeError):
            continue
    raise ImportError(
        "quantized layers need observers of torch.quantization that take quant_min (PyTorch 1.7 on), but here is {}".format(
            torch_missing or torch.__version__
        )
    )


def fake_quantize(x, scale, zero_point, low, high):
    """x rounded to what the nearest codes stand for, by PyTorch's own functions: their gradient goes straight through, and
    is zero where the codes end. One scale and zero_point, or one for each of x's first axis."""
    # Before 1.10 zero points are int64, before 1.9 values are float32.
    for dtype, kind in ((x.dtype, torch.int32), (torch.float32, torch.int32), (torch.float32, torch.int64)):
        values = x.to(dtype)
        try:
            if scale.numel() == 1:
                found = torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero_point), low, high)
            else:
                found = torch.fake_quantize_per_channel_affine(values, scale, zero_point.to(kind), 0, low, high)
            return found.to(x.dtype)
        except RuntimeError as error:
            refused = error
    raise refused


# ---------------------------------------------------------------- F.unfold and F.fold


def _probe_unfold(dtype, device):
    """How the installed F.unfold and F.fold serve a dtype on a device.

    "whole": as the latest version does, gradients of every order and N=0 included;
    "forward": they compute it, and the rest is ours to add; None: they don't.
    Runs no backward: before 1.6 that starts threads that a fork loses.
    """
    functional = torch.nn.functional
    try:
        image = torch.zeros((1, 1, 2, 2), dtype=dtype, device=device)
        functional.fold(functional.unfold(image, 1), (2, 2), 1)
    except Exception:  # RuntimeError, KeyError, TypeError, NotImplementedError, by version
        return None
    try:
        # Versions that take N=0 (1.8 on) have double backward too (1.6 on);
        # those that can't differentiate complex numbers say so in the forward.
        empty = image[:0].requires_grad_(dtype.is_floating_point or getattr(dtype, "is_complex", False))
        functional.fold(functional.unfold(empty, 1), (2, 2), 1)
    except Exception:
        return "forward"
    return "whole"


HAS_UNFOLD = torch is not None and hasattr(torch.nn.functional, "unfold")
_probed = {}


def native_unfold(x):
    """_probe_unfold for x's dtype and device."""
    key = (x.dtype, x.device.type)
    if key not in _probed:
        _probed[key] = _probe_unfold(*key)
    return _probed[key]


def _takes_unbatched():
    try:
        torch.nn.functional.unfold(torch.zeros(1, 2, 2), 1)
    except Exception:
        return False
    return True


#: F.unfold does all that unfold does (1.13 on), so graph capture may record it as it is.
UNFOLD_IS_CURRENT = HAS_UNFOLD and _takes_unbatched()


def capturing():
    """Whether PyTorch is recording a graph (compile, export, trace): then sizes may be symbols that Python can't check."""
    return torch is not None and (compiling() or _is_tracing())


#: An operator of one's own can say its shape and gradient (2.4 on).
HAS_LIBRARY = torch is not None and all(
    hasattr(getattr(torch, "library", None), name)
    for name in ("register_fake", "register_autograd", "fallthrough_kernel")
)


def _is_tracing():
    if hasattr(torch.jit, "is_tracing"):
        return torch.jit.is_tracing()
    # 0.3's wants Variables, and its graphs never held anything of ours.
    state = None if VARIABLES else getattr(torch._C, "_get_tracing_state", None)
    return state is not None and state() is not None


def transformed():
    """Whether torch.func or forward mode differentiates, or maps, what is computed now."""
    return _in_forward_mode() or _transform() is not None


_peek = getattr(_functorch, "peek_interpreter_stack", None)


def _transform():
    """The innermost of torch.func's transforms that are at work; None where there is none."""
    return None if _peek is None else _peek()


_dispatch_modes = getattr(getattr(torch, "_C", None), "_len_torch_dispatch_stack", int)


def _transforming():
    """Whether operations go to something else than tensors: a dispatch mode (fake tensors, make_fx) or functionalization."""
    if _dispatch_modes():
        return True
    if not hasattr(torch._C, "_functionalization_reapply_views_tls"):
        return False
    # Gradients of torch.func's go through autograd Functions as any others do.
    top = _transform()
    return top is not None and top.key().name not in ("Grad",)


if UNFOLD_IS_CURRENT and hasattr(torch, "compiler"):
    compiling = torch.compiler.is_compiling
else:

    def compiling():
        return False


if HAS_UNFOLD:
    # Now rather than when met: torch.compile may be tracing by then.
    for _dtype in ITEMSIZE:
        if hasattr(torch, _dtype):
            _probed[getattr(torch, _dtype), "cpu"] = _probe_unfold(getattr(torch, _dtype), "cpu")
