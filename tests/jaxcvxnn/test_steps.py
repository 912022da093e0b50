"""The shell of the host's interior-point methods, by toy ones."""

import math

import numpy as np
import pytest

from jaxcvxnn.interior.steps import Pair, iterate, take_step, without_unused


def halves(**settings):
    """Halving from 1, in which the best is the least number and progress is what falls below 1/10."""
    options = {
        "advance": lambda x: x / 2,
        "learn": lambda best, x: (min(best, x), x > 0.1),
        "enough": lambda best: False,
        "max_steps": 50,
        "patience": 3,
    }
    return iterate(1.0, 1.0, **options | settings)


def failing_below(least, fails):
    def advance(x):
        if x / 2 < least:
            return fails()
        return x / 2

    return advance


def no_factor():
    raise np.linalg.LinAlgError


def test_it_ends_when_the_best_is_enough():
    assert halves(enough=lambda best: best <= 0.25) == (0.25, 2)


def test_it_ends_at_the_limit_of_steps():
    assert halves(max_steps=2) == (0.25, 2)
    assert halves(max_steps=0) == (1.0, 0)


def test_it_ends_when_patience_does():
    # 1/2, 1/4 and 1/8 are progress; after them come four steps without.
    assert halves() == (2.0**-7, 7)
    assert halves(patience=0) == (2.0**-4, 4)


def test_progress_renews_patience():
    assert halves(learn=lambda best, x: (min(best, x), round(-math.log2(x)) % 4 == 0)) == (
        2.0**-50,
        50,
    )
    assert halves(learn=lambda best, x: (min(best, x), round(-math.log2(x)) % 5 == 0))[1] == 4


@pytest.mark.parametrize("fails", [no_factor, lambda: None], ids=["LinAlgError", "None"])
def test_it_ends_where_rounding_leaves_no_step(fails):
    assert halves(advance=failing_below(0.2, fails)) == (0.25, 2)
    assert halves(advance=failing_below(2.0, fails)) == (1.0, 0)


def test_other_errors_are_not_caught():
    with pytest.raises(ZeroDivisionError):
        halves(advance=lambda x: x / 0)


@pytest.mark.parametrize("fails", [no_factor, lambda: None], ids=["LinAlgError", "None"])
def test_another_way_goes_on_from_the_same_point(fails):
    ways = [False]

    def advance(x):
        return x / 2 if ways[0] else failing_below(0.2, fails)(x)

    def other_way():
        turned, ways[0] = not ways[0], True
        return turned

    assert halves(advance=advance, other_way=other_way, max_steps=5) == (2.0**-5, 5)


def test_another_way_renews_patience_once():
    asked = []

    def other_way():
        asked.append(1)
        return len(asked) == 1

    # Four steps without progress, and four more on the other way.
    assert halves(other_way=other_way) == (2.0**-11, 11) and len(asked) == 2


def test_the_best_may_be_an_earlier_point():
    points = iter([3.0, 1.0, 2.0])
    best, steps = iterate(
        5.0,
        Pair("start", "start", 5.0, -5.0),
        advance=lambda _: next(points, None),
        learn=lambda best, x: (best.with_primal(x, x).with_dual(x, -abs(x - 2)), True),
        enough=lambda best: False,
        max_steps=9,
    )
    assert best == Pair(1.0, 2.0, 1.0, 0.0) and steps == 3


def test_no_nan_is_better():
    pair = Pair("primal", "dual", 1.0, 0.0)
    assert pair.with_primal("new", math.nan) is pair and pair.with_dual("new", math.nan) is pair
    assert pair.with_primal("new", 1.0) is pair and pair.with_dual("new", 0.0) is pair


def test_a_step_stays_inside_and_is_at_most_one():
    assert take_step(lambda t: t, lambda t: t <= 1, math.inf) == 1
    assert take_step(lambda t: t, lambda t: t < 0.5, 0.5) == pytest.approx(0.495)
    assert take_step(lambda t: t, lambda t: t < 0.4, 0.5) == pytest.approx(0.495 * 0.7)
    assert take_step(lambda t: t, lambda t: False, 1.0) is None


def test_unused_weights_are_zero_unless_that_costs_accuracy():
    weights = np.array([[3.0, 4.0], [1e-6, 0.0]])
    room = np.array([1e-9, 0.5])

    def objective(w):
        return 1.0 + 1e-3 * (w[1, 0] == 0)

    kept, value = without_unused(weights, room, 1.0, objective, lambda value: False)
    assert value == 1.0 and np.array_equal(kept, weights)
    found, value = without_unused(weights, room, 1.0, objective, lambda value: value < 1.01)
    assert value == 1.001 and np.array_equal(found, [[3.0, 4.0], [0.0, 0.0]])
