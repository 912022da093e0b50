"""Many programs in one call from the host: lanes as `solve` finds them, on any number of threads."""

import functools
import subprocess
import sys
import types
from typing import Any

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcone
from jaxcone import (
    PSD,
    ConeProgram,
    InteriorPoint,
    Nonnegative,
    SecondOrder,
    Splitting,
    Status,
    Zero,
)

from ..helpers import known_program, lane, stack
from .test_splitting import points, replaced, traces as traces

CONES = [Zero(1), Nonnegative(3), SecondOrder(3), PSD(3)]
QUICK = Splitting(memory=0)  # to compile
SOLVERS = {"interior point": InteriorPoint(), "splitting": QUICK}
BAD = {1: "nonfinite", 3: "primal_infeasible", 4: "dual_infeasible"}


def drawn(seed: int, cones=CONES) -> ConeProgram:
    return known_program(np.random.default_rng(seed), 5, cones).program


@functools.cache
def programs(spoilt: bool = True) -> ConeProgram:
    """Seven programs, three of them spoilt."""
    good = stack(*(drawn(seed) for seed in range(7)))
    if not spoilt:
        return good
    A = good.A.entries.at[3, 1].set(0).at[4, :, 0].set(0)
    P = good.P.entries.at[4, 0].set(0).at[4, :, 0].set(0)
    b = good.b.at[3, 1].set(-1)  # 0'x + s = -1, s >= 0
    c = good.c.at[4, 0].set(1).at[1, 0].set(jnp.nan)  # min x_0 where x_0 is free
    return replaced(good, P=P, A=A, b=b, c=c)


@functools.cache
def solved(name: str, workers: int | None = None, spoilt: bool = True):
    return jaxcone.solve_batch(programs(spoilt), SOLVERS[name], workers=workers)


def statuses(solution) -> list[str]:
    names = {int(getattr(Status, name)._value): name for name in ["solved", *BAD.values()]}
    return [names[int(value)] for value in solution.status._value]


@pytest.mark.parametrize("name", SOLVERS)
def test_lanes_are_what_solve_returns(name):
    found = solved(name)
    assert statuses(found) == [BAD.get(k, "solved") for k in range(7)]
    assert len({int(steps) for steps in found.steps}) > 2
    for k in range(7):
        one, alone = lane(found, k), jaxcone.solve(lane(programs(), k), SOLVERS[name])
        assert int(one.status._value) == int(alone.status._value)
        assert int(one.steps) == int(alone.steps)
        # Two compilations round differently, and the last steps of an interior point magnify that.
        chex.assert_trees_all_close(points(one), points(alone), rtol=1e-6, atol=1e-6)
        chex.assert_trees_all_close(one.ray, alone.ray, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_bad_lanes_change_nothing_in_others(name):
    among_good, among_bad = solved(name, spoilt=False), solved(name)
    assert statuses(among_good) == ["solved"] * 7
    for k in set(range(7)) - set(BAD):
        chex.assert_trees_all_equal(lane(among_good, k), lane(among_bad, k))  # bit for bit


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_the_number_of_threads_does_not_matter(workers):
    chex.assert_trees_all_equal(solved("interior point", workers), solved("interior point", None))


def test_what_lanes_share_need_not_be_repeated():
    whole = stack(*(drawn(0) for _ in range(3)))
    c = whole.c * jnp.array([[1.0], [0.5], [2.0]])
    everywhere = eqx.tree_at(lambda p: p.c, whole, c)
    shared = eqx.tree_at(lambda p: p.c, drawn(0), c)
    axes = eqx.tree_at(
        lambda p: p.c, jax.tree.map(lambda _: None, shared), 0, is_leaf=lambda node: node is None
    )
    found = jaxcone.solve_batch(shared, QUICK, in_axes=axes)
    assert bool(jnp.all(found.solved))
    chex.assert_trees_all_close(
        points(found), points(jaxcone.solve_batch(everywhere, QUICK)), rtol=1e-9
    )


def test_on_an_accelerator_the_batch_is_one_vmap(monkeypatch):
    some = stack(drawn(0), drawn(2))
    in_turn = jaxcone.solve_batch(some, QUICK)
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(platform="gpu")])
    monkeypatch.setattr(jaxcone.batch, "_in_turn", None)
    found = jaxcone.solve_batch(some, QUICK)
    assert found.steps.tolist() == in_turn.steps.tolist()
    chex.assert_trees_all_close(points(found), points(in_turn), rtol=1e-9, atol=1e-9)


