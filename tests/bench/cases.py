"""The cases: which contestants meet on which problems. `run` checks them first, then times them."""

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
from problems import Codes, Columns, Conv, Depthwise, Linear, Matmul, reference

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
COLUMNS = [
    Columns(1, 64, 56, 3, 1, 1),
    Columns(32, 64, 56, 3, 1, 1),
    Columns(8, 3, 224, 7, 3, 2),
    Columns(8, 256, 14, 3, 1, 1),
    Columns(4, 64, 112, 3, 1, 2),
    Columns(16, 3, 32, 5, 2, 1),
    *(Columns(8, 64, 56, 3, 1, 1, dtype=dtype) for dtype in ("float64", "bfloat16", "bool")),
]
DIMENSIONS = [
    Columns(16, 64, 1000, 5, 2, 1, dims=1),
    Columns(8, 32, 4000, 3, 0, 2, dims=1),
    Columns(2, 16, 24, 3, 1, 1, dims=3),
    Columns(4, 8, 16, 2, 0, 2, dims=3),
]
DEPTHWISE = [
    Depthwise(batch, channels, size, channels, kernel, kernel // 2, 1)
    for channels, size, kernel in ((96, 112, 3), (96, 56, 3), (240, 28, 3), (480, 14, 5), (64, 56, 7))
    for batch in (1, 8)
]
CODES = [(16, channels, size, channels, 3, 1, 1) for channels, size in ((64, 28), (128, 28), (256, 14))]
# The columns of the first would take 116 MB, of the second 104 MB.
MEMORY = [Conv(4, 16, 224, 2, 3, 1, 1), Conv(1, 2, 1200, 3, 3, 1, 1)]
OWN_OPS = {
    "exp(-(w - x)²)": lambda w, x: torch.exp(-((w - x) ** 2)),
    "tanh(w x)": lambda w, x: torch.tanh(w * x),
    # Without the 0.01, gradients at the padding would be NaN.
    "sqrt(abs(w x) + 0.01)": lambda w, x: torch.sqrt(abs(w * x) + 0.01),
    "(abs(w) + 0.1)^x": lambda w, x: (abs(w) + 0.1) ** x,
    "w / (abs(x) + 1)": lambda w, x: w / (abs(x) + 1),
    "min(w, x)": lambda w, x: torch.min(w, x),
}


@dataclass
class Contestant:
    """against: whose time its ratio is to; one without is ours. check: the truth as a function of problem, x and w,
    or the name of who has the same results. exact: they must be equal."""

    name: str
    build: Callable
    against: str | None = None
    check: Callable | str | None = None
    exact: bool = False


@dataclass
class Case:
    section: str
    title: str
    problem: object
    contestants: list

    def __str__(self):
        return f"{self.section}: {self.title}"


def all_cases(quick):
    shapes, columns, dimensions, codes, memory, each = SHAPES, COLUMNS, DIMENSIONS, CODES, MEMORY, DEPTHWISE
    product, image = Matmul(64, 576, 3136), Conv(1, 64, 28, 64, 3, 1, 1)
    if quick:
        shapes = [Conv(2, 4, 12, 8, 3, 1, 1), Linear(16, 64, 32)]
        columns = [Columns(2, 3, 9, 3, 1, 1), Columns(1, 2, 12, 3, 0, 2, dtype="bfloat16")]
        dimensions = [Columns(2, 2, 20, 3, 1, 1, dims=1), Columns(1, 2, 5, 2, 0, 1, dims=3)]
        codes, memory = [(2, 40, 6, 40, 3, 1, 1)], [Conv(1, 4, 8, 4, 3, 1, 1)]
        product, image, each = Matmul(4, 30, 50), Conv(1, 4, 8, 4, 3, 1, 1), [Depthwise(2, 4, 9, 4, 3, 1, 1)]
    cases = [Case("l1", str(problem), problem, l1()) for problem in shapes]
    cases += [Case("gradients", str(problem), problem, gradients()) for problem in shapes]
    cases += [Case("depthwise", str(problem), problem, depthwise()) for problem in each]
    if torch.get_num_threads() > 1:
        cases += [Case("threads", str(problem), problem, threads()) for problem in shapes]
    cases += [Case("max_plus", str(product), product, max_plus())]
    cases += [Case("own", name, image, own(op)) for name, op in OWN_OPS.items()]
    cases += [Case("xnor", str(Conv(*code)), Conv(*code), xnor()) for code in codes]
    cases += [Case("table", str(Codes(*code)), Codes(*code), table()) for code in codes]
    cases += [Case("unfold", str(problem), problem, unfold()) for problem in columns]
    cases += [Case("dimensions", str(problem), problem, other_dimensions()) for problem in dimensions]
    cases += [Case("out", str(problem), problem, into_output()) for problem in columns[1:2]]
    cases += [Case("small", *small) for small in small_calls()]
    return cases + [Case("memory", str(problem), problem, []) for problem in memory]


# ---------------------------------------------------------------- contestants


def truth(multiply, **options):
    return functools.partial(reference, multiply=multiply, **options)


def l1():
    return [
        Contestant("l1", peers.ours("l1"), check=truth(peers.distance)),
        Contestant("own lambda", peers.ours(lambda w, x: abs(w - x)), "l1", "l1"),
        Contestant("F.conv2d, F.linear", peers.native, "l1"),
        Contestant("torch.compile", peers.compiled, "l1", "l1"),
        Contestant("numba", peers.numba_loops("l1"), "l1", "l1"),
        Contestant("unfold + cdist", peers.cdist, "l1", "l1"),
        Contestant("KeOps", peers.keops, "l1", "l1"),
        Contestant("AdderNet", peers.addernet, "l1", "l1"),
    ]


def gradients():
    adder = peers.with_backward(peers.ours("adder"))
    return [
        Contestant("l1", peers.with_backward(peers.ours("l1")), check=truth(peers.distance, backward=True)),
        Contestant("l1, forward alone", peers.ours("l1"), "l1"),
        Contestant("adder", adder, "l1", truth(peers.adder_term, backward=True)),
        Contestant("F.conv2d, F.linear", peers.with_backward(peers.native), "l1"),
    ]


def depthwise():
    def true(problem, x, w, backward=False):
        return problem.reference(x, w, peers.distance, backward)

    both = "l1, forward and backward"
    return [
        Contestant("l1", peers.ours("l1"), check=true),
        Contestant("F.conv2d", peers.native, "l1"),
        Contestant(both, peers.with_backward(peers.ours("l1")), check=functools.partial(true, backward=True)),
        Contestant("F.conv2d, forward and backward", peers.with_backward(peers.native), both),
        Contestant("xnor", peers.ours("xnor")),
        Contestant("F.conv2d of the signs", peers.native_of_signs, "xnor", "xnor", exact=True),
    ]


def threads():
    all_threads = peers.ours_threads("l1", torch.get_num_threads())
    return [
        Contestant("all threads", all_threads),
        Contestant("1 thread", peers.ours_threads("l1", 1), "all threads", "all threads", exact=True),
    ]


def max_plus():
    return [
        Contestant("max_plus", peers.ours("max_plus"), check=truth(lambda w, x: w + x, add=torch.amax)),
        Contestant("tropical-gemm", peers.tropical_gemm, "max_plus", "max_plus"),
        Contestant("torch.compile", peers.compiled_max_plus, "max_plus", "max_plus"),
        Contestant("numba", peers.numba_loops("max_plus"), "max_plus", "max_plus"),
        Contestant("torch broadcast", peers.torch_max_plus, "max_plus", "max_plus"),
    ]


def own(op):
    forward, both = "forward", "forward + backward"
    return [
        Contestant(forward, peers.ours(op), check=truth(op)),
        Contestant("tensor operations", peers.by_tensor_operations(op), forward, forward),
        Contestant(both, peers.with_backward(peers.ours(op)), check=truth(op, backward=True)),
        Contestant(f"{both} by tensor operations", peers.with_backward(peers.by_tensor_operations(op)), both, both),
    ]


def xnor():
    return [
        Contestant("xnor", peers.ours("xnor")),
        Contestant("F.conv2d of the signs", peers.native_of_signs, "xnor", "xnor", exact=True),
    ]


def table():
    return [
        Contestant("table", peers.ours_by_table),
        Contestant("one by one", peers.one_by_one, "table", "table", exact=True),
        Contestant("F.conv2d of floats", peers.native_of_floats, "table"),
    ]


def unfold():
    return [
        Contestant("unfold", peers.our_unfold),
        Contestant("F.unfold", peers.torch_unfold, "unfold", "unfold"),
        Contestant("fold", peers.our_fold),
        Contestant("F.fold", peers.torch_fold, "fold", "fold"),
    ]


def other_dimensions():
    return [
        Contestant("unfold", peers.our_unfold),
        Contestant("unfoldNd", peers.package_unfold_nd, "unfold", "unfold"),
        Contestant("fold", peers.our_fold),
        Contestant("foldNd", peers.package_fold_nd, "fold", "fold"),
    ]


def into_output():
    return [
        Contestant("unfold into out=", peers.our_unfold_into),
        Contestant("out.copy_", peers.copy, "unfold into out="),
    ]


def small_calls():
    """Titles, problems and contestants."""
    image, columns = Conv(1, 1, 8, 1, 3, 0, 1), Columns(1, 1, 8, 3, 0, 1)
    ours, native = peers.ours("l1"), peers.native
    distances = truth(peers.distance)
    for title, change in (
        ('conv2d, op="l1"', lambda build: build),
        ('conv2d, op="l1", recorded', peers.recorded),
        ('conv2d, op="l1", in torch.compile', peers.in_compile),
    ):
        yield title, image, [
            Contestant("ours", change(ours), check=distances),
            Contestant("PyTorch", change(native), "ours"),
        ]
    for title, change in (("unfold", lambda build: build), ("unfold, recorded", peers.recorded)):
        yield title, columns, [
            Contestant("ours", change(peers.our_unfold_by_choice)),
            Contestant("PyTorch", change(peers.torch_unfold), "ours", "ours"),
        ]


# ---------------------------------------------------------------- a case's results


def run(case, quick, progress):
    """The case's results, for JSON."""
    result = {"section": case.section, "title": case.title, "threads": torch.get_num_threads(), "wrong": []}
    if case.section == "memory":
        return dict(result, mebibytes=peak_memory(case.problem))
    limits = {"rounds": 3, "seconds": 0} if quick else {}
    calls, not_run = checked(case, progress)
    timings = timing.measure(calls, progress=progress, **limits)
    rows = {c.name: row(c, timings, case.problem.macs) for c in case.contestants if c.name in timings}
    wrong = [c.name for c in case.contestants if c.against is None and c.name in not_run]
    return dict(result, rows=rows, not_run=not_run, wrong=wrong)


def checked(case, progress):
    """The contestants that have right results, and why the others don't take part."""
    count = torch.get_num_threads()
    x, w = case.problem.operands()
    calls, results, not_run = {}, {}, {}
    for contestant in case.contestants:
        progress(f"check: {contestant.name}")
        # Whatever a peer raises is why it doesn't run.
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
        torch.set_num_threads(count)
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
    # In a dtype that has exact differences.
    pairs = [(a.double(), b.double()) for a, b in zip(results[contestant.name], expected, strict=True)]
    if contestant.exact:
        return 0.0 if all(torch.equal(*pair) for pair in pairs) else math.inf
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def row(contestant, timings, macs):
    mine, base = timings[contestant.name], timings.get(contestant.against)
    return {
        "seconds": mine.median,
        "gmacs": macs / mine.median / 1e9,
        "cores": mine.cores,
        "ratio": timing.ratios(mine, base) if base else None,
    }


def peak_memory(problem):
    """MiB beside the result and the gradients, in a process of its own."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory.py")
    arguments = [str(getattr(problem, name)) for name in problem.__dataclass_fields__]
    numbers = subprocess.check_output([sys.executable, script, *arguments], text=True).split()
    return dict(zip(("forward", "backward"), map(float, numbers), strict=True))
