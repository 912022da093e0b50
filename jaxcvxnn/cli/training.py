"""`jaxcvxnn train` and `jaxcvxnn path`: networks from a CSV file, with a bound that no other beats."""

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import arrays, read
from .errors import user_input
from .outputs import about, check_outputs, file_of
from .report import lower_bound, print_facts, progress, relative_gap

if TYPE_CHECKING:
    import numpy as np

    from ..training.path import RegularizationPath
    from ..training.result import TrainingResult
    from .data import Scaling
    from .tables import Table

ADAM_STEPS = 20_000


def run_train(arguments: argparse.Namespace) -> int:
    """Train one network, say how good it is, and write what was asked for."""
    with user_input():
        table = read(arguments)
        check_outputs(arguments.out, plot=arguments.plot)

    import jax

    from ..problem import TrainingProblem
    from ..training.choose_route import choose_program
    from ..training.train import train

    with jax.enable_x64(arguments.dtype == "float64"):
        with user_input():
            X, Y, scaling = arrays(arguments, table)
            problem = TrainingProblem(X, Y, arguments.weight_decay, **_of_network(arguments))
            choose_program(arguments.program, problem)
        print(_describe(arguments, table), flush=True)
        started = time.perf_counter()
        with progress(arguments.quiet) as shown:
            result = train(
                X,
                Y,
                arguments.weight_decay,
                program=arguments.program,
                progress=shown,
                **_of_network(arguments),
                **_of_training(arguments),
            )
        seconds = time.perf_counter() - started
        facts = [*_found(table, X, result), ("time", f"{seconds:.1f} s")]
        with user_input():
            facts += _keep(arguments, table, scaling, result)
    print_facts(facts)
    return 0


def run_path(arguments: argparse.Namespace) -> int:
    """Train a network at each weight decay, print the table, and write what was asked for."""
    decays = arguments.weight_decays
    with user_input():
        table = read(arguments)
        files = [file_of(arguments.out, decay) for decay in decays if arguments.out]
        if arguments.out:
            Path(arguments.out).mkdir(exist_ok=True)
        check_outputs(*files, plot=arguments.plot)

    import jax

    from ..problem import TrainingProblem
    from ..training.path import path

    with jax.enable_x64(arguments.dtype == "float64"):
        with user_input():
            X, Y, scaling = arrays(arguments, table)
            settings = _of_network(arguments)
            problems = [TrainingProblem(X, Y, decay, **settings) for decay in decays]
        print(_describe(arguments, table), flush=True)
        started = time.perf_counter()
        with progress(arguments.quiet) as shown:
            result = path(problems[0], decays, progress=shown, **_of_training(arguments))
        seconds = time.perf_counter() - started
    print(result, flush=True)
    facts = [("time", f"{seconds:.1f} s")]
    with user_input():
        facts += _keep_all(arguments, table, scaling, result)
    print_facts(facts)
    return 0


def _of_network(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"bias": arguments.bias, "activation": arguments.activation}


def _of_training(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "solver": arguments.solver,
        "width": arguments.width,
        "polish": not arguments.no_polish,
        "seed": arguments.seed,
        "time_limit": arguments.time_limit,
    }


def _describe(arguments: argparse.Namespace, table: "Table") -> str:
    header = "" if table.header else ", no header"
    extras = ", standardised" if arguments.standardize else ""
    return (
        f"{arguments.data}: {len(table.X)} rows{header}, {table.X.shape[1]} features{extras}, "
        f"target {', '.join(table.target_names)}: {_kind(table)}"
    )


def _kind(table: "Table") -> str:
    if table.classes is not None:
        return f"classification into {len(table.classes)} classes"
    outputs = len(table.target_names)
    return "regression" if outputs == 1 else f"regression, {outputs} outputs"


def _found(table: "Table", X: "np.ndarray", result: "TrainingResult") -> list[tuple[str, str]]:
    """How good the network is: against all others, and on the training data."""
    import jax.numpy as jnp
    import numpy as np

    upper = f"{result.upper_bound:.9g}   (of this network: an upper bound on the optimum)"
    return [
        ("training loss", upper),
        lower_bound(result.lower_bound),
        relative_gap(result.relative_gap),
        ("neurons", str(result.network.width)),
        *_fit(table, np.asarray(result.network.predict(jnp.asarray(X)), np.float64)),
        ("status", f"{result.status} ({result.program})"),
    ]


def _fit(table: "Table", predicted: "np.ndarray") -> list[tuple[str, str]]:
    """How well the network fits the training data, in the task's usual measure."""
    import numpy as np

    if table.classes is not None:
        correct = np.mean(predicted.argmax(axis=1) == table.Y.argmax(axis=1))
        return [("training accuracy", f"{100 * correct:.1f} %")]
    facts = []
    for k, name in enumerate(table.target_names):
        of = f" ({name})" if len(table.target_names) > 1 else ""
        facts.append((f"training R2, RMSE{of}", _r2_and_rmse(table.Y[:, k], predicted[:, k])))
    return facts


def _r2_and_rmse(y: "np.ndarray", predicted: "np.ndarray") -> str:
    import numpy as np

    error = np.sum((predicted - y) ** 2)
    spread = np.sum((y - y.mean()) ** 2)
    r2 = f"{1 - error / spread:.4f}" if spread > 0 else "undefined (constant target)"
    return f"{r2}, {math.sqrt(error / len(y)):.6g}"


def _keep(
    arguments: argparse.Namespace,
    table: "Table",
    scaling: "Scaling | None",
    result: "TrainingResult",
) -> list[tuple[str, str]]:
    """Write the network and the plot, where they are asked for, and say where they are."""
    from ..files.storage import save_network

    facts = []
    if arguments.out:
        said = about(arguments, table, scaling, arguments.weight_decay, result)
        said["program"] = result.program
        facts.append(("network", str(save_network(arguments.out, result.network, metadata=said))))
    if arguments.plot:
        facts.append(_plot(arguments, result))
    if not arguments.out:
        facts.append(("network", "not kept (--out MODEL.npz writes it)"))
    return facts


def _plot(arguments: argparse.Namespace, result: "TrainingResult") -> tuple[str, str]:
    from ..files.plots import plot_bounds
    from ..improve.gradient_descent import train_sgd

    _, losses, steps = train_sgd(
        result.problem, width=arguments.width, steps=ADAM_STEPS, seed=arguments.seed
    )
    plot_bounds(result, {f"Adam, {arguments.width} neurons": (steps, losses)}, arguments.plot)
    return "plot", f"{arguments.plot}   (Adam after {ADAM_STEPS} steps: {float(losses[-1]):.9g})"


def _keep_all(
    arguments: argparse.Namespace,
    table: "Table",
    scaling: "Scaling | None",
    result: "RegularizationPath",
) -> list[tuple[str, str]]:
    """Write the networks and the plot, where they are asked for, and say where they are."""
    from ..files.storage import save_network

    facts = []
    if arguments.out:
        for decay, point in zip(arguments.weight_decays, result, strict=True):
            said = about(arguments, table, scaling, decay, point)
            save_network(file_of(arguments.out, decay), point.network, metadata=said)
    if arguments.plot:
        from ..files.plots import plot_path

        plot_path(result, arguments.plot)
        facts.append(("plot", arguments.plot))
    facts.append(("networks", arguments.out or "not kept (--out FOLDER writes them)"))
    return facts
