"""One quick call of every public function and settings class, for tests that change what is given.

Values are made when asked for, since a call may keep or change what it gets. `WHAT_IS_RETURNED` are
the public names that are not called: results, rows, errors, registries and types.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import advpure
from advpure import analysis, attacks
from advpure.analysis import certification
from advpure.base.errors import BadInput
from advpure.data import Images

Given = Callable[[], Mapping[str, Any]]
Calls = Mapping[str, Given]

WHAT_IS_RETURNED = {
    "ABSTAIN", "ATTACKS", "AtRadius", "AttackResult", "BadInput", "COMPRESSION_SCHEMA",
    "CascadeCertificate", "Certificate", "Claims", "CertificationReport", "Components",
    "ComposedCertificate", "CompressionKey", "CompressionResult", "CompressionRow",
    "CompressionSummary", "Distribution", "Divergence", "DivergingStep", "FieldRates", "FieldTable",
    "GaussianField", "GradientResult", "InfinitesimalResult", "METRICS", "Measurements",
    "MissingExtra", "Prior", "Prediction", "PredictionReport", "ProbeRow", "SNR_SCHEMA", "Sigmoid",
    "SigmoidFit", "SnrResult", "SnrRow", "Sources", "Spectrum", "StepsResult", "SumsOfSquares",
    "Table", "TwoWay", "ZeroGradientWarning",
}  # fmt: skip


def _images(count: int = 2, channels: int = 1, side: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 0.1 + 0.8 * torch.rand(count, channels, side, side, generator=generator)


class _Model(nn.Module):
    """Ten classes of 8 x 8 digits, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(10, 64, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != (1, 8, 8):
            raise BadInput(f"images {tuple(x.shape)}", "are no digits", "give [B, 1, 8, 8]")
        logits: Tensor = self.linear(x.flatten(1))
        return logits


class _Halved(nn.Module):
    """A purifier without noise."""

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()


@cache
def _defense() -> advpure.Defense:
    return advpure.load_defense("cm", "digits", xi=advpure.RandomnessConfig(0))


def _purifier(name: str = "cm", **given: Any) -> advpure.Purifier:
    return _loaded(name, tuple(given.items()))


@cache
def _loaded(name: str, given: tuple[tuple[str, Any], ...]) -> advpure.Purifier:
    return advpure.load_purifier(name, "digits", xi=advpure.RandomnessConfig(0), **dict(given))


def _digits(count: int = 2) -> Images:
    return advpure.load_images("digits", n=count)


def _attacked(**more: Any) -> dict[str, Any]:
    return {
        "model": _Model(), "images": _images(), "labels": torch.tensor([1, 2]), "ids": [4, 5],
        "eps": 0.1, **more,
    }  # fmt: skip


def _pure(**more: Any) -> dict[str, Any]:
    return {"purifier": _Halved(), "images": _images(), **more}


def _certified(sigma: float | None = 0.25, radius: float = 0.3) -> Any:
    return certification.CertifiedImages(
        name="x", ids=np.arange(4), labels=np.array([0, 1, 2, 3]), sigma=sigma, alpha=0.001,
        predictions=np.array([0, 1, 2, -1]), radii=np.array([0.1, radius, 0.0, 0.0]),
    )  # fmt: skip


def _known(**more: Any) -> dict[str, Any]:
    n = 6
    return {
        "purifier": "ddpm", "t": 10, "ids": np.arange(n), "cr": np.linspace(0.2, 0.6, n),
        "clean": np.linspace(0.01, 0.2, n), "anchor": np.linspace(0.02, 0.1, n),
        "robust": np.arange(n) % 2 == 0, "accurate": np.arange(n) > -1, **more,
    }  # fmt: skip


def _inputs() -> list[Any]:
    return [
        analysis.PredictionInput(**_known(t=t, cr=np.linspace(0.2, 0.6, 6) / k))
        for k, t in enumerate((10, 50, 100, 150), 1)
    ]


def _sums() -> analysis.SumsOfSquares:
    return analysis.SumsOfSquares(4, 5, 64, 3.0, 2.0, 1.0)


def _table() -> analysis.Table:
    rows = np.random.default_rng(0).normal(size=(3, 4, 6))
    return analysis.Table.of_arrays(rows[0], rows)


FIELD_SETTINGS = {"dimension": 4, "intrinsic_dimension": 2, "steps": 3, "std_off_manifold": 0.1}
FIELD: Given = lambda: dict(FIELD_SETTINGS)  # noqa: E731
COUNTS = [80, 20, 0]

ADVPURE: Calls = {
    "Defense": lambda: {"purifier": _purifier(), "classifier": _Model(), "tile": 4},
    "Policy": lambda: {"kind": "eot", "draws": 2},
    "Purifier": lambda: {"name": "x", "chain": _purifier().chain, "denoiser": _purifier().denoiser},
    "RandomnessConfig": lambda: {"seed": 3, "scheme": "hash", "scope": "sample", "path": ()},
    "evaluate": lambda: {
        "purifier": _Halved(), "classifier": _Model(), "images": _images(),
        "labels": torch.tensor([1, 2]), "eps": 0.1, "steps": 1, "out": "evaluated",
    },
    "load_booster": lambda: {
        "model": "digits-classifier", "dataset": "digits", "options": {"loss": "ce"},
    },
    "load_classifier": lambda: {"dataset": "digits"},
    "load_defense": lambda: {"name": "cm", "dataset": "digits"},
    "load_denoiser": lambda: {"model": "digits-edm"},
    "load_images": lambda: {"dataset": "digits", "n": 2, "subset": "test"},
    "load_purifier": lambda: {"name": "ddim", "dataset": "digits", "t": 3},
}  # fmt: skip

ATTACKS: Calls = {
    **{
        f"{name}Settings": lambda: {"eps": 0.1}
        for name in (
            "APGD", "APGDTargeted", "BPDA", "BPDAEOT", "LowFrequency", "Noise", "PGD", "PGDEOT",
            "Engine", "RayS", "Square", "Standard",
        )
    },
    "apgd": lambda: _attacked(steps=2),
    "apgd_targeted": lambda: _attacked(steps=2),
    "low_frequency": lambda: _attacked(steps=2),
    "rays": lambda: _attacked(queries=8),
    "square": lambda: _attacked(queries=8),
    "standard": lambda: _attacked(budget=200),
    "engine": lambda: {"name": "foolbox:LinfPGD"},
    "bpda": lambda: _attacked(model=_defense(), steps=2),
    "bpda_eot": lambda: _attacked(model=_defense(), steps=2, eot=2),
    "pgd": lambda: _attacked(steps=2),
    "pgd_eot": lambda: _attacked(steps=2, eot=2),
    "settings_type": lambda: {"attack": attacks.pgd},
    "transfer": lambda: {
        **_attacked(steps=1), "attack": "pgd", "model": _defense(),
        "source_xi": advpure.RandomnessConfig(1),
    },
    "uniform_noise": lambda: _attacked(draws=2),
}  # fmt: skip

ANALYSIS: Calls = {
    "CompressionSettings": lambda: {"eps": "8/255"},
    "FieldSettings": FIELD,
    "ManifoldSettings": lambda: {"neighbours": 4, "components": 2},
    "Moments": lambda: {"dims": 3},
    "PredictionInput": _known,
    "SnrSettings": lambda: {"perturbations": 2, "configurations": 2},
    "StepSettings": lambda: {"probes": 1, "perturbations": 1, "directions": 1},
    "compression_evaluations": lambda: {
        "purifier": _Halved(), "count": 2, "settings": analysis.CompressionSettings(),
    },
    "compression_rate": lambda: _pure(perturbations=0.01 * _images(2), ids=[1, 2]),
    "compression_rows": lambda: _pure(
        ids=[0, 1], settings=analysis.CompressionSettings(perturbations=1)
    ),
    "describe_compression": lambda: _pure(
        settings=analysis.CompressionSettings(), xi=advpure.RandomnessConfig(0)
    ),
    "describe_snr": lambda: _pure(
        settings=analysis.SnrSettings(), xi=advpure.RandomnessConfig(0)
    ),
    "directions": lambda: {
        "distribution": "uniform", "seed": 0, "ids": [1, 1], "draws": [0, 1], "shape": (1, 2, 2),
    },
    "enough_draws": lambda: {"snr": 0.5, "target": 0.9},
    "estimate_divergence": lambda: {
        "purifier": _purifier(), "states": _digits().images, "probes": 1, "ids": [0, 1],
    },
    "expected_compression_rate": lambda: _pure(perturbations=1, seeds=0),
    "expected_cosine": lambda: {"snr": 0.5, "draws": 4},
    "expected_plain": lambda: {
        "true": analysis.unbiased_components(_sums()), "perturbations": 4, "configurations": 5,
    },
    "field_table": lambda: {"printed": analysis.FieldSettings(**FIELD())},
    "fit_sigmoid": lambda: {"settings": _inputs()},
    "forward_compression_rate": lambda: {"chain": _purifier("ddim", t=3).chain},
    "frechet_distance": lambda: {"a": np.eye(4, 3), "b": np.eye(4, 3) + 1.0},
    "frechet_estimate": lambda: {"a": np.eye(4, 3), "b": 2.0 * np.eye(4, 3), "level": 0.9},
    "gaussian_field_compression": lambda: {"variances": [1.0, 0.01], "h": 0.1},
    "gradient_noise": lambda: {
        "defense": _defense(), "images": _digits().images, "labels": _digits().labels,
        "draws": 2, "reference": 2, "ids": [0, 1],
    },
    "inception_score": lambda: {"probabilities": np.full((6, 3), 1 / 3), "splits": 2},
    "infinitesimal_compression_rate": lambda: _pure(probes=1, seeds=0),
    "leading_singular_values": lambda: _pure(count=1, basis=4, block=1, probes=1, seed=0),
    "leave_one_out": lambda: {"settings": _inputs()},
    "local_spans": lambda: {
        "images": _images(), "reference": _images(6),
        "settings": analysis.ManifoldSettings(neighbours=4, components=2),
    },
    "measure": lambda: {"metric": "distance", "purifier": _purifier(), "images": _digits(),
                        "out": "measured"},
    "noised_distance": lambda: {"abar": 0.5, "start": 0.1, "dimensions": 64},
    "perturbation_correlations": lambda: {"first": "attacked", "second": "attacked"},
    "plain_components": lambda: {"sums": _sums()},
    "precision_recall": lambda: {
        "real": np.eye(6, 3), "generated": np.eye(6, 3) + 0.1, "k": 2,
    },
    "predict_from": lambda: {"folders": ["parts"]},
    "predict_robustness": lambda: {"setting": _inputs()[0], "eps": 0.05},
    "push_forward": lambda: {"function": torch.sin, "x": _images(), "v": _images()},
    "resized_noise_factor": lambda: {"source": 8, "target": 16, "antialias": True},
    "signal_to_noise": lambda: {
        "purifier": _purifier(), "images": _digits(1).images, "perturbations": 2,
        "configurations": 2, "ids": [3],
    },
    "simulate_paths": lambda: {"settings": analysis.FieldSettings(**FIELD()), "paths": 2},
    "simulate_rates": lambda: {"settings": analysis.FieldSettings(**FIELD()), "draws": 2},
    "snr_tables": lambda: {
        "purifier": _purifier(), "images": _digits(1).images, "ids": [3],
        "settings": analysis.SnrSettings(perturbations=2, configurations=2),
    },
    "ssim": lambda: {"a": _images(2, 1, 12), "b": _images(2, 1, 12), "window": 7},
    "step_compression": lambda: {
        "purifier": _purifier("ddim", t=2), "images": _digits(1).images, "ids": [3],
        "settings": analysis.StepSettings(probes=1, perturbations=1, directions=1),
    },
    "table_statistics": lambda: {"table": _table(), "clean": np.zeros(6)},
    "unbiased_components": lambda: {"sums": _sums()},
    "uniform_noise_norm": lambda: {"eps": 0.1, "dimensions": 64},
}  # fmt: skip

_RUN = {"defense": "none", "dataset": "digits", "n": 1, "sigmas": "0.1", "samples": 20,
        "selection": 10}  # fmt: skip

CERTIFICATION: Calls = {
    "AnytimeRule": lambda: {"radii": (0.25,), "sigma": 0.5, "budget": 100},
    "Certification": lambda: dict(_RUN),
    "CertifiedImages": lambda: {
        "name": "x", "ids": np.arange(2), "labels": np.array([0, 1]),
        "predictions": np.array([0, -1]), "radii": np.array([0.1, 0.0]), "sigma": 0.25,
    },
    "abstention": lambda: {"images": _certified()},
    "accuracy_curve": lambda: {"images": _certified()},
    "accuracy_lower_bound": lambda: {"certified": 80, "n": 100, "alpha": 0.001, "failure": 0.05},
    "average_certified_radius": lambda: {"images": _certified()},
    "bernstein_lower_bound": lambda: {"certified": 80, "n": 100, "alpha": 0.001, "failure": 0.05},
    "best_over": lambda: {"curves": [_certified(), _certified(0.5)], "radii": [0.0, 0.2]},
    "certified_accuracy": lambda: {"images": _certified(), "radius": 0.1},
    "certified_at": lambda: {"images": _certified(), "radius": 0.1},
    "certify": lambda: {"counts0": COUNTS, "counts": COUNTS, "alpha": 0.01, "sigma": 0.25},
    "certify_cascade": lambda: {
        "stages": {0.25: (COUNTS, COUNTS)}, "sigmas": (0.25,), "classes": 3, "alpha": 0.01,
    },
    "certify_composition": lambda: {
        "certified": (COUNTS, COUNTS), "selector": (COUNTS, COUNTS), "core": 0, "sigma": 0.25,
    },
    "certify_jointly": lambda: {"stages": {0.25: (COUNTS, COUNTS)}, "alpha": 0.01},
    "compare": lambda: {"first": _certified(), "second": _certified(0.5, 0.2), "radii": [0.0]},
    "emulate": lambda: {"images": _certified(), "samples": 10_000, "to": 1000},
    "follow": lambda: {
        "rule": certification.AnytimeRule(radii=(0.25,), sigma=0.5, budget=128),
        "successes": [60, 64], "block": 64,
    },
    "learn_prior": lambda: {"successes": [60, 64], "samples": [64, 64]},
    "largest_radius": lambda: {"samples": 100, "alpha": 0.001, "sigma": 0.25},
    "lower_bounds": lambda: {"successes": [5, 9], "samples": [10, 20], "alpha": 0.01},
    "predict": lambda: {"counts": COUNTS, "alpha": 0.01},
    "radius_of": lambda: {"bound": 0.9, "sigma": 0.25},
    "read_log": lambda: {"path": "list.tsv", "sigma": 0.25},
    "read_sources": lambda: {"paths": ["certified"]},
    "round_down": lambda: {"value": 0.12345, "digits": 3},
    "samples_needed": lambda: {"radius": 0.25, "alpha": 0.001, "sigma": 0.25},
    "write_log": lambda: {"images": _certified(), "path": "written.tsv"},
}  # fmt: skip


MODULES: dict[str, tuple[Any, Calls]] = {
    "advpure": (advpure, ADVPURE),
    "attacks": (attacks, ATTACKS),
    "analysis": (analysis, ANALYSIS),
    "certification": (certification, CERTIFICATION),
}
"""Public modules, and a call of each name in their `__all__`."""
