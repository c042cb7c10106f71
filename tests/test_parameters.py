"""The parameters of an op: what multiply takes after w and x, and the numbers and tensors that functions capture."""

import copy
import pickle

import numpy as np
import pytest
from helpers import oracle
from helpers.cases import each
from helpers.tensors import KINDS, VARIABLES, dtype_of, make, torch, values

from im2col_compat import Conv2d, Linear, Op, conv1d, conv2d, conv3d, convert, linear, lowlevel, matmul, use_backend
from im2col_compat.codegen import compile
from im2col_compat.compat import graphs
from im2col_compat.paths import products

needs_kernels = pytest.mark.skipif(
    lowlevel.missing is not None or compile.executable("cc") is None, reason="needs kernels"
)
needs_torch = pytest.mark.skipif(torch is None, reason="needs torch")
needs_today = pytest.mark.skipif(torch is None or not graphs.HAS_LIBRARY, reason="needs PyTorch 2.4")

SUM = lambda acc, term: acc + term  # noqa: E731
ADDS = {
    "sum": ("sum", SUM),
    "max": ("max", max),
    "fold": (lambda acc, term: acc * 0.5 + term, lambda acc, term: acc * 0.5 + term),
}
CONVOLVE = {1: conv1d, 2: conv2d, 3: conv3d}


def term(w, x, t, s):
    return t * abs(w - x) + s * x


def random(*shape):
    return np.random.RandomState(sum(shape)).uniform(0.5, 1.5, shape)


def forced(path):
    """By kernels, or by tensor operations."""
    return use_backend("auto" if path == "kernels" else "slices")


