"""The house keeps its shape: packages, links, import names, and who may import whom."""

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sources import FOLDERS, LINKED, ROOT, modules


def _setuptools() -> dict[str, object]:
    text = (ROOT / "pyproject.toml").read_text()
    settings: dict[str, object] = tomllib.loads(text)["tool"]["setuptools"]
    return settings


def _packages(folder: Path, name: str) -> set[str]:
    """Packages below a folder, links not followed."""
    found = {name}
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink() and (child / "__init__.py").is_file():
            found |= _packages(child, f"{name}.{child.name}")
    return found


def test_the_listed_packages_are_the_folders_that_exist() -> None:
    settings = _setuptools()
    assert settings["package-dir"] == FOLDERS
    listed = settings["packages"]
    assert isinstance(listed, list)
    assert len(set(listed)) == len(listed)
    existing = set().union(*(_packages(ROOT / path, name) for name, path in FOLDERS.items()))
    assert set(listed) == existing


@pytest.mark.parametrize("name", LINKED)
def test_the_links_point_to_their_folders(name: str) -> None:
    link = ROOT / "advpure" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == (ROOT / name).resolve()
    assert (link / "__init__.py").is_file()


@pytest.mark.parametrize("name", LINKED)
def test_no_other_import_name_is_accepted(name: str) -> None:
    path = ROOT / name / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.raises(ImportError, match=f"this package is advpure.{name}, not {name}"):
        spec.loader.exec_module(module)


def _imports(source: str) -> list[str]:
    """Every module named in an import statement, relative ones marked by a leading dot."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


def _layer(module: str) -> str:
    """Return the part of the house that a module belongs to."""
    part = module.split(".")[1] if "." in module else "names"
    return {
        "entry": "cli",
        "__main__": "cli",
        "options": "loading",
        "own_classifiers": "loading",
    }.get(part, part)


# What each part of the house may import. Experiments are data, which only sweeps read.
_BELOW = (
    *("base", "core", "networks", "purifiers", "data", "checkpoints", "models", "loading"),
    "boosting",
)
_MIDDLE = (*_BELOW, "statistics", "plots", "runs")
MAY_IMPORT = {
    "base": (),
    "core": ("base",),
    "statistics": ("base",),
    "plots": ("base",),
    "networks": ("base", "models"),
    "purifiers": ("base", "core"),
    "data": ("base", "networks"),
    "models": ("base",),
    "checkpoints": ("base", "core", "networks"),
    "loading": _BELOW,
    "names": (*_MIDDLE, "attacks", "analysis"),
    "compat": _BELOW,
    "training": (*_BELOW, "statistics", "attacks"),
    "runs": ("base", "core"),
    "attacks": ("base", "core"),
    "boosting": ("base", "core", "networks", "attacks"),
    "analysis": (*_MIDDLE, "attacks", "training"),
    "studies": ("base", "analysis"),
    "experiments": (),
    "sweeps": (*_MIDDLE, "attacks", "analysis", "studies", "experiments"),
    "report": (*_MIDDLE, "attacks", "analysis", "studies", "sweeps"),
    "cli": (
        *(*_MIDDLE, "attacks", "analysis", "studies", "experiments", "sweeps", "report"),
        "training",
    ),
}


@pytest.mark.parametrize("module", sorted(modules()))
def test_dependencies_point_one_way(module: str) -> None:
    imported = _imports(modules()[module].read_text())
    assert not [name for name in imported if name.startswith(".")], "imports are absolute"
    for name in imported:
        if name.split(".")[0] != "advpure":
            assert name.split(".")[0] not in ("attacks", "analysis", "experiments", "tests")
            continue
        allowed = {_layer(module), *MAY_IMPORT[_layer(module)]}
        assert _layer(name) in allowed or name in ("advpure", "advpure.__version__"), name


def test_the_modules_are_found_and_sorted_into_layers() -> None:
    layers = {_layer(name) for name in modules()}
    assert layers == set(MAY_IMPORT)
    assert len(modules()) > 50
    assert _imports("from .x import y\nimport a.b\nfrom c import d") == [
        ".x", ".x.y", "a.b", "c", "c.d",
    ]  # fmt: skip


def test_importing_the_package_is_cheap() -> None:
    code = (
        "import sys, advpure\n"
        "heavy = [m for m in ('torch', 'numpy', 'scipy', 'sklearn', 'matplotlib') "
        "if m in sys.modules]\n"
        "print(heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_project_says_what_it_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT"
    extras = project["optional-dependencies"]
    assert {"metrics", "hub", "interop", "cluster", "all"} <= set(extras)
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert (ROOT / "advpure" / "py.typed").is_file()
