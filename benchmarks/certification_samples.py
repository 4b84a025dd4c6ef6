"""Samples that the anytime procedure draws where the fixed procedure draws N, same counts.

The fixed procedure is run, its counts kept in small blocks; the anytime procedure is a pure
function of the same blocks, so what it would have drawn and answered is exact, without a second
run. Beyond the blocks that were drawn, N is reached by replay: further blocks of an image are
binomial, with a rate from its posterior (Beta, Jeffreys' prior); the spread is over such replays.

No procedure can certify radius r at noise sigma with fewer than ln(1/alpha) / -ln Phi(r/sigma)
samples; `least` is the share that this takes for what the fixed procedure certifies here.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advpure.analysis.certification import AnytimeRule, Certification, follow, samples_needed
from advpure.analysis.certification.radius import read_sigmas
from advpure.analysis.certification.tallies import Tallies, Tally
from advpure.analysis.certification.two_stage import top_class
from advpure.runs.records import RecordStore
from advpure.statistics.rates import clopper_pearson_lower

MOST = 0.2
"""The most that the anytime procedure may draw of the fixed procedure's samples."""

RADII = (0.25, 0.5, 0.75, 1.0)
ALPHA, BLOCK, SELECTION, REPLAYS = 0.001, 64, 100, 21

DIGITS = Certification(
    defense="cm-ft", dataset="digits", n=20, sigmas=(0.25, 0.5, 1.0), samples=9984, block=BLOCK
)
CIFAR = Certification(
    defense="cm", dataset="cifar10", n=20, sigmas=0.5, samples=384, selection=64, block=BLOCK
)


def measure(folder: str | Path) -> list[dict[str, Any]]:
    """Count on digits and CIFAR-10, and compare the procedures at 10,000 and 100,000 samples.

    Args:
        folder: Where the counts are kept; what is there is not counted again.
    """
    rows = []
    for name, run in (("digits", DIGITS), ("cifar10", CIFAR)):
        place = Path(folder) / f"certification-{name}"
        run.run(out=place)
        with RecordStore.read(place) as store:
            tallies = Tallies().read([store])
        rows += [_compare(run, tallies, samples) for samples in (9_984, 99_968)]
    return rows


def _compare(run: Certification, tallies: Tallies, samples: int) -> dict[str, Any]:
    """Compare the procedures at N samples, per noise level and over all."""
    levels = read_sigmas(run.sigmas)
    draws = np.random.Generator(np.random.Philox(7))
    replays = range(1 if samples <= run.samples else REPLAYS)
    found = [[_level(tallies, sigma, samples, draws) for sigma in levels] for _ in replays]
    whole = [statistics.mean(level["share"] for level in each) for each in found]
    middle = sorted(range(len(whole)), key=whole.__getitem__)[len(whole) // 2]
    return {
        "defense": run.defense, "dataset": run.dataset, "n": run.n, "samples": samples,
        "counted": min(run.samples, samples), "alpha": ALPHA, "radii": list(RADII),
        "sigmas": list(levels), "share": whole[middle], "low": min(whole), "high": max(whole),
        "by_sigma": found[middle],
        "questions": (run.n or 0) * len(levels) * len(RADII),
        "lost": sum(sum(each["fixed"]) - sum(each["anytime"]) for each in found[middle]),
    }  # fmt: skip


def _level(
    tallies: Tallies, sigma: float, samples: int, draws: np.random.Generator
) -> dict[str, Any]:
    """Compare the procedures at one noise level."""
    rule = AnytimeRule(radii=RADII, sigma=sigma, alpha=ALPHA, budget=samples)
    drawn = least = 0
    fixed, anytime = np.zeros(len(RADII), dtype=int), np.zeros(len(RADII), dtype=int)
    ids = tallies.samples()
    for i in ids:
        hits = _hits(tallies.of(i, [sigma])[sigma], samples // BLOCK, draws)
        state = follow(rule, hits, BLOCK)
        bound = clopper_pearson_lower(sum(hits), samples, ALPHA)
        reached = sum(bound >= level for level in rule.levels)
        fixed[:reached] += 1
        anytime[: state.certified] += 1
        drawn += state.samples + SELECTION
        if reached:
            least += samples_needed(RADII[reached - 1], ALPHA, sigma) or 0
    total = len(ids) * (samples + SELECTION)
    return {
        "share": drawn / total, "least": least / total, "fixed": fixed.tolist(),
        "anytime": anytime.tolist(),
    }  # fmt: skip


def _hits(tally: Tally, blocks: int, draws: np.random.Generator) -> Sequence[int]:
    """Return the agreeing samples of every block: counted, then replayed."""
    assert tally.selection is not None
    top = top_class(tally.selection)
    counted = [block.get(top, 0) for block in tally.first_blocks(blocks)]
    agreed, n = sum(counted), BLOCK * len(counted)
    rate = draws.beta(agreed + 0.5, n - agreed + 0.5)
    return [*counted, *draws.binomial(BLOCK, rate, blocks - len(counted)).tolist()]
