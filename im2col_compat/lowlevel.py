"""The only file that touches the C library. Arguments are checked elsewhere; addresses must be valid.

`missing` is None, or says why the C library isn't here.
"""

import re

from im2col_compat.compat import dtypes, memory
from im2col_compat.compat.memo import Memo
from im2col_compat.problem import product

try:
    from im2col_compat._im2col import ffi, lib

    missing = None
except ImportError as error:
    ffi = lib = None
    missing = "the C library im2col_compat._im2col isn't built or doesn't load ({})".format(error)

#: dot.h's calls.
FORWARD, GRAD_X, GRAD_W, GRADS, GRAD_EXTREMUM, GRAD_FOLD = range(6)

#: Filters of a group for which there may be kernels that read pixels where they lie (ffi/dot_phases.c's MOST_FILTERS).
MOST_FILTERS = 8
#: Of struct dot_problem's fields, the sizes: the first of a Layout's too. The next four are strides, in both.
SIZES = 10
#: How signs are packed (ffi/dot_signs.h).
WORDS, BYTES = range(2)
#: Elements of columns below which a second thread costs more than it brings.
LEAST_FOR_THREADS = 1 << 17
#: Bytes of a result from which on huge pages are worth asking for.
LEAST_FOR_ADVICE = 1 << 20

if missing is None:
    _BYTES, _allocate = ffi.typeof("char[]"), ffi.new_allocator(should_clear_after_alloc=False)
    _im2col = {dtype: getattr(lib, "im2col_{}".format(size)) for dtype, size in dtypes.ITEMSIZE.items()}
    # The library adds in the unsigned type: two's complement makes signed sums the same bits.
    _col2im = {dtype: getattr(lib, "col2im_" + re.sub("^int", "uint", dtype)) for dtype in dtypes.ITEMSIZE}


_structs = Memo(256)


def _struct(geometry):
    """The C struct. Those of small problems are kept: making one takes longer than they do."""
    if product(geometry.columns_shape) < LEAST_FOR_THREADS:
        return _structs.get(geometry, lambda: _new_struct(geometry, 1, 0))
    return _new_struct(geometry, memory.threads(), memory.parallel())


def _new_struct(geometry, threads, parallel):
    one, zero = (1,) * (3 - geometry.dims), (0,) * (3 - geometry.dims)
    before = tuple(before for before, _ in geometry.padding)
    sizes = [one + geometry.image, one + geometry.kernel, one + geometry.dilation, zero + before]
    sizes += [one + geometry.stride, one + geometry.blocks]
    fields = [geometry.batch, geometry.channels] + sizes + [threads, ffi.cast("void *", parallel)]
    return ffi.new("struct im2col_geometry *", fields)


def im2col(geometry, dtype, image, columns):
    """Fill `columns` from `image` (addresses of dense row-major data of a dtype in ITEMSIZE)."""
    _im2col[dtype](_struct(geometry), ffi.cast("void *", image), ffi.cast("void *", columns))


def col2im(geometry, dtype, columns, image):
    """Fill `image` with the sums of `columns` (addresses of dense row-major data of a dtype in ITEMSIZE)."""
    _col2im[dtype](_struct(geometry), ffi.cast("void *", columns), ffi.cast("void *", image))


def compiler():
    """Name and version of the compiler that built the C library."""
    return ffi.string(lib.im2col_compiler()).decode("ascii")


# ---------------------------------------------------------------- dot.h
def level():
    """The best instruction set of this machine: 0 baseline, 1 AVX2, 2 AVX-512."""
    return lib.dot_level()


def named_kernels(name, level):
    """The address of a named op's kernels ("l1_float32"), or 0."""
    return int(ffi.cast("uintptr_t", lib.dot_named(name.encode("ascii"), level)))


def signs_kernels(result_dtype, kind, level):
    """The address of the kernels for signs packed in a way, that give results of a dtype."""
    return int(ffi.cast("uintptr_t", lib.dot_signs(result_dtype.encode("ascii"), kind, level)))


def fours_kernels(dtype, level):
    """The address of the forward kernels that pack the signs of operands of a dtype themselves, or 0."""
    return int(ffi.cast("uintptr_t", lib.dot_signs_fours(dtype.encode("ascii"), level)))


def pack_signs(values, dtype, sizes, strides, packed, kind, threads, level):
    """Fill `packed` (an address, as `values` is) with the signs of values of `sizes`, (batch, groups,
    channels, image).

    strides: of images, channels, planes, rows and columns, in elements.
    """
    addresses = ffi.cast("void *", values), ffi.cast("void *", packed)
    fields = sizes + (strides,) + addresses + (kind, threads, ffi.cast("void *", memory.parallel()))
    struct = ffi.new("struct dot_signs *", fields)
    lib.dot_pack_signs(struct, dtype.encode("ascii"), level)


