"""Layers that compute with integers of a few bits, and with any table for their products.

Real numbers are stood for by codes, x = scale * (code - zero_point) (Jacob et al., arXiv 1712.05877); which, PyTorch's
own observers say. Products of codes are looked up, sums of them are exact, and what zero points add is taken off
again, as TFApprox does (Vaverka et al., arXiv 2002.09481, section 3). Gradients go straight through: they are those of
the ordinary product of the rounded operands, and zero where an operand is beyond the range of its codes.
"""

import numpy as np

from im2col_compat.compat import autograd, layers
from im2col_compat.compat.probes import Function, torch
from im2col_compat.conv import linear
from im2col_compat.modules import Conv2d, Linear
from im2col_compat.op import Op, resolve

_exact = []


def exact_op():
    """The ordinary product of signed operands of eight bits, as a table."""
    if not _exact:
        values = np.arange(256)
        values[128:] -= 256
        _exact.append(Op.from_table(np.outer(values, values), signed=True))
    return _exact[0]


def table_op(op, function):
    """The Op, which must be one of Op.from_table. TypeError for another."""
    op = exact_op() if op is None else resolve(op)
    if not op.term.looks_up or not op.reduction.fuses_products:
        raise TypeError("{}(): op must be made by Op.from_table, but got {!r}".format(function, op))
    return op


def default_qconfig(op):
    """What PyTorch calls a QConfig: which observers find the ranges of activations and weights, for the op's operands.

    Unsigned operands are affine, signed ones symmetric; weights have a range for each filter.
    """
    quantization = layers.quantization()
    (w_low, w_high), (x_low, x_high) = op.multiply.ranges
    per_channel, per_tensor = quantization.PerChannelMinMaxObserver, quantization.MinMaxObserver
    return quantization.QConfig(
        activation=per_tensor.with_args(
            quant_min=x_low, quant_max=x_high, **_kind(op.multiply.signed[1], "per_tensor")
        ),
        weight=per_channel.with_args(
            quant_min=w_low, quant_max=w_high, ch_axis=0, **_kind(op.multiply.signed[0], "per_channel")
        ),
    )


def _kind(signed, name):
    scheme = "{}_{}".format(name, "symmetric" if signed else "affine")
    return {"dtype": torch.qint8 if signed else torch.quint8, "qscheme": getattr(torch, scheme)}


