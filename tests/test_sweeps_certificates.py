"""Sweeps over certificates and transports: row keys with names, several values, pairs of images."""

from pathlib import Path

import numpy as np
import pytest

from advpure.analysis.certification.study import Certification
from advpure.analysis.distances.compare import compare_distances
from advpure.analysis.transport.study import Transport
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find
from advpure.sweeps.checks import run_check
from advpure.sweeps.columns import Column
from advpure.sweeps.evidence import Evidence
from advpure.sweeps.experiment import load_experiment, summaries
from advpure.sweeps.figures import FIGURES, Drawn
from advpure.sweeps.points import Point, drafts, plan
from advpure.sweeps.sets import subtract_sets
from advpure.sweeps.sweep import parse_sweep
from advpure.sweeps.table import Reports, Table, options_of, tabulate


@pytest.mark.parametrize(
    ("id", "size"),
    [(id, size) for id, _, sizes in summaries() for size in sizes if size not in ("small", "full")],
)
def test_every_other_size_can_be_read(id: str, size: str) -> None:
    found = load_experiment(id, size)
    listed = drafts(found.sweep)
    assert listed
    assert found.about
    blocks = {draft.block for draft in listed}
    assert all(column.block in blocks for column in found.columns.values())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Point], Path]:
    """Certify eight digits with and without a purifier, and measure their transport."""
    root = tmp_path_factory.mktemp("root")
    sweep = parse_sweep(
        {
            "base": {"dataset": "digits", "n": 8, "sigmas": "0.1,0.25", "tile": 8},
            "zip": {"defense": ["none", "cm"], "weights": [None, "digits-cm"]},
            "blocks": {
                "certify": {"base": {"samples": 40, "selection": 5, "radii": "0,0.1,0.2"}},
                "transport": {"base": {"draws": 2}},
            },
        },
        name="tiny", where="test",
    )  # fmt: skip
    points = plan(sweep)
    for point in points:
        assert isinstance(point.settings, Certification | Transport)
        point.settings.run(out=root / point.run)
    return points, root


KEYS = {
    "method": {"option": ["defense", "weights"], "none None": "plain", "cm digits-cm": "purified"},
    "radius": [0.0, 0.1, 0.2],
}
COLUMNS = {
    "best": Column(block="certify", at="best[radius={radius}]", unit="percent"),
    "one": Column(block="certify", at="rows[sigma=0.25,radius={radius}]", unit="percent"),
}


def table_of(finished: tuple[list[Point], Path]) -> Table:
    points, root = finished
    return tabulate(points, {p.run for p in points}, Reports(root), KEYS, COLUMNS)


def test_values_of_options_have_names_in_the_table(finished: tuple[list[Point], Path]) -> None:
    table = table_of(finished)
    assert [row for row in table.rows if row[1] == 0.0] == [("plain", 0.0), ("purified", 0.0)]
    assert all(table.value(row, "best") is not None for row in table.rows)
    assert options_of([1, 2]) is None
    assert options_of({0.5: "half"}) is None


def test_values_of_certificates_are_means_over_their_images(
    finished: tuple[list[Point], Path],
) -> None:
    points, root = finished
    for cell in table_of(finished).cells.values():
        assert cell.value is not None
        images = cell.value.images()
        assert images is not None
        assert len(images) == 8
        assert np.mean(list(images.values())) == pytest.approx(cell.value.value)
    certify = next(p for p in points if p.block == "certify" and p.at["defense"] == "cm")
    tree = Reports(root).of(certify)
    clean = Column(block="certify", at="best[radius=0.2].clean").read(tree)
    best = Column(block="certify", at="best[radius=0.2]").read(tree)
    assert clean is not None
    assert best is not None
    assert clean.n == 8
    assert clean.value >= best.value  # type: ignore[operator]


