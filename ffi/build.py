"""Builds im2col_compat._im2col, the C library as a cffi API-mode module.

``setup.py`` names ``ffibuilder`` in its ``cffi_modules``. Knows no PyTorch.
"""

import os
import re

from cffi import FFI

here = os.path.dirname(os.path.abspath(__file__))

#: The interface.
HEADERS = ("im2col.h", "dot.h", "dot_signs.h", "dot_lookup.h")

#: What comes before and after a user's op, which is compiled when it is first called; and after the add of a table's.
TEMPLATE = (("dot.h", "dot_level.h", "dot_functions.h"), ("dot_body.h",), ("dot_lookup.h", "dot_lookup_one_body.h"))

FLAGS = ["-std=gnu99", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"]
# Functions set no errno and raise no traps, so that loops over them can become vectors. Products are rounded before
# they are added, as PyTorch rounds them. What -ffast-math does beyond that breaks infinities and NaN.
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]


def read(name):
    with open(os.path.join(here, name)) as text:
        return text.read()


def files(end):
    """The folder's files, relative as an sdist wants them: setup.py runs in the folder above."""
    return ["ffi/" + name for name in sorted(os.listdir(here)) if name.endswith(end)]


def declarations():
    """The interface, without the lines that cffi's parser can't read. The headers are the only list of functions."""
    return re.sub(r"^#.*$", "", "".join(read(name) for name in HEADERS), flags=re.MULTILINE)


def quoted(text):
    """Text as a C string, line by line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join('"{}\\n"'.format(line) for line in escaped.splitlines())


def source():
    """The module's own C: the library carries the template that it is to be used with."""
    parts = ", ".join(quoted("".join(read(name) for name in names)) for names in TEMPLATE)
    return (
        '#include "platform.h"\n'  # first, to refuse other compilers
        "{}"
        "static const char *const template[] = {{{}}};\n"
        "const char *dot_template(int part) {{ return template[part]; }}\n"
    ).format("".join('#include "{}"\n'.format(name) for name in HEADERS), parts)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "im2col_compat._im2col",
    source(),
    sources=files(".c"),
    depends=files(".h"),
    include_dirs=["ffi"],
    # Nothing else is exported, so no name can clash with another library's.
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)
