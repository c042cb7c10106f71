"""What the values of an expression may be: infinite, NaN, negative, zero."""

from im2col_compat.codegen.expression import ANYTHING, CONSTANT, FINITE, OPERAND, Range, is_float, postorder


def never_nan(expression, operands):
    """Whether no operands make an expression NaN. operands: name -> (may be +inf, may be -inf, may be NaN)."""
    return not _ranges(expression, {}, operands)[expression].nan


def _ranges(expression, known, operands):
    """The Range of every node of an expression, those of `known` among them."""
    found = dict(known)
    for node in postorder(expression, known):
        if not is_float(node.dtype):
            found[node] = FINITE
        elif node.function is OPERAND:
            found[node] = Range(*operands[node.value])
        elif node.function is CONSTANT:
            value = node.value
            infinite = value == float("inf"), value == -float("inf")
            found[node] = Range(*infinite, nan=value != value, never_negative=not value < 0, never_zero=value != 0)
        else:
            found[node] = _range(node, found)
    return found


def _range(node, found):
    of, rule = [found[arg] for arg in node.args], node.function
    if rule.range is not None:
        return rule.range(node, *of)
    lowered = None if rule.lower is None else rule.lower(*node.args)
    if lowered is None:
        return ANYTHING
    return _ranges(lowered, dict(zip(node.args, of)), {})[lowered]
