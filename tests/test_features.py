"""Every kind of op in PyTorch's graphs and transforms: right, or refused with an error. docs/features.md has the table."""

import os
import warnings

import pytest
from helpers.tensors import torch

from im2col_compat.compat import graphs

if torch is None or not graphs.HAS_LIBRARY:
    pytest.skip("needs torch.library's operators (2.4)", allow_module_level=True)

from helpers import features

PAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "features.md")
#: These take a second, and are asked of some kinds only. The page's command asks them of all.
LONG = {"compiled", "compiled_dynamic", "compiled_in_pieces", "checked_operators", "exported", "to_onnx"}
SOME = [
    "dot",
    "max_plus",
    "own `add`",
    "a tensor is captured that requires grad",
    "tensor operations only",
    "`Op.from_table`",
]
#: What no kind of op may refuse.
ALWAYS = {
    "first_gradients",
    "compiled_in_pieces",
    "functional_gradients",
    "batched_gradients",
    "mapped",
    "per_sample",
    "on_meta",
}
CELLS = [
    (kind, feature)
    for kind in features.KINDS
    for feature in features.FEATURES
    if kind in SOME or feature.__name__ not in LONG
]


@pytest.fixture(scope="module")
def table():
    """The page's rows, by kind; None for a page of another PyTorch."""
    with open(PAGE) as page:
        text = page.read()
    if "PyTorch {}".format(torch.__version__.split("+")[0]) not in text:
        return None
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.parametrize("kind,feature", CELLS, ids=["{}-{}".format(k, f.__name__) for k, f in CELLS])
def test_right_or_refused(kind, feature, table):
    """No result is wrong, and the page says what is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = features.outcome(kind, feature)
    assert found in ("yes", "-") or feature.__name__ not in ALWAYS, found
    if table is not None:
        cell = table[kind][features.FEATURES.index(feature)]
        assert cell.split(" ")[0] == (found if found in ("yes", "-") else "no"), found
