"""One op as C: its functions between the two halves of the kernel template that the C library carries."""

import os
import platform

from im2col_compat import lowlevel
from im2col_compat.codegen import expression as ex
from im2col_compat.codegen import print_c, ranges
from im2col_compat.codegen.expression import FUNCTIONS
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

OPERANDS = ("w", "x")
FOLDED = ("acc", "term")

#: The C functions that expressions call and records of them. One at a time they would be slower than tensors' are.
_CALLS = {function.c: function for function in FUNCTIONS if function.vectors}
#: Those that C texts may call as vectors.
_OF_TEXTS = ("cos", "exp", "log", "pow", "sin", "tanh")


class Texts(object):
    """An op's functions as C texts, and what the template must be told of them.

    functions: C source of op_term and its like
    reduction, start, pad: the op's; start in C, None where the first term is it
    math: the functions of the C library that are called
    tgmath: whether they are called by their names for any type
    product: whether there are op_left and op_right
    gradients: whether there are any
    finite_grads, finite_terms: whether there are variants for finite operands
    """

    def __init__(self, functions, op, dtype, math=(), **flags):
        self.functions, self.math = functions, math
        self.reduction, self.start, self.pad = op.reduction, op.reduction.start(dtype), op.pad_value_for(dtype)
        self.product = flags.get("product", False)
        self.gradients = flags.get("gradients", False)
        self.tgmath = flags.get("tgmath", False)
        self.finite_grads = flags.get("finite_grads", False)
        self.finite_terms = flags.get("finite_terms", False)


def of_expressions(op, traced, dtype):
    """The Texts of a traced op."""
    floats = ex.is_float(dtype)
    pad = op.pad_value_for(dtype)
    operands = [(name, dtype) for name in OPERANDS]
    parts = [print_c.c_function("op_term", operands, traced.term, dtype, balanced=True)]
    product = floats and op.reduction.fuses_products and traced.term.op == "mul"
    if product:
        for name, factor in zip(("left", "right"), traced.term.args):
            # Not balanced: the adder is free where the multiply-adder takes the sum.
            parts.append(print_c.c_function("op_{}_".format(name), operands, factor, dtype))
            parts.append(_without_mode("op_" + name, dtype))
    finite_grads, gradients = False, traced.grad_w is not None
    if gradients:
        for name in ("grad_w", "grad_x"):
            partial = getattr(traced, name)
            texts = [
                print_c.c_times_function("op_" + name, "g", operands, partial, dtype, finite)
                for finite in (False, True)
            ]
            parts.append(texts[0])
            finite_grads = finite_grads or texts[0] != texts[1]
            parts.append(texts[1].replace("op_" + name, "op_{}_finite".format(name), 1))
    if op.reduction.function is not None:
        kind = dtype if floats else "int64"
        folded = [(name, kind) for name in FOLDED]
        parts.append(print_c.c_function("op_add", folded, traced.add, kind))
        if gradients:
            for name in ("add_acc", "add_term"):
                parts.append(print_c.c_times_function("op_" + name, "g", folded, getattr(traced, name), dtype))
    math = set()
    for part in traced:
        if part is not None:
            math.update(print_c.functions(part))
    infinite = (pad == float("inf"), pad == -float("inf"), False)
    return Texts(
        "".join(parts),
        op,
        dtype,
        sorted(math),
        product=product,
        gradients=gradients,
        finite_grads=finite_grads and op.reduction.finite_grads,
        finite_terms=floats
        and op.reduction.finite_terms
        and ranges.never_nan(traced.term, {"w": infinite, "x": infinite}),
    )


def of_texts(op, dtype):
    """The Texts of an op that was given as C (Op.from_c)."""
    kind = C_TYPES[dtype]
    total = kind if ex.is_float(dtype) else "int64_t"
    folds = op.reduction.function is not None
    parts = [_c_function("op_term_", kind, ("w", "x"), op.multiply.text), _without_mode("op_term", dtype)]
    gradients = ex.is_float(dtype) and op.grad_w is not None and not folds
    if gradients:
        for name in ("grad_w", "grad_x"):
            text = "g * ({})".format(getattr(op, name).text)
            parts.append(_c_function("op_" + name, kind, ("g", "w", "x"), text))
    if folds:
        parts.append(_c_function("op_add", total, FOLDED, op.add.text))
    return Texts(
        "".join(parts),
        op,
        dtype,
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
    kind = C_TYPES[dtype]
    return (
        "static inline __attribute__((always_inline)) {0} {1}(const int fused, const {0} one, const {0} w, const {0} x) {{\n"
        "    (void)fused, (void)one;\n    return {1}_(w, x);\n}}\n"
    ).format(kind, name)


def unsupported(texts):
    """Why these can't be compiled here, or would be slower than tensor operations; None where they can."""
    if texts.start is None and texts.pad is None:
        return "an add without an identity can't leave out padding in C"
    missing = [function for function in texts.math if function not in vector_functions()]
    return "this machine's C library has no {}() of vectors".format(missing[0]) if missing else None


def vector_functions():
    """The functions of the C library that are there for whole vectors (libmvec, x86-64)."""
    name, _, version = _libc().partition(" ")
    numbers = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    return sorted(name for name, function in _CALLS.items() if numbers >= function.vectors)


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
    floats, reduction = ex.is_float(dtype), texts.reduction
    element = C_TYPES[dtype]
    total, block = (C_TYPES[of(dtype)] for of in (reduction.result_dtype, reduction.block_dtype))
    suffix = "f" if dtype == "float32" else ""
    defines = [
        ("LEVEL", level),
        ("TARGET", ""),
        ("ELEMENT", element),
        ("SUM", block),
        ("TOTAL", total),
        ("FMA(a, b, c)", "__builtin_fma{}(a, b, c)".format(suffix)),
        ("ADDS", "DOT_" + reduction.c_name.upper()),
        ("STARTS", int(texts.start is not None)),
        ("START", texts.start or 0),
        ("BETTER(a, b)", "((a) {} (b))".format(reduction.better)),
        ("PRODUCT", int(texts.product)),
        ("GRADIENTS", int(texts.gradients)),
        ("MASKS", int(texts.pad is None)),
        ("FINITE", int(texts.finite_grads)),
        ("FINITE_TERMS", int(texts.finite_terms)),
        ("IS_FINITE(v)", "({})".format(reduction.is_finite(texts.pad))),
        ("OP(function)", "op_##function"),
        ("NAME(function)", "kernel_##function"),
    ]
    lines = ["#include <math.h>", "#include <stdint.h>"]
    if texts.math:
        lines += ["#ifdef __clang__", '#error "clang has no functions of vectors"', "#endif"]
    if texts.tgmath:
        lines.append("#ifndef __clang__")
    for function in [name for name in vector_functions() if name in _OF_TEXTS] if texts.tgmath else texts.math:
        for end, kind in (("", "double"), ("f", "float")):
            arguments = ", ".join([kind] * len(_CALLS[function].derivative))
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
