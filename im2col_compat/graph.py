"""What torch.compile and torch.export record of a dot product with an op: one operator of PyTorch's.

torch.library (2.4 on) lets an operator say what shape it gives and what its gradient is, so that graphs need not break
around it. Recorded is only what needs no message: all else (None) goes the way it goes without a graph.
"""

import itertools
import uuid
import weakref

from im2col_compat.compat import autograd, graphs
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import Tensor, torch
from im2col_compat.engines import choose as engines
from im2col_compat.op import NAMED, Op
from im2col_compat.paths import choose
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem

#: Ops without a name, by the name that they have in graphs: never another process's, as PyTorch keeps compiled graphs.
_own = weakref.WeakValueDictionary()
_process = uuid.uuid4().hex
_numbers = itertools.count()
#: The library, which goes when nobody holds it.
_kept = []


# ---------------------------------------------------------------- recording
def is_recorded():
    """Whether this is being compiled or exported, where one operator can be recorded for it."""
    return graphs.HAS_LIBRARY and graphs.compiling() and engines.forced() is None


def conv(dims, op, input, weight, bias, stride, padding, dilation, groups):
    """conv1d's, conv2d's or conv3d's result, recorded; or None."""
    sizes = [_each(value, dims) for value in (stride, dilation, 0 if padding in ("same", "valid") else padding)]
    if not _alike(input, weight) or None in sizes or type(groups) is not int:
        return None
    if input.dim() not in (dims + 1, dims + 2) or weight.dim() != dims + 2 or groups < 1 or weight.shape[0] % groups:
        return None
    if input.shape[-dims - 1] != weight.shape[1] * groups:
        return None
    function = "conv_same" if padding == "same" else "conv"
    return _record(function, op, input, weight, sizes[0] + sizes[1] + sizes[2] + (groups,), bias, dims)


def linear(op, input, weight, bias):
    """linear's result, recorded; or None."""
    if not _alike(input, weight) or input.dim() < 1 or weight.dim() != 2 or input.shape[-1] != weight.shape[1]:
        return None
    return _record("linear", op, input, weight, (), bias)


def matmul(op, a, b):
    """matmul's result, recorded; or None."""
    if not _alike(a, b) or a.dim() < 2 or b.dim() < 2 or a.shape[-1] != b.shape[-2]:
        return None
    return _record("matmul", op, a, b, ())


def _each(value, dims):
    if type(value) is int:
        return (value,) * dims
    plain = type(value) in (tuple, list) and len(value) == dims and all(type(item) is int for item in value)
    return tuple(value) if plain else None


def conv_numbers(numbers):
    """stride, dilation, padding and groups, which are recorded as one list."""
    dims = len(numbers) // 3
    return tuple(numbers[:dims]), tuple(numbers[dims : 2 * dims]), tuple(numbers[2 * dims : 3 * dims]), numbers[-1]


def _alike(first, second):
    tensors = isinstance(first, Tensor) and isinstance(second, Tensor)
    return tensors and first.dtype == second.dtype and first.device == second.device


def _fits(bias, input, filters):
    if bias is None:
        return True
    alike = _alike(bias, input) and (input.dtype.is_floating_point or input.dtype.is_complex)
    return alike and bias.dim() == 1 and bias.shape[0] == filters


def _record(function, op, first, second, numbers, bias=None, dims=0):
    """The result, a bias of `second`'s filters included."""
    # A plain function is another Op at each call.
    op = op if isinstance(op, Op) else NAMED.get(op) if isinstance(op, str) else None
    name = None if op is None or op.is_dot or not _fits(bias, first, second.shape[0]) else key(op, first.dtype)
    if name is None:
        return None
    result = torch.ops.im2col_compat.dot(first, second, numbers, function, name)
    return result if bias is None else result + (bias.reshape((-1,) + (1,) * dims) if dims else bias)


def key(op, dtype):
    """The name that stands for an op in graphs, which have it as a constant; None where it can't be in one."""
    if not hasattr(op, "term") or graphs.transformed():  # an op made inside the graph has nothing yet
        return None
    if op.is_named:
        return op.name
    if not op.term.recordable(op, str(dtype)[6:]):
        return None
    for name, known in list(_own.items()):
        if known is op:
            return name
    name = "own {} {}".format(_process, next(_numbers))
    _own[name] = op
    return name


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
    op = NAMED.get(name) or _own.get(name)
    if op is None:
        why = "only graphs with named ops can be saved"
        raise RuntimeError("a graph holds an op that is no more, or is another process's: " + why)
    return op


def _dot(first, second, numbers, function, op):
    op = _op(op)
    if function == "matmul":
        return choose.run(op, matmul_problem(tuple(first.shape), tuple(second.shape)), TORCH, ("a", "b"), first, second)
    if function == "linear":
        problem = linear_problem(tuple(first.shape), tuple(second.shape), None)
    else:
        stride, dilation, padding, groups = conv_numbers(numbers)
        padding = "same" if function == "conv_same" else padding
        shapes = tuple(first.shape), tuple(second.shape), None
        problem = conv_problem(*((len(stride),) + shapes + (stride, padding, dilation, groups)))
    return choose.run(op, problem, TORCH, ("weight", "input"), second, first)


def _dot_fake(first, second, numbers, function, op):
    # The ordinary product has the same shape.
    if function == "linear":
        result = torch.nn.functional.linear(first, second)
    elif function == "matmul":
        result = torch.matmul(first, second)
    else:
        stride, dilation, padding, groups = conv_numbers(numbers)
        native = getattr(torch.nn.functional, "conv{}d".format(len(stride)))
        result = native(first, second, None, stride, "same" if function == "conv_same" else padding, dilation, groups)
    dtype = _op(op).result_dtype(TORCH.dtype(first))
    return first.new_empty(result.shape, dtype=getattr(torch, dtype))


def _dot_backward(grad, needs, first, second, *others):
    with autograd.enable_grad():
        leaves = [autograd.leaf(operand, need) for operand, need in zip((first, second), needs)]
        found = autograd.partials(_dot(*(leaves + list(others))), leaves, grad)
    return tuple(grad.new_empty(0) if partial is None else partial for partial in found)


def _dot_backward_fake(grad, needs, first, second, *others):
    return tuple(t.new_empty(t.shape) if need else t.new_empty(0) for t, need in zip((first, second), needs))


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.others = inputs[2:]


def _backward(ctx, grad):
    operands, needs = ctx.saved_tensors, list(ctx.needs_input_grad[:2])
    if autograd.recording(grad) and type(grad) is Tensor:  # and none of those that a graph is made with
        # A gradient of the gradient will be wanted, which dot_backward has not.
        found = autograd.partials(_dot(*(operands + tuple(ctx.others))), operands, grad, create_graph=True)
    else:
        found = torch.ops.im2col_compat.dot_backward(grad, needs, *(operands + tuple(ctx.others)))
    return tuple(partial if need else None for partial, need in zip(found, needs)) + (None, None, None)


if graphs.HAS_LIBRARY:
    _register()
