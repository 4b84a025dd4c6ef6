"""A point of a sweep is shown only as its own verb would report it: its run, whole, unchanged."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.runs.records import RecordStore
from advpure.sweeps.drawing import draw
from advpure.sweeps.index import Index
from advpure.sweeps.overview import overview
from advpure.sweeps.points import Point
from advpure.sweeps.session import Session, SweepRun, prepare_sweep, run_sweep
from advpure.sweeps.sweep import parse_sweep
from advpure.sweeps.verification import verify

SWEEP: dict[str, Any] = {
    "verb": "cr",
    "base": {"dataset": "digits", "n": 2, "defense": "none", "perturbations": 2},
    "grid": {"eps": [0.1, 0.2, 0.3]},
}


def _swept(root: Path) -> SweepRun:
    session = Session(root=root, jobs=1)
    index, points = prepare_sweep(parse_sweep(SWEEP, name="cheap", where="a test"), session)
    return run_sweep(index, points, session)


def _change(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "records.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()


def _cut(folder: Path) -> None:
    file = folder / "records.sqlite"
    file.write_bytes(file.read_bytes()[:9000])


def _foreign(folder: Path) -> None:
    other = next(each for each in folder.parent.glob("cr-*") if each != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def _older(folder: Path) -> None:
    _change(folder, "PRAGMA user_version = 1")


BREAKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no database": (lambda f: (f / "records.sqlite").write_bytes(b"x" * 999) and None, "readable"),
    "cut": (_cut, "not a readable database"),
    "foreign": (_foreign, "holds another run ("),
    "lost rows": (lambda f: _change(f, "DELETE FROM compression WHERE id = 1"), "rows of compr"),
    "edited": (lambda f: _change(f, "UPDATE compression SET rate = 0.5"), "not what was written"),
    "older": (_older, "was made by an earlier version of advpure"),
}


@pytest.mark.parametrize("way", list(BREAKS))
def test_a_broken_point_is_named_and_its_value_is_not_shown(tmp_path: Path, way: str) -> None:
    first = _swept(tmp_path)
    assert len(first.done) == 3
    spoil, told = BREAKS[way]
    broken = first.points[1].run
    spoil(tmp_path / broken)
    for again in (_swept(tmp_path), _swept(tmp_path)):
        assert again.done == first.done - {broken}
        assert list(again.failed) == [broken]
        assert told in again.failed[broken]
        assert "delete" in again.failed[broken]
        found = {each["run"]: each for each in overview(again)["points"]}
        assert found[broken]["state"] == "failed"
        assert "values" not in found[broken]
        assert all(found[name]["values"] for name in again.done)
    with pytest.raises(BadInput, match=f"point {broken} of .* is broken"):
        draw(again.index.folder, tmp_path / "figure", [".svg"])
    shutil.rmtree(tmp_path / broken)
    assert _swept(tmp_path).done == first.done


def test_the_table_says_which_point_is_broken_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("law.yaml").write_text(json.dumps(SWEEP))
    assert run(["sweep", "law.yaml", "--jobs", "1"]) == 0
    folder = sorted(Path("runs").glob("cr-*"))[0]
    _change(folder, "UPDATE compression SET rate = 0.5, change = 0.5 * norm")
    capsys.readouterr()
    assert run(["sweep", "law.yaml", "--jobs", "1"]) == 1
    said = capsys.readouterr().out
    assert "2 of 3 points done, 1 failed" in said
    assert (
        f"failed: cr {folder.name}: runs/{folder.name}/records.sqlite is damaged (a value" in said
    )
    assert "restore it, or delete it and run again" in said


def test_an_incomplete_point_is_gone_on_with(tmp_path: Path) -> None:
    first = _swept(tmp_path)
    point = first.points[0]
    with RecordStore.read(tmp_path / point.run) as store:
        rows = store.rows("compression")
        settings, context, schemas = store.settings, store.context, store.schemas
    context.pop("started")
    shutil.rmtree(tmp_path / point.run)
    with RecordStore.open(
        tmp_path / point.run, schemas=schemas, settings=settings, context=context, samples=[0, 1]
    ) as store:
        store.append("compression", rows[:1])
    assert verify(tmp_path, point).state == "incomplete"
    again = _swept(tmp_path)
    assert again.done == first.done
    with RecordStore.read(tmp_path / point.run) as store:
        assert store.rows("compression") == rows


def test_a_point_of_a_damaged_index_is_one_line(tmp_path: Path) -> None:
    index = _swept(tmp_path).index
    _change(index.folder, "UPDATE attempts SET seconds = 1.5")
    with pytest.raises(BadInput, match="not what was written"):
        _swept(tmp_path)
    with pytest.raises(BadInput, match="not what was written"):
        Index.read(index.folder).attempts()


def test_a_point_that_is_whole(tmp_path: Path) -> None:
    found = _swept(tmp_path)
    assert {verify(tmp_path, point).state for point in found.points} == {"whole"}
    assert all(isinstance(point, Point) for point in found.points)
