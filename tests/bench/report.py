"""What is printed and written: machine, tables, targets, plot."""

import importlib.metadata
import os
import platform
import statistics
import subprocess

START, END = "<!-- bench: start -->", "<!-- bench: end -->"
PACKAGES = "im2col_compat torch numpy numba tropical-gemm pykeops torch-semiring-einsum".split()
# Names of contestants that are ours, but for those that need not be there.
OURS = {"l1", "own lambda", "max_plus", "l1 forward", "adder", "all threads", "1 thread", "dot"}
OURS |= {"unfold", "fold", "unfold into out=", "unfold, engine not forced", "unfold, recorded"}
OURS |= {"forward", "forward, in chunks", "forward + backward", "forward + backward, in chunks"}
OURS |= {"xnor", "table"}

TABLES = {
    "A": (
        'conv2d and linear, op="l1", forward',
        "Times of one call in parts of ours: 3.0 means that ours is three times as fast. F.conv2d and F.linear "
        "compute another thing, the ordinary product. Own lambda is `lambda w, x: abs(w - x)`, compiled before. "
        "torch.compile gets the columns from F.unfold, which is ten times as slow inside the graph. AdderNet is its published formulation, for one image at a time where the batch's temporaries would "
        "take more than 4 GB.",
    ),
    "B": ('matmul, op="max_plus"', "Times of one call in parts of ours."),
    "C": (
        "Forward and backward",
        "Times of forward + backward in parts of the forward of l1.",
    ),
    "D": ("Several threads", "How many times as long one thread takes, both in one process, by turns."),
    "E": (
        "Own ops",
        "On 1x64x28² → 64, 3x3. In chunks: what `use_backend` forces, tensor operations on a block at a time, in parts "
        "of what happens by itself. Forward + backward: in parts of forward.",
    ),
    "F": ("Small calls", "In parts of F.conv2d's time."),
    "H": (
        "unfold and fold",
        'The engine "ffi", with the output allocated in each call. Times of one call in parts of ours; elements of columns '
        "for GMAC/s.",
    ),
    "I": (
        "unfold into out=",
        "Into an output larger than the caches, in parts of ours. out.copy_ reads and writes as many bytes.",
    ),
    "J": ("Small unfolds", "In parts of F.unfold's time, with a gradient recorded or not."),
    "K": ("One and three dimensions", 'The PyPI package unfoldNd against the engine "ffi", in parts of ours.'),
    "L": (
        'conv2d, op="xnor"',
        "The results are equal. Times of one call, packing included, in parts of ours; signs were taken before F.conv2d.",
    ),
    "M": (
        "conv2d, op=Op.from_table(...)",
        "A table of 256x256 products of two bytes; the sums are equal. Times of one call in parts of ours: one by one is C "
        "with the flags of the library's own, columns and their transposition included.",
    ),
    "G": ("Memory", "MiB beside the result (forward) and the gradients (backward)."),
}


# ---------------------------------------------------------------- machine


def machine(date, arguments):
    """A list of what the numbers depend on."""
    cpu = _lscpu()
    flags = cpu.get("Flags", "").split()
    isa = [flag for flag in ("avx2", "fma", "avx512f", "avx512vl", "avx512_fp16") if flag in flags]
    caches = ", ".join(f"{name[:-6]} {size}" for name, size in cpu.items() if name.endswith(" cache"))
    lines = {
        "CPU": f"{cpu.get('Model name', platform.processor())}, {os.cpu_count()} cores, {' '.join(isa)}",
        "Caches": caches,
        "System": f"{_system()}, {platform.machine()}, {' '.join(platform.libc_ver())}",
        "Compiler": _first_line("g++", "--version"),
        "Versions": ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)]),
        "Command": " ".join(["python tests/bench/bench.py", *arguments]),
        "Date": date,
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def _lscpu():
    try:
        output = subprocess.check_output(["lscpu"], text=True, env=dict(os.environ, LC_ALL="C"))
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in output.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _first_line(*command):
    try:
        return subprocess.check_output(command, text=True).splitlines()[0]
    except OSError:
        return f"no {command[0]}"


def _version(package):
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package}: not installed"


# ---------------------------------------------------------------- tables


def tables(results):
    parts = []
    for letter, (title, text) in TABLES.items():
        mine = [result for result in results if result["table"] == letter]
        if not mine:
            continue
        parts.append(f"## {letter}. {title}\n\n{text}")
        for threads in sorted({result["threads"] for result in mine}):
            here = [result for result in mine if result["threads"] == threads]
            parts.append(f"### {letter}, threads: {threads}")
            parts += [_memory(here)] if letter == "G" else [_ratios(here), _absolutes(here), *_remarks(here)]
    return "\n\n".join(parts)


