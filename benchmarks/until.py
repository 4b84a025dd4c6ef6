"""What stopping early saves: ``python -m benchmarks.until`` simulates and writes until.json.

The images of a run are simulated as independent values; the interval is that of `--until`. The
numbers of images that are fixed beforehand are the least that suffice whatever comes.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

from advpure.statistics.rates import Mean, mean_interval, wilson
from advpure.statistics.sequences import BettingSequence, DifferenceSequence

RESULTS = Path(__file__).with_name("until.json")
WIDTH = 0.05
RATES = {0.0: 1, 0.01: 60, 0.02: 60, 0.05: 60, 0.08: 40, 0.1: 40, 0.25: 15, 0.5: 15}
"""True rates and how many runs of each are simulated."""
PLANNED, POWER, RUNS = 0.1, 0.8, 200
_LONGEST = 6000


def measure() -> dict[str, Any]:
    """Simulate both goals."""
    generator = np.random.default_rng(0)
    widths = [
        {"rate": rate, "draws": 1, **_spread(_until_narrow(_right_or_wrong(rate), runs, generator))}
        for rate, runs in RATES.items()
    ]
    shares = _until_narrow(_shares_of_ten, 40, generator)
    widths.append({"rate": 0.08, "draws": 10, **_spread(shares)})
    better = [
        {
            "differing": differing,
            "difference": times * PLANNED,
            **_better(differing, times, generator),
        }
        for differing in (0.25, 0.5)
        for times in (0, 1, 2, 3)
    ]
    return {
        "width": WIDTH,
        "fixed": {"wilson": _fixed_wilson(0.5), "hoeffding": _fixed_hoeffding()},
        "fixed_known": {str(rate): _fixed_wilson(rate) for rate in (0.05, 0.1)},
        "widths": widths,
        "planned": {"difference": PLANNED, "power": POWER, "runs": RUNS},
        "better": better,
    }


def _right_or_wrong(rate: float) -> Callable[[np.random.Generator], float]:
    return lambda generator: float(generator.random() < rate)


def _shares_of_ten(generator: np.random.Generator) -> float:
    """Return the share of 10 draws of an image whose chance has the mean .08, beta with sum 2."""
    return float(generator.binomial(10, generator.beta(0.16, 1.84))) / 10


def _until_narrow(
    draw: Callable[[np.random.Generator], float], runs: int, generator: np.random.Generator
) -> list[int]:
    """Return at how many images each of several runs stopped."""
    stops = []
    for _ in range(runs):
        sequence = BettingSequence(width=WIDTH)
        while True:
            low, high = sequence.add(draw(generator))
            if high - low <= WIDTH:
                break
            if sequence.n == _LONGEST:
                raise RuntimeError(f"no interval of {WIDTH} within {_LONGEST} images")
        stops.append(sequence.n)
    return stops


def _better(differing: float, times: int, generator: np.random.Generator) -> dict[str, Any]:
    """Simulate paired answers that differ in a share of the images, until one side is better."""
    both = norm.isf(0.025) + norm.ppf(POWER)
    images = math.ceil(both**2 * (differing - PLANNED**2) / PLANNED**2)
    gains = (differing + times * PLANNED) / 2
    used, decided = [], 0
    for _ in range(RUNS):
        sequence = DifferenceSequence(horizon=images)
        for place in generator.random(images):
            low, high = sequence.add(1.0 if place < gains else -1.0 if place < differing else 0.0)
            if low > 0 or high < 0:
                decided += 1
                break
        used.append(sequence.n)
    return {"planned": images, "decided": decided / RUNS, **_spread(used)}


def _spread(counts: list[int]) -> dict[str, Any]:
    """Return the mean number of images with its interval over the simulated runs."""
    mean: Mean = mean_interval([float(each) for each in counts])
    known = len(counts) > 1
    return {
        "runs": len(counts),
        "images": mean.value,
        "interval": list(mean.interval) if mean.interval and known else None,
    }


def _fixed_wilson(rate: float) -> int:
    """Return the least number of images at which Wilson's interval of a rate is narrow."""
    return next(n for n in range(10, _LONGEST) if _width(round(rate * n), n) <= WIDTH)


def _width(right: int, n: int) -> float:
    rate = wilson(right, n)
    return rate.high - rate.low


def _fixed_hoeffding() -> int:
    """Return the least number of images at which Hoeffding's interval is narrow."""
    return math.ceil(2 * math.log(2 / 0.05) / WIDTH**2)


def tables(results: Mapping[str, Any]) -> str:
    """Write the results as two Markdown tables, with what follows from them in a sentence."""
    return "\n".join([*_narrow(results), "", *_compared(results)])


def _narrow(results: Mapping[str, Any]) -> Iterator[str]:
    fixed = results["fixed"]
    yield (
        f"| true rate % | images until {100 * results['width']:g} points wide | simulated runs | "
        f"times fewer than {fixed['wilson']} (Wilson) | than {fixed['hoeffding']} (Hoeffding) |"
    )
    yield "| --- | --- | --- | --- | --- |"
    for row in results["widths"]:
        name = f"{100 * row['rate']:g}" + (", shares of ten draws" if row["draws"] > 1 else "")
        saved = [fixed[kind] / row["images"] for kind in ("wilson", "hoeffding")]
        yield f"| {name} | {_images(row)} | {row['runs']} | {saved[0]:.2g} | {saved[1]:.2g} |"
    known = (
        f"{fixed['wilson'] / n:.2g} times at {100 * float(rate):g} %"
        for rate, n in results["fixed_known"].items()
    )
    yield ""
    yield f"A fixed number that knew the rate would be smaller too: {' and '.join(known)}."


def _compared(results: Mapping[str, Any]) -> Iterator[str]:
    planned = results["planned"]
    yield (
        f"| answers differ % | true difference, points | images used | planned for "
        f"{100 * planned['difference']:g} points | times fewer | decided % of {planned['runs']} |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for row in results["better"]:
        yield (
            f"| {100 * row['differing']:g} | {100 * row['difference']:g} | {_images(row)} | "
            f"{row['planned']} | {row['planned'] / row['images']:.2g} | {100 * row['decided']:g} |"
        )


def _images(row: Mapping[str, Any]) -> str:
    ends = row["interval"]
    spread = "" if ends is None else f" [{math.floor(ends[0])}, {math.ceil(ends[1])}]"
    return f"{row['images']:.0f}{spread}"


if __name__ == "__main__":
    RESULTS.write_text(json.dumps(measure(), indent=1) + "\n")
    print(tables(json.loads(RESULTS.read_text())))
