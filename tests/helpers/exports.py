"""Exports to ONNX, and what onnxruntime computes by them."""

import pytest
from helpers.tensors import torch

try:
    import onnxruntime
    import onnxscript  # noqa: F401

    missing = None if hasattr(torch, "compile") else "needs PyTorch's exporter of today"
except ImportError as error:
    missing = "needs ONNX's tools: {}".format(error)

_Module = object if torch is None else torch.nn.Module


def quietly(test):
    """The test without warnings of what PyTorch and its tools say of themselves."""
    for kind in ("DeprecationWarning", "FutureWarning", "UserWarning"):
        test = pytest.mark.filterwarnings("ignore::" + kind)(test)
    return test


class Calls(_Module):
    """Several calls as one module, so that one export serves them all: functions of the module, which has the weights, and of
    inputs."""

    def __init__(self, calls, **weights):
        super(Calls, self).__init__()
        self.calls = calls
        for name, value in weights.items():
            setattr(self, name, torch.nn.Parameter(value, requires_grad=value.is_floating_point()))

    def forward(self, *inputs):
        return tuple(call(self, *inputs) for call in self.calls)


class Runs(object):
    """A module's graph of standard operators, as onnxruntime computes it. sizes: which of each input's may change."""

    def __init__(self, module, inputs, sizes=None):
        each = None if sizes is None else (sizes,) * len(inputs)
        shapes = (each,) if sizes is not None and isinstance(module, Calls) else each  # whose inputs are one argument
        program = torch.onnx.export(module.eval(), inputs, dynamo=True, verbose=False, dynamic_shapes=shapes)
        self.nodes = list(program.model_proto.graph.node)
        assert {node.domain for node in self.nodes} == {""} and not program.model_proto.functions
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)

    def __call__(self, *inputs):
        feed = {input.name: x.detach().numpy() for input, x in zip(self.session.get_inputs(), inputs)}
        return [torch.from_numpy(y) for y in self.session.run(None, feed)]

    def count(self, kind):
        return sum(node.op_type == kind for node in self.nodes)
