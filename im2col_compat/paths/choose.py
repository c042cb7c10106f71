"""Which path evaluates an op on which operands, and why."""

import functools

from im2col_compat import lowlevel
from im2col_compat.codegen import factors, fingerprint
from im2col_compat.codegen import kernels as c_kernels
from im2col_compat.compat import dtypes, graphs
from im2col_compat.compat.arrays import NUMPY, TORCH
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.warn import SlowPathWarning, warn
from im2col_compat.engines import choose as engines
from im2col_compat.paths import blocks, cuda, kernels, native, once, products, recorded
from im2col_compat.paths.normalize import with_normalized_gradient
from im2col_compat.problem import product
from im2col_compat.terms import parameters
from im2col_compat.terms.function import codes

#: Multiplications that take tensor operations more than a few milliseconds.
LEAST_TO_SAY = 2 * 10**6
_announced = Memo(1000)  # the codes of ops that were said to be slow
_lasting = Memo(1000)  # what _to_last() gave for what a call depends on


def run(op, problem, arrays, names, w, x, b=None, params=()):
    """The result for checked w and x, of the problem's shapes, plus a bias. names: what messages call w and x.

    params: the values of op.term.names, tensors and numbers.
    """
    is_dot = op.is_dot
    if is_dot and problem.is_conv and engines.forced() is None and native.serves(problem, arrays):
        return native.conv(problem, x, w, b)
    weights, x = operands(op, problem, arrays, names, w, x, b, params)
    if is_dot and not problem.is_conv:
        result = native.of_arrays(problem, weights[0], x)
    else:
        result = computed(op, problem, arrays, weights, x)
    return result if b is None else plus(op, arrays, result, b, problem)


def operands(op, problem, arrays, names, w, x, b, params):
    """(the weight and the parameters, x) as the op's term takes them, checked, and with the gradient that the op wants."""
    if not arrays.alike(w, x) or b is not None and not arrays.alike(b, x):
        _check_alike(op, problem, arrays, names, w, x, b)
    w, x = op.term.operands(arrays, problem.function, (names[0], w), (names[1], x))
    if params:
        params = parameters.as_tensors(problem.function, op, arrays, w, params)
    # matmul's operands are equals: neither is a layer's weight.
    if op.normalize_grad_w is not None and arrays is TORCH and problem.function != "matmul":
        w = with_normalized_gradient(w, op.normalize_grad_w)
    return (w,) + tuple(params), x


def computed(op, problem, arrays, weights, x):
    """The result for weights and x, by the path that evaluates the op on them."""
    if op.is_dot:
        return blocks.run(op, problem, arrays, weights, x)
    dtype = arrays.dtype(x)
    if dtype in dtypes.HALVES:
        # Widened, computed in float32, and rounded once.
        weights, x = tuple(arrays.cast(w, "float32") for w in weights), arrays.cast(x, "float32")
        return arrays.cast(computed(op, problem, arrays, weights, x), dtype)
    found = _found_before(op, problem, arrays, dtype, weights, x)
    if found is not None:
        return kernels.run(op, problem, found, arrays, weights, x)
    traced = products.of(op, problem, arrays, x)
    if traced is not None:
        return products.run(op, problem, traced, weights, x)
    before = once.of(op, problem, arrays, x)
    if before is not None:
        weights, x = once.operands(op, before[1], weights, x)
        op = before[0]
    path, found = kernels_on(op, problem, arrays, weights, x)
    if found is None:
        return path.run(op, problem, arrays, weights, x)
    return path.run(op, problem, found, arrays, weights, x)


def _found_before(op, problem, arrays, dtype, weights, x):
    """The C kernels that an earlier call like this one found: to look for them takes longer than a small call. None where
    the path depends on more than the key here, or isn't that by C kernels."""
    if lowlevel.missing or len(weights) > 1 or engines.forced() is not None or not arrays.in_memory(x, weights[0]):
        return None
    mark = op if op.is_named else fingerprint.mark(op)
    if mark is None:
        return None
    # A problem's hash takes long. The same arguments give the same problem, which is kept: its identity is no other's.
    key = id(problem), mark, dtype, arrays, c_kernels.level()
    kept = _lasting.known(key) or _lasting.get(key, functools.partial(_to_last, op, problem, arrays, dtype, x))
    return kept[1]


