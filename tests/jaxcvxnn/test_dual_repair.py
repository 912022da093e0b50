"""The repaired dual is strictly feasible, whatever multipliers it was made from."""

import cvxpy as cp
import numpy as np
import pytest

from jaxcvxnn import TrainingProblem
from jaxcvxnn.interior.dual_repair import clean_multipliers, repair_dual
from jaxcvxnn.reduction import reduce

from .. import oracles

WEIGHT_DECAY = 0.1


class Case:
    """A random problem on unit samples, with the relaxation's optimum and its dual."""

    def __init__(self, rng, n=5, d=2, c=2):
        X = rng.standard_normal((n, d))
        X /= np.linalg.norm(X, axis=1)[:, None]
        Y = 2 * rng.standard_normal((n, c))
        self.data = reduce(TrainingProblem(X, Y, WEIGHT_DECAY)).data
        relaxed = oracles.lifted_form(X, Y, WEIGHT_DECAY)
        self.optimum = relaxed.solve(cp.CLARABEL)
        self.R, self.N = relaxed.dual_pair()

    def repair(self, N, R=None, **options):
        data = self.data
        return repair_dual(
            data.rows, data.readout, data.targets, WEIGHT_DECAY, data.pairs, N, R, **options
        )

    def slack(self, found):
        """D(N, R) = [[C - V'NV, E'R/2], [R'E/2, wd/2 I]]."""
        rows, readout = self.data.rows, self.data.readout
        corner = np.zeros((rows.shape[1],) * 2)
        index = np.arange(self.data.pairs, len(corner))
        corner[index, index] = WEIGHT_DECAY / 2
        top = corner - rows.T @ found.multipliers @ rows
        side = readout.T @ found.residual / 2
        bottom = WEIGHT_DECAY / 2 * np.eye(side.shape[1])
        return np.block([[top, side], [side.T, bottom]])

    def check(self, found):
        """Strictly feasible, and worth what it says."""
        N, R = found.multipliers, found.residual
        np.testing.assert_array_equal(N, N.T)
        assert N[np.asarray(self.data.nonnegative)].min() >= 0
        assert np.linalg.eigvalsh(self.slack(found))[0] > 0
        value = -np.sum(R * self.data.targets) - np.sum(R**2) / 2
        np.testing.assert_allclose(found.objective, value, rtol=1e-12, atol=1e-12)
        assert R.shape == self.data.targets.shape
        # What is above proves it. Clarabel, which may stop too early, agrees to its accuracy.
        assert found.objective <= self.optimum * (1 + 1e-5)


@pytest.fixture
def case(rng):
    return Case(rng)


def random_multipliers(rng, size):
    N = rng.standard_normal((size, size))
    return {
        "gaussian": N,
        "positive": np.abs(N),
        "negative": -np.abs(N),
        "zero": np.zeros((size, size)),
        "huge": 1e8 * N,
        "tiny": 1e-8 * N,
        "one entry": np.where(np.arange(size * size).reshape(size, size) == 1, 1.0, 0.0),
    }


@pytest.mark.parametrize("kind", random_multipliers(np.random.default_rng(0), 2))
def test_any_multipliers_give_a_feasible_point(case, rng, kind):
    found = case.repair(random_multipliers(rng, 10)[kind])
    assert found is not None
    case.check(found)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 1), (4, 3, 2), (7, 2, 3), (3, 4, 2)])
def test_the_solvers_multipliers_give_nearly_the_optimum(rng, shape):
    case = Case(rng, *shape)
    found = case.repair(case.N)
    assert found is not None
    case.check(found)
    assert found.objective >= 0.99 * case.optimum


def test_better_multipliers_are_worth_more(case, rng):
    noise = np.abs(rng.standard_normal((10, 10)))
    values = []
    for size in (0.0, 0.03, 1.0):
        found = case.repair((1 - min(size, 0.9)) * case.N + size * noise)
        assert found is not None
        case.check(found)
        values.append(found.objective)
    assert values[0] > values[1] > values[2] > 0
    # No shape at all: what the pair equalities alone can prove.
    found = case.repair(np.zeros((10, 10)))
    assert found is not None and 0 < found.objective < values[0]


