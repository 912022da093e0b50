"""(lifted) in coordinates, and its solution by the interior-point method."""

import functools

import cvxpy as cp
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import InteriorPoint, Solution, Splitting, Status, solve as solve_cone
from jaxcone.extend import inner, step_cost
from jaxcvxnn import TrainingProblem, solve, solve_batch, train
from jaxcvxnn.conic.lifted import lifted_program
from jaxcvxnn.programs import SDPRelaxation
from jaxcvxnn.reduction import lifted_data, reduce
from jaxcvxnn.training import choose_solver
from jaxcvxnn.training.method_choice import INTERIOR_POINT, named_solver

from .. import oracles

SIZES = 6, 2, 3


def problem_of(rng, n=6, d=2, c=3, weight_decay=0.1):
    return TrainingProblem(rng.standard_normal((n, d)), rng.standard_normal((n, c)), weight_decay)


@pytest.fixture
def program(rng):
    return lifted_program(jax.tree.map(jnp.asarray, reduce(problem_of(rng)).data))


@eqx.filter_jit
def compiled(data, solver):
    return solve(data, method=solver)


def solved(data, solver=INTERIOR_POINT):
    return compiled(*jax.tree.map(jnp.asarray, (data, solver)))


# ----------------------------------------------------------------------
# The form


def test_the_adjoint(program, rng):
    form = program.interior()
    x = rng.standard_normal(form.size)
    y = rng.standard_normal(form.layout.cones.rows)
    np.testing.assert_allclose(form.operator(x) @ y, x @ form.adjoint(y), rtol=1e-12)


def test_the_normal_matrix_is_the_dense_product(program, rng):
    form = program.interior()
    identity = jnp.eye(form.size)
    A = jax.vmap(form.operator, out_axes=1)(identity)
    P = jax.vmap(form.quadratic, out_axes=1)(identity)
    _, (moments, products), (slack, _) = form.initial()
    root = 0.3 * rng.standard_normal(slack.shape[1:])
    scaling = form.layout.scaling(
        [moments, products], [slack + root @ root.T, jnp.asarray(rng.random(products.shape))]
    )

    def column(entries):
        blocks = form.layout.split(entries)
        return form.layout.vectors(
            [w.down(block) for w, block in zip(scaling, blocks, strict=True)], entries.dtype
        )

    scaled = jax.vmap(column, in_axes=1)(A)
    expected = P + scaled @ scaled.T
    np.testing.assert_allclose(form.normal(scaling), expected, atol=1e-12 * np.abs(expected).max())


def test_points_are_those_of_the_program(program, rng):
    """Coordinates in units of their own, moments and multipliers in the program's."""
    form = program.interior()
    x = jnp.asarray(rng.standard_normal(form.size))
    y = jnp.asarray(rng.standard_normal(form.layout.cones.rows))
    moments, (slack, products), duals = form.points(x, -form.operator(x), y)
    np.testing.assert_allclose(slack, moments, rtol=1e-12)
    pairs = program.pairs
    rows = np.asarray(program.rows)
    size = rows.shape[1]
    product = rows @ np.asarray(moments)[:size, :size] @ rows.T
    index = np.arange(pairs)
    np.testing.assert_allclose(product[index, pairs + index], 0, atol=1e-12 * np.abs(product).max())
    off = ~np.eye(2 * pairs, dtype=bool)
    np.testing.assert_allclose(np.asarray(products)[off], product[off], rtol=1e-9, atol=1e-9)
    # Objectives and pairings scale by the product of both units.
    units = form.primal * form.dual
    value = x @ form.quadratic(x) / 2 + form.linear() @ x
    expected = inner(moments, program.quadratic(moments)) / 2 + inner(program.linear(), moments)
    np.testing.assert_allclose(units * value, expected, rtol=1e-10)
    pulled = inner(program.adjoint(duals), moments)
    np.testing.assert_allclose(units * (form.adjoint(y) @ x), pulled, rtol=1e-10)


def test_further_rows_are_refused(program):
    extended = eqx.tree_at(lambda p: p.rows, program, jnp.vstack([program.rows, program.rows[:1]]))
    with pytest.raises(NotImplementedError, match="further rows"):
        extended.interior()


# ----------------------------------------------------------------------
# The solution


@pytest.mark.parametrize("weight_decay", [1.0, 0.1, 0.01])
def test_the_optimum_is_that_of_clarabel_and_certified(rng, weight_decay):
    problem = problem_of(rng, *SIZES, weight_decay)
    reduction = reduce(problem)
    found = solved(reduction.data)
    assert found.status == Status.solved
    assert found.steps < 40
    data = reduction.data
    features = np.diag(np.diag(data.readout)) @ data.directions
    relaxed = oracles.lifted_form(features, data.targets, weight_decay)
    optimum = relaxed.solve(cp.CLARABEL) + float(data.constant)
    np.testing.assert_allclose(found.objective, optimum, rtol=2e-5)
    certificate = SDPRelaxation().certify(reduction, found)
    # Clarabel's value may be off; the certified one is between the truth and this loss.
    assert certificate.lower_bound >= float(found.objective) * (1 - 1e-6)
    assert abs(certificate.proof.loss) < 1e-6


