"""Layers that compute with integers of a few bits, and with any table of products. See QuantConv2d."""

import numpy as np

from im2col_compat.compat import autograd, graphs, layers
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import Function, torch
from im2col_compat.modules import Conv2d, Layer, Linear, constructor
from im2col_compat.op import Op, resolve
from im2col_compat.problem import conv_pads

_exact = Memo(1)
_products = Memo(8)  # a word of Op's add: the op that adds up exact products so


def _exact_op():
    """The op whose table has the exact products of signed operands of eight bits."""
    values = np.arange(256)
    values[128:] -= 256
    return Op.from_table(np.outer(values, values), signed=True)


def _product(w, x):
    return w * x


def _default_ranges(op, narrow):
    """The least and the greatest code of w, and of x. narrow: whether signed ones leave out the least."""
    return [(low + int(narrow and low < 0), high) for low, high in op.multiply.ranges]


def _default_qconfig(op, narrow):
    """The QConfig, as PyTorch calls it, of an op: the observers that find the ranges of its operands.

    Ranges are affine for unsigned operands and symmetric for signed ones. Weights have one range for each filter.
    """
    quantization, limits = layers.quantization(), _default_ranges(op, narrow)

    def observers(kind, ranges, operand, **more):
        signed, (low, high) = op.multiply.signed[operand], limits[operand]
        more["qscheme"] = getattr(torch, "{}_{}".format(ranges, "symmetric" if signed else "affine"))
        return kind.with_args(quant_min=low, quant_max=high, dtype=torch.qint8 if signed else torch.quint8, **more)

    return quantization.QConfig(
        activation=observers(quantization.MinMaxObserver, "per_tensor", 1),
        weight=observers(quantization.PerChannelMinMaxObserver, "per_channel", 0, ch_axis=0),
    )


