"""What constructors of layers, and PyTorch's observers, take by version."""

import importlib
import numbers

from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import Tensor, torch, torch_missing

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


def parameter(kind, name, value):
    """What a layer keeps of a number, a tensor or a Parameter. TypeError for anything else."""
    if isinstance(value, torch.nn.Parameter) or isinstance(value, numbers.Number) and not isinstance(value, bool):
        return value
    tensor = value.data if isinstance(value, Tensor) else value
    if not torch.is_tensor(tensor):
        raise TypeError("{}(): {} must be a tensor or a number, but got {!r}".format(kind, name, value))
    if dtypes.differentiable(TORCH.dtype(tensor)):
        return torch.nn.Parameter(tensor.clone())
    return torch.nn.Parameter(tensor.clone(), requires_grad=False)


def is_parametrized(module):
    """Whether torch.nn.utils.parametrize (1.9 on) computes parameters of a layer."""
    parametrize = getattr(torch.nn.utils, "parametrize", None)
    return parametrize is not None and parametrize.is_parametrized(module)


def quantization():
    """The module of PyTorch's observers (torch.ao.quantization from 1.10 on). ImportError if it has none that fit."""
    for name in ("torch.ao.quantization", "torch.quantization"):
        try:
            found = importlib.import_module(name)
            found.PerChannelMinMaxObserver(quant_min=0, quant_max=15)  # ranges of one's own: 1.7 on
            return found
        except (AttributeError, ImportError, TypeError):
            continue
    text = "quantized layers need observers of torch.quantization that take quant_min (PyTorch 1.7 on), but here is {}"
    raise ImportError(text.format(torch_missing or torch.__version__))


def quantization_parameters(weight, signed, low, high):
    """(scale, zero_point) for each filter of a float32 weight, as PyTorch's PerChannelMinMaxObserver finds them: symmetric
    for signed codes, affine for others. Of values that aren't known yet, too."""
    values = weight.flatten(1)
    least, most = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
    smallest = torch.finfo(torch.float32).eps
    if signed:
        scale = (torch.maximum(-least, most) / (float(high - low) / 2)).clamp(min=smallest)
        return scale, torch.zeros_like(scale, dtype=torch.int64)
    scale = ((most - least) / float(high - low)).clamp(min=smallest)
    return scale, (low - (least / scale).round().to(torch.int64)).clamp(low, high)


def fake_quantize(x, scale, zero_point, low, high):
    """x rounded to what the nearest codes stand for, by PyTorch's own functions: the gradient goes straight through, and
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
