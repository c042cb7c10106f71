"""Training on several processes: the parameters are those that one process finds."""

import os
import sys

import pytest
from helpers import processes
from helpers.settings import needs_torch
from helpers.tensors import torch

SCRIPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "distributed.py")

#: Two processes are forked, so that torch is imported once.
TWO = """
import os, runpy, sys, traceback
children = []
for rank in range(2):
    child = os.fork()
    if child == 0:
        try:
            os.environ["RANK"], sys.argv[1:] = str(rank), {arguments!r}
            runpy.run_path({script!r}, run_name="__main__")
            sys.stdout.flush()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
"""


def has(module, name):
    try:
        return hasattr(__import__(module, fromlist=[name]), name)
    except ImportError:
        return False


def free_port():
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def alone(tmpdir_factory):
    """The parameters that one process finds."""
    path = str(tmpdir_factory.mktemp("alone").join("parameters"))
    code = "import runpy, sys; sys.argv[1:] = ['--save', {!r}]; runpy.run_path({!r}, run_name='__main__')"
    processes.run(code.format(path, SCRIPT), OMP_NUM_THREADS=1)
    return torch.load(path)


@needs_torch
@pytest.mark.skipif(not (has("torch.distributed", "is_initialized") and hasattr(os, "fork")), reason="needs processes")
@pytest.mark.skipif(not has("torch.nn", "Flatten"), reason="the example is for PyTorch 1.2 and later")
@pytest.mark.parametrize("arguments", [[], ["--shard"]], ids=["ddp", "fsdp2"])
def test_two_processes_learn_what_one_does(tmpdir, alone, arguments):
    """Both compile the ops at once, from an empty cache. Every parameter moves, the op's too."""
    if arguments and not has("torch.distributed.fsdp", "fully_shard"):
        pytest.skip("needs fully_shard")
    path, cache = str(tmpdir.join("parameters")), str(tmpdir.join("cache"))
    out, _ = processes.run(
        TWO.format(arguments=arguments + ["--save", path], script=SCRIPT),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), WORLD_SIZE=2, OMP_NUM_THREADS=1, IM2COL_COMPAT_CACHE=cache,
    )  # fmt: skip
    assert out.count("loss") == 5
    found = torch.load(path)
    sys.path.insert(0, os.path.dirname(SCRIPT))
    try:
        from distributed import new_network
    finally:
        del sys.path[0]
    for one, two, first in zip(alone, found, new_network().parameters()):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-6)
        assert (first - two).abs().max() > 1e-4
