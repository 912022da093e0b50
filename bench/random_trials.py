"""Speed and certified bounds on the Random trials of Prakhya et al. (2025), against SCS and Clarabel.

    python -m bench.random_trials [--data FILE.npz] [--trials 5] [--peer-trials 5]
                                  [--weight-decays 0.1 0.01] [--skip-scs] [--skip-clarabel] [--scaling]

Run it from the project's root: the reference programs are those of `tests/oracles.py`. The file holds
X (trials, n, d) and Y (trials, n, c); without one the trials are generated, from the same distribution.

All trials and weight decays of ours are lanes of one `jit(vmap(...))`; its time per trial is the time
of the warm call (median of 3) divided by the number of lanes. The peers solve (SDP-NN) as printed,
with the loss halved, one CVXPY problem after another; `seconds` is the time of `problem.solve()` after
construction, which contains CVXPY's canonicalisation, `solver` what the solver itself reports.

Every row is judged by the same code. `reported` is the solver's own objective; `recomputed` and
`violation` (of the printed constraints, absolute) come from the point that it returned. `bound` is
proven: its dual pair, only shrunk until it is feasible. `repaired` is proven too, after the
certificate has re-optimised what it can, so it says less about the solver; `certify` is the time
that took, which `seconds` does not contain. `exact` is the global optimum of training, to about
1e-8. The status of ours is followed by the number of steps.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tests import oracles

Matrix = NDArray[np.float64]

OURS = "jaxcvxnn"
REPEATS = 3


class Row(NamedTuple):
    """One method on one trial at one weight decay."""

    method: str
    trial: int
    weight_decay: float
    status: str
    seconds: float
    solver_seconds: float
    reported: float
    recomputed: float
    violation: float
    bound: float
    repaired: float
    certificate: float  # seconds for the repaired bound


class Lane(NamedTuple):
    """Our solution of one trial at one weight decay, for the caller's X and Y."""

    objective: float
    status: str
    steps: int
    Lambda: Matrix  # (p, p), ordered as in the printed program
    dual: oracles.DualPair


class Batch(NamedTuple):
    """Our solutions, trials before weight decays, and what the whole call cost."""

    lanes: list[list[Lane]]
    seconds: float
    compile_seconds: float


# ----------------------------------------------------------------------
# The library's side: the functions below are the only ones that call it


def run_ours(X: Matrix, Y: Matrix, weight_decays: Sequence[float], settings: dict) -> Batch:
    """Solve (trials, n, d) x (trials, n, c) x weight decays as one batch of lanes."""
    import jax
    import jax.numpy as jnp

    import jaxcone
    import jaxcvxnn

    def lane(samples, targets, weight_decay):
        problem = jaxcvxnn.TrainingProblem(samples, targets, weight_decay)
        solver = jaxcone.Splitting(**settings)
        found = jaxcvxnn.solve(problem, jaxcvxnn.programs.SDPRelaxation(), solver)
        return found.objective, found.status, found.steps, found.moments, found.multipliers

    over_weight_decays = jax.vmap(lane, in_axes=(None, None, 0))
    batched = jax.jit(jax.vmap(over_weight_decays, in_axes=(0, 0, None)))
    arguments = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(weight_decays, X.dtype)
    begun = time.perf_counter()
    compiled = batched.lower(*arguments).compile()
    compile_seconds = time.perf_counter() - begun
    result = jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - begun)
    objective, status, steps, moments, multipliers = result
    objective, steps, moments, multipliers = map(
        np.asarray, (objective, steps, moments, multipliers)
    )
    lanes = []
    for i, (samples, targets) in enumerate(zip(X, Y, strict=True)):
        # Solved for rows of unit length: alpha and omega scale with the lengths, N inversely.
        n = len(samples)
        lengths = np.linalg.norm(samples, axis=1)
        stretch = np.concatenate([lengths, np.ones(moments.shape[-1] - n)])
        pairs = np.concatenate([lengths, lengths])
        lanes.append([])
        for j in range(len(weight_decays)):
            S = moments[i, j] * np.outer(stretch, stretch)
            R = S[:n, n + samples.shape[1] :] - targets
            dual = oracles.DualPair(R, multipliers[i, j] / np.outer(pairs, pairs))
            Lambda = oracles.paper_point(samples, S)
            value, count = float(objective[i, j]), int(steps[i, j])
            name = _status_name(jax.tree.map(lambda values, at=(i, j): values[at], status))
            lanes[-1].append(Lane(value, name, count, Lambda, dual))
    return Batch(lanes, statistics.median(seconds), compile_seconds)


