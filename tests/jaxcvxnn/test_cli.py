"""The command line, with a stand-in for `train` where the training itself is not the point."""

import csv
import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

from jaxcvxnn import (
    PathPoint,
    PolynomialNetwork,
    RegularizationPath,
    TrainingProblem,
    TwoLayerReLU,
    load_network,
    save_network,
)
from jaxcvxnn.cli.main import main

FLOWERS = "length,width,kind\n1,0,rose\n2,0.5,rose\n0,3,lily\n0.25,2,lily\n"

# f(x) = (relu(x0), relu(x1)): on FLOWERS the larger feature decides, lily is column 0, rose 1.
SWAP = TwoLayerReLU(np.eye(2), np.eye(2)[::-1])


def in_64_bits() -> bool:
    return jax.numpy.zeros(()).dtype == np.float64


@pytest.fixture
def fake_train(monkeypatch):
    """`train` returns a given network at once and records how it was called."""
    fake = SimpleNamespace(network=SWAP, lower=0.5, calls=[])

    def train(X, Y, weight_decay=0.1, **options):
        problem = TrainingProblem(X, Y, weight_decay, bias=options.get("bias", False))
        fake.calls.append(SimpleNamespace(X=X, Y=Y, weight_decay=weight_decay, **options))
        fake.x64 = in_64_bits()
        upper = float(problem.objective(fake.network))
        return SimpleNamespace(
            network=fake.network,
            upper_bound=upper,
            lower_bound=fake.lower,
            relative_gap=(upper - fake.lower) / upper,
            status="solved",
            program="lifted",
            problem=problem,
        )

    module = ModuleType("jaxcvxnn.training.train")
    module.__dict__.update(train=train)
    monkeypatch.setitem(sys.modules, "jaxcvxnn.training.train", module)
    return fake


@pytest.fixture
def flowers(tmp_path):
    path = tmp_path / "flowers.csv"
    path.write_text(FLOWERS)
    return path


def facts(text: str) -> dict[str, str]:
    """The block of "name  value" lines."""
    pairs = (line.strip().split("  ", 1) for line in text.splitlines() if line.startswith("  "))
    return {name: value.strip() for name, value in pairs}


