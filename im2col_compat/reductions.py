"""How the K terms of one result become one. A new reduction is one more class here, and its place in the C template."""

from im2col_compat import lowlevel
from im2col_compat.codegen.print_c import literal
from im2col_compat.compat import dtypes, graphs
from im2col_compat.compat.arrays import TORCH
from im2col_compat.compat.autograd import new_style
from im2col_compat.compat.probes import Function, torch

BLOCK = 512  # terms summed in one go: blocks of sums keep long sums accurate where sum() is a plain loop
MOST_FOLDED = 32768  # terms of one result up to which C differentiates a user's add: it keeps them all


class Reduction(object):
    """What every reduction says. Here are the answers that most of them give. Dtypes go by their names.

    add is what Op takes for it, a word or a function. start(dtype) is what C starts from, None for the first term.
    of_no_terms(op, dtype) is the result where there is no term.
    """

    function = identity = None  # the user's add, and what it starts from
    in_order = True  # whether the order of terms says more than how a result is rounded
    most_taps = None  # terms of one result up to which C gives the gradients; None for any number
    fuses_products = False  # whether a term that is a product may be added by fused multiply-adds
    finite_grads = finite_terms = False  # whether C has variants of gradients, and of terms, for finite operands
    scales = False  # whether terms times a number give the result times that number, as is supposed of a user's add
    adds = False  # whether it is a sum, from which may be subtracted what its terms have too much; supposed as well
    saves_result = False  # whether C's gradients need the result
    cuda_reads = ()  # what CUDA's gradients read of each result, beside its gradient: "saved", a number, and "arg", an int
    c_adds = ()  # what the C template's add is, where no function says so: names, parameters, text
    better = "<"  # how C compares a term with the best one so far
    grad_calls = lowlevel.GRAD_X, lowlevel.GRAD_W  # the C calls for the gradients of x and of w

    @property
    def c_name(self):
        """What the C template calls it."""
        return self.add

    def result_dtype(self, dtype):
        """The dtype of the result of terms of a dtype."""
        return "int64" if dtypes.is_integer(dtype) else dtype

    def block_dtype(self, dtype):
        """The dtype in which C adds up a block of terms made of a dtype."""
        return self.result_dtype(dtype)

    def evaluate(self, op, arrays, weights, x, axis, absent):
        """The reduction along `axis` of op's terms of weights and x, without that axis, by tensor operations.

        absent: non-zero where a term is left out, of a shape that broadcasts to the terms'; None if nowhere.
        """
        terms = op.term.evaluate(op, arrays, weights, x)
        if absent is not None:
            terms = arrays.fill(terms, absent, self.of_no_terms(op, arrays.dtype(terms)))
        return self.combine(arrays, terms, axis)

    def in_graph(self, op, found, weights, x, axis, absent):
        """The same for a graph, whatever the sizes, which may be symbols. found: the op as terms.function.Standard."""
        terms = found.terms(weights, x)
        if absent is not None:
            terms = torch.where(absent, self.of_no_terms(op, TORCH.dtype(terms)), terms)
        return self.combine(TORCH, terms, axis)

    def held(self, size, terms, filters):
        """How many bytes of one result's terms, of `size` bytes each, a forward holds at a time, and a backward."""
        return size * terms, size * terms

    def calls_of(self, arrays, result):
        """The C calls for the gradients of x and of w. result: what forward gave, if the reduction saves it."""
        return self.grad_calls

    def calls(self, needs_w, needs_x, arrays=None, result=None):
        """(call, whether it gives dw, whether it gives dx) of each C call for the gradients that are needed."""
        of_x, of_w = self.calls_of(arrays, result)
        if needs_w and needs_x and (of_x, of_w) == (lowlevel.GRAD_X, lowlevel.GRAD_W):
            return [(lowlevel.GRADS, True, True)]
        # One at a time: tasks of dx share no pixels, tasks of dw share no weights.
        calls = (needs_x, of_x, False, True), (needs_w, of_w, True, False)
        return [call[1:] for call in calls if call[0]]

    def is_finite(self, pad):
        """C that tells whether a value v can't make a term infinite or NaN."""
        return "(v) - (v) == 0"


class Sum(Reduction):
    add = "sum"
    in_order = False
    fuses_products = finite_grads = scales = adds = True

    def block_dtype(self, dtype):
        # int32 holds the sum of a block of narrow integers.
        narrow = dtypes.is_integer(dtype) and dtypes.ITEMSIZE[dtype] < 4
        return "int32" if narrow else self.result_dtype(dtype)

    def of_no_terms(self, op, dtype):
        return 0

    def start(self, dtype):
        return "0"

    def combine(self, arrays, terms, axis):
        dtype = arrays.dtype(terms)
        if dtypes.is_integer(dtype):
            return arrays.sum(terms if dtype == "int64" else arrays.cast(terms, "int64"), axis)
        if dtype in dtypes.HALVES:
            return arrays.cast(self.combine(arrays, arrays.cast(terms, "float32"), axis), dtype)
        count = terms.shape[axis]
        if count <= BLOCK:
            return arrays.sum(terms, axis)
        before = (slice(None),) * axis
        blocks = [arrays.sum(terms[before + (slice(i, i + BLOCK),)], axis) for i in range(0, count, BLOCK)]
        return arrays.sum(arrays.stack(blocks), 0)


