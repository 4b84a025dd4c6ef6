"""The figures of runs, by verb: of one from its records, of several from their reports."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advpure.base.registry import Registry
from advpure.runs.records import RecordStore

RUN_FIGURES: Registry[Callable[[RecordStore, Path], Path]] = Registry("verb with a figure")
_HERE = "advpure.analysis"
_FIGURES = {
    "attack": ("robustness.figure:robustness_figure", "margins of the decisions"),
    "cr": ("compression.figure:compression_figure", "rates of images"),
    "distances": ("distances.figure:distances_figure", "distances along the chain"),
    "field": (
        "closed_forms.field_figure:field_figure",
        "paths and rates in a Gaussian score field",
    ),
    "gradients": ("gradient_noise.figure:gradients_figure", "cosine against the number of draws"),
    "predict": ("prediction.figure:prediction_figure", "predictions beside measurements"),
    "randomness": ("fixed_randomness.figure:randomness_figure", "accuracies and correlations"),
    "snr": ("variability.figure:snr_figure", "randomness against input"),
    "survival": ("survival.figure:survival_figure", "share of images that survive"),
    "steps": ("steps.figure:steps_figure", "compression of every step"),
    "transport": ("transport.figure:transport_figure", "transport against sigma"),
    "two-point": (
        "closed_forms.two_point_figure:two_point_figure",
        "transport of two points against sigma",
    ),
    "timesteps": ("timesteps.figure:timesteps_figure", "accuracy and compression over t"),
}
for _verb, (_name, _about) in _FIGURES.items():
    RUN_FIGURES.register(_verb, f"{_HERE}.{_name}", about=_about)
RUN_FIGURES.register(
    "certify", f"{_HERE}.certification.figure:certification_figure", about="accuracy over radius"
)

JOINT_FIGURES: Registry[Callable[[Sequence[Any], Path], Path]] = Registry(
    "verb with a joint figure"
)
JOINT_FIGURES.register("steps", f"{_HERE}.steps.figure:draw_steps", about="one column a purifier")
JOINT_FIGURES.register(
    "survival", f"{_HERE}.survival.figure:draw_survival", about="one curve a run"
)
JOINT_FIGURES.register(
    "transport", f"{_HERE}.transport.figure:draw_transport", about="one curve a run"
)
