"""What torch.compile and torch.export record of a dot product with an op: one operator of PyTorch's.

torch.library (2.4 on) lets an operator say what shape it gives and what its gradient is, so that graphs need not break
around it. Recorded is only what needs no message. All else (None) goes the way that it goes without a graph: torch.compile
breaks its graph there.
"""

import importlib
import types

from im2col_compat.codegen import fingerprint
from im2col_compat.compat import autograd, graphs, unfolds
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import Tensor, torch
from im2col_compat.engines import choose as engines
from im2col_compat.op import NAMED, Op, by_token, resolve
from im2col_compat.paths import choose, exported, native, transposed
from im2col_compat.problem import (
    conv_pads, conv_problem, conv_transpose_problem, linear_problem, matmul_problem, product)  # fmt: skip

#: Ops without a name that graphs call by their tokens. A graph outlives the layer that it was made of.
_own = set()
#: The Ops of plain functions, by what these are made of.
_functions = {}
#: The library, which goes when nobody holds it.
_kept = []


#: What torch.compile says where it breaks a graph.
WHY = (
    "im2col_compat can't record this call: its functions capture tensors or what changes, or its op is made in the graph, "
    "or its arguments must be checked first"
)


# ---------------------------------------------------------------- recording
def conv(dims, op, input, weight, bias, stride, padding, dilation, groups, params=None):
    """conv1d's, conv2d's or conv3d's result, recorded; or None."""
    op = _recordable(op)
    planes = _planes(op, weight, params)
    if is_dot(op) and unfolds.UNFOLD_IS_CURRENT and graphs.capturing():
        return native.recorded(dims, input, weight, bias, stride, padding, dilation, groups)
    sizes = [_each(value, dims) for value in (stride, dilation)] + _sides(padding, dims)
    if planes is None or not _alike(op, input, weight) or None in sizes or type(groups) is not int:
        return None
    if min(sizes[0] + sizes[1]) < 1 or min(sizes[2] + sizes[3]) < 0:
        return None
    x, w = graphs.sizes(input), graphs.sizes(weight)
    if len(x) not in (dims + 1, dims + 2) or len(w) != dims + 2 or groups < 1 or w[0] % groups:
        return None
    if x[-dims - 1] != w[1] * groups:
        return None
    function = "conv_same" if padding == "same" else "conv"
    return _record(function, op, planes, input, sum(sizes, ()) + (groups,), w[0], bias, dims)


def conv_transpose(dims, op, input, weight, bias, stride, padding, output_padding, groups, dilation, params=None):
    """conv_transpose1d's, 2d's or 3d's result, recorded; or None."""
    op = _recordable(op)
    if is_dot(op) and unfolds.UNFOLD_IS_CURRENT and graphs.capturing():
        function = getattr(torch.nn.functional, "conv_transpose{}d".format(dims))
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    sizes = [_each(value, dims) for value in (stride, dilation, padding, output_padding)]
    planes = _planes(op, weight, params)
    if planes is None or not _alike(op, input, weight) or None in sizes or type(groups) is not int:
        return None
    if [size for size in sizes[0] + sizes[1] if size < 1] or [size for size in sizes[2] + sizes[3] if size < 0]:
        return None  # (not min: PyTorch 2.4 doesn't record it of numbers that it knows)
    x, w = graphs.sizes(input), graphs.sizes(weight)
    if len(x) not in (dims + 1, dims + 2) or len(w) != dims + 2 or groups < 1 or w[0] % groups:
        return None
    if x[-dims - 1] != w[0]:
        return None
    return _record("conv_transpose", op, planes, input, sum(sizes, ()) + (groups,), w[1] * groups, bias, dims)


def linear(op, input, weight, bias, params=None):
    """linear's result, recorded; or None."""
    op, x, w = _recordable(op), graphs.sizes(input), graphs.sizes(weight)
    planes = _planes(op, weight, params)
    if planes is None or not _alike(op, input, weight) or len(x) < 1 or len(w) != 2 or x[-1] != w[1]:
        return None
    return _record("linear", op, planes, input, (), w[0], bias)


def matmul(op, a, b, params=None):
    """matmul's result, recorded; or None."""
    op, w, x = _recordable(op), graphs.sizes(a), graphs.sizes(b)
    planes = _planes(op, a, params)
    if planes is None or not _alike(op, a, b) or len(w) < 2 or len(x) < 2 or w[-1] != x[-2]:
        return None
    return _record("matmul", op, planes, b, (), x[-1])


