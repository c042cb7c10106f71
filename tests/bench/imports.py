"""What `import im2col_compat` adds to `import torch` (to `import numpy` where there is no torch): python imports.py."""

import statistics
import subprocess
import sys

CODE = """
import time
try:
    import torch
except ImportError:
    import numpy
before = time.perf_counter()
import im2col_compat
print(time.perf_counter() - before)
"""
ROUNDS = 9


def seconds():
    return float(subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    seconds()  # reads the files into memory
    times = [seconds() * 1000 for _ in range(ROUNDS)]
    print("import im2col_compat: {:.0f} ms ({:.0f} to {:.0f})".format(statistics.median(times), min(times), max(times)))
