"""The contestants. Each takes a problem and its x and w, and returns a function without arguments, to be timed.

What can't be had raises: ImportError, or NotRun with a reason.
"""

import ctypes

import torch
import torch.nn.functional as F
from problems import Linear, grad_of_result

import im2col_compat
from im2col_compat.codegen import compile as compiler
from im2col_compat.codegen import template as source
from im2col_compat.engines import choose as backends
from im2col_compat.paths import kernels as fused

AT_ONCE = 4 * 2**30  # bytes of temporaries


class NotRun(Exception):
    """Why a contestant doesn't take part."""


# ---------------------------------------------------------------- ours


def ours(op):
    return lambda problem, x, w: lambda: problem.ours(x, w, op)


def ours_chunked(op):
    """The same, evaluated with tensor operations, a block at a time."""

    def build(problem, x, w):
        def call():
            with im2col_compat.use_backend("torch"):
                return problem.ours(x, w, op)

        return call

    return build


def ours_into(op):
    """Into an output that is there already, which is not a public function: the call that the public one ends in."""

    def build(problem, x, w):
        arguments, forward = [], fused._forward
        fused._forward = lambda *given: arguments.append(given) or forward(*given)
        try:
            out = problem.ours(x, w, op)
        finally:
            fused._forward = forward
        ((shapes, kernels, arrays, weight, image),) = arguments

        def call():
            addresses = [arrays.address(tensor) for tensor in (weight, image, out)]
            fused._call(fused.FORWARD, shapes, kernels, addresses, shapes.y_strides)
            return out

        return call

    return build


def ours_threads(op, threads):
    def build(problem, x, w):
        def call():
            torch.set_num_threads(threads)
            return problem.ours(x, w, op)

        return call

    return build


# ---------------------------------------------------------------- l1


def distance(w, x):
    return (w - x).abs()


def native(problem, x, w):
    """The ordinary product: another result, the speed to aim at."""
    return lambda: problem.native(x, w)


def cdist(problem, x, w):
    if isinstance(problem, Linear):
        return lambda: torch.cdist(x, w, p=1)
    return lambda: problem.result(torch.cdist(problem.rows(w)[None], problem.columns(x).transpose(1, 2), p=1))


def addernet(problem, x, w):
    """adder2d_function of the published code, without its minus."""

    def call(images):
        columns = problem.columns(images)
        batch, taps, length = columns.shape
        columns = columns.permute(1, 2, 0).contiguous().view(taps, -1)
        y = (problem.rows(w).unsqueeze(2) - columns.unsqueeze(0)).abs().sum(1)
        return y.view(-1, length, batch).permute(2, 0, 1)

    if addernet_needs(problem) <= AT_ONCE:
        return lambda: problem.result(call(x))
    return lambda: problem.result(torch.cat([call(image) for image in x.split(1)]))


def addernet_needs(problem):
    """Bytes: the differences and their sizes."""
    return 2 * problem.sizes[0] * problem.one_image_bytes


def compiled(problem, x, w):
    torch._dynamo.reset()
    if isinstance(problem, Linear):
        function = torch.compile(lambda x, w: problem.broadcast(distance, w, x), dynamic=False)
        return lambda: function(x, w)
    function = torch.compile(lambda rows, columns: distance(rows[:, :, None], columns[:, None]).sum(2), dynamic=False)
    return lambda: problem.result(function(problem.rows(w), problem.columns(x)))


def numba_loops(name):
    def build(problem, x, w):
        import loops

        rows = problem.rows(w).numpy()
        function = getattr(loops, name)(parallel=torch.get_num_threads() > 1)
        return lambda: problem.result(torch.from_numpy(function(rows, problem.columns(x).numpy())))

    return build


def keops(problem, x, w):
    import pykeops

    pykeops.set_verbose(False)
    from pykeops.torch import LazyTensor

    batch, filters, taps, length = problem.sizes

    def call():
        # KeOps sums over a dimension of (O, N * L, 1), the K terms being a vector's elements.
        columns = LazyTensor(problem.columns(x).transpose(1, 2).reshape(1, batch * length, 1, taps))
        y = (LazyTensor(problem.rows(w).reshape(filters, 1, 1, taps)) - columns).abs().sum(-1).sum(2)
        return problem.result(y.view(filters, batch, length).transpose(0, 1))

    return call


def semiring_einsum(problem, x, w):
    import torch_semiring_einsum as semiring

    if problem.macs > 5e8:
        raise NotRun("it takes more than ten seconds a call")
    equation = semiring.compile_equation("ok,nkl->nol")

    def distances(compute_sum):
        return compute_sum(
            lambda acc, block: acc.add_(block), lambda terms, dims: terms.abs().sum(dims), lambda w, x: w.sub_(x)
        )

    return lambda: problem.result(
        semiring.semiring_einsum_forward(
            equation, (problem.rows(w), problem.columns(x)), semiring.AUTOMATIC_BLOCK_SIZE, distances
        )
    )


# ---------------------------------------------------------------- unfold and fold