def certified_bounds(
    X: Matrix, Y: Matrix, weight_decay: float, dual: oracles.DualPair, certify: bool
) -> tuple[float, float, float]:
    """Proven lower bounds from a dual pair, as it is and repaired, and the seconds of the latter.

    Without `certify` the library is left alone: plain float64, roundings not accounted for.
    """
    if not certify:
        plain = oracles.repaired_bound(X, Y, dual.R, dual.N, weight_decay)
        return plain, float("nan"), float("nan")
    import jaxcvxnn

    problem = jaxcvxnn.TrainingProblem(X, Y, weight_decay)
    plain = jaxcvxnn.proof.certify_dual(problem, dual.R, dual.N, repair=False).lower_bound
    begun = time.perf_counter()
    repaired = jaxcvxnn.proof.certify_dual(problem, dual.R, dual.N).lower_bound
    return plain, repaired, time.perf_counter() - begun


class Cost(NamedTuple):
    """What one lifted solve of n samples needs: working memory, carried state, time of a step."""

    n: int
    temporary_bytes: int
    state_bytes: int
    seconds_per_step: float


def scaling_cost(X: Matrix, Y: Matrix, weight_decay: float, few: int, many: int) -> Cost:
    """Time of a step: the difference of a long and a short solve, so without the set-up.

    Of each the fastest of several runs, since whatever else runs on the machine only adds to it.
    """
    import jax

    import jaxcone
    import jaxcvxnn

    def lane(samples, targets, max_steps):
        problem = jaxcvxnn.TrainingProblem(samples, targets, weight_decay)
        solver = jaxcone.Splitting(tolerance=1e-30, max_steps=max_steps)
        found = jaxcvxnn.solve(problem, jaxcvxnn.programs.SDPRelaxation(), solver)
        return found.moments, found.multipliers, found.steps

    compiled = jax.jit(lane).lower(X, Y, few).compile()

    def timed(max_steps: int) -> tuple[float, int]:
        seconds, steps = [], 0
        for _ in range(REPEATS):
            begun = time.perf_counter()
            steps = int(jax.block_until_ready(compiled(X, Y, max_steps))[-1])
            seconds.append(time.perf_counter() - begun)
        return min(seconds), steps

    jax.block_until_ready(compiled(X, Y, few))
    (short, first), (long, last) = timed(few), timed(many)
    memory: Any = compiled.memory_analysis()
    state = _largest_carry(jax.make_jaxpr(lane)(X, Y, few).jaxpr)
    per_step = (long - short) / (last - first) if last > first and long > short else float("nan")
    return Cost(len(X), int(memory.temp_size_in_bytes), state, per_step)


def _status_name(status: Any) -> str:
    import jaxcone

    names = ("running", "solved", "inaccurate", "max_steps", "nonfinite")
    return next(name for name in names if bool(status == getattr(jaxcone.Status, name)))


def _largest_carry(jaxpr: Any) -> int:
    """Bytes that the largest `while` loop of a jaxpr carries from one iteration to the next."""
    from jax.extend.core import jaxprs_in_params

    largest = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            avals = [variable.aval for variable in equation.outvars]
            largest = max(largest, sum(a.size * a.dtype.itemsize for a in avals))
        for inner in jaxprs_in_params(equation.params):
            largest = max(largest, _largest_carry(inner))
    return largest


