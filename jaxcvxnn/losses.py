"""Six convex losses with all that training and certificates ask of one: each written once.

The loss of a network is the sum over samples of a convex function of its predictions Z (n, c) and
the targets Y (n, c). `value`, `gradient`, `hessian`, `prox`, `conjugate` and `minimum` are pure JAX,
for any floating dtype. What certificates need (`dual_value_below`, `perturbation`, `into_domain`) and
the checks of targets run on the host, in NumPy float64. Derivations: docs/math.md, section "Losses
and their conjugates".
"""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, xlog1py, xlogy
from jaxtyping import Array, Float
from numpy.typing import NDArray

from . import conjugate_bounds as bounds

Matrix = NDArray[np.float64]

# Rows of soft labels have to sum to one within this: enough for float32. It costs no rigour, as the
# loss is defined for any sums.
ROW_SUM_TOLERANCE = 1e-5
# What rounding may do to residuals of the softmax loss, in units of the dtype per class.
DOMAIN_ROUNDING = 64
# Newton's method for the softmax and the logistic prox: 7 and 4 steps reach 1e-12 on the worst found.
SOFTMAX_STEPS = 10
LOGISTIC_STEPS = 5
OMEGA_STEPS = 5


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
        return self._dual_value_below(*_checked_pair(self, R, Y), float(scale))

    def perturbation(self, R: Any, Y: Any) -> Float[np.ndarray, " n"]:
        """Bounds on |R~_i - R_i|_2, where R~ is what `dual_value_below` speaks of. On the host.

        Zeros for all but the softmax loss. A bound on the price sigma(R~) is one on sigma(R) plus
        sum_i perturbation_i |x_i|, since relu(x_i'u) <= |x_i| |u|. Raises as `into_domain` does.
        """
        return self._perturbation(*_finite_pair(self, R, Y))

    def into_domain(self, R: Any, Y: Any) -> Float[np.ndarray, "n c"]:
        """The point nearest to R (n, c) in the domain of L*, in float64. On the host.

        Its `dual_value_below` at scale 1, hence at every scale, is finite unless it overflows.

        **Raises** a `ValueError` for entries that are not finite, and as `dual_value_below` does.
        """
        return self._into_domain(*_finite_pair(self, R, Y))

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
        return _diagonal_blocks(self.second_derivative(Z, Y))

    def minimum(self, Y):
        return jnp.zeros((), jnp.result_type(Y, float))

    def _perturbation(self, R, Y):
        return np.zeros(len(R))


class AbstractRegressionLoss(AbstractEntrywiseLoss):
    """A function of z - y; the targets are any real numbers."""

    def check_targets(self, Y):
        _target_matrix(self, Y)

    def encode_targets(self, labels):
        return _target_matrix(self, _column(_real_array(self, labels)))


class AbstractMarginLoss(AbstractEntrywiseLoss):
    """A function of the margin y z for labels y = +-1, of slopes between -1 and 0."""

    def check_targets(self, Y):
        array = _target_matrix(self, Y)
        expected = "labels +1 and -1 (`encode_targets` makes them of 0 and 1, or of booleans)"
        _require_rows(self, array, np.all(np.abs(array) == 1, axis=1), expected)

    def encode_targets(self, labels):
        """Y (n, c) of +-1 from labels that are all -1 or 1, or all 0 or 1, or booleans."""
        array = _column(_real_array(self, labels))
        if np.all((array == 0) | (array == 1)):
            array = 2 * array - 1
        self.check_targets(array)
        return array

    def _into_domain(self, R, Y):
        return -Y * np.clip(-Y * R, 0, 1)


