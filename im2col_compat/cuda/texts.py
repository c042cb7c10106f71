"""Kernels' texts: an op's functions, printed as on the CPU, and a tile's sizes, before the templates (*.cu)."""

import io
import os
import re
from collections import namedtuple

from im2col_compat.codegen import print_c, ranges
from im2col_compat.codegen.derive import times
from im2col_compat.codegen.expression import constant, gt, is_constant, literal, lt, node, operand, postorder, select
from im2col_compat.compat import dtypes
from im2col_compat.compat.memo import Memo

_HERE = os.path.dirname(os.path.abspath(__file__))
_templates = Memo(20)
#: dtype: the type of tiles in CUDA, which shared memory is read and copied as
_VALUES = {"float32": "float", "float64": "double", "int64": "int64_t"}
_VALUES.update({dtype: "int32_t" for dtype in ("int8", "int16", "int32", "uint8")})
DTYPES = tuple(_VALUES)
_NUMPY = {"float": "float32", "double": "float64", "int32_t": "int32", "int64_t": "int64"}
#: What a kernel writes.
RESULTS, PARTIAL, GRADIENTS, PARTIAL_GRADIENTS = "results", "partial", "gradients", "partial gradients"

_FIELDS = "term add grads safe adds reads start least pad dtype element result_dtype planes scalars"


class Code(namedtuple("Code", _FIELDS)):
    """An op's functions in C, and what the templates must be told of them.

    term, add: C source of op_term, and of the op_add of a function, else ""
    grads: C source of op_grad with respect to x, to w, and to each parameter, those beside the weight first; () if
        there are none
    safe: whether op_grad with respect to x is 0 for a gradient of 0, whatever the operands
    adds: the reduction's name; reads: what its gradients read of each result, beside its gradient: "saved", "arg"
    start, least: what a function starts from, in C, or None; what doesn't win against anything
    pad: the pad value; None where padded taps are left out
    dtype: of arithmetic; element: of w and x in memory, "float16" or "bfloat16" where that differs; result_dtype
    planes: how many parameters there are with a number for each weight, beside it
    scalars: for each parameter of one number whether it comes as a pointer
    """

    __slots__ = ()

    value = property(lambda self: _VALUES[self.dtype])
    sum_dtype = property(lambda self: "float32" if self.result_dtype in dtypes.HALVES else self.result_dtype)

    #: The type of sums.
    sum = property(lambda self: _VALUES[self.sum_dtype])
    #: NumPy's names of VALUE, SUM, ELEMENT and RESULT; halves are the integers of their bits.
    numpy_value = property(lambda self: _NUMPY[self.value])
    numpy_sum = property(lambda self: _NUMPY[self.sum])
    numpy_element = property(lambda self: _bits(self.element))
    numpy_result = property(lambda self: _bits(self.result_dtype))


def _bits(dtype):
    return "uint16" if dtype in dtypes.HALVES else dtype


def of_expressions(op, traced, dtype, scalars=(), pointers=(), element=None):
    """The Code of a traced op.

    scalars: its parameters that are one number for all; pointers: those of its scalars, captured ones included, that
    are read from memory; element: the dtype of operands in memory, if it is a half.
    """
    apart = op.term.are_scalars(scalars, len(traced.others))
    planes = [name for name, is_scalar in zip(traced.others, apart) if not is_scalar]
    scalars = [name for name, is_scalar in zip(traced.others, apart) if is_scalar]
    operands = [(name, dtype) for name in ["w"] + planes + scalars + ["x"]]
    reduction, grads, safe, add = op.reduction, (), False, ""
    if traced.grad_w is not None:
        of_others = dict(zip(traced.others, traced.grad_others))
        partials = [traced.grad_x, traced.grad_w] + [of_others[name] for name in planes + scalars]
        products = [times(operand("g", dtype), each) for each in partials]
        grads = tuple(
            _function("op_grad", [("g", dtype)] + operands, _with_signs(each), dtype)
            for each in products
        )
        anything = dict.fromkeys([name for name, _ in operands], (True, True, True))
        safe = ranges.never_nan(products[0], dict(anything, g=(False, False, False)))
    if reduction.function is not None:
        kind = "int64" if dtypes.is_integer(dtype) else dtype
        add = _op_add(traced.add, kind)
    element, result_dtype = element or dtype, reduction.result_dtype(dtype)
    least = "0" if add else literal(reduction.of_no_terms(op, dtype), dtype)
    term = _function("op_term", operands, traced.term, dtype)
    return Code(
        term, add, grads, safe, reduction.c_name, reduction.cuda_reads, reduction.start(dtype), least,
        op.pad_value_for(dtype), dtype, element, element if element in dtypes.HALVES else result_dtype, len(planes),
        tuple(name in pointers for name in scalars))  # fmt: skip


