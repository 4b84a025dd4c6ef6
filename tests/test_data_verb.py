"""``advpure data``: the list stays, and CIFAR-10 is obtained in one command."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from advpure.cli import run
from advpure.data import DATASETS, cifar10


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a tiny binary version whose sums count as right."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path / "data"))
    folder = tmp_path / "source"
    folder.mkdir()
    for k, name in enumerate(cifar10.SHA1):
        content = np.full((2, 3073), k, dtype=np.uint8).tobytes()
        (folder / name).write_bytes(content)
        monkeypatch.setitem(cifar10.SHA1, name, hashlib.sha1(content).hexdigest())
    return folder


def test_the_list_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DATASETS)
    assert run(["data", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == list(DATASETS.names())
    assert listed["cifar10"]["shape"] == [3, 32, 32]


def test_cifar10_is_obtained_and_the_place_is_said(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "cifar10", "--from", str(source)]) == 0
    shown = capsys.readouterr().out
    assert shown == (
        f"6 files with the right SHA1 sums in {tmp_path / 'data' / 'cifar10'}, "
        "written from the binary version\n"
    )
    assert run(["data", "cifar10"]) == 0
    assert "there already" in capsys.readouterr().out
    assert run(["data", "cifar10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == []
    assert run(["data", "cifar10", "--from", str(source), "--to", str(tmp_path / "else")]) == 0
    assert f"set ADVPURE_DATA={tmp_path / 'else'} to use" in capsys.readouterr().out


def test_bad_input_is_one_line_and_exit_code_2(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "test_batch.bin").write_bytes(bytes(2 * 3073))
    for arguments, words in (
        (["data", "cifar10", "--from", str(source)], "has a wrong SHA1 sum"),
        (["data", "cifar10", "--from", str(tmp_path / "none")], "is missing"),
        (["data", "digits"], "is not obtained by this command"),
        (["data", "cifar"], "did you mean"),
    ):
        assert run(arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
