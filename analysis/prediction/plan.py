"""The runs that a prediction needs, checked before anything is computed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, NamedTuple

from advpure.analysis.compression.study import Compression
from advpure.analysis.prediction.parts import noise_strength
from advpure.analysis.prediction.settings import PredictionSettings
from advpure.analysis.robustness.attack_choice import attack_settings, refuse_two_gradients
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.study import Study
from advpure.analysis.survival.study import Survival
from advpure.attacks.settings import AttackSettings
from advpure.base.errors import BadInput
from advpure.base.units import Norm, parse_eps
from advpure.data import dataset_info
from advpure.runs.records import run_id

_WIDEST: dict[str, float] = {"linf": 1.0, "l2": 4.0}


@dataclass(frozen=True)
class Part:
    """A run that a prediction needs, checked when it is asked for."""

    study: Study[Any, Any]

    @cached_property
    def id(self) -> str:
        """The name of the run: the hash of its resolved settings. The networks are not kept."""
        return run_id(self.study.load().settings)


class Point(NamedTuple):
    """One purifier at one strength, and the runs that its prediction needs."""

    purifier: str
    t: int | None
    sigma: float | None
    rates: Part
    anchor: Part
    attack: Part

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The runs of this purifier alone."""
        return self.rates, self.anchor, self.attack


class Plan(NamedTuple):
    """The runs of a prediction.

    Attributes:
        points: Purifiers and strengths.
        clean: The survival of the classifier at clean images, which all of them share.
        cr_eps: Strength of the perturbations that measure compression.
        described: What identifies the prediction beside its images, JSON values.
    """

    points: Sequence[Point]
    clean: Part
    cr_eps: float
    described: dict[str, Any]

    @property
    def parts(self) -> tuple[Part, ...]:
        """All runs that the prediction needs."""
        return (self.clean, *(part for point in self.points for part in point.parts))


class _ThreatModel(NamedTuple):
    norm: Norm
    eps: float
    cr_eps: float
    top: float


def plan(settings: PredictionSettings) -> Plan:
    """Check the settings of every run that a prediction needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    s, model = settings, _threat_model(settings)
    measured = attack_settings(
        s.attack, s.attack_options, eps=model.eps, norm=model.norm, randomness="fixed"
    )
    refuse_two_gradients(s.attack, measured, s.gradient)
    search = _search(s, model, measured)
    clean = Part(Survival(**_images(s), **search))
    points = [_point(s, model, search, *each) for each in s.grid()]
    described = {
        "threat_model": {"norm": model.norm, "eps": model.eps},
        "top": model.top,
        "compression": {
            "eps": model.cr_eps,
            "distribution": s.distribution,
            "perturbations": s.perturbations,
        },
        "attack": {"name": s.attack, **asdict(measured)},
        "search": {
            "search": s.search,
            "bisections": s.bisections,
            "box": s.box,
            "attack": search["attack"],
        },
        "randomness": {"seed": s.seed, "scheme": s.scheme},
        "clean": clean.id,
        "points": [
            {
                "purifier": p.purifier,
                "t": p.t,
                "sigma": p.sigma,
                "cr": p.rates.id,
                "anchor": p.anchor.id,
                "attack": p.attack.id,
            }
            for p in points
        ],
    }
    if s.precision != "float32":
        described["defense"] = {"precision": s.precision}
    return Plan(points, clean, model.cr_eps, described)


def _threat_model(s: PredictionSettings) -> _ThreatModel:
    info, (norm, eps) = dataset_info(s.dataset), s.threat_model()
    cr_eps = noise_strength(eps, norm, s.dataset) if s.cr_eps is None else parse_eps(s.cr_eps)
    if s.top is not None:
        return _ThreatModel(norm, eps, cr_eps, parse_eps(s.top, norm))
    widest = max(eps, info.eps or 0.0) if norm == info.norm else eps
    return _ThreatModel(norm, eps, cr_eps, min(2.0 * widest, _WIDEST[norm]))


def _images(s: PredictionSettings) -> dict[str, Any]:
    names = ("dataset", "subset", "n", "scheme", "tile", "precision", "device")
    return {name: getattr(s, name) for name in names}


def _search(s: PredictionSettings, model: _ThreatModel, measured: AttackSettings) -> dict[str, Any]:
    """Return the settings of every search for r*."""
    return {
        "norm": model.norm,
        "top": model.top,
        "bisections": s.bisections,
        "search": s.search,
        **s.judging(),
        **_radius_attack(s, measured, model.top / model.eps),
    }


def _radius_attack(s: PredictionSettings, measured: AttackSettings, share: float) -> dict[str, Any]:
    """Return the attack that finds r*: the measured one in the larger bracket, or another."""
    if s.radius_attack is not None:
        return {"attack": s.radius_attack, "attack_options": s.radius_options}
    if s.radius_options:
        raise BadInput(
            f"options {', '.join(s.radius_options)} of the search's attack",
            "would change an attack that is the measured one",
            "name it too, --radius-attack",
        )
    options = {**s.attack_options, "randomness": "fixed"}
    said = asdict(measured)  # what it may be told, not what it computes from that
    steps, step = said.get("steps"), said.get("step_size")
    if steps is not None:
        options["steps"] = steps
    if step is not None:
        options["step_size"] = step * share
    return {"attack": s.attack, "attack_options": options}


def _point(
    s: PredictionSettings,
    model: _ThreatModel,
    search: dict[str, Any],
    name: str,
    t: int | None,
    sigma: float | None,
) -> Point:
    own: dict[str, Any] = {
        **_images(s),
        "defense": name,
        "t": t,
        "sigma": sigma,
        "options": s.options,
        "weights": s.weights,
        "denoiser": s.denoiser,
        "boost": s.boost,
        "boost_options": s.boost_options,
    }
    rates = Compression(
        **own,
        eps=model.cr_eps,
        distribution=s.distribution,
        perturbations=s.perturbations,
        seeds=s.seed,
    )
    anchor = Survival(**own, **search, at="anchor", box=s.box, seed=s.seed)
    attack = Robustness(
        **own,
        randomness="fixed",
        **s.judging(),
        gradient=s.gradient,
        attack=s.attack,
        eps=model.eps,
        norm=model.norm,
        attack_options=s.attack_options,
        seed=s.seed,
    )
    return Point(name, t, sigma, Part(rates), Part(anchor), Part(attack))
