"""One table of dtypes, by the names that PyTorch and NumPy share."""

import numpy as np

from im2col_compat.compat.probes import torch

#: Bytes an element, of every dtype with a name common to PyTorch and NumPy.
ITEMSIZE = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16}  # fmt: skip
#: dtypes that C computes with, and its names for them.
C_TYPES = {"float32": "float", "float64": "double"}
C_TYPES.update({kind + bits: kind + bits + "_t" for kind in ("int", "uint") for bits in ("8", "16", "32", "64")})
HALVES = ("float16", "bfloat16")
#: The largest finite number of any dtype.
LARGEST = int(np.finfo("float64").max)
OLD_TYPE = {
    "float16": "HalfTensor", "float32": "FloatTensor", "float64": "DoubleTensor", "uint8": "ByteTensor",
    "int8": "CharTensor", "int16": "ShortTensor", "int32": "IntTensor", "int64": "LongTensor"}  # fmt: skip
OLD_DTYPE = {name: dtype for dtype, name in OLD_TYPE.items()}
TORCH_DTYPES = {} if torch is None else {name: getattr(torch, name) for name in ITEMSIZE if hasattr(torch, name)}
TORCH_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


def is_integer(dtype):
    """Whether a dtype's name is an integer's or bool's."""
    return dtype.startswith(("int", "uint", "bool"))


def differentiable(dtype):
    """Whether a dtype's name is a float's or a complex's."""
    return dtype.startswith(("float", "bfloat", "complex"))


def limits(dtype):
    """The least and the greatest value of an integer or bool dtype's name."""
    return (0, 1) if dtype == "bool" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def bounds(dtype):
    """What no number of a dtype is less than, or exceeds: the infinities of floats."""
    return limits(dtype) if is_integer(dtype) else (-float("inf"), float("inf"))


def least(dtype):
    """The least positive number of a float dtype that has all its digits."""
    return float(np.finfo(dtype).tiny)


def holds(dtype, value):
    """Whether a number, or None, is one that a dtype has."""
    if value is None or value != value:
        return not is_integer(dtype) or value is None
    if isinstance(value, complex):
        return False
    if abs(value) == float("inf"):
        return not is_integer(dtype)
    if not is_integer(dtype):
        return abs(value) <= float(np.finfo(dtype).max)
    low, high = limits(dtype)
    return int(value) == value and low <= value <= high
