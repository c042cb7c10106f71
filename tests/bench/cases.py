"""The tables: which contestants meet on which problems. `run` checks them, then times them."""

import functools
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import peers
import timing
import torch

from problems import Codes, Columns, Conv, Linear, Matmul, reference

TOLERANCE = 1e-4  # of the largest element

SHAPES = [
    Conv(1, 64, 56, 64, 3, 1, 1),
    Conv(8, 3, 224, 64, 7, 3, 2),
    Conv(8, 256, 14, 256, 3, 1, 1),
    Conv(32, 64, 56, 64, 1, 0, 1),
    Conv(16, 16, 32, 16, 3, 1, 1),
    Conv(64, 1, 28, 32, 5, 2, 1),
    Linear(256, 1024, 1024),
]
# Columns of the first take 116 MB, of the second 104 MB.
MEMORY_SHAPES = [Conv(4, 16, 224, 2, 3, 1, 1), Conv(1, 2, 1200, 3, 3, 1, 1)]
QUICK_SHAPES = [Conv(2, 4, 12, 8, 3, 1, 1), Linear(16, 64, 32)]

COLUMNS = [
    Columns(1, 64, 56, 3, 1, 1),
    Columns(32, 64, 56, 3, 1, 1),
    Columns(8, 3, 224, 7, 3, 2),
    Columns(8, 256, 14, 3, 1, 1),
    Columns(4, 64, 112, 3, 1, 2),
    Columns(16, 3, 32, 5, 2, 1),
]
OTHER_DTYPES = [
    Columns(8, 64, 56, 3, 1, 1, dtype=dtype)
    for dtype in ("float64", "float16", "bfloat16", "complex64", "int8", "bool")
]
LARGE_COLUMNS = [Columns(32, 64, 56, 3, 1, 1), Columns(16, 64, 56, 5, 0, 1), Columns(8, 64, 112, 3, 1, 1)]
DIMENSIONS = [
    Columns(16, 64, 1000, 5, 2, 1, dims=1),
    Columns(8, 32, 4000, 3, 0, 2, dims=1),
    Columns(2, 16, 24, 3, 1, 1, dims=3),
    Columns(4, 8, 16, 2, 0, 2, dims=3),
]
QUICK_COLUMNS = [Columns(2, 3, 9, 3, 1, 1), Columns(1, 2, 12, 3, 0, 2, dtype="float16")]
QUICK_DIMENSIONS = [Columns(2, 2, 20, 3, 1, 1, dims=1), Columns(1, 2, 5, 2, 0, 1, dims=3)]

INTEGER_SIZES = [(channels, size) for channels in (64, 128, 256) for size in (28, 14)]
QUICK_INTEGER_SIZES = [(40, 6)]

OWN_OPS = {
    "exp(-(w - x)²)": lambda w, x: torch.exp(-((w - x) ** 2)),
    "tanh(w x)": lambda w, x: torch.tanh(w * x),
    "sigmoid(w x)": lambda w, x: torch.sigmoid(w * x),
    # Without the 0.01 gradients at the padding would be NaN.
    "sqrt(abs(w x) + 0.01)": lambda w, x: torch.sqrt(abs(w * x) + 0.01),
    "(abs(w) + 0.1)^x": lambda w, x: (abs(w) + 0.1) ** x,
    "w / (abs(x) + 1)": lambda w, x: w / (abs(x) + 1),
    "min(w, x)": lambda w, x: torch.min(w, x),
    "w x": lambda w, x: w * x,
}


@dataclass
class Contestant:
    """against: whose time its ratio is to. check: the truth, a function of problem, x and w, or who has its results."""

    name: str
    build: Callable
    against: str | None = None
    check: Callable | str | None = None


@dataclass
class Case:
    table: str
    title: str
    problem: object
    contestants: list

    def __str__(self):
        return f"{self.table}: {self.title}"


def truth(multiply, **options):
    return functools.partial(reference, multiply=multiply, **options)


def forward():
    """A. l1 against what else there is."""
    return [
        Contestant("l1", peers.ours("l1"), check=truth(peers.distance)),
        Contestant("l1 into an output", peers.ours_into("l1"), "l1", "l1"),
        Contestant("own lambda", peers.ours(lambda w, x: abs(w - x)), "l1", "l1"),
        Contestant("F.conv2d, F.linear", peers.native, "l1"),
        Contestant("torch.compile", peers.compiled, "l1", "l1"),
        Contestant("numba", peers.numba_loops("l1"), "l1", "l1"),
        Contestant("unfold + cdist", peers.cdist, "l1", "l1"),
        Contestant("KeOps", peers.keops, "l1", "l1"),
        Contestant("torch-semiring-einsum", peers.semiring_einsum, "l1", "l1"),
        Contestant("AdderNet", peers.addernet, "l1", "l1"),
    ]


