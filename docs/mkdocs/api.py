"""A hook of mkdocs that writes the reference, `api.md`, from what the packages export.

A public name is an `X as X` in an `__init__.py`, and nowhere else: a second list could be wrong. A room
is a module that a package exports in that way. Read, not imported, so that the build needs no jax.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"jaxcvxnn": ROOT / "jaxcvxnn", "jaxcone": ROOT / "solvers" / "jaxcone"}
# Imported by nobody, since it needs CVXPY; for users all the same.
ON_REQUEST = {"jaxcone.cvxpy_solver": {"CVXPYSolver": "jaxcone.cvxpy_solver"}}

# The public names of a module, each with the module that defines it.
Names = dict[str, str]


def exported(source: Path, package: str) -> tuple[list[str], Names]:
    """The modules and the other names that a file of `package` exports, in its order."""
    modules: list[str] = []
    names: Names = {}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            public = [alias.name for alias in node.names if alias.name == alias.asname]
            if node.module:
                names |= dict.fromkeys(public, f"{package}.{node.module}")
            else:
                modules += public
    return modules, names


def defined(source: Path, module: str) -> Names:
    """The functions and classes of a file without an underscore."""
    nodes = (ast.FunctionDef, ast.ClassDef)
    found = [node.name for node in ast.parse(source.read_text()).body if isinstance(node, nodes)]
    return {name: module for name in found if not name.startswith("_")}


def rooms(package: str, folder: Path) -> dict[str, Names]:
    """The public names of a package and of the modules that it exports, by module."""
    modules, names = exported(folder / "__init__.py", package)
    found = {package: names}
    for module in modules:
        dotted, inside = f"{package}.{module}", folder / module
        if not inside.is_dir():
            file = inside.with_suffix(".py")
            found[dotted] = exported(file, package)[1] or defined(file, dotted)
        elif names := exported(inside / "__init__.py", dotted)[1]:
            found[dotted] = names
        else:  # a room whose modules are imported one by one
            for file in sorted(inside.glob("[!_]*.py")):
                found[f"{dotted}.{file.stem}"] = defined(file, f"{dotted}.{file.stem}")
    return found


def reference() -> dict[str, Names]:
    """All of it, in the order of the page."""
    every: dict[str, Names] = {}
    for package, folder in PACKAGES.items():
        every |= rooms(package, folder)
    return every | ON_REQUEST


def shadowed(module: str, name: str) -> bool:
    """Whether the module has a module of that name, which is what a reader of files finds there."""
    package, *rest = module.split(".")
    inside = PACKAGES[package].joinpath(*rest)
    return (inside / f"{name}.py").exists() or (inside / name).is_dir()


def page() -> str:
    """The text of the page, for mkdocstrings."""
    blocks = [
        "# Reference",
        "Every public name of both packages, by the module it is imported from.",
    ]
    for module, names in reference().items():
        hidden = [name for name in names if shadowed(module, name)]
        members = "".join(f"\n        - {name}" for name in names if name not in hidden)
        blocks.append(f"::: {module}\n    options:\n      members:{members}")
        for name in hidden:
            options = f"heading: {name}\n      toc_label: {name}\n      heading_level: 3"
            blocks.append(f"::: {names[name]}.{name}\n    options:\n      {options}")
    return "\n\n".join(blocks) + "\n"


def on_files(files, config):
    """mkdocs calls this with the pages it found; the reference is one more."""
    from mkdocs.structure.files import File  # with the extra `docs` only

    files.append(File.generated(config, "api.md", content=page()))
    return files
