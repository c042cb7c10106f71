"""The picture: strips of panels. A panel is a comparison, a line in it a shape, a mark on it a number of threads."""

import io

import matplotlib
import report
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

#: Each strip's heading, and its panels: a section, who ours is compared with there, and the panel's title.
STRIPS = [
    (
        'conv2d and linear, op="l1"',
        [
            ("l1", "F.conv2d, F.linear", "F.conv2d, forward"),
            ("gradients", "F.conv2d, F.linear", "F.conv2d, backward too"),
            ("l1", "torch.compile", "torch.compile"),
            ("l1", "numba", "numba"),
        ],
    ),
    ("", [("l1", name, name) for name in ("unfold + cdist", "KeOps", "AdderNet")]),
    (
        'matmul, op="max_plus"',
        [("max_plus", name, name) for name in ("tropical-gemm", "torch.compile", "numba", "torch broadcast")],
    ),
    ("conv2d with signs (xnor)", [("xnor", "F.conv2d of the signs", "F.conv2d")]),
    (
        "conv2d with a table of products",
        [("table", "F.conv2d of floats", "F.conv2d"), ("table", "one by one", "one by one")],
    ),
    (
        "conv2d with your own function, against tensor operations",
        [
            ("own", "tensor operations", "forward"),
            ("own", "forward + backward by tensor operations", "backward too"),
        ],
    ),
    ('unfold and fold, engine "ffi"', [("unfold", name, name) for name in ("F.unfold", "F.fold")]),
    ("", [("dimensions", name, name) for name in ("unfoldNd", "foldNd")]),
]

# Inches: a page of GitHub's shows 100 pixels for each. Beside a panel are its numbers, above it is its title.
WIDTH, MARGIN, LABELS, NUMBERS, COLUMNS = 9.0, 0.1, 1.6, 0.66, 4
TOP, HEADING, TITLE, LINE, AXIS = 0.68, 0.24, 0.2, 0.165, 0.32
DPI = 180
# Of Okabe and Ito's colours, which all eyes can tell apart.
SLOWER, FASTER = "#d55e00", "#0072b2"
TICKS = {0.01: "0.01", 0.1: "0.1", 1: "1", 10: "10", 100: "100", 1000: "1000"}


def draw(path, results):
    """Returns whether there was something to draw."""
    strips = [strip for heading, panels in STRIPS for strip in drawn(heading, panels, results)]
    if not strips:
        return False
    counts = sorted({result["threads"] for result in results})
    medians = [ratio for _, panels, _ in strips for _, ratios in panels for ratio in ratios.values()]
    limits = min(0.2, 0.7 * min(medians)), max(5, 1.5 * max(medians))
    height = TOP + sum(HEADING * bool(heading) + TITLE + LINE * len(titles) + AXIS for heading, _, titles in strips)
    figure = plt.figure(figsize=(WIDTH, height))

    def axes(left, top, width, tall):
        """From inches, measured from the upper left corner."""
        return figure.add_axes([left / WIDTH, 1 - (top + tall) / height, width / WIDTH, tall / height])

    legend(axes(0, 0, WIDTH, TOP), counts)
    top = TOP
    for heading, panels, titles in strips:
        if heading:
            figure.text(MARGIN / WIDTH, 1 - (top + 0.1) / height, heading, va="center", fontsize=9.5, weight="bold")
            top += HEADING
        step = (WIDTH - MARGIN - LABELS) / COLUMNS
        for column, (title, ratios) in enumerate(panels):
            axis = axes(MARGIN + LABELS + column * step, top + TITLE, step - NUMBERS, LINE * len(titles))
            panel(axis, title, titles if column == 0 else [""] * len(titles), limits)
            dots(axis, [[ratios.get((title, count)) for count in counts] for title in titles])
        top += TITLE + LINE * len(titles) + AXIS
    save(figure, path)
    return True


def drawn(heading, panels, results):
    """[(heading, panels, the lines' titles)], or [] if nothing was measured. A panel is a title and its median ratios,
    by line and number of threads."""
    filled, titles = [], {}
    for section, name, title in panels:
        mine = [result for result in results if result["section"] == section and report.ratio(result, name)]
        ratios = {(result["title"], result["threads"]): report.ratio(result, name)[1] for result in mine}
        titles.update(dict.fromkeys(line for line, _ in ratios))
        if ratios:
            filled.append((title, ratios))
    return [(heading, filled, list(titles))] if filled else []


def legend(axis, counts):
    axis.set(xlim=(0, WIDTH), ylim=(TOP, 0))
    axis.axis("off")
    text = {"va": "center", "fontsize": 9}
    axis.text(MARGIN, 0.16, "Time of each divided by im2col_compat's", va="center", fontsize=11, weight="bold")
    axis.text(MARGIN, 0.42, "left of 1: im2col_compat is slower", color=SLOWER, **text)
    axis.text(2.45, 0.42, "right of 1: im2col_compat is faster", color=FASTER, **text)
    for index, count in enumerate(counts):
        left = 5.2 + index
        mark(axis, left, 0.42, index, "black")
        axis.text(left + 0.1, 0.42, f"{count} thread{'s' * (count > 1)}", **text)
    if len(counts) > 1:
        axis.text(5.1 + len(counts), 0.42, "numbers in this order", **text)


def panel(axis, title, titles, limits):
    axis.set(xscale="log", xlim=limits, ylim=(len(titles) - 0.5, -0.5))
    axis.set_title(title, loc="left", fontsize=8.5, pad=3)
    axis.set_xticks([tick for tick in TICKS if limits[0] <= tick <= limits[1]])
    axis.set_xticklabels([label for tick, label in TICKS.items() if limits[0] <= tick <= limits[1]], fontsize=7.5)
    axis.set_yticks(range(len(titles)), titles, fontsize=8)
    axis.minorticks_off()
    axis.tick_params(axis="x", length=2, pad=2)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color="0.88", linewidth=0.6)
    axis.axvline(1, color="black", linewidth=1)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    for line in range(0, len(titles), 2):
        axis.axhspan(line - 0.5, line + 0.5, color="0.95", zorder=-1)


def dots(axis, lines):
    """lines: each with a median ratio, or None, for each number of threads."""
    for line, ratios in enumerate(lines):
        for index, ratio in enumerate(ratios):
            if ratio is not None:
                color = FASTER if ratio >= 1 else SLOWER
                mark(axis, ratio, line, index, color)
                place = {"xy": (1, line), "xycoords": axis.get_yaxis_transform(), "textcoords": "offset points"}
                text = {"xytext": (21 + 21 * index, 0), "ha": "right", "va": "center", "fontsize": 7, "color": color}
                axis.annotate(report.number(ratio), **place, **text)


def mark(axis, x, y, index, color):
    """The first number of threads is a full circle, the others are empty squares over it."""
    if index == 0:
        axis.plot(x, y, "o", color=color, markersize=4.5, clip_on=False)
    else:
        axis.plot(x, y, "s", color=color, markerfacecolor="none", markersize=6.5, markeredgewidth=0.9, clip_on=False)


def save(figure, path):
    """With a palette: a fifth of the bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor="white")
    plt.close(figure)
    Image.open(buffer).convert("RGB").quantize(32, dither=Image.Dither.NONE).save(path, optimize=True)