class _Quantized(object):
    """What QuantConv2d and QuantLinear have in common. `_product(x, w, op)` is theirs."""

    def _set_up(self, op, qconfig):
        #: (what messages call the layer, its observer) while the range of its input is being found; None otherwise.
        self.op, self.qconfig, self.calibrating = op, qconfig, None
        w_range, x_range = op.multiply.ranges
        self._check_range("activation", self._observer("activation"), x_range)
        self._check_range("weight", self._observer("weight"), w_range)
        # Where the weights are. Not a number: not known yet.
        self.register_buffer("input_scale", self.weight.new_full((), float("nan")).detach())
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int64, device=self.weight.device))

    def _observer(self, which):
        """A new one for "activation" or "weight", where the weight is."""
        # The default is made when it is needed: PyTorch 1.8's can't be pickled.
        qconfig = default_qconfig(self.op) if self.qconfig is None else self.qconfig
        if not callable(getattr(qconfig, which, None)):
            raise TypeError(
                "{}: qconfig must be a QConfig, which has a function {}, but is {!r}".format(
                    type(self).__name__, which, qconfig
                )
            )
        return getattr(qconfig, which)().to(self.weight.device)

    def _check_range(self, name, observer, expected):
        if getattr(observer, "ch_axis", 0) != 0 or name == "activation" and hasattr(observer, "ch_axis"):
            raise ValueError(
                "{}: activations must have one range, and weights one or one for each filter, but the {} observer is "
                "{!r}".format(type(self).__name__, name, observer)
            )
        found = tuple(int(getattr(observer, limit)) for limit in ("quant_min", "quant_max"))
        if found != expected:
            raise ValueError(
                "{}: the {} observer must have quant_min and quant_max {}, as {!r} has, but has {}".format(
                    type(self).__name__, name, expected, self.op.multiply, found
                )
            )

    def start_calibration(self, name=""):
        """From now on, compute as the layer would without quantization, and observe the range of the input.

        name: what messages call the layer.
        """
        observer = self._observer("activation")
        # In a tuple, where nn.Module doesn't find it: it is no part of the state.
        self.calibrating = "layer {!r}".format(name) if name else type(self).__name__, observer

    def finish_calibration(self):
        """Compute with codes again, for the range that was observed. ValueError if there was no input."""
        (name, observer), self.calibrating = self.calibrating, None
        # What has seen nothing has an empty range, or an infinite one the wrong way around.
        if observer.min_val.numel() == 0 or bool((observer.min_val > observer.max_val).any()):
            raise ValueError("{}: there was no input while calibrating".format(name))
        _check_finite("{}: the range of its input, which observers take as float32,".format(name), observer.max_val)
        scale, zero_point = observer.calculate_qparams()
        self.input_scale.copy_(scale.reshape(()))
        self.input_zero_point.copy_(zero_point.reshape(()))

    def forward(self, input):
        if not input.is_floating_point():
            raise TypeError("{}: input must be of floats, but is {}".format(type(self).__name__, input.dtype))
        if self.calibrating is not None:
            name, observer = self.calibrating
            _check_finite(name + ": its input", input)
            observer(input.detach())
            return self._biased(self._product(input, self.weight, "dot"))
        if not float(self.input_scale) > 0:
            raise RuntimeError(
                "{}: the range of its input isn't known: call convert(model, op, calibrate=loader), or "
                "load_state_dict".format(type(self).__name__)
            )
        if bool(torch.isnan(input).any()):
            raise ValueError("{}: input must have no NaN, which there is no code for".format(type(self).__name__))
        # Half precision can tell neither neighbouring codes apart nor hold their sums.
        wide = torch.promote_types(input.dtype, torch.float32)
        x, weight = input.to(wide), self.weight.to(wide)
        w_scale, w_zero = self._weight_parameters(weight.detach())
        x_scale, x_zero = self.input_scale.to(wide), self.input_zero_point
        w = layers.fake_quantize(weight, w_scale, w_zero, *self.op.multiply.ranges[0])
        x = layers.fake_quantize(x, x_scale, x_zero, *self.op.multiply.ranges[1])
        result = self._looked_up(x.detach(), x_scale, int(x_zero), w.detach(), w_scale, w_zero)
        if x.requires_grad or w.requires_grad:
            result = _StraightThrough.apply(self._product(x, w, "dot"), result)
        return self._biased(result.to(input.dtype))

    def _weight_parameters(self, weight):
        """(scale, zero_point) of the weights as they are now: one of each, or one for each filter."""
        _check_finite("{}: its weight".format(type(self).__name__), weight)
        observer = self._observer("weight")
        observer(weight)
        scale, zero_point = observer.calculate_qparams()
        return scale.to(weight.device), zero_point.to(weight.device)

    def _looked_up(self, x, x_scale, x_zero, w, w_scale, w_zero):
        """scale * the sums of table[w, x] of the codes, less what is there for the zero points alone."""
        filters, along = (-1,) + (1,) * (w.dim() - 1), (-1,) + (1,) * (w.dim() - 2)
        w_codes = self._codes(w, w_scale.reshape(filters), w_zero.reshape(filters), 0)
        x_codes = self._codes(x, x_scale, x_zero, 1)
        sums = self._product(x_codes, w_codes, self.op.replace(pad_value=x_zero))
        # sum of (w - w_zero)(x - x_zero) = sum of wx - x_zero * sum of w - w_zero * sum of (x - x_zero)
        if x_zero != 0:
            sums = sums - x_zero * w_codes.to(sums.dtype).reshape(w.shape[0], -1).sum(1).reshape(along)
        if bool((w_zero != 0).any()):
            ones = torch.ones_like(w, dtype=torch.float64)
            inputs = self._product(x_codes.to(ones.dtype) - x_zero, ones, "dot")
            sums = sums - w_zero.reshape(along) * inputs.round().to(sums.dtype)
        return (sums.double() * (w_scale.double().reshape(along) * x_scale.double())).to(x.dtype)

    def _codes(self, values, scale, zero_point, operand):
        """The codes of values that stand for some already; operand: 0 for w, 1 for x."""
        codes = (values / scale).round() + zero_point
        dtype = torch.int8 if self.op.multiply.signed[operand] else torch.uint8
        return codes.clamp(*self.op.multiply.ranges[operand]).to(dtype)


