"""Op: a replaceable dot product, a term and a reduction."""

import itertools
import numbers
import uuid
import weakref

from im2col_compat import reductions
from im2col_compat.codegen import evaluate, once
from im2col_compat.compat import dtypes, graphs
from im2col_compat.paths import choose
from im2col_compat.terms import kinds, table_sources
from im2col_compat.terms.c_text import CText

_process, _numbers = uuid.uuid4().hex, itertools.count()
NAMED = {}  # the named ops; ops.py fills it
by_token = weakref.WeakValueDictionary()
#: The arguments of Op, in order, and what each is if it isn't given.
DEFAULTS = (
    ("multiply", None), ("add", "sum"), ("identity", None), ("pad_value", 0), ("grad_w", None), ("grad_x", None),
    ("normalize_grad_w", None), ("name", None), ("grad_params", None))  # fmt: skip


class Op(object):
    """A dot product: add over k of multiply(w[k], x[k]).

    multiply may have parameters after w and x: ``Op(lambda w, x, t: t * abs(w - x))``. conv2d and its like take them by
    name, params={"t": a tensor that broadcasts with the weight, or a number}, and so do layers, which own them. They
    have gradients, first and second. One with a default need not be given.

    multiply(w, x): a function of two tensors, or of two NumPy arrays, w from the weight. It works element by element on
        operands that broadcast, returns their dtype (bool is welcome for integers), and is pure: it may be called any
        number of times.
    add: "sum", "max", "min", "prod", "logsumexp", or a function add(acc, term) of two tensors of one shape, applied in
        the order of k (channel, kernel row, kernel column). Sums and products of integer terms are int64, as are the
        terms that a function `add` gets; max and min keep the dtype; logsumexp of integers is a TypeError. NaN
        propagates.
    identity: what an `add` function starts from; by default the first term.
    pad_value: what conv2d pads its input with, a number. None leaves padded taps out altogether. A pad value that an
        integer dtype can't hold is a ValueError, but an infinite one means None there.
    grad_w(w, x), grad_x(w, x): used instead of d multiply / dw and d multiply / dx, as for straight-through estimators.
        A second derivative differentiates them in turn. They get the parameters by name that they take.
    normalize_grad_w: None, or a number eta: the finished gradient g of a weight of n elements is scaled to
        eta * sqrt(n) / |g| * g, the adaptive learning rate of AdderNet (arXiv 1912.13200, section 3.3; its published
        code has eta = 0.2).
    name: what messages call it.
    grad_params: {name of a parameter: function}, used instead of the derivatives for parameters.

    Raises TypeError or ValueError for arguments that aren't these.
    """

    def __init__(
        self, multiply, add="sum", identity=None, pad_value=0, grad_w=None, grad_x=None, normalize_grad_w=None,
        name=None, grad_params=None
    ):  # fmt: skip
        for argument, value in (("multiply", multiply), ("grad_w", grad_w), ("grad_x", grad_x)):
            if not callable(value) and (value is not None or argument == "multiply"):
                raise TypeError("Op(): {} must be a function of two tensors, but got {!r}".format(argument, value))
        self.reduction = reductions.of(add, identity)
        values = ("identity", identity), ("pad_value", pad_value), ("normalize_grad_w", normalize_grad_w)
        for argument, value in values:
            if not (value is None or isinstance(value, numbers.Number)):
                raise TypeError("Op(): {} must be a number or None, but got {!r}".format(argument, value))
            if isinstance(value, numbers.Rational) and abs(value) > dtypes.LARGEST:
                raise ValueError("Op(): {} must be a number that a float64 can hold".format(argument))
        self.term = kinds.of(multiply, grad_w, grad_x, grad_params)
        for argument, value in self.term.grad_params.items():
            if argument not in dict(self.term.arguments) or not callable(value):
                text = "Op(): grad_params must have functions for parameters of multiply, {}, but got {!r}: {!r}"
                raise TypeError(text.format([name for name, _ in self.term.arguments], argument, value))
        self.pad_value, self.normalize_grad_w, self.name = pad_value, normalize_grad_w, name
        self._padding = {}  # what padding_with() made
        self.mark = None  # of codegen.fingerprint, when it was last looked at
        # No other op's. torch.compile compares texts, where it takes one object for another of its type.
        self.token = "{} {}".format(_process, next(_numbers))
        if not graphs.breakable():  # where it is made inside a graph, nobody can find it
            by_token[self.token] = self

    multiply = property(lambda self: self.term.multiply)
    add = property(lambda self: self.reduction.add)
    identity = property(lambda self: self.reduction.identity)
    grad_w = property(lambda self: self.term.grad_w)
    grad_x = property(lambda self: self.term.grad_x)
    grad_params = property(lambda self: self.term.grad_params or None)

    @classmethod
    def from_c(
        cls, multiply, add="sum", identity=None, pad_value=0, grad_w=None, grad_x=None, params=(), grad_params=None
    ):  # fmt: skip
        """An op written as C expressions: ``Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x=...)``.

        multiply, grad_w, grad_x: expressions in w and x. Functions go by their names in <tgmath.h> (fabs, exp, fmax),
            so that one text serves float and double. Integers wrap; their division truncates, and by zero it is a
            RuntimeError.
        add: "sum", "max", "min", "prod", "logsumexp", or an expression in acc and term; "acc + term" is "sum".
        identity: a number, or its text. An expression `add` starts from it, by default from the first term.
        pad_value: as for Op.
        params: the names of parameters, which the expressions use beside w and x.
        grad_params: {name: expression}; with grad_w and grad_x, each parameter needs one to have a gradient.

        Only compiled kernels evaluate such an op: where they can't, it is a RuntimeError. Without grad_w and grad_x, or
        with an expression `add`, it has no gradient.

        Raises TypeError or ValueError for arguments that aren't these. Expressions are compiled when the op is first
        used. What the compiler refuses is a RuntimeError with its message.
        """
        if isinstance(identity, str):
            try:
                identity = float(identity.replace("INFINITY", "inf"))
            except ValueError:
                raise ValueError("Op.from_c(): identity must be a number, but got {!r}".format(identity))
        if (grad_w is None) != (grad_x is None):
            raise ValueError("Op.from_c(): grad_w and grad_x go together, but got {!r} and {!r}".format(grad_w, grad_x))
        if reductions.is_sum(add) and identity in (None, 0):
            add, identity = "sum", None
        if add not in reductions.ADDS:
            add = CText("add", add)
        grads = [None if text is None else CText(name, text) for name, text in (("grad_w", grad_w), ("grad_x", grad_x))]
        of_params = {name: CText("grad_params", text) for name, text in (grad_params or {}).items()}
        return cls(CText("multiply", multiply, params), add, identity, pad_value, *grads, grad_params=of_params)

    @classmethod
    def from_table(cls, table, signed=None, bits=None, name=None, pad_value=0, add="sum", identity=None):
        """An op whose products are looked up, for approximate multipliers: the sum of ``table[w, x]``.

        It takes integer tensors (of any integer dtypes, which may differ) and gives exact int64 sums, or for a table of
        floats float32.
        table: one of
        - integers, or floats, in a NumPy array or a tensor of 2**a rows, one for each w, and 2**b columns, one for each
          x, a and b from 1 to 8. Signed operands index as they index NumPy arrays, and as their bits do: the last row
          is -1's.
        - the name of a file that has these: ``.npy``; ``.bin``, as tf-approximate's, entries of 16 or 32 bits; else
          text, a row a line (``.csv``, ``.txt``)
        - the name of a C file (``.c``, ``.h``), or C source itself, with a function of two integers as EvoApproxLib
          publishes them, ``int16_t mul8s_1KVB(int8_t w, int8_t x)``, or with a table ``lut[256][256] = {...}``
        - a Python function of two ints, which returns an int or a float
        signed: whether operands are; a bool, or a pair for w and x. By default as the name of a C function, or of the
            file, says (mul8s_1KVB), or the types of a C function's operands. Where none of these does, it must be said
            for C and ``.bin``; other operands are unsigned.
        bits: of the operands of a function, 1 to 8, an int or a pair for w and x; by default 8, or as the name says.
        name: which of several functions or tables in C.
        pad_value: what conv2d pads with, an operand that x may have; None leaves padded taps out.
        add, identity: as for Op. A function gets entries of int64, or of float32. An accumulator of 16 bits that
            saturates is ``add=lambda acc, term: (acc + term).clip(-2**15, 2**15 - 1), identity=0``.

        There are no gradients: see QuantConv2d. conv2d and its like raise TypeError for operands that aren't integers, and
        ValueError for operands that the table has no entry for.

        Raises
        ValueError: for a table of another shape, with entries beyond 32 bits, or of operands that may be signed or not.
        TypeError: for entries that aren't numbers.
        RuntimeError: where C can't be compiled.
        """
        return cls(table_sources.of(table, signed, bits, name), add, identity, pad_value)

    def explain(self, dtype="float32", device="cpu"):
        """How conv2d, linear and matmul evaluate this op for operands of a dtype (its name) on a device, as text.

        That is the path, the reason for it, and the C of the op's functions. Compiles them for a CPU where that is
        needed.

        dtype: the name of the operands' dtype.
        device: "cpu", "cuda", or what PyTorch calls another. Where kernels for a GPU lack something, the text says what to
            install.
        """
        return choose.explain(self, dtype, device)

    def replace(self, **changes):
        """This op with some of the constructor's arguments changed: ``ops.adder.replace(normalize_grad_w=0.2)``.

        Raises TypeError for other arguments, and what the constructor raises.
        """
        arguments = dict(self._arguments(), name=None)
        unknown = sorted(set(changes) - set(arguments))
        if unknown:
            raise TypeError("Op.replace(): no argument {}; there are {}".format(unknown, sorted(arguments)))
        return Op(**dict(arguments, **changes))

    def padding_with(self, value):
        """What this op is to parts of a convolution: it pads with `value`, and leaves a weight's gradient as it is."""
        if self.pad_value is value and self.normalize_grad_w is None or self.is_dot:
            return self
        if value not in self._padding:
            new = Op(**dict(self._arguments(), pad_value=value, normalize_grad_w=None))
            self._padding[value] = new.with_parameters(self.term.names)
        return self._padding[value]

    def _arguments(self):
        return {argument: getattr(self, argument) for argument, _ in DEFAULTS}

    def with_parameters(self, names):
        """This op, whose functions are called with these of the parameters: all without defaults, and others given."""
        if names == self.term.names:
            return self
        new = Op(**self._arguments())
        new.term.names = names
        return new

    def of_expressions(self, traced):
        """This op as tensor operations compute what was traced of it: what its functions capture is parameters, too."""
        functions = evaluate.of(traced, [surrogate is not None for surrogate in self.term.surrogates])
        return Op(**dict(dict(self._arguments(), name=None), **functions))

    def left(self, split, pad_value):
        """The op that is left of this one when parts of its term are computed before, a codegen.once.Split."""
        return Op(once.Left(split, self.multiply), self.add, self.identity, pad_value, name=repr(self))

    @property
    def is_named(self):
        """Whether this is one of the named ops. Others may have been given a name, too."""
        return NAMED.get(self.name) is self

    @property
    def is_dot(self):
        """Whether this is "dot", the sum of products that PyTorch and NumPy have themselves."""
        return NAMED.get("dot") is self

    def result_dtype(self, dtype):
        """The dtype (its name) of a dot product of operands of `dtype`."""
        return dtype if self.is_dot else self.reduction.result_dtype(self.term.result_dtype(dtype))

    def pad_value_for(self, dtype):
        """The pad value for a dtype's name; None where padded taps are left out."""
        value = self.pad_value
        if value is None or not dtypes.is_integer(dtype):
            return value
        if value in (float("inf"), -float("inf")):
            return None
        low, high = self.term.pad_limits(dtype)
        if isinstance(value, complex) or value != value or int(value) != value or not low <= value <= high:
            raise ValueError("{}: {} can't hold pad_value={!r}".format(self, dtype, value))
        return int(value)

    def __repr__(self):
        if self.name:
            return self.name
        shown = [_shown(self.multiply), "add={}".format(_shown(self.add))]
        for argument, default in DEFAULTS[2:-1]:
            value = getattr(self, argument)
            if value != default:
                shown.append("{}={}".format(argument, _shown(value)))
        return "Op({})".format(", ".join(shown))

    def __fx_create_arg__(self, tracer):
        """What torch.fx puts into its graphs: a name, or an attribute of the module that is traced."""
        if self.is_named:
            return self.name
        attribute = "_op_" + self.token.replace(" ", "_")
        setattr(tracer.root, attribute, self)
        return tracer.create_node("get_attr", attribute, (), {})

    def __reduce_ex__(self, protocol):
        # A named op unpickles to itself, so that `op is ops.dot` goes on holding.
        return (resolve, (self.name,)) if self.is_named else super(Op, self).__reduce_ex__(protocol)

    def __getstate__(self):
        return self._arguments()

    def __setstate__(self, arguments):
        self.__init__(**arguments)


def _shown(value):
    return getattr(value, "__name__", None) or repr(value)


def resolve(op):
    """An Op from what users pass as `op`: a name, an Op, or a function of two tensors (its terms are summed)."""
    if isinstance(op, Op):
        return op
    if callable(op):
        return Op(op)
    try:
        return NAMED[op]
    except (KeyError, TypeError):
        message = "op must be an Op, a function of two tensors, or one of {}, but got {!r}".format(sorted(NAMED), op)
        raise (ValueError if hasattr(op, "lower") else TypeError)(message)
