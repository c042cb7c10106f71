"""PyTorch, if it is there, and what the installed one does otherwise than today's. Found by trying, not by its version.

torch 0.3 has two kinds of tensor that do not mix: a Variable, which records gradients, and the raw tensor inside it.
Here "tensor" means a Variable there, and "plain data" what carries no history: a raw tensor there, a tensor elsewhere.
"""

try:
    import torch

    torch_missing = None
except ImportError as error:
    torch = None
    torch_missing = "PyTorch can't be imported ({})".format(error)


#: 0.3: Variables are not tensors.
VARIABLES = torch is not None and not isinstance(torch.zeros(1), torch.autograd.Variable)
#: What a public function records gradients for.
Tensor = () if torch is None else torch.autograd.Variable if VARIABLES else torch.Tensor
Function = object if torch is None else torch.autograd.Function


def _ties_go_first():
    ones = torch.ones(1, 3, 2)
    return int(ones.max(1)[1].sum()) == 0 and int(ones.transpose(1, 2).min(2)[1].sum()) == 0


#: Whether max and min over an axis give the gradient to the first of equal elements (1.0 has it otherwise).
TIES_GO_FIRST = torch is not None and _ties_go_first()


def _has_cpu_half():
    try:
        torch.zeros(1).half().fill_(0)
    except (AttributeError, RuntimeError):
        return False
    return True


#: Whether PyTorch can do anything with float16 on a CPU (1.2 on).
CPU_HALF = torch is not None and _has_cpu_half()
