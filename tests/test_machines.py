"""Where there is no C compiler that does, or another system: what stands in for it here."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers.processes import anew

from im2col_compat.codegen import compile as c_compiler

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CC = c_compiler.executable("cc")


# ---------------------------------------------------------------- installing
@pytest.mark.parametrize(
    "words, variables",
    [
        ([], {"CC": "false"}),  # a compiler that compiles nothing
        ([], {"CC": "there-is-no-such-compiler"}),
        (["build_ext", "--compiler=msvc"], {}),  # where that isn't installed
    ],
)
def test_installing_without_a_compiler(words, variables, tmpdir):
    """What is built is the package without its C library, after one message, which says why."""
    pytest.importorskip("setuptools"), pytest.importorskip("cffi")
    source, built = str(tmpdir.join("source")), str(tmpdir.join("built"))
    os.mkdir(source)
    for name in ("ffi", "im2col_compat"):
        ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        shutil.copytree(os.path.join(ROOT, name), os.path.join(source, name), ignore=ignored)
    for name in ("setup.py", "README.md"):
        shutil.copy(os.path.join(ROOT, name), source)
    process = subprocess.Popen(
        [sys.executable, "setup.py", "-q"] + words + ["build", "--build-lib", built],
        cwd=source,
        env=dict(os.environ, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = process.communicate()[0].decode("utf-8", "replace")
    assert process.returncode == 0, output
    assert output.count("installing WITHOUT the C library: ") == 1 and "install a C compiler" in output
    assert "Traceback" not in output
    # Without torch, which takes seconds to import and isn't asked.
    code = "import sys; sys.modules['torch'] = None; sys.path.insert(0, {!r}); import im2col_compat as library; "
    code += "print(library.__file__); print(library.lowlevel.missing); print(list(library.available_backends()))"
    file, missing, backends = anew(code.format(built))[0].splitlines()
    assert file.startswith(built) and "isn't built" in missing and backends == "['slices']"


# ---------------------------------------------------------------- compiled ops
COMPILE = """
import ctypes, os, sys
sys.modules["torch"] = None  # it takes seconds, and isn't asked
here = os.name
from im2col_compat.codegen import compile
{system}
try:
    path = compile.library("int answer(void) {{ return 42; }}", ("-O1",), "this")
    os.name = here  # the loader is this system's
    print(ctypes.CDLL(path).answer())
    print(path)
except compile.CannotCompile as error:
    print(error)
"""
# platform asks the system once, and modules that it imports would take this one for Windows.
WINDOWS = """
import platform
platform.uname()
for name in ("geteuid", "uname", "setsid", "killpg"):
    if hasattr(os, name):
        delattr(os, name)
os.name, os.pathsep, sys.platform = "nt", ";", "win32"
"""
MACOS = """
sys.platform = "darwin"
"""


def program(directory, name, text):
    path = str(directory.join(name))
    with open(path, "w") as stream:
        stream.write("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)


def compiled(system, tmpdir, separator, **variables):
    """What a process on such a system prints, and says of compiling. Its PATH is a folder that isn't there, and `bin`."""
    variables = dict(
        {"CC": "", "IM2COL_COMPAT_CACHE": str(tmpdir.join("cache")), "IM2COL_COMPAT_QUIET": "0", "TMPDIR": str(tmpdir)},
        **variables
    )
    variables["PATH"] = separator.join([str(tmpdir.join("nothing")), str(tmpdir.join("bin"))])
    out, err = anew(COMPILE.format(system=system), **variables)
    return out.splitlines(), err


@pytest.fixture
def bin(tmpdir):
    if CC is None or os.name != "posix":
        pytest.skip("no C compiler, or not a Unix")
    return tmpdir.mkdir("bin")


REAL = 'PATH={} exec {} "$@"\n'.format(os.environ.get("PATH", os.defpath), CC)


@pytest.mark.parametrize("name", ["gcc.exe", "clang.exe"])
def test_windows(name, bin, tmpdir):
    """MinGW-w64's compilers are found by their names there, and what they make is this process's alone."""
    program(bin, name, REAL)
    (answer, path), said = compiled(WINDOWS, tmpdir, ";")
    assert answer == "42" and not os.path.exists(path)
    assert "this system doesn't tell whose a directory is" in said and not tmpdir.join("cache").check()


def test_windows_without_one(bin, tmpdir):
    """Microsoft's isn't asked: it doesn't know what kernels are made of."""
    program(bin, "cl.exe", REAL)
    assert compiled(WINDOWS, tmpdir, ";")[0] == ["there is no C compiler (tried cc, gcc, clang)"]


def test_macos(bin, tmpdir):
    """cc is the one, and what it makes is kept."""
    program(bin, "cc", REAL)
    (answer, path), said = compiled(MACOS, tmpdir, ":")
    assert answer == "42" and os.path.dirname(path) == str(tmpdir.join("cache")) and "kept in" in said


def test_macos_without_its_tools(bin, tmpdir):
    """Then cc is there, and says that they aren't: so does the reason."""
    program(bin, "cc", 'echo "xcode-select: note: No developer tools were found, requesting install." >&2\nexit 1\n')
    assert "No developer tools were found" in compiled(MACOS, tmpdir, ":")[0][0]
