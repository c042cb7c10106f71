"""Compiles the kernels for GPUs by NVRTC, without a GPU, and looks at the machine code. make test-cuda-build

It fails where a kernel keeps registers in local memory, or where an inner loop isn't what it should be. It writes the table in
docs/cuda.md. It needs cuda-core, NVRTC and nvdisasm, which are on PyPI.
"""

import collections
import multiprocessing
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from im2col_compat.cuda import device
from kernels import wanted
from page import replace

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
#: Arithmetic for each load of 16 bytes from shared memory, at least, in the loops of these ops' forward on sm_90.
LEAST = {"l1": 28, "max_plus": 28}
#: The architecture of which the loops are looked at.
SHOWN = "sm_90"
TOOL = next(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/bin/nvdisasm"), None)


def machine_code(text, architecture):
    """(registers, bytes of shared memory, bytes of local memory, instructions of the inner loop or None) of a text's kernel."""
    code, said = device.compiled(text, architecture)
    each = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", said)
    local = max(sum(map(int, numbers)) for numbers in each)
    registers, shared = [re.search(r"(\d+) " + what, said) for what in ("registers", "bytes smem")]
    loop = inner_loop(disassembled(code)) if architecture == SHOWN else None
    return int(registers.group(1)), int(shared.group(1)) if shared else 0, local, loop


def disassembled(code):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        # Without finding out where jumps by registers lead: there are none.
        return subprocess.run(
            [str(TOOL), "-c", "-ndf", file.name], stdout=subprocess.PIPE, check=True, universal_newlines=True).stdout  # fmt: skip


def inner_loop(shown):
    """{instruction: how many} of the longest loop that has none inside; {} where there is no loop."""
    lines, places, loops = [], {}, []
    for label, line in re.findall(r"^(\.L_\w+):|^\s+/\*[0-9a-f]{4,}\*/\s+(.*?) *;", shown, re.M):
        if label:
            places[label] = len(lines)
            continue
        target = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
        start = places.get(target.group(1)) if target else None  # one that comes later is no loop's
        # The end of a kernel jumps to itself.
        if start is not None and start < len(lines):
            loops.append((start, len(lines)))
        lines.append(line)
    inner = [(a, b) for a, b in loops if not any((a, b) != (c, d) and a <= c and d <= b for c, d in loops)]
    if not inner:
        return {}
    start, end = max(inner, key=lambda loop: loop[1] - loop[0])
    names = [re.sub(r"^@!?U?P\w+\s+", "", line) for line in lines[start : end + 1]]
    names = [name.split()[0] for name in names]
    return collections.Counter("LDS.128" if "LDS" in name and "128" in name else name.split(".")[0] for name in names)


#: Instructions that compute terms and reductions. Integers' also compute addresses.
FLOATS = re.compile(r"(F|D)(ADD|MUL|FMA|MNMX|SETP|SET|SEL)$|MUFU$")
INTEGERS = re.compile(r"(U?IADD3?|IMAD|IMNMX|VIADD|VIMNMX|IABS|ISETP|SEL|LOP3|VABSDIFF\w*)$")
WORDS = re.compile(r"(LOP3|POPC)$")


def arithmetic(kernel, loop):
    kind = WORDS if kernel.kernel == "signs" else FLOATS if kernel.dtype.startswith("float") else INTEGERS
    return {name: count for name, count in loop.items() if kind.match(name)}


def look(job):
    kernel, architecture = job
    try:
        return machine_code(kernel.text, architecture)
    except Exception as error:  # another process can't always be told of it as it is
        return "{}: {}".format(type(error).__name__, error)


def tile(text):
    """A kernel's tile, in words: a block's results, and a thread's."""
    found = dict(re.findall(r"#define (\w+) (\d+)$", text, re.M))
    if "TILE_ROWS" not in found:
        return ""
    return "{TILE_ROWS} x {TILE_COLUMNS}, {ROWS} x {COLUMNS}".format(**found)


def problems_of(kernel, architecture, found):
    """What is wrong with a kernel's code."""
    where = "{} of {} on {} ({}), {}, {}".format(
        kernel.kernel, kernel.op, kernel.dtype, kernel.what, kernel.sizes, architecture
    )
    if isinstance(found, str):
        return ["{}: {}".format(where, found)]
    wrong, (registers, shared, local, loop) = [], found
    if local:
        wrong.append("{}: {} bytes of local memory".format(where, local))
    least = LEAST.get(kernel.op) if architecture == SHOWN and kernel.dtype == "float32" else None
    if least and kernel.what == "forward" and kernel.sizes == "3x3" and kernel.kernel == "gather":
        ratio = sum(arithmetic(kernel, loop).values()) / max(1, loop["LDS.128"])
        if ratio < least:
            wrong.append("{}: {:.1f} arithmetic instructions for each load of 16 bytes".format(where, ratio))
    return wrong


def row(kernel, found):
    registers, shared, _, loop = found[SHOWN]
    counted = arithmetic(kernel, loop)
    wide, narrow = loop.get("LDS.128", 0), loop.get("LDS", 0)
    others = sum(loop.values()) - sum(counted.values()) - wide - narrow
    ratio = sum(counted.values()) / wide if wide else 0
    each = [" / ".join(str(found[one][i]) for one in ARCHITECTURES) for i in (0, 2)]
    most = sorted(counted.items(), key=lambda pair: -pair[1])
    return [
        kernel.op, kernel.dtype, kernel.what, kernel.kernel, kernel.sizes, tile(kernel.text), each[0],
        "0" if set(each[1]) <= set("0 /") else each[1], "{:.1f}".format(shared / 1024),
        ", ".join("{} {}".format(count, name) for name, count in most) or "-", "{} + {}".format(wide, narrow), str(others),
        "{:.0f}".format(ratio) if ratio else "-",
    ]  # fmt: skip


HEAD = [
    "op", "dtype", "what", "kernel", "first for", "tile, of a thread", "registers", "local bytes", "shared KiB", "arithmetic",
    "shared loads", "others", "arithmetic a load",
]  # fmt: skip
TEXT = """NVRTC {} compiled these {} kernels. Registers and bytes of local memory are for sm_75, sm_80 and sm_90, the rest is for
sm_90. Shared loads are those of 16 bytes, of terms' operands, and others, of addresses; arithmetic is counted for each of the
former.

{}"""


def main():
    if TOOL is None:
        raise SystemExit("there is no nvdisasm beside this Python: make test-cuda-build installs it")
    kernels = wanted()
    jobs = [(kernel, architecture) for kernel in kernels for architecture in ARCHITECTURES]
    with multiprocessing.Pool() as pool:
        found = pool.map(look, jobs, chunksize=1)
    wrong = [one for job, each in zip(jobs, found) for one in problems_of(job[0], job[1], each)]
    print("\n".join(wrong))
    compiled = [not isinstance(one, str) for one in found]
    if all(compiled):
        rows = [row(kernel, dict(zip(ARCHITECTURES, found[3 * i : 3 * i + 3]))) for i, kernel in enumerate(kernels)]
        table = "\n".join("| {} |".format(" | ".join(cells)) for cells in [HEAD, ["---"] * len(HEAD)] + rows)
        replace("compiled", TEXT.format(".".join(map(str, device._nvrtc_version())), len(kernels), table))
    print("{} kernels, each for {}".format(len(kernels), ", ".join(ARCHITECTURES)))
    failed = sum(bool(problems_of(job[0], job[1], each)) for job, each in zip(jobs, found))
    print("{} passed, {} failed".format(len(jobs) - failed, failed))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
