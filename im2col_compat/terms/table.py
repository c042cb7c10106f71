"""Products that are looked up: the table of Op.from_table, for tensor operations and as rows for C kernels."""

import functools

import numpy as np

from im2col_compat import lowlevel
from im2col_compat.codegen import fingerprint, symbols, template
from im2col_compat.codegen.kernels import LEVELS, Kernels, Packed
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import COPIED, TORCH, arrays_of
from im2col_compat.compat.memo import Memo
from im2col_compat.compat.probes import torch
from im2col_compat.cuda import lookups
from im2col_compat.cuda import texts as gpu_texts
from im2col_compat.problem import dense, product
from im2col_compat.terms import function
from im2col_compat.terms.function import Function

MOST_BITS = 8  # of an operand
MOST = 2**31 - 1  # the largest absolute value of an entry
WIDE, NARROW = 256, 64  # results that C looks up at a time, where there are many of them and where there are few

FEW_CHANNELS = 16

_NO_INTEGERS, _NOT_ADDED = "a table takes integers", "C doesn't add up terms so that are looked up"

_built_ins = Memo(100)  # a reduction, the dtype of entries and the level: (Kernels, reason)
_adds = Memo(function.MOST_TRACES)  # what an op's add is made of: (Kernels, reason)
_traced = Memo(function.MOST_TRACES)  # what it was traced to: (Kernels, reason)


