"""What an environment has and what im2col_compat makes of it, as JSON. Runs on any Python."""

import json
import platform
import sys

import numpy as np

import im2col_compat
from im2col_compat import lowlevel
from im2col_compat.compat.probes import torch
from im2col_compat.paths import find as kernels

try:
    import cffi
except ImportError:
    cffi = None

pip = __import__("pip").__version__
explained = im2col_compat.Op(lambda w, x: abs(w - x) + 1).explain()

print(
    json.dumps(
        {
            "executable": sys.executable,
            "python": platform.python_version(),
            "torch": None if torch is None else str(torch.__version__),
            "numpy": np.__version__,
            "cffi": getattr(cffi, "__version__", None),
            "pip": pip,
            "engine": im2col_compat.backend(),
            "engines": im2col_compat.available_backends(),
            "library": lowlevel.missing is None,
            "kernels": None if lowlevel.missing else kernels.LEVELS[kernels.level()],
            "own": explained.splitlines()[1].split(":")[0].rstrip("."),
        }
    )
)
