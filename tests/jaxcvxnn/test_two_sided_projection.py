"""The projection onto the two-sided neural spectrahedron, by what makes it one."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcvxnn.conic import neural_spectrahedron_distance, support_function
from jaxcvxnn.conic.spectrahedron import lorentz_form
from jaxcvxnn.studies import project_two_sided


def test_projection(rng):
    side, bound = 4, 0.7
    drawn = rng.standard_normal((6, side, side))
    # Of a network inside, of one outside, and anything.
    u = rng.standard_normal((2, 3, side - 1))
    p = np.concatenate([u / np.linalg.norm(u, axis=2, keepdims=True), np.ones((2, 3, 1))], axis=2)
    weights = np.array([[0.2, -0.3, 0.1], [2.0, -1.0, 0.5]])
    drawn[:2] = np.einsum("nj,njp,njq->npq", weights, p, p)
    drawn[2] *= 1e-3
    project = jax.jit(jax.vmap(lambda matrix: project_two_sided(matrix, bound)))
    points = project(jnp.asarray(drawn))
    np.testing.assert_allclose(points[0], drawn[0], atol=1e-5)
    form = np.asarray(lorentz_form(side))
    for W, P in zip(drawn, points, strict=True):
        W = (W + W.T) / 2
        rest = W - P
        np.testing.assert_allclose(np.sum(form * P), 0, atol=1e-6)
        # <rest, Q - P> <= 0 for every Q of M(t): the largest <rest, Q> is t times the support function.
        reach = bound * float(support_function(jnp.asarray(rest)))
        assert reach <= np.sum(rest * P) + 1e-5 * (1 + np.linalg.norm(W))
        # +M(t) is a part of it.
        one_sided = float(neural_spectrahedron_distance(jnp.asarray(W), bound))
        assert np.linalg.norm(rest) <= one_sided + 1e-5
    # Of a projection nothing changes.
    np.testing.assert_allclose(project(points), points, atol=1e-5)
    # Minus the matrix has minus the point.
    np.testing.assert_allclose(project(-jnp.asarray(drawn)), -points, atol=1e-5)
