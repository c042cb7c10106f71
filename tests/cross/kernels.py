"""Generated kernels for drive.c, as codegen prints them: ops of users', with functions, and named ops of other dtypes."""

import numpy as np
import torch

from im2col_compat import Op, ops
from im2col_compat.codegen import symbols, template
from im2col_compat.codegen.template import Part
from im2col_compat.compat.arrays import NUMPY

PANELS, DIRECT = (Part(False, False), Part(True, False)), (Part(False, True), Part(True, True))
FORWARD = PANELS[:1]


def bell(w, x, t, s):
    return t * torch.exp(-(w - x) * (w - x)) + s * torch.tanh(x)


def product(w, x):
    return w * x


def traced(op, dtype, scalars=(), arrays=None):
    return template.of_expressions(op, symbols.trace(op, dtype, arrays), dtype, scalars)


def saturated():
    op = Op.from_table(np.zeros((4, 4), int), add=lambda acc, term: np.minimum(acc + term, 50000), identity=0)
    return template.of_lookups(op, symbols.trace_add(op, "int32", NUMPY), "int32")


def kernels():
    """{name in drive.c: C source}. For the instruction set that the compiler takes for granted: which others there are
    differs from machine to machine."""
    logsumexp = Op(product, "logsumexp", pad_value=None)
    fold = Op(product, lambda acc, term: acc * 0.5 + term, identity=1)
    kinds = [
        ("bell", traced(Op(bell), "float32", ("s",)), "float32", PANELS + DIRECT),
        ("logsumexp", traced(logsumexp, "float32"), "float32", PANELS + DIRECT),
        ("fold", traced(fold, "float64"), "float64", PANELS),
        ("max", traced(ops.max_plus, "float64"), "float64", PANELS),
        ("l1", traced(ops.l1, "int16", arrays=NUMPY), "int16", FORWARD + DIRECT[:1]),
        ("quotient", template.of_texts(Op.from_c("w / x", pad_value=3), "int32", ()), "int32", FORWARD),
        ("saturated", saturated(), "int32", FORWARD),
    ]
    found = {}
    for op, texts, dtype, parts in kinds:
        assert template.unsupported(texts) is None
        for part in parts:
            words = "own", op, "gradients" if part.gradients else "forward", "direct" if part.direct else "panels"
            found["_".join(words)] = template.source(texts, dtype, 0, part)
    return found
