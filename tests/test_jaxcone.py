"""The conic solver on dense programs with optima known by construction."""

from fractions import Fraction

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxcone
from jaxcone import AbstractConeProgram, Scaling, Splitting, Status, after, anderson, verified


class Same(Scaling):
    def scale(self, s, y):
        return s, y

    def unscale(self, x, s, y):
        return x, s, y


class Dense(AbstractConeProgram):
    """Dense P, c, A, b; s = (nonnegative vector, PSD matrix), the rows of A stacked in that order."""

    P: jax.Array
    c: jax.Array
    A: jax.Array
    b: jax.Array
    linear_rows: int = eqx.field(static=True)
    side: int = eqx.field(static=True)

    def split(self, rows):
        return rows[: self.linear_rows], rows[self.linear_rows :].reshape(self.side, self.side)

    def join(self, s):
        return jnp.concatenate([s[0], s[1].reshape(-1)])

    def quadratic(self, x):
        return self.P @ x

    def linear(self):
        return self.c

    def operator(self, x):
        return self.split(self.A @ x)

    def adjoint(self, y):
        return self.A.T @ self.join(y)

    def offset(self):
        return self.split(self.b)

    def project(self, s):
        return jaxcone.project_nonnegative(s[0]), jaxcone.project_psd(s[1])

    def factor(self):
        return self.P, self.A.T @ self.A

    def minimize(self, factor, penalty, target):
        P, gram = factor
        system = after(P + penalty * gram, target)
        return jnp.linalg.solve(system, penalty * self.A.T @ self.join(target) - self.c)

    def tangent_factor(self):
        return ()

    def tangent(self, factor, gradient):
        return gradient

    def initial(self):
        return jax.tree.map(jnp.zeros_like, (self.offset(), self.offset()))

    def equilibrate(self):
        return self, Same()


def known(seed, size=5, linear_rows=6, side=3, dtype=np.float64):
    """(program, x, y): draw z, split it into y in K* and s in K, and choose b and c to fit."""
    draw = np.random.default_rng(seed).standard_normal
    symmetric = draw((side, side))
    symmetric = symmetric + symmetric.T
    values, vectors = np.linalg.eigh(symmetric)
    y = np.concatenate(
        [np.maximum(z := draw(linear_rows), 0), ((vectors * values.clip(0)) @ vectors.T).ravel()]
    )
    s = y - np.concatenate([z, symmetric.ravel()])
    A, x, root = draw((linear_rows + side * side, size)), draw(size), draw((size, size))
    for column in A.T:  # rows of the PSD block must be symmetric matrices
        block = column[linear_rows:].reshape(side, side)
        column[linear_rows:] = ((block + block.T) / 2).ravel()
    P = root @ root.T
    arrays = (jnp.asarray(a, dtype) for a in (P, -P @ x - A.T @ y, A, A @ x + s))
    return Dense(*arrays, linear_rows, side), x, y


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [{}, {"memory": 0}, {"relaxation": 1.0}, {"penalty": 0.3}])
def test_reaches_the_optimum_known_by_construction(seed, settings):
    program, x, _ = known(seed)
    found = jax.jit(lambda: jaxcone.solve(program, Splitting(tolerance=1e-9, **settings)))()
    assert found.status == Status.solved
    np.testing.assert_allclose(found.x, x, atol=1e-6)
    P, c, A, b = (np.asarray(a) for a in (program.P, program.c, program.A, program.b))
    returned = np.asarray(found.x)
    primal = np.linalg.norm(A @ returned + np.asarray(program.join(found.s)) - b)
    dual = np.linalg.norm(P @ returned + c + A.T @ np.asarray(program.join(found.y)))
    np.testing.assert_allclose(found.residuals.primal, primal, atol=1e-11)
    np.testing.assert_allclose(found.residuals.dual, dual, atol=1e-11)
    np.testing.assert_allclose(found.primal_objective, returned @ P @ returned / 2 + c @ returned)
    for point in (found.s, found.y):
        assert np.min(point[0]) >= 0  # exactly
        assert np.linalg.eigvalsh(point[1])[0] >= -1e-10