class Extremum(Reduction):
    """max and min: the gradient goes to the first k that attains the result, and NaN propagates."""

    finite_terms = scales = True
    cuda_reads = ("arg",)
    grad_calls = lowlevel.GRAD_EXTREMUM, lowlevel.GRAD_EXTREMUM

    def __init__(self, add, better, loser):
        # loser: which of a dtype's bounds never wins
        self.add, self.better, self._loser = add, better, loser

    def result_dtype(self, dtype):
        return dtype

    def of_no_terms(self, op, dtype):
        return dtypes.bounds(dtype)[self._loser]

    def start(self, dtype):
        return literal(self.of_no_terms(None, dtype), dtype)

    def combine(self, arrays, terms, axis):
        return getattr(arrays, self.add)(terms, axis)

    def calls(self, needs_w, needs_x, arrays=None, result=None):
        return [(lowlevel.GRAD_EXTREMUM, needs_w, needs_x)]

    def is_finite(self, pad):
        # Dilations and erosions pad with infinity, which makes NaN with the other infinity alone.
        if pad in (float("inf"), -float("inf")):
            return "(v) < (ELEMENT)INFINITY" if pad < 0 else "(v) > -(ELEMENT)INFINITY"
        return super(Extremum, self).is_finite(pad)


class Product(Reduction):
    """The product of all terms. The product of the others is the result divided by a term, as in torch.prod. Where a
    result is 0, or nearly, it has lost that: then C differentiates the product as it does a user's add."""

    add = "prod"
    saves_result, in_order = True, False
    cuda_reads = ("saved", "arg")
    c_adds = (
        ("op_add", ("acc", "term"), "acc * term"),
        ("op_add_acc", ("g", "acc", "term"), "g * term"),
        ("op_add_term", ("g", "acc", "term"), "g * acc"),
    )
    most_taps = MOST_FOLDED

    def of_no_terms(self, op, dtype):
        return 1

    def start(self, dtype):
        return "1"

    def combine(self, arrays, terms, axis):
        dtype = arrays.dtype(terms)
        if dtype in dtypes.HALVES:
            return arrays.cast(arrays.prod(arrays.cast(terms, "float32"), axis), dtype)
        return arrays.prod(arrays.cast(terms, "int64") if dtypes.is_integer(dtype) else terms, axis)

    def calls_of(self, arrays, result):
        lost = arrays.has_below(result, dtypes.least(arrays.dtype(result)))
        return (lowlevel.GRAD_FOLD, lowlevel.GRAD_FOLD) if lost else self.grad_calls


class LogSumExp(Reduction):
    """log(sum(exp(term))). C measures exponentials by the greatest term so far, tensor operations by that of all."""

    add = "logsumexp"
    saves_result, in_order = True, False
    cuda_reads = ("saved",)

    def result_dtype(self, dtype):
        if dtypes.is_integer(dtype):
            raise TypeError('add="logsumexp" takes floats, but the terms are {}'.format(dtype))
        return dtype

    def of_no_terms(self, op, dtype):
        return -float("inf")

    def start(self, dtype):
        return "-INFINITY"

    def combine(self, arrays, terms, axis):
        dtype = arrays.dtype(terms)
        if dtype in dtypes.HALVES:
            return arrays.cast(self.combine(arrays, arrays.cast(terms, "float32"), axis), dtype)
        self.result_dtype(dtype)
        if arrays.logsumexp is not None:
            return arrays.logsumexp(terms, axis)
        most = arrays.scale(terms, axis)
        return arrays.log(_SUM.combine(arrays, arrays.exp(terms - arrays.unsqueeze(most, axis)), axis)) + most


