"""Progress lines: their wording, and that a log stays short."""

import io
import sys
from dataclasses import dataclass

import pytest

from jaxcvxnn.cli.progress import TerminalProgress, format_progress


@dataclass(frozen=True)
class Report:
    stage: str = "solve"
    step: int = 1200
    total: int = 5000
    lower_bound: float = float("-inf")
    upper_bound: float = float("inf")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("lower", "upper", "text"),
    [
        (8.012, 8.93, "solve 1200/5000  lower 8.012  upper 8.93  gap 10.3 %"),
        (8.9020999, 8.9021, "solve 1200/5000  lower 8.9021  upper 8.9021  gap 1.12e-06 %"),
        (8.0, float("inf"), "solve 1200/5000  lower 8  upper -"),
        (float("-inf"), float("inf"), "solve 1200/5000  lower -  upper -"),
        (float("nan"), 1.0, "solve 1200/5000  lower -  upper 1"),
        (0.0, 0.0, "solve 1200/5000  lower 0  upper 0"),
    ],
)
def test_wording(lower, upper, text):
    assert format_progress(Report(lower_bound=lower, upper_bound=upper)) == text


def lines_of(reports, clock=None, ticks=0.0):
    stream = io.StringIO()
    clock = clock or Clock()
    with TerminalProgress(stream, interval=5.0, clock=clock) as progress:
        for report in reports:
            progress(report)
            clock.now += ticks
    return [line.split("  ")[0] for line in stream.getvalue().splitlines()]


def test_plain_lines_are_throttled():
    # One report a second: the first, then every fifth, and the last.
    reports = [Report(step=step, total=12) for step in range(1, 13)]
    assert lines_of(reports, ticks=1.0) == [
        "solve 1/12",
        "solve 6/12",
        "solve 11/12",
        "solve 12/12",
    ]


def test_each_stage_shows_its_start_and_its_last_state():
    reports = [Report(step=s, total=9) for s in (1, 2, 3)]
    reports += [Report(stage="round", step=s, total=2) for s in (1, 2)]
    reports += [Report(stage="polish", step=s, total=9) for s in (1, 4)]
    # Stages that end early still show where they stopped.
    expected = ["solve 1/9", "solve 3/9", "round 1/2", "round 2/2", "polish 1/9", "polish 4/9"]
    assert lines_of(reports) == expected


def test_a_note_stands_before_its_stage():
    @dataclass(frozen=True)
    class Noted(Report):
        note: str = "2 GB per step"

    assert lines_of([Noted(step=0), Report(step=5000)])[0] == "2 GB per step"


def test_bar_on_a_terminal():
    pytest.importorskip("tqdm")
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock) as progress:
        progress(Report(step=0, total=10))
        clock.now += 1
        progress(Report(step=4, total=10, lower_bound=7.5, upper_bound=8.0))
        progress(Report(step=5, total=10, lower_bound=7.6, upper_bound=8.0))  # too soon to draw
        clock.now += 1
        progress(Report(stage="polish", step=3, total=3, lower_bound=7.75, upper_bound=8.0))
    shown = stream.getvalue()
    assert "solve" in shown and "polish" in shown
    assert "4/10" in shown and "lower 7.5  upper 8  gap 6.25 %" in shown
    assert "3/3" in shown and "lower 7.75  upper 8  gap 3.12 %" in shown
    assert "\r" in shown


def test_bar_shows_bounds_that_move_within_a_step():
    pytest.importorskip("tqdm")
    stream, clock = Terminal(), Clock()
    with TerminalProgress(stream, clock=clock) as progress:
        for bound in (1.0, 2.0, 3.0):
            progress(Report(step=1, total=10, lower_bound=bound, upper_bound=4.0))
            clock.now += 1
        before = stream.getvalue()
    assert all(f"lower {bound}" in before for bound in (1, 2, 3))


def test_plain_lines_on_a_terminal_without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stream = Terminal()
    with TerminalProgress(stream) as progress:
        progress(Report(lower_bound=1.0, upper_bound=2.0))
    assert stream.getvalue() == "solve 1200/5000  lower 1  upper 2  gap 50 %\n"


def test_default_stream_is_standard_error(capsys):
    with TerminalProgress(bar=False) as progress:
        progress(Report())
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("solve 1200/5000")
