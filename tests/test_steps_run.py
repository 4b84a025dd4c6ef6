"""A recorded run over steps: from its records, resumed, and on the command line."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advpure.analysis.compression.study import Compression
from advpure.analysis.steps.figure import draw_steps
from advpure.analysis.steps.report import StepsReport
from advpure.analysis.steps.study import Steps
from advpure.analysis.study import cost_of
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find

QUICK: dict[str, Any] = {
    "dataset": "digits", "defense": "ddpm", "t": 2, "n": 2, "tile": 8, "probes": 2,
    "directions": 1, "perturbations": 2, "reference": "train/first-100",
}  # fmt: skip
SINGULAR = {"singular": 1, "singular_basis": 6, "singular_tolerance": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with singular values."""
    where = tmp_path_factory.mktemp("steps") / "run"
    Steps(**QUICK, **SINGULAR).run(out=where)
    return where


def _read(folder: Path) -> StepsReport:
    with RecordStore.read(folder) as store:
        return Steps.report(store)


def test_the_report_has_rows_and_the_whole_chain(folder: Path) -> None:
    report = _read(folder)
    tree = report.tree()
    assert [row["name"] for row in tree["rows"]] == ["noise"] * 2 + ["ancestral"] * 2
    assert [row["time"] for row in tree["rows"]] == [1, 2, 2, 1]
    last = tree["rows"][-1]
    assert (tree["n"], last["n"]) == (2, 2)
    for name in ("transported", "limit", "exact", "first_order", "along", "across", "linear"):
        low, high = last[name].interval
        assert low < last[name].value < high
        assert sum(last[name].images().values()) / 2 == pytest.approx(last[name].value)
    assert last["cumulative"].images() == tree["whole"]["measured"].images()
    assert find(tree, "rows[step=3].cumulative").value == tree["whole"]["measured"].value
    gains = [abs(row["gain"]) for row in tree["rows"] if row["gain"]]
    assert tree["whole"]["forward"] == pytest.approx(math.prod(gains))
    assert tree["agreement"]["exact"]["steps"] == 2
    assert tree["agreement"]["exact"]["expected"] > 0
    display = str(report.display())
    for words in ("product predicted, first order (eq. 16)", "2 ancestral", "worst direction"):
        assert words in display


def test_the_whole_chain_is_what_cr_measures(folder: Path, tmp_path: Path) -> None:
    more = {name: QUICK[name] for name in ("dataset", "defense", "t", "n", "tile")}
    wanted = Compression(**more, perturbations=2).run(out=tmp_path).tree()["rows"][0]
    whole = _read(folder).tree()["whole"]["measured"]
    assert whole.images() == pytest.approx(wanted.images(), rel=1e-4)  # float32


def test_singular_values_have_their_directions_in_the_records(folder: Path) -> None:
    tree = _read(folder).tree()["singular"]
    assert tree["n"] == 2
    assert tree["sigma_max"].value >= tree["rms_rate"].value
    assert 0 < tree["rows"][0]["along"].value <= 1
    assert tree["along_by_chance"] == pytest.approx(10 / 64)
    with RecordStore.read(folder) as store:
        sample = store.rows("spectra")[0]["sample"]
        right = store.get_blob(f"right/{sample}")
    assert right.shape == (1, 1, 8, 8)
    assert float(right.square().sum()) == pytest.approx(1.0, rel=1e-5)


