"""Reading CSV files: what is found out by itself, and how wrong files are refused."""

import numpy as np
import pytest

from jaxcvxnn.cli.tables import read_features, read_table

FLOWERS = "length,width,kind\n1.5,2,setosa\n-3e1,0.25,virginica\n4,.5,setosa\n"


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes, name: str = "data.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def rows(*cells: object, header: str = "a,b,y") -> str:
    """A table of two numeric features and the given targets."""
    return header + "\n" + "".join(f"{i}.5,{-i},{cell}\n" for i, cell in enumerate(cells))


def test_values_and_names(write):
    table = read_table(write(FLOWERS), "kind")
    np.testing.assert_array_equal(table.X, [[1.5, 2], [-30, 0.25], [4, 0.5]])
    np.testing.assert_array_equal(table.Y, [[1, 0], [0, 1], [1, 0]])
    assert table.X.dtype == table.Y.dtype == np.float64
    assert table.feature_names == ("length", "width")
    assert table.target_names == ("kind",)
    assert table.classes == ("setosa", "virginica")
    assert table.task == "classification" and table.header
    assert table.feature_columns == (0, 1) and table.file_columns == 3


@pytest.mark.parametrize(
    "content",
    [
        FLOWERS.replace("\n", "\r\n"),
        FLOWERS.replace("\n", "\r"),
        "\ufeff" + FLOWERS,
        FLOWERS.replace(",", ";"),
        FLOWERS.replace(",", "\t"),
        FLOWERS.replace(",", " | "),
        FLOWERS.replace(",", ", "),
        FLOWERS.replace("length", '"length"').replace("setosa", '"setosa"'),
        FLOWERS.rstrip("\n"),
        "\n" + FLOWERS.replace("\n", "\n\n"),
    ],
    ids="crlf cr bom semicolon tab bar spaces quotes no-final-newline blank-lines".split(),
)
def test_ways_to_write_the_same_table(write, content):
    table = read_table(write(content), "kind")
    np.testing.assert_array_equal(table.X, [[1.5, 2], [-30, 0.25], [4, 0.5]])
    assert table.feature_names == ("length", "width")
    assert table.classes == ("setosa", "virginica")


def test_quoted_cells_keep_delimiters_and_line_breaks(write):
    content = '"a, cm",b,y\n1,2,"yes, ""very"""\n3,4,"two\nlines"\n5,oops,no\n'
    with pytest.raises(ValueError, match=r"line 5, column 'b': found 'oops'"):
        read_table(write(content), "y")
    table = read_table(write(content.replace("oops", "6")), "y", task="classification")
    assert table.feature_names == ("a, cm", "b")
    assert table.classes == ("no", "two\nlines", 'yes, "very"')


KINDS = "\n4.9,3.0,setosa\n6.1,2.8,virginica\n5.0,3.1,setosa\n5.9,3.0,virginica\n"


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("5.1,3.5,setosa", False),  # text only where the next row has text as well
        ("length,width,kind", True),
        ("0,1,kind", True),  # column numbers beside text, as pandas writes them
        ("150,width,0", True),  # text above a number
    ],
)
def test_header_is_found_out(write, first, header):
    table = read_table(write(first + KINDS), -1)
    assert table.header is header
    assert len(table.X) == (4 if header else 5)
    assert table.classes == ("setosa", "virginica")
    assert table.feature_names == (tuple(first.split(",")[:2]) if header else ("x0", "x1"))


def test_rows_of_numbers_and_gaps_are_no_header(write):
    assert not read_table(write("5.1,3.5,0\n4.9,3.0,1\n4,3,0\n4,2,1\n"), -1).header
    assert read_table(write("5.1,3.5,0" + KINDS), -1).classes == ("0", "setosa", "virginica")
    with pytest.raises(ValueError, match=r"line 1, column 'x1': found '\?' \(a missing value"):
        read_table(write("5.1,?,setosa" + KINDS), -1)
    with pytest.raises(ValueError, match="column 1 has no name in the header"):
        read_table(write("length,,kind" + KINDS), -1)


def test_header_can_be_stated(write):
    numbers = write("1,2,3\n4,5,6\n7,8,9\n")
    assert len(read_table(numbers, -1, task="regression").X) == 3
    table = read_table(numbers, "3", header=True, task="regression")
    assert table.feature_names == ("1", "2") and len(table.X) == 2
    text = write("a,1,no\nb,2,yes\n")
    with pytest.raises(ValueError, match="line 1, column 'x0': found 'a', expected a number"):
        read_table(text, 2, header=False)


def test_target_by_index_and_a_name_before_an_index(write):
    path = write("0,2,1\n5,6,7.5\n8,9,1.5\n")
    assert read_table(path, 0, header=True).Y.ravel().tolist() == [5, 8]
    assert read_table(path, "1", header=True).Y.ravel().tolist() == [7.5, 1.5]
    assert read_table(path, "-2", header=True).Y.ravel().tolist() == [6, 9]
    assert read_table(path, "-2", header=True).feature_names == ("0", "1")


