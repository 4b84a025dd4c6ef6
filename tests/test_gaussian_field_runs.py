"""Table S1 of seed 003 and the simulated field against closed forms."""

import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advpure.analysis import DivergingStep
from advpure.analysis.closed_forms.field_figure import draw_field
from advpure.analysis.closed_forms.field_study import ScoreField
from advpure.analysis.closed_forms.gaussian_field_paths import simulate_paths, simulate_rates
from advpure.analysis.closed_forms.gaussian_field_table import (
    FieldSettings,
    field_table,
    small_step_reading,
    variance_reading,
)
from advpure.base.errors import BadInput
from advpure.statistics.estimates import find
from advpure.sweeps.published import published

PRINTED = FieldSettings()


def _table() -> dict[str, dict[str, Any]]:
    with pytest.warns(DivergingStep, match=r"factor -9"):
        table = field_table(PRINTED)
    return {row["quantity"]: row for row in table.rows()}


def test_the_defaults_are_the_published_settings() -> None:
    rows = published("003").tables["S1"].rows
    assert {row["name"]: row["value"] for row in rows} == dataclasses.asdict(PRINTED)


def test_the_printed_field_cannot_be_right() -> None:
    rows = _table()
    assert rows["factor_off_manifold"]["printed"] == pytest.approx(-9.0)
    assert rows["expected_rate_eq_13"]["printed"] < 0  # no rate is
    assert rows["expected_rate_exact"]["printed"] == pytest.approx(8.94194, abs=5e-6)
    assert rows["converges"]["printed"] is False
    assert rows["rate_of_all_steps"]["printed"] > 1e95


def test_both_readings_converge_with_the_factor_of_the_figure() -> None:
    rows = _table()
    for reading in ("variance", "small_step"):
        assert rows["converges"][reading] is True
        assert rows["factor_off_manifold"][reading] == pytest.approx(0.9)
    assert rows["factor_on_manifold"]["variance"] == pytest.approx(0.999)
    assert rows["factor_on_manifold"]["small_step"] == pytest.approx(0.99999)
    assert round(rows["expected_rate_exact"]["variance"], 6) == 0.901359
    assert round(rows["expected_rate_eq_13"]["variance"], 6) == 0.901289
    curve = [round(rows[f"rate_of_step_{k}"]["variance"], 5) for k in (0, 20, 50, 99)]
    assert curve == [0.90136, 0.94699, 0.99879, 0.99900]


def test_a_field_that_converges_needs_no_other_reading() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = field_table(variance_reading(PRINTED))
    assert [reading.name for reading in table.readings] == ["printed"]


@pytest.mark.parametrize("reading", [variance_reading, small_step_reading])
def test_simulated_rates_are_the_closed_form(reading: Any) -> None:
    settings, draws = reading(PRINTED), 64
    found = simulate_rates(settings, draws=draws)
    assert found.rates.shape == (draws, settings.steps)
    factors = np.abs(settings.field().factors)
    for k in (0, 20, 50, 99):
        # A rate is the root of sum w f^2 z^2 / sum w z^2 with weights w = f^(2 k) and normal z:
        # by the delta method its variance is sum w^2 (f^2 - r^2)^2 / (2 r^2 (sum w)^2), and its
        # bias of the order of the variance over r. Alpha 1e-5 over eight comparisons.
        weights, rate = (factors / factors.max()) ** (2 * k), found.predicted[k]
        variance = np.square(weights * (factors**2 - rate**2)).sum()
        variance /= 2 * rate**2 * weights.sum() ** 2
        curved = 4 * np.square(weights).sum() / weights.sum() ** 2 * abs(1 - rate)
        bound = 4.9 * math.sqrt(variance / draws) + curved + 1e-9
        assert found.rates[:, k].mean() == pytest.approx(rate, abs=bound)
    assert (found.rates >= found.off_manifold - 1e-9).all()
    assert (found.rates <= found.on_manifold + 1e-9).all()
    assert found.on_manifold > found.eq_13 > found.off_manifold


def test_pooled_rates_are_the_closed_form_in_few_dimensions_too() -> None:
    draws = 2000
    found = simulate_rates(
        FieldSettings(dimension=5, intrinsic_dimension=1, std_off_manifold=0.1, steps=12),
        draws=draws,
    )
    energies = np.cumprod(np.square(found.rates), axis=1)
    for k in (1, 6, 11):
        # Delta method of the ratio of two means; alpha 1e-5 over three comparisons.
        before, after = energies[:, k - 1], energies[:, k]
        rate = found.predicted[k]
        error = (after - rate**2 * before).std(ddof=1) / math.sqrt(draws)
        bound = 4.7 * error / (2 * rate * before.mean())
        assert found.pooled[k] == pytest.approx(rate, abs=bound)
    # The mean of rates is something else, and smaller.
    reach = 4.7 * found.rates[:, 11].std(ddof=1) / math.sqrt(draws)
    assert found.rates[:, 11].mean() + reach < found.predicted[11]


def test_paths_follow_the_factors() -> None:
    settings = variance_reading(PRINTED)
    paths = simulate_paths(settings, paths=5)
    assert paths.shape == (5, settings.steps + 1, 2)
    assert paths[:, -1, 0] == pytest.approx(paths[:, 0, 0] * 0.999**settings.steps)
    assert paths[:, -1, 1] == pytest.approx(paths[:, 0, 1] * 0.9**settings.steps)


def test_a_field_that_leaves_the_range_of_numbers_says_so() -> None:
    settings = FieldSettings(dimension=5, intrinsic_dimension=1, step=1e3)
    with pytest.raises(BadInput, match="leave the range of numbers"), np.errstate(all="ignore"):
        simulate_rates(settings)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"dimension": 0}, "not a whole number of 2 or more"),
        ({"dimension": 3, "intrinsic_dimension": 3}, "leaves nothing across"),
        ({"step": 0.0}, "step 0 is not 1e-50 or more"),
        ({"std_on_manifold": math.nan}, "is not finite"),
        ({"reading": "spread"}, "known: printed, variance, small_step"),
        ({"draws": 0}, "draws 0"),
        ({"eps": 0.0}, "eps 0 is not 1e-50 or more"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_settings_that_make_no_field_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        ScoreField(**more)


def test_simulations_of_nothing_are_refused() -> None:
    for call, words in (
        (lambda: simulate_rates(PRINTED, draws=0), "draws 0 is not a whole number of 1 or more"),
        (lambda: simulate_paths(PRINTED, paths=0), "paths 0 is not a whole number from 1"),
    ):
        with pytest.raises(BadInput, match=words):
            call()


def test_a_run_reports_and_draws_from_its_records(tmp_path: Path) -> None:
    study = ScoreField(dimension=30, intrinsic_dimension=3, steps=10, draws=3)
    with pytest.warns(DivergingStep):
        report = study.run(out=tmp_path / "run")
    assert "reading 'variance'" in report.notes[0]
    direct = simulate_rates(study.simulated, draws=3)
    assert np.array_equal(report.result.rates, direct.rates)
    tree = report.tree()
    assert [row["step"] for row in tree["rows"]] == list(range(10))
    assert tree["first"].value == pytest.approx(direct.rates[:, 0].mean())
    assert find(tree, "rows[step=9].rate") == tree["last"]
    assert (tree["n"], tree["last"].n) == (3, 3)
    assert tree["on_manifold"] == pytest.approx(0.999)
    assert find(tree, "table[quantity=converges].printed") is False
    assert "factor off manifold" in str(report.display())
    assert draw_field(report.result, tmp_path / "b.png").stat().st_size > 1000
