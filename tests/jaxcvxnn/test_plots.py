"""The picture shows the numbers it was given."""

import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import dataclass

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from jaxcvxnn.files.plots import plot_bounds, plot_path, plot_widths, spread  # noqa: E402

STEPS = np.array([0, 10, 100, 1000])
LOSSES = np.array([500.0, 60.0, 12.0, 9.1])


@dataclass(frozen=True)
class Result:
    upper_bound: float = 9.0
    lower_bound: float = 8.5


def texts(figure):
    return {text.get_text() for text in figure.axes[0].texts}


def horizontal_lines(figure):
    return {
        line.get_ydata()[0]: line.get_linestyle()
        for line in figure.axes[0].lines
        if len(line.get_ydata()) == 2
    }


def test_curves_and_bounds_are_drawn():
    figure = plot_bounds(Result(), {"Adam": (STEPS, LOSSES)})
    [axes] = figure.axes
    curve = axes.lines[0]
    np.testing.assert_array_equal(curve.get_ydata(), LOSSES)
    np.testing.assert_array_equal(curve.get_xdata(), [1, 10, 100, 1000])
    lines = horizontal_lines(figure)
    assert set(lines) == {9.0, 8.5} and lines[8.5] == "--" and lines[9.0] == "-"
    assert texts(figure) == {"Adam", "this network: 9.000", "no network below: 8.500"}
    assert axes.get_legend() is None
    assert axes.get_xscale() == axes.get_yscale() == "log"
    bottom, top = axes.get_ylim()
    assert bottom < 8.5 and 60 < top


def test_bounds_that_nearly_meet_get_digits_and_separate_labels():
    figure = plot_bounds(Result(8.90213, 8.90209), {"Adam": (STEPS, LOSSES)})
    assert {"this network: 8.90213", "no network below: 8.90209"} <= texts(figure)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert box.x1 <= figure.bbox.x1 and box.x0 >= figure.axes[0].bbox.x1


def test_several_runs_share_a_colour_and_a_label():
    figure = plot_bounds(Result(), {"Adam": (STEPS, np.stack([LOSSES, 2 * LOSSES, 3 * LOSSES]))})
    curves = [line for line in figure.axes[0].lines if np.size(line.get_ydata()) == 4]
    assert len(curves) == 3 and len({line.get_color() for line in curves}) == 1
    assert texts(figure) == {"Adam", "this network: 9.000", "no network below: 8.500"}


@pytest.mark.parametrize("lower", [-np.inf, np.nan])
def test_unknown_lower_bound_is_left_out(lower):
    figure = plot_bounds(Result(lower_bound=lower), {"Adam": (STEPS, LOSSES)})
    assert set(horizontal_lines(figure)) == {9.0}
    assert texts(figure) == {"Adam", "this network: 9.000"}


def test_lower_bound_below_zero_and_diverged_runs():
    diverged = np.array([500.0, np.inf, np.nan, np.nan])
    figure = plot_bounds(
        Result(lower_bound=-1.0), {"Adam": (STEPS, LOSSES), "SGD": (STEPS, diverged)}
    )
    [axes] = figure.axes
    assert axes.get_yscale() == "linear"
    bottom, top = axes.get_ylim()
    assert bottom < -1 and 9.1 < top < 60  # the steep start does not squeeze the bounds
    assert "SGD" not in texts(figure)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_file(tmp_path, ending):
    path = tmp_path / f"picture.{ending}"
    plot_bounds(Result(), {"Adam": (STEPS, LOSSES)}, path, title="Iris")
    if ending == "png":
        from matplotlib.image import imread

        assert imread(path).shape[:2] == (450, 800)
    else:
        assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")
    with pytest.raises(ValueError, match="not supported"):
        plot_bounds(Result(), {}, tmp_path / "picture.docx")


@pytest.mark.parametrize(
    ("steps", "losses"), [([0, 1], [1.0]), ([], []), ([0, 1], [[1.0], [2.0]]), ([[0]], [1.0])]
)
def test_mismatching_curves(steps, losses):
    with pytest.raises(ValueError, match="curve 'Adam': steps must be"):
        plot_bounds(Result(), {"Adam": (steps, losses)})


@dataclass(frozen=True)
class Path:
    weight_decays: np.ndarray
    lower_bounds: np.ndarray
    upper_bounds: np.ndarray
    effective_widths: np.ndarray


