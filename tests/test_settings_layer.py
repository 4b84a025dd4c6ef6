"""Every settings class: NumPy numbers are numbers, truths are none, and idle settings are told."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from advpure.analysis.certification.anytime import AnytimeRule, follow, looks, lower_bounds
from advpure.analysis.certification.procedures import Anytime, Fixed
from advpure.analysis.certification.radius import bound_for, radius_of, samples_needed
from advpure.analysis.certification.study import Certification
from advpure.analysis.certification.two_stage import certify
from advpure.analysis.check_grad.study import CheckGrad
from advpure.analysis.closed_forms.field_study import ScoreField
from advpure.analysis.closed_forms.gaussian_field import gaussian_field_compression
from advpure.analysis.closed_forms.gaussian_field_table import FieldSettings
from advpure.analysis.closed_forms.two_point_study import TwoPoint
from advpure.analysis.compression.rates import CompressionSettings
from advpure.analysis.compression.study import Compression
from advpure.analysis.distances.study import Distances
from advpure.analysis.fixed_randomness.study import FixedRandomness
from advpure.analysis.gradient_noise.draws import DrawSettings
from advpure.analysis.gradient_noise.moments import Moments, enough_draws, expected_cosine
from advpure.analysis.gradient_noise.study import GradientNoise
from advpure.analysis.metrics.frechet import frechet_distance
from advpure.analysis.metrics.measure import Measure
from advpure.analysis.metrics.moments import Moments as FeatureMoments
from advpure.analysis.perturbations import directions
from advpure.analysis.prediction.settings import PredictionSettings
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.steps.divergence import ProbeSettings
from advpure.analysis.steps.lanczos import LanczosSettings
from advpure.analysis.steps.manifold import ManifoldSettings
from advpure.analysis.steps.settings import StepSettings
from advpure.analysis.steps.singular import SingularSettings
from advpure.analysis.steps.study import Steps
from advpure.analysis.survival.study import Survival
from advpure.analysis.timesteps.study import Timesteps
from advpure.analysis.transport.study import Transport
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.study import Snr
from advpure.base.errors import BadInput
from advpure.base.validation import LARGEST
from advpure.core.randomness import RandomnessConfig, check_ids
from advpure.options import read_options
from advpure.training.tasks import take

PROCEDURE = {
    "sigmas": (0.25,), "radii": (0.0,), "alpha": 0.001, "samples": 1000, "selection": 10,
    "block": 100, "classes": 10,
}  # fmt: skip
CLASSES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (Compression, {}), (CompressionSettings, {}), (Snr, {}), (SnrSettings, {}),
    (Steps, {"singular": 5}), (StepSettings, {}), (ScoreField, {}), (FieldSettings, {}),
    (TwoPoint, {}), (ProbeSettings, {}), (LanczosSettings, {}), (SingularSettings, {}),
    (ManifoldSettings, {}), (Survival, {}), (PredictionSettings, {}), (DrawSettings, {}),
    (GradientNoise, {}), (Moments, {"draws": 4, "mean_square": 1.0, "square_mean": 0.5}),
    (FixedRandomness, {}), (Timesteps, {}), (Transport, {}), (Distances, {}),
    (CheckGrad, {}), (Measure, {"metric": "distance"}), (Robustness, {}),
    (Certification, {"procedure": "anytime"}), (Fixed, PROCEDURE),
    (Anytime, PROCEDURE), (AnytimeRule, {"radii": (0.0,), "sigma": 0.25}),
]  # fmt: skip
NUMBERS = [
    (kind, given, field.name, hint)
    for kind, given in CLASSES
    for field, hint in (
        (field, typing.get_type_hints(kind)[field.name])
        for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    )
    if hint in (int, float, int | None, float | None) and field.name != "t"
]


def value_of(kind: Any, given: dict[str, Any], name: str) -> Any:
    return getattr(kind(**given), name)


@pytest.mark.parametrize(
    ("kind", "given", "name", "hint"), NUMBERS, ids=[f"{k.__name__}-{n}" for k, _, n, _ in NUMBERS]
)
def test_every_number_is_checked_by_its_annotation(
    kind: Any, given: dict[str, Any], name: str, hint: Any
) -> None:
    value = value_of(kind, given, name)
    if value is not None:  # the same number of NumPy makes the same settings
        made = kind(**{**given, name: np.asarray(value)[()]})
        assert type(getattr(made, name)) in (int, float, type(value))
        assert made == kind(**given)
    for bad in (True, np.bool_(False), "x", [], {}, 1j, float("nan"), float("inf"), "²"):
        with pytest.raises(BadInput) as refusal:
            kind(**{**given, name: bad})
        assert "\n" not in str(refusal.value)
        assert len(str(refusal.value)) < 300
    if hint in (int, int | None):
        with pytest.raises(BadInput):
            kind(**{**given, name: 2.5})
        with pytest.raises(BadInput):
            kind(**{**given, name: LARGEST * 4})


@pytest.mark.parametrize(("kind", "given"), CLASSES, ids=[k.__name__ for k, _ in CLASSES])
def test_every_text_is_a_text_and_every_choice_one_of_the_known(
    kind: Any, given: dict[str, Any]
) -> None:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        bad: list[Any] = []
        if hint in (str, str | None):
            bad = ["", "  ", 3, True, "a\nb"]
        elif typing.Literal in (typing.get_origin(h) for h in (hint, *typing.get_args(hint))):
            bad = ["", "nothing", 3, True]
        elif hint is bool:
            bad = [0, 1, "yes", None]
        for value in bad:
            with pytest.raises(BadInput):
                kind(**{**given, field.name: value})


def test_options_of_files_are_no_truths_where_numbers_are_meant() -> None:
    for bad in (True, 2.5, float("nan"), "x", "²"):
        with pytest.raises(BadInput):
            read_options(Snr, {"n": bad}, "snr")
    assert read_options(Snr, {"n": "5", "clip": "true"}, "snr").n == 5
    with pytest.raises(BadInput, match="clip 1 of snr is neither true nor false"):
        read_options(Snr, {"clip": 1}, "snr")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: radius_of(0.9, float("nan")), "sigma nan is not finite"),
        (lambda: radius_of(float("nan"), 0.25), "lower bound nan is not finite"),
        (lambda: bound_for(float("nan"), 0.25), "radius nan is not finite"),
        (lambda: samples_needed(-1.0, 0.001, 0.25), "radius -1 is not 0 or more"),
        (lambda: AnytimeRule(radii=(0.0,), sigma=0.25, budget=float("nan")), "budget nan"),
        (lambda: AnytimeRule(radii=(0.0,), sigma=float("nan")), "sigma nan is not finite"),
        (lambda: follow(AnytimeRule(radii=(0.0,), sigma=0.25), [60], -64), "block -64"),
        (lambda: follow(AnytimeRule(radii=(0.0,), sigma=0.25), [65], 64), "of a block 65"),
        (lambda: follow(AnytimeRule(radii=(0.0,), sigma=0.25), [0.5], 64), "of a block 0.5"),
        (lambda: looks(0, 100), "block 0 is not a whole number of 1 or more"),
        (lambda: lower_bounds(5, 4), "are no counts"),
        (lambda: lower_bounds(1, float("inf")), "are no counts"),
        (lambda: certify([1], [float("inf")], sigma=0.25), "count of class 0 inf is not finite"),
        (lambda: certify([1], [2.5], sigma=0.25), "is no number of samples"),
        (lambda: certify({True: 1}, [2], sigma=0.25), "class True"),
        (lambda: Fixed(**{**PROCEDURE, "samples": 10**9, "block": 1}), "rows an image"),
        (lambda: PredictionSettings(t="10,²"), "t '²' is not a whole number"),
        (lambda: PredictionSettings(sigma="0.25,"), "have an empty entry"),
        (lambda: PredictionSettings(defense=""), "defense|purifiers"),
        (lambda: CompressionSettings(seeds=[0, True]), "seed True is not a whole number"),
        (lambda: Robustness(randomness="fixed", eps=True), "eps True"),
        (lambda: expected_cosine(1e308, 1e308), r"SNR 1e\+308 is not 1e\+100 or less"),
        (lambda: expected_cosine(0.5, 1e308), r"draws 1e\+308 is not 1e\+100 or less"),
        (lambda: enough_draws(1e-300, 0.9), r"SNR 1e-300 needs more than 2\*\*63 draws"),
        (lambda: enough_draws(5e-324, 0.9), r"needs more than 2\*\*63 draws"),
        (lambda: take({"sigmas": []}, {"sigmas": ()}), r"sigmas \[\] names no level"),
        (lambda: frechet_distance(FEATURES * 1e200, FEATURES), "a feature .* leave float64"),
        (lambda: FeatureMoments.of(FEATURES * 1e200), "a feature of size"),
        (lambda: gaussian_field_compression([1e-320], 0.1), "variances .* leave float64"),
        (lambda: gaussian_field_compression([1.0], 1e300), r"h 1e\+300 is not 1e\+50 or less"),
        (lambda: RandomnessConfig(0, path="abc"), "path 'abc' of type str cannot be used"),
        (lambda: RandomnessConfig(0, path=("a", 1.5)), "name 1.5 of fold is no text or int"),
        (lambda: check_ids({0, 1}), r"ids \{0, 1\} has no order"),
        (lambda: directions("uniform", 0, [0], [0], [10**12]), "1,000,000,000,000 numbers"),
        (lambda: RandomnessConfig(0).normal([0], "forward", 0, (10**12,)), "numbers of noise"),
        (lambda: Survival(top=float("inf")), "top inf is not finite"),
    ],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(action: Callable[[], object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        action()


def test_a_whole_number_stays_one_where_it_is_ambiguous() -> None:
    assert Survival(top=np.int64(1)).top == 1
    assert isinstance(Survival(top=1).top, int)
    assert isinstance(Snr(eps=np.float32(0.5)).eps, float)


FEATURES = np.random.default_rng(0).normal(size=(8, 2))

IDLE: list[tuple[Callable[[], object], str]] = [
    (lambda: Certification(alpha=0.999), "alpha 0.999 is above 0.5"),
    (lambda: Certification(joint=True), "joint means nothing to one noise level"),
    (lambda: Certification(futility=0.1), "futility 0.1 means nothing to fixed"),
    (lambda: Certification(selector="a"), "selector 'a' chooses between two classifiers"),
    (lambda: Certification(select_entropy=0.3), "chooses between two classifiers"),
    (lambda: Certification(core="a", selector="b", select_entropy=0.3), "a trained selector"),
    (lambda: Steps(singular_basis=30), "singular basis 30 means nothing without singular"),
    (lambda: Steps(singular_tolerance=0.1), "singular tolerance 0.1 means nothing"),
    (lambda: Steps(reference="none", directions=5), "without reference images"),
    (lambda: Steps(span="differences", neighbours=20), "neighbours 20 means nothing to diff"),
    (lambda: FixedRandomness(eot=1), "eot 1 averages nothing"),
    (lambda: Timesteps(attack="apgd"), "attack 'apgd' means nothing without attack times"),
    (lambda: Timesteps(attack_options={"steps": 3}), "means nothing without attack times"),
    (lambda: Distances(norm="l2", dataset="digits").load(), "norm 'l2' means"),
    (
        lambda: Distances(perturb="none", clip=True, dataset="digits").load(),
        "clip means nothing without random perturbations",
    ),
]


@pytest.mark.parametrize(("action", "words"), IDLE)
def test_settings_that_change_nothing_are_refused(action: Callable[[], object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        action()


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (ScoreField, {"draws": 10**12}), (ScoreField, {"steps": 10**12}),
        (ScoreField, {"dimension": 10**6}), (TwoPoint, {"draws": 10**12}),
        (TwoPoint, {"nodes": 10**12}), (SnrSettings, {"perturbations": 10**9}),
        (SnrSettings, {"configurations": 2**31}), (StepSettings, {"probes": 10**12}),
        (CompressionSettings, {"perturbations": 10**12}), (ProbeSettings, {"probes": 10**12}),
        (SingularSettings, {"probes": 10**12}), (Transport, {"draws": 10**12}),
    ],
)  # fmt: skip
def test_more_numbers_than_can_be_kept_are_refused(kind: Any, more: dict[str, int]) -> None:
    with pytest.raises(BadInput, match=r"are more than (10,000,000|67,108,864); ask for fewer"):
        kind(**more)
