"""One op as C: its functions between the two halves of the kernel template that the C library carries."""

from collections import namedtuple

from im2col_compat import lowlevel
from im2col_compat.codegen import expression as ex
from im2col_compat.codegen import derive, divisions, print_c, ranges
from im2col_compat.codegen.expression import FUNCTIONS
from im2col_compat.codegen.functions import sigmoid
from im2col_compat.compat.dtypes import C_TYPES

#: As ffi/build.py's, for the same reasons; integers wrap, as tensors' do.
FLAGS = ("-std=gnu99", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-fwrapv")
FLAGS += ("-fvisibility=hidden", "-Werror=implicit-function-declaration")
#: What is added for each instruction set, in the order of kernels.LEVELS.
LEVEL_FLAGS = (
    (),
    ("-mavx2", "-mfma"),
    ("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512"),
)
#: The function by which a compiled op is found.
ENTRY = "im2col_compat_kernels"
#: The one that tells how often integers were divided by zero, where an op may do that.
DIVIDED_BY_ZERO = "im2col_compat_divided_by_zero"

#: What is compiled by itself, when a call first needs it: of the forward call or of gradients, for panels of columns or for
#: pixels where they lie.
Part = namedtuple("Part", "gradients direct")

FOLDED = ("acc", "term")

#: Puts some vectors' instructions between others', as long as there are registers: an exponential is a long chain.
#: Not an option: clang doesn't know it.
_SCHEDULED = """#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("schedule-insns", "sched-pressure")
#endif"""
#: What a C text calls a function that is inlined, as in <tgmath.h>.
_FLOAT = "__builtin_types_compatible_p(__typeof__({}), float)"
_GENERIC = "#undef {0}\n#define {0}({1}) __builtin_choose_expr({2}, {0}_float, {0}_double)({1})"


class Texts(object):
    """An op's functions as C texts, and what the template must be told of them.

    functions: C source of op_term and its like
    reduction, start, pad: the op's; start in C, None where the first term is it
    called: the functions of the C library that are called
    product: whether there are op_left and op_right
    gradients: whether there are any
    tgmath: whether functions of the C library are called by their names for any type
    finite_grads, finite_terms: whether there are variants for finite operands
    keeps_zeros: whether those of gradients give 0, and not NaN, for a gradient of 0
    divides: whether integers may be divided
    others: the names of all operands beside w and x
    planes, scalars: the names of a weight's parameters: those beside it, and those of one number for all; in the order of
        C's arguments between w and x
    heavy: whether a term takes more instructions than it takes to load its operands again
    entries: the C type of the entries that terms are looked up among; None where they are computed
    """

    def __init__(
        self, functions, op, dtype, called=(), product=False, gradients=False, tgmath=False, finite_grads=False,
        finite_terms=False, divides=False, planes=(), scalars=(), entries=None, others=(), heavy=False, keeps_zeros=False,
    ):  # fmt: skip
        self.functions, self.called, self.product, self.gradients = functions, called, product, gradients
        self.reduction, self.start, self.pad = op.reduction, op.reduction.start(dtype), op.pad_value_for(dtype)
        self.functions += _adds(op.reduction, dtype)
        self.tgmath, self.finite_grads, self.finite_terms = tgmath, finite_grads, finite_terms
        self.divides, self.planes, self.scalars = divides, tuple(planes), tuple(scalars)
        self.entries, self.others, self.heavy, self.keeps_zeros = entries, tuple(others), heavy, keeps_zeros


def _split(op, others, scalars):
    """(planes, scalars) of the names of operands beside w and x. scalars: the op's parameters that are such."""
    apart = [name for name, is_scalar in zip(others, op.term.are_scalars(scalars, len(others))) if is_scalar]
    return [name for name in others if name not in apart], apart


def of_expressions(op, traced, dtype, scalars, inlined=print_c.NEAR):
    """The Texts of a traced op. scalars: its parameters that are one number for all. inlined: see print_c.c_function()."""
    floats, reduction = ex.is_float(dtype), op.reduction
    planes, scalars = _split(op, traced.others, scalars)
    names = ["w"] + planes + scalars + ["x"]
    operands = [(name, dtype) for name in names]
    parts = [print_c.c_function("op_term", operands, traced.term, dtype, True, inlined)]
    product = floats and reduction.fuses_products and traced.term.op == "mul"
    if product:
        for name, factor in zip(("op_left", "op_right"), traced.term.args):
            # Not balanced: the adder is free where the multiply-adder takes the sum.
            parts.append(print_c.c_function(name + "_", operands, factor, dtype, False, inlined))
            parts.append(_without_mode(name, dtype, names))
    gradients, finite_grads, keeps_zeros = traced.grad_w is not None, False, True
    heavy = any(print_c.is_heavy(part) for part in traced.expressions)
    if gradients:
        of_others = dict(zip(traced.others, traced.grad_others))
        partials = [("op_grad_w", traced.grad_w), ("op_grad_x", traced.grad_x)]
        partials += [(grad_name(i), of_others[name]) for i, name in enumerate(planes + scalars)]
        for name, partial in partials:
            exact, finite = (
                print_c.c_times_function(name, "g", operands, partial, dtype, finite, inlined)
                for finite in (False, True)
            )
            # Beside what is heavy that is little, and takes long to compile.
            finite_grads = finite_grads or reduction.finite_grads and exact != finite and not heavy
            parts += [exact, finite.replace(name, name + "_finite", 1)]
            of_zero = derive.times(ex.constant(0, dtype), partial, True)
            keeps_zeros = keeps_zeros and ranges.never_nan(of_zero, dict.fromkeys(names, ex.FINITE[:3]))
    if reduction.function is not None:
        kind = dtype if floats else "int64"
        folded = [(name, kind) for name in FOLDED]
        parts.append(print_c.c_function("op_add", folded, traced.add, kind, False, inlined))
        if gradients:
            for name in ("add_acc", "add_term"):
                add = getattr(traced, name)
                parts.append(print_c.c_times_function("op_" + name, "g", folded, add, dtype, False, inlined))
    called = sorted({name for part in traced.expressions for name in print_c.called(part)})
    pad = op.pad_value_for(dtype)
    padded = (pad == float("inf"), pad == -float("inf"), False)
    finite_terms = reduction.finite_terms and floats and ranges.never_nan(traced.term, dict.fromkeys(names, padded))
    more = False, planes, scalars
    return Texts(
        "".join(parts),
        op,
        dtype,
        called,
        product,
        gradients,
        False,
        finite_grads,
        finite_terms,
        *more,
        others=traced.others,
        heavy=heavy,
        keeps_zeros=keeps_zeros
    )


def grad_name(i):
    """The C function that is the gradient of a weight's parameter, in the order of C's arguments."""
    return "op_grad_{}".format(i + 1)


def of_lookups(op, add, dtype):
    """The Texts of an op whose terms, of a dtype, are looked up in a table, and whose add was traced."""
    function = print_c.c_function("op_add", [(name, dtype) for name in FOLDED], add, dtype)
    entries = C_TYPES[dtype] if ex.is_float(dtype) else "int32_t"
    return Texts(function, op, dtype, print_c.called(add), entries=entries)


def of_texts(op, dtype, scalars):
    """The Texts of an op that was given as C (Op.from_c). scalars: its parameters that are one number for all."""
    kind = C_TYPES[dtype]
    planes, scalars = _split(op, op.term.names, scalars)
    names = ["w"] + planes + scalars + ["x"]
    folds = op.reduction.function is not None
    parts = [_c_function("op_term_", kind, names, op.multiply.text), _without_mode("op_term", dtype, names)]
    partials = [op.grad_w, op.grad_x] + [op.term.grad_params.get(name) for name in planes + scalars]
    gradients = ex.is_float(dtype) and None not in partials and not folds
    if gradients:
        called = ["op_grad_w", "op_grad_x"] + [grad_name(i) for i in range(len(partials) - 2)]
        for name, partial in zip(called, partials):
            parts.append(_c_function(name, kind, ["g"] + names, "g * ({})".format(partial.text)))
    if folds:
        parts.append(_c_function("op_add", kind if ex.is_float(dtype) else "int64_t", FOLDED, op.add.text))
    functions = "".join(parts)
    divides = "QUOTIENT(" in functions or "REST(" in functions
    more = {"gradients": gradients, "tgmath": True, "divides": divides, "planes": planes, "scalars": scalars}
    return Texts(functions, op, dtype, **more)


def _c_function(name, kind, parameters, text):
    declared = ["const {} {}".format(kind, parameter) for parameter in parameters]
    unused = ", ".join("(void)" + parameter for parameter in parameters)
    returned = "return ({})({});".format(kind, divisions.guarded(text))
    return print_c.definition(kind, name, declared, [unused + ";", returned])


def _without_mode(name, dtype, names):
    """A function that ignores what a balanced one is told, and calls that of its name and an underscore."""
    kind = C_TYPES[dtype]
    declared = ["const int fused"] + ["const {} {}".format(kind, parameter) for parameter in ["one"] + names]
    call = "return {}_({});".format(name, ", ".join(names))
    return print_c.definition(kind, name, declared, ["(void)fused, (void)one;", call])


def _adds(reduction, dtype):
    """C of the add that a reduction has by itself."""
    kind = C_TYPES[reduction.result_dtype(dtype)]
    return "".join(_c_function(name, kind, parameters, text) for name, parameters, text in reduction.c_adds)


def unsupported(texts):
    """Why these can't be compiled here, or would be slower than tensor operations; None where they can."""
    if texts.start is None and texts.pad is None:
        return "an add without an identity can't leave out padding in C"
    # Called for one element at a time, they would be slower than tensor operations.
    return "there is no {}() of vectors".format(texts.called[0]) if texts.called else None


def flags(level):
    """The compiler's flags."""
    return FLAGS + LEVEL_FLAGS[level]


def _of_weights(texts):
    """What the template is told of a weight's parameters."""
    planes, scalars = len(texts.planes), len(texts.scalars)
    operands = ["(w)[{} * (step) + (i)]".format(plane) for plane in range(1, 1 + planes)]
    operands += ["scalars[{}]".format(scalar) for scalar in range(scalars)]
    found = [("PLANES", 1 + planes), ("NUMBERS", 1 + planes + scalars)]
    found.append(("WEIGHTS(w, i, step)", ", ".join(["(w)[i]"] + operands)))
    for end, macro in (("", "GRAD_W"), ("_finite", "GRAD_W_FINITE")):
        text = "op_grad_w{}(__VA_ARGS__)".format(end)
        for i in range(planes + scalars):
            text = "((number) == {} ? {}{}(__VA_ARGS__) : {})".format(i + 1, grad_name(i), end, text)
        found.append((macro + "(number, ...)", text))
    return found


def _generic():
    """Macros that call functions that are inlined, by the names and for the types that <tgmath.h> calls them."""
    for function in FUNCTIONS:
        # What operands C texts call them with, nobody knows.
        if function.calls == ex.INLINED and function.near is None and function is not sigmoid:
            names = ["a", "b"][: len(function.derivative)]
            yield _GENERIC.format(function.c, ", ".join(names), " && ".join(map(_FLOAT.format, names)))


def source(texts, dtype, level, part):
    """The whole C source of a Part."""
    floats, reduction = ex.is_float(dtype), texts.reduction
    defines = [
        ("LEVEL", level),
        ("TARGET", ""),
        ("ELEMENT", C_TYPES[dtype]),
        ("SUM", C_TYPES[reduction.block_dtype(dtype)]),
        ("TOTAL", C_TYPES[reduction.result_dtype(dtype)]),
        ("FMA(a, b, c)", "__builtin_fma{}(a, b, c)".format("f" if dtype == "float32" else "")),
        ("ADDS", "DOT_" + reduction.c_name.upper()),
        ("STARTS", int(texts.start is not None)),
        ("START", texts.start or 0),
        ("BETTER(a, b)", "((a) {} (b))".format(reduction.better)),
        ("PRODUCT", int(texts.product)),
        ("FORWARD", int(not part.gradients)),
        ("GRADIENTS", int(part.gradients)),
        ("PANELS", int(not part.direct)),
        ("DIRECT", int(part.direct)),
        ("FEW", 0),
        ("DIVIDES", int(texts.divides)),
        ("MASKS", int(texts.pad is None)),
        ("FINITE", int(texts.finite_grads)),
        ("KEEPS_ZEROS", int(texts.keeps_zeros)),
        ("FINITE_TERMS", int(texts.finite_terms)),
        ("IS_FINITE(v)", "({})".format(reduction.is_finite(texts.pad))),
        ("OP(function)", "op_##function"),
        ("NAME(function)", "kernel_##function"),
    ]
    defines += _of_weights(texts)
    lines = [_SCHEDULED] if texts.heavy else []
    lines += ["#include <math.h>", "#include <stdint.h>"]
    lines += ["#include <tgmath.h>"] if texts.tgmath else []
    lines += ["#define {} {}".format(*define) for define in defines]
    lines.append(lowlevel.template(0))
    if texts.heavy:
        # Larger tiles would save loads, which are few here, and take long to compile.
        lines += ["#undef ROWS", "#define ROWS 4", "#undef GRAD_ROWS", "#define GRAD_ROWS 4"]
    if not floats:
        lines += ["#undef HIDE", '#define HIDE(value) __asm__("" : "+r"(value))']
    lines += _generic() if texts.tgmath else []
    lines += [divisions.SUPPORT] if texts.divides else []
    lines += [texts.functions]
    if texts.entries is None:
        lines.append(lowlevel.template(1))
    else:
        lines += ["#define ENTRY " + texts.entries, lowlevel.template(2)]
    declared = "const struct dot_kernels *{}(void)".format(ENTRY)
    lines.append('__attribute__((visibility("default"))) {};'.format(declared))
    lines.append(declared + " { return &kernel_kernels; }")
    return "\n".join(lines) + "\n"
