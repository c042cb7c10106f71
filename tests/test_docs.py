"""The code in README and docs runs, block after block of a file, where what it is about is installed."""

import os
import re
import subprocess

import pytest
from helpers.tensors import VARIABLES, torch

from im2col_compat import lowlevel
from im2col_compat.codegen import compile as c_compiler
from im2col_compat.compat import layers

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md"] + ["docs/" + name for name in ("guide.md", "ops.md", "versions.md")]
TUTORIALS = ["docs/xnor.md", "docs/multipliers.md"]


def has_tools_of_studies():
    """Whether the digits are here, and PyTorch's observers."""
    try:
        import sklearn.datasets  # noqa: F401

        layers.quantization()
    except ImportError:
        return False
    return lowlevel.missing is None and c_compiler.executable("cc") is not None


#: what follows ```python: where the block runs
RUNS = {
    "": torch is not None and not VARIABLES,
    " 0.3": VARIABLES and lowlevel.missing is None,
    " numpy": True,
    " ffi": lowlevel.missing is None,
    " study": has_tools_of_studies(),
}


def blocks(page, language):
    with open(os.path.join(ROOT, page)) as text:
        return re.findall(r"^```{}([^\n]*)\n(.*?)^```".format(language), text.read(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES + TUTORIALS)
def test_code_runs(page, monkeypatch):
    """Every block runs, its assertions hold, and none is left out for want of a known condition."""
    found = blocks(page, "python")
    assert found
    run = [code for where, code in found if RUNS[where]]
    if not run:
        pytest.skip("nothing here is about this environment")
    monkeypatch.syspath_prepend(os.path.join(ROOT, "docs"))  # tutorials import from their scripts
    names = {"__name__": "docs"}
    for code in run:
        exec(compile(code, page, "exec"), names)


@pytest.mark.skipif(c_compiler.executable("cc") is None, reason="needs a C compiler")
def test_c_example(tmpdir):
    """The C example compiles without warnings and prints what the page says."""
    ((_, code),) = blocks("docs/c-library.md", "c")
    source, program = tmpdir.join("example.c"), str(tmpdir.join("example"))
    source.write(code)
    ffi = os.path.join(ROOT, "ffi")
    subprocess.check_call(
        [
            "cc",
            "-std=gnu99",
            "-O3",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-I" + ffi,
            str(source),
            os.path.join(ffi, "im2col.c"),
            os.path.join(ffi, "parallel.c"),
            "-pthread",
            "-o",
            program,
        ]
    )
    assert subprocess.check_output([program]).decode().strip() == "1 9 20"


def test_pages_link_to_files_that_exist():
    """No link leads nowhere."""
    for page in PAGES + TUTORIALS + ["docs/c-library.md"]:
        with open(os.path.join(ROOT, page)) as text:
            for target in re.findall(r"\]\((?!http)([^)#]+)\)", text.read()):
                assert os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)), (page, target)
