"""Expressions of numbers: nodes, the record that describes a scalar function, and arithmetic. Knows nothing of tensors.

An expression is a Node. Its dtype is the name of a float's or an integer's, or "bool". Equal expressions are one
object, so a repeated part is recognised by identity. Floats are never reassociated, and a simplification never changes
a value, a NaN or an infinity.
"""

import collections
import weakref

import numpy as np

from im2col_compat.compat.dtypes import C_TYPES

#: Every Function, in the order in which they are made.
FUNCTIONS = []


class Untraceable(Exception):
    """Why a function can't be made an expression."""


class Range(collections.namedtuple("Range", "up down nan never_negative never_zero")):
    """What is known of a value: whether it may be +inf, -inf or NaN; whether it is 0 or more, or not 0, unless NaN."""

    __slots__ = ()

    def __new__(cls, up, down, nan, never_negative=False, never_zero=False):
        return super(Range, cls).__new__(cls, up, down, nan, never_negative, never_zero)


ANYTHING, FINITE = Range(True, True, True), Range(False, False, False)


class Function(object):
    """The record of a scalar function. Called with nodes and numbers, it makes a node.

    names: what PyTorch, its tensors, torch.special and NumPy's ufuncs call it, wherever they have it; by default its
        name, None if nobody may call it. functional: its names in torch.nn.functional. python: its operator's name.
    takes: the arguments. One with a default takes only a number; one with == takes only that number.
    kind: for which operands it is defined, a key of operations.KINDS.
    value: NumPy's function, where a result of constants is computed at once.
    rewrite: f(*args), another expression that is built instead; None where there is none.
    derivative: for each operand f(result, *args), or a number; 0 where PyTorch has zeros, which an infinity on the way
        back makes NaN; None where nothing goes back. () if nothing goes back to any.
    lower: f(*args), the same in terms of other functions; None where C has it.
    c: the name of a C function without its type's suffix, or a format of the operands' texts.
    calls: whether C calls the C library for it, or would; None where that is an instruction. INLINED: CPUs don't, since
        ffi/dot_functions.h has the C function, as name_float and name_double.
    below: the C function that is inlined where the operand is known to be 0 at most, where that is another.
    near: {dtype: the greatest absolute value of an operand for which it is inlined}, where that isn't any.
    between: two numbers that its finite values are between, or f(*pairs of such of the operands), where that is known.
    macro: what prints it in a balanced text. free: whether it costs no more than a sum.
    range: f(result, *ranges of the operands), a Range; by default that of what it is lowered to.
    result: the result's dtype; the last operand's by default.
    numpy: the Function that NumPy computes instead; itself by default.
    """

    def __init__(
        self, name, takes="input", kind="floats", names="", functional="", python="", value=None, rewrite=None,
        derivative=None, lower=None, c=None, calls=None, macro=None, free=False, range=None, result=None, numpy=None,
        near=None, between=None, below=None,
    ):  # fmt: skip
        self.name, self.takes, self.kind, self.value = name, takes, kind, value
        self.rewrite, self.lower, self.range, self.result = rewrite, lower, range, result
        self.names, self.functional = [] if names is None else (names or name).split(), functional.split()
        self.python, self.c, self.calls, self.macro, self.free = python.split(), c, calls, macro, free
        self.near, self.between, self.below = near, between, below
        self.derivative = (derivative,) if callable(derivative) or derivative in (0, 1) else derivative
        self.numpy = numpy or self
        FUNCTIONS.append(self)

    def __call__(self, *args):
        if not all(isinstance(arg, Node) for arg in args):
            dtype = [arg.dtype for arg in args if isinstance(arg, Node) and arg.dtype != "bool"][0]
            args = [arg if isinstance(arg, Node) else constant(arg, dtype) for arg in args]
        found = None if self.rewrite is None else self.rewrite(*args)
        if found is None and self.value is not None:
            found = _folded(self, args)
        return node(self, self.result or args[-1].dtype, args) if found is None else found

    def __repr__(self):
        return self.name


#: The functions of what operand() and constant() make.
OPERAND, CONSTANT = Function("operand", names=None, free=True), Function("constant", names=None, free=True)
#: For Function's `calls`.
INLINED, CALLED = "inlined", "called"


def is_float(dtype):
    return dtype.startswith("float")


def width(dtype):
    """Bits of an integer dtype."""
    return np.dtype(dtype).itemsize * 8


