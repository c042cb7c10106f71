"""What an environment has and what im2col_compat makes of it, as JSON. Runs on any Python."""

import json
import platform
import sys

import im2col_compat
import numpy as np
from im2col_compat import lowlevel
from im2col_compat.codegen import kernels
from im2col_compat.compat.probes import torch

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