class _Quantized(Layer):
    """What QuantConv2d and QuantLinear have in common."""

    narrow_range = False  # of layers that 0.5.0 has pickled

    def _set_own(self, op=None, qconfig=None, narrow_range=False):
        self.op, self.qconfig = _exact.get((), _exact_op) if op is None else resolve(op), qconfig
        self.narrow_range = bool(narrow_range)
        if not self.op.term.looks_up or not self.op.reduction.scales:
            message = "{}(): op must be made by Op.from_table, with sum, max, min or a function as add, but got {!r}"
            raise TypeError(message.format(type(self).__name__, self.op))
        if self.narrow_range and qconfig is not None:
            message = "{}(): narrow_range is for the observers of qconfig=None, but qconfig is {!r}"
            raise ValueError(message.format(type(self).__name__, qconfig))
        #: None, or while the range of the input is being found: (what messages call the layer, its observer).
        self.calibrating = None
        for which in ("activation", "weight"):
            self._observer(which)
        # On the device of the weights. NaN means that the range isn't known yet.
        self.register_buffer("input_scale", self.weight.new_full((), float("nan")).detach())
        self.register_buffer("input_zero_point", torch.zeros((), dtype=torch.int64, device=self.weight.device))

    def _observer(self, which):
        """A new observer for "activation" or "weight", on the weight's device. Raises what the constructor raises."""
        name, (w_range, x_range) = type(self).__name__, self.op.multiply.ranges
        # The default is made for each use and not kept, because PyTorch 1.8 can't pickle it.
        qconfig = _default_qconfig(self.op, self.narrow_range) if self.qconfig is None else self.qconfig
        if not callable(getattr(qconfig, which, None)):
            message = "{}: qconfig must be a QConfig, which has a function {}, but is {!r}"
            raise TypeError(message.format(name, which, qconfig))
        observer = getattr(qconfig, which)().to(self.weight.device)
        if getattr(observer, "ch_axis", 0) != 0 or which == "activation" and hasattr(observer, "ch_axis"):
            raise ValueError(
                "{}: activations must have one range, and weights one or one for each filter, but the {} observer is "
                "{!r}".format(name, which, observer)
            )
        found, most = (int(observer.quant_min), int(observer.quant_max)), x_range if which == "activation" else w_range
        if found[0] < most[0] or found[1] > most[1]:
            message = "{}: the {} observer must have quant_min and quant_max within {}, as {!r} has, but has {}"
            raise ValueError(message.format(name, which, most, self.op.multiply, found))
        return observer

    def _range(self, which, operand):
        """The least and the greatest code of an operand: 0 for "weight", 1 for "activation"."""
        if self.qconfig is None:
            return _default_ranges(self.op, self.narrow_range)[operand]
        observer = self._observer(which)
        return int(observer.quant_min), int(observer.quant_max)

    @property
    def _exact_products(self):
        """The op that does with exact products what this layer's does with those of its table."""
        reduction = self.op.reduction
        return "dot" if reduction.adds else _products.get(reduction.add, lambda: Op(_product, add=reduction.add))

    def _with_own(self, settings):
        settings = super(_Quantized, self)._with_own(settings)
        return settings + ", narrow_range=True" if self.narrow_range else settings

    def start_calibration(self, name=""):
        """Compute without quantization from now on, and observe the range of the input.

        name: what messages call the layer.
        """
        # The tuple hides the observer from nn.Module, so that it is no part of the state_dict.
        name = "layer {!r}".format(name) if name else type(self).__name__
        self.calibrating = name, self._observer("activation")

    def finish_calibration(self):
        """Compute with codes again, for the range that was observed. ValueError without one, or if it isn't finite."""
        (name, observer), self.calibrating = self.calibrating, None
        # The range of an observer without input is empty, or runs from infinity to minus infinity.
        if observer.min_val.numel() == 0 or bool((observer.min_val > observer.max_val).any()):
            raise ValueError("{}: there was no input while calibrating".format(name))
        _check_finite("{}: the range of its input, which observers take as float32,".format(name), observer.max_val)
        scale, zero_point = observer.calculate_qparams()
        self.input_scale.copy_(scale.reshape(()))
        self.input_zero_point.copy_(zero_point.reshape(()))

    def forward(self, input):
        return _codes_apart(self, input) if graphs.breakable() else self._by_codes(input)

    def _by_codes(self, input):
        name = type(self).__name__
        if graphs.for_onnx():
            return self._in_graph(input)
        if not input.is_floating_point():
            raise TypeError("{}: input must be of floats, but is {}".format(name, input.dtype))
        if self.calibrating is not None:
            called, observer = self.calibrating
            _check_finite(called + ": its input", input)
            observer(input.detach())
            return self._biased(self._reduced(self._padded(input), self.weight, self._exact_products))
        if not float(self.input_scale) > 0:
            raise RuntimeError(
                "{}: the range of its input isn't known: call convert(model, op, calibrate=loader), or "
                "load_state_dict".format(name)
            )
        if bool(torch.isnan(input).any()):
            raise ValueError("{}: input must have no NaN, which there is no code for".format(name))
        # Half precision is too coarse for neighbouring codes, and too narrow for their sums.
        wide = torch.float64 if input.dtype == torch.float64 else torch.float32
        x, weight = self._padded(input.to(wide)), self.weight.to(wide)
        w_scale, w_zero = self._weight_parameters(weight.detach())
        x_scale, x_zero = self.input_scale.to(wide), self.input_zero_point
        w_range, x_range = self._range("weight", 0), self._range("activation", 1)
        w = layers.fake_quantize(weight, w_scale, w_zero, *w_range)
        x = layers.fake_quantize(x, x_scale, x_zero, *x_range)
        result = self._looked_up(x.detach(), x_scale, int(x_zero), w.detach(), w_scale, w_zero)
        if x.requires_grad or w.requires_grad:
            result = _StraightThrough.apply(self._reduced(x, w, self._exact_products), result)
        return self._biased(result.to(input.dtype))

    def _in_graph(self, input):
        """The same without a look at values, which a graph of standard operators hasn't: it finds the weight's range."""
        name, (w_signed, x_signed) = type(self).__name__, self.op.multiply.signed
        if self.qconfig is not None or self.calibrating is not None:
            why = "it has a qconfig of its own" if self.calibrating is None else "its range is being found"
            raise RuntimeError("{} can't be exported as standard operators: {}".format(name, why))
        if not self.op.reduction.adds and not (w_signed and x_signed):
            text = "{} can't be exported as standard operators: what zero points add to {} can't be subtracted"
            raise RuntimeError(text.format(name, self.op.add))
        w_range, x_range = _default_ranges(self.op, self.narrow_range)
        filters, along = (-1,) + (1,) * (self.weight.dim() - 1), self._per_filter
        weight, x = self.weight.detach().float(), self._with_zeros(self._padded(input.float()))
        w_scale, w_zero = layers.quantization_parameters(weight, w_signed, *w_range)
        x_scale, x_zero = self.input_scale.float(), self.input_zero_point
        w = _nearest(weight, w_scale.reshape(filters), w_zero.reshape(filters), *w_range)
        x = _nearest(x, x_scale, x_zero, *x_range)
        sums = self._reduced(x, w, self.op, padding=0).double()
        if self.op.reduction.adds:
            sums = sums - x_zero * along(w.flatten(1).sum(1)).double()
            if not w_signed:
                inputs = self._reduced((x - x_zero).float(), torch.ones_like(weight), "dot", padding=0)
                sums = sums - along(w_zero) * inputs.double()
        return self._biased((sums * (along(w_scale.double()) * x_scale.double())).to(input.dtype))

    def _with_zeros(self, padded):
        """An input with the zeros that a convolution would pad it with."""
        if not self.dims or self.padding_mode != "zeros":
            return padded
        pads = conv_pads(self.dims, tuple(self.weight.shape), self.padding, self.stride, self.dilation)
        return TORCH.pad(padded, pads, 0)

    def _weight_parameters(self, weight):
        """(scale, zero_point) for the present values of the weight: one number each, or one for each filter."""
        _check_finite("{}: its weight".format(type(self).__name__), weight)
        observer = self._observer("weight")
        observer(weight)
        scale, zero_point = observer.calculate_qparams()
        return scale.to(weight.device), zero_point.to(weight.device)

    def _looked_up(self, x, x_scale, x_zero, w, w_scale, w_zero):
        """The sums of table[w, x] of the codes, less what the zero points add, times the scales."""
        filters, along = (-1,) + (1,) * (w.dim() - 1), self._per_filter
        w_codes = self._codes(w, w_scale.reshape(filters), w_zero.reshape(filters), 0)
        x_codes = self._codes(x, x_scale, x_zero, 1)
        sums = self._reduced(x_codes, w_codes, self.op.replace(pad_value=x_zero))
        if sums.is_floating_point():
            sums = sums.double()
        shifted = bool((w_zero != 0).any())
        if not self.op.reduction.adds and (x_zero != 0 or shifted):
            message = "{}: zero points must be 0, as signed operands have them: what they add to {} can't be subtracted"
            raise ValueError(message.format(type(self).__name__, self.op.add))
        # sum of (w - w_zero)(x - x_zero) = sum of w x - x_zero * sum of w - w_zero * sum of (x - x_zero)
        if x_zero != 0:
            sums = sums - x_zero * along(w_codes.to(sums.dtype).reshape(w.shape[0], -1).sum(1))
        if shifted:
            ones = torch.ones_like(w, dtype=torch.float64)
            inputs = self._reduced(x_codes.to(ones.dtype) - x_zero, ones, "dot")
            sums = sums - along(w_zero) * inputs.round().to(sums.dtype)
        return (sums.double() * (along(w_scale.double()) * x_scale.double())).to(x.dtype)

    def _codes(self, values, scale, zero_point, operand):
        """The codes of values that are rounded already. operand: 0 for w, 1 for x."""
        codes = (values / scale).round() + zero_point
        dtype = torch.int8 if self.op.multiply.signed[operand] else torch.uint8
        return codes.clamp(*self.op.multiply.ranges[operand]).to(dtype)  # as rounding in floats may go beyond


