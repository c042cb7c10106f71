"""Products of terms, and logarithms of sums of their exponentials: against loops, and against PyTorch's own."""

import itertools
import operator
import pickle

import numpy as np
import pytest
from helpers import oracle, processes
from helpers.cases import each
from helpers.settings import CONVOLVE, KIND, LEVELS, needs_library, needs_torch, setting
from helpers.tensors import INTEGERS, KINDS, VARIABLES, dtype_of, has, make, torch, values
from hypothesis import given, settings
from hypothesis import strategies as st

from im2col_compat import Op, conv2d, linear, matmul, use_backend
from im2col_compat.compat.arrays import NUMPY, TORCH
from im2col_compat.op import resolve
from im2col_compat.paths import choose

INF, NAN = float("inf"), float("nan")
WORDS = ["prod", "logsumexp"]
#: With today's functions to compare with, torch.logsumexp and gradients of torch.prod at zeros, and second ones.
needs_current_torch = pytest.mark.skipif(VARIABLES or not hasattr(torch, "nan_to_num"), reason="needs a torch of today")
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def near_one(w, x):
    return 1 + w * x * 0.125


def plus(w, x):
    return w + x


#: (op, multiply, add, start): the last three for the oracle.
OPS = {
    "prod": (Op(near_one, "prod"), near_one, np.multiply, 1),
    "prod-left-out": (Op(plus, "prod", pad_value=None), plus, np.multiply, 1),
    "logsumexp": (Op(plus, "logsumexp", pad_value=-1.5), plus, np.logaddexp, -INF),
    "logsumexp-left-out": (Op(near_one, "logsumexp", pad_value=None), near_one, np.logaddexp, -INF),
    "logsumexp-infinite": (Op(plus, "logsumexp", pad_value=-INF), plus, np.logaddexp, -INF),
}
PATHS = ["kernels", "tensor operations"]


@pytest.fixture(params=PATHS)
def path(request):
    if request.param == "kernels":
        if choose.kernels_for(OPS["prod"][0], "float64", NUMPY if KIND == "numpy" else TORCH)[0] is None:
            pytest.skip("there are no kernels here")
        yield request.param
    else:
        with use_backend("slices"):
            yield request.param


@st.composite
def convolutions(draw):
    """(shapes of x and w, stride, pads, dilation, groups) of up to three dimensions."""
    dims = draw(st.sampled_from([1, 2, 2, 3]))
    each_dim = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))  # noqa: E731
    kernel, dilation, stride = each_dim(1, 4 if dims < 3 else 2), each_dim(1, 3), each_dim(1, 3)
    pads = tuple(zip(each_dim(0, 3), each_dim(0, 3)))
    least = [max(1, (k - 1) * d + 1 - sum(p)) for k, d, p in zip(kernel, dilation, pads)]
    image = tuple(draw(st.integers(size, size + (30 if dims == 1 else 6))) for size in least)
    groups, channels, filters = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 7))
    shapes = (draw(st.integers(1, 3)), groups * channels) + image, (groups * filters, channels) + kernel
    return shapes + (stride, pads, dilation, groups)


#: Each dtype and each instruction set, without all pairs, as compilations take most of the time.
TARGETS = [("float64", LEVELS[0]), ("float32", LEVELS[-1])]


@given(convolutions(), st.sampled_from(sorted(OPS)), st.sampled_from(TARGETS), st.integers(0, 2**31 - 1))
@settings(max_examples=60, deadline=None)
def test_convolutions_are_loops(problem, op, target, seed):
    """Results are the loops', on every kind of array, instruction set and path, and for any number of threads."""
    x_shape, w_shape, stride, pads, dilation, groups = problem
    dtype, isa = target
    given_op, multiply, add, start = OPS[op]
    random = np.random.RandomState(seed)
    x, w = [random.randn(*shape).astype(dtype) for shape in (x_shape, w_shape)]
    kind = KINDS[seed % len(KINDS)]
    terms, inside = oracle.terms(
        x.astype("float64"), w.astype("float64"), multiply, given_op.pad_value, stride, pads, dilation, groups
    )
    expected = oracle.reduced(terms, inside, add, start)
    pads = pads if any(p != q for p, q in pads) else tuple(p for p, _ in pads)

    def found():
        call = CONVOLVE[len(stride)]
        result = call(make(kind, x, dtype), make(kind, w, dtype), None, stride, pads, dilation, groups, op=given_op)
        assert dtype_of(result) == dtype
        return values(result).reshape(expected.shape)

    with setting(isa, 1 + seed % 3):
        np.testing.assert_allclose(found(), expected, TOLERANCE[dtype], TOLERANCE[dtype])
    if seed % 3 == 0:
        with use_backend("slices"):
            np.testing.assert_allclose(found(), expected, TOLERANCE[dtype], TOLERANCE[dtype])


