"""Whether operands are so near to 0 that functions can be inlined which aren't for all numbers (Function.near)."""

from im2col_compat.codegen.expression import (
    CONSTANT, OPERAND, absolute, add, div, gate, joined, mul, neg, postorder, select, sub)  # fmt: skip
from im2col_compat.codegen.print_c import lowered

_ANY = (-float("inf"), float("inf"))


def asks(expressions):
    """Whether any of these functions is in the expressions."""
    return any(node.function.near for expression in expressions for node in postorder(lowered(expression)))


def holds(expressions, operands):
    """Whether none of them gets a finite number that is too large. operands: name -> (least, greatest) value."""
    for expression in expressions:
        found = {}
        for node in postorder(lowered(expression)):
            ends = _between(node, [found[arg] for arg in node.args], operands)
            found[node] = _ANY if ends[0] != ends[0] or ends[1] != ends[1] else ends
            if node.function.near:
                near, (low, high) = node.function.near[node.dtype], found[node.args[0]]
                if low < -near or high > near:
                    return False
    return True


def _between(node, args, operands):
    """The least and the greatest finite value of a node, of those of its operands; NaN where that isn't known."""
    function = node.function
    if function is OPERAND:
        return operands.get(node.value, _ANY)
    if function is CONSTANT:
        return node.value, node.value
    if function.between is not None:
        return function.between(*args) if callable(function.between) else function.between
    if function in (add, joined):
        return args[0][0] + args[1][0], args[0][1] + args[1][1]
    if function is sub:
        return args[0][0] - args[1][1], args[0][1] - args[1][0]
    if function is neg:
        return -args[0][1], -args[0][0]
    if function is absolute:
        return 0, max(-args[0][0], args[0][1])
    if function in (select, gate):
        return min(args[1][0], args[2][0]), max(args[1][1], args[2][1])
    if function is mul or function is div and (args[1][0] > 0 or args[1][1] < 0):
        others = args[1] if function is mul else [1.0 / end for end in args[1]]
        products = [one * other for one in args[0] for other in others]
        return (min(products), max(products)) if all(each == each for each in products) else _ANY
    return _ANY
