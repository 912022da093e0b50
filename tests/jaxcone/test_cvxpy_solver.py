"""jaxcone as a solver of CVXPY: CVXPY's own standard tests, the options, and what it is told."""

import re
import subprocess
import sys

import cvxpy as cp
import cvxpy.settings as names
import jax
import numpy as np
import pytest
import scipy.sparse
from cvxpy.tests import solver_test_helpers as standard

import jaxcone
from jaxcone import cvxpy_solver
from jaxcone.cvxpy_solver import CVXPYSolver

LP = ["lp_0", "lp_1", "lp_2", "lp_3", "lp_4", "lp_5", "lp_6"]
QP = ["qp_0", "qp_parameter_update"]
SOCP = ["socp_0", "socp_1", "socp_2", "socp_3ax0", "socp_3ax1", "socp_4", "socp_bounds_attr"]
SDP = ["sdp_1min", "sdp_1max", "sdp_2", "sdp_batched"]
INFEASIBLE = ["lp_ineq_constraints", "lp_eq_constraints", "soc", "psd_cone"]
# Their standard tests are for other solvers: bounds without rows, and a check for SDPA's library.
BY_HAND = ["lp_7", "lp_bound_attr", "qp_bound_attr"]
# Not ours: integers, exponential and power cones.
OTHERS = re.compile("_mi_|_exp_|_power_cone_")

SUITES = {
    standard.StandardTestLPs: LP,
    standard.StandardTestQPs: QP,
    standard.StandardTestSOCPs: SOCP,
    standard.StandardTestSDPs: SDP,
    standard.StandardTestInfeasibleProblems: INFEASIBLE,
}
# One program of each kind, then infeasible and unbounded ones. Each has a shape of its own to compile:
# all would take minutes, and the splitting method has run through them all.
QUICK = ["lp_1", "qp_0", "socp_1", "sdp_1min"]
SLOW = ["lp_3", "lp_4", "lp_ineq_constraints", "lp_eq_constraints", "socp_2"]


METHODS = ["splitting", pytest.param("interior_point", marks=pytest.mark.slow)]


def cases(named: list[tuple]) -> list:
    """The standard problems (..., name) with each method."""
    found = []
    for *suite, name in named:
        found.append(pytest.param(*suite, name, "splitting", id=name))
        if name in QUICK + SLOW:
            marks = [] if name in QUICK else [pytest.mark.slow]
            label = f"{name}-interior_point"
            found.append(pytest.param(*suite, name, "interior_point", id=label, marks=marks))
    return found


def solve(problem: cp.Problem, method="splitting", **options) -> float:
    return problem.solve(solver=CVXPYSolver(method), **options)


def steps(problem: cp.Problem) -> int:
    return problem.solver_stats.num_iters


def counted(module: str, name: str, calls: list[str]):
    """A function that notes its calls."""
    function = getattr(sys.modules[module], name)
    return lambda *arguments: [calls.append(name), function(*arguments)][1]


def polyhedral(rng: np.random.Generator) -> cp.Problem:
    """A bounded LP that takes some hundred steps."""
    A, x = rng.standard_normal((30, 8)), cp.Variable(8)
    return cp.Problem(cp.Minimize(rng.standard_normal(8) @ x), [A @ x <= 1, cp.abs(x) <= 5])


@pytest.mark.parametrize(
    "suite, name, method",
    cases([(suite, name) for suite, listed in SUITES.items() for name in listed]),
)
def test_standard_problem(suite, name, method):
    # The default backend of CVXPY cannot do three axes, and warns that it takes this one.
    options = {"canon_backend": "SCIPY"} if name == "sdp_batched" else {}
    getattr(suite, f"test_{name}")(CVXPYSolver(method), **options)


@pytest.mark.parametrize("name, method", cases([(name,) for name in BY_HAND]))
def test_standard_problem_by_hand(name, method):
    problem = getattr(standard, name)()
    problem.solve(CVXPYSolver(method))
    problem.verify_objective(4)
    problem.verify_primal_values(4)
    problem.check_primal_feasibility(4)


