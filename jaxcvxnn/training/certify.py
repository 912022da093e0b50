"""`certify`: how far a network, trained anywhere, can be from the global optimum, with proof."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..activations import RELU, Polynomial
from ..geometry.directions import row_space
from ..job import Job, Progress
from ..losses.base import AbstractLoss
from ..losses.regression import Squared
from ..networks import AbstractTwoLayer, TwoLayerReLU
from ..pricing.budget import Budget
from ..pricing.pricer import LARGEST_RANK, Pricer
from ..problem import TrainingProblem, in_float64
from ..proof.network import NetworkCertificate, certify_network
from ..proof.residual import trivial_bound
from .columns_route import ColumnsRoute
from .lifted_route import LiftedRoute
from .route import AbstractRoute, Outcome
from .spectrahedron_route import SpectrahedronRoute

# Of the time, what the proof by the network's own residual may take.
OWN_SHARE = 0.25


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
    progress: Callable[[Progress], None] | None = None,
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
    - `progress`: called with a `Progress` after each chunk of work on the global problem.

    **Raises** a `ValueError` for bad data or weights that do not fit the data.
    """
    checked = as_network(network)
    bias = checked.b is not None
    problem = in_float64(
        TrainingProblem(X, Y, weight_decay, bias=bias, loss=loss, activation=checked.activation)
    )
    with jax.enable_x64(True):
        return certify_by(
            global_route(problem, tolerance, seed),
            problem,
            checked,
            Job(time_limit, progress=progress),
        )


def certify_by(
    route: AbstractRoute, problem: TrainingProblem, network: AbstractTwoLayer, job: Job
) -> NetworkCertificate:
    """`certify`, with one route for the global problem; everything in float64."""
    prepared = route.prepare(problem, job)
    pricer = prepared if isinstance(prepared, Pricer) else None
    own_share = Budget(job=job.part(OWN_SHARE))
    # Where the relaxation of training follows, which proves more, that of the price takes its time.
    method = "branch_and_bound" if isinstance(route, LiftedRoute) else "auto"
    own = certify_network(problem, network, pricer=pricer, budget=own_share, method=method)
    if own.relative_gap <= route.enough(prepared) or job.over():
        return own
    start = Outcome(
        network=network,
        upper_bound=own.upper_bound,
        certificate=trivial_bound(problem),
        status="",
    )
    found = route.run(prepared, problem, start, job)
    return own.better(found.lower_bound, route.source(found))


def global_route(problem: TrainingProblem, tolerance: float | None, seed: int) -> AbstractRoute:
    """How the global problem is solved: the exact program of polynomials, the relaxation where the rank
    is too high for column generation and the loss allows it, else column generation."""
    if isinstance(problem.activation, Polynomial):
        return SpectrahedronRoute(tolerance=tolerance)
    relaxable = isinstance(problem.loss, Squared) and problem.activation == RELU
    if relaxable and row_space(problem.features).shape[1] > LARGEST_RANK:
        return LiftedRoute(network=False, tolerance=tolerance)
    return ColumnsRoute(tolerance=tolerance, seed=seed)


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
