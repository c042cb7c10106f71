"""`make sanitize`: the C library and generated kernels under sanitizers, on random calls (drive.py).

    python tests/sanitize/run.py [--calls 100000] [--seed 0] [address] [thread] [torch]

Builds the package in a temporary folder, once with AddressSanitizer and UndefinedBehaviorSanitizer ("address"), once
with ThreadSanitizer ("thread"). Fails where one of them finds a fault, where a result is wrong, and where a fault that
is planted on purpose is not found. Says how many calls there were of each public function, and how to repeat one that
failed. Needs Linux, gcc with its sanitizers, cffi and NumPy. PyTorch stays out of it: it isn't built for sanitizers, and
nearly all that C does can be asked for without it. The rest, autograd and layers, is "torch": a tenth of the calls, on
tensors, with the build for "address", where PyTorch is installed. "thread" has three tenths, "address" the others.
"""

import argparse
import collections
import concurrent.futures
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DRIVER = os.path.join(HERE, "drive.py")
#: What a build is made with: gcc's options, and the library that must be loaded first.
ADDRESS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined", "libasan.so"
THREAD = "-fsanitize=thread", "libtsan.so"
#: name -> (build, the driver's options, calls of every ten, planted fault -> what is said of it).
SANITIZERS = {
    "address": (
        ADDRESS,
        (),
        6,
        {"overflow": "heap-buffer-overflow", "misaligned": "misaligned address", "kernel": "heap-buffer-overflow"},
    ),
    "thread": (THREAD, (), 3, {"race": "data race"}),
    "torch": (ADDRESS, ("--torch",), 1, {}),
}
OPTIONS = {
    # Leaks are Python's own; memory that there is not is an error of PyTorch's, as without a sanitizer.
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}
#: Calls of one process: few enough for all processors to have something to do until the end.
CHUNK = 2500


def build(folder, flags):
    """The environment in which the package, compiled with more flags, is imported from a folder."""
    compiler = os.path.join(folder, "cc")
    with open(compiler, "w") as script:
        # Last, so that the package's own -O3 does not hold: instrumented, it takes minutes.
        script.write('#!/bin/sh\nexec gcc "$@" -O0 -g -fno-omit-frame-pointer {}\n'.format(flags))
    os.chmod(compiler, 0o755)
    for name in ("ffi", "im2col_compat"):
        shutil.copytree(os.path.join(ROOT, name), os.path.join(folder, name), ignore=shutil.ignore_patterns("*.so"))
    for name in ("setup.py", "README.md"):
        shutil.copy(os.path.join(ROOT, name), folder)
    environment = dict(os.environ, CC=compiler, PYTHONPATH=folder, **OPTIONS)
    environment.update(IM2COL_COMPAT_CACHE=os.path.join(folder, "cache"), IM2COL_COMPAT_QUIET="1")
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


def drive(environment, runtime, *arguments):
    """(exit status, output) of the driver."""
    paths = []
    for name in (runtime, "libstdc++.so.6"):  # which PyTorch's errors are thrown by, from where the runtime looks first
        done = subprocess.run(["gcc", "-print-file-name=" + name], stdout=subprocess.PIPE, check=True)
        paths.append(done.stdout.decode().strip())
    # ThreadSanitizer needs to know where libraries lie.
    words = ["setarch", "-R", sys.executable, DRIVER] + list(arguments)
    done = subprocess.run(
        words, env=dict(environment, LD_PRELOAD=" ".join(paths)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def planted(name, environment, fault):
    """Whether a planted fault is found."""
    (_, runtime), _, _, faults = SANITIZERS[name]
    status, output = drive(environment, runtime, "--fault", fault)
    found = status != 0 and faults[fault] in output
    print("{}: the planted fault {!r} is {}".format(name, fault, "found" if found else "NOT FOUND"), flush=True)
    if not found:
        print(output, flush=True)
    return found


def chunk(name, environment, seed, first, calls):
    """The counts of some of the calls, or None where one failed."""
    (_, runtime), options, _, _ = SANITIZERS[name]
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, which) for which in ("number", "counts")]
        words = "--seed {} --first {} --calls {}".format(seed, first, calls).split()
        status, output = drive(environment, runtime, "--files", *files, *words, *options)
        if status == 0:
            with open(files[1]) as stream:
                return json.load(stream)
        number = "none"
        if os.path.exists(files[0]):
            with open(files[0]) as stream:
                number = stream.read()
        print(output)
        print("{}: FAILED at call {} of seed {}. To repeat it:".format(name, number, seed))
        print(
            "    python tests/sanitize/run.py {} --seed {} --first {} --calls 1".format(name, seed, number), flush=True
        )
        return None


def sanitize(names, seed, first, calls, jobs):
    """Whether nothing was found but what was planted. Prints what there was."""
    started, folders, counts = time.time(), {}, {name: collections.Counter() for name in names}
    try:
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for wanted in {SANITIZERS[name][0] for name in names}:
                folders[wanted] = tempfile.mkdtemp(prefix="sanitize")
            built = {wanted: pool.submit(build, folder, wanted[0]) for wanted, folder in folders.items()}
            environments = {wanted: future.result() for wanted, future in built.items()}
            print("built in {:.0f} s".format(time.time() - started), flush=True)
            works = []
            for name in names:
                wanted, _, share, faults = SANITIZERS[name]
                ours = max(1, calls * share // 10)
                for fault in sorted(faults):
                    works.append((-1, name, planted, (fault,)))
                for start in range(0, ours, CHUNK):
                    works.append((start, name, chunk, (seed, first + start, min(CHUNK, ours - start))))
            # By turns: what one has compiled, the next of the same build finds.
            works.sort(key=lambda work: work[:2])
            futures = [
                (pool.submit(function, name, environments[SANITIZERS[name][0]], *arguments), name)
                for _, name, function, arguments in works
            ]
            fine = {name: True for name in names}
            for future, name in futures:
                if future.cancelled():
                    continue  # since another has found a fault
                found = future.result()
                if isinstance(found, dict):
                    counts[name].update(found)
                elif not found:
                    fine[name] = False
                    for other, _ in futures:
                        other.cancel()
        report(counts)
        print("in {:.0f} s: ".format(time.time() - started), end="")
        print(", ".join("{} {}".format(name, "clean" if fine[name] else "NOT CLEAN") for name in names))
        return all(fine.values())
    finally:
        for folder in folders.values():
            shutil.rmtree(folder)


def report(counts):
    """Calls by public function, and what they were."""
    for name, found in counts.items():
        by_function = collections.defaultdict(list)
        for what, count in sorted(found.items()):
            function, _, rest = what.partition(" ")
            by_function[function].append((count, rest))
        print("{}: {} calls".format(name, sum(found.values())))
        for function, parts in sorted(by_function.items()):
            total = sum(count for count, _ in parts)
            print("  {:8} {}: {}".format(total, function, ", ".join("{} {}".format(*part) for part in parts)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sanitizers", nargs="*", metavar="|".join(sorted(SANITIZERS)))
    parser.add_argument("--calls", type=int, default=100000, help="random calls in all")
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    arguments = parser.parse_args()
    names = arguments.sanitizers or [
        name for name in SANITIZERS if name != "torch" or importlib.util.find_spec("torch") is not None
    ]
    fine = sanitize(names, arguments.seed, arguments.first, arguments.calls, arguments.jobs)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
