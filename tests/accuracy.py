"""Writes docs/accuracy.md: how far inlined functions are from exact results. Run: make accuracy. A second argument is the
step from one float to the next, by default 1."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from helpers import accuracy  # noqa: E402

from im2col_compat.codegen import kernels  # noqa: E402

HEAD = """# Accuracy of functions

On CPUs compiled ops call no function: exp, tanh and the like are polynomials inside the kernels
(ffi/dot_functions.h), for every instruction set and compiler. The table has the greatest errors in units in the last
place. 0.5 is a rounding to the nearest; PyTorch's own functions are right to one or a few units.

Of float32, functions of one number were tried with {which}; the rest with {random} random pairs, or doubles, of all
exponents. NaN, infinities, zeros and their signs, and denormal numbers are the C library's, and were tried too.
`make accuracy` tries every float and writes this page; `tests/test_accuracy.py` tries fewer numbers each time.

Up to an absolute value of {sin[0]} (float64: {sin[1]}), sin and cos are inlined. A call whose operands can lead further
goes to kernels that call the C library's sin and cos, and takes longer; so does Op.from_c, whose operands nobody knows.

"""


def main(path, step=1, random=20000000):
    levels = list(accuracy.levels())
    names = [name for name in accuracy.EXACT if name != "exp_below"]
    pairs = [(kind, level) for kind in accuracy.TYPES for level in levels]
    head = ["function", "may be"] + ["{}, {}".format(kind, kernels.LEVELS[level]) for kind, level in pairs]
    rows = []
    for name in names:
        cells = []
        for kind, level in pairs:
            many = (2**32 // step, step) if kind == "float" and name not in accuracy.PAIRS else (random, 0)
            with tempfile.TemporaryDirectory() as directory:
                of = [each for each in (name, name + "_below") if each in accuracy.EXACT]
                found = [accuracy.measure(directory, each, kind, level, *many) for each in of]
            assert not any(wrong for _, wrong, _, _ in found), (name, kind, level)
            cells.append("{:.2f}".format(max(worst for worst, _, _, _ in found)))
            sys.stdout.write("{} {} {} {}\n".format(name, kind, level, found))
            sys.stdout.flush()
        rows.append([name, str(accuracy.most(name))] + cells)
    which = "**every** float" if step == 1 else "one float of {}".format(step)
    text = HEAD.format(which=which, random=random, sin=[int(accuracy.NEAR[kind]) for kind in accuracy.TYPES])
    lines = ["| {} |".format(" | ".join(row)) for row in [head, ["---"] * len(head)] + rows]
    Path(path).write_text(text + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