def of_lookups(op, add, dtype):
    """The Code, but for the pad value, of an op whose terms, of a dtype, are looked up in a table. add: its add as an
    expression, or None."""
    reduction = op.reduction
    function = "" if add is None else _op_add(add, dtype)
    least = "0" if function else literal(reduction.of_no_terms(op, dtype), dtype)
    return Code(
        "", function, (), False, reduction.c_name, (), reduction.start(dtype), least, None, dtype, dtype,
        reduction.result_dtype(dtype), 0, ())  # fmt: skip


def of_texts(op, dtype, scalars):
    """The Code of an op that was given as C (Op.from_c), for floats.

    scalars: its parameters that are one number for all.
    """
    planes = [name for name in op.term.names if name not in scalars]
    scalars, reduction, kind = [name for name in op.term.names if name in scalars], op.reduction, dtypes.C_TYPES[dtype]
    operands = ["w"] + planes + scalars + ["x"]
    add = "" if reduction.function is None else _of_text("op_add", kind, ["acc", "term"], op.add.text)
    partials = [op.grad_x, op.grad_w] + [op.term.grad_params.get(name) for name in planes + scalars]
    grads = ()
    if None not in partials and not add:
        grads = tuple(_of_text("op_grad", kind, ["g"] + operands, "g * ({})".format(each.text)) for each in partials)
    return Code(
        _of_text("op_term", kind, operands, op.multiply.text), add, grads, False, reduction.c_name,
        reduction.cuda_reads, reduction.start(dtype), "0" if add else literal(reduction.of_no_terms(op, dtype), dtype),
        op.pad_value_for(dtype), dtype, dtype, dtype, len(planes), (True,) * len(scalars))  # fmt: skip


def _of_text(name, kind, parameters, text):
    declared = ", ".join("const {} {}".format(kind, parameter) for parameter in parameters)
    return "OP_FUNCTION {} {}({})\n{{\n    return {};\n}}\n".format(kind, name, declared, text)


def _op_add(add, dtype):
    return _function("op_add", [("acc", dtype), ("term", dtype)], add, dtype)


def _with_signs(expression):
    """An expression in which a gradient times a sign is a product: v > 0 ? g : v < 0 ? -g : g * 0 as
    g * ((v > 0) - (v < 0)). A term and its sum are four instructions then. The values are the same, of NaN and
    infinities too."""
    made = {}
    for here in postorder(expression):
        made[here] = node(here.function, here.dtype, [made[arg] for arg in here.args], here.value)
        found = _sign_of(here)
        if found is not None:
            of, g = [made[each] for each in found]
            zero, one = constant(0, here.dtype), constant(1, here.dtype)
            made[here] = g * (select(gt(of, zero), one, zero) - select(lt(of, zero), one, zero))
    return made[expression]


def _sign_of(here):
    """(v, g) of v > 0 ? g : v < 0 ? -g : g * 0, as times() makes it; None of anything else."""
    if here.function is not select or here.args[0].function is not gt:
        return None
    condition, g, other = here.args
    of, zero = condition.args
    expected = select(lt(of, zero), -g, g * zero)
    return (of, g) if is_constant(zero, 0) and g.dtype == zero.dtype and other is expected else None


def _function(*of):
    return print_c.c_function(*of, inlined=False).replace(print_c.INLINE, "OP_FUNCTION")


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