class Squared(AbstractRegressionLoss):
    """1/2 ||Z - Y||^2."""

    name: ClassVar[str] = "squared"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 1.0

    # Methods of arrays: what is given in NumPy is computed there, and nothing is compiled.
    def value(self, Z, Y):
        return ((Z - Y) ** 2).sum() / 2

    def gradient(self, Z, Y):
        return Z - Y

    def second_derivative(self, Z, Y):
        return jnp.ones_like(self.gradient(Z, Y))

    def prox(self, Z, Y, step):
        return Z - step / (1 + step) * self.gradient(Z, Y)

    def conjugate(self, R, Y):
        return (R * Y).sum() + (R**2).sum() / 2

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Everywhere."""
        return Y, 1.0, None

    def _dual_value_below(self, R, Y, scale):
        return bounds.quadratic_below(R, Y, scale)

    def _into_domain(self, R, Y):
        return R


class Logistic(AbstractMarginLoss):
    """sum log(1 + exp(-y z)) for labels y = +-1: cross-entropy of two classes, entry by entry."""

    name: ClassVar[str] = "logistic"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.25

    def value(self, Z, Y):
        return jnp.sum(jax.nn.softplus(-Y * Z))

    def gradient(self, Z, Y):
        return -Y * jax.nn.sigmoid(-Y * Z)

    def second_derivative(self, Z, Y):
        margins = Y * Z
        return jax.nn.sigmoid(margins) * jax.nn.sigmoid(-margins)

    def prox(self, Z, Y, step):
        return Y * _logistic_prox(jnp.asarray(Y * Z), step)

    def conjugate(self, R, Y):
        chance = -Y * R
        inside = jnp.all((chance >= 0) & (chance <= 1))
        chance = jnp.clip(chance, 0, 1)
        return jnp.where(
            inside, jnp.sum(xlogy(chance, chance) + xlog1py(1 - chance, -chance)), jnp.inf
        )

    def _dual_value_below(self, R, Y, scale):
        if not _margins_inside(R, Y, scale):
            return -math.inf
        return bounds.binary_entropy_below(-Y * R, scale)


class SoftmaxCrossEntropy(AbstractLoss):
    """-sum_ik y_ik log softmax(z_i)_k for rows y_i of nonnegative weights that sum to one.

    One-hot rows are class labels, others soft labels. Rounding makes rows sum to almost one; the loss
    is then what this formula says, and all methods are those of the row's own sum.
    """

    name: ClassVar[str] = "softmax"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 0.5

    def value(self, Z, Y):
        return -jnp.sum(Y * jax.nn.log_softmax(Z, axis=1))

    def gradient(self, Z, Y):
        return _row_sums(Y) * jax.nn.softmax(Z, axis=1) - Y

    def hessian(self, Z, Y):
        chances = jax.nn.softmax(Z, axis=1)
        blocks = _diagonal_blocks(chances) - chances[:, :, None] * chances[:, None, :]
        return _row_sums(Y)[:, :, None] * blocks

    def prox(self, Z, Y, step):
        # Minimal where W + step * total * softmax(W) = Z + step * Y.
        return _softmax_prox(jnp.asarray(Z + step * Y), step * _row_sums(Y))

    def conjugate(self, R, Y):
        weights, totals = jnp.asarray(R + Y), _row_sums(Y)
        tolerance = DOMAIN_ROUNDING * weights.shape[1] * jnp.finfo(weights.dtype).eps
        inside = jnp.all(weights >= -tolerance) & jnp.all(jnp.abs(_row_sums(R)) <= tolerance)
        weights = jnp.maximum(weights, 0)
        return jnp.where(inside, jnp.sum(xlogy(weights, weights / totals)), jnp.inf)

    def minimum(self, Y):
        return -jnp.sum(xlogy(Y, Y / _row_sums(Y)))

    def _dual_value_below(self, R, Y, scale):
        return bounds.simplex_entropy_below(R, Y, scale)

    def _perturbation(self, R, Y):
        sums = np.abs(bounds.exact_row_sums(R))
        rounded_up = np.where(sums > 0, np.nextafter(sums, np.inf), sums)
        return np.where(np.isnan(sums), np.inf, rounded_up)

    def _into_domain(self, R, Y):
        return bounds.onto_simplex(R + Y, np.sum(Y, axis=1, keepdims=True)) - Y

    def check_targets(self, Y):
        weights = _target_matrix(self, Y)
        _require_rows(self, weights, np.all(weights >= 0, axis=1), "nonnegative weights")
        sums_to_one = np.abs(np.sum(weights, axis=1) - 1) <= ROW_SUM_TOLERANCE
        _require_rows(self, weights, sums_to_one, "weights that sum to one")

    def encode_targets(self, labels, classes: int | None = None):
        """One-hot rows from labels 0, 1, ..., classes - 1 (n,); rows of weights (n, c) pass through.

        Without `classes` the largest label is the last class.
        """
        array = _real_array(self, labels)
        if array.ndim != 1:
            self.check_targets(labels)
            return array
        if np.any(array < 0) or np.any(array != np.round(array)):
            raise ValueError(
                f"The softmax loss takes class labels 0, 1, 2, ... of shape (n,); got {array}."
            )
        count = int(np.max(array)) + 1 if classes is None else classes
        if np.max(array) >= count:
            raise ValueError(
                f"`classes` = {classes} is too small: the labels go up to {int(np.max(array))}."
            )
        return np.eye(count)[array.astype(int)]


class Hinge(AbstractMarginLoss):
    """sum max(0, 1 - y z) for labels y = +-1."""

    name: ClassVar[str] = "hinge"
    smooth: ClassVar[bool] = False
    curvature: ClassVar[float] = math.inf

    def value(self, Z, Y):
        return jnp.sum(jnp.maximum(0, 1 - Y * Z))

    def gradient(self, Z, Y):
        return jnp.where(Y * Z < 1, -Y, jnp.zeros_like(Z))

    def second_derivative(self, Z, Y):
        return jnp.zeros_like(Y * Z)

    def prox(self, Z, Y, step):
        return Z + Y * jnp.clip(1 - Y * Z, 0, step)

    def conjugate(self, R, Y):
        margins = Y * R
        inside = jnp.all((margins <= 0) & (margins >= -1))
        return jnp.where(inside, jnp.sum(margins), jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        return Y, 0.0, (np.minimum(-Y, 0), np.maximum(-Y, 0))

    def _dual_value_below(self, R, Y, scale):
        return bounds.linear_below(R, Y, scale) if _margins_inside(R, Y, scale) else -math.inf


class Huber(AbstractRegressionLoss):
    """sum h(z - y), h(e) = e^2 / 2 where |e| <= `delta`, delta |e| - delta^2 / 2 elsewhere."""

    name: ClassVar[str] = "huber"
    smooth: ClassVar[bool] = True
    curvature: ClassVar[float] = 1.0
    delta: float = 1.0

    def __check_init__(self):
        if isinstance(self.delta, float | int) and not 0 < self.delta < math.inf:
            raise ValueError(f"Huber: `delta` must be positive and finite; got {self.delta}.")

    def value(self, Z, Y):
        size = jnp.abs(Z - Y)
        near = jnp.minimum(size, self.delta)
        return jnp.sum(near * (size - near / 2))

    def gradient(self, Z, Y):
        return jnp.clip(Z - Y, -self.delta, self.delta)

    def second_derivative(self, Z, Y):
        error = jnp.asarray(Z - Y)
        return jnp.where(jnp.abs(error) <= self.delta, jnp.ones_like(error), jnp.zeros_like(error))

    def prox(self, Z, Y, step):
        return Z - step * jnp.clip((Z - Y) / (1 + step), -self.delta, self.delta)

    def conjugate(self, R, Y):
        inside = jnp.all(jnp.abs(R) <= self.delta)
        return jnp.where(inside, jnp.sum(R * Y) + jnp.sum(jnp.square(R)) / 2, jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        limit = np.full(Y.shape, float(self.delta))
        return Y, 1.0, (-limit, limit)

    def _dual_value_below(self, R, Y, scale):
        inside = bounds.at_most(scale, np.abs(R), float(self.delta))
        return bounds.quadratic_below(R, Y, scale) if inside else -math.inf

    def _into_domain(self, R, Y):
        return np.clip(R, -float(self.delta), float(self.delta))


class Absolute(AbstractRegressionLoss):
    """sum |z - y|."""

    name: ClassVar[str] = "absolute"
    smooth: ClassVar[bool] = False
    curvature: ClassVar[float] = math.inf

    def value(self, Z, Y):
        return jnp.sum(jnp.abs(Z - Y))

    def gradient(self, Z, Y):
        return jnp.sign(Z - Y)

    def second_derivative(self, Z, Y):
        return jnp.zeros_like(Z - Y)

    def prox(self, Z, Y, step):
        return Z - jnp.clip(Z - Y, -step, step)

    def conjugate(self, R, Y):
        return jnp.where(jnp.all(jnp.abs(R) <= 1), jnp.sum(R * Y), jnp.inf)

    def quadratic_conjugate(self, Y: Matrix) -> QuadraticConjugate:
        """Off its box the conjugate is infinite."""
        return Y, 0.0, (-np.ones(Y.shape), np.ones(Y.shape))

    def _dual_value_below(self, R, Y, scale):
        inside = bounds.at_most(scale, np.abs(R), 1.0)
        return bounds.linear_below(R, Y, scale) if inside else -math.inf

    def _into_domain(self, R, Y):
        return np.clip(R, -1, 1)


LOSSES = {
    loss.name: loss for loss in (Squared, Logistic, SoftmaxCrossEntropy, Hinge, Huber, Absolute)
}


def loss_named(name: str) -> AbstractLoss:
    """The loss of that `name`, with its default settings.

    **Raises** a `ValueError` that lists the names, for any other.
    """
    if name not in LOSSES:
        raise ValueError(f"There is no loss {name!r}; the losses are {', '.join(LOSSES)}.")
    return LOSSES[name]()


# --- JAX ------------------------------------------------------------------------------------------


def _diagonal_blocks(diagonals: Float[Array, "n c"]) -> Float[Array, "n c c"]:
    return diagonals[:, :, None] * jnp.eye(diagonals.shape[1], dtype=diagonals.dtype)


def _row_sums(weights: Any) -> Float[Array, "n 1"]:
    return jnp.sum(weights, axis=1, keepdims=True)


def _logistic_prox(points: Float[Array, "n c"], step: Any) -> Float[Array, "n c"]:
    """The root m of m - a = step / (1 + exp(m)) for each of the `points` a.

    m -> -m, a -> -a - step maps the equation to itself, so only roots m >= 0 are sought. There
    m - step / (1 + exp(m)) is concave: Newton's method from below ascends to the root, and one
    step from anywhere, cut off at 0, leads below.
    """
    mirrored = points < -step / 2
    points = jnp.where(mirrored, -points - step, points)
    # Without the 1 the root is a + omega(log step - a), which is too large.
    start = points + _wright_omega(jnp.log(step) - points)

    def newton(_, root):
        chance = jax.nn.sigmoid(-root)
        slope = 1 + step * chance * (1 - chance)
        return jnp.maximum(root - (root - points - step * chance) / slope, 0)

    root = jax.lax.fori_loop(0, LOGISTIC_STEPS, newton, jnp.maximum(start, 0))
    return jnp.where(mirrored, -root, root)


def _softmax_prox(points: Float[Array, "n c"], steps: Float[Array, "n 1"]) -> Float[Array, "n c"]:
    """The rows w with w + step * softmax(w) = b for the rows b of `points`.

    With v = logsumexp(w), step * softmax(w)_k = omega(b_k - v + log step), Wright's function: omega +
    log omega = its argument. That these sum to step is one equation in v; its left side is convex
    and decreasing, so Newton's method ascends to the root from any start below.
    """
    mean = jnp.mean(points, axis=1, keepdims=True)
    count = points.shape[1]
    start = jnp.maximum(
        logsumexp(points, axis=1, keepdims=True) - steps, mean - steps / count + math.log(count)
    )

    def parts(level):
        return _wright_omega(points - level + jnp.log(steps))

    def newton(_, level):
        omega = parts(level)
        return level + (_row_sums(omega) - steps) / _row_sums(omega / (1 + omega))

    return points - parts(jax.lax.fori_loop(0, SOFTMAX_STEPS, newton, start))


def _wright_omega(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """omega > 0 with omega + log omega = x: Newton's method for log omega, from above, convex."""
    start = jnp.where(x > 1, jnp.log(jnp.maximum(x, 1)), jnp.minimum(x, 0))

    def newton(_, log):
        omega = jnp.exp(log)
        return log - (omega + log - x) / (1 + omega)

    log = jax.lax.fori_loop(0, OMEGA_STEPS, newton, start)
    return jnp.where(x > 1, x - log, jnp.exp(log))


