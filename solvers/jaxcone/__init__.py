"""Conic optimisation in pure JAX: batched, differentiable, honest about what it returns."""

if __name__ != "jaxcone":
    raise ImportError(f"import this package as `jaxcone`, not as {__name__!r}: install the project")

from .davis_yin import DavisYinSolution as DavisYinSolution, davis_yin as davis_yin
from .program import (
    AbstractConeProgram as AbstractConeProgram,
    Scaling as Scaling,
    after as after,
)
from .projections import (
    project_nonnegative as project_nonnegative,
    project_psd as project_psd,
)
from .residuals import Residuals as Residuals, residuals as residuals
from .solution import Solution as Solution, Status as Status
from .solve import (
    advance as advance,
    solve as solve,
    solve_in_chunks as solve_in_chunks,
)
from .splitting import Splitting as Splitting