def has_permutes(level):
    """Whether tables can be looked up by byte permutes."""
    return lib.dot_permutes(1, 64, 64, level) != ffi.NULL


def permute_kernels(planes, entries, lanes, level):
    """The address of the kernels that look up terms by byte permutes, or 0: see dot_lookup.h."""
    return int(ffi.cast("uintptr_t", lib.dot_permutes(planes, entries, lanes, level)))


def lookup_kernels(name, level):
    """The address of the kernels that look up terms one by one ("sum_int32"), or 0."""
    return int(ffi.cast("uintptr_t", lib.dot_lookups(name.encode("ascii"), level)))


def table_kernels(address, rows, least, depth):
    """(address, what must be kept) of the kernels at an address, for the rows of a table, as dot_lookup.h has them.

    rows: an array. depth: terms whose sum is held, or None for as many as the kernels take.
    """
    found = ffi.cast("struct dot_kernels *", address)
    kernels, table = ffi.new("struct dot_kernels *", found[0]), ffi.new("struct dot_table *")
    table.rows, table.least = ffi.cast("void *", address_of(rows)), least
    kernels.table = table
    kernels.depth = kernels.depth if depth is None else min(kernels.depth, depth)
    return int(ffi.cast("uintptr_t", kernels)), (kernels, table, rows)


def template(part):
    """C source: what comes before (0) and after (1) a user's op."""
    return ffi.string(lib.dot_template(part)).decode("ascii")


def fresh(arrays, like, shape, dtype, strides=None):
    """(plain data, its address) for C to write to: of like's kind, in huge pages if it is large. strides: as of
    arrays.empty."""
    size = product(shape) * dtypes.ITEMSIZE[dtype]
    make = arrays.empty if size >= LEAST_FOR_ADVICE else arrays.small
    result = make(like, shape, dtype, strides)
    address = arrays.address(result)
    if size >= LEAST_FOR_ADVICE:
        lib.dot_advise(ffi.cast("void *", address), size)
    return result, address


def address_of(array):
    """Of a NumPy array's elements."""
    return array.__array_interface__["data"][0]


def _workspace(size):
    """So many bytes from where a cache line begins on."""
    result = _allocate(_BYTES, size + 64)
    if size >= LEAST_FOR_ADVICE:
        lib.dot_advise(result, size)
    return result


_problems = Memo(256)


def _new_problem(layout, address, threads):
    """The C struct of a layout and of the kernels at an address, without operands."""
    sizes = layout[: SIZES + 4] + (ffi.NULL,) * 3
    pad = layout.pad or (0,) * 8, layout.pad is None, layout.last
    rest = threads, ffi.NULL, ffi.cast("struct dot_kernels *", address)
    return ffi.new("struct dot_problem *", sizes + pad + rest)


_preferences = Memo(256)


def prefers_direct(call, layout):
    """Whether kernels that read pixels where they lie serve a call on a layout better than panels of columns."""
    if layout.filters > MOST_FILTERS:
        return False
    return _preferences.get((call, layout), lambda: bool(lib.dot_prefers_direct(_new_problem(layout, 0, 1), call)))


def dot(call, layout, address, threads, w, x, result, saved, dx, dw, scalars=0, wanted=1):
    """One of dot.h's calls on addresses; 0 for what isn't wanted.

    layout: a layout.Layout, which says how they lie there. address: of the kernels. result: the result, or the gradient
    with respect to it. saved: the result, for gradients that need it, as that gradient lies. scalars: of the op's
    parameters that are one number for all. wanted: of which of a weight's numbers gradients are, as bits.
    """
    # Kept, since filling in the sizes takes longer than a small problem.
    problem = _problems.get((layout, address, threads), lambda: _new_problem(layout, address, threads))
    parallel = memory.parallel() if threads > 1 else 0
    workspace = _workspace(lib.dot_workspace(problem, call))
    lib.dot_call(problem, call, w, x, result, saved, dx, dw, parallel, scalars, wanted, workspace)


def small_forward(layout, address):
    """(C struct, bytes of its workspace) of a forward by one thread that is called again and again: see forward()."""
    problem = _new_problem(layout, address, 1)
    return problem, lib.dot_workspace(problem, FORWARD) + 64


def forward(small, w, x, result):
    """dot() for what small_forward() gave."""
    problem, size = small
    lib.dot_call(problem, FORWARD, w, x, result, 0, 0, 0, 0, 0, 1, _allocate(_BYTES, size))