class Table(object):
    """multiply(w, x) = entries[w, x], as NumPy indexes: a negative operand counts from the end, as its bits do.

    entries: an array of int64, or of float32, of 2**a rows, one for each w, and 2**b columns, one for each x, a and b
        from 1 to 8.
    signed: whether w is, and whether x is.
    dtype: of entries, by its name.
    """

    def __init__(self, entries, signed):
        self.entries, self.signed = entries, signed
        self.entries.flags.writeable = False
        self.dtype = entries.dtype.name
        self.is_float = self.dtype == "float32"
        # How many bytes of an entry permutes have to look up, 0 where they can't; terms whose sum C's integers hold.
        self._planes, self._depth = 0, None
        if not self.is_float:
            # Once, not in each call: looking through all entries takes longer than a small call.
            self._least, most = int(entries.min()), int(entries.max())
            span = most - self._least
            self._planes = 1 if span < 2**8 else 2 if span < 2**16 else 0
            self._depth = MOST // max(-self._least, most, 1)
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

    def in_graph(self, weights, x):
        """The terms of operands of any integer dtype. Where the graph runs, one that has no entry is an error."""
        rows, columns = [
            _indices(operand, limits, size)
            for operand, limits, size in zip((weights[0], x), self.ranges, self.entries.shape)
        ]
        return torch.from_numpy(self.entries.reshape(-1).copy()).to(x.device)[rows * self.entries.shape[1] + columns]

    def kernels(self, one_by_one, sums, count, masks, level):
        """The address of the C kernels that suit `count` results best.

        one_by_one: the address of those that look up a term at a time, of any table. sums: whether terms are summed.
        masks: whether taps must be left out.
        """
        # Wide panels are looked up twice as fast, but a panel that isn't full costs as much as a full one.
        lanes = WIDE if -(-count // WIDE) * WIDE <= 2 * -(-count // NARROW) * NARROW else NARROW
        permutes = None
        if sums and not masks and self._planes:
            permutes = self._keep((lanes, level), lambda: self._by_permutes(lanes, level))
        if permutes is not None:
            return permutes[0]
        depth = self._depth if sums else None
        return self._keep(one_by_one, lambda: lowlevel.table_kernels(one_by_one, self._rows(), 0, depth))[0]

    def _keep(self, key, make):
        # What is there is never replaced: threads may be computing with it.
        return self._kept[key] if key in self._kept else self._kept.setdefault(key, make())

    def _by_permutes(self, lanes, level):
        """The kernels that look up by byte permutes; None where this machine has none."""
        # A permute of 64 bytes ignores the upper bits of an index.
        columns = max(64, self.entries.shape[1])
        address = lowlevel.permute_kernels(self._planes, columns, lanes, level)
        if not address:
            return None
        entries = self.entries[np.arange(256) % self.entries.shape[0]]
        values = (np.tile(entries, (1, columns // entries.shape[1])) - self._least).astype(np.uint16)
        parts = [(values >> shift & 255).astype(np.uint8) for shift in (0, 8)[: self._planes]]
        return lowlevel.table_kernels(address, np.ascontiguousarray(np.stack(parts, 1)), self._least, None)

    def _rows(self):
        """An entry for each two bytes."""
        rows, columns = (np.arange(256) % size for size in self.entries.shape)
        kind = np.float32 if self.is_float else np.int32
        return self._keep("rows", lambda: np.ascontiguousarray(self.entries[rows][:, columns], kind))

    def on_gpu(self):
        """The entries for kernels for a GPU."""
        kind = np.float32 if self.is_float else np.int32
        return self._keep("gpu", lambda: lookups.Entries(np.ascontiguousarray(self.entries, kind)))

    def transposed(self):
        """The table with x and w in each other's place."""
        return self._keep("transposed", lambda: Table(np.ascontiguousarray(self.entries.T), self.signed[::-1]))

    def __repr__(self):
        kinds = ["{}int{}".format("" if signed else "u", bits) for signed, bits in zip(self.signed, self.bits)]
        return "table[{}, {}]{}".format(*(kinds + [" of float32" if self.is_float else ""]))

    def __reduce__(self):
        return Table, (self.entries, self.signed)

    def __eq__(self, other):
        same = isinstance(other, Table) and other.signed == self.signed and other.dtype == self.dtype
        # By their bytes: NaN is equal to itself here.
        same = same and other.entries.shape == self.entries.shape
        return same and other.entries.tobytes() == self.entries.tobytes()

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash((self.signed, self.entries.tobytes()))


def _indices(operand, limits, size):
    """Operands as the rows or columns of a table that they name, and far outside it where they name none."""
    operand = operand.to(torch.int64)
    beyond = (operand < limits[0]) | (operand > limits[1])
    return torch.where(beyond, 2**32, torch.remainder(operand, size))


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
        return self.multiply.dtype if dtypes.is_integer(dtype) else dtype

    def pad_limits(self, dtype):
        return self.multiply.ranges[1]

    def kernels(self, op, dtype, arrays, level, scalars=()):
        if not dtypes.is_integer(dtype):
            return None, _NO_INTEGERS
        if op.reduction.function is None:
            key = op.reduction.c_name, self.multiply.dtype, level
            added, reason = _built_ins.get(key, lambda: _built_in(op, level))
        else:
            added, reason = _compiled(op, arrays, level)
        if added is None:
            return None, reason
        pack = functools.partial(_packed, self.multiply, added.address, op.reduction.fuses_products, level)
        return Kernels(None, dtype, added.result_dtype, added.origin, added.texts, pack, None), None

    def gpu_kernels(self, op, dtype, make, scalars=()):
        if not dtypes.is_integer(dtype):
            return None, _NO_INTEGERS
        if op.reduction.function is not None:
            code, reason = _compiled(op, TORCH, function.GPU)
            if code is None:
                return None, reason
        elif op.reduction.c_name in ("sum", "max", "min"):
            code = gpu_texts.of_lookups(op, None, self.multiply.dtype)
        else:
            return None, _NOT_ADDED
        found, code = make(op, None, dtype, function.GPU, scalars)[0], code._replace(pad=op.pad_value_for(dtype))
        packed = functools.partial(lookups.forward, code, self.multiply.on_gpu())
        return found._replace(origin=found.origin + ", for terms that are looked up", packed=packed), None

    def explained(self, op, dtype, arrays, kernels):
        return kernels.texts.functions

    def in_graph(self, op, dtype):
        if not dtypes.is_integer(dtype):
            raise TypeError("{}: {}, but its input is of {}".format(op, _NO_INTEGERS, dtype))
        add = op.reduction.function and symbols.trace_add(op, self.multiply.dtype, TORCH)
        return function.Standard(self.multiply.in_graph, add and functools.partial(function.total, add), None)

    def is_recordable(self, op, dtype):
        add = op.reduction.function
        if add is None or fingerprint.of_function(add, strict=False) is not None:
            return True
        try:
            symbols.trace_add(op, self.multiply.dtype, TORCH)
        except symbols.Untraceable:
            return False
        return True


def _built_in(op, level):
    """(Kernels, None) that look up terms one by one and add them up as a word says, or (None, reason)."""
    kind = "float32" if op.multiply.is_float else "int32"
    address = lowlevel.lookup_kernels("{}_{}".format(op.reduction.c_name, kind), level)
    if not address:
        return None, _NOT_ADDED
    permutes = op.reduction.fuses_products and not op.multiply.is_float and lowlevel.has_permutes(level)
    origin = "looked up, {}{}".format(LEVELS[level], ", by byte permutes" if permutes else "")
    return Kernels(address, None, op.reduction.result_dtype(op.multiply.dtype), origin, None, None, None), None


def _compiled(op, arrays, level):
    """The same for a function that adds them up; for a GPU its texts.Code."""
    # Whatever the table: it is an argument of the kernels.
    dtype, add = op.multiply.dtype, fingerprint.of_function(op.add)
    settings = repr(op.identity), op.pad_value is None, dtype, level
    if add is None:  # a function that may do something else at each call
        return _traced_add(op, arrays, settings)
    return _adds.get((add, arrays.name) + settings, lambda: _traced_add(op, arrays, settings))


def _traced_add(op, arrays, settings):
    dtype, level = settings[-2:]
    if not dtypes.holds(dtype, op.identity):
        return None, "its identity isn't a {}".format(dtype)
    try:
        add = symbols.trace_add(op, dtype, arrays)
    except symbols.Untraceable as error:
        return None, str(error)
    key = (add,) + settings
    reason = None if _traced.has(key) else function.changing(op, key)
    return _traced.get(key, lambda: _compiled_add(op, add, dtype, level)) if reason is None else (None, reason)


def _compiled_add(op, add, dtype, level):
    if level == function.GPU:
        return gpu_texts.of_lookups(op, add, dtype), None
    found, reason = function.compiled(op, template.of_lookups(op, add, dtype), dtype, level)
    return (None, reason) if found is None else (found._replace(origin="looked up, its add " + found.origin), None)


def _packed(table, address, sums, level, layout, arrays, w, x):
    """Packed: the operands as they are, which are bytes, and the kernels that suit the layout best.

    address: of the kernels that look up terms one by one.
    """
    count = layout.batch * product(layout.blocks)
    if layout.transposes and layout.filters > count:
        # Few rows of many features: filters take the place of positions.
        layout, table, w, x = layout.transposed(), table.transposed(), x, w
        count = layout.batch * product(layout.blocks)
    address = table.kernels(address, sums, count, layout.pad is None and layout.pads, level)
    for part, image, start in _images(layout, arrays, x):
        yield Packed(part, address, 1, arrays.address(w), arrays.address(image), start, (w, image))


def _images(layout, arrays, x):
    """(layout, x, elements of the result before): dense copies of some images at a time, where channels lie side by side of
    which a group has so few that C would read each cache line many times."""
    if layout.groups == 1 or layout.x_strides[1] != 1 or layout.channels >= FEW_CHANNELS:
        yield layout, x, 0
        return
    shape = (layout.groups * layout.channels,) + layout.image
    step = max(1, COPIED // product(shape))
    for start in range(0, layout.batch, step):
        batch = min(step, layout.batch - start)
        image = arrays.dense(x if batch == layout.batch else x[start : start + batch])
        part = layout._replace(batch=batch, x_strides=dense((batch,) + shape))
        yield part, image, start * layout.y_strides[0]