class Node(object):
    """One operation: its function, dtype and operands, and a value: that of a constant, or the name of an operand."""

    __slots__ = ("function", "dtype", "args", "value", "depth", "__weakref__")

    @property
    def op(self):
        """The function's name."""
        return self.function.name

    def __repr__(self):
        return str(self.value) if not self.args else "{}({})".format(self.op, ", ".join(map(repr, self.args)))


_nodes = weakref.WeakValueDictionary()


def node(function, dtype, args=(), value=None):
    """The one node of these; nothing is simplified."""
    # repr tells -0.0 from 0.0, and finds NaN again. A node keeps its arguments alive, so their ids are no one else's.
    key = function, dtype, tuple(map(id, args)), repr(value)
    found = _nodes.get(key)
    if found is None:
        found = Node()
        found.function, found.dtype, found.args, found.value = function, dtype, tuple(args), value
        found.depth = 1 + max([arg.depth for arg in args] or [0])
        _nodes[key] = found
    return found


def postorder(expression, without=()):
    """Every node of an expression once, operands before what uses them; not those in `without`, nor what is below."""
    found, seen, stack = [], set(without), [(expression, False)]
    while stack:
        here, ready = stack.pop()
        if ready:
            found.append(here)
        elif here not in seen:
            seen.add(here)
            stack.append((here, True))
            stack.extend((arg, False) for arg in reversed(here.args))
    return found


def replaced(expression, standing):
    """The expression with others in the place of some of its nodes, {node: other}; nothing is simplified."""
    found = dict(standing)
    for here in postorder(expression, standing):
        found[here] = node(here.function, here.dtype, [found[arg] for arg in here.args], here.value)
    return found[expression]


def operand(name, dtype):
    return node(OPERAND, dtype, (), name)


def constant(value, dtype):
    """A constant, rounded to the dtype."""
    if dtype == "bool":
        return node(CONSTANT, dtype, (), bool(value))
    with np.errstate(all="ignore"):
        value = np.dtype(dtype).type(value).item()
    return node(CONSTANT, dtype, (), value)


TRUE, FALSE = constant(True, "bool"), constant(False, "bool")


def is_constant(node, value=None):
    """Whether a node is a constant, and equal to `value` if that is given; 0 equals zeros of either sign."""
    return node.function is CONSTANT and (value is None or node.value == value)


def _folded(function, args):
    """What a function of constants is, or of one select between constants; None of other arguments."""
    if all(arg.function is CONSTANT for arg in args):
        with np.errstate(all="ignore"):
            value = function.value(*[np.array([arg.value], arg.dtype) for arg in args])[0]
        return constant(value.item(), function.result or args[0].dtype)
    # (c ? 1 : 0) * 2 - 1 is c ? 1 : -1.
    chosen = [arg for arg in args if arg.function is select]
    if len(chosen) == 1 and function.result is None:
        branches = chosen[0].args[1:]
        if all(is_constant(arg) for arg in list(branches) + [arg for arg in args if arg is not chosen[0]]):
            folded = [_folded(function, [part if arg is chosen[0] else arg for arg in args]) for part in branches]
            return select(chosen[0].args[0], *folded)
    return None


def literal(value, dtype):
    """A constant in C: the shortest text that reads back as the same."""
    if dtype == "bool":
        return "1" if value else "0"
    if not is_float(dtype):
        if value == -(2**63):
            return "(-INT64_C(9223372036854775807) - 1)"
        if value == -(2**31) and dtype == "int32":
            return "(-2147483647 - 1)"  # -2147483648 would be 64 bits wide
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


# ---------------------------------------------------------------- conditions
def _simplified(of_known, of_equal):
    """The rewrite of a function of two conditions: of_known(a constant's value, the other) and of_equal(both)."""

    def rewrite(a, b):
        for one, other in ((a, b), (b, a)):
            if is_constant(one):
                return of_known(one.value, other)
        return of_equal(a) if a is b else None

    return rewrite


def _negation(a):
    if is_constant(a):
        return FALSE if a.value else TRUE
    if a.function in (eq, ne):
        return (ne if a.function is eq else eq)(*a.args)
    return a.args[0] if a.function is negation else None


def _selected(condition, a, b):
    if is_constant(condition):
        return a if condition.value else b
    if condition.function is negation:
        return select(condition.args[0], b, a)
    if a.dtype == "bool":
        return either(both(condition, a), both(negation(condition), b))
    return a if a is b else None


