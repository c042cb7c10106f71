"""What torch.compile, torch.export and torch.jit.trace record of a dot product with an op: one operator of PyTorch's.

torch.library (2.4 on) lets such an operator say what shape it gives and what its gradient is, so that graphs need not
break around it. Running it calls the public function, on tensors that have memory then.
"""

import warnings

from im2col_compat import features, terms
from im2col_compat.op import NAMED

#: Ops without a name that are in a graph, which may be run as long as the process lives.
_own = []
#: The library unregisters itself when nobody holds it.
_kept = []
#: The public functions, by name: functions of (first operand, second operand, numbers, op).
_functions = {}


def register(**functions):
    """Give the public functions to the operators that are recorded for them. Once, when they are there."""
    if not features.HAS_LIBRARY:
        return
    torch = features.torch
    _functions.update(functions)
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


def key(op):
    """The name that stands for an op in graphs; None where it can't be in one. Graphs have it as a constant."""
    if not hasattr(op, "multiply"):  # made inside the graph, it has nothing yet
        return None
    if op.is_named:
        return op.name
    if _captures(op):
        return None
    for number, known in enumerate(_own):
        if known is op:
            return "own {}".format(number)
    _own.append(op)
    return "own {}".format(len(_own) - 1)


# torch.compiler.assume_constant_result, without importing the compiler.
key._dynamo_marked_constant = True


def _captures(op):
    """Whether its functions capture a tensor that requires grad: from an operator it would get none."""
    ones = features.torch.ones(2, 2, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of jit.trace about sizes
            return terms.understood(op, features.TORCH, ones, ones, (False,) * 3, (False,) * 3)[1]
    except Exception:  # not of floats, perhaps: it is called when the graph is run, and says so then
        return False


def record(function, op, first, second, numbers=()):
    """The operator's result, into the graph that is being recorded; None where there is no operator for that."""
    name = key(op) if _functions else None
    if name is None:
        return None
    return features.torch.ops.im2col_compat.dot(first, second, numbers, function, name)


def _op(name):
    return NAMED[name] if name in NAMED else _own[int(name.split()[1])]


def _dot(first, second, numbers, function, op):
    return _functions[function](first, second, numbers, _op(op))


def _dot_fake(first, second, numbers, function, op):
    # The ordinary product has the same shape.
    shape = _functions[function](first, second, numbers, NAMED["dot"]).shape
    dtype = terms.result_dtype(_op(op), features.TORCH.dtype(first))
    return first.new_empty(shape, dtype=getattr(features.torch, dtype))


def _dot_backward(grad, needs, first, second, *others):
    with features.enable_grad():
        leaves = [features.leaf(operand, need) for operand, need in zip((first, second), needs)]
        found = features.partials(_dot(*(leaves + list(others))), leaves, grad)
    return tuple(grad.new_empty(0) if partial is None else partial for partial in found)


def _dot_backward_fake(grad, needs, first, second, *others):
    return tuple(t.new_empty(t.shape) if need else t.new_empty(0) for t, need in zip((first, second), needs))


def _setup_context(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])
    ctx.others = inputs[2:]


def _backward(ctx, grad):
    needs = list(ctx.needs_input_grad[:2])
    found = features.torch.ops.im2col_compat.dot_backward(grad, needs, *(ctx.saved_tensors + tuple(ctx.others)))
    return tuple(partial if need else None for partial, need in zip(found, needs)) + (None, None, None)