# ----------------------------------------------------------------------
# The peers


class Peer(NamedTuple):
    name: str
    form: Any  # builds the CVXPY problem of (X, Y, weight_decay)
    solver: str
    options: dict[str, Any]


SCS = Peer("SCS, printed", oracles.paper_form, "SCS", {"eps_abs": 1e-4, "eps_rel": 1e-4})
CLARABEL = Peer("Clarabel, printed", oracles.paper_form, "CLARABEL", {})
# The strongest peer: it gets our exact reduction of the program, too.
REDUCED = Peer("Clarabel, reduced", oracles.lifted_form, "CLARABEL", {})


def run_peer(
    peer: Peer, trial: int, X: Matrix, Y: Matrix, weight_decay: float, certify: bool
) -> Row:
    """Construct, solve with the clock running, judge the returned point and dual."""
    import cvxpy

    form = peer.form(X, Y, weight_decay)
    nan = float("nan")
    begun = time.perf_counter()
    try:
        reported = form.solve(peer.solver, **peer.options)
    except cvxpy.SolverError:
        spent = time.perf_counter() - begun
        return Row(peer.name, trial, weight_decay, "error", spent, *[nan] * 7)
    spent = time.perf_counter() - begun
    statistics_ = form.problem.solver_stats
    inside = (statistics_.solve_time or 0.0) + (statistics_.setup_time or 0.0)
    status = form.problem.status
    if not np.isfinite(reported):
        return Row(peer.name, trial, weight_decay, status, spent, inside, *[nan] * 6)
    Lambda = form.point if isinstance(form, oracles.PaperForm) else form.paper_point()
    return Row(
        peer.name,
        trial,
        weight_decay,
        status,
        spent,
        inside,
        reported,
        *_judge(X, Y, weight_decay, Lambda, form.dual_pair(), certify),
    )


def _judge(
    X: Matrix, Y: Matrix, weight_decay: float, Lambda: Matrix, dual: oracles.DualPair, certify: bool
) -> tuple[float, float, float, float, float]:
    """(recomputed objective, largest violation, bound, repaired bound, seconds of the repair)."""
    return (
        oracles.paper_objective(X, Y, weight_decay, Lambda),
        oracles.paper_violations(X, Lambda).largest,
        *certified_bounds(X, Y, weight_decay, dual, certify),
    )


# ----------------------------------------------------------------------
# Data and tables


def random_trial(seed: int, n: int = 25, d: int = 2, c: int = 5) -> tuple[Matrix, Matrix]:
    """n standard normal points and the outputs of a standard normal network of 100 neurons."""
    draw = np.random.default_rng(seed).standard_normal
    X, U, V = draw((n, d)), draw((d, 100)), draw((100, c))
    return X, np.maximum(X @ U, 0.0) @ V


def load(path: Path | None, count: int) -> tuple[str, Matrix, Matrix]:
    """(name, X (trials, n, d), Y (trials, n, c))."""
    if path is None or not path.exists():
        trials = [random_trial(seed) for seed in range(count)]
        X, Y = (np.stack(part) for part in zip(*trials, strict=True))
        return "generated trials", X, Y
    with np.load(path) as arrays:
        X, Y = (np.asarray(arrays[name], np.float64)[:count] for name in ("X", "Y"))
    return path.name, X, Y


def default_data() -> Path | None:
    folder = os.environ.get("JAXCVXNN_DATA")
    return Path(folder) / "random_trials_00_49.npz" if folder else None


HEADER = (
    f"{'wd':>6} {'trial':>5} {'method':<18} {'status':<18} {'seconds':>8} {'solver':>8} "
    f"{'reported':>10} {'recomputed':>10} {'violation':>9} {'bound':>10} {'repaired':>10} "
    f"{'exact':>10} {'certify':>8}"
)