def _planes(op, weight, params):
    """The weight and the values of the op's parameters, tensors and numbers; None where they must be checked first."""
    names = op.term.names if isinstance(op, Op) else ()
    if not names and not params:
        return [weight]
    if params is None or len(params) != len(names) or not isinstance(weight, Tensor):
        return None
    shape, planes = weight.shape, [weight]
    for name in names:
        if name not in params:
            return None
        value = params[name]
        if isinstance(value, Tensor):
            sizes = value.shape
            if value.dtype != weight.dtype or value.device != weight.device or len(sizes) > len(shape):
                return None
            if len([0 for p, q in zip(sizes[::-1], shape[::-1]) if p != 1 and p != q]) > 0:
                return None
        elif type(value) not in (int, float):
            return None
        planes.append(value)
    return planes


def _stacked(planes):
    """Planes as one tensor, so that the operator has two."""
    weight = planes[0]
    if len(planes) == 1:
        return weight
    whole = [
        value.expand(weight.shape) if isinstance(value, Tensor) else torch.full_like(weight, value) for value in planes
    ]
    return torch.stack(whole)


def breaks(op, *tensors):
    """Whether torch.compile breaks the graph around an op that wasn't recorded. RuntimeError where a graph that can't
    be broken would take the present sizes of tensors for those of all."""
    if not graphs.compiling() or is_dot(op) and engines.forced() is None:
        return False
    if not graphs.breakable() and _has_symbols(*tensors):
        raise RuntimeError("{} can't be recorded with sizes that may change: {}".format(op, WHY))
    return graphs.breakable()


def _has_symbols(*tensors):
    return any(type(size) is not int for tensor in tensors for size in graphs.sizes(tensor))


def _recordable(op):
    """The Op of a graph's operator, or the plain function of one; None where it can't stand for what a user gave."""
    if not graphs.compiling() and graphs.for_onnx() and (engines.forced() is not None or not is_dot(op)):
        text = "torch.onnx.export(dynamo=False) can't export {}: use dynamo=True, and force no engine"
        raise RuntimeError(text.format(resolve(op)))
    # torch.compile takes what it made of one layer for another of the same type, unless it has looked at the op's token.
    known = not isinstance(op, Op) or len(op.token) > 0
    if not known or engines.forced() is not None:
        return None
    if isinstance(op, str):
        return NAMED.get(op)
    if isinstance(op, Op):
        return op
    if not graphs.compiling() or not graphs.breakable() and graphs.for_onnx():
        return _of_function(op)
    # torch.compile makes constants of functions, and guards no more than their code: they may have nothing else, as a
    # default for a third argument is.
    is_constant = graphs.CONSTANT_FUNCTIONS and (isinstance(op, types.BuiltinFunctionType) or _is_code_alone(op))
    return op if is_constant else None


def _is_code_alone(op):
    code = op.__code__ if isinstance(op, types.FunctionType) else None
    return code is not None and len(code.co_freevars) == 0 and code.co_argcount == 2 and code.co_kwonlyargcount == 0


def _of_function(function):
    """The Op of a function: one for all functions that are known to do the same."""
    op = Op(function)
    known = fingerprint.of_code(op)
    return op if known is None else _functions.setdefault(known, op)


def is_dot(op):
    # 2.4's torch.compile compares no object with a text.
    return op.is_dot if isinstance(op, Op) else isinstance(op, str) and op == "dot"


def _each(value, dims):
    if type(value) is int:
        return (value,) * dims
    plain = type(value) in (tuple, list) and len(value) == dims and all(type(item) is int for item in value)
    return tuple(value) if plain else None


def _sides(padding, dims):
    """The padding before and after each dimension, 0 where it has a name."""
    padding = (0,) * dims if padding in ("same", "valid") else padding
    pairs = type(padding) in (tuple, list) and len(padding) == dims and all(type(p) in (tuple, list) for p in padding)
    sides = zip(*[p for p in padding if len(p) == 2]) if pairs else (padding, padding)
    return [_each(side, dims) for side in sides] or [None]


def conv_numbers(numbers):
    """stride, dilation, pads (pairs) and groups, which are recorded as one list."""
    dims = len(numbers) // 4
    stride, dilation, before, after = [tuple(numbers[i * dims : (i + 1) * dims]) for i in range(4)]
    return stride, dilation, tuple(zip(before, after)), numbers[-1]


def _transposed_numbers(numbers):
    """The same as F.conv_transpose2d takes them: stride, padding, output_padding, groups and dilation."""
    stride, dilation, sides, groups = conv_numbers(numbers)
    padding, output_padding = zip(*sides)
    return stride, padding, output_padding, groups, dilation


def _alike(op, first, second):
    if op is None or is_dot(op) or not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return False
    mixes_dtypes = isinstance(op, Op) and op.term.mixes_dtypes
    return (first.dtype == second.dtype or mixes_dtypes) and first.device == second.device


