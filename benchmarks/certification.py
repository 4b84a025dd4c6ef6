"""Certification beside what it must beat: ``python -m benchmarks.certification``.

(a) Throughput: certifying against the bare network calls that it makes, processor time of one
thread. (b) The usual way: one image at a time, a fresh batch of noise per call at the published
script's batch size, the same network calls otherwise. (c) Samples that the anytime procedure draws
against a fixed number, on images and on probabilities like those of published models.
"""

import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr

from advpure.analysis.certification import CertificationRun, measure_certification
from advpure.analysis.certification.anytime import AnytimeRule, follow
from advpure.analysis.certification.counting import ESTIMATION, Unit, count_classes
from advpure.analysis.certification.noise import stage_xi
from advpure.analysis.certification.settings import (
    PreparedCertification,
    clean_images,
    prepare_certification,
)
from advpure.stats import clopper_pearson_lower
from advpure.units import to_model, to_unit
from benchmarks.loop import Calls, _time

LEAST = 0.95
"""The least share of the bare networks' throughput."""

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
BLOCK = 64

# Normal quantiles of the top class's probability over images, mean and deviation by noise level;
# roughly those of purified CIFAR-10.
LIKE_PUBLISHED = {0.25: (2.8, 2.4), 0.5: (1.1, 1.5), 1.0: (0.0, 1.2)}


