"""Files of the SDPA sparse format: what is read, what is refused, and the programs they stand for."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcone
from jaxcone import SDPAProblem, read_sdpa, write_sdpa

solve = jax.jit(jaxcone.solve)

# The two examples of the SDPA user's manual, with the optima that are published there.
EXAMPLE_1 = """"Example 1: mDim = 3, nBLOCK = 1, {2}"
   3  =  mDIM
   1  =  nBLOCK
   2  = bLOCKsTRUCT
48, -8, 20
0 1 1 1 -11
0 1 2 2 23
1 1 1 1 10
1 1 1 2 4
2 1 2 2 -8
3 1 1 2 -8
3 1 2 2 -2
"""
# For each matrix the upper triangles of blocks 1 and 2 row by row, then the diagonal of block 3.
EXAMPLE_2 = [
    [-1.4, -3.2, -28, 15, -12, 2.1, 16, -3.8, 15, 1.8, -4],
    [0.5, 5.2, -5.3, 7.8, -2.4, 6, 4.2, 6.5, 2.1, -4.5, -3.5],
    [1.7, 7, -9.3, -1.9, -0.9, -1.3, -0.8, -2.1, 4, -0.2, -3.7],
    [6.3, -7.5, -3.3, 0.2, 8.8, 5.4, 3.4, -0.4, 7.5, -3.3, -4],
    [-2.4, -2.5, -2.9, 3.4, -3.2, -4.5, 3, -4.8, 3.6, 4.8, 9.7],
    [-6.5, -5.4, -6.6, 6.7, -7.2, -3.6, 7.3, -3, -1.4, 6.1, -1.5],
]
PLACES = ["1 1 1", "1 1 2", "1 2 2", "2 1 1", "2 1 2", "2 1 3", "2 2 2", "2 2 3", "2 3 3"]
PLACES += ["3 1 1", "3 2 2"]


def example_2() -> str:
    lines = ["5 = mDIM", "3 = nBLOCK", "(2, 3, -2) = bLOCKsTRUCT", "{1.1, -10, 6.6, 19, 4.1}"]
    for i, values in enumerate(EXAMPLE_2):
        lines += [f"{i} {place} {v}" for place, v in zip(PLACES, values, strict=True)]
    return "\n".join(lines)


def theta_of_the_pentagon() -> str:
    """Lovasz' theta as (D): max <J, Y> with tr Y = 1 and Y_ij = 0 on the edges. It is sqrt(5)."""
    ones = [f"0 1 {i} {j} 1" for i in range(1, 6) for j in range(i, 6)]
    trace = [f"1 1 {i} {i} 1" for i in range(1, 6)]
    edges = [f"{k + 1} 1 {k} {k % 5 + 1} 1" for k in range(1, 6)]
    return "\n".join(["6", "1", "5", "1 0 0 0 0 0", *ones, *trace, *edges])


KNOWN = {
    "example 1": (EXAMPLE_1, -41.9, [-1.1, -2.7375, -0.55]),
    "example 2": (example_2(), 32.062693, [1.551643, 0.670969, 0.981491, 1.406570, 0.942168]),
    "theta": (theta_of_the_pentagon(), np.sqrt(5), None),
}


def read(text: str) -> SDPAProblem:
    return read_sdpa(io.StringIO(text))


def matrices(problem: SDPAProblem) -> list[list[np.ndarray]]:
    """The blocks of F_0..F_m, all as matrices, by a plain loop."""
    count = len(problem.c) + 1
    F = [[np.zeros((abs(k), abs(k))) for k in problem.block_sizes] for _ in range(count)]
    entries = zip(
        problem.matrix, problem.block, problem.row, problem.column, problem.value, strict=True
    )
    for i, b, row, column, value in entries:
        F[i][b][row, column] = F[i][b][column, row] = value
    return F


