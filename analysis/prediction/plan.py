"""The runs that a prediction stands on, checked before anything is computed."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from advpure.analysis.compression.study import Compression
from advpure.analysis.prediction.parts import noise_strength
from advpure.analysis.prediction.settings import PredictionRun
from advpure.analysis.robustness.attack_choice import attack_settings, refuse_two_gradients
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.runs import RUNS, Prepared
from advpure.analysis.survival.study import Survival
from advpure.attacks.settings import AttackSettings
from advpure.base.errors import BadInput
from advpure.base.units import Norm, parse_eps
from advpure.data import dataset_info
from advpure.purifiers import PURIFIERS
from advpure.runs.records import run_id

_WIDEST: dict[str, float] = {"linf": 1.0, "l2": 4.0}


@dataclass(frozen=True)
class Part:
    """A run that a prediction stands on: its verb and settings, checked when it is asked for."""

    verb: str
    run: Any

    def load(self) -> Prepared:
        """Check the settings and load everything."""
        prepare = RUNS.get(self.verb).prepare
        assert prepare is not None
        return prepare(self.run)

    @cached_property
    def id(self) -> str:
        """The name of the run: the hash of its resolved settings. The networks are not kept."""
        return run_id(self.load().settings)


class Point(NamedTuple):
    """One purifier at one strength, and the runs that it stands on."""

    purifier: str
    t: int | None
    sigma: float | None
    rates: Part
    anchor: Part
    attack: Part

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Its own runs."""
        return self.rates, self.anchor, self.attack


@dataclass(frozen=True)
class PreparedPrediction:
    """A run that is checked, and has computed nothing yet.

    Attributes:
        points: Purifiers and strengths.
        clean: The survival of the classifier at clean images, which all of them share.
        count: Images.
        eps: Radius of the attack.
        cr_eps: Strength of the perturbations that measure compression.
        seed: Base seed.
        settings: Everything that identifies the run, JSON values.
    """

    points: tuple[Point, ...]
    clean: Part
    count: int
    eps: float
    cr_eps: float
    seed: int
    settings: dict[str, Any]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The runs that it stands on."""
        return (self.clean, *(part for point in self.points for part in point.parts))

    @property
    def total(self) -> int:
        """Images to measure, in every part anew."""
        return self.count * len(self.parts)


def prepare_prediction(run: PredictionRun) -> PreparedPrediction:
    """Check the settings of every run that a prediction stands on.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    model = _threat_model(run)
    measured = attack_settings(
        run.attack, run.attack_options, eps=model.eps, norm=model.norm, randomness="fixed"
    )
    refuse_two_gradients(run.attack, measured, run.gradient)
    search = _search(run, model, measured)
    clean = Part("survival", Survival(**_subject(run), **search))
    points = tuple(_point(run, model, search, *each) for each in grid(run))
    count = len(clean.run.load_images().ids)
    settings = {
        "verb": "predict", "dataset": run.dataset, "subset": run.subset, "n": count,
        "device": run.device,
        "threat_model": {"norm": model.norm, "eps": model.eps}, "top": model.top,
        "compression": {"eps": model.cr_eps, "distribution": run.distribution,
                        "perturbations": run.perturbations},
        "attack": {"name": run.attack, **dataclasses.asdict(measured)},
        "search": {"search": run.search, "bisections": run.bisections, "box": run.box,
                   "attack": search["attack"]},
        "randomness": {"seed": run.seed, "scheme": run.scheme},
        "clean": clean.id,
        "points": [
            {"purifier": p.purifier, "t": p.t, "sigma": p.sigma, "cr": p.rates.id,
             "anchor": p.anchor.id, "attack": p.attack.id}
            for p in points
        ],
    }  # fmt: skip
    return PreparedPrediction(points, clean, count, model.eps, model.cr_eps, run.seed, settings)


class _ThreatModel(NamedTuple):
    norm: Norm
    eps: float
    cr_eps: float
    top: float


