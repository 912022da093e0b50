"""`certify`: how far a network, trained anywhere, can be from the global optimum, with proof."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..activations import RELU
from ..bound import relative_gap
from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from ..networks import AbstractTwoLayer, PolynomialNetwork, TwoLayerReLU
from ..pricing.pricer import LARGEST_RANK, Pricer
from ..pricing.slopes import stacked_features
from ..problem import TrainingProblem, in_float64
from ..proof.network import NetworkCertificate
from ..proof.polynomial import certify_polynomial
from ..proof.residual import certify_residual
from .columns import default_tolerance, generate_columns
from .job import Clock
from .spectrahedron_route import TOLERANCE as POLYNOMIAL, train_spectrahedron
from .train import relaxation_bound


def certify(
    network: Any,
    X: Any,
    Y: Any,
    weight_decay: Any = 0.1,
    *,
    loss: AbstractLoss | str = "squared",
    tolerance: float | None = None,
    time_limit: float | None = 60.0,
    seed: int = 0,
) -> NetworkCertificate:
    """Prove how far a two-layer network is from the global optimum of its training problem.

    The network's own residual is the first proof (Sahiner et al., 2021, eq. 11). Where it leaves a gap,
    because the network is not optimal, the global problem is solved in the time left, from this
    network's neurons: by column generation up to rank 6, else by the semidefinite relaxation. For a
    polynomial activation that is the exact program, whatever the rank.

    **Arguments:**

    - `network`: a `TwoLayerReLU`, `TwoLayerLeakyReLU` or `PolynomialNetwork`; weights (U, V) or
      (U, V, b) of a ReLU network, of shapes (d, m), (m, c), (m,), as arrays of any library; or an
      `equinox.nn.MLP` of depth 1 with ReLU and no output bias. PyTorch's `Linear.weight` is the
      transpose: pass (first.weight.T, second.weight.T), detached.
    - `X`, `Y`, `weight_decay`, `loss`: see `TrainingProblem`. The loss is a sum over samples.
    - `tolerance`: the relative gap that is good enough, by default 1e-8 up to rank 2 and 1e-5 above.
    - `time_limit`: seconds after which the best bound so far is returned (None: no limit).
    - `seed`: of the searches for neurons.

    **Raises** a `ValueError` for bad data or weights that do not fit the data.
    """
    checked = as_network(network)
    bias = checked.b is not None
    problem = in_float64(
        TrainingProblem(X, Y, weight_decay, bias=bias, loss=loss, activation=checked.activation)
    )
    _check_fit(checked, problem)
    with jax.enable_x64(True):
        if isinstance(checked, PolynomialNetwork):
            return _certify_polynomial(problem, checked, tolerance, Clock(time_limit))
        return _certify(problem, checked, tolerance, Clock(time_limit), seed)


def _certify_polynomial(
    problem: TrainingProblem, network: PolynomialNetwork, tolerance: float | None, clock: Clock
) -> NetworkCertificate:
    own = certify_polynomial(problem, network)
    if own.relative_gap <= (POLYNOMIAL if tolerance is None else tolerance):
        return own
    best = train_spectrahedron(problem, tolerance, clock, network.width, None)
    if best.lower_bound <= own.lower_bound:
        return own
    return eqx.tree_at(
        lambda c: (c.lower_bound, c.bound_source), own, (best.lower_bound, "the exact program")
    )


def _certify(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    tolerance: float | None,
    clock: Clock,
    seed: int,
) -> NetworkCertificate:
    pricer = Pricer(stacked_features(problem))
    if tolerance is None:
        tolerance = default_tolerance(pricer.rank)
    upper = float(problem.objective(network))
    residual = np.asarray(problem.loss.gradient(network.predict(problem.X), problem.Y))
    first = np.asarray(network.first_layer).T
    budget = None if clock.limit is None else clock.limit / 4
    # Where the relaxation of training follows, which proves more, that of the price takes its time.
    method = "branch_and_bound" if _relaxes(problem, pricer) else "auto"
    proof = certify_residual(
        problem, residual, pricer, method=method, neurons=first, seconds=budget
    )
    lower, source = proof.lower_bound, "the network's own residual"
    if relative_gap(lower, upper) > tolerance:
        better, method = _global_bound(problem, network, pricer, tolerance, clock, seed)
        if better > lower:
            lower, source = better, method
    return NetworkCertificate(
        upper_bound=upper,
        lower_bound=lower,
        weight_decay=float(problem.weight_decay),
        neuron=proof.price.neurons[0] if len(proof.price.neurons) else None,
        price=proof.price.lower,
        price_bound=proof.price.upper,
        bound_source=source,
        residual=residual,
    )


def _global_bound(
    problem: TrainingProblem,
    network: AbstractTwoLayer,
    pricer: Pricer,
    tolerance: float,
    clock: Clock,
    seed: int,
) -> tuple[float, str]:
    """The best lower bound to be had in the time left, and where it comes from."""
    if not _relaxes(problem, pricer):
        found = generate_columns(
            problem, start=network, pricer=pricer, tolerance=tolerance, clock=clock, seed=seed
        )
        return found.lower_bound, f"column generation, {found.rounds} rounds"
    relaxed = relaxation_bound(problem, network, clock)
    return relaxed.lower_bound, "the semidefinite relaxation"


def _relaxes(problem: TrainingProblem, pricer: Pricer) -> bool:
    """Whether the global problem is relaxed, since its rank is too high for column generation."""
    relaxable = isinstance(problem.loss, Squared) and problem.activation == RELU
    return pricer.rank > LARGEST_RANK and relaxable


def as_network(network: Any) -> AbstractTwoLayer:
    """Any of the forms that `certify` takes as a network of NumPy float64 arrays.

    **Raises** a `ValueError` for anything else, shapes that do not fit, and entries that are not
    finite.
    """
    if isinstance(network, eqx.nn.MLP):
        network = _from_mlp(network)
    if not isinstance(network, AbstractTwoLayer):
        if not isinstance(network, tuple | list) or len(network) not in (2, 3):
            raise ValueError(
                "network must be a TwoLayerReLU or its kin, an equinox.nn.MLP of depth 1, or weights "
                f"(U, V) or (U, V, b); got {type(network).__name__}."
            )
        network = TwoLayerReLU(*(None if part is None else np.asarray(part) for part in network))
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), network)
    for name, part in (("U", exact.U), ("V", exact.V), ("b", exact.b)):
        if part is not None and not np.all(np.isfinite(part)):
            raise ValueError(
                f"The network's {name} must be finite; it holds NaN or infinite entries."
            )
    return exact


def _from_mlp(network: eqx.nn.MLP) -> TwoLayerReLU:
    """The weights of an equinox MLP with one hidden layer."""
    if network.depth != 1:
        raise ValueError(
            f"An MLP must have depth 1, one hidden layer; its depth is {network.depth}."
        )
    probe = np.linspace(-2, 2, network.width_size)
    activated = np.asarray(jax.vmap(network.activation)(probe))
    if not np.allclose(activated, np.maximum(probe, 0)):
        raise ValueError("An MLP must have the activation jax.nn.relu.")
    hidden, output = network.layers
    if output.bias is not None and np.any(np.asarray(output.bias)):
        raise ValueError(
            "The output layer has a bias, which these networks do not: train with "
            "use_final_bias=False, or append a column of ones to X."
        )
    bias = None if hidden.bias is None else np.asarray(hidden.bias)
    return TwoLayerReLU(np.asarray(hidden.weight).T, np.asarray(output.weight).T, bias)


def _check_fit(network: AbstractTwoLayer, problem: TrainingProblem) -> None:
    features, outputs = problem.X.shape[1], problem.Y.shape[1]
    if (network.in_features, network.out_features) != (features, outputs):
        raise ValueError(
            f"The network maps {network.in_features} features to {network.out_features} outputs; the "
            f"data have {features} features and {outputs} outputs (U has shape (d, m), V (m, c))."
        )
