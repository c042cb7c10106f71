"""`make sanitize`: the C library and generated kernels under sanitizers, on random calls (drive.py).

    python tests/sanitize/run.py [--seconds 40] [--seed 0] [address] [thread]

Builds the package in a temporary folder, once with AddressSanitizer and UndefinedBehaviorSanitizer ("address"), once
with ThreadSanitizer ("thread"). Fails where one of them finds a fault, where a result is wrong, and where a fault that
is planted on purpose is not found. Needs Linux, gcc with its sanitizers, cffi and NumPy. PyTorch stays out of it: it
isn't built for sanitizers, and all that C does can be asked for without it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DRIVER = os.path.join(HERE, "drive.py")
#: name -> (gcc's options, the library that must be loaded first, planted fault -> what is said of it).
SANITIZERS = {
    "address": (
        "-fsanitize=address,undefined -fno-sanitize-recover=undefined",
        "libasan.so",
        {"overflow": "heap-buffer-overflow", "misaligned": "misaligned address", "kernel": "heap-buffer-overflow"},
    ),
    "thread": ("-fsanitize=thread", "libtsan.so", {"race": "data race"}),
}
OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


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
    environment = dict(os.environ, CC=compiler, PYTHONPATH=folder, PYTHONMALLOC="malloc", **OPTIONS)
    environment.update(IM2COL_COMPAT_CACHE=os.path.join(folder, "cache"), IM2COL_COMPAT_QUIET="1")
    words = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(words, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return environment


def drive(environment, runtime, *arguments):
    """(exit status, output) of the driver."""
    path = subprocess.run(["gcc", "-print-file-name=" + runtime], stdout=subprocess.PIPE, check=True).stdout.decode()
    # ThreadSanitizer needs to know where libraries lie.
    words = ["setarch", "-R", sys.executable, DRIVER] + list(arguments)
    done = subprocess.run(
        words, env=dict(environment, LD_PRELOAD=path.strip()), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def sanitize(name, seed, seconds):
    """Whether nothing was found but what was planted."""
    flags, runtime, faults = SANITIZERS[name]
    folder, started = tempfile.mkdtemp(prefix="sanitize"), time.time()
    try:
        environment = build(folder, flags)
        print("{}: built in {:.0f} s".format(name, time.time() - started), flush=True)
        status, output = drive(environment, runtime, "--seed", str(seed), "--seconds", str(seconds))
        print(output, flush=True)
        fine = status == 0
        for fault in sorted(faults):
            status, output = drive(environment, runtime, "--fault", fault)
            found = status != 0 and faults[fault] in output
            print("{}: the planted fault {!r} is {}".format(name, fault, "found" if found else "NOT FOUND"), flush=True)
            if not found:
                print(output)
            fine = fine and found
        return fine
    finally:
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sanitizers", nargs="*", metavar="|".join(sorted(SANITIZERS)))
    parser.add_argument("--seconds", type=float, default=40, help="of random calls, for each sanitizer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    names = arguments.sanitizers or sorted(SANITIZERS)
    results = {name: sanitize(name, arguments.seed, arguments.seconds) for name in names}
    print(", ".join("{}: {}".format(name, "clean" if results[name] else "FAULTS") for name in names))
    return 0 if all(results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
