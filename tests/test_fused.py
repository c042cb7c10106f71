"""The fused C kernels against the tensor path, in every instruction set, and what can go wrong in C alone."""

import itertools
import operator
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers import oracle
from helpers.cases import each
from helpers.tensors import INTEGERS, KINDS, VARIABLES, dtype_of, has, make, torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import Op, available_backends, conv2d, linear, lowlevel, matmul, use_backend
from im2col_compat.compat import memory
from im2col_compat.compat.arrays import NUMPY, TORCH, arrays_of
from im2col_compat.op import resolve
from im2col_compat.codegen import compile, kernels
from im2col_compat.paths import choose
from im2col_compat.paths import kernels as fused
from im2col_compat.problem import conv_problem, product

if lowlevel.missing:
    pytest.skip("needs the C library", allow_module_level=True)

INF = float("inf")
KIND = "numpy" if torch is None else "tensor"
E = np if torch is None else torch
LEVELS = kernels.LEVELS[: lowlevel.level() + 1]
#: Any forced engine takes the tensor path.
TENSORS = available_backends()[-1]
TOLERANCE = {"float32": 2e-5, "float64": 1e-11}

needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
needs_current_torch = pytest.mark.skipif(VARIABLES or not hasattr(torch, "nan_to_num"), reason="needs a torch of today")


def halving(acc, term):
    return acc * 0.5 + term


NAMED = ["l1", "adder", "l2", "xnor", "max_plus", "min_plus"]
OWN = {
    "polynomial": lambda w, x: w * x * x + w,
    "product-of-sums": Op(lambda w, x: (w + x) * (w - 2), pad_value=1.5),
    "left-out": Op(lambda w, x: E.abs(w - x) * x, pad_value=None),
    "max": Op(lambda w, x: w * x, "max", pad_value=-0.5),
    "max-left-out": Op(lambda w, x: w * x + x, "max", pad_value=None),
    "min-infinite": Op(lambda w, x: x - w, "min", pad_value=INF),
    "add": Op(operator.mul, halving),
    "add-identity": Op(lambda w, x: E.abs(w - x), lambda acc, term: acc * 0.5 + term * acc * 0.1, identity=2),
    "add-left-out": Op(operator.sub, halving, identity=1, pad_value=None),
    "surrogate-w": Op(lambda w, x: w * w * x, grad_w=lambda w, x: x + 3),
    "surrogates": Op(lambda w, x: (w - x) * 2, "sum", grad_w=lambda w, x: x * w, grad_x=lambda w, x: w.clip(-1, 1)),
    "exp": lambda w, x: E.exp(-(w - x) * (w - x)),
    "tanh": lambda w, x: E.tanh(w + x) * w,
    "roots": Op(lambda w, x: E.sqrt(w * w + x * x + 1) / (1 + x * x), pad_value=0.25),
    "where": lambda w, x: E.where(w > x, w * x, x),
}
if torch is not None:
    OWN["surrogates"] = OWN["surrogates"].replace(grad_x=lambda w, x: w.clamp(-1, 1))
if not hasattr(E, "where"):
    del OWN["where"]
OPS = dict(OWN, **{name: name for name in NAMED})

#: (image shape, filters, kernel, stride, padding, dilation, groups): around the sizes of tiles, panels and blocks.
GEOMETRIES = {
    "one-pixel": ((1, 1, 1, 1), 1, (1, 1), 1, 0, 1, 1),
    "plain": ((2, 3, 5, 17), 12, (3, 2), 1, 1, 1, 1),
    "asymmetric": ((2, 2, 9, 11), 13, (2, 3), (2, 3), (1, 2), (2, 1), 1),
    "two-steps": ((1, 2, 6, 75), 4, (2, 3), (1, 2), (0, 1), 1, 1),
    "grouped": ((3, 6, 7, 6), 9, (3, 3), (2, 1), 1, 1, 3),
    "depthwise": ((2, 7, 6, 7), 14, (3, 3), 1, 1, 1, 7),
    "one-by-one": ((2, 257, 3, 11), 25, (1, 1), 1, 0, 1, 1),
    "one-by-one-strided": ((2, 5, 9, 9), 17, (1, 1), 2, 0, 1, 1),
    "one-by-one-padded": ((2, 5, 4, 3), 7, (1, 1), 1, 1, 1, 1),
    "area-above-256": ((1, 2, 20, 18), 3, (17, 16), 1, (2, 0), 1, 1),
    "row-kernel": ((2, 1, 2, 300), 2, (1, 270), 1, (0, 20), 1, 1),
    "far-padding": ((1, 1, 3, 4), 8, (2, 3), (1, 2), (5, 40), 1, 1),
    "far-dilation": ((1, 2, 4, 5), 3, (3, 3), 1, 9, 8, 1),
    "tiny-images": ((70, 3, 2, 2), 5, (2, 2), 1, (1, 0), 1, 1),
    "batch-of-pixels": ((77, 5, 1, 1), 24, (1, 1), 1, 0, 1, 1),
    "pixels-of-padding": ((33, 5, 1, 1), 4, (1, 1), 1, (1, 20), 1, 1),
    "positions-255": ((3, 2, 15, 17), 11, (1, 1), 1, 0, 1, 1),
    "positions-256": ((2, 1, 18, 18), 2, (3, 3), 1, 0, 1, 1),
    "positions-511": ((2, 2, 7, 73), 3, (3, 3), 1, 1, 1, 1),
    "positions-513": ((2, 1, 28, 20), 6, (2, 2), 1, 0, 1, 1),
    "taps-513": ((2, 57, 4, 5), 5, (3, 3), 1, 1, 1, 1),
    "taps-1030": ((2, 103, 3, 6), 8, (2, 5), 1, (0, 1), 1, 1),
    "filters-260": ((1, 2, 4, 6), 260, (2, 2), 1, 0, 1, 1),
    "filters-600-of-groups": ((1, 4, 3, 3), 1200, (2, 2), 1, 1, 1, 2),
}
#: Those for what is expensive.
FEW = ["plain", "asymmetric", "grouped", "area-above-256", "far-padding", "tiny-images", "taps-513", "filters-260"]


