"""Terms of Op.from_c: C expressions, which only compiled kernels evaluate."""

from im2col_compat.codegen import divisions, kernels, template
from im2col_compat.compat import dtypes
from im2col_compat.cuda import texts as gpu_texts
from im2col_compat.terms.function import GPU, Function, cannot_export


class CText(object):
    """A function that Op.from_c was given as a C expression."""

    #: For codegen.fingerprint: it does the same at each call.
    is_constant = True
    names = ()  # of parameters; what 0.5.0 saved has none

    def __init__(self, argument, text, names=()):
        # It is spliced into C, where it must stay one expression.
        if not hasattr(text, "lower"):
            raise TypeError("Op.from_c(): {} must be a C expression as text, but got {!r}".format(argument, text))
        if not text.strip() or any(character in text for character in ";{}#\\\n\"'"):
            raise ValueError("Op.from_c(): {} must be a single C expression, but got {!r}".format(argument, text))
        self.text, self.names = str(text), tuple(names)
        try:
            divisions.guarded(self.text)
        except ValueError as error:
            message = "Op.from_c(): {} must be a C expression that can be evaluated, but {!r} doesn't do: {}"
            raise ValueError(message.format(argument, text, error))

    def __call__(self, *_, **__):
        raise RuntimeError(
            "{!r} is C, which tensor operations can't evaluate: it needs a C compiler and CPU tensors of a float or"
            " integer dtype, or NVRTC and CUDA tensors of a float dtype; no engine that is forced, and no second"
            " derivative".format(self.text)
        )

    def __repr__(self):
        return repr(self.text)

    def __eq__(self, other):
        return isinstance(other, CText) and (other.text, other.names) == (self.text, self.names)

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash((self.text, self.names))


class CTerm(Function):
    only_kernels = True

    @staticmethod
    def takes(multiply):
        return isinstance(multiply, CText)

    def found(self, op, dtype, arrays, level, scalars=()):
        reason = kernels.unfit(op, dtype)
        if reason is not None:
            return None, reason
        return kernels.compiled(template.of_texts(op, dtype, scalars), dtype, level, repr(op))

    def gpu_found(self, op, dtype, make, scalars=()):
        reason = kernels.unfit(op, dtype)
        if reason is None and dtypes.is_integer(dtype):
            reason = "C texts of integers are compiled for CPUs alone"
        if reason is not None:
            return None, reason
        found, reason = make(op, None, dtype, GPU, scalars)
        return found._replace(made=gpu_texts.of_texts(op, dtype, scalars)), reason

    def in_graph(self, op, dtype):
        raise cannot_export(op, "it is C, which only kernels evaluate; as a Python function it may be exported")

    def is_recordable(self, op, dtype):
        return True