def _names(results):
    """Contestants, in order."""
    return list(dict.fromkeys(name for result in results for name in [*result["rows"], *result["not_run"]]))


def _table(corner, results, names, cell):
    header = [corner, *(result["title"] for result in results)]
    rows = [[name, *(cell(result, name) for result in results)] for name in names]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def _ratio(result, name):
    """Quartiles, or None."""
    return result["rows"].get(name, {}).get("ratio")


def _ratios(results):
    def cell(result, name):
        ratio = _ratio(result, name)
        return "{1:.2f} ({0:.2f} to {2:.2f})".format(*ratio) if ratio else "-"

    names = [name for name in _names(results) if any(_ratio(result, name) for result in results)]
    return _table("median ratio (quartiles)", results, names, cell)


def _absolutes(results):
    def cell(result, name):
        row = result["rows"].get(name)
        return f"{_time(row['seconds'])}, {row['gmacs']:.2g}" if row else "not run"

    return _table("time, GMAC/s", results, _names(results), cell)


def _time(seconds):
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def _memory(results):
    return _table("MiB", results, ["forward", "backward"], lambda result, name: f"{result['mebibytes'][name]:.1f}")


def _remarks(results):
    """A list of who didn't run, and of who used more cores than it was given."""
    lines = {}
    for result in results:
        for name, reason in result["not_run"].items():
            lines.setdefault(f"{name}: not run: {reason}", []).append(result["title"])
        for name, row in result["rows"].items():
            if row["cores"] > result["threads"] + 0.2:
                lines.setdefault(f"{name}: used more cores than it was given", []).append(result["title"])
    return ["\n".join(f"- {line} ({'; '.join(titles)})" for line, titles in lines.items())] if lines else []


def ours_failed(results):
    """Whether anything of ours was wrong, or raised."""
    return any(OURS & set(result.get("not_run", ())) for result in results)


# ---------------------------------------------------------------- targets


def targets(results):
    lines = []
    for threads in sorted({result["threads"] for result in results}):
        here = [result for result in results if result["threads"] == threads]
        for text, value, goal, at_least in _measured_targets(here, threads):
            if value is not None:  # else its cases were not run
                verdict = "reached" if (value >= goal if at_least else value <= goal) else "MISSED"
                lines.append([str(threads), text, f"{verdict}: {value:.2f}"])
    header = ["threads", "target", "reached"]
    return "## Targets\n\n" + "\n".join(
        "| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines]
    )


def _measured_targets(results, threads):
    """(text, value or None, goal, whether the goal is a lower limit), for one number of threads."""
    native = _of(results, "A", "F.conv2d, F.linear", lambda result: result["kernel"] in (3, 7))
    own = _of(results, "A", "own lambda")
    scaling = _of(results, "D", "1 thread", lambda result: result["rows"]["1 thread"]["seconds"] > 2e-3)
    memory = [value for r in results if r["table"] == "G" for value in r["mebibytes"].values()]
    yield "l1 at 0.40 of F.conv2d's speed or more, on each 3x3 and 7x7", min(native, default=None), 0.40, True
    yield "l1 12 times as fast as unfold + cdist, geometric mean", _mean(_of(results, "A", "unfold + cdist")), 12, True
    yield "l1 2 times as fast as torch.compile, geometric mean", _mean(_of(results, "A", "torch.compile")), 2, True
    yield "l1 60 times as fast as AdderNet's code, geometric mean", _mean(_of(results, "A", "AdderNet")), 60, True
    yield "max_plus 3 times as fast as tropical-gemm", _mean(_of(results, "B", "tropical-gemm")), 3, True
    yield "own functions at 0.9 of l1's speed or more, on each", 1 / max(own) if own else None, 0.9, True
    yield "forward + backward at most 6 forwards, on each", max(_of(results, "C", "l1"), default=None), 6, False
    if threads > 1:
        text = f"{threads} threads {0.85 * threads:.1f} times as fast as one, on each that takes one more than 2 ms"
        yield text, min(scaling, default=None), 0.85 * threads, True
    unfolds, folds = (_of(results, "H", name, lambda r: r["title"] in SIX) for name in ("F.unfold", "F.fold"))
    yield f"unfold {4.5 if threads == 1 else 4} times as fast as F.unfold, geometric mean", _mean(unfolds), (
        4.5 if threads == 1 else 4
    ), True
    yield f"fold {2.5 if threads == 1 else 4} times as fast as F.fold, geometric mean", _mean(folds), (
        2.5 if threads == 1 else 4
    ), True
    each = [value for name in ("F.unfold", "F.fold") for value in _of(results, "H", name)]
    yield "unfold and fold as fast as F.unfold and F.fold, on each shape and dtype", min(each, default=None), 1, True
    yield "unfold into out= at 0.6 of out.copy_'s speed, on each", min(
        _of(results, "I", "out.copy_"), default=None
    ), 0.6, True
    small = [
        value
        for name in ("unfold", "unfold, engine not forced", "unfold, recorded")
        for value in _of(results, "J", name)
    ]
    yield "a small unfold at most 3 times F.unfold's time, recorded or not", max(small, default=None), 3, False
    nd = [value for name in ("unfoldNd", "foldNd") for value in _of(results, "K", name)]
    yield "unfold and fold 10 times as fast as unfoldNd, on each", min(nd, default=None), 10, True
    if threads == 1:
        signs = _of(results, "L", "F.conv2d of the signs")
        lookups, floats = (_of(results, "M", name) for name in ("one by one, eight accumulators", "F.conv2d of floats"))
        yield "xnor 5 times as fast as F.conv2d of the signs, on each", min(signs, default=None), 5, True
        yield "a table 8 times as fast as look-ups one by one, on each", min(lookups, default=None), 8, True
        yield "a table at 0.15 of F.conv2d's speed, on each", min(floats, default=None), 0.15, True
    yield f"memory at most {16 * threads} MiB", max(memory, default=None), 16 * threads, False