def _to_last(op, problem, arrays, dtype, x):
    """(problem, what kernels.lasting() gives)."""
    if 0 in problem.w_shape + problem.x_shape:
        return problem, None
    if products.of(op, problem, arrays, x) is not None or once.of(op, problem, arrays, x) is not None:
        return problem, None
    found, _ = kernels_for(op, dtype, arrays)
    return problem, None if found is None else kernels.lasting(op, problem, found)


def _check_alike(op, problem, arrays, names, w, x, b):
    """RuntimeError for operands or a bias of other dtypes, or on another device, than the first operand."""
    arguments = [(names[0], w), (names[1], x)]
    if names[1] == "input":  # the first, to those who call conv2d and linear
        arguments.reverse()
    (first, value), (other, second) = arguments
    expected, device = arrays.dtype(value), arrays.device(value)
    for name, tensor in [(other, second)] + ([] if b is None else [("bias", b)]):
        dtype = arrays.dtype(tensor)
        if dtype != expected and (name == "bias" or not op.term.mixes_dtypes):
            if name != "bias" or dtype != op.result_dtype(expected):
                text = "{}(): {} must have {}'s dtype {}, but has {}"
                raise RuntimeError(text.format(problem.function, name, first, expected, dtype))
        if arrays.device(tensor) != device:
            text = "{}(): {} must be on {}'s device {}, but is on {}"
            raise RuntimeError(text.format(problem.function, name, first, device, arrays.device(tensor)))


def kernels_for(op, dtype, arrays, scalars=()):
    """(Kernels, None) for operands of a dtype's name, or (None, the reason why there are none).

    arrays: TORCH or NUMPY, what the op's functions are to be given. scalars: the parameters that are one number for all.
    """
    if lowlevel.missing:
        return None, lowlevel.missing
    if scalars:
        return op.term.kernels(op, dtype, arrays, c_kernels.level(), scalars)
    return op.term.kernels(op, dtype, arrays, c_kernels.level())


def kernels_on(op, problem, arrays, weights, x):
    """(the path, its kernels for these operands); (blocks, None) where tensor operations evaluate the op."""
    if engines.forced() is not None or 0 in problem.w_shape or 0 in problem.x_shape:
        return blocks, None
    w, scalars, path = weights[0], (), kernels
    if len(weights) > 1:
        scalars = tuple(name for name, t in zip(op.term.names, weights[1:]) if recorded.is_scalar(t))
    if arrays.in_memory(x, *weights) or arrays is TORCH and recorded.takes_samples(TORCH.are_plain_on_cpu, x, *weights):
        found, reason = kernels_for(op, arrays.dtype(x), arrays, scalars)
    elif arrays is TORCH and graphs.tracing():
        text = "{}(): torch.jit.trace can't record {} with sizes that may change. torch.compile and torch.export can"
        raise RuntimeError(text.format(problem.function, op))
    elif arrays is TORCH and (
        arrays.on_gpu(x, *weights) or recorded.takes_samples(arrays.are_plain_on_gpu, x, *weights)
    ):
        path = cuda
        found, reason = cuda.kernels_for(op, problem, x, scalars)
    else:
        found, reason = None, _why_not(arrays, w, x)
    if found is not None and found.captured and arrays is TORCH:
        reason = _cannot_capture(path, [value for value in found.captured if arrays.owns(value)])
        found = found if reason is None else None
    if found is None and op.term.only_kernels:
        raise RuntimeError("{}: {}".format(op, reason))
    if found is None and arrays.has_memory(x):
        _announce(op, problem, reason)
    return (blocks, None) if found is None else (path, found)


