"""The training problem: its objective against the formula, and what it refuses at the door."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcvxnn
from jaxcvxnn import TrainingProblem, TwoLayerReLU

from .. import oracles

X = np.array([[1.0, 2.0], [3.0, -4.0], [-5.0, 6.0]])
Y = np.array([[1.0], [2.0], [-3.0]])


def random_network(rng, features, width, outputs, *, bias=False):
    b = rng.standard_normal(width) if bias else None
    return TwoLayerReLU(
        rng.standard_normal((features, width)), rng.standard_normal((width, outputs)), b
    )


@pytest.mark.parametrize("bias", [False, True])
def test_objective_is_the_formula(rng, bias):
    X, Y = rng.standard_normal((7, 3)), rng.standard_normal((7, 2))
    network = random_network(rng, 3, 5, 2, bias=bias)
    problem = TrainingProblem(X, Y, 0.3, bias=bias)
    U = np.asarray(network.first_layer)
    features = np.hstack([X, np.ones((7, 1))]) if bias else X
    np.testing.assert_array_equal(problem.features, features)
    expected = oracles.network_objective(features, Y, U, np.asarray(network.V), 0.3)
    np.testing.assert_allclose(problem.objective(network), expected, rtol=1e-14)
    residual = np.maximum(features @ U, 0) @ network.V - Y
    np.testing.assert_allclose(problem.training_loss(network), np.sum(residual**2) / 2, rtol=1e-14)


def test_the_loss_has_a_half_and_so_does_the_decay():
    # 60 one-hot targets, as Spiral's: the zero network's objective is 30, not 60.
    nothing = TwoLayerReLU(np.zeros((2, 0)), np.zeros((0, 3)))
    problem = TrainingProblem(np.ones((60, 2)), np.eye(3)[np.arange(60) % 3], 0.1)
    assert float(problem.objective(nothing)) == 30.0
    # A neuron that fits exactly leaves the weights only: 0.5 / 2 * (4 + 9).
    problem = TrainingProblem([[1.0]], [[6.0]], 0.5)
    assert float(problem.objective(TwoLayerReLU([[2.0]], [[3.0]]))) == 3.25


def test_the_bias_is_regularised():
    problem = TrainingProblem(X, Y, 0.1, bias=True)
    network = TwoLayerReLU(np.zeros((2, 1)), np.zeros((1, 1)), np.array([3.0]))
    assert float(problem.objective(network) - problem.training_loss(network)) == pytest.approx(0.45)


def test_one_output_may_be_a_vector():
    assert TrainingProblem(X, Y[:, 0], 0.1).Y.shape == (3, 1)
    network = TwoLayerReLU(np.eye(2), np.ones((2, 1)))
    ours = TrainingProblem(X, Y[:, 0], 0.1).objective(network)
    assert float(ours) == float(TrainingProblem(X, Y, 0.1).objective(network))


def test_inputs_are_left_as_they_are():
    samples, targets = X.copy(), Y.copy()
    problem = TrainingProblem(samples, targets, 0.1)
    problem.objective(TwoLayerReLU(np.eye(2), np.ones((2, 1))))
    np.testing.assert_array_equal(samples, X)
    np.testing.assert_array_equal(targets, Y)


BAD_DATA = {
    "nan in X": (
        [[1, 2], [3, np.nan]],
        [1, 2],
        r"X must be finite: entry \(1, 1\) is nan \(1 of 4",
    ),
    "inf in X": ([[1, -np.inf], [3, np.inf]], [1, 2], r"X .* entry \(0, 1\) is -inf \(2 of 4"),
    "nan in Y": (X, [1, np.nan, 3], r"Y must be finite: entry \(1,\) is nan"),
    "inf in jax Y": (X, jnp.array([[1.0], [2], [jnp.inf]]), r"Y .* entry \(2, 0\) is inf"),
    "float16 inf": (np.array([[1], [np.inf]], np.float16), [1, 2], r"X .* entry \(1, 0\) is inf"),
    "other length": (X, [1, 2], r"X has shape \(3, 2\), Y has shape \(2, 1\)"),
    "transposed": (X.T, Y, r"X has shape \(2, 3\), Y has shape \(3, 1\)"),
    "3-D X": (X[None], [1], r"X must have shape \(n, d\); its shape is \(1, 3, 2\)"),
    "3-D Y": (X, Y[None], r"Y must have shape \(n, c\) or \(n,\); its shape is \(1, 3, 1\)"),
    "1-D X": (X[0], [1, 2], r"X must have shape \(n, d\); its shape is \(2,\)"),
    "number": (3.0, [1], r"X must have shape \(n, d\); its shape is \(\)"),
    "no samples": (np.zeros((0, 2)), np.zeros((0, 1)), r"X is empty: its shape is \(0, 2\)"),
    "no features": (np.zeros((3, 0)), Y, r"X is empty: its shape is \(3, 0\)"),
    "no outputs": (X, np.zeros((3, 0)), r"Y is empty: its shape is \(3, 0\)"),
    "complex": (X + 1j, Y, r"X must hold real numbers; its dtype is complex128"),
    "complex jax": (X, jnp.asarray(Y + 1j), r"Y must hold real numbers; its dtype is complex128"),
    "strings": ([["a", "b"]], [1], r"X must hold real numbers; its dtype is <U1"),
    "dates": (X, np.array(["2020-01-01"] * 3, "datetime64[D]"), r"Y must hold real numbers"),
    "objects": ([[1, None]], [1], r"X must hold real numbers; its dtype is object"),
    "None": (None, Y, r"X must hold real numbers; its dtype is object"),
    "ragged": ([[1, 2], [3]], [1, 2], r"X must be a rectangular array of numbers"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(case):
    samples, targets, message = BAD_DATA[case]
    with pytest.raises(ValueError, match=message):
        TrainingProblem(samples, targets, 0.1)


@pytest.mark.parametrize(
    ("weight_decay", "message"),
    [
        (0, "got 0.0"),
        (0.0, "got 0.0"),
        (-0.1, "got -0.1"),
        (np.nan, "got nan"),
        (np.inf, "got inf"),
        (-np.inf, "got -inf"),
        (None, "got None"),
        ("much", "got 'much'"),
        (1j, "got 1j"),
        ([0.1], r"got \[0.1\]"),
        (np.array([0.1]), r"got array\(\[0.1\]\)"),
        (np.array([0.1, 0.2]), r"got array\(\[0.1, 0.2\]\)"),
        (jnp.array([0.1, 0.2]), r"got Array\(\[0.1, 0.2\]"),
        (jnp.array(-1.0), "got -1.0"),
        (jnp.array(jnp.nan), "got nan"),
        (10**400, "got 1000"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bad_weight_decay_is_named(weight_decay, message):
    with pytest.raises(ValueError, match="weight_decay must be a positive.*" + message):
        TrainingProblem(X, Y, weight_decay)


@pytest.mark.parametrize("weight_decay", [1e-50, 1e300])
def test_weight_decay_that_float32_cannot_hold_is_refused(weight_decay):
    # It would become 0 or infinite, which the constructor refuses when given directly.
    with pytest.raises(ValueError, match="weight_decay"):
        TrainingProblem(X.astype(np.float32), Y.astype(np.float32), weight_decay)


@pytest.mark.parametrize("library", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.bool_, np.float64),
        (np.int8, np.float64),
        (np.uint8, np.float64),
        (np.int64, np.float64),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (jnp.bfloat16, np.float32),
    ],
    ids=lambda d: np.dtype(d).name,
)
def test_dtypes_with_64_bits(library, given, kept):
    values = np.array([[0, 1], [1, 1]])
    problem = TrainingProblem(library.asarray(values, given), library.asarray([1, 0], given), 0.5)
    assert problem.X.dtype == problem.Y.dtype == problem.weight_decay.dtype == kept
    assert isinstance(problem.X, np.ndarray if library is np else jax.Array)
    np.testing.assert_array_equal(problem.X, values)
    network = TwoLayerReLU(np.eye(2, dtype=kept), np.ones((2, 1), kept))
    assert problem.objective(network).dtype == kept
    assert float(problem.objective(network)) == 1.0 + (0 - 1) ** 2 / 2 + (2 - 0) ** 2 / 2 - 0.5


@pytest.mark.parametrize("given", [np.bool_, np.int32, np.float16, np.float32])
def test_dtypes_without_64_bits(given):
    with jax.enable_x64(False):
        ours = TrainingProblem(jnp.asarray(X, given), jnp.asarray(Y, given), 0.5)
        assert ours.X.dtype == ours.Y.dtype == ours.weight_decay.dtype == np.float32
        network = TwoLayerReLU(np.eye(2), np.ones((2, 1)))
        assert ours.objective(network).dtype == np.float32
        # NumPy's integers have room for float64 whatever JAX's switch says.
        on_host = TrainingProblem(X.astype(np.int32), Y.astype(np.int32), 0.5)
        assert on_host.X.dtype == np.float64


def test_unsigned_integers_do_not_wrap():
    # -1 as an unsigned byte is 255; a target below a prediction must not become a large number.
    problem = TrainingProblem(np.array([[2]], np.uint8), np.array([[1]], np.uint8), 0.5)
    assert float(problem.training_loss(TwoLayerReLU([[1.0]], [[1.0]]))) == 0.5


def test_mixed_precisions_meet_in_the_wider():
    problem = TrainingProblem(X.astype(np.float32), Y, 0.1)
    assert problem.X.dtype == problem.Y.dtype == np.float64


def test_long_doubles_are_accepted_in_a_precision_that_jax_has():
    problem = TrainingProblem(X.astype(np.longdouble), Y, 0.1)
    network = TwoLayerReLU(np.eye(2), np.ones((2, 1)))
    expected = TrainingProblem(X, Y, 0.1).objective(network)
    assert float(problem.objective(network)) == float(expected)


@pytest.mark.parametrize("weight_decay", [0.5, np.float32(0.5), "jax"])
def test_numpy_and_jax_arrays_mix_without_64_bits(weight_decay):
    # Users of JAX's default precision hold NumPy data in float64; nothing may warn.
    with jax.enable_x64(False):
        decay = jnp.asarray(0.5) if weight_decay == "jax" else weight_decay
        problem = TrainingProblem(X, jnp.asarray(Y), decay)
        assert float(problem.weight_decay) == 0.5


def test_weight_decay_may_be_traced_without_64_bits():
    with jax.enable_x64(False):
        network = TwoLayerReLU(np.eye(2), np.ones((2, 1)))
        decays = jnp.array([0.5, 1.0])
        values = jax.vmap(lambda decay: TrainingProblem(X, Y, decay).objective(network))(decays)
        np.testing.assert_allclose(values[1] - values[0], 1.0, rtol=1e-5)


def test_traced_data(rng):
    network = random_network(rng, 2, 4, 1)

    def objective(X, Y, weight_decay):
        return TrainingProblem(X, Y, weight_decay).objective(network)

    expected = objective(X, Y, 0.2)
    np.testing.assert_allclose(jax.jit(objective)(X, Y, 0.2), expected, rtol=1e-14)
    batch = jax.vmap(objective, in_axes=(None, None, 0))(X, Y, jnp.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(batch[1], expected, rtol=1e-14)
    trials = jax.vmap(objective)(np.stack([X, 2 * X]), np.stack([Y, Y]), jnp.array([0.2, 0.2]))
    np.testing.assert_allclose(trials, [expected, objective(2 * X, Y, 0.2)], rtol=1e-14)
    slope = jax.grad(objective, argnums=2)(X, Y, 0.2)
    np.testing.assert_allclose(slope, network.squared_norm / 2, rtol=1e-14)


def test_shapes_are_checked_under_jit():
    with pytest.raises(ValueError, match=r"X has shape \(3, 2\), Y has shape \(2, 1\)"):
        jax.jit(lambda X, Y: TrainingProblem(X, Y, 0.1).X)(X, Y[:2])
    with pytest.raises(ValueError, match=r"its shape is \(2,\)"):
        jax.jit(lambda X: TrainingProblem(X, Y, 0.1).X)(X[0])
    with pytest.raises(ValueError, match="weight_decay"):
        jax.jit(lambda decay: TrainingProblem(X, Y, decay).X)(jnp.array([0.1, 0.2]))


def test_a_problem_passes_through_jit_and_tree_maps():
    problem = TrainingProblem(X, Y, 0.1, bias=True)
    network = TwoLayerReLU(np.eye(2), np.ones((2, 1)), np.zeros(2))
    value = jax.jit(lambda p, f: p.objective(f))(problem, network)
    np.testing.assert_allclose(value, problem.objective(network), rtol=1e-14)
    again = jax.tree.map(lambda leaf: leaf, problem)
    assert again.bias is True and np.array_equal(again.X, X)


@pytest.mark.parametrize(
    "program", [jaxcvxnn.programs.SDPRelaxation(), jaxcvxnn.programs.ExactPlanar()]
)
def test_programs_of_the_squared_loss_refuse_others(program):
    problem = TrainingProblem(np.eye(2), [1, -1], 0.1, loss="logistic")
    with pytest.raises(ValueError, match="squared loss only; the problem's is 'logistic'"):
        jaxcvxnn.solve(problem, program)
    with pytest.raises(ValueError, match="squared loss only"):
        jaxcvxnn.reduction.reduce(problem)


def test_labels_of_classification_losses_become_targets():
    X = np.ones((3, 2), np.float32)
    logistic = TrainingProblem(X, [0, 1, 1], 0.1, loss="logistic")
    np.testing.assert_array_equal(logistic.Y[:, 0], [-1, 1, 1])
    softmax = TrainingProblem(X, [2, 0, 1], 0.1, loss="softmax")
    np.testing.assert_array_equal(softmax.Y, np.eye(3)[[2, 0, 1]])
    assert softmax.X.dtype == softmax.Y.dtype == np.float32
    with pytest.raises(ValueError, match="hinge"):
        TrainingProblem(X, [0.5, 1, 1], 0.1, loss="hinge")
    with pytest.raises(ValueError, match="squared"):
        TrainingProblem(X, [0.5, 1, 1], 0.1, loss="quadratic")