# --- On the host ----------------------------------------------------------------------------------


def _margins_inside(residual: Matrix, labels: Matrix, scale: float) -> bool:
    """Whether 0 <= -scale y r <= 1 for all entries, exactly."""
    chances = -labels * residual
    return bounds.at_most(scale, chances, 1.0) and bounds.at_most(scale, -chances, 0.0)


def _checked_pair(loss: AbstractLoss, residual: Any, targets: Any) -> tuple[Matrix, Matrix]:
    loss.check_targets(targets)
    residual, targets = np.asarray(residual, np.float64), np.asarray(targets, np.float64)
    if residual.shape != targets.shape:
        raise ValueError(
            f"R and Y must have the same shape; they have {residual.shape} and {targets.shape}."
        )
    return residual, targets


def _finite_pair(loss: AbstractLoss, residual: Any, targets: Any) -> tuple[Matrix, Matrix]:
    residual, targets = _checked_pair(loss, residual, targets)
    if not np.all(np.isfinite(residual)):
        raise ValueError("R must be finite; it holds NaN or infinite entries.")
    return residual, targets


def _real_array(loss: AbstractLoss, values: Any) -> Matrix:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"The targets of the {loss.name} loss: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"The targets of the {loss.name} loss must be real numbers; their dtype is {array.dtype}."
        )
    array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"The targets of the {loss.name} loss are empty: shape {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"The targets of the {loss.name} loss must be finite.")
    return array


def _target_matrix(loss: AbstractLoss, targets: Any) -> Matrix:
    array = _real_array(loss, targets)
    if array.ndim != 2:
        raise ValueError(
            f"The targets of the {loss.name} loss must have shape (n, c); "
            f"their shape is {array.shape}."
        )
    return array


def _column(array: Matrix) -> Matrix:
    return array[:, None] if array.ndim == 1 else array


def _require_rows(loss: AbstractLoss, targets: Matrix, holds: NDArray[np.bool_], expected: str):
    bad = np.flatnonzero(~holds)
    if bad.size:
        raise ValueError(
            f"The {loss.name} loss takes rows of {expected}; row {bad[0]} is {targets[bad[0]]} "
            f"({bad.size} of {len(targets)} rows do not fit)."
        )