def run_main(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_train_reports_what_it_found(fake_train, flowers, capsys):
    assert run_main("train", flowers, "--target", "kind", "--weight-decay", "0.01") == 0
    captured = capsys.readouterr()
    [call] = fake_train.calls
    np.testing.assert_array_equal(call.X, [[1, 0], [2, 0.5], [0, 3], [0.25, 2]])
    np.testing.assert_array_equal(call.Y, [[0, 1], [0, 1], [1, 0], [1, 0]])
    assert call.weight_decay == 0.01 and call.X.dtype == np.float64 and fake_train.x64
    found = facts(captured.out)
    # Residuals: (0, 0), (0.5, 1), (2, 0), (1, 0.25); four unit weights.
    expected = (0.25 + 1 + 4 + 1 + 0.0625) / 2 + 0.01 / 2 * 4
    assert float(found["training loss"].split()[0]) == pytest.approx(expected, rel=1e-8)
    assert found["lower bound"].split()[0] == "0.5"
    gap = (expected - 0.5) / expected
    assert float(found["relative gap"].split()[0]) == pytest.approx(gap, rel=0.05)
    assert found["neurons"] == "2"
    assert found["training accuracy"] == "100.0 %"
    assert "4 rows, 2 features, target kind: classification into 2 classes" in captured.out
    assert "--out" in found["network"]


def test_accuracy_counts_the_mistakes(fake_train, flowers, capsys):
    fake_train.network = TwoLayerReLU(np.eye(2), np.array([[0, 1.0], [0, 0.1]]))  # always rose
    assert run_main("train", flowers, "--target", "kind", "--quiet") == 0
    assert facts(capsys.readouterr().out)["training accuracy"] == "50.0 %"


def test_regression_report(fake_train, tmp_path, capsys):
    path = tmp_path / "sum.csv"
    path.write_text("1,2,3.5,7\n3,4,6.5,7\n0,1,1,7\n")
    fake_train.network = TwoLayerReLU(np.eye(2), np.array([[1.0, 0], [1.0, 0]]))
    assert run_main("train", path, "--target=2,3", "--quiet") == 0
    captured = capsys.readouterr()
    found = facts(captured.out)
    # Predicted 3, 7, 1 for 3.5, 6.5, 1, whose mean is 11/3.
    error = 0.5
    spread = sum((y - 11 / 3) ** 2 for y in (3.5, 6.5, 1))
    r2, rmse = found["training R2, RMSE (x2)"].split(", ")
    assert float(r2) == pytest.approx(1 - error / spread, abs=1e-4)
    assert float(rmse) == pytest.approx((error / 3) ** 0.5, rel=1e-5)
    assert found["training R2, RMSE (x3)"] == "undefined (constant target), 7"
    assert "3 rows, no header, 2 features, target x2, x3: regression, 2 outputs" in captured.out


def test_options_reach_train(fake_train, flowers):
    arguments = ["--target", "kind", "--bias", "--width", "7", "--no-polish", "--seed", "5"]
    arguments += ["--time-limit", "2.5", "--dtype", "float32", "--quiet"]
    fake_train.network = TwoLayerReLU(np.eye(2), np.eye(2), np.zeros(2))
    assert run_main("train", flowers, *arguments) == 0
    [call] = fake_train.calls
    assert (call.bias, call.width, call.polish, call.seed) == (True, 7, False, 5)
    assert call.time_limit == 2.5 and call.progress is None
    assert call.X.dtype == call.Y.dtype == np.float32 and not fake_train.x64


def test_settings_of_jax_are_put_back(fake_train, flowers):
    for precision in ("float32", "float64"):
        with jax.enable_x64(False):
            run_main("train", flowers, "--target", "kind", "--dtype", precision, "--quiet")
            assert not in_64_bits()
    assert in_64_bits()


def test_progress_goes_to_standard_error(fake_train, flowers, capsys):
    assert run_main("train", flowers, "--target", "kind") == 0
    [call] = fake_train.calls
    capsys.readouterr()
    call.progress(SimpleNamespace(stage="solve", step=1, total=2, lower_bound=1.0, upper_bound=2.0))
    captured = capsys.readouterr()
    assert captured.out == ""


def test_standardised_features_and_their_way_back(fake_train, tmp_path, capsys):
    path = tmp_path / "data.csv"
    path.write_text("a,b,c,y\n1,10,5,0.5\n3,30,5,1.5\n5,80,5,2.5\n")
    fake_train.network = TwoLayerReLU(np.array([[1.0], [0], [0]]), np.ones((1, 1)))
    model = tmp_path / "model"
    assert run_main("train", path, "--target", "y", "--standardize", "--out", model, "--quiet") == 0
    [call] = fake_train.calls
    np.testing.assert_allclose(call.X.mean(axis=0), 0, atol=1e-15)
    np.testing.assert_allclose(call.X.std(axis=0), [1, 1, 0], rtol=1e-14)
    np.testing.assert_array_equal(call.X[:, 2], 0)  # constant: shifted, not divided by zero
    assert "standardised" in capsys.readouterr().out
    new = tmp_path / "new.csv"
    new.write_text("c,b,a\n5,0,7\n5,0,1\n")
    assert run_main("predict", model.with_suffix(".npz"), new) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0] == "y"
    assert [float(r) for r in rows[1:]] == pytest.approx([(7 - 3) / (8 / 3) ** 0.5, 0])


