"""Random calls of every public function, each compared with loops.py; run.py runs it under sanitizers.

    python tests/sanitize/drive.py --seed 0 --first 4711 --calls 1      call 4711 of seed 0, without a sanitizer

On NumPy arrays, as if PyTorch weren't installed; with --torch on tensors, through autograd and through layers. Results
are also those of one thread, bit by bit. Arrays are as large as C may touch them, so that a byte too far is seen.
"""

import argparse
import collections
import functools
import json
import os
import random
import sys
import threading
import warnings

import numpy as np

WITH_TORCH = "--torch" in sys.argv
if WITH_TORCH:
    import torch
else:
    sys.modules["torch"] = torch = None
os.environ.pop("LD_PRELOAD", None)  # compilers do without

import loops  # noqa: E402

import im2col_compat as library  # noqa: E402
from im2col_compat import Op, lowlevel, ops, use_backend  # noqa: E402
from im2col_compat.codegen import kernels, symbols  # noqa: E402
from im2col_compat.compat import dtypes  # noqa: E402
from im2col_compat.compat.arrays import NUMPY  # noqa: E402
from im2col_compat.paths import choose, layout  # noqa: E402
from im2col_compat.paths import kernels as paths  # noqa: E402
from im2col_compat.problem import conv_problem, linear_problem, matmul_problem, product, unfold_geometry  # noqa: E402

LEVELS = kernels.LEVELS[: lowlevel.level() + 1] if lowlevel.missing is None else ()
FLOATS, INTEGERS = ["float32", "float64"], ["int8", "uint8", "int16", "int32", "int64"]
COMPLEX = ["complex64", "complex128"]
#: Terms of a call: few enough for loops, and enough for every shape of tile.
MOST_TERMS = 10000


def at_least_one_thread():
    """Small problems use threads, too; and NumPy's own functions are differentiated, as tensors' are."""
    paths.LEAST = lowlevel.LEAST_FOR_THREADS = 1
    trace = symbols._trace
    symbols._trace = lambda op, dtype, arrays, _, *others: trace(
        op, dtype, arrays, not dtypes.is_integer(dtype), *others
    )


# ---------------------------------------------------------------- ops
def signs(v):
    return np.where(v, 1, -1) if v.dtype == bool else np.where(v >= 0, 1, -1).astype(v.dtype)


