"""All that needs a GPU, in ten minutes at most: the tests, compute-sanitizer where it is, and the figures in docs/cuda.md.

make cuda, or, where im2col_compat is installed already, python tests/cuda/run.py. Exit status 1 if a test fails.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Most of the tests' time is NVRTC's.
WORKERS = ["-n", "6", "--dist", "worksteal"] if importlib.util.find_spec("xdist") else []
#: name, seconds at most, command
PARTS = [
    (
        "tests",
        240,
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--maxfail=20",
            *WORKERS,
            "tests/test_cuda.py",
        ],
    ),
    ("sanitizer", 100, ["compute-sanitizer", "--error-exitcode", "1", sys.executable, str(HERE / "sanitize.py")]),
    ("speed", 230, [sys.executable, str(HERE / "speed.py"), "--seconds", "190"]),
]


def main():
    wanted, failed = sys.argv[1:] or [name for name, _, _ in PARTS], []
    for name, seconds, command in PARTS:
        if name not in wanted:
            continue
        if shutil.which(command[0]) is None:
            print("=== {}: there is no {}".format(name, command[0]), flush=True)
            continue
        print("=== " + name, flush=True)
        start = time.perf_counter()
        try:
            status = subprocess.call(
                command, cwd=str(ROOT), timeout=seconds, env=dict(os.environ, PYTHONUNBUFFERED="1")
            )
        except subprocess.TimeoutExpired:
            status = "cut off"
        print("=== {}: {} after {:.0f} s".format(name, status, time.perf_counter() - start), flush=True)
        failed += [name] if status else []
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