def _conversions(code, kind=RESULTS):
    """What the templates are told of types, where they write results, gradients, or partial ones of either."""
    stored = {RESULTS: code.result_dtype, PARTIAL: code.sum_dtype, GRADIENTS: code.element}.get(kind, code.dtype)
    result = code.sum if kind == PARTIAL else code.value if kind == PARTIAL_GRADIENTS else _c_type(stored)
    return [
        ("VALUE", code.value),
        ("ELEMENT", _c_type(code.element)),
        ("OF_ELEMENT(v)", "of_{}(v)".format(code.element) if code.element in dtypes.HALVES else "(VALUE)(v)"),
        ("SUM", code.sum if kind in (RESULTS, PARTIAL) else code.value),
        ("RESULT", result),
        ("TO_RESULT(v)", "to_{}(v)".format(stored) if stored in dtypes.HALVES else "({})(v)".format(result)),
    ]


def _operands(code, plane):
    """What the templates are told of the weight's parameters. plane: the C of one of them, a format."""
    value = code.value
    declared = [
        ("const {} *at_scalar_{}" if at else "const {} scalar_{}").format(value, i) for i, at in enumerate(code.scalars)
    ]
    taken = ["const {0} scalar_{1} = *at_scalar_{1};".format(value, i) for i, at in enumerate(code.scalars) if at]
    weights = [plane.format(i) for i in range(1 + code.planes)]
    weights += ["scalar_{}".format(i) for i in range(len(code.scalars))]
    return [
        ("PLANES", 1 + code.planes),
        ("SCALARS", "".join(", " + one for one in declared)),
        ("TAKE_SCALARS", " ".join(taken)),
        ("WEIGHTS(i)", ", ".join(weights)),
    ]


def _reduction(code, adds, arg=False):
    f, exp = ("f", "__expf") if code.dtype == "float32" else ("", "exp")
    return [
        ("START", code.start or 0),
        ("STARTS", int(code.start is not None)),
        ("LEAST", code.least),
        ("EXP(v)", exp + "(v)"),
        ("LOG(v)", "log{}(v)".format(f)),
        ("EXACT_EXP(v)", "exp{}(v)".format(f)),
        ("FREXP(v, at)", "frexp{}(v, at)".format(f)),
        ("LDEXP(v, power)", "ldexp{}(v, power)".format(f)),
        ("ARG", int(arg)),
        ("ADDS", "ADD_" + adds.upper()),
        ("SHARES", "ADD_" + code.adds.upper()),
    ]


def _text(defines, functions, *templates):
    return template("prelude.cu") + _defines(defines) + functions + "".join(template(name) for name in templates)


#: What costs many instructions in C: a division, or a function of the C library but fabs.
_HEAVY = re.compile(r"/|\b(?!fabsf?\(|op_)[a-z]\w*\(")


def _unrolled(tile, functions, is_heavy):
    """How many terms of the inner loop are written one after the other: of heavy ones, whose compiling takes long, one."""
    return [("UNROLLED", 1 if is_heavy or _HEAVY.search(functions) else tile.depth)]


