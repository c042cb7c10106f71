"""Writes docs/features.md: which kinds of ops PyTorch's graphs and transforms take. Run: make features."""

import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from helpers import features  # noqa: E402

HEAD = """# Graphs and transforms

What PyTorch {version} does with each kind of op. "yes": results, and gradients, are those of plain calls. "no": an error
says so; its text is below the table. "-": there is nothing to ask. Each cell is a check in tests/helpers/features.py, of
a convolution with stride, uneven padding and groups, and a linear layer after it. `make features` runs them all and
writes this page.

In a graph an op is one operator, `torch.ops.im2col_compat.dot`, which evaluates as a plain call does; but torch.onnx gets
standard operators. `vmap`'s samples become images, filters or groups of one call of the kernels. Tensor operations compute
forward mode and second gradients.
"""


def reason(error):
    """An error's own text, without PyTorch's advice."""
    text = " ".join(error.split())
    return text.split("(reason: ")[-1].split(")")[0] if "(reason: " in text else text.split(". ")[0]


def main(path):
    warnings.simplefilter("ignore")
    kinds, notes, rows = list(features.KINDS), [], []
    for kind in kinds:
        cells = []
        for feature in features.FEATURES:
            found = features.outcome(kind, feature)
            if found not in ("yes", "-"):
                note = reason(found)
                if note not in notes:
                    notes.append(note)
                found = "no ({})".format(notes.index(note) + 1)
            cells.append(found)
        rows.append([kind] + cells)
    head = ["op"] + [feature.__doc__ for feature in features.FEATURES]
    lines = [HEAD.format(version=torch.__version__.split("+")[0])]
    lines += ["| {} |".format(" | ".join(row)) for row in [head, ["---"] * len(head)] + rows]
    lines += [""] + ["{}. {}".format(number, note.replace("<", "&lt;")) for number, note in enumerate(notes, 1)]
    Path(path).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
