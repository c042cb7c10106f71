"""Multipliers that are published as C, EvoApproxLib's functions and headers with a table: compiled and tabulated."""

import os
import re
import shutil
import sys

import numpy as np

from im2col_compat.codegen import cache, compile, template
from im2col_compat.terms.table import MOST_BITS

#: The C types of operands and products, and those of one byte.
_WORDS = r"const|unsigned|signed|static|inline|extern|long|short|char|int|u?int\d+_t"
_TYPE = r"(?:(?:" + _WORDS + r")\s+)+"
_RESULT = r"(?:(?:" + _WORDS + r"|float|double)\s+)+"
_PARAMETER = r"\s*(" + _TYPE + r")(?:\w+)\s*"
_FUNCTION = re.compile(r"(" + _RESULT + r")(\w+)\s*\(" + _PARAMETER + "," + _PARAMETER + r"\)\s*\{")
_ARRAY = re.compile(r"(" + _RESULT + r")(\w+)\s*\[\s*(\d+)\s*\]\s*\[\s*(\d+)\s*\]\s*=\s*\{")
#: What EvoApproxLib's names say: mul8u_1JFF, mul8s_1KVB, mul7x4u_...
_NAMED = re.compile(r"mul(\d+)(?:x(\d+))?(u|s)(?:_|$)")

_TABULATE = """
__attribute__((visibility("default"))) void im2col_compat_tabulate({kind} *table);
void im2col_compat_tabulate({kind} *table)
{{
    for (int i = 0; i < {rows}; i++)
        for (int j = 0; j < {columns}; j++) {{
            const int64_t w = {w_signed} && i >= {rows} / 2 ? i - {rows} : i;
            const int64_t x = {x_signed} && j >= {columns} / 2 ? j - {columns} : j;

            (void)w, (void)x;
            table[i * {columns} + j] = ({kind}){expression};
        }}
}}
"""

#: Bytes of memory that the C may take.
MOST_MEMORY = 1 << 30

#: In a process of its own, since a function that divides by zero ends it, and with bounded memory.
_RUN = """
import ctypes, sys
table = (ctypes.c_int64 * int(sys.argv[2]))()
try:
    import resource
    with open("/proc/self/statm") as file:
        most = int(file.read().split()[0]) * resource.getpagesize() + int(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
except (EnvironmentError, ImportError):
    pass  # only Linux tells what is in use, and only Unix has bounds
ctypes.CDLL(sys.argv[1]).im2col_compat_tabulate(table)
with open("table", "wb") as file:
    file.write(ctypes.string_at(table, ctypes.sizeof(table)))
"""


def error(kind, message, *values):
    """An exception of Op.from_table."""
    return kind("Op.from_table(): " + message.format(*values))


def said(path):
    """(signed, bits) that the name of a multiplier, or of its file, says: pairs; None where it says neither."""
    found = _NAMED.match(os.path.splitext(os.path.basename(path))[0])
    if found is None:
        return None, None
    return (found.group(3) == "s",) * 2, (int(found.group(1)), int(found.group(2) or found.group(1)))


def unknown_signs(what):
    """The exception for a source that doesn't say what bits mean."""
    message = "neither types nor a name such as mul8s_1KVB say whether the operands of {} are signed: pass signed="
    return error(ValueError, message, what)


def tabulate(text, where, signed, bits, name, directory=None):
    """(entries, signed) of a function of two integers, or of a table, in C source.

    where: what messages call the source. signed, bits: pairs, or None for what the types or the name say. name: which
    function or table, where there are several. directory: where the files that it includes are looked for.
    """
    plain = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
    functions = {match.group(2): match for match in _FUNCTION.finditer(plain)}
    arrays = {match.group(2): match for match in _ARRAY.finditer(plain)}
    known = sorted(set(functions) | set(arrays))
    if name is None:
        stem = os.path.splitext(os.path.basename(where))[0]
        name = stem if stem in known else known[0] if len(known) == 1 else None
    if name not in known:
        message = "name must be one of the functions of two integers, or the tables, that {} defines, {}, but got {!r}"
        raise error(ValueError, message, where, known, name)
    says_signed, says_bits = next((found for found in (said(name), said(where)) if found[0]), (None, None))
    if name in arrays:
        kind, shape = arrays[name].group(1), tuple(int(size) for size in arrays[name].group(3, 4))
        signed = signed or says_signed
        expression = name + "[i][j]"
    else:
        kind, parameters = functions[name].group(1), functions[name].group(3, 4)
        signed = signed or says_signed or tuple(_says_signed(parameter) for parameter in parameters)
        if bits is None:
            bits = says_bits or (MOST_BITS, MOST_BITS)
            if max(bits) > MOST_BITS:
                raise error(ValueError, "operands have at most {} bits, but those of {} have {}", MOST_BITS, name, bits)
        shape = tuple(2**count for count in bits)
        # An unsigned parameter gets the bits of a signed operand.
        operands = [
            "({})({} & {})".format(parameter.strip(), value, -1 if _is_signed(parameter) else size - 1)
            for parameter, value, size in zip(parameters, "wx", shape)
        ]
        expression = "{}({}, {})".format(name, *operands)
    if signed is None or None in signed:
        raise unknown_signs("{} in {}".format(name, where))
    entries = _compiled(text, where, expression, kind, shape, signed, directory)
    if any(signed) and not _is_signed(kind):
        # And an unsigned result has the bits of the product of signed operands.
        product = shape[0] * shape[1]
        entries %= product
        entries[entries >= product // 2] -= product
    return entries, signed


def _is_signed(kind):
    return not re.search(r"\bunsigned\b|\buint", kind)


def _says_signed(kind):
    """Whether a parameter's type says that an operand is signed; None where a wider one has room for either."""
    if not _is_signed(kind):
        return False
    return True if re.search(r"\bchar\b|\bint8_t\b", kind) else None


def _compiled(text, where, expression, kind, shape, signed, directory):
    """The values of a C expression of a type in w and x, or in their places i and j, for all operands."""
    (rows, columns), (w_signed, x_signed) = shape, [int(sign) for sign in signed]
    kind, dtype = ("double", np.float64) if re.search(r"\bfloat\b|\bdouble\b", kind) else ("int64_t", np.int64)
    tabulate = _TABULATE.format(
        kind=kind, rows=rows, columns=columns, w_signed=w_signed, x_signed=x_signed, expression=expression
    )
    flags = template.FLAGS + (() if directory is None else ("-I" + directory,))
    folder = None
    try:
        folder = cache.scratch()
        source = "#include <stdint.h>\n" + text + tabulate
        # The library depends on what the source includes as well.
        source += "/* {} */\n".format(compile.digest(source, flags, folder))
        path = compile.library(source, flags, where, "tables")
        words = [sys.executable or "python", "-c", _RUN, path, str(rows * columns), str(MOST_MEMORY)]
        status, output = compile.run(words, folder)
        if status != 0:
            message = "tabulating it, in {} MiB of memory at most, ended with {} {}"
            raise compile.CannotCompile(message.format(MOST_MEMORY >> 20, status, output[-500:]))
        written = os.path.join(folder, "table")
        if not os.path.exists(written):
            raise compile.CannotCompile("it ended its process before all entries were known: does it call exit()?")
        return np.fromfile(written, dtype).reshape(shape)
    except (compile.CannotCompile, EnvironmentError) as reason:
        raise error(RuntimeError, "{} can't be compiled and tabulated: {}", where, reason)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
