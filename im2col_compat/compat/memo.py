"""What was worked out once and is kept, within bounds. Any number of threads may use it."""


class Memo(object):
    """Up to `most` values by their keys. When it is full it begins anew."""

    def __init__(self, most):
        self.most = most
        self._known = {}

    def get(self, key, make):
        """The value of a key; make() where there is none. Threads that meet here may each make it; one value is kept."""
        known = self._known
        try:
            return known[key]
        except KeyError:
            value = make()
        if len(known) >= self.most:
            # Not clear(): another thread may be between looking and taking.
            known = self._known = {}
        return known.setdefault(key, value)
