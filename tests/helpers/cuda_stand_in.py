"""A stand-in for a GPU: CPU tensors pass for tensors on it, and kernels run on the CPU as helpers/cuda_shim.py runs them."""

import numpy as np
from helpers import cuda_shim as shim
from im2col_compat.compat.arrays import TORCH
from im2col_compat.cuda import device


class StandIn(object):
    """What device.py is asked for.

    works: the names of the kernels of each Work that was run; texts: those of all; first: the first result
    """

    def __init__(self, patch):
        self.works, self.texts, self.first, self.refusals, self.why_missing = [], [], None, {}, None
        plain = TORCH.are_plain_on_cpu
        patch.setattr(TORCH, "are_plain_on_gpu", plain, raising=False)
        patch.setattr(TORCH, "are_plain_on_cpu", lambda *tensors: False, raising=False)
        patch.setattr(device, "missing", lambda: self.why_missing)
        patch.setattr(device, "refuses", self.refuses)
        patch.setattr(device, "run", self.run)

    def refuses(self, work, like, what):
        return next((self.refusals[each.kernel] for each in work.launches if each.kernel in self.refusals), None)

    def run(self, work, operands, like, what):
        arrays, wholes = {}, []
        for name, value in operands.items():
            if isinstance(value, np.generic):
                arrays[name] = value
                continue
            assert value.is_contiguous(), name
            values = value.detach().numpy()
            arrays[name], whole = shim.guarded(values.shape, values.dtype)
            arrays[name][...] = values
            wholes.append((name, whole, value))
        shim.run(work, arrays)
        for name, whole, value in wholes:
            assert shim.is_whole(whole), name
            value.detach().numpy()[...] = arrays[name]
        self.works.append([each.kernel for each in work.launches])
        self.texts += [each.text for each in work.launches]
        self.first = operands["y"].clone() if self.first is None else self.first
