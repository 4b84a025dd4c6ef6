"""Runs that stop with the image that answers: the sequences behind them, and the rule."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom

from advpure.analysis.robustness.study import Robustness
from advpure.analysis.until import Follower, Goal, keyed_order
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.report.compare import Comparing
from advpure.report.verify import Verification
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import wilson
from advpure.statistics.sequences import BettingSequence, DifferenceSequence, anytime_rate
from advpure.sweeps.comparisons import subtract

LEVEL, WANTED = 0.95, math.log(2 / 0.05)
FIXED = 1533
"""Images at which Wilson's interval is at most 5 points wide, whatever the rate."""


def test_the_fixed_number_of_images_is_the_smallest_that_suffices() -> None:
    """The widest is that of a half: z / sqrt(n + z^2)."""
    z = 1.959964
    assert z / math.sqrt(FIXED - 1 + z**2) > 0.05 >= z / math.sqrt(FIXED + z**2)
    rate = wilson(FIXED // 2, FIXED)
    assert rate.high - rate.low == pytest.approx(z / math.sqrt(FIXED + z**2), rel=1e-5)


@pytest.mark.parametrize("n", [20, 100])
def test_all_zero_gives_the_closed_form(n: int) -> None:
    """Without a success the bets are constant: n log(1 + l m) reaches log(2 / alpha) at the end."""
    half = 0.05

    def excess(m: float) -> float:
        return n * math.log1p(min(half / (1 - m), 0.9 * m / (1 - m))) - WANTED

    high = brentq(excess, 1e-9, 0.99)
    rate = anytime_rate([0.0] * n, width=2 * half, cells=10_000)
    assert (rate.value, rate.n, rate.low) == (0.0, n, 0.0)
    assert high <= rate.high <= high + 1e-4
    mirrored = anytime_rate([1.0] * n, width=2 * half, cells=10_000)
    assert mirrored.low == pytest.approx(1 - rate.high, abs=1e-9)


def test_right_and_wrong_bet_the_likelihood_ratio() -> None:
    """Of 0 and 1 the wealth against m is the likelihood ratio of m + width / 2."""
    generator = np.random.default_rng(5)
    values = (generator.random(60) < 0.3).astype(float)
    m, half = 0.2, 0.1
    expected = np.where(values > 0, (m + half) / m, (1 - m - half) / (1 - m))
    sequence = BettingSequence(width=2 * half, cells=10)
    for value in values:
        sequence.add(value)
    place = int(np.argmin(abs(sequence._m - m)))
    assert sequence._log[0, 0, place] == pytest.approx(np.log(expected).sum(), rel=1e-12)


def test_an_interval_shrinks_and_holds_the_mean() -> None:
    values = np.random.default_rng(1).beta(1, 3, 80)
    sequence, before = BettingSequence(width=0.2, cells=200), (0.0, 1.0)
    for value in values:
        low, high = sequence.add(value)
        assert low <= sequence.mean <= high
        assert low >= before[0] or low == sequence.mean
        assert high <= before[1] or high == sequence.mean
        before = (low, high)
    assert sequence.mean == pytest.approx(values.mean())


DRAWS: dict[str, tuple[float, Callable[[np.random.Generator], float]]] = {
    "rare": (0.05, lambda g: float(g.random() < 0.05)),
    "even": (0.5, lambda g: float(g.random() < 0.5)),
    "shares": (0.2, lambda g: float(g.binomial(10, g.beta(1, 4))) / 10),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_the_interval_covers_at_all_times_on_both_sides(kind: str) -> None:
    """Over all looks together at most 2.5 % of runs miss on either side; alpha of the test 1e-5."""
    truth, draw = DRAWS[kind]
    generator, runs, below, above, naive = np.random.default_rng(7), 80, 0, 0, 0
    for _ in range(runs):
        sequence, values = BettingSequence(width=0.25, cells=100), []
        for _ in range(70):
            values.append(draw(generator))
            sequence.add(values[-1])
        below += sequence._high < truth
        above += sequence._low > truth
        naive += any(not wilson(int(sum(values[:k]) + 0.5), k).low <= truth for k in range(10, 71))
    limit = binom.isf(1e-5, runs, 0.025)
    assert below <= limit
    assert above <= limit
    if kind == "even":  # the interval for one look, looked at 60 times, misses far more often
        assert naive > limit


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.04])
def test_a_rare_rate_needs_a_third_of_the_fixed_number(rate: float) -> None:
    generator, used = np.random.default_rng(3), []
    for _ in range(6):
        sequence = BettingSequence(width=0.05, cells=2000)
        while True:
            low, high = sequence.add(float(generator.random() < rate))
            if high - low <= 0.05:
                break
        used.append(sequence.n)
    assert 3 * np.mean(used) <= FIXED


