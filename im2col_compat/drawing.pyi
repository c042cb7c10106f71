from typing import Iterable, Optional, Union

from matplotlib.figure import Figure

_Size = Union[int, Iterable[int]]

MOST_CELLS: int

def draw(
    size: _Size,
    kernel_size: _Size,
    dilation: _Size = ...,
    padding: _Size = ...,
    stride: _Size = ...,
    block: Optional[int] = ...,
) -> Figure: ...
