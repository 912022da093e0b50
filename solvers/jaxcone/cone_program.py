"""The standard form over a product of cones, given by its data.

    min  1/2 x'P x + c'x   s.t.  A x + s = b,  s in K

with SCS's signs and SCS's vectors for PSD blocks (`cones`). P and A are dense arrays or structured
maps; with dense ones the x-update is two products with a matrix that is computed once for all
penalties, with others it is solved by conjugate gradients.
"""

from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from .cones import PSD, AbstractCone, ProductCone
from .operators import AbstractMap, Lineax, Matrix, Pair, norm_estimate, scaled
from .program import AbstractConeProgram, AbstractInteriorForm, Scaling
from .pytrees import after, matmul
from .scalings import Layout

Map = Float[Array, "m n"] | np.ndarray | lx.AbstractLinearOperator


MapOrPair = Map | tuple[Callable[[Any], Any], Callable[[Any], Any]] | AbstractMap


class Diagonalised(eqx.Module):
    """T, w, r with T'P T = I - diag(w), T'(A'A + r I) T = diag(w): one basis for all penalties."""

    basis: Float[Array, "n n"]
    weights: Float[Array, " n"]
    ridge: Float[Array, ""]


class ConeProgram(AbstractConeProgram[Diagonalised | None]):
    """min 1/2 x'P x + c'x subject to A x + s = b, s in K.

    **Arguments:**

    - `P`: None, a symmetric positive semidefinite array of shape `(n, n)`, a lineax operator, or a
      function x -> P x.
    - `c`: shape `(n,)`.
    - `A`: shape `(m, n)`, a lineax operator, or a pair of functions (x -> A x, y -> A'y).
    - `b`: shape `(m,)`.
    - `cones`: `Zero`, `Nonnegative`, `SecondOrder`, `PSD` in the order of the rows.

    Arrays are float32 or float64; the largest of their precisions is used for all. Inside `vmap` and
    `jit` values cannot be looked at: there a NaN shows in the `status` of the solution.

    Raises a `ValueError` that names the argument for entries that are NaN or infinite, integer or
    complex arrays, shapes that do not match, cones whose rows do not add up to m, and a P that is
    not symmetric or not positive semidefinite. (An infinite entry of b is a constraint that is none:
    leave the row out.)
    """

    P: AbstractMap | None
    c: Float[Array, " n"]
    A: AbstractMap
    b: Float[Array, " m"]
    cones: ProductCone

    def __init__(
        self,
        P: MapOrPair | Callable[[Any], Any] | None,
        c: Any,
        A: MapOrPair,
        b: Any,
        cones: AbstractCone | Iterable[AbstractCone] | ProductCone,
    ):
        cones = cones if isinstance(cones, ProductCone) else ProductCone(cones)
        c, b = _vector("c", c), _vector("b", b)
        n, m = c.shape[0], b.shape[0]
        if cones.rows != m:
            raise ValueError(
                f"cones: their rows add up to {cones.rows}, but b has {m} entries: {cones.cones}."
            )
        A, P = _map("A", A, (m, n)), None if P is None else _square(P, n)
        arrays = [leaf for leaf in jax.tree.leaves((P, c, A, b)) if eqx.is_inexact_array(leaf)]
        dtype = jnp.result_type(*arrays)

        def cast(leaf):
            return leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf

        self.P, self.c, self.A, self.b = jax.tree.map(cast, (P, c, A, b))
        self.cones = cones

    @property
    def dense(self) -> bool:
        """Whether A and P are arrays."""
        return isinstance(self.A, Matrix) and isinstance(self.P, Matrix | None)

    def quadratic(self, x):
        return jnp.zeros_like(x) if self.P is None else self.P.apply(x)

    def linear(self):
        return self.c

    def operator(self, x):
        return self.A.apply(x)

    def adjoint(self, y):
        return self.A.adjoint(y)

    def offset(self):
        return self.b

    def project(self, s):
        return self.cones.project(s)

    def factor(self):
        return _diagonalise(self.P, self.A) if self.dense else None

    def minimize(self, factor, penalty, target, guess):
        right = penalty * self.A.adjoint(target) - self.c
        if factor is None:
            return self._conjugate_gradients(penalty, right, guess)
        # The ridge pulls to the last x, so that it is gone where the iteration rests.
        right = right + penalty * factor.ridge * guess
        curvature = (1 - factor.weights) + penalty * factor.weights
        return matmul(factor.basis, matmul(factor.basis.T, right) / curvature)

    def _conjugate_gradients(self, penalty, right, guess):
        # The splitting converges in spite of inexact steps, but Anderson acceleration and the final
        # residuals see every error: so the tolerance is near what the precision allows.
        ridge = penalty * _ridge(right.dtype)
        right = right + ridge * guess

        def matvec(x):
            return self.quadratic(x) + penalty * self.A.adjoint(self.A.apply(x)) + ridge * x

        tolerance = 100 * float(jnp.finfo(right.dtype).eps)
        x, _ = jax.scipy.sparse.linalg.cg(
            matvec, right, x0=guess, tol=tolerance, maxiter=2 * right.shape[0] + 20
        )
        return x

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        zero = jnp.zeros_like(self.b)
        return zero, zero

    def equilibrate(self):
        return _equilibrate(self)

    def interior(self):
        twin, scaling = _equilibrate(self if self.dense else _densified(self))
        return DenseForm(program=twin, scaling=scaling, layout=Layout(self.cones))