def _nearest(values, scale, zero_point, low, high):
    """The codes of values, as layers.fake_quantize finds them."""
    return (values * (1 / scale) + zero_point).round().clamp(low, high).to(torch.int64)


def _check_finite(what, values):
    if not bool(torch.isfinite(values).all()):
        raise ValueError("{} must be finite, but has NaN or infinity".format(what))


_codes_apart = graphs.apart(_Quantized._by_codes, "codes depend on the values of inputs and weights")


@autograd.new_style
class _StraightThrough(Function):
    """The values of `result`, with the gradient of `exact`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(exact, result):
        return result.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, grad):
        return grad, None

    @staticmethod
    def jvp(ctx, tangent, _):
        return tangent.clone()


class QuantConv2d(_Quantized, Conv2d):
    """A convolution of integers of a few bits, with a table of their products.

    Arguments are nn.Conv2d's, and then
    op: an op that Op.from_table made. It says how many bits the operands have, and whether they are signed. The default
        has the exact products of signed operands of eight bits.
    qconfig: a torch.ao.quantization.QConfig with observers for both operands. Their quant_min and quant_max must be
        within the ranges of the op's operands. The default is MinMaxObserver for the input and PerChannelMinMaxObserver
        for the weight, affine for unsigned operands and symmetric for signed ones.
    narrow_range: whether the default observers leave out the least code of signed operands, -128, so that codes are
        symmetric too, and a scale is the largest absolute value by 127.

    It takes floats, (N, C, H, W) or (C, H, W), and returns floats of the same dtype. Padding is the code of zero.
    Calibration finds the range of the input (see ``convert``). The range is kept in the buffers input_scale and
    input_zero_point, and doesn't change until the next calibration. The range of the weight follows the weight.
    It can be trained. Gradients are straight-through: those of the exact product of the rounded operands, and zero where an
    operand lies outside the range of its codes. An add function of the op is taken for a sum there.

    A code q stands for scale * (q - zero_point) (Jacob et al., arXiv 1712.05877). What zero points add to the sums is
    subtracted as in TFApprox (Vaverka et al., arXiv 2002.09481, section 3).

    Raises
    TypeError: for another op, for a qconfig without observers, and for inputs of integers.
    ValueError: for observers of wider ranges, for a weight that isn't finite, for inputs that aren't finite during
        calibration, and for inputs with NaN at any time.
    RuntimeError: for inputs before calibration.
    ImportError: where PyTorch has no observers that take quant_min (it has them since 1.7).
    """

    __init__ = constructor(Conv2d.__init__, _Quantized._set_own)

    @classmethod
    def from_conv(cls, conv, op=None, qconfig=None, narrow_range=False):
        """A layer with the settings of an nn.Conv2d, sharing its parameters. It must be calibrated before use.

        Raises TypeError for other layers, and what the constructor raises.
        """
        return cls._sharing(conv, op, qconfig, narrow_range)


class QuantLinear(_Quantized, Linear):
    """A fully connected layer of integers of a few bits, with a table of their products.

    Arguments are nn.Linear's, and then op, qconfig and narrow_range. All else is as for QuantConv2d, but for the shapes,
    (..., K).
    """

    __init__ = constructor(Linear.__init__, _Quantized._set_own)

    @classmethod
    def from_linear(cls, linear, op=None, qconfig=None, narrow_range=False):
        """A layer with the sizes of an nn.Linear, sharing its parameters. It must be calibrated before use.

        Raises TypeError for other layers, and what the constructor raises.
        """
        return cls._sharing(linear, op, qconfig, narrow_range)
