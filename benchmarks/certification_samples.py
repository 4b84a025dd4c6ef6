"""Samples of an image's certificates: ``python -m benchmarks.certification_samples``.

Every procedure is a pure function of the blocks that were drawn, so what each of them draws and
certifies is read from the same counts: a run of ``certify --procedure anytime`` that gives up late.
Where a procedure goes on beyond its blocks, further blocks are replayed: binomial, with a rate from
the image's posterior (Beta, Jeffreys' prior).

``before``: the same evidence, looks a tenth apart, and a radius is given up when the rest of the
budget could not certify it at the upper 95 % bound of the rate. ``flat`` and ``learned``: today's
rule without a prior and with that of the data set, the latter with a larger futility too, which
gives up sooner. ``fixed``: Clopper and Pearson after N samples.
The errors are exact, to 1e-12: the distribution of the successes is carried from look to look.

``--priors`` learns the shipped priors first, from training images.
"""

import argparse
import functools
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import betaincinv
from scipy.stats import binom

from advpure.analysis.certification import AnytimeRule, Certification, follow
from advpure.analysis.certification.anytime import (
    FUTILITY,
    _fewest,
    _is_worth_it,
    log_evidence,
    looks,
)
from advpure.analysis.certification.prior import FLAT, SHIPPED, Prior, prior_of_run, read_prior
from advpure.analysis.certification.radius import ALPHA, read_sigmas
from advpure.analysis.certification.tallies import Tallies, Tally
from advpure.analysis.certification.two_stage import top_class
from advpure.runs.records import RecordStore
from advpure.statistics.rates import clopper_pearson_lower, mean_interval

RESULTS = Path(__file__).with_name("certificates.json")
RADII = (0.25, 0.5, 0.75, 1.0)
BUDGET, BLOCK, SELECTION, REPLAYS = 9_984, 64, 100, 3
EAGER = (0.1, 0.15)
"""Larger values of futility, beside the default."""

PROCEDURES = ("fixed", "before", "flat", "learned", *map(str, EAGER))

_LATE = {"procedure": "anytime", "futility": 0.02, "prior": "flat", "radii": RADII}
DIGITS = Certification(
    defense="cm-ft", dataset="digits", n=30, sigmas=(0.25, 0.5, 1.0), samples=BUDGET, **_LATE
)
CIFAR = Certification(
    defense="cm", dataset="cifar10", n=20, sigmas=0.5, samples=384, selection=100, block=BLOCK
)
RUNS = {"digits": DIGITS, "cifar10": CIFAR}
TRAINING = {
    "digits": (
        {"defense": "cm-ft", "n": 100, "sigmas": 0.25, "samples": 1920},
        {"defense": "cm-ft", "n": 48, "sigmas": (0.5, 1.0), "samples": 640},
    ),
    "cifar10": ({"defense": "cm", "n": 20, "sigmas": 0.5, "samples": 384},),
}
"""Runs on training images that the shipped priors are learned from."""

PUBLISHED = [
    {"source": "[Cullen2026]", "times": 20, "what": "prior by a network, sequential e-process"},
    {"source": "[Voracek2024]", "times": 10, "what": "betting and union-bound sequences"},
]
"""What others claim, each beside a fixed number, by their protocols."""


def learn_priors(folder: Path, datasets: Sequence[str]) -> None:
    """Count on training images and write the shipped priors, each with the command that made it."""
    shipped: dict[str, Any] = json.loads(SHIPPED.read_text())
    for dataset in datasets:
        runs = TRAINING[dataset]
        shipped[dataset] = {"commands": [], "sigmas": {}}
        for k, more in enumerate(runs):
            place = folder / f"prior-{dataset}-{k}"
            run = Certification(dataset=dataset, subset="train", block=BLOCK, **more)
            run.run(out=place)
            sigmas = ",".join(f"{sigma:g}" for sigma in read_sigmas(run.sigmas))
            shipped[dataset]["commands"].append(
                f"advpure certify --dataset {dataset} --subset train --defense {run.defense} "
                f"-n {run.n} --sigma {sigmas} -N {run.samples} --block {BLOCK}"
            )
            learned = prior_of_run(place)
            shipped[dataset]["sigmas"] |= {str(sigma): prior for sigma, prior in learned.items()}
    SHIPPED.write_text(json.dumps(shipped, indent=1) + "\n")