# ---------------------------------------------------------------- gradients
def gradients(call, operands, grad, dtype="float64"):
    """(result, gradients) of call(w, x), for a gradient given as an array or by a function of the result."""
    tensors = [make("tensor", array, dtype, requires_grad=True) for array in operands]
    y = call(*tensors)
    grad = grad(values(y)) if callable(grad) else grad
    y.backward(make("raw" if VARIABLES else "tensor", grad, dtype))
    return [values(y)] + [values(tensor.grad) for tensor in tensors]


def by_hand(add, w, x, multiply, grad, dtype="float64"):
    """What torch's own reduction makes of all terms at once, and the gradients: linear's w (O, K) and x (N, K)."""

    def call(w, x):
        terms = multiply(w.unsqueeze(0), x.unsqueeze(1))
        return terms.prod(2) if add == "prod" else torch.logsumexp(terms, 2)

    return gradients(call, (w, x), grad, dtype)


@needs_current_torch
@pytest.mark.parametrize("add", WORDS)
def test_gradients_are_those_of_torch(path, add):
    """Tiles, panels and blocks of every size, in every instruction set, for float and double."""

    op = OPS["prod" if add == "prod" else "logsumexp"][0]

    def are_those(rows, filters, taps, dtype, isa):
        random = np.random.RandomState(taps)
        w, x, grad = random.rand(filters, taps), random.rand(rows, taps) * 3, random.randn(rows, filters)
        with setting(isa, 2):
            found = gradients(lambda w, x: linear(x, w, op=op), (w, x), grad, dtype)
        for our, their in zip(found, by_hand(add, w, x, op.multiply, grad)):
            np.testing.assert_allclose(our, their, 1e-4 if dtype == "float32" else 1e-11, abs(their).max() * 1e-6)

    sizes = [(1, 1, 1), (5, 3, 2), (40, 13, 9), (70, 30, 33), (3, 2, 600), (600, 5, 7)]
    each(are_those, [size + target for size in sizes for target in TARGETS])


#: Rows of terms.
SPECIAL = {
    "prod": [
        [2, 3, 5, 7],
        [2, 0, 5, 7],
        [0, 3, 0, 7],
        [0, 0, 0, 0],
        [-2, -0.0, 5, 1],
        [2, INF, 5, 7],
        [-INF, 3, INF, 1],
        [2, NAN, 5, 1],
    ],
    "logsumexp": [
        [1, 2, 3, 4],
        [-INF, 1, 2, 3],
        [-INF, -INF, -INF, -INF],
        [INF, 1, 2, 3],
        [INF, -INF, 5, INF],
        [NAN, 1, 2, 3],
        [NAN, INF, 2, -INF],
        [NAN, -INF, -INF, -INF],
        [1e38, -1e38, 0, 1],
        [1e38, 1e38, 1, 2],
        [-1e38, -1e38, -1e38, -1e38],
        [1024, 1024.5, -1000, 999],
        [-1024, -1025, -1026, -5000],
        [0, -750, -700, -720],
    ],
}


