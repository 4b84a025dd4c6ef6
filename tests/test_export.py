"""Export: every format gives back the rows, whole files only."""

import csv
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from advpure.base.errors import BadInput, MissingExtra
from advpure.runs.export import Exported, export
from advpure.runs.records import RecordStore, Schema, StorageFull

SCHEMA = Schema(
    "draws",
    {"sample": int, "draw": int},
    {"loss": float | None, "right": bool, "note": str, "digest": bytes | None},
)
OTHER = Schema("images", {"sample": int}, {"label": int})
SETTINGS = {"attack": {"eps": 8 / 255, "steps": 40}, "list": [1, 2], "none": None}
LOSSES = [0.1 + 0.2, None, math.nan, math.inf, -math.inf, 1e-300, -0.0]
NOTE = 'a, "b"\nü'


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    rows = [
        {
            "sample": place,
            "draw": 0,
            "loss": loss,
            "right": place % 2 == 0,
            "note": NOTE,
            "digest": b"\x01\xff" if place else None,
        }
        for place, loss in enumerate(LOSSES)
    ]
    with RecordStore.open(
        folder, schemas=[SCHEMA, OTHER], settings=SETTINGS, context={"torch": "x"}
    ) as store:
        store.append("draws", reversed(rows))
        store.append("images", [{"sample": 1, "label": 7}])
    return folder


def _assert_same_losses(found: list[Any]) -> None:
    assert [None if loss is None else float(loss).hex() for loss in found] == [
        None if loss is None else loss.hex() for loss in LOSSES
    ]


def test_csv_gives_back_every_digit(run: Path, tmp_path: Path) -> None:
    said = export(run, tmp_path / "out.csv")
    assert said == Exported(tmp_path / "out.csv", "draws", 7, ("images",))
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["run", "sample", "draw", "loss", "right", "note", "digest"]
    assert [row["sample"] for row in rows] == list("0123456")
    _assert_same_losses([float(row["loss"]) if row["loss"] else None for row in rows])
    assert [row["right"] for row in rows[:2]] == ["true", "false"]
    assert rows[0]["note"] == NOTE
    assert [row["digest"] for row in rows[:2]] == ["", "01ff"]
    with RecordStore.read(run) as store:
        assert {row["run"] for row in rows} == {store.run}


def _refuse(token: str) -> float:
    raise AssertionError(f"{token} is not JSON")


def test_json_is_strict_and_carries_the_header(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text(), parse_constant=_refuse)
    assert found["settings"] == SETTINGS
    assert found["table"] == "draws"
    assert found["sessions"][0]["torch"] == "x"
    _assert_same_losses([row["loss"] for row in found["rows"]])
    assert found["rows"][1]["digest"] == "01ff"
    assert found["rows"][0]["run"] == found["run"]


def test_json_lines_are_one_row_each(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out.JSONL")
    lines = (tmp_path / "out.JSONL").read_text().splitlines()
    rows = [json.loads(line, parse_constant=_refuse) for line in lines]
    assert [row["sample"] for row in rows] == list(range(7))
    _assert_same_losses([row["loss"] for row in rows])


def test_parquet_keeps_types_and_the_header(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out.parquet", columns=["attack.eps", "none"])
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    rows = table.to_pylist()
    _assert_same_losses([row["loss"] for row in rows])
    assert rows[1]["digest"] == b"\x01\xff"
    assert rows[0]["right"] is True
    assert rows[0]["attack.eps"] == 8 / 255
    assert rows[0]["none"] is None
    assert json.loads(table.schema.metadata[b"advpure.settings"]) == SETTINGS


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_another_table_and_an_empty_one(run: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"out.{ending}"
    assert export(run, target, "images", columns=["list"]).rows == 1
    assert target.stat().st_size > 0
    empty = tmp_path / "empty"
    RecordStore.open(empty, schemas=[SCHEMA], settings={}, context={}).close()
    assert export(empty, target).rows == 0
    if ending == "csv":
        assert target.read_text() == "run,sample,draw,loss,right,note,digest\n"
    if ending == "json":
        assert json.loads(target.read_text())["rows"] == []


def test_settings_can_be_repeated_in_every_row(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "out.jsonl", "images", columns=["attack.eps", "list"])
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["attack.eps"] == 8 / 255
    assert row["list"] == "[1, 2]"


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("out.xlsx", {}, ".csv, .json, .jsonl, .parquet"),
        ("out", {}, "no known ending"),
        ("out.csv", {"table": "drafts"}, "known: draws, images"),
        ("out.csv", {"columns": ["eps"]}, "attack.eps"),
    ],
)
def test_bad_requests_are_refused(
    run: Path, tmp_path: Path, name: str, options: Any, said: str
) -> None:
    with pytest.raises(BadInput) as caught:
        export(run, tmp_path / name, **options)
    assert said in str(caught.value)
    assert not (tmp_path / name).exists()


def test_a_folder_without_a_run_or_without_tables(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run folder"):
        export(tmp_path, tmp_path / "out.csv")
    RecordStore.open(tmp_path, schemas=[], settings={}, context={}).close()
    with pytest.raises(BadInput, match="no tables"):
        export(tmp_path, tmp_path / "out.csv")


def test_missing_pyarrow_names_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"advpure\[parquet\]"):
        export(run, tmp_path / "out.parquet")


def test_a_failed_export_keeps_the_old_file_and_leaves_no_scrap(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "sub" / "out.jsonl"
    export(run, target)
    before = target.read_bytes()

    def full(*_: Any) -> Iterator[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("advpure.runs.export._json_row", full)
    with pytest.raises(StorageFull, match=r"out\.jsonl"):
        export(run, target)
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["out.jsonl"]


def test_a_target_that_cannot_be_written_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="cannot be written"):
        export(run, tmp_path / "file" / "out.csv")
