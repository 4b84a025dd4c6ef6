"""Records: exact round trips, nothing overwritten, nothing lost to kills or full disks."""

import hashlib
import importlib
import json
import math
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advpure.base.errors import BadInput
from advpure.runs.records import (
    RecordConflict,
    RecordStore,
    Schema,
    StorageFull,
    canonical_json,
    collect_context,
    default_run_folder,
    run_id,
    source_digests,
)

SCHEMA = Schema("draws", {"sample": int, "draw": int}, {"correct": bool, "loss": float | None})
OTHER = Schema("images", {"name": str}, {"digest": bytes, "note": str | None})
SETTINGS = {"defense": "cm", "attack": {"eps": 8 / 255, "steps": 40}, "seed": 0}
CONTEXT = {"torch": "2.4", "device": "cpu", "threads": 1, "tile": 32, "weights": {"net": "aa"}}


def _open(folder: Path, **changes: Any) -> RecordStore:
    given = {"schemas": [SCHEMA, OTHER], "settings": SETTINGS, "context": CONTEXT}
    return RecordStore.open(folder, **{**given, **changes})


def _row(sample: int, draw: int = 0, loss: float | None = 0.5, correct: bool = True) -> Any:
    return {"sample": sample, "draw": draw, "correct": correct, "loss": loss}


def test_rows_come_back_exactly_and_sorted_by_key(tmp_path: Path) -> None:
    rows = [_row(sample, draw, loss=sample / 3 + draw) for sample in range(5) for draw in range(3)]
    shuffled = random.Random(0).sample(rows, len(rows))
    with _open(tmp_path) as store:
        store.append("draws", shuffled[:7])
        store.append("draws", shuffled[7:])
        assert store.rows("draws") == rows
        assert store.rows("draws", {"sample": 3}) == rows[9:12]
        assert store.rows("draws", {"sample": 9}) == []
        assert store.count("draws") == 15
        assert store.count("draws", {"draw": 2, "correct": True}) == 5
        assert store.done("draws") == {(sample, draw) for sample in range(5) for draw in range(3)}
        assert store.done("draws", "sample") == {(sample,) for sample in range(5)}
    with RecordStore.read(tmp_path) as found:
        assert found.rows("draws") == rows
        assert found.schemas == (SCHEMA, OTHER)
        assert found.settings == SETTINGS
        assert found.run == run_id(SETTINGS)
        assert found.context == {**found.context, **CONTEXT}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20))
def test_every_double_round_trips_bit_for_bit(values: list[float]) -> None:
    schema = Schema("floats", {"place": int}, {"value": float})
    encoded = [schema.encode({"place": 0, "value": value})[1] for value in values]
    connection = sqlite3.connect(":memory:")
    connection.execute(schema.statement)
    connection.executemany("INSERT INTO floats VALUES (?, ?, 1)", enumerate(encoded))
    stored = connection.execute("SELECT value FROM floats ORDER BY place").fetchall()
    connection.close()
    back = [schema.decode("value", value) for (value,) in stored]
    assert [value.hex() for value in back] == [value.hex() for value in values]


def test_absent_differs_from_nan_and_from_zero(tmp_path: Path) -> None:
    losses = [None, math.nan, 0.0, math.inf, -math.inf, 5e-324, 0.1 + 0.2]
    with _open(tmp_path) as store:
        store.append("draws", [_row(place, loss=loss) for place, loss in enumerate(losses)])
        found = [row["loss"] for row in store.rows("draws")]
        assert found[0] is None
        assert math.isnan(found[1])
        assert found[2:] == losses[2:]
        assert [row["sample"] for row in store.rows("draws", {"loss": None})] == [0]
        assert [row["sample"] for row in store.rows("draws", {"loss": math.nan})] == [1]
        assert store.rows("draws")[0]["correct"] is True


