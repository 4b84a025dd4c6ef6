"""What a distances run depends on, checked and loaded: subject, perturbations, metrics."""

from dataclasses import dataclass, field
from typing import Any, get_args

from advpure.analysis.metrics.choice import Chosen, load_metrics
from advpure.analysis.metrics.networks import Surroundings
from advpure.analysis.perturbations import Distribution
from advpure.analysis.perturbed import Perturber, parse_perturbations, perturbers
from advpure.analysis.robustness.attack_choice import refuse_two_gradients
from advpure.analysis.subject import JudgedSubject
from advpure.base.errors import BadInput
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Seed
from advpure.base.units import Norm
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, dataset_info
from advpure.loading import describe


@dataclass(frozen=True, kw_only=True)
class DistancesRun(JudgedSubject):
    """Everything that a distances run depends on, beside its subject.

    Attributes:
        perturb: Perturbations, a list or text joined by commas: ``none``, ``uniform:8/255``,
            ``gaussian:8/255``, ``sign:8/255``, ``attack:pgd``, ``attack:bpda:4/255``.
        metrics: Metrics before and after purification, likewise; "all" those that can be had.
        norm: Norm of attacks; None for the data set's.
        attack_options: Settings of the attacks; each takes those that it knows, `pgd.steps` is
            one of `pgd` alone.
        clip: Clip random perturbations to [0, 1].
        seed: Base seed of the purifier's noise and of random perturbations.
    """

    perturb: str | tuple[str, ...] | list[str] = "uniform:8/255"
    metrics: str | tuple[str, ...] | list[str] = "all"
    norm: Norm | None = None
    attack_options: dict[str, Any] = field(default_factory=dict)
    clip: bool = False
    seed: Seed = 0


@dataclass(frozen=True)
class PreparedDistances:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        model: The defense, or the purifier alone where the data set has no classifier.
        images: Images, labels, ids.
        perturbers: The perturbations.
        chosen: The metrics.
        xi: Randomness.
        settings: Everything that identifies the run, JSON values.
    """

    model: Defense | Purifier
    images: Images
    perturbers: tuple[Perturber, ...]
    chosen: Chosen
    xi: RandomnessConfig
    settings: dict[str, Any]

    @property
    def purifier(self) -> Purifier:
        """The purifier."""
        return self.model.purifier if isinstance(self.model, Defense) else self.model

    @property
    def total(self) -> int:
        """Purifications of the whole run."""
        return len(self.perturbers) * len(self.images.ids)


def prepare_distances(run: DistancesRun) -> PreparedDistances:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    info = dataset_info(run.dataset)
    norm = run.norm or info.norm
    known = info.eps if norm == info.norm else 0.0  # no attack can be told to have radius 0
    wanted = parse_perturbations(run.perturb, known, norm)
    if any(p.kind == "attack" and p.eps == 0.0 for p in wanted):
        rule = f"has no default radius on {run.dataset}"
        raise BadInput(f"norm {norm}", rule, "write attack:pgd:0.5")
    if not any(p.kind == "attack" for p in wanted):
        rule = "means nothing without an attack among the perturbations"
        refuse_idle(run, ("norm", "gradient"), rule)
    if run.clip and not any(p.kind in get_args(Distribution) for p in wanted):
        raise BadInput("clip", "means nothing without random perturbations", "leave it out")
    made = perturbers(wanted, run.attack_options, norm=norm, seed=run.seed, clip=run.clip)
    for each in made:
        refuse_two_gradients(each.perturbation.attack, each.settings, run.gradient)
    xi = RandomnessConfig(run.seed, run.scheme)
    model = _load(run, xi, attacked=any(p.run is not None for p in made))
    images = run.load_images()
    judge = model.classifier if isinstance(model, Defense) else None
    described = describe(model) if isinstance(model, Defense) else _alone(model)
    surroundings = Surroundings(
        classifier=judge, identity=described.get("classifier"), tile=model.tile,
        shape=info.shape, device=run.device,
    )  # fmt: skip
    chosen = load_metrics(run.metrics, surroundings)
    settings = {
        **run.identity("distances", images),
        "defense": described,
        "perturbations": [each.describe() for each in made],
        "norm": norm,
        "clip": run.clip,
        **chosen.identity,
        "missing": list(chosen.missing),
        "randomness": {"seed": run.seed, "scheme": run.scheme},
    }
    return PreparedDistances(model, images, made, chosen, xi, settings)


def _load(run: DistancesRun, xi: RandomnessConfig, *, attacked: bool) -> Defense | Purifier:
    """Load purifier and classifier; the purifier alone where there is no classifier to attack."""
    if attacked or run.classifier or dataset_info(run.dataset).classifier:
        return run.load_defense(xi)
    return run.load_purifier(xi, gradient=run.gradient)


def _alone(purifier: Purifier) -> dict[str, Any]:
    return {**purifier.settings, "tile": purifier.tile}
