"""An attack within an amount of time: what the clock may and may not change."""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import advpure
from advpure.analysis.audit.study import Audit
from advpure.analysis.robustness import study as attack_study
from advpure.analysis.robustness.protocol import ADVERSARIAL, ATTACKS, DECISIONS
from advpure.analysis.robustness.study import Robustness, RobustnessReport
from advpure.analysis.robustness.timed import Budget
from advpure.base.errors import BadInput
from advpure.cli import run as command
from advpure.report.page import Reporting
from advpure.report.verify import Verification
from advpure.runs.records import ALREADY_COMPLETE, RecordStore

MODEL = """
import torch

WEIGHT = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(5))


def classifier(images: torch.Tensor) -> torch.Tensor:
    score = ((images - 0.5) * WEIGHT).sum(dim=(1, 2, 3))
    return torch.stack([score, -score], dim=1)


def noise(images: torch.Tensor) -> torch.Tensor:
    return images + 0.1 * torch.randn(images.shape)
"""
COUNT, NEAR = 6, 3
"""Images, and those of them that lie within the radius."""
NOISY: dict[str, Any] = {
    "defense": "tiny.py:noise",
    "randomness": "fresh",
    "attack_options": {"budget": 400, "eot": 1},
}


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a linear model and images at known distances from its border."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(MODEL)
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(5))
    apart = torch.linspace(0.02, 0.12, COUNT)[:, None, None, None] * torch.sign(weight)
    np.savez("six.npz", images=(0.5 + apart).numpy(), labels=np.zeros(COUNT, dtype=np.int64))


