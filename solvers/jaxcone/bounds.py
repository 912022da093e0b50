"""A rigorous lower bound on a program's optimal value from any dual point, on the host.

The recipe is VSDP's (Jansson, Chaykin and Keil, 2007) for the standard form: for y in K* and any
point z, convexity gives at every feasible x

    1/2 x'P x + c'x  >=  -b'y - 1/2 z'P z + (P z + c + A'y)'x,

and what the last term takes is known if x is known to lie in a box or a ball. A poor y makes the
bound weak, never wrong: rounding is accounted for, and y is moved into K* with a proof.
"""

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from . import verified
from .cone_program import ConeProgram
from .operators import Matrix


def safe_dual_bound(program: ConeProgram, y: Any, *, x_bound: Any, z: Any = None) -> float:
    """A float that is at most the optimal value, whatever `y` and `z` are.

    **Arguments:**

    - `program`: with dense data. Its entries, as float64, count as exact, and P as convex.
    - `y`: shape `(m,)`, any numbers; the dual point of a `Solution` gives a tight bound.
    - `x_bound`: a number r >= 0 such that some optimal x has ||x||_2 <= r, or shape `(n,)` with
      |x_i| <= x_bound_i. Where it is infinite nothing is proven.
    - `z`: shape `(n,)`, near the optimal x, needed for programs with P; zero by default.

    **Returns** the bound, rounded down; -inf if nothing is proven.

    **Raises** a `ValueError` for traced or not finite input, other shapes, a negative or NaN bound,
    and programs whose data are not dense.
    """
    if not program.dense:
        raise ValueError("program: expected dense A and P; a structured map has no exact entries.")
    A, c, b = (_exact("program", part) for part in (program.A.entries, program.c, program.b))  # pyright: ignore[reportAttributeAccessIssue]
    y = _exact("y", y, b.shape)
    z = np.zeros_like(c) if z is None else _exact("z", z, c.shape)
    size = _box(x_bound, c.shape)
    with np.errstate(over="ignore", invalid="ignore"):
        bound = _bound(program, A, c, b, y, z, size)
    return -math.inf if math.isnan(bound) else bound


def _bound(program, A, c, b, y, z, size) -> float:
    y = np.concatenate([np.zeros(0), *_into_dual(program, y)])
    if not np.all(np.isfinite(y)):
        return -math.inf

    residual, error = c + A.T @ y, verified.product_error(A.T, y[:, None])[:, 0]
    quadratic = 0.0
    if isinstance(program.P, Matrix):
        P = _exact("program", program.P.entries)
        P = (P + P.T) / 2
        curved, curved_error = P @ z, verified.product_error(P, z[:, None])[:, 0]
        residual, error = (
            residual + curved,
            error + curved_error + 4 * verified.UNIT * np.abs(curved),
        )
        _, quadratic = verified.dot_interval(z, curved)
        quadratic += float(np.abs(z) @ (curved_error + 2 * verified.UNIT * np.abs(curved)))
        quadratic = (
            verified.above(quadratic * (1 + verified.UNIT * 4)) if quadratic > 0 else quadratic
        )
    error = (
        error + 8 * verified.UNIT * (np.abs(c) + np.abs(residual) + error)
    ) * verified.INFLATION
    loss = _largest_product(np.abs(residual) + error, size)
    _, inner = verified.dot_interval(b, y)
    return verified.below(verified.below(-inner - loss) - quadratic / 2)


def _largest_product(residual: np.ndarray, size: np.ndarray) -> float:
    """An upper bound on residual'|x| over the ball (one number) or the box."""
    if size.ndim == 0:
        return float(verified.vector_norm_bound(residual)) * float(size) * verified.INFLATION
    return float(np.sum(residual * size)) * verified.INFLATION


def _into_dual(program: ConeProgram, y: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum([cone.rows for cone in program.cones.cones])[:-1]
    blocks = np.split(y, ends) if program.cones.cones else []
    return [c.into_dual(block) for c, block in zip(program.cones.cones, blocks, strict=True)]


def _box(x_bound: Any, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(x_bound, Tracer):
        raise ValueError(
            "x_bound: bounds are computed on the host; call this outside jit and vmap."
        )
    size = np.asarray(x_bound, np.float64)
    if size.shape not in ((), shape):
        raise ValueError(f"x_bound: expected a number or shape {shape}, got shape {size.shape}.")
    if not np.all(size >= 0):
        raise ValueError("x_bound: expected numbers >= 0, got a negative one or NaN.")
    return size


def _exact(name: str, value: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name}: bounds are computed on the host; call this outside jit and vmap."
        )
    array = np.asarray(value, np.float64)
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}.")
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name}: all entries must be finite.")
    return array
