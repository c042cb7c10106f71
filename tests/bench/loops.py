"""The loops that one would write for numba. Sums are not reordered."""

import numba
import numpy as np


def l1(parallel):
    @numba.njit(parallel=parallel)
    def function(w, columns):
        (filters, taps), (batch, _, length) = w.shape, columns.shape
        y = np.zeros((batch, filters, length), np.float32)
        for row in numba.prange(batch * filters):
            n, o = row // filters, row % filters
            for k in range(taps):
                for i in range(length):
                    y[n, o, i] += abs(w[o, k] - columns[n, k, i])
        return y

    return function


def max_plus(parallel):
    @numba.njit(parallel=parallel)
    def function(w, columns):
        (filters, taps), (batch, _, length) = w.shape, columns.shape
        y = np.full((batch, filters, length), -np.inf, np.float32)
        for row in numba.prange(batch * filters):
            n, o = row // filters, row % filters
            for k in range(taps):
                for i in range(length):
                    y[n, o, i] = max(y[n, o, i], w[o, k] + columns[n, k, i])
        return y

    return function
