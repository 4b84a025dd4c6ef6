"""Columns, comparisons and checks: read from reports, paired on images, with honest verdicts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, spearmanr, ttest_rel

from advpure.base.errors import BadInput
from advpure.statistics.estimates import ByImage, Estimate
from advpure.statistics.rates import Interval
from advpure.sweeps.checks import run_check
from advpure.sweeps.columns import Column
from advpure.sweeps.comparisons import subtract, together
from advpure.sweeps.evidence import Evidence
from advpure.sweeps.points import Point
from advpure.sweeps.rank_correlation import rank_correlation
from advpure.sweeps.table import Cell, Key, Table, tabulate

ROW = Estimate(value=0.4, n=9, std=0.1, interval=Interval(0.3, 0.5), extra={"eps": 8 / 255})
REPORT = {
    "rows": [ROW],
    "stages": {"clean": {"one_shot": Estimate(value=0.9, n=8)}},
    "robust": 0.3,
    "absent": None,
    "flag": True,
}


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("rows.0", ROW),
        ("rows[eps=8/255]", ROW),
        ("rows.0.eps", Estimate(value=8 / 255)),
        ("stages.clean.one_shot", Estimate(value=0.9, n=8)),
        ("robust", Estimate(value=0.3)),
        ("absent", None),
    ],
)
def test_columns_read_estimates(at: str, value: Estimate | None) -> None:
    assert Column(block="b", at=at).read(REPORT) == value


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("stages.dirty", "has no 'dirty' in the report; known: clean"),
        ("rows.3", "has no place '3'; there are 1 entries"),
        ("rows[eps=0.5]", "fits no entry; choose by eps"),
        ("robust.more", "goes on with 'more' below 0.3"),
        ("stages", "has neither"),
        ("flag", "ends at True"),
        ("?", "is no path"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(path: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        Column(block="b", at=path).read(REPORT)
    assert words in str(caught.value)


def test_units_are_checked() -> None:
    with pytest.raises(BadInput, match="unit 'percents' is not known; did you mean percent"):
        Column(block="b", at="x", unit="percents")  # type: ignore[arg-type]


def test_paired_means_are_compared_as_by_the_t_test() -> None:
    generator = np.random.default_rng(0)
    left = generator.normal(0.5, 0.1, 40)
    right = left - 0.01 + generator.normal(0, 0.01, 40)
    a = Estimate(value=left.mean(), by_image=dict(enumerate(left)))
    b = Estimate(value=right.mean(), by_image=dict(enumerate(right)))
    found = subtract(a, b, 0.99)
    oracle = ttest_rel(left, right).confidence_interval(0.99)
    assert found.interval == pytest.approx((oracle.low, oracle.high))
    assert found.n == 40
    swapped = subtract(b, a, 0.99)
    assert (found.verdict, swapped.verdict) == ("holds", "does not hold")


def test_rates_are_compared_by_tangos_interval_on_shared_images() -> None:
    a = {i: float(i < 8) for i in range(10)} | {99: 1.0}
    b = {i: float(i < 2) for i in range(10)} | {98: 0.0}
    found = subtract(Estimate(value=0.8, by_image=a), Estimate(value=0.2, by_image=b), 0.95)
    assert found.value == pytest.approx(0.6)
    assert found.n == 10
    assert found.verdict == "holds"
    none = Estimate(value=0.0, by_image={0: 0.0, 1: 0.0})
    same = subtract(none, none, 0.95)
    assert same.verdict == "undecided"


def test_shares_that_differ_alike_for_all_of_few_images_decide_nothing() -> None:
    left, right = {0: 0.5, 1: 1.0, 2: 0.75}, {0: 0.25, 1: 0.75, 2: 0.5}
    found = subtract(Estimate(value=0.75, by_image=left), Estimate(value=0.5, by_image=right), 0.95)
    assert (found.value, found.interval, found.n) == (0.25, None, 3)
    assert found.verdict == "undecided"


def test_without_images_intervals_are_put_together() -> None:
    a = Estimate(value=0.5, interval=Interval(0.4, 0.7))
    b = Estimate(value=0.2, interval=Interval(0.1, 0.24))
    found = subtract(a, b, 0.95)
    assert found.interval == pytest.approx((0.3 - np.hypot(0.1, 0.04), 0.3 + np.hypot(0.2, 0.1)))
    wider = subtract(a, b, 0.999).interval
    assert wider is not None
    assert found.interval is not None
    assert wider.low < found.interval.low
    assert subtract(Estimate(value=1.0), Estimate(value=0.0), 0.95).verdict == "undecided"


def test_verdicts_join() -> None:
    assert together([]) == "undecided"
    assert together(["holds", "holds"]) == "holds"


def test_rank_correlation_is_spearmans_with_ties() -> None:
    x, y = [0.1, 0.4, 0.3, 0.3, 0.9], [5.0, 2.0, 3.0, 1.0, 1.0]
    found = rank_correlation(x, y)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.interval is None
    assert rank_correlation([1, 2], [2, 1]) is None
    assert rank_correlation([1, 2, 3], [2, 2, 2]) is None


def test_the_bootstrap_is_narrow_for_many_images_and_wide_for_few() -> None:
    def spread(count: int, column: int) -> tuple[list[float], list[ByImage | None]]:
        generator = np.random.default_rng(column)
        rates = np.linspace(0.2, 0.8, 6)[:: 1 if column else -1]
        drawn = generator.random((6, count)) < rates[:, None]
        samples: list[ByImage | None] = [dict(enumerate(map(float, row))) for row in drawn]
        return list(drawn.mean(1)), samples

    widths = []
    for count in (12, 1000):
        (x, xs), (y, ys) = spread(count, 0), spread(count, 1)
        found = rank_correlation(x, y, xs, ys)
        assert found is not None
        assert found.interval is not None
        assert found.n == count
        assert found.interval.low <= found.value <= found.interval.high + 1e-12
        widths.append(found.interval.high - found.interval.low)
    assert widths[1] < 0.05 < widths[0]
    again = rank_correlation(x, y, xs, ys)
    assert again == found


@pytest.mark.slow
@pytest.mark.parametrize(("best", "worst", "images"), [(0.3, 0.1, 50), (0.05, 0.003, 20)])
def test_the_interval_holds_a_perfect_law_that_noise_pulls_towards_zero(
    best: float, worst: float, images: int
) -> None:
    rates, compression = np.linspace(best, worst, 15), np.linspace(0.2, 0.3, 15)
    held, runs = 0, 40
    for key in range(runs):
        generator = np.random.default_rng(key)
        right = (generator.random((15, images)) < rates[:, None]).astype(float)
        each = compression[:, None] + 0.01 * generator.standard_normal((15, images))
        found = rank_correlation(
            list(each.mean(1)), list(right.mean(1)),
            [dict(enumerate(row)) for row in each.tolist()],
            [dict(enumerate(row)) for row in right.tolist()],
        )  # fmt: skip
        assert found is not None
        assert found.interval is not None
        assert -1.0 <= found.interval.low <= found.value <= found.interval.high <= 1.0
        held += found.interval.low == -1.0
    # One-sided, alpha 1e-5: at least 90 % of the intervals hold the true correlation, -1.
    assert binomtest(held, runs, 0.9, alternative="less").pvalue > 1e-5, held


def test_enough_images_deny_an_order_that_is_not_there() -> None:
    generator = np.random.default_rng(5)
    rates, compression = np.array([0.3, 0.7, 0.4, 0.6, 0.35, 0.65]), np.linspace(0.2, 0.6, 6)
    right = (generator.random((6, 400)) < rates[:, None]).astype(float)
    each = compression[:, None] + 0.02 * generator.standard_normal((6, 400))
    samples: list[list[ByImage | None]] = [
        [dict(enumerate(row)) for row in values.tolist()] for values in (each, right)
    ]
    found = rank_correlation(list(each.mean(1)), list(right.mean(1)), *samples)
    assert found is not None
    assert found.interval is not None
    assert -0.9 < found.interval.low <= found.value <= found.interval.high < 0.9


def table(
    values: dict[tuple[str, int], float],
    spread: float = 0.0,
    second: dict[tuple[str, int], float] | None = None,
) -> Evidence:
    """Make a table by purifier and t, with twenty images around each value."""
    columns = {name: Column(block="b", at=name) for name in "xy"}
    cells = {}
    for row, value in values.items():
        for name, found in (("x", value), ("y", (second or values)[row])):
            each = {i: found + spread * ((i * 7919 + row[1]) % 20 - 9.5) for i in range(20)}
            point = Point("b", "cr", {}, None, f"{row}-{name}")
            cells[row, name] = Cell(Estimate(value=found, n=20, by_image=each), point)
    keys = {"purifier": "defense", "t": "t"}
    return Evidence(Table(keys, columns, tuple(values), cells), Path())


LAW = {("a", 10): 0.9, ("a", 20): 0.5, ("b", 10): 0.8, ("b", 20): 0.4}


@pytest.mark.parametrize(
    ("spread", "direction", "verdict"),
    [(0.001, "falls", "holds"), (0.001, "rises", "does not hold"), (0.5, "falls", "undecided")],
)
def test_monotone_is_decided_by_the_images(spread: float, direction: str, verdict: str) -> None:
    evidence = table(LAW, spread)
    spec = {"check": "monotone", "column": "x", "along": "t", "direction": direction}
    found = run_check(spec, evidence)
    assert found.verdict == verdict
    assert found.n == 20
    assert f"{2 if direction == 'falls' else 0} of 2 steps" in found.detail


def test_order_goes_through_listed_values() -> None:
    evidence = table(LAW, 0.001)
    spec = {"check": "order", "column": "x", "along": "purifier", "values": ["a", "b"]}
    assert run_check({**spec, "direction": "falls"}, evidence).verdict == "holds"
    assert run_check({**spec, "direction": "rises"}, evidence).verdict == "does not hold"


def test_a_missing_row_leaves_a_claim_undecided() -> None:
    evidence = table(LAW, 0.001)
    cells = {key: cell for key, cell in evidence.table.cells.items() if key[0] != ("b", 20)}
    partial = Table(evidence.table.keys, evidence.table.columns, evidence.table.rows, cells)
    spec = {"check": "monotone", "column": "x", "along": "t", "direction": "falls"}
    assert run_check(spec, Evidence(partial, Path())).verdict == "undecided"


@pytest.mark.parametrize(("at_most", "verdict"), [(-0.9, "holds"), (-1.1, "does not hold")])
def test_correlation_is_held_against_its_interval(at_most: float, verdict: str) -> None:
    inverse = {row: 1 - value for row, value in LAW.items()}
    evidence = table(LAW, 0.0001, second=inverse)
    spec = {"check": "rank-correlation", "columns": ["x", "y"], "at_most": at_most}
    found = run_check(spec, evidence)
    assert found.value == pytest.approx(-1.0)
    assert found.verdict == verdict
    assert found.to_json()["interval"] == pytest.approx([-1.0, -1.0])


def test_a_correlation_of_some_rows_decides_nothing() -> None:
    evidence = table(LAW, 0.0001, second={row: 1 - v for row, v in LAW.items()})
    cells = {key: cell for key, cell in evidence.table.cells.items() if key != (("b", 20), "y")}
    partial = Table(evidence.table.keys, evidence.table.columns, evidence.table.rows, cells)
    spec = {"check": "rank-correlation", "columns": ["x", "y"], "at_most": -0.9}
    found = run_check(spec, Evidence(partial, Path()))
    assert (found.verdict, found.value) == ("undecided", pytest.approx(-1.0))
    assert "over 3 of 4 rows" in found.detail


def test_an_order_through_a_value_without_rows_is_undecided() -> None:
    spec = {"check": "order", "column": "x", "along": "purifier", "direction": "falls"}
    found = run_check({**spec, "values": ["a", "b", "c"]}, table(LAW, 0.001))
    assert found.verdict == "undecided"
    assert found.detail.endswith("no row of c")


@pytest.mark.parametrize(
    ("spec", "verdict"),
    [
        # Half widths of 0.1 at 95 % are 0.127 for four values, 0.140 for eight intervals.
        ({"check": "bound", "column": "x", "at_least": 0.27}, "holds"),
        ({"check": "bound", "column": "x", "at_least": 0.28}, "undecided"),
        ({"check": "bound", "column": "x", "at_most": 0.78}, "undecided"),
        ({"check": "bound", "column": "x", "at_most": 0.77}, "does not hold"),
        ({"check": "ratio", "of": "x", "over": "y", "at_least": 0.65}, "holds"),
        ({"check": "ratio", "of": "x", "over": "y", "at_least": 0.66}, "undecided"),
    ],
)
def test_several_rows_widen_their_intervals(spec: dict[str, Any], verdict: str) -> None:
    evidence = table(LAW, second=dict.fromkeys(LAW, 0.4))
    for (row, name), cell in list(evidence.table.cells.items()):
        assert cell.value is not None
        value = cell.value.value
        ends = Interval(value - 0.1, value + 0.1) if name == "x" else Interval(value, value)
        evidence.table.cells[row, name] = Cell(replace(cell.value, interval=ends), cell.point)  # type: ignore[index]
    assert run_check(spec, evidence).verdict == verdict


def test_a_change_of_nothing_has_no_share() -> None:
    evidence = table({("a", 10): 0.0, ("a", 20): 0.5}, 0.001)
    spec = {"check": "stable", "column": "x", "along": "t", "reference": 10, "within": 0.1}
    assert run_check(spec, evidence).verdict == "undecided"
    one = table({("a", 10): 0.5, ("a", 20): 0.5, ("b", 20): 0.4}, 0.0001)
    assert run_check(spec, one).verdict == "undecided"


def test_ratio_and_stable() -> None:
    tenth = {row: value / 10 for row, value in LAW.items()}
    evidence = table(LAW, 0.0001, second=tenth)
    for (row, name), cell in list(evidence.table.cells.items()):
        assert cell.value is not None
        value, reach = cell.value.value, 0.001 * cell.value.value
        narrow = replace(cell.value, interval=Interval(value - reach, value + reach))
        evidence.table.cells[row, name] = Cell(narrow, cell.point)  # type: ignore[index]
    ratio = {"check": "ratio", "of": "x", "over": "y"}
    for at_least, verdict in ((9.0, "holds"), (10.0, "undecided"), (11.0, "does not hold")):
        assert run_check({**ratio, "at_least": at_least}, evidence).verdict == verdict
    stable = {"check": "stable", "column": "x", "along": "t", "reference": 10}
    assert run_check({**stable, "within": 0.6}, evidence).verdict == "holds"
    assert run_check({**stable, "within": 0.1}, evidence).verdict == "does not hold"
    assert run_check({**stable, "reference": 15, "within": 0.1}, evidence).verdict == "undecided"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"check": "monotonous"}, "did you mean monotone?"),
        ({"check": "monotone", "column": "z"}, "column of check monotone 'z' is not known"),
        ({"check": "monotone", "column": "x"}, "does not fit; missing a required argument"),
        (
            {"check": "monotone", "column": "x", "along": "purifier", "direction": "falls"},
            "has no order",
        ),
        (
            {"check": "monotone", "column": "x", "along": "t", "direction": "down"},
            "direction 'down' is not known",
        ),
    ],
)
def test_a_check_that_cannot_be_made_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput) as caught:
        run_check(spec, table(LAW))
    assert words in str(caught.value)


class _Reports:
    def of(self, point: Point) -> dict[str, Any]:
        return {"x": Estimate(value=float(len(point.run)), n=3)}


def test_a_table_gathers_points_by_their_keys() -> None:
    points = [
        Point("b", "cr", {"defense": d, "t": t}, None, f"{d}{t}", place)
        for place, (d, t) in enumerate((d, t) for d in ("x", "yy") for t in (1, 20))
    ]
    shared = Point("c", "attack", {"defense": "x"}, None, "long name", 0)
    keys = {"purifier": "defense", "t": "t"}
    columns = {"own": Column(block="b", at="x"), "common": Column(block="c", at="x")}
    finished = {point.run for point in points[:3]} | {shared.run}
    found = tabulate([*points[::-1], shared], finished, _Reports(), keys, columns)  # type: ignore[arg-type]
    rows: tuple[Key, ...] = (("x", 1), ("x", 20), ("yy", 1), ("yy", 20))
    assert found.rows == rows
    two, three, nine = (Estimate(value=value, n=3) for value in (2.0, 3.0, 9.0))
    assert [found.value(row, "own") for row in rows] == [two, three, three, None]
    assert [found.value(row, "common") for row in rows] == [nine, nine, None, None]
    with pytest.raises(BadInput, match="has two values"):
        tabulate(points, finished, _Reports(), {"purifier": "defense"}, {"own": columns["own"]})  # type: ignore[arg-type]


def test_rows_within_a_report_are_put_into_the_paths() -> None:
    class Inner:
        def of(self, point: Point) -> dict[str, Any]:
            rows = [{"who": w, "rate": Estimate(value=k)} for k, w in enumerate(("a", "b"))]
            return {"rows": rows, "x_rate": Estimate(value=point.at["t"]), "y_rate": None}

    points = [Point("b", "cr", {"t": t}, None, f"run-{t}", t) for t in (1, 2)]
    keys = {"who": ["a", "b"], "t": "t", "what": {"first": "x", "second": "y"}}
    columns = {
        "rate": Column(block="b", at="rows[who={who}].rate"),
        "named": Column(block="b", at="{what}_rate"),
    }
    found = tabulate(points, {"run-1", "run-2"}, Inner(), keys, columns)  # type: ignore[arg-type]
    assert found.rows[:2] == (("a", 1, "first"), ("a", 1, "second"))
    assert len(found.rows) == 8
    assert found.value(("b", 2, "first"), "rate") == Estimate(value=1)
    assert found.value(("b", 2, "first"), "named") == Estimate(value=2)
    assert found.value(("b", 2, "second"), "named") is None
    assert found.cells[("a", 1, "first"), "rate"].at == "rows[who=a].rate"
