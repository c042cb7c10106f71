"""The only file that touches the C library. Arguments are checked elsewhere; addresses must be valid.

`missing` is None, or says why the C library isn't here.
"""

try:
    from im2col_compat._im2col import ffi, lib

    missing = None
except ImportError as error:
    ffi = lib = None
    missing = "the C library im2col_compat._im2col isn't built or doesn't load ({})".format(error)

# The library adds in the unsigned type: two's complement makes signed sums the same bits.
_COL2IM = {
    "bool": "bool",
    "uint8": "uint8",
    "int8": "uint8",
    "uint16": "uint16",
    "int16": "uint16",
    "uint32": "uint32",
    "int32": "uint32",
    "uint64": "uint64",
    "int64": "uint64",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "float32": "float32",
    "float64": "float64",
    "complex64": "complex64",
    "complex128": "complex128",
}
DTYPES = frozenset(_COL2IM)


def _pointers(geometry, source, destination):
    return (
        ffi.new("struct im2col_geometry *", tuple(geometry)),
        ffi.cast("void *", source),
        ffi.cast("void *", destination),
    )


def im2col(geometry, itemsize, image, columns):
    """Fill `columns` from `image` (addresses of dense row-major data, `itemsize` bytes an element)."""
    getattr(lib, "im2col_{}".format(itemsize))(*_pointers(geometry, image, columns))


def col2im(geometry, dtype, columns, image):
    """Fill `image` with the sums of `columns` (addresses of dense row-major data of a dtype in DTYPES)."""
    getattr(lib, "col2im_" + _COL2IM[dtype])(*_pointers(geometry, columns, image))


def compiler():
    """Name and version of the compiler that built the C library."""
    return ffi.string(lib.im2col_compiler()).decode("ascii")
