"""The studies by name: what the command line, a sweep or a script can run, resume and report.

A study is one class, see `advpure.analysis.study` and docs/new-study.md, and one line here; the
line is read without importing the study.
"""

from typing import TYPE_CHECKING, Any

from advpure.base.registry import Registry

if TYPE_CHECKING:
    from advpure.analysis.study import Study

STUDIES: "Registry[type[Study[Any, Any]]]" = Registry("verb")
_HERE = "advpure.analysis"

STUDIES.register(
    "attack", f"{_HERE}.robustness.study:Robustness", about="clean, noise and robust accuracy"
)
STUDIES.register("snr", f"{_HERE}.variability.study:Snr", about="randomness against input")
STUDIES.register("cr", f"{_HERE}.compression.study:Compression", about="expected compression rate")
STUDIES.register(
    "transport", f"{_HERE}.transport.study:Transport", about="distance to purified images"
)
STUDIES.register(
    "distances", f"{_HERE}.distances.study:Distances", about="distances along the chain"
)
STUDIES.register("measure", f"{_HERE}.metrics.measure:Measure", about="a metric of every image")
STUDIES.register(
    "check-grad", f"{_HERE}.check_grad.study:CheckGrad", about="proof of the gradients"
)
