"""Builds im2col_compat._im2col, the C library as a cffi API-mode module.

``setup.py`` names ``ffibuilder`` in its ``cffi_modules``. Knows no PyTorch.
"""

import os
import re

from cffi import FFI

here = os.path.dirname(os.path.abspath(__file__))


def declarations():
    """im2col.h without what cffi's parser can't read: it is the only list of functions."""
    with open(os.path.join(here, "im2col.h")) as header:
        text = header.read()
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "im2col_compat._im2col",
    '#include "im2col.h"',
    # Relative, as an sdist wants them: setup.py runs in the folder above.
    sources=["ffi/im2col.c"],
    depends=["ffi/im2col.h", "ffi/half.h", "ffi/im2col_body.h", "ffi/col2im_body.h"],
    include_dirs=["ffi"],
    # Nothing else is exported, so no name can clash with another library's.
    extra_compile_args=["-std=gnu99", "-O3", "-Wall", "-Wextra", "-fvisibility=hidden"],
)
