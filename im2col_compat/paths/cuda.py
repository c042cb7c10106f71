"""The path by kernels on a GPU: no columns, no terms in memory, gradients included.

What kernels can't do, second derivatives and the gradients of a user's add, is left to tensor operations in blocks.
"""

from collections import namedtuple

import numpy as np

from im2col_compat.compat import autograd, graphs
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import torch
from im2col_compat.cuda import device, texts, work
from im2col_compat.paths import layout, recorded
from im2col_compat.paths.recorded import expanded, expanded_problem, is_scalar, order_of, others_of, summed
from im2col_compat.terms import parameters

#: How many texts are kept of one op: for what it captures as numbers or tensors.
MOST_CODES = 16


class Kernels(namedtuple("Kernels", "dtype result_dtype origin traced base scalars codes made packed")):
    """An op's functions for a GPU.

    dtype, result_dtype: of the operands and the result
    origin: where the kernels come from, in words
    traced: None, or as of this call the op's expressions with the numbers, and tensors of one element, that it captures
    base: its expressions, None where there are none; scalars: the parameters that are one number for all
    codes: a Memo of texts.Code, by which numbers are read from the GPU's memory
    made: None, or the texts.Code of functions that are no expressions
    packed: None, or a function that gives another Work of a forward, or None where that of the functions is faster:
        of a problem, and whether there are no others
    """

    __slots__ = ()

    has_functions = property(lambda self: self.base is not None or self.made is not None)

    @property
    def has_gradients(self):
        return bool(self.made.grads) if self.made else self.base is not None and self.base.grad_w is not None

    captured = property(lambda self: () if self.traced is None else self.traced.captured)


def _make(op, traced, dtype, level, scalars):
    if traced is not None and dtype not in texts.DTYPES:
        return None, "there are no kernels for {} on a GPU".format(dtype)
    origin, codes = "compiled by NVRTC for each kind of GPU", Memo(MOST_CODES)
    return Kernels(dtype, op.result_dtype(dtype), origin, None, traced, scalars, codes, None, None), None


def kernels_of(op, dtype, scalars=()):
    """(Kernels, None) for operands of a dtype's name on a GPU, or (None, the reason why there are none)."""
    reason = device.missing()
    return (None, reason) if reason is not None else op.term.gpu_kernels(op, dtype, _make, scalars)


def kernels_for(op, problem, x, scalars=()):
    """The same for operands of a problem, of x's dtype and on its device."""
    kernels, reason = kernels_of(op, TORCH.dtype(x), scalars)
    if kernels is not None:
        reason = _refuses(op, x, forward_work, op, kernels, expanded_problem(problem))
    return (None, reason) if reason is not None else (kernels, None)


def code(op, kernels):
    """The texts.Code of an op's kernels, for what it captures now."""
    if kernels.made is not None:
        return kernels.made
    captured = (None,) * (len(kernels.base.others) - len(kernels.captured)) + tuple(kernels.captured)
    pointers = tuple(name for name, value in zip(kernels.base.others, captured) if not parameters.is_number(value))
    return kernels.codes.get(
        pointers, lambda: texts.of_expressions(op, kernels.base, kernels.dtype, kernels.scalars, pointers)
    )


def forward_work(op, kernels, problem, arg=False):
    """The Work of a forward; arg as work.forward has it."""
    found = None if kernels.packed is None else kernels.packed(problem, not kernels.has_functions)
    return work.forward(code(op, kernels), problem, arg) if found is None else found


def explained(op, kernels):
    """The op's functions in C, as text."""
    texts = code(op, kernels)
    return "".join((texts.term, texts.add) + texts.grads).replace("OP_FUNCTION ", "").rstrip()


def _refuses(op, x, make, *arguments):
    """Why there is no Work of make(*arguments) on x's device; None where there is one, ready to run."""
    try:
        made = make(*arguments)
        return None if made is None else device.refuses(made, x, repr(op))
    except work.Unservable as error:
        return str(error)


def run(op, problem, kernels, arrays, weights, x):
    """The result for weights and x, of the problem's shapes."""
    problem, weights, x = expanded(problem, arrays, weights, x)
    operands = (x,) + weights
    if kernels.traced is not None:
        operands += tuple([_beside(value, x) for value in kernels.captured if arrays.owns(value)])
    if autograd.records(*operands) or graphs.transform():
        result = autograd.apply_function(_Kernels, operands, op, problem, kernels)
    else:
        result = _forward(op, problem, kernels, arrays, operands)
    return layout.with_last(problem, arrays, operands[1], x, result)


