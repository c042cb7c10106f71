from typing import Iterable, Optional, Union

from matplotlib.figure import Figure

_Size = Union[int, Iterable[int]]

MOST_CELLS: int

def draw(
    size: _Size,
    kernel_size: _Size,
    dilation: _Size = 1,
    padding: _Size = 0,
    stride: _Size = 1,
    block: Optional[int] = None,
) -> Figure: ...
