"""Layers: the functions as nn.Modules. Without PyTorch they can be imported, but not constructed."""

import functools
import inspect
import sys

from im2col_compat.columns import fold, unfold
from im2col_compat.compat import graphs, layers
from im2col_compat.compat.probes import torch, torch_missing
from im2col_compat.conv import conv1d, conv2d, conv3d, linear
from im2col_compat.conv_transpose import conv_transpose1d, conv_transpose2d, conv_transpose3d
from im2col_compat.op import resolve
from im2col_compat.padding import MODES, pad_for_conv
from im2col_compat.problem import output_padding_for
from im2col_compat.terms import parameters


class _NeedsTorch(object):
    def __init__(self, *_, **__):
        raise ImportError("{} is an nn.Module: {}".format(type(self).__name__, torch_missing))


_NAMES = "Module Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d Linear"
_Module, _Conv1d, _Conv2d, _Conv3d, _ConvTranspose1d, _ConvTranspose2d, _ConvTranspose3d, _Linear = [
    _NeedsTorch if torch is None else getattr(torch.nn, name) for name in _NAMES.split()
]


class _Shell(_Module):
    """A module without parameters. `_settings` names the attributes that its repr shows."""

    def extra_repr(self):
        return ", ".join("{}={}".format(name, getattr(self, name)) for name in self._settings)

    def __repr__(self):  # nn.Module's shows no settings before 0.4
        return "{}({})".format(type(self).__name__, self.extra_repr())


class Unfold(_Shell):
    """nn.Unfold of the latest PyTorch, on any version. Arguments are as for unfold, without input and out."""

    _settings = ("kernel_size", "dilation", "padding", "stride")

    def __init__(self, kernel_size, dilation=1, padding=0, stride=1):
        super(Unfold, self).__init__()
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input):
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(_Shell):
    """nn.Fold of the latest PyTorch, on any version. Arguments are as for fold, without input and out."""

    _settings = ("output_size", "kernel_size", "dilation", "padding", "stride")

    def __init__(self, output_size, kernel_size, dilation=1, padding=0, stride=1):
        super(Fold, self).__init__()
        self.output_size = output_size
        self.kernel_size, self.dilation, self.padding, self.stride = kernel_size, dilation, padding, stride

    def forward(self, input):
        return fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


def constructor(init, own):
    """An __init__ with the arguments of `init`, PyTorch's, and then those of the method `own`, ours.

    So each list of arguments is written once. The __init__ calls `init` and then `own`, each with its part, and Python
    itself complains about arguments that are missing, unknown or given twice. Where constructor() made `init`, it takes
    PyTorch's arguments alone.
    """
    init = getattr(init, "__wrapped__", init)
    most = init.__code__.co_argcount - 1
    names = own.__code__.co_varnames[1 : own.__code__.co_argcount]

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        if len(args) > most + len(names):
            message = "{}() takes at most {} arguments ({} given)"
            raise TypeError(message.format(type(self).__name__, most + len(names), len(args)))
        ours = {name: kwargs.pop(name) for name in names if name in kwargs}
        init(self, *args[:most], **kwargs)
        own(self, *args[most:], **ours)

    __init__.__wrapped__ = init  # Python 2.7's wraps doesn't set it
    if hasattr(inspect, "signature"):
        theirs, ours = [list(inspect.signature(method).parameters.values()) for method in (init, own)]
        __init__.__signature__ = inspect.Signature(theirs + ours[1:])
    return __init__


def why_not(layer, base):
    """Why a layer, a `base`, can't become one with an op: it computes something else. None where it can."""
    for name in ("forward", "_conv_forward", "__call__"):
        if name in vars(layer):
            return "has a {} of its own".format(name)
        where = next((cls for cls in type(layer).__mro__ if name in vars(cls)), base)
        if not issubclass(base, where) and where.__module__.split(".")[0] != "im2col_compat":
            return "has a forward of its own, {}.{}".format(where.__name__, name)
    is_lazy = getattr(torch.nn.parameter, "is_lazy", None)  # 1.8 on
    if is_lazy is not None and any(map(is_lazy, layer._parameters.values())):
        return "is lazy, and has no sizes before its first forward"
    return None


