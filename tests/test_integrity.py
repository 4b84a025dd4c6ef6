"""Checksums of records: no flipped bit, edited value or lost row goes unnoticed."""

import json
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge, Le

from advpure.analysis.robustness.protocol import ATTACKS, DECISIONS
from advpure.base.errors import BadInput
from advpure.runs.integrity import checksum
from advpure.runs.records import RecordStore, Schema

RATES = Schema(
    "rates",
    {"sample": int, "draw": int},
    {"rate": float | None, "norm": Annotated[float, Ge(0)], "change": float, "note": str | None},
    derived={"rate": ("ratio", "change", "norm")},
)
SETTINGS = {"verb": "cr", "defense": "cm", "eps": 8 / 255, "n": 12}


def _rate(sample: int, draw: int, norm: float = 0.5) -> dict[str, Any]:
    change = 0.1 * sample + draw / 7
    return {
        "sample": sample, "draw": draw, "norm": norm, "change": change,
        "rate": change / norm if norm else None, "note": None if draw else f"é{sample}",
    }  # fmt: skip


def _decision(sample: int, stage: str = "clean") -> dict[str, Any]:
    return {
        "sample": sample, "stage": stage, "draw": 0, "label": 3, "prediction": 3 + sample % 2,
        "correct": sample % 2 == 0, "margin": 0.5,
    }  # fmt: skip


def _attack(sample: int, **changes: Any) -> dict[str, Any]:
    row = {
        "sample": sample, "stage": "adversarial", "fooled": True, "loss": 1.0, "iterations": 2,
        "forwards": 3, "backwards": 2, "linf": 0.15, "l2": 0.4, "zero_gradient": False,
        "lost": False, "member": "",
    }  # fmt: skip
    return {**row, **changes}


def _write(folder: Path) -> Path:
    """Write a run of every kind of content, in several batches; return its file."""
    with RecordStore.open(
        folder, schemas=(RATES, DECISIONS, ATTACKS), settings=SETTINGS,
        context={"torch": "2"}, samples=range(12),
    ) as store:  # fmt: skip
        for sample in range(12):
            store.append("rates", [_rate(sample, draw) for draw in range(3)])
            with store.batch():
                store.append("decisions", [_decision(sample)])
                store.append("attacks", [_attack(sample)])
                store.put_blob(f"adversarial/{sample}", torch.full((2, 3), sample / 3))
        store.finish()
    return folder / "records.sqlite"


def _content(folder: Path) -> Any:
    """Read everything that a store can tell."""
    with RecordStore.read(folder) as store:
        tables = {schema.table: store.rows(schema.table) for schema in store.schemas}
        done = [sorted(store.done(table)) for table in tables]
        counts = store.check()
        images = [(name, store.get_blob(name).tolist()) for name in store.blobs()]
        return (
            store.settings, store.sessions, store.run, store.finished, store.schemas, tables, done,
            counts, images, store.rows("rates", {"sample": 3}), store.count("decisions"),
        )  # fmt: skip


@pytest.mark.slow
def test_no_single_flipped_bit_changes_a_value_silently(tmp_path: Path) -> None:
    file = _write(tmp_path)
    expected, content = _content(tmp_path), file.read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    clock = random.Random(3)
    noticed = 0
    for _ in range(500):
        place, bit = clock.choice(used), clock.randrange(8)
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        file.write_bytes(flipped)
        try:
            found = _content(tmp_path)
        except BadInput as error:
            noticed += "\n" not in str(error)
            continue
        assert found == expected, f"bit {bit} of byte {place}"
    assert noticed > 250
    file.write_bytes(content)
    assert _content(tmp_path) == expected


EDITS = {
    "a value": "UPDATE rates SET change = 0.25, rate = 0.5 WHERE sample = 4 AND draw = 1",
    "a derived value": "UPDATE decisions SET correct = 1 WHERE sample = 5",
    "a foreign image": "UPDATE decisions SET sample = 999 WHERE sample = 5",
    "a distance": "UPDATE attacks SET linf = 9e9 WHERE sample = 5",
    "a lost row": "DELETE FROM decisions WHERE sample = 5",
    "a lost batch": "DELETE FROM rates WHERE _batch = 2",
    "a lost checksum": "DELETE FROM _batches WHERE id = 2",
    "a lost tail": "DELETE FROM _batches WHERE id > 40",
    "a row too many": "INSERT INTO decisions VALUES (11, 'noise', 0, 3, 3, 1, 0.5, 3)",
    "a moved row": "UPDATE rates SET _batch = _batch + 4 WHERE sample = 0",
    "a session": """UPDATE _sessions SET context = '{"torch": "3"}'""",
    "a broken session": "UPDATE _sessions SET context = '{'",
    "a lost session": "DELETE FROM _sessions",
    "the settings": """UPDATE _meta SET value = '{"verb": "cr"}' WHERE name = 'settings'""",
    "the layouts": "UPDATE _meta SET value = '[]' WHERE name = 'schemas'",
    "a lost header": "DELETE FROM _meta WHERE name = 'samples'",
    "an image": "UPDATE _blobs SET data = zeroblob(24) WHERE name = 'adversarial/5'",
    "a lost image": "DELETE FROM _blobs WHERE name = 'adversarial/5'",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON rates BEGIN SELECT 1; END",
    "a dropped table": "DROP TABLE attacks",
    "a renamed column": "ALTER TABLE attacks RENAME COLUMN linf TO l_inf",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=list(EDITS))
