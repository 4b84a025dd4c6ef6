"""Experiments: files that can be run, published numbers as data, and measured beside published."""

import json
from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.cli import run as cli
from advpure.sweeps import experiment as experiment_module
from advpure.sweeps.checks import CHECKS
from advpure.sweeps.experiment import experiment_ids, load_experiment, summaries
from advpure.sweeps.figures import FIGURES
from advpure.sweeps.points import drafts
from advpure.sweeps.published import Printed, published
from advpure.sweeps.strict_yaml import read_yaml

ROOT = Path(__file__).parents[1]
SIZES = ("small", "full")
PAPERS = ("000", "001", "002", "003", "004")
TINY = """
title: A law in small
about: One denoising step.
published: T2
keys: {purifier: defense, t: t}
columns:
  cr: {block: cr, at: rows.0, about: compression rate}
  pgd_fix: {block: attack, at: robust_accuracy, unit: percent}
checks:
  - {check: monotone, column: cr, along: t, direction: falls}
  - {check: rank-correlation, columns: [cr, pgd_fix], at_most: -0.9}
figure: {draw: compression-robustness, x: cr, y: pgd_fix, by: purifier}
grid: {t: [10, 50, 200]}
base: {dataset: digits, defense: onestep-ddpm, tile: 4}
blocks:
  cr: {base: {perturbations: 2}}
  attack: {base: {randomness: fixed, attack_options: {steps: 1}}}
sizes:
  small: {label: scaled down, about: Four images., base: {n: 4}}
  other: {label: re-derived, about: Two., base: {n: 2}, blocks: {attack: {grid: {t: [10]}}}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put one cheap experiment in the place of all."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    monkeypatch.setattr(experiment_module, "_listed", lambda: [("003:tiny", path)])
    experiment_module._read.cache_clear()
    monkeypatch.chdir(tmp_path)
    return "003:tiny"


@pytest.fixture(autouse=True)
def forget() -> None:
    """Read experiment files anew in every test."""
    experiment_module._read.cache_clear()


@pytest.mark.parametrize("paper", PAPERS)
def test_published_tables_are_whole(paper: str) -> None:
    work = published(paper)
    assert work.seed == paper
    for name, table in work.tables.items():
        assert table.rows, name
        for row in table.rows:
            assert set(table.keys) <= row.keys(), name
            assert set(table.columns) <= row.keys(), name
        keys = [tuple(str(row[key]) for key in table.keys) for row in table.rows]
        assert len(set(keys)) == len(keys), name


@pytest.mark.parametrize("column", ["certified", "clean", "pgd_fix", "pgd", "robust", "accuracy"])
def test_published_percentages_lie_between_0_and_100(column: str) -> None:
    seen = 0
    for paper in PAPERS:
        for table in published(paper).tables.values():
            if column in table.columns:
                assert table.columns[column].unit == "percent"
                for row in table.rows:
                    value = table.find(row, column)
                    seen += value is not None
                    assert value is None or 0 <= value.value <= 1
    assert seen


def test_published_laws_hold_in_the_data() -> None:
    """The data themselves show the order that the paper claims, so no row is swapped."""
    rows = published("003").tables["T2"].rows
    assert len(rows) == 15
    for t in (10, 20, 50, 100, 150):
        at = {row["purifier"]: row for row in rows if row["t"] == t}
        assert at["reverse"]["cr"] < at["ddpm"]["cr"] < at["ddim"]["cr"]  # type: ignore[operator]
        assert at["reverse"]["pgd_fix"] > at["ddpm"]["pgd_fix"] >= at["ddim"]["pgd_fix"]  # type: ignore[operator]
    for name, table in published("000").tables.items():
        if "radius" in table.keys:
            groups: dict[Any, list[float]] = {}
            for row in table.rows:
                key = tuple(row[k] for k in table.keys if k != "radius")
                groups.setdefault(key, []).append(row["certified"])  # type: ignore[arg-type]
            assert all(values == sorted(values, reverse=True) for values in groups.values()), name


def test_published_boosting_has_its_order_and_its_misprints() -> None:
    tables = published("002").tables
    boosted = {(r["model"], r["steps"], r["booster"]): r for r in tables["T1"].rows}
    losses = {(r["model"], r["steps"], r["loss"]): r for r in tables["T2"].rows}
    samplers = {(r["model"], r["steps"], r["sampler"]): r for r in tables["T3"].rows}
    for start in (("ct", 1), ("ct", 2), ("cd", 1), ("cd", 2)):
        fid = {name: boosted[(*start, name)]["fid"] for name in ("joint", "classifier", "none")}
        assert fid["joint"] < fid["classifier"] < fid["none"]  # type: ignore[operator]
        assert samplers[(*start, "sgld")]["fid"] < samplers[(*start, "pgd")]["fid"]  # type: ignore[operator]
        # What stands in two tables is the same, but for one number.
        assert losses[(*start, "reference")]["fid"] == fid["joint"]
        assert (losses[(*start, "none")]["fid"] == fid["none"]) == (start != ("ct", 2))
        assert samplers[(*start, "pgd")]["fid"] == boosted[(*start, "joint-wide")]["fid"]
        # The reference loss is the lowest; one of the others is above no boosting at all.
        own = {name: losses[(*start, name)]["fid"] for name in ("ce", "bce", "ce-bce")}
        assert min(own.values()) > fid["joint"]  # type: ignore[type-var]
        assert (max(own.values()) > fid["none"]) == (start == ("cd", 2))  # type: ignore[type-var]


def test_the_page_on_boosting_says_what_was_measured() -> None:
    page = (ROOT / "docs" / "boosting.md").read_text()
    for place in (1, 2, 3, 4):
        name = f"002-table-{place}-small.json"
        rows = json.loads((ROOT / "experiments" / "measured" / name).read_text())["rows"]
        for row in rows:
            low, high = row["change_interval"]
            assert f"{row['change']:.2f} [{low:.2f}, {high:.2f}]" in page
    for row in json.loads(
        (ROOT / "experiments" / "measured" / "002-defense-small.json").read_text()
    )["rows"]:
        low, high = row["robust_interval"]
        assert f"{100 * row['robust']:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in page
        low, high = row["cr_interval"]
        assert f"{row['cr']:.3f} [{low:.3f}, {high:.3f}]" in page


def test_published_values_are_found_by_their_keys() -> None:
    tables = published("003").tables
    assert tables["T2"].find({"purifier": "ddim", "t": "100"}, "pgd_fix") == Printed(0.109, None)
    assert tables["T5"].find({"eps": 32 / 255}, "cr") == Printed(0.268, 0.057)
    assert tables["S12"].find({"purifier": "ddpm", "t": 100}, "snr") == Printed(0.005926, 0.001065)
    assert tables["S2"].find({"randomness": "fixed"}, "pgd_eot") is None
    assert tables["T2"].find({"purifier": "cm", "t": 100}, "cr") is None
    assert tables["T2"].find({"purifier": "ddpm"}, "cr") is None
    with pytest.raises(BadInput, match="published column 'crr' is not known; did you mean cr"):
        tables["T2"].find({"purifier": "ddpm", "t": 10}, "crr")
    with pytest.raises(BadInput, match="paper '007' is not known"):
        published("007")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("id", experiment_ids())
def test_every_experiment_can_be_read(id: str, size: str) -> None:
    found = load_experiment(id, size)
    assert found.title
    assert found.about
    listed = drafts(found.sweep)
    assert listed
    swept = {option for draft in listed for option in draft.at}
    for option in found.keys.values():
        fixed = isinstance(option, str) and all(hasattr(d.settings, option) for d in listed)
        assert not isinstance(option, str) or option in swept or fixed, option
    assert {column.block for column in found.columns.values()} <= {d.block for d in listed}
    for spec in found.checks:
        assert spec["check"] in CHECKS
    if found.figure is not None:
        assert found.figure["draw"] in FIGURES
    used = {draft.settings.dataset for draft in listed if hasattr(draft.settings, "dataset")}
    assert used <= ({"digits"} if size == "small" else {"cifar10", "imagenet", "imagenet64"})


@pytest.mark.parametrize("id", experiment_ids())
def test_every_experiment_measures_published_columns(id: str) -> None:
    found = load_experiment(id)
    if found.table is not None and found.table_id != "S1":  # hyper-parameters, nothing measured
        beside = {(column.printed or {}).get("column") for column in found.columns.values()}
        assert set(found.table.columns) & {*found.columns, *beside}
        assert set(found.table.keys) & set(found.keys) or len(found.table.rows) == 1


def test_table_2_has_the_fifteen_settings() -> None:
    found = load_experiment("003:table-2")
    for block in ("cr", "attack"):
        at = {(d.settings.defense, d.settings.t) for d in drafts(found.sweep) if d.block == block}
        assert at == {(p, t) for p in ("ddpm", "reverse", "ddim") for t in (10, 20, 50, 100, 150)}
    assert [*found.keys, *found.columns][:4] == ["purifier", "t", "cr", "pgd_fix"]
    full = load_experiment("003:table-2", "full")
    settings = next(d.settings for d in drafts(full.sweep) if d.block == "attack")
    assert (settings.n, settings.subset, settings.randomness) == (1000, "first-1000", "fixed")


def test_changes_reach_every_block() -> None:
    longer = {"n": 3, "attack.attack_options.steps": 4}
    cr, attack = load_experiment("003:table-2", "small", longer).sweep.blocks
    assert (cr.base["n"], attack.base["n"]) == (3, 3)
    assert attack.base["attack_options.steps"] == 4
    assert not any("steps" in option for option in cr.base)
    found = load_experiment("003:table-2", "small", {"dataset": "cifar10", "n": "7"})
    assert {(d.settings.dataset, d.settings.n) for d in drafts(found.sweep)} == {("cifar10", 7)}


@pytest.mark.parametrize(
    ("id", "size", "words"),
    [
        ("003:tabel-2", "small", "did you mean 003:table-2?"),
        ("003:table-2", "smal", "size of 003:table-2 'smal' is not known; did you mean small?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(id: str, size: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_experiment(id, size)
    assert words in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("title:", "titel:", "field required"),
        ("label: scaled down", "label: rough", "sizes.small.label"),
        ("published: T2", "published: T99", "published table 'T99' is not known"),
        ("at: rows.0", "path: rows.0", "column cr: key 'path' is not known"),
        ("draw: comp", "drawn: comp", "figure None is not known"),
        ("figure: {draw: compression-robustness, x: cr,", "figure: {draw: curves,", "does not fit"),
    ],
)
def test_a_file_of_another_form_is_refused(
    tiny: str, tmp_path: Path, old: str, new: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace(old, new))
    code = cli(["reproduce", tiny, "--jobs", "1", "--quiet", "--plot", "law.png"])
    assert code == 2
    assert words in capsys.readouterr().err


def test_experiments_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["reproduce"]) == 0
    out = capsys.readouterr().out
    assert all(id in out and title in out for id, title, _ in summaries())
    assert cli(["reproduce", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["experiments"]
    assert {entry["experiment"] for entry in listed} == set(experiment_ids())


def test_tables_come_before_figures_and_in_the_paper_s_order() -> None:
    ids = [id for id in experiment_ids() if id.startswith("003")]
    assert ids == sorted(ids, key=experiment_module._natural)
    names = ["003:table-2", "003:table-10", "003:table-s2", "003:table-s12", "003:figure-1c"]
    assert sorted(names[::-1], key=experiment_module._natural) == names


@pytest.mark.slow
def test_measured_stands_beside_published(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["reproduce", tiny, "--jobs", "1", "--json"]
    assert cli([*arguments, "--plot", "law.png"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["t"] for row in found["rows"]] == [10, 50, 200]
    assert [row["purifier"] for row in found["rows"]] == ["onestep-ddpm"] * 3
    first = found["rows"][0]
    assert first["n"] == first["cr_n"] == first["pgd_fix_n"] == 4
    low, high = first["cr_interval"]
    assert low < first["cr"] < high
    assert first["published"] == {}
    assert {check["verdict"] for check in found["checks"]} <= {
        "holds",
        "does not hold",
        "undecided",
    }
    assert found["label"] == "scaled down"
    assert (tmp_path / "law.png").stat().st_size > 10_000
    before = (tmp_path / "law.png").read_bytes()
    assert cli(arguments) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == found["rows"]
    # From records alone: a network cannot even be loaded.
    assert cli(["plot", found["sweep"], "--to", "again.png"]) == 0
    assert (tmp_path / "again.png").read_bytes() == before


def test_the_table_is_printed_with_verdicts(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["reproduce", tiny, "--size", "other", "--jobs", "1", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "A law in small" in out
    assert "re-derived" in out
    assert "undecided: Spearman correlation of cr with pgd_fix" in out
    assert "pgd_fix %" in out


@pytest.mark.slow
def test_a_dry_run_writes_nothing(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["reproduce", tiny, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dry_run"]
    assert (found["points"], found["done"]) == (6, 0)
    assert found["evaluations"] > 0
    assert not (tmp_path / "runs").exists()
    assert cli(["reproduce", tiny, "--dry-run"]) == 0
    assert "0 of 6 points done" in capsys.readouterr().out


@pytest.mark.slow
def test_a_failed_point_gives_exit_code_1(
    tiny: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(study: Robustness, sitting: Any) -> None:
        raise BadInput("a file", "is broken", "mend it")

    monkeypatch.setattr(Robustness, "measure", broken)
    assert cli(["reproduce", tiny, "--jobs", "1"]) == 1
    printed = capsys.readouterr()
    assert "a file is broken; mend it" in printed.out
    assert "failed: attack-" in printed.out
    assert cli(["reproduce", tiny, "--jobs", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["failed"]) == 3
    assert [row["pgd_fix"] for row in found["rows"]] == [None] * 3


def test_files_read_as_they_are_written() -> None:
    assert read_yaml(TINY, "tiny")["sizes"]["small"]["label"] == "scaled down"
