"""Builds im2col_compat._im2col, the C library as a cffi API-mode module.

``setup.py`` names ``ffibuilder`` in its ``cffi_modules``. Knows no PyTorch.
"""

import os
import re

from cffi import FFI

here = os.path.dirname(os.path.abspath(__file__))

HEADERS = ("im2col.h", "dot.h", "dot_signs.h", "dot_lookup.h")
SOURCES = ("im2col.c", "dot.c", "dot_named.c", "dot_signs.c", "dot_lookup.c", "parallel.c")

#: A user's op is compiled between these two, when it is first called.
TEMPLATE = (("dot.h", "dot_level.h"), ("dot_body.h",))

FLAGS = ["-std=gnu99", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"]
# Functions set no errno and raise no traps, without which loops over them can't become vectors; and products
# are rounded before they are added, as PyTorch rounds them. What -ffast-math does beyond that breaks infinities and NaN.
FLAGS += ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]


def read(name):
    with open(os.path.join(here, name)) as text:
        return text.read()


def declarations():
    """The headers without what cffi's parser can't read: they are the only list of functions."""
    return re.sub(r"^#.*$", "", "".join(read(name) for name in HEADERS), flags=re.MULTILINE)


def quoted(text):
    """Text as a C string, line by line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return "\n".join('"{}\\n"'.format(line) for line in escaped.splitlines())


def source():
    """The module's own C: the library carries the template that it is to be used with."""
    parts = ", ".join(quoted("".join(read(name) for name in names)) for names in TEMPLATE)
    return (
        "{}"
        "static const char *const template[] = {{{}}};\n"
        "const char *dot_template(int part) {{ return template[part]; }}\n"
    ).format("".join('#include "{}"\n'.format(name) for name in HEADERS), parts)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "im2col_compat._im2col",
    source(),
    # Relative, as an sdist wants them: setup.py runs in the folder above.
    sources=["ffi/" + name for name in SOURCES],
    depends=["ffi/" + name for name in sorted(os.listdir(here)) if name.endswith(".h")],
    include_dirs=["ffi"],
    # Nothing else is exported, so no name can clash with another library's.
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
)
