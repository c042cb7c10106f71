"""Expressions of numbers: built, differentiated as PyTorch does, and printed as C. Knows nothing of tensors.

An expression is a Node. Its dtype is a float's or an integer's name, or "bool". Equal
expressions are one object, so a repeated part is recognised by identity. Floats are
never reassociated, and nothing that would change a value, NaN or infinity is simplified.
"""

import weakref

import numpy as np

#: dtypes and their C types.
C_TYPES = {"float32": "float", "float64": "double"}
C_TYPES.update({kind + bits: kind + bits + "_t" for kind in ("int", "uint") for bits in ("8", "16", "32", "64")})

#: Functions that a compiler needs help with to vectorise.
MATH = ("exp", "log", "tanh", "pow", "sin", "cos")
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "bitand": "&", "bitor": "|", "bitxor": "^"}
_CALLS = {
    "abs": "fabs", "exp": "exp", "log": "log", "sqrt": "sqrt", "tanh": "tanh", "pow": "pow", "sin": "sin",
    "cos": "cos", "floor": "floor", "ceil": "ceil", "round": "rint", "trunc": "trunc", "copysign": "copysign",
}  # fmt: skip


def is_float(dtype):
    return dtype.startswith("float")


def width(dtype):
    """Bits of an integer dtype."""
    return np.dtype(dtype).itemsize * 8


class Node(object):
    """One operation: its name, dtype, operands, and value: what else tells it apart, such as an operand's name."""

    __slots__ = ("op", "dtype", "args", "value", "depth", "__weakref__")

    def __repr__(self):
        if self.op in ("constant", "operand"):
            return str(self.value)
        return "{}({})".format(self.op, ", ".join(map(repr, self.args)))


_nodes = weakref.WeakValueDictionary()


def _node(op, dtype, args=(), value=None):
    # repr tells -0.0 from 0.0, and finds NaN again. Arguments live as long as their node, so ids are no one else's.
    key = op, dtype, tuple(map(id, args)), repr(value)
    node = _nodes.get(key)
    if node is None:
        node = Node()
        node.op, node.dtype, node.args, node.value = op, dtype, tuple(args), value
        node.depth = 1 + max([arg.depth for arg in args] or [0])
        _nodes[key] = node
    return node


def postorder(expression):
    """Every node of an expression once, operands before what uses them."""
    found, seen, stack = [], set(), [(expression, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            found.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args))
    return found


# ---------------------------------------------------------------- building


def operand(name, dtype):
    return _node("operand", dtype, (), name)


def constant(value, dtype):
    """A constant, rounded to the dtype."""
    if dtype == "bool":
        return _node("constant", dtype, (), bool(value))
    with np.errstate(all="ignore"):
        value = np.dtype(dtype).type(value).item()
    return _node("constant", dtype, (), value)


TRUE, FALSE = constant(True, "bool"), constant(False, "bool")


def is_constant(node, value=None):
    """Whether a node is a constant; a given one, zeros of either sign being one, if `value` is given."""
    return node.op == "constant" and (value is None or node.value == value)


def is_zero(node):
    """Whether an expression is 0 wherever it is evaluated."""
    return is_constant(node, 0) or node.op == "gate" and all(is_constant(arg, 0) for arg in node.args[1:])


_FOLD = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative,
    "abs": np.absolute, "min": np.minimum, "max": np.maximum, "exp": np.exp, "log": np.log, "sqrt": np.sqrt,
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "trunc": np.trunc,
    "bitand": np.bitwise_and, "bitor": np.bitwise_or, "bitxor": np.bitwise_xor, "invert": np.invert,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip


def _folded(op, *args):
    """The constant that an operation on constants is; through selects of constants; None if it isn't one."""
    if op not in _FOLD:
        return None
    if all(arg.op == "constant" for arg in args):
        with np.errstate(all="ignore"):
            value = _FOLD[op](*[np.array([arg.value], arg.dtype) for arg in args])[0]
        return constant(value.item(), "bool" if op in _COMPARISONS else args[0].dtype)
    # (c ? 1 : 0) * 2 - 1 is c ? 1 : -1.
    chosen = [arg for arg in args if arg.op == "select"]
    if len(chosen) == 1 and op not in _COMPARISONS:
        (select_node,) = chosen
        others = [arg for arg in args if arg is not select_node]
        if all(arg.op == "constant" for arg in list(select_node.args[1:]) + others):
            branches = [
                _folded(op, *[branch if arg is select_node else arg for arg in args]) for branch in select_node.args[1:]
            ]
            return select(select_node.args[0], *branches)
    return None


