"""Engine "ffi": the C library, on CPU memory."""

from im2col_compat import lowlevel
from im2col_compat.compat import dtypes
from im2col_compat.compat.arrays import COPIED, arrays_of
from im2col_compat.engines.base import Engine
from im2col_compat.problem import product


class FFI(Engine):
    name = "ffi"
    dims = 3

    def refuses(self, arrays, x):
        if lowlevel.missing:
            return lowlevel.missing
        if arrays.device(x) != "cpu":
            return "the C library reads CPU memory, and this is on {}".format(arrays.device(x))
        dtype = arrays.dtype(x)
        if dtype not in dtypes.ITEMSIZE or not arrays.is_dense_kind(x):
            return "the C library has no {} of this layout".format(dtype)
        if not arrays.has_memory(x):
            return "what is recorded or simulated has no memory"
        return None

    def im2col(self, image, geometry):
        return _run(lowlevel.im2col, image, geometry, geometry.columns_shape)

    def col2im(self, columns, geometry):
        return _run(lowlevel.col2im, columns, geometry, geometry.image_shape)

    def write(self, function, x, geometry, out):
        arrays = arrays_of(out)
        source = arrays.dense(x)
        if geometry.dims > self.dims or not arrays.takes_results(out) or arrays.overlap(source, out):
            return super(FFI, self).write(function, x, geometry, out)
        call = {"unfold": lowlevel.im2col, "fold": lowlevel.col2im}[function]
        call(geometry, arrays.dtype(x), arrays.address(source), arrays.address(out))
        arrays.touch(out)


def _run(call, source, geometry, shape):
    arrays = arrays_of(source)
    (source, strides), dtype = arrays.placed(source), arrays.dtype(source)
    result, address = lowlevel.fresh(arrays, source, shape, dtype)
    parts = [(geometry, source, 0)] if strides is None else _copies(arrays, source, geometry)
    each = product(shape) // max(1, geometry.batch * geometry.channels) * dtypes.ITEMSIZE[dtype]
    for part, dense, channels in parts:
        call(part, dtype, arrays.address(dense), address + channels * each)
    return result


def _copies(arrays, source, geometry):
    """(geometry, dense copy, channels before) of images or columns: some at a time, or some of the channels of one."""
    batch, channels = geometry.batch, geometry.channels
    rows = int(source.shape[1]) // channels  # of a channel's columns
    sizes = [int(size) for size in source.shape[2:]]
    room = COPIED // (product(sizes) * rows * dtypes.ITEMSIZE[arrays.dtype(source)])
    step = max(1, min(channels, room))
    images = max(1, min(batch, room // step))
    for image in range(0, batch, images):
        for channel in range(0, channels, step):
            several, some = min(images, batch - image), min(step, channels - channel)
            part = source[image : image + several, channel * rows : (channel + some) * rows]
            yield geometry._replace(batch=several, channels=some), arrays.dense(part), image * channels + channel
