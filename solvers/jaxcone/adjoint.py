"""Derivatives of solutions with respect to the program's data, by the implicit function theorem.

With v = y - s, so that s = proj_K(-v) and y = v + s, a solution is a zero of

    F(x, v) = (P x + c + A* y,  A x + s - b)

(Busseti, Moursi and Boyd, 2019, without their homogenisation). A change of the data moves the zero by
the solution of F' (dx, dv) = -dF. At degenerate points (no strict complementarity, or more than one
solution) F' is singular or not defined; then the projections' documented element of the generalised
Jacobian stands for it, and the answer is that of least norm among the best ones, in equilibrated
units. So derivatives are finite wherever the solution is.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .program import AbstractConeProgram
from .pytrees import combine, inner, matmul, subtract

Triple = tuple[PyTree, PyTree, PyTree]

# Up to this many unknowns F' is built as a matrix; beyond, conjugate gradients on F'*F' see it act.
# Those are not equilibrated: on badly scaled data check the residual that `adjoint` reports.
LARGEST_DENSE = 4000


@eqx.filter_custom_jvp
def attach(program: AbstractConeProgram, points: Triple) -> Triple:
    """The points, as a function of the program's data. `points` itself passes no derivative on."""
    del program
    return points


@attach.def_jvp
def _attach_jvp(primals, tangents):
    program, points = primals
    change, _ = tangents
    x, s, y = attach(program, points)  # so that a second derivative sees them move
    v = subtract(y, s)
    _, moved = eqx.filter_jvp(lambda p: _conditions(p, x, v), (program,), (change,))
    # The conditions have the shapes of (x, v). No tangent at all is a zero one.
    right = jax.tree.map(
        lambda leaf, move: jnp.zeros_like(leaf) if move is None else -move,
        (x, v),
        moved,
        is_leaf=lambda node: node is None,
    )
    dx, dv = _solve(program, x, v, right, transpose=False)
    _, (ds, dy) = jax.jvp(lambda w: _read(program, w), (v,), (dv,))
    return (x, s, y), (dx, ds, dy)


@eqx.filter_custom_jvp
def attach_value(program: AbstractConeProgram, points: Triple, value: Array) -> Array:
    """`value`, with the derivative of the optimal value: that of the Lagrangian, no system solved."""
    del program, points
    return value


@attach_value.def_jvp
def _attach_value_jvp(primals, tangents):
    program, points, value = primals
    x, s, y = attach(program, points)
    gradient = _gradient(program, x, y)
    off = subtract(gradient, program.tangent(program.tangent_factor(), gradient))

    def lagrangian(p):
        outside = subtract(x, p.tangent(p.tangent_factor(), x))
        return (
            inner(x, p.quadratic(x)) / 2
            + inner(p.linear(), x)
            + inner(y, subtract(p.operator(x), p.offset()))
            - inner(off, outside)
        )

    _, tangent = eqx.filter_jvp(lagrangian, (program,), (tangents[0],))
    return value, jnp.zeros_like(value) if tangent is None else tangent


def adjoint(
    program: AbstractConeProgram, points: Triple, cotangents: Triple
) -> tuple[AbstractConeProgram, Float[Array, ""]]:
    """The gradient that `jax.vjp` of a solve returns, with the residual of the system behind it.

    **Arguments:** `points` = (x, s, y) of a solution, `cotangents` of the same structure.

    **Returns** a program that holds the gradient in place of its data, and
    ||F'* w - cotangent|| / ||cotangent||: about rounding size where the derivative is unique, up to 1
    where the cotangent asks for a direction in which the solution is not differentiable.
    """
    x, s, y = points
    v = subtract(y, s)
    _, pull = jax.vjp(lambda w: _read(program, w), v)
    right = cotangents[0], pull(cotangents[1:])[0]
    w = _solve(program, x, v, right, transpose=True)
    _, back = jax.vjp(lambda a, b: _conditions(program, a, b), x, v)
    miss = subtract(back(w), right)
    size = inner(right, right)
    residual = jnp.sqrt(inner(miss, miss) / jnp.maximum(size, jnp.finfo(size.dtype).tiny))
    _, pull_program = eqx.filter_vjp(lambda p: _conditions(p, x, v), program)
    (gradient,) = pull_program(jax.tree.map(jnp.negative, w))
    return gradient, residual


