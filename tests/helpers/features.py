"""What of PyTorch's graphs and transforms each kind of op allows.

A feature is a function: it returns where results are those of plain calls, fails (AssertionError) where one isn't, and
lets an error through that says what can't be done.
"""

import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

try:
    import onnxruntime
    import onnxscript  # noqa: F401
except ImportError:
    onnxruntime = None

from im2col_compat import Op, conv2d, graph, linear, lowlevel, ops, use_backend

gain = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
number = 0.5


def sign(v):
    return (v >= 0).type_as(v) * 2 - 1


#: Kinds of ops: how the page calls one, and an op of that kind.
KINDS = {name: getattr(ops, name) for name in ("dot", "l1", "l2", "adder", "xnor", "max_plus", "min_plus")}
KINDS["adder, `normalize_grad_w`"] = ops.adder.replace(normalize_grad_w=0.2)
KINDS["function"] = Op(lambda w, x: w * torch.tanh(x))
KINDS["`grad_w`, `grad_x`"] = Op(
    lambda w, x: sign(w) * sign(x), grad_w=lambda w, x: sign(x) * (abs(w) < 2), grad_x=lambda w, x: sign(w) * x
)
KINDS["own `add`"] = Op(lambda w, x: w * x, lambda acc, term: acc + term * torch.sigmoid(acc))
KINDS["`prod`"] = Op(lambda w, x: 1 + w * x / 4, "prod")
KINDS["`logsumexp`"] = Op(lambda w, x: w - x, "logsumexp")
KINDS["`pad_value=None`"] = Op(lambda w, x: (w - x) ** 2, pad_value=None)
KINDS["a number is captured"] = Op(lambda w, x: number * w * x)
KINDS["a tensor is captured that requires grad"] = Op(lambda w, x: gain * w * x)
KINDS["tensor operations only"] = Op(lambda w, x: w * x + torch.erfc(x))
#: Ops that tensor operations can't evaluate, by one that they can.
TWINS = {}
if not lowlevel.missing:
    KINDS["`Op.from_c`"] = Op.from_c("w * x + 1", grad_w="x", grad_x="w")
    TWINS[KINDS["`Op.from_c`"]] = Op(lambda w, x: w * x + 1)
KINDS["`Op.from_table`"] = Op.from_table([[(w * x) % 23 - 9 for x in range(16)] for w in range(16)], signed=True)


def operands(op, batch=2, height=6, width=5):
    torch.manual_seed(batch)
    shapes = (4, 2, 3, 2), (batch, 4, height, width)
    if is_table(op):
        return [torch.randint(-8, 8, shape) for shape in shapes]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def called(op):
    """Convolution, then linear, as a function of a weight and an image."""

    def function(w, x):
        y = conv2d(x, w, None, (2, 1), ((1, 0), (1, 1)), groups=2, op=op)
        y = y.flatten(2).sum(2) % 8 if is_table(op) else y.flatten(2).mean(2)
        return linear(y, w.reshape(12, 4), op=op)

    return function


def plain(op):
    """The same, by tensor operations; an op of C, or of a table, is itself the simplest that there is."""
    function = called(TWINS.get(op, op))

    def by_tensors(w, x):
        with use_backend("torch"):
            return function(w, x)

    return by_tensors if w_is_float(op) else function


def w_is_float(op):
    return not is_table(op)


def is_table(op):
    return op is KINDS.get("`Op.from_table`")


def gradients(function, w, x, create_graph=False):
    w, x = w.detach().requires_grad_(), x.detach().requires_grad_()
    result = function(w, x)
    return (w, x), torch.autograd.grad(result, (w, x), torch.cos(result.detach()), create_graph=create_graph)


def seconds(function, w, x):
    leaves, found = gradients(function, w, x, create_graph=True)
    found = [one.sin().sum() for one in found if one.requires_grad] or [(0 * leaves[0]).sum()]
    return torch.autograd.grad(found, leaves, allow_unused=True, materialize_grads=True)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- features
def first_gradients(op):
    """gradients"""
    same(gradients(called(op), *operands(op))[1], gradients(plain(op), *operands(op))[1])


def second_gradients(op):
    """second gradients"""
    same(seconds(called(op), *operands(op)), seconds(plain(op), *operands(op)))


