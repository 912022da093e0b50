"""Conic optimisation in pure JAX: batched, differentiable, honest about what it returns."""

if __name__ != "jaxcone":
    raise ImportError(f"import this package as `jaxcone`, not as {__name__!r}: install the project")

from .cone_program import ConeProgram as ConeProgram
from .cones import (
    PSD as PSD,
    AbstractCone as AbstractCone,
    Nonnegative as Nonnegative,
    ProductCone as ProductCone,
    SecondOrder as SecondOrder,
    Zero as Zero,
    smat as smat,
    svec as svec,
)
from .davis_yin import DavisYinSolution as DavisYinSolution, davis_yin as davis_yin
from .program import (
    AbstractConeProgram as AbstractConeProgram,
    Scaling as Scaling,
    after as after,
)
from .projections import (
    project_nonnegative as project_nonnegative,
    project_psd as project_psd,
    project_second_order as project_second_order,
)
from .residuals import (
    Residuals as Residuals,
    dimacs_errors as dimacs_errors,
    residuals as residuals,
)
from .solution import Ray as Ray, Solution as Solution, Status as Status
from .solve import (
    advance as advance,
    solve as solve,
    solve_in_chunks as solve_in_chunks,
)
from .splitting import Splitting as Splitting
