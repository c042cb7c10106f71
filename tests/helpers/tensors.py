"""The kinds of array that the library takes, made and read alike on every version."""

import numpy as np
from im2col_compat.compat import dtypes, probes, unfolds
from im2col_compat.compat.arrays import TORCH, arrays_of, raw
from im2col_compat.compat.probes import VARIABLES, Tensor, torch

torch = torch
VARIABLES = VARIABLES

#: "tensor" is a Variable on 0.3, where "raw" is the tensor inside it.
KINDS = ["numpy"] + ([] if torch is None else ["tensor"]) + (["raw"] if VARIABLES else [])

FLOATS = ["float16", "bfloat16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
DTYPES = FLOATS + COMPLEX + INTEGERS + ["bool"]


def has(kind, dtype):
    """Whether this kind of array can have this dtype here."""
    if kind == "numpy":
        return dtype != "bfloat16"
    if VARIABLES:
        return dtype in dtypes.OLD_TYPE
    try:
        torch.zeros(1, dtype=getattr(torch, dtype)) + 0
        return True
    except (AttributeError, RuntimeError):
        # float16 can't be added on old CPUs' versions; complex dtypes had names before they worked.
        return dtype == "float16" or dtype.startswith("uint") and hasattr(torch, dtype)


KINDS_AND_DTYPES = [(kind, dtype) for kind in KINDS for dtype in DTYPES if has(kind, dtype)]


def served(engine, kind, dtype):
    """Whether an engine promises to serve a kind and dtype."""
    if engine == "torch":
        return kind == "tensor" and unfolds.probed.get((getattr(torch, dtype), "cpu")) is not None
    if engine == "slices" and kind != "numpy" and dtype == "float16":
        return probes.CPU_HALF
    return True


def make(kind, array, dtype=None, requires_grad=False):
    """An array of `kind` with the values of a NumPy array."""
    array = np.asarray(array)
    dtype = array.dtype.name if dtype is None else dtype
    if kind == "numpy":
        return array.astype(dtype)
    # from_numpy of old versions knows few dtypes; these go through float64 or complex128 without loss.
    wide = array.astype("complex128" if dtype in COMPLEX else "int64" if dtypes.is_integer(dtype) else "float64")
    if array.size:
        tensor = torch.from_numpy(np.ascontiguousarray(wide) if wide.ndim else wide.reshape(1))
        tensor = tensor if array.ndim else tensor.view(())
    else:
        tensor = torch.zeros(*wide.shape)  # 1.0's from_numpy takes no empty arrays
    if VARIABLES:
        # 0.3's HalfTensor can be copied to, and little else.
        tensor = getattr(torch, dtypes.OLD_TYPE[dtype])(*tensor.size()).copy_(tensor)
    else:
        tensor = tensor.to(getattr(torch, dtype))
    if kind == "raw":
        return tensor
    if VARIABLES:
        return torch.autograd.Variable(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def values(x):
    """The values of any kind of array, as a NumPy array."""
    if isinstance(x, np.ndarray):
        return x
    dtype = dtype_of(x)
    x = raw(x if VARIABLES else x.detach())
    if dtype in ("float16", "bfloat16"):
        x = x.float()
    elif dtype in INTEGERS:
        x = x.long()  # old versions turn few integers into arrays
    return TORCH.dense(x).cpu().numpy()


def kind_of(x):
    return "numpy" if isinstance(x, np.ndarray) else "tensor" if isinstance(x, Tensor) else "raw"


def dtype_of(x):
    return arrays_of(x).dtype(x)


def some(shape, dtype="float64", seed=0):
    """Values that every dtype holds exactly and of which sums stay exact: small integers, negative where they can be."""
    random = np.random.RandomState(seed)
    low = 0 if dtype.startswith(("uint", "bool")) else -8
    array = random.randint(low, 2 if dtype == "bool" else 9, shape)
    if dtype in COMPLEX:
        return (array + 1j * random.randint(low, 9, shape)).astype(dtype)
    return array.astype("float64" if dtype in FLOATS else "int64")