def _plain(op, *args):
    folded = _folded(op, *args)
    return _node(op, args[0].dtype, args) if folded is None else folded


def add(a, b):
    return _plain("add", a, b)


def sub(a, b):
    return _plain("sub", a, b)


def mul(a, b):
    for one, other in ((a, b), (b, a)):
        if is_constant(one, 1):
            return other
        if is_constant(one, -1) and is_float(one.dtype):
            return neg(other)
    return _plain("mul", a, b)


def div(a, b):
    """a / b, of floats."""
    return a if is_constant(b, 1) else _plain("div", a, b)


def neg(a):
    return a.args[0] if a.op == "neg" else _plain("neg", a)


def absolute(a):
    return a if a.op == "abs" or a.dtype.startswith("uint") else _plain("abs", a)


def minimum(a, b):
    """The lesser; NaN if either is."""
    return _plain("min", a, b)


def maximum(a, b):
    return _plain("max", a, b)


def clamp(a, low=None, high=None):
    """a, but at least low, and then at most high."""
    if low is None:
        return _node("clamp_max", a.dtype, (a, high))
    return _node("clamp_min", a.dtype, (a, low)) if high is None else _node("clamp", a.dtype, (a, low, high))


def relu(a):
    return _node("relu", a.dtype, (a,))


def sign(a, propagates_nan=False):
    """-1, 0 or 1. A NaN's is 0 as PyTorch has it, or NaN as NumPy has it."""
    return _node("sign", a.dtype, (a,), propagates_nan)


def compare(kind, a, b):
    """A bool. kind: "lt", "le", "gt", "ge", "eq", "ne"."""
    if a.dtype == "bool":
        return {"eq": lambda: negation(exclusive(a, b)), "ne": lambda: exclusive(a, b)}[kind]()
    folded = _folded(kind, a, b)
    return _node(kind, "bool", (a, b)) if folded is None else folded


def both(a, b):
    for one, other in ((a, b), (b, a)):
        if one.op == "constant":
            return other if one.value else one
    return a if a is b else _node("and", "bool", (a, b))


def either(a, b):
    for one, other in ((a, b), (b, a)):
        if one.op == "constant":
            return one if one.value else other
    return a if a is b else _node("or", "bool", (a, b))


def exclusive(a, b):
    for one, other in ((a, b), (b, a)):
        if one.op == "constant":
            return negation(other) if one.value else other
    return FALSE if a is b else _node("xor", "bool", (a, b))


def negation(a):
    if a.op == "constant":
        return FALSE if a.value else TRUE
    if a.op in ("eq", "ne"):
        return compare("ne" if a.op == "eq" else "eq", *a.args)
    return a.args[0] if a.op == "not" else _node("not", "bool", (a,))


def select(condition, a, b):
    if condition.op == "constant":
        return a if condition.value else b
    if condition.op == "not":
        condition, a, b = condition.args[0], b, a
    if a.dtype == "bool":
        return either(both(condition, a), both(negation(condition), b))
    return a if a is b else _node("select", a.dtype, (condition, a, b))


def _gate(condition, a, b):
    """A select that a gradient passes through: a zero is one even times infinity."""
    return _node("gate", a.dtype, (condition, a, b))


def cast(condition, dtype):
    """A bool as a number."""
    return select(condition, constant(1, dtype), constant(0, dtype))


def power(a, b, expands=True):
    """a ** b, of floats. expands: PyTorch's, where 2, 3, 0.5, -0.5, -1 and -2 aren't computed by pow()."""
    return _node("pow", a.dtype, (a, b), expands)


def integer_power(a, exponent):
    """a ** exponent for an exponent from 0 to 4."""
    if exponent == 0:
        return constant(1, a.dtype)
    result = a
    for _ in range(exponent - 1):
        result = mul(result, a)
    return result


