"""A recorded run over steps: from its records, resumed, and on the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advpure.analysis.compression.study import Compression
from advpure.analysis.runs import RUNS
from advpure.analysis.steps.figure import draw_steps, steps_figure
from advpure.analysis.steps.report import report_steps
from advpure.analysis.steps.run import (
    VERB,
    StepsRun,
    estimate_steps,
    measure_steps,
    prepare_steps,
)
from advpure.base.errors import BadInput
from advpure.cli import run as cli
from advpure.runs.records import RecordStore

QUICK: dict[str, Any] = {
    "dataset": "digits", "defense": "ddpm", "t": 2, "n": 2, "tile": 8, "probes": 2,
    "directions": 1, "perturbations": 2, "reference": "train/first-100",
}  # fmt: skip
SINGULAR = {"singular": 1, "singular_basis": 6, "singular_tolerance": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with singular values."""
    where = tmp_path_factory.mktemp("steps") / "run"
    measure_steps(StepsRun(**QUICK, **SINGULAR), out=where)
    return where


def _read(folder: Path) -> dict[str, Any]:
    with RecordStore.read(folder) as store:
        return report_steps(store).to_json()


def test_the_report_has_flat_rows_and_the_whole_chain(folder: Path) -> None:
    found = _read(folder)
    json.dumps(found)
    assert [row["name"] for row in found["rows"]] == ["noise"] * 2 + ["ancestral"] * 2
    assert [row["time"] for row in found["rows"]] == [1, 2, 2, 1]
    assert found["n"] == 2
    last = found["rows"][-1]
    assert last["n"] == 2
    for name in ("transported", "limit", "exact", "first_order", "along", "across", "linear"):
        assert last[f"{name}_low"] < last[name] < last[f"{name}_high"]
    assert last["cumulative"] == found["whole"]["measured"]["value"]
    product = 1.0
    for row in found["rows"]:
        product *= abs(row["gain"]) if row["gain"] else 1.0
    assert found["whole"]["forward"] == pytest.approx(product)
    assert found["agreement"]["exact"]["steps"] == 2
    assert found["agreement"]["exact"]["expected"] > 0


def test_the_whole_chain_is_what_cr_measures(folder: Path, tmp_path: Path) -> None:
    more = {name: QUICK[name] for name in ("dataset", "defense", "t", "n", "tile")}
    wanted = Compression.run(
        Compression(**more, perturbations=2, eps="8/255"), out=tmp_path
    ).to_json()
    whole = _read(folder)["whole"]["measured"]
    assert whole["value"] == pytest.approx(wanted["mean"], rel=1e-4)  # float32
    assert whole["n"] == wanted["n"]


def test_singular_values_have_their_directions_in_the_records(folder: Path) -> None:
    found = _read(folder)["singular"]
    assert found["n"] == 2
    assert found["sigma_max"]["value"] >= found["rms_rate"]["value"]
    assert 0 < found["rows"][0]["along"]["value"] <= 1
    assert found["along_by_chance"] == pytest.approx(10 / 64)
    with RecordStore.read(folder) as store:
        sample = store.rows("spectra")[0]["sample"]
        right = store.get_blob(f"right/{sample}")
    assert right.shape == (1, 1, 8, 8)
    assert float(right.square().sum()) == pytest.approx(1.0, rel=1e-5)


def test_a_run_that_stopped_goes_on_and_ends_the_same(folder: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int) -> None:
        if done > 100:
            raise Stopped

    run = StepsRun(**QUICK, **SINGULAR)
    with pytest.raises(Stopped):  # within the second image
        measure_steps(run, out=tmp_path, batch_size=1, progress=stop)
    with RecordStore.read(tmp_path) as store:
        assert len(store.done("steps", "sample")) == 1
    assert _read(tmp_path)["n"] == 1
    assert "1 of 2 images are done; the same command goes on" in _read(tmp_path)["notes"]
    counts: list[int] = []
    report = measure_steps(run, out=tmp_path, progress=counts.append)
    assert counts[0] == 100
    assert counts[-1] == VERB.total(run) == 400  # type: ignore[misc]
    assert counts == sorted(counts)
    assert "already complete" not in " ".join(report.notes)
    for table in ("steps", "probes", "chain", "singular", "spectra"):
        with RecordStore.read(folder) as one, RecordStore.read(tmp_path) as two:
            assert one.rows(table) == two.rows(table)
    again = measure_steps(run, out=tmp_path)
    assert "already complete" in again.notes[-1]


def test_settings_name_the_run(tmp_path: Path) -> None:
    base = prepare_steps(StepsRun(**QUICK)).settings
    assert base["reference"] == "train/first-100"
    for change in (
        {"probes": 3}, {"directions": 2}, {"method": "jvp"}, {"every": 2}, {"eps": 0.1},
        {"neighbours": 20}, {"components": 5}, {"span": "differences"},
        {"reference": "none", "directions": 3},
        {"singular": 1}, {"seed": 1}, {"t": 3}, {"distribution": "sign"}, {"perturbations": 1},
    ):  # fmt: skip
        assert prepare_steps(StepsRun(**{**QUICK, **change})).settings != base
    more = {**QUICK, **SINGULAR}
    values = [
        prepare_steps(StepsRun(**{**more, **c})).settings for c in ({}, {"singular_basis": 9})
    ]
    assert values[0] != values[1]


