"""Parts of a term that are of one operand alone, and take a call or a division.

They are computed once an element, and not once a term.
"""

from collections import namedtuple

from im2col_compat.codegen import evaluate
from im2col_compat.codegen.expression import OPERAND, div, is_constant, operand, postorder, replaced
from im2col_compat.codegen.functions import sqrt

#: term: what is left, of operands w, x and others, by the names of expressions
#: parts: {such a name: the expression of the op's operands that it stands for}
#: others: the names of those that aren't w and x
Split = namedtuple("Split", "term parts others")


class Left(evaluate.Evaluated):
    """What is left of a term, as a function of tensors. It does the same at each call. whole: the user's function."""

    is_constant = True

    def __init__(self, split, whole):
        super(Left, self).__init__(split.term, split.others, {})
        self.whole = whole


def split(term):
    """The Split of a term; None where there is nothing to compute before."""
    names = {}
    for here in postorder(term):
        own = {here.value} if here.function is OPERAND else set()
        names[here] = own.union(*[names[arg] for arg in here.args])
    if "x" not in names[term] or names[term] == {"x"}:
        return None
    leaves = _leaves(term, names)
    of_x = [leaf for leaf in leaves if names[leaf] == {"x"}]
    of_w = [leaf for leaf in leaves if "x" not in names[leaf]]
    # Kernels take one number of each pixel.
    standing = {leaf: operand("x", term.dtype) for leaf in of_x if len(of_x) == 1 and _is_costly(leaf)}
    costly = [leaf for leaf in of_w if _is_costly(leaf)]
    bare = set().union(*[names[leaf] for leaf in of_w if leaf not in costly])
    for leaf in costly:
        if "w" in names[leaf] and "w" not in bare:
            bare.add("w")
            standing[leaf] = operand("w", term.dtype)
        else:
            standing[leaf] = operand("q{}".format(len(standing)), term.dtype)
    if not standing:
        return None
    parts = {name: operand(name, term.dtype) for name in bare | {"w", "x"}}
    parts.update((stands.value, leaf) for leaf, stands in standing.items())
    return Split(replaced(term, standing), parts, tuple(sorted(set(parts) - {"w", "x"})))


def _leaves(term, names):
    """The largest parts that are of x alone, or of what lies beside the weight alone."""
    found, seen, stack = [], set(), [term]
    while stack:
        here = stack.pop()
        if here in seen or not names[here]:
            continue
        seen.add(here)
        alone = names[here] == {"x"} or "x" not in names[here]
        if alone and here.dtype == term.dtype:
            found.append(here)
        else:
            stack.extend(reversed(here.args))
    return found


def _is_costly(expression):
    """Whether it takes more than a few instructions."""
    for here in postorder(expression):
        function = here.function
        if function.calls is not None or function in (div, sqrt):
            return True
        lowered = function.lower(*here.args) if function.lower is not None else None
        if lowered is not None and any(_is_costly(below) for below in postorder(lowered, here.args)):
            return True
    return False


def pad_value(expression, value):
    """What a part of the input is where the input is padded with a value: a number; None where that can't be told."""
    if expression.function is OPERAND or value is None:
        return value
    found = evaluate.at(expression, value)
    return found.value if is_constant(found) else None
