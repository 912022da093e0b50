"""Pricing by the relaxation: always above the maximum, exact on generic residuals, honest proofs."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import InteriorPoint
from jaxcvxnn import Job, best_neuron
from jaxcvxnn.conic.relaxed_price import RelaxedPrice
from jaxcvxnn.pricing import Budget, relaxation
from jaxcvxnn.pricing.ascent import local_maxima
from jaxcvxnn.pricing.circle import price_planar
from jaxcvxnn.pricing.price import prices
from jaxcvxnn.pricing.relaxation import price_relaxed
from jaxcvxnn.pricing.sphere import price_enumerated

SAMPLES = 9  # one for all tests: directions and rank are shapes that are compiled


def met(rng, residual, features):
    """The largest price among many random neurons and their ascents."""
    u = rng.standard_normal((20_000, features.shape[1]))
    sampled = prices(residual, features, u / np.linalg.norm(u, axis=1)[:, None])
    return max(sampled.max(), np.max(local_maxima(residual, features)[1], initial=0.0))


def flat(rng, features):
    """A residual whose price has many maxima of nearly one height, as at an optimum."""
    residual = rng.standard_normal((len(features), 2))
    for _ in range(30):
        neurons, values = local_maxima(residual, features, starts=60)
        hidden = np.maximum(features @ neurons[0], 0)
        top = hidden @ residual
        residual = residual - 0.3 * np.outer(hidden, top) / np.sum(hidden**2) / np.sqrt(len(values))
    return residual


@pytest.mark.parametrize("rank", [3, 8])
def test_the_bound_is_above_the_maximum(rng, rank):
    features = rng.standard_normal((SAMPLES, rank))
    generic = rng.standard_normal((SAMPLES, 2))
    for residual in (generic, flat(rng, features)):
        price = price_relaxed(residual, features)
        assert price.method == "relaxation"
        assert price.upper >= met(rng, residual, features)
        assert price.upper >= price.lower
        assert price.upper <= price_relaxed(residual, features, Budget(job=Job(1e-9))).upper
        np.testing.assert_allclose(prices(residual, features, price.neurons[:1])[0], price.lower)
    # One best neuron, far better than others: the relaxation has its rank one.
    assert price_relaxed(generic, features).upper <= 1.02 * met(rng, generic, features)


@pytest.mark.parametrize("rank, exact", [(2, price_planar), (3, price_enumerated)])
def test_exact_prices_are_not_above(rng, rank, exact):
    features = rng.standard_normal((SAMPLES, rank))
    ratios = []
    for residual in (*rng.standard_normal((4, SAMPLES, 1)), flat(rng, features)[:, :1]):
        price, known = price_relaxed(residual, features), exact(residual, features)
        assert price.upper >= known.lower
        assert price.lower <= known.upper
        ratios.append(price.upper / known.lower - 1)
    assert np.median(ratios) <= 1e-3


def test_invariances(rng):
    features, residual = rng.standard_normal((SAMPLES, 3)), rng.standard_normal((SAMPLES, 2))
    price = price_relaxed(residual, features)
    turn, mix = (np.linalg.qr(rng.standard_normal((k, k)))[0] for k in (3, 2))
    order, scale = rng.permutation(SAMPLES), 10.0 ** rng.uniform(-5, 5, (SAMPLES, 1))
    for same in (
        price_relaxed(residual, features @ turn.T),
        price_relaxed(residual[order], features[order]),
        price_relaxed(residual / scale, features * scale),
        price_relaxed(residual @ mix, features),
        price_relaxed(np.vstack([residual / 2] * 2), np.vstack([features] * 2)),
    ):
        assert same.upper >= price.lower
        assert same.upper == pytest.approx(price.upper, rel=1e-2)
    scale = 2.0**332  # its products are exact
    larger = price_relaxed(residual * scale, features)
    assert larger.upper == pytest.approx(price.upper * scale, rel=1e-12)


def test_degenerate_data(rng):
    features, residual = rng.standard_normal((SAMPLES, 3)), rng.standard_normal((SAMPLES + 4, 2))
    rows = [features, 2 * features[:1], -features[1:2], np.zeros((1, 3)), features[2:3] + 1e-12]
    features = np.vstack(rows)
    assert price_relaxed(residual, features).upper >= met(rng, residual, features)
    wide = features @ rng.standard_normal((3, 6))
    price = best_neuron(residual, wide, method="relaxation")
    assert price.neurons.shape[1] == 6
    assert price.upper >= met(rng, residual, wide)
    nothing = price_relaxed(0 * residual, features)
    assert nothing.lower == nothing.upper == 0
    assert price_relaxed(residual[:1], np.zeros((1, 3))).upper == 0


def test_any_multipliers_prove_a_true_bound(rng):
    features = rng.standard_normal((SAMPLES, 3))
    residual = rng.standard_normal((SAMPLES, 2))
    best = met(rng, residual, features)
    work = relaxation._Relaxation(residual, features, best)
    proven = []
    for _ in range(40):
        multipliers = rng.standard_normal((2 * SAMPLES,) * 2) * 10.0 ** rng.uniform(-4, 2)
        proven.append(work.proven(multipliers, 10.0 ** rng.uniform(-3, 3)))
        assert proven[-1] >= best
    assert np.isfinite(proven).any()


def test_auto_takes_it_above_rank_six(rng):
    features, residual = rng.standard_normal((SAMPLES, 8)), rng.standard_normal((SAMPLES, 2))
    price = best_neuron(residual, features)
    assert price.method == "relaxation"
    assert best_neuron(residual, features[:, :3]).method == "branch and bound"
    # Far below the bound of the whole sphere, the only one that branch and bound has for rank 30.
    root = best_neuron(residual, features, method="branch_and_bound", max_boxes=1)
    assert price.upper < 0.9 * root.upper


def test_limits(rng, monkeypatch):
    features, residual = rng.standard_normal((SAMPLES, 3)), rng.standard_normal((SAMPLES, 2))
    price = price_relaxed(residual, features)
    enough = price_relaxed(residual, features, Budget(target=2 * price.lower))
    assert price.lower <= enough.upper <= 2 * price.lower

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(relaxation, "_some_steps", interrupt)
    job = Job()
    stopped = price_relaxed(residual, features, Budget(job=job))
    assert job.interrupted
    assert stopped.upper >= price.lower
    with pytest.raises(ValueError, match="rows"):
        price_relaxed(residual[:2], features)


def test_the_program_in_coordinates(rng):
    """Interior-point and splitting method solve one program: the operators of its two forms agree."""
    features, residual = rng.standard_normal((SAMPLES, 3)), rng.standard_normal((SAMPLES, 2))
    work = relaxation._Relaxation(residual, features, 1.0)
    program = RelaxedPrice(jnp.asarray(work.rows), jnp.asarray(work.reader[0]), work.pairs)
    form = program.interior()
    x = jnp.asarray(rng.standard_normal(form.size))
    S = form.points(x, jnp.zeros(form.layout.cones.rows), jnp.zeros(form.layout.cones.rows))[0]
    value = jnp.sum(S * program.quadratic(S)) / 2 + jnp.sum(S * program.linear())
    np.testing.assert_allclose(x @ form.quadratic(x) / 2 + x @ form.linear(), value)
    trace = jnp.trace(S[SAMPLES:, SAMPLES:])
    np.testing.assert_allclose(x @ form.quadratic(x), trace**2)


@pytest.mark.slow
def test_both_methods_agree(rng):
    features, residual = rng.standard_normal((SAMPLES, 3)), rng.standard_normal((SAMPLES, 2))
    price = price_relaxed(residual, features)
    interior = price_relaxed(residual, features, solver=InteriorPoint(max_steps=60, refinements=1))
    assert interior.upper == pytest.approx(price.upper, rel=1e-3)
