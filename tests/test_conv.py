"""conv2d, linear and matmul: every op against nested loops, and w * x against PyTorch."""

import operator

import numpy as np
import pytest
from helpers import oracle, problems
from helpers.cases import each
from helpers.ops import INF, OPS
from helpers.settings import CONVOLVE
from helpers.tensors import KINDS, VARIABLES, dtype_of, kind_of, make, some, torch, values

from im2col_compat import Op, available_backends, conv1d, conv2d, linear, matmul, ops, use_backend
from im2col_compat import chunks

_expected = {}  # for all kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", sorted(OPS))
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_convolutions_are_the_nested_loop(kind, op, problem):
    """Every op on every geometry is its definition, with a bias that is simply added."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    given, multiply, add, start, pad = OPS[op]
    x, w = some(shape, seed=1) / 4, some((filters, shape[1] // groups) + kernel, seed=2) / 4
    b = some((filters,), seed=3)
    dims, conv = len(kernel), CONVOLVE[len(kernel)]
    sides = problems.pads(padding, kernel, dilation)
    if (op, problem) not in _expected:
        _expected[op, problem] = oracle.conv(
            x, w, multiply, add, start, pad, oracle.each(stride, dims), sides, oracle.each(dilation, dims), groups
        ).astype(float)
    expected = _expected[op, problem]
    x_, w_, b_ = (make(kind, array) for array in (x, w, b))
    found = conv(x_, w_, b_, stride, padding, dilation, groups, op=given)
    assert kind_of(found) == kind and dtype_of(found) == "float64"
    np.testing.assert_allclose(values(found), expected + b.reshape((-1,) + (1,) * dims), rtol=1e-12)
    unbatched = conv(x_[0], w_, None, stride, padding, dilation, groups, op=given)
    np.testing.assert_allclose(values(unbatched), expected[0], rtol=1e-12)


@pytest.mark.parametrize("op", sorted(OPS))
def test_every_engine_feeds_every_op(engine, op):
    """The columns of a forced engine give what the default gives, "dot" included."""
    kind = "tensor" if engine == "torch" else KINDS[-1]

    def is_the_defaults(problem):
        shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
        x = make(kind, some(shape, seed=1))
        w = make(kind, some((filters, shape[1] // groups) + kernel, seed=2))
        conv = CONVOLVE[len(kernel)]
        found = conv(x, w, None, stride, padding, dilation, groups, op=OPS[op][0])
        with use_backend("auto"):
            expected = conv(x, w, None, stride, padding, dilation, groups, op=OPS[op][0])
        np.testing.assert_array_equal(values(found), values(expected))

    each(is_the_defaults, ["asymmetric", "line-grouped", "volume-asymmetric"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", sorted(OPS))
def test_linear_and_matmul_are_the_nested_loop(kind, op):
    """linear(x, W)[o] adds multiply(W[o, k], x[k]); matmul(a, b) multiplies a[m, k] by b[k, n]: the weight comes first."""
    given, multiply, add, start, _ = OPS[op]
    a, b = some((3, 7), seed=1) / 4, some((7, 4), seed=2) / 4
    expected = oracle.matmul(a, b, multiply, add, start).astype(float)
    found = matmul(make(kind, a), make(kind, b), op=given)
    assert kind_of(found) == kind
    np.testing.assert_allclose(values(found), expected, rtol=1e-12)
    bias = some((3,), seed=3)
    found = linear(make(kind, b.T), make(kind, a), make(kind, bias), op=given)
    np.testing.assert_allclose(values(found), expected.T + bias, rtol=1e-12)


SHAPES = [
    ((3, 7), (7, 4)),
    ((7,), (7, 4)),
    ((3, 7), (7,)),
    ((2, 3, 7), (7, 4)),
    ((3, 7), (2, 7, 4)),
    ((2, 1, 3, 7), (5, 7, 4)),
    ((7,), (2, 7, 4)),
    ((2, 3, 7), (7,)),
    ((7,), (7,)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", ["dot", lambda w, x: w * x], ids=["dot", "lambda"])
@pytest.mark.parametrize("a,b", SHAPES)
def test_matmul_broadcasts_as_torch_does(kind, a, b, op):
    """Leading dimensions broadcast, and operands of one dimension lose theirs, exactly as in NumPy's matmul."""
    x, y = some(a, seed=1), some(b, seed=2)
    expected = np.matmul(x, y)
    found = matmul(make(kind, x), make(kind, y), op=op)
    if VARIABLES and kind != "numpy" and not expected.shape:
        expected = expected.reshape(1)  # 0.3 has no zero-dimensional tensors
        found = found if op != "dot" else make(kind, np.asarray([found if kind == "raw" else values(found)[0]]))
    assert tuple(found.shape) == expected.shape
    np.testing.assert_array_equal(values(found), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("x", [(7,), (3, 7), (2, 1, 3, 7)])
@pytest.mark.parametrize("w", [(4, 7), (7,)])
def test_linear_takes_any_leading_dimensions(kind, x, w):
    """(..., K) by (O, K) is (..., O); a weight (K,) leaves (...)."""
    x_, w_ = some(x, seed=1), some(w, seed=2)
    expected = np.matmul(x_, w_.T)
    found = linear(make(kind, x_), make(kind, w_), op=lambda w, x: w * x)
    if VARIABLES and kind != "numpy" and not expected.shape:
        expected = expected.reshape(1)
    assert tuple(found.shape) == expected.shape
    np.testing.assert_array_equal(values(found), expected)


def test_empty_batches_and_reductions():
    """No images give no results; no terms give the op's identity, or an error where it has none."""
    assert conv2d(np.zeros((0, 2, 5, 5)), np.zeros((3, 2, 3, 3)), op="l1").shape == (0, 3, 3, 3)
    assert linear(np.zeros((0, 4)), np.zeros((3, 4)), op="l1").shape == (0, 3)
    assert (matmul(np.zeros((2, 0)), np.zeros((0, 3)), op="l1") == np.zeros((2, 3))).all()
    assert (matmul(np.zeros((2, 0)), np.zeros((0, 3)), op="max_plus") == -INF).all()
    add = Op(operator.mul, lambda acc, term: acc + term, identity=5)
    assert (matmul(np.zeros((2, 0)), np.zeros((0, 3)), op=add) == 5).all()
    with pytest.raises(RuntimeError) as info:
        matmul(np.zeros((2, 0)), np.zeros((0, 3)), op=Op(operator.mul, lambda acc, term: acc + term))
    assert "identity" in str(info.value)


def test_windows_of_padding_alone():
    """Where padded taps are left out, a window without any is the identity of the add, or an error where there is none."""
    x, w = np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    assert conv2d(x, w, padding=1, op="xnor")[0, 0, 0].tolist() == [0, 0, 0, 0]
    skipping = Op(operator.add, "max", pad_value=None)
    assert conv2d(x, w, padding=1, op=skipping)[0, 0, 0].tolist() == [-INF] * 4
    lowest = np.iinfo("int16").min
    integers = conv2d(x.astype("int16"), w.astype("int16"), padding=1, op="max_plus")
    assert integers.dtype == "int16" and integers[0, 0].tolist()[0] == [lowest] * 4 and integers[0, 0, 1, 1] == 2
    own = Op(operator.add, lambda acc, term: acc + term, pad_value=None)
    with pytest.raises(RuntimeError) as info:
        conv2d(x, w, padding=1, op=own)
    assert "identity" in str(info.value)
    np.testing.assert_array_equal(conv2d(x, np.ones((1, 1, 2, 2)), padding=1, op=own)[0, 0, 0], [2, 4, 2])


# ---------------------------------------------------------------- against PyTorch

if torch is not None:
    F = torch.nn.functional


@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("problem", sorted(set(problems.CONVOLUTIONS) - {"same", "valid", "line-same", "volume-same"}))
@pytest.mark.parametrize("op", [lambda w, x: w * x, "dot"], ids=["lambda", "dot"])
@pytest.mark.parametrize("forced", ("auto",) + available_backends())
def test_product_is_pytorchs_convolution(problem, op, forced):
    """w * x, summed, is F.conv2d: result and the gradients of input, weight and bias."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    arrays = [some(shape, seed=1), some((filters, shape[1] // groups) + kernel, seed=2), some((filters,), seed=3)]
    ours = [make("tensor", array, requires_grad=True) for array in arrays]
    theirs = [make("tensor", array, requires_grad=True) for array in arrays]
    with use_backend(forced):
        found = CONVOLVE[len(kernel)](ours[0], ours[1], ours[2], stride, padding, dilation, groups, op=op)
    image = theirs[0]
    if isinstance(padding, tuple) and any(isinstance(side, tuple) for side in padding):
        # PyTorch's pads alike on both sides.
        image = F.pad(image, [side for pair in problems.pads(padding, kernel, dilation)[::-1] for side in pair])
        padding = 0
    native = getattr(F, "conv{}d".format(len(kernel)))
    expected = native(image, theirs[1], theirs[2], stride, padding, dilation, groups)
    np.testing.assert_allclose(values(found), values(expected))
    grad = make("tensor", some(tuple(expected.shape), seed=4))
    found.backward(grad)
    expected.backward(grad)
    for our, their in zip(ours, theirs):
        np.testing.assert_allclose(values(our.grad), values(their.grad))


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_other_float_dtypes(dtype):
    """The result has the operands' dtype, and is as close to the exact one as the dtype allows."""
    if not hasattr(torch, dtype) or not hasattr(torch, "vmap"):
        pytest.skip("CPU arithmetic on this dtype needs a later torch")
    x, w = some((2, 3, 6, 6), dtype, seed=1), some((4, 3, 3, 3), dtype, seed=2)
    x_, w_ = make("tensor", x, dtype, requires_grad=True), make("tensor", w, dtype, requires_grad=True)
    found = conv2d(x_, w_, padding=1, op=lambda w, x: w * x)
    assert dtype_of(found) == dtype
    expected = oracle.conv2d(x, w, operator.mul, operator.add, 0, 0, pads=(1, 1, 1, 1))
    np.testing.assert_allclose(values(found), expected.astype(x.dtype), rtol=1e-2)
    found.sum().abs().backward()
    assert x_.grad.dtype == x_.dtype and w_.grad.dtype == w_.dtype


# ---------------------------------------------------------------- integers

INTEGER_KINDS = [(kind, dtype) for kind in KINDS for dtype in ("uint8", "int8", "int16", "int32", "int64")]


@pytest.mark.parametrize("kind,dtype", INTEGER_KINDS)
def test_integer_sums_are_int64(kind, dtype):
    """Terms are in the operands' dtype, their sums in int64: a hundred terms of 100 don't wrap."""
    x, w = np.full((1, 100, 2, 2), 100), np.zeros((2, 100, 1, 1), int)
    found = conv2d(make(kind, x, dtype), make(kind, w, dtype), op=lambda w, x: w + x)
    assert dtype_of(found) == "int64"
    assert (values(found) == 10000).all()
    found = conv2d(make(kind, x, dtype), make(kind, w, dtype), op=Op(operator.add, operator.add))
    assert dtype_of(found) == "int64"
    assert (values(found) == 10000).all()
    found = linear(make(kind, x[0, :, 0, 0], dtype), make(kind, w[:, :, 0, 0], dtype), op=Op(operator.add, "max"))
    assert dtype_of(found) == dtype
    assert (values(found) == 100).all()


@pytest.mark.parametrize("kind,dtype", [(kind, dtype) for kind, dtype in INTEGER_KINDS if dtype in ("uint8", "int32")])
def test_xnor_of_bits(kind, dtype):
    """The forum's example: ~(w ^ x) on integers wraps in their dtype."""
    if VARIABLES and kind != "numpy":
        pytest.skip("0.3's operators ^ and ~ are for bytes and raw tensors only")
    if kind == "tensor" and not hasattr(torch, "bitwise_xor"):
        pytest.skip("bitwise operators came in torch 1.2")
    x, w = some((1, 2, 3, 3), "uint8", seed=1), some((2, 2, 2, 2), "uint8", seed=2)

    def xnor(w, x):
        return ~(w ^ x)

    expected = oracle.conv2d(x.astype(dtype), w.astype(dtype), xnor, lambda a, t: a + int(t), 0, 0)
    found = conv2d(make(kind, x, dtype), make(kind, w, dtype), op=xnor)
    np.testing.assert_array_equal(values(found), expected.astype("int64"))


def test_comparisons_of_integers_count():
    """bool terms of integer operands count as 0 and 1."""
    x, w = some((4, 9), "uint8", seed=1), some((9, 3), "uint8", seed=2)
    found = matmul(x, w, op=lambda w, x: w == x)
    assert found.dtype == "int64"
    np.testing.assert_array_equal(found, (x[:, :, None] == w[None]).sum(1))


def test_integer_padding():
    """A pad value that the dtype can't hold is refused; an infinite one leaves padded taps out."""
    x, w = np.full((1, 1, 2, 2), 5, "uint8"), np.full((1, 1, 2, 2), 250, "uint8")
    wrapped = conv2d(x, w, padding=1, op="max_plus")
    np.testing.assert_array_equal(wrapped, np.full((1, 1, 3, 3), 255))

    def is_refused(value):
        with pytest.raises(ValueError) as info:
            conv2d(x, w, padding=1, op=Op(operator.add, pad_value=value))
        assert "uint8" in str(info.value) and repr(value) in str(info.value)

    each(is_refused, [0.5, 256, -1, float("nan"), 1j])
    np.testing.assert_array_equal(
        conv2d(x, w, padding=1, op=Op(lambda w, x: x, pad_value=7))[0, 0, 0], [7 * 3 + 5, 7 * 2 + 10, 7 * 3 + 5]
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integer_dot_does_what_conv2d_does(dtype):
    """ "dot" keeps the dtype and wraps, as F.conv2d of integers does."""
    x, w = np.full((1, 3, 3, 3), 9, dtype), np.full((1, 3, 3, 3), 9, dtype)
    expected = np.asarray(9 * 9 * 27).astype(dtype)
    found = conv2d(x, w)
    assert found.dtype == dtype and (found == expected).all()
    if torch is not None and hasattr(torch, "compile"):
        found = conv2d(torch.from_numpy(x), torch.from_numpy(w))
        assert dtype_of(found) == dtype and (values(found) == expected).all()


# ---------------------------------------------------------------- accuracy and order


@pytest.mark.parametrize("kind", KINDS)
def test_long_sums_are_accurate(kind):
    """A float32 sum of 100,000 terms is within a few roundings of the exact one: it is summed in blocks."""
    terms = np.random.RandomState(0).rand(1, 200000).astype("float32")
    exact = terms.astype("float64").sum()
    found = matmul(
        make(kind, np.ones((1, 200000)), "float32"), make(kind, terms.T, "float32"), op=lambda w, x: w * x + 0 * w
    )
    assert abs(float(values(found)[0, 0]) - exact) / exact < 1e-6


LONG = {name: (name, {}) for name in ("l1", "l2", "max_plus")}
LONG["product"] = (lambda w, x: w * x + 0 * w, {})
LONG["own-add"] = (Op(lambda w, x: w * x, lambda acc, term: acc + term), {})
LONG["logsumexp"] = (Op(lambda w, x: w + x, "logsumexp"), {})
LONG["parameter"] = (Op(lambda w, x, t: abs(w - x) * t), {"t": np.ones((2, 1, 1))})


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
@pytest.mark.parametrize("op", sorted(LONG))
def test_long_gradients_are_accurate(op):
    """A weight's gradient over 1.6 million positions, and a parameter's, is the exact one but for a few roundings."""
    op, params = LONG[op]
    random = np.random.RandomState(0)
    x, w, grad = random.rand(2, 1, 800001), random.rand(1, 1, 2), random.rand(2, 1, 800000)
    gradients = []
    for dtype in ("float32", "float64"):
        # Of the same numbers.
        x_, w_, grad_ = [make("tensor", value.astype("float32"), dtype) for value in (x, w, grad)]
        leaves = dict({"w": w_}, **{name: make("tensor", value[:1], dtype) for name, value in params.items()})
        for leaf in leaves.values():
            leaf.requires_grad_()
        more = {name: leaf for name, leaf in leaves.items() if name != "w"}
        conv1d(x_, leaves["w"], op=op, **({"params": more} if more else {})).backward(grad_)
        gradients.append([values(leaf.grad) for _, leaf in sorted(leaves.items())])
    for found, exact in zip(*gradients):
        assert abs(found - exact).max() <= 3e-7 * abs(exact).max()


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
@pytest.mark.parametrize(
    "channels,batch,length", [(1, 1, 500), (6, 9, 300), (16, 5, 2000), (70, 1, 9000), (70, 300, 31)]
)
@pytest.mark.parametrize("op", ["l1", "lambda", "left-out"])
def test_both_gradients_at_once(op, channels, batch, length):
    """They are what each alone is, nearly, for any cut of the work, and bitwise the same for any number of threads."""
    own = {"l1": "l1", "lambda": lambda w, x: abs(w - x) * w, "left-out": ops.l1.replace(pad_value=None)}[op]
    random = np.random.RandomState(0)
    x, w = random.randn(batch, channels, length), random.randn(7, channels, 3)
    grad = make("tensor", random.randn(batch, 7, (length + 1) // 2), "float32")

    def gradients(of_x, of_w):
        leaves = [make("tensor", value, "float32", requires_grad=of) for value, of in ((x, of_x), (w, of_w))]
        conv1d(leaves[0], leaves[1], stride=2, padding=1, op=own).backward(grad)
        return [values(leaf.grad) for leaf in leaves if leaf.grad is not None]

    apart = gradients(True, False) + gradients(False, True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(gradients(True, True))
    finally:
        torch.set_num_threads(before)
    for one, other, alone in zip(results[0], results[1], apart):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, alone, 1e-5, 1e-6 * abs(alone).max())


@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("op", ["l1", "xnor", "max_plus", "lambda", "own-add"])
def test_bitwise_the_same_for_any_number_of_threads(op):
    """Sums are in an order that depends on shapes only, forward and backward."""
    random = np.random.RandomState(0)
    x, w = random.randn(3, 16, 20, 20), random.randn(24, 16, 3, 3)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x_, w_ = (make("tensor", array, "float32", requires_grad=True) for array in (x, w))
            y = conv2d(x_, w_, padding=1, op=OPS[op][0])
            (y * y).sum().backward()
            results.append([values(tensor) for tensor in (y, x_.grad, w_.grad)])
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for found, expected in zip(result, results[0]):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", ["l1", "l2", "adder", "max_plus", "min_plus", "lambda"])
def test_nan_propagates(kind, op):
    """A NaN in a window makes every op's result NaN, and no other window's."""
    x = np.zeros((1, 1, 3, 6))
    x[0, 0, 1, 1] = np.nan
    found = values(conv2d(make(kind, x), make(kind, np.ones((1, 1, 3, 2))), op=OPS[op][0]))
    np.testing.assert_array_equal(np.isnan(found[0, 0, 0]), [True, True, False, False, False])


@pytest.mark.parametrize("op", ["l1", "max_plus", "own-add-skipped", "xnor"])
def test_chunks_change_nothing(monkeypatch, op):
    """However small the pieces, the result is the same, gradients included."""
    x, w = some((3, 4, 7, 6), seed=1), some((6, 2, 3, 2), seed=2)
    kind = KINDS[-1] if torch is None else "tensor"

    def computed(limit):
        monkeypatch.setattr(chunks, "memory_limit", limit)
        x_, w_ = (make(kind, array, requires_grad=kind == "tensor") for array in (x, w))
        y = conv2d(x_, w_, None, (2, 1), (2, 1), (1, 2), 2, op=OPS[op][0])
        found = [values(y)]
        if kind == "tensor":
            y.backward(make(kind, some(tuple(y.shape), seed=5)))
            found += [values(x_.grad), values(w_.grad)]
        return found

    whole = computed(chunks.memory_limit)
    for limit in (2**16, 2**14, 1):
        for found, expected in zip(computed(limit), whole):
            np.testing.assert_allclose(found, expected, rtol=1e-13, err_msg=str(limit))