def throughput(
    defense: str, dataset: str, *, samples: int, n: int, repeats: int = 5
) -> dict[str, object]:
    """Time the counting loop and the bare calls in turn; the ratio is the median over pairs."""
    prepared = _prepare(defense, dataset, samples, n)
    modules = [prepared.defense.classifier]
    if prepared.defense.purifier.denoiser is not None:
        modules.append(prepared.defense.purifier.denoiser.network)

    def loop() -> None:
        _count(prepared, samples)

    with torch.no_grad():  # throughput, not gradients
        calls = Calls(modules)
        loop()
        calls.stop()
        calls.replay()
        ratios, seconds = [], []
        for _ in range(repeats):
            seconds.append(_time(loop))
            ratios.append(_time(calls.replay) / seconds[-1])
    rows = n * samples
    return {
        "defense": defense, "dataset": dataset, "samples": samples, "n": n,
        "samples_per_second": rows / statistics.median(seconds),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


def usual_way(
    defense: str, dataset: str, *, samples: int, n: int, batch: int, repeats: int = 3
) -> dict[str, object]:
    """Time the published script's loop against ours, both for the same number of samples."""
    prepared = _prepare(defense, dataset, samples, n)
    (sigma,) = prepared.reading.sigmas
    chain, generator = prepared.chains[sigma], torch.Generator().manual_seed(0)
    images = clean_images(prepared.images)

    def one_by_one() -> None:
        for image in images.values():
            counts = np.zeros(1000, dtype=int)
            for first in range(0, samples, batch):
                size = min(batch, samples - first)
                noise = torch.randn((size, *image.shape), generator=generator)
                x = to_unit(chain.run(to_model(image + sigma * noise), _NO_NOISE))
                counts += np.bincount(prepared.defense.classifier(x).argmax(1), minlength=1000)

    with torch.no_grad():  # throughput, not gradients
        pairs = [
            (_time(one_by_one), _time(lambda: _count(prepared, samples))) for _ in range(repeats)
        ]
    ratios = [usual / ours for usual, ours in pairs]
    return {
        "defense": defense, "dataset": dataset, "samples": samples, "n": n, "batch": batch,
        "times_faster": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


def saving(run: CertificationRun) -> dict[str, object]:
    """Certify by the fixed and the anytime procedure; compare samples and certified accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = measure_certification(run, out=Path(folder) / "fixed")
        anytime = measure_certification(
            replace(run, procedure="anytime"), out=Path(folder) / "anytime"
        )
    spent = [[curve.samples for curve in report.curves] for report in (fixed, anytime)]
    return {
        "defense": run.defense, "dataset": run.dataset, "n": len(fixed.curves[0].images),
        "samples": run.samples, "sigmas": list(fixed.reading.sigmas),
        "share_by_sigma": [few / many for many, few in zip(*spent, strict=True)],
        "share": sum(spent[1]) / sum(spent[0]),
        "fixed": [rate["value"] for rate in fixed.to_json()["rows"]],
        "anytime": [rate["value"] for rate in anytime.to_json()["rows"]],
    }  # fmt: skip


def simulated_saving(samples: int, images: int = 300, seed: int = 0) -> dict[str, object]:
    """Compare the procedures on binomial counts of probabilities like those of published models."""
    draw = np.random.Generator(np.random.Philox(seed))
    spent, certified = [], []
    for sigma, (mean, deviation) in LIKE_PUBLISHED.items():
        rule = AnytimeRule(radii=RADII, sigma=sigma, budget=samples // BLOCK * BLOCK)
        used, found, fixed = 0, np.zeros(len(RADII)), np.zeros(len(RADII))
        for p in ndtr(draw.normal(mean, deviation, images)):
            hits = draw.binomial(BLOCK, p, samples // BLOCK).tolist()
            state = follow(rule, hits, BLOCK)
            used += state.samples + 100
            found[: state.certified] += 1
            bound = clopper_pearson_lower(int(draw.binomial(samples, p)), samples, rule.alpha)
            fixed[: sum(bound >= level for level in rule.levels)] += 1
        spent.append(used / images / (samples + 100))
        certified.append(((fixed - found) / images).tolist())
    return {
        "samples": samples, "images": images, "sigmas": list(LIKE_PUBLISHED),
        "share_by_sigma": spent, "share": statistics.mean(spent),
        "certified_less": certified,
    }  # fmt: skip


class _NoNoise:
    """Serves chains that draw no noise."""

    def of(self, step: object, like: object) -> None:
        return None


_NO_NOISE = _NoNoise()


def _prepare(defense: str, dataset: str, samples: int, n: int) -> PreparedCertification:
    return prepare_certification(
        CertificationRun(defense=defense, dataset=dataset, n=n, sigmas=0.25, samples=samples)
    )


def _count(prepared: PreparedCertification, samples: int) -> None:
    """Count `samples` of every image, as a run does, without its records."""
    (sigma,) = prepared.reading.sigmas
    images = clean_images(prepared.images)
    units = [Unit(i, sigma, ESTIMATION, 0, 0, samples) for i in images]
    counted = count_classes(
        units, images, prepared.classify(sigma, ESTIMATION), stage_xi(prepared.xi, ESTIMATION),
        batch=4 * (prepared.defense.tile or 32),
    )  # fmt: skip
    assert sum(len(part) for part in counted) == len(images)


def main() -> None:
    """Measure everything, print one JSON line each, and hold the bounds."""
    torch.set_num_threads(1)
    whole: list[tuple[Callable[[], dict[str, object]], str]] = [
        (lambda: throughput("cm", "digits", samples=1000, n=8), "throughput"),
        (lambda: throughput("none", "digits", samples=1000, n=20), "throughput"),
        (lambda: throughput("onestep-edm", "cifar10-sample", samples=128, n=2), "throughput"),
        (lambda: usual_way("cm", "digits", samples=1000, n=8, batch=1000), "usual way"),
        (
            lambda: usual_way("onestep-edm", "cifar10-sample", samples=128, n=2, batch=1000),
            "usual way",
        ),
        (lambda: simulated_saving(10_000), "simulated saving"),
        (lambda: simulated_saving(100_000), "simulated saving"),
        (
            lambda: saving(
                CertificationRun(defense="cm", dataset="digits", n=20, sigmas="0.25,0.5,1.0")
            ),
            "saving",
        ),
    ]
    for measure, name in whole:
        found = measure()
        print(json.dumps({"benchmark": name, **found}), flush=True)
        if name == "throughput" and float(str(found["ratio"])) < LEAST:
            raise SystemExit(f"{found['defense']} keeps less than {LEAST} of the throughput")


if __name__ == "__main__":
    main()
