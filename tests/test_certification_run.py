"""Recorded certification: counts that add up, resume, split over shards, and are read again."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from held import UP_TO

from advpure.analysis.certification import Certification, CertificationReport, read_sources
from advpure.analysis.certification.counting import COUNTS
from advpure.analysis.certification.curves import PLANNED, make_curves, procedure_of
from advpure.analysis.certification.evaluation import CertifiedAccuracy
from advpure.analysis.certification.loading import LoadedCertification
from advpure.analysis.certification.procedures import Anytime
from advpure.analysis.certification.sources import untested_notes
from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.study import Progress, silent
from advpure.base.errors import BadInput
from advpure.runs.records import RecordConflict, RecordStore
from advpure.runs.schema import Row
from advpure.statistics.estimates import find

QUICK: dict[str, Any] = {
    "defense": "none", "dataset": "digits", "n": 3, "sigmas": "0.1,0.3", "samples": 200,
    "selection": 20, "block": 100, "radii": "0,0.1,0.25",
}  # fmt: skip


def certified(
    folder: Path, *, batch_size: int | None = None, progress: Progress = silent, **change: Any
) -> CertificationReport:
    study = Certification(**{**QUICK, **change})
    return study.run(out=folder, batch_size=batch_size, progress=progress)


def rows_of(folder: Path) -> list[Row]:
    with RecordStore.read(folder) as store:
        return store.rows(COUNTS.table)


def values(report: CertificationReport) -> list[Any]:
    return [
        (curve.images.name, *(getattr(curve.images, column).tolist() for column in COLUMNS))
        for curve in report.curves
    ]


COLUMNS = ("ids", "labels", "predictions", "radii")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CertificationReport]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, certified(folder)


def test_counts_are_complete(whole: tuple[Path, CertificationReport]) -> None:
    rows = rows_of(whole[0])
    assert len(rows) == 3 * 2 * (1 + 2)
    for row in rows:
        counts = [int(pair.split(":")[1]) for pair in row["counts"].split()]
        assert sum(counts) == row["samples"] == (20 if row["stage"] == "selection" else 100)
    found = whole[1].to_json()
    assert found["certified_accuracy"].keys() == {"0", "0.1", "0.25"}
    assert [curve["sigma"] for curve in found["curves"]] == [0.1, 0.3]
    assert found["curves"][0]["n"] == 3
    assert found["curves"][0]["samples_per_image"] == 220
    assert found["oracle"]
    assert found["any_sigma"] is None
    for row in found["rows"]:
        assert row["interval"][0] <= row["value"] <= row["interval"][1]
    json.dumps(found)


def test_noise_of_the_purifier_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    change = {"defense": "cm", "options": {"steps": 2}, "n": 1, "samples": 100}
    certified(tmp_path / "first", **change)
    certified(tmp_path / "other", **change, batch_size=100)
    assert rows_of(tmp_path / "other") == rows_of(tmp_path / "first")


def test_order_and_company_change_nothing(
    tmp_path: Path, whole: tuple[Path, CertificationReport]
) -> None:
    (tmp_path / "order.txt").write_text("2\n1\n")
    certified(tmp_path / "run", subset=str(tmp_path / "order.txt"), n=2, sigmas="0.3")
    wanted = [row for row in rows_of(whole[0]) if row["sample"] in (1, 2) and row["sigma"] == 0.3]
    assert rows_of(tmp_path / "run") == wanted


def test_an_interrupted_run_says_that_counts_chose_its_images(tmp_path: Path) -> None:
    class Stop(Exception):
        """Stand in for a key."""

    def stop(done: int) -> None:
        if done >= 3000:
            raise Stop

    change = {"n": 6, "samples": 2000, "block": None, "procedure": "anytime", "seed": 1}
    with pytest.raises(Stop):
        certified(tmp_path, **change, progress=stop)
    (note,) = read_sources([tmp_path]).notes
    assert "of 6 images are done, those that took few samples" in note
    with RecordStore.read(tmp_path) as store:
        assert "those that took few samples" in Certification.report(store).notes[-1]


@pytest.mark.slow
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    code = (
        "from advpure.analysis.certification import Certification\n"
        f"run = Certification(**{ {**QUICK, 'samples': 3000, 'defense': 'cm'}!r})\n"
        f"run.run(out={str(tmp_path / 'killed')!r}, batch_size=64,\n"
        f"    progress={UP_TO.format(done=9000)})\n"  # of 3 x 2 x 3020 samples
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while process.poll() is None:
        if (tmp_path / "killed" / "records.sqlite").is_file():
            try:
                if len(rows_of(tmp_path / "killed")) > 5:
                    break
            except BadInput:
                pass
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    more = {"samples": 3000, "defense": "cm"}
    assert 5 < len(rows_of(tmp_path / "killed")) < 3 * 2 * 31
    assert values(certified(tmp_path / "killed", **more)) == values(
        certified(tmp_path / "plain", **more)
    )
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("procedure", ["fixed", "anytime", "cascade"])
def test_shards_are_one_run(tmp_path: Path, procedure: str) -> None:
    change = {"procedure": procedure, "samples": 400 if procedure == "anytime" else 200, "n": 4}
    alone = certified(tmp_path / "alone", **change)
    folders = []
    for part in (2, 3, 1):
        folders.append(tmp_path / str(part))
        report = certified(folders[-1], **change, shard=f"{part}/3")
        assert len(rows_of(folders[-1])) < len(rows_of(tmp_path / "alone"))
        assert any(f"shard {part}/3 is done" in note for note in report.notes)
    rows = [row for folder in folders for row in rows_of(folder)]
    order = ("sample", "sigma", "stage", "block")
    assert sorted(rows, key=lambda row: [row[key] for key in order]) == rows_of(tmp_path / "alone")
    read = read_sources(folders)
    assert [curve.radii.tolist() for curve in read.curves] == [
        curve.images.radii.tolist() for curve in alone.curves
    ]
    assert not read.notes
    samples: list[int] = []
    merged = certified(tmp_path / "merged", **change, counts=folders, progress=samples.append)
    assert len(samples) == 1  # nothing is classified again
    assert values(merged) == values(alone)
    together = tmp_path / "together"
    for part in (1, 2, 3):  # processes of one machine may share the folder
        last = certified(together, **change, shard=f"{part}/3")
    assert values(last) == values(alone)


def test_counts_of_other_runs_are_taken_over(
    tmp_path: Path, whole: tuple[Path, CertificationReport]
) -> None:
    more = certified(tmp_path / "more", n=4, samples=300, sigmas="0.1,0.3,0.5", counts=[whole[0]])
    plain = certified(tmp_path / "plain", n=4, samples=300, sigmas="0.1,0.3,0.5")
    assert values(more) == values(plain)
    assert rows_of(tmp_path / "more") == rows_of(tmp_path / "plain")
    assert any("were read with 200 samples before" in note for note in more.notes)
    fewer = certified(tmp_path / "fewer", n=2, samples=100, sigmas="0.3", counts=[whole[0]])
    assert len(rows_of(tmp_path / "fewer")) == 2 * 2
    assert not any("before" in note for note in fewer.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "have another randomness"),
        ({"block": 50}, "have another block"),
        ({"selection": 10}, "have another selection"),
        ({"subset": "train"}, "have another subset"),
        ({"defense": "cm"}, "have another defense"),
    ],
)
def test_counts_that_do_not_fit_are_refused(
    tmp_path: Path, whole: tuple[Path, CertificationReport], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        certified(tmp_path, **change, counts=[whole[0]])


def test_counts_that_disagree_are_refused(tmp_path: Path) -> None:
    certified(tmp_path / "a", n=1, sigmas="0.1")
    certified(tmp_path / "b", n=1, sigmas="0.1", shard="1/2")
    with RecordStore.open(
        tmp_path / "b", schemas=(COUNTS,), settings=_settings(tmp_path / "b"),
        context=_context(tmp_path / "b"),
    ) as store:  # fmt: skip
        missing = next(r for r in rows_of(tmp_path / "a") if r not in rows_of(tmp_path / "b"))
        store.append(COUNTS.table, [{**missing, "counts": f"9:{missing['samples']}"}])
    with pytest.raises(BadInput, match="is there twice, with other counts"):
        read_sources([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(RecordConflict, match="is stored with counts"):
        certified(tmp_path / "a", n=1, sigmas="0.1", counts=[tmp_path / "b"])


def _settings(folder: Path) -> dict[str, Any]:
    with RecordStore.read(folder) as store:
        return store.settings


def _context(folder: Path) -> dict[str, Any]:
    with RecordStore.read(folder) as store:
        return store.context


def test_the_number_of_votes_changes_the_run() -> None:
    votes = [f"majority:{k}" for k in (2, 3)]
    two, three = (
        Certification(**{**QUICK, "defense": "densepure", "policy": policy}).load().settings
        for policy in votes
    )
    assert two != three


def test_shards_do_not_change_the_run(tmp_path: Path) -> None:
    whole, part = Certification(**QUICK), Certification(**QUICK, shard="2/7")
    loaded = whole.load()
    assert part.load().settings == loaded.settings
    with whole.open(loaded, tmp_path) as store:
        assert whole.is_whole(loaded, store)
        assert not part.is_whole(loaded, store)
    assert whole.total(loaded) == 3 * 2 * 220


def test_one_sigma_is_a_list_of_one(tmp_path: Path) -> None:
    report = certified(tmp_path, sigmas=0.3)
    assert not report.tree()["oracle"]
    assert [curve.images.sigma for curve in report.curves] == [0.3]
    assert Certification().resolved_procedure().sigmas == (0.25,)


def test_values_are_means_over_their_images(whole: tuple[Path, CertificationReport]) -> None:
    report = whole[1]
    tree, images = report.tree(), report.curves[1].images
    by_image = find(tree, "rows[sigma=0.3,radius=0.1]").images()
    assert by_image == dict(zip(images.ids, images.correct & (images.radii >= 0.1), strict=True))
    paths = [
        *(f"{part}[radius={radius:g}]" for part in ("best",) for radius in (0.0, 0.1, 0.25)),
        "best[radius=0.1].clean", "rows[sigma=0.1,radius=0.25]",
        "curves[sigma=0.3].average_certified_radius", "curves[sigma=0.1].abstained",
    ]  # fmt: skip
    for path in paths:
        estimate = find(tree, path)
        assert len(estimate.images()) == estimate.n == 3
        assert np.mean(list(estimate.images().values())) == pytest.approx(estimate.value)


# --- procedures -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_anytime_stops_early_and_is_read_at_any_alpha(tmp_path: Path) -> None:
    change = {"samples": 2000, "n": 3}
    fixed = certified(tmp_path / "fixed", **change)
    reached = {}
    for name in ("anytime", "sequential"):
        found = certified(tmp_path / name, **change, procedure=name)
        used = sum(curve.samples for curve in found.curves)
        assert used < 0.5 * sum(curve.samples for curve in fixed.curves)
        asked = found.procedure.radii
        reached[name] = sum(
            int((curve.images.radii >= radius).sum()) for curve in found.curves for radius in asked
        )
        # The same noise in the same blocks: the fixed run holds every block of the other.
        blocks = {tuple(row.values()) for row in rows_of(tmp_path / "fixed")}
        assert {tuple(row.values()) for row in rows_of(tmp_path / name)} <= blocks
        again = read_sources([tmp_path / "fixed"], procedure=name).curves
        assert [curve.radii.tolist() for curve in again] == [
            curve.images.radii.tolist() for curve in found.curves
        ]
        loose = read_sources([tmp_path / name], alpha=0.05).curves
        for strict, wide in zip(found.curves, loose, strict=True):
            assert (wide.radii >= strict.images.radii).all()
        with pytest.raises(BadInput, match=r"as their counts asked for, .*; read it with"):
            read_sources([tmp_path / name], procedure="fixed")
    assert reached["sequential"] >= reached["anytime"] > 0


SEQUENTIAL: dict[str, Any] = {
    "samples": 400, "n": 4, "sigmas": "0.25", "procedure": "sequential", "radii": "0,0.1,0.25",
}  # fmt: skip


def test_sequential_certifies_the_radii_asked_for_exactly(tmp_path: Path) -> None:
    found = certified(tmp_path / "run", **SEQUENTIAL)
    radii = np.concatenate([curve.images.radii for curve in found.curves])
    assert set(radii) <= {0.0, 0.1, 0.25}
    assert (radii > 0).any()
    other = read_sources([tmp_path / "run"], radii=(0.0, 0.2))
    assert {0.0, 0.2} >= {float(radius) for curve in other.curves for radius in curve.radii}
    table = CertifiedAccuracy(sources=(str(tmp_path / "run"),)).evaluate()
    assert table.notes == ()  # nor is a radius taken for one that a log rounded
    between = CertifiedAccuracy(sources=(str(tmp_path / "run"),), radii="0.1,0.25").evaluate()
    assert [PLANNED in note for note in between.notes] == [True]
    (curve,) = found.certificates
    (note,) = untested_notes([curve], (0.1, 0.2, 0.3))
    assert "radii 0, 0.1, 0.25 alone were tested; at 0.2, 0.3 stands" in note
    assert untested_notes([curve], (0.1, 0.25)) == []


def test_a_plan_that_was_made_after_a_look_is_told(tmp_path: Path) -> None:
    certified(tmp_path / "run", **SEQUENTIAL)
    changes: tuple[dict[str, Any], ...] = (
        {}, {"samples": 800}, {"samples": 200}, {"radii": "0.1"}, {"alpha": 0.01},
        {"prior": "flat"},
    )  # fmt: skip
    for k, change in enumerate(changes):
        more = {**SEQUENTIAL, **change, "counts": (tmp_path / "run",)}
        found = certified(tmp_path / str(k), **more)
        assert any(PLANNED in note for note in found.notes) == bool(change), change
    # A number of samples that is fixed after a look warns as before.
    fixed = {**SEQUENTIAL, "procedure": "fixed", "samples": 500}
    plain = certified(tmp_path / "fixed", **fixed, counts=(tmp_path / "run",))
    assert any("were read with 400 samples before" in note for note in plain.notes)


@pytest.mark.parametrize("procedure", ["anytime", "sequential"])
def test_a_goal_is_at_a_radius_that_is_asked_for(procedure: str) -> None:
    change = {**SEQUENTIAL, "procedure": procedure, "until": "width 40 at 0.3"}
    rule = f"has a radius that {procedure} is not asked for; add 0.3 to the radii"
    with pytest.raises(BadInput, match=rule):
        Certification(**{**QUICK, **change})


def test_a_prior_is_learned_on_training_images_and_is_part_of_the_run(
    tmp_path: Path, whole: tuple[Path, CertificationReport]
) -> None:
    change = {"n": 2, "sigmas": "0.1", "samples": 200}
    certified(tmp_path / "train", **change, subset="train")
    change |= {"procedure": "anytime"}
    found = certified(tmp_path / "own", **change, prior=str(tmp_path / "train"))
    flat = certified(tmp_path / "flat", **change, prior="flat")
    stored, other = _settings(tmp_path / "own"), _settings(tmp_path / "flat")
    assert stored["procedure"]["prior"] == [[list(w), b] for w, b in found.procedure.prior or ()]
    assert stored["procedure"]["prior"] != other["procedure"]["prior"]
    assert "prior" not in whole[1].settings["procedure"]
    assert procedure_of(stored) == found.procedure != flat.procedure
    with pytest.raises(BadInput, match="differs from"):
        certified(tmp_path / "own", **change, prior="flat")
    with pytest.raises(BadInput, match="a prior is learned on training images only"):
        certified(tmp_path / "no", **change, prior=str(whole[0]))
    with pytest.raises(BadInput, match="is no run folder"):
        certified(tmp_path / "no", **change, prior=str(tmp_path / "nowhere"))


def test_an_anytime_run_of_an_earlier_version_is_read() -> None:
    tallies = Tallies()
    row = {"sample": 0, "sigma": 0.1, "label": 3, "block": 0}
    tallies.add({**row, "stage": "selection", "samples": 20, "counts": "3:16 5:4"})
    tallies.add({**row, "stage": "estimation", "samples": 100, "counts": "3:88 5:12"})
    procedure = Anytime(
        sigmas=(0.1,), radii=(0.0, 0.1, 0.15), alpha=0.001, samples=10_000, selection=20,
        block=100, classes=10, futility=0.001,
    )  # fmt: skip
    assert not make_curves("cm", procedure, tallies)
    assert not make_curves("cm", procedure, tallies, asked=procedure)
    (curve,) = make_curves("cm", procedure, tallies, asked=procedure, any_count=True)
    assert curve.samples == 120
    assert 0.0 < curve.images.radii[0] < 0.1


def test_cascade_draws_smaller_noise_only_where_needed(tmp_path: Path) -> None:
    found = certified(tmp_path, procedure="cascade", n=4, samples=200)
    (curve,) = found.curves
    assert curve.images.sigma is None
    assert len(curve.images) == 4
    per_level = {
        sigma: {row["sample"] for row in rows_of(tmp_path) if row["sigma"] == sigma}
        for sigma in (0.1, 0.3)
    }
    assert per_level[0.1] < per_level[0.3]
    assert len(per_level[0.3]) == 4


def test_predictions_draw_no_selection(tmp_path: Path) -> None:
    found = certified(tmp_path, procedure="predict", selection=100, radii="0")
    assert {row["stage"] for row in rows_of(tmp_path)} == {"estimation"}
    assert found.to_json()["certified_accuracy"] == {"0": 1.0}  # it has no radius


@pytest.mark.parametrize(
    ("samples", "block"),
    [(10, 10), (1000, 1000), (1500, 750), (10_000, 1000), (100_000, 1000), (1024, 512)],
)
def test_blocks_divide_the_samples(samples: int, block: int) -> None:
    run = Certification(samples=samples)
    assert run.block_size == block
    assert run.resolved_procedure().blocks * block == samples


def test_radii_keep_their_digits_as_keys(tmp_path: Path) -> None:
    found = certified(tmp_path, n=1, radii="0,0.1,0.25,36/255,0.1411764")
    keys = found.to_json()["certified_accuracy"]
    assert list(keys) == ["0", "0.1", "0.1411764", repr(36 / 255), "0.25"]


def test_joint_certificates_are_smaller_and_may_be_chosen(tmp_path: Path) -> None:
    alone = certified(tmp_path / "alone")
    joint = certified(tmp_path / "joint", joint=True)
    for one, other in zip(alone.curves, joint.curves, strict=True):
        assert (other.images.radii <= one.images.radii).all()
        assert (other.images.radii < one.images.radii).any()
    either = joint.to_json()["any_sigma"]
    for entry, best in zip(either, joint.to_json()["best"], strict=True):
        assert entry["value"] >= best["value"]
    assert read_sources([tmp_path / "alone"], joint=True).curves[0].radii.tolist() == (
        joint.curves[0].images.radii.tolist()
    )


@pytest.mark.parametrize(
    ("defense", "options"),
    [
        ("none", {}), ("onestep-ddpm", {}), ("onestep-ddpm", {"index_rule": "nearest"}),
        ("onestep-edm", {}), ("cm", {}), ("densepure", {"steps": 2, "smoothing": False}),
        *(
            pytest.param(name, options, marks=pytest.mark.slow)
            for name, options in (
                ("pf-ode", {"nodes": 6}), ("pf-ode", {"recipe": "truncated"}),
                ("ddpm", {"stride": 60}), ("reverse", {"stride": 60}), ("ddim", {"stride": 60}),
                ("dpm", {"evaluations": 3}), ("vpsde", {"dt": 0.05}),
            )
        ),
    ],
)  # fmt: skip
def test_every_purifier_is_certified(tmp_path: Path, defense: str, options: dict[str, Any]) -> None:
    report = certified(
        tmp_path, defense=defense, options=options, n=1, sigmas="0.25", samples=44, block=44,
        policy="majority:2" if defense == "densepure" else None, radii="0,0.1",
    )  # fmt: skip
    (curve,) = report.curves
    assert curve.images.correct.all()
    assert (curve.images.radii > 0).all()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sigmas": "0"}, "sigma 0 is not positive"),
        ({"sigmas": "-0.5"}, "sigma -0.5 is not positive"),
        ({"sigmas": "64"}, "sigma 64 is above 40"),
        ({"sigmas": "0.5,0.5"}, "noise levels 0.5,0.5 repeat a value"),
        ({"sigmas": "a"}, "sigma 'a' is not a number"),
        ({"t": 100}, "t 100 means nothing here; leave it out: sigma is the strength"),
        ({"sigma": 0.5}, "sigma 0.5 means nothing here; give sigmas"),
        ({"alpha": 0.0}, "alpha 0.0 is outside"),
        ({"alpha": 1.5}, "alpha 1.5 is outside"),
        ({"samples": 9, "block": 9}, "9 samples at alpha 0.001 can certify nothing"),
        (
            {"samples": 10, "block": 10, "procedure": "predict", "selection": 100, "radii": "0"},
            "always abstain",
        ),
        ({"procedure": "predict"}, "selection 20 means nothing to predict"),
        ({"procedure": "predict", "selection": 100}, "radii .* mean nothing to predict"),
        ({"samples": 250}, "250 samples are no whole number of blocks of 100; use 200"),
        ({"samples": 50, "procedure": "anytime"}, "hold no block of 100"),
        ({"procedure": "anytime", "radii": "2"}, "can certify none of the radii"),
        ({"procedure": "cascade", "joint": True}, "joint means nothing to cascade"),
        ({"procedure": "cohen"}, "procedure 'cohen' is not known; known: fixed, anytime"),
        ({"selection": 0}, "selection 0 is not a whole number from 1 to"),
        ({"block": 0}, "block 0 is not a whole number of 1 or more"),
        ({"radii": "-1"}, "radius -1 is not 0 or more"),
        ({"futility": 1.0, "procedure": "anytime"}, "futility 1 is not above 0 and below 1"),
        ({"prior": "flat"}, "prior 'flat' means nothing to fixed"),
        ({"shard": "0/3"}, "shard 0/3 counts from 1 to k"),
        ({"shard": "4/3"}, "shard 4/3 counts from 1 to k"),
        ({"shard": "half"}, "shard 'half' is not i/k"),
        ({"defense": "cm", "sigmas": "0.0005"}, r"denoiser digits-cm covers, 0\.001 to 40"),
        ({"defense": "cm", "options": {"sigma": 0.2}}, "sets one strength twice"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
        ({"batch_size": 0}, "batch size 0 holds no sample"),
    ],
)
def test_what_cannot_be_certified_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        certified(tmp_path, **change)
    assert "\n" not in str(caught.value)


def test_a_class_that_abstains_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Rejecting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full((len(x),), 10), 11).float()

    load = Certification.load

    def load_rejecting(study: Certification) -> LoadedCertification:
        loaded = load(study)
        loaded.defense.classifier = Rejecting()
        return loaded

    monkeypatch.setattr(Certification, "load", load_rejecting)
    with pytest.raises(BadInput, match=r"class 10, .* is none of 10: a class that abstains"):
        certified(tmp_path, n=1)


def test_estimate_counts_evaluations() -> None:
    change = {"defense": "pf-ode", "sigmas": "0.25,0.5", "options": {"nodes": 3}}
    study = Certification(**{**QUICK, **change})
    loaded = study.load()
    assert loaded.evaluations == {0.25: 6, 0.5: 6}
    cost = study.cost(loaded)
    assert (cost.images, cost.evaluations) == (3, 3 * 220 * 12)
    assert cost.seconds > 0


def test_sources_that_are_none(tmp_path: Path, whole: tuple[Path, CertificationReport]) -> None:
    with pytest.raises(BadInput, match="is not there"):
        read_sources([tmp_path / "nothing"])
    with pytest.raises(BadInput, match="is no run folder"):
        read_sources([tmp_path])
    with pytest.raises(BadInput, match=r"run .* is given twice; name each run once"):
        read_sources([whole[0], whole[0] / ".." / whole[0].name])
    with pytest.raises(BadInput, match="has no image with 900 samples"):
        read_sources([whole[0]], samples=900)
    with pytest.raises(BadInput, match="1 noise level is for logs, and runs say their own"):
        read_sources([whole[0]], sigmas=[0.5])
    from advpure.analysis.compression.study import Compression

    Compression(dataset="digits", defense="none", n=2, perturbations=1).run(out=tmp_path / "cr")
    with pytest.raises(BadInput, match="is one of cr, not of certify"):
        read_sources([tmp_path / "cr"])
    with pytest.raises(BadInput, match="holds no certification counts"):
        certified(tmp_path / "new", counts=[tmp_path / "cr"])


def test_no_global_generator_is_touched(tmp_path: Path) -> None:
    state = torch.get_rng_state().clone()
    certified(tmp_path, n=1, sigmas="0.1", samples=100)
    assert torch.get_rng_state().equal(state)