def _comparison(name, names, sign, value, of_bools=None):
    return Function(
        name, "input other", "compared" if of_bools else "ordered", name + " " + names, python=name, value=value,
        derivative=(), free=True, c="({} " + sign + " {})", result="bool",
        rewrite=lambda a, b: of_bools(a, b) if a.dtype == "bool" else None)  # fmt: skip


def _logic(name, rewrite, c, names, takes="input other"):
    return Function(name, takes, "truth", names, rewrite=rewrite, derivative=(), c=c, free=True, result="bool")


lt = _comparison("lt", "less", "<", np.less)
le = _comparison("le", "less_equal", "<=", np.less_equal)
gt = _comparison("gt", "greater", ">", np.greater)
ge = _comparison("ge", "greater_equal", ">=", np.greater_equal)
eq = _comparison("eq", "equal", "==", np.equal, lambda a, b: negation(exclusive(a, b)))
ne = _comparison("ne", "not_equal", "!=", np.not_equal, lambda a, b: exclusive(a, b))
both = _logic("and", _simplified(lambda known, b: b if known else FALSE, lambda a: a), "({} & {})", "logical_and")
either = _logic("or", _simplified(lambda known, b: TRUE if known else b, lambda a: a), "({} | {})", "logical_or")
exclusive = _logic(
    "xor", _simplified(lambda known, b: negation(b) if known else b, lambda a: FALSE),
    "(({0} & (!{1})) | ((!{0}) & {1}))", "logical_xor")  # fmt: skip
negation = _logic("not", _negation, "(!{})", "logical_not", "input")


def passes(condition, gradient):
    """A derivative that is 0 where a condition doesn't hold."""
    return gate(condition, gradient, constant(0, gradient.dtype))


def stops(condition, gradient):
    """A derivative that is 0 where a condition holds."""
    return gate(condition, constant(0, gradient.dtype), gradient)


def stopped(dtype):
    """A derivative that is 0, whatever the gradient."""
    zero = constant(0, dtype)
    return gate(FALSE, zero, zero)


def is_stopped(node):
    return node.function is gate and node.args[0] is FALSE


def _of_branches(y, condition, a, b):
    return Range(a.up or b.up, a.down or b.down, a.nan or b.nan)


_OF_BRANCHES = (
    None,
    lambda y, condition, a, b: passes(condition, constant(1, y.dtype)),
    lambda y, condition, a, b: stops(condition, constant(1, y.dtype)),
)
select = Function(
    "select", names=None, rewrite=_selected, derivative=_OF_BRANCHES, c="({} ? {} : {})", free=True, range=_of_branches
)
#: A select that a gradient goes through: where it is 0, even an infinite gradient becomes 0.
gate = Function("gate", names=None, derivative=_OF_BRANCHES, range=_of_branches)


# ---------------------------------------------------------------- arithmetic
def _sum_range(y, a, b):
    nan = a.nan or b.nan or a.up and b.down or a.down and b.up
    positive = [is_constant(arg) and arg.value > 0 for arg in y.args]
    never_zero = positive[0] and b.never_negative or positive[1] and a.never_negative
    return Range(True, True, nan, a.never_negative and b.never_negative, never_zero)


def _product_range(y, a, b):
    if y.args[0] is y.args[1]:
        return Range(True, False, a.nan, True)
    clashes = [(a.up or a.down) and not b.never_zero, (b.up or b.down) and not a.never_zero]
    return Range(True, True, a.nan or b.nan or any(clashes), a.never_negative and b.never_negative)


def _quotient_range(y, a, b):
    return Range(True, True, a.nan or b.nan or not b.never_zero or (a.up or a.down) and (b.up or b.down))


def _product(a, b):
    if a.dtype == "bool":
        return both(a, b)
    for one, other in ((a, b), (b, a)):
        if is_constant(one, 1):
            return other
        if is_constant(one, -1) and is_float(one.dtype):
            return neg(other)
    return None


add = Function(
    "add", "input other alpha==1", "numbers", python="add", value=np.add, derivative=(1, 1), c="({} + {})",
    macro="PLUS", range=_sum_range)  # fmt: skip