def measure(folder: Path, datasets: Sequence[str]) -> dict[str, Any]:
    """Read every procedure from the same counts, and compute the errors.

    Args:
        folder: Where the counts are kept; what is there is not counted again.
        datasets: Some of `RUNS`.
    """
    runs = []
    for name in datasets:
        run = RUNS[name]
        run.run(out=folder / f"certification-{name}")
        with RecordStore.read(folder / f"certification-{name}") as store:
            tallies = Tallies().read([store])
        levels = [_level(tallies, run, sigma) for sigma in read_sigmas(run.sigmas)]
        runs.append({"dataset": name, "defense": run.defense, "n": run.n, "levels": levels})
    return {
        "alpha": ALPHA, "budget": BUDGET, "selection": SELECTION, "radii": RADII,
        "replays": REPLAYS, "runs": runs, "errors": list(_errors()),
        "sharpness": list(_sharpness()), "published": PUBLISHED,
    }  # fmt: skip


def _level(tallies: Tallies, run: Certification, sigma: float) -> dict[str, Any]:
    """Compare the procedures at one noise level."""
    draws = np.random.Generator(np.random.Philox(7))
    (prior,) = read_prior(None, run.dataset, [sigma])
    samples = {name: np.zeros(run.n or 0) for name in PROCEDURES}
    right = {name: np.zeros(run.n or 0) for name in PROCEDURES}
    for k, i in enumerate(tallies.samples()):
        tally = tallies.of(i, [sigma])[sigma]
        assert tally.selection is not None
        top = top_class(tally.selection)
        agree = tally.selection[top]
        for _ in range(REPLAYS):
            hits = _hits(tally, top, draws)
            answers = _answers(sigma, prior, hits, (agree, SELECTION - agree))
            for name, (drawn, certified) in answers.items():
                samples[name][k] += (drawn + SELECTION) / REPLAYS
                right[name][k] += certified * (top == tally.label) / len(RADII) / REPLAYS
    return {
        "sigma": sigma,
        "samples": {name: _mean(each) for name, each in samples.items()},
        "certified": {name: _mean(each) for name, each in right.items()},
        "paired": {
            f"{name} - {other}": _mean(right[name] - right[other], within=(-1.0, 1.0))
            for name in ("flat", "learned", *map(str, EAGER))
            for other in ("before", "fixed")
        },
    }


def _mean(values: Any, within: tuple[float, float] | None = None) -> dict[str, Any]:
    mean = mean_interval(values.tolist(), within=within or (0.0, math.inf))
    return {"value": mean.value, "interval": list(mean.interval or ()), "n": mean.n}


def _hits(tally: Tally, top: int, draws: np.random.Generator) -> list[int]:
    """Return the agreeing samples of every block: counted, then replayed."""
    blocks = BUDGET // BLOCK
    counted = [block.get(top, 0) for block in tally.first_blocks(blocks)]
    agreed, n = sum(counted), BLOCK * len(counted)
    rate = draws.beta(agreed + 0.5, n - agreed + 0.5)
    return [*counted, *draws.binomial(BLOCK, rate, blocks - len(counted)).tolist()]


