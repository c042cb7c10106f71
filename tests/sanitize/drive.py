"""Random calls of all that C computes, on NumPy arrays; run.py runs it under sanitizers.

Every result is compared: columns and terms with what slices and NumPy make of them, results and gradients with those of
one thread. Arrays are as large as C may touch them, so that a byte too far is seen.
"""

import argparse
import collections
import os
import random
import sys
import threading
import time
import warnings

import numpy as np

sys.modules["torch"] = None  # as if it weren't installed
os.environ.pop("LD_PRELOAD", None)  # compilers do without

from im2col_compat import Op, available_backends, conv1d, conv2d, conv3d, fold, linear, lowlevel, matmul, ops, unfold
from im2col_compat import use_backend
from im2col_compat.codegen import kernels, symbols
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import NUMPY
from im2col_compat.compat.warn import SlowPathWarning
from im2col_compat.paths import choose, layout
from im2col_compat.paths import kernels as paths
from im2col_compat.problem import conv_problem, linear_problem, product, unfold_geometry

LEVELS = kernels.LEVELS[: lowlevel.level() + 1]
CONVOLVE = {1: conv1d, 2: conv2d, 3: conv3d}
FLOATS, INTEGERS = ["float32", "float64"], ["int8", "uint8", "int16", "int32", "int64"]
NAMED = ["l1", "adder", "l2", "xnor", "max_plus", "min_plus"]
COMPILED = {
    "polynomial": Op(lambda w, x: w * x * x + w),
    "left out": Op(lambda w, x: abs(w - x) * x, pad_value=None),
    "exp": Op(lambda w, x: np.exp(-(w - x) * (w - x))),
    "max": Op(lambda w, x: w * x + x, "max", pad_value=-0.5),
    "fold": Op(lambda w, x: w * x, lambda acc, term: acc * 0.5 + term, identity=1),
    "quotient": Op(lambda w, x: w / (abs(x) + 1)),
}
#: Of integers, and by C text: (op, the same in NumPy).
WHOLE = Op(lambda w, x: (w & x) - (w | 3))
BY_TEXT = Op.from_c("w * x + fabs(w)", grad_w="x + (w < 0 ? -1 : 1)", grad_x="w"), Op(lambda w, x: w * x + abs(w))


def at_least_one_thread():
    """Small problems use threads, too; and NumPy's own functions are differentiated, as tensors' are."""
    paths.LEAST = lowlevel.LEAST_FOR_THREADS = 1
    trace = symbols._trace
    symbols._trace = lambda op, dtype, arrays, _: trace(op, dtype, arrays, not dtypes.is_integer(dtype))


# ---------------------------------------------------------------- arrays
def some(pick, shape, dtype):
    """An array of random values, which lies in memory in one of several ways."""
    generator = np.random.RandomState(pick.randrange(2**31))
    if dtypes.is_integer(dtype):
        low, high = dtypes.limits(dtype)
        values = generator.randint(max(low, -100), min(high, 100) + 1, shape).astype(dtype)
    else:
        values = generator.randn(*shape).astype(dtype)
        if dtype.startswith("complex"):
            values += np.asarray(1j, dtype) * generator.randn(*shape).astype(dtype)
        elif values.size and pick.random() < 0.2:
            values.flat[pick.randrange(values.size)] = pick.choice([np.inf, -np.inf, np.nan])
    how = pick.randrange(5)
    if how == 1 and values.ndim > 1:
        return np.asfortranarray(values)
    if how == 2:
        return values[..., ::-1].copy()[..., ::-1]
    if how == 3 and dtype.startswith("complex"):
        # At an address that is one part's, not one number's.
        parts = np.zeros(2 * values.size + 1, values.real.dtype)
        found = parts[1:].view(dtype).reshape(shape)
        found[...] = values
        return found
    return values


def same(found, expected, dtype, what):
    assert found.dtype == expected.dtype and found.shape == expected.shape, what
    if dtypes.is_integer(dtype):
        fine = np.array_equal(found, expected)
    else:
        tolerance = {"float16": 2e-3, "float32": 2e-4, "complex64": 2e-4}.get(dtype, 1e-9)
        finite = np.isfinite(expected)
        scale = abs(expected[finite]).max() if finite.any() else 1
        with np.errstate(invalid="ignore"):
            close = abs(np.where(finite, found - expected, 0)) <= tolerance * max(scale, 1)
        # A gradient that overflows may be infinite or NaN.
        fine = close.all() and np.array_equal(np.isfinite(found), finite)
    assert fine, "{}: {} instead of {}".format(what, found, expected)


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