@needs_current_torch
@pytest.mark.parametrize("add", WORDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_infinities_and_nan(path, add, dtype):
    """Each row gives what PyTorch's function gives for this dtype, and its gradient."""
    op = OPS["prod-left-out" if add == "prod" else "logsumexp"][0]

    def is_torchs(*row):
        x, w = np.array([row]), np.zeros((1, len(row)))
        expected = by_hand(add, w, x, op.multiply, np.array([[2.0]]), dtype)
        found = gradients(lambda w, x: linear(x, w, op=op), (w, x), np.array([[2.0]]), dtype)
        for our, their in zip(found, expected):
            np.testing.assert_allclose(our, their, 1e-6, 1e-30)

    each(is_torchs, [tuple(row) for row in SPECIAL[add]])


@needs_torch
def test_products_that_vanish_keep_their_gradients():
    """Where all terms are numbers but their product isn't, the others' product still is one."""
    if choose.kernels_for(OPS["prod"][0], "float64", TORCH)[0] is None:
        pytest.skip("there are no kernels here")
    x = np.array([[1e-200, 1e-200, 1e300, 3], [1e-310, 1, 3, 5]])
    call = lambda w, x: linear(x, w, op=OPS["prod-left-out"][0])  # noqa: E731
    _, _, dx = gradients(call, (np.zeros((1, 4)), x), np.ones((2, 1)))
    np.testing.assert_allclose(dx, [[3e100, 3e100, 0, 0], [15, 1.5e-309, 5e-310, 3e-310]], 1e-9, 1e-320)


@needs_torch
def test_gradient_of_a_product_goes_to_its_one_zero(path):
    """The others' product reaches the only zero; two zeros have nothing to get. In every block of positions."""
    op = OPS["prod-left-out"][0]
    x = np.full((70, 5), 2.0)
    x[::3, 1] = 0
    x[::6, 4] = 0
    _, dw, dx = gradients(lambda w, x: linear(x, w, op=op), (np.zeros((3, 5)), x), np.ones((70, 3)))
    expected = np.zeros((70, 5))
    for row in range(70):
        for k in range(5):
            expected[row, k] = 3 * np.prod(np.delete(x[row], k))
    np.testing.assert_array_equal(dx, expected)
    np.testing.assert_array_equal(dw, np.tile(expected.sum(0) / 3, (3, 1)))


@needs_torch
@pytest.mark.parametrize("op,zeros", [(op, 0) for op in sorted(OPS)] + [("prod-left-out", 1), ("prod-left-out", 2)])
def test_second_derivatives(path, op, zeros):
    """gradcheck and gradgradcheck, also of products with zeros."""
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck

    if VARIABLES and op.startswith("prod"):
        pytest.skip("0.3 has no second derivative of prod")
    random = np.random.RandomState(5)
    x, w = [random.randn(*shape) for shape in ((1, 2, 3, 2), (2, 1, 2, 2))]
    for i in range(zeros):
        w[0, 0, i, 0] = -x[0, 0, 1 + i, 0]
    x, w = [make("tensor", array, requires_grad=True) for array in (x, w)]
    function = lambda x, w: conv2d(x, w, None, 1, (1, 1), 1, 2, op=OPS[op][0])  # noqa: E731
    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, [x, w] if VARIABLES else (x, w))


@needs_current_torch
@pytest.mark.parametrize("op", sorted(OPS))
def test_kernels_and_tensor_operations_agree(op):
    """Gradients of convolutions: left-out taps, strides, groups, and gradients that lie in memory in several ways."""
    given_op = OPS[op][0]
    random = np.random.RandomState(0)
    x, w = random.rand(2, 6, 9, 20), random.rand(8, 3, 3, 2)
    grads = {
        "dense": lambda y: torch.from_numpy(random.randn(*y.shape)).type_as(y),
        "one number": lambda y: torch.full((), 0.5).type_as(y).expand(y.shape),
        "transposed": lambda y: torch.from_numpy(random.randn(*y.shape[::-1])).type_as(y).permute(3, 2, 1, 0),
    }

    def agree(name, isa, dtype):
        found, tensors = [], []
        for engine in ("auto", "slices"):
            tensors = [make("tensor", array, dtype, requires_grad=True) for array in (w, x)]
            with setting(isa, 2), use_backend(engine):
                y = conv2d(tensors[1], tensors[0], None, (2, 1), 1, (1, 2), 2, op=given_op)
                random.seed(1)
                y.backward(grads[name](y))
            found.append([values(y)] + [values(tensor.grad) for tensor in tensors])
        for ours, theirs in zip(*found):
            np.testing.assert_allclose(ours, theirs, 30 * TOLERANCE[dtype], 30 * TOLERANCE[dtype])

    each(agree, [(name, isa, dtype) for name in sorted(grads) for dtype, isa in TARGETS])


