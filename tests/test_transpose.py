"""Transposed convolutions with an op, their layers, and unfold_transpose: nested loops, and PyTorch's own for w * x."""

import copy
import operator
import pickle
import warnings

import numpy as np
import pytest
from helpers import oracle, problems
from helpers.cases import each
from helpers.ops import INF, OPS
from helpers.settings import CONVOLVE, LEVELS, TRANSPOSE, everywhere, needs_library, needs_torch, setting
from helpers.tensors import KINDS, KINDS_AND_DTYPES, VARIABLES, dtype_of, kind_of, make, some, torch, values

from im2col_compat import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Op,
    SlowPathWarning,
    conv_transpose1d,
    conv_transpose2d,
    convert,
    ops,
    unfold_transpose,
    use_backend,
)
from im2col_compat.compat import graphs, probes, unfolds
from im2col_compat.paths import blocks

LAYERS = {1: ConvTranspose1d, 2: ConvTranspose2d, 3: ConvTranspose3d}
F = None if torch is None else torch.nn.functional
PROBLEMS = sorted(problems.TRANSPOSED)
#: What a result is that nothing reaches, where it isn't what `add` starts from.
NOTHING = {"own-add": None, "only-x": -INF, "only-w": INF}


def operands(kind, problem, **options):
    """x, w, a bias, and what conv_transpose* takes after these."""
    shape, filters, kernel, stride, padding, output_padding, dilation, groups = problems.TRANSPOSED[problem]
    shapes = shape, (shape[1], filters // groups) + kernel, (filters,)
    x, w, b = (make(kind, some(s, seed=seed) / 4, **options) for seed, s in enumerate(shapes, 1))
    return x, w, b, (stride, padding, output_padding, groups, dilation)


_expected = {}  # for all kinds


def expected(op, problem):
    if (op, problem) not in _expected:
        _, multiply, add, start, _ = OPS[op]
        x, w, _, (stride, padding, output_padding, groups, dilation) = operands("numpy", problem)
        _expected[op, problem] = oracle.conv_transpose(
            x, w, multiply, add, start, NOTHING.get(op, start), stride, padding, output_padding, dilation, groups
        )
    return _expected[op, problem]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("op", sorted(OPS))
def test_transposed_convolutions_are_the_nested_loop(kind, op):
    """Every op on every geometry is its definition, with a bias that is simply added, batched or not."""

    def is_the_loop(problem):
        x, w, b, numbers = operands(kind, problem)
        right = expected(op, problem)
        transpose, given = TRANSPOSE[w.ndim - 2 if kind == "numpy" else w.dim() - 2], OPS[op][0]
        if any(result is None for result in right.flat):
            with pytest.raises(RuntimeError) as info:
                transpose(x, w, b, *numbers, op=given)
            assert "identity" in str(info.value)
            return
        right = right.astype(float)
        found = transpose(x, w, b, *numbers, op=given)
        assert kind_of(found) == kind and dtype_of(found) == "float64"
        bias = values(b).reshape((-1,) + (1,) * (right.ndim - 2))
        np.testing.assert_allclose(values(found), right + bias, rtol=1e-12)
        np.testing.assert_allclose(values(transpose(x[0], w, None, *numbers, op=given)), right[0], rtol=1e-12)

    each(is_the_loop, PROBLEMS)


@pytest.mark.parametrize("op", ["dot", "l1", "max_plus", "own-add-identity"])
def test_every_engine_feeds_transposed_convolutions(engine, op):
    """A forced engine computes the parts, "dot" included."""
    kind = "tensor" if engine == "torch" else KINDS[-1]
    for problem in ("common-divisor", "line-grouped", "volume"):
        x, w, _, numbers = operands(kind, problem)
        found = TRANSPOSE[len(w.shape) - 2](x, w, None, *numbers, op=OPS[op][0])
        np.testing.assert_allclose(values(found), expected(op, problem).astype(float), rtol=1e-12)


@needs_library
@pytest.mark.parametrize("op", ["l1", "adder", "l2", "xnor", "max_plus", "min_plus"])
def test_built_in_kernels_serve_the_parts(op, monkeypatch):
    """Named ops need no compiler and no tensor operations, for any instruction set; nor do their gradients."""
    monkeypatch.setenv("CC", "no-compiler-of-this-name")
    monkeypatch.setattr(blocks, "run", None)
    kind = KINDS[0] if torch is None else "tensor"
    x, w, _, numbers = operands(kind, "dilated", **({} if torch is None else {"requires_grad": True}))
    for isa in LEVELS:
        with setting(isa, 1):
            found = conv_transpose2d(x, w, None, *numbers, op=op)
        np.testing.assert_allclose(values(found), expected(op, "dilated").astype(float), rtol=1e-12)
        if torch is not None:
            weights = make("tensor", np.isfinite(values(found)).astype(float))
            torch.autograd.grad([found], [x, w], [weights])


@pytest.mark.parametrize("op", ["lambda", "skipped", "skipped-max", "own-add-skipped"])
def test_instruction_sets_and_threads_agree(op):
    """Kernels of each instruction set, on one thread and on three, and tensor operations give the same."""
    x, w, _, numbers = operands(KINDS[-1], "doubling")
    everywhere(lambda: conv_transpose2d(x, w, None, *numbers, op=OPS[op][0]))


@pytest.mark.parametrize("kind,dtype", KINDS_AND_DTYPES)
def test_dtypes(kind, dtype):
    """Integers wrap in their products and sum in int64, maxima keep the dtype and are its least where nothing is."""
    if kind == "raw" or dtype == "bool" or dtype in ("uint16", "uint32", "uint64") or dtype == "float16":
        pytest.skip("arithmetic is the op's, and PyTorch's")
    numbers = [((2, 2), (0, 1), (1, 0), 1, (3, 1)), ((3, 2), (0, 0), (0, 0), 1, (1, 1))]
    for stride, padding, output_padding, groups, dilation in numbers:
        x, w = some((1, 2, 2, 3), dtype, seed=1), some((2, 2, 2, 2), dtype, seed=2)
        for op in (Op(operator.mul), Op(operator.add, "max")):
            if op.add == "max" and dtype.startswith("complex"):
                continue
            nothing = 0 if op.add == "sum" else np.iinfo(dtype).min if "int" in dtype else -INF
            add = operator.add if op.add == "sum" else max
            right = oracle.conv_transpose(
                x, w, op.multiply, add, None, nothing, stride, padding, output_padding, dilation, groups
            )
            options = stride, padding, output_padding, groups, dilation
            found = conv_transpose2d(make(kind, x, dtype), make(kind, w, dtype), None, *options, op=op)
            wide = "int64" if op.add == "sum" and "int" in dtype else dtype
            assert dtype_of(found) == wide
            found = values(found)
            assert found.shape == right.shape
            np.testing.assert_allclose(found, right.astype(found.dtype), rtol=1e-2 if dtype == "bfloat16" else 1e-6)


def test_signs_of_bools_and_products_of_tables():
    """xnor takes bools; a table takes integers of any dtypes, even two, and what it lacks is an error of the caller's."""
    x, w = some((1, 3, 3, 4), "bool", seed=1), some((3, 2, 3, 2), "bool", seed=2)
    numbers = (2, 1), (1, 0), (1, 0), 1, (1, 2)
    stride, padding, output_padding, groups, dilation = [n if n == 1 else n for n in numbers]
    right = oracle.conv_transpose(
        2 * x.astype(int) - 1, 2 * w.astype(int) - 1, operator.mul, operator.add, 0, 0, stride, padding, output_padding,
        dilation, groups)  # fmt: skip
    found = conv_transpose2d(x.astype(bool), w.astype(bool), None, *numbers, op="xnor")
    assert found.dtype == "int64" and (found == right.astype(int)).all()
    table = Op.from_table(lambda w, x: w * x + 1, signed=(True, False), bits=4)
    x, w = some((1, 3, 3, 4), "uint8", seed=1), some((3, 2, 3, 2), "int16", seed=2).clip(-8, 7)
    right = oracle.conv_transpose(
        x, w, lambda w, x: w * x + 1, operator.add, 0, 0, stride, padding, output_padding, dilation, groups
    )
    found = conv_transpose2d(x.astype("uint8"), w.astype("int16"), None, *numbers, op=table)
    assert found.dtype == "int64" and (found == right.astype(int)).all()
    with pytest.raises(ValueError, match="conv_transpose2d.*weight.*from -8 to 7"):
        conv_transpose2d(x, w + 20, op=table)


@needs_torch
@pytest.mark.parametrize("problem", ["odd", "grouped", "line"])
def test_parameters(problem):
    """Parameters broadcast with the weight, (C, O / groups, *kernel), and get their gradients."""
    x, w, _, numbers = operands("tensor", problem, requires_grad=True)
    dims = len(w.shape) - 2
    sizes = tuple(w.shape), (1,) + tuple(w.shape[1:2]) + (1,) * dims, (1,) * (dims + 2)
    op = Op(lambda w, x, t: w * x + t * t * x)
    for size in sizes:
        t = make("tensor", some(size, seed=7) / 4, requires_grad=True)
        found = TRANSPOSE[dims](x, w, None, *numbers, op=op, params={"t": t})
        right = TRANSPOSE[dims](x, w + t * t, None, *numbers)
        np.testing.assert_allclose(values(found), values(right), rtol=1e-9, atol=1e-9)
        weights = make("tensor", some(tuple(found.shape), seed=8))
        pairs = zip(*[torch.autograd.grad([result], [x, w, t], [weights]) for result in (found, right)])
        for mine, yours in pairs:
            np.testing.assert_allclose(values(mine), values(yours), rtol=1e-9, atol=1e-9)
    number = TRANSPOSE[dims](x, w, None, *numbers, op=op, params={"t": 0.5})
    np.testing.assert_allclose(values(number), values(TRANSPOSE[dims](x, w + 0.25, None, *numbers)), rtol=1e-9)


def test_the_order_of_terms():
    """A fold takes channel, kernel row and kernel column as the weight has them, whatever part of the kernel they are in."""
    reading = Op(lambda w, x: w + 0 * x, lambda acc, term: 10 * acc + term, identity=0)
    w = np.arange(1.0, 9).reshape(2, 1, 2, 2)
    everything = conv_transpose2d(np.ones((1, 2, 3, 3)), w, op=reading)
    assert everything[0, 0, 1, 1] == 12345678
    halves = conv_transpose2d(np.ones((1, 2, 3, 3)), np.repeat(np.repeat(w, 2, 2), 2, 3), None, 2, op=reading)
    assert (halves[0, 0, 2:4, 2:4] == 12345678).all()


def test_what_nothing_reaches():
    """It is the result of no terms; where it is everything too, with gradients of zeros."""
    x, w = 2 * np.ones((1, 1, 2, 2)), np.ones((1, 1, 1, 1))
    for op, nothing in (("l1", 0), ("max_plus", -INF), ("min_plus", INF), (OPS["own-add-identity"][0], 3)):
        found = conv_transpose2d(x, w, None, 3, op=op)[0, 0]
        assert found[0, 1] == found[1, 0] == found[2, 2] == nothing and found[0, 0] == found[3, 3] != nothing
    with pytest.raises(RuntimeError, match="identity"):
        conv_transpose2d(x, w, None, 3, op=OPS["own-add"][0])
    if torch is None:
        return
    x, w = (make("tensor", np.ones((1, 1, size)), requires_grad=True) for size in (2, 1))
    found = conv_transpose1d(x, w, make("tensor", np.ones(1)), 3, 1, op="l1")
    assert values(found).tolist() == [[[1, 1]]]
    assert [values(grad).any() for grad in torch.autograd.grad([found.sum()], [x, w])] == [False, False]


# ---------------------------------------------------------------- against PyTorch
def setting_of(random):
    """A random setting: (x's shape, w's, what comes after the bias)."""
    dims, groups = random.choice([1, 2, 2, 3]), random.choice([1, 1, 2])

    def some_of(low, high):
        return tuple(random.randint(low, high + 1) for _ in range(dims))

    kernel, stride, dilation = some_of(1, 4), some_of(1, 4), some_of(1, 3)
    output_padding = tuple(random.randint(0, max(pair)) for pair in zip(stride, dilation))
    channels, filters = groups * random.randint(1, 3), random.randint(1, 4)
    numbers = stride, some_of(0, 2), output_padding, groups, dilation
    return (2, channels) + some_of(1, 5), (channels, filters) + kernel, tuple(map(as_ints, numbers))


def as_ints(numbers):
    return int(numbers) if isinstance(numbers, (int, np.integer)) else tuple(map(int, numbers))


@needs_torch
def test_w_times_x_is_pytorchs():
    """For w * x, results and all gradients are F.conv_transpose*'s, or both refuse, on 60 random settings."""
    random, served = np.random.RandomState(3), 0
    product = Op(operator.mul)
    folded = Op(operator.mul, lambda acc, term: acc + term, identity=0)
    while served < 60:
        shape, weight_shape, numbers = setting_of(random)
        transpose = TRANSPOSE[len(shape) - 2]
        shapes = shape, weight_shape, (weight_shape[1] * numbers[3],)
        x, w, b = (make("tensor", random.randn(*s), requires_grad=True) for s in shapes)
        size = oracle.transposed_size(shape[2:], weight_shape[2:], *[numbers[i] for i in (0, 1, 2, 4)])
        if min(size) < 1:
            for op in (product, "dot"):
                with pytest.raises(RuntimeError, match="must have pixels"):
                    transpose(x, w, b, *numbers, op=op)
            continue
        if VARIABLES and any(more >= step for more, step in zip(numbers[2], numbers[0])):
            continue  # there 0.3's own gradients are written beyond their memory
        served += 1
        theirs = getattr(F, "conv_transpose{}d".format(len(shape) - 2))(x, w, b, *numbers)
        weights = make("tensor", random.randn(*theirs.shape))
        gradients = torch.autograd.grad([theirs], [x, w, b], [weights])
        for op in (product, "dot", folded)[: 3 if served % 4 == 0 else 2]:
            ours = transpose(x, w, b, *numbers, op=op)
            np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-9, atol=1e-9)
            for mine, right in zip(torch.autograd.grad([ours], [x, w, b], [weights]), gradients):
                np.testing.assert_allclose(values(mine), values(right), rtol=1e-9, atol=1e-9)


