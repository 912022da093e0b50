"""The price by branch and bound: its interval against dense sampling, and the ascent's maxima."""

from fractions import Fraction

import numpy as np
import pytest

from jaxcvxnn import Job
from jaxcvxnn.pricing import Budget, branch_and_bound, simplicial_cones
from jaxcvxnn.pricing.ascent import local_maxima, polish, random_directions
from jaxcvxnn.pricing.branch_and_bound import price_branch_and_bound
from jaxcvxnn.pricing.price import prices


def data(rng, count, rank, outputs=2):
    return rng.standard_normal((count, outputs)), rng.standard_normal((count, rank))


def hard_rows(rng, features):
    """Zero, duplicate, antiparallel and nearly dependent rows beside the given ones."""
    near = features[:2] + 1e-9 * rng.standard_normal(features[:2].shape)
    parts = [features, np.zeros((2, features.shape[1])), 3 * features[:2], -features[1:3], near]
    return np.concatenate(parts)


def sampled_maximum(rng, residual, features, count=20_000):
    points = rng.standard_normal((count, features.shape[1]))
    points /= np.linalg.norm(points, axis=1)[:, None]
    return np.max(prices(residual, features, points))


def circle_maximum(residual, features):
    angles = np.linspace(0, 2 * np.pi, 100_001)
    return np.max(prices(residual, features, np.stack([np.cos(angles), np.sin(angles)], axis=1)))


def check(residual, features, price, relative=1e-6):
    """What holds for every result that was not cut short."""
    assert price.lower <= price.upper <= price.lower * (1 + 1.01 * relative)
    assert np.allclose(np.linalg.norm(price.neurons, axis=1), 1, rtol=0, atol=1e-14)
    values = prices(residual, features, price.neurons)
    assert np.all(np.diff(values) <= 0)
    assert price.lower <= values[0] * (1 + 1e-12)
    assert values[0] <= price.lower * (1 + 1e-9)


@pytest.mark.parametrize("count", [1, 3, 20, 60])
def test_rank_two_contains_the_maximum_on_the_circle(rng, count):
    residual, features = data(rng, count, 2, 3)
    price = price_branch_and_bound(residual, features)
    check(residual, features, price)
    dense = circle_maximum(residual, features)
    assert dense <= price.upper
    assert price.lower <= dense * (1 + 1e-6)


@pytest.mark.parametrize(("rank", "outputs"), [(2, 1), (3, 3), (4, 2), (5, 1)])
def test_contains_the_sampled_maximum_with_hard_rows(rng, rank, outputs):
    features = hard_rows(rng, rng.standard_normal((12, rank)))
    residual = rng.standard_normal((len(features), outputs))
    price = price_branch_and_bound(residual, features, Budget(relative=1e-4))
    check(residual, features, price, 1e-4)
    assert sampled_maximum(rng, residual, features) <= price.upper


def test_planted_maximum():
    """R = -F: |sum_i f_i relu(f_i'u)| with f_i = +-e_k is the length of relu(u) and relu(-u)."""
    features = np.concatenate([np.eye(4), -np.eye(4)])
    price = price_branch_and_bound(-features, features)
    assert price.lower <= 1 <= price.upper <= 1 + 2e-6


def test_maximum_at_a_kink():
    """|sum R_i relu(f_i'u)| = u_1 - 3 |u_2| - 3 |u_3| in the half space where it matters."""
    features = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    residual = np.array([[1.0], [-0.3], [-0.3], [-0.3], [-0.3]])
    price = price_branch_and_bound(residual, features, Budget(relative=1e-9))
    assert price.lower <= 1 <= price.upper <= 1 + 2e-9
    assert np.allclose(np.abs(price.neurons[0]), [1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_invariances(rng, rank):
    residual, features = data(rng, 20, rank)
    rotation, _ = np.linalg.qr(rng.standard_normal((rank, rank)))
    turn, _ = np.linalg.qr(rng.standard_normal((2, 2)))
    order, scale = rng.permutation(20), 10 ** rng.uniform(-3, 3, (20, 1))
    before = price_branch_and_bound(residual, features)
    for factor, other in (
        (1, (residual, features @ rotation)),
        (1, (residual @ turn, features)),
        (1, (residual[order], features[order])),
        (1, (residual / scale, features * scale)),
        (1e-200, (1e-200 * residual, features)),
        (1e150, (residual, 1e150 * features)),
    ):
        after = price_branch_and_bound(*other)
        assert after.lower <= before.upper * factor * (1 + 1e-14)
        assert before.lower * factor <= after.upper * (1 + 1e-14)
        assert after.upper <= after.lower * (1 + 1.01e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"target": -1.0},
        {"target": np.nan},
        {"keep": 0.0},
        {"relative": -1e-3},
        {"max_boxes": -1},
        {"starts": -1},
    ],
)
def test_bad_budgets_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=name):
        Budget(**change)


