"""Tables from what users have: arrays, files, functions of Python and of C."""

import io
import numbers
import os

import numpy as np

from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import TORCH, arrays_of, raw
from im2col_compat.terms import table_c
from im2col_compat.terms.table import MOST, MOST_BITS, Table
from im2col_compat.terms.table_c import error


def of(table, signed, bits, name):
    """The Table of Op.from_table's arguments."""
    signed = _pair("signed", signed, "a bool", _is_bool)
    bits = _pair("bits", bits, "an int from 1 to {}".format(MOST_BITS), _is_count)
    if hasattr(table, "__fspath__"):
        table = table.__fspath__()
    is_text = hasattr(table, "lower")
    is_c = is_text and (table.endswith((".c", ".h")) or "{" in table)
    if name is not None and not is_c:
        raise error(ValueError, "name is for C, but got name={!r} and table={!r}", name, table)
    if is_c:
        where, text, directory = "the C source", table, None
        if "{" not in table:
            where, text, directory = table, _read(table), os.path.dirname(os.path.abspath(table))
        table, signed = table_c.tabulate(text, where, signed, bits, name, directory)
    elif is_text:
        says_signed, says_bits = table_c.said(table)
        signed = signed or says_signed
        if table.endswith(".bin"):
            table = _of_bytes(table, signed, bits or says_bits or (MOST_BITS, MOST_BITS))
        else:
            table = np.load(table) if table.endswith(".npy") else _of_text(table)
    elif callable(table):
        table = _of_function(table, signed or (False, False), bits or (MOST_BITS, MOST_BITS))
    found = _of_array(table, signed or (False, False))
    if bits not in (None, found.bits):
        raise error(ValueError, "bits={} but table is of {} bits", bits, found.bits)
    return found


def _is_bool(value):
    return isinstance(value, (bool, np.bool_))


def _is_count(value):
    return isinstance(value, numbers.Integral) and not _is_bool(value) and 1 <= value <= MOST_BITS


def _pair(name, value, kind, is_valid):
    """A value for w and one for x; None for None."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(is_valid(item) for item in pair):
        raise error(ValueError, "{} must be {}, or a pair for w and x, but got {!r}", name, kind, value)
    return pair


def _read(path):
    """A file's text, of which only ASCII matters."""
    with io.open(path, encoding="latin-1") as text:
        return str(text.read().encode("ascii", "replace").decode("ascii"))


def _of_array(array, signed):
    """The Table of a NumPy array, or of what can be one. ValueError or TypeError where it isn't one."""
    if TORCH is not None and arrays_of(array) is TORCH:
        halves = TORCH.dtype(array) in dtypes.HALVES  # NumPy knows but one of them
        array = raw(TORCH.cast(array, "float32") if halves else array).cpu().numpy()
    entries = np.asarray(array)
    sizes = [2**bits for bits in range(1, MOST_BITS + 1)]
    if entries.ndim != 2 or entries.shape[0] not in sizes or entries.shape[1] not in sizes:
        message = "table must have 2**a rows and 2**b columns, a and b from 1 to {}, but has shape {}"
        raise error(ValueError, message, MOST_BITS, entries.shape)
    if entries.dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = entries.astype(np.float32)
        if np.isinf(rounded[np.isfinite(entries)]).any():
            raise error(ValueError, "table's entries must be ones that float32 has, but there are larger ones")
        return Table(rounded, signed)
    if entries.dtype.kind not in "biu":
        raise error(TypeError, "table must be of an integer or a float dtype, but is {}", entries.dtype)
    least, most = int(entries.min()), int(entries.max())
    if least < -MOST or most > MOST:
        wrong = most if most > MOST else least
        raise error(ValueError, "table's entries must be from {} to {}, but there is {}", -MOST, MOST, wrong)
    return Table(entries.astype(np.int64), signed)


def _of_function(function, signed, bits):
    """The array of a Python function of two ints, called for each pair."""
    ranges = [list(range(2**count)) for count in bits]
    for values, sign in zip(ranges, signed):
        if sign:
            half = len(values) // 2
            values[half:] = range(-half, 0)
    return _of_numbers([[_entry(function, w, x) for x in ranges[1]] for w in ranges[0]])


def _entry(function, w, x):
    entry = function(w, x)
    if not isinstance(entry, (numbers.Real, np.bool_)):
        raise error(TypeError, "table({}, {}) must return an int or a float, but returned {!r}", w, x, entry)
    return int(entry) if isinstance(entry, (numbers.Integral, np.bool_)) else float(entry)


def _of_numbers(rows):
    """An array of rows of Python's ints, or where there is a float, of floats. Ints that are too large stay too large,
    but fit int64."""
    if any(isinstance(entry, float) for row in rows for entry in row):
        return np.array(rows, np.float64)
    clamped = [[max(-MOST - 1, min(MOST + 1, entry)) for entry in row] for row in rows]
    return np.array(clamped, np.int64).reshape(len(rows), -1 if rows else 0)


def _of_bytes(path, signed, bits):
    """The array of a file of nothing but entries, row by row, of 16 or 32 bits each, the low byte first."""
    if signed is None:
        raise table_c.unknown_signs(path)
    shape = 2 ** bits[0], 2 ** bits[1]
    sizes = {shape[0] * shape[1] * width: width for width in (2, 4)}
    found = os.path.getsize(path)
    if found not in sizes:
        message = "{} must have {} entries of 2 or 4 bytes for operands of {} bits, but has {} bytes"
        raise error(ValueError, message, path, shape[0] * shape[1], bits, found)
    kind = "<u2" if sizes[found] == 2 and not any(signed) else "<i{}".format(sizes[found])
    return np.fromfile(path, kind).astype(np.int64).reshape(shape)


def _of_text(path):
    """The array in a text file, a row a line, its numbers separated by commas, semicolons or blanks."""
    rows = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        words = line.replace(",", " ").replace(";", " ").split()
        try:
            rows.append([_number(word) for word in words])
        except ValueError:
            raise error(ValueError, "{}, line {}, must have numbers, but is {!r}", path, number, line)
    rows = [row for row in rows if row]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise error(ValueError, "the lines of {} must have as many numbers each, but have {}", path, lengths)
    return _of_numbers(rows)


def _number(word):
    try:
        return int(word)
    except ValueError:
        return float(word)