@needs_torch
@pytest.mark.parametrize("op", ["lambda", "l1", "max_plus", "skipped-min", "own-add-identity"])
@pytest.mark.parametrize("problem", ["gaps", "line-grouped"])
def test_first_and_second_derivatives(op, problem):
    """gradcheck and gradgradcheck hold, of several parts, of places that nothing reaches, and of groups."""
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck

    random = np.random.RandomState(0)
    shape, filters, kernel, _, _, _, _, groups = problems.TRANSPOSED[problem]
    x, w = (
        make("tensor", random.randn(*s), requires_grad=True) for s in (shape, (shape[1], filters // groups) + kernel)
    )
    numbers = operands("numpy", problem)[3]
    finite = make("tensor", np.isfinite(expected(op, problem).astype(float)).astype(float))

    def function(x, w):
        found = TRANSPOSE[len(kernel)](x, w, None, *numbers, op=OPS[op][0])
        return found.clamp(-1e9, 1e9) * finite  # differences of infinities are none

    assert gradcheck(function, (x, w))
    assert gradgradcheck(function, [x, w] if VARIABLES else (x, w))


@needs_torch
def test_ties_go_to_the_first_tap():
    """The gradient of a maximum goes to the first (channel, kernel row, kernel column) that attains it."""
    x = make("tensor", np.zeros((1, 2, 4, 4)), requires_grad=True)
    w = make("tensor", np.zeros((2, 1, 4, 4)), requires_grad=True)
    conv_transpose2d(x, w, None, 2, 3, op="max_plus").sum().backward()
    right = np.zeros((2, 1, 4, 4))
    right[0, 0, :2, :2] = 4  # 4 x 4 results, each phase of stride 2 has four of them
    assert values(w.grad).sum() == 16 and (values(w.grad)[0, 0, :2, :2] == right[0, 0, :2, :2]).all()


@needs_torch
def test_a_normalized_gradient_is_the_whole_weights():
    """normalize_grad_w scales the gradient of the weight, and not of its parts."""
    x, w, _, numbers = operands("tensor", "doubling", requires_grad=True)
    plain, scaled = [
        values(torch.autograd.grad([conv_transpose2d(x, w, None, *numbers, op=op).sum()], [w])[0])
        for op in (ops.adder, ops.adder.replace(normalize_grad_w=0.2))
    ]
    np.testing.assert_allclose(scaled, 0.2 * plain.size**0.5 / np.linalg.norm(plain) * plain, rtol=1e-9)


@needs_torch
@pytest.mark.parametrize("op", ["dot", "l1"])
def test_errors_are_pytorchs(op):
    """What F.conv_transpose2d of today's PyTorch refuses is refused, with the same type of exception, by any op."""
    x, w, vector = (make("tensor", some(s)) for s in ((1, 2, 5, 5), (2, 3, 3, 3), (2,)))
    options = [
        ({"output_padding": 1}, RuntimeError),
        ({"output_padding": 3, "dilation": 2, "stride": 3}, RuntimeError),
        ({"output_padding": -1}, RuntimeError),
        ({"padding": -1}, RuntimeError),
        ({"padding": 4}, RuntimeError),
        ({"padding": (1, 2, 3)}, RuntimeError),
        ({"stride": 0}, RuntimeError),
        ({"dilation": 0}, RuntimeError),
        ({"groups": 0}, RuntimeError),
        ({"groups": 3}, RuntimeError),
        ({"padding": "same"}, TypeError),
        ({"padding": 1.0}, TypeError),
        ({"padding": ((1, 1), (1, 1))}, TypeError),
        ({"stride": True}, TypeError),
        ({"stride": None}, TypeError),
        ({"bias": vector}, RuntimeError),
        ({"input": x[0, 0]}, RuntimeError),
        ({"input": 3}, TypeError),
        ({"weight": None}, TypeError),
        ({"weight": w[0]}, RuntimeError),
        ({"weight": w.float()}, RuntimeError),
        ({"weight": make("tensor", some((4, 3, 3, 3)))}, RuntimeError),
    ]

    with pytest.raises(TypeError, match="ConvTranspose2d.*padding.*'same'"):
        ConvTranspose2d(2, 3, 3, padding="same", op=op)

    def raises(arguments, error):
        given = dict({"input": x, "weight": w}, **arguments)
        with pytest.raises(error) as ours:
            conv_transpose2d(op=op, **given)
        assert type(ours.value) is error and "conv_transpose2d" in str(ours.value)
        if unfolds.UNFOLD_IS_CURRENT and hasattr(torch, "func"):
            with pytest.raises(error):
                F.conv_transpose2d(**given)

    each(raises, options if op != "dot" else [one for one in options if "weight" not in one[0] or one[1] is TypeError])
    tuples = {name: (1,) for name in ("stride", "padding", "dilation")}
    assert tuple(conv_transpose2d(x, w, op=op, output_padding=(0,), **tuples).shape) == (1, 3, 5, 5)


def test_empty_batches_and_huge_sizes():
    """No images give no results. Sizes beyond int64 are an error."""
    x, w = np.zeros((0, 2, 3, 3)), np.zeros((2, 3, 2, 2))
    for op in ("l1", "dot", OPS["own-add-identity"][0]):
        assert conv_transpose2d(x, w, None, 2, op=op).shape == (0, 3, 6, 6)
    for stride in (2**40, 2**62):
        with pytest.raises(RuntimeError):
            conv_transpose2d(np.zeros((1, 2, 3, 3)), w, None, stride, op="l1")


# ---------------------------------------------------------------- layers
@needs_torch
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "arguments", [{}, dict(stride=3, padding=1, output_padding=2, groups=2, bias=False, dilation=2)], ids=str
)
def test_layers(dims, arguments):
    """Parameters, state and results for w * x are those of nn.ConvTranspose*, made anew, shared, copied or pickled."""
    base = getattr(torch.nn, "ConvTranspose{}d".format(dims))
    torch.manual_seed(0)
    theirs = base(4, 6, 3, **arguments)
    torch.manual_seed(0)
    ours = LAYERS[dims](4, 6, 3, op=operator.mul, **arguments)
    assert isinstance(ours, base) and list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(values(ours.state_dict()[name]), values(value))
    shared = LAYERS[dims].from_conv(theirs, operator.mul)
    assert shared.weight is theirs.weight
    x = make("tensor", some((2, 4) + (4,) * dims), "float32")
    for layer in (ours, shared, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        np.testing.assert_allclose(values(layer(x)), values(theirs(x)), rtol=1e-3, atol=1e-3)
    assert repr(LAYERS[dims](4, 6, 3, **arguments)) == repr(theirs)[:-1] + ", op=dot)"
    with pytest.raises(TypeError):
        LAYERS[dims].from_conv(torch.nn.Linear(3, 3), "l1")


@needs_torch
def test_output_size():
    """forward takes the sizes that nn.ConvTranspose2d takes, with batch and channels or without, and refuses others."""
    arguments = dict(stride=(3, 2), padding=1, dilation=(1, 2))
    theirs = torch.nn.ConvTranspose2d(2, 3, 3, **arguments)
    ours = ConvTranspose2d.from_conv(theirs, operator.mul)
    x = make("tensor", some((2, 2, 4, 5)), "float32")
    dilated = hasattr(torch, "func")  # old versions leave the dilation out of the sizes
    for size in ((10, 11), (12, 12), (2, 3, 11, 11)):
        found = ours(x, size)
        assert tuple(found.shape[2:]) == tuple(size[-2:])
        if dilated:
            np.testing.assert_allclose(values(found), values(theirs(x, size)), rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(values(ours(x[0], size[-2:])), values(found)[0], rtol=1e-3, atol=1e-3)
    for size in ((9, 11), (13, 11), (10, 13), (10,), (3, 10, 11)):
        for layer in (ours, theirs)[: 1 + dilated]:
            with pytest.raises(ValueError):
                layer(x, size)


@needs_torch
def test_arguments_of_layers():
    """padding_mode, device and dtype are today's, on every version."""
    for mode in ("reflect", "circular"):
        with pytest.raises(ValueError, match="padding_mode"):
            ConvTranspose2d(2, 3, 3, padding_mode=mode)
    with pytest.raises(ValueError, match="op must be"):
        ConvTranspose2d(2, 3, 3, op="nothing")
    layer = ConvTranspose2d(2, 3, 3, 2, 1, 1, 1, True, 1, "zeros", op="l1")
    assert layer.output_padding == (1, 1) and layer.op is ops.l1
    if hasattr(layer, "to"):
        assert ConvTranspose2d(2, 3, 3, dtype=torch.float64).weight.dtype == torch.float64


@needs_torch
def test_convert():
    """convert takes transposed layers with all others; a table leaves them as they are."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(4, 2, 2, 2),
        torch.nn.ConvTranspose3d(2, 2, 3),
    )
    found = convert(model, "adder")
    assert [type(layer).__name__ for layer in found] == ["Conv2d", "ReLU", "ConvTranspose2d", "ConvTranspose3d"]
    assert type(found[2]) is ConvTranspose2d and found[2].op is ops.adder
    model = torch.nn.Sequential(*list(model)[:3])
    x = make("tensor", some((1, 2, 6, 6)), "float32")
    np.testing.assert_allclose(values(convert(model, operator.mul)(x)), values(model(x)), rtol=1e-3, atol=1e-3)
    only = convert(model, "l1", layers=torch.nn.ConvTranspose2d)
    assert type(only[0]) is torch.nn.Conv2d and only[2].op is ops.l1
    back = convert(found, "dot")
    assert back[2].op is ops.dot and found[2].op is ops.adder


# ---------------------------------------------------------------- columns
COLUMNS = sorted(set(PROBLEMS) - {"grouped", "depthwise"})


def columns_of(kind, problem, dtype="float64", **options):
    shape, _, kernel, stride, padding, output_padding, dilation, _ = problems.TRANSPOSED[problem]
    return make(kind, some(shape, dtype), dtype, **options), (kernel, dilation, padding, stride, output_padding)


@pytest.mark.parametrize("problem", COLUMNS)
def test_unfold_transpose_is_the_nested_loop(engine, problem):
    """Each column has the inputs that a result's taps find, and zeros; batched or not, of every kind that is served."""
    for kind in ["tensor"] if engine == "torch" else KINDS:
        x, numbers = columns_of(kind, problem)
        right = oracle.unfold_transpose(values(x), *numbers)
        found = unfold_transpose(x, *numbers)
        assert kind_of(found) == kind
        np.testing.assert_array_equal(values(found), right)
        np.testing.assert_array_equal(values(unfold_transpose(x[0], *numbers)), right[0])


@pytest.mark.parametrize("kind,dtype", KINDS_AND_DTYPES)
def test_unfold_transpose_takes_every_dtype(kind, dtype):
    """Numbers are moved, whatever they are."""
    if kind != "numpy" and dtype == "float16" and not probes.CPU_HALF:
        pytest.skip("PyTorch does nothing with it")
    x, numbers = columns_of(kind, "odd", dtype)
    found = unfold_transpose(x, *numbers)
    assert dtype_of(found) == dtype
    np.testing.assert_array_equal(values(found), oracle.unfold_transpose(values(x), *numbers))


@pytest.mark.parametrize("kind", KINDS)
def test_columns_times_a_weight_are_a_transposed_convolution(kind):
    """As a matrix product of the weight, and as the op's multiply and add of it and the columns."""
    for problem in ("odd", "common-divisor", "line", "volume"):
        x, w, _, (stride, padding, output_padding, groups, dilation) = operands(kind, problem)
        columns = values(unfold_transpose(x, tuple(w.shape[2:]), dilation, padding, stride, output_padding))
        matrix = np.swapaxes(values(w), 0, 1).reshape(w.shape[1], -1)
        right = TRANSPOSE[len(w.shape) - 2](x, w, None, stride, padding, output_padding, groups, dilation)
        np.testing.assert_allclose(np.matmul(matrix, columns).reshape(right.shape), values(right), rtol=1e-12)


@needs_torch
@pytest.mark.parametrize("problem", COLUMNS)
def test_unfold_transpose_has_its_adjoint_as_gradient(problem):
    """<unfold_transpose(x), c> = <x, gradient for c>, and the gradient adds up what the loops would; twice differentiable."""
    x, numbers = columns_of("tensor", problem, requires_grad=True)
    columns = unfold_transpose(x, *numbers)
    c = make("tensor", some(tuple(columns.shape), seed=4), requires_grad=True)
    (gradient,) = torch.autograd.grad([columns], [x], [c], create_graph=True)
    pixels = np.arange(1.0, 1 + values(x).size).reshape(values(x).shape)
    marks = oracle.unfold_transpose(pixels, *numbers)
    right = np.bincount(marks.astype(int).ravel(), values(c).ravel(), pixels.size + 1)[1:].reshape(pixels.shape)
    np.testing.assert_array_equal(values(gradient), right)
    # Of a linear function the second derivative with respect to c is the function itself.
    (second,) = torch.autograd.grad([gradient], [c], [make("tensor", pixels)])
    np.testing.assert_array_equal(values(second), marks)


@needs_torch
def test_unfold_transpose_is_a_convolution_with_one_hot_kernels():
    """What unfoldNd's unfold_transposeNd computes: each tap's own transposed convolution."""
    x, numbers = columns_of("tensor", "dilated")
    kernel, dilation, padding, stride, output_padding = numbers
    taps, channels = kernel[0] * kernel[1], x.shape[1]
    hot = make("tensor", np.tile(np.eye(taps).reshape((1, taps) + kernel), (channels, 1, 1, 1)))
    right = F.conv_transpose2d(x, hot, None, stride, padding, output_padding, channels, dilation)
    found = unfold_transpose(x, *numbers)
    np.testing.assert_array_equal(values(found), values(right).reshape(tuple(found.shape)))


def test_arguments_of_unfold_transpose():
    """An int kernel is for two dimensions, or three of five; what isn't sizes is refused as unfold refuses it."""
    x = np.ones((1, 2, 3, 3))
    assert unfold_transpose(x, 2).shape == (1, 8, 16) and unfold_transpose(x[0], 2, stride=2).shape == (8, 36)
    assert unfold_transpose(np.ones((1, 1, 2, 2, 2)), 2, stride=2).shape == (1, 8, 64)
    assert unfold_transpose(x[:0], 2).shape == (0, 8, 16)
    wrong = [
        ({"kernel_size": 0}, RuntimeError),
        ({"kernel_size": ()}, RuntimeError),
        ({"kernel_size": (2, 2, 2, 2)}, RuntimeError),
        ({"kernel_size": 2.0}, TypeError),
        ({"kernel_size": 2, "padding": 3}, RuntimeError),
        ({"kernel_size": 2, "padding": -1}, RuntimeError),
        ({"kernel_size": 2, "stride": 0}, RuntimeError),
        ({"kernel_size": 2, "stride": (1, 2, 3)}, RuntimeError),
        ({"kernel_size": 2, "output_padding": 1}, RuntimeError),
        ({"kernel_size": 2, "dilation": "1"}, TypeError),
    ]

    def refused(arguments, error):
        with pytest.raises(error, match="unfold_transpose"):
            unfold_transpose(x, **arguments)

    each(refused, wrong)
    with pytest.raises(RuntimeError, match="unfold_transpose"):
        unfold_transpose(np.ones((3, 3)), 2)


# ---------------------------------------------------------------- graphs and transforms
needs_graphs = pytest.mark.skipif(not graphs.HAS_LIBRARY, reason="needs torch.library's operators (2.4)")
RECORDED = {"dot": "dot", "l1": "l1", "own": lambda w, x: w * x * x, "fold": OPS["own-add-identity"][0]}


def same(found, right):
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)


@needs_graphs
@pytest.mark.parametrize("op", ["dot", "own"])
@pytest.mark.filterwarnings("ignore:.*(deprecated|TorchScript).*")
def test_graphs(op):
    """torch.compile, torch.export, torch.jit.trace and torch.fx record them, gradients, output_size and other sizes too."""
    layer = ConvTranspose2d(3, 4, 3, stride=2, padding=1, op=RECORDED[op])
    x, other = torch.rand(2, 3, 4, 5), torch.rand(3, 3, 6, 7)
    dims = {0: torch.export.Dim("b"), 2: torch.export.Dim("h", min=3), 3: torch.export.Dim("w", min=3)}
    torch._dynamo.reset()
    modules = [
        torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True),
        torch.export.export(layer, (x,), dynamic_shapes=(dims, None)[:1]).module(),
        torch.jit.trace(layer, x, check_trace=False),
        torch.fx.symbolic_trace(torch.nn.Sequential(layer)),
    ]
    for module in modules:
        leaf = other.clone().requires_grad_()
        right = layer(leaf)
        found = module(leaf)
        same(found, right)
        weights = torch.rand_like(right)
        for mine, yours in zip(*(torch.autograd.grad(r, (leaf, layer.weight), weights) for r in (found, right))):
            same(mine, yours)
    sized = torch.compile(lambda x: layer(x, (12, 13)), backend="eager", fullgraph=True)
    same(sized(other), layer(other, (12, 13)))


@needs_graphs
def test_what_graphs_count_and_check():
    """FlopCounterMode counts as PyTorch does, "meta" has the shape, and opcheck finds nothing wrong."""
    from torch.utils.flop_counter import FlopCounterMode

    x, w, b = torch.rand(2, 4, 3, 4), torch.rand(4, 3, 3, 2), torch.rand(6)
    counts = []
    for op in ("dot", "l1"):
        with FlopCounterMode(display=False) as counter:
            conv_transpose2d(x, w, b, 2, 1, 1, 2, op=op)
        counts.append(counter.get_total_flops())
        meta = conv_transpose2d(x.to("meta"), w.to("meta"), b.to("meta"), 2, 1, 1, 2, op=op)
        assert meta.shape == conv_transpose2d(x, w, b, 2, 1, 1, 2, op=op).shape
    assert counts[0] == counts[1] > 0
    x, w = x.requires_grad_(), w.requires_grad_()
    numbers = (2, 2, 1, 1, 1, 1, 1, 1, 2)
    torch.library.opcheck(torch.ops.im2col_compat.dot, (x, w, numbers, "conv_transpose", "l1"))


@needs_graphs
def test_unfold_transpose_in_graphs():
    """torch.compile records it, with sizes that change."""
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: unfold_transpose(x, (3, 2), (2, 1), 1, (2, 3), 1), fullgraph=True, dynamic=True, backend="eager"
    )
    for shape in ((1, 2, 3, 4), (2, 3, 5, 6)):
        x = torch.rand(*shape)
        same(compiled(x), unfold_transpose(x, (3, 2), (2, 1), 1, (2, 3), 1))


