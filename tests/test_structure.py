"""The house: rooms that import from below alone, differences that stay in their room, imports that cost little."""

import ast
import os

import pytest
from helpers.processes import anew

import im2col_compat

#: From the ground up. A module imports from its own line and those above it; modules that are named in none are at fault.
ROOMS = (
    ("compat",),
    ("problem", "lowlevel"),
    ("codegen", "engines"),
    ("reductions",),
    ("cuda",),
    ("terms",),
    ("table", "chunks"),
    ("paths",),
    ("op",),
    ("ops", "graph"),
    ("padding", "columns", "conv", "conv_transpose", "unrolled"),
    ("modules", "drawing"),
    ("binary", "quantized"),
    ("conversion",),
    ("__init__", "__main__"),
)
PACKAGE = os.path.dirname(os.path.abspath(im2col_compat.__file__))
TESTS = os.path.dirname(os.path.abspath(__file__))


def parsed(folder, without=()):
    """The modules below a folder, parsed, by their names: "paths.find", "paths.__init__"."""
    found = {}
    for path, folders, files in os.walk(folder):
        folders[:] = set(folders).difference(without)
        for name in files:
            if name.endswith(".py"):
                module = os.path.relpath(os.path.join(path, name), folder)[:-3].replace(os.sep, ".")
                with open(os.path.join(path, name)) as text:
                    found[module] = ast.parse(text.read(), name)
    return found


MODULES = parsed(PACKAGE)


