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


#: Whether comparisons make uint8 (before 1.2), so that masks are such.
MASKS_ARE_BYTES = torch is not None and (torch.zeros(1) >= 0).type().endswith("ByteTensor")


def _ties_go_first():
    ones = torch.ones(1, 3, 2)
    return int(ones.max(1)[1].sum()) == 0 and int(ones.transpose(1, 2).min(2)[1].sum()) == 0


#: Whether max and min over an axis give the gradient to the first of equal elements (1.0 has it otherwise).
TIES_GO_FIRST = torch is not None and _ties_go_first()


def _logsumexp():
    function = getattr(torch, "logsumexp", None)
    if function is not None:
        found = function(torch.FloatTensor([[-float("inf")], [float("inf")]]), 1)
        if float(found[0]) != -float("inf") or float(found[1]) != float("inf"):
            return None
    return function


#: torch.logsumexp, where it knows infinities; else None.
logsumexp = _logsumexp()


def _has_cpu_half():
    try:
        torch.zeros(1).half().fill_(0)
    except (AttributeError, RuntimeError):
        return False
    return True


#: Whether PyTorch can do anything with float16 on a CPU (1.2 on).
CPU_HALF = torch is not None and _has_cpu_half()


def _sent(node, gradient, leaf):
    """What of a gradient comes back to a leaf. By hand, as the engine starts threads, which forked children lack."""
    if hasattr(node, "variable"):
        return float(gradient.data.sum()) if node.variable is leaf else 0
    parts = (node if callable(node) else node.apply)(gradient)  # that of 0.3 is Python's
    pairs = zip(node.next_functions, parts if isinstance(parts, tuple) else (parts,))
    return sum(_sent(before, part, leaf) for (before, _), part in pairs if before is not None and part is not None)


def _clamped(**bounds):
    """Of the gradient of clamp at a bound of 0: what comes to what is clamped, and what to the bound."""
    zero, bound, one = [torch.autograd.Variable(torch.zeros(1) + i, requires_grad=i < 1) for i in (0, 0, 1)]
    result = zero.clamp(**{name: bound if value is Tensor else value for name, value in bounds.items()})
    return tuple(_sent(result.grad_fn, one, leaf) for leaf in (zero, bound))


def _clamps():
    found = {}
    for name, bounds in (
        ("min", {"min": 0}), ("max", {"max": 0}), ("both", {"min": 0, "max": 0}),
        ("min tensor", {"min": Tensor}), ("max tensor", {"max": Tensor}),
    ):  # fmt: skip
        try:
            found[name] = _clamped(**bounds)
        except Exception:
            found[name] = 1, 0  # it takes no such bound, or records nothing now
    return found


def _recording(probe):
    """What a probe finds where gradients are recorded, though the importer may have switched that off."""
    if hasattr(torch, "inference_mode"):
        with torch.inference_mode(False), torch.enable_grad():
            return probe()
    if hasattr(torch, "enable_grad"):
        with torch.enable_grad():
            return probe()
    return probe()


#: What of clamp's gradient at a bound goes to what is clamped, and what to the bound, for each kind of bound. Since
#: 2.15 nothing is left at a number, and a tensor gets half of it.
CLAMP_GRADIENTS = {} if torch is None else _recording(_clamps)
