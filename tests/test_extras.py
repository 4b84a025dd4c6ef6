"""Optional packages: absent ones name their extra, broken ones their true reason."""

import ast
import importlib
import pickle
import sys
from pathlib import Path

import pytest

import advpure
from advpure.base.errors import BadInput, MissingExtra
from advpure.base.extras import optional
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.runs.export import _Content, _write_parquet

ROOT = Path(advpure.__file__).parent


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a package named `halfway` that can be imported."""
    folder = tmp_path / "halfway"
    folder.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "halfway", raising=False)
    return folder / "__init__.py"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("from math import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("raise OSError('libfar.so: cannot open')", "OSError: libfar.so: cannot open"),
        (
            "try:\n 1/0\nexcept ZeroDivisionError as e:\n raise RuntimeError('see\\nabove') from e",
            "ZeroDivisionError: division by zero",
        ),
        ("import halfway.part", "ModuleNotFoundError: No module named 'halfway.part'"),
    ],
)
def test_a_broken_package_says_why(package: Path, source: str, reason: str) -> None:
    package.write_text(source)
    with pytest.raises(BadInput) as error, optional(package.parent.name, "hub"):
        importlib.import_module(package.parent.name)
    line = str(error.value)
    assert line.startswith(f"package halfway is installed but cannot be imported ({reason}")
    assert "not installed" not in line
    assert "\n" not in line


def test_an_absent_package_names_its_extra_across_processes() -> None:
    with pytest.raises(MissingExtra) as error, optional("absent", "hub", distribution="the-absent"):
        importlib.import_module("-".join(["absent"]))
    line = "the-absent is not installed; pip install 'advpure[hub]' brings it"
    assert str(error.value) == line
    assert str(pickle.loads(pickle.dumps(error.value))) == line


@pytest.mark.parametrize("name", ["iddpm-cifar10", "vit-b16-imagenet", "robustbench-standard-r50"])
def test_a_broken_library_of_a_network_is_not_called_missing(
    name: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("diffusers", "timm", "torchvision", "torchvision.models"):
        monkeypatch.delitem(sys.modules, library, raising=False)
        if "." not in library:
            (package.parent.parent / f"{library}.py").write_text("raise OSError('no libfar.so')")
    with pytest.raises(BadInput, match=r"is installed but cannot be imported \(OSError: no libfar"):
        CHECKPOINTS.get(name).skeleton()


def test_a_broken_pyarrow_is_not_called_missing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package.parent.parent / "pyarrow.py").write_text("raise ImportError('numpy is too old')")
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    content = _Content("run", "table", {}, [], {}, [])
    with pytest.raises(BadInput, match=r"package pyarrow .* \(ImportError: numpy is too old\)"):
        _write_parquet(content, tmp_path / "out.parquet")


def test_nothing_of_ours_catches_import_errors_itself() -> None:
    """Only `optional` knows why an import failed; two look up modules that lines or users name."""
    allowed = {"extras.py", "registry.py", "imports.py"}
    for folder in (ROOT, ROOT / "analysis", ROOT / "attacks"):
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.ExceptHandler) or node.type is None:
                    continue
                names = {each.id for each in ast.walk(node.type) if isinstance(each, ast.Name)}
                caught = names & {"ImportError", "ModuleNotFoundError"}
                assert not caught or file.name in allowed, file
