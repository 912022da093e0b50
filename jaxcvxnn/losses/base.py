"""What a loss is: values, gradients, proxes, conjugates, and bounds on them."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arrays import Matrix
from . import conjugate_bounds as bounds
from .targets import column, real_array, require_rows, target_matrix

# (B, k, (lower, upper)): L*(R) = <R, B> + k/2 ||R||^2 on a box, or everywhere; see `group_lasso`.
QuadraticConjugate = tuple[Matrix, float, tuple[Matrix, Matrix] | None]


class AbstractLoss(eqx.Module):
    """A convex function L(Z) = sum_i l(z_i, y_i) of predictions Z (n, c), given targets Y (n, c).

    `smooth` says whether the gradient is Lipschitz; `curvature` is its Lipschitz constant, an upper
    bound on the eigenvalues of the Hessian (inf where there is none).
    """

    name: eqx.AbstractClassVar[str]
    smooth: eqx.AbstractClassVar[bool]
    curvature: eqx.AbstractClassVar[float]

    @abc.abstractmethod
    def value(self, Z: Float[Any, "n c"], Y: Float[Any, "n c"]) -> Float[Array, ""]:
        """L(Z), summed over the samples."""

    @abc.abstractmethod
    def gradient(self, Z: Float[Any, "n c"], Y: Float[Any, "n c"]) -> Float[Array, "n c"]:
        """The gradient in Z; at a kink a subgradient, the one of least length."""

    @abc.abstractmethod
    def hessian(self, Z: Float[Any, "n c"], Y: Float[Any, "n c"]) -> Float[Array, "n c c"]:
        """One block per sample: the second derivatives in Z; at a kink of the gradient one-sided.

        A loss that is not `smooth` has them too, off its kinks: zeros.
        """

    @abc.abstractmethod
    def prox(
        self, Z: Float[Any, "n c"], Y: Float[Any, "n c"], step: Float[Any, ""] | float
    ) -> Float[Array, "n c"]:
        """argmin_W  L(W) + ||W - Z||^2 / (2 step)  for a positive `step`, which may be traced."""

    @abc.abstractmethod
    def conjugate(self, R: Float[Any, "n c"], Y: Float[Any, "n c"]) -> Float[Array, ""]:
        """L*(R) = sup_Z <R, Z> - L(Z); inf outside its domain. No proof: see `dual_value_below`."""

    @abc.abstractmethod
    def minimum(self, Y: Float[Any, "n c"]) -> Float[Array, ""]:
        """inf_Z L(Z) = -L*(0): zero, except for the softmax loss of soft labels."""

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate | None:
        """The conjugate as a quadratic function on a box, where it is one."""
        del Y
        return None

    def dual_value_below(self, R: Any, Y: Any, scale: float) -> float:
        """A proven lower bound on -L*(scale * R), for these very floats. On the host.

        For the softmax loss, whose domain has no interior, R stands for a matrix near it: the bound
        is that of an exact R~ with |R~_i - R_i| <= `perturbation(R, Y)[i]`, the same for every scale.

        **Arguments:** R (n, c); Y (n, c), as `encode_targets` returns it; 0 <= scale <= 1.

        **Returns** -inf where scale * R may lie outside the domain of L*, or the numbers overflow.

        **Raises** a `ValueError` for shapes that differ, targets that do not belong to this loss,
        and a scale outside [0, 1].
        """
        if not 0 <= scale <= 1:
            raise ValueError(f"`scale` must lie in [0, 1]; got {scale}.")
        return self._dual_value_below(*checked_pair(self, R, Y), float(scale))

    def perturbation(self, R: Any, Y: Any) -> Float[np.ndarray, " n"]:
        """Bounds on |R~_i - R_i|_2, where R~ is what `dual_value_below` speaks of. On the host.

        Zeros for all but the softmax loss. A bound on the price sigma(R~) is one on sigma(R) plus
        sum_i perturbation_i |x_i|, since relu(x_i'u) <= |x_i| |u|. Raises as `into_domain` does.
        """
        return self._perturbation(*finite_pair(self, R, Y))

    def into_domain(self, R: Any, Y: Any) -> Float[np.ndarray, "n c"]:
        """The point nearest to R (n, c) in the domain of L*, in float64. On the host.

        Its `dual_value_below` at scale 1, hence at every scale, is finite unless it overflows.

        **Raises** a `ValueError` for entries that are not finite, and as `dual_value_below` does.
        """
        return self._into_domain(*finite_pair(self, R, Y))

    @abc.abstractmethod
    def check_targets(self, Y: Any) -> None:
        """Raise a `ValueError` unless Y (n, c) holds targets of this loss. On the host."""

    @abc.abstractmethod
    def encode_targets(self, labels: Any) -> Float[np.ndarray, "n c"]:
        """Targets Y (n, c) from what users have: numbers or labels, (n,) or (n, c). On the host.

        **Raises** a `ValueError` for labels that cannot be read as targets of this loss.
        """

    @abc.abstractmethod
    def _dual_value_below(self, R: Matrix, Y: Matrix, scale: float) -> float: ...

    @abc.abstractmethod
    def _perturbation(self, R: Matrix, Y: Matrix) -> Matrix: ...

    @abc.abstractmethod
    def _into_domain(self, R: Matrix, Y: Matrix) -> Matrix: ...


class AbstractEntrywiseLoss(AbstractLoss):
    """A sum over entries of a function of z_ij and y_ij whose infimum is zero."""

    @abc.abstractmethod
    def second_derivative(self, Z: Float[Any, "n c"], Y: Float[Any, "n c"]) -> Float[Array, "n c"]:
        """The diagonals of the Hessian blocks."""

    def hessian(self, Z, Y):
        return diagonal_blocks(self.second_derivative(Z, Y))

    def minimum(self, Y):
        return jnp.zeros((), jnp.result_type(Y, float))

    def _perturbation(self, R, Y):
        return np.zeros(len(R))


class AbstractRegressionLoss(AbstractEntrywiseLoss):
    """A function of z - y; the targets are any real numbers."""

    def check_targets(self, Y):
        target_matrix(self.name, Y)

    def encode_targets(self, labels):
        return target_matrix(self.name, column(real_array(self.name, labels)))


class AbstractMarginLoss(AbstractEntrywiseLoss):
    """A function of the margin y z for labels y = +-1, of slopes between -1 and 0."""

    def check_targets(self, Y):
        array = target_matrix(self.name, Y)
        expected = "labels +1 and -1 (`encode_targets` makes them of 0 and 1, or of booleans)"
        require_rows(self.name, array, np.all(np.abs(array) == 1, axis=1), expected)

    def encode_targets(self, labels):
        """Y (n, c) of +-1 from labels that are all -1 or 1, or all 0 or 1, or booleans."""
        array = column(real_array(self.name, labels))
        if np.all((array == 0) | (array == 1)):
            array = 2 * array - 1
        self.check_targets(array)
        return array

    def _into_domain(self, R, Y):
        return -Y * np.clip(-Y * R, 0, 1)


def diagonal_blocks(diagonals: Float[Array, "n c"]) -> Float[Array, "n c c"]:
    return diagonals[:, :, None] * jnp.eye(diagonals.shape[1], dtype=diagonals.dtype)


def margins_inside(residual: Matrix, labels: Matrix, scale: float) -> bool:
    """Whether 0 <= -scale y r <= 1 for all entries, exactly."""
    chances = -labels * residual
    return bounds.at_most(scale, chances, 1.0) and bounds.at_most(scale, -chances, 0.0)


def checked_pair(loss: AbstractLoss, residual: Any, targets: Any) -> tuple[Matrix, Matrix]:
    loss.check_targets(targets)
    residual, targets = np.asarray(residual, np.float64), np.asarray(targets, np.float64)
    if residual.shape != targets.shape:
        raise ValueError(
            f"R and Y must have the same shape; they have {residual.shape} and {targets.shape}."
        )
    return residual, targets


def finite_pair(loss: AbstractLoss, residual: Any, targets: Any) -> tuple[Matrix, Matrix]:
    residual, targets = checked_pair(loss, residual, targets)
    if not np.all(np.isfinite(residual)):
        raise ValueError("R must be finite; it holds NaN or infinite entries.")
    return residual, targets