def columns(pick):
    dtype = pick.choice(sorted(set(dtypes.ITEMSIZE) - {"bfloat16"}))
    dims = pick.choice([1, 2, 2, 3])
    image, kernel, dilation, padding, stride = window(pick, dims, 8 if dims < 3 else 6)
    shape = (pick.randrange(1, 4), pick.randrange(1, 6)) + image
    others = kernel, dilation, padding, stride
    x = some(pick, shape, dtype)
    found = unfold(x, *others)
    back = fold(some(pick, found.shape, dtype), image, *others)
    y = some(pick, found.shape, dtype)
    folded = fold(y, image, *others)
    out = unfold(x, *others, out=np.empty(found.shape, dtype))
    with use_backend("slices"):
        expected, refolded = unfold(x, *others), fold(y, image, *others)
    assert expected.tobytes() == found.tobytes() == out.tobytes() and back.shape == shape
    if "float16" == dtype or not np.isfinite(y).all():
        return "columns"
    same(folded, refolded, dtype, "fold of {} {}".format(dtype, (shape, others)))
    return "columns"


def an_op(pick):
    """(name, op, the same for NumPy, a dtype)."""
    kind = pick.choice(["named", "named", "compiled", "compiled", "signs", "integers", "text", "table"])
    if kind == "named":
        name = pick.choice(NAMED)
        return name, name, name, pick.choice(FLOATS + ["int8"])
    if kind == "compiled":
        name = pick.choice(sorted(COMPILED))
        return name, COMPILED[name], COMPILED[name], pick.choice(FLOATS)
    if kind == "signs":
        return "xnor", "xnor", "xnor", pick.choice(FLOATS + INTEGERS + ["bool"])
    if kind == "integers":
        return kind, WHOLE, WHOLE, pick.choice(["int8", "uint8", "int32"])
    if kind == "text":
        return (kind,) + BY_TEXT + ("float32",)
    size = pick.choice([2, 4, 16, 64, 256])
    most = pick.choice([7, 127, 30000])
    entries = np.random.RandomState(pick.randrange(2**31)).randint(-most, most, (size, size)).astype("int32")
    op = Op.from_table(entries, pad_value=pick.choice([0, None, 1]))
    return "table", op, op, "uint8 {}".format(size)


def operands(pick, dtype, *shapes):
    if " " not in dtype:
        return [some(pick, shape, dtype) for shape in shapes]
    dtype, size = dtype.split()
    return [some(pick, shape, dtype) % np.uint8(min(int(size), 255)) for shape in shapes]


def products(pick):
    name, op, plain, dtype = an_op(pick)
    deep = pick.random() < 0.2  # more terms than a block has
    function = pick.choice(["conv", "conv", "linear", "matmul"])
    if function == "conv":
        dims = pick.choice([1, 2, 2, 3])
        image, kernel, dilation, padding, stride = window(pick, dims, 6 if dims < 3 else 4)
        groups, channels = pick.choice([1, 1, 2, 3]), pick.choice([1, 2, 4, 5, 33]) * (4 if deep else 1)
        filters = groups * pick.choice([1, 2, 4, 5, 13])
        x, w = operands(pick, dtype, (pick.randrange(1, 4), groups * channels) + image, (filters, channels) + kernel)
        call = lambda op: CONVOLVE[dims](x, w, None, stride, padding, dilation, groups, op)
    elif function == "linear":
        depth = pick.choice([1, 3, 16, 65, 513, 1100])
        x, w = operands(pick, dtype, (pick.randrange(1, 40), depth), (pick.randrange(1, 20), depth))
        call = lambda op: linear(x, w, op=op)
    else:
        depth, batch = pick.choice([1, 3, 16, 65, 513]), pick.choice([(), (1,), (3,), (2, 2)])
        w, x = operands(pick, dtype, (pick.randrange(1, 9), depth), batch + (depth, pick.randrange(1, 40)))
        call = lambda op: matmul(w, x, op=op)
    with np.errstate(all="ignore"):
        found = call(op)
        with use_backend("slices"):
            expected = call(plain)
    one_thread(lambda: same_bytes(call(op), found, name))
    if name not in ("fold", "quotient", "exp") or np.isfinite(expected).all():
        same(found, expected, found.dtype.name, (function, name, dtype, x.shape, w.shape))
    return "{} {}".format(function, name)


