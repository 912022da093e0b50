"""Exact reductions of a training problem to the data of (lifted), and the way back.

On the host, since the reduced shapes depend on the data: X by its rank, zero samples dropped, samples
scaled to unit length, parallel samples merged, antiparallel ones read from omega instead of alpha, Y
by its rank. See docs/math/lifted.md, "Reductions". Inside `jit` use `lifted_data`, which scales the
samples and changes no shape.
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .conic.lifted import LiftedData, activation_rows
from .geometry.directions import Directions, find_directions, row_space
from .problem import TrainingProblem, require_relu, require_squared


class Reduction(eqx.Module):
    """A training problem in reduced coordinates, with the maps between both.

    Targets are Y = `coordinates @ output_basis.T`. All arrays are NumPy's.
    """

    problem: TrainingProblem
    data: LiftedData
    directions: Directions
    output_basis: Float[np.ndarray, "outputs c"]
    loss_rows: Int[np.ndarray, " n"]  # the row of `data.readout` that sample i went to; -1 if none

    def at(self, weight_decay: float) -> "Reduction":
        """The same data at another weight decay, on which nothing else here depends."""
        value = np.asarray(weight_decay, np.float64)
        return eqx.tree_at(
            lambda r: (r.problem.weight_decay, r.data.weight_decay), self, (value, value)
        )

    @property
    def lift(self) -> Float[np.ndarray, "p q_plus_c"]:
        """T with (alpha, omega, u, v) = T (z, v'): from reduced to full coordinates.

        The order is that of Prakhya et al. (2025), eq. (35): n activations alpha, n omega (their
        beta), the features' u, the outputs' v.
        """
        data = self.data
        rows, alive = np.asarray(data.rows), np.flatnonzero(self.directions.classes >= 0)
        kind, scale = self.directions.classes[alive], self.directions.lengths[alive, None]
        plus = np.where(self.directions.signs[alive] > 0, 0, data.pairs)
        alpha = np.zeros((len(self.directions.classes), rows.shape[1]))
        omega = np.zeros_like(alpha)
        alpha[alive] = scale * rows[kind + plus]
        omega[alive] = scale * rows[kind + data.pairs - plus]
        size, width = data.rows.shape[1], data.targets.shape[1]
        z_part = np.vstack([alpha, omega, np.zeros((len(self.directions.basis), size))])
        z_part[2 * len(alpha) :, data.pairs :] = self.directions.basis
        v_part = np.zeros((len(z_part) + len(self.output_basis), width))
        v_part[len(z_part) :] = self.output_basis
        z_full = np.vstack([z_part, np.zeros((len(self.output_basis), size))])
        return np.hstack([z_full, v_part])

    def expand_moments(self, moments: Any) -> Float[np.ndarray, "p p"]:
        """Prakhya's Lambda from the reduced moment matrix S."""
        lift = self.lift
        return lift @ np.asarray(moments) @ lift.T

    def expand_residual(self, residual: Any) -> Float[np.ndarray, "n outputs"]:
        """R = f(X) - Y on the samples, from the residual on the reduced loss rows.

        A loss row that merges several samples fixes their common prediction per unit length.
        """
        residual = np.asarray(residual, np.float64)
        targets = np.asarray(self.data.targets, np.float64)
        coordinates = np.asarray(self.problem.Y, np.float64) @ self.output_basis
        rowscale = np.zeros(len(targets))
        alive = self.loss_rows >= 0
        np.add.at(rowscale, self.loss_rows[alive], self.directions.lengths[alive] ** 2)
        per_length = (residual + targets) / np.sqrt(rowscale)[:, None]
        predicted = np.zeros_like(coordinates)
        predicted[alive] = self.directions.lengths[alive, None] * per_length[self.loss_rows[alive]]
        return (predicted - coordinates) @ self.output_basis.T

    def reduce_residual(self, residual: Any) -> Float[np.ndarray, "l c"]:
        """The reduced rows' residual: the part of R (n, outputs) that the dual function sees."""
        coordinates = np.asarray(residual, np.float64) @ self.output_basis
        merged = np.zeros((self.data.targets.shape[0], coordinates.shape[1]))
        squares = np.zeros(len(merged))
        alive = self.loss_rows >= 0
        weighted = self.directions.lengths[alive, None] * coordinates[alive]
        np.add.at(merged, self.loss_rows[alive], weighted)
        np.add.at(squares, self.loss_rows[alive], self.directions.lengths[alive] ** 2)
        return merged / np.sqrt(squares)[:, None]

    def reduce_multipliers(self, multipliers: Any) -> Float[np.ndarray, "m m"]:
        """Z'NZ for multipliers N (2n, 2n) on the samples' (alpha, omega), Z >= 0 the read-out."""
        count, pairs = len(self.directions.classes), self.data.pairs
        select = np.zeros((2 * count, self.data.rows.shape[0]))
        index = np.flatnonzero(self.directions.classes >= 0)
        plus = self.directions.classes[index] + np.where(self.directions.signs[index] > 0, 0, pairs)
        minus = self.directions.classes[index] + np.where(
            self.directions.signs[index] > 0, pairs, 0
        )
        select[index, plus] = self.directions.lengths[index]
        select[count + index, minus] = self.directions.lengths[index]
        return select.T @ np.asarray(multipliers, np.float64) @ select


@eqx.filter_jit
def lifted_data(problem: TrainingProblem) -> LiftedData:
    """(lifted) for a problem as it is: samples scaled to unit length, no shape changed. Pure JAX.

    Zero and repeated samples are allowed but leave the program without an interior, which slows
    every solver down: call `reduce` on the host where the data may have them.
    """
    require_relu(problem)
    require_squared(problem)
    features, targets = jnp.asarray(problem.features), jnp.asarray(problem.Y)
    lengths = jnp.linalg.norm(features, axis=1)
    directions = features / jnp.where(lengths > 0, lengths, 1)[:, None]
    count, rank = features.shape
    return LiftedData(
        rows=activation_rows(jnp, directions),
        readout=jnp.concatenate([jnp.diag(lengths), jnp.zeros((count, rank))], axis=1),
        targets=targets,
        weight_decay=jnp.asarray(problem.weight_decay, features.dtype),
        constant=jnp.zeros((), features.dtype),
        pairs=count,
    )


def reduce(problem: TrainingProblem, *, tolerance: float = 1e-9) -> Reduction:
    """All exact reductions of a problem, in NumPy float64 on the host.

    **Arguments:** `tolerance`, relative: singular values of X below it times the largest count as
    zero, samples closer than it in direction as parallel. What that neglects is accounted for by the
    certificate, never assumed away.

    **Raises** a `ValueError` under `jit` or `vmap`, where shapes cannot depend on data, and for a
    loss that is not the squared one, since parallel samples merge for that only.
    """
    require_relu(problem)
    require_squared(problem)
    try:
        features = np.asarray(problem.features, np.float64)
        targets = np.asarray(problem.Y, np.float64)
        weight_decay = float(problem.weight_decay)
    except Exception as error:
        if "Tracer" in type(error).__name__:
            raise ValueError(
                "`reduce` needs concrete data: use `lifted_data` inside jit."
            ) from None
        raise
    directions = find_directions(features, tolerance=tolerance)
    output_basis = row_space(targets, tolerance)
    readout, merged, constant, loss_rows = _merge_losses(directions, targets @ output_basis)
    dropped = targets - (targets @ output_basis) @ output_basis.T
    pairs = len(directions.units)
    data = LiftedData(
        rows=activation_rows(np, directions.units),
        readout=readout,
        targets=merged,
        weight_decay=np.asarray(weight_decay),
        constant=np.asarray(constant + np.sum(dropped**2) / 2),
        pairs=pairs,
    )
    return Reduction(
        problem=problem,
        data=data,
        directions=directions,
        output_basis=output_basis,
        loss_rows=loss_rows,
    )


def _merge_losses(
    directions: Directions, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """Read-out, merged targets, constant, and the loss row of each sample.

    Samples with one activation, up to their length s_i, merge exactly: sum_i |s_i f - y_i|^2 =
    |s f - y|^2 + sum_i |y_i|^2 - |y|^2 with s^2 = sum s_i^2 and y = sum s_i y_i / s.
    """
    classes, signs, lengths = directions.classes, directions.signs, directions.lengths
    pairs, rank = directions.units.shape
    kinds = sorted({(int(k), -s) for k, s in zip(classes, signs, strict=True) if k >= 0})
    readout = np.zeros((len(kinds), pairs + rank))
    merged = np.zeros((len(kinds), targets.shape[1]))
    loss_rows = np.full(len(classes), -1)
    constant = float(np.sum(targets[classes < 0] ** 2) / 2)
    for row, (kind, minus_sign) in enumerate(kinds):
        inside = (classes == kind) & (signs == -minus_sign)
        scale = np.linalg.norm(lengths[inside])
        loss_rows[inside] = row
        readout[row, kind] = scale
        if minus_sign > 0:
            readout[row, pairs:] = -scale * directions.units[kind]
        merged[row] = lengths[inside] @ targets[inside] / scale
        constant += float(np.sum(targets[inside] ** 2) - np.sum(merged[row] ** 2)) / 2
    return readout, merged, constant, loss_rows