def test_a_run_that_stopped_says_how_far_it_is(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        if done > 100:
            raise Stopped

    study = Steps(**QUICK, **SINGULAR)
    with pytest.raises(Stopped):  # within the second image
        study.run(out=tmp_path, batch_size=1, progress=stop)
    report = _read(tmp_path)
    assert report.n == 1
    assert "1 of 2 images are done; the same command goes on" in report.notes
    counts: list[int] = []
    study.run(out=tmp_path, progress=counts.append)
    assert (counts[0], counts[-1]) == (100, study.total(study.load())) == (100, 400)
    assert counts == sorted(counts)


def test_the_estimate_counts_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(call: Callable[[], object]) -> float:
        call()
        return 2.0

    monkeypatch.setattr("advpure.analysis.steps.study._timed", seconds)
    found = cost_of(Steps(**QUICK))
    # Two network steps: 3 states, 2 fresh ones; 2 probes, 2 limits, 1 linear, 2 x 1 directions.
    assert found.backwards == 2 * 2 * 7
    assert found.evaluations == 2 * 2 * 5 + found.backwards
    assert found.seconds > 0
    more = cost_of(Steps(**QUICK, **SINGULAR))
    assert more.backwards == found.backwards + 2 * 2 * (2 * (6 + 1) + 2)
    assert more.seconds > found.seconds
    nothing = Steps(**{**QUICK, "defense": "none", "t": None})
    assert cost_of(nothing).evaluations == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"clip_x0": True}}, "steps ancestral are not"),
        ({"every": 2, "t": 4}, "at one of every 2 steps"),
        ({"reference": "none", "directions": 3}, "no reference images"),
        ({"defense": "none", "t": None}, "has no steps"),
        ({"defense": "cm", "t": None}, "no estimate of a score"),
    ],
    ids=["clips", "every", "reference", "none", "cm"],
)
def test_what_a_reader_should_know_is_said(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    report = Steps(**{**QUICK, "n": 1, **change}).run(out=tmp_path)
    assert said in " ".join(report.notes)
    whole = report.tree()["whole"]
    if change.get("options") or change.get("every"):
        assert whole["exact"] is None
        assert whole["measured"].interval is None  # one image


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"singular": -1}, "singular -1 is not a whole number of 0 or more"),
        ({"singular": 5, "singular_basis": 3}, "too small"),
        ({"reference": "validation"}, "reference images 'validation'"),
        ({"components": 60}, "use at most 49"),
        ({"probes": 0}, "probes 0 is not a whole number"),
        ({"eps": "8"}, "is ambiguous"),
        ({"n": 100_000}, "does not fit"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Steps(**{**QUICK, **change}).load()


@pytest.mark.slow
def test_a_figure_has_a_column_a_run(folder: Path, tmp_path: Path) -> None:
    report = _read(folder)
    assert draw_steps([report, report], tmp_path / "two.png").stat().st_size > 1000
    with pytest.raises(BadInput, match="are not 1 to 4"):
        draw_steps([], tmp_path / "none.png")
    nothing = Steps(**{**QUICK, "defense": "none", "t": None}).run(out=tmp_path / "none")
    with pytest.raises(BadInput, match="has no steps to draw"):
        draw_steps([nothing], tmp_path / "none.png")


@pytest.mark.parametrize("defense", ["reverse", "ddim", "vpsde", "onestep-edm", "cm", "pf-ode"])
def test_purifiers_of_every_kind_run(tmp_path: Path, defense: str) -> None:
    strength: dict[str, Any] = {"t": 2} if defense in ("reverse", "ddim", "vpsde") else {"t": None}
    options = {"nodes": 3} if defense == "pf-ode" else {}
    run = Steps(**{**QUICK, "n": 1, "defense": defense, **strength, "options": options})
    tree = run.run(out=tmp_path).tree()
    assert 0 < tree["whole"]["measured"].value < 2
    predicted = [row["exact"] for row in tree["rows"] if row["form"] == "epsilon"]
    assert predicted
    assert None not in predicted


def test_directions_are_stored_as_float32(folder: Path) -> None:
    with RecordStore.read(folder) as store:
        names = store.blobs()
        assert all(store.get_blob(name).dtype == torch.float32 for name in names)
    assert {name.partition("/")[0] for name in names} == {"left", "right"}


def test_a_first_call_without_steps_is_not_already_complete(tmp_path: Path) -> None:
    run = Steps(dataset="digits", defense="none", n=2, reference="none")
    notes = [run.run(out=tmp_path).notes for _ in range(2)]
    assert [any("already complete" in note for note in each) for each in notes] == [False, True]
