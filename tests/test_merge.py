"""Shards of a run become one, and what is not a set of shards is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from advpure.analysis.compression.study import Compression
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.report.merge import Merging
from advpure.runs.records import RecordStore

CR = {"dataset": "digits", "n": 5, "defense": "onestep-edm", "perturbations": 2}


def shard(folder: Path, i: int, k: int, **changes: object) -> str:
    """Compute a shard into a folder and return its name."""
    Compression(**{**CR, **changes}).run(out=folder, shard=(i, k))  # type: ignore[arg-type]
    return str(folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the folders of three shards of one run."""
    folder = tmp_path_factory.mktemp("shards")
    return [shard(folder / f"part{i}", i, 3) for i in (1, 2, 3)]


def refused(runs: list[str], to: Path) -> str:
    """Return the line that refuses to merge."""
    with pytest.raises(BadInput) as caught:
        Merging(runs=tuple(runs), to=str(to)).merge()
    assert not (to / "records.sqlite").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_order_of_the_shards_does_not_matter(parts: list[str], tmp_path: Path) -> None:
    first = Merging(runs=tuple(parts), to=str(tmp_path / "a")).merge()
    second = Merging(runs=tuple(parts[::-1]), to=str(tmp_path / "b")).merge()
    whole = Compression(**CR).run(out=tmp_path / "whole")  # type: ignore[arg-type]
    assert first.tree() == second.tree() == whole.tree()
    with RecordStore.read(tmp_path / "a") as store:
        assert "shard" not in store.context
        assert len(store.context["images"]) == 5
        assert store.samples == frozenset(range(5))


def test_a_shard_knows_its_images_and_keeps_to_them(parts: list[str]) -> None:
    with RecordStore.read(parts[1]) as store:
        assert store.samples == {1, 4}
        assert store.context["shard"] == [2, 3]
    with pytest.raises(BadInput, match="are not those of the run"):
        Compression(**CR).run(out=parts[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (lambda p: p[:1], "1 run is nothing to merge"),
        (lambda p: p[:2], "shard 3/3 is missing"),
        (lambda p: [p[0], p[0]], "is shard 1/3, as"),
    ],
)
def test_holes_and_repetitions_are_refused(
    choose: Callable[[list[str]], list[str]], words: str, parts: list[str], tmp_path: Path
) -> None:
    assert words in refused(choose(parts), tmp_path / "merged")


def test_strangers_are_refused(parts: list[str], tmp_path: Path) -> None:
    other = shard(tmp_path / "other", 3, 3, seeds=(1,))
    assert "setting" in refused([*parts[:2], other], tmp_path / "merged")
    halves = shard(tmp_path / "half", 2, 2)
    assert "is shard 2/2, where" in refused([parts[0], halves], tmp_path / "merged")
    Compression(**CR).run(out=tmp_path / "whole")  # type: ignore[arg-type]
    assert "is no shard" in refused([parts[0], str(tmp_path / "whole")], tmp_path / "merged")


def test_a_shard_that_was_stopped_is_refused(parts: list[str], tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Compression(**CR).run(  # type: ignore[arg-type]
            out=tmp_path / "last", shard=(3, 3), progress=stop, batch_size=1
        )
    runs = [*parts[:2], str(tmp_path / "last")]
    assert "is shard 3/3 and not complete" in refused(runs, tmp_path / "merged")


def test_the_target_is_none_of_the_shards(parts: list[str]) -> None:
    with pytest.raises(BadInput, match="is one of the shards"):
        Merging(runs=tuple(parts), to=parts[0]).merge()


def test_more_shards_than_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="shard 6/7 has none of 5 images; use at most 5 shards"):
        shard(tmp_path / "part", 6, 7)


def test_the_command_line_shards_and_merges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["cr", "--dataset", "digits", "--defense", "onestep-edm", "-n", "3", "-q"]
    assert run([*words, "--shard", "1/2"]) == 0
    assert run([*words, "--shard", "2/2", "--dry-run", "--json"]) == 0
    assert run([*words, "--shard", "2/2"]) == 0
    assert run([*words, "--shard", "3/2"]) == 2
    folders = sorted(map(str, Path("runs").iterdir()))
    assert [folder[-7:] for folder in folders] == [".1-of-2", ".2-of-2"]
    capsys.readouterr()
    assert run(["merge", *folders, "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["run"] == folders[0].removesuffix(".1-of-2")
    assert run([*words, "--json"]) == 0  # the unsplit command finds the merged run
    told = json.loads(capsys.readouterr().out)
    assert any("already complete" in note for note in told["notes"])
    assert told["mean"] == merged["mean"]
