"""compat.memo: what is remembered, how much of it, and what threads get."""

import threading

import pytest
from helpers.threads import at_once

from im2col_compat.compat.memo import Memo


def refuse():
    raise AssertionError("it was made again")


@pytest.mark.parametrize("value", [1, None, False, ()], ids=repr)
def test_a_value_is_made_once(value):
    """get makes what it doesn't know, and gives it from then on, whatever it is."""
    memo = Memo(3)
    assert memo.get("key", lambda: value) is value
    assert memo.get("key", refuse) is value


def test_failures_are_not_remembered():
    """What make raises passes through, and the next call tries again."""
    memo = Memo(3)
    with pytest.raises(ZeroDivisionError):
        memo.get("key", lambda: 1 / 0)
    assert memo.get("key", lambda: 2) == 2


def test_it_is_bounded():
    """It never holds more than `most` keys; one that it has forgotten is made again."""
    memo = Memo(3)
    for i in range(10):
        assert memo.get(i, lambda: -i) == -i
        assert len(memo._values) <= 3
    assert memo.get(0, lambda: "again") == "again"


def test_making_may_use_it():
    """make may call get, for another key or for its own."""
    memo = Memo(1)
    assert memo.get(1, lambda: memo.get(2, lambda: 3) + 1) == 4
    assert memo.get(5, lambda: memo.get(5, lambda: "inner") and "outer") == "inner"


def test_threads_that_make_the_same_get_the_same():
    """Threads that make one key at the same time get one value, though each has made its own."""
    memo, found = Memo(9), []
    together = [threading.Event() for _ in range(4)]

    def make(i):
        together[i].set()
        assert all(event.wait(60) for event in together)
        return object()

    at_once([lambda i=i: found.append(memo.get("key", lambda: make(i))) for i in range(4)])
    assert len(found) == 4 and len(set(map(id, found))) == 1


def test_threads_survive_forgetting():
    """Threads that make it forget all the time get the right value for each key."""
    memo, wrong = Memo(2), []

    def work(start):
        for i in range(3000):
            key = (start + i) % 7
            if memo.get(key, lambda: -key) != -key:
                wrong.append(key)

    at_once([lambda start=start: work(start) for start in range(4)])
    assert not wrong