def _threat_model(run: PredictionRun) -> _ThreatModel:
    info = dataset_info(run.dataset)
    norm = run.norm or info.norm
    if run.eps is None and norm != info.norm:
        raise BadInput(
            f"norm {norm}", f"has no default radius on {run.dataset}", "give one with --eps"
        )
    eps = info.eps if run.eps is None else parse_eps(run.eps, norm)
    cr_eps = noise_strength(eps, norm, run.dataset) if run.cr_eps is None else parse_eps(run.cr_eps)
    if run.top is not None:
        return _ThreatModel(norm, eps, cr_eps, parse_eps(run.top, norm))
    widest = max(eps, info.eps) if norm == info.norm else eps
    return _ThreatModel(norm, eps, cr_eps, min(2.0 * widest, _WIDEST[norm]))


def _subject(run: PredictionRun) -> dict[str, Any]:
    names = ("dataset", "subset", "n", "scheme", "tile", "device")
    return {name: getattr(run, name) for name in names}


def _search(run: PredictionRun, model: _ThreatModel, measured: AttackSettings) -> dict[str, Any]:
    """Return the settings of every search for r*."""
    return {
        "norm": model.norm, "top": model.top, "bisections": run.bisections, "search": run.search,
        "classifier": run.classifier, "outputs": run.outputs,
        **_radius_attack(run, measured, model.top / model.eps),
    }  # fmt: skip


def _radius_attack(run: PredictionRun, measured: AttackSettings, share: float) -> dict[str, Any]:
    """Return the attack that finds r*: the measured one in the larger bracket, or another."""
    if run.radius_attack is not None:
        return {"attack": run.radius_attack, "attack_options": run.radius_options}
    if run.radius_options:
        raise BadInput(
            f"options {', '.join(run.radius_options)} of the search's attack",
            "would change an attack that is the measured one",
            "name it too, --radius-attack",
        )
    options = {**run.attack_options, "randomness": "fixed"}
    steps, step = (getattr(measured, name, None) for name in ("steps", "step_size"))
    if steps is not None:
        options["steps"] = steps
    if step is not None:
        options["step_size"] = step * share
    return {"attack": run.attack, "attack_options": options}


def _point(
    run: PredictionRun,
    model: _ThreatModel,
    search: dict[str, Any],
    name: str,
    t: int | None,
    sigma: float | None,
) -> Point:
    own: dict[str, Any] = {
        **_subject(run), "defense": name, "t": t, "sigma": sigma, "options": run.options,
        "weights": run.weights,
    }  # fmt: skip
    rates = Compression(
        **own, eps=model.cr_eps, distribution=run.distribution, perturbations=run.perturbations,
        seeds=run.seed,
    )  # fmt: skip
    anchor = Survival(**own, **search, at="anchor", box=run.box, seed=run.seed)
    attack = Robustness(randomness="fixed",
        **own, classifier=run.classifier, outputs=run.outputs, gradient=run.gradient,
        attack=run.attack, eps=model.eps, norm=model.norm, attack_options=run.attack_options,
        seed=run.seed,
    )  # fmt: skip
    return Point(
        name, t, sigma, Part("cr", rates), Part("survival", anchor), Part("attack", attack)
    )


def grid(run: PredictionRun) -> list[tuple[str, int | None, float | None]]:
    """Return every purifier with every strength: name, t, sigma.

    Raises:
        BadInput: for an unknown purifier, both strengths, or a pair that is named twice.

    Example:
        >>> grid(PredictionRun(defense="ddpm, ddim", t=[10, 20]))[1:3]
        [('ddpm', 20, None), ('ddim', 10, None)]
    """
    for name in run.names():
        PURIFIERS.get(name)
    if run.t is not None and run.sigma is not None:
        raise BadInput(f"t {run.t} and sigma {run.sigma}", "are two strengths", "give one")
    return list(product(run.names(), run.times() or [None], run.levels() or [None]))