def _check_finite(what, values):
    if not bool(torch.isfinite(values).all()):
        raise ValueError("{} must be finite, but has NaN or infinity".format(what))


@autograd.new_style
class _StraightThrough(Function):
    """`result`, differentiated as `exact`."""

    @staticmethod
    def forward(exact, result):
        return result.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class QuantConv2d(_Quantized, Conv2d):
    """A convolution of integers of a few bits, of which the products are looked up.

    Arguments are nn.Conv2d's, then
    op: one of Op.from_table, which says how many bits operands have and whether they are signed; by default the
        ordinary product of signed ones of eight bits.
    qconfig: a torch.ao.quantization.QConfig of observers for the op's operands (their quant_min and quant_max are the
        op's ranges); by default MinMaxObserver for the input and PerChannelMinMaxObserver for the weight, affine for
        unsigned operands, symmetric for signed ones. TypeError for another op, ValueError for observers of other ranges.

    input (N, C, H, W) of floats, result (N, O, H', W') of the same dtype. The range of the input is found by
    calibration (``convert``), is kept in the buffers input_scale and input_zero_point, and stays; that of the weight is
    its own, and follows it. Padding stands for zero. It trains by straight-through gradients: see the top of this file.
    RuntimeError before calibration; ValueError for weights, or inputs while calibrating, that aren't finite, and for
    inputs with NaN; TypeError for inputs of integers.
    Needs a PyTorch with observers that take quant_min (1.7 on); ImportError elsewhere.
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
        op=None,
        qconfig=None,
    ):
        op = table_op(op, "QuantConv2d")
        super(QuantConv2d, self).__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
            op,
        )
        self._set_up(op, qconfig)

    @classmethod
    def from_conv(cls, conv, op=None, qconfig=None):
        """A layer with the settings and the very parameters (shared, not copied) of an nn.Conv2d, to be calibrated."""
        op = table_op(op, "QuantConv2d.from_conv")
        new = super(QuantConv2d, cls).from_conv(conv, op)
        new._set_up(op, qconfig)
        return new

    def _product(self, x, w, op):
        x, padding = self._padded(x)
        return self._convolved(x, padding, w, None, op)

    def _biased(self, result):
        return result if self.bias is None else result + self.bias.reshape(-1, 1, 1)


class QuantLinear(_Quantized, Linear):
    """A fully connected layer of integers of a few bits: nn.Linear's arguments, then op and qconfig, as QuantConv2d's."""

    def __init__(self, in_features, out_features, bias=True, device=None, dtype=None, op=None, qconfig=None):
        op = table_op(op, "QuantLinear")
        super(QuantLinear, self).__init__(in_features, out_features, bias, device, dtype, op)
        self._set_up(op, qconfig)

    @classmethod
    def from_linear(cls, linear, op=None, qconfig=None):
        """A layer with the sizes and the very parameters (shared, not copied) of an nn.Linear, to be calibrated."""
        op = table_op(op, "QuantLinear.from_linear")
        new = super(QuantLinear, cls).from_linear(linear, op)
        new._set_up(op, qconfig)
        return new

    def _product(self, x, w, op):
        return linear(x, w, op=op)

    def _biased(self, result):
        return result if self.bias is None else result + self.bias
