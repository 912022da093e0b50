"""Pictures of certified trainings: loss curves falling towards a line that no network can cross, and
both bounds, or accuracies, along a regularisation path."""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008): told apart with any kind of colour vision. The first two are for the bounds.
_LOWER, _NETWORK = "#D55E00", "#0072B2"
_CURVES = ("#8C8C8C", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_INK, _FAINT = "#333333", "#BBBBBB"
_DPI = 100
_DOTTED: dict[str, Any] = {"lw": 1.8, "marker": "o", "ms": 4}  # a line through few points


class Bounds(Protocol):
    """The part of a training result that is drawn."""

    @property
    def lower_bound(self) -> float: ...
    @property
    def upper_bound(self) -> float: ...


class PathBounds(Protocol):
    """The part of a regularisation path that is drawn: arrays of shape (k,), in any order."""

    @property
    def weight_decays(self) -> np.ndarray: ...
    @property
    def lower_bounds(self) -> np.ndarray: ...
    @property
    def upper_bounds(self) -> np.ndarray: ...
    @property
    def effective_widths(self) -> np.ndarray: ...


class PathWidths(Protocol):
    """The part of a polynomial network's path that is drawn: arrays of shape (k,), in any order."""

    @property
    def weight_decays(self) -> Any: ...
    @property
    def widths(self) -> Any: ...


def plot_bounds(
    result: Bounds,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
) -> "Figure":
    """Draw loss curves over training steps, the certified lower bound and the loss of the certified
    network.

    `curves` maps a label to `(steps (k,), losses)` with losses (k,), or (r, k) for r runs drawn
    alike; this is what `train_sgd` returns: `{"Adam": (steps, losses)}`. A lower bound of -inf
    is left out. Both axes are logarithmic where the numbers allow it (steps from 1, a positive
    lower bound). With `path` the figure is also written, as the file's ending says (.png, .svg,
    .pdf); 800 x 450 pixels.

    Raises `ImportError` without matplotlib, `ValueError` for curves of mismatching shape or an
    unknown file ending.
    """
    figure_class = require_matplotlib()
    runs = {label: _as_runs(label, steps, losses) for label, (steps, losses) in curves.items()}
    figure = figure_class(figsize=(8, 4.5), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    labels: list[tuple[float, str, str]] = []  # height, text, colour
    for (label, (steps, losses)), colour in zip(runs.items(), _cycled(len(runs)), strict=True):
        single = len(losses) == 1
        for run in losses:
            # Step 0 has no place on a logarithmic axis; the first step stands for the start.
            axes.plot(
                np.maximum(steps, 1),
                run,
                color=colour,
                lw=1.8 if single else 1.0,
                alpha=1 if single else 0.7,
            )
        ends = losses[:, -1][np.isfinite(losses[:, -1])]
        if ends.size:
            labels.append((float(np.median(ends)), label, colour))
    upper, lower = float(result.upper_bound), float(result.lower_bound)
    if math.isfinite(upper):
        axes.axhline(upper, color=_NETWORK, lw=1.8)
        labels.append((upper, f"this network: {_number(upper, lower)}", _NETWORK))
    if math.isfinite(lower):
        axes.axhline(lower, color=_LOWER, lw=1.8, ls=(0, (5, 2)))
        labels.append((lower, f"no network below: {_number(lower, upper)}", _LOWER))
    _scale(axes, runs, lower, upper)
    _decorate(axes, title, "training step", "training loss", "{x:,.0f}")
    _label_lines(figure, axes, labels)
    if path is not None:
        figure.savefig(path, dpi=_DPI, facecolor="white")
    return figure


def plot_path(
    result: PathBounds,
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
) -> "Figure":
    """Draw both bounds of a regularisation path, and below them the neurons of its networks, against
    the weight decay.

    The weight decay is logarithmic, the objective too where all its numbers are positive. With
    `path` the figure is also written, as the file's ending says (.png, .svg, .pdf); 800 x 600 pixels.

    Raises `ImportError` without matplotlib, `ValueError` for an unknown file ending.
    """
    figure_class = require_matplotlib()
    order = np.argsort(result.weight_decays, kind="stable")
    weight_decays = np.asarray(result.weight_decays, np.float64)[order]
    lower = np.asarray(result.lower_bounds, np.float64)[order]
    upper = np.asarray(result.upper_bounds, np.float64)[order]
    neurons = np.asarray(result.effective_widths)[order]
    figure = figure_class(figsize=(8, 6), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.fill_between(weight_decays, lower, upper, color=_FAINT, alpha=0.35, lw=0)
    above.plot(weight_decays, upper, color=_NETWORK, **_DOTTED)
    above.plot(weight_decays, lower, color=_LOWER, ls=(0, (5, 2)), **_DOTTED)
    above.set_xscale("log")
    if np.min(lower) > 0:
        above.set_yscale("log")
    _decorate(above, title, "", "objective", "{x:g}")
    _draw_neurons(below, weight_decays, neurons)
    labels = [
        (float(upper[-1]), "these networks", _NETWORK),
        (float(lower[-1]), "no network below", _LOWER),
    ]
    _label_lines(figure, above, labels)
    if path is not None:
        figure.savefig(path, dpi=_DPI, facecolor="white")
    return figure


def plot_widths(
    result: PathWidths,
    accuracies: Mapping[str, ArrayLike],
    path: str | os.PathLike | None = None,
    *,
    title: str | None = None,
) -> "Figure":
    """Draw accuracies along a regularisation path, and below them the neurons of its networks, against
    the weight decay: Bartan and Pilanci (2021), figure 7.

    `result` is what `spectrahedron_path` returns. `accuracies` maps a label to the parts of one (k,)
    that are right at each of its weight decays; NaN where none is known, as may be for rivals. With
    `path` the figure is also written, as the file's ending says (.png, .svg, .pdf); 800 x 600 pixels.

    Raises `ImportError` without matplotlib, `ValueError` for accuracies of another shape or outside
    [0, 1], or an unknown file ending.
    """
    figure_class = require_matplotlib()
    weight_decays = np.asarray(result.weight_decays, np.float64)
    order = np.argsort(weight_decays, kind="stable")
    figure = figure_class(figsize=(8, 6), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    labels: list[tuple[float, str, str]] = []
    colours = [_NETWORK, *_cycled(len(accuracies))]
    for (label, values), colour in zip(accuracies.items(), colours, strict=False):
        parts = _as_accuracies(label, values, len(weight_decays))[order]
        known, shown = np.isfinite(parts), 100 * parts
        layer = 3 - len(labels) / 10  # where two agree the first is seen
        above.plot(weight_decays[order][known], shown[known], color=colour, zorder=layer, **_DOTTED)
        if known.any():
            labels.append((float(shown[known][-1]), label, colour))
    above.set_xscale("log")
    _decorate(above, title, "", "accuracy, %", "{x:g}")
    _draw_neurons(below, weight_decays[order], np.asarray(result.widths)[order])
    _label_lines(figure, above, labels)
    if path is not None:
        figure.savefig(path, dpi=_DPI, facecolor="white")
    return figure


def require_matplotlib() -> Any:
    """matplotlib's Figure class, without pyplot and so without any global state or display.

    Raises `ImportError` naming the extra to install.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'jaxcvxnn[plots]'") from error
    return Figure


def _as_runs(label: str, steps: ArrayLike, losses: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    steps = np.asarray(steps, np.float64)
    losses = np.atleast_2d(np.asarray(losses, np.float64))
    if steps.ndim != 1 or steps.size == 0 or losses.ndim != 2 or losses.shape[1] != steps.size:
        raise ValueError(
            f"curve {label!r}: steps must be (k,) with k > 0 and losses (k,) or (r, k), "
            f"got {steps.shape} and {losses.shape}"
        )
    return steps, losses


def _as_accuracies(label: str, values: ArrayLike, count: int) -> np.ndarray:
    parts = np.asarray(values, np.float64)
    if parts.shape != (count,) or np.any((parts < 0) | (parts > 1)):
        raise ValueError(
            f"accuracies {label!r} must be ({count},), one per weight decay, and in [0, 1]; got shape "
            f"{parts.shape} and values {parts}"
        )
    return parts


def _draw_neurons(axes: "Axes", weight_decays: np.ndarray, neurons: np.ndarray) -> None:
    """The lower part of pictures of a path."""
    from matplotlib.ticker import MaxNLocator

    axes.plot(weight_decays, neurons, color=_NETWORK, **_DOTTED)
    axes.set_ylim(0, 1.1 * max(int(neurons.max()), 1))
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    _decorate(axes, None, "weight decay", "neurons", "{x:g}")


def _cycled(count: int) -> list[str]:
    return [_CURVES[i % len(_CURVES)] for i in range(count)]


def _scale(
    axes: "Axes", runs: Mapping[str, tuple[np.ndarray, np.ndarray]], lower: float, upper: float
) -> None:
    """Steps are logarithmic, losses too where they are positive and span a factor of 4 or more. The
    top cuts off the first, steep part of the curves where it would squeeze the part where they
    level out, which is the interesting one."""
    axes.set_xscale("log")
    last = max((steps[-1] for steps, _ in runs.values()), default=10.0)
    axes.set_xlim(1, max(last, 10.0))
    values = np.concatenate(
        [losses.ravel() for _, losses in runs.values()] + [np.array([lower, upper])]
    )
    values = values[np.isfinite(values)]
    if not values.size:
        return
    ends = np.concatenate([losses[:, -1] for _, losses in runs.values()] + [np.array([upper])])
    level = np.max(ends[np.isfinite(ends)], initial=lower if math.isfinite(lower) else values.min())
    bottom, top = values.min(), values.max()
    if bottom > 0 and top > 4 * bottom:
        axes.set_yscale("log")
        top = min(top, 30 * level)
        margin = (top / bottom) ** 0.06
        axes.set_ylim(bottom / margin, top * margin)
    else:
        if bottom <= 0 and level > bottom:
            top = min(top, bottom + 4 * (level - bottom))
        margin = 0.06 * (top - bottom) or 1.0
        axes.set_ylim(bottom - margin, top + margin)


def _decorate(
    axes: "Axes", title: str | None, horizontal: str, vertical: str, numbers: str
) -> None:
    """Labels, title and faint frame; `numbers` is the format of those on the horizontal axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xlabel(horizontal, color=_INK)
    axes.set_ylabel(vertical, color=_INK)
    if title:
        axes.set_title(title, loc="left", color=_INK, fontsize=12)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(colors=_INK, which="both", color=_FAINT)
    axes.xaxis.set_major_formatter(StrMethodFormatter(numbers))
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())


def _label_lines(figure: "Figure", axes: "Axes", labels: list[tuple[float, str, str]]) -> None:
    """Write each label right of its line's end, pushed apart where lines nearly meet."""
    if not labels:
        return
    figure.draw_without_rendering()  # the layout decides how high the axes are
    size = 10
    pitch = 1.35 * size * figure.dpi / 72
    bottom, top = axes.bbox.y0, axes.bbox.y1
    labels = sorted(labels, key=lambda item: item[0])
    heights = [
        min(max(axes.transData.transform((1, height))[1], bottom), top)
        if height > 0 or axes.get_yscale() != "log"
        else bottom
        for height, _, _ in labels
    ]
    for pixel, (_, text, colour) in zip(spread(heights, pitch), labels, strict=True):
        axes.text(
            1.015,
            (pixel - bottom) / (top - bottom),
            text,
            color=colour,
            fontsize=size,
            va="center",
            transform=axes.transAxes,
        )


def spread(heights: list[float], pitch: float) -> list[float]:
    """Move ascending `heights` as little as possible (least squares) so that neighbours are
    `pitch` apart.

    Pool adjacent violators: labels that touch form a block, which sits centred on the mean of its
    wishes.
    """
    blocks: list[tuple[float, int]] = []  # sum of (wish - rank * pitch), count
    for rank, height in enumerate(heights):
        total, count = height - rank * pitch, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            previous = blocks.pop()
            total, count = total + previous[0], count + previous[1]
        blocks.append((total, count))
    bases = [total / count for total, count in blocks for _ in range(count)]
    return [base + rank * pitch for rank, base in enumerate(bases)]


def _number(value: float, other: float) -> str:
    """`value` with enough digits to tell it from `other`, between 4 and 8."""
    digits = 4
    while digits < 8 and f"{value:.{digits}g}" == f"{other:.{digits}g}":
        digits += 1
    return f"{value:#.{digits}g}".rstrip(".")