def max_plus():
    """B."""
    return [
        Contestant("max_plus", peers.ours("max_plus"), check=truth(lambda w, x: w + x, add=torch.amax)),
        Contestant("tropical-gemm", peers.tropical_gemm, "max_plus", "max_plus"),
        Contestant("torch.compile", peers.compiled_max_plus, "max_plus", "max_plus"),
        Contestant("numba", peers.numba_loops("max_plus"), "max_plus", "max_plus"),
        Contestant("torch broadcast", peers.torch_max_plus, "max_plus", "max_plus"),
    ]


def backward():
    """C. Names without "forward" are forward + backward."""
    l1, adder = peers.with_backward(peers.ours("l1")), peers.with_backward(peers.ours("adder"))
    return [
        Contestant("l1 forward", peers.ours("l1"), check=truth(peers.distance)),
        Contestant("l1", l1, "l1 forward", truth(peers.distance, backward=True)),
        Contestant("adder", adder, "l1 forward", truth(peers.adder_term, backward=True)),
    ]


def scaling():
    """D."""
    all_threads = peers.ours_threads("l1", torch.get_num_threads())
    return [
        Contestant("all threads", all_threads, check=truth(peers.distance)),
        Contestant("1 thread", peers.ours_threads("l1", 1), "all threads", "all threads"),
    ]


def own_op(op):
    """E."""
    return [
        Contestant("forward", peers.ours(op), check=truth(op)),
        Contestant("forward, in chunks", peers.ours_chunked(op), "forward", "forward"),
        Contestant("forward + backward", peers.with_backward(peers.ours(op)), "forward", truth(op, backward=True)),
        Contestant(
            "forward + backward, in chunks",
            peers.with_backward(peers.ours_chunked(op)),
            "forward + backward",
            "forward + backward",
        ),
    ]


def small_calls():
    """F."""
    return [
        Contestant("F.conv2d", peers.native, check=truth(torch.mul)),
        Contestant("dot", peers.ours("dot"), "F.conv2d", "F.conv2d"),
        Contestant("l1", peers.ours("l1"), "F.conv2d", truth(peers.distance)),
    ]


def unfolds():
    """H."""
    return [
        Contestant("unfold", peers.our_unfold),
        Contestant("F.unfold", peers.torch_unfold, "unfold", "unfold"),
        Contestant("fold", peers.our_fold),
        Contestant("F.fold", peers.torch_fold, "fold", "fold"),
    ]


def into():
    """I."""
    return [
        Contestant("unfold into out=", peers.our_unfold_into),
        Contestant("out.copy_", peers.copy, "unfold into out="),
    ]


def small_unfolds():
    """J."""
    recorded = functools.partial(peers.our_unfold, recorded=True)
    own_choice = functools.partial(peers.our_unfold, engine="auto")
    return [
        Contestant("F.unfold", peers.torch_unfold),
        Contestant("unfold", peers.our_unfold, "F.unfold", "F.unfold"),
        Contestant("unfold, engine not forced", own_choice, "F.unfold", "F.unfold"),
        Contestant("F.unfold, recorded", functools.partial(peers.torch_unfold, recorded=True)),
        Contestant("unfold, recorded", recorded, "F.unfold, recorded", "F.unfold"),
    ]


def other_dimensions():
    """K."""
    return [
        Contestant("unfold", peers.our_unfold),
        Contestant("unfoldNd", peers.package_unfold_nd, "unfold", "unfold"),
        Contestant("fold", peers.our_fold),
        Contestant("foldNd", peers.package_fold_nd, "fold", "fold"),
    ]


def of_signs():
    """L."""
    return [
        Contestant("xnor", peers.ours("xnor")),
        Contestant("F.conv2d of the signs", peers.native_of_signs, "xnor", "xnor"),
    ]


def of_tables():
    """M."""
    return [
        Contestant("table", peers.ours_by_table),
        Contestant("one by one, eight accumulators", peers.one_by_one, "table", "table"),
        Contestant("F.conv2d of floats", peers.native_of_floats, "table"),
    ]


