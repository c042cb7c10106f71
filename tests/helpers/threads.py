"""Threads that interfere with each other as much as they can."""

import sys
import threading


def at_once(functions):
    """Call functions in a thread each, which take turns as often as they can. Fails if one does."""
    failures = []

    def call(function):
        try:
            function()
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=call, args=(function,)) for function in functions]
    switch = getattr(sys, "setswitchinterval", None) or sys.setcheckinterval
    before = (getattr(sys, "getswitchinterval", None) or sys.getcheckinterval)()
    switch(1e-6 if hasattr(sys, "setswitchinterval") else 1)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        switch(before)
    assert not failures, failures