def test_an_edited_file_is_refused_in_one_line(tmp_path: Path, edit: str) -> None:
    file = _write(tmp_path)
    connection = sqlite3.connect(file)
    connection.execute(edit)
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match=r"damaged|cannot be read") as caught:
        _content(tmp_path)
    assert "\n" not in str(caught.value)


def _forge(file: Path, table: str, change: str) -> None:
    """Change a row and compute the checksum of its batch anew, as a careful forger would."""
    connection = sqlite3.connect(file)
    (batch,) = connection.execute(f"SELECT _batch FROM {table} WHERE sample = 4").fetchone()
    connection.execute(f"UPDATE {table} SET {change} WHERE sample = 4")
    *row, _ = connection.execute(f"SELECT * FROM {table} WHERE _batch = {batch}").fetchone()
    digest = checksum([tuple(row)])
    connection.execute("UPDATE _batches SET sha256 = ? WHERE id = ?", (digest, batch))
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        (
            "decisions",
            "correct = 0",
            "correct = False, which contradicts label = 3 and",
        ),
        ("decisions", "correct = 7", "correct = 7, which is no bool"),
        ("decisions", "sample = 999", "sample = 999, which is no image of the run"),
        ("decisions", "label = -3, prediction = -3", "label = -3, which is not 0 or more"),
        ("attacks", "linf = 9e9", "linf = 9000000000.0, which is not 0 or more and 1 or less"),
        ("attacks", "l2 = 'nan'", "l2 = 'nan', which is not 0 or more"),
        ("attacks", "iterations = -1", "iterations = -1, which is not 0 or more"),
    ],
)
def test_values_that_cannot_be_are_refused_even_with_a_right_checksum(
    tmp_path: Path, table: str, change: str, told: str
) -> None:
    file = _write(tmp_path)
    _forge(file, table, change)
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput) as caught:
        store.rows(table)
    assert f"(a row of {table} has {told}" in str(caught.value)


@pytest.mark.parametrize(
    ("table", "row", "told"),
    [
        ("decisions", {**_decision(0), "correct": False}, "contradicts label = 3"),
        ("decisions", _decision(12), "sample = 12, which is no image of the run"),
        ("attacks", _attack(0, linf=9e9), "linf = 9000000000.0"),
        ("attacks", _attack(0, l2=float("nan")), "l2 = 'nan'"),
        ("rates", {**_rate(0, 5), "rate": 0.1}, "rate = 0.1, which contradicts change"),
        ("rates", {**_rate(0, 5, 0.0), "rate": 0.0}, "rate = 0.0, which contradicts"),
    ],
)
def test_values_that_cannot_be_are_not_written(
    tmp_path: Path, table: str, row: dict[str, Any], told: str
) -> None:
    _write(tmp_path)
    with RecordStore.open(
        tmp_path, schemas=(RATES,), settings=SETTINGS, context={"torch": "2"}
    ) as store:
        before = store.rows(table)
        with pytest.raises(BadInput) as caught:
            store.append(table, [row])
        assert told in str(caught.value)
        assert store.rows(table) == before


def test_what_follows_is_kept_and_nan_follows_from_nan(tmp_path: Path) -> None:
    nan = float("nan")
    rows = [
        _rate(0, 0, 0.0),
        {"sample": 1, "draw": 0, "rate": nan, "norm": 0.5, "change": nan, "note": None},
    ]
    with RecordStore.open(tmp_path, schemas=(RATES,), settings={}, context={}) as store:
        store.append("rates", rows)
    with RecordStore.read(tmp_path) as store:
        assert store.rows("rates")[0]["rate"] is None
        assert store.rows("rates")[1]["rate"] != store.rows("rates")[1]["rate"]


def test_repeated_rows_belong_to_the_batch_that_brought_them(tmp_path: Path) -> None:
    with RecordStore.open(tmp_path, schemas=(RATES,), settings={}, context={}) as store:
        store.append("rates", [_rate(2, 0), _rate(1, 0)])
        store.append("rates", [_rate(3, 0), _rate(2, 0), _rate(0, 0), _rate(3, 0)])
        store.append("rates", [_rate(2, 0)])
        store.append("rates", [])
    with RecordStore.read(tmp_path) as store:
        assert [row["sample"] for row in store.rows("rates")] == [0, 1, 2, 3]
        assert store.check() == {"rates": 4}