def test_text_bytes_numpy_and_torch_values(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.append("images", [{"name": "é\n'\"", "digest": b"\x00\xff"}])
        assert store.rows("images") == [{"name": "é\n'\"", "digest": b"\x00\xff", "note": None}]
        given = {
            "sample": np.int64(1),
            "draw": torch.tensor(2),
            "correct": np.bool_(False),
            "loss": torch.tensor(0.1),
        }
        store.append("draws", [given])
        assert store.rows("draws") == [_row(1, 2, float(np.float32(0.1)), correct=False)]


def test_the_same_rows_again_change_nothing(tmp_path: Path) -> None:
    rows = [_row(0), _row(1, loss=math.nan), _row(2, loss=None)]
    with _open(tmp_path) as store:
        store.append("draws", rows)
        store.append("draws", [*rows, _row(3)])
        assert store.count("draws") == 4


@pytest.mark.parametrize("change", [{"loss": 0.6}, {"loss": None}, {"correct": False}])
def test_other_values_under_a_stored_key_are_refused(tmp_path: Path, change: Any) -> None:
    with _open(tmp_path) as store:
        store.append("draws", [_row(3, 1)])
        before = store.rows("draws")
        with pytest.raises(RecordConflict, match=r"draws\(sample=3, draw=1\)"):
            store.append("draws", [_row(2), {**_row(3, 1), **change}])
        assert store.rows("draws") == before


def test_two_unlike_rows_of_one_batch_are_refused(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        with pytest.raises(RecordConflict, match="loss"):
            store.append("draws", [_row(0, loss=1.0), _row(0, loss=2.0)])
        assert store.count("draws") == 0


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"sample": 0}, "lacks column 'draw'"),
        ({**_row(0), "extra": 1}, "column 'extra'"),
        (_row(0.0), "int column sample"),  # type: ignore[arg-type]
        (_row(True), "int column sample"),
        (_row(2**63), "int column sample"),
        (_row(0, loss="1"), "float column loss"),  # type: ignore[arg-type]
        (_row(0, correct=1), "bool column correct"),  # type: ignore[arg-type]
        (_row(0, correct=None), "bool column correct"),  # type: ignore[arg-type]
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, row: Any, said: str) -> None:
    with _open(tmp_path) as store:
        with pytest.raises(BadInput, match=said):
            store.append("draws", [_row(1), row])
        assert store.count("draws") == 0


def test_unknown_tables_and_columns_are_named(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        with pytest.raises(BadInput, match="known: draws, images"):
            store.rows("drafts")
        with pytest.raises(BadInput, match="column 'smaple'"):
            store.done("draws", "smaple")
        with pytest.raises(BadInput, match="column 'x'"):
            store.rows("draws", {"x": 1})


def test_a_key_cannot_be_nan() -> None:
    schema = Schema("radii", {"eps": float}, {"value": float})
    with pytest.raises(BadInput, match="column eps"):
        schema.encode({"eps": math.nan, "value": 0.0})


@pytest.mark.parametrize(
    ("table", "keys", "values"),
    [
        ("t", {}, {"a": int}),
        ("t", {"a": int}, {"A": int}),
        ("t", {"run": int}, {}),
        ("_t", {"a": int}, {}),
        ("t", {"a b": int}, {}),
        ("t", {"a": int | None}, {}),
        ("t", {"a": int}, {"b": list}),
        ("t", {"a": int}, {"b": int | float}),
    ],
)
def test_unusable_layouts_are_refused(table: str, keys: Any, values: Any) -> None:
    with pytest.raises(ValueError, match=r"(table|column) "):
        Schema(table, keys, values)


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    image = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with _open(tmp_path) as store:
        with pytest.raises(ZeroDivisionError), store.batch():  # noqa: PT012
            store.append("draws", [_row(0)])
            store.put_blob("a", image)
            _ = 1 / 0
        assert store.count("draws") == 0
        assert store.blobs() == []
        with store.batch():
            store.append("draws", [_row(0)])
            with pytest.raises(RecordConflict):
                store.append("draws", [_row(1), _row(0, loss=9.0)])
            store.put_blob("a", image)
        assert store.rows("draws") == [_row(0)]
        assert store.blobs() == ["a"]


def test_blobs_round_trip_and_are_never_overwritten(tmp_path: Path) -> None:
    image = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)).transpose(0, 2)
    with _open(tmp_path) as store:
        store.put_blob("x", image)
        store.put_blob("x", image)
        store.put_blob("scalar", torch.tensor(float("nan")))
        store.put_blob("empty", torch.empty(0, 3))
    with RecordStore.read(tmp_path) as store:
        assert store.blobs() == ["empty", "scalar", "x"]
        assert torch.equal(store.get_blob("x"), image)
        assert store.get_blob("scalar").shape == ()
        assert store.get_blob("empty").shape == (0, 3)
        with pytest.raises(BadInput, match="'y'"):
            store.get_blob("y")
    with _open(tmp_path) as store:
        with pytest.raises(RecordConflict, match="blob x"):
            store.put_blob("x", image + 1)
        with pytest.raises(BadInput, match="float64"):
            store.put_blob("z", image.double())


