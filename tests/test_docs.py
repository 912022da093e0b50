"""What the prose says of the code is true: names, files, options, links and pointers.

A name in backticks is one that the packages define, not a local variable and not a test's. Names of
other libraries are told by their first part (`FOREIGN_ROOTS`), or stand in `FOREIGN` with the reason.
"""

import ast
import builtins
import importlib
import keyword
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PACKAGES = {"jaxcvxnn": ROOT / "jaxcvxnn", "jaxcone": ROOT / "solvers" / "jaxcone"}
POINTING = ["jaxcvxnn", "solvers", "bench", "tests", "docs/mkdocs"]
# A hook of mkdocs writes this page when the others are built (docs/mkdocs/api.py).
GENERATED = "docs/api.md"

# First parts of dotted names that belong to others.
FOREIGN_ROOTS = {"jax", "jnp", "lax", "math", "np", "numpy", "torch"}
# Names of others that stand alone, by what they are.
FOREIGN = {
    name: reason
    for reason, names in {
        "functions of jax": "jit vmap grad scan jvp vjp while_loop block_until_ready custom_vjp "
        "pure_callback",
        "settings of jax": "jax_enable_x64 JAX_COMPILATION_CACHE_DIR",
        "a type of jaxtyping": "Float",
        "an attribute of Moreau's solver": "solver.info",
        "names of MPAX": "initial_primal_solution termination_status",
        "a mark of pytest": "slow",
        "stands for any class of programs": "Program",
        "multipliers, and an index": "nu i",
        "a local variable that a derivation points to": "system",
    }.items()
    for name in names.split()
}
# Files of other projects.
FOREIGN_FILES = {"docs/guide/jax-integration.md": "Moreau's", "pdip.py": "qpax's"}
# Options of other programs, and those of an environment variable of XLA.
FOREIGN_OPTIONS = {
    **dict.fromkeys(["--check", "--pythonpath"], "of ruff and of basedpyright"),
    **dict.fromkeys(
        ["--xla_backend_optimization_level", "--xla_cpu_use_fusion_emitters"], "of XLA"
    ),
}
# What begins like this is for a shell.
SHELL = re.compile(r"(\.venv|\.ci/|python3? |pip |ruff|basedpyright|lint-imports|[A-Z_]+=|-)")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def trees(*folders: Path) -> list[ast.AST]:
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return [ast.parse(file.read_text()) for file in files]


@cache
def defined_names() -> frozenset[str]:
    """The modules, functions, classes, parameters, fields, attributes and constants of the packages."""
    files = [file for folder in PACKAGES.values() for file in folder.rglob("*.py")]
    found = {name for file in files for name in (file.stem, file.parent.name)}

    def visit(node: ast.AST, inside_function: bool) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and not inside_function:
            found.add(node.id)
        inside_function |= isinstance(node, ast.FunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside_function)

    for tree in trees(*PACKAGES.values()):
        visit(tree, False)
    return frozenset(found)


@cache
def options() -> frozenset[str]:
    """The options that the command line and the benchmarks take."""
    constants = [
        node.value
        for tree in trees(ROOT / "jaxcvxnn" / "cli", ROOT / "bench")
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return frozenset(text for text in constants if text.startswith("--"))


def spans(text: str) -> list[str]:
    """What stands in backticks outside of blocks, a line break in it as a space."""
    text = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def files_in(span: str) -> list[str]:
    """The paths of Python files and pages in a span."""
    return re.findall(r"[\w./<>-]+\.(?:py|md|yml)\b", span)


def names_in(span: str) -> list[str]:
    """The dotted names in a span of code; where it is none, what cannot be an English word."""
    if SHELL.match(span) or files_in(span):
        return []
    try:
        ast.parse(span.lstrip("."))
    except SyntaxError:
        return re.findall(r"[A-Za-z_][\w.]*_\w+|\b(?:[A-Z][a-z0-9]+){2,}\b", span)
    code = re.sub(r"\"[^\"]*\"|'[^']*'", "", span)
    names = re.findall(r"(?<!\w)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", code)
    return [name for name in names if not keyword.iskeyword(name)]


def known(name: str) -> bool:
    """Whether a dotted name is one of the project, or need not be."""
    first, *rest = name.split(".")
    if first in FOREIGN_ROOTS or name in FOREIGN or hasattr(builtins, name):
        return True
    if first == "bench" and rest:
        return (ROOT / "bench" / f"{rest[0]}.py").exists()
    if first in PACKAGES:
        return importable(name)
    return all(part in defined_names() for part in name.split("."))


def importable(name: str) -> bool:
    """Whether a name that starts with a package leads to something that can be imported."""
    first, *rest = name.split(".")
    found, path = importlib.import_module(first), first
    for part in rest:
        path += "." + part
        if isinstance(found, ModuleType) and not hasattr(found, part):
            try:
                importlib.import_module(path)
            except ModuleNotFoundError:
                return False
        if not hasattr(found, part):
            return part in getattr(found, "__annotations__", {})
        found = getattr(found, part)
    return True


def exists(file: str) -> bool:
    """Whether a path from the root is one; of <name>.py, whether its folder is."""
    path = ROOT / file
    found = path.parent.is_dir() if "<" in file else path.is_file()
    return found or file == GENERATED or file in FOREIGN_FILES


@cache
def headings(page: Path) -> frozenset[str]:
    """The headings of a page; those in blocks of code are comments of a shell."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return frozenset(re.findall(r"^#+ (.*)$", text, re.MULTILINE))


def slug(heading: str) -> str:
    """The anchor of a heading, as mkdocs makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def pointers(text: str) -> list[tuple[str, str]]:
    """The pages that a text names, each with the section it quotes, or "". Lines may break anywhere."""
    text = re.sub(r"\s*\n\s*(?:# )?", " ", text)
    return re.findall(r"\b(docs/[\w/-]*\w\.md)\b(?:`?, \"([^\"]+)\")?", text)


def wrong_pointers(text: str) -> list[tuple[str, str]]:
    return [
        (page, section)
        for page, section in pointers(text)
        if not exists(page) or section and section not in headings(ROOT / page)
    ]


def wrong_links(page: Path, text: str) -> list[str]:
    """The links within the project that lead to no file, or to no heading of it."""
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"\$[^$]*\$", "", text)):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        generated = target == ROOT / GENERATED
        if not (target.is_file() or generated):
            wrong.append(link)
        elif anchor and not generated and anchor not in map(slug, headings(target)):
            wrong.append(link)
    return wrong