def test_the_status_describes_the_returned_point():
    program, _, _ = known(0)
    short = jaxcone.solve(program, Splitting(tolerance=1e-12, max_steps=50, memory=0))
    assert short.status == Status.max_steps and int(short.steps) == 50
    near = Splitting(tolerance=float(short.residuals.worst) / 50, max_steps=50, memory=0)
    assert jaxcone.solve(program, near).status == Status.inaccurate
    # The last allowed block reaches the tolerance: that is solved, not out of steps.
    full = jaxcone.solve(program, Splitting(tolerance=1e-6, memory=0))
    last = Splitting(tolerance=1e-6, max_steps=int(full.steps), memory=0)
    assert int(full.steps) > 50 and jaxcone.solve(program, last).status == Status.solved
    broken = eqx.tree_at(lambda p: p.b, program, program.b.at[2].set(jnp.nan))
    found = jaxcone.solve(broken)
    assert found.status == Status.nonfinite and int(found.steps) <= 50


def test_a_bad_lane_leaves_its_neighbours_alone():
    programs = [known(seed)[0] for seed in (0, 1, 2)]
    programs[1] = eqx.tree_at(lambda p: p.c, programs[1], programs[1].c.at[0].set(jnp.nan))
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *programs)
    solve = jax.jit(jax.vmap(lambda p: jaxcone.solve(p, Splitting(tolerance=1e-9))))
    together = solve(batch)
    clean = eqx.tree_at(lambda p: p.c, batch, batch.c.at[1].set(0.5))
    without = solve(clean)
    np.testing.assert_array_equal(together.status == Status.nonfinite, [False, True, False])
    np.testing.assert_array_equal(together.status == Status.solved, [True, False, True])
    assert int(together.steps[1]) == 50
    for lane in (0, 2):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda a, i=lane: a[i], (together.x, together.s, together.y)),
            jax.tree.map(lambda a, i=lane: a[i], (without.x, without.s, without.y)),
        )
        alone = jaxcone.solve(programs[lane], Splitting(tolerance=1e-9))
        np.testing.assert_allclose(together.x[lane], alone.x, atol=1e-8)


def test_one_compilation_serves_all_numbers():
    program, _, _ = known(0)

    @jax.jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def solve(program, tolerance, penalty, max_steps):
        solver = Splitting(tolerance=tolerance, penalty=penalty, max_steps=max_steps)
        return jaxcone.solve(program, solver).x

    solve(program, 1e-6, 1.0, 1000)
    solve(known(1)[0], 1e-8, 2.0, 500)


def test_warm_start_and_resume():
    program, _, _ = known(3)
    solver = Splitting(tolerance=1e-9, memory=0)
    cold = jaxcone.solve(program, solver)
    warm = jaxcone.solve(program, solver, warm_start=cold)
    assert int(warm.steps) < int(cold.steps)
    spoiled = jax.tree.map(lambda a: a * jnp.nan, (cold.s, cold.y))
    chex.assert_trees_all_equal(jaxcone.solve(program, solver, warm_start=spoiled).x, cold.x)
    # The host's chunks make the same iterates, also when they are stopped and resumed.
    part = jaxcone.solve_in_chunks(program, solver, blocks_per_chunk=1, watch=lambda _: True)
    assert part.status == Status.running and int(part.steps) == 50
    rest = jaxcone.solve_in_chunks(program, solver, state=part.state, blocks_per_chunk=2)
    whole = jaxcone.solve_in_chunks(program, solver, blocks_per_chunk=3)
    chex.assert_trees_all_equal((rest.x, rest.s, rest.y), (whole.x, whole.s, whole.y))
    np.testing.assert_allclose(whole.x, cold.x, atol=1e-10)
    # What ended by its step limit goes on with a higher one.
    ended = jaxcone.advance(program, Splitting(tolerance=1e-9, max_steps=50, memory=0))
    assert int(jaxcone.advance(program, solver, ended, blocks=1).steps) == 100


def test_interrupt_returns_the_solution_so_far():
    def stop(_):
        raise KeyboardInterrupt

    found = jaxcone.solve_in_chunks(
        known(0)[0], Splitting(tolerance=1e-12, memory=0), blocks_per_chunk=1, watch=stop
    )
    assert found.status == Status.running and int(found.steps) == 50


