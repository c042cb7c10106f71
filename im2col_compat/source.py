"""One op as C: its functions between the two halves of the kernel template that the C library carries."""

import os
import platform

from im2col_compat import expression as ex
from im2col_compat import features, lowlevel
from im2col_compat.terms import highest, lowest

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

OPERANDS = ("w", "x")
FOLDED = ("acc", "term")

#: Since which glibc there are functions of whole vectors (libmvec), on x86-64. One at a time they
#: would be slower than tensors' are.
_VECTOR_FUNCTIONS = {"exp": (2, 22), "log": (2, 22), "pow": (2, 22), "sin": (2, 22), "cos": (2, 22), "tanh": (2, 35)}


class Texts(object):
    """An op's functions as C texts, and what the template must be told of them.

    functions: C source of op_term and its like. math: the functions of the C library that are called.
    tgmath: whether they are to be called by their names for any type. product: whether there are op_left and
    op_right. add, start, pad: the op's; start in C, None where the first term is it.
    ordinary_grads, ordinary_terms: whether there are variants for ordinary operands. gradients: whether there are any.
    """

    def __init__(self, functions, add, start, pad, math=(), **flags):
        self.functions, self.add, self.start, self.pad, self.math = functions, add, start, pad, math
        self.product = flags.get("product", False)
        self.gradients = flags.get("gradients", False)
        self.tgmath = flags.get("tgmath", False)
        self.ordinary_grads = flags.get("ordinary_grads", False)
        self.ordinary_terms = flags.get("ordinary_terms", False)


def of_expressions(op, traced, dtype):
    """The Texts of a traced op."""
    floats = ex.is_float(dtype)
    pad = op.pad_value_for(dtype)
    operands = [(name, dtype) for name in OPERANDS]
    parts = [ex.c_function("op_term", operands, traced.term, dtype, balanced=True)]
    product = floats and op.add == "sum" and traced.term.op == "mul"
    if product:
        for name, factor in zip(("left", "right"), traced.term.args):
            # Not balanced: the adder is free where the multiply-adder takes the sum.
            parts.append(ex.c_function("op_{}_".format(name), operands, factor, dtype))
            parts.append(_without_mode("op_" + name, dtype))
    ordinary_grads, gradients = False, traced.grad_w is not None
    if gradients:
        for name in ("grad_w", "grad_x"):
            partial = getattr(traced, name)
            texts = [
                ex.c_times_function("op_" + name, "g", operands, partial, dtype, ordinary) for ordinary in (False, True)
            ]
            parts.append(texts[0])
            ordinary_grads = ordinary_grads or texts[0] != texts[1]
            parts.append(texts[1].replace("op_" + name, "op_{}_finite".format(name), 1))
    if callable(op.add):
        kind = dtype if floats else "int64"
        folded = [(name, kind) for name in FOLDED]
        parts.append(ex.c_function("op_add", folded, traced.add, kind))
        if gradients:
            for name in ("add_acc", "add_term"):
                parts.append(ex.c_times_function("op_" + name, "g", folded, getattr(traced, name), dtype))
    math = set()
    for part in traced:
        if part is not None:
            math.update(ex.functions(part))
    infinite = (pad == float("inf"), pad == -float("inf"), False)
    return Texts(
        "".join(parts),
        "fold" if callable(op.add) else op.add,
        _start(op, dtype),
        pad,
        sorted(math),
        product=product,
        gradients=gradients,
        ordinary_grads=ordinary_grads and op.add == "sum",
        ordinary_terms=floats
        and op.add in ("max", "min")
        and ex.never_nan(traced.term, {"w": infinite, "x": infinite}),
    )


def of_texts(op, dtype):
    """The Texts of an op that was given as C (Op.from_c)."""
    kind = ex.C_TYPES[dtype]
    total = kind if ex.is_float(dtype) else "int64_t"
    parts = [_c_function("op_term_", kind, ("w", "x"), op.multiply.text), _without_mode("op_term", dtype)]
    gradients = ex.is_float(dtype) and op.grad_w is not None and not callable(op.add)
    if gradients:
        for name in ("grad_w", "grad_x"):
            text = "g * ({})".format(getattr(op, name).text)
            parts.append(_c_function("op_" + name, kind, ("g", "w", "x"), text))
    if callable(op.add):
        parts.append(_c_function("op_add", total, FOLDED, op.add.text))
    return Texts(
        "".join(parts),
        "fold" if callable(op.add) else op.add,
        _start(op, dtype),
        op.pad_value_for(dtype),
        gradients=gradients,
        tgmath=True,
    )


def _c_function(name, kind, parameters, text):
    declared = ", ".join("const {} {}".format(kind, parameter) for parameter in parameters)
    unused = ", ".join("(void)" + parameter for parameter in parameters)
    return (
        "static inline __attribute__((always_inline)) {0} {1}({2}) {{\n    {3};\n    return ({0})({4});\n}}\n".format(
            kind, name, declared, unused, text
        )
    )