def test_scales_of_the_multipliers_are_found_again(case):
    # The shape counts; a wrong unit is made up for by theta.
    plain = case.repair(case.N, accuracy=1e-8)
    scaled = case.repair(30 * case.N, accuracy=1e-8)
    assert plain is not None and scaled is not None
    np.testing.assert_allclose(scaled.objective, plain.objective, rtol=1e-4)


def test_more_steps_are_worth_more(case):
    values = []
    for steps in (0, 10, 20, 60):
        found = case.repair(case.N, max_steps=steps)
        assert found is not None and found.steps <= steps
        case.check(found)
        values.append(found.objective)
    assert values == sorted(values)


def test_where_a_free_residual_is_too_large(case):
    """Then R is scaled output by output: no better than free, and no worse than nothing."""
    free = case.repair(case.N, case.R)
    assert free is not None
    rows, outputs = case.data.rows.shape[0], case.data.targets.size
    limit = rows + case.data.pairs + outputs
    same = case.repair(case.N, case.R, max_unknowns=limit)
    assert same is not None and same.objective == free.objective
    scaled = case.repair(case.N, case.R, max_unknowns=limit - 1)
    assert scaled is not None
    case.check(scaled)
    assert 0.95 * case.optimum <= scaled.objective <= free.objective * (1 + 1e-4)
    # Each column is a multiple of the one given.
    ratio = scaled.residual / case.R
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[0], ratio.shape), rtol=1e-9)
    assert case.repair(case.N, None, max_unknowns=limit - 1) is None


def test_a_column_without_residual_stays_zero(case):
    R = case.R.copy()
    R[:, 1] = 0
    found = case.repair(case.N, R, max_unknowns=1)
    assert found is not None
    case.check(found)
    np.testing.assert_array_equal(found.residual[:, 1], 0)


def test_a_misleading_residual_is_not_followed(case):
    # The wrong sign can only be scaled to zero or turned round, never below the bound 0.
    found = case.repair(case.N, -case.R, max_unknowns=1)
    assert found is not None
    case.check(found)
    assert found.objective > 0


def test_clean_multipliers(rng):
    N = rng.standard_normal((7, 7))  # two pairs, and three rows more
    clean = clean_multipliers(N, 2)
    expected = np.maximum((N + N.T) / 2, 0)
    np.fill_diagonal(expected, 0)
    pairs = np.array([0, 1, 2, 3]), np.array([2, 3, 0, 1])
    expected[pairs] = 0
    np.testing.assert_array_equal(clean, expected)
    kept = clean_multipliers(N, 2, keep_pairs=True)
    expected[pairs] = ((N + N.T) / 2)[pairs]
    np.testing.assert_array_equal(kept, expected)


def test_further_rows_are_used(case, rng):
    """A row that is nonnegative for every neuron tightens the proof; the repair keeps it in place."""
    data = case.data
    k, r = data.pairs, data.rank
    u = np.linalg.lstsq(data.directions[:2].T, data.directions[2], rcond=None)[0]
    # p_2 = u_0 p_0 + u_1 p_1, so |u_0| relu(+-p_0 u) + |u_1| relu(+-p_1 u) >= relu(p_2 u).
    row = np.zeros(k + r)
    for i, weight in enumerate(u):
        row += abs(weight) * data.rows[i if weight > 0 else k + i]
    row[2] -= 1
    points = rng.standard_normal((r, 50))
    z = np.vstack([np.maximum(data.directions @ points, 0), points])
    assert np.min(row @ z) >= -1e-13
    rows = np.vstack([data.rows, row])
    N = np.zeros((2 * k + 1, 2 * k + 1))
    N[: 2 * k, : 2 * k] = case.N
    N[2 * k, :3] = N[:3, 2 * k] = 0.01
    found = repair_dual(rows, data.readout, data.targets, WEIGHT_DECAY, k, N)
    assert found is not None and found.multipliers.shape == N.shape
    assert np.all(found.multipliers[2 * k, :3] > 0)
    M = -rows.T @ found.multipliers @ rows
    reader = data.readout.T @ found.residual
    M -= reader @ reader.T / (2 * WEIGHT_DECAY)
    M[k:, k:] += WEIGHT_DECAY / 2 * np.eye(r)
    assert np.linalg.eigvalsh(M)[0] > 0
