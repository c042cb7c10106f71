"""The inlined functions are right to two units in the last place, pow to four, and what must be special is."""

import re

import pytest
from helpers import accuracy
from helpers.settings import needs_library

from im2col_compat.codegen import compile
from im2col_compat.codegen.expression import FUNCTIONS, INLINED

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
