"""Lower bounds on the global optimum of training, valid in floating point. Needs no solver.

For any R (n, c) with ||R' relu(X u)|| <= weight_decay |u| for all u (Sahiner et al., 2021, eq. 11),

    p* >= -<R, Y> - 1/2 ||R||^2.

That constraint is proven through (lifted): any symmetric N, nonnegative except at the pairs, for
which [[0, 0], [0, wd/2 I]] - V'NV - E'R R'E / (2 wd) is positive semidefinite, proves it. A solver's
pair (R, N) is first repaired to lie inside (`dual_repair`), then verified in NumPy float64 with all
rounding errors accounted for (`jaxcone.verified`), the reduction's own included. A poor solver makes
the bound weak, never wrong. Derivation: docs/math/certificate.md, "The certificate".
"""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Float

from jaxcone import verified

from ..arrays import Matrix
from ..bound import Bound
from ..geometry.directions import neglected_price
from ..interior.dual_repair import clean_multipliers, repair_dual
from ..job import Job
from ..losses.regression import Squared
from ..pricing.lifted_constraint import constraint_holds, interior_multipliers, reader
from ..problem import TrainingProblem
from ..reduction import Reduction, reduce
from .dual_bound import dual_bound


class LiftedProof(eqx.Module):
    """Multipliers N (m, m) that make `scale` * R of a `Bound` feasible, in `reduction`'s coordinates.

    `dual_objective` is what the solver's own pair would be worth if it were feasible, -inf if none was
    given; `loss` is (dual_objective - lower_bound) / |dual_objective|, what repair and rounding took:
    negative where the repair found a better bound than the solver's own dual value.
    """

    multipliers: Float[np.ndarray, "m m"]
    reduction: Reduction
    dual_objective: float
    loss: float


def with_dual_objective(bound: Bound[LiftedProof], value: float) -> Bound[LiftedProof]:
    """The same bound, compared with another dual value."""
    loss = (value - bound.lower_bound) / max(abs(value), float(np.finfo(float).tiny))
    return eqx.tree_at(lambda b: (b.proof.dual_objective, b.proof.loss), bound, (value, loss))


def certify_dual(
    problem: TrainingProblem,
    residual: Any,
    multipliers: Any = None,
    *,
    repair: bool = True,
    job: Job | None = None,
) -> Bound[LiftedProof]:
    """A rigorous lower bound from any dual pair, from any solver, converged or not.

    **Arguments:**

    - `residual`: R (n, c), for instance f(X) - Y of a trained network.
    - `multipliers`: N (2n, 2n) of the entrywise constraints on E[(alpha, omega)(alpha, omega)'];
      negative entries off the (alpha_i, omega_i) diagonal count as zero. None means zero.
    - `repair`: re-optimise what can be cheaply; without it the pair is only shrunk until feasible.
    - `job`: ends the repair with what it has reached.

    **Raises** a `ValueError` for shapes that do not match or entries that are not finite.
    """
    count, outputs = problem.Y.shape
    residual = _checked(residual, "residual", (count, outputs))
    if multipliers is None:
        multipliers = np.zeros((2 * count, 2 * count))
    multipliers = _checked(multipliers, "multipliers", (2 * count, 2 * count))
    reduction = reduce(problem)
    return certify_reduced(
        reduction,
        reduction.reduce_residual(residual),
        reduction.reduce_multipliers(multipliers),
        repair=repair,
        job=job,
    )


@np.errstate(over="ignore", invalid="ignore")  # absurd sizes fail the verification instead
def certify_reduced(
    reduction: Reduction,
    residual: Any,
    multipliers: Any,
    *,
    repair: bool = True,
    job: Job | None = None,
) -> Bound[LiftedProof]:
    """`certify_dual` for a pair in reduced coordinates: R (l, c) and N (m, m) of `reduction.data`.

    `job` ends the repair with what it has reached; what it has is verified all the same.
    """
    job = Job() if job is None else job
    data = reduction.data
    residual = _checked(residual, "residual", data.targets.shape)
    multipliers = _checked(multipliers, "multipliers", (data.rows.shape[0],) * 2)
    given = float(-np.sum(residual * data.targets) - np.sum(residual**2) / 2 + data.constant)
    pairs = [_Dual(residual, clean_multipliers(multipliers, data.pairs, keep_pairs=True))]
    if repair and not job.over():
        found = repair_dual(
            data.rows,
            data.readout,
            data.targets,
            float(data.weight_decay),
            data.pairs,
            multipliers,
            residual,
            job=job,
        )
        if found is not None:
            pairs.append(_Dual(found.residual, found.multipliers))
    best = max((_verify(reduction, pair) for pair in pairs), key=lambda c: c.lower_bound)
    return with_dual_objective(best, given)