def unary(op, a):
    """exp, log, sqrt, tanh, sigmoid, sin, cos, floor, ceil, round, trunc, reciprocal, rsqrt, detach."""
    return _plain(op, a)


def bitwise(op, a, b):
    """bitand, bitor, bitxor of two integers or two bools."""
    if a.dtype == "bool":
        return {"bitand": both, "bitor": either, "bitxor": exclusive}[op](a, b)
    return _plain(op, a, b)


def invert(a):
    return negation(a) if a.dtype == "bool" else _plain("invert", a)


def shift(op, a, b):
    """lshift or rshift of integers; by less than 0, or more bits than there are, is by all of them, as in PyTorch."""
    return _node(op, a.dtype, (a, b))


# ---------------------------------------------------------------- derivatives


def derivative(expression, name):
    """d expression / d operand `name`, by PyTorch's conventions; something that is_zero where there is none.

    Accumulated from the result back, as backward does it, so that infinities meet in the same order.
    """
    order = postorder(expression)
    depends = set()
    for node in order:
        if node.value == name if node.op == "operand" else any(arg in depends for arg in node.args):
            depends.add(node)
    adjoint = {expression: constant(1, expression.dtype)}
    found = None
    for node in reversed(order):
        if node not in depends or node not in adjoint:
            continue
        if node.op == "operand":
            found = adjoint[node]
            continue
        for i, arg in enumerate(node.args):
            partial = _partial(node, i) if arg in depends else None
            if partial is not None:
                part = _chained(adjoint[node], partial)
                adjoint[arg] = add(adjoint[arg], part) if arg in adjoint else part
    zero = constant(0, expression.dtype)
    return _gate(FALSE, zero, zero) if found is None else found


def _chained(gradient, partial):
    # A gradient that a gate stops is zero; what times() makes of a sign would hide that it is one.
    if partial.op == "gate":
        return _gated(gradient, partial)
    if partial.op == "div" and is_constant(partial.args[0], 1):
        return div(gradient, partial.args[1])
    return mul(gradient, partial)


def _partial(node, i):
    """d node / d its i-th operand; None if that is always 0."""
    op, dtype, args = node.op, node.dtype, node.args
    a, b = args[0], args[1] if len(args) > 1 else None
    zero, one, two = [constant(value, dtype) for value in (0, 1, 2)] if is_float(dtype) else (None, None, None)
    if op == "add":
        return one
    if op == "relu":
        return _gate(compare("le", a, zero), zero, one)
    if op == "sub":
        return constant(-1, dtype) if i else one
    if op == "mul":
        return args[1 - i]
    if op == "div":
        return neg(div(node, b)) if i else div(one, b)
    if op == "neg":
        return constant(-1, dtype)
    if op == "abs":
        return sign(a)
    if op in ("min", "max"):
        loses = compare("lt" if (op == "max") == (i == 0) else "gt", a, b)
        return _gate(loses, zero, select(compare("eq", a, b), constant(0.5, dtype), one))
    if op == "clamp_min":
        return _gate(compare("lt", a, b), one, zero) if i else _gate(compare("ge", a, b), one, zero)
    if op == "clamp_max":
        return _gate(compare("gt", a, b), one, zero) if i else _gate(compare("le", a, b), one, zero)
    if op == "clamp":
        return _gate(both(compare("ge", a, b), compare("le", a, args[2])), one, zero)
    if op in ("select", "gate"):
        return None if i == 0 else _gate(args[0], one, zero) if i == 1 else _gate(args[0], zero, one)
    if op == "pow":
        return _partial_of_power(node, i)
    if op == "exp":
        return node
    if op == "log":
        return div(one, a)
    if op == "sqrt":
        return div(one, mul(two, node))
    if op == "rsqrt":
        return mul(constant(-0.5, dtype), power(node, constant(3, dtype)))
    if op == "reciprocal":
        return neg(mul(node, node))
    if op == "tanh":
        return sub(one, mul(node, node))
    if op == "sigmoid":
        return mul(sub(one, node), node)
    if op == "sin":
        return unary("cos", a)
    if op == "cos":
        return neg(unary("sin", a))
    if op in ("sign", "floor", "ceil", "round", "trunc", "detach", "not", "and", "or", "xor") or op in _COMPARISONS:
        return None
    raise ValueError("{} has no derivative".format(op))