#: Terms that are written one after the other, and blocks that a multiprocessor is to hold, of which 0 leaves it open.
_FEWER = (("UNROLLED", lambda count: count // 2), ("BLOCKS", lambda count: count * 3 // 4 if count else 8))


def variants(text):
    """A text, and after it others of the same kernel, for compilers that would keep some of its registers in local memory:
    they need fewer, and then a thread may have more. The best first."""
    yield text
    for name, fewer in _FEWER:
        found = re.search(r"#define {} (\d+)\n".format(name), text)
        count = fewer(int(found.group(1))) if found else 0
        while count:
            text = re.sub(r"#define {} \d+\n".format(name), "#define {} {}\n".format(name, count), text)
            yield text
            count = fewer(count)


def forward(code, tile, deep, left_out, fours, split, arg, adds=None):
    """The kernel `gather`, of results. adds: another reduction than the op's."""
    defines = _tile(tile, left_out) + _conversions(code, PARTIAL if split else RESULTS)
    defines += _operands(code, "left[{}][i]")
    defines += _reduction(code, adds or code.adds, arg)
    defines += [
        ("DEEP", int(deep)),
        ("LEFT_OUT", int(left_out)),
        ("UNIT", 4 if fours else 1),
        ("OWN", 0),
        ("SAVED", 0),
        ("TOLD", 0),
    ]
    defines += _unrolled(tile, code.term + code.add, adds is not None or code.reads == ("saved",))
    return _text(defines, code.term + code.add, "reduce.cu", "taps.cu", "tile.cu", "gather.cu")


def grad_x(code, tile, deep, left_out, fours, split):
    """The kernel `gather`, of the gradient of x."""
    defines = _tile(tile, left_out) + _conversions(code, PARTIAL_GRADIENTS if split else GRADIENTS)
    defines += _operands(code, "left[{}][i]") + _reduction(code, "sum")
    defines += [("DEEP", int(deep)), ("LEFT_OUT", int(left_out)), ("UNIT", 4 if fours else 1), ("OWN", 1)]
    defines += _unrolled(tile, code.term + code.grads[0], "saved" in code.reads)
    return _text(defines, code.term + code.grads[0], "reduce.cu", "shares.cu", "taps.cu", "tile.cu", "gather.cu")


def grad_w(code, number, tile, deep, left_out, split, features_last):
    """The kernel `grad_w`, of the gradient of the weight (number 0) or of a parameter, in the order of Code.grads."""
    defines = _tile(tile) + _conversions(code, PARTIAL_GRADIENTS if split else GRADIENTS)
    defines += _operands(code, "mine[i][j][{}]") + _reduction(code, "sum") + _beside(code)
    defines += [("DEEP", int(deep)), ("LEFT_OUT", int(left_out)), ("FEATURES_LAST", int(features_last))]
    defines += _unrolled(tile, code.term + code.grads[1 + number], "saved" in code.reads)
    return _text(
        defines, code.term + code.grads[1 + number], "reduce.cu", "shares.cu", "taps.cu", "tile.cu", "grad_w.cu"
    )


def _depthwise(code, s):
    """What the templates of depthwise convolutions are told. s: Sizes."""
    names = "KERNEL_Y KERNEL_X STRIDE_Y STRIDE_X DILATION_Y DILATION_X".split()
    numbers = list(zip(names, s.kernel[1:] + s.stride[1:] + s.dilation[1:]))
    return [("ALONG", along(s)), ("BLOCKS", 0)] + numbers + _beside(code)


def along(s):
    """How many neighbouring results a thread of a depthwise convolution has."""
    return 4 if s.stride[2] == 1 else 2


def _beside(code):
    """What templates are told that read weights where they are."""
    names = ["w"] + ["plane_{}".format(i) for i in range(code.planes)]
    return [
        ("OF_PLANES(at)", ", ".join("OF_ELEMENT({}[at])".format(name) for name in names)),
        ("OF_PLANES_DECLARED", "".join("const ELEMENT *{}, ".format(name) for name in names)),
    ]


def depthwise(code, s, left_out, arg, adds=None):
    """The kernel `depthwise`, of results."""
    defines = _depthwise(code, s) + _conversions(code) + _operands(code, "here[{}]")
    defines += _reduction(code, adds or code.adds, arg) + [("LEFT_OUT", int(left_out))]
    return _text(defines, code.term + code.add, "reduce.cu", "depthwise.cu")


def depthwise_grad_x(code, s):
    """The kernel `depthwise_grad_x`."""
    defines = (
        _depthwise(code, s) + _conversions(code, GRADIENTS) + _operands(code, "here[{}]") + _reduction(code, "sum")
    )
    return _text(defines, code.term + code.grads[0], "reduce.cu", "shares.cu", "depthwise_grad_x.cu")


def depthwise_grad_w(code, number, s, left_out, split):
    """The kernel `depthwise_grad_w`, of the gradient that grad_w() is told to give."""
    defines = _depthwise(code, s) + _conversions(code, PARTIAL_GRADIENTS if split else GRADIENTS)
    defines += _operands(code, "here[{}]") + _reduction(code, "sum") + [("LEFT_OUT", int(left_out))]
    return _text(defines, code.term + code.grads[1 + number], "reduce.cu", "shares.cu", "depthwise_grad_w.cu")


def pack(code):
    """The kernel `pack`, of weights."""
    return _text(_conversions(code)[:3], "", "pack.cu")


def transpose(code):
    """The kernel `pack`, of an operand that stays in its dtype."""
    kind = _c_type(code.element)
    return _text([("VALUE", kind), ("ELEMENT", kind), ("OF_ELEMENT(v)", "(v)")], "", "pack.cu")


def join(code, arg):
    """The kernel `join`, of splits' results."""
    defines = _conversions(code) + _reduction(code, code.adds, arg) + [("LEFT_OUT", 1)]
    return _text(defines, "", "reduce.cu", "join.cu")


def join_gradients(code):
    """The kernel `join`, of splits' gradients."""
    return _text(_conversions(code, GRADIENTS) + _reduction(code, "sum"), "", "reduce.cu", "join.cu")


def fill(code):
    """The kernel `fill`, of gradients."""
    return _text(_conversions(code, GRADIENTS), "", "fill.cu")


# ---------------------------------------------------------------- words of signs
def pack_rows(dtype):
    """The kernel `pack_rows`, of signs of a dtype."""
    return _text(_of_signs(dtype), "", "pack_rows.cu")


def pack_columns(dtype, deep, left_out):
    """The kernel `pack_columns`, of signs of a dtype."""
    defines = _of_signs(dtype) + [("DEEP", int(deep)), ("LEFT_OUT", int(left_out))]
    return _text(defines, "", "taps.cu", "pack_columns.cu")


def _of_signs(dtype):
    kind, plus = ("uint8_t", "!= 0") if dtype == "bool" else (dtypes.C_TYPES[dtype], ">= 0")
    return [("ELEMENT", kind), ("IS_PLUS(v)", "((v) {})".format(plus))]


def signs(tile, deep, packed, left_out, result):
    """The kernel `signs`. packed: whether x has a word for each position; result: a dtype."""
    defines = [("VALUE", "uint32_t"), ("ELEMENT", "uint32_t"), ("OF_ELEMENT(v)", "(v)")]
    defines += [("DEEP", int(deep)), ("PACKED", int(packed)), ("LEFT_OUT", int(left_out))]
    defines += _tile(tile, left_out) + [("RESULT", dtypes.C_TYPES[result])]
    return _text(defines, "", "taps.cu", "tile.cu", "signs.cu")


def join_signs(result):
    """The kernel `join`, of splits' counts."""
    kind = dtypes.C_TYPES[result]
    defines = [("SUM", "int32_t"), ("RESULT", kind), ("TO_RESULT(v)", "({})(v)".format(kind)), ("ADDS", "ADD_SUM")]
    return _text(defines + [("ARG", 0), ("LEFT_OUT", 0)], "", "reduce.cu", "join.cu")


# ---------------------------------------------------------------- look-ups
def lookups(code, tile, threads, shape, whole, deep, left_out, narrow):
    """The kernel `lookups`.

    shape: the table's; whole: whether all of it is in shared memory; narrow: whether an int holds the sums of integers
    """
    defines = [("ROWS", tile.rows), ("EACH", tile.positions_each), ("THREADS", threads), ("DEPTH", tile.depth)]
    defines += [("BLOCKS", tile.blocks), ("ENTRY", "float" if code.dtype == "float32" else "int32_t")]
    defines += [("TABLE_ROWS", shape[0]), ("TABLE_COLUMNS", shape[1]), ("WHOLE", int(whole)), ("RESULT", code.sum)]
    defines += [("SUM", "int32_t" if narrow else code.sum), ("DEEP", int(deep)), ("LEFT_OUT", int(left_out))]
    return _text(defines + _reduction(code, code.adds), code.add, "reduce.cu", "taps.cu", "lookups.cu")


def _tile(tile, left_out=False):
    # Which taps are there takes registers too: with a block fewer, each thread has more.
    tile = tile._replace(blocks=max(1, tile.blocks - 1)) if left_out else tile
    return list(zip("TILE_ROWS TILE_COLUMNS DEPTH ROWS COLUMNS BLOCKS".split(), tile))
