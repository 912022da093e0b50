"""One clock, one way to be interrupted, one account of time."""

import itertools

import pytest

from jaxcvxnn import Job, Progress
from jaxcvxnn.job import Pace


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_limit_ends_the_work_at_the_next_question():
    clock = Clock()
    job = Job(10.0, now=clock)
    assert not job.over() and job.stopped == "" and job.remaining == 10
    clock.time = 9.5
    assert job.chunk(lambda: "done") == "done"
    clock.time = 10.0
    assert job.chunk(pytest.fail) is None
    assert job.over() and job.stopped == "time_limit" and job.remaining == 0
    assert job.finish(lambda: "the rest") == "the rest"


def test_no_limit_never_ends_it():
    clock = Clock()
    job = Job(now=clock)
    clock.time = 1e9
    assert not job.over() and job.remaining is None


def test_an_interrupt_ends_a_job_and_its_parts():
    job = Job()
    piece = job.part(0.5)
    assert piece.chunk(interrupt) is None
    assert piece.over() and job.over() and job.stopped == piece.stopped == "interrupted"
    assert job.chunk(pytest.fail) is None
    other = Job()
    with other.stage("solve"):
        interrupt()
    assert other.interrupted and set(other.seconds) == {"solve"}
    third = Job(progress=interrupt)
    third.report(1, 2, 0.0, 1.0)
    assert third.interrupted


def test_short_work_is_begun_again_after_an_interrupt():
    calls = itertools.count()

    def work():
        if next(calls) == 0:
            interrupt()
        return "done"

    job = Job()
    assert job.finish(work) == "done" and job.interrupted


def test_other_errors_come_through():
    with pytest.raises(ZeroDivisionError):
        Job().chunk(lambda: 1 / 0)


def test_parts_share_what_is_left():
    clock = Clock()
    job = Job(100.0, now=clock)
    clock.time = 20.0
    piece = job.part(0.25, label=" 0.1")
    assert piece.limit == 20 and Job(now=clock).part(0.25, seconds=7).limit == 7
    clock.time = 40.0
    assert piece.over() and piece.stopped == "time_limit"
    assert not job.over() and job.stopped == ""


def test_stages_name_reports_and_keep_an_account():
    clock, told = Clock(), []
    job = Job(progress=told.append, now=clock)
    for seconds in (2.0, 3.0):
        piece = job.part(label=" 0.1")
        with piece.stage("solve"):
            clock.time += seconds
            piece.report(7, 5, 1.0, 2.0, "note")
    assert told == [Progress("solve 0.1", 5, 5, 1.0, 2.0, "note")] * 2
    assert job.seconds == {"solve": 5.0}


def test_pieces_take_half_a_second():
    clock, pieces = Clock(), []
    job = Job(100.0, now=clock)

    def work(steps):
        pieces.append(steps)
        clock.time += 0.01 * steps
        return steps

    pace = Pace(job)
    assert pace.run(1000, work) == pieces[-1]
    assert sum(pieces) == 1000 and pieces[0] == 1 and max(pieces) <= 64
    # What is slower gets shorter pieces, down to one step.
    slow = Pace(job)
    slow.steps = 64
    seen = []

    def slower(steps):
        seen.append(steps)
        clock.time += 1.0 * steps
        return steps

    assert slow.run(1000, slower) is not None
    assert seen[:3] == [64, 1, 1] and job.over() and sum(seen) < 120
