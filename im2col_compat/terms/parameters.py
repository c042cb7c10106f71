"""The parameters of an op: what its multiply takes beside w and x, and what callers give for that."""

import numbers

from im2col_compat.compat import dtypes


def given(function, op, params):
    """(the names that params give, in multiply's order; their values). TypeError for others and for missing ones."""
    arguments = op.term.arguments
    if params is None:
        params = {}
    if not hasattr(params, "keys"):
        text = "{}(): params must be a dict of names and tensors or numbers, but got {!r}"
        raise TypeError(text.format(function, params))
    unknown = sorted(str(name) for name in set(params) - {name for name, _ in arguments})
    if unknown:
        taken = ", ".join(repr(name) for name, _ in arguments) or "none"
        text = "{}(): params has {!r}, which isn't a parameter of {}; it has {}"
        raise TypeError(text.format(function, unknown[0], op, taken))
    missing = [name for name, has_default in arguments if not has_default and name not in params]
    if missing:
        text = "{}(): {} has a parameter {!r}, which params must give: params={{{!r}: a tensor or a number}}"
        raise TypeError(text.format(function, op, missing[0], missing[0]))
    names = tuple(name for name, _ in arguments if name in params)
    return names, tuple(params[name] for name in names)


def label(name):
    """What messages call a parameter."""
    return "params[{!r}]".format(name)


def is_number(value):
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def as_tensors(function, op, arrays, w, values):
    """The values of op.term.names, checked: of w's dtype and device, of one element or expanded to w's shape.

    ValueError for a number that w's dtype can't hold, RuntimeError for a tensor of another dtype, device or shape.
    """
    dtype, shape = arrays.dtype(w), tuple(int(size) for size in w.shape)
    result = []
    for name, value in zip(op.term.names, values):
        if is_number(value):
            result.append(_of_number(function, name, arrays, w, dtype, value))
            continue
        if arrays.dtype(value) != dtype:
            text = "{}(): {} must have weight's dtype {}, but has {}"
            raise RuntimeError(text.format(function, label(name), dtype, arrays.dtype(value)))
        if arrays.device(value) != arrays.device(w):
            text = "{}(): {} must be on weight's device {}, but is on {}"
            raise RuntimeError(text.format(function, label(name), arrays.device(w), arrays.device(value)))
        sizes = tuple(int(size) for size in value.shape)
        aligned = (1,) * (len(shape) - len(sizes)) + sizes
        if len(sizes) > len(shape) or any(size not in (1, whole) for size, whole in zip(aligned, shape)):
            text = "{}(): {} must broadcast with weight's shape {}, but has shape {}"
            raise RuntimeError(text.format(function, label(name), shape, sizes))
        value = value if aligned == sizes else arrays.reshape(value, aligned)
        result.append(value if set(aligned) <= {1} else arrays.expand(value, shape))
    return tuple(result)


def _of_number(function, name, arrays, w, dtype, value):
    fits = dtypes.holds(dtype, value) if dtypes.is_integer(dtype) else True
    if not fits or isinstance(value, complex) and not dtype.startswith("complex"):
        text = "{}(): {} must be a number that weight's dtype {} can hold, but got {!r}"
        raise ValueError(text.format(function, label(name), dtype, value))
    value = int(value) if dtypes.is_integer(dtype) else value
    return arrays.tensor(arrays.full(w, (1,) * len(w.shape), value))


def expanded(arrays, weights):
    """A weight and its parameters, all of the weight's shape."""
    shape = tuple(weights[0].shape)
    return weights[:1] + tuple(t if tuple(t.shape) == shape else arrays.expand(t, shape) for t in weights[1:])