def truncated(w, x):
    """C's quotient."""
    w, x = w.astype(np.int64), x.astype(np.int64)
    x = np.where(x == 0, 1, x)
    return np.where((w < 0) != (x < 0), -(abs(w) // abs(x)), abs(w) // abs(x))


INFINITE = float("inf")
CAPTURED = [0.7]  # to a kernel, an operand
#: The op, its dtypes, term, reduction, pad value and partial derivatives (None: it has none), for loops.py.
Case = collections.namedtuple("Case", "op dtypes term reduction pad grad_w grad_x")
CASES = {
    "dot": Case("dot", FLOATS + (INTEGERS + COMPLEX if torch is None else []), lambda w, x: w * x, "sum", 0, lambda w, x: x, lambda w, x: w),
    "l1": Case("l1", FLOATS + ["int8", "int16"], lambda w, x: abs(w - x), "sum", 0,
               lambda w, x: np.sign(w - x), lambda w, x: np.sign(x - w)),
    "adder": Case("adder", FLOATS + ["int32"], lambda w, x: -abs(w - x), "sum", 0,
                  lambda w, x: x - w, lambda w, x: np.clip(w - x, -1, 1)),
    "l2": Case("l2", FLOATS + ["int8"], lambda w, x: (w - x) * (w - x), "sum", 0,
               lambda w, x: 2 * (w - x), lambda w, x: 2 * (x - w)),
    "xnor": Case("xnor", FLOATS + INTEGERS + ["bool"], lambda w, x: signs(w) * signs(x), "sum", None,
                 lambda w, x: signs(x) * (abs(w) <= 1), lambda w, x: signs(w) * (abs(x) <= 1)),
    "max_plus": Case("max_plus", FLOATS + ["int8", "int64"], lambda w, x: w + x, "max", -INFINITE,
                     lambda w, x: 1, lambda w, x: 1),
    "min_plus": Case("min_plus", FLOATS + ["int16", "uint8"], lambda w, x: w + x, "min", INFINITE,
                     lambda w, x: 1, lambda w, x: 1),
    "polynomial": Case(lambda w, x: w * x * x + w, FLOATS + ["int8"], lambda w, x: w * x * x + w, "sum", 0,
                       lambda w, x: x * x + 1, lambda w, x: 2 * w * x),
    "left out": Case(Op(lambda w, x: abs(w - x) * x, pad_value=None), FLOATS, lambda w, x: abs(w - x) * x, "sum", None,
                     lambda w, x: np.sign(w - x) * x, lambda w, x: abs(w - x) - np.sign(w - x) * x),
    "max": Case(Op(lambda w, x: w * x + x, "max", pad_value=-0.5), FLOATS, lambda w, x: w * x + x, "max", -0.5,
                lambda w, x: x, lambda w, x: w + 1),
    "fold": Case(Op(lambda w, x: w * x, lambda acc, term: acc * 0.5 + term, identity=1), FLOATS, lambda w, x: w * x,
                 (0.5, 1), 0, lambda w, x: x, lambda w, x: w),
    "quotient": Case(Op(lambda w, x: w / (abs(x) + 1)), FLOATS, lambda w, x: w / (abs(x) + 1), "sum", 0,
                     lambda w, x: 1 / (abs(x) + 1), lambda w, x: -w * np.sign(x) / (abs(x) + 1) ** 2),
    "bits": Case(lambda w, x: (w & x) - (w | 3), ["int8", "uint8", "int32"], lambda w, x: (w & x) - (w | 3), "sum", 0,
                 None, None),
    "from_c": Case(Op.from_c("w * x + fabs(w)", grad_w="x + (w < 0 ? -1 : 1)", grad_x="w"), FLOATS,
                   lambda w, x: w * x + abs(w), "sum", 0, lambda w, x: x + np.where(w < 0, -1, 1), lambda w, x: w),
    "from_c fold": Case(Op.from_c("w - x", "acc * 0.25 + term"), FLOATS, lambda w, x: w - x, (0.25, None), 0, None, None),
    "from_c integers": Case(Op.from_c("w * x - (w >> 1)"), INTEGERS[:4], lambda w, x: w * x - (w >> 1), "sum", 0,
                            None, None),
    "division": Case(Op.from_c("w / x", pad_value=3), ["int8", "int16", "int32", "int64"],
                     lambda w, x: truncated(w, x).astype(w.dtype), "sum", 3, None, None),
    "prod": Case(Op(lambda w, x: w * x * 0.0625 + 1, "prod"), FLOATS, lambda w, x: w * x * 0.0625 + 1, "prod", 0,
                 lambda w, x: x * 0.0625, lambda w, x: w * 0.0625),
    "prod of zeros": Case(Op(lambda w, x: w * x, "prod", pad_value=None), FLOATS, lambda w, x: w * x, "prod", None,
                          lambda w, x: x, lambda w, x: w),
    "logsumexp": Case(Op(lambda w, x: w * x + w, "logsumexp"), FLOATS, lambda w, x: w * x + w, "logsumexp", 0,
                      lambda w, x: x + 1, lambda w, x: w),
    "logsumexp left out": Case(Op(lambda w, x: w - x, "logsumexp", pad_value=None), FLOATS, lambda w, x: w - x, "logsumexp",
                               None, lambda w, x: 1, lambda w, x: -1),
    "captured": Case(Op(lambda w, x: abs(w - x) * CAPTURED[0]), FLOATS, lambda w, x: abs(w - x) * CAPTURED[0], "sum", 0,
                     lambda w, x: np.sign(w - x) * CAPTURED[0], lambda w, x: np.sign(x - w) * CAPTURED[0]),
}  # fmt: skip
# exp is in NumPy or in PyTorch.
EXP = np.exp if torch is None else torch.exp
CASES["exp"] = Case(
    Op(lambda w, x: EXP(-(w - x) * (w - x))), FLOATS, lambda w, x: np.exp(-(w - x) * (w - x)), "sum", 0,
    lambda w, x: -2 * (w - x) * np.exp(-(w - x) * (w - x)), lambda w, x: 2 * (w - x) * np.exp(-(w - x) * (w - x)),
)  # fmt: skip
#: Tensor operations can evaluate them: not C texts, and not what a kernel alone does.
BY_TENSORS = sorted(set(CASES) - {"from_c", "from_c fold", "from_c integers", "division"})
DIFFERENTIABLE = sorted(name for name, case in CASES.items() if case.grad_w is not None and name != "dot")


def table(pick):
    """A case of Op.from_table, and the operands' dtype and limit."""
    sizes = [pick.choice([2, 4, 16, 64, 256]) for _ in range(2)]
    most = pick.choice([7, 127, 30000, 2**31 - 1])
    entries = (pool(pick, sizes) * most / 4).clip(-most, most).astype(np.int64)
    pad = pick.choice([0, None, 1])
    kind = pick.randrange(8)
    if kind == 0:
        bits = pick.choice([3, 8])
        op, pad = of_c(bits), 0
        w, x = np.ogrid[: 1 << bits, : 1 << bits]
        entries = (w * 7 + x) % 251 - 100
    elif kind == 1:
        entries = entries[:4, :4]
        op = Op.from_table(
            lambda w, x: int(entries[w % len(entries), x % entries.shape[1]]),
            bits=tuple(size.bit_length() - 1 for size in entries.shape), pad_value=pad,
        )  # fmt: skip
    else:
        op = Op.from_table(entries if pick.random() < 0.5 else entries.astype(np.int32), pad_value=pad)
    return Case(op, ["uint8"], lambda w, x: entries[w, x], "sum", pad, None, None), entries.shape


@functools.lru_cache(None)
def of_c(bits):
    """The op of a table that C source computes: in a child process, which has no sanitizer."""
    before, os.environ["CC"] = os.environ.get("CC", "cc"), "gcc"
    try:
        return Op.from_table("int f(unsigned char w, unsigned char x) { return (w * 7 + x) % 251 - 100; }", bits=bits)
    finally:
        os.environ["CC"] = before


# ---------------------------------------------------------------- arrays
_POOL = np.random.RandomState(0).randn(1 << 16)


def pool(pick, shape):
    """Random numbers: to seed a generator for each array takes longer than the call."""
    size = product(shape)
    start = pick.randrange(max(1, len(_POOL) - size))
    return np.resize(_POOL[start : start + size], shape)


def some(pick, shape, dtype, finite=False, limit=100):
    """An array of random values."""
    values = pool(pick, shape)
    if dtype == "bool":
        return values > 0
    if dtypes.is_integer(dtype):
        low, high = dtypes.limits(dtype)
        return (values * limit / 3).round().clip(max(low, -limit), min(high, limit)).astype(dtype)
    values = values.astype(dtype)
    if dtype.startswith("complex"):
        values += np.asarray(1j, dtype) * pool(pick, shape).astype(dtype)
    elif not finite and values.size and pick.random() < 0.1:
        values.flat[pick.randrange(values.size)] = pick.choice([np.inf, -np.inf, np.nan])
    return values


def laid(pick, values):
    """The same values, as they may lie in memory."""
    how, size = pick.randrange(10), values.dtype.itemsize
    if how == 1:
        return np.asfortranarray(values)
    if how == 2:
        return values[..., ::-1].copy()[..., ::-1]
    if how == 3:
        wide = np.zeros(values.shape[:-1] + (2 * values.shape[-1],), values.dtype)
        wide[..., ::2] = values
        return wide[..., ::2]
    if how == 4 and not WITH_TORCH:  # PyTorch's own functions crash there
        # At an address that isn't a multiple of its size; of complex numbers, at one of a part's.
        shift = size // 2 if values.dtype.kind == "c" and pick.random() < 0.5 else 1
        found = np.zeros(values.nbytes + shift, np.uint8)[shift:].view(values.dtype).reshape(values.shape)
        found[...] = values
        return found
    if how == 5 and not WITH_TORCH:
        return values.astype(values.dtype.newbyteorder())
    if how == 6:
        values.flags.writeable = False
    return values


def same(found, expected, what, tolerance=1):
    """Whether a result is the expected one, rounded to its dtype."""
    assert found.shape == expected.shape, (what, found.shape, expected.shape)
    if found.dtype.kind in "iub":
        fine = np.array_equal(found, expected)
    else:
        tolerance *= {2: 2e-3, 4: 2e-4, 8: 1e-9}[found.real.dtype.itemsize]
        finite = np.isfinite(expected)
        scale = max(1, abs(expected[finite]).max() if finite.any() else 1)
        with np.errstate(invalid="ignore"):
            close = abs(np.where(finite, found - expected, 0)) <= tolerance * scale
        # What overflows may be infinite or NaN.
        fine = close.all() and np.array_equal(np.isfinite(found), finite)
    assert fine, "{}: {} instead of {}".format(what, found, expected)


def same_bytes(found, expected, what):
    assert found.dtype == expected.dtype and found.shape == expected.shape, what
    assert (
        found.tobytes() == expected.tobytes()
        or np.array_equal(np.isnan(found), np.isnan(expected))
        and (np.array_equal(np.nan_to_num(found), np.nan_to_num(expected)))
    ), what


def again(pick, call, first, what):
    """The same bits from one thread, and now and then from calls of several threads of Python at once."""
    threads = os.environ["OMP_NUM_THREADS"]
    if torch is None and threads != "1":
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            same_bytes(call(), first, what)
        finally:
            os.environ["OMP_NUM_THREADS"] = threads
    if pick.random() < 0.03:
        results = []
        together = [threading.Thread(target=lambda: results.append(call())) for _ in range(3)]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        assert len(results) == 3
        for result in results:
            same_bytes(result, first, what)


def tensor(values, requires_grad=False):
    """What is given to the library."""
    if torch is None:
        return values
    if min(values.strides, default=0) < 0 or not values.flags.writeable:
        values = values.copy()
    return torch.from_numpy(values).requires_grad_(requires_grad)


def array(result):
    return result if torch is None else result.detach().numpy()


# ---------------------------------------------------------------- calls
def window(pick, dims, most):
    """Random (image, kernel, dilation, padding, stride) that leave a block."""
    image = [pick.choice([1, 2, 3, 5, 8, 17, 33, 64][:most]) for _ in range(dims)]
    kernel = [pick.choice([1, 1, 2, 3, 3, 5]) for _ in range(dims)]
    dilation = [pick.choice([1, 1, 2, 3]) for _ in range(dims)]
    stride = [pick.choice([1, 1, 1, 2, 2, 3, 4]) for _ in range(dims)]
    padding = []
    for size, k, d in zip(image, kernel, dilation):
        lacking = max(0, d * (k - 1) + 1 - size)
        before = pick.randrange(0, 3)
        padding.append((before, max(pick.randrange(0, 3), lacking - before)))
    return tuple(image), tuple(kernel), tuple(dilation), tuple(padding), tuple(stride)


def huge(pick, dims, least=31):
    """The same with numbers up to an int64's: few blocks, or refused."""
    sizes = window(pick, dims, 4)
    image, kernel, dilation, padding, stride = map(list, sizes)
    for _ in range(pick.choice([1, 2, 2, 3])):
        axis = pick.randrange(dims)
        number = pick.choice([1 << pick.randrange(least, 64), (1 << 62) + (1 << 61)]) + pick.choice([-3, -1, 0, 1, 2])
        what = pick.randrange(4)
        if what == 0:
            stride[axis] = number
        elif what == 1:
            dilation[axis] = number
            if pick.random() < 0.7:
                padding[axis] = pick.choice([(number, number), (0, number * (kernel[axis] - 1)), (number, 0)])
        elif what == 2:
            padding[axis] = pick.choice([(number, 0), (0, number), (number, number)])
            stride[axis] = max(1, number // pick.choice([1, 1, 2, 3]) - pick.choice([0, 0, 1, 3]))
        else:
            padding[axis] = (number, number)
    return tuple(image), tuple(kernel), tuple(dilation), tuple(padding), tuple(stride)


REFUSALS = (RuntimeError, ValueError, TypeError, MemoryError)


def columns(pick, large=False):
    """unfold or fold, of all dtypes, with and without out."""
    dtype = pick.choice(sorted(set(dtypes.ITEMSIZE) - {"bfloat16"}))
    dims = pick.choice([1, 2, 2, 2, 3, 3] + [4] * (not large))
    image, *others = sizes = huge(pick, dims) if large else window(pick, dims, (8, 8, 6, 3)[dims - 1])
    batch, channels = pick.randrange(1, 4), pick.randrange(1, 6)
    blocks = loops.counts(*sizes)
    name = pick.choice(["unfold", "fold"])
    call, shape = getattr(library, name), (batch, channels) + image
    elements = product(blocks) * product(others[0])
    if large and (min(blocks) < 1 or elements > 10**5):
        if min(blocks) > 0 and elements < 1 << 45:
            return "nothing", "only large"
        assert_refused(lambda: library.unfold(np.zeros(shape, "uint8"), *others), blocks)
        return "unfold", "huge, refused"
    where = loops.pixels(*sizes)
    length = where.shape[1]
    if name == "unfold":
        x = some(pick, shape, dtype)
        expected, arguments = loops.unfold(x, where), others
        # The kernel alone says which axes are spatial; without a batch there is one axis less.
    else:
        x = some(pick, (batch, channels * len(where), length), dtype, finite=True)
        wide = {"bool": np.int64, "float16": np.float32}.get(dtype)
        expected = loops.fold(x, where, shape, wide)
        expected, arguments = expected.astype(dtype), [image] + others
    given = tensor(laid(pick, x))
    if batch == 1 and pick.random() < 0.3:
        given, expected = given[0], expected[0]
    try:
        found = array(call(given, *arguments))
    except REFUSALS:
        if large:
            return name, "huge, refused"
        raise
    what = name, dtype, sizes
    assert found.dtype == expected.dtype, what
    same(found, expected, what)
    if name == "unfold":
        same_bytes(found, expected, what)
    if large:
        return name, "huge"
    again(pick, lambda: array(call(given, *arguments)), found, what)
    if pick.random() < 0.3:
        room = np.empty(product(found.shape) + 8, dtype)
        out = room[4:-4].reshape(found.shape, order=pick.choice("CCF"))
        if pick.random() < 0.2 and tuple(given.shape) == found.shape and given.dtype == found.dtype and torch is None:
            out = given if given.flags.writeable and given.dtype.isnative else out  # onto itself
        same_bytes(array(call(given, *arguments, out=tensor(out))), found, what)
        same_bytes(out, found, what)
        return name, "out"
    return name, "columns"


def assert_refused(call, why):
    try:
        call()
    except REFUSALS:
        return
    raise AssertionError("not refused: {}".format(why))


def a_case(pick, names):
    """(what it is called, the Case, a dtype, the operands' limits)."""
    if names is None and pick.random() < 0.15:
        case, limits = table(pick)
        return "table", case, "uint8", limits
    name = pick.choice(names or sorted(CASES))
    case = CASES[name]
    return name, case, pick.choice(case.dtypes), None


def an_operand(pick, shape, dtype, limit, finite):
    return some(pick, shape, dtype, finite) if limit is None else some(pick, shape, "int64", True, 1000) % limit


Call = collections.namedtuple("Call", "name run w x terms result_shape where image problem")


def a_call(pick, case, dtype, limits, finite, large=False):
    """A call of conv*, linear or matmul, and its terms by loops."""
    limits = limits or (None, None)
    function = pick.choice(["conv", "conv", "linear", "matmul"]) if not large else "conv"
    operand = lambda shape, which: an_operand(pick, shape, dtype, limits[which], finite)  # noqa: E731
    narrow = lambda values: values.astype(dtype) if limits[0] else values  # noqa: E731
    if function == "conv":
        dims = pick.choice([1, 2, 2, 3])
        image, kernel, dilation, padding, stride = sizes = (
            huge(pick, dims, 40) if large else window(pick, dims, 5 - dims // 3)
        )
        if min(loops.counts(*sizes)) < 1 or product(loops.counts(*sizes)) * product(kernel) > MOST_TERMS:
            return None
        where = loops.pixels(*sizes)
        groups, channels = pick.choice([1, 1, 2, 3]), pick.choice([1, 2, 4, 5, 33, 132])
        filters, batch = pick.choice([1, 2, 4, 5, 13]), pick.choice([1, 1, 2, 3])
        while (
            batch * groups * channels * filters * where.size > MOST_TERMS and max(groups, channels, filters, batch) > 1
        ):
            batch, groups, channels, filters = 1, (groups + 1) // 2, (channels + 1) // 2, (filters + 1) // 2
        x, w = operand((batch, groups * channels) + image, 1), operand((groups * filters, channels) + kernel, 0)
        pad = 0 if case.pad is None else case.pad
        integers = x.dtype.kind in "iub"
        skipped = case.pad is None or integers and abs(pad) == INFINITE
        fill = 0 if skipped else pad
        columns = loops.unfold(x, where, fill).reshape(batch, groups, -1, where.shape[1])
        there = np.tile(where >= 0, (channels, 1)) if skipped else True
        shape = (batch, groups * filters) + loops.counts(*sizes)
        name = "conv{}d".format(dims)
        more = None, stride, padding, dilation, groups, case.op
        given = lambda x, w: getattr(library, name)(x, w, *more)  # noqa: E731
        problem = lambda: conv_problem(dims, x.shape, w.shape, *more[:-1])  # noqa: E731
    elif function == "linear":
        name, depth = "linear", pick.choice([1, 3, 16, 65, 513, 1100])
        rows, filters = pick.randrange(1, 40), pick.randrange(1, 20)
        rows = max(1, min(rows, MOST_TERMS // (depth * filters)))
        leading = pick.choice([(rows,), (1, rows), (rows, 1)]) if rows > 1 else pick.choice([(), (1,)])
        x, w = operand(leading + (depth,), 1), operand((filters, depth), 0)
        columns, there = x.reshape(1, 1, rows, depth).swapaxes(2, 3), True
        groups, where, shape = 1, None, leading + (filters,)
        given = lambda x, w: library.linear(x, w, op=case.op)  # noqa: E731
        problem = lambda: linear_problem(x.shape, w.shape, None)  # noqa: E731
    else:
        name, depth = "matmul", pick.choice([1, 3, 16, 65, 513])
        count, filters = pick.randrange(1, 40), pick.randrange(1, 9)
        batch = pick.choice([(), (1,), (3,), (2, 2)])
        count = max(1, min(count, MOST_TERMS // (product(batch) * depth * filters)))
        before = pick.choice([(), (), batch])  # the weight may have batches, too
        w, x = operand(before + (filters, depth), 0), operand(batch + (depth, count), 1)
        groups, where, shape, there = product(before), None, batch + (filters, count), True
        columns = x.reshape(-1 if before == () else 1, groups, depth, count)
        given = lambda x, w: library.matmul(w, x, op=case.op)  # noqa: E731
        problem = lambda: matmul_problem(w.shape, x.shape)  # noqa: E731
    w_parts = w.reshape(groups, -1, columns.shape[2])
    with np.errstate(all="ignore"):
        terms = loops.Terms(case.term, case.reduction, w_parts, columns, there)
    return Call(name, given, narrow(w), narrow(x), terms, shape, where, x.shape, problem)


def products(pick, large=False):
    """conv*, linear or matmul with any op; on tensors their gradients too."""
    called, case, dtype, limits = a_case(pick, None)
    differentiates = torch is not None and called in DIFFERENTIABLE and dtype in FLOATS and pick.random() < 0.6
    call = a_call(pick, case, dtype, limits, differentiates, large)
    if call is None:
        return "nothing", "no blocks"
    w, x = [tensor(laid(pick, values), differentiates) for values in (call.w, call.x)]
    forced = called in BY_TENSORS and not differentiates and pick.random() < 0.1
    what = call.name, called, dtype, call.x.shape, call.w.shape

    def run():
        if not forced:
            return call.run(x, w)
        with use_backend("ffi"):
            return call.run(x, w)

    zeros = called == "division" and ((call.terms.x == 0) & call.terms.there).any()
    try:
        with np.errstate(all="ignore"):
            result = run()
    except REFUSALS as error:
        assert large or zeros and "ZeroDivisionError" in str(error), (what, error)
        return call.name, "huge, refused" if large else "division by zero, refused"
    assert not zeros, what
    found = array(result)
    with np.errstate(all="ignore"):
        expected = call.terms.result()
    if called == "dot" and dtype not in FLOATS:
        # These are NumPy's and PyTorch's own sums.
        expected = np.where(call.terms.there, call.terms.values, 0).sum(3).astype(dtype)
    expected = (expected.swapaxes(2, 3) if call.name == "linear" else expected).reshape(call.result_shape)
    # A term that overflows may be infinite or NaN.
    if np.isfinite(call.terms.values).all() or called not in ("exp", "quotient", "fold", "prod", "prod of zeros"):
        same(found, expected, what)
    if not differentiates:
        if called != "dot":
            again(pick, lambda: array(run()), found, what)
        return call.name, called + (" by unfold" if forced else "")
    if pick.random() < 0.8:
        grad = some(pick, found.shape, dtype, finite=True)
        result.backward(torch.from_numpy(grad))
    else:
        grad = np.ones(found.shape, dtype)
        result.sum().backward()
    check_gradients(call, case, grad, array(w.grad), array(x.grad), what)
    return call.name, called + " and its gradients"


def check_gradients(call, case, grad, dw, dx, what):
    """Compare those that are given with those by loops."""
    batch, groups, filters, _, length = call.terms.values.shape
    if call.name == "linear":
        grad = grad.reshape(1, 1, length, filters).swapaxes(2, 3)
    weights, columns = call.terms.gradients(grad.reshape(batch, groups, filters, length), case.grad_w, case.grad_x)
    if call.where is not None:
        columns = loops.fold(columns, call.where, call.image)
    elif call.name == "linear":
        columns = columns.swapaxes(2, 3)
    for name, found, expected in (("dw", dw, weights), ("dx", dx, columns)):
        if found is not None:
            same(found, expected.reshape(found.shape), what + (name,), 5)


def gradients(pick):
    """The calls of C that a backward makes, which without PyTorch nobody makes."""
    called = pick.choice(DIFFERENTIABLE)
    case = CASES[called]
    dtype = pick.choice(FLOATS)
    call = a_call(pick, case, dtype, None, finite=True)
    problem = call and call.problem()
    if call is None or problem.groups > 1 and not problem.is_conv:
        return "nothing", "no blocks"
    x, w = np.ascontiguousarray(call.x), np.ascontiguousarray(call.w)
    grad = np.ascontiguousarray(some(pick, call.result_shape, dtype, finite=True))
    op = library.op.resolve(case.op)
    saves = op.reduction.saves_result
    y = np.ascontiguousarray(call.run(x, w)) if saves else None
    saved = lowlevel.address_of(y) if saves else 0
    found, reason = choose.kernels_for(op, dtype, NUMPY)
    assert found is not None and found.has_gradients, reason
    how = layout.of(problem, op.pad_value_for(dtype), dtype)
    given = grad
    if pick.random() < 0.3 and not saves:  # an expanded gradient
        given, how = np.array([pick.random()], dtype), how._replace(y_strides=(0,) * 5)
        grad = np.broadcast_to(given, grad.shape)
    addresses = [lowlevel.address_of(one) for one in (w, x, given)]
    needs = pick.choice([(True, True), (True, False), (False, True)])

    def run():
        dw, dx = np.zeros_like(w), np.zeros_like(x)
        for number, gives_w, gives_x in op.reduction.calls(needs[0], needs[1], NUMPY, y):
            to = [lowlevel.address_of(dx) if gives_x else 0]
            sizes = found.itemsize, found.itemsize
            scalars = np.array(found.captured, dtype) if found.captured else None
            room = np.zeros((1 + len(found.captured),) + w.shape, dtype)
            to_w = lowlevel.address_of(room) if gives_w else 0
            paths._call(number, how, found.address_for, addresses, sizes, scalars, to_w, to[0], 1, saved)
            dw += room[0]
        return np.concatenate([dw.ravel(), dx.ravel()])

    what = call.name, called, dtype, x.shape, w.shape
    both = run()
    again(pick, run, both, what)
    dw, dx = both[: w.size].reshape(w.shape), both[w.size :].reshape(x.shape)
    check_gradients(call, case, grad, dw if needs[0] else None, dx if needs[1] else None, what)
    return call.name, called + "'s gradients"


def term_of(w, x, t, s):
    return t * abs(w - x) + s * x


def with_parameters(pick):
    """conv* of an op with parameters: one beside each weight, or for a filter, and one for all."""
    dims, dtype = pick.choice([1, 2, 3]), pick.choice(FLOATS + ["int32"])
    image, kernel, dilation, padding, stride = sizes = window(pick, dims, 4 - dims // 3)
    where = loops.pixels(*sizes)
    channels, filters, groups, batch = pick.choice([1, 2, 5]), pick.choice([1, 3, 13]), pick.choice([1, 2]), pick.choice([1, 2])
    add = pick.choice(["sum", "sum", "max"])
    x = some(pick, (batch, groups * channels) + image, dtype, finite=True)
    w = some(pick, (groups * filters, channels) + kernel, dtype, finite=True)
    t = some(pick, pick.choice([w.shape, (len(w),) + (1,) * (dims + 1), (1, channels) + (1,) * dims]), dtype, finite=True)
    params = {"t": tensor(laid(pick, t)), "s": 2}
    name = "conv{}d".format(dims)
    given = [tensor(laid(pick, operand)) for operand in (x, w)]

    def run():
        call = getattr(library, name)
        return array(call(given[0], given[1], None, stride, padding, dilation, groups, WITH[add], params))

    columns = loops.unfold(x, where).reshape(batch, groups, -1, where.shape[1])
    beside = np.broadcast_to(t, w.shape).reshape(groups, filters, -1)[None, :, :, :, None]
    terms = loops.Terms(lambda w, x: term_of(w, x, beside, 2), add, w.reshape(groups, filters, -1), columns, True)
    found, what = run(), (name, add, dtype, x.shape, w.shape, t.shape)
    same(found, terms.result().reshape(found.shape), what)
    again(pick, run, found, what)
    return name, "parameters"


WITH = {add: Op(term_of, add) for add in ("sum", "max")}


def matrices(pick):
    """conv_matrix."""
    dims = pick.choice([1, 2, 3])
    image, kernel, dilation, padding, stride = sizes = window(pick, dims, 3)
    where = loops.pixels(*sizes)
    channels, filters, groups = pick.choice([1, 2]), pick.choice([1, 3]), pick.choice([1, 2])
    w = some(pick, (groups * filters, channels) + kernel, "float64", finite=True)
    x = some(pick, (1, groups * channels) + image, "float64", finite=True)
    given = tensor(laid(pick, w))
    found = library.conv_matrix(given, image, stride, padding, dilation, groups, dense=True)
    columns = loops.unfold(x, where).reshape(1, groups, -1, where.shape[1])
    terms = loops.Terms(lambda w, x: w * x, "sum", w.reshape(groups, filters, -1), columns, True)
    same(array(found) @ x.ravel(), terms.result().ravel(), ("conv_matrix", sizes))
    return "conv_matrix", "dense"


def told(pick):
    """What is told of ops and engines."""
    case = CASES[pick.choice(sorted(set(CASES) - {"adder"}))]  # its gradients are for tensors alone
    dtype = pick.choice(FLOATS if case.reduction == "logsumexp" else FLOATS + INTEGERS)
    text = library.op.resolve(case.op).explain(dtype)
    assert isinstance(text, str) and text
    assert library.backend() in library.available_backends() + ("auto",)
    return "explain", "any op"


def wrong(pick):
    """Arguments that don't fit are refused, whatever they are."""
    x, w = some(pick, (2, 3, 6, 6), "float32"), some(pick, (4, 3, 3, 3), "float32")
    strange = [None, 0, -1, 1 << 62, 1 << 70, 1.5, "same", (), (1, 2, 3), ((1, 2), (3,)), [[]], True, -(1 << 63)]
    name = pick.choice(["unfold", "fold", "conv2d", "conv1d", "conv3d", "linear", "matmul"])
    values = [pick.choice(strange) for _ in range(5)]
    arrays = [x, w, x[:0], w[0], x.astype("float64"), x.astype("U3"), x.astype(object), x[..., :0], x[0, 0, 0, 0], None]
    arrays += [x.astype("bool"), np.ma.masked_array(x, x > 0)]
    first, second = [
        tensor(values) if good(values) else values for values in (pick.choice(arrays), pick.choice(arrays))
    ]
    op = pick.choice(["l1", "dot", "nothing", CASES["from_c"].op, 7])
    arguments = {"unfold": [first] + values[:4], "fold": [first] + values, "linear": [first, second, None, op],
                 "matmul": [first, second, op]}.get(name, [first, second, None] + values[:4] + [op])  # fmt: skip
    try:
        getattr(library, name)(*arguments)
    except REFUSALS + (IndexError, NotImplementedError):
        return name, "wrong, refused"
    return name, "odd, taken"


def good(values):
    return torch is not None and values is not None and values.dtype.kind in "fb" and isinstance(values, np.ndarray)


# ---------------------------------------------------------------- layers
def layers(pick):
    """Layers on tensors: what they compute is what the functions do, and quantized ones what rounded operands give."""
    dims = pick.choice([1, 2, 2, 3])
    image, kernel, dilation, padding, stride = window(pick, dims, 4 - dims // 3)
    padding = tuple(max(pair) for pair in padding)
    sizes = image, kernel, dilation, tuple((side, side) for side in padding), stride
    where = loops.pixels(*sizes)
    batch, channels, filters, groups = (
        pick.choice([1, 2]),
        pick.choice([1, 2, 5]),
        pick.choice([1, 4, 9]),
        pick.choice([1, 2]),
    )
    x = some(pick, (batch, groups * channels) + image, "float32", finite=True)
    columns = loops.unfold(x, where)
    kind = pick.choice(["Conv", "Conv", "Linear", "Unfold", "Fold", "BinaryConv2d", "BinaryLinear", "Quant"])
    if kind == "Unfold":
        found = library.Unfold(kernel, dilation, padding, stride)(tensor(laid(pick, x)))
        same_bytes(array(found), columns, sizes)
        return kind, "layer"
    if kind == "Fold":
        found = library.Fold(image, kernel, dilation, padding, stride)(tensor(laid(pick, columns)))
        same(array(found), loops.fold(columns, where, x.shape), sizes)
        return kind, "layer"
    if kind.endswith("Linear") or kind == "Quant" and dims == 1:
        x = columns = x.reshape(-1, x.shape[-1])
        columns, groups, filters_shape = x.T[None, None], 1, x.shape[1:]
        shape, pads = (len(x), filters), None
        settings = [x.shape[1], filters]
        name = {"Linear": "Linear", "BinaryLinear": "BinaryLinear", "Quant": "QuantLinear"}[kind]
    elif kind != "Conv" and dims != 2:
        return "nothing", "no blocks"
    else:
        columns = columns.reshape(batch, groups, -1, where.shape[1])
        settings = [groups * channels, groups * filters, kernel, stride, padding, dilation, groups]
        name = {"Conv": "Conv{}d".format(dims), "Quant": "QuantConv2d"}.get(kind, kind)
        shape, pads = (batch, groups * filters) + loops.counts(*sizes), where
    op = pick.choice(["l1", "adder", "max_plus", "xnor"]) if kind in ("Conv", "Linear") else None
    layer = getattr(library, name)(*settings, **({} if op is None else {"op": op}))
    if kind == "Quant":
        layer.start_calibration()
        layer(tensor(x))
        layer.finish_calibration()
    found = array(layer(tensor(laid(pick, x))))
    w, case = layer.weight.detach().numpy(), CASES[op or "xnor"]
    term, pad = case.term, case.pad
    if kind == "Quant":
        scale = float(layer.input_scale)
        codes = np.round(columns / np.float32(scale)).clip(-128, 127) * np.float64(scale)
        axes = tuple(range(1, w.ndim))
        scales = np.maximum(abs(w).max(axes, keepdims=True) / np.float32(127.5), np.finfo("float32").eps)
        w, columns = np.round(w / scales).clip(-128, 127) * scales.astype("float64"), codes
        term, pad = CASES["dot"].term, 0
    there = True
    if pads is not None:
        inside = np.tile(pads >= 0, (channels, 1))
        there = inside if pad is None else True
        columns = np.where(inside, columns, 0 if pad is None else np.asarray(pad, columns.dtype))
    terms = loops.Terms(
        term, case.reduction if kind != "Quant" else "sum", w.reshape(groups, filters, -1), columns, there
    )
    expected = terms.result()
    bias = layer.bias.detach().numpy().reshape(groups, filters, 1)
    expected = expected + bias
    expected = expected[0, 0].T if shape == (len(x), filters) and kind.endswith("Linear") or pads is None else expected
    # The largest absolute value lies between two codes.
    same(found, expected.reshape(shape), (name, op, sizes), 200 if kind == "Quant" else 5)
    return name, "layer"


# ---------------------------------------------------------------- the run
def kinds():
    """[(weight, a function that makes a random call, compares, and returns (public function, what of it))]."""
    found = [
        (8, columns),
        (1, lambda pick: columns(pick, True)),
        (12, products),
        (1, lambda pick: products(pick, True)),
    ]
    found += [(1, wrong), (0.2, matrices), (0.2, told), (2, with_parameters)]
    return found + ([(6, gradients)] if torch is None else [(6, layers)])


def run(seed, first, calls, progress):
    """How many random calls there were of each kind, from number `first` on, for each instruction set in turn.

    progress: None, or the descriptor of a file that has the number of the call, whatever ends the process.
    """
    counts = collections.Counter()
    weights, functions = zip(*kinds())
    for number in range(first, first + calls):
        pick = random.Random("{} {}".format(seed, number))
        os.environ[kernels.VARIABLE] = LEVELS[number % len(LEVELS)]
        threads = pick.choice([1, 2, 3])
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if torch is not None:
            torch.set_num_threads(threads)
        (call,) = pick.choices(functions, weights)
        if progress is not None:
            os.pwrite(progress, b"%d" % number, 0)
        found = call(pick)
        if found[0] != "nothing":
            counts[" ".join(found)] += 1
    return counts


# ---------------------------------------------------------------- planted faults
def fault(kind):
    if kind == "kernel":
        # One result too many, from a kernel that is compiled here.
        x, w = np.zeros((1, 1, 40, 40), "float32"), np.zeros((1, 1, 1, 1), "float32")
        problem = conv_problem(2, x.shape, w.shape, None, 1, 0, 1, 1)
        found, reason = choose.kernels_for(library.op.resolve(CASES["polynomial"].op), "float32", NUMPY)
        assert found is not None, reason
        how = layout.of(problem, 0.0, "float32")
        small = np.empty(1599, "float32")
        addresses = [lowlevel.address_of(one) for one in (w, x, small)]
        return paths._call(lowlevel.FORWARD, how, found.address_for, addresses, (4, 4))
    geometry = unfold_geometry((4, 4, 64, 64), 3, 1, 0, 3)
    image, result = np.zeros(4 * 4 * 64 * 64 + 1, "uint32"), np.zeros(product(geometry.columns_shape), "uint32")
    address, to = lowlevel.address_of(image), lowlevel.address_of(result)
    if kind == "overflow":
        lowlevel.im2col(geometry, "float32", address, to + 4)
    elif kind == "misaligned":
        lowlevel.im2col(geometry, "float32", address + 1, to)
    else:
        pair = [threading.Thread(target=lowlevel.im2col, args=(geometry, "float32", address, to)) for _ in range(2)]
        for thread in pair:
            thread.start()
        for thread in pair:
            thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--torch", action="store_true", help="on tensors, with gradients and layers")
    parser.add_argument("--fault", help="commit a fault: overflow, misaligned, kernel or race")
    parser.add_argument("--files", nargs=2, help="to write the number of the call to, and at last all counts, as JSON")
    arguments = parser.parse_args()
    assert "ffi" in library.available_backends(), lowlevel.missing
    warnings.simplefilter("ignore")
    at_least_one_thread()
    if arguments.fault:
        return fault(arguments.fault)
    progress = arguments.files and os.open(arguments.files[0], os.O_WRONLY | os.O_CREAT)
    counts = run(arguments.seed, arguments.first, arguments.calls, progress)
    if arguments.files:
        with open(arguments.files[1], "w") as stream:
            json.dump(counts, stream)
    else:
        print("{} calls: {}".format(sum(counts.values()), dict(counts)))


if __name__ == "__main__":
    main()