class Fold(Reduction):
    """A user's add: an ordered left fold from the identity, or from the first term. Integer terms come as int64."""

    c_name = "fold"
    scales = adds = True
    most_taps = MOST_FOLDED
    grad_calls = lowlevel.GRAD_FOLD, lowlevel.GRAD_FOLD

    def __init__(self, function, identity):
        self.add = self.function = function
        self.identity = identity

    def of_no_terms(self, op, dtype):
        if self.identity is None:
            raise RuntimeError("{}: there is no term to add, and no identity to return instead".format(op))
        return self.identity

    def start(self, dtype):
        if self.identity is None:
            return None
        return literal(int(self.identity) if dtypes.is_integer(dtype) else self.identity, self.result_dtype(dtype))

    def in_graph(self, op, found, weights, x, axis, absent):
        if absent is not None and self.identity is None:
            text = "{} can't be exported as standard operators: terms may be left out, and its add has no identity"
            raise RuntimeError(text.format(op))
        before, acc = (slice(None),) * axis, None
        for k in range(x.shape[axis]):
            term = found.terms(tuple(w[before + (k,)] for w in weights), x[before + (k,)])
            term = TORCH.cast(term, "int64") if dtypes.is_integer(TORCH.dtype(term)) else term
            if acc is None and self.identity is not None:
                acc = TORCH.full(term, (1,) * term.dim(), self.identity)
            total = term if acc is None else found.add(acc, term)
            acc = total if absent is None else torch.where(absent[before + (k,)], acc, total)
        return acc

    def held(self, size, terms, filters):
        # A forward holds one term at a time, and the columns, which the filters share. A backward makes many small
        # steps, so it may take a larger share of the memory.
        return size * max(4, -(-terms // filters)), max(1, size * terms // 4)

    def evaluate(self, op, arrays, weights, x, axis, absent):
        # Term by term: all of them at once would leave room for few results in one block, and each step costs a call.
        before = (slice(None),) * axis
        acc, started, gone = None, None, None
        # One part at a time: Python 2's zip() would make a list of them all.
        parts_of_weights = [iter(_unbind(arrays, w, axis)) for w in weights]
        for k, x_part in enumerate(_unbind(arrays, x, axis)):
            w_part = tuple([next(parts) for parts in parts_of_weights])
            if k == 0:
                multiply = op.term.multiplier(op, arrays, w_part, x_part)
            term = multiply(w_part, x_part)
            if k == 0:
                widens = dtypes.is_integer(arrays.dtype(term))
            if widens:
                term = arrays.cast(term, "int64")
            if absent is not None:
                gone = arrays.expand(absent[before + (k,)], term.shape)
            if k == 0 and self.identity is not None:
                acc = arrays.tensor(arrays.full(term, term.shape, self.identity))
            if acc is None:
                # A function may return its operand itself, but results are new.
                acc, started = arrays.copy(term), None if gone is None else gone == 0
                continue
            total = self.function(acc, term) if k > 1 else self.added(op, arrays, acc, term)
            if gone is not None:
                total = arrays.where(gone, acc, total)
                if started is not None:
                    # Up to the first tap that is there, acc is no sum of anything yet.
                    total = arrays.where(started == 0, term, total)
                    started = arrays.where(gone, started, gone == 0)
            acc = total
        if started is not None and not bool(started.all()):
            self.of_no_terms(op, arrays.dtype(acc))
        return acc

    def added(self, op, arrays, acc, term):
        """function(acc, term), in the shape and dtype that it must have."""
        total = self.function(acc, term)
        if not arrays.owns(total):
            message = "{}: add must return one of the {}, but returned {}"
            raise TypeError(message.format(op, arrays.name, type(total).__name__))
        expected, found = [(tuple(t.shape), arrays.dtype(t)) for t in (acc, total)]
        if found != expected:
            message = "{}: add must return what it is given, shape {} and dtype {}, but returned shape {} and dtype {}"
            raise RuntimeError(message.format(op, *(expected + found)))
        return total


_SUM = Sum()
_WORDS = (_SUM, Extremum("max", ">", 0), Extremum("min", "<", 1), Product(), LogSumExp())
#: What Op takes for these, in the order in which messages name them.
ADDS = tuple(reduction.add for reduction in _WORDS)


def of(add, identity):
    """The reduction of Op's arguments add and identity. ValueError where add is neither a function nor a known word."""
    if callable(add):
        return Fold(add, identity)
    if add not in ADDS:
        raise ValueError("Op(): add must be one of {} or a function, but got {!r}".format(ADDS, add))
    if identity is not None:
        raise ValueError("Op(): identity is for an add function; {!r} has its own".format(add))
    return _WORDS[ADDS.index(add)]


def is_sum(text):
    """Whether a C expression of acc and term means "sum"."""
    return isinstance(text, str) and text.replace(" ", "") in ("acc+term", "term+acc")


def _unbind(arrays, terms, axis):
    """The parts of an operand along an axis."""
    if arrays is TORCH and terms.requires_grad and not graphs.in_forward_mode():
        return _Unbind.apply(terms, axis)
    return (terms[(slice(None),) * axis + (k,)] for k in range(terms.shape[axis]))


@new_style
class _Unbind(Function):
    """The same, with a gradient that is put together once. Indexing's fills a tensor as large as all parts for each."""

    generate_vmap_rule = True

    @staticmethod
    def forward(terms, axis):
        return tuple(terms.select(axis, k).clone() for k in range(terms.shape[axis]))

    @staticmethod
    def setup_context(ctx, inputs, outputs):
        ctx.axis = inputs[1]

    @staticmethod
    def backward(ctx, *grads):
        return torch.stack(grads, ctx.axis), None
