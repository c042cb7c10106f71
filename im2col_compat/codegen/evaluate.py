"""Expressions computed by tensor operations, as functions that autograd differentiates.

Of an op whose functions capture tensors, second derivatives go this way: with respect to what is captured, a function
can't be called with other tensors, but its expression can.
"""

import operator

import numpy as np

from im2col_compat.codegen.expression import (
    CONSTANT, OPERAND, both, constant, either, eq, exclusive, gate, ge, gt, is_constant, le, lt, ne, negation, operand,
    postorder, replaced, select)  # fmt: skip
from im2col_compat.compat import graphs
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.probes import torch


class Evaluated(object):
    """An expression of operands w and x, and of others, as a function of tensors.

    others: the names of operands that the caller gives by name; numbers: {name: number} for the rest.
    """

    def __init__(self, expression, others, numbers):
        self.expression, self.names, self.numbers, self.__name__ = expression, tuple(others), numbers, "multiply"

    def of_operands(self, names):
        """The expression, its operands named otherwise: {name: new name}."""
        dtype = self.expression.dtype
        standing = {operand(name, dtype): operand(new, dtype) for name, new in names.items()}
        return replaced(self.expression, standing)

    def __call__(self, w, x, **others):
        operands = dict(others, w=w, x=x)
        operands.update({name: _full(w, number) for name, number in self.numbers.items()})
        return value(self.expression, operands)


def value(expression, operands, plain=False):
    """An expression of operands, {name: tensor}. plain: whether these are plain data, which nothing differentiates."""
    if expression.function is OPERAND:
        return operands[expression.value]
    like = next(operands[node.value] for node in postorder(expression) if node.function is OPERAND)
    return _found(expression, {}, operands, like, plain)


def _found(node, found, operands, like, plain):
    """The value of a node. found: those that are there already. (No function inside another: one that calls itself is
    a cycle, and keeps its tensors until Python looks for cycles.)"""
    if node not in found:
        chosen = plain and _is_choice(node) and node.args[0].function in _COMPARISONS
        args = [_found(arg, found, operands, like, plain) for arg in (node.args[0] if chosen else node).args]
        found[node] = _chosen(node, args) if chosen else _value(node, args, operands, like)
    return found[node]


def at(expression, x):
    """The constant that an expression of the operand x is for a number; another node where that can't be told."""
    found = {}
    for node in postorder(expression):
        args = [found[arg] for arg in node.args]
        found[node] = _at(node, args) if args else constant(x, node.dtype) if node.function is OPERAND else node
    return found[expression]


def _at(node, args):
    result = node.function(*args)
    if not is_constant(result) and all(map(is_constant, args)):
        if node.function.lower is not None and node.function.lower(*args) is not None:
            result = node.function.lower(*args)
        if not is_constant(result) and isinstance(getattr(np, node.op, None), np.ufunc):
            with np.errstate(all="ignore"):
                result = constant(getattr(np, node.op)(*[arg.value for arg in args]), node.dtype)
    return result


def of(traced, surrogates):
    """{argument of Op: function} of a traced op, whose captured tensors are parameters. surrogates: which of grad_w, grad_x
    and the parameters' are the user's own."""
    captured = dict(zip(traced.others[len(traced.others) - len(traced.captured) :], traced.captured))
    numbers = {name: value for name, value in captured.items() if not TORCH.owns(value)}
    names = [name for name in traced.others if name not in numbers]

    def function(expression):
        return Evaluated(expression, names, numbers)

    expressions = (traced.grad_w, traced.grad_x) + traced.grad_others
    own = [function(one) if given else None for one, given in zip(expressions, surrogates)]
    of_others = {name: one for name, one in zip(traced.others, own[2:]) if one is not None}
    return {"multiply": function(traced.term), "grad_w": own[0], "grad_x": own[1], "grad_params": of_others}


def _full(like, number):
    return TORCH.tensor(TORCH.full(like, (1,) * len(like.shape), number))


def _value(node, args, operands, like):
    function = node.function
    if function is OPERAND:
        return operands[node.value]
    if function is CONSTANT:
        return _full(like, node.value)
    if _is_choice(node):
        a, b = [arg.value for arg in node.args[1:]]
        return TORCH.cast(args[0], node.dtype) * (a - b) + b
    if function in (select, gate):
        # Sizes may be symbols, and PyTorch that has such broadcasts.
        return TORCH.where(*(args if graphs.capturing() else [TORCH.expand(arg, _shape(args)) for arg in args]))
    if function in _LOGIC:
        return _LOGIC[function](*args)
    if node.dtype != "bool" and node.dtype != node.args[-1].dtype:
        return TORCH.cast(args[0], node.dtype)
    numbers = [arg.value if arg.function is CONSTANT else value for arg, value in zip(node.args, args)]
    # torch.onnx takes no number where a function has its first tensor.
    ways = (args,) if node.args[0].function is CONSTANT and graphs.capturing() else (numbers, args)
    for called in _called(function):
        for given in ways:
            try:
                return called(*given)
            except TypeError:
                continue  # it takes tensors alone, or is called otherwise
    lowered = function.lower(*node.args) if function.lower is not None else None
    if lowered is None:
        raise RuntimeError(
            "there is no second derivative of an op that captures tensors and computes {}".format(node.op)
        )
    found = dict(zip(node.args, args))
    for below in postorder(lowered, found):
        found[below] = _value(below, [found[arg] for arg in below.args], operands, like)
    return found[lowered]


def _is_choice(node):
    """Whether it chooses one of two numbers a and b: then b + (a - b) * (0 or 1) is much faster, and differentiable too."""
    if node.function is not select or not all(map(is_constant, node.args[1:])):
        return False
    a, b = [arg.value for arg in node.args[1:]]
    return a - b + b == a


def _chosen(node, compared):
    """Such a choice, where what it depends on is a comparison: that writes 0 and 1 itself, without bools between."""
    comparison, a, b = node.args[0], node.args[1].value, node.args[2].value
    second = comparison.args[1]
    result = TORCH.empty(compared[0], _shape(compared), node.dtype)
    other = second.value if second.function is CONSTANT else compared[1]
    getattr(torch, comparison.function.name)(compared[0], other, out=result)
    result = result if a - b == 1 else result.mul_(a - b)
    return result if b == 0 else result.add_(b)


def _called(function):
    """What computes a function of tensors: PyTorch's functions, or Python's operator (0.3 has no torch.sub)."""
    for name in function.names[:1] + function.functional + [function.name]:
        for module in (torch, torch.nn.functional):
            if callable(getattr(module, name, None)):
                yield getattr(module, name)
    for name in function.python:
        yield getattr(operator, "__{}__".format(name))


def _shape(tensors):
    return tuple(max(int(size) for size in sizes) for sizes in zip(*[tensor.shape for tensor in tensors]))


_COMPARISONS = (eq, ge, gt, le, lt, ne)
_LOGIC = {
    both: lambda a, b: a & b,
    either: lambda a, b: a | b,
    exclusive: lambda a, b: a ^ b,
    negation: lambda a: a == 0,
}
