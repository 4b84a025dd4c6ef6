"""The wheel, installed without extras in a new environment, runs every verb outside the checkout.

The environment is new (`venv`, no system packages) and holds nothing but the wheel and links to
those installed distributions that `pip install advpure` would bring: the core dependencies of the
wheel's own metadata, and theirs. What only `dev` or an extra brings is not there, so an import that
is declared nowhere fails as it does for a user. Links instead of a download: no network, no second
copy of torch.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from lines import LAW, LINES
from packaging.requirements import Requirement
from pages import copy_sources
from sources import ROOT
from typer.main import get_command

from advpure.cli import app

pytestmark = pytest.mark.slow

_NOT_SHIPPED = ("measured", "README.md")  # of experiments

MISSING = {
    "export attacked --to rows.parquet": "parquet",
    "data cifar10 --to here": "metrics",
    "sweep law.yaml --on slurm": "cluster",
    "sweep law.yaml --on ray": "cluster",
}
"""Lines after those that need an extra, which is not there."""

DRIVER = """\
import contextlib, io, json, sys, traceback
from advpure.cli import run
for line, _ in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run(line.split())
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([line, code, out.getvalue(), err.getvalue()]))
"""


class Installed(NamedTuple):
    """A new environment with the wheel.

    Attributes:
        python: Its interpreter.
        packages: Its site-packages.
        warnings: What the build said of packages.
        names: The files of the wheel.
    """

    python: Path
    packages: Path
    warnings: str
    names: frozenset[str]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Build the wheel, and install it beside what it requires."""
    root = tmp_path_factory.mktemp("wheel")
    tree, home = root / "tree", root / "environment"
    tree.mkdir()
    copy_sources(tree)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(root)]
    built = _call([*build, str(tree)], root)
    (wheel,) = root.glob("*.whl")
    _call([sys.executable, "-m", "venv", "--without-pip", str(home)], root)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    _call([*pip, "--no-deps", "--no-index", str(wheel)], root)
    asked = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_call([str(python), "-c", asked], root).stdout.strip())
    for name in _required(wheel):
        _link(name, packages)
    with zipfile.ZipFile(wheel) as archive:
        names = frozenset(archive.namelist())
    return Installed(python, packages, built.stdout + built.stderr, names)


def _call(
    command: list[str], folder: Path, stdin: str | None = None
) -> "subprocess.CompletedProcess[str]":
    hidden = ("PYTHONPATH", "PYTHONHOME", "ADVPURE_DATASET", "ADVPURE_DATA", "VIRTUAL_ENV")
    variables = {name: text for name, text in os.environ.items() if name not in hidden}
    done = subprocess.run(
        command, cwd=folder, env=variables | {"OMP_NUM_THREADS": "1"}, input=stdin,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def _required(wheel: Path) -> set[str]:
    """Return the distributions that the wheel requires without any extra, and all that those do."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(name).decode())
    asked = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    waiting = [
        (one, "") for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})
    ]
    found: set[tuple[str, str]] = set()
    while waiting:
        requirement, _ = waiting.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in found:
                found.add((requirement.name, extra))
                more = importlib.metadata.requires(requirement.name) or []
                for one in map(Requirement, more):
                    if one.marker is None or one.marker.evaluate({"extra": extra}):
                        waiting.append((one, extra))
    return {name for name, _ in found}


def _link(name: str, packages: Path) -> None:
    """Link the folders and files of an installed distribution into an environment."""
    owner = importlib.metadata.distribution(name)
    for top in {path.parts[0] for path in owner.files or ()}:
        target = Path(str(owner.locate_file(top)))
        link = packages / top
        if top not in ("..", "__pycache__") and target.exists() and not link.exists():
            link.symlink_to(target)


def test_the_environment_holds_nothing_undeclared(installed: Installed) -> None:
    absent = ("pytest", "hypothesis", "torchvision", "diffusers", "pyarrow", "timm", "torchmetrics")
    code = f"import importlib.util as u; print([m for m in {absent!r} if u.find_spec(m)])"
    assert _call([str(installed.python), "-c", code], installed.packages).stdout.strip() == "[]"


NOT_SHIPPED = ("measured", "unfinished")
"""Folders of experiments that no installation needs."""


def test_the_build_leaves_no_package_out(installed: Installed) -> None:
    assert "is absent from the `packages` configuration" not in installed.warnings
    shipped = {".json", ".yaml", ".toml", ".safetensors", ".md", ".typed", ".html", ".css"}
    for folder, prefix in (("advpure", "advpure"), ("experiments", "advpure/experiments")):
        for path in (ROOT / folder).rglob("*"):
            inner = path.relative_to(ROOT / folder)
            through_link = (ROOT / folder / inner.parts[0]).is_symlink()
            if path.suffix in shipped and not through_link and inner.parts[0] not in NOT_SHIPPED:
                assert (
                    f"{prefix}/{inner.as_posix()}" in installed.names or inner.name == "README.md"
                )


def test_every_verb_runs_outside_the_checkout(installed: Installed, tmp_path: Path) -> None:
    assert set(LINES) == set(get_command(app).list_commands(None))  # type: ignore[attr-defined,arg-type]
    (tmp_path / "law.yaml").write_text(LAW)
    asked = [(f"{verb} {line}".strip(), "") for verb, more in LINES.items() for line in more]
    asked += MISSING.items()
    done = _call([str(installed.python), "-c", DRIVER], tmp_path, json.dumps(asked))
    answers = [json.loads(text) for text in done.stdout.splitlines()]
    for (line, extra), (answered, code, out, err) in zip(asked, answers, strict=True):
        assert answered == line
        if extra:
            assert (code, out) == (2, ""), f"{line}: {code}"
            assert err.endswith(f"is not installed; pip install 'advpure[{extra}]' brings it\n")
        else:
            assert code == 0, f"advpure {line}: {code}\n{err}"
            assert out, line
    for name in ("cr.png", "again.svg", "rows.csv", "trained", "page.html", "board.html"):
        assert (tmp_path / name).exists(), name
    script = installed.python.with_name("advpure")
    assert _call([str(script), "--version"], tmp_path).stdout.startswith("advpure ")
    code = "import advpure; print(advpure.__file__)"
    place = _call([str(installed.python), "-c", code], tmp_path).stdout.strip()
    assert Path(place).is_relative_to(installed.packages)
