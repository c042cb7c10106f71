"""Derivatives of expressions, as PyTorch has them, and their products with a gradient."""

from im2col_compat.codegen.expression import (
    CONSTANT, FINITE, OPERAND, Node, Untraceable, constant, convert, div, gate, gt, is_constant, is_stopped, joined, lt,
    mul, ne, neg, numpy_sign, postorder, select, sign, stopped)  # fmt: skip
from im2col_compat.codegen.functions import copysign
from im2col_compat.codegen.ranges import never_nan


def derivative(expression, name):
    """d expression / d operand `name`, by PyTorch's conventions; a gate of zeros where there is none.

    It is accumulated from the result back, as in backward, so that infinities meet in the same order.
    """
    order = postorder(expression)
    depends = set()
    for node in order:
        below = node.function.derivative != () and any(arg in depends for arg in node.args)
        if below or node.function is OPERAND and node.value == name:
            depends.add(node)
    adjoint = {expression: constant(1, expression.dtype)}
    for node in reversed(order):
        for i, arg in enumerate(node.args if node in adjoint else ()):
            partial = _partial(node, i) if arg in depends else None
            if partial is not None:
                # Not times(): what it makes of a sign would hide that it is one. But what a gate stops is 0.
                chain = _gated if partial.function is gate else _product
                part = convert(chain(adjoint[node], partial), arg.dtype)
                adjoint[arg] = joined(adjoint[arg], part) if arg in adjoint else part
    for node in depends:
        if node.function is OPERAND and node in adjoint:
            return adjoint[node]
    return stopped(expression.dtype)


def _partial(node, i):
    """d node / d its i-th operand; None if nothing goes back to it."""
    rules = node.function.derivative
    if rules is None:
        raise Untraceable("{} has no derivative".format(node.op))
    partial = rules[i] if rules else None
    if callable(partial):
        partial = partial(node, *node.args)
    if partial is None or isinstance(partial, Node):
        return partial
    return constant(partial, node.dtype) if partial else stopped(node.dtype)


def _product(gradient, partial):
    if partial.function is div and is_constant(partial.args[0], 1):
        return div(gradient, partial.args[1])
    return mul(gradient, partial)


def times(gradient, expression, finite=False, memo=None):
    """gradient * expression, the product moved to where it costs least.

    finite: whether the operands, and the gradient that the user's functions get, are finite: the product then
        needs to be right for finite values only.
    """
    memo = {} if memo is None else memo
    key = gradient, expression
    if key not in memo:
        memo[key] = _times(gradient, expression, finite, memo)
    return memo[key]


def _times(gradient, expression, finite, memo):
    function, args = expression.function, expression.args
    if is_constant(expression, 1):
        return gradient
    if finite and is_constant(expression, 0) and _is_finite(gradient):
        return expression
    if finite and is_stopped(gradient) and _is_finite(expression):
        return gradient
    if function is neg:
        return neg(times(gradient, args[0], finite, memo))
    if function in (sign, numpy_sign):
        return _times_sign(gradient, args[0], function is numpy_sign, finite)
    if function is gate:
        return _gated(gradient, expression, finite, memo)
    if function is select and any(_is_cheap(arg) for arg in args[1:]):
        return select(args[0], *[times(gradient, arg, finite, memo) for arg in args[1:]])
    if function is mul and any(_is_cheap(arg) for arg in args):
        return times(times(gradient, args[0], finite, memo), args[1], finite, memo)
    if function is div and _is_cheap(args[0]):
        return div(times(gradient, args[0], finite, memo), args[1])
    if function is joined and any(_is_cheap(arg) for arg in args):
        return joined(*[times(gradient, arg, finite, memo) for arg in args])
    return _product(gradient, expression)


def _gated(gradient, stopped, finite=False, memo=None):
    branches = [arg if is_constant(arg, 0) else times(gradient, arg, finite, memo) for arg in stopped.args[1:]]
    return gate(stopped.args[0], *branches)


def _is_cheap(node, levels=6):
    """Whether a gradient had better be multiplied with a part of this, at most so many levels down, than with it."""
    if node.function is CONSTANT:
        return node.value in (0, 1, -1)
    if node.function in (neg, mul, joined, select):
        return levels > 0 and any(_is_cheap(arg, levels - 1) for arg in node.args if arg.dtype != "bool")
    if node.function is div:
        return levels > 0 and _is_cheap(node.args[0], levels - 1)
    return node.function in (sign, numpy_sign, gate)


def _is_finite(node, levels=6):
    """Whether this is finite if the operands are, where that can be seen at once."""
    if node.function in (OPERAND, sign):
        return True
    if node.function is CONSTANT:
        return abs(node.value) < float("inf")
    parts = {neg: node.args, select: node.args[1:], gate: node.args[1:]}.get(node.function, ())
    if node.function is mul and node.args[0].function is copysign:
        parts = node.args[0].args[:1] + node.args[1:]  # a gradient times a sign
    return bool(parts) and levels > 0 and all(_is_finite(part, levels - 1) for part in parts)


def _times_sign(gradient, of, propagates_nan, finite):
    zero = constant(0, of.dtype)
    operands = {node.value: FINITE[:3] for node in postorder(of) if node.function is OPERAND}
    if finite and never_nan(of, operands):
        nonzero, its_sign = ne(of, zero), copysign(1, of)
        if _is_finite(gradient):
            return select(nonzero, its_sign * gradient, zero)
        # What the finite have become on the way may be infinite, and infinity times 0 is NaN.
        return select(nonzero, its_sign, zero) * gradient
    rest = gradient * (of if propagates_nan else zero)
    return select(gt(of, zero), gradient, select(lt(of, zero), -gradient, rest))
