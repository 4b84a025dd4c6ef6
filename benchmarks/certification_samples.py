"""Samples of an image's certificates: ``python -m benchmarks.certification_samples``.

Every procedure is a pure function of the blocks that were drawn, so what each of them draws and
certifies is read from the same counts: all N samples of every image, drawn by ``fixed``. One run
more, `LEAN`, has its own: fewer samples select the class, and blocks are smaller.

``before``: the evidence of ``anytime``, looks a tenth apart, and a radius is given up when the rest
of the budget could not certify it at the upper 95 % bound of the rate. ``anytime`` with a flat
prior and with that of the data set; ``sequential`` with the latter, and with a larger futility,
which gives up sooner. The errors are exact: the distribution of the successes is carried from look
to look.

``--priors digits`` learns the shipped priors first, from training images.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import fftconvolve
from scipy.special import betaincinv
from scipy.stats import binom

from advpure.analysis.certification import AnytimeRule, Certification
from advpure.analysis.certification.anytime import (
    _fewest,
    _is_worth_it,
    log_evidence,
    looks,
)
from advpure.analysis.certification.prior import FLAT, SHIPPED, Prior, prior_of_run, read_prior
from advpure.analysis.certification.procedures import Procedure
from advpure.analysis.certification.radius import ALPHA, read_sigmas, samples_needed
from advpure.analysis.certification.tallies import Tallies, Tally
from advpure.analysis.certification.two_stage import top_class
from advpure.runs.records import RecordStore
from advpure.statistics.rates import mean_interval

RESULTS = Path(__file__).with_name("certificates.json")
RADII = (0.25, 0.5, 0.75, 1.0)
BUDGET = 9_984
EAGER = 0.1
"""A larger value of futility, beside the default."""

COUNTS = Certification(
    defense="cm-ft", dataset="digits", n=100, sigmas=(0.25, 0.5, 1.0), samples=BUDGET, radii=RADII,
    selection=100, block=64,
)  # fmt: skip
ANYTIME = replace(COUNTS, procedure="anytime")
SEQUENTIAL = replace(COUNTS, procedure="sequential")
PROCEDURES = {
    "fixed": COUNTS,
    "anytime, flat prior": replace(ANYTIME, prior="flat"),
    "anytime": ANYTIME,
    "sequential": SEQUENTIAL,
    f"sequential, futility {EAGER:g}": replace(SEQUENTIAL, futility=EAGER),
}
LEAN = replace(SEQUENTIAL, futility=EAGER, selection=32, block=32)
_LEAN = f"sequential, futility {EAGER:g}, selection 32, block 32"
_LEAST, _BEFORE = "least possible", "before"
TRAINING: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "digits": (
        {"defense": "cm-ft", "n": 100, "sigmas": 0.25, "samples": 1920},
        {"defense": "cm-ft", "n": 48, "sigmas": (0.5, 1.0), "samples": 640},
    ),
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
        found: dict[str, Any] = {"commands": [], "sigmas": {}}
        for k, more in enumerate(TRAINING[dataset]):
            place = folder / f"prior-{dataset}-{k}"
            run = Certification(dataset=dataset, subset="train", block=COUNTS.block, **more)
            run.run(out=place)
            sigmas = ",".join(f"{sigma:g}" for sigma in read_sigmas(run.sigmas))
            found["commands"].append(
                f"advpure certify --dataset {dataset} --subset train --defense {run.defense} "
                f"-n {run.n} --sigma {sigmas} -N {run.samples} --block {run.block}"
            )
            learned = prior_of_run(place)
            found["sigmas"] |= {str(sigma): prior for sigma, prior in learned.items()}
        shipped[dataset] = found
    SHIPPED.write_text(json.dumps(shipped, indent=1) + "\n")


def measure(folder: Path) -> dict[str, Any]:
    """Read every procedure from the same counts, and compute the errors.

    Args:
        folder: Where the counts are kept; what is there is not counted again.
    """
    counts = _counted(COUNTS, folder / "certification-counts")
    lean = _counted(LEAN, folder / "certification-lean")
    return {
        "alpha": ALPHA, "budget": BUDGET, "selection": COUNTS.selection, "radii": RADII,
        "dataset": COUNTS.dataset, "defense": COUNTS.defense, "n": COUNTS.n,
        "levels": [_level(counts, lean, sigma) for sigma in read_sigmas(COUNTS.sigmas)],
        "errors": list(_errors()), "sharpness": list(_sharpness()), "published": PUBLISHED,
    }  # fmt: skip


def _counted(run: Certification, folder: Path) -> Tallies:
    run.run(out=folder)
    with RecordStore.read(folder) as store:
        return Tallies().read([store])


@dataclass
class _Found:
    """Samples and certified share of the radii of each image."""

    samples: list[float]
    certified: list[float]

    def add(self, samples: float, certified: int, right: bool) -> None:
        self.samples.append(samples)
        self.certified.append(certified * right / len(RADII))


def _level(counts: Tallies, lean: Tallies, sigma: float) -> dict[str, Any]:
    """Compare the procedures at one noise level."""
    asked = {name: (each.resolved_procedure(), counts) for name, each in PROCEDURES.items()}
    asked |= {_LEAN: (LEAN.resolved_procedure(), lean)}
    found = {name: _Found([], []) for name in (_LEAST, _BEFORE, *asked)}
    rule = AnytimeRule(radii=RADII, sigma=sigma, budget=BUDGET)
    for i in counts.samples():
        for name, (procedure, tallies) in asked.items():
            _add(found[name], procedure, tallies.of(i, [sigma])[sigma])
        tally = counts.of(i, [sigma])[sigma]
        assert tally.selection is not None
        top = top_class(tally.selection)
        hits = [block.get(top, 0) for block in tally.first_blocks(BUDGET // COUNTS.block_size)]
        drawn, certified = _before(rule, hits)
        found[_BEFORE].add(drawn + COUNTS.selection, certified, top == tally.label)
        needed = samples_needed(RADII[certified - 1], ALPHA, sigma) if certified else 0
        assert needed is not None
        found[_LEAST].add(needed + COUNTS.selection, certified, top == tally.label)
    return {
        "sigma": sigma,
        "samples": {name: _mean(each.samples) for name, each in found.items()},
        "certified": {name: _mean(each.certified) for name, each in found.items()},
        "from before": {
            name: _mean(
                [a - b for a, b in zip(each.certified, found[_BEFORE].certified, strict=True)],
                within=(-1.0, 1.0),
            )
            for name, each in found.items()
            if name not in (_LEAST, _BEFORE)
        },
    }


def _add(found: _Found, procedure: Procedure, tally: Tally) -> None:
    ((_, certificate),) = procedure.certificates({tally.sigma: tally})
    certified = sum(certificate.radius >= radius for radius in RADII)
    right = certificate.prediction == tally.label
    found.add(certificate.samples, certified if right else 0, right)


def _mean(values: list[float], within: tuple[float, float] | None = None) -> dict[str, Any]:
    mean = mean_interval(values, within=within or (0.0, math.inf))
    return {"value": mean.value, "interval": list(mean.interval or ()), "n": mean.n}


def _before(rule: AnytimeRule, hits: list[int]) -> tuple[int, int]:
    """Follow an image by the rule that today's replaced."""
    block = COUNTS.block_size
    totals, wanted, certified = np.cumsum(hits), math.log(1.0 / rule.alpha), 0
    for n in looks(block, BUDGET, 0.1):
        s = int(totals[n // block - 1])
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
                planned = replace(rule, planned=True)
                yield {
                    "alpha": alpha, "p": rule.levels[0], "prior": name, "shape": prior.shape,
                    "anytime": [_error(rule, stopping=each) for each in (False, True)],
                    "sequential": [_error(planned, stopping=each) for each in (False, True)],
                }  # fmt: skip


def _shipped() -> dict[str, Prior]:
    return {"digits 0.25": read_prior(None, "digits", [0.25])[0]}


def _error(rule: AnytimeRule, *, stopping: bool) -> float:
    """Return the exact probability of a certificate if the class has just the boundary's p."""
    alive, before, wrong = np.array([1.0]), 0, 0.0
    (p,) = rule.levels
    fewest = _fewest(rule, COUNTS.block_size)[:, 0]
    for look, n in enumerate(looks(COUNTS.block_size, rule.budget)):
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
        if _is_worth_it(rule, COUNTS.block_size, (0, 0), look, middle, 0):
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
    levels = results["levels"]
    names = list(levels[0]["samples"])
    head = " | ".join(
        f"sigma {level['sigma']:g}: samples | certified % | points from before" for level in levels
    )
    lines = [f"| procedure | {head} | samples / before, mean |", "|" + " --- |" * 11]
    for name in names:
        cells, shares = [], []
        for level in levels:
            samples, certified = level["samples"][name]["value"], level["certified"][name]["value"]
            moved = level["from before"].get(name)
            cells += [f"{samples:,.0f}", f"{100 * certified:.1f}", _points(moved) if moved else ""]
            shares.append(samples / level["samples"][_BEFORE]["value"])
        lines.append(f"| {name} | {' | '.join(cells)} | {statistics.mean(shares):.2f} |")
    radii = ", ".join(f"{radius:g}" for radius in results["radii"])
    lines += [
        "",
        f"Digits, `{results['defense']}`, {results['n']} images; samples an image, those of the "
        f"selection included, {results['selection']} but for the last row; N = "
        f"{results['budget']:,}, alpha {results['alpha']:g}, radii {radii}; certified: the mean "
        "over the radii of the share of images that are certified with their label; differences "
        "paired over images, 95 % interval, in the last row of other noise. "
        f"*{_LEAST}*: what no procedure can do without for the "
        f"certificates of *{_BEFORE}*, if every sample agreed.",
        "",
        "| alpha | p of a radius | b | error of `anytime`, none given up | with giving up "
        "| error of `sequential`, none given up | with giving up |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in results["errors"]:
        errors = [*row["anytime"], *row["sequential"]]
        cells = [f"{each / row['alpha']:.2f} alpha" for each in errors]
        lines.append(
            f"| {row['alpha']} | {row['p']:.4f} | {row['shape']:.2f} | {' | '.join(cells)} |"
        )
    claims = "; ".join(
        f"{row['source']}: {row['times']} times fewer ({row['what']})"
        for row in results["published"]
    )
    ours = ", ".join(
        f"{level['samples']['fixed']['value'] / level['samples']['sequential']['value']:.0f} times "
        f"fewer at sigma {level['sigma']:g}"
        for level in levels
    )
    worst = [row for row in results["sharpness"] if row["known"] and row["flat"]]
    times = [row["flat"] / row["known"] for row in worst]
    lines += [
        "",
        "Errors are exact: the probability that a class with just the p of a radius is certified "
        "at it, where the evidence has this b of the proof and nothing was selected. "
        f"Beside N samples `sequential` takes {ours}. Published, by "
        f"other protocols: {claims}. A test that knew the class's probability would need "
        f"{min(times):.2f} to {max(times):.2f} times fewer samples for a certificate than the "
        "mixture of `anytime`.",
    ]
    return "\n".join(lines)


def _points(paired: Mapping[str, Any]) -> str:
    low, high = (100 * each for each in paired["interval"])
    return f"{100 * paired['value']:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    """Measure, and store the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certification_samples")
    parser.add_argument("--counts", default="runs", type=Path, help="folder of the counts; kept")
    parser.add_argument("--priors", nargs="+", choices=tuple(TRAINING), help="learn these first")
    given = parser.parse_args()
    learn_priors(given.counts, given.priors or ())
    RESULTS.write_text(json.dumps(measure(given.counts), indent=1) + "\n")
    print(tables(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
