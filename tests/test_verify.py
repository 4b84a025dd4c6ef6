"""One image of a run comes out again from its records, and does not when something was changed."""

import json
import shlex
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from quick_studies import QUICK, finished, quick

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.cli import studies as commands
from advpure.options import read_options
from advpure.report.command import command_line
from advpure.report.verify import Verification
from advpure.runs.records import RecordStore
from advpure.studies import STUDIES

every_study = pytest.mark.parametrize("verb", STUDIES.names())


@pytest.mark.slow
@every_study
def test_any_study_comes_out_again(verb: str, tmp_path: Path) -> None:
    finished(verb, tmp_path / "run")
    verdict = Verification(run=str(tmp_path / "run")).verify()
    assert verdict.passed, verdict
    assert verdict.rows > 0
    assert verdict.checks[-1].words.endswith("to the last bit")
    with RecordStore.read(tmp_path / "run") as store:
        assert STUDIES.get(verb).recorded(store) == read_options(
            STUDIES.get(verb), json.loads(json.dumps(QUICK[verb])), verb
        )


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an attack run of images that are not the first of their split."""
    folder = tmp_path_factory.mktemp("verify") / "attacked"
    quick("attack", n=None, subset="train/40:43", keep_images=True).run(out=folder)
    return folder


def forged(run: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Write a run whose settings, context or rows were changed before they were recorded."""
    with RecordStore.read(run) as store:
        told = {"settings": store.settings, "context": store.context}
        told |= {schema.table: store.rows(schema.table) for schema in store.schemas}
        schemas = store.schemas
    told["context"].pop("started")
    change(told)
    with RecordStore.open(
        folder, schemas=schemas, settings=told["settings"], context=told["context"]
    ) as store:
        for schema in schemas:
            store.append(schema.table, told[schema.table])
        store.finish()
    return folder


@pytest.mark.slow
def test_every_image_comes_out_alone(attacked: Path) -> None:
    for sample in (40, 41, 42):
        verdict = Verification(run=str(attacked), sample=sample).verify()
        assert [check.what for check in verdict.checks] == [
            "records", "image bytes", "weights", "settings", "rows",
        ]  # fmt: skip
        assert all(check.passed for check in verdict.checks)
        assert verdict.rows == 3 * 2 + 2 + 4  # decisions, attacks, kept images
    assert Verification(run=str(attacked)).verify().sample in (40, 41, 42)


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    "a margin": ("rows", lambda told: told["decisions"][0].update(margin=0.5)),
    "a lost row": ("rows", lambda told: told["attacks"].pop(0)),
    "a setting": ("settings", lambda told: told["settings"]["attack"].update(steps=3)),
    "weights": ("weights", lambda told: told["context"]["weights"].update(denoiser="0" * 64)),
    "pixels": ("image bytes", lambda told: told["context"]["images"].update({"40": "0" * 16})),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_does_not_come_out(
    attacked: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    what, change = CHANGES[name]
    folder = forged(attacked, tmp_path / "run", change)
    assert run(["verify", str(folder), "--sample", "40", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["passed"]
    assert [check["what"] for check in told["checks"] if check["passed"] is False] == [what]


def test_an_unchanged_copy_comes_out(attacked: Path, tmp_path: Path) -> None:
    folder = forged(attacked, tmp_path / "run", lambda told: None)
    assert Verification(run=str(folder), sample=40).verify().passed


@pytest.mark.slow
def test_a_tolerance_lets_roundings_pass_and_decisions_not(attacked: Path, tmp_path: Path) -> None:
    def rounded(told: dict[str, Any]) -> None:
        told["decisions"][0]["margin"] *= 1 + 1e-6

    def flipped(told: dict[str, Any]) -> None:
        row = told["decisions"][0]
        row.update(prediction=(row["prediction"] + 1) % 10)
        row.update(correct=row["prediction"] == row["label"])

    near = str(forged(attacked, tmp_path / "near", rounded))
    assert not Verification(run=near, sample=40).verify().passed
    assert Verification(run=near, sample=40, tolerance=1e-5).verify().passed
    other = str(forged(attacked, tmp_path / "other", flipped))
    assert not Verification(run=other, sample=40, tolerance=1.0).verify().passed


def test_what_cannot_be_verified_is_refused(attacked: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"sample 7 has no rows in .* known: 40, 41, 42"):
        Verification(run=str(attacked), sample=7).verify()
    with pytest.raises(BadInput, match="is no run folder"):
        Verification(run=str(tmp_path)).verify()
    old = forged(attacked, tmp_path / "old", lambda told: told["context"].pop("study"))
    with pytest.raises(BadInput, match="does not say of which settings its study was made"):
        Verification(run=str(old)).verify()


def test_broken_records_are_a_failed_check(attacked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(attacked, tmp_path / "run")
    with sqlite3.connect(folder / "records.sqlite") as connection:
        connection.execute("UPDATE decisions SET margin = 0.25")
    verdict = Verification(run=str(folder)).verify()
    assert [check.passed for check in verdict.checks] == [False]


@every_study
def test_the_command_line_makes_the_same_study(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(commands, "_run", lambda study, **how: seen.append(study))
    required = {"metric": "distance"} if verb == "measure" else {}
    for study in (quick(verb), STUDIES.get(verb)(**required)):
        words = shlex.split(command_line(study))
        assert words[:2] == ["advpure", verb]
        assert run(words[1:]) == 0
    usual, changed = seen.pop(), seen.pop()
    assert usual == study
    assert changed.load().settings == quick(verb).load().settings


def test_the_command_line_has_what_only_shows_and_keeps() -> None:
    study = quick("attack", keep_images=True, randomness="fixed", draws=None)
    words = shlex.split(command_line(study))
    assert {"--fix-random", "--save-images"} <= set(words)
    assert "--fresh-random" not in words