def _partial_of_power(node, i):
    base, exponent = node.args
    zero, one = constant(0, node.dtype), constant(1, node.dtype)
    if i == 0:
        if is_constant(exponent, 0):
            return None
        if is_constant(exponent, 1):
            return one
        less = power(base, sub(exponent, one), node.value)
        lowered = mul(exponent, base if is_constant(exponent, 2) else less)
        return lowered if exponent.op == "constant" else _gate(compare("eq", exponent, zero), zero, lowered)
    raised = mul(node, unary("log", base))
    never = both(compare("eq", base, zero), compare("ge", exponent, zero))
    return raised if never is FALSE else _gate(never, zero, raised)


# ---------------------------------------------------------------- what can't be NaN

#: May be +inf, may be -inf, may be NaN.
FINITE = (False, False, False)
_ANYTHING = (True, True, True)


def never_nan(expression, operands):
    """Whether no operands make an expression NaN. operands: name -> (may be +inf, may be -inf, may be NaN)."""
    flags = {}
    for node in postorder(expression):
        if node.dtype == "bool" or not is_float(node.dtype):
            flags[node] = FINITE
        elif node.op == "operand":
            flags[node] = tuple(operands[node.value])
        else:
            flags[node] = _flags(node, [flags[arg] for arg in node.args])
    return not flags[expression][2]


def _flags(node, of):
    op, args = node.op, node.args
    nan = any(flag[2] for flag in of)
    infinite = [flag[0] or flag[1] for flag in of]
    if op == "constant":
        value = node.value
        return value == float("inf"), value == -float("inf"), value != value
    up, down, _ = of[0] if of else FINITE
    if op in ("add", "sub"):
        other_up, other_down = of[1][:2] if op == "add" else (of[1][1], of[1][0])
        return True, True, nan or up and other_down or down and other_up
    if op == "mul":
        if args[0] is args[1]:
            return True, False, nan
        clashes = any(infinite[i] and not _never_zero(args[1 - i]) for i in (0, 1))
        return True, True, nan or clashes
    if op == "div":
        return True, True, nan or not _never_zero(args[1]) or infinite[0] and infinite[1]
    if op == "neg":
        return down, up, nan
    if op == "abs":
        return up or down, False, nan
    if op in ("min", "max", "clamp_min", "clamp_max", "clamp"):
        return any(flag[0] for flag in of), any(flag[1] for flag in of), nan
    if op in ("select", "gate"):
        return tuple(p or q for p, q in zip(of[1], of[2]))
    if op == "relu":
        return up, False, nan
    if op == "sign":
        return False, False, nan and bool(node.value)
    if op == "copysign":
        return up or down, up or down, of[0][2]
    if op == "exp":
        return True, False, nan
    if op in ("tanh", "sigmoid"):
        return False, False, nan
    if op in ("floor", "ceil", "round", "trunc", "detach"):
        return up, down, nan
    if op == "sqrt" and _never_negative(args[0]):
        return up, False, nan
    if op in ("sin", "cos"):
        return False, False, nan or infinite[0]
    if op == "reciprocal":
        return True, True, nan
    if op == "pow" and is_constant(args[1]) and args[1].value in (1, 2, 3, 4, -1, -2):
        return True, True, nan
    return _ANYTHING


def _never_negative(node, levels=6):
    """Whether a node is provably 0 or more, or NaN. -0 counts as 0."""
    if node.op == "constant":
        return not node.value < 0
    if node.op in ("abs", "exp", "relu", "sigmoid"):
        return True
    if node.op == "mul" and node.args[0] is node.args[1]:
        return True
    if node.op == "pow":
        return is_constant(node.args[1]) and node.args[1].value in (2, 4)
    if node.op in ("add", "mul", "min"):
        return levels > 0 and all(_never_negative(arg, levels - 1) for arg in node.args)
    return False