def test_a_path_in_scan():
    program, _, _ = known(0)

    def step(carry, shift):
        shifted = eqx.tree_at(lambda p: p.b, program, program.b + shift)
        found = jaxcone.solve(shifted, Splitting(tolerance=1e-8), warm_start=carry)
        return (found.s, found.y), (found.x, found.status)

    _, (xs, status) = jax.lax.scan(step, program.initial(), jnp.linspace(0, 0.1, 4))
    assert jnp.all(status == Status.solved)
    last = eqx.tree_at(lambda p: p.b, program, program.b + 0.1)
    np.testing.assert_allclose(xs[-1], jaxcone.solve(last).x, atol=1e-4)


def test_float32_stays_float32():
    program, x, _ = known(0, dtype=np.float32)
    found = jaxcone.solve(program)
    assert found.x.dtype == jnp.float32 and found.status == Status.solved
    np.testing.assert_allclose(found.x, x, atol=0.05)


@pytest.mark.parametrize(
    "name, value",
    [
        ("tolerance", 0.0),
        ("tolerance", float("nan")),
        ("max_steps", 0),
        ("check_every", 0),
        ("relaxation", 2.0),
        ("relaxation", float("nan")),
        ("memory", -1),
        ("penalty", float("inf")),
        ("penalty", -1.0),
    ],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Splitting(**{name: value})


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_project_psd(rng, scale):
    A = scale * rng.standard_normal((6, 6))
    A = A + A.T
    P = np.asarray(jaxcone.project_psd(jnp.asarray(A)))
    assert np.linalg.eigvalsh(P)[0] >= -1e-12 * scale
    np.testing.assert_allclose(jaxcone.project_psd(jnp.asarray(P)), P, atol=1e-12 * scale)
    Q = P - A  # Moreau: the other part is PSD and orthogonal
    assert np.linalg.eigvalsh(Q)[0] >= -1e-12 * scale
    assert abs(np.sum(P * Q)) <= 1e-10 * scale**2
    lopsided = np.triu(2 * A) - np.diag(A.diagonal())  # the same symmetric part
    np.testing.assert_array_equal(P, jaxcone.project_psd(jnp.asarray(lopsided)))


@pytest.mark.parametrize(
    "matrix",
    [np.eye(3), np.zeros((3, 3)), -np.eye(3), np.diag([1.0, 1, -1]), np.ones((3, 3))],
    ids=["I", "0", "-I", "signs", "rank one"],
)
def test_project_psd_has_finite_derivatives_everywhere(rng, matrix):
    matrix = jnp.asarray(matrix)
    directions = jnp.asarray(rng.standard_normal((2, 3, 3)))
    along, back = directions
    _, pushed = jax.jvp(jaxcone.project_psd, (matrix,), (along,))
    (pulled,) = jax.vjp(jaxcone.project_psd, matrix)[1](back)
    assert np.all(np.isfinite(pushed)) and np.all(np.isfinite(pulled))
    np.testing.assert_allclose(jnp.sum(pushed * back), jnp.sum(along * pulled), atol=1e-12)


def test_project_psd_derivative_against_differences(rng):
    for _ in range(5):
        A, H = rng.standard_normal((2, 5, 5))
        A, H, step = A + A.T, H + H.T, 1e-6
        _, slope = jax.jvp(jaxcone.project_psd, (jnp.asarray(A),), (jnp.asarray(H),))
        ahead, behind = (jaxcone.project_psd(jnp.asarray(A + t * H)) for t in (step, -step))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=1e-7)


def anderson_reference(apply, point, memory, steps):
    """Type II, unregularised, by least squares on all differences kept."""
    points, images = [], []
    for _ in range(steps):
        points, images = [*points[-memory:], point], [*images[-memory:], apply(point)]
        residuals = np.array(images) - np.array(points)
        point = images[-1]
        if len(points) > 1:
            weights = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=None)[0]
            point = images[-1] - weights @ np.diff(images, axis=0)
    return point


@pytest.mark.parametrize("memory, steps", [(3, 2), (3, 3), (3, 9), (8, 5)])
def test_anderson_agrees_with_least_squares(rng, memory, steps):
    root = rng.standard_normal((6, 6))
    contraction = 0.9 * root @ root.T / np.linalg.norm(root @ root.T, 2)
    shift = rng.standard_normal(6)
    point = jnp.zeros(6)
    state = anderson.start(point, memory)
    for _ in range(steps):
        image = jnp.asarray(contraction @ np.asarray(point) + shift)
        point, state = anderson.accelerate(state, point, image, regularization=0.0, growth=1e9)
    wanted = anderson_reference(lambda u: contraction @ u + shift, np.zeros(6), memory, steps)
    np.testing.assert_allclose(point, wanted, rtol=1e-5)