def _cannot_capture(path, tensors):
    """Why kernels don't take tensors that functions capture; None where they do."""
    if graphs.transformed():
        return "torch.func's transforms can't follow the tensors that its functions capture"
    if path is kernels and not TORCH.in_memory(*tensors):
        return "its functions capture a tensor of another device"
    return None


def _why_not(arrays, w, x):
    """Why kernels don't take these operands, whatever the op and the dtype."""
    devices = sorted({arrays.device(operand) for operand in (w, x)} - {"cpu"})
    if devices:
        return "there are no kernels for the device {}".format(devices[0])
    if graphs.in_forward_mode():
        return "kernels have no forward mode"
    return "kernels take plain operands in memory"


def _announce(op, problem, reason):
    """Say once for an op why it is slow, where that takes more than a few milliseconds."""
    if product(problem.result_shape) * problem.taps < LEAST_TO_SAY or _announced.has(codes(op)):
        return
    _announced.get(codes(op), bool)
    text = "im2col_compat: {} is evaluated with tensor operations, several times as slowly as by C kernels: {}"
    warn(text.format(op, reason), SlowPathWarning)


def plus(op, arrays, result, bias, problem):
    """result + bias, the result being ours to change, unless its gradient needs it."""
    bias = arrays.reshape(bias, (-1,) + (1,) * len(problem.image)) if problem.is_conv else bias
    if arrays.dtype(bias) != arrays.dtype(result):
        bias = arrays.cast(bias, arrays.dtype(result))
    return result + bias if op.reduction.saves_result else arrays.add(result, bias)


def explain(op, dtype, device="cpu"):
    """The text of Op.explain: which path an op takes, why, and its functions in C."""
    arrays, kind = TORCH or NUMPY, str(device).split(":")[0]
    lines = ["{} on {}{}:".format(op, dtype, "" if kind == "cpu" else " on " + kind)]
    dtype = "float32" if dtype in dtypes.HALVES else dtype  # which they are widened to
    forced = engines.forced()
    if op.is_dot and arrays is TORCH:
        lines.append("PyTorch's own conv2d, linear and matmul.")
    elif forced is not None:
        lines.append("tensor operations, in blocks: the engine {!r} is forced.".format(forced))
    else:
        traced = None if arrays is NUMPY or op.is_named else op.term.product(op, dtype)
        if traced is not None:
            lines.append(_of_factors(traced))
        else:
            before = op.term.split(op, dtype) if arrays is TORCH and not op.is_named else None
            if before is not None:
                op, parts = before[0], before[1].parts
                lines.append("Computed once an element, before:")
                lines += ["{} = {}".format(name, parts[name]) for name in sorted(parts) if parts[name].args]
            explained = {"cpu": _explain_c, "cuda": _explain_cuda}.get(kind, _explain_others)
            lines += explained(op, dtype, arrays, kind)
    return "\n".join(lines)


def _of_factors(traced):
    return "PyTorch's own conv2d, linear and matmul of\nw: {}\nx: {}".format(*factors.pair(traced.term))


def _explain_c(op, dtype, arrays, kind):
    found, reason = kernels_for(op, dtype, arrays)
    if found is None:
        return [_in_blocks(reason)]
    is_product = found.product is not None and arrays is TORCH
    lines = [_of_factors(found.product)] if is_product else []
    lines.append("{}C kernels, {}.".format("Gradients: " if is_product else "", found.origin))
    if found.pack is None and found.forward is None or found.texts is not None:
        text = op.term.explained(op, dtype, arrays, found)
        lines.append(text.replace("static inline __attribute__((always_inline)) ", "").rstrip())
    return lines


def _explain_cuda(op, dtype, arrays, kind):
    found, reason = cuda.kernels_of(op, dtype)
    if found is None:
        return [_in_blocks(reason)]
    lines = ["CUDA kernels, {}.".format(found.origin)]
    return lines + [cuda.explained(op, found)] if found.has_functions else lines


def _explain_others(op, dtype, arrays, kind):
    return [_in_blocks("there are no kernels for the device {}".format(kind))]


def _in_blocks(reason):
    return "tensor operations, in blocks: {}.".format(reason)
