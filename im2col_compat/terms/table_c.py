"""Multipliers that are published as C, EvoApproxLib's functions and headers with a table: compiled and tabulated."""

import os
import re
import shutil
import sys

import numpy as np

from im2col_compat.codegen import cache, compile, template
from im2col_compat.terms.table import MOST_BITS

#: The C types of operands and products, and those of one byte.
_TYPE = r"(?:(?:const|unsigned|signed|static|inline|extern|long|short|char|int|u?int\d+_t)\s+)+"
_BYTE = re.compile(r"\bchar\b|\bu?int8_t\b")
_PARAMETER = r"\s*(" + _TYPE + r")(?:\w+)\s*"
_FUNCTION = re.compile(r"(" + _TYPE + r")(\w+)\s*\(" + _PARAMETER + "," + _PARAMETER + r"\)\s*\{")
_ARRAY = re.compile(r"(" + _TYPE + r")(\w+)\s*\[\s*(\d+)\s*\]\s*\[\s*(\d+)\s*\]\s*=\s*\{")
#: What EvoApproxLib's names say: mul8u_1JFF, mul8s_1KVB, mul7x4u_...
_NAMED = re.compile(r"mul(\d+)(?:x(\d+))?(u|s)(?:_|$)")

_TABULATE = """
__attribute__((visibility("default"))) void im2col_compat_tabulate(int64_t *table);
void im2col_compat_tabulate(int64_t *table)
{{
    for (int i = 0; i < {rows}; i++)
        for (int j = 0; j < {columns}; j++) {{
            const int64_t w = {w_signed} && i >= {rows} / 2 ? i - {rows} : i;
            const int64_t x = {x_signed} && j >= {columns} / 2 ? j - {columns} : j;

            (void)w, (void)x;
            table[i * {columns} + j] = (int64_t){expression};
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
    said = _NAMED.match(name)
    says_signed = None if said is None else (said.group(3) == "s",) * 2
    if name in arrays:
        kind, shape = arrays[name].group(1), tuple(int(size) for size in arrays[name].group(3, 4))
        signed = signed or says_signed or (False, False)
        expression = name + "[i][j]"
    else:
        kind, parameters = functions[name].group(1), functions[name].group(3, 4)
        narrow = all(_BYTE.search(parameter) for parameter in parameters)
        signed = signed or says_signed or tuple(narrow and _is_signed(parameter) for parameter in parameters)
        if bits is None:
            bits = (MOST_BITS, MOST_BITS) if said is None else (int(said.group(1)), int(said.group(2) or said.group(1)))
            if max(bits) > MOST_BITS:
                raise error(ValueError, "operands have at most {} bits, but those of {} have {}", MOST_BITS, name, bits)
        shape = tuple(2**count for count in bits)
        # An unsigned parameter gets the bits of a signed operand.
        operands = [
            "({})({} & {})".format(parameter.strip(), value, -1 if _is_signed(parameter) else size - 1)
            for parameter, value, size in zip(parameters, "wx", shape)
        ]
        expression = "{}({}, {})".format(name, *operands)
    entries = _compiled(text, where, expression, shape, signed, directory)
    if any(signed) and not _is_signed(kind):
        # And an unsigned result has the bits of the product of signed operands.
        product = shape[0] * shape[1]
        entries %= product
        entries[entries >= product // 2] -= product
    return entries, signed


def _is_signed(kind):
    return not re.search(r"\bunsigned\b|\buint", kind)


def _compiled(text, where, expression, shape, signed, directory):
    """The values of a C expression in w and x, or in their places i and j, for all operands."""
    (rows, columns), (w_signed, x_signed) = shape, [int(sign) for sign in signed]
    tabulate = _TABULATE.format(rows=rows, columns=columns, w_signed=w_signed, x_signed=x_signed, expression=expression)
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
        return np.fromfile(written, np.int64).reshape(shape)
    except (compile.CannotCompile, EnvironmentError) as reason:
        raise error(RuntimeError, "{} can't be compiled and tabulated: {}", where, reason)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