def test_anderson_throws_a_bad_point_away():
    state = anderson.start(jnp.zeros(3), 2)
    image = jnp.array([1.0, 0.5, 0.25])
    point, state = anderson.accelerate(state, jnp.zeros(3), image, regularization=0.0, growth=2.0)
    for bad in (jnp.full(3, jnp.nan), image + 100.0):
        back, after = anderson.accelerate(state, image, bad, regularization=0.0, growth=2.0)
        np.testing.assert_array_equal(back, image)
        assert int(after.rejected) == 1 and int(after.filled) == 0
        assert np.all(np.isfinite(after.gram))


def test_davis_yin_solves_nonnegative_least_squares(rng):
    A, b = rng.standard_normal((8, 4)), rng.standard_normal(8)
    step = 1 / np.linalg.norm(A, 2) ** 2
    found = jaxcone.davis_yin(
        jaxcone.project_nonnegative,
        lambda z: jnp.minimum(z, 10.0),
        lambda x: A.T @ (A @ x - b),
        jnp.zeros(4),
        step=step,
        max_steps=20_000,
        tolerance=1e-13,
    )
    np.testing.assert_allclose(found.x, scipy.optimize.nnls(A, b)[0], atol=1e-8)
    assert int(found.steps) < 20_000


def test_davis_yin_first_step_by_hand():
    found = jaxcone.davis_yin(
        lambda z: jnp.maximum(z, 0),
        lambda z: jnp.minimum(z, 1),
        lambda x: x - 3,
        jnp.array([-1.0, 2.0]),
        step=0.5,
        max_steps=1,
    )
    # x = (0, 2), gradient (-3, -1); w = min(2x - z + (1.5, 0.5), 1) = (1, 1); z = z + w - x
    np.testing.assert_array_equal(found.z, [0.0, 1.0])


def exact_is_positive_definite(matrix):
    rows = [[Fraction(float(v)) for v in row] for row in matrix]
    for k in range(len(rows)):
        if rows[k][k] <= 0:
            return False
        for i in range(k + 1, len(rows)):
            ratio = rows[i][k] / rows[k][k]
            rows[i] = [a - ratio * b for a, b in zip(rows[i], rows[k], strict=True)]
    return True


def test_verified_positive_definite_is_never_wrong(rng):
    proven = 0
    for trial in range(300):
        root = rng.standard_normal((5, 5 if trial % 3 else 4))
        matrix = root @ root.T - 10.0 ** rng.uniform(-17, 0) * np.eye(5) * (trial % 2)
        matrix = matrix * np.outer(scale := 10.0 ** rng.uniform(-4, 4, 5), scale)
        matrix = (matrix + matrix.T) / 2
        claim = verified.is_positive_definite(matrix, np.zeros((5, 5)))
        assert not claim or exact_is_positive_definite(matrix)
        proven += claim
    assert proven > 50
    assert not verified.is_positive_definite(np.eye(3), np.full((3, 3), 0.4))
    assert verified.is_positive_definite(np.eye(3), np.full((3, 3), 0.3))
    assert not verified.is_positive_definite(np.full((2, 2), np.nan), np.zeros((2, 2)))


def test_verified_sums_bracket_the_exact_value(rng):
    for _ in range(100):
        left, right = rng.standard_normal((2, 30)) * 10.0 ** rng.integers(-30, 30, (2, 30))
        left[15:], right[15:] = -left[:15], right[:15] * (1 + 1e-15)
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(left, right, strict=True))
        low, high = verified.dot_interval(left, right)
        assert Fraction(low) <= exact <= Fraction(high)
        assert high - low <= 1e-14 * abs(float(exact)) + 1e-290


def test_verified_product_error_covers_the_rounding(rng):
    A, B = rng.standard_normal((2, 4, 4))
    bound = verified.product_error(A, B)
    for i, j in np.ndindex(4, 4):
        exact = sum(Fraction(A[i, k]) * Fraction(B[k, j]) for k in range(4))
        assert abs(Fraction((A @ B)[i, j]) - exact) <= Fraction(bound[i, j])