def test_it_agrees_with_splitting_where_that_is_accurate(rng):
    data = reduce(problem_of(rng, 4, 2, 2)).data
    splitting = Splitting(tolerance=1e-7, max_steps=2500, penalty=100.0, adapt_penalty=False)
    ours, theirs = solved(data), solved(data, splitting)
    np.testing.assert_allclose(ours.objective, theirs.objective, rtol=1e-5)
    np.testing.assert_allclose(ours.moments, theirs.moments, atol=1e-3)


@pytest.mark.parametrize("scale", [1e2, 1e5])
def test_units_of_the_data_do_not_matter(rng, scale):
    """Y and weight decay times s, objective times s^2: v scales with s."""
    problem = problem_of(rng)
    scaled = TrainingProblem(problem.X, scale * problem.Y, scale * problem.weight_decay)
    one, other = (solved(reduce(p).data) for p in (problem, scaled))
    np.testing.assert_allclose(other.objective, scale**2 * one.objective, rtol=1e-7)


def test_lanes_are_solved_as_alone(rng):
    problem = problem_of(rng)
    solver = jax.tree.map(jnp.asarray, INTERIOR_POINT)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def lanes(data, weight_decay):
        found = solve(eqx.tree_at(lambda d: d.weight_decay, data, weight_decay), method=solver)
        return found.objective, found.status, found.steps

    data = jax.tree.map(jnp.asarray, lifted_data(problem))
    decays = jnp.asarray([1.0, 0.1, 0.01])
    objective, status, steps = lanes(data, decays)
    for k, weight_decay in enumerate(decays):
        alone = solved(eqx.tree_at(lambda d: d.weight_decay, data, weight_decay))
        assert jax.tree.map(lambda leaf, k=k: leaf[k], status) == alone.status
        assert (
            abs(steps[k] - alone.steps) <= 1
        )  # the last one may be within rounding of the tolerance
        np.testing.assert_allclose(objective[k], alone.objective, rtol=1e-9)


def test_the_slack_is_in_the_cone(rng):
    found: Solution = solved(reduce(problem_of(rng)).data).solution
    (moments, products), (slack, multipliers) = found.s, found.y
    assert np.linalg.eigvalsh(moments)[0] >= -1e-12 * np.linalg.norm(moments)
    assert np.linalg.eigvalsh(slack)[0] >= -1e-12 * np.linalg.norm(slack)
    assert np.min(products) >= 0
    assert np.min(multipliers) >= 0


# ----------------------------------------------------------------------
# The choice of a method


def test_auto_takes_interior_point_where_it_fits(rng):
    def chosen(n, dtype):
        problem = problem_of(rng, n)
        data = jax.tree.map(lambda a: jnp.asarray(a, dtype), lifted_data(problem))
        return choose_solver(lifted_program(data))

    assert chosen(6, np.float64) is INTERIOR_POINT
    assert chosen(6, np.float32) is None
    assert chosen(120, np.float64) is None  # 7,803 unknowns


def test_names_of_solvers(program):
    assert named_solver("auto", program) is INTERIOR_POINT
    assert named_solver("interior_point", program) is INTERIOR_POINT
    assert named_solver("splitting", program) is None
    own = Splitting(penalty=3.0)
    assert named_solver(own, program) is own
    for wrong in ("simplex", 3, Status.solved):
        with pytest.raises(ValueError, match='solver must be "auto"'):
            named_solver(wrong, program)


def test_what_does_not_fit_is_refused_with_the_number(program):
    needed, operations = step_cost(program)
    unknowns = program.interior().size
    assert needed > 8 * 3 * unknowns**2
    assert operations > unknowns**3 / 3
    with pytest.raises(ValueError, match=r"needs about .* GB, and 0\.00 GB"):
        solve_cone(program, InteriorPoint(memory_limit=1000.0))


def test_train_uses_it_and_says_so(rng):
    problem = problem_of(rng)
    result = train(problem.X, problem.Y, 0.1, polish=False, width=20)
    assert "interior-point steps" in result.message
    assert result.certificate.proof.loss < 1e-6


def test_a_batch_is_solved_and_certified_as_each_alone(rng):
    problems = [problem_of(rng, n) for n in (6, 4, 6)]
    found = solve_batch([problems[0], reduce(problems[1]), problems[2]], workers=2)
    for problem, one in zip(problems, found, strict=True):
        reduction = reduce(problem)
        [alone] = solve_batch([reduction])
        assert one.solution.objective == alone.solution.objective
        assert one.certificate.lower_bound == alone.certificate.lower_bound
        value = float(alone.solution.objective)
        assert value * (1 - 1e-6) <= one.certificate.lower_bound <= value * (1 + 1e-6)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        solve_batch(problems, workers=0)