def as_matrices(blocks) -> list[np.ndarray]:
    return [np.diag(b) if b.ndim == 1 else np.asarray(b) for b in map(np.asarray, blocks)]


def inner(left, right) -> float:
    return sum(float(np.sum(a * b)) for a, b in zip(left, right, strict=True))


def assert_same(left: SDPAProblem, right: SDPAProblem):
    assert left.block_sizes == right.block_sizes
    for name in ("c", "matrix", "block", "row", "column", "value"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize(("text", "optimum", "x"), KNOWN.values(), ids=KNOWN.keys())
def test_known_optimum(text, optimum, x):
    problem = read(text)
    solution = solve(problem.cone_program(), jaxcone.Splitting(tolerance=1e-8))
    assert solution.status == jaxcone.Status.solved
    assert float(solution.primal_objective) == pytest.approx(optimum, rel=1e-6)
    if x is not None:
        np.testing.assert_allclose(solution.x, x, atol=1e-5)
    # (P) and (D) recomputed from the entries of the file.
    F, point = matrices(problem), np.asarray(solution.x)
    slack = as_matrices(problem.blocks(solution.s))
    Y = as_matrices(problem.blocks(solution.y))
    for b, (X, dual) in enumerate(zip(slack, Y, strict=True)):
        combined = sum(x_i * F[i + 1][b] for i, x_i in enumerate(point)) - F[0][b]
        np.testing.assert_allclose(X, combined, atol=1e-6)
        assert np.linalg.eigvalsh(combined)[0] > -1e-6
        assert np.linalg.eigvalsh(dual)[0] > -1e-9
    assert float(problem.c @ point) == pytest.approx(optimum, rel=1e-6)
    np.testing.assert_allclose([inner(F_i, Y) for F_i in F[1:]], problem.c, atol=1e-6)
    assert inner(F[0], Y) == pytest.approx(optimum, rel=1e-6)


def test_sparse_map_solves_the_same():
    problem = read(EXAMPLE_1)
    solution = solve(problem.cone_program(dense=False), jaxcone.Splitting(tolerance=1e-8))
    assert float(solution.primal_objective) == pytest.approx(-41.9, rel=1e-6)


MIXED = """* blocks of one row, a diagonal one, matrices without entries
4
4
3 -2 1 -1
1 2 3 4
0 1 1 3 2.5
0 3 1 1 -1
1 1 2 3 0.1
1 1 2 2 7
1 2 2 2 -3
3 4 1 1 6
3 2 1 1 1e-3
"""


@pytest.mark.parametrize("dense", [True, False])
def test_program_has_the_constraint_of_the_file(rng, dense):
    problem = read(MIXED)
    program = problem.cone_program(dense=dense)
    F, x = matrices(problem), rng.standard_normal(4)
    s = program.b - program.A.apply(jnp.asarray(x))
    for b, block in enumerate(as_matrices(problem.blocks(s))):
        expected = sum(x[i] * F[i + 1][b] for i in range(4)) - F[0][b]
        np.testing.assert_allclose(block, expected, rtol=1e-14, atol=1e-14)
    # The adjoint is <F_i, Y> for the Y that the same map gives.
    y = rng.standard_normal(program.b.shape)
    Y = as_matrices(problem.blocks(jnp.asarray(y)))
    pull = -program.A.adjoint(jnp.asarray(y))
    np.testing.assert_allclose(pull, [inner(F_i, Y) for F_i in F[1:]], rtol=1e-12, atol=1e-14)


def test_precision_is_that_of_jax():
    with jax.enable_x64(False):
        assert read(MIXED).cone_program().b.dtype == jnp.float32
        assert read(MIXED).cone_program(dense=False).A.apply(jnp.ones(4)).dtype == jnp.float32


DIALECTS = {
    "punctuation": EXAMPLE_1.replace("48, -8, 20", "{(48), -8,20}").replace(
        "0 1 1 1 -11", "{0, 1, 1, 1, -11}"
    ),
    "signs and exponents": EXAMPLE_1.replace("48, -8, 20", "+4.8D+1,-.8d1,+2.e1").replace(
        "0 1 2 2 23", "0 +1 2 +2 +23.0E0"
    ),
    "lower triangle": EXAMPLE_1.replace("1 1 1 2 4", "1 1 2 1 4"),
    "over several lines": EXAMPLE_1.replace("48, -8, 20", "48,\n-8,\n\n20"),
    "comments and blank lines": '*\n\n "note"\n'
    + EXAMPLE_1.replace("\n0 1 1 1", "\n* F_0\n\n0 1 1 1"),
    "no text, tabs, other line ends": "\r\n".join(
        ["3", "1", "2", *(line.replace(" ", "\t") for line in EXAMPLE_1.splitlines()[4:])]
    ),
}


@pytest.mark.parametrize("text", DIALECTS.values(), ids=DIALECTS.keys())
def test_dialects_say_the_same(text):
    assert_same(read(text), read(EXAMPLE_1))


def test_comments_are_kept():
    assert read(EXAMPLE_1).comments == (EXAMPLE_1.splitlines()[0],)


MALFORMED = {
    "empty": (EXAMPLE_1, "", r"line 1: expected m, .* found the end of the file"),
    "m": ("   3  =", "   3.5 =", r"line 2: expected m, .*integer >= 1.* found '3.5 =  mDIM'"),
    "no m": ("   3  =  mDIM", "mDIM = 3", r"line 2: expected m, .* found 'mDIM = 3'"),
    "m is 0": ("   3  =", "0  =", r"line 2: expected m, .* found '0  =  mDIM'"),
    "blocks": ("   1  =  nBLOCK", "-1", r"line 3: expected the number of blocks .* found '-1'"),
    "too many sizes": ("   2  =", "2, 3 =", r"line 4: expected 1 integers, the block sizes"),
    "too few sizes": ("   1  =  n", "2 =  n", r"line 4: expected 2 integers, .* found '2  = bLO"),
    "size 2.5": ("   2  =", "2.5 =", r"line 4: expected 1 integers, the block sizes.* '2.5 ="),
    "size 0": ("   2  =", "   0  =", r"line 4: expected block sizes that are not 0, found"),
    "too many costs": ("48, -8, 20", "48, -8, 20, 1", r"line 5: expected 3 numbers, the costs c"),
    "too few costs": ("48, -8, 20", "48, -8", r"line 6: .* 2 of them before .* '0 1 1 1 -11'"),
    "no costs": (EXAMPLE_1[EXAMPLE_1.index("48") :], "", r"line 4: .*costs.* end of the file"),
    "nan cost": ("-8, 20", "nan, 20", r"line 5: expected 3 numbers, .* found '48, nan, 20'"),
    "huge cost": ("48, -8", "48, 1e999", r"line 5: expected costs c within the range"),
    "four numbers": ("0 1 2 2 23", "0 1 2 23", r"line 7: expected an entry: .*'0 1 2 23'"),
    "six numbers": ("0 1 2 2 23", "0 1 2 2 23 1", r"line 7: expected an entry: .*'0 1 2 2 23 1'"),
    "float index": ("0 1 2 2 23", "0 1 2.0 2 23", r"line 7: expected an entry: .*\(integers\)"),
    "text": ("0 1 2 2 23", "0 1 2 2 abc", r"line 7: expected an entry: .* found '0 1 2 2 abc'"),
    "nan": ("0 1 2 2 23", "0 1 2 2 nan", r"line 7: expected an entry: .* found '0 1 2 2 nan'"),
    "infinite": ("0 1 2 2 23", "0 1 2 2 1e999", r"line 7: expected a finite number, found inf"),
    "matrix": ("3 1 2 2 -2", "4 1 2 2 -2", r"line 12: expected a matrix from 0 to 3, found 4"),
    "block": ("3 1 2 2 -2", "3 2 2 2 -2", r"line 12: expected a block from 1 to 1, found 2"),
    "row": ("3 1 2 2 -2", "3 1 0 2 -2", r"line 12: expected rows .* from 1 to 2 .*found row 0"),
    "column": ("3 1 2 2 -2", "3 1 2 3 -2", r"line 12: .* block 1, found row 2, column 3"),
    "diagonal": ("   2  =", "  -2  =", r"line 9: expected only diagonal entries .* block 1"),
    "duplicate": ("3 1 2 2 -2", "0 1 1 1 -2", r"line 12: expected each entry once.* line 6"),
    "both triangles": ("3 1 2 2 -2", "3 1 2 1 -8", r"line 12: expected each entry once.* line 11"),
    "integers": ("3 1 2 2 -2", "*INTEGER", r"line 12: expected a convex program, .*INTEGER"),
}


@pytest.mark.parametrize(("old", "new", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_file_is_refused_by_line(tmp_path, old, new, message):
    assert old in EXAMPLE_1
    path = tmp_path / "bad.dat-s"
    path.write_text(EXAMPLE_1.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"bad\.dat-s, {message}"):
        read_sdpa(path)


def test_the_earliest_fault_is_named():
    bad = EXAMPLE_1.replace("0 1 2 2 23", "0 1 2 9 23").replace("3 1 2 2 -2", "9 1 2 2 -2")
    with pytest.raises(ValueError, match=r"SDPA text, line 7: .*column 9"):
        read(bad)


def test_bytes_are_refused():
    with pytest.raises(ValueError, match="opened as text"):
        read_sdpa(io.BytesIO(EXAMPLE_1.encode()))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"c": [[1.0]]}, r"c: .*\(1, 1\)"),
        ({"c": [np.nan]}, "c: expected .* finite"),
        ({"block_sizes": ()}, "block_sizes: expected at least one"),
        ({"block_sizes": (2, 0)}, "block_sizes: .* size 0"),
        ({"value": [1.0]}, "five arrays of one length"),
        ({"row": [0.0, 1.0]}, "integer indices"),
        ({"block": [0, 1]}, "entry 1: expected a block from 0 to 0, found 1"),
        ({"column": [0, 2]}, "entry 1: expected rows and columns from 0 to 1"),
        ({"matrix": [0, 2]}, "entry 1: expected a matrix from 0 to 1"),
        ({"row": [0, 0], "column": [0, 0], "matrix": [1, 1]}, "entry 1: .* after entry 0"),
        ({"value": [1.0, np.inf]}, "entry 1: expected a finite number"),
    ],
)
def test_bad_arrays_are_refused(change, message):
    good = {"c": [1.0], "block_sizes": (2,), "matrix": [0, 1], "block": [0, 0]}
    good |= {"row": [0, 1], "column": [0, 1], "value": [1.0, 2.0]}
    SDPAProblem(**good)
    with pytest.raises(ValueError, match=message):
        SDPAProblem(**(good | change))


@pytest.mark.parametrize("text", [EXAMPLE_1, example_2(), MIXED, "2\n1\n-1\n0 0"])
def test_written_files_read_the_same(tmp_path, rng, text):
    problem = read(text)
    awkward = rng.standard_normal(problem.value.shape) * 10.0 ** rng.integers(
        -300, 300, problem.value.shape
    )
    problem = SDPAProblem(
        problem.c / 3,
        problem.block_sizes,
        problem.matrix,
        problem.block,
        problem.column,
        problem.row,
        awkward,
        (*problem.comments, "no mark", "*two\nlines"),
    )
    write_sdpa(problem, tmp_path / "problem.dat-s")
    again = read_sdpa(str(tmp_path / "problem.dat-s"))
    assert_same(again, problem)
    assert again.comments == (*read(text).comments, '"no mark', "*two lines")
