"""Where 0.5.0's pickles find Table."""

from im2col_compat.terms.table import Table  # noqa: F401
