"""What every kind of term says."""

from im2col_compat.compat import dtypes


class Term(object):
    """One number out of one weight and one input: multiply(w, x), and what differentiates it.

    A kind of term is a subclass. It says which `multiply` it `takes`, and answers the questions below; nobody else asks
    what kind a term is. `op` is the Op that the term belongs to: its reduction, its pad value, its name in messages.
    """

    #: Whether C kernels alone can evaluate it.
    only_kernels = False
    #: Whether w and x may be of different dtypes.
    mixes_dtypes = False
    #: Whether products are looked up, so that operands are codes: what quantized layers need.
    looks_up = False

    def __init__(self, multiply, grad_w=None, grad_x=None):
        self.multiply, self.grad_w, self.grad_x = multiply, grad_w, grad_x

    @staticmethod
    def takes(multiply):
        """Whether this kind of term is what Op's argument `multiply` means."""
        raise NotImplementedError

    def operands(self, arrays, function, w, x):
        """(w, x) as the paths take them, from pairs (name, value)."""
        return w[1], x[1]

    def result_dtype(self, dtype):
        """The dtype of the terms of operands of a dtype, by their names."""
        return dtype

    def pad_limits(self, dtype):
        """The least and the greatest integer that an input of an integer dtype may be padded with."""
        return dtypes.limits(dtype)

    def kernels(self, op, dtype, arrays, level):
        """(Kernels, None) for operands of a dtype, or (None, the reason why there are none)."""
        raise NotImplementedError

    def prepared(self, op, arrays, w, x, w_broadcast, x_broadcast):
        """(op, w, x, captures) for tensor operations: the op in a form that takes such operands, the operands as its
        functions take them, and whether its functions capture a tensor that requires grad."""
        return op, w, x, False

    def evaluate(self, op, arrays, w, x):
        """The terms of operands that broadcast, by tensor operations; differentiable."""
        raise NotImplementedError

    def multiplier(self, op, arrays, w, x):
        """A function (w, x) that gives the terms of operands like w and x."""
        return lambda w, x: self.evaluate(op, arrays, w, x)

    def recordable(self, op, dtype):
        """Whether a graph may record the op as an operator: its functions capture no tensor, which would get no gradient."""
        return False

    def explained(self, op, dtype, arrays, kernels):
        """The op's functions in C, as text."""
        return kernels.texts.functions
