"""Products that are looked up: the table of Op.from_table, as tensor operations and as the C kernels' rows."""

import functools

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen.kernels import LEVELS, Kernels, Packed
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import arrays_of
from im2col_compat.problem import product
from im2col_compat.terms.function import Function

#: Bits of an operand.
MOST_BITS = 8
#: The largest entry, and the least one's size.
MOST = 2**31 - 1
#: Results that C looks up at a time, where there are many of them and where there are few.
WIDE, NARROW = 256, 64


class Table(object):
    """multiply(w, x) = entries[w, x], as NumPy indexes: a negative operand counts from the end, as its bits do.

    entries: an int64 array of 2**a rows, one for each w, and 2**b columns, one for each x, a and b from 1 to 8.
    signed: whether w is, and whether x is.
    """

    def __init__(self, entries, signed):
        self.entries = entries
        self.entries.flags.writeable = False
        self.signed = signed
        # Once, not in each call: looking through all entries takes longer than a small call.
        self._least, most = int(entries.min()), int(entries.max())
        self._largest, span = max(-self._least, most, 1), most - self._least
        self._planes = 1 if span < 2**8 else 2 if span < 2**16 else 0  # of bytes, for permutes; 0: not by these
        self._kept = {}  # what is made of it for C

    @property
    def bits(self):
        """Of w and of x."""
        return tuple(size.bit_length() - 1 for size in self.entries.shape)

    @property
    def ranges(self):
        """The least and the greatest w, and x."""
        return tuple(
            (-(size // 2), size // 2 - 1) if signed else (0, size - 1)
            for size, signed in zip(self.entries.shape, self.signed)
        )

    def __call__(self, w, x):
        return arrays_of(w).look_up(self.entries, w, x)

    def kernels(self, count, masks, level):
        """The address of the C kernels that suit `count` results best; masks: which can leave taps out."""
        # Panels are filled up, but wide ones are looked up twice as fast.
        lanes = WIDE if -(-count // WIDE) * WIDE <= 2 * -(-count // NARROW) * NARROW else NARROW
        planes = 0 if masks else self._planes
        key = planes, lanes, level
        if key not in self._kept:
            # Never another one in its place: threads may be computing with what is there.
            self._kept.setdefault(key, self._made(planes, lanes, level))
        return self._kept[key][0]

    def _made(self, planes, lanes, level):
        entries = self.entries[np.arange(256) % self.entries.shape[0]]
        if planes:
            # A permute of 64 bytes takes no notice of an index's upper bits.
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
        """The table of x and w."""
        if "transposed" not in self._kept:
            self._kept.setdefault("transposed", Table(np.ascontiguousarray(self.entries.T), self.signed[::-1]))
        return self._kept["transposed"]

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

    def operands(self, arrays, function, w, x):
        """w and x as bytes. TypeError for other than integers, ValueError for those that the table has no entry for."""
        table = self.multiply
        result = []
        for (name, value), (low, high), signed in zip((w, x), table.ranges, table.signed):
            dtype = arrays.dtype(value)
            if not dtypes.is_integer(dtype):
                raise TypeError(
                    "{}(): {} must be of an integer dtype for {!r}, but is {}".format(function, name, table, dtype)
                )
            least, most = dtypes.limits(dtype)
            if (least < low or most > high) and 0 not in tuple(value.shape):
                least, most = arrays.extremes(value)
                if least < low or most > high:
                    raise ValueError(
                        "{}(): {} must be from {} to {} for {!r}, but has {}".format(
                            function, name, low, high, table, least if least < low else most
                        )
                    )
            byte = "int8" if signed else "uint8"
            result.append(value if dtype == byte else arrays.cast(value, byte))
        return result

    def result_dtype(self, dtype):
        return "int64" if dtypes.is_integer(dtype) else dtype

    def pad_limits(self, dtype):
        # A table knows fewer numbers than a dtype has.
        return self.multiply.ranges[1]

    def kernels(self, op, dtype, arrays, level):
        if not dtypes.is_integer(dtype):
            return None, "a table takes integers"
        if not op.reduction.fuses_products:
            return None, "C looks up terms only where they are summed"
        by_permutes = ", by byte permutes" if lowlevel.has_permutes(level) else ""
        origin = "looked up, {}{}".format(LEVELS[level], by_permutes)
        return (
            Kernels(None, dtype, "int64", origin, None, functools.partial(_packed, self.multiply, level)),
            None,
        )

    def recordable(self, op, dtype):
        # What comes of it depends on the operands' values: those that the table has no entry for are an error.
        return False

    def explained(self, op, dtype, arrays, kernels):
        return ""


def _packed(table, level, layout, arrays, w, x):
    """The operands as they are, which are bytes, and the kernels that suit the layout best."""
    count = layout.batch * product(layout.blocks)
    if layout.transposes and layout.filters > count:
        # Few rows of many features: filters take the place of positions.
        layout, table, w, x = layout.transposed(), table.transposed(), x, w
        count = layout.batch * product(layout.blocks)
    address = table.kernels(count, layout.pad is None and layout.pads, level)
    return Packed(layout, address, 1, arrays.address(w), arrays.address(x), (w, x))
