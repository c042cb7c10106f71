"""Engine "torch": F.unfold and F.fold of the installed PyTorch."""

from im2col_compat import features
from im2col_compat.engine import Engine


class Torch(Engine):
    name = "torch"

    def refuses(self, arrays, x):
        if features.torch is None:
            return features.torch_missing
        if arrays is features.NUMPY:
            return "F.unfold takes torch tensors, and this is a NumPy array"
        if not features.HAS_UNFOLD:
            return "PyTorch {} has no F.unfold".format(features.torch.__version__)
        if features.native_unfold(x) is None:
            return "F.unfold of PyTorch {} takes no {} on {}".format(
                features.torch.__version__, arrays.dtype(x), arrays.device(x)
            )
        return None

    def unfold(self, image, geometry):
        if features.native_unfold(image) == "whole":
            return _functional().unfold(image, *geometry[3:7])
        return super(Torch, self).unfold(image, geometry)

    def fold(self, columns, geometry):
        if features.native_unfold(columns) == "whole":
            return _functional().fold(columns, geometry.image, *geometry[3:7])
        return super(Torch, self).fold(columns, geometry)

    # For the versions that miss second derivatives or N=0: theirs, between Engine's Functions.

    def im2col(self, image, geometry):
        if geometry.batch == 0:
            return features.TORCH.empty(image, geometry.columns_shape)
        return _functional().unfold(image, *geometry[3:7])

    def col2im(self, columns, geometry):
        if geometry.batch == 0:
            return features.TORCH.empty(columns, geometry.image_shape)
        return _functional().fold(columns, geometry.image, *geometry[3:7])


def _functional():
    return features.torch.nn.functional
