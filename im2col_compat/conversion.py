"""A trained network with another dot product: convert."""

import copy
import fnmatch

from im2col_compat.compat.probes import Tensor, torch, torch_missing
from im2col_compat.compat.warn import warn
from im2col_compat.modules import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Linear,
    why_not,
)
from im2col_compat.op import resolve
from im2col_compat.quantized import QuantConv2d, QuantLinear

#: What layers become, with an op of Op.from_table and with any other.
_QUANTIZED = QuantConv2d, QuantLinear
_PLAIN = Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Linear
#: nn.MultiheadAttention takes the weight of such a layer, and doesn't call it.
_NEVER_CALLED = () if torch is None else getattr(torch.nn.modules.linear, "NonDynamicallyQuantizableLinear", ())


def convert(model, op, calibrate=None, layers=None, qconfig=None, params=None, narrow_range=None):
    """A copy of a model whose convolutions and fully connected layers compute with an op.

    model: an nn.Module. It isn't changed.
    op: as for conv2d. An op that Op.from_table made gives QuantConv2d and QuantLinear, any other op Conv1d, Conv2d,
        Conv3d, ConvTranspose1d, 2d, 3d and Linear. Converted layers can be converted again.
    calibrate: for ops of Op.from_table, batches of inputs for the model, such as a DataLoader: tensors, or tuples whose
        first item is one. The model computes them in eval mode and without quantization, while observers find the
        ranges of the layers' inputs. A progress bar is shown where tqdm is installed and standard error is a terminal.
        None keeps the calibration of quantized layers, if the operands of both ops have the same ranges.
    layers: a type, a name as in model.named_modules(), a pattern such as "features.*", a list of these, or a function
        of (name, module). The default is all nn.Conv2d and nn.Linear, and for other ops than Op.from_table's all
        nn.Conv1d, nn.Conv3d and nn.ConvTranspose1d, 2d and 3d too.
    qconfig, narrow_range: for ops of Op.from_table, as for QuantConv2d. None keeps what quantized layers have, if the
        operands of both ops have the same ranges.
    params: the op's parameters as for Conv2d, of which each layer gets its own copies; or a function of (name, module)
        that returns them, as for shapes that differ from layer to layer.

    Returns the copy. Its layers share parameters where the model's do.

    Raises
    TypeError: for layers that can't be converted, and arguments of wrong types.
    ValueError: if there is nothing to convert, if the model has no layer of a given name or type, if a layer isn't
        calibrated and calibrate is None, if a layer gets no input or one that isn't finite while calibrating, and for
        calibrate, qconfig or narrow_range with other ops than Op.from_table's.
    ImportError: without PyTorch, and for ops of Op.from_table where PyTorch has no observers (see QuantConv2d).
    """
    if torch is None:
        raise ImportError("convert() is for nn.Modules: {}".format(torch_missing))
    op = resolve(op)
    is_table = op.term.looks_up
    if not isinstance(model, torch.nn.Module):
        raise TypeError("convert(): model must be an nn.Module, but is {!r}".format(model))
    if calibrate is not None and not hasattr(calibrate, "__iter__"):
        raise TypeError("convert(): calibrate must be batches, such as a DataLoader, but is {!r}".format(calibrate))
    if is_table and params is not None:
        raise ValueError("convert(): params are for ops with parameters, but op is {!r}".format(op))
    if not is_table and any(value is not None for value in (calibrate, qconfig, narrow_range)):
        message = "convert(): calibrate, qconfig and narrow_range are for ops of Op.from_table, but op is {!r}"
        raise ValueError(message.format(op))
    model = copy.deepcopy(model)
    kinds = _QUANTIZED if is_table else _PLAIN
    chosen, converted = _chosen(model, layers, kinds), {}
    for name, layer in chosen:
        kind = _kind(layer, kinds)
        if is_table:
            converted[layer] = _quantized(name, layer, kind, op, calibrate is None, qconfig, narrow_range)
        else:
            given = params(name, layer) if callable(params) else copy.deepcopy(params)
            converted[layer] = _plain(layer, kind, op, given)
    model = _with(model, converted)
    for module in model.modules():
        if hasattr(module, "activation_relu_or_gelu"):
            # nn.TransformerEncoderLayer has a fast path, which takes the weights of its layers and doesn't call them.
            # This closes it.
            module.activation_relu_or_gelu = 0
    if calibrate is not None:
        _calibrate(model, [(name, converted[layer]) for name, layer in chosen], calibrate)
    return model