def test_a_layout_with_its_rules_is_stored_and_read(tmp_path: Path) -> None:
    _write(tmp_path)
    with RecordStore.read(tmp_path) as store:
        assert store.schemas == (RATES, DECISIONS, ATTACKS)
    bounded = Schema("t", {"a": Annotated[int, Ge(0)]}, {"b": Annotated[float, Le(1)] | None})
    assert Schema.from_json(json.loads(json.dumps(bounded.to_json()))) == bounded


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([0, 1, 1], "sample id 1 stands twice"),
        ([False, 1], "sample id False is not a whole number"),
        ([-1], "sample id -1 is not a whole number"),
        ([0.5], "sample id 0.5 is not a whole number"),
        ([2**63], "is too large for 64 bits"),
    ],
)
def test_images_of_a_run_are_distinct_whole_numbers(
    tmp_path: Path, ids: list[Any], told: str
) -> None:
    with pytest.raises(BadInput, match=told):
        RecordStore.open(tmp_path, schemas=(RATES,), settings={}, context={}, samples=ids)
    assert not (tmp_path / "records.sqlite").exists()


def test_a_run_of_other_images_is_refused(tmp_path: Path) -> None:
    _write(tmp_path)
    how: dict[str, Any] = {"schemas": (RATES,), "settings": SETTINGS, "context": {"torch": "2"}}
    RecordStore.open(tmp_path, samples=reversed(range(12)), **how).close()
    with pytest.raises(BadInput, match="12 images are not those of the run in"):
        RecordStore.open(tmp_path, samples=range(1, 13), **how)


@pytest.mark.parametrize(
    "schemas",
    ["{}", "[1]", '[{"table": "t"}]', '[{"table": 1, "keys": [], "values": []}]', "[" * 5000],
)
def test_broken_layouts_with_a_right_checksum_are_one_line(tmp_path: Path, schemas: str) -> None:
    file = _write(tmp_path)
    connection = sqlite3.connect(file)
    digest = checksum([("schemas", schemas)])
    connection.execute("UPDATE _meta SET value = ?, sha256 = ? WHERE name = 'schemas'",
                       (schemas, digest))  # fmt: skip
    connection.commit()
    connection.close()
    with pytest.raises(BadInput, match="schemas cannot be read"):
        RecordStore.read(tmp_path)


def test_a_reader_checks_what_was_added_since_its_last_look(tmp_path: Path) -> None:
    file = _write(tmp_path)
    with RecordStore.read(tmp_path) as store:
        before = store.rows("decisions")
        connection = sqlite3.connect(file)
        connection.execute("UPDATE decisions SET margin = 7.0 WHERE sample = 2")
        connection.commit()
        connection.close()
        with pytest.raises(BadInput, match="is not what was written"):
            store.rows("decisions", {"sample": 3})
    assert len(before) == 12


@pytest.mark.parametrize("read", [lambda s: s.done("rates"), lambda s: s.count("rates")])
def test_a_writer_checks_before_it_goes_on(
    tmp_path: Path, read: Callable[[RecordStore], Any]
) -> None:
    file = _write(tmp_path)
    connection = sqlite3.connect(file)
    connection.execute("DELETE FROM rates WHERE sample = 2 AND draw = 1")
    connection.commit()
    connection.close()
    with (
        RecordStore.open(
            tmp_path, schemas=(RATES,), settings=SETTINGS, context={"torch": "2"}
        ) as store,
        pytest.raises(BadInput, match="has 2 of 3 rows of rates"),
    ):
        read(store)


@pytest.mark.parametrize(
    "edits",
    [
        "DELETE FROM _sessions",
        "UPDATE _sessions SET started = 'never'",
        "ALTER TABLE _blobs RENAME TO b; CREATE VIEW _blobs AS SELECT * FROM b",
    ],
)
def test_no_reader_opens_a_run_whose_header_was_edited(tmp_path: Path, edits: str) -> None:
    file = _write(tmp_path)
    connection = sqlite3.connect(file)
    connection.executescript(edits)
    connection.close()
    with pytest.raises(BadInput, match="is damaged"):
        RecordStore.read(tmp_path)


@pytest.mark.parametrize("edit", ["CREATE VIEW v AS SELECT 1", EDITS["a trigger"]])
def test_no_session_goes_on_with_a_view_or_a_trigger(tmp_path: Path, edit: str) -> None:
    connection = sqlite3.connect(_write(tmp_path))
    connection.execute(edit)
    connection.close()
    with pytest.raises(BadInput, match="which no run has"):
        RecordStore.open(tmp_path, schemas=(RATES,), settings=SETTINGS, context={"torch": "2"})


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (os.mkfifo, "is no file that could hold records"),
        (lambda path: path.mkdir(), "is no file that could hold records"),
        (lambda path: path.symlink_to(path.name), "cannot be opened or written"),
    ],
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None], line: str
) -> None:
    make(tmp_path / "records.sqlite")
    with pytest.raises(BadInput, match=line):
        RecordStore.open(tmp_path, schemas=(RATES,), settings=SETTINGS, context={})


def test_the_verb_of_another_run_is_named_before_all_other_settings(tmp_path: Path) -> None:
    RecordStore.open(
        tmp_path, schemas=(RATES,), settings={"a": 1, "verb": "cr"}, context={}
    ).close()
    with pytest.raises(BadInput, match='setting verb = "snr" differs from "cr" of the run'):
        RecordStore.open(tmp_path, schemas=(RATES,), settings={"verb": "snr"}, context={})