def all_cases(quick):
    shapes = QUICK_SHAPES if quick else SHAPES
    product = Matmul(4, 30, 50) if quick else Matmul(64, 576, 3136)
    image = Conv(1, 4, 8, 4, 3, 1, 1) if quick else Conv(1, 64, 28, 64, 3, 1, 1)
    cases = [Case("A", str(problem), problem, forward()) for problem in shapes]
    cases += [Case("B", str(product), product, max_plus())]
    cases += [Case("C", str(problem), problem, backward()) for problem in shapes]
    if torch.get_num_threads() > 1:
        cases += [Case("D", str(problem), problem, scaling()) for problem in shapes]
    cases += [Case("E", name, image, own_op(op)) for name, op in OWN_OPS.items()]
    cases += [Case("F", "1x1x8² → 1, 3x3", Conv(1, 1, 8, 1, 3, 0, 1), small_calls())]
    cases += [Case("H", str(p), p, unfolds()) for p in (QUICK_COLUMNS if quick else COLUMNS + OTHER_DTYPES)]
    cases += [Case("I", str(p), p, into()) for p in (QUICK_COLUMNS if quick else LARGE_COLUMNS)]
    cases += [Case("J", "1x1x8², k3", Columns(1, 1, 8, 3, 0, 1), small_unfolds())]
    cases += [Case("K", str(p), p, other_dimensions()) for p in (QUICK_DIMENSIONS if quick else DIMENSIONS)]
    for channels, size in QUICK_INTEGER_SIZES if quick else INTEGER_SIZES:
        shape = (16, channels, size, channels, 3, 1, 1)
        cases += [Case("L", str(Conv(*shape)), Conv(*shape), of_signs())]
        cases += [Case("M", str(Codes(*shape)), Codes(*shape), of_tables())]
    return cases + [Case("G", str(problem), problem, []) for problem in ([image] if quick else MEMORY_SHAPES)]


def run(case, quick, progress):
    """The case's results, for JSON."""
    result = {"table": case.table, "title": case.title, "threads": torch.get_num_threads()}
    if case.table == "G":
        return dict(result, mebibytes=peak_memory(case.problem))
    limits = {"rounds": 3, "seconds": 0} if quick else {}
    calls, not_run = checked(case, progress)
    timings = timing.measure(calls, progress=progress, **limits)
    rows = {c.name: row(c, timings, case.problem.macs) for c in case.contestants if c.name in timings}
    return dict(result, kernel=getattr(case.problem, "kernel", None), rows=rows, not_run=not_run)


def checked(case, progress):
    """The contestants that have right results, and the reasons of those that haven't."""
    threads = torch.get_num_threads()
    x, w = case.problem.operands()
    calls, results, not_run = {}, {}, {}
    for contestant in case.contestants:
        progress(f"check: {contestant.name}")
        # Whatever a peer raises is why it isn't run.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call = contestant.build(case.problem, x, w)
                result = call()
                results[contestant.name] = result if isinstance(result, tuple) else (result,)
            error = error_of(contestant, results, case.problem, x, w)
            if not error <= TOLERANCE:
                raise peers.NotRun(f"wrong by {error:.1e} of the largest element")
            calls[contestant.name] = call
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".removeprefix("NotRun: ")
            not_run[contestant.name] = reason.splitlines()[0][:150]
        torch.set_num_threads(threads)
    return calls, not_run


def error_of(contestant, results, problem, x, w):
    """The largest error of any result, in parts of the largest element; 0 where there is nothing to compare with."""
    if contestant.check is None:
        return 0.0
    if callable(contestant.check):
        expected = contestant.check(problem, x, w)
    elif contestant.check in results:
        expected = results[contestant.check]
    else:
        raise peers.NotRun(f"{contestant.check!r} gave nothing to compare with")
    pairs = list(zip(results[contestant.name], expected, strict=True))
    if case_is_exact(contestant):
        return 0.0 if all(torch.equal(*wide(pair)) for pair in pairs) else math.inf
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in map(wide, pairs))


def case_is_exact(contestant):
    """Whether its results are integers, in whatever dtype."""
    return contestant.against in ("xnor", "table")


def wide(tensors):
    """In a dtype that has exact differences."""
    return [tensor.to(torch.complex128 if tensor.is_complex() else torch.double) for tensor in tensors]


def row(contestant, timings, macs):
    own = timings[contestant.name]
    base = timings.get(contestant.against)
    return {
        "seconds": own.median,
        "gmacs": macs / own.median / 1e9,
        "rounds": len(own.seconds),
        "cores": own.cores,
        "against": contestant.against,
        "ratio": timing.ratios(own, base) if base else None,
    }


def peak_memory(problem):
    """MiB beside the result and the gradients, in a process of its own."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory.py")
    arguments = [str(getattr(problem, name)) for name in problem.__dataclass_fields__]
    numbers = subprocess.check_output([sys.executable, script, *arguments], text=True).split()
    return dict(zip(("forward", "backward"), map(float, numbers), strict=True))