PATHS = ["kernels", "tensor operations"] if lowlevel.missing is None else ["tensor operations"]
#: Of weights of the shape (4, 2, 2, 3).
SHAPES = {
    "one": (),
    "a number": (1,),
    "filter": (4, 1, 1, 1),
    "channel": (2, 1, 1),
    "row": (2, 1),
    "weight": (4, 2, 2, 3),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("add", sorted(ADDS))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_values(path, add, kind, shape):
    """Every shape that broadcasts with the weight, beside a number: conv2d with groups equals nested loops."""
    if SHAPES[shape] == () and VARIABLES:
        pytest.skip("0.3 has no tensors without dimensions")
    x, w, t = random(2, 4, 5, 6), random(4, 2, 2, 3), random(*SHAPES[shape])
    whole = np.broadcast_to(t, w.shape)
    # The loops see the parameter beside the weight.
    pairs = np.empty(w.shape, object)
    for index in np.ndindex(*w.shape):
        pairs[index] = (w[index], whole[index])
    ours, theirs = ADDS[add]

    def of_pair(pair, x):
        return term(pair[0], x, pair[1], 0.25)

    expected = oracle.conv(x, pairs, of_pair, theirs, None, 0, (1, 2), ((1, 1), (0, 1)), (1, 1), 2).astype(float)
    with forced(path):
        found = conv2d(
            make(kind, x), make(kind, w), None, (1, 2), ((1, 1), (0, 1)), 1, 2, Op(term, ours),
            {"t": make(kind, t), "s": 0.25})  # fmt: skip
    np.testing.assert_allclose(values(found), expected, rtol=1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_functions(path, kind):
    """conv1d, conv3d, linear and matmul with broadcast batches take parameters, too; and so do integers."""
    s = 3

    def multiply(w, x, t):
        return t * abs(w - x)

    def check(function, w, x, t, expected):
        with forced(path):
            found = function(make(kind, x), make(kind, w), op=multiply, params={"t": make(kind, t)})
        np.testing.assert_allclose(values(found), expected, rtol=1e-10)

    for dtype in ("float64", "int64"):
        x, w, t = [(s * random(*shape)).astype(dtype) for shape in ((5, 6), (4, 6), (4, 1))]
        check(linear, w, x, t, (t * abs(w - x[:, None])).sum(-1))
        check(linear, w[0], x, t[0], (t[0] * abs(w[0] - x)).sum(-1))
        a, b, t = [(s * random(*shape)).astype(dtype) for shape in ((3, 1, 4, 6), (2, 6, 5), (4, 1))]
        expected = (t[..., None] * abs(a[..., None] - b[None, :, None])).sum(-2)
        check(lambda b, a, **rest: matmul(a, b, **rest), a, b, t, expected)
        for dims in (1, 3):
            x, w = [
                (s * random(*(2, 3) + (4,) * dims)).astype(dtype),
                (s * random(*(4, 3) + (2,) * dims)).astype(dtype),
            ]
            t = (s * random(*(4, 1) + (2,) * dims)).astype(dtype)
            whole = np.broadcast_to(t, w.shape)
            columns = oracle.unfold(x, (2,) * dims)[:, None]
            expected = (whole.reshape(1, 4, -1, 1) * abs(w.reshape(1, 4, -1, 1) - columns)).sum(2)
            check(CONVOLVE[dims], w, x, t, expected.reshape((2, 4) + (3,) * dims))


@needs_torch
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("add", sorted(ADDS))
@pytest.mark.parametrize("shape", ["one", "filter", "channel", "weight"])
def test_derivatives(path, add, shape):
    """First and second derivatives of input, weight and parameters, by finite differences."""
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck

    if SHAPES[shape] == () and VARIABLES:
        pytest.skip("0.3 has no tensors without dimensions")
    op = Op(lambda w, x, t, s: t * (w - x) * (w - x) + s * w * x, ADDS[add][0])
    of_t = tuple(min(size, 2) for size in SHAPES[shape])
    operands = [
        make("tensor", random(*s), requires_grad=True) for s in ((1, 2, 2, 3), (2, 2, 2, 2), of_t, (2, 1, 1, 1))
    ]

    def function(x, w, t, s):
        return conv2d(x, w, op=op, params={"t": t, "s": s})

    with forced(path):
        assert gradcheck(function, operands if VARIABLES else tuple(operands))
        assert gradgradcheck(function, operands if VARIABLES else tuple(operands))


@needs_torch
@pytest.mark.parametrize("path", PATHS)
def test_surrogates(path):
    """grad_w, grad_x and grad_params replace derivatives, and get the parameters that they take."""
    op = Op(
        lambda w, x, t: t * w * x, grad_w=lambda w, x, t: t * 0 + 2, grad_x=lambda w, x: w * 3,
        grad_params={"t": lambda w, x, t: w + x + t})  # fmt: skip
    w, x, t = [make("tensor", random(*shape), requires_grad=True) for shape in ((3, 4), (2, 4), (3, 1))]
    with forced(path):
        found = torch.autograd.grad(linear(x, w, op=op, params={"t": t}).sum(), (w, x, t))
    w, x, t = [values(one) for one in (w, x, t)]
    expected = 4 + 0 * w, 3 * w.sum(0) + 0 * x, (w[:, None] + x + t[:, None]).sum((1, 2))[:, None]
    for one, other in zip(found, expected):
        np.testing.assert_allclose(values(one), other, rtol=1e-10)


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
@pytest.mark.parametrize("shape", ["one", "filter", "weight"])
@pytest.mark.parametrize("channels", [2, 17])
def test_surrogates_of_products(shape, channels, monkeypatch):
    """A product with gradients of its own is PyTorch's convolution; its gradients are those of tensor operations."""

    def factor(w, t):
        return 2 ** t.round() * w

    monkeypatch.setattr(products, "LEAST_TERMS", 0)
    grad_w, grad_t = (lambda w, x, t: t * x), (lambda w, x, t: w * t * x)
    given = [("grad_w", grad_w), ("grad_x", lambda w, x, t: t), ("grad_params", {"t": grad_t})]
    sizes = {"one": (1,), "filter": (2 * channels, 1, 1, 1), "weight": (2 * channels, channels, 3, 2)}
    arrays = random(3, 2 * channels, 6, 5), random(2 * channels, channels, 3, 2), 2 * random(*sizes[shape])
    x, w, t = [make("tensor", array, requires_grad=True) for array in arrays]

    for some in (given[:1], given[1:], given[2:], given):
        op = Op(lambda w, x, t: factor(w, t) * (x + 0.5), pad_value=-0.5, **dict(some))
        found = []
        for path in ("auto", "slices"):
            with use_backend(path):
                y = conv2d(x, w, stride=(1, 2), padding=((1, 0), (1, 1)), groups=2, op=op, params={"t": t})
                cubed = (y * y * y).sum()
                first = torch.autograd.grad(cubed, (x, w, t), retain_graph=True)
                again = torch.autograd.grad(cubed, (x, w, t), create_graph=True)
                second = torch.autograd.grad(sum((one * one).sum() for one in again), (x, w, t))
            found.append((y,) + first + again + second)
        for ours, theirs in zip(*found):
            np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-9)
    if lowlevel.missing is None:
        padded = torch.nn.functional.pad(x + 0.5, (1, 1, 1, 0))
        expected = torch.nn.functional.conv2d(padded, factor(w, t), stride=(1, 2), groups=2)
        y = conv2d(x, w, stride=(1, 2), padding=((1, 0), (1, 1)), groups=2, op=op, params={"t": t})
        np.testing.assert_array_equal(values(y), values(expected))


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs torch 0.4")
@pytest.mark.parametrize("rows", [(), (5,), (2, 3)])
def test_surrogates_of_products_in_linear(rows, monkeypatch):
    """The same of rows of features, whose gradients are PyTorch's matrix products."""
    monkeypatch.setattr(products, "LEAST_TERMS", 0)
    op = Op(
        lambda w, x, t: torch.sign(w) * torch.tanh(x) * t, grad_w=lambda w, x, t: t * x, grad_x=lambda w, x, t: t * w,
        grad_params={"t": lambda w, x, t: w * x})  # fmt: skip
    arrays = random(*(rows + (17,))), random(16, 17), random(16, 1)
    x, w, t = [make("tensor", array, requires_grad=True) for array in arrays]
    found = []
    for path in ("auto", "slices"):
        with use_backend(path):
            y = linear(x, w, op=op, params={"t": t})
            found.append((y,) + torch.autograd.grad((y * y * y).sum(), (x, w, t)))
    for ours, theirs in zip(*found):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(values(ours), values(theirs), rtol=1e-9)


@needs_torch
def test_layers():
    """Tensors become Parameters of a layer, with all that this means; numbers stay attributes."""
    t = torch.rand(3, 1, 1, 1)
    layer = Conv2d(2, 3, 2, op=term, params={"t": t, "s": 0.5})
    assert sorted(layer.state_dict()) == ["bias", "t", "weight"]
    x = make("tensor", random(1, 2, 4, 4), "float32")
    before = layer(x)
    layer.s = 2.0
    assert not np.allclose(values(layer(x)), values(before))
    layer.s = 0.5
    for other in (copy.deepcopy(layer), convert(layer, layer.op), Conv2d.from_conv(layer, layer.op)):
        np.testing.assert_allclose(values(other(x)), values(before))
    other = copy.deepcopy(layer)
    other(x).sum().backward()
    assert layer.t.grad is None and other.t.grad is not None
    assert "t" in repr(layer)
    layer.load_state_dict(other.state_dict())
    plain = convert(torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.Conv2d(3, 4, 1)), term, params=_per_layer)
    assert plain[1].t.shape == (4, 1, 1, 1) and plain[1].s == 1
    back = Conv2d.from_conv(layer, "l1")
    assert "t" not in back.state_dict() and not hasattr(back, "s")
    assert Linear(3, 2, op=term, params={"t": 1, "s": 1})(make("tensor", random(2, 3), "float32")).shape == (2, 2)
    saved = pickle.loads(pickle.dumps(layer))
    np.testing.assert_allclose(values(saved(x)), values(before))