# --- identity and context ---------------------------------------------------------------


def test_other_settings_are_refused_naming_the_first_key(tmp_path: Path) -> None:
    _open(tmp_path).close()
    other = {"defense": "cm", "attack": {"eps": 0.5, "steps": 20}, "seed": 0}
    with pytest.raises(BadInput) as caught:
        _open(tmp_path, settings=other)
    assert str(caught.value) == (
        f"setting attack.eps = 0.5 differs from {8 / 255!r} of the run in {tmp_path}; "
        "choose another --out"
    )
    with pytest.raises(BadInput, match="setting extra = 1 differs from absent"):
        _open(tmp_path, settings={**SETTINGS, "extra": 1})
    with RecordStore.read(tmp_path) as store:
        assert len(store.sessions) == 1


def test_settings_compare_by_value_not_by_order_or_container(tmp_path: Path) -> None:
    _open(tmp_path, settings={"a": [1, 2], "b": None}).close()
    _open(tmp_path, settings={"b": None, "a": (1, 2)}).close()


@pytest.mark.parametrize("name", ["torch", "device", "threads", "tile", "dtype", "cpu"])
def test_another_numeric_context_warns_and_is_recorded(tmp_path: Path, name: str) -> None:
    _open(tmp_path).close()
    with pytest.warns(RuntimeWarning, match=f"{name} .* -> changed.*last bit"):
        _open(tmp_path, context={**CONTEXT, name: "changed"}).close()
    with RecordStore.read(tmp_path) as store:
        assert [session.get(name) for session in store.sessions] == [CONTEXT.get(name), "changed"]
        assert store.context.get(name) == CONTEXT.get(name)


def test_the_same_context_does_not_warn(tmp_path: Path) -> None:
    _open(tmp_path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _open(tmp_path, context={**CONTEXT, "python": "4.0"}).close()


def test_other_code_warns_and_absent_digests_do_not(tmp_path: Path) -> None:
    sources = {"advpure.cm": "aa", "advpure.pgd": "bb"}
    _open(tmp_path, context={**CONTEXT, "sources": sources}).close()
    with pytest.warns(RuntimeWarning, match=r"the code of advpure.pgd changed .* rows are kept"):
        _open(tmp_path, context={**CONTEXT, "sources": {**sources, "advpure.pgd": "cc"}}).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (sources, {"advpure.cm": "aa"}, {}):
            _open(tmp_path, context={**CONTEXT, "sources": same}).close()
        _open(tmp_path).close()


def test_the_digest_of_code_is_that_of_its_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "advpure_own_code.py"
    path.write_text("def own():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    own = importlib.import_module("advpure_own_code").own
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert source_digests(own, None, len, 3) == {"advpure_own_code": expected}
    path.write_text("def own():\n    return 2\n")
    assert source_digests(own)["advpure_own_code"] != expected


def test_other_weights_or_data_are_refused(tmp_path: Path) -> None:
    _open(tmp_path).close()
    with pytest.raises(BadInput, match=r'weights.net = "bb" are not those of the run .*"aa"'):
        _open(tmp_path, context={**CONTEXT, "weights": {"net": "bb"}})
    with pytest.raises(BadInput, match="data"):
        _open(tmp_path, context={**CONTEXT, "data": "cifar"})


def test_tables_may_be_added_but_not_changed(tmp_path: Path) -> None:
    _open(tmp_path, schemas=[SCHEMA]).close()
    _open(tmp_path, schemas=[OTHER]).close()
    changed = Schema("draws", SCHEMA.keys, {"correct": bool, "loss": float})
    with pytest.raises(BadInput, match="table draws"):
        _open(tmp_path, schemas=[changed])
    with RecordStore.read(tmp_path) as store:
        assert store.schemas == (SCHEMA, OTHER)


def test_canonical_json_is_a_function_of_the_values() -> None:
    assert canonical_json({"b": (1, 2.5), "a": Path("x/y")}) == '{"a":"x/y","b":[1,2.5]}'
    assert run_id({"a": 1, "b": 2}) == run_id({"b": 2, "a": 1})
    folder = default_run_folder("runs", "cr", SETTINGS)
    assert folder == Path("runs") / f"cr-{run_id(SETTINGS)}"
    assert len(run_id(SETTINGS)) == 12


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"a": {"b": math.nan}}, "a.b"),
        ({"a": [0, math.inf]}, "a.1"),
        ({"a": object()}, "setting a"),
        ({"a": {1: 2}}, "key 1 in a"),
    ],
)
def test_settings_that_json_cannot_hold_are_refused(given: Any, key: str) -> None:
    with pytest.raises(BadInput, match=key):
        canonical_json(given)