@each_page
def test_names_in_backticks_exist(page):
    found = [(name, span) for span in spans(page.read_text()) for name in names_in(span)]
    assert [(name, span) for name, span in found if not known(name)] == []


@each_page
def test_files_in_backticks_exist(page):
    found = [file for span in spans(page.read_text()) for file in files_in(span)]
    assert [file for file in found if not exists(file)] == []


@each_page
def test_options_exist(page):
    found = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text()))
    assert found - options() - FOREIGN_OPTIONS.keys() == set()


@each_page
def test_links_lead_to_a_heading(page):
    assert wrong_links(page, page.read_text()) == []


def test_pointers_lead_to_a_section():
    files = [file for folder in POINTING for file in (ROOT / folder).rglob("*.py")]
    files = [file for file in files if file != Path(__file__)] + [*PAGES, ROOT / "CHANGELOG.md"]
    wrong = {str(file.relative_to(ROOT)): wrong_pointers(file.read_text()) for file in files}
    assert {file: found for file, found in wrong.items() if found} == {}
    assert sum(len(pointers(file.read_text())) for file in files) > 50


def test_every_page_of_the_mathematics_is_in_its_table():
    folder = ROOT / "docs" / "math"
    index = (folder / "index.md").read_text()
    sections = {
        f"({page.name}#{slug(heading)})"
        for page in folder.glob("*.md")
        if page.name != "index.md"
        for heading in re.findall(r"^##+ (.*)$", page.read_text(), re.MULTILINE)
    }
    assert len(sections) > 25
    assert {section for section in sections if section not in index} == set()


def test_what_is_foreign_is_still_named():
    named = {name for page in PAGES for span in spans(page.read_text()) for name in names_in(span)}
    files = {file for page in PAGES for span in spans(page.read_text()) for file in files_in(span)}
    text = "".join(page.read_text() for page in PAGES)
    assert FOREIGN.keys() - named == set()
    assert FOREIGN_FILES.keys() - files == set()
    assert {option for option in FOREIGN_OPTIONS if option not in text} == set()
    assert FOREIGN.keys() & defined_names() == set()


@pytest.mark.parametrize(
    "name, there",
    [
        ("jaxcvxnn.programs.planar_network", True),
        ("jaxcvxnn.planar_network", False),
        ("jaxcone.Splitting.memory", True),
        ("jaxcone.Splitting.memories", False),
        ("jaxcone.cvxpy_solver.CVXPYSolver", True),
        ("jaxcvxnn.programs.nowhere", False),
        ("planar_network", True),
        ("planar_networks", False),
        ("problem.weight_decay", True),
        ("problem.decay_of_weights", False),
        ("test_names_in_backticks_exist", False),
        ("bench.training", True),
        ("bench.nothing", False),
    ],
)
def test_names_that_exist_and_that_do_not(name, there):
    assert known(name) == there


@pytest.mark.parametrize(
    "span, names",
    [
        ("planar_network", ["planar_network"]),
        ("f(tolerance=1e-9, steps=20_000)", ["f", "tolerance", "steps"]),
        ("Program().data", ["Program", "data"]),
        (".signs", ["signs"]),
        ("solve(problem, Program(a=1))", ["solve", "problem", "Program", "a"]),
        ('train(program="columns")', ["train", "program"]),
        ("W_{ab} of a ConeProgram", ["ConeProgram"]),
        ("python -m bench.training", []),
        ("jaxcvxnn/problem.py", []),
    ],
)
def test_names_are_read_out_of_spans(span, names):
    assert names_in(span) == names


def test_pointers_are_read_across_lines():
    text = '# See\n    # docs/math/lifted.md, "The\n    # penalty", and `docs/math/lost.md`, "No".'
    assert pointers(text) == [("docs/math/lifted.md", "The penalty"), ("docs/math/lost.md", "No")]
    assert wrong_pointers(text) == [("docs/math/lost.md", "No")]
    assert wrong_pointers('docs/math/lifted.md, "The reward"') != []


def test_links_to_nowhere_are_seen():
    page = ROOT / "docs" / "faq.md"
    good = "[a](math/lifted.md#the-penalty) [b](certificates.md) [c](https://scs.org/x#y)"
    bad = "[a](math/lifted.md#the-reward) [b](certificate.md)"
    assert wrong_links(page, good) == []
    assert wrong_links(page, bad) == ["math/lifted.md#the-reward", "certificate.md"]
