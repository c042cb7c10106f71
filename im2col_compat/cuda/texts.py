"""Kernels' texts: an op's functions, printed as on the CPU, and a tile's sizes, before the templates (*.cu)."""

import io
import os
from collections import namedtuple

from im2col_compat.codegen import print_c
from im2col_compat.codegen.expression import literal
from im2col_compat.compat import dtypes
from im2col_compat.compat.memo import Memo

_HERE = os.path.dirname(os.path.abspath(__file__))
_templates = Memo(20)
#: dtype: the type of tiles in CUDA, which shared memory is read and copied as
_VALUES = {"float32": "float", "float64": "double", "int64": "int64_t"}
_VALUES.update({dtype: "int32_t" for dtype in ("int8", "int16", "int32", "uint8")})
DTYPES = tuple(_VALUES)

_FIELDS = "functions adds fold start least pad dtype element result_dtype planes scalars gradients"


class Code(namedtuple("Code", _FIELDS)):
    """An op's functions in C, and what the templates must be told of them.

    functions: C source of op_term and its like
    adds: the reduction's name; fold: whether it is a function; start, least: what it starts from, in C, or None
    pad: the pad value; None where padded taps are left out
    dtype: of arithmetic; element: of w and x in memory, "float16" or "bfloat16" where that differs; result_dtype
    planes: how many parameters there are with a number for each weight, beside it
    scalars: for each parameter of one number whether it comes as a pointer
    gradients: whether there are any
    """

    __slots__ = ()

    value = property(lambda self: _VALUES[self.dtype])
    sum_dtype = property(lambda self: "float32" if self.result_dtype in dtypes.HALVES else self.result_dtype)

    @property
    def sum(self):
        """The type of sums."""
        return _VALUES[self.sum_dtype]

    @property
    def numpy_value(self):
        """The NumPy dtype of VALUE."""
        return {"float": "float32", "double": "float64"}.get(self.value, self.value[:-2])

    @property
    def numpy_sum(self):
        return {"float": "float32", "double": "float64"}.get(self.sum, self.sum[:-2])


def of_expressions(op, traced, dtype, scalars=(), pointers=(), element=None):
    """The Code of a traced op. scalars: its parameters that are one number for all; pointers: those of its scalars, captured
    ones included, that are read from memory. element: the dtype of operands in memory, if it is a half."""
    apart = op.term.are_scalars(scalars, len(traced.others))
    planes = [name for name, is_scalar in zip(traced.others, apart) if not is_scalar]
    scalars = [name for name, is_scalar in zip(traced.others, apart) if is_scalar]
    operands = [(name, dtype) for name in ["w"] + planes + scalars + ["x"]]
    reduction = op.reduction
    parts = [print_c.c_function("op_term", operands, traced.term, dtype)]
    gradients = traced.grad_w is not None
    if reduction.function is not None:
        kind = dtype if not dtypes.is_integer(dtype) else "int64"
        parts.append(print_c.c_function("op_add", [("acc", kind), ("term", kind)], traced.add, kind))
    result_dtype = reduction.result_dtype(dtype)
    element = element or dtype
    folds = reduction.function is not None
    return Code(
        "".join(parts).replace(print_c.INLINE, "OP_FUNCTION"), reduction.c_name, folds, reduction.start(dtype),
        literal(dtypes.bounds(dtype)[0 if reduction.better == ">" else 1], dtype), op.pad_value_for(dtype), dtype, element,
        element if element in dtypes.HALVES else result_dtype, len(planes),
        tuple(name in pointers for name in scalars), gradients)  # fmt: skip


def template(name):
    """The text of one of the files beside this one."""
    return _templates.get(name, lambda: _read(name))


def _read(name):
    with io.open(os.path.join(_HERE, name), encoding="utf-8") as text:
        return str(text.read())


def _defines(pairs):
    return "".join("#define {} {}\n".format(*pair) for pair in pairs)


def _c_type(dtype):
    return "uint16_t" if dtype in dtypes.HALVES else dtypes.C_TYPES[dtype]


def _conversions(code, split):
    """What the templates are told of types. split: whether results are partial ones."""
    stored = code.sum_dtype if split else code.result_dtype
    result = code.sum if split else _c_type(stored)
    return [
        ("VALUE", code.value),
        ("ELEMENT", _c_type(code.element)),
        ("OF_ELEMENT(v)", "of_{}(v)".format(code.element) if code.element in dtypes.HALVES else "(VALUE)(v)"),
        ("SUM", code.sum),
        ("RESULT", result),
        ("TO_RESULT(v)", "to_{}(v)".format(stored) if stored in dtypes.HALVES else "({})(v)".format(result)),
    ]


def _operands(code):
    """What the templates are told of the weight's parameters."""
    value = code.value
    declared = [
        "const {} {}".format(value, "*at_{}" if at else "{}").format("scalar_%d" % i)
        for i, at in enumerate(code.scalars)
    ]
    taken = ["const {0} scalar_{1} = *at_scalar_{1};".format(value, i) for i, at in enumerate(code.scalars) if at]
    weights = ["left[{}][i]".format(plane) for plane in range(1 + code.planes)]
    weights += ["scalar_{}".format(i) for i in range(len(code.scalars))]
    return [
        ("PLANES", 1 + code.planes),
        ("SCALARS", "".join(", " + one for one in declared)),
        ("TAKE_SCALARS", " ".join(taken)),
        ("WEIGHTS(i)", ", ".join(weights)),
    ]


def _reduction(code, arg):
    exp, log = ("__expf", "logf") if code.dtype == "float32" else ("exp", "log")
    return [
        ("START", code.start or 0),
        ("STARTS", int(code.start is not None)),
        ("LEAST", code.least),
        ("EXP(v)", exp + "(v)"),
        ("LOG(v)", log + "(v)"),
        ("ARG", int(arg)),
        ("ADDS", "ADD_" + code.adds.upper()),
    ]


def _text(defines, functions, *templates):
    return template("prelude.cu") + _defines(defines) + functions + "".join(template(name) for name in templates)


def gather(code, tile, deep, left_out, split, arg):
    """The kernel `gather`, of results."""
    defines = zip("TILE_ROWS TILE_POSITIONS DEPTH ROWS POSITIONS BLOCKS".split(), tile)
    defines = list(defines) + _conversions(code, split) + _operands(code) + _reduction(code, arg)
    defines += [("DEEP", int(deep)), ("LEFT_OUT", int(left_out))]
    return _text(defines, code.functions, "reduce.cu", "gather.cu")


def pack(code):
    """The kernel `pack`, of weights."""
    return _text(_conversions(code, False), "", "pack.cu")


def join(code, arg):
    """The kernel `join`, of splits' results."""
    return _text(_conversions(code, False) + _reduction(code, arg), "", "reduce.cu", "join.cu")