def test_the_estimate_counts_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(call: Callable[[], object]) -> float:
        call()
        return 2.0

    monkeypatch.setattr("advpure.analysis.steps.run._timed", seconds)
    found = estimate_steps(prepare_steps(StepsRun(**QUICK)))
    # Two network steps: 3 states, 2 fresh ones; 2 probes, 2 limits, 1 linear, 2 x 1 directions.
    assert found.backwards == 2 * 2 * 7
    assert found.evaluations == 2 * 2 * 5 + found.backwards
    assert found.seconds > 0
    more = estimate_steps(prepare_steps(StepsRun(**QUICK, **SINGULAR)))
    assert more.backwards == found.backwards + 2 * 2 * (2 * (6 + 1) + 2)
    assert more.seconds > found.seconds
    nothing = StepsRun(**{**QUICK, "defense": "none", "t": None})
    assert estimate_steps(prepare_steps(nothing)).evaluations == 0


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
    report = measure_steps(StepsRun(**{**QUICK, "n": 1, **change}), out=tmp_path)
    assert said in " ".join(report.notes)
    found = report.to_json()
    json.dumps(found)
    whole = found["whole"]
    if change.get("options") or change.get("every"):
        assert whole["exact"] is None
        assert whole["measured"]["interval"] is None  # one image


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
        prepare_steps(StepsRun(**{**QUICK, **change}))


@pytest.mark.slow
def test_figures_come_from_records_alone(folder: Path, tmp_path: Path) -> None:
    with RecordStore.read(folder) as store:
        assert steps_figure(store, tmp_path / "one.svg").stat().st_size > 1000
        report = report_steps(store)
    assert draw_steps([report, report], tmp_path / "two.png").stat().st_size > 1000
    with pytest.raises(BadInput, match="are not 1 to 4"):
        draw_steps([], tmp_path / "none.png")
    nothing = measure_steps(
        StepsRun(**{**QUICK, "defense": "none", "t": None}), out=tmp_path / "none"
    )
    with pytest.raises(BadInput, match="has no steps to draw"):
        draw_steps([nothing], tmp_path / "none.png")


def test_the_verb_is_registered() -> None:
    assert RUNS.get("steps") is VERB


@pytest.mark.parametrize("defense", ["reverse", "ddim", "vpsde", "onestep-edm", "cm", "pf-ode"])
def test_purifiers_of_every_kind_run(tmp_path: Path, defense: str) -> None:
    strength: dict[str, Any] = {"t": 2} if defense in ("reverse", "ddim", "vpsde") else {"t": None}
    options = {"nodes": 3} if defense == "pf-ode" else {}
    run = StepsRun(**{**QUICK, "n": 1, "defense": defense, **strength, "options": options})
    found = measure_steps(run, out=tmp_path).to_json()
    assert 0 < found["whole"]["measured"]["value"] < 2
    predicted = [row["exact"] for row in found["rows"] if row["form"] == "epsilon"]
    assert predicted
    assert None not in predicted


LINE = (
    "steps --dataset digits --defense ddpm --t 2 -n 2 --tile 8 --probes 2 --directions 1 "
    "--perturbations 2 --reference train/first-100 --singular 1 --singular-basis 6 "
    "--singular-tolerance 0.5"
)


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a runner in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli(line.split())
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_the_command_prints_and_draws(
    call: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    code, out, err = call(f"{LINE} --out {folder} --plot a.png")
    assert code == 0
    assert out.startswith("digits, uniform noise 0.03137, defense ddpm, 4 steps: compression rate")
    for words in (
        "product predicted, first order (eq. 16)", "2 ancestral", "worst direction",
        "share along the data by chance: 0.156", "picture: a.png",
    ):  # fmt: skip
        assert words in out
    assert "already complete" in err
    assert Path("a.png").stat().st_size > 1000
    code, out, err = call(f"{LINE} --out {folder} --json")
    assert (code, err) == (0, "")
    assert json.loads(out)["rows"][2]["form"] == "epsilon"


def test_the_command_estimates_and_refuses(call: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = call(f"{LINE} --dry-run")
    assert (code, err) == (0, "")
    assert "network evaluations for 2 images" in out
    assert not Path("runs").exists()
    code, out, err = call(f"{LINE} --method newton")
    assert code == 2
    assert err == "advpure: method 'newton' is not known; known: jvp, vjp\n"
    code, _, err = call(f"{LINE} --plot a.txt")
    assert code == 2
    assert "is no picture" in err


def test_directions_are_stored_as_float32(folder: Path) -> None:
    with RecordStore.read(folder) as store:
        names = store.blobs()
        assert all(store.get_blob(name).dtype == torch.float32 for name in names)
    assert {name.partition("/")[0] for name in names} == {"left", "right"}


def test_a_first_call_without_steps_is_not_already_complete(tmp_path: Path) -> None:
    run = StepsRun(dataset="digits", defense="none", n=2, reference="none")
    notes = [measure_steps(run, out=tmp_path).notes for _ in range(2)]
    assert [any("already complete" in note for note in each) for each in notes] == [False, True]
