"""Conic optimisation in pure JAX: batched, differentiable, honest about what it returns."""

if __name__ != "jaxcone":
    raise ImportError(f"import this package as `jaxcone`, not as {__name__!r}: install the project")

from importlib.metadata import version as _version

from . import extend as extend
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
from .layer import ConeLayer as ConeLayer
from .methods.abstract import AbstractSolver as AbstractSolver
from .methods.interior_point import InteriorPoint as InteriorPoint
from .methods.splitting import Splitting as Splitting
from .report import report as report
from .residuals import (
    Residuals as Residuals,
    dimacs_errors as dimacs_errors,
    residuals as residuals,
)
from .sdpa import SDPAProblem as SDPAProblem, read_sdpa as read_sdpa, write_sdpa as write_sdpa
from .solution import Ray as Ray, Solution as Solution, Status as Status
from .solve import NotSolved as NotSolved, solve as solve, solve_in_chunks as solve_in_chunks

__version__ = _version("jaxcvxnn")
