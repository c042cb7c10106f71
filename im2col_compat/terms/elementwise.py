"""Whether a user's function works element by element, found by trying. One that doesn't depends on how work is cut."""

import numpy as np

from im2col_compat.compat.memo import Memo
from im2col_compat.problem import product

#: How far apart two values are, as a share of them, before the number of elements and no rounding is behind it.
APART = 0.02


_known = Memo(1000)  # what a function is made of: whether it is elementwise


def known(user, arrays, function, operands):
    """is_elementwise, tried once for all functions that differ from the user's in captured numbers and tensors alone."""
    cells = [cell.cell_contents for cell in getattr(user, "__closure__", None) or ()]
    captured = tuple(value if callable(value) else type(value) for value in cells)
    key = getattr(user, "__code__", user), captured, arrays.name
    try:
        hash(key)
    except TypeError:
        return is_elementwise(arrays, function, operands)
    return _known.get(key, lambda: is_elementwise(arrays, function, operands))


def is_elementwise(arrays, function, operands):
    """Whether each value of function(*operands) depends on the operands' values at its place alone.

    operands: small ones of one rank that broadcast. function: returns the shape to which they broadcast.
    """
    whole = function(*operands)
    if not _same(whole, function(*operands)):
        return True  # it draws random numbers, and nothing can be told
    others = [reversed_values(arrays, operand) for operand in operands]
    for axis, length in enumerate(whole.shape):
        halves = slice(0, int(length) // 2), slice(int(length) // 2, int(length))
        for here, there in (halves, halves[::-1]) if length > 1 else ():
            # Other values elsewhere change nothing here, to the bit: sizes and places in memory are the same.
            changed = [_with(arrays, axis, there, *pair) for pair in zip(operands, others)]
            if not _same(_part(whole, axis, here), _part(function(*changed), axis, here)):
                return False
            fewer = function(*[_part(operand, axis, here) for operand in operands])
            if not _close(arrays, _part(whole, axis, here), fewer):
                return False
    return True


def _part(operand, axis, part):
    """A part along an axis; all of what broadcasts there."""
    return operand if operand.shape[axis] == 1 else operand[(slice(None),) * axis + (part,)]


def reversed_values(arrays, operand):
    """An operand of the same values in another order."""
    count = product(int(size) for size in operand.shape)
    return arrays.reshape(arrays.take(arrays.reshape(operand, (count,)), list(range(count))[::-1], 0), operand.shape)


def _with(arrays, axis, part, operand, other):
    if operand.shape[axis] == 1:
        return operand
    index, result = (slice(None),) * axis + (part,), arrays.copy(operand)
    result[index] = other[index]
    return result


def _same(a, b):
    return bool(((a == b) | ((a != a) & (b != b))).all())


def _close(arrays, a, b):
    """Whether at least half of the values are about the same. Noise of rounding tips single values over a step."""
    if arrays.dtype(a).startswith(("bool", "complex")):
        return True
    a, b = arrays.cast(a, "float64"), arrays.cast(b, "float64")
    with np.errstate(invalid="ignore"):  # infinities have no difference
        apart = (a - b) * (a - b) > APART**2 * (a * a + b * b)
    return 2 * int(arrays.cast(apart, "int64").sum()) <= product(int(size) for size in a.shape)