TINY: dict[str, Any] = {
    "dataset": "six.npz",
    "classifier": "tiny.py:classifier",
    "defense": "none",
    "tile": 8,
    "eps": 0.07,
    "randomness": "fixed",
    "attack_options": {"budget": 64},
}
Clock = Callable[[int], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let a session of one second begin so many groups of images."""

    def allow(groups: int) -> None:
        ticks = itertools.chain([0.0], itertools.repeat(0.0, groups - 1), itertools.repeat(2.0))
        monkeypatch.setattr(attack_study, "CLOCK", lambda: next(ticks))

    return allow


def _rows(folder: Path) -> Mapping[str, Any]:
    with RecordStore.read(folder) as store:
        return {each.table: store.rows(each.table) for each in (ATTACKS, DECISIONS)} | {
            "finished": store.finished
        }


def _run(clock: Clock, out: Path, groups: int, **settings: Any) -> RobustnessReport:
    clock(groups)
    return Robustness(**settings, budget="1s").run(out=out, batch_size=8)


@pytest.mark.parametrize(
    ("given", "evaluations", "seconds"),
    [
        (500, 500, None),
        (" 500 ", 500, None),
        ("90s", None, 90.0),
        ("10min", None, 600.0),
        ("10 minutes", None, 600.0),
        ("1.5h", None, 5400.0),
    ],
)
def test_a_budget_is_evaluations_or_a_time(
    given: Any, evaluations: int | None, seconds: float | None
) -> None:
    assert Budget.read(given) == Budget(evaluations=evaluations, seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": "ten minutes"}, "budget 'ten minutes' is not understood; write evaluations"),
        ({"budget": "0min"}, "budget 0"),
        ({"budget": "0"}, "budget 0"),
        ({"budget": "-3"}, "budget -3"),
        ({"budget": 10**7}, "budget 10000000 is more than 1,000,000"),
        ({"budget": "1.2.3h"}, "budget '1.2.3'"),
        ({"budget": "1h", "until": "width 20"}, "budget 1h does not go with until 'width 20'"),
        ({"budget": "1h", "attack_options": {"budget": 3}}, "budget 3 pays for no step"),
    ],
)
def test_what_is_no_budget_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Robustness(**{**TINY, **changes}).load()


def test_the_time_is_no_part_of_the_run() -> None:
    one, other = (Robustness(**TINY, budget=each).load() for each in ("1h", "90s"))
    assert one.settings == other.settings
    assert one.settings["rungs"] == [16, 64]
    plain = Robustness(**TINY).load().settings
    assert "rungs" not in plain
    assert {**plain, "rungs": [16, 64]} == one.settings


def test_other_attacks_stop_between_groups_of_images(clock: Clock, tmp_path: Path) -> None:
    settings = {**TINY, "attack": "pgd", "attack_options": {"steps": 3}}
    clock(1)
    part = Robustness(**settings, budget="1s").run(out=tmp_path / "a", batch_size=3)
    assert (part.n, _rows(tmp_path / "a")["finished"]) == (3, False)
    assert "3 of 6 images are done; the same command goes on" in part.notes
    whole = Robustness(**settings).run(out=tmp_path / "a")  # which is the same run
    assert (whole.n, _rows(tmp_path / "a")["finished"]) == (COUNT, True)
    assert Robustness(**settings).run(out=tmp_path / "b").right == whole.right


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(TINY, id="fixed"),
        pytest.param({**TINY, **NOISY}, id="fresh"),
    ],
)
def test_however_often_it_is_stopped_the_records_are_the_same(
    clock: Clock, tmp_path: Path, settings: dict[str, Any]
) -> None:
    whole = Robustness(**settings, budget="9h").run(out=tmp_path / "whole")
    assert not whole.bound
    for _session in range(9):
        part = _run(clock, tmp_path / "parts", 1, **settings)
        seen, full = _rows(tmp_path / "parts"), _rows(tmp_path / "whole")
        assert all(row in full[ATTACKS.table] for row in seen[ATTACKS.table])
        if seen["finished"]:
            break
        assert part.bound
    assert _session >= 2
    assert _rows(tmp_path / "parts") == full
    assert part.tree() == whole.tree()
    again = _run(clock, tmp_path / "parts", 1, **settings)
    assert ALREADY_COMPLETE in again.notes


@pytest.mark.slow
def test_what_time_ended_is_reported_as_a_bound(clock: Clock, tmp_path: Path) -> None:
    report = _run(clock, tmp_path, 2, **TINY)
    first, second = report.rungs
    assert (first.budget, first.attacked, first.of) == (16, COUNT, COUNT)
    assert (second.budget, second.attacked, second.of) == (64, 1, COUNT - first.fooled)
    assert second.of > 1
    assert report.n == COUNT
    assert report.left == COUNT - NEAR
    words = f"images attacked, with evaluations at most: 6 of 6 with 16, 1 of {second.of} with 64"
    assert words in report.display().headline
    assert "so this is a bound from above" in " ".join(report.notes)
    assert report.tree()["rungs"][1]["attacked"] == 1
    with RecordStore.read(tmp_path) as store:
        rows = store.rows(ATTACKS.table, {"stage": "adversarial 16"})
    assert len(rows) == second.of
    assert all(0 < row["forwards"] <= 16 for row in rows)
    page = Reporting(runs=(tmp_path,), to=tmp_path / "page.html").write().read_text()
    assert words in page


@pytest.mark.slow
def test_an_image_is_verified_as_far_as_it_came(clock: Clock, tmp_path: Path) -> None:
    report = _run(clock, tmp_path, 1, **TINY)
    with RecordStore.read(tmp_path) as store:
        left = [row["sample"] for row in store.rows(ATTACKS.table, {"stage": "adversarial 16"})]
    assert report.rungs[1].attacked == 0
    clock(1)
    verdict = Verification(run=str(tmp_path), sample=left[0], trust=True).verify()
    assert verdict.passed, verdict.to_json()
    assert "to the last bit" in verdict.checks[-1].words


@pytest.mark.slow
def test_images_are_kept_once_decided(clock: Clock, tmp_path: Path) -> None:
    clock(1)
    study = Robustness(**TINY, budget="1s", keep_images=True)
    part = study.run(out=tmp_path, batch_size=8)
    with RecordStore.read(tmp_path) as store:
        kept = set(store.blobs())
    left = COUNT - part.rungs[0].fooled
    assert sum(name.startswith(f"{ADVERSARIAL}/") for name in kept) == COUNT - left
    assert sum(name.startswith("purified/") for name in kept) == COUNT - left
    assert sum(name.startswith("adversarial 16/") for name in kept) == left
    assert Path(study.pictures(part, study.load(), None)["images"]).is_file()


@pytest.mark.slow
def test_it_is_a_setting_wherever_an_attack_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = np.load("six.npz")
    result = advpure.evaluate(
        None,
        "tiny.py:classifier",
        arrays["images"],
        arrays["labels"],
        eps=0.07,
        budget="5min",
        out=tmp_path / "a",
        attack_options={"budget": 100},
    )
    assert [each.budget for each in result.rungs] == [25, 100]
    line = "attack --dataset six.npz --classifier tiny.py:classifier -d none --budget 1min"
    command([*line.split(), "--eps", "0.07", "--dry-run"])
    assert "6 images" in capsys.readouterr().out
    with pytest.raises(BadInput, match="budget 5min is a time, by which no probe is measured"):
        Audit(dataset="digits", defense="none", budget="5min")
