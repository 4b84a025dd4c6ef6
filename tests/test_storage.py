"""Files appear whole or not at all, and a full disk is said so."""

import errno
import pickle
from pathlib import Path

import pytest

from advpure.base.errors import BadInput
from advpure.base.storage import StorageFull, atomic_path, refuse_source, writing


def test_no_output_is_written_over_records_or_a_source(tmp_path: Path) -> None:
    records, log = tmp_path / "records.sqlite", tmp_path / "a.tsv"
    for path in (records, log):
        path.write_text("mine")
    with (
        pytest.raises(BadInput, match="is the records of a run; write another"),
        atomic_path(records) as scratch,
    ):
        scratch.write_text("other")
    refuse_source(tmp_path / "b.tsv", [log])
    with pytest.raises(BadInput, match="is one of those that are read; write another"):
        refuse_source(tmp_path / "c" / ".." / "a.tsv", [log])
    assert records.read_text() == "mine"


def test_a_file_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "out.txt"
    for text in ("one", "two"):
        with atomic_path(target) as scratch:
            assert scratch.suffix == ".txt"
            assert scratch.parent == target.parent
            scratch.write_text(text)
            assert not target.exists() or target.read_text() == "one"
        assert target.read_text() == text
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_keeps_the_old_file_and_leaves_no_scrap(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as scratch:  # noqa: PT012
        scratch.write_text("half")
        _ = 1 / 0
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_one_clear_line(code: int) -> None:
    with pytest.raises(StorageFull, match=r"no room left to write x.*everything before is kept"):
        _fail(code)


def test_other_refusals_are_bad_input() -> None:
    with pytest.raises(BadInput, match=r"x cannot be written \(nope\); choose another path"):
        _fail(errno.EACCES)


def _fail(code: int) -> None:
    with writing(Path("x")):
        raise OSError(code, "nope")


def test_the_error_crosses_process_borders() -> None:
    error = StorageFull("runs/a")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