@pytest.mark.skipif(not hasattr(torch, "func"), reason="needs torch.func (2.0 on)")
@pytest.mark.parametrize("op", sorted(RECORDED) + ["max_plus"])
def test_transforms(op):
    """vmap over either operand, gradients of samples and forward mode agree with loops and backward."""
    given = RECORDED.get(op, op)
    x, w = torch.rand(3, 2, 4, 3, 3, dtype=torch.float64), torch.rand(3, 4, 2, 3, 2, dtype=torch.float64)

    def call(x, w):
        return conv_transpose2d(x, w, None, 2, (1, 0), 1, 2, op=given)

    right = torch.stack([call(x[i], w[i]) for i in range(3)])
    same(torch.func.vmap(call)(x, w), right)
    same(torch.func.vmap(call, (0, None))(x, w[0])[0], right[0])
    same(torch.func.vmap(call, (None, 0))(x[0], w)[0], right[0])

    def gradients(x, w):
        return torch.func.grad(lambda x, w: (call(x, w) ** 2).clamp(max=99).sum(), (0, 1))(x, w)

    for i, one in enumerate(zip(*torch.func.vmap(gradients)(x, w))):
        leaves = [x[i].clone().requires_grad_(), w[i].clone().requires_grad_()]
        for mine, yours in zip(one, torch.autograd.grad((call(*leaves) ** 2).clamp(max=99).sum(), leaves)):
            same(mine, yours)
    x, w = x[0], w[0]
    tangents = torch.rand_like(x), torch.rand_like(w)
    _, forwards = torch.func.jvp(call, (x, w), tangents)
    leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
    found = call(*leaves)
    finite = torch.isfinite(found)
    weights = torch.rand_like(found) * finite
    backwards = torch.autograd.grad(found, leaves, weights)
    same((weights * torch.where(finite, forwards, 0)).sum(), sum((g * t).sum() for g, t in zip(backwards, tangents)))