class Layer(object):
    """What all layers with an op have in common.

    `base` is PyTorch's layer that they extend, `dims` its number of spatial dimensions, 0 for Linear.
    """

    _op_params = ()  # names; layers that an older version has pickled have none

    def _set_own(self, op="dot", params=None):
        """Set what PyTorch's layer doesn't have. Constructors and from_conv end with these arguments."""
        self.op = resolve(op)
        kind, kept = type(self).__name__, self.__dict__.get("_op_params", ())
        if params is None and kept:
            params = {name: getattr(self, name) for name in kept if name in dict(self.op.term.arguments)}
        names, values = parameters.given(kind, self.op, params)
        for name in kept:  # of a layer that this one is made from
            delattr(self, name)
        for name, value in zip(names, values):
            if hasattr(self, name):
                text = "{}(): params has {!r}, which is a name that the layer needs itself"
                raise ValueError(text.format(kind, name))
            setattr(self, name, layers.parameter(kind, parameters.label(name), value))
        self._op_params = names

    def __setattr__(self, name, value):
        # fuse_conv_bn_eval and other such functions scale the weight of any layer. That scales the result of "dot" alone.
        if name == "weight" and "op" in self.__dict__ and not graphs.compiling() and not resolve(self.op).is_dot:
            caller = sys._getframe(1).f_code.co_name
            if "fuse" in caller and "_bn" in caller:
                message = "{}() can't fuse a {} with op={!r}: scaling its weight doesn't scale its result"
                raise TypeError(message.format(caller, type(self).__name__, self.op))
        super(Layer, self).__setattr__(name, value)

    @classmethod
    def _sharing(cls, layer, *own):
        """A layer with the settings of a `base`, and with its parameters, not copies of them."""
        if not isinstance(layer, cls.base):
            what, message = "conv" if cls.dims else "linear", "{0}.from_{1}(): {1} must be an nn.{2}, but got {3}"
            raise TypeError(message.format(cls.__name__, what, cls.base.__name__, type(layer).__name__))
        why = why_not(layer, cls.base)
        if why is not None:
            raise TypeError("{}: it can't become a {}, as it {}".format(type(layer).__name__, cls.__name__, why))
        parametrized = layers.is_parametrized(layer)
        if parametrized:
            # torch.nn.utils.parametrize gives each layer a class of its own, whose properties compute the parameters.
            properties = {n: value for n, value in vars(type(layer)).items() if n not in ("__dict__", "__weakref__")}
            cls = type("Parametrized" + cls.__name__, (cls,), properties)
        new = _shallow(layer, cls)
        if parametrized:
            # The layers share the tensors that the parameters are computed from, but not the lists of computations, so
            # that one can be removed from one layer alone.
            new.parametrizations = _shallow(layer.parametrizations)
            for name, one in list(layer.parametrizations.items()):
                new.parametrizations[name] = _shallow(one)
        new._set_own(*own)
        return new

    if hasattr(_Module, "extra_repr"):

        def extra_repr(self):
            return self._with_own(super(Layer, self).extra_repr())

    else:

        def __repr__(self):
            return self._with_own(super(Layer, self).__repr__()[:-1]) + ")"

    def _with_own(self, settings):
        """The text of PyTorch's settings, and of those that `_set_own` sets."""
        params = ", params={}".format(list(self._op_params)) if self._op_params else ""
        return "{}, op={!r}{}".format(settings, self.op, params)

    def forward(self, input):
        return self._reduced(self._padded(input), self.weight, self.op, self.bias)

    def _padded(self, input):
        """The input, with its own pixels around it where padding_mode asks for them."""
        return input

    def _reduced(self, padded, weight, op, bias=None, padding=None):
        """What the layer computes of such an input with this weight, op and bias. padding: another than the layer's."""
        return linear(padded, weight, bias, op=op, params=self._params(op))

    def _params(self, op):
        """The parameters of the layer's op, as functions take them."""
        if not self._op_params or op is not self.op:
            return None
        return {name: getattr(self, name) for name in self._op_params}

    def _per_filter(self, values):
        """One value for each filter, (O,), in the shape that broadcasts with results."""
        return values.view(-1, *(1,) * self.dims)

    def _biased(self, result):
        return result if self.bias is None else result + self._per_filter(self.bias)


