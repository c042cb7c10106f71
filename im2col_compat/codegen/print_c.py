"""Expressions as C."""

import collections

from im2col_compat.codegen.derive import times
from im2col_compat.codegen.expression import (
    C_TYPES, CALLED, CONSTANT, INLINED, OPERAND, absolute, both, either, exclusive, gate, is_float, literal, mul, neg,
    negation, node, operand, postorder, select)  # fmt: skip

NEAR = "near"
#: The operands of which each lane has another.
VARYING = ("x", "g", "acc", "term")
#: The most values that a choice of choices may be one of. Of more, where one more may meet them, gcc makes no vectors.
MOST_CHOICES = 3
#: How functions are declared. (CUDA's are declared in another way.)
INLINE = "static inline __attribute__((always_inline))"


def lowered(expression, lower=None):
    """An expression in terms of what C has. lower: nodes of which it is known, and what they are in these terms."""
    lower = {} if lower is None else lower
    for here in postorder(expression, lower):
        lower[here] = _lower(here, [lower[arg] for arg in here.args])
    return lower[expression]


def _lower(here, args):
    if not args:
        return here
    if here.function in (select, gate):
        condition, chosen, other = args
        if condition.function is exclusive:
            # gcc vectorises a comparison of comparisons eight times worse, or not at all.
            p, q = condition.args
            return select(p, select(q, other, chosen), select(q, chosen, other))
        return select(*args)
    if here.function in (both, either, exclusive, negation):
        return here.function(*args)
    below = None if here.function.lower is None else here.function.lower(*args)
    return node(here.function, here.dtype, args) if below is None else lowered(below, {arg: arg for arg in args})


def called(expression):
    """The names of the C library's functions that an expression calls, as it has no vectors of them; sorted."""
    return sorted({here.function.c for here in postorder(lowered(expression)) if here.function.calls == CALLED})


def is_heavy(expression):
    """Whether it takes more than a few instructions: it calls a function of the C library, or has that inlined."""
    return any(here.function.calls for here in postorder(lowered(expression)))


def definition(kind, name, parameters, lines):
    """C of a function, from the texts of its type, its parameters and its statements."""
    return "{} {} {}({}) {{\n{}}}\n".format(
        INLINE, kind, name, ", ".join(parameters), "".join("    {}\n".format(line) for line in lines)
    )


def c_function(name, parameters, expression, dtype, balanced=False, inlined=True):
    """C of a function that returns an expression of its parameters, (name, dtype) pairs.

    balanced: two parameters `fused` and `one` come first, and the sum or the difference of an expression is printed as
    PLUS(a, b) or DIFFERENCE(a, b), if there is only one and nothing costs more.
    inlined: whether ffi/dot_functions.h is there, else the C library has all functions; "near" where operands are also as
        near to 0 as some functions of it want them.
    """
    expression = lowered(expression)
    lines, result = _body(expression, balanced and _is_balanceable(expression, dtype), inlined)
    declared = ["const {} {}".format(C_TYPES[kind], parameter) for parameter, kind in parameters]
    if balanced:
        declared[:0] = ["const int fused", "const {} one".format(C_TYPES[dtype])]
    return definition(C_TYPES[dtype], name, declared, lines + ["return {};".format(result)])


def c_times_function(name, gradient, parameters, expression, dtype, finite=False, inlined=True):
    """C of a function that returns `gradient` times an expression; the gradient is its first parameter.

    finite: see times(); the text is the same where that changes nothing.
    """
    product = times(operand(gradient, dtype), expression, finite)
    return c_function(name, [(gradient, dtype)] + list(parameters), product, dtype, inlined=inlined)


def _is_balanceable(expression, dtype):
    called = [here.function for here in postorder(expression)]
    sums = sum(function.macro is not None for function in called)
    return is_float(dtype) and sums == 1 and all(function.free or function.macro for function in called)


def _body(expression, macros, inlined):
    """(statements, text of the result) of a lowered expression."""
    nodes = postorder(expression)
    uses = collections.Counter(arg for here in nodes for arg in here.args)
    texts, lines, masked = {}, [], _masked(nodes) if inlined else ()
    taken = {here.value for here in nodes if here.function is OPERAND}
    for here in nodes:
        text = _text(here, [texts[arg] for arg in here.args], macros, inlined, here in masked)
        if here.args and uses[here] > 1:
            # gcc vectorises a condition better where it is used than as a number; a long one is worth naming.
            if here.dtype != "bool" or len(text) > 300:
                name = "t{}".format(len(lines))
                while name in taken:
                    name = "t" + name
                kind = "int" if here.dtype == "bool" else C_TYPES[here.dtype]
                lines.append("const {} {} = {};".format(kind, name, _bare(text)))
                text = name
        texts[here] = text
    return lines, _bare(texts[expression])


def _masked(nodes):
    """The choices that are printed as masks: of those that are the same for all lanes, and those between many values,
    gcc makes branches and no vectors."""
    alike, values, found = set(), {}, set()
    for here in nodes:
        if here.value not in VARYING and all(arg in alike for arg in here.args):
            alike.add(here)
        # A function that is inlined may end in a choice.
        values[here] = 2 if here.function.calls == INLINED else 1
        if here.function is select and is_float(here.dtype):
            branches = here.args[1:]
            if sum(values[arg] for arg in branches) > MOST_CHOICES:
                found.update(arg for arg in branches if arg.function is select)
            values[here] = sum(1 if arg in found else values[arg] for arg in branches)
            if here.args[0] in alike or values[here] > MOST_CHOICES:
                found.add(here)
                values[here] = 1
    return found


def _is_never_positive(here):
    """Whether it is seen at once that a node is 0 at most."""
    of = here.args[0] if here.function is neg else here
    return of is not here and (of.function is absolute or of.function is mul and of.args[0] is of.args[1])


def _bare(text):
    """Text without parentheses around the whole of it."""
    if text.startswith("(") and text.endswith(")"):
        depth = 0
        for i, character in enumerate(text):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return text[1:-1] if i == len(text) - 1 else text
    return text


def _text(here, args, macros, inlined, masked):
    function, dtype = here.function, here.dtype
    if function is OPERAND:
        return here.value
    if function is CONSTANT:
        return literal(here.value, dtype)
    if macros and function.macro:
        return "{}({}, {})".format(function.macro, *map(_bare, args))
    if function.calls == INLINED and (inlined == NEAR or inlined and function.near is None):
        name = function.below if function.below and _is_never_positive(here.args[0]) else function.c
        return "{}_{}({})".format(name, C_TYPES[dtype], ", ".join(map(_bare, args)))
    if function.c[0] != "(":
        return "{}{}({})".format(function.c, "f" if dtype == "float32" else "", ", ".join(map(_bare, args)))
    if masked:
        return "chosen_{}({})".format(C_TYPES[dtype], ", ".join(map(_bare, args)))
    text = function.c.format(*args)
    if dtype not in C_TYPES or is_float(dtype) or function is select:
        return text
    return "(({}){})".format(C_TYPES[dtype], text)  # C computes small integers as int
