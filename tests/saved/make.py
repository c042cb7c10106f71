"""What 0.5.0 saves, as tests/saved/0.5.0.tar.bz2: run with im2col_compat 0.5.0, once. tests/test_saved.py reads it.

    python tests/saved/make.py

The file that is there was made by im2col_compat 0.5.0 with Python 3.11, PyTorch 2.13 and NumPy 2.4. Its members:

- cases.json: what each member holds, and how it is to be called
- NAME.pickle: an op, or by torch.save (of the format that any PyTorch reads) a layer or a state dict
- arrays.npz: inputs, and the results that 0.5.0 gave for them

Nearly all numbers are small multiples of 1/4, so that sums of them are exact: cases that say "exact" give the same bits
anywhere.
"""

import collections
import io
import json
import operator
import os
import pickle
import tarfile
import warnings

import numpy as np
import torch

import im2col_compat
from im2col_compat import BinaryConv2d, BinaryLinear, Conv1d, Conv2d, Conv3d, Fold, Linear, Op, QuantConv2d, QuantLinear
from im2col_compat import Unfold, conv2d, convert, ops

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "0.5.0.tar.bz2")

random = np.random.RandomState(0)
members, arrays, cases = {}, {}, []


def quarters(*shape):
    return (random.randint(-8, 9, shape) / 4.0).astype("float32")


def for_numpy_1(text):
    """A pickle that names NumPy's module as NumPy 1 did; NumPy 2 knows both names."""
    return text.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def case(kind, name, saved, **more):
    members[name + ".pickle"] = saved
    cases.append(dict(more, kind=kind, name=name))


# ---------------------------------------------------------------- ops


def pickled(op):
    return for_numpy_1(pickle.dumps(op, 2))  # the last protocol that Python 2 reads


def save_op(name, op, dtype="float32", needs=(), gradient=False, exact=True):
    """An op and what conv2d makes of it; gradient: the weight's, of the sum of the results."""
    x, w = arrays["x." + dtype], arrays["w." + dtype]
    if "torch" in needs:
        x, w = torch.from_numpy(x), torch.from_numpy(w).requires_grad_(gradient)
    y = conv2d(x, w, padding=1, op=op)
    if gradient:
        y.sum().backward()
        arrays[name + ".gradient"] = w.grad.numpy()
    arrays[name] = y.detach().numpy() if "torch" in needs else y
    case("op", name, pickled(op), dtype=dtype, needs=list(needs), gradient=gradient, exact=exact)


def save_ops():
    arrays["x.float32"], arrays["w.float32"] = quarters(1, 2, 4, 5), quarters(3, 2, 2, 3)
    for dtype, low, high in (("int8", -4, 4), ("uint8", 0, 4)):
        arrays["x." + dtype] = random.randint(low, high, (1, 2, 4, 5)).astype(dtype)
        arrays["w." + dtype] = random.randint(low, high, (3, 2, 2, 3)).astype(dtype)
    for name in ("dot", "l1", "adder", "l2", "xnor", "max_plus", "min_plus"):
        named = getattr(ops, name)
        save_op(name, named)
        save_op(name + "-padded", named.replace(pad_value=1.5))
        if name not in ("max_plus", "min_plus"):
            normalized = named.replace(normalize_grad_w=0.2)
            save_op(name + "-normalized", normalized, needs=["torch"], gradient=True, exact=False)
    save_op("c", Op.from_c("fabs(w - x)", grad_w="(w > x) - (w < x)", grad_x="(w < x) - (w > x)"), needs=["compiler"])
    save_op("c-add", Op.from_c("w * x", add="acc + term * 2", identity=1, pad_value=None), needs=["compiler"])
    save_op("c-integers", Op.from_c("w ^ x", "max"), "int8", needs=["compiler"])
    save_op("table", Op.from_table(np.arange(16).reshape(4, 4) * 3), "uint8")
    save_op("table-signed", Op.from_table(lambda w, x: (w * x) | 1, signed=True, bits=3, pad_value=None), "int8")
    save_op("operator", Op(operator.mul, operator.add, identity=2, pad_value=None))
    save_op("operator-integers", Op(operator.xor), "int8")
    save_op("torch", Op(torch.min, torch.max), needs=["torch"])
    save_op("torch-surrogate", Op(torch.mul, "max", grad_w=torch.add, grad_x=torch.sub), needs=["torch"])


# ---------------------------------------------------------------- layers and state dicts


def saved(thing):
    file = io.BytesIO()
    torch.save(thing, file, _use_new_zipfile_serialization=False)
    return for_numpy_1(file.getvalue())


def with_quarters(module):
    for parameter in module.parameters():
        parameter.data.copy_(torch.from_numpy(quarters(*parameter.shape)))
    return module


def call(name, module, *shape):
    arrays[name + ".input"] = quarters(*shape)
    arrays[name] = module(torch.from_numpy(arrays[name + ".input"])).detach().numpy()


def save_layer(name, layer, *shape, **more):
    # As older PyTorch has them: a plain dict of layers loses their order where Python's dicts have none.
    layer._modules = collections.OrderedDict(layer._modules)
    with_quarters(layer)
    call(name, layer, *shape)
    case("layer", name, saved(layer), **dict({"exact": True}, **more))