@pytest.mark.parametrize("discordant", [0.25, 0.5])
def test_twice_the_designed_difference_needs_a_third_of_the_fixed_number(discordant: float) -> None:
    """Designed: 10 points at 80 % power, two-sided 5 %; true: 20 points."""
    designed = 0.1
    fixed = math.ceil((1.96 + 0.8416) ** 2 * (discordant - designed**2) / designed**2)
    generator, used = np.random.default_rng(4), []
    for _ in range(12):
        sequence = DifferenceSequence(horizon=fixed, cells=400)
        for draw in generator.random(fixed):
            won, lost = (discordant + 2 * designed) / 2, discordant
            low, high = sequence.add(1.0 if draw < won else -1.0 if draw < lost else 0.0)
            if low > 0 or high < 0:
                break
        assert low > 0
        used.append(sequence.n)
    assert 3 * np.mean(used) <= fixed


def test_no_difference_is_rarely_called_one() -> None:
    """Of 60 comparisons of equal rates at most 5 % are decided, up to chance (alpha 1e-5)."""
    generator, wrong = np.random.default_rng(6), 0
    for _ in range(60):
        sequence = DifferenceSequence(horizon=80, cells=100)
        for difference in generator.choice([-1.0, 0.0, 1.0], 80, p=[0.2, 0.6, 0.2]):
            low, high = sequence.add(difference)
            if low > 0 or high < 0:
                wrong += 1
                break
    assert wrong <= binom.isf(1e-5, 60, 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BettingSequence(), "both missing"),
        (lambda: BettingSequence(width=0.1, horizon=5), "both given"),
        (lambda: BettingSequence(width=1.0), "width 1 is not"),
        (lambda: BettingSequence(width=0.1, level=0), "level 0"),
        (lambda: BettingSequence(width=0.1, multiples=()), "no bet"),
        (lambda: BettingSequence(width=0.1).add(1.5), "value 1.5"),
        (lambda: DifferenceSequence(horizon=5).add(-1.5), "difference -1.5"),
        (lambda: anytime_rate([], width=0.1), "no values"),
        (lambda: Goal.read("width"), "not understood"),
        (lambda: Goal.read("width 0"), "width 0"),
        (lambda: Goal.read("width five"), "width 'five'"),
        (lambda: Goal.read("better as runs/x"), "not understood"),
        (lambda: Goal.read("better than"), "not understood"),
        (lambda: Robustness(until="bettr"), "not understood"),
    ],
)
def test_what_is_no_question_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        make()


def test_the_order_is_random_and_the_same_for_every_part() -> None:
    order = keyed_order(range(1000))
    assert sorted(order) == list(range(1000))
    assert keyed_order(reversed(range(1000))) == order
    assert [i for i in order if i % 3 == 0] == keyed_order(range(0, 1000, 3))
    places = np.argsort(order)
    assert abs(np.corrcoef(places, np.arange(1000))[0, 1]) < 0.14  # 4.4 standard deviations


