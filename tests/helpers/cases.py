"""Many small cases under one name, none of which hides those behind it."""

import traceback

import pytest


def each(check, cases):
    """Call check(case), or check(*case) of a tuple, for every case. Fails with all that failed, if any did."""
    failures = []
    for case in cases:
        try:
            check(*(case if isinstance(case, tuple) else (case,)))
        except (Exception, pytest.fail.Exception):
            failures.append("{!r}\n{}".format(case, traceback.format_exc()))
    assert not failures, "{} of the cases fail:\n\n{}".format(len(failures), "\n".join(failures))
