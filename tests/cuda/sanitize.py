"""A few calls of each kind of kernel, for compute-sanitizer: compute-sanitizer python tests/cuda/sanitize.py

Operands have allocations of their own, of their exact sizes, so that reading or writing outside of them shows.
"""

import os

os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"

import torch  # noqa: E402

from im2col_compat import Op, conv2d, linear, matmul  # noqa: E402
from im2col_compat.cuda import device  # noqa: E402

OPS = {
    "l1": "l1",
    "max_plus": "max_plus",
    "left out": Op(lambda w, x: abs(w - x), pad_value=None),
    "prod": Op(lambda w, x: 0.3 * w + 0.1 * x + 0.7, "prod"),
    "logsumexp": Op(lambda w, x: w - x, "logsumexp"),
    "xnor": "xnor",
    "own": Op(lambda w, x: w * x, lambda acc, term: 0.5 * acc + term, identity=1),
}
#: x, w, stride, padding, dilation, groups
SIZES = [
    ((2, 5, 9, 7), (5, 5, 3, 3), 1, 1, 1, 1),
    ((1, 6, 10, 11), (70, 3, 3, 3), 2, 1, 1, 2),
    ((3, 6, 15, 13), (6, 1, 3, 3), 2, 2, 2, 6),
]


def main():
    if device.missing() is not None:
        raise SystemExit(device.missing())
    for name, op in OPS.items():
        for x, w, *how in SIZES:
            leaves = [torch.randn(shape, device="cuda", requires_grad=True) for shape in (x, w)]
            conv2d(*leaves, None, *how, op).sum().backward()
        print(name, flush=True)
    for function, shapes in ((linear, [(4, 40), (70, 40)]), (matmul, [(33, 20), (20, 65)])):
        leaves = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
        function(*leaves, op="l1").sum().backward()
    conv2d(
        torch.ones(2, 5, 9, 7, device="cuda", dtype=torch.int8),
        torch.ones(5, 5, 3, 3, device="cuda", dtype=torch.int8),
        op="l1",
    )
    tables = [Op.from_table(lambda w, x: w * x, signed=True, bits=bits) for bits in (4, 8)]
    for dtype, op in [(torch.bool, "xnor")] + [(torch.int8, table) for table in tables]:
        for x, w, *how in SIZES:
            conv2d(*[torch.ones(shape, device="cuda", dtype=dtype) for shape in (x, w)], None, *how, op)
        linear(*[torch.ones(shape, device="cuda", dtype=dtype) for shape in ((4, 40), (70, 40))], op=op)
    torch.cuda.synchronize()
    print("done")


if __name__ == "__main__":
    main()
