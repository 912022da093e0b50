"""Projection onto the two-sided neural spectrahedron, by a small semidefinite program."""

import jax.numpy as jnp
from jaxtyping import Array, Float, ScalarLike

from jaxcone import PSD, ConeProgram, InteriorPoint, Nonnegative, Zero, smat, solve, svec

from ..conic.spectrahedron import lorentz_form, symmetric_part

STEPS = 60


def project_two_sided(
    matrix: Float[Array, "side side"], bound: ScalarLike
) -> Float[Array, "side side"]:
    """The nearest point of M(t), t = `bound` > 0, in the Frobenius norm: what networks with
    sum_j |w_j| <= t are, as matrices sum_j w_j (u_j, 1)(u_j, 1)'.

    M(t) = {Z - Z' : Z, Z' PSD, tr Z_1 = Z_4, tr Z'_1 = Z'_4, Z_4 + Z'_4 <= t}: Bartan and Pilanci
    (2021), eq. (14). Only the symmetric part of `matrix` counts. Solved in units of t by
    `jaxcone.InteriorPoint`, in float64 to some 1e-6 of t where the point is on the boundary and its
    matrices are not unique, else better. Pure JAX, for `jit` and `vmap`.
    """
    target = symmetric_part(matrix)
    side, dtype = target.shape[0], target.dtype
    bound = jnp.asarray(bound, dtype)
    wanted = svec(target / bound)
    size = wanted.shape[0]
    form = svec(lorentz_form(side, dtype))[None, :]
    corner = svec(jnp.zeros((side, side), dtype).at[-1, -1].set(1))[None, :]
    nothing, identity = jnp.zeros_like(form), jnp.eye(size, dtype=dtype)
    program = ConeProgram(
        jnp.kron(jnp.array([[1, -1], [-1, 1]], dtype), identity),
        jnp.concatenate([-wanted, wanted]),
        jnp.concatenate(
            [
                jnp.concatenate([form, nothing], axis=1),
                jnp.concatenate([nothing, form], axis=1),
                jnp.concatenate([corner, corner], axis=1),
                -jnp.eye(2 * size, dtype=dtype),
            ]
        ),
        jnp.zeros(3 + 2 * size, dtype).at[2].set(1),
        [Zero(2), Nonnegative(1), PSD(side), PSD(side)],
    )
    tolerance = 1e-11 if dtype == jnp.float64 else None
    found = solve(program, InteriorPoint(tolerance=tolerance, max_steps=STEPS)).x
    return bound * smat(found[:size] - found[size:])