def _never_zero(node):
    """Whether a node is provably not 0."""
    if node.op == "constant":
        return node.value != 0
    if node.op in ("neg", "abs"):
        return _never_zero(node.args[0])
    if node.op == "add":
        for i in (0, 1):
            here, other = node.args[i], node.args[1 - i]
            if here.op == "constant" and here.value > 0 and _never_negative(other):
                return True
    return False


# ---------------------------------------------------------------- times a gradient


def times(gradient, expression, ordinary=False, memo=None):
    """gradient * expression, the product moved to where it costs least.

    ordinary: a gradient of infinity or NaN, and operands that are, need not come out as PyTorch has them.
    """
    memo = {} if memo is None else memo
    key = gradient, expression
    if key not in memo:
        memo[key] = _times(gradient, expression, ordinary, memo)
    return memo[key]


def _times(gradient, expression, ordinary, memo):
    op, args = expression.op, expression.args
    if op == "constant":
        if expression.value == 1:
            return gradient
        if expression.value == 0 and ordinary:
            return expression
        return mul(gradient, expression)
    if op == "neg":
        return neg(times(gradient, args[0], ordinary, memo))
    if op == "sign":
        return _times_sign(gradient, args[0], expression.value, ordinary)
    if op == "gate":
        return _gated(gradient, expression, ordinary, memo)
    if op == "select" and any(_is_cheap(arg) for arg in args[1:]):
        return select(args[0], *[times(gradient, arg, ordinary, memo) for arg in args[1:]])
    if op == "mul" and any(_is_cheap(arg) for arg in args):
        return times(times(gradient, args[0], ordinary, memo), args[1], ordinary, memo)
    if op == "div" and is_constant(args[0], 1):
        return div(gradient, args[1])
    if op == "add" and any(_is_cheap(arg) for arg in args):
        return add(*[times(gradient, arg, ordinary, memo) for arg in args])
    return mul(gradient, expression)


def _gated(gradient, gate, ordinary=False, memo=None):
    branches = [arg if is_constant(arg, 0) else times(gradient, arg, ordinary, memo) for arg in gate.args[1:]]
    return _gate(gate.args[0], *branches)


def _is_cheap(node, levels=6):
    """Whether a gradient had better be multiplied with a part of this, not too far down, than with its value."""
    if node.op == "constant":
        return node.value in (0, 1, -1)
    if node.op in ("neg", "mul", "add", "select"):
        return levels > 0 and any(_is_cheap(arg, levels - 1) for arg in node.args if arg.dtype != "bool")
    return node.op in ("sign", "gate") or node.op == "div" and is_constant(node.args[0], 1)


def _times_sign(gradient, of, propagates_nan, ordinary):
    zero, one = constant(0, of.dtype), constant(1, of.dtype)
    operands = {node.value: FINITE for node in postorder(of) if node.op == "operand"}
    if ordinary and never_nan(of, operands):
        size = _node("copysign", of.dtype, (one, of))
        return select(compare("ne", of, zero), mul(size, gradient), zero)
    rest = mul(gradient, of) if propagates_nan else mul(gradient, zero)
    negative = select(compare("lt", of, zero), neg(gradient), rest)
    return select(compare("gt", of, zero), gradient, negative)


# ---------------------------------------------------------------- printing


def _lowered(expression):
    """The same in terms of what C has."""
    low = {}
    for node in postorder(expression):
        low[node] = _lower(node, [low[arg] for arg in node.args])
    return low[expression]


