"""The recorded verbs by name: what a sweep, a reproduction or a script can run and resume.

A verb is a frozen settings dataclass and a function `measure(settings, *, out, batch_size,
progress)` that resumes the run folder and returns a report. A new verb is one module with a
`Verb`, and one line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from advpure.base.registry import Registry
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore


class Report(Protocol):
    """What every verb returns; computed from the records of its run folder."""

    @property
    def run(self) -> Path:
        """The run folder."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that identifies the run, JSON values."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a careful reader should know, in sentences."""

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object with values, n and intervals."""


class Prepared(Protocol):
    """A run that is checked and loaded, and has computed nothing yet."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that identifies the run, JSON values."""


@dataclass(frozen=True)
class Verb:
    """A verb that leaves records.

    Attributes:
        settings: Its settings, a frozen dataclass; a subclass of `Subject` where one purifier is
            measured.
        measure: From settings, and the keywords `out` (run folder or None), `batch_size` (int or
            None) and `progress` (called with the number of finished units), to a report.
        total: Units of work of given settings, for a progress bar; it loads no network.
        prepare: Checks settings and loads everything; returns what has the resolved `settings`,
            which name the run folder.
        estimate: The cost of what `prepare` returned.
        report: The report of a run from its records alone; it loads no network. A sweep needs it
            to show values, and figures are drawn from it.
    """

    settings: type[Any]
    measure: Callable[..., Report]
    total: Callable[[Any], int] | None = None
    prepare: Callable[[Any], Prepared] | None = None
    estimate: Callable[[Any], Cost] | None = None
    report: Callable[[RecordStore], Report] | None = None


class Ready(NamedTuple):
    """A study and what it loaded."""

    study: Any
    loaded: Any

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that identifies the run."""
        settings: dict[str, Any] = self.loaded.settings
        return settings


def as_verb(kind: type[Any]) -> Verb:
    """Return the verb of a study."""
    return Verb(
        kind,
        lambda study, **how: study.run(**how),
        total=lambda study: study.total(study.load()),
        prepare=lambda study: Ready(study, study.load()),
        estimate=lambda ready: ready.study.cost(ready.loaded),
        report=kind.report,
    )


RUNS: Registry[Verb] = Registry("verb")
_HERE = "advpure.analysis"

RUNS.register("attack", f"{_HERE}.robustness.study:VERB", about="clean, noise and robust accuracy")
RUNS.register("cr", f"{_HERE}.compression.study:VERB", about="expected compression rate")
RUNS.register("snr", f"{_HERE}.variability.study:VERB", about="randomness against input")
RUNS.register("steps", f"{_HERE}.steps.study:VERB", about="compression of every step")
RUNS.register(
    "field", f"{_HERE}.closed_forms.field_study:VERB", about="Gaussian score field, simulated"
)
RUNS.register("distances", f"{_HERE}.distances.study:VERB", about="distances along the chain")
RUNS.register("gradients", f"{_HERE}.gradient_noise.study:VERB", about="noise of the gradient")
RUNS.register("certify", f"{_HERE}.certification.study:VERB", about="randomized smoothing")
RUNS.register(
    "randomness", f"{_HERE}.fixed_randomness.study:VERB", about="fixed against fresh randomness"
)
RUNS.register("timesteps", f"{_HERE}.timesteps.study:VERB", about="accuracy and compression over t")
RUNS.register("survival", f"{_HERE}.survival.study:VERB", about="smallest perturbations that fool")
RUNS.register("predict", f"{_HERE}.prediction.study:VERB", about="robustness from compression")
RUNS.register("transport", f"{_HERE}.transport.study:VERB", about="distance to purified images")
RUNS.register(
    "two-point", f"{_HERE}.closed_forms.two_point_study:VERB", about="two points, in closed form"
)