class _Conv(Layer):
    padding_mode = "zeros"  # of layers that an older PyTorch has pickled

    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True,
        padding_mode="zeros", device=None, dtype=None
    ):  # fmt: skip
        name, modes = type(self).__name__, ("zeros",) + MODES
        if padding_mode not in modes:
            raise ValueError("{}(): padding_mode must be one of {}, but got {!r}".format(name, modes, padding_mode))
        # Old versions of nn.Conv2d take neither names nor pairs. So these are set afterwards.
        plain = not hasattr(padding, "__iter__") or not any(hasattr(item, "__iter__") for item in padding)
        if hasattr(padding, "lower"):
            plain = False
            if padding not in ("same", "valid"):
                raise ValueError("{}(): padding must be ints, 'same' or 'valid', but got {!r}".format(name, padding))
            if padding == "same" and any(s != 1 for s in (stride if hasattr(stride, "__iter__") else (stride,))):
                raise ValueError("{}(): padding='same' needs stride 1, but got stride={}".format(name, stride))
        super(_Conv, self).__init__(
            in_channels, out_channels, kernel_size, stride, padding if plain else 0, dilation, groups, bias,
            **layers.factory(device, dtype))  # fmt: skip
        layers.place(self, device, dtype)
        if not plain:
            self.padding = padding
        self.padding_mode = padding_mode

    __init__ = constructor(__init__, Layer._set_own)

    @classmethod
    def from_conv(cls, conv, op, params=None):
        """A layer with the settings of an nn.Conv1d, 2d or 3d, sharing its parameters. op, params: as for the constructor.

        Raises TypeError for other layers, and what the constructor raises.
        """
        return cls._sharing(conv, op, params)

    def _with_own(self, settings):
        if self.padding_mode != "zeros" and "padding_mode" not in settings:
            settings += ", padding_mode=" + self.padding_mode
        return super(_Conv, self)._with_own(settings)

    def _padded(self, input):
        if self.padding_mode == "zeros":
            return input
        return pad_for_conv(input, self.weight, self.padding, self.stride, self.dilation, self.padding_mode)

    def _reduced(self, padded, weight, op, bias=None, padding=None):
        if padding is None:
            padding = self.padding if self.padding_mode == "zeros" else 0
        conv = (conv1d, conv2d, conv3d)[self.dims - 1]
        params = self._params(op)
        return conv(padded, weight, bias, self.stride, padding, self.dilation, self.groups, op=op, params=params)


class Conv1d(_Conv, _Conv1d):
    """nn.Conv1d with your own dot product. Everything is as in Conv2d."""

    dims, base = 1, _Conv1d


class Conv2d(_Conv, _Conv2d):
    """nn.Conv2d with your own dot product.

    Arguments are those of today's nn.Conv2d, on every version, and then
    op: as for conv2d.
    params: the op's parameters, by name. Of a tensor the layer makes a Parameter of that name, an nn.Parameter it takes as
        it is; a number becomes an attribute that may be changed at any time.

    padding may be "same", "valid" or ((top, bottom), (left, right)). padding_mode "zeros" pads with the op's pad value;
    "reflect", "replicate" and "circular" pad with the input's own pixels. Parameters, their initialisation and the
    state_dict are those of nn.Conv2d, beside the op's. Shapes and dtypes are as for conv2d.

    Raises
    ValueError: for a padding, padding_mode or op that doesn't exist, and for a name in params that the layer has.
    TypeError: for params that are missing or unknown.
    """

    dims, base = 2, _Conv2d


class Conv3d(_Conv, _Conv3d):
    """nn.Conv3d with your own dot product. Everything is as in Conv2d."""

    dims, base = 3, _Conv3d


