"""The page: what was measured and on what, a summary, a table for each section."""

import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys

PACKAGES = "torch numpy numba tropical-gemm pykeops unfoldNd".split()

#: What the page says about each section, in order: a title and a text.
SECTIONS = {
    "l1": (
        'conv2d and linear, op="l1"',
        "The sum of absolute differences. F.conv2d and F.linear compute something else, the ordinary convolution: "
        "theirs is the speed to aim at. A term of l1 takes three vector instructions, a difference, an absolute "
        "value and a sum, where a product and its sum take one: of a processor's peak l1 can have half, where absolute "
        "values have ports of their own, and a third on Intel's with AVX-512, whose two ports do all three. F.conv2d "
        "comes near the peak where there are many channels. Own lambda is `lambda w, x: abs(w - x)`. torch.compile "
        "gets its columns from F.unfold, which is ten times as slow inside the graph. AdderNet is the published code.",
    ),
    "gradients": (
        "Forward and backward",
        "The result and both gradients. F.conv2d and F.linear are the ordinary convolution, with its gradients.",
    ),
    "resnet": (
        'ResNet-18\'s layers, op="l1"',
        "With one thread. Forward and backward together are in forwards: how many take as long.",
    ),
    "mobilenet": (
        'MobileNetV2\'s layers, op="l1"',
        "With one thread.",
    ),
    "avx2": (
        'ResNet-18\'s 3x3 layers without AVX-512, op="l1"',
        "With one thread, AVX2 for all: IM2COL_COMPAT_ISA=avx2, ONEDNN_MAX_CPU_ISA=AVX2, ATEN_CPU_CAPABILITY=avx2.",
    ),
    "depthwise": (
        "Depthwise convolutions",
        "A filter for each channel: F.conv2d's groups are the channels. Ratios are to our forward, to our forward and "
        "backward, and to our xnor.",
    ),
    "threads": (
        "All threads against one",
        'op="l1", forward. Both run in one process, taking turns.',
    ),
    "max_plus": (
        'matmul, op="max_plus"',
        "The maximum of sums.",
    ),
    "own": (
        "Your own functions",
        "conv2d of 1x64x28² with 64 filters of 3x3. Tensor operations are PyTorch's own, on a block of terms at a "
        "time: what happens where there is no C compiler.",
    ),
    "xnor": (
        'conv2d, op="xnor"',
        "Signs times signs, on ResNet-18's 3x3 layers. The results are equal. Packing the signs is part of our time; "
        "F.conv2d is given signs.",
    ),
    "table": (
        "conv2d, op=Op.from_table(...)",
        "Products of two bytes, looked up in a table of 256x256. One by one is C with eight accumulators, its "
        "columns and their transposition included; the sums are equal. F.conv2d multiplies the bytes as float32.",
    ),
    "unfold": (
        "unfold and fold",
        'The engine "ffi" against PyTorch, the result allocated in each call. GMAC/s are 10⁹ elements of columns '
        "a second. fold's ratios are to our fold.",
    ),
    "dimensions": (
        "unfold and fold in one and three dimensions",
        'The engine "ffi" against the package unfoldNd. fold\'s ratios are to our fold.',
    ),
    "out": (
        "unfold into out=",
        "The columns are larger than the caches. out.copy_ reads and writes as many bytes as the columns have.",
    ),
    "small": (
        "Small calls",
        "What a call costs beside its arithmetic: conv2d of 1x1x8x8 with one filter of 3x3, and unfold of the "
        "same image. PyTorch is F.conv2d and F.unfold. Own op is compiled: `lambda w, x: abs(w - x)`. Recorded: the "
        "tensors require gradients.",
    ),
    "first": (
        "The first call of a new op",
        "Seconds of CPU of conv2d of 1x4x8² with four filters, of one's own function, and of its first backward, "
        "compiling included; one process each.",
    ),
    "precision": (
        "The weight's gradient over 1.6 million positions",
        "The largest error, in parts of the largest element, against sums in float64.",
    ),
    "memory": (
        "Memory",
        'conv2d, op="l1": MiB beside the result (forward) and beside the gradients (backward).',
    ),
}

#: The sections that have no ratios, and how their numbers are written.
FORMATS = {"memory": "{:.1f}", "first": "{:.2f}", "precision": "{:.1e}"}

INTRODUCTION = """\
A ratio is a contestant's time for one call, divided by that of im2col_compat: above 1, im2col_compat is faster. A cell
has the median ratio, its quartiles and the median time. Results are compared with true ones before anything is timed.
After a warm-up contestants take turns, and a ratio is between two times of one round."""


def text(results, failures, date, command, minutes):
    parts = [INTRODUCTION.replace("\n", " "), machine(results, date, command, minutes), *failures, summary(results)]
    for key, (title, explanation) in SECTIONS.items():
        mine = [result for result in results if result["section"] == key]
        if mine:
            parts += [f"## {title}\n\n{explanation}", numbers(mine, FORMATS[key]) if key in FORMATS else table(mine)]
            parts += remarks(mine)
    return "\n\n".join(parts)


