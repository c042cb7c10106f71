"""Which engine is forced: for the process by a call, for a thread or a task by a with block."""

import os
import threading
import weakref

try:
    from contextvars import ContextVar
except ImportError:  # before Python 3.7

    class ContextVar(threading.local):
        value = ()

        def __init__(self, name, default):
            pass

        def get(self):
            return self.value

        def set(self, value):
            self.value = value


VARIABLE = "IM2COL_COMPAT_BACKEND"
_lock = threading.Lock()
#: What the environment forces, and then what calls do: (weak reference to who called, name), the latest last.
_calls = [(None, os.environ.get(VARIABLE) or "auto")]
#: The name of the last of these.
_process = _calls[-1][1]
#: The with blocks of this thread or task, and how many there are in all of them.
_here = ContextVar("im2col_compat.forced", default=())
_blocks = 0


def name():
    """The name of the engine that is forced here, or "auto"."""
    if not _blocks:  # torch.compile understands this much
        return _process
    here = [owner for owner, is_block in _here.get() if owner.entered or not is_block]
    return here[-1].name if here else _process


def call(owner):
    """Force owner.name in the whole process, until uncall(owner): for good if there is no owner any more."""
    global _process
    with _lock:
        for_good = max(i for i, (who, _) in enumerate(_calls) if who is None or who() is None)
        _calls[:] = _calls[for_good:] + [(weakref.ref(owner), owner.name)]
        _process = owner.name
    if _here.get():
        _here.set(_here.get() + ((owner, False),))  # it holds in a with block too, until that ends


def uncall(owner):
    """End what call(owner) does."""
    global _process
    with _lock:
        _calls[:] = [(who, name) for who, name in _calls if who is None or who() is not owner]
        _process = _calls[-1][1]
    _here.set(tuple(one for one in _here.get() if one != (owner, False)))


def enter(owner):
    """Force owner.name in this thread or task, until leave(owner)."""
    global _blocks
    with _lock:
        _blocks += 1
        owner.entered += 1
    _here.set(_here.get() + ((owner, True),))


def leave(owner):
    """End what the latest enter(owner) does, and what was called in it."""
    global _blocks
    with _lock:
        _blocks -= 1
        owner.entered -= 1
    here = list(_here.get())
    if (owner, True) in here:
        last = len(here) - 1 - here[::-1].index((owner, True))
        _here.set(tuple(here[:last] + [one for one in here[last + 1 :] if one[1]]))
