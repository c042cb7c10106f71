"""nn.Module shells over the functions. Without PyTorch they can be imported, but not constructed."""

from im2col_compat.columns import fold, unfold
from im2col_compat.compat import layers
from im2col_compat.compat.probes import torch, torch_missing
from im2col_compat.conv import conv1d, conv2d, conv3d, linear
from im2col_compat.op import resolve
from im2col_compat.padding import MODES as PADDING_MODES
from im2col_compat.padding import pad_for_conv


class _NeedsTorch(object):
    def __init__(self, *_, **__):
        raise ImportError("{} is an nn.Module: {}".format(type(self).__name__, torch_missing))


if torch is None:
    _Module = _Conv1d = _Conv2d = _Conv3d = _Linear = _NeedsTorch
else:
    _Module = torch.nn.Module
    _Conv1d, _Conv2d, _Conv3d = torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d
    _Linear = torch.nn.Linear


class _Shell(_Module):
    """repr on every version: before 0.4 nn.Module knew no extra_repr."""

    if not hasattr(_Module, "extra_repr"):

        def __repr__(self):
            return "{}({})".format(type(self).__name__, self.extra_repr())


class Unfold(_Shell):
    """nn.Unfold of the latest PyTorch, on any: see unfold."""

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        super(Unfold, self).__init__()
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input):
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self):
        return "kernel_size={}, dilation={}, padding={}, stride={}".format(
            self.kernel_size, self.dilation, self.padding, self.stride
        )


class Fold(_Shell):
    """nn.Fold of the latest PyTorch, on any: see fold."""

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        super(Fold, self).__init__()
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input):
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self):
        return "output_size={}, kernel_size={}, dilation={}, padding={}, stride={}".format(
            self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )


class _WithOp(object):
    """The `op` of a layer that is otherwise its base class."""

    if hasattr(_Module, "extra_repr"):

        def extra_repr(self):
            return self._with_own(super(_WithOp, self).extra_repr())

    else:

        def __repr__(self):
            return self._with_own(super(_WithOp, self).__repr__()[:-1]) + ")"

    def _with_own(self, settings):
        return "{}, op={!r}".format(settings, self.op)


class _Conv(_WithOp):
    """What Conv1d, Conv2d and Conv3d have in common; `dims` and `base` are theirs."""

    padding_mode = "zeros"  # of layers that an older PyTorch has pickled

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_size,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        bias=True,
        padding_mode="zeros",
        device=None,
        dtype=None,
        op="dot",
    ):
        name = type(self).__name__
        if padding_mode not in ("zeros",) + PADDING_MODES:
            raise ValueError(
                "{}(): padding_mode must be one of {}, but got {!r}".format(
                    name, ("zeros",) + PADDING_MODES, padding_mode
                )
            )
        op = resolve(op)
        # What the oldest nn.Conv2d doesn't know is set when it is constructed.
        plain = not hasattr(padding, "__iter__") or not any(hasattr(item, "__iter__") for item in padding)
        if hasattr(padding, "lower"):
            plain = False
            if padding not in ("same", "valid"):
                raise ValueError("{}(): padding must be ints, 'same' or 'valid', but got {!r}".format(name, padding))
            if padding == "same" and any(s != 1 for s in (stride if hasattr(stride, "__iter__") else (stride,))):
                raise ValueError("{}(): padding='same' needs stride 1, but got stride={}".format(name, stride))
        super(_Conv, self).__init__(
            in_channels, out_channels, kernel_size, stride, padding if plain else 0, dilation, groups, bias,
            **layers.factory(device, dtype)
        )  # fmt: skip
        layers.place(self, device, dtype)
        if not plain:
            self.padding = padding
        self.padding_mode = padding_mode
        self.op = op

    @classmethod
    def from_conv(cls, conv, op):
        """A layer with the settings and the very parameters (shared, not copied) of an nn.Conv1d, nn.Conv2d or nn.Conv3d."""
        if not isinstance(conv, cls.base):
            raise TypeError(
                "{}.from_conv(): conv must be an nn.{}, but got {}".format(
                    cls.__name__, cls.base.__name__, type(conv).__name__
                )
            )
        return _converted(cls, conv, op)

    def _with_own(self, settings):
        if self.padding_mode != "zeros" and "padding_mode" not in settings:
            settings += ", padding_mode=" + self.padding_mode
        return super(_Conv, self)._with_own(settings)

    def forward(self, input):
        return self._convolved(*self._padded(input), weight=self.weight, bias=self.bias, op=self.op)

    def _padded(self, input):
        """The input, padded with its own pixels where it is to be, and the padding that is left."""
        if self.padding_mode == "zeros":
            return input, self.padding
        return pad_for_conv(input, self.weight, self.padding, self.stride, self.dilation, self.padding_mode), 0

    def _convolved(self, input, padding, weight, bias, op):
        conv = (conv1d, conv2d, conv3d)[self.dims - 1]
        return conv(input, weight, bias, self.stride, padding, self.dilation, self.groups, op=op)


class Conv1d(_Conv, _Conv1d):
    """nn.Conv1d with a dot product of your own: as Conv2d."""

    dims, base = 1, _Conv1d


class Conv2d(_Conv, _Conv2d):
    """nn.Conv2d with a dot product of your own: its arguments, then op.

    Parameters, their initialisation and state_dict are nn.Conv2d's; padding may be
    "same", "valid" or ((top, bottom), (left, right)) on every version, and so may padding_mode be any of nn.Conv2d's:
    "zeros" means the op's pad value; "reflect", "replicate" and "circular" pad with the input's own pixels.
    ValueError for other modes. op: as for conv2d.
    """

    dims, base = 2, _Conv2d


class Conv3d(_Conv, _Conv3d):
    """nn.Conv3d with a dot product of your own: as Conv2d."""

    dims, base = 3, _Conv3d


class Linear(_WithOp, _Linear):
    """nn.Linear with a dot product of your own: its arguments, then op.

    Parameters, their initialisation and state_dict are nn.Linear's. op: as for conv2d.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, op="dot"):
        op = resolve(op)
        super(Linear, self).__init__(in_features, out_features, bias, **layers.factory(device, dtype))
        layers.place(self, device, dtype)
        self.op = op

    @classmethod
    def from_linear(cls, linear, op):
        """A Linear with the sizes and the very parameters (shared, not copied) of an nn.Linear."""
        if not isinstance(linear, _Linear):
            raise TypeError(
                "Linear.from_linear(): linear must be an nn.Linear, but got {}".format(type(linear).__name__)
            )
        return _converted(cls, linear, op)

    def forward(self, input):
        return linear(input, self.weight, self.bias, op=self.op)


def _converted(cls, layer, op):
    if layers.is_parametrized(layer):
        # torch.nn.utils.parametrize gives each layer a class of its own, in which the parameters are properties.
        own = {name: value for name, value in vars(type(layer)).items() if name not in ("__dict__", "__weakref__")}
        new = _shallow(layer, type("Parametrized" + cls.__name__, (cls,), own))
        # What is parametrized, and how, is each layer's own; the parameters that it is computed from are shared.
        new.parametrizations = _shallow(layer.parametrizations)
        for name, one in list(layer.parametrizations.items()):
            new.parametrizations[name] = _shallow(one)
    else:
        new = _shallow(layer, cls)
    new.op = resolve(op)
    return new


def _shallow(module, cls=None):
    """A module that holds what another holds. Not constructed: that would draw random numbers, and know no hooks."""
    new = object.__new__(cls or type(module))
    for name, value in vars(module).items():
        new.__dict__[name] = value.copy() if isinstance(value, dict) else value
    return new