class _ConvTranspose(Layer):
    def __init__(
        self, in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True,
        dilation=1, padding_mode="zeros", device=None, dtype=None
    ):  # fmt: skip
        if padding_mode != "zeros":
            message = "{}(): padding_mode must be 'zeros', but got {!r}"
            raise ValueError(message.format(type(self).__name__, padding_mode))
        if isinstance(padding, str):
            message = "{}(): padding must be an int or a tuple of ints, but got {!r}"
            raise TypeError(message.format(type(self).__name__, padding))
        super(_ConvTranspose, self).__init__(
            in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation,
            **layers.factory(device, dtype))  # fmt: skip
        layers.place(self, device, dtype)

    __init__ = constructor(__init__, Layer._set_own)

    @classmethod
    def from_conv(cls, conv, op, params=None):
        """A layer with the settings of an nn.ConvTranspose1d, 2d or 3d, sharing its parameters.

        op, params: as for the constructor.

        Raises TypeError for other layers, and what the constructor raises.
        """
        return cls._sharing(conv, op, params)

    def forward(self, input, output_size=None):
        output_padding = self.output_padding
        if output_size is not None:
            shape = graphs.sizes(input)
            sizes = self.kernel_size, self.stride, self.padding, self.dilation, output_size
            output_padding = output_padding_for(type(self).__name__, shape, *sizes)
        conv = (conv_transpose1d, conv_transpose2d, conv_transpose3d)[self.dims - 1]
        numbers = self.stride, self.padding, output_padding, self.groups, self.dilation
        return conv(input, self.weight, self.bias, *numbers, op=self.op, params=self._params(self.op))


class ConvTranspose1d(_ConvTranspose, _ConvTranspose1d):
    """nn.ConvTranspose1d with your own dot product. Everything is as in ConvTranspose2d."""

    dims, base = 1, _ConvTranspose1d


class ConvTranspose2d(_ConvTranspose, _ConvTranspose2d):
    """nn.ConvTranspose2d with your own dot product.

    Arguments are those of today's nn.ConvTranspose2d, on every version, and then
    op, params: as for Conv2d. What they mean here is in conv_transpose2d.

    Parameters, their initialisation and the state_dict are those of nn.ConvTranspose2d, beside the op's. forward takes an
    output_size, as PyTorch's does. Shapes and dtypes are as for conv_transpose2d.

    Raises ValueError for a padding_mode, an op or an output_size that doesn't exist, TypeError for a padding that is a
    text, and for params what Conv2d raises.
    """

    dims, base = 2, _ConvTranspose2d


class ConvTranspose3d(_ConvTranspose, _ConvTranspose3d):
    """nn.ConvTranspose3d with your own dot product. Everything is as in ConvTranspose2d."""

    dims, base = 3, _ConvTranspose3d


class Linear(Layer, _Linear):
    """nn.Linear with your own dot product.

    Arguments are those of today's nn.Linear, on every version, and then
    op, params: as for Conv2d.

    Parameters, their initialisation and the state_dict are those of nn.Linear, beside the op's. Shapes and dtypes are as for
    linear.

    Raises ValueError and TypeError as Conv2d does.
    """

    dims, base = 0, _Linear

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None):
        super(Linear, self).__init__(in_features, out_features, bias, **layers.factory(device, dtype))
        layers.place(self, device, dtype)

    __init__ = constructor(__init__, Layer._set_own)

    @classmethod
    def from_linear(cls, linear, op, params=None):
        """A layer with the sizes of an nn.Linear, sharing its parameters. op, params: as for the constructor.

        Raises TypeError for other layers, and what the constructor raises.
        """
        return cls._sharing(linear, op, params)


def _shallow(module, cls=None):
    """A module with the attributes of another. It isn't constructed: that would draw random numbers and lose hooks."""
    new = object.__new__(cls or type(module))
    for name, value in vars(module).items():
        new.__dict__[name] = value.copy() if isinstance(value, dict) else value
    return new
