"""nn.Module shells over the functions. Without PyTorch they can be imported, but not constructed."""

from im2col_compat import features
from im2col_compat.columns import fold, unfold
from im2col_compat.conv import conv2d, linear
from im2col_compat.op import resolve


class _NeedsTorch(object):
    def __init__(self, *_, **__):
        raise ImportError("{} is an nn.Module: {}".format(type(self).__name__, features.torch_missing))


if features.torch is None:
    _Module = _Conv2d = _Linear = _NeedsTorch
else:
    _Module = features.torch.nn.Module
    _Conv2d = features.torch.nn.Conv2d
    _Linear = features.torch.nn.Linear


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
            return "{}, op={!r}".format(super(_WithOp, self).extra_repr(), self.op)

    else:

        def __repr__(self):
            return "{}, op={!r})".format(super(_WithOp, self).__repr__()[:-1], self.op)


class Conv2d(_WithOp, _Conv2d):
    """nn.Conv2d with a dot product of your own: its arguments, then op.

    Parameters, their initialisation and state_dict are nn.Conv2d's; padding may be
    "same" or "valid" on every version. padding_mode "zeros" means the op's pad value; the
    others are not supported (ValueError). op: as for conv2d.
    """

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
        if padding_mode != "zeros":
            raise ValueError(
                "Conv2d(): padding_mode must be 'zeros', which means the op's pad value, but got {!r}".format(
                    padding_mode
                )
            )
        op = resolve(op)
        named = padding if hasattr(padding, "lower") else None
        if named is not None and named not in ("same", "valid"):
            raise ValueError("Conv2d(): padding must be ints, 'same' or 'valid', but got {!r}".format(padding))
        if named == "same" and any(s != 1 for s in (stride if hasattr(stride, "__iter__") else (stride,))):
            raise ValueError("Conv2d(): padding='same' needs stride 1, but got stride={}".format(stride))
        super(Conv2d, self).__init__(
            in_channels, out_channels, kernel_size, stride, padding if named is None else 0, dilation, groups, bias,
            **features.factory(device, dtype)
        )  # fmt: skip
        features.place(self, device, dtype)
        if named is not None:
            self.padding = named
        self.op = op

    @classmethod
    def from_conv(cls, conv, op):
        """A Conv2d with the settings and the very parameters (shared, not copied) of an nn.Conv2d."""
        if not isinstance(conv, _Conv2d):
            raise TypeError("Conv2d.from_conv(): conv must be an nn.Conv2d, but got {}".format(type(conv).__name__))
        if getattr(conv, "padding_mode", "zeros") != "zeros":
            raise ValueError(
                "Conv2d.from_conv(): conv's padding_mode must be 'zeros', but is {!r}".format(conv.padding_mode)
            )
        return _converted(cls, conv, op)

    def forward(self, input):
        return conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, op=self.op)


class Linear(_WithOp, _Linear):
    """nn.Linear with a dot product of your own: its arguments, then op.

    Parameters, their initialisation and state_dict are nn.Linear's. op: as for conv2d.
    """

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, op="dot"):
        op = resolve(op)
        super(Linear, self).__init__(in_features, out_features, bias, **features.factory(device, dtype))
        features.place(self, device, dtype)
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
    if features.is_parametrized(layer):
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
