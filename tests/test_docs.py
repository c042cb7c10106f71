"""The code in README and docs runs, block after block of a file, where the page says that it does."""

import os
import re
import subprocess

import pytest
from helpers.tensors import VARIABLES, torch

from im2col_compat import lowlevel
from im2col_compat.codegen import compile as c_compiler

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md"] + ["docs/" + name for name in ("guide.md", "ops.md", "papers.md", "versions.md")]
TUTORIALS = ["docs/xnor.md", "docs/multipliers.md"]


def has_scikit_learn():
    try:
        import sklearn.datasets  # noqa: F401
    except ImportError:
        return False
    return True


def has_onnx():
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        return False
    return True


VERSION = (0, 0) if torch is None else tuple(int(number) for number in str(torch.__version__).split(".")[:2])
#: What a page says that its code, or a block, is for: the same words that readers see.
PYTORCH = {"any PyTorch": torch is not None, "any PyTorch, or none": True, "PyTorch 0.3": VARIABLES}
TOOLS = {
    "the C library": lowlevel.missing is None,
    "a C compiler": c_compiler.executable("cc") is not None,
    "scikit-learn": has_scikit_learn(),
    "ONNX's tools": has_onnx(),
}


def is_here(wanted):
    """Whether this environment has what words as "PyTorch 1.7 and later, with the C library" ask for."""
    version, _, tools = wanted.partition(", with ")
    later = re.match(r"PyTorch (\d+)\.(\d+) and later$", version)
    here = VERSION >= tuple(int(number) for number in later.groups()) if later else PYTORCH[version]
    return here and all(TOOLS[tool] for tool in re.split(", | and ", tools) if tool)


def blocks(page, language):
    """[(what it is for, code)]: said by a line above the block, or once for the page."""
    with open(os.path.join(ROOT, page)) as text:
        text = text.read()
    of_page = re.search(
        r"The code on this page is for (.*?)(, if no line above a block says otherwise)?\.$", text, re.M
    )
    found = re.findall(r"(?:^For ([^\n]*):\n\n)?^```{}\n(.*?)^```".format(language), text, re.MULTILINE | re.DOTALL)
    assert text.count("```{}".format(language)) == len(found)
    return [(wanted or of_page and of_page.group(1), code) for wanted, code in found]


@pytest.mark.parametrize("page", PAGES + TUTORIALS)
def test_code_runs(page, monkeypatch):
    """Every block runs where it says, and its assertions hold."""
    found = blocks(page, "python")
    assert found
    run = [code for wanted, code in found if is_here(wanted)]
    if not run:
        pytest.skip("nothing here is about this environment")
    monkeypatch.syspath_prepend(os.path.join(ROOT, "docs"))  # tutorials import from their scripts
    names = {"__name__": "docs"}
    for code in run:
        exec(compile(code, page, "exec"), names)


@pytest.mark.skipif(not is_here("PyTorch 1.7 and later, with a C compiler and scikit-learn"), reason="needs these")
def test_study_of_resnet(monkeypatch):
    """Each network of the study gives ten numbers, and trains all of its parameters. Crops are the image, moved."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, "docs"))
    import resnet

    images = torch.rand(6, 1, 8, 8)
    for kind in resnet.KINDS:
        network = kind.new()
        before = [parameter.clone() for parameter in network.parameters()]
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        resnet.step(network, optimizer, images, torch.arange(6))
        assert network(images).shape == (6, 10)
        assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 19
        assert not any(torch.equal(old, new) for old, new in zip(before, network.parameters())), kind.name
    torch.manual_seed(0)
    padded = torch.nn.functional.pad(images, (1,) * 4)
    moved = [padded[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    places = [
        [torch.equal(crop, other[i]) for other in moved].index(True) for i, crop in enumerate(resnet.crops(images))
    ]
    assert len(set(places)) > 1
    rows = [resnet.Row(name, 8, seed, 0.5 + 0.2 * seed, 0.25, 2.0, 3e6) for name in ("dot", "table") for seed in (0, 1)]
    assert "| 8x8 | dot | 60.0 (50.0 to 70.0) % | 2.0 | 3 MB | 92.25 % [1] |" in resnet.table(rows)
    assert "25.0 (25.0 to 25.0) % before training" in resnet.table(rows)


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
    for page in PAGES + TUTORIALS + ["docs/c-library.md", "docs/machines.md", "docs/safety.md", "docs/stability.md"]:
        with open(os.path.join(ROOT, page)) as text:
            for target in re.findall(r"\]\((?!http)([^)#]+)\)", text.read()):
                assert os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)), (page, target)


def test_promises_name_tests_that_exist():
    """Every promise of safety.md is held by a test that is there."""
    with open(os.path.join(ROOT, "docs/safety.md")) as text:
        text = text.read()
    for row in re.findall(r"^\| (?!promise|what \|)(.*) \|$", text, re.M):
        assert "::" in row.split("|")[-1], row
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert text.count("::") == len(named) > 30
    for file, test in named:
        with open(os.path.join(ROOT, "tests", file)) as source:
            assert "\ndef {}(".format(test) in source.read(), (file, test)