def test_the_rule_is_applied_image_by_image() -> None:
    order = list(range(200))
    values = {i: float(i % 10 == 0) for i in order}
    one = Follower("width 20", 0.2, order)
    for done in range(1, 201):
        one.read({i: values[i] for i in range(done)})
    all_at_once = Follower("width 20", 0.2, order)
    first, second = one.standing(values), all_at_once.standing(values)
    assert first == second
    assert first is not None
    assert first.verdict == "answered"
    assert len(first.used) < 200 == first.computed
    assert first.rate.high - first.rate.low <= 0.2
    shorter = Follower("width 20", 0.2, order[: len(first.used) - 1]).standing(values)
    assert shorter is not None
    assert shorter.verdict == "undecided"
    gap = Follower("width 20", 0.2, order).standing({i: v for i, v in values.items() if i != 4})
    assert gap is not None
    assert gap.verdict == "open"
    assert gap.used == (0, 1, 2, 3)
    assert Follower("width 20", 0.2, order).standing({}) is None


@pytest.mark.parametrize(("sign", "verdict"), [(1, "better"), (-1, "worse"), (0, "undecided")])
def test_a_comparison_says_who_is_better(sign: int, verdict: str) -> None:
    order = list(range(60))
    values = {i: 0.5 + 0.4 * sign * (i % 3 > 0) for i in order}
    standing = Follower("better than x", None, order, dict.fromkeys(order, 0.5)).standing(values)
    assert standing is not None
    assert standing.verdict == verdict
    assert standing.difference is not None
    assert standing.difference.interval is not None
    low, high = standing.difference.interval
    assert -1 <= low <= standing.difference.value <= high <= 1
    assert (verdict in standing.words and f"of {len(order)}" in standing.words) or sign == 0


BASE: dict[str, Any] = {
    "dataset": "digits",
    "defense": "none",
    "attack": "pgd",
    "attack_options": {"steps": 3, "step_size": 0.1},
    "randomness": "fixed",
}


def told(report: Any) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(report.to_json()))
    values["until"].pop("computed", None)
    return {k: v for k, v in values.items() if k not in ("run", "seconds", "notes")}


def test_a_run_stops_alike_for_every_batch_size_and_after_an_interruption(tmp_path: Path) -> None:
    study = Robustness(**BASE, n=50, until="width 40")
    whole = study.run(out=tmp_path / "whole")
    assert whole.standing is not None
    assert whole.standing.verdict == "answered"
    assert whole.n == len(whole.standing.used) < whole.standing.available == 50
    other = study.run(out=tmp_path / "other", batch_size=7)
    assert told(other) == told(whole)
    assert other.standing is not None
    assert other.standing.computed - other.n < 7

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(out=tmp_path / "parts", progress=stop, batch_size=9)
    with RecordStore.read(tmp_path / "parts") as store:
        part = Robustness.report(store)
        assert part.standing is not None
        assert part.standing.verdict == "open"
        assert "the same command goes on" in part.display().headline
    assert told(study.run(out=tmp_path / "parts", batch_size=6)) == told(whole)
    again = study.run(out=tmp_path / "parts")
    assert ALREADY_COMPLETE in again.notes
    assert told(again) == told(whole)
    assert not any("images are done" in note for note in whole.notes)
    rate = whole.headline("adversarial")
    assert rate.method == "betting confidence sequence"
    assert rate.high - rate.low <= 0.4
    clean = anytime_rate([1.0] * whole.n, width=0.4, cells=1000)
    assert whole.headline("clean")[2:4] == clean[2:4]
    assert Robustness.draw(RecordStore.read(tmp_path / "whole"), tmp_path / "a.png").is_file()
    assert Verification(run=str(tmp_path / "whole")).verify().passed


def test_a_run_ends_undecided_with_its_images(tmp_path: Path) -> None:
    report = Robustness(**BASE, n=12, until="width 5").run(out=tmp_path)
    assert report.standing is not None
    assert report.standing.verdict == "undecided"
    assert report.n == 12
    assert "undecided" in report.display().headline
    with RecordStore.read(tmp_path) as store:
        assert store.finished