@needs_torch
def test_a_bias_leaves_what_the_gradient_needs():
    """Gradients need the result, to which a bias would be added."""
    for add in WORDS:
        op = OPS["prod" if add == "prod" else "logsumexp"][0]
        random = np.random.RandomState(0)
        x, w, b = [random.randn(*shape) for shape in ((1, 2, 4, 4), (3, 2, 2, 2), (3,))]
        grad = random.randn(1, 3, 3, 3)
        plain = gradients(lambda w, x: conv2d(x, w, op=op), (w, x), grad)
        bias = make("tensor", b, requires_grad=True)
        found = gradients(lambda w, x: conv2d(x, w, bias, op=op), (w, x), grad)
        np.testing.assert_array_equal(found[0], plain[0] + b.reshape(3, 1, 1))
        for our, their in zip(found[1:], plain[1:]):
            np.testing.assert_array_equal(our, their)
        np.testing.assert_allclose(values(bias.grad), grad.sum((0, 2, 3)))


# ---------------------------------------------------------------- dtypes, accuracy, memory
@pytest.mark.parametrize("kind,dtype", [(kind, d) for kind in KINDS if kind != "raw" for d in INTEGERS if has(kind, d)])
def test_products_of_integers_wrap_in_int64(path, kind, dtype):
    """As NumPy's and PyTorch's do; terms wrap in the operands' dtype."""
    if path != "kernels" and kind == "tensor" and dtype in ("uint16", "uint32", "uint64"):
        pytest.skip("PyTorch doesn't multiply these")
    info, random = np.iinfo(dtype), np.random.RandomState(0)
    x = random.randint(1, 100, (30, 11)).astype(dtype)
    w = np.array([[3] * 11, [int(info.max)] * 11, list(range(11))], object).astype(dtype)
    op = Op(lambda w, x: w * x + x, "prod")
    found = linear(make(kind, x, dtype), make(kind, w, dtype), op=op)
    assert dtype_of(found) == "int64"
    for row, o in itertools.product(range(30), range(3)):
        expected = 1
        for k in range(11):
            term = int(w[o, k]) * int(x[row, k]) + int(x[row, k]) - int(info.min)
            expected *= term % (1 << 8 * np.dtype(dtype).itemsize) + int(info.min)
        assert values(found)[row, o] == (expected + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("kind", KINDS)
def test_logsumexp_takes_no_integers(path, kind):
    """There is no logarithm in integers, and a result of floats wouldn't be of the operands' dtype."""
    op = Op(plus, "logsumexp")
    x, w, matrix = [make(kind, np.ones(shape), "int64") for shape in ((1, 1, 3, 3), (2, 1, 2, 2), (4, 3))]
    for call in (
        lambda: conv2d(x, w, op=op),
        lambda: linear(x[0, 0], matrix, op=op),
        lambda: matmul(matrix, x[0, 0], op=op),
    ):
        with pytest.raises(TypeError, match="logsumexp.*floats.*int64"):
            call()


@needs_torch
@pytest.mark.parametrize("add", WORDS)
def test_halves_are_reduced_in_float32(add):
    """One rounding, not one a term."""
    for dtype in ("float16", "bfloat16"):
        if not has("tensor", dtype) or VARIABLES or not hasattr(torch, "nan_to_num"):
            continue
        x = 1 + np.random.RandomState(0).rand(4, 300) / 256
        found = linear(make("tensor", x, dtype), make("tensor", np.ones((1, 300)), dtype), op=Op(operator.mul, add))
        terms = values(make("tensor", x, dtype)).astype("float64")
        expected = np.prod(terms, 1) if add == "prod" else np.logaddexp.reduce(terms, 1)
        assert dtype_of(found) == dtype
        np.testing.assert_allclose(values(found)[:, 0], expected, 2.0**-8 if dtype == "bfloat16" else 2.0**-11)


def test_long_ones_are_accurate(path):
    """20,000 terms, in many blocks, of which each is measured by its own greatest."""
    random = np.random.RandomState(0)
    for offset in (0, 1000, -1000):
        x = (random.rand(3, 20000) * 20 + offset).astype("float32")
        found = values(
            linear(make(KIND, x, "float32"), make(KIND, np.zeros((2, 20000)), "float32"), op=OPS["logsumexp"][0])
        )
        exact = np.logaddexp.reduce(x.astype("float64"), 1)
        np.testing.assert_allclose(found[:, 1], exact, 0, 3e-6 * max(abs(offset), 10) / 10)


@needs_torch
def test_memory_is_that_of_results():
    """A broadcast of the terms would take 400 MB."""
    code = """
import resource
import torch
from im2col_compat import Op, linear
op = Op(lambda w, x: w + x, "ADD")
small = torch.rand(2, 4, requires_grad=True)
linear(small, small, op=op).sum().backward()
x, w = [torch.rand(rows, 500, requires_grad=True) for rows in (1000, 200)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
linear(x, w, op=op).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    if choose.kernels_for(OPS["prod"][0], "float32", TORCH)[0] is None or VARIABLES:
        pytest.skip("there are no kernels here, or their memory can't be told")
    for add in WORDS:
        assert int(processes.run(code.replace("ADD", add))[0]) < 40


# ---------------------------------------------------------------- ops
@needs_library
def test_c_texts_take_the_words():
    """Op.from_c has the same two, with gradients."""
    if choose.kernels_for(OPS["prod"][0], "float64", NUMPY if KIND == "numpy" else TORCH)[0] is None:
        pytest.skip("there is no compiler here")
    random = np.random.RandomState(0)
    x, w = random.rand(30, 8), random.rand(5, 8)
    for add, expected in (
        ("prod", lambda terms: np.prod(terms, 2)),
        ("logsumexp", lambda t: np.logaddexp.reduce(t, 2)),
    ):
        op = Op.from_c("w + x * w", add, grad_w="1 + x", grad_x="w")
        assert op.add == add
        terms = w[None] + x[:, None] * w[None]
        found = linear(make(KIND, x), make(KIND, w), op=op)
        np.testing.assert_allclose(values(found), expected(terms), 1e-12)
        if torch is not None:
            call = lambda w, x, op=op: linear(x, w, op=op)  # noqa: E731
            pair = [gradients(call, (w, x), np.ones((30, 5)))]
            call = lambda w, x, add=add: linear(x, w, op=Op(lambda w, x: w + x * w, add))  # noqa: E731
            pair.append(gradients(call, (w, x), np.ones((30, 5))))
            for our, their in zip(*pair):
                np.testing.assert_allclose(our, their, 1e-12)
        whole = np.array([[2, 3], [4, 5]])
        if add == "prod":
            np.testing.assert_array_equal(matmul(whole, whole, op=Op.from_c("w - x", add)), [[0, 2], [2, 0]])


@needs_library
def test_no_functions_of_vectors_are_needed():
    """logsumexp has its own exp and log."""
    if choose.kernels_for(OPS["prod"][0], "float64", NUMPY if KIND == "numpy" else TORCH)[0] is None:
        pytest.skip("there is no compiler here")
    op = Op(lambda w, x: w - 2 * x, "logsumexp")
    x, w = np.random.RandomState(0).randn(9, 40), np.random.RandomState(1).randn(3, 40)
    assert choose.kernels_for(op, "float64", NUMPY)[0] is not None
    expected = np.logaddexp.reduce(w[None] - 2 * x[:, None], 2)
    np.testing.assert_allclose(linear(x, w, op=op), expected, 1e-12)


def test_words_are_known():
    """Errors list them, repr and pickles have them, and there is no identity to give."""
    for add in WORDS:
        with pytest.raises(ValueError, match="identity is for an add function; '{}'".format(add)):
            Op(plus, add, identity=1)
        assert repr(Op(plus, add)) == "Op(plus, add='{}')".format(add)
        assert pickle.loads(pickle.dumps(Op(plus, add), 2)).add == add
        assert resolve("l1").replace(add=add).reduction is Op(plus, add).reduction
        with pytest.raises(ValueError, match=add):
            Op(plus, "mean")


def test_of_no_terms(path):
    """No feature at all, and windows of left-out padding alone."""
    for op, nothing in (("prod-left-out", 1), ("logsumexp-left-out", -INF)):
        none = linear(np.ones((2, 0)), np.ones((3, 0)), op=OPS[op][0])
        np.testing.assert_array_equal(none, np.full((2, 3), nothing))
        x, w = make(KIND, np.full((1, 1, 1, 1), 2.0)), make(KIND, np.ones((1, 1, 1, 1)))
        found = values(conv2d(x, w, padding=1, op=OPS[op][0]))
        assert found[0, 0, 0, 0] == nothing and found[0, 0, 1, 1] != nothing
