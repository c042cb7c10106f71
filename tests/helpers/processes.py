"""Pythons of their own."""

import atexit
import json
import os
import subprocess
import sys
import tempfile

# Importing torch takes seconds. A process that has imported it, and nothing of ours, forks for each code that it gets.
_SERVER = """
import json, os, sys, traceback
import numpy
try:
    import torch
except ImportError:
    pass
for line in iter(sys.stdin.readline, ""):
    request = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number, name in enumerate([os.devnull] + request["files"]):
                os.dup2(os.open(name, os.O_RDWR), number)
            os.environ.clear()
            os.environ.update((str(name), str(value)) for name, value in request["environment"].items())
            exec(compile(request["code"], "<string>", "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.stdout.write("%d\\n" % os.waitpid(child, 0)[1])
    sys.stdout.flush()
"""
_servers = []


def run(code, **environment):
    """(standard output, standard error), stripped, of code in a process that has torch and nothing of ours imported.

    Its error output is the test's if it fails. What Python or a library reads of the environment while it starts is as
    it was before: anew() is for that.
    """
    if not hasattr(os, "fork"):
        return anew(code, **environment)
    if not _servers:
        _servers.append(
            subprocess.Popen(
                [sys.executable, "-c", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd="/",
                close_fds=True,
            )
        )
        atexit.register(_servers[0].stdin.close)
    files = [tempfile.NamedTemporaryFile() for _ in range(2)]
    request = dict(code=code, environment=dict(os.environ, **environment), files=[file.name for file in files])
    _servers[0].stdin.write((json.dumps(request) + "\n").encode())
    _servers[0].stdin.flush()
    status = int(_servers[0].stdout.readline())
    out, err = [file.read().decode().strip() for file in files]
    assert status == 0, err
    return out, err


def anew(code, **environment):
    """The same in a new interpreter."""
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