def _fits(bias, input, filters):
    if bias is None:
        return True
    alike = isinstance(bias, Tensor) and bias.dtype == input.dtype and bias.device == input.device
    floats = alike and (input.dtype.is_floating_point or input.dtype.is_complex)
    return floats and bias.dim() == 1 and graphs.sizes(bias)[0] == filters


def _record(function, op, planes, x, numbers, filters, bias=None, dims=0):
    """The result, a bias of so many filters included."""
    if not graphs.HAS_LIBRARY or not _fits(bias, x, filters):
        return None
    if not graphs.breakable() and graphs.for_onnx():
        result = _standard(function, op, planes, x, numbers)
        return result if bias is None else result + (bias.reshape((-1,) + (1,) * dims) if dims else bias)
    # torch.compile makes constants of texts and functions. Of objects it does since 2.13.
    name = key(op.token if isinstance(op, Op) else op, x.dtype)
    if name is None:
        return None
    first, second = (_stacked(planes), x) if function == "matmul" else (x, _stacked(planes))
    result = torch.ops.im2col_compat.dot(first, second, numbers, function, name)
    return result if bias is None else result + (bias.reshape((-1,) + (1,) * dims) if dims else bias)


def _standard(function, op, planes, x, numbers):
    """The result by operations that are standard operators to torch.onnx."""
    w = planes[0]
    weights = [t if isinstance(t, Tensor) else TORCH.full(w, (1,) * w.dim(), t) for t in planes]
    if function in ("linear", "matmul"):
        return getattr(exported, function)(op, weights, x)
    if function == "conv_transpose":
        return exported.conv_transpose(op, weights, x, *_transposed_numbers(numbers))
    stride, dilation, pads, groups = conv_numbers(numbers)
    if function == "conv_same":
        pads = conv_pads(len(stride), graphs.sizes(w), "same", stride, dilation)
    return exported.conv(op, weights, x, stride, pads, dilation, groups)


def key(which, dtype):
    """The name that stands for an op in graphs, which have it as a constant; None where it can't be in one.

    which: the op's token, or a plain function.
    """
    if callable(which):
        op = _of_function(which)
    else:
        op = by_token.get(which)
    if op is None or graphs.transformed() or graphs.for_onnx():  # (which tries torch.compile too)
        return None
    if op.is_named:
        return op.name
    if not op.term.is_recordable(op, str(dtype)[6:]):
        return None
    _own.add(op)
    return op.token


# torch.compiler.assume_constant_result, without importing the compiler.
key._dynamo_marked_constant = True


