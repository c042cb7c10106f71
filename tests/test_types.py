"""The stubs: mypy --strict takes a user's script and refuses wrong uses, and they have the package's arguments."""

import ast
import inspect
import os
import re
import subprocess
import sys

import pytest
from helpers.tensors import torch

import im2col_compat
from im2col_compat import drawing

try:
    import mypy
except ImportError:
    mypy = None

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = os.path.join(ROOT, "tests", "typed")
RIGHT, WRONG = os.path.join(SCRIPTS, "right.py"), os.path.join(SCRIPTS, "wrong.py")
needs_mypy = pytest.mark.skipif(mypy is None, reason="needs mypy: make docs")
#: The stub's bases that aren't the package's, and layers that are made as these say.
LIKE = {"_Conv": "Conv2d", "_ConvTranspose": "ConvTranspose2d", "_Quantized": "QuantConv2d"}


def errors(script, folder):
    """[(line, code)] of what mypy says of a script, which it finds the installed package for."""
    options = [
        "--strict",
        "--no-error-summary",
        "--no-pretty",
        "--hide-error-context",
        "--python-executable",
        sys.executable,
    ]
    # What it knows of PyTorch takes a while to find out.
    cache = os.path.join(ROOT, ".pytest_cache", "mypy")
    command = [sys.executable, "-m", "mypy"] + options + ["--cache-dir", cache, script]
    made = subprocess.run(command, cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.returncode in (0, 1), made.stderr.decode()
    found = re.findall(r"^(.*?):(\d+): error: .*\[([\w-]+)\]$", made.stdout.decode(), re.M)
    assert made.stdout.decode().count(" error: ") == len(found) and {
        os.path.basename(path) for path, _, _ in found
    } <= {os.path.basename(script)}, made.stdout.decode()
    return [(int(line), code) for _, line, code in found]


@needs_mypy
def test_mypy_takes_a_users_script(tmp_path):
    """Every public name, called in many ways, and what it gives."""
    assert errors(RIGHT, tmp_path) == []


@needs_mypy
def test_mypy_refuses_wrong_uses(tmp_path):
    """Each line that is wrong, for what it is, and no other."""
    with open(WRONG) as text:
        lines = enumerate(text.read().split("\n"), 1)
    expected = [(line, code) for line, words in lines for code in re.findall(r"  # error: ([\w-]+)$", words)]
    assert len(expected) > 20 and errors(WRONG, tmp_path) == expected


@needs_mypy
def test_users_script_names_everything(tmp_path):
    """A public name that the script leaves out would be one that mypy hasn't seen."""
    with open(RIGHT) as text:
        (imported,) = [node for node in ast.parse(text.read()).body if getattr(node, "module", None) == "im2col_compat"]
    assert {alias.name for alias in imported.names} == set(im2col_compat.__all__)


@needs_mypy
def test_users_script_runs(tmp_path):
    """What mypy takes works, and its results are of the types that the script says."""
    picture = []
    try:
        import matplotlib  # noqa: F401

        picture = [str(tmp_path / "unfold.png")]
    except ImportError:
        pass
    made = subprocess.run(
        [sys.executable, "-W", "ignore", RIGHT] + picture,
        cwd=str(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert made.returncode == 0, made.stderr.decode()


@pytest.mark.skipif(sys.version_info < (3, 6) or torch is None, reason="needs signatures, and layers")
def test_stubs_have_the_arguments_of_the_package():
    """Names, order and defaults of arguments: functions, constructors, methods."""
    compared = []

    def compare(function, defined, name):
        found = [
            (parameter.name, parameter.default)
            for parameter in inspect.signature(defined).parameters.values()
            if parameter.name not in ("self", "cls", "args", "kwargs") and parameter.kind != parameter.VAR_KEYWORD
        ]
        names = [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]
        defaults = [ast.literal_eval(default) for default in function.args.defaults]
        defaults = [inspect.Parameter.empty] * (len(names) - len(defaults)) + defaults
        assert found == list(zip(names, defaults)), name
        compared.append(name)

    package = os.path.dirname(im2col_compat.__file__)
    for stub, module in (("__init__.pyi", im2col_compat), ("drawing.pyi", drawing)):
        with open(os.path.join(package, stub)) as text:
            tree = ast.parse(text.read())
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                compare(node, getattr(module, node.name), node.name)
            if isinstance(node, ast.ClassDef) and node.name != "_Binary":
                kind = getattr(module, LIKE.get(node.name, node.name))
                for method in node.body:
                    if isinstance(method, ast.FunctionDef) and method.name != "__exit__":
                        compare(method, getattr(kind, method.name), node.name + "." + method.name)
    functions = {name for name in im2col_compat.__all__ if inspect.isfunction(getattr(im2col_compat, name))}
    assert functions <= set(compared) and "_Conv.__init__" in compared and "Op.from_c" in compared