def _lower(node, args):
    op, dtype = node.op, node.dtype
    if not args:
        return node
    a, b = args[0], args[1] if len(args) > 1 else None
    number = is_float(dtype)
    if op == "detach":
        return a
    if op in ("select", "gate"):
        condition, chosen, other = args
        if condition.op == "xor":
            # A comparison of comparisons is what gcc vectorises eight times worse, or not at all.
            p, q = condition.args
            return select(p, select(q, other, chosen), select(q, chosen, other))
        return select(*args)
    if op in ("min", "max"):
        kind = "lt" if op == "min" else "gt"
        for chosen, other in ((a, b), (b, a)):
            # One comparison will do where one side isn't NaN.
            if not number or is_constant(chosen) and chosen.value == chosen.value:
                return select(compare(kind, chosen, other), chosen, other)
        return select(either(compare(kind, a, b), compare("ne", a, a)), a, b)
    if op in ("clamp", "clamp_min", "clamp_max"):
        if op != "clamp_max":
            a = _lower(maximum(b, a), [b, a])
        return a if op == "clamp_min" else _lower(minimum(args[-1], a), [args[-1], a])
    if op == "relu":
        zero = constant(0, dtype)
        return select(compare("gt", zero, a), zero, a)
    if op == "sign":
        zero, one, minus = constant(0, dtype), constant(1, dtype), constant(-1 if number else 0, dtype)
        if not number and not dtype.startswith("uint"):
            minus = constant(-1, dtype)
        result = select(compare("gt", a, zero), one, select(compare("lt", a, zero), minus, zero))
        return select(compare("ne", a, a), a, result) if node.value and number else result
    if op == "abs" and not number:
        return select(compare("lt", a, constant(0, dtype)), neg(a), a)
    if op == "reciprocal":
        return div(constant(1, dtype), a)
    if op == "rsqrt":
        return div(constant(1, dtype), unary("sqrt", a))
    if op == "sigmoid":
        one = constant(1, dtype)
        return div(one, add(one, unary("exp", neg(a))))
    if op == "pow":
        return _lower_power(node, a, b)
    if op in ("lshift", "rshift"):
        return _lower_shift(op, dtype, a, b)
    if dtype == "bool" and op in ("and", "or", "xor", "not"):
        return {"and": both, "or": either, "xor": exclusive, "not": negation}[op](*args)
    return _node(op, dtype, args, node.value)


def _lower_power(node, base, exponent):
    one = constant(1, node.dtype)
    if exponent.op == "constant":
        value = exponent.value
        square = mul(base, base)
        if value == 0:
            return one
        if value == 1:
            return base
        if value == 2:
            return square
        if value == -1:
            return div(one, base)
        if node.value:
            # Not -3 and -4: the reciprocal of a power overflows before a negative power vanishes.
            expanded = {3: lambda: mul(square, base), 4: lambda: mul(square, square), -2: lambda: div(one, square)}
            expanded.update({0.5: lambda: unary("sqrt", base), -0.5: lambda: div(one, unary("sqrt", base))})
            if value in expanded:
                return expanded[value]()
    return _node("pow", node.dtype, (base, exponent), node.value)


def _lower_shift(op, dtype, a, b):
    bits = constant(width(dtype), dtype)
    zero, most = constant(0, dtype), constant(width(dtype) - 1, dtype)
    inside = compare("lt", b, bits)
    if not dtype.startswith("uint"):
        inside = both(compare("ge", b, zero), inside)
    if op == "rshift" and not dtype.startswith("uint"):
        return _node("rshift", dtype, (a, select(inside, b, most)))
    return select(inside, _node(op, dtype, (a, bitwise("bitand", b, most))), zero)


def functions(expression):
    """The sorted names, among MATH, of the functions that an expression's C calls."""
    return sorted({node.op for node in postorder(_lowered(expression))} & set(MATH))


def c_function(name, parameters, expression, dtype, balanced=False):
    """C of a function that returns an expression of its parameters, (name, dtype) pairs.

    balanced: two parameters `fused` and `one` come first, and the sum or difference of an
    expression that needs nothing dearer than one is printed as PLUS(a, b) or DIFFERENCE(a, b).
    """
    expression = _lowered(expression)
    lines, result = _body(expression, balanced and _is_balanceable(expression, dtype))
    declared = ["const {} {}".format(C_TYPES[kind], parameter) for parameter, kind in parameters]
    if balanced:
        declared[:0] = ["const int fused", "const {} one".format(C_TYPES[dtype])]
    lines.append("return {};".format(result))
    return "static inline __attribute__((always_inline)) {} {}({}) {{\n{}}}\n".format(
        C_TYPES[dtype], name, ", ".join(declared), "".join("    {}\n".format(line) for line in lines)
    )