def arguments(geometry, dtype, seed=0):
    """x and w as NumPy arrays, and the other arguments of conv2d."""
    shape, filters, kernel, stride, padding, dilation, groups = geometry
    random = np.random.RandomState(seed)
    # Rounded to the dtype, so that what depends on a sign depends on it alike in both.
    x, w = (random.randn(*sizes).astype(dtype) for sizes in (shape, (filters, shape[1] // groups) + kernel))
    return x, w, (stride, padding, dilation, groups)


def convolved(geometry, op, dtype, path="auto", kind=KIND, seed=0):
    """conv2d's result and, of tensors, the gradients of x and w."""
    x, w, others = arguments(geometry, dtype, seed)
    return results(lambda x, w: conv2d(x, w, None, *others, op=op), (x, w), dtype, path, kind)


def results(call, operands, dtype, path="auto", kind=KIND, grad=None):
    with use_backend(path):
        tensors = [make(kind, array, dtype, requires_grad=kind == "tensor") for array in operands]
        y = call(*tensors)
        found = [values(y)]
        if kind == "tensor":
            if grad is None:
                grad = np.random.RandomState(99).randn(*found[0].shape)
            # To 0.3 a Variable means that second derivatives will be wanted, and the tensor path has these.
            y.backward(make("raw" if VARIABLES else kind, grad, dtype))
            found += [values(tensor.grad) for tensor in tensors]
    return found


def assert_close(found, expected, dtype, what=""):
    assert len(found) == len(expected)
    for name, ours, theirs in zip(("result", "grad of x", "grad of w"), found, expected):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        finite = np.abs(theirs[np.isfinite(theirs)])
        atol = TOLERANCE[dtype] * (finite.max() if finite.size else 1)
        np.testing.assert_allclose(ours, theirs, TOLERANCE[dtype], atol, err_msg="{} {}".format(what, name))


def needs_kernels(op, dtype, kind=KIND):
    found, reason = choose.kernels_for(resolve(op), dtype, NUMPY if kind == "numpy" else TORCH)
    if found is None:
        pytest.skip(reason)
    return found


@pytest.fixture
def setting(monkeypatch):
    """setting(isa, threads): these from here on, however small a problem is. No call may write behind its workspace."""
    monkeypatch.setenv("IM2COL_COMPAT_QUIET", "1")
    monkeypatch.setattr(fused, "LEAST", 0)
    workspaces = []

    def check():
        for whole, size in workspaces:
            start = -whole.ctypes.data % 64  # where dot_call has it begin
            assert (whole[start + size :] == 171).all(), "a workspace of {} bytes is too small".format(size)
        del workspaces[:]

    def guarded(size):
        check()
        workspaces.append((np.full(size + 4096, 171, np.uint8), size))
        return lowlevel.ffi.from_buffer(workspaces[0][0])

    monkeypatch.setattr(lowlevel, "_workspace", guarded)

    def change(isa=LEVELS[-1], threads=1):
        monkeypatch.setenv("IM2COL_COMPAT_ISA", isa)
        monkeypatch.setattr(memory, "threads", lambda: threads)

    change()
    yield change
    check()


_expected = {}


def expected_of(op, name, dtype):
    key = op, name, dtype
    if key not in _expected:
        _expected[key] = convolved(GEOMETRIES[name], OPS[op], dtype, TENSORS)
    return _expected[key]


# ---------------------------------------------------------------- against the tensor path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", NAMED)
@pytest.mark.parametrize("geometry", sorted(GEOMETRIES))
def test_named_ops_on_every_geometry(setting, op, dtype, geometry):
    """Result and gradients of each named op are the tensor path's, in each instruction set, with one thread or two."""
    expected = convolved(GEOMETRIES[geometry], op, dtype, TENSORS)

    def is_the_tensor_paths(isa, threads):
        setting(isa, threads)
        assert needs_kernels(op, dtype).origin.startswith("built in, " + isa)
        assert_close(convolved(GEOMETRIES[geometry], op, dtype), expected, dtype)

    each(is_the_tensor_paths, [(isa, 1 + i % 2) for i, isa in enumerate(LEVELS + LEVELS[-1:])])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", sorted(OWN))
def test_own_ops(setting, op, dtype):
    """So are those of ops that are compiled at run time; in each instruction set those that reduce in another way."""

    def is_the_tensor_paths(isa, name):
        setting(isa, 2)
        needs_kernels(OPS[op], dtype)
        assert_close(convolved(GEOMETRIES[name], OPS[op], dtype), expected_of(op, name, dtype), dtype)

    isas = LEVELS if op in ("polynomial", "max-left-out", "add-left-out") else LEVELS[-1:]
    each(is_the_tensor_paths, itertools.product(isas, FEW if dtype == "float32" else FEW[::2]))


@pytest.mark.parametrize("op", NAMED + ["add"])
def test_arrays(setting, op):
    """NumPy arrays have the same results, where torch is there too."""
    needs_kernels(OPS[op], "float32", "numpy")

    def is_the_tensor_paths(name):
        found = convolved(GEOMETRIES[name], OPS[op], "float32", kind="numpy")
        assert_close(found, expected_of(op, name, "float32")[:1], "float32")

    each(is_the_tensor_paths, FEW)


FILTERS = (1, 2, 3, 4, 7, 8, 11, 12, 13, 16, 17, 24, 25, 28, 47, 48, 52)
POSITIONS = (1, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 65)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("op", ["l1", "max_plus"])
def test_every_size_of_tile(setting, op, isa):
    """Filters, positions and taps around whole tiles and panels: linear against its formula."""
    setting(isa)
    random = np.random.RandomState(0)

    def is_the_formula(filters, count, taps):
        x, w, grad = (random.randn(*shape) for shape in ((count, taps), (filters, taps), (count, filters)))
        terms = w - x[:, None] if op == "l1" else w + x[:, None]
        if op == "l1":
            expected = [abs(terms).sum(2)]
            partial = grad[:, :, None] * np.sign(terms)
            expected += [-partial.sum(1), partial.sum(0)]
        else:
            expected = [terms.max(2)]
            partial = grad[:, :, None] * (terms == terms.max(2)[:, :, None])
            expected += [partial.sum(1), partial.sum(0)]
        found = results(lambda x, w: linear(x, w, op=op), (x, w), "float64", grad=grad)
        for ours, theirs in zip(found, expected):
            np.testing.assert_allclose(ours, theirs, 1e-12, 1e-12)

    # Each number of taps with each of filters and of positions, not with each pair of these.
    pairs = enumerate(itertools.product(FILTERS, POSITIONS))
    each(is_the_formula, [pair + (taps,) for i, pair in pairs for taps in ((1, 3), (2, 5))[i % 2]])


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("op", ["l1", "max_plus", "own", "ordered", "logsumexp"])
def test_few_rows_are_those_of_many(setting, op, isa):
    """Where positions are few, lanes are taps: sums of named ops come in another order, and other results are the same to the
    bit, blocks and groups included."""
    setting(isa)
    own = {
        "own": Op(lambda w, x, t: w * abs(x - t)),
        "ordered": Op(lambda w, x: w - 2 * x, add=lambda acc, term: acc * 0.5 + term, identity=0.0),
        "logsumexp": Op(lambda w, x: w + x, add="logsumexp"),
    }.get(op, op)
    by_tensors = op == "logsumexp" and compile.executable("cc") is None
    random, rtol = np.random.RandomState(0), 1e-6 if op == "l1" or by_tensors else 0
    for filters, taps in ((32, 700), (37, 5)):
        x, w, t = (random.randn(*shape).astype("float32") for shape in ((40, taps), (filters, taps), (filters, taps)))
        x[1, 3], w[2, 0] = np.inf, -np.inf
        params = {"params": {"t": t}} if op == "own" else {}
        with np.errstate(invalid="ignore"):
            many = linear(x, w, op=own, **params)
            for rows in (1, 2, 3, 5, 7, 8):
                np.testing.assert_allclose(linear(x[:rows], w, op=own, **params), many[:rows], rtol=rtol)
    x, w = random.randn(2, 3 * 20, 1, 1), random.randn(3 * 33, 20, 1, 1)
    if op != "own":
        many = conv2d(np.repeat(x, 30, 3), w, groups=3, op=own)
        np.testing.assert_allclose(conv2d(x, w, groups=3, op=own), many[..., :1], rtol=rtol)


@pytest.mark.parametrize("taps", [255, 256, 257, 511, 512, 513, 1030])
def test_blocks_of_taps(setting, taps):
    """Long dot products, whose terms are added up in blocks, with fewer and more filters than a tile has."""

    def is_the_tensor_paths(op, filters, isa):
        setting(isa, 2)
        random = np.random.RandomState(0)
        operands = random.randn(9, taps).astype("float32"), random.randn(filters, taps).astype("float32")
        found, expected = (
            results(lambda x, w: linear(x, w, op=op), operands, "float32", path) for path in ("auto", TENSORS)
        )
        assert_close(found, expected, "float32")

    each(is_the_tensor_paths, itertools.product(("l1", "min_plus", "l2"), (1, 13), LEVELS))


SIZE = st.integers(1, 40)
SMALL = st.integers(1, 4)


@settings(deadline=None, max_examples=100)
@given(
    op=st.sampled_from(NAMED + ["polynomial", "left-out", "max-left-out", "add-left-out"]),
    dtype=st.sampled_from(["float32", "float64"]),
    level=st.sampled_from(LEVELS),
    threads=st.sampled_from([1, 2]),
    batch=SMALL,
    groups=st.integers(1, 3),
    channels=SMALL,
    filters=st.integers(1, 14),
    image=st.tuples(SIZE, SIZE),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(SMALL, SMALL),
    padding=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    dilation=st.tuples(SMALL, SMALL),
)
def test_any_geometry(
    op, dtype, level, threads, batch, groups, channels, filters, image, kernel, stride, padding, dilation
):
    """Result and gradients are the tensor path's on random geometries."""
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation)]
    image = tuple(max(size, need - 2 * pad) for size, need, pad in zip(image, reach, padding))
    blocks = product((size + 2 * p - need) // s + 1 for size, p, need, s in zip(image, padding, reach, stride))
    batch = max(1, min(batch, 10**6 // (blocks * groups * filters * channels * product(kernel))))
    geometry = ((batch, channels * groups) + image, filters * groups, kernel, stride, padding, dilation, groups)
    monkeypatch = {"IM2COL_COMPAT_ISA": level, "IM2COL_COMPAT_QUIET": "1"}
    before = {name: os.environ.get(name) for name in monkeypatch}
    least, threads_ = fused.LEAST, memory.threads
    try:
        os.environ.update(monkeypatch)
        fused.LEAST, memory.threads = 0, lambda: threads
        if choose.kernels_for(resolve(OPS[op]), dtype, NUMPY if KIND == "numpy" else TORCH)[0]:
            found = convolved(geometry, OPS[op], dtype)
            assert_close(found, convolved(geometry, OPS[op], dtype, TENSORS), dtype)
    finally:
        fused.LEAST, memory.threads = least, threads_
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@pytest.mark.parametrize("op", ["l1", "xnor", "max_plus", "polynomial", "add"])
def test_bitwise_the_same_for_any_number_of_threads(setting, monkeypatch, op):
    """Results and gradients are in an order that depends on shapes alone: PyTorch's threads or our own, and however many."""
    geometries = [
        ((2, 40, 13, 17), 50, (3, 3), 1, 1, 1, 1),
        ((70, 8, 3, 3), 30, (2, 2), 1, 1, 1, 2),
        ((1, 3, 24, 30), 7, (17, 16), 1, 3, 1, 1),
        # Strips of images are parts of the gradients' sums.
        ((1, 3, 90, 80), 12, (7, 7), 2, 3, 1, 1),
        ((2, 3, 40, 33), 12, (5, 3), 1, 2, 1, 1),
        # Groups of few filters, of which a task may begin with some.
        ((5, 11, 23, 23), 11, (3, 3), 2, 2, 1, 11),
    ]
    needs_kernels(OPS[op], "float32")

    def is_the_same(*geometry):
        expected = None
        for threads, ours in itertools.product((1, 2, 3, 5), (False, True)):
            setting(threads=threads)
            with monkeypatch.context() as patch:
                if ours:
                    patch.setattr(memory, "parallel", lambda: 0)
                found = convolved(geometry, OPS[op], "float32")
            expected = expected or found
            for our, their in zip(found, expected):
                np.testing.assert_array_equal(our, their, "{} threads".format(threads))

    each(is_the_same, geometries)


#: (shape of x, filters, kernel, stride, padding, dilation, groups): tiles of any number of filters and positions, strips
#: of images, images that are packed in several parts, and groups of one channel.
EXACT = [
    ((1, 17, 7, 7), 23, (3, 3), 1, 1, 1, 1),
    ((3, 16, 9, 14), 6, (1, 1), 2, 0, 1, 1),
    ((1, 3, 90, 80), 9, (7, 7), 2, 3, 1, 1),
    ((2, 2, 51, 40), 10, (5, 3), 1, 4, 2, 1),
    ((8, 3, 30, 30), 9, (7, 7), 2, 0, 1, 1),
    ((2, 6, 21, 26), 6, (3, 3), 2, 1, 1, 6),
]


@needs_current_torch
@pytest.mark.parametrize("isa", LEVELS)
def test_gradients_of_l1_are_exact(setting, isa):
    """Of small whole numbers sums are exact, whatever their order: gradients are those of tensor operations, with
    operands that are equal and zeros of both signs, both at once or one alone, and of gradients that have no half."""
    setting(isa)

    def are_exact(*case):
        shape, filters, kernel, stride, padding, dilation, groups = case
        random = np.random.RandomState(3)
        x, w = [
            torch.from_numpy((random.randint(-3, 4, size) * random.choice([-1.0, 1.0], size)).astype("float32"))
            for size in (shape, (filters, shape[1] // groups) + kernel)
        ]
        call = lambda x, w: conv2d(x, w, None, stride, padding, dilation, groups, op="l1")  # noqa: E731
        grad = torch.from_numpy(random.randint(-9, 10, tuple(call(x, w).shape)).astype("float32"))
        with use_backend("slices"):
            wide = [t.double().requires_grad_() for t in (x, w)]
            call(*wide).backward(grad.double())
        for scale, wanted in itertools.product((1.0, 2.0**-149, 2.0**-126, 2.0**100), ((1, 1), (1, 0), (0, 1))):
            operands = [t.clone().requires_grad_(bool(need)) for t, need in zip((x, w), wanted)]
            call(*operands).backward(grad * scale)
            for ours, theirs in zip(operands, wide):
                if ours.requires_grad:
                    np.testing.assert_array_equal(values(ours.grad), values(theirs.grad * scale).astype("float32"))

    each(are_exact, EXACT)


# ---------------------------------------------------------------- one and three dimensions

DIMENSIONS_OPS = NAMED + ["add", "add-left-out", "left-out", "max-left-out", "product-of-sums"]


def random_problem(random, dimensions, largest):
    """The arguments of any_conv: shapes of x and w, stride, pads, dilation, groups. largest: of images."""
    stride, dilation, kernel = (tuple(int(n) for n in random.randint(1, 4, dimensions)) for _ in range(3))
    pads = tuple((int(n), int(m)) for n, m in random.randint(0, 4, (dimensions, 2)) * random.randint(0, 2))
    if random.randint(4) == 0:
        stride, kernel = (1,) * dimensions, (1,) * dimensions
    image = tuple(
        max(int(n), (k - 1) * d + 1 - sum(p), 1)
        for n, k, d, p in zip(random.randint(1, largest + 1, dimensions), kernel, dilation, pads)
    )
    batch, groups, channels, filters = (int(random.randint(1, n)) for n in (4, 4, 4, 6))
    shapes = (batch, channels * groups) + image, (filters * groups, channels) + kernel
    return shapes + (stride, pads, dilation, groups)


def any_conv(op, x, w, stride, pads, dilation, groups):
    """The path by kernels, on arrays or tensors of one to three dimensions."""
    arrays, dims = arrays_of(x), len(w.shape) - 2
    shapes = [tuple(int(size) for size in t.shape) for t in (x, w)]
    problem = conv_problem(dims, shapes[0], shapes[1], None, stride, pads, dilation, groups)
    found, reason = choose.kernels_for(resolve(op), arrays.dtype(x), arrays)
    if found is None:
        pytest.skip(reason)
    return fused.run(resolve(op), problem, found, arrays, (w,), x)


def conv_by_tensors(op, x, w, stride, pads, dilation, groups):
    """The same, a tap at a time, by operations that autograd knows."""
    op, sides = resolve(op), [side for sides in reversed(pads) for side in sides]
    pad = torch.nn.functional.pad
    padded = pad(x, sides, value=0 if op.pad_value is None else op.pad_value)
    pixels_there = pad(torch.ones_like(x), sides, value=0) != 0
    steps = zip(padded.shape[2:], w.shape[2:], stride, dilation)
    blocks = tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in steps)
    channels, of_group = w.shape[1], w.shape[0] // groups
    shape = (x.shape[0], groups, of_group) + blocks
    start = {"sum": 0, "max": -INF, "min": INF}.get(op.add, op.identity) if not callable(op.add) else op.identity
    result = None if start is None else torch.full(shape, start, dtype=x.dtype)
    for tap in np.ndindex(*w.shape[1:]):
        window = tuple(
            slice(k * d, k * d + (b - 1) * s + 1, s) for k, d, b, s in zip(tap[1:], dilation, blocks, stride)
        )
        window = (slice(None), slice(tap[0], None, channels)) + window
        pixels, there = (t[window].unsqueeze(2).expand(shape) for t in (padded, pixels_there))
        weights = w[(slice(None),) + tap].view((1, groups, of_group) + (1,) * len(blocks)).expand(shape)
        term = term_of(op, weights, pixels)
        if callable(op.add):
            summed = term if result is None else op.add(result, term)
        elif op.add == "sum":
            summed = result + term
        else:
            # Of those that are as good, the first; also if all are infinite.
            better = term > result if op.add == "max" else term < result
            summed = torch.where(better if any(tap) else torch.ones_like(better), term, result)
        result = summed if op.pad_value is not None else torch.where(there, summed, result)
    return result.reshape((x.shape[0], w.shape[0]) + blocks)


def term_of(op, w, x):
    if op.grad_w is None:
        return op.multiply(w, x)
    plain_w, plain_x = w.detach(), x.detach()
    through_w, through_x = op.grad_w(plain_w, plain_x) * (w - plain_w), op.grad_x(plain_w, plain_x) * (x - plain_x)
    return op.multiply(plain_w, plain_x) + through_w + through_x


@pytest.mark.parametrize("dimensions", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
@pytest.mark.parametrize("op", DIMENSIONS_OPS)
def test_results_in_one_and_three_dimensions(setting, op, dtype, dimensions):
    """Results on small random problems are those of NumPy, tap after tap."""
    given = resolve(OPS[op])
    if dtype == "int16" and not (op in NAMED or op == "left-out"):
        pytest.skip("its numbers are no integers")
    adds = {"sum": (operator.add, 0), "max": (np.maximum, None), "min": (np.minimum, None)}
    add, start = (given.add, given.identity) if callable(given.add) else adds[given.add]
    wide = "int64" if dtype == "int16" else "float64"
    lowest, highest = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype == "int16" else (-INF, INF)

    def multiply(w, x):
        return values(given.multiply(make(KIND, w, wide), make(KIND, x, wide)))

    def is_the_oracles(seed):
        random = np.random.RandomState(seed)
        setting(LEVELS[seed % len(LEVELS)], 1 + seed % 2)
        x_shape, w_shape, stride, pads, dilation, groups = random_problem(random, dimensions, 5)
        if dtype == "int16":
            x, w = (random.randint(-9, 9, shape).astype(dtype) for shape in (x_shape, w_shape))
        else:
            x, w = (random.randn(*shape).astype(dtype) for shape in (x_shape, w_shape))
        terms, inside = oracle.terms(
            x.astype(wide), w.astype(wide), multiply, given.pad_value_for(dtype), stride, pads, dilation, groups
        )
        # Where there is nothing but padding that is left out.
        nothing = lowest if given.add == "max" else highest
        expected = oracle.reduced(terms, inside, add, start, nothing)
        found = values(any_conv(OPS[op], make(KIND, x, dtype), make(KIND, w, dtype), stride, pads, dilation, groups))
        tolerance = TOLERANCE.get(dtype, 0)
        np.testing.assert_allclose(found.reshape(expected.shape), expected, tolerance, 10 * tolerance)

    each(is_the_oracles, range(8))


@needs_current_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", DIMENSIONS_OPS)
def test_gradients_in_one_and_three_dimensions(setting, op, dtype):
    """Results and gradients on random problems are autograd's of one tap after the other, in float64."""

    def are_autograds(dimensions, seed):
        random = np.random.RandomState(seed)
        setting(LEVELS[seed % len(LEVELS)], 1 + seed % 2)
        x_shape, w_shape, stride, pads, dilation, groups = random_problem(
            random, dimensions, (0, 300, 23, 11)[dimensions]
        )
        operands = [random.randn(*shape).astype(dtype) for shape in (x_shape, w_shape)]
        others = stride, pads, dilation, groups
        expected = results(lambda x, w: conv_by_tensors(OPS[op], x, w, *others), operands, "float64")
        found = results(lambda x, w: any_conv(OPS[op], x, w, *others), operands, dtype)
        assert_close(found, [t.astype(dtype) for t in expected], dtype)

    # Two dimensions are in most other tests.
    each(are_autograds, [(dimensions, seed) for dimensions in (1, 2, 3) for seed in range(3 if dimensions == 2 else 8)])


@needs_torch
@pytest.mark.parametrize("op", ["l1", "max_plus", "add"])
def test_layouts_of_gradients_in_three_dimensions(setting, op):
    """However a gradient lies in memory, what comes of it is the same."""
    needs_kernels(OPS[op], "float64")
    random = np.random.RandomState(0)
    others = (1, 2, 1), ((1, 1), (0, 1), (1, 0)), (1, 1, 2), 2
    operands = random.randn(2, 4, 3, 7, 5), random.randn(6, 2, 2, 3, 2)
    grad = random.randn(2, 6, 4, 3, 4)
    changes = {
        "channels-last": lambda t: t.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3),
        "planes-last": lambda t: t.transpose(2, 4).contiguous().transpose(2, 4),
        "lower-half": lambda t: torch.cat([t, t], 2)[:, :, t.shape[2] :],
        "right-half": lambda t: torch.cat([t, t], 4)[..., t.shape[4] :],
        "odd-columns": lambda t: torch.stack([t, t], 5)[..., 1],
        "one-number": lambda t: t[:1, :1, :1, :1, :1].expand(t.shape),
    }

    def is_the_same(name):
        change, found = changes[name], []
        for layout in (change, lambda t: change(t).contiguous()):
            x, w = (make(KIND, array, requires_grad=True) for array in operands)
            any_conv(OPS[op], x, w, *others).backward(layout(make("raw" if VARIABLES else KIND, grad)))
            found.append([values(x.grad), values(w.grad)])
        assert_close(found[0], found[1], "float64")

    each(is_the_same, sorted(changes))


# ---------------------------------------------------------------- infinities and NaN


@needs_current_torch
@pytest.mark.parametrize("op", NAMED + ["polynomial", "left-out", "min-infinite", "add-left-out", "exp", "where"])
def test_infinities_and_nan(setting, op):
    """NaN, inf and -inf in x, w or the gradient come out where they do on the tensor path, and nowhere else."""
    random = np.random.RandomState(0)

    def are_where_they_are(name, where, isa):
        setting(isa)
        needs_kernels(OPS[op], "float32")
        x, w, others = arguments(GEOMETRIES[name], "float32")
        y = values(conv2d(make(KIND, x), make(KIND, w), None, *others, op=OPS[op]))
        grad = random.randn(*y.shape)
        for i, array in enumerate((x, w, grad)):
            if where in (i, 3):
                chosen = random.choice(array.size, 4, replace=False)
                array.flat[chosen] = [np.nan, INF, -INF, 0]
        pair = []
        for path in ("auto", TENSORS):
            call = lambda x, w: conv2d(x, w, None, *others, op=OPS[op])  # noqa: E731
            pair.append(results(call, (x, w), "float32", path, grad=grad))
        assert_close(pair[0], pair[1], "float32")

    isas = LEVELS[-1:] if op in OWN else LEVELS
    each(are_where_they_are, itertools.product(["plain", "asymmetric", "grouped", "taps-513"], range(4), isas))


# ---------------------------------------------------------------- integers


def wrapped(values, dtype):
    """Python's integers, as many bits as they may have, as those of a dtype that wraps."""
    bits = 8 * np.dtype(dtype).itemsize
    low = 0 if dtype.startswith("u") else -(1 << bits - 1)
    return (values - low) % (1 << bits) + low


INTEGER_OPS = {
    "product": (lambda w, x: w * x, operator.mul, "sum"),
    "difference": (Op(lambda w, x: w - x + 3, pad_value=None), lambda w, x: w - x + 3, "sum"),
    "bits": (Op(lambda w, x: ~(w ^ x), pad_value=None), lambda w, x: ~(w ^ x), "sum"),
    "max": (Op(lambda w, x: w * x, "max", pad_value=7), operator.mul, "max"),
    "min": (Op(lambda w, x: w + x, "min", pad_value=None), operator.add, "min"),
    "max_plus": ("max_plus", operator.add, "max"),
    "add": (Op(lambda w, x: w - x, lambda a, t: a * 3 - t, identity=5, pad_value=None), operator.sub, "add"),
}


@pytest.mark.parametrize("op", sorted(INTEGER_OPS))
@pytest.mark.parametrize("kind,dtype", [(k, d) for k in KINDS if k != "raw" for d in INTEGERS if has(k, d)])
def test_integers(setting, kind, dtype, op):
    """Terms wrap in the operands' dtype, sums add them in int64, extrema keep the dtype: against Python's integers."""
    given, multiply, add = INTEGER_OPS[op]
    found_kernels = needs_kernels(given, dtype, kind)
    # Built from int64's bits, as NumPy's generators differ in what they give.
    info, random = np.iinfo(dtype), np.random.RandomState(0)
    shapes = (2, 4, 6, 21), (6, 2, 3, 2)
    x, w = (np.frombuffer(random.bytes(product(s) * np.dtype(dtype).itemsize), dtype).reshape(s) for s in shapes)
    pad = resolve(given).pad_value_for(dtype)
    terms, inside = oracle.terms(x.astype(object), w.astype(object), multiply, pad, (2, 1), (1, 2), (1, 1), 2)
    adds = {
        "sum": (operator.add, 0),
        "max": (np.maximum, int(info.min)),
        "min": (np.minimum, int(info.max)),
        "add": (lambda a, t: a * 3 - t, 5),
    }
    result = dtype if add in ("max", "min") else "int64"
    expected = wrapped(oracle.reduced(wrapped(terms, dtype), inside, *adds[add]), result).astype(result)
    expected = values(make(kind, expected.reshape(2, 6, 3, 24), result))
    # In each instruction set one dtype of each size.
    for isa in LEVELS if dtype in ("uint8", "int16", "uint32", "int64") else LEVELS[-1:]:
        setting(isa, 2)
        found = conv2d(make(kind, x, dtype), make(kind, w, dtype), None, (2, 1), (1, 2), 1, 2, op=given)
        assert dtype_of(found) == result == found_kernels.result_dtype
        np.testing.assert_array_equal(values(found), expected)


# ---------------------------------------------------------------- layouts


def layouts(array):
    """The same values, laid out in other ways, as NumPy arrays."""
    yield "fortran", np.asfortranarray(array)
    yield "reversed", array[..., ::-1].copy()[..., ::-1]
    yield "upside-down", array[:, ::-1].copy()[:, ::-1]
    yield "sliced", np.repeat(array, 3, -1)[..., ::3]
    raw = np.zeros(array.nbytes + 1, np.uint8)
    misaligned = raw[1:].view(array.dtype).reshape(array.shape)
    misaligned[...] = array
    yield "misaligned", misaligned
    yield "other-end", array.astype(array.dtype.newbyteorder())
    readonly = array.copy()
    readonly.flags.writeable = False
    yield "read-only", readonly


@pytest.mark.parametrize("op", ["l1", "max_plus", "add"])
def test_layouts_of_arrays(setting, op):
    """However an array lies in memory, its result is the same."""
    x, w, others = arguments(GEOMETRIES["asymmetric"], "float32")
    expected = conv2d(x, w, None, *others, op=OPS[op])
    for (name, other_x), (_, other_w) in zip(layouts(x), layouts(w)):
        np.testing.assert_allclose(
            conv2d(other_x, other_w, None, *others, op=OPS[op]), expected, 1e-5, 1e-5, err_msg=name
        )


#: Ops that kernels alone evaluate, or that look products up or pack operands.
BY_KERNELS = {
    "C": (Op.from_c("w * x - abs(w)"), "float32"),
    "table": (Op.from_table(np.arange(256).reshape(16, 16)[::-1].astype(">i4")), "uint8"),
    "xnor": ("xnor", "float32"),
    "dot": ("dot", "float64"),
}


@pytest.mark.parametrize("name", sorted(BY_KERNELS))
def test_layouts_of_arrays_for_kernels(name):
    """So it is for every kind of op, and for linear and matmul."""
    op, dtype = BY_KERNELS[name]
    if name == "C" and choose.kernels_for(op, dtype, NUMPY)[0] is None:
        pytest.skip("needs a C compiler")
    generator = np.random.RandomState(0)
    x, w = (generator.randint(0, 16, shape).astype(dtype) for shape in ((2, 3, 6, 5), (4, 3, 2, 3)))
    rows = w.reshape(6, 12)[:, :5]
    expected = conv2d(x, w, None, 2, 1, op=op), linear(x, rows, op=op), matmul(rows, np.swapaxes(x, 2, 3), op=op)
    for (layout, other_x), (_, other_w), (_, other_rows) in zip(layouts(x), layouts(w), layouts(rows)):
        for w_, x_, rows_ in ((w, other_x, rows), (other_w, x, other_rows), (other_w, other_x, other_rows)):
            found = (
                conv2d(x_, w_, None, 2, 1, op=op),
                linear(x_, rows_, op=op),
                matmul(rows_, np.swapaxes(x_, 2, 3), op=op),
            )
            for one, theirs in zip(found, expected):
                assert one.dtype == theirs.dtype and one.dtype.isnative
                np.testing.assert_array_equal(one, theirs, layout)


@needs_torch
@pytest.mark.parametrize("op", ["l1", "max_plus", "add", "xnor"])
def test_layouts_of_tensors(setting, op):
    """However operands and the gradient lie in memory, results and gradients are the same; gradients reach the leaves."""
    x, w, others = arguments(GEOMETRIES["grouped"], "float64")
    needs_kernels(OPS[op], "float64")
    y = values(conv2d(make(KIND, x), make(KIND, w), None, *others, op=OPS[op]))
    grad = np.random.RandomState(1).randn(*y.shape)
    changes = {
        "plain": lambda t: t,
        "channels-last": lambda t: t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "batch-last": lambda t: t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        "second-half": lambda t: torch.cat([t, t], 1)[:, t.shape[1] :],
        "right-half": lambda t: torch.cat([t, t], 3)[:, :, :, t.shape[3] :],
        "odd-rows": lambda t: torch.stack([t, t], 3)[:, :, :, 1],
        "odd-columns": lambda t: torch.stack([t, t], 4)[..., 1],
    }
    expected = None
    for threads in (1, 2):
        setting(threads=threads)
        for name in ["plain"] + sorted(set(changes) - {"plain"}):
            change = changes[name]
            x_, w_ = (make(KIND, array, requires_grad=True) for array in (x, w))
            y = conv2d(change(x_), change(w_), None, *others, op=OPS[op])
            y.backward(change(make("raw" if VARIABLES else KIND, grad)))
            found = [values(t) for t in (y, x_.grad, w_.grad)]
            expected = expected or found
            assert_close(found, expected, "float64", name)


@needs_torch
@pytest.mark.parametrize("op", ["l1", "max_plus", "add", "xnor"])
def test_expanded_operands_and_gradients(setting, op):
    """sum()'s gradient, one number expanded, means ones; expanded operands get the sums of their parts' gradients."""
    x, w, others = arguments(GEOMETRIES["grouped"], "float64")
    needs_kernels(OPS[op], "float64")
    call = lambda x, w: conv2d(x, w, None, *others, op=OPS[op])  # noqa: E731
    ones = np.ones(values(call(make(KIND, x), make(KIND, w))).shape)
    expected = results(call, (x, w), "float64", grad=ones)
    x_, w_ = (make(KIND, array, requires_grad=True) for array in (x, w))
    call(x_, w_).sum().backward()
    assert_close([values(x_.grad), values(w_.grad)], expected[1:], "float64")
    x, w = x[:1, :, :, :1], w[:, :1]
    expand = lambda x, w: (x.expand(3, 6, 7, 6), w.expand(9, 2, 3, 3))  # noqa: E731
    found, expected = (results(lambda x, w: call(*expand(x, w)), (x, w), "float64", path) for path in ("auto", TENSORS))
    assert_close(found, expected, "float64")


SHAPES = [
    ((3, 7), (7, 4)),
    ((7,), (7, 4)),
    ((3, 7), (7,)),
    ((7,), (7,)),
    ((5, 3, 7), (7, 4)),
    ((3, 7), (5, 7, 4)),
    ((5, 3, 7), (5, 7, 4)),
    ((2, 1, 3, 7), (5, 7, 4)),
    ((2, 1, 3, 7), (1, 5, 7, 4)),
    ((1, 3, 7), (2, 5, 7, 4)),
    ((2, 5, 13, 7), (1, 1, 7, 33)),
    ((2, 1, 1, 7), (2, 5, 7, 1)),
]


@pytest.mark.parametrize("op", ["l1", "max_plus", "add", "polynomial"])
def test_matmul_and_linear(setting, op):
    """Every way of broadcasting, and operands that are transposed, with gradients."""
    needs_kernels(OPS[op], "float64")
    random = np.random.RandomState(0)
    calls = [(lambda a, b: matmul(a, b, op=OPS[op]), a, b) for a, b in SHAPES if not VARIABLES or len(a + b) > 2]
    calls += [
        (lambda x, w: linear(x, w, op=OPS[op]), x, w)
        for x, w in itertools.product([(3, 7), (2, 4, 7), (2, 1, 3, 7)], [(7,), (5, 7), (13, 7)])
    ]
    turn = (lambda t: t.transpose(0, 1)) if KIND == "tensor" else np.transpose
    calls += [
        (lambda a, b: matmul(turn(a), turn(b), op=OPS[op]), (33, 14), (9, 33)),
        (lambda a, b: linear(turn(a), turn(b), op=OPS[op]), (33, 14), (33, 9)),
        (lambda a, b: turn(matmul(a, b, op=OPS[op])), (14, 33), (33, 9)),
        (lambda a, b: turn(linear(a, b, op=OPS[op])), (14, 33), (9, 33)),
    ]

    def is_the_tensor_paths(call, a, b):
        operands = random.randn(*a), random.randn(*b)
        for threads in (1, 2):
            setting(threads=threads)
            found, expected = (results(call, operands, "float64", path) for path in ("auto", TENSORS))
            assert_close(found, expected, "float64", "{} threads".format(threads))

    each(is_the_tensor_paths, calls)


# ---------------------------------------------------------------- derivatives, accuracy


@needs_torch
@pytest.mark.parametrize("op", ["l1", "l2", "max_plus", "polynomial", "max", "add", "add-left-out"])
def test_second_derivatives(setting, op):
    """gradcheck holds for the kernels, gradgradcheck through the tensor path, where no engine is forced."""
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck

    needs_kernels(OPS[op], "float64")
    random = np.random.RandomState(3)
    x, w = (make(KIND, random.randn(*shape), requires_grad=True) for shape in ((1, 2, 3, 2), (2, 1, 2, 1)))
    function = lambda x, w: conv2d(x, w, None, (2, 1), (1, 0), 1, 2, op=OPS[op])  # noqa: E731
    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, [x, w] if VARIABLES else (x, w))


@needs_torch
@pytest.mark.parametrize(
    "op,along",
    # Max adds nothing up along taps; along filters, and with an own add, the order isn't ours to choose.
    [(op, along) for op in ("sum", "max_plus", "add") for along in ("positions", "images")]
    + [("sum", "taps"), ("sum", "filters")],
)
def test_long_sums_are_accurate(setting, along, op):
    """200,000 numbers added up, in a result or in a gradient, are as close to the exact sum as torch's, or nearly."""
    count = 200000
    own = {
        "sum": lambda w, x: w * x + (w - w),  # a product would be PyTorch's
        "max_plus": "max_plus",
        "add": Op(operator.mul, lambda acc, term: acc + term),
    }[op]
    needs_kernels(own, "float32")
    numbers = np.random.RandomState(0).rand(count).astype("float32")
    one, many = make(KIND, np.ones((1, 1)), "float32", True), make(KIND, np.ones((count, 1)), "float32", True)
    terms = make("raw" if VARIABLES else KIND, numbers, "float32")
    if along == "taps":
        found = matmul(make(KIND, np.ones((1, count)), "float32"), make(KIND, numbers[:, None], "float32"), op=own)
    elif along == "positions":
        linear(many, one, op=own).backward(terms.view(count, 1))
        found = one.grad
    elif along == "images":
        conv2d(many.view(count // 4, 1, 2, 2), one.view(1, 1, 1, 1), op=own).backward(terms.view(count // 4, 1, 2, 2))
        found = one.grad
    else:
        linear(one, many, op=own).backward(terms.view(1, count))
        found = one.grad
    exact = numbers.astype("float64").sum()
    theirs = abs(float(values(make(KIND, numbers, "float32").sum()).sum()) - exact) / exact
    assert abs(float(values(found).sum()) - exact) / exact < max(4 * theirs, 1e-6)


# ---------------------------------------------------------------- memory

# In a process of its own. Writing 5 there resets the peak; a child's ru_maxrss would start at its parent's.
MEASURE = """
import operator
import os
import sys
import numpy as np
import im2col_compat as ic
from im2col_compat.compat.probes import VARIABLES, torch
if torch is not None:
    torch.set_num_threads(2)

def status(field):
    with open("/proc/self/status") as lines:
        return [int(line.split()[1]) * 1024 for line in lines if line.startswith(field)][0]

def reset():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmRSS")

def make(*shape):
    array = np.random.RandomState(0).rand(*shape).astype("float32")
    return array if torch is None else torch.autograd.Variable(torch.from_numpy(array), requires_grad=True)

def size(t):
    return 4 * int(np.prod([int(n) for n in t.shape]))

def conv2d(x, w):
    return ic.conv2d(x, w, padding=1, op=op)

def linear(x, w):
    return ic.linear(x, w, op=op)

own_add = ic.Op(operator.mul, lambda acc, term: acc * 0.5 + term)
for op, call, x, w in [{cases}]:
    y = conv2d(make(2, 2, 6, 6), make(3, 2, 3, 3))  # loads what is loaded once
    if torch is not None:
        y.sum().backward()
    x, w = make(*x), make(*w)
    before = reset()
    y = call(x, w)
    print(status("VmHWM") - before - size(y))
    if torch is not None:
        before = reset()
        # sum()'s gradient is expanded; linear's is copied. 0.3 copies what a leaf gets.
        y.sum().backward()
        gradients = (size(x) + size(w)) * (2 if VARIABLES else 1)
        print(status("VmHWM") - before - gradients - (call is linear) * size(y))
    del x, w, y

# A thread of old PyTorch's that still frees a Python Function while the interpreter ends aborts the process.
sys.stdout.flush()
os._exit(0)
"""


LARGE = {
    "sums": [
        "'l1', linear, (4, 4096), (8192, 4096)",
        "'l1', linear, (32, 100000), (33, 100000)",
        "'l1', conv2d, (1, 12000, 4, 4), (13, 12000, 3, 3)",
        "'xnor', conv2d, (1, 12000, 3, 3), (13, 12000, 3, 3)",
        "'adder', conv2d, (1, 4, 40, 40), (3000, 4, 3, 3)",
        "'l2', conv2d, (1, 2, 1500, 1500), (2, 2, 3, 3)",
    ],
    "extrema": [
        "'max_plus', linear, (4, 4096), (8192, 4096)",
        "'max_plus', conv2d, (1, 12000, 3, 3), (3, 12000, 3, 3)",
        "'min_plus', conv2d, (1, 1, 30, 30), (3000, 1, 3, 3)",
        "'max_plus', conv2d, (1, 2, 1500, 1500), (2, 2, 3, 3)",
    ],
    "own-add": [
        "own_add, conv2d, (1, 1, 60, 60), (3000, 1, 3, 3)",
        "own_add, conv2d, (1, 3600, 3, 3), (2, 3600, 3, 3)",
    ],
}


@pytest.fixture(scope="module")
def extra_memory():
    """What each of LARGE takes beside its results and gradients, by their names, in MiB."""
    environment = dict(os.environ, OMP_NUM_THREADS="2", IM2COL_COMPAT_QUIET="1")
    # What is freed is gone, however large what was freed before it.
    environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
    environment.pop("IM2COL_COMPAT_ISA", None)
    code = MEASURE.format(cases=", ".join("({})".format(case) for name in sorted(LARGE) for case in LARGE[name]))
    output = subprocess.check_output([sys.executable, "-c", code], cwd="/", env=environment).decode().split()
    each_has, found = 1 if torch is None else 2, {}
    for name in sorted(LARGE):
        found[name] = [round(float(number) / 2**20, 1) for number in output[: len(LARGE[name]) * each_has]]
        del output[: len(found[name])]
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
@pytest.mark.parametrize("name", sorted(LARGE))
def test_memory(extra_memory, name):
    """Beside results and gradients, two threads take at most 16 MiB each, whatever is large."""
    extra = extra_memory[name]
    assert len(extra) == len(LARGE[name]) * (1 if torch is None else 2)
    assert max(extra) <= 2 * 16 + 4, extra


# ---------------------------------------------------------------- processes, signals


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_compute(setting):
    """A forked child computes what its parent did, with one and two threads, and ends."""
    setting(threads=2)
    expected = convolved(GEOMETRIES["plain"], "l1", "float32")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            same = True
            for threads in (1, 2):
                setting(threads=threads)
                # Not backward(): PyTorch's own autograd doesn't survive forks.
                x, w, others = arguments(GEOMETRIES["plain"], "float32")
                found = conv2d(make(KIND, x), make(KIND, w), None, *others, op="l1")
                same = same and (values(found) == expected[0]).all()
            code = 0 if same else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


INTERRUPTED = """
import signal, sys, time
import numpy as np
import im2col_compat as ic
from im2col_compat.compat.probes import VARIABLES, torch
x, w = np.zeros((300, 64, 64, 64), "float32"), np.zeros((64, 64, 3, 3), "float32")
if torch is not None:
    x, w = (torch.autograd.Variable(torch.from_numpy(t)) for t in (x, w))
# A shell's background job, and its children, ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
ic.conv2d(x[:1], w, op="l1")
sys.stdout.write("started\\n")
sys.stdout.flush()
try:
    for _ in range(100):
        ic.conv2d(x, w, op="l1")
except KeyboardInterrupt:
    sys.stdout.write("interrupted %r\\n" % time.time())
ic.conv2d(x[:1], w, op="l1")
sys.stdout.write("works\\n")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_interrupts():
    """Ctrl-C gets through to a long call, soon, and the next call works."""
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], cwd="/", stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline().strip() == b"started"
        time.sleep(0.5)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        output = child.communicate()[0].decode().split()
    finally:
        if child.poll() is None:
            child.kill()
    assert output[0] == "interrupted" and output[2] == "works" and child.returncode == 0
    assert float(output[1]) - sent < 3


@pytest.mark.parametrize("op", ["l1", "xnor", "max_plus"])
@pytest.mark.parametrize("function", ["linear", "conv2d", "matmul"])
def test_long_calls_come_back_to_python(function, op, monkeypatch):
    """One image, or many rows of features, take several calls of C, between which Ctrl-C gets through; the result and the
    gradients are the same to the bit."""
    functions = {"linear": linear, "conv2d": conv2d, "matmul": matmul}
    shapes = {
        "linear": ((1500, 40), (30, 40)),
        "matmul": ((30, 40), (40, 1500)),
        "conv2d": ((1, 3, 40, 50), (8, 3, 3, 3)),
    }
    operands = [make(KIND, np.random.RandomState(0).randn(*shape).astype("float32")) for shape in shapes[function]]

    def results():
        calls.append(0)
        found = [functions[function](*operands, op=op)]
        if torch is not None:
            leaves = [make(KIND, values(t), requires_grad=True) for t in operands]
            found += torch.autograd.grad(functions[function](*leaves, op=op).sum(), leaves)
        return [values(t) for t in found]

    dot, calls = lowlevel.dot, []

    def counting(*arguments):
        calls[-1] += 1
        return dot(*arguments)

    monkeypatch.setattr(lowlevel, "dot", counting)
    whole = results()
    monkeypatch.setattr(fused, "STEP", 10**4)
    monkeypatch.setattr(fused, "LEAST", 0)
    for one, other in zip(whole, results()):
        np.testing.assert_array_equal(one, other)
    assert calls[1] >= calls[0] + 2


@pytest.mark.parametrize("threads", ["0", "-3", "1", "2", "1000", "none", ""])
def test_odd_numbers_of_threads(threads):
    """Whatever OMP_NUM_THREADS says, there is a result without torch, which has a number of its own."""
    code = (
        "import sys; sys.modules['torch'] = None; import numpy as np, im2col_compat as ic;"
        "print(ic.conv2d(np.ones((3, 8, 40, 40)), np.zeros((8, 8, 3, 3)), op='l1').sum())"
    )
    environment = dict(os.environ, OMP_NUM_THREADS=threads)
    output = subprocess.check_output([sys.executable, "-c", code], cwd="/", env=environment)
    assert float(output) == 3 * 8 * 38 * 38 * 72


# ---------------------------------------------------------------- nothing at all


@needs_torch
@pytest.mark.skipif(VARIABLES, reason="torch 0.3 has no empty tensors")
def test_empty_operands(setting):
    """Empty batches, no taps, no filters: as on the tensor path, gradients included, or the same error."""
    calls = [
        (linear, (0, 4), (3, 4)),
        (linear, (3, 0), (2, 0)),
        (matmul, (2, 0), (0, 3)),
        (matmul, (2, 3, 4), (2, 4, 0)),
    ]
    calls += [
        (conv2d, (0, 2, 5, 5), (3, 2, 3, 3)),
        (conv2d, (1, 2, 5, 5), (0, 2, 3, 3)),
        (conv2d, (1, 0, 5, 5), (2, 0, 3, 3)),
    ]

    def is_the_tensor_paths(op, function, a, b):
        outcomes = []
        for path in ("auto", TENSORS):
            try:
                outcomes.append(
                    results(lambda x, w: function(x, w, op=OPS[op]), (np.zeros(a), np.zeros(b)), "float64", path)
                )
            except Exception as error:
                outcomes.append(type(error))
        if isinstance(outcomes[0], type) or isinstance(outcomes[1], type):
            assert outcomes[0] is outcomes[1]
        else:
            assert_close(outcomes[0], outcomes[1], "float64")

    each(is_the_tensor_paths, [(op,) + call for op, call in itertools.product(["l1", "max_plus", "add"], calls)])