def gradients(pick):
    """The calls that a backward makes, of all ops that have kernels for them."""
    name = pick.choice(NAMED + sorted(COMPILED) + ["text"])
    op = BY_TEXT[0] if name == "text" else COMPILED.get(name) or getattr(ops, name)
    dtype = "float32" if name == "text" else pick.choice(FLOATS)
    if pick.random() < 0.6:
        dims = pick.choice([1, 2, 2, 3])
        image, kernel, dilation, padding, stride = window(pick, dims, 6 if dims < 3 else 4)
        groups, channels = pick.choice([1, 1, 2]), pick.choice([1, 2, 5, 33])
        shapes = (2, groups * channels) + image, (groups * pick.choice([1, 2, 4, 9]), channels) + kernel
        problem = conv_problem(dims, shapes[0], shapes[1], None, stride, padding, dilation, groups)
    else:
        depth = pick.choice([1, 3, 16, 65, 513])
        shapes = (pick.randrange(1, 40), depth), (pick.randrange(1, 20), depth)
        problem = linear_problem(shapes[0], shapes[1], None)
    x, w = [np.ascontiguousarray(some(pick, shape, dtype)) for shape in shapes]
    grad = np.ascontiguousarray(some(pick, problem.result_shape, dtype))
    most = op.reduction.most_taps
    found, reason = choose.kernels_for(op, dtype, NUMPY)
    assert found is not None and found.has_gradients, reason
    if most is not None and problem.taps > most:
        return "gradients of nothing"
    how = layout.of(problem, op.pad_value_for(dtype), dtype)
    if pick.random() < 0.3:  # an expanded gradient
        grad, how = np.array([pick.random()], dtype), how._replace(y_strides=(0,) * 5)
    addresses = [lowlevel.address_of(array) for array in (w, x, grad)]

    def call(needs):
        dw, dx = np.zeros_like(w), np.zeros_like(x)
        for number, gives_w, gives_x in op.reduction.calls(*needs):
            to = [lowlevel.address_of(array) if gives else 0 for array, gives in ((dx, gives_x), (dw, gives_w))]
            sizes = found.itemsize, found.itemsize
            paths._call(number, how, found.address, addresses, sizes, None, to[1], to[0])
        return dw, dx

    needs = pick.choice([(True, True), (True, False), (False, True)])
    first = call(needs)
    one_thread(lambda: [same_bytes(a, b, name) for a, b in zip(call(needs), first)])
    return "gradients of " + name


def same_bytes(found, expected, name):
    np.testing.assert_array_equal(found, expected, name)


def one_thread(call):
    threads = os.environ["OMP_NUM_THREADS"]
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        call()
    finally:
        os.environ["OMP_NUM_THREADS"] = threads


def run(seed, seconds):
    """Random calls until the time is over, for each instruction set in turn; at least one of each kind for each."""
    started, counts = time.time(), collections.Counter()
    number = 0
    while time.time() - started < seconds or number < 60 * len(LEVELS):
        pick = random.Random("{} {}".format(seed, number))
        os.environ[kernels.VARIABLE] = LEVELS[number % len(LEVELS)]
        os.environ["OMP_NUM_THREADS"] = str(pick.choice([1, 2, 3]))
        call = pick.choice([columns, products, products, gradients])
        try:
            counts[call(pick)] += 1
        except BaseException:
            print("call {} of seed {}, {}, failed".format(number, seed, os.environ[kernels.VARIABLE]))
            raise
        number += 1
    parts = sorted("{} {}".format(count, what) for what, count in counts.items())
    print("{} calls in {:.0f} s on {}: {}".format(number, time.time() - started, ", ".join(LEVELS), ", ".join(parts)))


# ---------------------------------------------------------------- planted faults
def fault(kind):
    if kind == "kernel":
        # One result too many, from a kernel that is compiled here.
        x, w = np.zeros((1, 1, 40, 40), "float32"), np.zeros((1, 1, 1, 1), "float32")
        problem = conv_problem(2, x.shape, w.shape, None, 1, 0, 1, 1)
        op = COMPILED["polynomial"]
        found, reason = choose.kernels_for(op, "float32", NUMPY)
        assert found is not None, reason
        how = layout.of(problem, 0.0, "float32")
        small = np.empty(1599, "float32")
        addresses = [lowlevel.address_of(array) for array in (w, x, small)]
        return paths._call(lowlevel.FORWARD, how, found.address, addresses, (4, 4))
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
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--fault")
    arguments = parser.parse_args()
    assert "ffi" in available_backends(), lowlevel.missing
    warnings.simplefilter("error", SlowPathWarning)  # of what can't be compiled
    at_least_one_thread()
    if arguments.fault:
        fault(arguments.fault)
    else:
        run(arguments.seed, arguments.seconds)


if __name__ == "__main__":
    main()