def _densified(program: ConeProgram) -> ConeProgram:
    """The same program with its maps written out as matrices."""
    identity = jnp.eye(program.c.shape[0], dtype=program.c.dtype)

    def columns(apply):
        return Matrix(jax.vmap(apply, out_axes=1)(identity))

    P = None if program.P is None else columns(program.quadratic)
    return eqx.tree_at(
        lambda p: (p.P, p.A),
        program,
        (P, columns(program.operator)),
        is_leaf=lambda node: node is None or isinstance(node, AbstractMap),
    )


class DiagonalScaling(Scaling):
    """x = primal E x', s = primal D^-1 s', y = dual D y', with D and E diagonal."""

    rows: Float[Array, " m"]
    columns: Float[Array, " n"]
    primal: Float[Array, ""]
    dual: Float[Array, ""]

    def scale(self, s, y):
        return self.rows * s / self.primal, y / self.rows / self.dual

    def unscale(self, x, s, y):
        return (
            self.primal * self.columns * x,
            self.primal * s / self.rows,
            self.dual * self.rows * y,
        )


# Equalities have to hold exactly, inequalities settle by themselves: a larger penalty on the former.
EQUALITY_WEIGHT = 10.0
RUIZ_ROUNDS = 15
LARGEST_SCALE = 1e4


def _equilibrate(program: ConeProgram) -> tuple[ConeProgram, DiagonalScaling]:
    """Rows and columns of the KKT matrix to size one (Ruiz, 2001), then b and c.

    Rows of one second-order or PSD block share a factor, so that the cones stay what they are.
    """
    dtype = program.c.dtype
    m, n = program.b.shape[0], program.c.shape[0]
    rows, columns = jnp.ones(m, dtype), jnp.ones(n, dtype)
    if program.dense and m and n:
        rows, columns = _ruiz(program)
    elif m and n:
        size = norm_estimate(program.A, n, dtype)
        rows = rows / jnp.where(size > 0, size, 1)
    rows = jnp.where(program.cones.equalities(), EQUALITY_WEIGHT, 1).astype(dtype) * rows
    b, c = rows * program.b, columns * program.c
    primal, dual = _unit(b), _unit(c)
    P = program.P
    if P is not None:
        P = scaled(P, columns * (primal / dual), columns)
    A = scaled(program.A, rows, columns)
    twin = eqx.tree_at(
        lambda p: (p.P, p.c, p.A, p.b),
        program,
        (P, c / dual, A, b / primal),
        is_leaf=lambda node: node is None or isinstance(node, AbstractMap),
    )
    return twin, DiagonalScaling(rows, columns, primal, dual)