def test_context_says_where_a_result_was_computed() -> None:
    context = collect_context(tile=8, weights={"net": "aa"}, data="bb")
    assert context["torch"] == torch.__version__
    assert context["threads"] == torch.get_num_threads()
    assert (context["tile"], context["weights"], context["data"]) == (8, {"net": "aa"}, "bb")
    assert json.loads(canonical_json(context)) == context


# --- files that are not runs ------------------------------------------------------------


def test_folders_and_files_that_are_no_run_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no run folder"):
        RecordStore.read(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        _open(tmp_path / "file")
    with pytest.raises(BadInput, match="is no run folder"):
        RecordStore.read(tmp_path / "file")


@pytest.mark.parametrize("way", [RecordStore.read, _open])
def test_foreign_and_damaged_files_are_refused_and_left_alone(tmp_path: Path, way: Any) -> None:
    file = tmp_path / "records.sqlite"
    file.write_bytes(b"no database at all " * 100)
    with pytest.raises(BadInput, match="not a readable database"):
        way(tmp_path)
    assert file.read_bytes() == b"no database at all " * 100

    file.unlink()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE draws (a)")
    connection.commit()
    connection.close()
    before = file.read_bytes()
    with pytest.raises(BadInput, match="another program"):
        way(tmp_path)
    assert file.read_bytes() == before


@pytest.mark.parametrize("way", [RecordStore.read, _open])
def test_a_later_format_is_refused(tmp_path: Path, way: Any) -> None:
    _open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "records.sqlite")
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    with pytest.raises(BadInput, match="format 4, this advpure reads format 3"):
        way(tmp_path)


@pytest.mark.parametrize("way", [RecordStore.read, _open])
def test_records_of_an_earlier_version_are_refused_in_one_line(tmp_path: Path, way: Any) -> None:
    _open(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "records.sqlite")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(BadInput) as caught:
        way(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} was made by an earlier version of advpure (format 2, now 3); "
        "delete the folder or give a new --out"
    )


def test_a_damaged_page_is_reported_not_read_over(tmp_path: Path) -> None:
    with _open(tmp_path) as store:
        store.append("draws", [_row(sample) for sample in range(5000)])
    file = tmp_path / "records.sqlite"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = b"\xff" * 8192
    file.write_bytes(content)
    with RecordStore.read(tmp_path) as found, pytest.raises(BadInput, match="database"):
        found.rows("draws")


def test_a_run_that_never_began_can_begin(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").touch()
    with pytest.raises(BadInput, match="never began"):
        RecordStore.read(tmp_path)
    with _open(tmp_path) as store:
        store.append("draws", [_row(0)])
    assert RecordStore.read(tmp_path).count("draws") == 1


def test_a_reader_cannot_write_and_leaves_no_files(tmp_path: Path) -> None:
    _open(tmp_path).close()
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput, match="readonly"):
        store.append("draws", [_row(0)])
    assert [path.name for path in tmp_path.iterdir()] == ["records.sqlite"]


def test_a_reader_sees_what_a_writer_has_committed(tmp_path: Path) -> None:
    with _open(tmp_path) as writer, RecordStore.read(tmp_path) as reader:
        writer.append("draws", [_row(0)])
        assert reader.count("draws") == 1
        with writer.batch():
            writer.append("draws", [_row(1)])
            assert reader.count("draws") == 1
        assert reader.count("draws") == 2


# --- full disks -------------------------------------------------------------------------


def test_a_full_disk_keeps_everything_before(tmp_path: Path) -> None:
    store = _open(tmp_path)
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    kept = []
    with pytest.raises(StorageFull, match="everything before is kept"):  # noqa: PT012
        for start in range(0, 10_000, 50):
            rows = [_row(sample) for sample in range(start, start + 50)]
            store.append("draws", rows)
            kept += rows
    assert kept
    assert store.rows("draws") == kept
    store.close()
    with _open(tmp_path) as again:
        assert again.rows("draws") == kept
        again.append("draws", [_row(sample) for sample in range(10_000)])
        assert again.count("draws") == 10_000


