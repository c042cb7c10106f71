"""Tables from what users have: arrays, files, functions of Python and of C."""

import io
import numbers
import os

import numpy as np

from im2col_compat.compat.arrays import TORCH, arrays_of, raw
from im2col_compat.terms.table import MOST, MOST_BITS, Table


def of(table, signed, bits, name):
    """The Table of Op.from_table's arguments."""
    signed, bits = _pair("signed", signed, _is_bool), _pair("bits", bits, _is_count)
    if hasattr(table, "__fspath__"):
        table = table.__fspath__()
    is_text = hasattr(table, "lower")
    is_c = is_text and (table.endswith((".c", ".h")) or "{" in table)
    if name is not None and not is_c:
        raise ValueError("Op.from_table(): name is for C, but got name={!r} and table={!r}".format(name, table))
    if not is_c:
        signed = (False, False) if signed is None else signed
    if is_c:
        found = _of_c(table, signed, bits, name)
    elif is_text:
        found = _of_array(np.load(table), signed) if table.endswith(".npy") else _of_text(table, signed)
    elif callable(table):
        return _of_function(table, signed, (MOST_BITS, MOST_BITS) if bits is None else bits)
    else:
        found = _of_array(table, signed)
    if bits not in (None, found.bits):
        raise ValueError("Op.from_table(): bits={} but table is of {} bits".format(bits, found.bits))
    return found


def _of_c(table, signed, bits, name):
    # Here and not above: what compiles builds on what ops are.
    from im2col_compat.terms import table_c

    if "{" in table:
        where, text, directory = "the C source", table, None
    else:
        where, directory = table, os.path.dirname(os.path.abspath(table))
        text = _read(table)
    entries, signed = table_c.tabulate(text, where, signed, bits, name, directory)
    return _of_array(entries, signed)


def _read(path):
    """A file's text, of which only ASCII matters."""
    with io.open(path, encoding="latin-1") as text:
        return str(text.read().encode("ascii", "replace").decode("ascii"))


def _is_bool(value):
    return isinstance(value, (bool, np.bool_))


def _is_count(value):
    return isinstance(value, numbers.Integral) and not _is_bool(value) and 1 <= value <= MOST_BITS


def _pair(name, value, is_valid):
    """For w and for x."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(is_valid(item) for item in pair):
        kind = "a bool" if is_valid is _is_bool else "an int from 1 to {}".format(MOST_BITS)
        raise ValueError(
            "Op.from_table(): {} must be {}, or a pair for w and x, but got {!r}".format(name, kind, value)
        )
    return pair


def _of_array(array, signed):
    """The Table of a NumPy array, or what can be one. ValueError or TypeError where it isn't one."""
    if arrays_of(array) is TORCH and TORCH is not None:
        array = raw(array).cpu().numpy()
    entries = np.asarray(array)
    sizes = [2**bits for bits in range(1, MOST_BITS + 1)]
    if entries.ndim != 2 or entries.shape[0] not in sizes or entries.shape[1] not in sizes:
        raise ValueError(
            "Op.from_table(): table must have 2**a rows and 2**b columns, a and b from 1 to {}, but has shape {}".format(
                MOST_BITS, entries.shape
            )
        )
    if entries.dtype.kind not in "biu":
        raise TypeError("Op.from_table(): table must be of an integer dtype, but is {}".format(entries.dtype))
    least, most = int(entries.min()), int(entries.max())
    if least < -MOST or most > MOST:
        raise ValueError(
            "Op.from_table(): table's entries must be from {} to {}, but there is {}".format(
                -MOST, MOST, most if most > MOST else least
            )
        )
    return Table(entries.astype(np.int64), signed)


def _of_function(function, signed, bits):
    """The Table of a Python function of two ints, called for each pair."""
    ranges = [
        list(range(2**count)) if not sign else list(range(2 ** (count - 1))) + list(range(-(2 ** (count - 1)), 0))
        for count, sign in zip(bits, signed)
    ]
    entries = np.empty([len(values) for values in ranges], object)
    for i, w in enumerate(ranges[0]):
        for j, x in enumerate(ranges[1]):
            entry = function(w, x)
            if not isinstance(entry, (numbers.Integral, np.bool_)):
                raise TypeError(
                    "Op.from_table(): table({}, {}) must return an int, but returned {!r}".format(w, x, entry)
                )
            entries[i, j] = int(entry)
    return _of_array(_of_ints(entries), signed)


def _of_ints(entries):
    """An array of Python's ints as int64, those that are too large still being so."""
    clamped = [max(-MOST - 1, min(MOST + 1, entry)) for entry in entries.ravel()]
    return np.array(clamped, np.int64).reshape(entries.shape)


def _of_text(path, signed):
    """The Table in a text file, a row a line, its numbers separated by commas, semicolons or blanks."""
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        words = line.replace(",", " ").replace(";", " ").split()
        try:
            rows.append([int(word) for word in words])
        except ValueError:
            raise ValueError("Op.from_table(): {}, line {}, must have integers, but is {!r}".format(path, number, line))
    rows = [row for row in rows if row]
    if len({len(row) for row in rows}) > 1:
        raise ValueError(
            "Op.from_table(): the lines of {} must have as many numbers each, but have {}".format(
                path, sorted({len(row) for row in rows})
            )
        )
    return _of_array(_of_ints(np.array(rows, object).reshape(len(rows), -1 if rows else 0)), signed)