def c_times_function(name, gradient, parameters, expression, dtype, ordinary=False):
    """C of a function that returns `gradient` times an expression; the gradient is its first parameter.

    ordinary: see times(). Where that changes nothing the text is the same.
    """
    product = times(operand(gradient, dtype), expression, ordinary)
    return c_function(name, [(gradient, dtype)] + list(parameters), product, dtype)


def _is_balanceable(expression, dtype):
    nodes = postorder(expression)
    free = {"constant", "operand", "add", "sub", "neg", "abs", "and", "or", "xor", "not", "select", "copysign"}
    return (
        is_float(dtype)
        and sum(node.op in ("add", "sub") for node in nodes) == 1
        and all(node.op in free or node.op in _COMPARISONS for node in nodes)
    )


def _body(expression, macros):
    """(statements, text of the result) of a lowered expression."""
    nodes = postorder(expression)
    uses = {}
    for node in nodes:
        for arg in node.args:
            uses[arg] = uses.get(arg, 0) + 1
    texts, lines = {}, []
    taken = {node.value for node in nodes if node.op == "operand"}
    for node in nodes:
        text = _text(node, [texts[arg] for arg in node.args], macros)
        if node.op not in ("constant", "operand") and uses.get(node, 0) > 1:
            # gcc vectorises a condition better where it is used than as a number; a long one is worth naming.
            if node.dtype != "bool" or len(text) > 300:
                name = "t{}".format(len(lines))
                while name in taken:
                    name = "t" + name
                kind = "int" if node.dtype == "bool" else C_TYPES[node.dtype]
                lines.append("const {} {} = {};".format(kind, name, _bare(text)))
                text = name
        texts[node] = text
    return lines, _bare(texts[expression])


def _bare(text):
    """Text without parentheses around the whole of it."""
    if text.startswith("(") and text.endswith(")"):
        depth = 0
        for i, character in enumerate(text):
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return text[1:-1] if i == len(text) - 1 else text
    return text


def _text(node, args, macros):
    op, dtype = node.op, node.dtype
    if op == "operand":
        return node.value
    if op == "constant":
        return literal(node.value, dtype)
    if op == "select":
        return "({} ? {} : {})".format(*args)
    if op in _COMPARISONS:
        return "({} {} {})".format(args[0], _COMPARISONS[op], args[1])
    if op in ("and", "or"):
        return "({} {} {})".format(args[0], "&" if op == "and" else "|", args[1])
    if op == "xor":
        return "(({0} & (!{1})) | ((!{0}) & {1}))".format(*args)
    if op == "not":
        return "(!{})".format(args[0])
    if macros and op in ("add", "sub"):
        return "{}({}, {})".format("PLUS" if op == "add" else "DIFFERENCE", *map(_bare, args))
    if op in ("neg", "invert"):
        text = "({}{})".format("-" if op == "neg" else "~", args[0])
    elif op in ("lshift", "rshift"):
        text = "({} {} {})".format(args[0], "<<" if op == "lshift" else ">>", args[1])
    elif op in _OPERATORS:
        text = "({} {} {})".format(args[0], _OPERATORS[op], args[1])
    else:
        suffix = "f" if dtype == "float32" else ""
        return "{}{}({})".format(_CALLS[op], suffix, ", ".join(map(_bare, args)))
    # C computes small integers as int.
    return text if is_float(dtype) else "(({}){})".format(C_TYPES[dtype], text)


def literal(value, dtype):
    """A constant as C: the shortest text that reads back as the same."""
    if dtype == "bool":
        return "1" if value else "0"
    if not is_float(dtype):
        if value == -(2**63):
            return "(-INT64_C(9223372036854775807) - 1)"
        text = str(abs(value))
        if abs(value) >= 2**31:
            text = "{}INT64_C({})".format("U" if dtype == "uint64" else "", text)
        return text if value >= 0 else "(-{})".format(text)
    if value != value:
        return "NAN"
    if value in (float("inf"), -float("inf")):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    text = repr(float(value))
    if dtype == "float32":
        text = str(np.float32(value))
        if np.float32(text) != np.float32(value):
            text = "%.9g" % value  # before NumPy 1.14
    if not set(text) & set(".e"):
        text += ".0"
    text += "f" if dtype == "float32" else ""
    return "({})".format(text) if text.startswith("-") else text