def test_no_standard_problem_is_left_out():
    offered = {name for suite in SUITES for name in dir(suite) if name.startswith("test_")}
    listed = {f"test_{name}" for name in [*sum(SUITES.values(), []), *BY_HAND]}
    assert {name for name in offered - listed if not OTHERS.search(name)} == set()


def test_quadratic_objective_with_all_of_P(rng):
    root, c, A = rng.standard_normal((5, 5)), rng.standard_normal(5), rng.standard_normal((2, 5))
    P, x = root @ root.T, cp.Variable(5)
    problem = cp.Problem(cp.Minimize(cp.quad_form(x, P) / 2 + c @ x), [A @ x == 1])
    solve(problem, tolerance=1e-10)
    kkt = np.block([[P, A.T], [A, np.zeros((2, 2))]])
    exact = np.linalg.solve(kkt, np.concatenate([-c, np.ones(2)]))
    np.testing.assert_allclose(x.value, exact[:5], atol=1e-7)
    np.testing.assert_allclose(problem.constraints[0].dual_value, exact[5:], atol=1e-7)


def test_quadratic_objective_as_a_cone():
    problem = standard.qp_0()
    problem.solve(CVXPYSolver(), use_quad_obj=False)
    problem.verify_objective(4)


def test_triangle_stands_for_a_symmetric_P():
    full = np.array([[2.0, 1, 0], [1, 3, -1], [0, -1, 4]])
    for P in (full, np.triu(full)):
        np.testing.assert_array_equal(cvxpy_solver._symmetric(scipy.sparse.csc_array(P)), full)


def test_hermitian_matrices():
    H = cp.Variable((2, 2), hermitian=True)
    problem = cp.Problem(cp.Minimize(cp.real(cp.trace(H))), [H >> 0, H[0, 1] == 1 + 1j])
    assert solve(problem) == pytest.approx(2 * np.sqrt(2), abs=1e-5)


def test_matrices_for_earlier_versions_of_cvxpy(rng):
    X = cp.Variable((3, 3))
    M = rng.standard_normal((3, 3))
    symmetric = (M + M.T) / 2
    svec = CVXPYSolver.psd_format_mat(X >> 0) @ M.ravel("F")
    np.testing.assert_allclose(svec, jaxcone.svec(jax.numpy.asarray(symmetric)), rtol=1e-14)
    rows = np.concatenate([[7.0], svec, [8.0]])
    dual, end = cvxpy_solver._dual_value(rows, 1, X >> 0)
    np.testing.assert_allclose(dual, symmetric, rtol=1e-14)
    assert end == 7


@pytest.mark.parametrize("method", METHODS)
class TestWithoutConstraints:
    def test_bounded(self, method):
        x = cp.Variable(2)
        solve(cp.Problem(cp.Minimize(cp.sum_squares(x - np.array([1, 2])))), method)
        np.testing.assert_allclose(x.value, [1, 2], atol=1e-6)

    def test_unbounded(self, method):
        x = cp.Variable(2)
        problem = cp.Problem(cp.Minimize(cp.square(x[0] - 1) + x[1]))
        assert solve(problem, method) == -np.inf
        assert problem.status == cp.UNBOUNDED

    def test_zero_objective(self, method):
        x = cp.Variable(2)
        assert solve(cp.Problem(cp.Minimize(cp.sum(0 * x))), method) == 0
        assert x.value is not None

    def test_variables_of_size_zero(self, method):
        x = cp.Variable(0)
        assert solve(cp.Problem(cp.Minimize(cp.sum(x) + 1), [x >= 1]), method) == 1

    def test_no_variables(self, method):
        assert solve(cp.Problem(cp.Minimize(3)), method) == 3


