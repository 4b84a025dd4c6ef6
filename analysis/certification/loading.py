"""What a certification run computes with: classifier, chains per noise level, images, procedure."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from advpure.analysis.certification.base_classifier import (
    Classify,
    base_classifier,
    chain_on_noisy,
    check_covered,
)
from advpure.analysis.certification.composed import Selector, check_composed, make_selector
from advpure.analysis.certification.curves import procedure_json
from advpure.analysis.certification.grid import find_grid
from advpure.analysis.certification.noise import CHUNK, stage_xi
from advpure.analysis.certification.procedures import Procedure
from advpure.analysis.certification.settings import CertificationSettings
from advpure.analysis.study import Loaded
from advpure.analysis.subject import DefenseSubject
from advpure.base.errors import BadInput
from advpure.base.validation import fields_of
from advpure.core.chain import Chain, Noise
from advpure.core.defense import Defense, classified
from advpure.core.levelled import LevelledClassifier
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import DatasetInfo, Images, dataset_info
from advpure.loading import describe
from advpure.purifiers import PURIFIERS

_TILES = 4  # of the data set's: there are always rows enough, and larger calls cost less each


@dataclass(frozen=True, kw_only=True)
class LoadedCertification(Loaded):
    """A run that is checked and loaded.

    What its counts depend on is `counts_identity` of its settings: neither the procedure nor its
    alpha, N or noise levels.

    Attributes:
        defense: Classifier, policy and tile; its purifier has the first noise level's strength.
        chains: Noise level to the steps that follow the smoothing noise.
        images: Images, labels, ids; on the CPU.
        procedure: What is asked of the counts.
        xi: Base configuration of all noise.
        grid: Steps of the grid that the noise lies on; None for normal noise.
        selector: Of a composition.
    """

    defense: Defense
    chains: Mapping[float, Chain]
    images: Images
    procedure: Procedure
    xi: RandomnessConfig
    grid: int | None = None
    selector: Selector | None = None

    @property
    def evaluations(self) -> dict[float, int]:
        """Noise level to network evaluations per sample."""
        draws = self.defense.policy.draws
        return {sigma: draws * (chain.evaluations + 1) for sigma, chain in self.chains.items()}

    @property
    def device(self) -> torch.device:
        """Where the base classifier computes."""
        weight = next(self.defense.parameters(), None)
        return torch.device("cpu") if weight is None else weight.device

    @property
    def clean(self) -> dict[int, torch.Tensor]:
        """The images by id."""
        return dict(zip(self.images.ids.tolist(), self.images.images, strict=True))

    def classify(self, sigma: float, stage: str) -> Classify:
        """Return the base classifier of a noise level, for the samples of a stage."""
        pack = None if self.selector is None else self.selector.pack
        defense = at_level(self.defense, sigma)
        return base_classifier(defense, self.chains[sigma], stage_xi(self.xi, stage), pack)


def at_level(defense: Defense, sigma: float) -> Defense:
    """Return a defense whose classifier, where it receives the noise level, is for this one.

    Args:
        defense: The defense; it stays as it is.
        sigma: Standard deviation of the smoothing noise, [0, 1] units.

    Raises:
        BadInput: for a level that the classifier was not trained for.
    """
    if not isinstance(defense.classifier, LevelledClassifier):
        return defense
    view = defense.at()
    view.classifier = defense.classifier.at(sigma)
    return view


def _classes(defense: Defense, info: DatasetInfo) -> int:
    """Return how many classes a classifier tells apart; one evaluation of a grey tile."""
    device = next((each.device for each in defense.parameters()), torch.device("cpu"))
    grey = torch.full((defense.tile or 1, *info.shape), 0.5, device=device)
    ids = torch.zeros(len(grey), dtype=torch.int64, device="cpu")
    with torch.no_grad():  # a shape
        logits = classified(defense.classifier, grey, Noise(RandomnessConfig(0), ids))
    return max(len(info.classes), logits.shape[1])


def load_certification(run: CertificationSettings, *sources: object) -> LoadedCertification:
    """Check and load everything that a run needs.

    Args:
        run: The settings.
        sources: Functions whose files the records name.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    info = dataset_info(run.dataset)
    procedure = run.resolved_procedure(len(info.classes))
    kind = PURIFIERS.get(run.defense)
    has_level = "sigma" in {each.name for each in dataclasses.fields(kind)}
    xi = RandomnessConfig(run.seed, run.scheme)
    subject = {
        **fields_of(DefenseSubject, run),
        "sigma": procedure.sigmas[0] if has_level else None,
        "tile": _TILES * info.tile if run.tile is None else run.tile,
    }
    defense = DefenseSubject(**subject).load_defense(xi)
    if info.digest is not None:  # of images that a user brings, the classifier knows the classes
        procedure = run.resolved_procedure(_classes(defense, info))
    chains = {s: _chain_at(defense.purifier, s, has_level) for s in procedure.sigmas}
    for sigma in procedure.sigmas:
        at_level(defense, sigma)
    images = run.load_images()
    images = Images(images.images.cpu(), images.labels.cpu(), images.ids)
    described = {
        key: value
        for key, value in describe(defense).items()
        if key not in ("sigma", "t", "evaluations", "gradient")
    }
    selector = None
    if run.core is not None:
        selector, described_parts = make_selector(
            run.core, run.select_entropy, run.dataset, images, defense, run.selector
        )
        described |= described_parts
    grid = find_grid(images.images) if run.noise == "grid" else None
    settings = {
        **run.identity("certify", images),
        "defense": described,
        "randomness": {"seed": run.seed, "scheme": run.scheme, "chunk": CHUNK}
        | ({} if grid is None else {"noise": "grid", "grid": grid}),
        "procedure": procedure_json(procedure),
    }
    check_composed(settings, procedure.name, "pass --core NAME")
    _refuse_idle(run, defense, chains)
    return LoadedCertification(
        settings=settings,
        context=run.context(defense, described, *sources),
        samples=images.ids.tolist(),
        defense=defense,
        chains=chains,
        images=images,
        procedure=procedure,
        xi=xi,
        grid=grid,
        selector=selector,
    )


def _chain_at(purifier: Purifier, sigma: float, has_level: bool) -> Chain:
    """Return the steps that follow the smoothing noise of a level."""
    name = (purifier.settings.get("denoiser") or {}).get("name", "network")
    check_covered(purifier.denoiser, name, sigma)
    chain = purifier.chain
    if has_level:
        assert purifier.recipe is not None
        recipe: Any = dataclasses.replace(purifier.recipe, sigma=sigma)  # type: ignore[call-arg]
        chain = purifier.laid_out(recipe)
    return chain_on_noisy(chain, sigma)


def _refuse_idle(
    run: CertificationSettings, defense: Defense, chains: Mapping[float, Chain]
) -> None:
    """Refuse a policy that would cost something or mislead, and change nothing."""
    if run.policy is None or defense.policy.draws == 1:
        return
    for sigma, chain in chains.items():
        if not any(step.noisy for step in chain):
            raise BadInput(
                f"policy {run.policy}",
                f"has nothing to choose from: at sigma {sigma:g} the purifier draws no noise "
                "beside the smoothing noise",
                "leave it out",
            )


def counts_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row of counts depends on, beside its key: where it is equal, rows agree."""
    procedure = settings["procedure"]
    return {
        **{key: settings[key] for key in ("verb", "dataset", "subset", "defense", "randomness")},
        "selection": procedure["selection"],
        "block": procedure["block"],
    }
