"""Two runs compared: paired where it can be, refused where it means nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from quick_studies import quick
from scipy import stats

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.report.compare import Comparing, Comparison, _matched, _shared
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, paired_difference


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make runs to compare: two attacks, three compression rates, two certifications."""
    folder = tmp_path_factory.mktemp("compare")
    strong = {"attack_options": {"steps": 4}, "draws": None, "randomness": "fixed", "eps": 0.3}
    for name, more in (("none", {"defense": "none"}), ("cm", {"subset": "2:10"})):
        quick("attack", **{**strong, "n": 8, **more}).run(out=folder / name)
    quick("cr", n=4).run(out=folder / "cr")
    quick("cr", n=4, defense="none").run(out=folder / "cr-none")
    quick("cr", n=None, subset="6:9").run(out=folder / "cr-apart")
    quick("cr", n=None, subset="train/0:4").run(out=folder / "cr-train")
    quick("certify").run(out=folder / "certify-40")
    quick("certify", samples=80, block=40).run(out=folder / "certify-80")
    return folder


def both(root: Path, *names: str) -> Comparison:
    (found,) = Comparing(runs=tuple(root / name for name in names)).compare()
    return found


def test_rates_are_compared_by_tango_on_the_images_in_common(root: Path) -> None:
    comparison = both(root, "none", "cm")
    assert comparison.common == 6
    right = []
    for name in ("none", "cm"):
        with RecordStore.read(root / name) as store:
            rows = store.rows("decisions", {"stage": "adversarial"})
            right.append({row["sample"]: float(row["correct"]) for row in rows})
    shared = sorted(right[0].keys() & right[1].keys())
    expected = paired_difference([right[1][i] for i in shared], [right[0][i] for i in shared], 0.95)
    (robust,) = [each for each in comparison.estimates if each.at == "robust_accuracy"]
    assert robust.paired
    assert robust.difference == (expected.value, Interval(expected.low, expected.high), 6)
    assert comparison.settings["defense.purifier"] == ("none", "cm")
    assert "subset" in comparison.settings
    assert any("6 images in common, of 8 and 8" in note for note in comparison.notes)
    assert any("as if the two runs were independent" in note for note in comparison.notes)


def test_means_are_compared_by_student_on_the_differences(root: Path) -> None:
    comparison = both(root, "cr", "cr-none")
    (mean,) = [each for each in comparison.estimates if each.at.startswith("rows[")]
    one, two = (mean.first.images(), mean.second.images())
    gaps = np.array([two[i] - one[i] for i in sorted(one)])
    low, high = stats.ttest_1samp(gaps, 0.0).confidence_interval(0.95)
    assert mean.difference.value == pytest.approx(gaps.mean(), rel=1e-12)
    assert mean.difference.interval == pytest.approx((low, high), rel=1e-9)
    assert mean.verdict == "higher"
    back = both(root, "cr-none", "cr").estimates[0]
    assert back.difference.value == pytest.approx(-mean.difference.value)
    assert back.verdict == "lower"


def test_every_run_is_compared_with_the_first(root: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(root / "cr", tmp_path / "cr")
    runs = [root / "cr", root / "cr-none", copy]
    first, second = Comparing(runs=tuple(runs)).compare()
    assert first.first.folder == second.first.folder == root / "cr"
    assert (first.second.folder, second.second.folder) == (root / "cr-none", copy)
    assert all(each.difference.value == 0 for each in second.estimates)
    assert not second.settings


def test_certificates_of_different_numbers_come_with_their_caps(root: Path) -> None:
    notes = [note for note in both(root, "certify-40", "certify-80").notes if "sigma" in note]
    assert len(notes) == 2  # a noise level each
    for note, sigma in zip(notes, (0.1, 0.25), strict=True):
        for samples in (40, 80):
            cap = sigma * stats.norm.ppf(0.001 ** (1 / samples))
            assert f"{cap:.4f} with N = {samples}" in note
    shutil.copytree(root / "certify-40", root / "certify-again")
    assert not [n for n in both(root, "certify-40", "certify-again").notes if "sigma" in n]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["cr"], "is nothing to compare"),
        (["cr", "none"], "is a run of attack, not of cr"),
        (["cr", "cr-apart"], "has no image in common"),
        (["cr", "cr-train"], r"is of digits \(train\), not of digits \(test\)"),
        (["cr", "absent"], "is no run folder"),
    ],
)
def test_what_cannot_be_compared_is_refused(root: Path, names: list[str], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        Comparing(runs=tuple(root / name for name in names)).compare()


def test_images_of_other_bytes_are_refused(root: Path, tmp_path: Path) -> None:
    with RecordStore.read(root / "cr") as store:
        context = store.context
        context.pop("started")
        context["images"] = {**context["images"], "2": "0" * 16}
        settings, schemas, rows = store.settings, store.schemas, store.rows("compression")
    with RecordStore.open(tmp_path, schemas=schemas, settings=settings, context=context) as store:
        store.append("compression", rows)
    with pytest.raises(BadInput, match=r"image 2 of .* has other pixels or another label"):
        Comparing(runs=(root / "cr", tmp_path)).compare()
    with pytest.raises(BadInput, match="image 2 has other pixels or another label than in the run"):
        quick("cr", n=4).run(out=tmp_path)


def test_entries_of_lists_are_matched_by_their_names() -> None:
    def entry(**fields: object) -> Estimate:
        return Estimate(value=1.0, extra=fields)

    first = [entry(sigma=s, radius=r) for s in (0.25, 0.5) for r in (0, 1)]
    second = [entry(sigma=0.5, radius=1), entry(sigma=0.25, radius=2)]
    ((label, one, two),) = _matched(first, second)
    assert label == "radius=1,sigma=0.5"
    assert one is first[3]
    assert two is second[0]
    tree = {"rows": first, "other": {"x": entry()}}
    assert [at for at, _, _ in _shared(tree, {"rows": second})] == ["rows[radius=1,sigma=0.5]"]
    assert [label for label, _, _ in _matched([entry()], [entry()])] == ["0"]
    assert list(_matched([entry()], [entry(), entry()])) == []


def test_the_command_prints_a_table_or_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(root / "none"), str(root / "cm")]
    assert run(["compare", *runs]) == 0
    shown = capsys.readouterr()
    assert "on 6 images in common" in shown.out
    assert "robust_accuracy" in shown.out
    assert "note: 15 differences, each at 95 %" in shown.err
    assert run(["compare", str(root / "cr"), str(root / "cr-none")]) == 0
    assert "rows[eps=0.15]" in capsys.readouterr().out  # brackets are no markup
    assert run(["compare", *runs, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (comparison,) = told["comparisons"]
    assert told["first"] == runs[0]
    assert comparison["images"] == 6
    assert {each["at"] for each in comparison["estimates"]} >= {"clean_accuracy", "robust_accuracy"}
