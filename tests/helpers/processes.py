"""Pythons of their own."""

import os
import subprocess
import sys


def run(code, **environment):
    """(standard output, standard error) of a new interpreter, both stripped; its error output is the test's if it fails."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=dict(os.environ, **environment),
    )
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip(), err.decode().strip()