#: The sum of what comes back to an operand on two ways: backward multiplies each with the gradient.
joined = Function("joined", names=None, value=np.add, lower=lambda a, b: a + b)
sub = Function(
    "sub", "input other alpha==1", "no masks", "sub subtract", python="sub", value=np.subtract, derivative=(1, -1),
    c="({} - {})", macro="DIFFERENCE",
    range=lambda y, a, b: Range(True, True, a.nan or b.nan or a.up and b.up or a.down and b.down))  # fmt: skip
mul = Function(
    "mul", "input other", "any", "mul multiply", python="mul", value=np.multiply, rewrite=_product, c="({} * {})",
    derivative=(lambda y, a, b: b, lambda y, a, b: a), range=_product_range)  # fmt: skip
div = Function(
    "div", "input other", names=None, value=np.true_divide, rewrite=lambda a, b: a if is_constant(b, 1) else None,
    derivative=(lambda y, a, b: 1 / b, lambda y, a, b: -(y / b)), c="({} / {})", range=_quotient_range)  # fmt: skip
neg = Function(
    "neg", kind="numbers", names="neg negative", python="neg", value=np.negative, derivative=(-1,), c="(-{})",
    rewrite=lambda a: a.args[0] if a.function is neg else None, free=True,
    range=lambda y, a: Range(a.down, a.up, a.nan, False, a.never_zero))  # fmt: skip
absolute = Function(
    "abs", kind="numbers", names="abs absolute fabs", python="abs", value=np.absolute, c="fabs", free=True,
    rewrite=lambda a: a if a.function is absolute or a.dtype.startswith("uint") else None,
    derivative=lambda y, a: sign(a), lower=lambda a: None if is_float(a.dtype) else select(lt(a, 0), -a, a),
    range=lambda y, a: Range(a.up or a.down, False, a.nan, True, a.never_zero))  # fmt: skip

for _name, _function in (("add", add), ("sub", sub), ("mul", mul), ("div", div), ("truediv", div)):
    setattr(Node, "__{}__".format(_name), lambda a, b, function=_function: function(a, b))
    setattr(Node, "__r{}__".format(_name), lambda a, b, function=_function: function(b, a))
Node.__neg__, Node.__abs__ = (lambda a: neg(a)), (lambda a: absolute(a))


def _sign(a, propagates_nan=False):
    zero, one = constant(0, a.dtype), constant(1, a.dtype)
    minus = constant(0 if a.dtype.startswith("uint") else -1, a.dtype)
    result = select(gt(a, zero), one, select(lt(a, zero), minus, zero))
    return select(ne(a, a), a, result) if propagates_nan and is_float(a.dtype) else result


#: -1, 0 or 1. A NaN's is 0 as PyTorch has it, or NaN as NumPy has it.
numpy_sign = Function(
    "numpy_sign", kind="numbers", names=None, derivative=0, lower=lambda a: _sign(a, True),
    range=lambda y, a: Range(False, False, a.nan))  # fmt: skip
sign = Function(
    "sign", kind="numbers", names="sign sgn", derivative=0, lower=_sign, range=lambda y, a: FINITE, numpy=numpy_sign
)


# ---------------------------------------------------------------- dtypes
def _of_a_float(dtype):
    """x86 makes the least integer of a float that no integer holds. C leaves that open, and gcc makes use of it."""
    least = -(2 ** (width(dtype) - 1))
    cast = Function("cast to " + dtype, names=None, c="((%s){})" % C_TYPES[dtype], result=dtype)

    def lower(a):
        if not is_float(a.dtype):
            return None
        return select(both(ge(a, least), lt(a, -least)), cast(a), constant(least, dtype))

    return lower


def _conversion(dtype):
    return Function(
        "to " + dtype, names=None, c="((%s){})" % C_TYPES[dtype], result=dtype,
        range=lambda y, a: Range(True, True, a.nan),
        derivative=(lambda y, a: constant(1, y.dtype) if is_float(a.dtype) and is_float(y.dtype) else None,),
        lower=_of_a_float(dtype) if dtype in ("int32", "int64") else None)  # fmt: skip


_CONVERSIONS = {dtype: _conversion(dtype) for dtype in sorted(C_TYPES)}


def convert(a, dtype):
    """The same number in another dtype. Floats become int32 or int64 alone."""
    if a.dtype == dtype:
        return a
    if dtype == "bool":
        return ne(a, 0)
    if a.dtype == "bool":
        return select(a, constant(1, dtype), constant(0, dtype))
    return _CONVERSIONS[dtype](a)