def _without_mode(name, dtype):
    kind = ex.C_TYPES[dtype]
    return (
        "static inline __attribute__((always_inline)) {0} {1}(const int fused, const {0} one, const {0} w, const {0} x) {{\n"
        "    (void)fused, (void)one;\n    return {1}_(w, x);\n}}\n"
    ).format(kind, name)


def _start(op, dtype):
    """What sums start from, in C; None where the first term does."""
    if op.add == "sum":
        return "0"
    kind = dtype if ex.is_float(dtype) else "int64"
    if callable(op.add):
        if op.identity is None:
            return None
        number = op.identity if ex.is_float(dtype) else int(op.identity)
        return ex.literal(number, kind)
    return ex.literal((lowest if op.add == "max" else highest)(dtype), dtype)


def result_dtype(add, dtype):
    return "int64" if features.is_integer(dtype) and add not in ("max", "min") else dtype


def unsupported(texts):
    """Why these can't be compiled here, or would be slower than tensor operations; None where they can."""
    if texts.start is None and texts.pad is None:
        return "an add without an identity can't leave out padding in C"
    missing = [function for function in texts.math if function not in vector_functions()]
    return "this machine's C library has no {}() of vectors".format(missing[0]) if missing else None


def vector_functions():
    """The functions of the C library that are there for whole vectors."""
    name, _, version = _libc().partition(" ")
    numbers = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    return sorted(function for function, since in _VECTOR_FUNCTIONS.items() if numbers >= since)


def _libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        return ""


def flags(texts, level):
    """The compiler's flags."""
    return FLAGS + LEVEL_FLAGS[level] + (("-lmvec",) if texts.math or texts.tgmath and vector_functions() else ())


def source(texts, dtype, level):
    """The whole C source, and a comment on top with what is the user's."""
    floats, add = ex.is_float(dtype), texts.add
    element = ex.C_TYPES[dtype]
    total = ex.C_TYPES[result_dtype(add, dtype)]
    block = total
    if add == "sum" and features.is_integer(dtype) and features.ITEMSIZE[dtype] < 4:
        block = "int32_t"  # holds the sum of a block of these
    suffix = "f" if dtype == "float32" else ""
    ordinary = "(v) - (v) == 0"
    if add in ("max", "min") and texts.pad in (float("inf"), -float("inf")):
        ordinary = "(v) < (ELEMENT)INFINITY" if texts.pad < 0 else "(v) > -(ELEMENT)INFINITY"
    defines = [
        ("LEVEL", level),
        ("TARGET", ""),
        ("ELEMENT", element),
        ("SUM", block),
        ("TOTAL", total),
        ("FMA(a, b, c)", "__builtin_fma{}(a, b, c)".format(suffix)),
        ("ADDS", "DOT_" + add.upper()),
        ("STARTS", int(texts.start is not None)),
        ("START", texts.start or 0),
        ("BETTER(a, b)", "((a) > (b))" if add == "max" else "((a) < (b))"),
        ("PRODUCT", int(texts.product)),
        ("GRADIENTS", int(texts.gradients)),
        ("MASKS", int(texts.pad is None)),
        ("FINITE", int(texts.ordinary_grads)),
        ("FINITE_TERMS", int(texts.ordinary_terms)),
        ("IS_FINITE(v)", "({})".format(ordinary)),
        ("OP(function)", "op_##function"),
        ("NAME(function)", "kernel_##function"),
    ]
    lines = ["#include <math.h>", "#include <stdint.h>"]
    if texts.math:
        lines += ["#ifdef __clang__", '#error "clang has no functions of vectors"', "#endif"]
    if texts.tgmath:
        lines.append("#ifndef __clang__")
    for function in vector_functions() if texts.tgmath else texts.math:
        for end, kind in (("", "double"), ("f", "float")):
            arguments = ", ".join([kind] * (2 if function == "pow" else 1))
            lines.append('__attribute__((simd("notinbranch"))) {} {}{}({});'.format(kind, function, end, arguments))
    if texts.tgmath:
        lines += ["#endif", "#include <tgmath.h>"]
    lines += ["#define {} {}".format(*define) for define in defines]
    lines.append(lowlevel.template(0))
    if not floats:
        lines += ["#undef HIDE", '#define HIDE(value) __asm__("" : "+r"(value))']
    lines += [texts.functions, lowlevel.template(1)]
    lines.append(
        '__attribute__((visibility("default"))) const struct dot_kernels *{}(void);\n'
        "const struct dot_kernels *{}(void) {{ return &kernel_kernels; }}".format(ENTRY, ENTRY)
    )
    return "\n".join(lines) + "\n"