#: The shapes of table H that means are of.
SIX = ("1x64x56², k3", "32x64x56², k3", "8x3x224², k7 /2", "8x256x14², k3", "4x64x112², k3 /2", "16x3x32², k5")


def _of(results, table, name, where=lambda result: True):
    """A contestant's median ratios in a table."""
    found = [result for result in results if result["table"] == table and _ratio(result, name)]
    return [_ratio(result, name)[1] for result in found if where(result)]


def _mean(values):
    return statistics.geometric_mean(values) if values else None


# ---------------------------------------------------------------- files


def write(folder, name, text, results):
    """A page, of which what stands between two comments is replaced, and a picture if there is something to show."""
    path = os.path.join(folder, f"{name}.md")
    picture = f"![Times in parts of ours]({name}.png)\n\n" if shown(results) else ""
    page = f"# Performance\n\n{picture}{START}\n{END}\n"
    if os.path.exists(path):
        with open(path) as file:
            page = file.read()
    before, rest = page.split(START)
    after = rest.split(END)[1]
    with open(path, "w") as file:
        file.write(f"{before}{START}\n\n{text}\n\n{END}{after}")
    if shown(results):
        plot(os.path.join(folder, f"{name}.png"), shown(results))


def shown(results):
    """Those of the picture."""
    return [result for result in results if result["table"] in "ABHKLM"]


def plot(path, shown):
    """Ratios: a row for each number of threads, a group of bars for each case."""
    import matplotlib.patches

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    counts = sorted({result["threads"] for result in shown})
    names = [name for name in _names(shown) if any(_ratio(result, name) for result in shown)]
    colors = dict(zip(names, plt.get_cmap("tab20").colors, strict=False))
    figure, axes = plt.subplots(len(counts), 1, figsize=(13, 4.2 * len(counts)), squeeze=False, layout="constrained")
    width = 0.9 / max(sum(1 for name in names if _ratio(result, name)) for result in shown)
    for axis, threads in zip(axes[:, 0], counts, strict=True):
        here = [result for result in shown if result["threads"] == threads]
        for group, result in enumerate(here):
            bars = [name for name in names if _ratio(result, name)]
            for position, name in enumerate(bars):
                low, middle, high = _ratio(result, name)
                place = group + (position - (len(bars) - 1) / 2) * width
                # Upwards from 1 where ours is faster, downwards where it isn't.
                errors = [[middle - low], [high - middle]]
                axis.bar(place, middle - 1, width, bottom=1, yerr=errors, color=colors[name])
        axis.set(yscale="log", ylabel="time / ours", title=f"threads: {threads}")
        axis.set_xticks(range(len(here)), [f"{r['table']}: {r['title']}" for r in here], fontsize=8)
        axis.axhline(1, color="black", linewidth=0.8)
    patches = [matplotlib.patches.Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=patches, loc="outside right upper", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