class _Dual(NamedTuple):
    residual: Matrix
    multipliers: Matrix


def _verify(reduction: Reduction, pair: _Dual) -> Bound[LiftedProof]:
    """The best verified bound among shrunk versions of a pair; 0, which always holds, at worst."""
    start = _pencil_scale(reduction, pair)
    for margin in (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0):
        kept = start * (1 - margin)
        residual = np.sqrt(kept) * pair.residual
        multipliers = kept * pair.multipliers + (1 - kept) * _interior_multipliers(reduction)
        expanded = reduction.expand_residual(residual)
        if _constraint_holds(reduction, expanded, multipliers):
            bound, scale = _bound(reduction, expanded)
            return Bound(bound, scale, expanded, LiftedProof(multipliers, reduction, -np.inf, 0.0))
    nothing = np.zeros(reduction.problem.Y.shape)
    proof = LiftedProof(_interior_multipliers(reduction), reduction, -np.inf, 0.0)
    return Bound(0.0, 0.0, nothing, proof)


def _constraint_holds(reduction: Reduction, residual: Matrix, multipliers: Matrix) -> bool:
    """Whether ||C'(relu(P w), w)|| <= weight_decay |w| is proven for the reduced directions P."""
    if not np.any(residual):
        return True
    data = reduction.data
    found = reader(reduction.directions, data.rows, residual)
    return constraint_holds(data.rows, data.pairs, found, multipliers, float(data.weight_decay))


def _bound(reduction: Reduction, residual: Matrix) -> tuple[float, float]:
    """(lower bound, scale t) of a pair whose constraint holds in reduced coordinates."""
    weight_decay = float(reduction.problem.weight_decay)
    features = np.asarray(reduction.problem.features, np.float64)
    targets = np.asarray(reduction.problem.Y, np.float64)
    price = weight_decay * reduction.directions.basis_norm()
    price += neglected_price(residual, reduction.directions.approximation(features))
    return dual_bound(Squared(), residual, targets, weight_decay, verified.above(price))


def _interior_multipliers(reduction: Reduction) -> Matrix:
    data = reduction.data
    return interior_multipliers(data.rows, data.pairs, float(data.weight_decay))


def _pencil_scale(reduction: Reduction, pair: _Dual) -> float:
    """The largest k <= 1 for which k (N, R R') + (1 - k) (N_s, 0) is feasible, up to rounding."""
    data = reduction.data
    weight_decay = float(data.weight_decay)
    pulled = data.readout.T @ pair.residual
    corner = np.zeros(len(pulled))
    corner[data.pairs :] = weight_decay / 2
    matrix = np.diag(corner) - data.rows.T @ pair.multipliers @ data.rows
    matrix -= pulled @ pulled.T / (2 * weight_decay)
    interior = np.diag(corner) - data.rows.T @ _interior_multipliers(reduction) @ data.rows
    try:
        inverse = np.linalg.inv(np.linalg.cholesky((interior + interior.T) / 2))
        pencil = inverse @ (matrix + matrix.T) @ inverse.T / 2
        excess = max(0.0, -float(np.linalg.eigvalsh(pencil)[0]))
    except np.linalg.LinAlgError:
        return 0.0
    return 1 / (1 + excess) if np.isfinite(excess) else 0.0


def _checked(values: Any, name: str, shape: tuple[int, ...]) -> Matrix:
    if isinstance(values, Tracer):
        raise ValueError("Certificates are computed on the host: call this outside jit and vmap.")
    array = np.asarray(values, np.float64)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}; its shape is {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite; it holds NaN or infinite entries.")
    return array