def _per_layer(name, module):
    return {"t": torch.ones(module.weight.shape[0], 1, 1, 1), "s": 1}


def refusal(kind, *arguments, **named):
    with pytest.raises(kind) as found:
        conv2d(*arguments, **named)
    return str(found.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused(kind):
    """Names, values, shapes and dtypes that don't fit, each with the name of the parameter."""
    x, w = make(kind, random(1, 2, 4, 4)), make(kind, random(3, 2, 2, 2))

    def bad(error, says, params, op=term):
        message = refusal(error, x, w, op=op, params=params)
        assert says in message and "conv2d()" in message, message

    whole = make(kind, random(3, 2, 2, 2))
    bad(TypeError, "'t'", None)
    bad(TypeError, "'s'", {"t": 1})
    bad(TypeError, "'u'", {"t": 1, "s": 1, "u": 1})
    bad(TypeError, "'t'", {"t": 1}, op="l1")
    bad(TypeError, "dict", [1, 2])
    bad(TypeError, "params['t']", {"t": "large", "s": 1})
    bad(RuntimeError, "params['s']", {"t": 1, "s": make(kind, random(2, 1, 1, 1))})
    bad(RuntimeError, "params['s']", {"t": whole, "s": make(kind, random(1, 1, 1, 1, 1))})
    bad(RuntimeError, "float32", {"t": 1, "s": make(kind, random(1), "float32")})
    whole = make(kind, random(1, 2, 4, 4), "int64"), make(kind, random(3, 2, 2, 2), "int64")
    assert "params['s']" in refusal(ValueError, *whole, op=term, params={"t": 1, "s": 0.5})
    with pytest.raises(TypeError):
        Op(lambda w, x, t: t, grad_params={"s": lambda w, x: x})
    if torch is not None:
        with pytest.raises(ValueError):
            Conv2d(2, 3, 2, op=lambda w, x, stride: w * x * stride, params={"stride": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_defaults(kind):
    """A parameter with a default need not be given; without one of its own it is what the function says."""
    op = Op(lambda w, x, t=3: t * w * x)
    x, w = make(kind, random(2, 4)), make(kind, random(3, 4))
    once = values(linear(x, w, op=op))
    np.testing.assert_allclose(values(linear(x, w, op=op, params={"t": 1.5})) * 2, once)


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_expressions_of_c(kind):
    """Op.from_c with parameters."""
    op = Op.from_c(
        "t * w * x + s", params=("t", "s"), grad_w="t * x", grad_x="t * w", grad_params={"t": "w * x", "s": "1"}
    )
    x, w, t = random(2, 4), random(3, 4), random(3, 1)
    leaf = make(kind, t, requires_grad=True)
    found = linear(make(kind, x), make(kind, w), op=op, params={"t": leaf, "s": 2})
    np.testing.assert_allclose(values(found), (t * w * x[:, None] + 2).sum(-1), rtol=1e-10)
    if kind == "tensor":
        np.testing.assert_allclose(
            values(torch.autograd.grad(found.sum(), leaf)[0]), (w * x[:, None]).sum((0, 2))[:, None], rtol=1e-10)  # fmt: skip


# ---------------------------------------------------------------- what functions capture
@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_changes_is_compiled_once(kind, monkeypatch):
    """However long the schedule is; and the result is that of each number."""
    compiled = []
    library = compile.library
    monkeypatch.setattr(compile, "library", lambda *arguments: compiled.append(1) or library(*arguments))
    x, w = random(2, 5), random(3, 5)
    for step in range(40):
        slope = 0.3 + step / 37.0
        found = linear(make(kind, x), make(kind, w), op=lambda w, x: slope * abs(w - x) * 1.25)
        np.testing.assert_allclose(values(found), (slope * 1.25 * abs(w - x[:, None])).sum(-1), rtol=1e-10)
    assert len(compiled) <= 1


@needs_kernels
@pytest.mark.parametrize("kind", KINDS)
def test_a_power_that_changes(kind):
    """Powers by whole numbers are products, one by one; after many of them one kernel takes any number."""
    x, w = random(2, 5), random(3, 5)
    for power in range(1, 25):
        op = Op(lambda w, x: abs(w - x) ** power)
        found = linear(make(kind, x), make(kind, w), op=op)
        np.testing.assert_allclose(values(found), (abs(w - x[:, None]) ** power).sum(-1), rtol=1e-9)
    assert "C kernels" in op.explain("float64")


@needs_torch
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("add", sorted(ADDS))
def test_captured_tensors(path, add):
    """A tensor of one element that a function captures gets its gradients, first and second."""
    from torch.autograd import gradcheck
    from torch.autograd.gradcheck import gradgradcheck

    if path == "tensor operations" and torch.__version__.startswith(("1.11.", "1.12.")):
        pytest.skip("1.11 and 1.12 go back once through what a checkpoint recomputes")
    s = make("tensor", np.array([0.7]), requires_grad=True)
    x, w = make("tensor", random(2, 4), requires_grad=True), make("tensor", random(3, 4), requires_grad=True)

    def function(s, x, w):
        return linear(x, w, op=Op(lambda w, x: s * w * x * x + s * s * w, ADDS[add][0]))

    with forced(path):
        assert gradcheck(function, [s, x, w] if VARIABLES else (s, x, w))
        assert gradgradcheck(function, [s, x, w] if VARIABLES else (s, x, w))


@pytest.mark.skipif(not hasattr(torch, "promote_types"), reason="needs a PyTorch that promotes dtypes (1.5 on)")
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")], ids=str)
def test_captured_tensors_of_other_dtypes(dtypes):
    """A tensor without dimensions counts as a number does: results have the operands' dtype, its gradient its own."""
    of_s, dtype = dtypes
    s = make("tensor", np.array(0.75), of_s, requires_grad=True)
    x, w = make("tensor", random(2, 4), dtype, requires_grad=True), make("tensor", random(3, 4), dtype)

    def is_found(multiply, plain, add):
        found = linear(x, w, op=Op(multiply, add))
        expected = linear(x, w, op=Op(plain, add))
        assert dtype_of(found) == dtype
        np.testing.assert_allclose(values(found), values(expected), rtol=1e-6)
        of_x, of_s = torch.autograd.grad(found.sum(), (x, s), create_graph=True)
        assert (of_x.dtype, of_s.dtype) == (x.dtype, s.dtype)
        (again,) = torch.autograd.grad(of_x.sum(), s)
        assert again.dtype == s.dtype

    def product(w, x):
        return s * w * x

    def distance(w, x):
        return s * abs(w - x)

    each(
        is_found,
        [
            (product, lambda w, x: 0.75 * w * x, "sum"),
            (product, lambda w, x: 0.75 * w * x, "max"),
            (distance, lambda w, x: 0.75 * abs(w - x), "sum"),
        ],
    )


@needs_today
def test_captured_tensors_on_meta():
    """Functions aren't tried on operands without values."""
    t = torch.tensor(0.5, requires_grad=True)
    x, w = torch.ones(1, 2, 4, device="meta"), torch.ones(3, 2, 2, device="meta")
    assert conv1d(x, w, op=lambda w, x: t * (w - x)).shape == (1, 3, 3)


@needs_torch
@pytest.mark.parametrize("path", PATHS)
def test_larger_captured_tensors_are_refused(path):
    """They can't go along with the parts in which terms are computed: params= can."""
    gain, x, w = make("tensor", random(5, 1)), make("tensor", random(2, 3)), make("tensor", random(5, 3))
    with forced(path):
        with pytest.raises(RuntimeError) as found:
            linear(x, w, op=lambda w, x: gain * w * x)
    assert "params=" in str(found.value)


# ---------------------------------------------------------------- graphs and transforms
@needs_today
@pytest.mark.parametrize("dynamic", [False, True])
def test_graphs(dynamic):
    """torch.compile and torch.export record an op with parameters as one operator, gradients included."""
    op = Op(term)
    x, w, t = [torch.rand(*shape, requires_grad=True) for shape in ((2, 3, 6, 6), (4, 3, 2, 2), (4, 1, 1, 1))]

    def function(x, w, t):
        return conv2d(x, w, padding=1, op=op, params={"t": t, "s": 0.5})

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    torch.testing.assert_close(compiled(x, w, t), function(x, w, t))
    for ours, theirs in zip(*[torch.autograd.grad(f(x, w, t).sum(), (x, w, t)) for f in (compiled, function)]):
        torch.testing.assert_close(ours, theirs)
    layer = Conv2d(3, 4, 2, op=op, params={"t": t.detach(), "s": 0.5})
    exported = torch.export.export(layer, (x.detach(),)).module()
    torch.testing.assert_close(exported(x.detach()), layer(x.detach()))


@needs_today
@pytest.mark.parametrize("which", ["x", "t", "all"])
def test_vmap(which):
    """torch.func maps over inputs, parameters or both; and so it does over gradients."""
    op = Op(term)
    x, w, t, s = torch.rand(3, 2, 4), torch.rand(5, 4), torch.rand(3, 5, 1), torch.rand(3)
    dims = {"x": (0, None, None, None), "t": (None, None, 0, None), "all": (0, None, 0, 0)}[which]
    x, t, s = [one if dim == 0 else one[0] for one, dim in ((x, dims[0]), (t, dims[2]), (s, dims[3]))]

    def function(x, w, t, s):
        return linear(x, w, op=op, params={"t": t, "s": s})

    def gradients(x, w, t, s):
        return torch.func.grad(lambda *operands: function(*operands).square().sum(), (0, 1, 2, 3))(x, w, t, s)

    samples = [[one if dim is None else one[i] for one, dim in zip((x, w, t, s), dims)] for i in range(3)]
    expected = torch.stack([function(*sample) for sample in samples])
    torch.testing.assert_close(torch.vmap(function, dims)(x, w, t, s), expected)
    found = torch.vmap(gradients, dims)(x, w, t, s)
    for i, sample in enumerate(samples):
        for one, other in zip(found, gradients(*sample)):
            torch.testing.assert_close(one[i], other)


@needs_torch
def test_products_of_differences():
    """What is subtracted within a product's factors is subtracted of tensors, by operators where there is no torch.sub."""
    x, w = make("tensor", random(1, 2, 4), requires_grad=True), make("tensor", random(3, 2, 2), requires_grad=True)
    y = conv1d(x, w, op=Op(lambda w, x: (1 - w) * (x - 0.5)))
    np.testing.assert_allclose(values(y), values(torch.nn.functional.conv1d(x - 0.5, 1 - w)), rtol=1e-10)
    y.sum().backward()
    np.testing.assert_allclose(values(w.grad).sum(), -3 * (values(x)[:, :, :-1] + values(x)[:, :, 1:] - 1).sum())


@needs_torch
@pytest.mark.parametrize("path", PATHS)
def test_gradients_of_abs(path):
    """Python's abs() has a gradient, also of what doesn't take it: 0.3's Variables."""
    x, w, t = [make("tensor", random(*shape), requires_grad=True) for shape in ((1, 2, 4), (3, 2, 2), (3, 1, 1))]
    found = []
    for absolute in (abs, torch.abs):
        op = Op(lambda w, x, t: t * absolute(w - x), lambda acc, term: 0.5 * acc + term)
        with forced(path):
            y = conv1d(x, w, op=op, params={"t": t})
            found.append([y] + list(torch.autograd.grad([(y * y).sum()], [x, w, t])))
    for one, other in zip(*found):
        np.testing.assert_array_equal(values(one), values(other))


@needs_torch
@pytest.mark.skipif(lowlevel.missing is not None, reason="needs the C library")
def test_products_with_much_padding():
    """The padded image of a product isn't made where it is huge: a dilation as large leaves few blocks."""
    x, w = make("tensor", random(1, 2, 4), requires_grad=True), make("tensor", random(3, 2, 2), requires_grad=True)
    far = 2**45
    for pads in (((far, far),), ((0, far),)):
        y = conv1d(x, w, None, far + 1, pads, far, op=Op(lambda w, x: w * (x + 1), pad_value=0))
        expected = oracle.conv(
            values(x), values(w), lambda w, x: w * (x + 1), SUM, None, 0, (far + 1,), pads, (far,), 1
        ).astype(float)  # fmt: skip
        np.testing.assert_allclose(values(y), expected, rtol=1e-10)