def save_state(name, layer_name, arguments, options, *shape, **more):
    layer = with_quarters(getattr(im2col_compat, layer_name)(*arguments, **options))
    if layer_name.startswith("Quant"):
        calibrated(layer, *shape)
    call(name, layer, *shape)
    made = dict(layer=layer_name, arguments=arguments, options=options)
    case("state", name, saved(layer.state_dict()), **dict({"exact": True}, **dict(made, **more)))


def calibrated(layer, *shape):
    layer.start_calibration()
    layer(torch.from_numpy(quarters(*shape)))
    layer.finish_calibration()
    return layer


def save_layers():
    save_layer("conv1d", Conv1d(2, 3, 3, 2, ((2, 0),), op="l1"), 1, 2, 7)
    save_layer("conv2d", Conv2d(4, 2, (2, 3), (1, 2), (1, 0), 2, 2, False, op="adder"), 1, 4, 5, 6)
    save_layer("conv2d-reflect", Conv2d(1, 2, 3, padding=1, padding_mode="reflect", op="max_plus"), 1, 1, 4, 5)
    save_layer("conv2d-circular", Conv2d(1, 2, 3, padding=(0, 1), padding_mode="circular", op="l2"), 1, 1, 4, 5)
    save_layer("conv2d-same", Conv2d(1, 2, 2, padding="same", op=Op(operator.mul, "min")), 1, 1, 4, 5)
    save_layer("conv2d-replace", Conv2d(1, 2, 2, op=ops.adder.replace(normalize_grad_w=0.2)), 1, 1, 4, 5)
    save_layer("conv2d-from-conv", Conv2d.from_conv(torch.nn.Conv2d(1, 2, 3, padding=1), "xnor"), 1, 1, 4, 5)
    save_layer("conv3d-replicate", Conv3d(1, 2, 2, padding=1, padding_mode="replicate", op="min_plus"), 1, 1, 2, 3, 3)
    save_layer("linear", Linear(5, 3, op="l1"), 2, 5)
    save_layer("linear-from-linear", Linear.from_linear(torch.nn.Linear(5, 3, bias=False), "l2"), 2, 5)
    save_layer("unfold", Unfold((2, 3), 1, ((1, 0), 1), 2), 1, 2, 4, 5)
    save_layer("fold", Fold((4, 5), 2, padding=1), 1, 8, 30)
    save_layer("binary-conv2d", BinaryConv2d(2, 3, 2, padding=1, alpha=True, K=True), 1, 2, 3, 4, exact=False)
    save_layer("binary-conv2d-plain", BinaryConv2d(2, 2, 2, groups=2, bias=False), 1, 2, 3, 4)
    save_layer("binary-linear", BinaryLinear(6, 2, alpha=True), 2, 6, exact=False)
    save_layer("network", torch.nn.Sequential(Conv2d(1, 2, 3, op="l1"), torch.nn.ReLU(), Conv2d(2, 1, 1)), 1, 1, 5, 5)
    table = Op.from_table(lambda w, x: (w * x) >> 2 << 2, signed=(True, False), bits=(5, 4))
    for name, layer, shape in (
        ("quant-conv2d", QuantConv2d(2, 3, 2, padding=1, op=table), (1, 2, 3, 4)),
        ("quant-linear", QuantLinear(5, 3, op=table), (2, 5)),
    ):
        save_layer(name, calibrated(with_quarters(layer), *shape), *shape, exact=False)
    plain = with_quarters(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 2), torch.nn.Flatten(), torch.nn.Linear(12, 2)))
    converted = convert(plain, table, calibrate=[torch.from_numpy(quarters(2, 1, 3, 4))])
    save_layer("converted", converted, 2, 1, 3, 4, exact=False)

    save_state("conv2d-state", "Conv2d", [2, 3, 2], {"op": "l1", "padding": 1}, 1, 2, 3, 4)
    save_state("conv3d-state", "Conv3d", [1, 2, 2], {"op": "max_plus"}, 1, 1, 3, 3, 3)
    save_state("linear-state", "Linear", [5, 3], {"op": "adder"}, 2, 5)
    save_state("binary-conv2d-state", "BinaryConv2d", [2, 3, 2], {"alpha": True}, 1, 2, 3, 4, exact=False)
    save_state("quant-conv2d-state", "QuantConv2d", [2, 3, 2], {"padding": 1}, 1, 2, 3, 4, exact=False)
    save_state("quant-linear-state", "QuantLinear", [5, 3], {}, 2, 5, exact=False)


def main():
    if im2col_compat.__version__ != "0.5.0":
        raise SystemExit("this is im2col_compat {}, and what 0.5.0 saves is wanted".format(im2col_compat.__version__))
    warnings.simplefilter("ignore")  # PyTorch's, of its observers
    save_ops()
    save_layers()
    file = io.BytesIO()
    np.savez(file, **arrays)
    members["arrays.npz"] = file.getvalue()
    members["cases.json"] = json.dumps(cases, indent=1, sort_keys=True).encode("ascii")
    # Compressed as one: layers have much in common.
    with tarfile.open(PATH, "w:bz2") as archive:
        for name in sorted(members):
            about = tarfile.TarInfo(name)
            about.size = len(members[name])
            archive.addfile(about, io.BytesIO(members[name]))


if __name__ == "__main__":
    main()