def test_values_of_transports_are_means_over_their_images(
    finished: tuple[list[Point], Path],
) -> None:
    points, root = finished
    point = next(p for p in points if p.block == "transport" and p.at["defense"] == "cm")
    report = Reports(root).of(point)
    base = "rows[sigma=0.25]."
    for at in (
        "transport",
        "accuracy",
        "markov[multiple=1.25].exceeds",
        "markov[multiple=2].bound",
    ):
        estimate = find(report, base + at)
        assert len(estimate.images()) == 8
        assert np.mean(list(estimate.images().values())) == pytest.approx(estimate.value)


def test_a_check_keeps_the_rows_with_any_of_several_values(
    finished: tuple[list[Point], Path],
) -> None:
    evidence = Evidence(table_of(finished), finished[1])
    assert len(evidence.where({"radius": [0.0, "0.2"]}).table.rows) == 4
    assert len(evidence.where({"radius": 0.2}).table.rows) == 2
    found = run_check(
        {
            "check": "order", "column": "best", "along": "method", "values": ["plain", "purified"],
            "direction": "rises", "where": {"radius": [0.1, 0.2]},
        },
        evidence,
    )  # fmt: skip
    assert found.claim == "radius 0.1 or 0.2: best rises through plain, purified"
    assert "of 2 steps" in found.detail
    assert found.n == 8


@pytest.mark.slow
def test_certificates_and_purified_images_are_drawn(
    finished: tuple[list[Point], Path], tmp_path: Path
) -> None:
    points, root = finished
    drawn = Drawn(table=table_of(finished), points=tuple(points), title="t", name="n", root=root)
    for name, more in (("certificates", {"block": "certify"}),
                       ("purified", {"block": "transport", "sigma": 0.25}),
                       ("together", {"block": "transport"})):  # fmt: skip
        path = FIGURES[name](drawn, tmp_path / f"{name}.png", **more)
        assert path.stat().st_size > 10_000
    with pytest.raises(BadInput, match="block cr has no finished run to draw"):
        FIGURES["certificates"](drawn, tmp_path / "x.png", block="cr")


def test_frechet_distances_are_compared_with_their_images_in_common(tmp_path: Path) -> None:
    sweep = parse_sweep(
        {
            "verb": "distances",
            "base": {"dataset": "digits", "n": 24, "perturb": "none", "sigma": 0.5, "tile": 8,
                     "metrics": "ssim,frechet-classifier"},
            "grid": {"defense": ["onestep-edm", "cm"]},
        },
        name="sets", where="test",
    )  # fmt: skip
    points = plan(sweep)
    for point in points:
        point.settings.run(out=tmp_path / point.run)
    at = "rows.0.frechet_classifier_after"
    columns = {"frechet": Column(block="distances", at=at)}
    table = tabulate(
        points, {p.run for p in points}, Reports(tmp_path), {"method": "defense"}, columns
    )
    found = Evidence(table, tmp_path).difference(("cm",), ("onestep-edm",), "frechet", 0.95)
    runs = {point.at["defense"]: tmp_path / point.run for point in points}
    with RecordStore.read(runs["cm"]) as one, RecordStore.read(runs["onestep-edm"]) as two:
        expected = {each.name: each for each in compare_distances(one, two)}["frechet-classifier"]
    assert found is not None
    assert found.interval is not None
    assert expected.interval is not None
    assert (found.value, found.n) == (pytest.approx(expected.difference), 24)
    assert list(found.interval) == pytest.approx(list(expected.interval))
    first, second = (table.cells[(name,), "frechet"] for name in ("cm", "onestep-edm"))
    wider = subtract_sets(tmp_path, first, second, 0.99)
    assert wider is not None
    assert wider.interval is not None
    assert wider.interval.low < found.interval.low < found.interval.high < wider.interval.high
    for other in ("rows.0.ssim_after", "rows.0.l2_final", "n"):
        assert subtract_sets(tmp_path, first._replace(at=other), second, 0.95) is None
        both = (cell._replace(at=other) for cell in (first, second))
        assert subtract_sets(tmp_path, *both, 0.95) is None