PATH = Path(*map(np.array, ([0.1, 1.0, 0.01], [0.5, 2.0, 0.0625], [0.75, 2.5, 0.125], [7, 3, 9])))


def test_path_is_drawn_from_small_to_large_weight_decay():
    above, below = plot_path(PATH, title="Random").axes
    upper, lower = above.lines
    for line, values in ((upper, [0.125, 0.75, 2.5]), (lower, [0.0625, 0.5, 2.0])):
        np.testing.assert_array_equal(line.get_xdata(), [0.01, 0.1, 1.0])
        np.testing.assert_array_equal(line.get_ydata(), values)
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [9, 7, 3])
    assert upper.get_linestyle() == "-" and lower.get_linestyle() == "--"
    assert above.get_xscale() == above.get_yscale() == below.get_xscale() == "log"
    assert below.get_yscale() == "linear" and below.get_ylim()[0] == 0
    assert {text.get_text() for text in above.texts} == {"these networks", "no network below"}
    assert (below.get_xlabel(), below.get_ylabel()) == ("weight decay", "neurons")
    assert above.get_title(loc="left") == "Random"


def test_path_of_one_point_without_bound_or_neurons(tmp_path):
    nothing = Path(np.array([0.1]), np.array([0.0]), np.array([1.0]), np.array([0]))
    path = tmp_path / "path.png"
    figure = plot_path(nothing, path)
    assert figure.axes[0].get_yscale() == "linear"
    from matplotlib.image import imread

    assert imread(path).shape[:2] == (600, 800)


@dataclass(frozen=True)
class Widths:
    weight_decays: np.ndarray
    widths: np.ndarray


WIDTHS = Widths(np.array([10.0, 1.0, 0.1]), np.array([2, 9, 14]))


def test_accuracies_and_widths_are_drawn_against_the_weight_decay(tmp_path):
    path = tmp_path / "widths.png"
    curves = {"test": [0.9, 0.95, 0.875], "ReLU": [np.nan, 0.75, np.nan]}
    above, below = plot_widths(WIDTHS, curves, path, title="Wine").axes
    ours, relu = above.lines
    np.testing.assert_array_equal(ours.get_xdata(), [0.1, 1.0, 10.0])
    np.testing.assert_array_equal(ours.get_ydata(), [87.5, 95.0, 90.0])
    np.testing.assert_array_equal(relu.get_xdata(), [1.0])  # only where it is known
    np.testing.assert_array_equal(relu.get_ydata(), [75.0])
    assert ours.get_color() != relu.get_color()
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [14, 9, 2])
    assert above.get_xscale() == below.get_xscale() == "log"
    assert below.get_ylim()[0] == 0
    assert {text.get_text() for text in above.texts} == {"test", "ReLU"}
    assert (above.get_ylabel(), below.get_ylabel()) == ("accuracy, %", "neurons")
    assert above.get_title(loc="left") == "Wine"
    from matplotlib.image import imread

    assert imread(path).shape[:2] == (600, 800)


@pytest.mark.parametrize("values", [[0.5, 0.5], [50.0, 60.0, 70.0], [-0.1, 0.5, 0.5]])
def test_accuracies_that_are_none(values):
    with pytest.raises(ValueError, match="accuracies 'test' must be"):
        plot_widths(WIDTHS, {"test": values})


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxcvxnn\[plots\]'"):
        plot_bounds(Result(), {})
    with pytest.raises(ImportError, match=r"pip install 'jaxcvxnn\[plots\]'"):
        plot_path(PATH)
    with pytest.raises(ImportError, match=r"pip install 'jaxcvxnn\[plots\]'"):
        plot_widths(WIDTHS, {})


def test_pyplot_stays_out():
    code = "import sys; import jaxcvxnn.files.plots as p; p.require_matplotlib(); "
    code += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_spread_keeps_the_pitch_and_moves_little():
    assert spread([0, 50, 100], 10) == [0, 50, 100]
    assert spread([20, 20], 10) == [15, 25]
    assert spread([0, 1, 100], 10) == [-4.5, 5.5, 100]
    moved = spread([0, 9, 12, 40], 10)
    assert moved == pytest.approx([-3, 7, 17, 40])
    assert spread([], 10) == []