def test_several_targets(write):
    path = write("a,y,b,z\n1,2,3,4\n5,6,7,8\n")
    table = read_table(path, "z, y")
    np.testing.assert_array_equal(table.X, [[1, 3], [5, 7]])
    np.testing.assert_array_equal(table.Y, [[4, 2], [8, 6]])
    assert table.target_names == ("z", "y")
    assert table.task == "regression" and table.classes is None
    with pytest.raises(ValueError, match="classification takes one target column, got 2"):
        read_table(path, "z,y", task="classification")
    with pytest.raises(ValueError, match="target column 'y' is given twice"):
        read_table(path, "y,1")


@pytest.mark.parametrize(
    ("targets", "classes", "found"),
    [
        ([1, 0, 1, 0], "0 1", [1, 0, 1, 0]),
        (["10", "9.0", "9", "10"], "9 10", [1, 0, 0, 1]),  # by value, not by spelling
        ([-1, 1, 1, -1], "-1 1", [0, 1, 1, 0]),
        (["b", "a", "b"], "a b", [1, 0, 1]),
        (["1", "x", "x", "1"], "1 x", [0, 1, 1, 0]),  # no majority of numbers: text
        ([*range(20)] * 2, " ".join(map(str, range(20))), [*range(20)] * 2),
    ],
)
def test_classes_are_found_out(write, targets, classes, found):
    table = read_table(write(rows(*targets)), "y")
    names = tuple(classes.split())
    assert table.task == "classification" and table.classes == names
    np.testing.assert_array_equal(table.Y, np.eye(len(names))[found])


@pytest.mark.parametrize(
    "targets",
    [
        [*range(21)] * 2,  # too many different integers
        [1, 2, 3, 1],  # not twice on average
        [0.5, 1.5, 0.5, 1.5],
        [1, 2, 1, 2.5],
    ],
)
def test_regression_is_found_out(write, targets):
    table = read_table(write(rows(*targets)), "y")
    assert table.task == "regression" and table.classes is None
    np.testing.assert_array_equal(table.Y, np.array(targets)[:, None])


def test_task_can_be_stated(write):
    path = write(rows(0, 1, 0, 1))
    assert read_table(path, "y", task="regression").Y.ravel().tolist() == [0, 1, 0, 1]
    halves = write(rows(2.5, 0.5, 2.5))
    table = read_table(halves, "y", task="classification")
    assert table.classes == ("0.5", "2.5")
    np.testing.assert_array_equal(table.Y, [[0, 1], [1, 0], [0, 1]])
    with pytest.raises(ValueError, match="line 3, column 'y': found 'b', expected a number"):
        read_table(write(rows(1, "b")), "y", task="regression")


def test_dropped_columns(write):
    path = write("name,a,b,y\nanna,1,2,0.5\nbert,3,4,1.5\n")
    table = read_table(path, "y", drop=["name", 2])
    np.testing.assert_array_equal(table.X, [[1], [3]])
    assert table.feature_columns == (1,) and table.file_columns == 4
    with pytest.raises(ValueError, match="'y' is both a target and dropped"):
        read_table(path, "y", drop=["y"])
    with pytest.raises(ValueError, match="no column to drop 'c'; the columns are 'name', 'a'"):
        read_table(path, "y", drop=["c"])
    with pytest.raises(ValueError, match="no feature columns"):
        read_table(path, "y", drop=[0, 1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("a,b,y\n", "no rows below the header 'a', 'b', 'y'"),
        ("a,b,y\n1,2,0\n1,,1\n", "line 3, column 'b': found an empty cell, expected a number"),
        ("a,b,y\n1,2,0\n1,NA,1\n", r"line 3, column 'b': found 'NA' \(a missing value\)"),
        ("a,b,y\n1,2,0\nnan,3,1\n", r"line 3, column 'a': found 'nan' \(a missing value\)"),
        ("a,b,y\n1,?,0\n1,3,1\n", r"line 2, column 'b': found '\?' \(a missing value\)"),
        ("a,b,y\n1,2,\n1,3,1\n", "line 2, column 'y': found an empty cell, expected a number or"),
        ("a,b,y\n1,2,0\n1,3,N/A\n", r"line 3, column 'y': found 'N/A' \(a missing value\)"),
        ("a,b,y\n1,-inf,0\n1,3,1\n", "line 2, column 'b': found '-inf', expected a finite number"),
        ("a,b,y\n1,1e999,0\n1,3,1\n", "line 2, column 'b': found '1e999', expected a finite"),
        ("a,b,y\n1,2,inf\n1,3,1\n", "line 2, column 'y': found 'inf', expected a finite number"),
        ("a,b,y\n1,2,0\n1,1_000,1\n", "line 3, column 'b': found '1_000', expected a number$"),
        (
            "a,b,y\n1,red,0\n1,blue,1\n",
            "line 2, column 'b': found 'red', expected a number; encode",
        ),
        ("a;b;y\n1;2,5;0\n1;3;1\n", "found '2,5', expected a number with a decimal point"),
        ("a,b,y\n1,2,0\n\n1,3\n", "line 4 has 2 cells, expected 3 as in line 1"),
        ("a,b,y\n1,2,0,9\n1,3,1\n", "line 2 has 4 cells, expected 3 as in line 1"),
        ("a,b,a,y\n1,2,3,0\n", r"column name 'a' stands twice in the header \(columns 0, 2\)"),
        (",b,y\n0,2,0.5\n1,3,1\n", "column 0 has no name in the header"),
        ("y\n1\n2\n", "only one column was found"),
        ("a,b,y\n1,2,0\n1,3,0\n", "column 'y' holds a single class, '0'; expected at least two"),
        ("a,b,y\n1,2,u\n1,3,v\n1,4,w\n", "'y' holds a different text in every row"),
        ("a,b,y\n1,2,1.5\n1,3,2.5\n1,4,x\n", "line 4, column 'y': found 'x', expected a number as"),
        ('a,b,y\n1,2,0\n1,"3,1\n', "line 3 is not valid CSV: a quoted cell is not closed"),
        ('a,b,y\n1,2,0\n1,"3"4,1\n', "line 3 is not valid CSV"),
        (b"a,b,y\n1,2,0\n1,3,\xe9\n", "line 3: found byte 0xe9, expected UTF-8 text"),
        (b"\xef\xbb\xbfa,b,y\n1,2,\xff\n", "line 2: found byte 0xff, expected UTF-8 text"),
        ("a,b,y\n1,2,0\n".encode("utf-16"), "the file is UTF-16, expected UTF-8"),
    ],
)
def test_refusals_name_the_file_and_the_place(write, content, message):
    path = write(content, "wrong.csv")
    with pytest.raises(ValueError, match=message) as refusal:
        read_table(path, "y")
    assert str(refusal.value).startswith(f"{path}: ")


