"""What pyproject.toml declares is what is imported: dependencies, extras, packages of dev."""

import ast
import functools
import itertools
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from sources import ROOT, Import, foreign_imports, modules

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
USERS = sorted(EXTRAS.keys() - {"dev", "all", "docs"})
"""The extras that users choose."""

WITHOUT_IMPORT: dict[str, str] = {}
"""Declared packages that no source imports, each with the reason."""

APART = {"torchattacks": "asks for exactly the requests of 2021, which others cannot live with"}
"""Extras that `all` leaves out, each with the reason."""

DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "ruamel": "ruamel.yaml",
    "open_clip": "open-clip-torch",
    "art": "adversarial-robustness-toolbox",
}
"""Where the distribution has another name than the package."""

TOOLS = {"build", "mkdocs", "mkdocstrings", "mypy", "pytest-cov", "pytest-xdist", "ruff"} | {
    "scipy-stubs",
    "setuptools",
}
"""What dev brings to be run, not imported."""


def distribution(name: str) -> str:
    """Return the normalised name of the distribution that brings a package."""
    return re.sub(r"[-_.]+", "-", DISTRIBUTIONS.get(name, name)).lower()


def declared(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements name; extras of this project are followed."""
    found = set()
    for requirement in requirements:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[([\w,]+)\])?", requirement)
        assert match is not None
        if match[1] == PROJECT["name"]:
            for extra in match[2].split(","):
                found |= declared(EXTRAS[extra])
        else:
            found.add(distribution(match[1]))
    return found


CORE = declared(PROJECT["dependencies"])


@functools.cache
def named_extras(source: str) -> frozenset[tuple[str, str]]:
    """Return (distribution, extra) of every call that names both, such as `MissingExtra(...)`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            texts = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
            for package, extra in itertools.pairwise(texts):
                if isinstance(package, str) and extra in EXTRAS:
                    found.add((distribution(package), str(extra)))
    return frozenset(found)


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_import_is_declared_and_every_extra_that_is_named_brings_it(module: str) -> None:
    source = modules()[module].read_text()
    offered = named_extras(source)
    for one in foreign_imports(source):
        brings = distribution(one.package)
        if brings in CORE:
            continue
        extras = [extra for extra in USERS if brings in declared(EXTRAS[extra])]
        assert extras, f"{one.package} is imported and declared nowhere"
        assert not one.at_once, f"{one.package} is optional: import it where it is used"
        told = f"{one.package} is optional: say MissingExtra({one.package!r}, {extras[0]!r})"
        assert offered & {(brings, extra) for extra in extras}, told
    for brings, extra in offered:
        assert brings in declared(EXTRAS[extra]), f"{extra} does not bring {brings}"


def test_nothing_is_declared_in_vain() -> None:
    used: set[str] = set()
    for path in modules().values():
        source = path.read_text()
        used |= {distribution(one.package) for one in foreign_imports(source)}
        used |= {brings for brings, _ in named_extras(source)}
    offered = CORE.union(*(declared(EXTRAS[extra]) for extra in USERS))
    assert offered - used == set(WITHOUT_IMPORT)


def test_all_is_every_extra_that_users_choose() -> None:
    users = [declared(EXTRAS[extra]) for extra in USERS if extra not in APART]
    assert declared(EXTRAS["all"]) == set().union(*users)


def _of_tests() -> Iterator[tuple[str, Import]]:
    own = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"benchmarks"}
    for folder in ("tests", "benchmarks"):
        for path in sorted((ROOT / folder).glob("*.py")):
            for one in foreign_imports(path.read_text()):
                if one.package not in own and not one.package.startswith("advpure_"):
                    yield f"{folder}/{path.name}:{one.line}", one


def test_dev_brings_all_that_tests_and_benchmarks_import() -> None:
    # Also what they skip without: in the continuous integration nothing that could run is skipped.
    brought = CORE | declared(EXTRAS["dev"])
    own = {path.name for path in (ROOT / "tests").iterdir() if (path / "__init__.py").is_file()}
    missing = {
        at: one.package
        for at, one in _of_tests()
        if distribution(one.package) not in brought and one.package not in own
    }
    assert not missing


def test_dev_brings_nothing_else() -> None:
    used = {distribution(one.package) for _, one in _of_tests()}
    users = set().union(*(declared(EXTRAS[extra]) for extra in USERS))
    assert declared(EXTRAS["dev"]) - used - users == TOOLS


def test_foreign_imports_are_found_wherever_they_hide() -> None:
    source = (
        "import os, numpy.linalg\n"
        "from advpure import stats\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from ray import Actor\n"
        "def f():\n    from PIL import Image\n    importlib.import_module('pyarrow.parquet')\n"
        "    importlib.import_module(f'lpips.{x}' if x else 'lpips')\n"
        "try:\n    import tomli\nexcept ImportError:\n    pass\n"
    )
    assert [(one.package, one.at_once) for one in foreign_imports(source)] == [
        ("numpy", True), ("ray", False), ("PIL", False), ("pyarrow", False), ("lpips", False),
        ("lpips", False), ("tomli", True),
    ]  # fmt: skip
    assert named_extras("raise MissingExtra('open_clip', 'metrics')") == {
        ("open-clip-torch", "metrics")
    }