def _ruiz(program: ConeProgram) -> tuple[Array, Array]:
    A = jnp.abs(program.A.entries)  # pyright: ignore[reportAttributeAccessIssue]
    P = None if program.P is None else jnp.abs(program.P.entries)  # pyright: ignore
    groups = program.cones.scale_groups()
    count = int(groups.max()) + 1

    def factor(sizes):
        # A row of zeros has nothing to scale.
        return jnp.where(sizes > 0, sizes, 1) ** -0.5

    def round_(_, scales):
        rows, columns = scales
        scaled_A = rows[:, None] * A * columns
        of_rows = jnp.max(scaled_A, axis=1)
        of_groups = jax.ops.segment_max(of_rows, groups, count)
        of_columns = jnp.max(scaled_A, axis=0)
        if P is not None:
            of_columns = jnp.maximum(of_columns, jnp.max(columns[:, None] * P * columns, axis=0))
        rows = rows * factor(of_groups)[groups]
        columns = columns * factor(of_columns)
        low, high = 1 / LARGEST_SCALE, LARGEST_SCALE
        return jnp.clip(rows, low, high), jnp.clip(columns, low, high)

    start = jnp.ones(A.shape[0], A.dtype), jnp.ones(A.shape[1], A.dtype)
    return jax.lax.fori_loop(0, RUIZ_ROUNDS, round_, start)


def _unit(vector: Array) -> Array:
    size = jnp.linalg.norm(vector)
    return jnp.where(size > 0, size, 1)


def _ridge(dtype: Any) -> float:
    """What keeps directions that neither P nor A sees out of the x-update, relative to ||A||."""
    return 10 * float(jnp.finfo(dtype).eps)


def _diagonalise(P: Any, A: Any) -> Diagonalised:
    gram = matmul(A.entries.T, A.entries)
    n = gram.shape[0]
    identity = jnp.eye(n, dtype=gram.dtype)
    total = gram if P is None else gram + P.entries
    ridge = _ridge(gram.dtype) * jnp.trace(total)
    ridge = jnp.where(ridge > 0, ridge, 1)
    root = jnp.linalg.cholesky(total + ridge * identity)
    inverse = jax.scipy.linalg.solve_triangular(root, identity, lower=True)
    if P is None:
        return Diagonalised(inverse.T, jnp.ones(n, gram.dtype), ridge)
    curved = matmul(matmul(inverse, P.entries), inverse.T)
    values, vectors = jnp.linalg.eigh(after((curved + curved.T) / 2, inverse))
    basis = matmul(inverse.T, vectors)
    # A P that is not convex has no minimum here: the NaN becomes the status `nonfinite`. In
    # directions that neither P nor A sees, P is rounding, and the columns of the basis are long.
    eps = float(jnp.finfo(gram.dtype).eps)
    rounding = 100 * eps * jnp.trace(P.entries) * jnp.sum(basis**2, axis=0)
    convex = jnp.all(values >= -(rounding + eps**0.5))
    weights = 1 - jnp.clip(values, 0, 1)
    return Diagonalised(basis, jnp.where(convex, weights, jnp.nan), ridge)


def _vector(name: str, value: Any) -> Array:
    array = _array(name, value)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one axis, got shape {array.shape}.")
    return array


