"""Interior-point methods on the host, in NumPy."""

from .group_lasso import (
    GroupLassoSolution as GroupLassoSolution,
    solve_group_lasso as solve_group_lasso,
)
