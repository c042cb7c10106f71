"""Products: expressions that are one of the weight and its parameters times one of the input.

Summed, such terms are an ordinary convolution, for which PyTorch is faster than any kernel that takes term by term. So
are gradients whose partial derivatives are products.
"""

from im2col_compat.codegen.expression import OPERAND, constant, div, mul, neg, postorder


def partials(op, traced):
    """Pairs of d term / dx, d term / dw, and those by parameters, of a traced op, whose terms are summed; None where one
    isn't a product; () where none is. Where terms are products, one factor may be 1."""
    if not op.reduction.fuses_products or traced.grad_w is None:
        return ()
    expressions = (traced.grad_x, traced.grad_w) + traced.grad_others
    if pair(traced.term) is None:
        return tuple(map(pair, expressions))
    return tuple(_with_one(_sides(expression), expression.dtype) for expression in expressions)


def _with_one(sides, dtype):
    """Factors, 1 where there is none of the weight's or of the input's; None where there is neither."""
    if sides is None or not any(_has_operands(side) for side in sides if side is not None):
        return None
    return tuple(constant(1, dtype) if side is None else side for side in sides)


def _has_operands(expression):
    return any(node.function is OPERAND for node in postorder(expression))


def pair(expression):
    """(the factor of the weight's, that of the input's) of a product; None of anything else."""
    sides = _sides(expression)
    return sides if sides and None not in sides else None


def _sides(node):
    """The factors, each None where there is none; None where they can't be told apart."""
    names = {below.value for below in postorder(node) if below.function is OPERAND}
    if names == {"x"}:
        return None, node
    if "x" not in names:
        return node, None
    if node.function is neg:
        sides = _sides(node.args[0])
        return sides and (sides[0], -sides[1])
    if node.function is div:
        # By what one side has alone, so that there is one reciprocal for an element.
        below = _sides(node.args[1])
        if below is None or None not in below:
            return None
        pairs = [_sides(node.args[0]), tuple(None if side is None else 1 / side for side in below)]
        return None if None in pairs else tuple(_product(*factors) for factors in zip(*pairs))
    if node.function is not mul:
        return None
    pairs = [_sides(arg) for arg in node.args]
    return None if None in pairs else tuple(_product(*factors) for factors in zip(*pairs))


def _product(a, b):
    return a if b is None else b if a is None else a * b