def _map(name: str, value: Any, shape: tuple[int, int]) -> AbstractMap:
    m, n = shape
    if isinstance(value, AbstractMap):
        return value
    if isinstance(value, lx.AbstractLinearOperator):
        found = (value.out_size(), value.in_size())
        if found != shape:
            raise ValueError(f"{name}: expected a map of shape {shape}, got {found}.")
        for leaf in jax.tree.leaves(value):
            if eqx.is_array(leaf):
                _array(name, leaf)
        return Lineax(value)
    if isinstance(value, tuple) and len(value) == 2 and all(callable(f) for f in value):
        dtype = jnp.result_type(float)
        try:
            forward = jax.eval_shape(value[0], jax.ShapeDtypeStruct((n,), dtype))
            backward = jax.eval_shape(value[1], jax.ShapeDtypeStruct((m,), dtype))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: the functions fail on {(n,)} and {(m,)}: {error}") from error
        if (forward.shape, backward.shape) != ((m,), (n,)):
            raise ValueError(
                f"{name}: expected functions onto shapes {(m,)} and {(n,)}, "
                f"got {forward.shape} and {backward.shape}."
            )
        return Pair(*value)
    array = _array(name, value)
    if array.shape != shape:
        raise ValueError(
            f"{name}: expected shape {shape} from the lengths of b and c, got {array.shape}."
        )
    return Matrix(array)


def _square(value: Any, n: int) -> AbstractMap:
    if callable(value) and not isinstance(value, AbstractMap | lx.AbstractLinearOperator):
        return _map("P", (value, value), (n, n))
    mapped = _map("P", value, (n, n))
    if isinstance(mapped, Matrix) and not isinstance(mapped.entries, Tracer) and n:
        entries = np.asarray(mapped.entries, np.float64)
        largest = np.max(np.abs(entries))
        slack = 10 * float(jnp.finfo(mapped.entries.dtype).eps) * largest
        skew = np.max(np.abs(entries - entries.T))
        if skew > n * slack:
            raise ValueError(f"P: expected a symmetric matrix, but |P - P'| is up to {skew:.3g}.")
        least = float(np.linalg.eigvalsh((entries + entries.T) / 2)[0])
        if least < -10 * n * slack:
            raise ValueError(
                f"P: expected a positive semidefinite matrix, but an eigenvalue is {least:.3g}."
            )
    return mapped


def _array(name: str, value: Any) -> Array:
    try:
        array = value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name}: not an array of numbers ({error}).") from error
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected float32 or float64 entries, got {array.dtype}.")
    if not isinstance(array, Tracer) and not np.all(np.isfinite(np.asarray(array))):
        kind = "NaN" if np.any(np.isnan(np.asarray(array))) else "infinite"
        raise ValueError(f"{name}: all entries must be finite, but some are {kind}.")
    return jnp.asarray(array)


class DenseForm(AbstractInteriorForm):
    """A program given by arrays, equilibrated."""

    program: Any  # a ConeProgram with dense P and A
    scaling: Scaling
    layout: Layout

    def linear(self):
        return self.program.c

    def offset(self):
        return self.program.b

    def quadratic(self, x):
        return self.program.quadratic(x)

    def operator(self, x):
        return self.program.operator(x)

    def adjoint(self, y):
        return self.program.adjoint(y)

    def equality_rows(self):
        return self.program.A.entries[self.layout.equalities]

    def normal(self, scaling):
        def column(entries):
            blocks = self.layout.split(entries)
            return self.layout.vectors(
                [w.down(block) for w, block in zip(scaling, blocks, strict=True)], entries.dtype
            )

        scaled = jax.vmap(column, in_axes=1)(self.program.A.entries)
        gram = matmul(scaled, scaled.T)
        return gram if self.program.P is None else gram + self.program.P.entries

    def initial(self):
        return None

    def points(self, x, s, y):
        return self.scaling.unscale(x, s, y)

    def twin(self):
        return self.program, self.scaling

    @property
    def size(self):
        return self.program.c.shape[0]

    def cost(self):
        m, n = self.program.b.shape[0], self.program.c.shape[0]
        cubes = sum(cone.side**3 for cone in self.layout.cones.cones if isinstance(cone, PSD))
        return 3.0 * m * n, 2.0 * m * n**2 + 4.0 * n * cubes
