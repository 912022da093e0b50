"""`train`: data in, network and both bounds out. Wires the steps together; holds no mathematics."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcone import AbstractSolver

from ..activations import AbstractActivation
from ..job import Job, Progress
from ..losses.base import AbstractLoss
from ..problem import TrainingProblem, in_float64
from ..programs.abstract import AbstractMethod, AbstractProgram
from .checkpoint import Checkpoint
from .choose_route import choose_route
from .columns_route import ColumnsRoute
from .result import TrainingResult
from .route import AbstractRoute

AUTO_SECONDS = 60.0


def train(
    X: Any,
    Y: Any,
    weight_decay: Any = 0.1,
    *,
    program: str | AbstractProgram[Any, Any] = "auto",
    loss: AbstractLoss | str = "squared",
    activation: AbstractActivation | str = "relu",
    solver: AbstractSolver | AbstractMethod | str | None = None,
    bias: bool = False,
    tolerance: float | None = None,
    width: int = 300,
    polish: bool = True,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
    time_limit: float | None = None,
    checkpoint: str | Path | None = None,
) -> TrainingResult:
    """Train a two-layer network by convex optimisation, with bounds on the global optimum.

    Where the data have low rank, by column generation to the global optimum: neurons are added as
    long as one is found that pays, and pricing proves that no other does. Otherwise the semidefinite
    relaxation of training (Prakhya et al., 2025, SDP-NN, reduced) is solved and rounded to a network,
    which is improved on the true objective (new neurons where they pay, L-BFGS, Adam). Both ways
    certify a lower bound that no network can beat. With a polynomial activation the convex program of
    Bartan and Pilanci (2021) is exact, whatever the rank. Every other convex program trains too.

    **Arguments:**

    - `X` (n, d), `Y` (n, c) or (n,), `weight_decay`, `bias`: see `TrainingProblem`. The relaxation is
      solved in the precision of the data; the network and both bounds are in float64.
    - `program`: "columns" (column generation), "lifted" (the relaxation; the squared loss only),
      "auto": columns where the rank of the data is at most 6 (with a time limit of a minute from rank
      3 on, if none is given), lifted otherwise and where arguments below ask for it. Or any convex
      program of `jaxcvxnn.programs`, as an object such as `CopositiveRelaxation(patterns)` or by its
      short name: "planar", "copositive", "nuclear_norm", "cone_lasso", "sdp". It is solved as it is,
      its network is improved if `polish` says so, and its dual certified.
    - `loss`, `activation`: see `TrainingProblem`. Leaky ReLU and the absolute value are trained by
      columns; polynomials have one program, "spectrahedron", which "auto" stands for.
    - `solver` of (lifted): "auto" (as None: see `choose_solver`), "interior_point", "splitting" (whose
      penalty is chosen by trial), or settings, `jaxcone.InteriorPoint(...)` or
      `jaxcone.Splitting(...)`. Of a program object: such settings, or a method of its own.
    - `tolerance`: the relative gap at which column generation ends, by default 1e-8 up to rank 2 and
      1e-5 above, and the program of polynomials, by default 1e-7. (lifted) ends with its solver.
    - `width`: neurons at most.
    - `polish`: whether to improve the network that a convex program gives.
    - `seed`: for the random starts of searches for neurons.
    - `progress`: called with a `Progress` after each chunk of work. The total of a stage is what is
      left at most; it falls when the solve drops a candidate.
    - `time_limit`: seconds after which the work ends where it is (a solve that a network is made of
      afterwards gets 70 % of them). The work asks about once a second, or after each step of its
      method where that takes longer; compilation is not cut short.
    - `checkpoint`: a file that is written to after each chunk of work (columns, lifted and
      polynomials); if it exists, and belongs to the same problem, the work continues from it.

    Ctrl-C ends the work in the same way as the time limit: the best result so far is returned.

    **Raises** a `ValueError` for bad data (see `TrainingProblem`) or settings.
    """
    check_limits(width, time_limit)
    if tolerance is not None and not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a positive number or None; got {tolerance!r}.")
    problem = TrainingProblem(X, Y, weight_decay, bias=bias, loss=loss, activation=activation)
    with jax.enable_x64(True):
        exact = in_float64(problem)
        route = choose_route(
            program,
            exact,
            solver=solver,
            tolerance=tolerance,
            width=int(width),
            polish=polish,
            seed=seed,
            checkpoint=None if checkpoint is None else Checkpoint(checkpoint, exact),
            dtype=problem.X.dtype,
        )
        if program == "auto" and isinstance(route, ColumnsRoute) and time_limit is None:
            time_limit = AUTO_SECONDS
        return train_by(route, problem, Job(time_limit, progress=progress))


def train_by(route: AbstractRoute, problem: TrainingProblem, job: Job) -> TrainingResult:
    """Train by one route, whose settings fit the problem."""
    with jax.enable_x64(True):
        exact = in_float64(problem)
        outcome = route.run(route.prepare(exact, job), exact, None, job)
    return TrainingResult(
        network=outcome.network,
        upper_bound=outcome.upper_bound,
        certificate=outcome.certificate,
        rounded_objective=outcome.rounded_objective,
        status=outcome.status,
        program=route.name,
        message=outcome.message,
        problem=problem,
        solution=outcome.solution,
        seconds=job.seconds,
    )


def check_limits(width: Any, time_limit: Any) -> None:
    """Raise a `ValueError` for a width that is no positive integer, or no positive seconds."""
    if isinstance(width, bool) or not isinstance(width, int | np.integer) or width < 1:
        raise ValueError(f"width must be a positive integer; got {width!r}.")
    timed = isinstance(time_limit, int | float | np.number)
    if time_limit is not None and not (timed and time_limit > 0):
        raise ValueError(f"time_limit must be positive seconds or None; got {time_limit!r}.")