def _read(program: AbstractConeProgram, v: PyTree) -> tuple[PyTree, PyTree]:
    """(s, y) from v = y - s."""
    s = program.project(combine(-1, v, 0, v))
    return s, combine(1, v, 1, s)


def _gradient(program: AbstractConeProgram, x: PyTree, y: PyTree) -> PyTree:
    curved = combine(1, program.quadratic(x), 1, program.linear())
    return combine(1, curved, 1, program.adjoint(y))


def _conditions(program: AbstractConeProgram, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
    """F; where x lives in a subspace, its first part holds there, and x = its projection besides."""
    s, y = _read(program, v)
    factor = program.tangent_factor()
    inside = program.tangent(factor, subtract(_gradient(program, x, y), x))
    dual = combine(1, inside, 1, x)
    return dual, subtract(combine(1, program.operator(x), 1, s), program.offset())


def _solve(program: AbstractConeProgram, x, v, right, *, transpose: bool):
    """F' z = right, or F'* z = right, in the regularised least-squares sense."""
    flat_point, unravel = ravel_pytree((x, v))
    flat_right, unravel_right = ravel_pytree(right)

    def conditions(flat):
        return ravel_pytree(_conditions(program, *unravel(flat)))[0]

    if flat_point.size <= LARGEST_DENSE:
        jacobian = jax.jacfwd(conditions)(flat_point)
        found = _least_squares(jacobian.T if transpose else jacobian, flat_right)
    else:
        _, forward = jax.linearize(conditions, flat_point)
        backward = jax.linear_transpose(forward, flat_point)
        maps = (
            (lambda w: backward(w)[0], forward)
            if transpose
            else (forward, lambda w: backward(w)[0])
        )
        found = _normal_equations(*maps, flat_right)
    return unravel(found) if not transpose else unravel_right(found)


def _least_squares(matrix: Float[Array, "k k"], right: Float[Array, " k"]) -> Float[Array, " k"]:
    """min ||M z - right||^2 + e^2 ||z||^2 for a small e, M first equilibrated.

    The augmented system keeps the condition number of M where normal equations would square it, and
    its single factorisation serves all right-hand sides and the transposed system.
    """
    rows, columns = _balance(jnp.abs(matrix))
    scaled = rows[:, None] * matrix * columns
    size = matrix.shape[0]
    e = _regularisation(matrix.dtype)
    identity = e * jnp.eye(size, dtype=matrix.dtype)
    system = jnp.block([[identity, scaled], [scaled.T, -identity]])
    zero = jnp.zeros(size, matrix.dtype)
    target = rows * right

    def correct(z, goal):
        both = jnp.linalg.solve(system, jnp.concatenate([goal, zero]))
        return z + both[size:]

    z = correct(zero, target)
    z = correct(z, target - matmul(scaled, z))  # takes most of the bias of e away
    return columns * z


def _normal_equations(forward, backward, right):
    e = _regularisation(right.dtype)

    def matvec(z):
        return backward(forward(z)) + e**2 * z

    def solve(_, goal):
        return jax.scipy.sparse.linalg.cg(matvec, goal, tol=1e-12, maxiter=4 * goal.size)[0]

    return jax.lax.custom_linear_solve(matvec, backward(right), solve, symmetric=True)


def _regularisation(dtype: Any) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.5


def _balance(size: Float[Array, "k k"]) -> tuple[Array, Array]:
    """Scales of rows and columns that bring the largest entry of each near one."""
    size = jax.lax.stop_gradient(size)

    def factor(largest):
        return jnp.where(largest > 0, largest, 1) ** -0.5

    rows = columns = jnp.ones(size.shape[0], size.dtype)
    for _ in range(3):
        scaled = rows[:, None] * size * columns
        rows = rows * factor(jnp.max(scaled, axis=1, initial=0))
        columns = columns * factor(jnp.max(scaled, axis=0, initial=0))
    return rows, columns
