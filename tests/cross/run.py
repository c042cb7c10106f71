"""`make cross`: the C library and generated kernels for other machines, and docs/machines.md written from that.

    python tests/cross/run.py [--output docs/machines.md] [TARGET ...]

Compiles every C file, the kernels of kernels.py and drive.c by the clang of PyPI's ziglang, which brings the headers and C
libraries of all targets, with warnings as errors; links them; and runs the programs under Debian's qemu-user, or on this
machine where it can. drive.c compares with plain loops. Exits with 1 where something fails, or an emulator is missing.
Needs the installed package with its C library, and PyTorch.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
FFI = ROOT / "ffi"
sys.path[:0] = [str(FFI), str(HERE)]
from build import FLAGS  # noqa: E402
from kernels import kernels  # noqa: E402

import im2col_compat  # noqa: E402
from im2col_compat.codegen import template  # noqa: E402
from im2col_compat.codegen.kernels import LEVELS  # noqa: E402

ZIG = [sys.executable, "-m", "ziglang"]
STRICT = ["-Wextra", "-Wall", "-Werror"]
#: What printed functions may have: not each of them uses all of its operands.
PRINTED = ["-Wno-unused-parameter", "-Wno-unused-function"]
#: What runs a target's programs: a program, "" for this machine's processor, None where nothing does. Those that run are
#: linked with musl, all in one file, so that they need nothing of a foreign system.
TARGETS = {
    "x86_64-linux-musl": "",
    "x86-linux-musl": "",
    "aarch64-linux-musl": "qemu-aarch64",
    "arm-linux-musleabihf": "qemu-arm",
    "riscv64-linux-musl": "qemu-riscv64",
    "s390x-linux-musl": "qemu-s390x",
    "aarch64-linux-gnu.2.17": None,
    "aarch64-macos": None,
    "x86_64-windows-gnu": "wine64",
}
#: Emulators that a run can do without. What they would have run is only compiled then.
OPTIONAL = ("wine64",)
EMULATORS = {"x86_64": ("", "qemu-x86_64"), "x86": ("", "qemu-i386")}

PAGE = """# Other machines

`make cross` writes this page. It compiles the C library and kernels of compiled ops for the machines below, and runs what it
can, under emulators, against plain loops: im2col and col2im of every type, the named ops, ops of users' (with functions,
parameters, reductions of every kind, integers), signs and look-ups, forward and with all gradients. Here: {date},
im2col_compat {version}, {compiler} of ziglang {zig}, {emulators}, on {machine}.

{table}

C files are `ffi/*.c` and the test's own program. They are compiled with `-Wall -Wextra -Werror`. A check compares one array,
or looks whether a call has written beyond its memory. Where nothing runs the program, it is compiled and linked.

## What differs

Two files know compilers and systems. `ffi/platform.h` has vectors, threads and huge pages: POSIX threads, or those of
Windows; huge pages on Linux. `ffi/dot_target.h` has the instruction sets of x86-64, of which a library has all, and chooses
at run time. Elsewhere there is one, what the compiler takes for granted. The compiler must be GCC or Clang; others stop with
an error that says so, and the package installs without the C library.

## Windows and macOS

Nothing was run on either, {wine}.
What follows is read from the code, or tried by `tests/test_machines.py`, which stands in for these systems.

- **Without a C compiler that does**, the package installs without its C library, with one message that says why. That is what
  happens with Microsoft's compiler, or with none. Then PyTorch's own functions or slicing make the columns, ops are tensor
  operations, and `python -m im2col_compat` says so. Results are the same.
- **macOS**: `pip install .` uses Apple's Clang, if the command line tools are there (`xcode-select --install`), and so do
  compiled ops. On Apple's processors kernels are those of aarch64.