# ---------------------------------------------------------------- machine


def machine(results, date, command, minutes):
    """A list of what the numbers depend on."""
    cpu = pairs(output("lscpu"))
    caches = ", ".join(f"{name[:-6]} {size}" for name, size in cpu.items() if name.endswith(" cache"))
    kernels = pairs(output(sys.executable, "-m", "im2col_compat"))["C kernels"]
    threads = " and ".join(str(count) for count in sorted({result["threads"] for result in results}))
    lines = {
        "im2col_compat": version("im2col_compat"),
        "PyTorch": version("torch"),
        "Processor": f"{cpu.get('Model name', platform.processor())}, {os.cpu_count()} cores",
        "Instruction set of the kernels": kernels + ": what AVX2 gives, all tables show" * (kernels == "avx2"),
        "Threads": threads,
        "Caches": caches,
        "System": f"{system()}, {platform.machine()}, {' '.join(platform.libc_ver())}",
        "Compiler": output("cc", "--version").partition("\n")[0],
        "Others": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES[1:])]
        ),
        "Command": f"`{command}`, {minutes:.0f} minutes",
        "Date": date,
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def output(*command):
    """What a command prints, in English; nothing where there is no such command."""
    try:
        # Not where the sources are, which `python -m` would find before what is installed.
        here = os.path.dirname(os.path.abspath(__file__))
        return subprocess.check_output(command, text=True, env=dict(os.environ, LC_ALL="C"), cwd=here)
    except OSError:
        return ""


def pairs(text):
    """The lines "name: value" of a text."""
    lines = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in lines}


def system():
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# ---------------------------------------------------------------- tables


def names(results):
    """Contestants, in order."""
    return list(dict.fromkeys(name for result in results for name in [*result["rows"], *result["not_run"]]))


def ratio(result, name):
    """Lower quartile, median and upper quartile, or None."""
    return result.get("rows", {}).get(name, {}).get("ratio")


def markdown(rows):
    """The first row is the header."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def summary(results):
    """A row for each comparison. Small calls are no shapes of one thing, and have no row."""
    counts = sorted({result["threads"] for result in results})
    rows = [["ours", "against", "shapes", *(f"threads: {count}" for count in counts)]]
    for key, (title, _) in SECTIONS.items():
        mine = [result for result in results if result["section"] == key]
        for name in () if key in FORMATS or key == "small" else names(mine):
            medians = {count: [] for count in counts}
            for result in mine:
                if ratio(result, name):
                    medians[result["threads"]].append(ratio(result, name)[1])
            if any(medians.values()):
                most = max(map(len, medians.values()))
                rows.append([title, name, str(most), *(spread(medians[count]) for count in counts)])
    if len(rows) == 1:
        return ""
    heading = "## Summary\n\nGeometric means of the ratios over a section's shapes (least to greatest)."
    return heading + "\n\n" + markdown(rows)


def spread(values):
    if not values:
        return "-"
    mean = number(statistics.geometric_mean(values))
    return mean if len(values) == 1 else f"{mean} ({number(min(values))} to {number(max(values))})"


def number(value):
    """Two decimals below 10, one below 100, none above."""
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def table(results):
    """A row for each case and number of threads."""
    columns = names(results)
    rows = [["", "threads", *columns]]
    for title in dict.fromkeys(result["title"] for result in results):
        for result in results:
            if result["title"] == title:
                rows.append([title, str(result["threads"]), *(cell(result, name) for name in columns)])
    return markdown(rows)


def cell(result, name):
    row = result["rows"].get(name)
    if row is None:
        return "not run"
    if row["ratio"] is None:
        return f"{duration(row['seconds'])}, {row['gmacs']:.2g} GMAC/s"
    low, middle, high = map(number, row["ratio"])
    return f"**{middle}** ({low} to {high}), {duration(row['seconds'])}"


def duration(seconds):
    for unit, factor in (("s", 1), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            break
    return f"{number(seconds * factor)} {unit}"


def numbers(results, form):
    """A row for each case and number of threads, of numbers that are no times of contestants."""
    columns = list(results[0]["numbers"])
    rows = [["", "threads", *columns]]
    for result in results:
        each = (form.format(result["numbers"][name]) for name in columns)
        rows.append([result["title"], str(result["threads"]), *each])
    return markdown(rows)


def remarks(results):
    """Who didn't run, and who used more cores than it was given: a list, or nothing."""
    lines = {}
    for result in results:
        for name, reason in result.get("not_run", {}).items():
            lines.setdefault(f"{name}: not run: {reason}", []).append(result["title"])
        for name, row in result.get("rows", {}).items():
            if row["cores"] > result["threads"] + 0.2:
                lines.setdefault(f"{name}: used more cores than it was given", []).append(result["title"])
    each = (f"- {line} ({'; '.join(dict.fromkeys(titles))})" for line, titles in lines.items())
    return ["\n".join(each)] if lines else []