def _beside(value, x):
    """A captured tensor as one of x's dtype on x's device."""
    return value.to(device=x.device, dtype=x.dtype)


def _forward(op, problem, kernels, arrays, operands, recorded=False):
    """The result for operands: x, the weight, its parameters, and the tensors that the op's functions capture."""
    y = arrays.empty(operands[0], problem.result_shape, kernels.result_dtype)
    named = _named(op, kernels, operands)
    named["y"] = y
    # Which term gave each result costs little now, and a forward later.
    with_arg = recorded and code(op, kernels).reads == ("arg",)
    if with_arg:
        named["arg"] = y.kept = arrays.empty(y, problem.result_shape, "int32")
    device.run(forward_work(op, kernels, problem, with_arg), named, y, repr(op))
    return y


def _recorded_forward(op, problem, kernels, arrays, operands):
    return _forward(op, problem, kernels, arrays, operands, kernels.has_gradients)


def _named(op, kernels, operands):
    """{name: what a Work takes} of operands."""
    named = {"x": _aligned(operands[0]), "w": _aligned(operands[1])}
    if len(operands) == 2 and not kernels.captured:
        return named
    value, planes, scalars = code(op, kernels).numpy_value, 0, 0
    for other in others_of(kernels, operands):
        if parameters.is_number(other) or is_scalar(other):
            is_number = parameters.is_number(other)
            named["scalar{}".format(scalars)] = np.dtype(value).type(other) if is_number else TORCH.cast(other, value)
            scalars += 1
        else:
            named["plane{}".format(planes)] = _aligned(other)
            planes += 1
    return named


#: Bytes that divide the addresses of operands.
_ALIGNMENT = 16


def _aligned(tensor):
    tensor = TORCH.dense(tensor)
    return tensor.clone() if tensor.data_ptr() % _ALIGNMENT else tensor


# ---------------------------------------------------------------- gradients
def _gradients(op, problem, kernels, operands, grad, y, needs, kept=None):
    """The gradients that are needed, as plain data. y: the result, for a reduction that saves it. kept: which term gave
    each result, where the forward has kept that."""
    texts = code(op, kernels)
    named, what = _named(op, kernels, operands), repr(op)
    named["g"] = _aligned(grad)
    first = work.kept(texts, problem) if kept is None else None
    if first is not None:
        for name in texts.reads:
            dtype = "int32" if name == "arg" else texts.numpy_value
            named[name] = TORCH.empty(grad, problem.result_shape, dtype)
        device.run(first, named, grad, what)
    elif kept is not None:
        named["arg"] = kept
    elif texts.reads:
        named["saved"] = _aligned(y)
    found = []
    if needs[0]:
        dx = named["dx"] = torch.empty_like(named["x"])
        device.run(work.grad_x(texts, problem), named, grad, what)
        found.append(dx)
    of_weights = {}
    for number, i in enumerate(order_of(kernels, operands)):
        if i is not None and needs[1 + i]:
            dw = named["dw"] = torch.empty_like(named["w"])
            device.run(work.grad_w(texts, problem, number), named, grad, what)
            of_weights[i] = dw if dw.shape == operands[1 + i].shape else summed(dw, operands[1 + i])
    return found + [of_weights[i] for i in sorted(of_weights)]


def _serves_gradients(op, problem, kernels, operands, needs):
    if not kernels.has_gradients:
        return op.term.only_kernels  # which says that there is none
    wanted = [(work.grad_x,)] if needs[0] else []
    numbers = enumerate(order_of(kernels, operands))
    wanted += [(work.grad_w, number) for number, i in numbers if i is not None and needs[1 + i]]
    wanted += [(work.kept,)]
    texts, problem = code(op, kernels), expanded_problem(problem)
    return all(_refuses(op, operands[0], one[0], texts, problem, *one[1:]) is None for one in wanted)


def _again(op, problem, kernels, weights, x):
    return kernels_for(op, problem, x, kernels.scalars)[0] or kernels


_Kernels = recorded.of(run, _recorded_forward, _gradients, _serves_gradients, _again, True)