# ---------------------------------------------------------------- the operators
def _register():
    library = torch.library.Library("im2col_compat", "DEF")
    _kept.append(library)
    arguments = "Tensor first, Tensor second, SymInt[] numbers, str function, str op"
    library.define("dot({}) -> Tensor".format(arguments))
    library.define("dot_backward(Tensor grad, bool[] needs, {}) -> (Tensor, Tensor)".format(arguments))
    library.impl("dot", _dot, "CompositeExplicitAutograd")
    library.impl("dot_backward", _dot_backward, "CompositeExplicitAutograd")
    # The gradient is found with autograd, which is off below an operator that autograd knows.
    library.impl("dot_backward", torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake("im2col_compat::dot", _dot_fake, lib=library)
    torch.library.register_fake("im2col_compat::dot_backward", _dot_backward_fake, lib=library)
    torch.library.register_autograd("im2col_compat::dot", _backward, setup_context=_setup_context, lib=library)


def _op(name):
    op = NAMED.get(name) or by_token.get(name)
    if op is None:
        why = "only graphs with named ops can be saved"
        raise RuntimeError("a graph holds an op that is no more, or is another process's: " + why)
    return op


def _weight(op, planes):
    """(the weight, the values of the op's parameters) of what _planes() stacks."""
    parts = planes.unbind(0) if op.term.names else (planes,)
    return parts[0], tuple(parts[1:])


def _dot(first, second, numbers, function, op):
    # As the graph was told: PyTorch's own operations have rules of their own.
    return _lying(_computed(first, second, numbers, function, op), _format(first, second, numbers, op), numbers)


def _format(first, second, numbers, op):
    """Whether a convolution's result, and the gradient of its input, have their channels last in memory."""
    weight = second[0] if _op(op).term.names else second
    return len(numbers) > 0 and TORCH.channels_last(len(numbers) // 4, first, weight)


def _lying(tensor, last, numbers):
    """A tensor as it is, or a copy that lies so."""
    if last and tensor.dim() == len(numbers) // 4 + 1:
        return TORCH.with_channels_last(tensor.unsqueeze(0), last).squeeze(0)
    return TORCH.with_channels_last(tensor, last)


def _computed(first, second, numbers, function, op):
    op = _op(op)
    if function == "matmul":
        first, params = _weight(op, first)
        problem = matmul_problem(tuple(first.shape), tuple(second.shape))
        return choose.run(op, problem, TORCH, ("a", "b"), first, second, None, params)
    second, params = _weight(op, second)
    if function == "linear":
        problem = linear_problem(tuple(first.shape), tuple(second.shape), None)
    elif function == "conv_transpose":
        shapes = tuple(first.shape), tuple(second.shape), None
        problem = conv_transpose_problem(*((len(numbers) // 4,) + shapes + _transposed_numbers(numbers)))
        return transposed.run(op, problem, TORCH, ("weight", "input"), second, first, None, params)
    else:
        stride, dilation, padding, groups = conv_numbers(numbers)
        padding = "same" if function == "conv_same" else padding
        shapes = tuple(first.shape), tuple(second.shape), None
        problem = conv_problem(*((len(stride),) + shapes + (stride, padding, dilation, groups)))
    return choose.run(op, problem, TORCH, ("weight", "input"), second, first, None, params)


def _dot_fake(first, second, numbers, function, op):
    # The ordinary product has the same shape.
    last = _format(first, second, numbers, op)
    if _op(op).term.names:
        first, second = (first[0], second) if function == "matmul" else (first, second[0])
    second = second.to(first.dtype)
    if function == "linear":
        result = torch.nn.functional.linear(first, second)
    elif function == "matmul":
        result = torch.matmul(first, second)
    elif function == "conv_transpose":
        native_function = getattr(torch.nn.functional, "conv_transpose{}d".format(len(numbers) // 4))
        result = native_function(first, second, None, *_transposed_numbers(numbers))
    else:
        stride, dilation, padding, groups = conv_numbers(numbers)
        padding = "same" if function == "conv_same" else padding
        result = native.recorded(len(stride), first, second, None, stride, padding, dilation, groups)
    dtype = _op(op).result_dtype(TORCH.dtype(first))
    return _lying(first.new_empty(result.shape, dtype=getattr(torch, dtype)), last, numbers)


def _dot_backward(grad, needs, first, second, *others):
    with autograd.enabled():
        leaves = [autograd.leaf(operand, need) for operand, need in zip((first, second), needs)]
        found = autograd.partials([_dot(*(leaves + list(others)))], leaves, [grad])
    formats = _gradient_formats(first, second, *others)
    return tuple(
        grad.new_empty(0) if partial is None else _lying(partial, last, others[0])
        for partial, last in zip(found, formats)
    )


def _dot_backward_fake(grad, needs, first, second, *others):
    tensors = zip((first, second), needs, _gradient_formats(first, second, *others))
    return tuple(_lying(t.new_empty(t.shape), last, others[0]) if need else t.new_empty(0) for t, need, last in tensors)


def _gradient_formats(first, second, numbers, function, op):
    """Whether the gradients of both operands have their channels last."""
    of_weight = len(numbers) > 0 and not _op(op).term.names and TORCH.channels_last(len(numbers) // 4, second)
    return _format(first, second, numbers, op), of_weight


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.others, ctx.op = inputs[2:], _op(inputs[-1])  # held while it may be needed


def _backward(ctx, grad):
    operands, needs = tuple(autograd.saved(ctx)), list(ctx.needs_input_grad[:2])
    if autograd.recording(grad, *operands) and type(grad) is Tensor:  # and none of those that a graph is made with
        # A gradient of the gradient will be wanted, which dot_backward has not.
        found = autograd.partials([_dot(*(operands + tuple(ctx.others)))], operands, [grad], create_graph=True)
    else:
        found = torch.ops.im2col_compat.dot_backward(grad, needs, *(operands + tuple(ctx.others)))
    return tuple(partial if need else None for partial, need in zip(found, needs)) + (None, None, None)


def _flops(first, second, numbers, function, op, out_shape=None, **_):
    """As PyTorch counts them: two for each term."""
    if function == "matmul":
        return 2 * product(out_shape) * first[-1]
    weight = second[2 if _op(op).term.names else 1 :]
    if function == "conv_transpose":
        return 2 * product(first) * product(weight)
    return 2 * product(out_shape) * product(weight)


def _flops_backward(grad, needs, first, second, numbers, function, op, out_shape=None, **_):
    return sum(needs) * _flops(first, second, numbers, function, op, out_shape=grad)


if graphs.HAS_LIBRARY:
    _register()
    counter = importlib.import_module("torch.utils.flop_counter")
    for operator, formula in (("dot", _flops), ("dot_backward", _flops_backward)):
        operator = getattr(torch.ops.im2col_compat, operator)
        # 2.4 keeps the formula for the operator's overload, and looks for the operator.
        counter.flop_registry.setdefault(operator, counter.register_flop_formula(operator)(formula))