_LIMITED = """
import resource, sys
from advpure.runs.records import RecordStore, Schema, StorageFull
schema = Schema("draws", {"sample": int}, {"text": str})
store = RecordStore.open(sys.argv[1], schemas=[schema], settings={}, context={})
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
done = 0
try:
    for start in range(0, 5000, 10):
        rows = [{"sample": n, "text": "x" * 100} for n in range(start, start + 10)]
        store.append("draws", rows)
        done = start + 10
except StorageFull as error:
    print(done, str(error).count("\\n"))
"""


def test_a_refusal_of_the_operating_system_keeps_everything_before(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LIMITED, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done, line_breaks = map(int, said.split())
    assert 0 < done < 5000
    assert line_breaks == 0
    with RecordStore.read(tmp_path) as store:
        assert [row["sample"] for row in store.rows("draws")] == list(range(done))


# --- several processes and kill -9 ------------------------------------------------------

_WORKER = textwrap.dedent("""
    import signal, sys, time
    from advpure.runs.records import RecordStore, Schema
    folder, pause, stride, begin, most = sys.argv[1], *map(float, sys.argv[2:])
    time.sleep(max(0.0, begin - time.time()))
    rows = Schema("rows", {"sample": int}, {"value": float})
    more = Schema("more", {"sample": int, "place": int}, {"value": float | None})
    with RecordStore.open(folder, schemas=[rows, more], settings={"a": 1}, context={}) as store:
        print("open", flush=True)
        done = store.done("rows")
        for batch in range(0, 300, int(stride)):
            samples = [7 * batch + place for place in range(7)]
            if (samples[0],) in done:
                continue
            if most == 0:
                signal.pause()  # until the kill
            most -= 1
            with store.batch():
                store.append("rows", [{"sample": n, "value": n / 3} for n in samples])
                time.sleep(pause)
                pairs = [{"sample": n, "place": k, "value": n / 7} for n in samples for k in (0, 1)]
                store.append("more", pairs)
            print(batch, flush=True)
""")


def _start(
    folder: Path, pause: float = 0.0, stride: int = 1, begin: float = 0.0, most: int = -1
) -> "subprocess.Popen[str]":
    """Start a process that adds 300 batches of 7 samples, or `most` and then waits."""
    numbers = map(str, (pause, stride, begin, most))
    command = [sys.executable, "-c", _WORKER, str(folder), *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def _content(folder: Path) -> tuple[Any, Any]:
    with RecordStore.read(folder) as store:
        return store.rows("rows"), store.rows("more")


def _has_begun(folder: Path) -> bool:
    try:
        RecordStore.read(folder).close()
    except BadInput as error:
        return "never began" not in str(error) and "is no run folder" not in str(error)
    return True


@pytest.mark.slow
def test_ten_kills_then_the_records_of_an_uninterrupted_run(tmp_path: Path) -> None:
    clock = random.Random(7)
    folder, counts = tmp_path / "killed", [0]
    for attempt in range(10):
        process = _start(folder, pause=0.006, most=25)  # ten of them leave batches to do
        assert process.stdout is not None
        if attempt % 3:
            assert process.stdout.readline() == "open\n"
            for _ in range(clock.randrange(1, 5)):
                assert int(process.stdout.readline()) >= 0
            time.sleep(clock.uniform(0.0, 0.12))
        else:
            time.sleep(clock.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if counts[-1] == 0 and not _has_begun(folder):
            continue
        rows, more = _content(folder)
        assert len(rows) % 7 == 0
        assert len(more) == 2 * len(rows)
        assert len(rows) >= counts[-1]
        counts.append(len(rows))
    assert 0 < counts[-1] < 2100
    _finish(_start(folder))
    _finish(_start(tmp_path / "whole"))
    assert _content(folder) == _content(tmp_path / "whole")
    assert len(_content(folder)[0]) == 2100


@pytest.mark.slow
def test_processes_that_share_a_run_take_turns(tmp_path: Path) -> None:
    begin = time.time() + 0.5
    workers = [_start(tmp_path / "shared", stride=stride, begin=begin) for stride in (1, 2, 3)]
    for worker in workers:
        _finish(worker)
    _finish(_start(tmp_path / "alone"))
    assert _content(tmp_path / "shared") == _content(tmp_path / "alone")
    with RecordStore.read(tmp_path / "shared") as store:
        assert len(store.sessions) == 3


def test_a_lock_that_never_ends_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advpure.runs.database.BUSY_SECONDS", 0.05)
    with _open(tmp_path) as first, first.batch(), pytest.raises(BadInput, match="locked"):
        _open(tmp_path)