class TestBoundsAtInfinity:
    def test_one_that_is_none_has_dual_zero(self):
        x = cp.Variable(2)
        upper = x <= np.array([1, np.inf])
        solve(cp.Problem(cp.Minimize(x[1] - x[0]), [upper, x >= -1]))
        np.testing.assert_allclose(x.value, [1, -1], atol=1e-6)
        np.testing.assert_allclose(upper.dual_value, [1, 0], atol=1e-6)
        assert upper.dual_value[1] == 0

    def test_a_warm_start_may_have_had_other_rows(self):
        x, upper = cp.Variable(2), cp.Parameter(2)
        problem = cp.Problem(cp.Maximize(cp.sum(x)), [x <= upper, x <= 10])
        for bounds in ([1, np.inf], [1, 2], [np.inf, np.inf]):
            upper.value = bounds
            solve(problem)
            np.testing.assert_allclose(x.value, np.minimum(bounds, 10), atol=1e-4)

    @pytest.mark.parametrize("relation", [cp.Variable.__ge__, cp.Variable.__eq__])
    def test_one_that_no_point_meets_is_refused(self, relation):
        x = cp.Variable(2)
        with pytest.raises(ValueError, match="infinite value"):
            solve(cp.Problem(cp.Minimize(x[0]), [relation(x, np.array([1, np.inf]))]))


class TestRefused:
    def test_indefinite_objective(self):
        x = cp.Variable(2)
        form = cp.quad_form(x, np.diag([1.0, -1]), assume_PSD=True)
        with pytest.raises(ValueError, match="P: .*positive semidefinite"):
            solve(cp.Problem(cp.Minimize(form), [x <= 1]))

    @pytest.mark.parametrize("bound", [{"integer": True}, {"boolean": True}])
    def test_integers(self, bound):
        x = cp.Variable(**bound)
        with pytest.raises(cp.SolverError, match="JAXCONE is not MIP-capable"):
            solve(cp.Problem(cp.Minimize(x), [x >= 0.5]))

    def test_exponentials(self):
        x = cp.Variable()
        with pytest.raises(cp.SolverError, match="JAXCONE cannot solve"):
            solve(cp.Problem(cp.Minimize(cp.exp(x)), [x >= 0.5]))

    def test_unknown_option(self):
        problem = cp.Problem(cp.Minimize(cp.Variable()))
        unknown = "no option 'eps', 'verbosity' with the method 'splitting'; .*tolerance, max_steps"
        with pytest.raises(ValueError, match=unknown):
            solve(problem, eps=1e-3, tolerance=1e-3, verbosity=2)

    def test_option_of_the_other_method(self):
        problem = cp.Problem(cp.Minimize(cp.Variable()))
        for method, option in [("splitting", "refinements"), ("interior_point", "check_every")]:
            with pytest.raises(ValueError, match=f"'{option}' with the method '{method}'; "):
                solve(problem, method, **{option: 1})

    def test_unknown_method(self):
        with pytest.raises(ValueError, match="must be one of 'splitting', 'interior_point', got 3"):
            CVXPYSolver(3)  # pyright: ignore[reportArgumentType]

    def test_a_problem_beyond_the_memory_limit(self):
        x = cp.Variable(20)
        problem = cp.Problem(cp.Minimize(cp.sum(x)), [x >= 1])
        with pytest.raises(ValueError, match="InteriorPoint: .* use Splitting"):
            solve(problem, "interior_point", memory_limit=1e3)

    @pytest.mark.parametrize(
        "option", [{"tolerance": np.nan}, {"tolerance": 0.0}, {"max_steps": 0}, {"max_steps": 1e3}]
    )
    def test_option_out_of_range(self, option):
        [name] = option
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            solve(cp.Problem(cp.Minimize(cp.Variable())), **option)


