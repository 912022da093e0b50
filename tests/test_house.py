"""The house rules that a machine can check: imports, packaging, and the commands we print."""

import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

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


def reference() -> ModuleType:
    """The hook that writes the page of the public names; a script of mkdocs, in no package."""
    spec = importlib.util.spec_from_file_location("api", ROOT / "docs" / "mkdocs" / "api.py")
    assert spec and spec.loader
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


def public_names(module: ModuleType) -> set[str]:
    """What an import finds, but modules; of a file what it defines, if it defines anything."""
    found = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    found = {name: value for name, value in found.items() if not isinstance(value, ModuleType)}
    here = {n for n, v in found.items() if getattr(v, "__module__", "") == module.__name__}
    return set(found) if hasattr(module, "__path__") else here or set(found)


@pytest.mark.parametrize("package", ["jaxcvxnn", "jaxcone"])
def test_the_reference_lists_every_public_name(package):
    shown: dict[str, set[str]] = {}
    for block in reference().page().split("::: ")[1:]:
        # A function called like its module stands under its full name, after the module's block.
        if heading := re.search(r"heading: (\w+)", block):
            assert block.split("\n")[0].endswith(f".{heading[1]}")
            assert importlib.import_module(block.split("\n")[0].rpartition(".")[0])
            list(shown.values())[-1].add(heading[1])
        else:
            shown[block.split("\n")[0]] = set(re.findall(r"^ +- (\w+)$", block, re.MULTILINE))
    mine = {name: found for name, found in shown.items() if name.split(".")[0] == package}
    source = Path(importlib.import_module(package).__file__ or "").read_text()
    rooms = re.search(r"^from \. import (\([^)]*\)|.*)$", source, re.MULTILINE)
    assert rooms
    for room in set(re.findall(r"(\w+) as \1\b", rooms[1])):
        assert any(name.startswith(f"{package}.{room}") for name in mine), room
    for name, found in mine.items():
        module = importlib.import_module(name)
        if name in reference().ON_REQUEST:
            assert found <= public_names(module)
        else:
            assert found == public_names(module), name