def test_graded_features(rng):
    """Singular values over three decades: the maxima lie in thin cells."""
    residual, features = data(rng, 30, 3)
    features = features * [1e3, 30, 1]
    price = price_branch_and_bound(residual, features)
    check(residual, features, price)
    points = random_directions(rng, features, 30_000)
    assert np.max(prices(residual, features, points)) <= price.upper


def test_budgets_give_valid_but_looser_intervals(rng):
    residual, features = data(rng, 40, 4)
    full = price_branch_and_bound(residual, features)
    last = np.inf
    for boxes in (0, 15, 16, 100, 1000):
        price = price_branch_and_bound(residual, features, Budget(max_boxes=boxes))
        assert price.cells <= boxes
        assert price.lower <= full.upper
        assert full.lower <= price.upper <= last
        last = price.upper
    price = price_branch_and_bound(residual, features, Budget(job=Job(1e-9)))
    assert full.lower <= price.upper


def test_target_ends_the_search(rng):
    residual, features = data(rng, 40, 4)
    full = price_branch_and_bound(residual, features)
    early = price_branch_and_bound(residual, features, Budget(target=1.2 * full.upper))
    assert full.lower <= early.upper <= 1.2 * full.upper
    assert early.cells < full.cells / 2
    assert len(early.neurons) == 1


def test_keep_returns_every_neuron_above(rng):
    residual, features = data(rng, 40, 4)
    full = price_branch_and_bound(residual, features, Budget(starts=3000))
    bar = 0.5 * full.lower
    price = price_branch_and_bound(residual, features, Budget(keep=bar, starts=0, relative=0.01))
    values = prices(residual, features, price.neurons)
    assert np.all(values > bar)
    assert len(values) > 3
    assert values[0] >= full.lower * (1 - 0.01)


def test_same_seed_same_result(rng):
    residual, features = data(rng, 20, 3)
    first, second = (price_branch_and_bound(residual, features, seed=4) for _ in range(2))
    assert first.upper == second.upper
    assert np.array_equal(first.neurons, second.neurons)


def test_interrupt_returns_the_interval_so_far(rng, monkeypatch):
    residual, features = data(rng, 40, 4)
    full = price_branch_and_bound(residual, features)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return simplicial_cones.examine(*arguments)

    monkeypatch.setattr(branch_and_bound, "examine", interrupted)
    price = price_branch_and_bound(residual, features)
    assert full.upper < price.upper < np.inf
    assert price.lower <= full.upper


def test_little_memory_changes_the_order_only(rng, monkeypatch):
    residual, features = data(rng, 40, 4)
    full = price_branch_and_bound(residual, features)
    monkeypatch.setattr(branch_and_bound, "CAPACITY", 50)
    monkeypatch.setattr(branch_and_bound, "PARENTS", 64)
    price = price_branch_and_bound(residual, features)
    check(residual, features, price)
    assert price.lower <= full.upper
    assert full.lower <= price.upper


def test_nothing_to_price():
    for residual, features in (
        (np.zeros((3, 2)), np.eye(3)),
        (np.ones((3, 2)), np.zeros((3, 3))),
        (np.zeros((0, 1)), np.zeros((0, 3))),
    ):
        price = price_branch_and_bound(residual, features)
        assert (price.lower, price.upper) == (0, 0)
        assert np.allclose(np.linalg.norm(price.neurons, axis=1), 1)


def test_cancelling_rows():
    price = price_branch_and_bound([[1.0], [-1.0]], [[1.0, 2.0], [1.0, 2.0]])
    assert 0 <= price.lower <= price.upper <= 1e-10