class TestStatus:
    def test_solved(self, rng):
        problem = polyhedral(rng)
        value = solve(problem)
        stats = problem.solver_stats
        assert problem.status == cp.OPTIMAL and stats.solver_name == "JAXCONE"
        found = stats.extra_stats
        assert isinstance(found, jaxcone.Solution)
        assert found.status == jaxcone.Status.solved
        assert 0 < float(found.residuals.worst) <= 1e-6
        assert stats.num_iters == int(found.steps) > 0
        assert stats.solve_time > 0 and stats.setup_time > 0
        assert value == pytest.approx(problem.solve(solver=cp.CLARABEL), rel=1e-5)

    # The residuals at the limit, over the tolerance.
    @pytest.mark.parametrize("ratio, status", [(10, cp.OPTIMAL_INACCURATE), (1e3, cp.USER_LIMIT)])
    def test_step_limit(self, rng, ratio, status):
        problem = polyhedral(rng)
        options = {"max_steps": 20, "check_every": 10, "warm_start": False}
        with pytest.warns(UserWarning, match="may be inaccurate"):
            solve(problem, tolerance=1e-14, **options)
        worst = float(problem.solver_stats.extra_stats.residuals.worst)
        with pytest.warns(UserWarning, match="may be inaccurate"):
            value = solve(problem, tolerance=worst / ratio, **options)
        assert problem.status == status and steps(problem) == 20
        assert np.isfinite(value) and problem.constraints[0].dual_value is not None

    def test_not_finite(self):
        x = cp.Variable(2)
        problem = cp.Problem(cp.Minimize(1e300 * x[0] + 1e-300 * x[1]), [x >= 1e200])
        with pytest.raises(cp.SolverError, match="'JAXCONE' failed"):
            solve(problem)

    @pytest.mark.parametrize("method", METHODS)
    def test_infeasible_has_a_proof(self, method):
        x = cp.Variable(2)
        A, b = np.array([[1.0, 2], [-2, -4]]), np.array([1, -3])
        problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [A @ x <= b])
        assert solve(problem, method) == np.inf and problem.status == cp.INFEASIBLE
        y = problem.constraints[0].dual_value
        assert np.all(y >= 0) and b @ y == pytest.approx(-1)
        np.testing.assert_allclose(A.T @ y, 0, atol=1e-6)

    def test_unbounded(self):
        x = cp.Variable(2)
        problem = cp.Problem(cp.Maximize(x[0]), [x[0] >= x[1]])
        assert solve(problem) == np.inf and problem.status == cp.UNBOUNDED
        assert x.value is None and problem.constraints[0].dual_value is None


class TestInteriorPoint:
    """Its own options, statuses and compilations; on one shape of program, to compile it once."""

    def test_accurate_in_few_steps(self, rng):
        problem = polyhedral(rng)
        value = solve(problem, "interior_point")
        found = problem.solver_stats.extra_stats
        assert problem.status == cp.OPTIMAL and steps(problem) <= 30
        assert found.status == jaxcone.Status.solved and float(found.residuals.worst) <= 1e-8
        assert value == pytest.approx(problem.solve(solver=cp.CLARABEL), rel=1e-7)
        solve(problem, "interior_point")  # no warm start, and no harm from the offer of one
        assert steps(problem) == int(found.steps)

    def test_numbers_do_not_recompile(self, rng, monkeypatch):
        problem, traced = polyhedral(rng), []
        step = counted("jaxcone.methods.interior_point", "_step", traced)
        monkeypatch.setattr(sys.modules["jaxcone.methods.interior_point"], "_step", step)
        solve(problem, "interior_point", tolerance=1e-3, refinements=1)
        solve(problem, "interior_point", tolerance=1e-6, max_steps=50, refinements=1)
        assert traced == ["_step"]

    def test_step_limit(self, rng):
        problem = polyhedral(rng)
        with pytest.warns(UserWarning, match="may be inaccurate"):
            value = solve(problem, "interior_point", max_steps=2)
        assert problem.status == cp.USER_LIMIT and steps(problem) == 2
        assert np.isfinite(value) and problem.constraints[0].dual_value is not None

    def test_stalled(self, rng):
        problem = polyhedral(rng)
        with pytest.warns(UserWarning, match="may be inaccurate"):
            value = solve(problem, "interior_point", tolerance=1e-22)
        assert problem.solver_stats.extra_stats.status == jaxcone.Status.stalled
        assert problem.status == cp.USER_LIMIT
        assert value == pytest.approx(problem.solve(solver=cp.CLARABEL), rel=1e-7)

    def test_a_line_per_step(self, rng, capsys):
        problem = polyhedral(rng)
        solve(problem, "interior_point", verbose=True)
        lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("jaxcone")]
        assert [int(line.split()[2]) for line in lines] == [*range(1, steps(problem) + 1)]