- **Windows**: MinGW-w64's GCC should build the C library where setuptools is told to use it (`python setup.py build_ext
  --compiler=mingw32 bdist_wheel`, and pip installs the wheel). Compiled ops then look for `gcc.exe` or `clang.exe`
  on PATH, or for what the variable CC says. They are compiled anew in each process: what is kept must lie where only this
  user may write, which this package can't find out there.
- **Wheels** for these systems aren't built here.
"""
COLUMNS = ("Target", "C files", "Kernels", "Warnings", "Runs under", "Instruction sets", "Checks", "Passed")


class Failed(Exception):
    pass


def run(words, what, **options):
    """The output of a program. Failed where it fails, with the line that says most."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        print(text, flush=True)
        lines = [line for line in text.splitlines() if re.search("error|WRONG|signal", line)] or text.splitlines()[-1:]
        raise Failed("{}: {}".format(what, lines[0] if lines else "exit status {}".format(done.returncode)))
    return text


def runner(target):
    """The words before a program of a target, and how the page calls them; None where there are none here."""
    wanted = TARGETS[target]
    architecture = target.split("-")[0]
    if wanted == "" and (platform.machine() != "x86_64" or sys.platform != "linux"):
        wanted = EMULATORS[architecture][1]
    if not wanted:
        return ([], "this machine") if wanted == "" else None
    # Debian's wine64 isn't on PATH.
    found = shutil.which(wanted, path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/lib/wine"]))
    return ([found], wanted) if found else None


class Target(object):
    """What is to be done for one target, and what came of it."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        self.sources = sorted(FFI.glob("*.c")) + [HERE / "drive.c"]
        self.objects, self.failures, self.counts, self.said = [], [], {}, ""
        self.cc = ZIG + ["cc", "-target", name]

    def compile(self, source, flags):
        made = str(self.folder / (source.stem + ".o"))
        self.objects.append(made)
        try:
            run(self.cc + flags + ["-c", str(source), "-o", made], source.name)
        except Failed as error:
            self.failures.append(str(error))

    def jobs(self, printed):
        """(source, flags) of all that is to be compiled, what takes longest first."""
        strict = FLAGS + STRICT + ["-I" + str(FFI)]
        for source in sorted(self.sources, key=lambda source: not source.name.startswith("dot_named_")):
            yield source, strict
        for source in printed:
            name = "-D{}={}".format(template.ENTRY, source.stem)
            yield source, list(template.flags(0)) + STRICT + PRINTED + ["-fPIC", name]

    def finish(self):
        """Link and run the program."""
        if self.failures:
            return
        program = str(self.folder / ("drive.exe" if "windows" in self.name else "drive"))
        static = ["-static"] if "musl" in self.name else []
        libraries = ["-pthread"] + ([] if "windows" in self.name else ["-lm"])
        if self.name.startswith("x86_64-linux") and platform.machine() == "x86_64":
            # The library of zig's clang finds no instruction sets on any machine; GCC's does.
            libraries.append(run(["gcc", "-print-libgcc-file-name"], "gcc").strip())
        try:
            run(self.cc + static + self.objects + libraries + ["-o", program], "linking")
            found = runner(self.name)
            if found is None:
                if TARGETS[self.name] and TARGETS[self.name] not in OPTIONAL:
                    raise Failed("{} isn't here (Debian's package qemu-user has it)".format(TARGETS[self.name]))
                return
            before, self.said = found
            quiet = dict(os.environ, WINEDEBUG="-all", WINEPREFIX=str(self.folder / "wine"))
            text = run(before + [program], self.said, env=quiet)
            self.counts = dict(re.findall(r"^([^:\n]+): (.*?)\r?$", text, re.M))
            if self.counts["wrong"] != "0":
                raise Failed("{} checks failed".format(self.counts["wrong"]))
        except Failed as error:
            self.failures.append(str(error))

    def row(self, printed):
        failed = "FAILED: " + self.failures[0].replace("|", "/") if self.failures else ""
        levels = ", ".join(LEVELS[: int(self.counts["instruction sets"])]) if self.counts else ""
        return [
            self.name,
            len(self.sources),
            len(printed),
            failed or "none",
            self.said or "not run",
            levels,
            self.counts.get("checks", ""),
            int(self.counts["checks"]) - int(self.counts["wrong"]) if self.counts else "",
        ]


def first_line(words):
    return run(words, words[0]).splitlines()[0]


def page(targets, printed):
    lines = [COLUMNS, ["---"] * len(COLUMNS)] + [target.row(printed) for target in targets]
    table = "\n".join("| {} |".format(" | ".join(map(str, line))) for line in lines)
    # One of QEMU's, as all are of one version, and Wine.
    emulators = {target.said.split("-")[0]: runner(target.name)[0] for target in targets if target.counts}
    emulators = [first_line(words + ["--version"]) for said, words in sorted(emulators.items()) if words]
    clang = re.search(r"clang version \S+", run(ZIG + ["cc", "--version"], "zig"))
    wine = any("windows" in target.name and target.counts for target in targets)
    return PAGE.format(
        date=datetime.date.today(),
        version=im2col_compat.__version__,
        compiler=clang.group(0),
        zig=first_line(ZIG + ["version"]),
        emulators=", ".join(emulators).replace("version ", "") or "no emulator",
        machine="{} {}".format(platform.system(), platform.machine()),
        table=table,
        wine="but for the C library under Wine" if wine else "and no interpreter was there to try",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--output", type=Path, help="the page to be written; else the table goes to the screen")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    # What was compiled before needn't be again: not the C libraries, and not what is at the same place with the same content.
    kept = ROOT / ".nox" / "cross"
    (kept / "kernels").mkdir(parents=True, exist_ok=True)
    os.environ.update(ZIG_GLOBAL_CACHE_DIR=str(kept), ZIG_LOCAL_CACHE_DIR=str(kept))
    printed = []
    for name, text in kernels().items():
        printed.append(kept / "kernels" / (name + ".c"))
        printed[-1].write_text(text)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        folder = Path(folder)
        targets = [Target(name, folder) for name in arguments.targets or TARGETS]
        jobs = [[pool.submit(target.compile, *job) for job in target.jobs(printed)] for target in targets]
        for target, started in zip(targets, jobs):
            for job in started:
                job.result()
            target.finish()
            print("{}: {}".format(target.name, target.failures or target.counts or "compiled"), flush=True)
        text = page(targets, printed)
    if arguments.output:
        arguments.output.write_text(text)
    else:
        print(text[text.index("|") : text.rindex("|\n") + 1])
    sys.exit(any(target.failures for target in targets))


if __name__ == "__main__":
    main()