def compiled(op):
    """`torch.compile(fullgraph=True)`"""
    torch._dynamo.reset()
    function, (w, x) = torch.compile(called(op), backend="aot_eager", fullgraph=True), operands(op)
    same(function(w, x), plain(op)(w, x))
    if w_is_float(op):
        same(gradients(function, w, x)[1], gradients(plain(op), w, x)[1])


def compiled_dynamic(op):
    """`compile`, sizes that change"""
    torch._dynamo.reset()
    backend = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = torch.compile(called(op), backend=backend, fullgraph=True, dynamic=True)
    for sizes in ((2, 6, 5), (3, 8, 9), (5, 7, 6), (4, 9, 9)):
        w, x = operands(op, *sizes)
        same(function(w, x), plain(op)(w, x))
    assert backend.frame_count <= 2


def compiled_in_pieces(op):
    """`compile` without `fullgraph`"""
    torch._dynamo.reset()
    function, (w, x) = torch.compile(called(op), backend="aot_eager"), operands(op)
    same(function(w, x), plain(op)(w, x))
    if w_is_float(op):
        same(gradients(function, w, x)[1], gradients(plain(op), w, x)[1])


class Net(torch.nn.Module):
    def __init__(self, op):
        super(Net, self).__init__()
        self.function, self.w = called(op), torch.nn.Parameter(operands(op)[0], requires_grad=w_is_float(op))

    def forward(self, x):
        return self.function(self.w, x)


def other_sizes(module, op):
    w, x = operands(op, 5, 9, 8)
    w = module.w.detach()
    same(module(x), plain(op)(w, x))
    if w_is_float(op):
        x.requires_grad_()
        found = torch.autograd.grad(module(x).sum(), [x, module.w])
        w.requires_grad_()
        same(found, torch.autograd.grad(plain(op)(w, x).sum(), [x, w]))


def exported(op):
    """`torch.export`, other sizes"""
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    other_sizes(torch.export.export(Net(op), (operands(op)[1],), dynamic_shapes=(sizes,)).module(), op)


def traced(op):
    """`torch.jit.trace`, other sizes"""
    other_sizes(torch.jit.trace(Net(op), operands(op)[1], check_trace=False), op)


def symbolically_traced(op):
    """`torch.fx.symbolic_trace`"""
    other_sizes(torch.fx.symbolic_trace(Net(op)), op)


def batches(op):
    """Three samples of each operand."""
    w, x = operands(op)
    return torch.stack([w, w.flip(0), w.flip(1)]), torch.stack([x, x.flip(0), x.flip(1)])


def mapped(op):
    """`vmap`"""
    w, x = batches(op)
    for dims in ((0, 0), (None, 0), (0, None)):
        ours = [t if d == 0 else t[0] for t, d in zip((w, x), dims)]
        each = [[t[i] if d == 0 else t[0] for t, d in zip((w, x), dims)] for i in range(3)]
        same(torch.func.vmap(called(op), dims)(*ours), torch.stack([plain(op)(*one) for one in each]))


def functional_gradients(op):
    """`torch.func.grad`, `vjp`"""
    w, x = operands(op)
    result, pull = torch.func.vjp(called(op), w, x)
    expected = gradients(plain(op), w, x)[1]
    same(pull(torch.cos(result)), expected)
    expected = torch.autograd.grad(plain(op)(w.requires_grad_(), x).sum(), w)[0]
    same(torch.func.grad(lambda w: called(op)(w, x).sum())(w.detach()), expected)


def per_sample(op):
    """gradients for each sample"""
    w, x = batches(op)
    found = torch.func.vmap(torch.func.grad(lambda w, x: called(op)(w, x).sum()), (None, 0))(w[0], x)
    leaf = w[0].clone().requires_grad_()
    same(found, torch.stack([torch.autograd.grad(plain(op)(leaf, one).sum(), leaf)[0] for one in x]))