def test_no_warning_where_kernels_serve():
    """A fold without an identity is slow where a part pads, and that is said; what C serves isn't."""
    x, w = np.ones((1, 8, 40, 40), "float32"), np.ones((8, 8, 4, 4), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", SlowPathWarning)
        conv_transpose2d(x[:, :, :2], w, None, 2, 1, op="max_plus")


def test_strides_one_are_convolutions():
    """With stride 1 a transposed convolution is the convolution of a reversed kernel, and pads with nothing."""
    x, w = some((1, 2, 5, 6)) / 4, some((2, 3, 3, 2), seed=1) / 4
    skipping = Op(lambda w, x: abs(w - x), pad_value=None)
    reversed_ = np.ascontiguousarray(np.swapaxes(w, 0, 1)[:, :, ::-1, ::-1])
    np.testing.assert_allclose(
        conv_transpose2d(x, w, None, 1, (1, 0), op="l1"),
        CONVOLVE[2](x, reversed_, None, 1, ((1, 1), (1, 1)), op=skipping),
        rtol=1e-12,
    )
    with use_backend("slices"):
        right = np.dot(x.sum((0, 2, 3)), w.sum((1, 2, 3)))
        np.testing.assert_allclose(conv_transpose2d(x, w, op="dot").sum(), right)