def _answers(
    sigma: float, prior: Prior, hits: Sequence[int], selected: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Return samples and certified radii of every procedure."""
    rules = {"flat": _rule(sigma, FLAT), "learned": _rule(sigma, prior)}
    rules |= {str(futility): _rule(sigma, prior, futility) for futility in EAGER}
    states = {name: follow(rule, hits, BLOCK, selected) for name, rule in rules.items()}
    bound = clopper_pearson_lower(sum(hits), BUDGET, ALPHA)
    reached = sum(bound >= level for level in _rule(sigma, FLAT).levels)
    return {
        "fixed": (BUDGET, reached),
        "before": _before(_rule(sigma, FLAT), hits),
        **{name: (state.samples, state.certified) for name, state in states.items()},
    }


@functools.cache
def _rule(sigma: float, prior: Prior, futility: float = FUTILITY) -> AnytimeRule:
    return AnytimeRule(radii=RADII, sigma=sigma, budget=BUDGET, prior=prior, futility=futility)


def _before(rule: AnytimeRule, hits: Sequence[int]) -> tuple[int, int]:
    """Follow an image by the rule that today's replaced."""
    totals, wanted, certified = np.cumsum(hits), math.log(1.0 / rule.alpha), 0
    for n in looks(BLOCK, BUDGET, 0.1):
        s = int(totals[n // BLOCK - 1])
        while certified < len(RADII) and _evidence(rule, s, n, certified) >= wanted:
            certified += 1
        if certified == len(RADII):
            break
        upper = float(betaincinv(s + 1.0, n - s, 0.95)) if n > s else 1.0
        hoped = s + upper * (BUDGET - n)
        if _evidence(rule, hoped, BUDGET, certified) < wanted:
            break
    return n, certified


def _evidence(rule: AnytimeRule, successes: float, samples: int, radius: int) -> float:
    level = rule.levels[radius]
    return float(log_evidence(successes, samples - successes, level)) if level < 1.0 else -math.inf


def _errors() -> Iterator[dict[str, Any]]:
    """Yield the probability that a boundary case is certified, whose error is largest."""
    for alpha in (0.05, ALPHA):
        for ratio in (0.5, 1.0, 2.0):
            for name, prior in {"flat": FLAT, **_shipped()}.items():
                rule = AnytimeRule(
                    radii=(ratio * 0.25,), sigma=0.25, alpha=alpha, budget=BUDGET, prior=prior
                )
                tested, stopped = (_error(rule, stopping=each) for each in (False, True))
                yield {
                    "alpha": alpha, "p": rule.levels[0], "prior": name, "shape": prior.shape,
                    "test": tested, "procedure": stopped,
                }  # fmt: skip


def _shipped() -> dict[str, Prior]:
    return {"digits 0.25": read_prior(None, "digits", [0.25])[0]}


def _error(rule: AnytimeRule, *, stopping: bool) -> float:
    """Return the exact probability of a certificate if the class has just the boundary's p."""
    alive, before, wrong = np.array([1.0]), 0, 0.0
    (p,) = rule.levels
    fewest = _fewest(rule, BLOCK)[:, 0]
    for look, n in enumerate(looks(BLOCK, rule.budget)):
        alive = fftconvolve(alive, binom.pmf(np.arange(n - before + 1), n - before, p))
        wrong += alive[fewest[look] :].sum()
        alive[fewest[look] :] = 0.0
        if stopping:
            alive[: _given_up(rule, look, int(min(fewest[look], n + 1)))] = 0.0
        before = n
    return float(wrong)


def _given_up(rule: AnytimeRule, look: int, enough: int) -> int:
    """Return the fewest successes with which sampling goes on."""
    few = -1
    while enough - few > 1:
        middle = (few + enough) // 2
        if _is_worth_it(rule, BLOCK, (0, 0), look, middle, 0):
            enough = middle
        else:
            few = middle
    return enough


def _sharpness() -> Iterator[dict[str, Any]]:
    """Yield the samples at which the evidence suffices if every block is average."""
    n = np.unique(np.geomspace(8, 60_000, 2000).astype(int))
    for p in (0.6915, 0.8413, 0.9772, 0.9987):
        for share in (0.0, 0.25, 0.5):
            q = 1.0 - share * (1.0 - p)
            gain = math.log(q / p) * q
            if share:
                gain += (1.0 - q) * math.log((1.0 - q) / (1.0 - p))
            row = {"p": p, "u": share, "known": math.ceil(math.log(1.0 / ALPHA) / gain)}
            for name, shape in {"flat": FLAT.shape, "low": 0.2, "high": 0.65}.items():
                enough = log_evidence(q * n, n - q * n, p, shape) >= math.log(1.0 / ALPHA)
                row[name] = int(n[np.argmax(enough)]) if enough.any() else None
            yield row


def tables(results: Mapping[str, Any]) -> str:
    """Write the results as Markdown."""
    radii = ", ".join(f"{radius:g}" for radius in results["radii"])
    names = ["fixed", "before", "flat prior", "learned prior"]
    names += [f"futility {futility:g}" for futility in EAGER]
    lines = [f"| data, sigma, n | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    for run in results["runs"]:
        name, levels = f"{run['dataset']}, `{run['defense']}`", run["levels"]
        for level in levels:
            head = f"{name}, {level['sigma']:g}, {run['n']}"
            samples, certified = level["samples"], level["certified"]
            cells = [f"{samples[each]['value']:,.0f}" for each in PROCEDURES]
            lines.append(f"| {head}: samples | {' | '.join(cells)} |")
            cells = [f"{100 * certified[each]['value']:.1f}" for each in PROCEDURES]
            lines.append(f"| certified % | {' | '.join(cells)} |")
            cells = [_points(level["paired"][f"{each} - before"]) for each in PROCEDURES[2:]]
            lines.append(f"| certified, points from before | | | {' | '.join(cells)} |")
        shares = [
            statistics.mean(
                level["samples"][each]["value"] / level["samples"]["before"]["value"]
                for level in levels
            )
            for each in PROCEDURES[2:]
        ]
        cells = [f"{share:.2f}" for share in shares]
        lines.append(f"| {name}, mean over sigmas of samples / before | | | {' | '.join(cells)} |")
    lines += [
        "",
        f"Samples an image, {results['selection']} of them for the selection; N = "
        f"{results['budget']:,}, alpha {results['alpha']:g}, radii {radii}; certified: the mean "
        "over the radii of the share of images that are certified with their label; paired over "
        "images, 95 % interval. Beyond the blocks that were drawn: means of "
        f"{results['replays']} replays.",
        "",
        "| alpha | p at the boundary | shape of the mixture | error of the test | error of the "
        "procedure |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['alpha']:g} | {row['p']:.4f} | {row['shape']:.2f} | {row['test']:.2g} = "
        f"{row['test'] / row['alpha']:.2f} alpha | {row['procedure']:.2g} |"
        for row in results["errors"]
    ]
    claims = "; ".join(
        f"{row['source']}: {row['times']} times fewer ({row['what']})"
        for row in results["published"]
    )
    ours = "; ".join(
        f"{1 / (level['samples']['learned']['value'] / level['samples']['fixed']['value']):.0f} "
        f"times at sigma {level['sigma']:g} of {run['dataset']}"
        for run in results["runs"]
        for level in run["levels"]
    )
    worst = [row for row in results["sharpness"] if row["known"] and row["flat"]]
    times = [row["flat"] / row["known"] for row in worst]
    lines += [
        "",
        f"Errors are exact. Beside N samples: {ours}. Published, by other protocols: {claims}. A "
        f"test that knew the class's probability would need {min(times):.2f} to {max(times):.2f} "
        "times fewer samples for a certificate than the mixture.",
    ]
    return "\n".join(lines)


def _points(paired: Mapping[str, Any]) -> str:
    low, high = (100 * each for each in paired["interval"])
    return f"{100 * paired['value']:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Measure, and store the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certification_samples")
    parser.add_argument("--counts", default="runs", type=Path, help="folder of the counts; kept")
    parser.add_argument("--priors", action="store_true", help="learn the shipped priors first")
    parser.add_argument("--data", nargs="+", choices=tuple(RUNS), default=["digits"])
    given = parser.parse_args()
    if given.priors:
        learn_priors(given.counts, given.data)
    RESULTS.write_text(json.dumps(measure(given.counts, given.data), indent=1) + "\n")
    print(tables(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