def test_equal_blocks_are_solved_on_one_thread(monkeypatch):
    used = []

    class Pool(jaxcone.batch.ThreadPoolExecutor):
        def __init__(self, workers):
            used.append(workers)
            super().__init__(workers)

    monkeypatch.setattr(jaxcone.batch, "ThreadPoolExecutor", Pool)
    for cones in ([PSD(3), PSD(3)], [PSD(3), PSD(2)]):
        both = stack(*(drawn(seed, cones) for seed in range(2)))
        found = jaxcone.solve_batch(both, QUICK, workers=2)
        assert bool(jnp.all(found.solved))
    assert used == [1, 2]


def test_numbers_do_not_recompile(traces):
    static = dict[str, Any](check_every=2, memory=0)
    solver = Splitting(tolerance=1e-3, **static)
    first = jaxcone.solve_batch(stack(drawn(1), drawn(2)), solver, workers=2)
    count = len(traces)
    other = Splitting(tolerance=1e-12, max_steps=8, penalty=3.0, **static)
    second = jaxcone.solve_batch(stack(drawn(3), drawn(4)), other, workers=1)
    assert bool(jnp.all(first.solved)) and second.steps.tolist() == [8, 8]
    assert len(traces) == count


def test_single_precision_stays_single():
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), stack(drawn(0), drawn(2)))
    found = jaxcone.solve_batch(single, QUICK)
    assert bool(jnp.all(found.solved)) and found.x.dtype == np.float32


@pytest.mark.parametrize("workers", [0, -1])
def test_workers_below_one_are_refused(workers):
    with pytest.raises(ValueError, match="workers"):
        jaxcone.solve_batch(programs(), workers=workers)


def test_bad_axes_and_lanes_are_refused():
    for axes in (1, True):
        with pytest.raises(ValueError, match="in_axes"):
            jaxcone.solve_batch(programs(), in_axes=axes)
    with pytest.raises(ValueError, match="in_axes"):
        jaxcone.solve_batch(programs(), in_axes=(0, 0))
    with pytest.raises(ValueError, match="number of lanes"):
        jaxcone.solve_batch(eqx.tree_at(lambda p: p.c, programs(), programs().c[:5]))
    with pytest.raises(ValueError, match="number of lanes"):
        jaxcone.solve_batch(programs(), in_axes=None)
    with pytest.raises(ValueError, match="number of lanes"):
        jaxcone.solve_batch(jax.tree.map(lambda leaf: leaf[:0], programs()))


# Batches of matrices of this size, factored on two threads at once, wait for each other for ever.
LARGE = """
import jax, jax.numpy as jnp, numpy as np, jaxcone
side, lanes = 80, 8
rng = np.random.default_rng(0)
C = rng.standard_normal((lanes, side, side))
rows = jaxcone.PSD(side).rows
A = -np.stack([jaxcone.svec(e) for e in np.eye(side)[:, :, None] * np.eye(side)[:, None]], axis=1)
with jax.enable_x64(True):
    b = jax.vmap(jaxcone.svec)(jnp.asarray(C + C.swapaxes(1, 2)))
    make = lambda b: jaxcone.ConeProgram(None, np.ones(side), A, b, jaxcone.PSD(side))
    programs = jax.vmap(make)(b)
    for solver in (jaxcone.InteriorPoint(), jaxcone.Splitting(max_steps=50)):
        for _ in range(3):
            found = jaxcone.solve_batch(programs, solver, workers=4)
            assert found.x.dtype == np.float64
    assert bool(jnp.all(jaxcone.solve_batch(programs, jaxcone.InteriorPoint()).solved))
"""


@pytest.mark.slow
def test_threads_do_not_wait_for_each_other():
    subprocess.run([sys.executable, "-c", LARGE], check=True, timeout=300)
