"""Ops beside their definitions."""

import operator

from im2col_compat import Op, ops

INF = float("inf")


def sign(v):
    return 1.0 if v >= 0 else -1.0


#: name: (op, multiply, add, start, pad) with the last four as plain Python for the oracle
OPS = {
    "dot": ("dot", operator.mul, operator.add, 0, 0),
    "l1": ("l1", lambda w, x: abs(w - x), operator.add, 0, 0),
    "adder": ("adder", lambda w, x: -abs(w - x), operator.add, 0, 0),
    "l2": ("l2", lambda w, x: (w - x) ** 2, operator.add, 0, 0),
    "xnor": ("xnor", lambda w, x: sign(w) * sign(x), operator.add, 0, None),
    "max_plus": ("max_plus", operator.add, max, -INF, -INF),
    "min_plus": ("min_plus", operator.add, min, INF, INF),
    "lambda": (lambda w, x: w * x + w, lambda w, x: w * x + w, operator.add, 0, 0),
    "Op": (ops.l1, lambda w, x: abs(w - x), operator.add, 0, 0),
    "only-x": (Op(lambda w, x: x, "max"), lambda w, x: x, max, -INF, 0),
    "only-w": (Op(lambda w, x: w, "min"), lambda w, x: w, min, INF, 0),
    "padded": (Op(operator.mul, pad_value=2.5), operator.mul, operator.add, 0, 2.5),
    "skipped": (Op(lambda w, x: w + 2 * x + 1, pad_value=None), lambda w, x: w + 2 * x + 1, operator.add, 0, None),
    "skipped-max": (Op(lambda w, x: w - x, "max", pad_value=None), operator.sub, max, -INF, None),
    "skipped-min": (Op(lambda w, x: w - x, "min", pad_value=None), operator.sub, min, INF, None),
    "own-add": (Op(operator.mul, lambda acc, term: 0.5 * acc + term), operator.mul, lambda a, t: 0.5 * a + t, None, 0),
    "own-add-identity": (
        Op(operator.mul, lambda acc, term: 0.5 * acc + term, identity=3),
        operator.mul,
        lambda a, t: 0.5 * a + t,
        3.0,
        0,
    ),
    "own-add-skipped": (
        Op(operator.sub, lambda acc, term: 0.5 * acc + term, identity=1, pad_value=None),
        operator.sub,
        lambda a, t: 0.5 * a + t,
        1.0,
        None,
    ),
}
