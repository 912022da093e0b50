"""The house rules that a machine can check: imports, packaging, and the commands we print."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def loaded_by(package: str, names: set[str], cwd: Path) -> set[str]:
    """Which of `names` a fresh interpreter holds after importing `package`."""
    code = f"import json, sys, {package}; print(json.dumps(list(sys.modules)))"
    return names & set(json.loads(run(sys.executable, "-c", code, cwd=cwd)))


def test_import_contracts_hold():
    lint_imports = Path(sys.executable).with_name("lint-imports")
    run(lint_imports, "--no-cache", "--no-logo", cwd=ROOT)


def test_every_package_folder_is_a_package():
    # import-linter does not look into a folder without __init__.py, and would keep its contracts.
    sources = [*(ROOT / "jaxcvxnn").rglob("*.py"), *(ROOT / "solvers" / "jaxcone").rglob("*.py")]
    bare = {str(f.parent) for f in sources if not (f.parent / "__init__.py").exists()}
    assert sources and bare == set()


def test_import_leaves_optional_packages_alone(tmp_path):
    optional = {"chex", "clarabel", "cvxpy", "matplotlib", "moreau", "scs", "sklearn", "tqdm"}
    assert loaded_by("jaxcvxnn", optional, tmp_path) == set()


def test_solver_imports_without_networks(tmp_path):
    assert loaded_by("jaxcone", {"jaxcvxnn", "optax"}, tmp_path) == set()


def test_import_changes_no_jax_setting(tmp_path):
    code = (
        "import jax; before = dict(jax.config.values); import jaxcone, jaxcvxnn;"
        "after = jax.config.values; print([k for k in before if before[k] != after[k]])"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path).strip() == "[]"


def test_install_offers_the_two_packages_only(tmp_path):
    # Other distributions may own a top-level `tests`; none of these may come from this project.
    code = (
        "import importlib.util as u, json;"
        "specs = {n: u.find_spec(n) for n in ('solvers', 'tests', 'bench', 'docs')};"
        "print(json.dumps([p for s in specs.values() if s"
        " for p in [s.origin, *(s.submodule_search_locations or [])] if p]))"
    )
    found = json.loads(run(sys.executable, "-c", code, cwd=tmp_path))
    assert [path for path in found if Path(path).is_relative_to(ROOT)] == []
    run(sys.executable, "-c", "import jaxcone, jaxcvxnn", cwd=tmp_path)


def test_installed_version_is_the_declared_one():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert importlib.metadata.version("jaxcvxnn") == declared


def test_ci_runs_the_test_line_of_the_readme():
    readme = (ROOT / "README.md").read_text().splitlines()
    [line] = [x for x in readme if x.startswith("python3 -m venv") and "pytest" in x]
    ci = ROOT / ".ci" / "run"
    assert line in ci.read_text()
    assert os.access(ci, os.X_OK)


def test_the_reference_lists_every_public_name():
    # The page shows no re-exported name that it does not list.
    page = (ROOT / "docs" / "api.md").read_text()
    for package, folder in [("jaxcvxnn", ROOT), ("jaxcone", ROOT / "solvers")]:
        source = (folder / package / "__init__.py").read_text()
        section = page.split(f"::: {package}\n")[1].split(":::")[0]
        listed = re.findall(r"^ +- (\w+)$", section, re.MULTILINE)
        assert listed == re.findall(r"\b(\w+) as \1\b", source)