def _kind(layer, kinds):
    """The class that a layer becomes: the first of which it is the `base`. None where it is none's."""
    if isinstance(layer, _NEVER_CALLED):
        return None
    return next((kind for kind in kinds if isinstance(layer, kind.base)), None)


def _chosen(model, layers, kinds):
    """(name, module) of each layer to convert. A module in several places comes once."""
    modules = list(model.named_modules())
    wanted = list(layers) if isinstance(layers, (tuple, list)) else [layers]
    if layers is None or callable(layers) and not isinstance(layers, type):
        wanted, found = [], [pair for pair in modules if layers is None or layers(*pair)]
    else:
        for one in wanted:
            if not any(_is(one, *pair) for pair in modules):
                names = [name for name, _ in modules if name]
                message = "convert(): layers must be types or names of the model's, {}, but {!r} is none"
                raise ValueError(message.format(names, one))
        found = [pair for pair in modules if any(_is(one, *pair) for one in wanted)]
    chosen, kept = [], []
    for name, module in found:
        kind = _kind(module, kinds)
        why = None if kind is None else why_not(module, kind.base)
        if kind is not None and why is None:
            chosen.append((name, module))
        elif name in wanted:  # named, and not by a pattern
            message, bases = "convert(): layer {!r} must be one of {}, but ", ["nn." + k.base.__name__ for k in kinds]
            raise TypeError(message.format(name, bases) + (why or "is {}".format(type(module).__name__)))
        elif why is not None:
            kept.append("; layer {!r} {}".format(name, why))
    if not chosen:
        raise ValueError("convert(): the model has no layers to convert" + "".join(kept))
    if kept:
        warn("convert(): some layers stay as they are" + "".join(kept), UserWarning)
    return chosen


def _is(wanted, name, module):
    if hasattr(wanted, "lower"):
        return fnmatch.fnmatchcase(name, wanted)
    if isinstance(wanted, type):
        return isinstance(module, wanted)
    raise TypeError("convert(): layers must be types, names or a function, but got {!r}".format(wanted))


def _plain(layer, kind, op, params):
    new = kind._sharing(layer, op, params)
    # If it was quantized.
    for attribute in ("input_scale", "input_zero_point", "qconfig", "narrow_range", "calibrating"):
        new._buffers.pop(attribute, None)
        new.__dict__.pop(attribute, None)
    return new


def _quantized(name, layer, kind, op, keep, qconfig, narrow):
    """keep: whether the new layer takes over the calibration of the layer."""
    same = isinstance(layer, kind) and layer.op.multiply.ranges == op.multiply.ranges and qconfig is None
    same = same and narrow in (None, layer.narrow_range)
    if keep and not (same and float(layer.input_scale) > 0):
        message = "convert(): layer {!r} isn't calibrated for {!r}: calibrate must be batches of the model's inputs"
        raise ValueError(message.format(name, op))
    own = (layer.qconfig, layer.narrow_range) if same else (qconfig, bool(narrow))
    new = kind._sharing(layer, op, *own)
    if keep:
        new.input_scale.copy_(layer.input_scale)
        new.input_zero_point.copy_(layer.input_zero_point)
    return new


def _with(module, converted):
    """What the module was converted to, or the module itself with converted layers in it."""
    if module in converted:
        return converted[module]
    # named_children() would leave out all but one of a child's places.
    for name, child in list(module._modules.items()):
        if child is not None:
            module._modules[name] = _with(child, converted)
    return module


def _calibrate(model, layers, batches):
    training = [module for module in model.modules() if module.training]
    model.eval()
    for name, layer in layers:
        layer.start_calibration(name)
    try:
        count = 0
        with torch.no_grad():
            for count, batch in enumerate(_with_progress(batches), 1):
                input = batch[0] if isinstance(batch, (tuple, list)) and len(batch) else batch
                if not isinstance(input, Tensor):
                    what = "tensors, or tuples that begin with one"
                    raise TypeError("convert(): calibrate's batches must be {}, but one is {!r}".format(what, batch))
                model(input)
        if not count:
            raise ValueError("convert(): calibrate must have batches, but there is none")
        for _, layer in layers:
            layer.finish_calibration()
    finally:
        for module in training:
            module.training = True


def _with_progress(batches):
    try:
        from tqdm import tqdm
    except ImportError:
        return batches
    return tqdm(batches, desc="calibrating", disable=None, leave=False)
