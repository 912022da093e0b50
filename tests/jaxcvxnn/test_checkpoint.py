"""A state on disk goes on bit for bit, and nothing else is taken for one."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcone import Splitting
from jaxcone.extend import advance
from jaxcvxnn import TrainingProblem, train
from jaxcvxnn.conic.lifted import lifted_program
from jaxcvxnn.reduction import reduce
from jaxcvxnn.training.checkpoint import Checkpoint, described, solver_of

N, D, C, WIDTH = 4, 2, 1, 8
SOLVER = Splitting(penalty=100.0, max_steps=4000, tolerance=1e-6, adapt_penalty=False)
BLOCKS = 8  # as many as `train` takes at first


@pytest.fixture
def problem(rng):
    return TrainingProblem(rng.standard_normal((N, D)), 2 * rng.standard_normal((N, C)), 0.02)


def program_of(problem):
    return lifted_program(jax.tree.map(jnp.asarray, reduce(problem).data))


def save_solution(path, problem, solver, found):
    Checkpoint(path, problem).save("lifted", found, **described(solver))


def load_solution(path, problem, program):
    saved = Checkpoint(path, problem)
    solver = solver_of(saved.header("lifted"))
    like = eqx.filter_eval_shape(advance, program, solver, blocks=0)
    return solver, saved.load("lifted", like)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for ours, theirs in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_state_comes_back_and_goes_on_bit_for_bit(problem, tmp_path):
    program = program_of(problem)
    half = advance(program, SOLVER, blocks=BLOCKS)
    path = tmp_path / "state"
    save_solution(path, problem, SOLVER, half)
    solver, loaded = load_solution(path, problem, program)
    assert_same(loaded, half)
    assert [float(v) for v in jax.tree.leaves(solver)] == [
        float(v) for v in jax.tree.leaves(SOLVER)
    ]
    assert (solver.check_every, solver.memory) == (SOLVER.check_every, SOLVER.memory)
    assert_same(
        advance(program, solver, loaded, blocks=3), advance(program, SOLVER, half, blocks=3)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def written(problem, path):
    save_solution(path, problem, SOLVER, advance(program_of(problem), SOLVER, blocks=BLOCKS))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p.X + np.eye(N, D) * 1e-15, p.Y, 0.02, False),
        lambda p: (p.X, -p.Y, 0.02, False),
        lambda p: (p.X, p.Y, 0.03, False),
        lambda p: (p.X[::-1], p.Y[::-1], 0.02, False),
        lambda p: (p.X, p.Y, 0.02, True),
    ],
    ids=["samples", "targets", "weight decay", "order", "bias"],
)
def test_another_problem_is_refused(problem, tmp_path, change):
    path = written(problem, tmp_path / "state")
    X, Y, weight_decay, bias = change(problem)
    other = TrainingProblem(X, Y, weight_decay, bias=bias)
    with pytest.raises(ValueError, match="state is a checkpoint of another training problem"):
        load_solution(path, other, program_of(other))
    with pytest.raises(ValueError, match="checkpoint of another training problem"):
        train(X, Y, weight_decay, bias=bias, checkpoint=path)


def test_another_loss_activation_or_program_is_refused(problem, tmp_path):
    """The fingerprint covers what else the numbers mean."""
    path = tmp_path / "state"
    X, Y = problem.X, problem.Y
    train(X, Y, 0.02, checkpoint=path, time_limit=10)
    assert Checkpoint(path, problem).program() == "columns"
    for options in ({"loss": "huber"}, {"activation": "absolute"}, {"program": "lifted"}):
        with pytest.raises(ValueError, match="another training problem, or of another program"):
            train(X, Y, 0.02, checkpoint=path, **options)


@pytest.mark.parametrize(
    "options", [{}, {"activation": "polynomial"}], ids=["columns", "polynomials"]
)
def test_columns_and_polynomials_go_on_too(rng, tmp_path, options):
    """What an interrupted training has reached is where the next one begins."""
    X, Y = rng.standard_normal((16, 2)), rng.standard_normal((16, 2))
    path, rounds = tmp_path / "state", []

    def stop(report):
        raise KeyboardInterrupt

    def count(report):
        rounds.append(report.step)

    first = train(X, Y, 0.02, checkpoint=path, progress=stop, **options)
    # Polynomials of this size are solved in the first chunk.
    assert first.status in ("interrupted", "solved") and path.exists()
    rest = train(X, Y, 0.02, checkpoint=path, progress=count, **options)
    again = list(rounds)
    rounds.clear()
    whole = train(X, Y, 0.02, progress=count, **options)
    assert rest.status == whole.status == "solved"
    np.testing.assert_allclose(rest.upper_bound, whole.upper_bound, rtol=1e-6)
    assert rest.upper_bound <= first.upper_bound * (1 + 1e-12) and len(again) <= len(rounds)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"not a checkpoint\n",
        b"\x93NUMPY\x01\x00v\x00\xff\xfe\n",
        b"[1, 2]\n",
        b"3\n",
        b'{"version": 1}\n',
        b"{}",
        bytes(range(256)),
    ],
)
def test_garbage_is_refused(problem, tmp_path, content):
    path = tmp_path / "garbage"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="garbage is not a checkpoint of jaxcvxnn"):
        load_solution(path, problem, program_of(problem))
    with pytest.raises(ValueError, match="is not a checkpoint of jaxcvxnn"):
        train(problem.X, problem.Y, 0.02, checkpoint=path)
    assert path.read_bytes() == content  # a file of the user's is not overwritten


def test_other_versions_are_refused(problem, tmp_path):
    path = written(problem, tmp_path / "state")
    header, rest = path.read_bytes().split(b"\n", 1)
    fields = json.loads(header)
    fields["version"] = 99
    path.write_bytes(json.dumps(fields).encode() + b"\n" + rest)
    with pytest.raises(ValueError, match="version 99; expected"):
        load_solution(path, problem, program_of(problem))


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_half_a_file_is_refused(problem, tmp_path, part):
    path = written(problem, tmp_path / "state")
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(header + b"\n" + rest[: int(part * len(rest))])
    with pytest.raises(ValueError, match="state"):
        load_solution(path, problem, program_of(problem))


def test_another_precision_is_refused(rng, tmp_path):
    """The same numbers in float32 and in float64 are the same problem, but not the same state."""
    X = rng.standard_normal((N, D)).astype(np.float32)
    Y = rng.standard_normal((N, C)).astype(np.float32)
    wide = TrainingProblem(X.astype(np.float64), Y.astype(np.float64), 0.125)
    path = written(wide, tmp_path / "state")
    with pytest.raises(ValueError, match="state"):
        train(X, Y, 0.125, checkpoint=path)


def test_a_failed_write_leaves_the_old_file(problem, tmp_path, monkeypatch):
    path = written(problem, tmp_path / "state")
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("equinox.tree_serialise_leaves", fail)
    with pytest.raises(KeyboardInterrupt):
        written(problem, path)
    assert path.read_bytes() == before


def test_training_goes_on_where_it_was(problem, tmp_path):
    path = tmp_path / "state"
    X, Y = problem.X, problem.Y
    steps = []

    def stop(report):
        steps.append(report.step)
        raise KeyboardInterrupt

    first = train(
        X, Y, 0.02, width=WIDTH, polish=False, solver=SOLVER, checkpoint=path, progress=stop
    )
    assert first.status == "interrupted" and first.solution is not None and path.exists()
    done = int(first.solution.steps)
    assert 0 < done < 4000
    steps.clear()
    rest = train(X, Y, 0.02, width=WIDTH, polish=False, checkpoint=path)
    assert rest.solution is not None and int(rest.solution.steps) >= done
    # The same numbers as without the pause.
    whole = train(X, Y, 0.02, width=WIDTH, polish=False, solver=SOLVER)
    assert whole.solution is not None
    assert rest.lower_bound >= first.lower_bound
    np.testing.assert_allclose(rest.lower_bound, whole.lower_bound, rtol=1e-2)
    if int(rest.solution.steps) == int(whole.solution.steps):
        np.testing.assert_array_equal(rest.solution.moments, whole.solution.moments)


def test_a_finished_checkpoint_gives_the_same_bounds(problem, tmp_path):
    path = tmp_path / "state"
    call = {"width": WIDTH, "polish": False, "checkpoint": path}
    one = train(problem.X, problem.Y, 0.02, **call)
    saved = path.read_bytes()
    two = train(problem.X, problem.Y, 0.02, **call)
    assert two.lower_bound >= one.lower_bound * (1 - 1e-9)
    assert two.solution is not None and one.solution is not None
    assert int(two.solution.steps) >= int(one.solution.steps)
    assert saved
