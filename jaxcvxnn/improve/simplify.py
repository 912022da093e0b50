"""Networks with fewer neurons of almost the same objective."""

import functools

import jax

from ..job import Job
from ..networks import AbstractTwoLayer
from ..problem import TrainingProblem
from .insertion import refit_network
from .polish import merge, prune

# Of a polished network's objective, the part that fewer neurons may cost, and the angles (1 - cosine)
# up to which neurons are merged, which are also the parts of the strongest that are dropped.
SIMPLER = 1e-6
TOLERANCES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6, 1e-8)


def simplify(
    problem: TrainingProblem, network: AbstractTwoLayer, *, width: int = 300, job: Job | None = None
) -> AbstractTwoLayer:
    """The network with parallel neurons merged and weak ones dropped, as far as this costs at most
    `SIMPLER` of the objective once the output weights are fitted again, until `job` is over."""
    job = Job() if job is None else job
    limit = (1 + SIMPLER) * float(problem.objective(network))
    network = prune(network)
    tolerances = list(TOLERANCES)
    while tolerances:
        fewer = prune(merge(network, tolerance=tolerances[0]), threshold=tolerances[0])
        refit = functools.partial(refit_network, problem, fewer, width=width)
        fitted = job.chunk(lambda refit=refit: jax.block_until_ready(refit()))
        if fitted is None:
            break
        simpler = prune(fitted)
        if simpler.width < network.width and float(problem.objective(fitted)) <= limit:
            network, tolerances = simpler, list(TOLERANCES)
        else:
            tolerances.pop(0)
    return network