def print_row(row: Row, exact: float) -> None:
    print(
        f"{row.weight_decay:>6g} {row.trial:>5} {row.method:<18} {row.status:<18} "
        f"{row.seconds:>8.4f} {row.solver_seconds:>8.4f} {row.reported:>10.6f} "
        f"{row.recomputed:>10.6f} {row.violation:>9.1e} {row.bound:>10.6f} {row.repaired:>10.6f} "
        f"{exact:>10.6f} {row.certificate:>8.4f}",
        flush=True,
    )


def summarise(rows: list[Row], exact: dict[tuple[int, float], float]) -> None:
    """Means over the trials that every method has solved; shares are of the relaxation's value."""
    methods = list(dict.fromkeys(row.method for row in rows))
    print("\nMeans over the trials that all methods ran. `times ours` is seconds / (our seconds +")
    print("our certificate's seconds): the peers' certificates are free.")
    print("`share` is bound / value of the relaxation, `after` is that of the repaired bound;")
    print("the value is the best repaired bound of any method, so a share is an upper figure.")
    print(
        f"\n{'wd':>6} {'method':<18} {'trials':>6} {'seconds':>9} {'certify':>8} {'times ours':>10} "
        f"{'reported':>10} {'violation':>9} {'bound':>10} {'repaired':>10} {'exact':>10} "
        f"{'share':>8} {'after':>8}"
    )
    for weight_decay in dict.fromkeys(row.weight_decay for row in rows):
        here = [row for row in rows if row.weight_decay == weight_decay]
        common = set.intersection(*({r.trial for r in here if r.method == m} for m in methods))
        value = {
            trial: np.nanmax([[r.bound, r.repaired] for r in here if r.trial == trial])
            for trial in common
        }
        relaxation = np.mean(list(value.values()))
        optimum = np.mean([exact[trial, weight_decay] for trial in common])
        ours = [r.seconds + r.certificate for r in here if r.method == OURS]
        for method in methods:
            own = [r for r in here if r.method == method and r.trial in common]
            mean = {
                name: float(np.mean([getattr(r, name) for r in own]))
                for name in ("seconds", "certificate", "reported", "violation", "bound", "repaired")
            }
            ratio = mean["seconds"] / float(np.mean(ours)) if ours else float("nan")
            print(
                f"{weight_decay:>6g} {method:<18} {len(own):>6} {mean['seconds']:>9.4f} "
                f"{mean['certificate']:>8.4f} {ratio:>10.1f} {mean['reported']:>10.6f} "
                f"{mean['violation']:>9.1e} {mean['bound']:>10.6f} {mean['repaired']:>10.6f} "
                f"{optimum:>10.6f} {mean['bound'] / relaxation:>8.2%} "
                f"{mean['repaired'] / relaxation:>8.2%}"
            )
        all_ours = [r for r in here if r.method == OURS]
        if len(all_ours) > len(common):
            reported = np.array([r.reported for r in all_ours])
            repaired = np.array([r.repaired for r in all_ours])
            best = np.array([exact[r.trial, weight_decay] for r in all_ours])
            print(
                f"{weight_decay:>6g} {OURS}, all {len(all_ours)} trials: reported "
                f"{reported.mean():.4f} +- {reported.std(ddof=1):.4f}, repaired bound "
                f"{repaired.mean():.4f} +- {repaired.std(ddof=1):.4f}, exact "
                f"{best.mean():.4f} +- {best.std(ddof=1):.4f}"
            )


