"""``advpure export --check``: is a run as it was written?"""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from advpure.cli import run
from advpure.runs.records import RecordStore, Schema, run_id

_CHECKED = Schema("rates", {"id": int}, {"rate": float})


def _run_of(folder: Path, **settings: Any) -> Path:
    with RecordStore.open(
        folder, schemas=(_CHECKED,), settings={"verb": "cr", **settings}, context={}
    ) as store:
        store.append("rates", [{"id": k, "rate": k / 3} for k in range(5)])
        store.finish()
    return folder


def _checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run(["export", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_check_says_that_a_run_is_intact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _run_of(tmp_path / "mine")
    found = _checked(capsys, str(folder), "--check")
    assert found == (0, f"{folder} is intact: 5 rows of rates (finished)\n")
    code, said = _checked(capsys, str(folder), "--check", "--to", str(tmp_path / "rates.csv"))
    assert (code, said.count("\n")) == (0, 2)
    with RecordStore.open(tmp_path / "new", schemas=(_CHECKED,), settings={}, context={}):
        pass
    code, said = _checked(capsys, str(tmp_path / "new"), "--check")
    assert (code, "0 rows of rates (unfinished, the same command goes on)" in said) == (0, True)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE rates SET rate = 0.5 WHERE id = 2", "a value in batch 2 of 2, rates, is not what"),
        ("DELETE FROM rates WHERE id = 4", "batch 2 of 2 has 4 of 5 rows of rates"),
        ("UPDATE _sessions SET context = '{}'||' '", "batch 1 of 2, sessions"),
        ("PRAGMA user_version = 1", "an earlier version"),
    ],
)
def test_check_says_what_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], statement: str, told: str
) -> None:
    folder = _run_of(tmp_path / "mine")
    connection = sqlite3.connect(folder / "records.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    code, said = _checked(capsys, str(folder), "--check")
    assert (code, told in said, said.count("\n")) == (1, True, 1)
    assert said.startswith(f"{folder} is broken: ")


def test_check_tells_a_copy_of_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"verb": "cr", "seed": 1}
    folder = _run_of(tmp_path / f"cr-{run_id(own)}", seed=1)
    assert _checked(capsys, str(folder), "--check")[0] == 0
    other = folder.rename(tmp_path / f"cr-{run_id({'verb': 'cr', 'seed': 2})}")
    code, said = _checked(capsys, str(other), "--check")
    assert _checked(capsys, str(other), "--to", str(tmp_path / "x.csv"))[0] == 2
    assert (code, f"holds another run ({run_id(own)})" in said) == (1, True)


def test_check_and_export_need_a_run_and_a_purpose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _checked(capsys, str(tmp_path), "--check")[0] == 2
    code, said = _checked(capsys, str(tmp_path))
    assert (code, "give --to FILE.csv or --check" in said) == (2, True)