class TestParameters:
    def test_second_solve_starts_from_the_first(self, rng):
        x, target = cp.Variable(6), cp.Parameter(6)
        A = rng.standard_normal((12, 6))
        objective = cp.Minimize(cp.sum_squares(x - target) + cp.norm1(x))
        problem = cp.Problem(objective, [A @ x <= 1])
        target.value = rng.standard_normal(6)
        solve(problem, check_every=5)
        cold = steps(problem)
        solve(problem, check_every=5)  # a new instance of the solver, the same problem
        assert steps(problem) == 5 < cold
        target.value = target.value + 1e-3
        warm_value = solve(problem, check_every=5, enforce_dpp=True)
        cold_value = solve(problem, check_every=5, warm_start=False)
        assert warm_value == pytest.approx(cold_value, rel=1e-4)
        assert warm_value == pytest.approx(problem.solve(solver=cp.CLARABEL), rel=1e-4)

    def test_numbers_do_not_recompile(self, monkeypatch):
        traced = []
        for module, name in [
            ("jaxcone.methods.splitting", "block"),
            ("jaxcone.methods.splitting", "init"),
        ]:
            monkeypatch.setattr(sys.modules[module], name, counted(module, name, traced))
        x, least = cp.Variable(7), cp.Parameter(value=1)
        problem = cp.Problem(cp.Minimize(cp.sum(x)), [x >= least])
        solve(problem, tolerance=1e-3, check_every=7)
        least.value = 2
        solve(problem, tolerance=1e-9, check_every=7, max_steps=70, penalty=2.0)
        assert x.value == pytest.approx(np.full(7, 2))
        assert sorted(traced) == ["block", "init"]

    def test_after_an_infeasible_one(self):
        x, least = cp.Variable(), cp.Parameter()
        problem = cp.Problem(cp.Minimize(x), [x >= least, x <= 1])
        for value, optimum in [(2, np.inf), (0.5, 0.5), (3, np.inf), (-1, -1)]:
            least.value = value
            assert solve(problem) == pytest.approx(optimum, abs=1e-5)

    def test_two_solvers_are_one(self):
        assert CVXPYSolver() == CVXPYSolver() and CVXPYSolver() != cp.CLARABEL
        assert CVXPYSolver("interior_point") != CVXPYSolver("splitting") == CVXPYSolver()
        assert len({CVXPYSolver(), CVXPYSolver("splitting"), CVXPYSolver("interior_point")}) == 2


class TestVerbose:
    def test_a_line_per_chunk_and_the_reason_for_the_end(self, rng, capsys):
        options = {"check_every": 1, "max_steps": 25, "tolerance": 1e-14}
        with pytest.warns(UserWarning, match="may be inaccurate"):
            solve(polyhedral(rng), verbose=True, **options)
        lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("jaxcone")]
        assert [line.split()[2] for line in lines] == ["10", "20", "25"]
        assert "step limit" in lines[-1] and "step limit" not in lines[0]

    def test_silent_otherwise(self, rng, capsys):
        solve(polyhedral(rng))
        assert capsys.readouterr().out == ""

    def test_interrupt_is_not_swallowed(self, rng, monkeypatch):
        def interrupt(solution):
            raise KeyboardInterrupt

        monkeypatch.setattr(cvxpy_solver, "_print", interrupt)
        with pytest.raises(KeyboardInterrupt):
            solve(polyhedral(rng), verbose=True, check_every=1, tolerance=1e-14)


def test_citation_and_name():
    solver = CVXPYSolver()
    assert solver.is_installed() and solver.name() not in names.SOLVERS
    assert "jaxcone" in solver.cite({})


def test_float64_without_the_flag(tmp_path):
    code = """
import jax, numpy as np, cvxpy as cp, jaxcone.cvxpy_solver
x = cp.Variable(3)
problem = cp.Problem(cp.Minimize(cp.norm(x - np.array([1, 2, 3]) / 3)), [cp.sum(x) == 1])
problem.solve(solver=jaxcone.cvxpy_solver.CVXPYSolver(), tolerance=1e-11)
assert problem.status == cp.OPTIMAL and abs(problem.value - 1 / np.sqrt(3)) < 1e-9, problem.value
assert not jax.config.jax_enable_x64
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
