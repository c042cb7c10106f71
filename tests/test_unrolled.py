"""conv_matrix: M @ x.flatten() is the convolution, and the gradients are its gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from im2col_compat import conv1d, conv2d, conv3d, conv_matrix

from helpers import oracle, problems
from helpers.tensors import KINDS, VARIABLES, dtype_of, kind_of, make, some, torch, values

CONVOLVE = {1: conv1d, 2: conv2d, 3: conv3d}
sparse = pytest.mark.skipif(torch is None or VARIABLES, reason="needs sparse tensors that know gradients (0.4)")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_dense_matrix_is_the_nested_loop(kind, problem):
    """Multiplied by the flattened image it gives the flattened result; its entries are the kernel's, or zero."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    dims = len(kernel)
    x, w = some(shape, seed=1), some((filters, shape[1] // groups) + kernel, seed=2) + 100
    result = oracle.conv(
        x, w, lambda w, x: w * x, lambda a, t: a + t, 0, 0, oracle.each(stride, dims),
        problems.pads(padding, kernel, dilation), oracle.each(dilation, dims), groups,
    ).astype(float)  # fmt: skip
    matrix = conv_matrix(make(kind, w), shape, stride, padding, dilation, groups, dense=True)
    assert kind_of(matrix) == kind and dtype_of(matrix) == "float64"
    np.testing.assert_array_equal(values(matrix).dot(x.ravel()), result.ravel())
    assert set(np.unique(values(matrix))) <= set(w.ravel()) | {0}
    for size in (shape[1:], shape[2:]):
        one = conv_matrix(make(kind, w), size, stride, padding, dilation, groups, dense=True)
        np.testing.assert_array_equal(values(one).dot(x[0].ravel()), result[0].ravel())


@sparse
@pytest.mark.parametrize("problem", sorted(problems.CONVOLUTIONS))
def test_sparse_matrix_is_the_dense_one(problem):
    """The same entries, each once and in order, and one for each multiplication."""
    shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
    w = make("tensor", some((filters, shape[1] // groups) + kernel) + 100)
    matrix = conv_matrix(w, shape[1:], stride, padding, dilation, groups)
    dense = conv_matrix(w, shape[1:], stride, padding, dilation, groups, dense=True)
    assert matrix.is_sparse
    entries = matrix.coalesce()
    assert entries._nnz() == matrix._nnz() == int((dense != 0).sum())
    np.testing.assert_array_equal(values(entries._indices()), values(matrix._indices()))
    np.testing.assert_array_equal(values(matrix.to_dense()), values(dense))


@pytest.mark.skipif(torch is None, reason="needs torch")
@pytest.mark.parametrize("dense", [True] + ([] if torch is None or VARIABLES else [False]))
def test_gradient_is_the_convolutions(dense):
    """Gradients of the weight and the image are those of the convolution."""
    for problem in ("asymmetric", "grouped", "line-grouped", "volume-asymmetric"):
        shape, filters, kernel, stride, padding, dilation, groups = problems.CONVOLUTIONS[problem]
        if padding == ((0, 3),) or problem.startswith("volume"):
            padding = 1
        gradients = []
        for unrolled in (True, False):
            x = make("tensor", some(shape[1:], seed=1), requires_grad=True)
            w = make("tensor", some((filters, shape[1] // groups) + kernel, seed=2), requires_grad=True)
            if unrolled:
                matrix = conv_matrix(w, shape[1:], stride, padding, dilation, groups, dense)
                flat = (x if x.is_contiguous() else x.contiguous()).view(-1, 1)
                y = torch.mm(matrix, flat) if dense else torch.sparse.mm(matrix, flat)
            else:
                y = CONVOLVE[len(kernel)](x.unsqueeze(0), w, None, stride, padding, dilation, groups)
            y = y.view(-1) if unrolled or y.is_contiguous() else y.contiguous().view(-1)
            (y * y).sum().backward()
            gradients.append([values(t.grad) for t in (x, w)])
        for found, expected in zip(*gradients):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.skipif(torch is None or VARIABLES, reason="needs today's gradcheck")
def test_gradients_of_gradients():
    """The dense matrix is linear in the weight, twice differentiable."""
    w = make("tensor", some((2, 1, 2, 2)), requires_grad=True)

    def flat(w):
        return conv_matrix(w, (3, 4), padding=1, stride=2, dense=True) ** 2

    assert torch.autograd.gradcheck(flat, [w]) and torch.autograd.gradgradcheck(flat, [w])


@settings(deadline=None, max_examples=60)
@given(
    image=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.tuples(st.integers(0, 2), st.integers(0, 3))),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 3),
)
def test_any_geometry(image, kernel, stride, padding, dilation, groups):
    """M is conv2d, and its transpose the adjoint of conv2d, on any geometry that conv2d takes."""
    x, w = some((2 * groups,) + image, seed=1), some((3 * groups, 2) + kernel, seed=2)
    try:
        y = conv2d(x, w, None, stride, padding, dilation, groups)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            conv_matrix(w, image, stride, padding, dilation, groups, dense=True)
        return
    matrix = conv_matrix(w, image, stride, padding, dilation, groups, dense=True)
    np.testing.assert_array_equal(matrix.dot(x.ravel()), y.ravel())


@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind):
    """Errors name sizes that don't fit; a matrix that doesn't fit in memory is refused before any work."""
    w = make(kind, some((2, 3, 2, 2)))
    for arguments, error, message in (
        (((4, 5, 5),), RuntimeError, r"needs an input of 3 channels.*\(4, 5, 5\)"),
        (((5,),), RuntimeError, "input must have shape"),
        ((5.0,), TypeError, "input_size.*5.0"),
        (((1, 1),), RuntimeError, "blocks"),
        (((5, 5), 0), RuntimeError, "stride"),
        (((5, 5), 1, 0, 1, 2.5), TypeError, "groups"),
        (((100000, 100000),), RuntimeError, "memory"),
        (((2**40, 2**40),), RuntimeError, "memory|int64"),
    ):
        with pytest.raises(error, match=message):
            conv_matrix(w, *arguments, dense=True)
    with pytest.raises(RuntimeError, match="3, 4 or 5 dimensions"):
        conv_matrix(make(kind, some((2, 3))), 5, dense=True)
    with pytest.raises(TypeError, match="weight"):
        conv_matrix([1.0], 5, dense=True)
    if kind != "tensor" or VARIABLES:
        with pytest.raises(RuntimeError, match="dense=True"):
            conv_matrix(w, 5)


def test_dtypes_without_numbers_of_ours():
    """A weight of a dtype that only NumPy or PyTorch knows is refused by name."""
    wide = np.dtype(np.longdouble).name
    if wide != "float64":
        with pytest.raises(TypeError, match="weight.*" + wide):
            conv_matrix(some((2, 3, 2, 2)).astype(wide), 5, dense=True)
    if hasattr(torch, "float8_e5m2"):
        with pytest.raises(TypeError, match="weight.*float8_e5m2"):
            conv_matrix(torch.zeros(2, 3, 2, 2, dtype=torch.float8_e5m2), 5)
