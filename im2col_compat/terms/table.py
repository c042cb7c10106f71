"""Products that are looked up: the table of Op.from_table, for tensor operations and as rows for C kernels."""

import functools

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen.kernels import LEVELS, Kernels, Packed
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import arrays_of
from im2col_compat.problem import product
from im2col_compat.terms.function import Function

MOST_BITS = 8  # of an operand
MOST = 2**31 - 1  # the largest absolute value of an entry
WIDE, NARROW = 256, 64  # results that C looks up at a time, where there are many of them and where there are few


class Table(object):
    """multiply(w, x) = entries[w, x], as NumPy indexes: a negative operand counts from the end, as its bits do.

    entries: an int64 array of 2**a rows, one for each w, and 2**b columns, one for each x, a and b from 1 to 8.
    signed: whether w is, and whether x is.
    """

    def __init__(self, entries, signed):
        self.entries, self.signed = entries, signed
        self.entries.flags.writeable = False
        # Once, not in each call: looking through all entries takes longer than a small call.
        self._least, most = int(entries.min()), int(entries.max())
        self._largest, span = max(-self._least, most, 1), most - self._least
        # How many bytes of an entry permutes have to look up; 0 where there are too many for permutes.
        self._planes = 1 if span < 2**8 else 2 if span < 2**16 else 0
        self._kept = {}  # what is made of it for C

    @property
    def bits(self):
        """Of w and of x."""
        return tuple(size.bit_length() - 1 for size in self.entries.shape)

    @property
    def ranges(self):
        """The least and the greatest w, and x."""
        sizes = zip(self.entries.shape, self.signed)
        return tuple((-(size // 2), size // 2 - 1) if signed else (0, size - 1) for size, signed in sizes)

    def __call__(self, w, x):
        return arrays_of(w).look_up(self.entries, w, x)

    def kernels(self, count, masks, level):
        """The address of the C kernels that suit `count` results best; masks: whether they must leave taps out."""
        # Wide panels are looked up twice as fast, but a panel that isn't full costs as much as a full one.
        lanes = WIDE if -(-count // WIDE) * WIDE <= 2 * -(-count // NARROW) * NARROW else NARROW
        planes = 0 if masks else self._planes
        return self._keep((planes, lanes, level), lambda: self._made(planes, lanes, level))[0]

    def _keep(self, key, make):
        # What is there is never replaced: threads may be computing with it.
        return self._kept[key] if key in self._kept else self._kept.setdefault(key, make())

    def _made(self, planes, lanes, level):
        entries = self.entries[np.arange(256) % self.entries.shape[0]]
        if planes:
            # A permute of 64 bytes ignores the upper bits of an index.
            columns = max(64, entries.shape[1])
            values = (np.tile(entries, (1, columns // entries.shape[1])) - self._least).astype(np.uint16)
            parts = [(values >> shift & 255).astype(np.uint8) for shift in (0, 8)[:planes]]
            rows = np.ascontiguousarray(np.stack(parts, 1))
            found = lowlevel.table_kernels(rows, self._least, planes, columns, lanes, None, level)
            if found is not None:
                return found
        rows = np.ascontiguousarray(entries[:, np.arange(256) % entries.shape[1]], np.int32)
        return lowlevel.table_kernels(rows, 0, 0, 256, NARROW, MOST // self._largest, level)

    def transposed(self):
        """The table with x and w in each other's place."""
        return self._keep("transposed", lambda: Table(np.ascontiguousarray(self.entries.T), self.signed[::-1]))

    def __repr__(self):
        kinds = ["{}int{}".format("" if signed else "u", bits) for signed, bits in zip(self.signed, self.bits)]
        return "table[{}, {}]".format(*kinds)

    def __reduce__(self):
        return Table, (self.entries, self.signed)

    def __eq__(self, other):
        same = isinstance(other, Table) and other.signed == self.signed
        return same and np.array_equal(other.entries, self.entries)

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash((self.signed, self.entries.tobytes()))


class Lookup(Function):
    """Terms that are looked up in a Table."""

    mixes_dtypes = looks_up = True

    @staticmethod
    def takes(multiply):
        return isinstance(multiply, Table)

    def parameters(self):
        return ()

    def operands(self, arrays, function, w, x):
        """w and x as bytes. TypeError where they aren't integers, ValueError where the table has no entry for one."""
        table, result = self.multiply, []
        for (name, value), (low, high), signed in zip((w, x), table.ranges, table.signed):
            dtype = arrays.dtype(value)
            if not dtypes.is_integer(dtype):
                message = "{}(): {} must be of an integer dtype for {!r}, but is {}"
                raise TypeError(message.format(function, name, table, dtype))
            least, most = dtypes.limits(dtype)
            if (least < low or most > high) and 0 not in tuple(value.shape):
                least, most = arrays.extremes(value)
                if least < low or most > high:
                    message = "{}(): {} must be from {} to {} for {!r}, but has {}"
                    wrong = least if least < low else most
                    raise ValueError(message.format(function, name, low, high, table, wrong))
            byte = "int8" if signed else "uint8"
            result.append(value if dtype == byte else arrays.cast(value, byte))
        return result

    def result_dtype(self, dtype):
        return "int64" if dtypes.is_integer(dtype) else dtype

    def pad_limits(self, dtype):
        return self.multiply.ranges[1]

    def kernels(self, op, dtype, arrays, level, scalars=()):
        if not dtypes.is_integer(dtype):
            return None, "a table takes integers"
        if not op.reduction.fuses_products:
            return None, "C looks up terms only where they are summed"
        origin = "looked up, {}{}".format(LEVELS[level], ", by byte permutes" if lowlevel.has_permutes(level) else "")
        return Kernels(None, dtype, "int64", origin, None, functools.partial(_packed, self.multiply, level), None), None

    def is_recordable(self, op, dtype):
        return op.reduction.function is None


def _packed(table, level, layout, arrays, w, x):
    """Packed: the operands as they are, which are bytes, and the kernels that suit the layout best."""
    count = layout.batch * product(layout.blocks)
    if layout.transposes and layout.filters > count:
        # Few rows of many features: filters take the place of positions.
        layout, table, w, x = layout.transposed(), table.transposed(), x, w
        count = layout.batch * product(layout.blocks)
    address = table.kernels(count, layout.pad is None and layout.pads, level)
    return [Packed(layout, address, 1, arrays.address(w), arrays.address(x), 0, (w, x))]