def test_rank_one():
    price = price_branch_and_bound([[3.0], [4.0]], [[1.0], [-2.0]])
    assert price.lower <= 8 <= price.upper <= 8 + 1e-5
    assert np.array_equal(price.neurons[0], [-1.0])


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_bound_of_random_cones(rng, rank):
    """Single cones, thin ones too, against points inside them: no tolerance."""
    residual, features = data(rng, 15, rank)
    rows = simplicial_cones.rows_that_count(residual, features)
    signs = np.array(np.meshgrid(*[[1.0, -1.0]] * rank)).reshape(rank, -1).T
    batch = simplicial_cones.orthants(rows, np.eye(rank), signs)
    limits = np.inf
    for _ in range(9):
        found = simplicial_cones.examine(rows, batch, 0.0)
        bounds = np.minimum(found.bounds, limits)
        for _ in range(20):
            weights = rng.exponential(size=(len(batch.radii), 1, rank)) ** 3
            points = (weights @ batch.generators)[:, 0]
            points /= np.linalg.norm(points, axis=1)[:, None]
            values = prices(rows.residual, rows.features, points)
            assert np.all(values <= bounds)
        chosen = rng.permutation(len(found.where))[:200]
        limits = np.tile(bounds[found.where[chosen]], 2)
        batch, _ = simplicial_cones.split(rows, found.open.take(chosen), 1.0)


def test_split_points_lie_within_their_radius_of_the_edge(rng):
    """The exact point is in the plane of its two generators; the float one is next to it."""
    residual, features = data(rng, 15, 3)
    rows = simplicial_cones.rows_that_count(residual, features)
    axes = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    parents = simplicial_cones.orthants(rows, axes, np.ones((1, 3)))
    children, points = simplicial_cones.split(rows, parents, 1.0)
    parent = parents.generators[0]
    changed = [int(np.flatnonzero(np.any(g != parent, axis=1))[0]) for g in children.generators]
    first, second = (parent[k] for k in sorted(changed))
    distance = abs(_determinant(first, second, points[0]))
    assert distance <= children.radii[0, changed[0]]
    assert np.all(children.radii <= 10 * rows.unit)


def _determinant(*vectors):
    (a, b, c), (d, e, f), (g, h, i) = ([Fraction(float(v)) for v in vector] for vector in vectors)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def test_scaling_of_rows_is_exact(rng):
    residual, features = data(rng, 30, 3)
    residual, features = residual * 1e-30, features * 10 ** rng.uniform(-9, 9, (30, 1))
    rows = simplicial_cones.rows_that_count(residual, features)
    lengths = np.linalg.norm(rows.features[:-1], axis=1)
    assert np.all((lengths >= 0.5) & (lengths < 2))
    assert 0.5 <= np.max(np.abs(rows.residual)) < 1
    points = random_directions(rng, features, 9)
    values = np.ldexp(prices(rows.residual, rows.features, points), rows.exponent)
    assert np.allclose(values, prices(residual, features, points), rtol=1e-13, atol=0)


def test_local_maxima_are_maxima(rng):
    residual, features = data(rng, 30, 3)
    neurons, values = local_maxima(residual, features, starts=200, seed=1)
    assert len(neurons) > 1
    assert np.all(np.diff(values) <= 0)
    assert np.allclose(values, prices(residual, features, neurons), rtol=1e-12)
    for neuron, value in zip(neurons, values, strict=True):
        around = neuron + 1e-5 * rng.standard_normal((500, 3))
        around /= np.linalg.norm(around, axis=1)[:, None]
        assert np.max(prices(residual, features, around)) <= value * (1 + 1e-12)


def test_polish_never_loses_height(rng):
    residual, features = data(rng, 25, 4)
    points = random_directions(rng, features, 50)
    before = prices(residual, features, points)
    after = prices(residual, features, polish(residual, features, points))
    assert np.all(after >= before * (1 - 1e-14))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"residual": np.ones((4, 1))}, "residual"),
        ({"residual": np.full((5, 1), np.nan)}, "residual"),
        ({"residual": np.ones(5)}, "residual"),
        ({"features": np.ones((5, 0))}, "features"),
        ({"features": "text"}, "features"),
        ({"neurons": np.ones((2, 3))}, "neurons"),
        ({"count": 0}, "count"),
    ],
)
def test_bad_arguments_are_refused(change, name):
    good = {"residual": np.ones((5, 1)), "features": np.ones((5, 2))}
    with pytest.raises(ValueError, match=name):
        price_branch_and_bound(**{**good, **change})
