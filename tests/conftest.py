"""The suite tests the installed package, in whatever interpreter and torch is there."""

import os
import sys

import pytest
from hypothesis import settings

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# `python -m pytest` puts the source tree first; what is installed is what counts.
sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.getcwd()) != ROOT]

# What is compiled at run time is kept from one session to the next, for all of xdist's workers, and not in the user's cache.
os.environ.setdefault("IM2COL_COMPAT_CACHE", os.path.join(ROOT, ".pytest_cache", "kernels"))
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers are as many as there are processors. (Tests of several threads say how many.)
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from helpers.tensors import has, served, torch  # noqa: E402

import im2col_compat  # noqa: E402

if os.path.dirname(os.path.abspath(im2col_compat.__file__)) == os.path.join(ROOT, "im2col_compat"):
    pytest.exit("im2col_compat is imported from the source tree: install it first (make test does)")


# The same examples in every run, so that a run that fails fails again. `--hypothesis-profile=default` tries others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_report_header(config):
    from im2col_compat.__main__ import report

    return report()


def pytest_collection_modifyitems(config, items):
    """No tests of what an engine doesn't promise to serve. (test_backends has what F.unfold must be found to serve.)"""
    kept, others = [], []
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        (kept if promised(parameters) else others).append(item)
    config.hook.pytest_deselected(items=others)
    items[:] = kept


def promised(parameters):
    if "engine" not in parameters:
        return True
    kind = parameters.get("kind", "numpy" if torch is None else "tensor")
    dtype = parameters.get("dtype", "float64")
    return has(kind, dtype) and served(parameters["engine"], kind, dtype)


@pytest.fixture(params=im2col_compat.available_backends())
def engine(request):
    """Each available engine, forced."""
    with im2col_compat.use_backend(request.param):
        yield request.param