def test_unknown_targets(write):
    path = write(FLOWERS)
    with pytest.raises(ValueError, match="no target 'Kind'; the columns are 'length', 'width', 'k"):
        read_table(path, "Kind")
    with pytest.raises(
        ValueError, match="no target 3: the file has 3 columns, indices from 0 to 2"
    ):
        read_table(path, 3)
    with pytest.raises(ValueError, match="no target -4"):
        read_table(path, "-4")
    with pytest.raises(ValueError, match="no header, so use an index from 0 to 2"):
        read_table(write("1,2,3\n4,5,6\n"), "kind")
    wide = write(",".join(f"c{j}" for j in range(50)) + "\n" + ",".join("1" * 50) + "\n")
    with pytest.raises(ValueError, match=r"'c19', \.\.\. \(50 in all\)"):
        read_table(wide, "y")


def test_wrong_options(write):
    path = write(FLOWERS)
    with pytest.raises(ValueError, match="delimiter must be one character"):
        read_table(path, "kind", delimiter="::")
    with pytest.raises(ValueError, match="task must be"):
        read_table(path, "kind", task="clustering")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="only one column was found"):
        read_table(path, 0, delimiter=";")
    with pytest.raises(FileNotFoundError):
        read_table(path.with_name("none.csv"), "kind")


def test_features_by_name_in_any_order(write):
    names, columns, width = ("length", "width"), (0, 1), 3
    path = write("kind,width,extra,length\nsetosa,2,hello,1\n?,4,,3\n")
    X = read_features(path, names, columns, width)
    np.testing.assert_array_equal(X, [[1, 2], [3, 4]])
    with pytest.raises(
        ValueError, match="missing feature column 'width'; the columns are 'length'"
    ):
        read_features(write("length,breadth\n1,2\n"), names, columns, width)


def test_features_without_a_header(write):
    names, columns, width = ("x0", "x2"), (0, 2), 4
    whole = write("1,anna,2,0\n3,bert,4,1\n")
    np.testing.assert_array_equal(read_features(whole, names, columns, width), [[1, 2], [3, 4]])
    alone = write("1,2\n3,4\n")
    np.testing.assert_array_equal(read_features(alone, names, columns, width), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"3 columns and no header, expected 2 .* or 4"):
        read_features(write("1,2,3\n"), names, columns, width)
    with pytest.raises(ValueError, match="line 2, column 'x1': found an empty cell"):
        read_features(write("1,2\n3,\n"), names, columns, width)
    # Trained with a header, predicted without: the order decides.
    alone = write("1,2\n3,4\n")
    X = read_features(alone, ("length", "width"), (0, 1), 3)
    np.testing.assert_array_equal(X, [[1, 2], [3, 4]])


def test_numeric_names_make_a_header_where_they_are_expected(write):
    X = read_features(write("2019,2020\n1,2\n"), ("2020", "2019"), (0, 1), 3)
    np.testing.assert_array_equal(X, [[2, 1]])


def test_numbers_are_read_to_the_last_bit(write, rng):
    values = rng.standard_normal((20, 2)) * 10.0 ** rng.integers(-300, 300, (20, 2))
    content = "".join(f"{a!r},{b!r}\n" for a, b in values.tolist())
    table = read_table(write(content), 1)
    np.testing.assert_array_equal(np.hstack([table.X, table.Y]), values)