def with_engine(engine, call):
    """The call with an engine forced; use_backend itself would be a large part of a small call."""

    def forced():
        backends._forced = engine
        result = call()
        backends._forced = "auto"
        return result

    return forced


def our_unfold(problem, x, w, engine="ffi", recorded=False):
    x = x.clone().requires_grad_(recorded)
    return with_engine(engine, lambda: im2col_compat.unfold(x, *problem.settings))


def our_unfold_into(problem, x, w):
    out = torch.empty_like(w)
    return with_engine("ffi", lambda: im2col_compat.unfold(x, *problem.settings, out=out))


def our_fold(problem, x, w, engine="ffi"):
    return with_engine(engine, lambda: im2col_compat.fold(w, problem.image_size, *problem.settings))


def torch_unfold(problem, x, w, recorded=False):
    x = x.clone().requires_grad_(recorded)
    return lambda: F.unfold(x, *problem.settings)


def torch_fold(problem, x, w):
    return lambda: F.fold(w, problem.image_size, *problem.settings)


def copy(problem, x, w):
    """What memory can do: as many bytes, read and written."""
    out = torch.empty_like(w)
    return lambda: out.copy_(w)


def package_unfold_nd(problem, x, w):
    from unfoldNd import unfoldNd

    return lambda: unfoldNd(x, *problem.settings)


def package_fold_nd(problem, x, w):
    from unfoldNd import foldNd

    return lambda: foldNd(w, problem.image_size, *problem.settings)


# ---------------------------------------------------------------- signs and tables


def signs(v):
    """Not torch.sign: zero is +1."""
    return torch.where(v >= 0, 1.0, -1.0)


def native_of_signs(problem, x, w):
    return native(problem, signs(x), signs(w))


def native_of_floats(problem, x, w):
    """The ordinary product, as float32."""
    return native(problem, x.float(), w.float())


def table():
    """A multiplier that is a little wrong; signed, so that both bytes are at work."""
    values = torch.arange(256)
    products = values[:, None] * values - (7 * values[:, None] + 3 * values) % 50 - 32768
    return products.to(torch.int16).contiguous()


def ours_by_table(problem, x, w):
    return ours(im2col_compat.Op.from_table(table()))(problem, x, w)


#: Look-ups one by one with eight accumulators, over columns that are transposed so that both operands are contiguous: how
#: AdaPT does it.
LOOKUPS = """
#include <stdint.h>
__attribute__((visibility("default")))
void lookups(int64_t filters, int64_t length, int64_t taps, const uint8_t *w, const uint8_t *columns,
             const int16_t (*table)[256], int32_t *y)
{
    for (int64_t o = 0; o < filters; o++)
        for (int64_t l = 0; l < length; l++) {
            const uint8_t *a = w + o * taps, *b = columns + l * taps;
            int32_t sums[8] = {0}, sum = 0;
            int64_t k = 0;

            for (; k + 8 <= taps; k += 8)
                for (int i = 0; i < 8; i++)
                    sums[i] += table[a[k + i]][b[k + i]];
            for (; k < taps; k++)
                sum += table[a[k]][b[k]];
            for (int i = 0; i < 8; i++)
                sum += sums[i];
            y[o * length + l] = sum;
        }
}
"""


def one_by_one(problem, x, w):
    """With the flags of the library's own C."""
    function = ctypes.CDLL(compiler.library(LOOKUPS, source.FLAGS, "look-ups one by one")).lookups
    batch, filters, taps, length = problem.sizes
    entries = table()

    def call():
        columns = problem.columns(x).transpose(1, 2).contiguous()
        y = torch.empty(batch, filters, length, dtype=torch.int32)
        for image in range(batch):
            numbers = [ctypes.c_int64(number) for number in (filters, length, taps)]
            tensors = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (w, columns[image], entries, y[image])]
            function(*numbers, *tensors)
        return problem.result(y)

    return call


# ---------------------------------------------------------------- max_plus


def tropical_gemm(problem, x, w):
    import tropical_gemm

    a, b = w.numpy(), x.numpy()
    return lambda: torch.from_numpy(tropical_gemm.maxplus_matmul_2d(a, b))


def torch_max_plus(problem, x, w):
    return lambda: (w[:, :, None] + x).amax(1)


def compiled_max_plus(problem, x, w):
    torch._dynamo.reset()
    function = torch.compile(lambda w, x: (w[:, :, None] + x).amax(1), dynamic=False)
    return lambda: function(w, x)


# ---------------------------------------------------------------- forward and backward


def with_backward(forward):
    """y and both gradients. forward(problem, x, w) returns a function that returns y."""

    def build(problem, x, w):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        call = forward(problem, x, w)
        grad = grad_of_result(call())

        def both():
            y = call()
            return (y.detach(), *torch.autograd.grad(y, (x, w), grad))

        return both

    return build


def adder_term(w, x):
    """-|w - x| with AdderNet's gradients, for the reference."""
    d = (w - x).detach()
    return -d.abs() - d * (w - w.detach()) + d.clamp(-1, 1) * (x - x.detach())