def imports(module, tree=None):
    """The modules of the package that one imports, at its top or late, and the lines where."""
    for node in ast.walk(tree or MODULES[module]):
        if isinstance(node, ast.Import):
            names = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join((["im2col_compat"] + above if node.level else []) + ([node.module] if node.module else []))
            names = [(base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) in ("__import__", "import_module") and text(node.args[0]):
            names = [(text(node.args[0]), None)]
        else:
            continue
        for base, name in names:
            if base.split(".")[0] == "im2col_compat":
                inside = base.split(".")[1:]
                # A module; something in a module; something in a package.
                for parts in (inside + [name or "__init__"], inside, inside + ["__init__"]):
                    if ".".join(parts) in MODULES:
                        yield ".".join(parts), node.lineno
                        break


def called(call):
    return getattr(call.func, "id", None) or getattr(call.func, "attr", None)


def text(node):
    """A literal's text; None where it is none. (Python 2.7 has a class of its own for it, which today's warns of.)"""
    value = getattr(node, "value" if type(node).__name__ == "Constant" else "s", None) if is_literal(node) else None
    return value if isinstance(value, str) else None


def is_literal(node):
    return type(node).__name__ in ("Constant", "Str")


def floor(module):
    """Which line of ROOMS names a module, or the room that it is in."""
    (found,) = [i for i, names in enumerate(ROOMS) if module in names or module.split(".")[0] in names] or [None]
    return found


# ---------------------------------------------------------------- imports


def test_every_module_has_its_place():
    """ROOMS names every module, or the room that it is in, once."""
    assert [module for module in sorted(MODULES) if floor(module) is None] == []


def test_imports_point_down():
    """No module imports from a room above its own, in a function neither."""
    up = [
        "{} line {}: {}".format(module, line, other)
        for module in sorted(MODULES)
        for other, line in imports(module)
        if floor(other) > floor(module)
    ]
    assert not up, "\n".join(up)


def test_imports_make_no_circle():
    """No module imports itself by way of others, late imports included."""
    needs = {module: sorted({other for other, _ in imports(module)}) for module in MODULES}
    ended, circles = set(), []

    def visit(module, way):
        if module in way:
            circles.append(" -> ".join(way[way.index(module) :] + [module]))
        elif module not in ended:
            for other in needs[module]:
                visit(other, way + [module])
            ended.add(module)

    for module in sorted(MODULES):
        visit(module, [])
    assert not circles, "\n".join(circles)


def test_every_way_to_import_is_seen():
    """Imports of modules and of what is in them, at the top or in a function, by statements or by functions."""
    ways = {
        "import im2col_compat.problem": "problem",
        "from im2col_compat import problem": "problem",
        "from im2col_compat.problem import product": "problem",
        "from .choose import backend": "engines.choose",
        "from ..problem import product": "problem",
        "from im2col_compat.engines import choose": "engines.choose",
        "from im2col_compat import __version__": "__init__",
        "def f():\n    from im2col_compat import problem": "problem",
        "importlib.import_module('im2col_compat.problem')": "problem",
        "__import__('im2col_compat.problem')": "problem",
    }
    assert {way: [name for name, _ in imports("engines.base", ast.parse(way))] for way in ways} == {
        way: [name] for way, name in ways.items()
    }


def test_no_test_module_imports_another():
    """What test modules share is in tests/helpers, which imports no test module."""
    modules = parsed(TESTS, without=("matrix", "bench", "sanitize", "cuda", "cross", "typed"))  # which Python 2.7 can't parse
    shared = {name for name in modules if "." not in name} | {name.split(".")[0] for name in modules} - {"helpers"}
    wrong = []
    for module, tree in sorted(modules.items()):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            wrong += [(module, name) for name in names if name and name.split(".")[0] in shared]
    assert not wrong


# ---------------------------------------------------------------- what stays in its room


def test_terms_are_told_apart_in_their_room():
    """Outside terms/ nobody asks for the class of an op's multiply."""
    wrong = [
        "{} line {}".format(module, node.lineno)
        for module, tree in sorted(MODULES.items())
        if module.split(".")[0] != "terms"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and called(node) == "isinstance" and is_part(node.args[0], "multiply")
    ]
    assert not wrong, "\n".join(wrong)


def test_reductions_are_told_apart_in_their_room():
    """Outside the reductions nobody compares an op's add with a string, or asks whether it is one."""
    wrong = []
    for module, tree in sorted(MODULES.items()):
        if "reductions" not in module.split("."):
            for node in ast.walk(tree):
                asks = isinstance(node, ast.Call) and called(node) == "isinstance" and is_part(node.args[0], "add")
                sides = [node.left] + node.comparators if isinstance(node, ast.Compare) else []
                if asks or any(is_part(side, "add") for side in sides) and any(has_text(side) for side in sides):
                    wrong.append("{} line {}".format(module, node.lineno))
    assert not wrong, "\n".join(wrong)


def is_part(node, name):
    """Whether this is a variable or an attribute of a name."""
    return name in (getattr(node, "id", None), getattr(node, "attr", None))


def has_text(node):
    return text(node) is not None or any(text(item) is not None for item in getattr(node, "elts", ()))


# ---------------------------------------------------------------- what importing costs

IMPORT = """
import sys
for needed in ("torch", "numpy", "cffi"):
    try:
        __import__(needed)
    except ImportError:
        pass
before = set(sys.modules)
import im2col_compat
print(" ".join(sorted(name for name in set(sys.modules) - before if not name.startswith("im2col_compat"))))
"""
#: What neither importing nor computing needs: PyTorch's compiler among it.
HEAVY = {"matplotlib", "scipy", "sympy", "sklearn", "tqdm", "setuptools", "distutils", "pytest"}
HEAVY |= {"torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "torch.export", "torch._export"}


def test_importing_is_quiet_and_light(tmpdir):
    """Importing the package warns of nothing, runs no compiler, makes no cache, and loads nothing beside what it needs."""
    cache = str(tmpdir.join("cache"))
    loaded, errors = anew(IMPORT, IM2COL_COMPAT_CACHE=cache, CC="false", PYTHONWARNINGS="default")
    assert not {
        name for name in loaded.split() if name in HEAVY or any(name.startswith(heavy + ".") for heavy in HEAVY)
    }
    assert not os.path.exists(cache)
    assert "im2col_compat" not in errors and "compiled" not in errors
