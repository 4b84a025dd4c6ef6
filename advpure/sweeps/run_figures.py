"""The figures of runs, by verb: of one from its records, of several from their reports."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from advpure.records import RecordStore
from advpure.registry import Registry

RUN_FIGURES: Registry[Callable[[RecordStore, Path], Path]] = Registry("verb with a figure")
_HERE = "advpure.analysis"
_FIGURES = {
    "attack": ("robustness", "margins of the decisions"),
    "cr": ("compression", "rates of images"),
    "distances": ("distances", "distances along the chain"),
    "field": ("field", "paths and rates in a Gaussian score field"),
    "gradients": ("gradients", "cosine against the number of draws"),
    "predict": ("prediction", "predictions beside measurements"),
    "randomness": ("randomness", "accuracies and correlations"),
    "snr": ("snr", "randomness against input"),
    "survival": ("survival", "share of images that survive"),
    "steps": ("steps", "compression of every step"),
    "transport": ("transport", "transport against sigma"),
    "two-point": ("two_point", "transport of two points against sigma"),
    "timesteps": ("timesteps", "accuracy and compression over t"),
}
for _verb, (_name, _about) in _FIGURES.items():
    RUN_FIGURES.register(_verb, f"{_HERE}.{_name}_figure:{_name}_figure", about=_about)
RUN_FIGURES.register(
    "certify", f"{_HERE}.certification.figure:certification_figure", about="accuracy over radius"
)

JOINT_FIGURES: Registry[Callable[[Sequence[Any], Path], Path]] = Registry(
    "verb with a joint figure"
)
JOINT_FIGURES.register("steps", f"{_HERE}.steps_figure:draw_steps", about="one column a purifier")
JOINT_FIGURES.register(
    "survival", f"{_HERE}.survival_figure:draw_survival", about="one curve a run"
)
JOINT_FIGURES.register(
    "transport", f"{_HERE}.transport_figure:draw_transport", about="one curve a run"
)