def test_model_file_holds_what_predict_needs(fake_train, flowers, tmp_path, capsys):
    fake_train.lower = -np.inf
    assert run_main("train", flowers, "--target", "kind", "--out", tmp_path / "m.npz") == 0
    found = facts(capsys.readouterr().out)
    assert found["network"] == str(tmp_path / "m.npz") and found["relative gap"] == "unknown"
    network, about = load_network(tmp_path / "m.npz")
    np.testing.assert_array_equal(network.V, SWAP.V)
    assert about["classes"] == ["lily", "rose"] and about["feature_names"] == ["length", "width"]
    assert about["target_names"] == ["kind"] and about["standardize"] is None
    assert about["weight_decay"] == 0.1 and about["lower_bound"] is None
    with np.load(tmp_path / "m.npz") as archive:
        strict = str(archive["metadata"])
    json.loads(strict, parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON


@pytest.mark.parametrize(
    "content",
    [
        "length,width\n5,1\n0,2\n",
        "kind,width,id,length\nrose,1,a,5\nlily,2,b,0\n",
        "5,1\n0,2\n",
        "5,1,rose\n0,2,?\n",
    ],
    ids="features reordered no-header training-layout".split(),
)
def test_predict(fake_train, flowers, tmp_path, capsys, content):
    model, new, out = tmp_path / "m.npz", tmp_path / "new.csv", tmp_path / "out.csv"
    assert run_main("train", flowers, "--target", "kind", "--out", model, "--quiet") == 0
    new.write_text(content)
    capsys.readouterr()
    assert run_main("predict", model, new) == 0
    printed = capsys.readouterr().out
    expected = [
        ["kind", "output lily", "output rose"],
        ["rose", "1.0", "5.0"],
        ["lily", "2.0", "0.0"],
    ]
    assert list(csv.reader(printed.splitlines())) == expected
    assert run_main("predict", model, new, "--out", out) == 0
    assert out.read_text() == printed
    assert capsys.readouterr().out == f"2 predictions written to {out}\n"


def test_plot_compares_with_adam(fake_train, flowers, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("jaxcvxnn.cli.training.ADAM_STEPS", 30)
    path = tmp_path / "bounds.png"
    arguments = ("--target", "kind", "--width", "6", "--plot", path, "--quiet")
    assert run_main("train", flowers, *arguments) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert "Adam after 30 steps" in facts(capsys.readouterr().out)["plot"]


def wrong(capsys, *arguments: object) -> str:
    """The one line that wrong input gets."""
    assert run_main(*arguments) == 2
    captured = capsys.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith("jaxcvxnn: error: ")
    return line.removeprefix("jaxcvxnn: error: ")


def test_wrong_training_input(fake_train, flowers, tmp_path, capsys):
    def of(*arguments):
        return wrong(capsys, "train", *arguments)

    missing = tmp_path / "none.csv"
    assert of(missing, "--target", "y") == f"{missing}: No such file or directory"
    assert of(tmp_path, "--target", "y") == f"{tmp_path}: Is a directory"
    assert "no target 'Kind'; the columns are 'length'" in of(flowers, "--target", "Kind")
    assert "line 2, column 'kind': found 'rose'" in of(flowers, "--target", "width")
    assert "--target" in of(flowers)
    for value in ("0", "-1", "nan", "inf", "abc"):
        for option in ("--weight-decay", "--time-limit"):
            message = of(flowers, "--target", "kind", f"{option}={value}")
            assert f"{option}: '{value}' is not a positive number" in message
    for value in ("0", "1.5", "many"):
        message = of(flowers, "--target", "kind", "--width", value)
        assert f"'{value}' is not a whole number of at least 1" in message
    assert "delimiter must be" in of(flowers, "--target", "kind", "--delimiter", "ab")
    large = tmp_path / "large.csv"
    large.write_text("a,y\n1e200,0.5\n2,0.25\n")
    message = "some numbers are too large for float32"
    assert message in of(large, "--target", "y", "--dtype", "float32")
    large.write_text("a,y\n1e300,0.5\n-1e300,0.25\n")
    assert "too large to be standardised" in of(large, "--target", "y", "--standardize")
    assert fake_train.calls == []


def test_unwritable_results_are_noticed_before_training(fake_train, flowers, tmp_path, capsys):
    def of(*arguments):
        return wrong(capsys, "train", flowers, "--target", "kind", *arguments)

    assert "there is no folder" in of("--out", tmp_path / "no" / "model.npz")
    assert "is a folder" in of("--out", tmp_path)
    assert "must end in .png, .svg or .pdf" in of("--plot", tmp_path / "plot.docx")
    assert fake_train.calls == []


def test_missing_matplotlib_is_noticed_before_training(
    fake_train, flowers, tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = wrong(capsys, "train", flowers, "--target", "kind", "--plot", tmp_path / "p.png")
    assert message == "plots need matplotlib: pip install 'jaxcvxnn[plots]'"
    assert fake_train.calls == []


@pytest.fixture
def fake_path(monkeypatch):
    """`path` returns one network for all weight decays and records how it was called."""
    calls = []

    def path(problem, weight_decays, **options):
        calls.append(SimpleNamespace(problem=problem, weight_decays=weight_decays, **options))
        points = tuple(
            PathPoint(decay, SWAP, 2 * decay, decay, "solved", 400, None)  # pyright: ignore
            for decay in weight_decays
        )
        return RegularizationPath(problem, points, {})

    module = ModuleType("jaxcvxnn.training.path")
    module.__dict__["path"] = path
    monkeypatch.setitem(sys.modules, "jaxcvxnn.training.path", module)
    return calls


def test_path_prints_saves_and_draws(fake_path, flowers, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder, plot = tmp_path / "networks", tmp_path / "path.svg"
    arguments = ["--target", "kind", "--weight-decays", "0.5, 1e-3", "--out", folder]
    arguments += ["--plot", plot, "--bias", "--width", "7", "--no-polish", "--seed", "5"]
    arguments += ["--time-limit", "2.5", "--dtype", "float32", "--quiet"]
    assert run_main("path", flowers, *arguments) == 0
    [call] = fake_path
    assert call.weight_decays == [0.5, 0.001] and call.problem.bias
    assert call.problem.X.dtype == np.float32 and call.progress is None
    options = call.width, call.polish, call.seed, call.time_limit
    assert options == (7, False, 5, 2.5)
    out = capsys.readouterr().out
    assert "4 rows, 2 features, target kind: classification into 2 classes" in out
    _, head, one, two, *_ = out.splitlines()
    assert head.split()[:2] == ["weight", "decay"]
    assert one.split()[:3] == ["0.5", "0.5", "1"] and two.split()[0] == "0.001"
    assert facts(out)["networks"] == str(folder) and facts(out)["plot"] == str(plot)
    assert plot.read_text().startswith("<?xml")
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["weight_decay_0.001.npz", "weight_decay_0.5.npz"]
    _, about = load_network(folder / "weight_decay_0.001.npz")
    assert about["weight_decay"] == about["lower_bound"] == 0.001
    assert about["upper_bound"] == 0.002 and about["status"] == "solved"
    assert run_main("predict", folder / "weight_decay_0.5.npz", flowers) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("rose,")


def test_path_has_weight_decays_of_its_own(fake_path, flowers, capsys):
    assert run_main("path", flowers, "--target", "kind", "--quiet") == 0
    [call] = fake_path
    assert list(call.weight_decays) == [1.0, 0.3, 0.1, 0.03, 0.01] and call.polish
    assert "--out FOLDER" in facts(capsys.readouterr().out)["networks"]


def test_wrong_path_input(fake_path, flowers, tmp_path, capsys):
    def of(*arguments):
        return wrong(capsys, "path", flowers, "--target", "kind", *arguments)

    for value in ("0", "0.1,-1", "0.1,,1", "nan", ""):
        message = of(f"--weight-decays={value}")
        assert "--weight-decays" in message and "is not a positive number" in message
    assert "positive and finite in float32" in of("--weight-decays=1e-60", "--dtype", "float32")
    assert "must end in .png, .svg or .pdf" in of("--plot", tmp_path / "plot.docx")
    assert "File exists" in of("--out", flowers)
    assert "No such file" in of("--out", tmp_path / "no" / "networks")
    assert fake_path == []


def test_wrong_prediction_input(flowers, tmp_path, capsys):
    assert "flowers.csv is not a network file" in wrong(capsys, "predict", flowers, flowers)
    bare = save_network(tmp_path / "bare", SWAP)
    assert "no 'feature_names' in its metadata" in wrong(capsys, "predict", bare, flowers)
    assert "No such file" in wrong(capsys, "predict", tmp_path / "no.npz", flowers)


def test_errors_of_the_library_keep_their_traceback(flowers, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a bug")

    module = ModuleType("jaxcvxnn.training.train")
    module.__dict__.update(train=broken)
    monkeypatch.setitem(sys.modules, "jaxcvxnn.training.train", module)
    with pytest.raises(ValueError, match="a bug"):
        run_main("train", flowers, "--target", "kind", "--quiet")


def test_certify_what_was_trained(flowers, tmp_path, capsys):
    model = tmp_path / "model.npz"
    assert run_main("train", flowers, "--target", "kind", "--out", model, "--quiet") == 0
    trained = facts(capsys.readouterr().out)
    # Columns in another order: found by name.
    moved = tmp_path / "moved.csv"
    rows = [line.split(",") for line in FLOWERS.split()]
    moved.write_text("\n".join(",".join([c, b, a]) for a, b, c in rows))
    assert run_main("certify", model, moved) == 0
    found = facts(capsys.readouterr().out)
    assert found["training loss"].split()[0] == trained["training loss"].split()[0]
    lower, upper = (float(found[key].split()[0]) for key in ("lower bound", "training loss"))
    assert lower <= upper * (1 + 1e-9)
    assert (upper - lower) / upper <= 1e-6


def test_polynomials_from_training_to_certificate(flowers, tmp_path, capsys):
    out = tmp_path / "model.npz"
    options = ("--target", "kind", "--activation", "polynomial", "--quiet")
    assert run_main("train", flowers, *options, "--out", out) == 0
    assert "spectrahedron" in capsys.readouterr().out
    assert run_main("certify", out, flowers) == 0
    assert "the network's own residual" in capsys.readouterr().out
    assert run_main("predict", out, flowers, "--out", tmp_path / "predicted.csv") == 0
    assert run_main("train", flowers, *options, "--program", "columns") != 0
    assert "does not take the activation" in capsys.readouterr().err
    assert run_main("path", flowers, *options, "--weight-decays", "1,0.1", "--out", tmp_path) == 0
    network, _ = load_network(tmp_path / "weight_decay_0.1.npz")
    assert isinstance(network, PolynomialNetwork)
    assert run_main("certify", tmp_path / "weight_decay_0.1.npz", flowers) == 0


def test_certify_weights_from_elsewhere(flowers, tmp_path, capsys):
    model = tmp_path / "theirs.npz"
    np.savez(model, U=np.eye(2), V=np.eye(2)[::-1])
    command = ("certify", model, flowers, "--target", "kind", "--weight-decay", "0.1")
    assert run_main(*command) == 0
    found = facts(capsys.readouterr().out)
    X = np.array([[1, 0], [2, 0.5], [0, 3], [0.25, 2]])
    Y = np.array([[0, 1.0], [0, 1], [1, 0], [1, 0]])  # lily, rose
    loss = np.sum((np.maximum(X, 0) @ np.eye(2)[::-1] - Y) ** 2) / 2 + 0.05 * 4
    assert float(found["training loss"].split()[0]) == pytest.approx(loss, rel=1e-8)
    assert 0 < float(found["lower bound"].split()[0]) < loss
    assert found["proven by"].startswith("column generation")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --target"),
        (("--target", "kind"), "give --weight-decay"),
        (("--target", "kind", "--weight-decay", "0.1", "--drop", "width"), "2 features"),
        (("--target", "length", "--weight-decay", "0.1"), "kind"),
        (
            ("--target", "kind", "--weight-decay", "0.1", "--loss", "logistic"),
            "2 outputs",
        ),
    ],
)
def test_certify_says_what_is_missing(flowers, tmp_path, capsys, arguments, message):
    model = tmp_path / "theirs.npz"
    np.savez(model, U=np.eye(2), V=np.eye(2))
    assert run_main("certify", model, flowers, *arguments) == 2
    assert message in capsys.readouterr().err


def test_certify_needs_the_trained_classes(flowers, tmp_path, capsys):
    model = tmp_path / "model.npz"
    about = {"target_names": ["kind"], "classes": ["lily", "tulip"], "weight_decay": 0.1}
    save_network(model, SWAP, metadata=about)
    assert run_main("certify", model, flowers) == 2
    assert "tulip" in capsys.readouterr().err


def test_interrupt_outside_training(flowers, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxcvxnn.cli.tables.read_table", interrupted)
    assert run_main("train", flowers, "--target", "kind") == 130
    assert capsys.readouterr().err == "jaxcvxnn: interrupted\n"


def test_demo_trains_on_both_sets(fake_train, capsys):
    pytest.importorskip("sklearn")
    train = sys.modules["jaxcvxnn.training.train"].train

    def with_zero_network(X, Y, *rest, **options):
        d, c = X.shape[1], Y.shape[1]
        fake_train.network = TwoLayerReLU(np.zeros((d, 0)), np.zeros((0, c)))
        return train(X, Y, *rest, **options)

    sys.modules["jaxcvxnn.training.train"].__dict__["train"] = with_zero_network
    assert run_main("demo", "--quiet") == 0
    trial, iris = fake_train.calls
    assert trial.X.shape == (25, 2) and trial.Y.shape == (25, 5)
    assert iris.X.shape == (75, 4) and iris.Y.sum(axis=0).tolist() == [25, 25, 25]
    assert "Iris" in capsys.readouterr().out


def test_demo_without_scikit_learn(fake_train, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    fake_train.network = TwoLayerReLU(np.zeros((2, 0)), np.zeros((0, 5)))
    assert run_main("demo", "--quiet") == 0
    assert len(fake_train.calls) == 1
    assert "pip install 'jaxcvxnn[estimators]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lower", "failure"),
    [
        (0.98 * (1 - 1e-6), None),
        (0.981, "the lower bound 0.981 is above the optimum 0.98"),
        (0.9, "the relative gap is"),
    ],
)
def test_check_compares_with_the_known_optimum(fake_train, capsys, lower, failure):
    # The optimum: output i is y_i - wd on row i, by one neuron with |u| = |v|.
    fake_train.lower = lower
    size = np.sqrt(np.array([1.0, 2, 3, 4]) - 0.1)
    directions = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    fake_train.network = TwoLayerReLU(directions.T * size, np.diag(size))
    assert run_main("check") == (0 if failure is None else 1)
    out = capsys.readouterr().out
    assert facts(out)["jax"] == jax.__version__ and "<= 0.98 <= 0.980000000" in out
    if failure is None:
        assert "FAILED" not in out and "\nok in" in out
    else:
        assert f"FAILED: {failure}" in out


def test_check_reports_a_crash(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jaxcvxnn.training.train", None)
    assert run_main("check") == 1
    assert "FAILED: ModuleNotFoundError" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [(), ("train",), ("path",), ("predict",), ("demo",), ("check",)]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(*command, "--help")
    assert stop.value.code == 0
    assert f"usage: {' '.join(('jaxcvxnn', *command))}" in capsys.readouterr().out


def test_no_or_unknown_command(capsys):
    assert "COMMAND" in wrong(capsys)
    assert "invalid choice" in wrong(capsys, "fit")


def shell(*arguments: object, cwd) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "jaxcvxnn", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def test_version_and_errors_of_the_real_command(tmp_path):
    from importlib.metadata import version

    assert shell("--version", cwd=tmp_path).stdout == f"jaxcvxnn {version('jaxcvxnn')}\n"
    failed = shell("train", "none.csv", "--target", "y", cwd=tmp_path)
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr == "jaxcvxnn: error: none.csv: No such file or directory\n"


def test_closed_pipe_is_no_error(fake_train, flowers, tmp_path):
    model = tmp_path / "m.npz"
    assert run_main("train", flowers, "--target", "kind", "--out", model, "--quiet") == 0
    many = tmp_path / "many.csv"
    many.write_text("length,width\n" + "1,2\n" * 50_000)
    command = f"{sys.executable} -m jaxcvxnn predict {model} {many} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "kind,output lily,output rose\n" and done.stderr == ""


@pytest.mark.slow
def test_train_and_predict_for_real(tmp_path, rng):
    # y = relu(a - b) + relu(b) on 12 points: two neurons fit it.
    X = np.round(rng.standard_normal((12, 2)), 3)
    y = np.maximum(X[:, 0] - X[:, 1], 0) + np.maximum(X[:, 1], 0)
    lines = [f"{a},{b},{c!r}" for (a, b), c in zip(X.tolist(), y.tolist(), strict=True)]
    (tmp_path / "data.csv").write_text("a,b,y\n" + "\n".join(lines) + "\n")
    arguments = ("data.csv", "--target", "y", "--weight-decay", "0.01", "--out", "model")
    done = shell("train", *arguments, "--time-limit", "60", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = facts(done.stdout)
    upper = float(found["training loss"].split()[0])
    lower = float(found["lower bound"].split()[0])
    assert 0 < lower <= upper
    # The generating network, rescaled, is one that the bound must not exceed.
    loss_of_generator = 0.01 * (2**0.5 + 1)
    assert lower <= loss_of_generator
    assert float(found["training R2, RMSE"].split(",")[0]) > 0.9
    assert "columns" in done.stderr and "gap" in done.stderr
    network, about = load_network(tmp_path / "model.npz")
    assert about["upper_bound"] == pytest.approx(upper, rel=1e-8)
    problem = TrainingProblem(X, y, 0.01)
    assert float(problem.objective(network)) == pytest.approx(upper, rel=1e-8)
    done = shell("predict", "model.npz", "data.csv", cwd=tmp_path)
    predicted = [float(row) for row in done.stdout.split()[1:]]
    np.testing.assert_allclose(predicted, np.asarray(network.predict(X))[:, 0], rtol=1e-12)


@pytest.mark.slow
def test_check_for_real(tmp_path):
    done = shell("check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout and "test problem" in done.stdout


@pytest.mark.slow
def test_demo_for_real(tmp_path):
    done = shell("demo", "--quick", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lower = [float(x.split()[2]) for x in done.stdout.splitlines() if x.startswith("lower bound")]
    upper = [float(x.split()[2]) for x in done.stdout.splitlines() if x.startswith("upper bound")]
    [(low, up)] = zip(lower, upper, strict=True)
    assert 0 < low <= up