def forward_mode(op):
    """`jvp`, dual numbers"""
    (w, x), function = operands(op), called(op)
    tangents = torch.randn_like(w), torch.randn_like(x)
    result, found = torch.func.jvp(function, (w, x), tangents)
    grads = gradients(plain(op), w, x)[1]
    if op.normalize_grad_w is None:  # which no tangent has
        same((found * torch.cos(result)).sum(), sum((g * t).sum() for g, t in zip(grads, tangents)))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip((w, x), tangents)]
        same(forward_ad.unpack_dual(function(*duals)).tangent, found)


def batched_gradients(op):
    """`is_grads_batched`"""
    w, x = [t.requires_grad_() for t in operands(op)]
    result, expected = called(op)(w, x), plain(op)(w, x)
    grads = torch.randn((3,) + result.shape, dtype=result.dtype)
    found = torch.autograd.grad(result, (w, x), grads, is_grads_batched=True)
    each = [torch.autograd.grad(expected, (w, x), grad, retain_graph=True) for grad in grads]
    same(found, tuple(torch.stack(one) for one in zip(*each)))


def checked_operators(op):
    """`torch.library.opcheck`"""
    w, x = operands(op)
    name = graph.key(op.token, w.dtype)
    if name is None:
        raise RuntimeError("it isn't recorded")
    numbers = [2, 1, 1, 1, 1, 1, 0, 1, 2]
    rows = w[0, 0].clone(), w[1, 0].clone()  # no views of what is about to require grad
    for first, second, others in ((x, w, (numbers, "conv", name)), rows + (([], "linear", name),)):
        dot, backward = torch.ops.im2col_compat.dot.default, torch.ops.im2col_compat.dot_backward.default
        torch.library.opcheck(dot, (first, second) + others)
        if w_is_float(op):
            grad = torch.randn(dot(first, second, *others).shape, dtype=first.dtype)
            torch.library.opcheck(backward, (grad, [True, True], first, second) + others)
            torch.library.opcheck(dot, (first.requires_grad_(), second.requires_grad_()) + others)


def counted(op):
    """`FlopCounterMode`"""
    w, x = operands(op)
    with FlopCounterMode(display=False) as counter:
        called(op)(w, x)
    with FlopCounterMode(display=False) as expected:
        called(ops.dot)(w.double(), x.double())
    if counter.get_total_flops() == 0:
        raise RuntimeError("PyTorch counts no elementwise operations")
    assert counter.get_total_flops() == expected.get_total_flops()


def on_meta(op):
    """`device="meta"`"""
    w, x = operands(op)
    found = called(op)(w.to("meta"), x.to("meta"))
    expected = plain(op)(w, x)
    assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "meta")


def to_onnx(op):
    """`torch.onnx.export`, other sizes"""
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h", min=4), 3: torch.export.Dim("w", min=4)}
    net, dtype = Net(op), torch.int64 if is_table(op) else torch.float32  # onnxruntime convolves no float64
    net.w.data = net.w.data.to(dtype)
    try:
        program = torch.onnx.export(
            net, (operands(op)[1].to(dtype),), dynamo=True, verbose=False, dynamic_shapes=(sizes,)
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise RuntimeError(str(error.__cause__))
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    x = operands(op, 5, 9, 8)[1].to(dtype)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), net(x).detach(), rtol=1e-3, atol=1e-3)


FEATURES = [
    first_gradients, second_gradients, functional_gradients, batched_gradients, mapped, per_sample, forward_mode,
    compiled, compiled_dynamic, compiled_in_pieces, exported, traced, symbolically_traced, checked_operators, counted,
    on_meta,
] + [to_onnx] * (onnxruntime is not None)  # fmt: skip
#: What integers, which have no gradients, are not asked.
OF_FLOATS = [first_gradients, second_gradients, functional_gradients, batched_gradients, per_sample, forward_mode]
#: What PyTorch's own functions, which "dot" is, are not asked.
OF_OPERATORS = [checked_operators]


def outcome(kind, feature):
    """ "yes"; "-" where there is nothing to ask; or the error that says no. AssertionError where a result is wrong."""
    op = KINDS[kind]
    if is_table(op) and feature in OF_FLOATS or op.is_dot and feature in OF_OPERATORS:
        return "-"
    try:
        feature(op)
    except (RuntimeError, NotImplementedError, torch._dynamo.exc.Unsupported) as error:
        return str(error)
    return "yes"
