"""The studies by name: what the command line, a sweep or a script can run, resume and report.

A study is one class, see `advpure.analysis.study` and docs/new-study.md, and one line here; the
line is read without importing the study.
"""

from typing import TYPE_CHECKING, Any

from advpure.base.registry import Registry

if TYPE_CHECKING:
    from advpure.analysis.study import Study

STUDIES: "Registry[type[Study[Any, Any]]]" = Registry("verb", group="advpure.studies")
_HERE = "advpure.analysis"

STUDIES.register(
    "attack", f"{_HERE}.robustness.study:Robustness", about="clean, noise and robust accuracy"
)
STUDIES.register("snr", f"{_HERE}.variability.study:Snr", about="randomness against input")
STUDIES.register(
    "survival", f"{_HERE}.survival.study:Survival", about="smallest perturbations that fool"
)
STUDIES.register(
    "predict", f"{_HERE}.prediction.study:PredictedRobustness", about="robustness from compression"
)
STUDIES.register(
    "randomness",
    f"{_HERE}.fixed_randomness.study:FixedRandomness",
    about="fixed against fresh randomness",
)
STUDIES.register(
    "timesteps", f"{_HERE}.timesteps.study:Timesteps", about="accuracy and compression over t"
)
STUDIES.register("cr", f"{_HERE}.compression.study:Compression", about="expected compression rate")
STUDIES.register(
    "transport", f"{_HERE}.transport.study:Transport", about="distance to purified images"
)
STUDIES.register(
    "distances", f"{_HERE}.distances.study:Distances", about="distances along the chain"
)
STUDIES.register(
    "field", f"{_HERE}.closed_forms.field_study:ScoreField", about="Gaussian score field, simulated"
)
STUDIES.register(
    "two-point",
    f"{_HERE}.closed_forms.two_point_study:TwoPoint",
    about="two points, in closed form",
)
STUDIES.register(
    "gradients", f"{_HERE}.gradient_noise.study:GradientNoise", about="noise of the gradient"
)
STUDIES.register(
    "certify", f"{_HERE}.certification.study:Certification", about="randomized smoothing"
)
STUDIES.register("measure", f"{_HERE}.metrics.measure:Measure", about="a metric of every image")
STUDIES.register(
    "check-grad", f"{_HERE}.check_grad.study:CheckGrad", about="proof of the gradients"
)
STUDIES.register(
    "audit", f"{_HERE}.audit.study:Audit", about="an evaluation against the guidelines"
)
STUDIES.register("steps", f"{_HERE}.steps.study:Steps", about="compression of every step")
STUDIES.register(
    "representation",
    f"{_HERE}.representation:Representation",
    about="compression of a representation over noise",
)
STUDIES.register("generate", f"{_HERE}.generation.study:Generate", about="images from noise alone")
STUDIES.register(
    "boost", f"{_HERE}.boosting.study:Boost", about="generated images, refined by a joint model"
)
