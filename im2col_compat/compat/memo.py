"""Results that are remembered: at most so many, by any number of threads."""

_NOTHING = object()


class Memo(object):
    """What a function gave for each key, for about `most` keys; when these are reached, it forgets them all.

    Threads may call `get` at once. No lock is held, so `make` may take its time, call `get` in turn, or fork.
    """

    def __init__(self, most):
        self.most = most
        self._values = {}

    def get(self, key, make):
        """What make() gave for the key, or gives now. Threads that make it at the same time all get the same."""
        value = self._values.get(key, _NOTHING)
        if value is not _NOTHING:
            return value
        value = make()
        values = self._values
        if len(values) >= self.most and key not in values:
            # Another dictionary, and not clear(): another thread may be about to look into this one.
            values = self._values = {}
        return values.setdefault(key, value)

    def known(self, key):
        """What is remembered for the key, or None: what costs least to ask."""
        return self._values.get(key)

    def has(self, key):
        """Whether there is something for the key, now."""
        return key in self._values
