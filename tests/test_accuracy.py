"""The inlined functions are right to two units in the last place, pow to four, and what must be special is."""

import re
import subprocess

import numpy as np
import pytest
from helpers import accuracy
from helpers.settings import needs_library

from im2col_compat import Op
from im2col_compat.codegen import compile, symbols, template
from im2col_compat.codegen.expression import FUNCTIONS, INLINED
from im2col_compat.compat.arrays import NUMPY

pytestmark = [
    needs_library,
    pytest.mark.skipif(compile.executable("cc") is None, reason="needs a C compiler"),
]
CASES = [(name, kind) for name in accuracy.EXACT for kind in accuracy.TYPES]


def test_all_are_measured():
    """Every function that is inlined has its exact value."""
    inlined = [function for function in FUNCTIONS if function.calls == INLINED]
    names = {function.c for function in inlined} | {function.below for function in inlined if function.below}
    assert names == set(accuracy.EXACT)


@pytest.mark.parametrize("level", accuracy.levels())
@pytest.mark.parametrize("name, kind", CASES)
def test_accuracy(tmpdir, name, kind, level):
    """Of numbers of all exponents, special ones among them."""
    worst, wrong, x, y = accuracy.measure(tmpdir, name, kind, level, 200000)
    assert wrong == 0
    assert worst <= accuracy.most(name), (x, y)


@pytest.mark.skipif(compile.executable("objdump") is None, reason="needs objdump")
@pytest.mark.parametrize("level", (0, 1, 2))
@pytest.mark.parametrize("kind", accuracy.TYPES)
def test_vectors(tmpdir, kind, level):
    """A loop over any of the functions becomes vectors, and calls nothing."""
    sections = re.split(r"<loop_(\w+)>:\n", accuracy.assembly(tmpdir, kind, level))[1:]
    scalar = set()
    for name, text in zip(sections[::2], sections[1::2]):
        if re.search(r"\s(?:call\w*|v?(?:add|sub|mul|div|fn?m\w+)s[sd])\s", text):
            scalar.add(name)
    assert set(sections[::2]) == set(accuracy.EXACT)
    # SSE2 compares no integers of 64 bits, with which gcc chooses between doubles.
    assert scalar <= ({"pow"} if (kind, level) == ("double", 0) else set())


#: Choices that are the same for all lanes, choices of choices, and functions that end in one.
CHOOSING = {
    "power": lambda w, x: (abs(w) + 0.1) ** x,
    "sign": lambda w, x: np.sign(w) * np.exp(w * x),
    "softplus": lambda w, x: np.where(w * x > 20, w * x, np.log1p(np.exp(w * x))),
    "of weights": lambda w, x: np.where(w > 0.3, np.where(w < 0.7, np.exp(w * x), x), w * x),
    "greatest": lambda w, x: np.maximum(np.maximum(w, x), np.maximum(w * x, w - x)),
}


@pytest.mark.skipif(compile.executable("objdump") is None, reason="needs objdump")
@pytest.mark.parametrize("name", sorted(CHOOSING))
def test_kernels_are_vectors(tmpdir, name):
    """gcc makes vectors of whole kernels, too, where expressions choose."""
    if b"clang" in subprocess.check_output(list(compile.command()) + ["--version"]):
        pytest.skip("of gcc")
    op = Op(CHOOSING[name])
    texts = template.of_expressions(op, symbols.trace(op, "float32", NUMPY), "float32", ())
    for gradients in (False, True)[: 1 + texts.gradients]:
        source = template.source(texts, "float32", 1, template.Part(gradients, False))
        sections = re.split(r"<kernel_(forward|grad_w|grad_x)>:\n", accuracy.objects(tmpdir, source, 1))[1:]
        assert set(sections[::2]) == ({"grad_w", "grad_x"} if gradients else {"forward"})
        for text in sections[1::2]:
            # What is of weights alone is computed once for all lanes, but never most of it.
            scalar, vectors = (len(re.findall(r"\sv?(?:add|sub|mul|fn?m\w+)%s[sd]\s" % kind, text)) for kind in "sp")
            assert scalar < 2 * vectors