@pytest.mark.slow
def test_better_than_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = Robustness(**{**BASE, "n": 24})
    weak.run(out=tmp_path / "weak")
    words = f"better than {tmp_path / 'weak'}"
    study = Robustness(**{**BASE, "defense": "onestep-edm", "until": words})
    report = study.run(out=tmp_path / "cm", batch_size=12)
    standing = report.standing
    assert standing is not None
    assert standing.available == 24
    assert standing.verdict in ("better", "undecided")
    assert standing.difference is not None
    assert report.tree()["until"]["difference"].anytime
    assert told(study.run(out=tmp_path / "again", batch_size=50)) == told(report)
    assert Verification(run=str(tmp_path / "cm")).verify().passed
    (comparison,) = Comparing(runs=(tmp_path / "weak", tmp_path / "cm")).compare()
    (robust,) = [each for each in comparison.estimates if each.at == "robust_accuracy"]
    assert robust.difference.n == report.n
    assert robust.difference.interval is not None
    refused = {
        "attack.steps 4 is 3": {"attack_options": {"steps": 4, "step_size": 0.1}},
        "attack.eps 0.1 is 0.15": {"eps": 0.1},
        "subset train is of another split": {"subset": "train", "n": 3},
        "none of these images": {"subset": "100:103"},
        "no run folder": {"until": "better than nowhere"},
    }
    for message, change in refused.items():
        with pytest.raises(BadInput, match=message):
            Robustness(**{**BASE, "defense": "cm", "until": words, **change}).load()
    unfinished = Robustness(**{**BASE, "n": 9})

    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unfinished.run(out=tmp_path / "half", progress=stop, batch_size=3)
    with pytest.raises(BadInput, match="not finished"):
        Robustness(**{**BASE, "until": f"better than {tmp_path / 'half'}"}).load()


def test_the_command_line_and_a_sweep_take_a_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["attack", "--dataset", "digits", "-d", "none", "-n", "40"]
    words += ["--attack", "pgd", "--steps", "1", "--fix-random"]
    assert run([*words, "--until", "width 40", "--json", "-q"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["until"]["goal"] == "width 40"
    assert said["settings"]["until"] == {"width": 0.4}
    assert said["settings"]["n"] == said["until"]["available"] == 40 > said["n"]
    Path("s.yaml").write_text(
        "name: goals\nverb: attack\nbase: {dataset: digits, defense: none, attack: pgd, n: 40,\n"
        "  attack_options: {steps: 1}, randomness: fixed}\n"
        "grid: {until: [width 40, width 50]}\n"
    )
    assert run(["sweep", "s.yaml", "--jobs", "1", "--json", "-q"]) == 0
    points = json.loads(capsys.readouterr().out)["points"]
    assert points[0]["values"]["robust"]["n"] == said["n"] > points[1]["values"]["robust"]["n"]


def test_differences_with_a_run_that_stopped_hold_at_any_time() -> None:
    images = {i: float(i % 2) for i in range(40)}
    stopped = Estimate(value=0.5, by_image=images, anytime=True)
    other = Estimate(value=0.0, by_image=dict.fromkeys(range(40), 0.0))
    anytime, plain = (
        subtract(each, other, LEVEL)
        for each in (
            stopped,
            Estimate(
                **{
                    "value": 0.5,
                    "by_image": images,
                }
            ),
        )
    )
    assert anytime.interval is not None
    assert plain.interval is not None
    assert anytime.interval.low < plain.interval.low < plain.interval.high < anytime.interval.high
    assert anytime.value == plain.value
    assert anytime.n == plain.n == 40
    lengths = Estimate(value=3.0, by_image={0: 3.0, 1: 3.0}, anytime=True)
    assert subtract(lengths, other, LEVEL).interval is None
