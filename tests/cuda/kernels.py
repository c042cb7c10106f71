"""The kernels that are looked at without a GPU: of which ops, for which sizes."""

from collections import namedtuple

import numpy as np
import torch
from im2col_compat import Op, ops
from im2col_compat.cuda import work
from im2col_compat.paths import cuda
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem

#: One that some op needs for some sizes. kernel: the name of its function
Kernel = namedtuple("Kernel", "op dtype what sizes kernel text")


def conv(x, w, stride=1, padding=0, dilation=1, groups=1):
    return conv_problem(len(x) - 2, x, w, None, stride, padding, dilation, groups)


LAYER = {"3x3": conv((32, 64, 56, 56), (64, 64, 3, 3), padding=1)}
LAYERS = dict(
    LAYER, **{
        "7x7 on 7 x 7 pixels": conv((32, 512, 7, 7), (512, 512, 3, 3), padding=1),
        "stem": conv((32, 3, 224, 224), (64, 3, 7, 7), 2, 3),
        "16 filters": conv((32, 16, 32, 32), (16, 16, 3, 3), padding=1),
        "depthwise": conv((32, 128, 56, 56), (128, 1, 3, 3), padding=1, groups=128),
        "few positions": linear_problem((4, 512), (1000, 512), None),
    }
)  # fmt: skip
OTHERS = {
    "1d": conv((8, 16, 1000), (64, 16, 5), 2, 2, 2),
    "3d": conv((2, 16, 16, 32, 32), (64, 16, 3, 3, 3), padding=1),
    "matmul": matmul_problem((4096, 4096), (4096, 4096)),
}
ONE_BY_ONE = {"1x1": conv((32, 256, 56, 56), (64, 256, 1, 1))}
SIGNS = dict(
    ONE_BY_ONE, **{name: dict(LAYERS, **OTHERS)[name] for name in ("stem", "16 filters", "few positions", "3d")}
)
CODES = dict(LAYER, **{name: LAYERS[name] for name in ("7x7 on 7 x 7 pixels", "depthwise", "few positions")})
GIVEN = Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x="(w < x) - (w > x)")
FLOATS = np.zeros((256, 256), np.float32)


def SATURATING(acc, term):
    return (acc + term).clip(-(2**15), 2**15 - 1)


CASES = [
    ("l1", ops.l1, "float32", dict(LAYERS, **OTHERS)),
    ("max_plus", ops.max_plus, "float32", LAYERS),
    ("adder", ops.adder, "float32", LAYER),
    ("l2", ops.l2, "float32", LAYER),
    ("fabs(w - x), in C", GIVEN, "float32", LAYER),
    ("xnor", ops.xnor, "float32", dict(SIGNS, **LAYER)),
    ("xnor", ops.xnor, "bool", dict(LAYER, **ONE_BY_ONE)),
    ("a table of 8 by 8 bits", Op.from_table(lambda w, x: w * x, signed=True), "int8", CODES),
    ("a table of 4 by 4 bits", Op.from_table(lambda w, x: w * x, signed=True, bits=4), "int8", CODES),
    ("a table of floats", Op.from_table(FLOATS, signed=True), "int8", LAYER),
    ("a table, saturating", Op.from_table(lambda w, x: w * x, signed=True, add=SATURATING, identity=0), "int8", LAYER),
    ("exp(-(w - x)^2)", Op(lambda w, x: torch.exp(-((w - x) ** 2))), "float32", LAYER),
    ("padding left out", Op(lambda w, x: abs(w - x), pad_value=None), "float32", LAYER),
    ("t * abs(w - x)", Op(lambda w, x, t: t * abs(w - x)), "float32", LAYER),
    ("prod", Op(lambda w, x: w + x, "prod"), "float32", LAYER),
    ("logsumexp", Op(lambda w, x: w + x, "logsumexp"), "float32", LAYER),
    ("own add", Op(lambda w, x: w * x, lambda acc, term: 0.5 * acc + term, identity=0), "float32", LAYER),
    ("l1", ops.l1, "float64", LAYER),
    ("max_plus", ops.max_plus, "float64", LAYER),
    ("l1", ops.l1, "int8", LAYER),
    ("max_plus", ops.max_plus, "int64", LAYER),
]


def works(op, dtype, problem):
    """(what, Work) of each thing that can be wanted of an op."""
    kernels, reason = op.term.gpu_kernels(op, dtype, cuda._make)
    if reason is not None:
        raise SystemExit("{} has no kernels: {}".format(op, reason))
    yield "forward", cuda.forward_work(op, kernels, problem)
    code = cuda.code(op, kernels) if kernels.has_functions else None
    if code is None or not code.grads or code.add:
        return
    if "arg" in code.reads:
        yield "forward, with arg", work.forward(code, problem, True)
    kept = work.kept(code, problem)
    if kept is not None:
        yield "for gradients", kept
    yield "dx", work.grad_x(code, problem)
    for number, name in enumerate(("w",) + op.term.names):
        yield "d" + name, work.grad_w(code, problem, number)


def wanted():
    """Every Kernel, each text once."""
    found = {}
    for name, op, dtype, problems in CASES:
        for sizes, problem in problems.items():
            for what, each in works(op.with_parameters(tuple(n for n, _ in op.term.arguments)), dtype, problem):
                for launch in each.launches:
                    found.setdefault(launch.text, Kernel(name, dtype, what, sizes, launch.kernel, launch.text))
    return list(found.values())