def print_scaling(sizes: Sequence[int], weight_decay: float, few: int, many: int) -> None:
    """Memory and time of a step against n, with the exponents of power laws fitted to them."""
    print(f"\nOne lifted solve of n random points, d = 2, c = 5, weight decay {weight_decay:g}")
    print(f"{'n':>6} {'temporary MiB':>14} {'state MiB':>10} {'ms per step':>12}")
    costs = []
    for n in sizes:
        cost = scaling_cost(*random_trial(0, n), weight_decay, few, many)
        costs.append(cost)
        print(
            f"{n:>6} {cost.temporary_bytes / 2**20:>14.2f} {cost.state_bytes / 2**20:>10.2f} "
            f"{1e3 * cost.seconds_per_step:>12.3f}",
            flush=True,
        )
    if len(costs) < 2:
        return
    table = np.array(costs, dtype=np.float64)
    logs = np.log(table[np.isfinite(table).all(axis=1)])
    slopes = [np.polyfit(logs[:, 0], logs[:, column], 1)[0] for column in (1, 2, 3)]
    print(f"{'n^':>6} {slopes[0]:>14.2f} {slopes[1]:>10.2f} {slopes[2]:>12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=default_data())
    parser.add_argument("--trials", type=int, default=5, help="trials for ours")
    parser.add_argument("--peer-trials", type=int, default=5, help="how many of them for the peers")
    parser.add_argument("--weight-decays", type=float, nargs="+", default=[0.1, 0.01])
    parser.add_argument("--skip-ours", action="store_true", help="no call of jaxcvxnn at all")
    parser.add_argument("--skip-scs", action="store_true")
    parser.add_argument("--skip-clarabel", action="store_true", help="on the printed program")
    parser.add_argument(
        "--skip-reduced", action="store_true", help="Clarabel on the reduced program"
    )
    parser.add_argument("--tolerance", type=float, help="of ours; by default the library's")
    parser.add_argument("--max-steps", type=int, default=500, help="of ours")
    parser.add_argument("--scaling", action="store_true", help="memory and time against n, only")
    parser.add_argument("--sizes", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--scaling-steps", type=int, nargs=2, default=[50, 350])
    options = parser.parse_args()
    if not options.skip_ours:
        import jax

        jax.config.update("jax_enable_x64", True)
        print(f"jax {jax.__version__} on {jax.devices()[0]}, {os.cpu_count()} CPU cores")
    if options.scaling:
        print_scaling(options.sizes, options.weight_decays[0], *options.scaling_steps)
        return

    name, X, Y = load(options.data, options.trials)
    print(f"{name}: X {X.shape}, Y {Y.shape}, weight decays {options.weight_decays}")
    cases = [(t, wd) for wd in options.weight_decays for t in range(len(X))]
    exact = {(t, wd): oracles.exact_rank2(X[t], Y[t], wd) for t, wd in cases}
    rows: list[Row] = []
    certify = not options.skip_ours
    if not options.skip_ours:
        chosen = {"tolerance": options.tolerance, "max_steps": options.max_steps}
        settings = {key: value for key, value in chosen.items() if value is not None}
        batch = run_ours(X, Y, options.weight_decays, settings)
        each = batch.seconds / len(cases)
        steps = [lane.steps for lanes in batch.lanes for lane in lanes]
        print(
            f"{OURS}: {len(cases)} lanes in {batch.seconds:.3f} s, compiled in "
            f"{batch.compile_seconds:.1f} s, {min(steps)} to {max(steps)} steps"
        )
        for t, wd in cases:
            lane = batch.lanes[t][options.weight_decays.index(wd)]
            judged = _judge(X[t], Y[t], wd, lane.Lambda, lane.dual, certify)
            status = f"{lane.status}, {lane.steps}"
            rows.append(Row(OURS, t, wd, status, each, each, lane.objective, *judged))
    choice = (
        (SCS, options.skip_scs),
        (CLARABEL, options.skip_clarabel),
        (REDUCED, options.skip_reduced),
    )
    print(HEADER)
    for row in rows:
        print_row(row, exact[row.trial, row.weight_decay])
    for peer in (peer for peer, skip in choice if not skip):
        for t, wd in cases:
            if t < options.peer_trials:
                rows.append(run_peer(peer, t, X[t], Y[t], wd, certify))
                print_row(rows[-1], exact[t, wd])
    if rows:
        summarise(rows, exact)


if __name__ == "__main__":
    main()
