"""Progress of `train` on a terminal: both bounds closing in on the optimum.

Open it around the call, so that the last line is complete whatever happens in between:

    with TerminalProgress() as progress:
        result = jaxcvxnn.train(X, Y, weight_decay=0.1, progress=progress)
"""

import math
import sys
import time
from collections.abc import Callable
from typing import IO, Any, Protocol

_REDRAW_SECONDS = 0.1


class Report(Protocol):
    """What `train` tells after each piece of work (`jaxcvxnn.Progress`)."""

    @property
    def stage(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def lower_bound(self) -> float: ...
    @property
    def upper_bound(self) -> float: ...


class TerminalProgress:
    """A callback for `train`: a tqdm bar per stage on a terminal, plain lines elsewhere or
    without tqdm.

    Plain lines are written when a stage starts, when it is complete, and otherwise at most every
    `interval` seconds, so a log file stays short. `stream` defaults to standard error;
    `bar=False` asks for plain lines.
    """

    def __init__(
        self,
        stream: IO[str] | None = None,
        *,
        interval: float = 5.0,
        bar: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._interval = interval
        self._clock = clock
        wants_bar = self._stream.isatty() if bar is None else bar
        self._tqdm: Any = _find_tqdm() if wants_bar else None
        self._bar: Any = None
        self._stage: str | None = None
        self._written_at = -math.inf
        self._pending: Report | None = None

    def __call__(self, report: Report) -> None:
        note = getattr(report, "note", "")
        if note:
            self._stream.write(note + "\n")
        if self._tqdm is not None:
            self._draw_bar(report)
        else:
            self._write_line(report)

    def close(self) -> None:
        """Finish the bar, or write the last line if it was held back."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._flush_pending()
        self._stage = None

    def __enter__(self) -> "TerminalProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _draw_bar(self, report: Report) -> None:
        starts = report.stage != self._stage or self._bar is None
        if starts:
            if self._bar is not None:
                self._bar.close()
            self._stage = report.stage
            self._bar = self._tqdm(
                total=report.total,
                desc=report.stage,
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{desc:<8}|{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}",
            )
        bar: Any = self._bar
        bar.total, bar.n = report.total, report.step
        bar.set_postfix_str(format_bounds(report), refresh=False)
        # tqdm's own throttle counts steps and misses a bound that improves between two of them.
        now = self._clock()
        if starts or report.step >= report.total or now - self._written_at >= _REDRAW_SECONDS:
            bar.refresh()
            self._written_at = now

    def _write_line(self, report: Report) -> None:
        now = self._clock()
        starts = report.stage != self._stage
        if starts:
            self._flush_pending()
            self._stage = report.stage
        if starts or report.step >= report.total or now - self._written_at >= self._interval:
            self._put(report)
            self._written_at = now
        else:
            self._pending = report

    def _flush_pending(self) -> None:
        if self._pending is not None:
            self._put(self._pending)

    def _put(self, report: Report) -> None:
        self._pending = None
        self._stream.write(format_progress(report) + "\n")
        self._stream.flush()


def format_progress(report: Report) -> str:
    """One line, for instance "solve 1200/5000  lower 8.012  upper 8.93  gap 10.3 %"."""
    return f"{report.stage} {report.step}/{report.total}  {format_bounds(report)}"


def format_bounds(report: Report) -> str:
    """ "lower 8.012  upper 8.93  gap 10.3 %"; a bound that is not known yet shows as "-" and leaves
    the gap out."""
    lower, upper = report.lower_bound, report.upper_bound
    text = f"lower {_number(lower)}  upper {_number(upper)}"
    if math.isfinite(lower) and math.isfinite(upper) and upper != 0:
        text += f"  gap {100 * (upper - lower) / abs(upper):.3g} %"
    return text


def _number(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else "-"


def _find_tqdm() -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm
