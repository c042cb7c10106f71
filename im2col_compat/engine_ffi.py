"""Engine "ffi": the C library, on CPU memory."""

from im2col_compat import features, lowlevel
from im2col_compat.engine import Engine


class FFI(Engine):
    name = "ffi"

    def refuses(self, arrays, x):
        if lowlevel.missing:
            return lowlevel.missing
        if arrays.device(x) != "cpu":
            return "the C library reads CPU memory, and this is on {}".format(arrays.device(x))
        dtype = arrays.dtype(x)
        if dtype not in lowlevel.DTYPES or not arrays.is_dense_kind(x):
            return "the C library has no {} of this layout".format(dtype)
        if arrays is features.NUMPY and not x.dtype.isnative:
            return "the C library knows the machine's own byte order only"
        return None

    def im2col(self, image, geometry):
        arrays = features.arrays(image)
        image = arrays.dense(image)
        columns = arrays.empty(image, geometry.columns_shape)
        itemsize = features.ITEMSIZE[arrays.dtype(image)]
        lowlevel.im2col(geometry, itemsize, arrays.address(image), arrays.address(columns))
        return columns

    def col2im(self, columns, geometry):
        arrays = features.arrays(columns)
        columns = arrays.dense(columns)
        image = arrays.empty(columns, geometry.image_shape)
        lowlevel.col2im(geometry, arrays.dtype(columns), arrays.address(columns), arrays.address(image))
        return image
