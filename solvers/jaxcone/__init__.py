"""Conic optimisation in pure JAX: batched, differentiable, honest about what it returns."""

if __name__ != "jaxcone":
    raise ImportError(f"import this package as `jaxcone`, not as {__name__!r}: install the project")

from .adjoint import adjoint as adjoint
from .batch import solve_batch as solve_batch
from .bounds import safe_dual_bound as safe_dual_bound
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
from .interior_form import AbstractInteriorForm as AbstractInteriorForm, DenseForm as DenseForm
from .interior_point import (
    InteriorPoint as InteriorPoint,
    available_memory as available_memory,
    step_cost as step_cost,
)
from .layer import ConeLayer as ConeLayer
from .program import (
    AbstractConeProgram as AbstractConeProgram,
    Scaling as Scaling,
    after as after,
    norm as norm,
)
from .projections import (
    project_nonnegative as project_nonnegative,
    project_psd as project_psd,
    project_second_order as project_second_order,
)
from .report import report as report
from .residuals import (
    Residuals as Residuals,
    dimacs_errors as dimacs_errors,
    residuals as residuals,
)
from .sdpa import SDPAProblem as SDPAProblem, read_sdpa as read_sdpa, write_sdpa as write_sdpa
from .solution import Ray as Ray, Solution as Solution, Status as Status
from .solve import (
    NotSolved as NotSolved,
    advance as advance,
    solve as solve,
    solve_in_chunks as solve_in_chunks,
)
from .solver import AbstractSolver as AbstractSolver
from .splitting import Splitting as Splitting
from .symmetric import (
    EntryScaling as EntryScaling,
    Layout as Layout,
    MatrixScaling as MatrixScaling,
)
