"""What a certification run is about, and how it is loaded."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from advpure.analysis.certification.anytime import FUTILITY
from advpure.analysis.certification.base_classifier import (
    Classify,
    base_classifier,
    chain_on_noisy,
    check_covered,
)
from advpure.analysis.certification.composed import Selector, check_composed, make_selector
from advpure.analysis.certification.noise import CHUNK, stage_xi
from advpure.analysis.certification.procedures import ProcedureName, Reading, find_procedure
from advpure.analysis.certification.radius import check_credible, read_radii, read_sigmas
from advpure.analysis.certification.report import reading_json
from advpure.analysis.subject import JudgedSubject
from advpure.base.errors import BadInput
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Seed, Share
from advpure.base.text import read_shard
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import Images, dataset_info
from advpure.loading import describe
from advpure.purifiers import PURIFIERS

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Radii asked for unless told otherwise, [0, 1] units."""
_FIXED_BLOCK, _ANYTIME_BLOCK = 1000, 64
_LEAST_BLOCK = 100  # smaller ones would make more rows of records than they are worth
_TILES = 4  # of the data set's: there are always rows enough, and larger calls cost less each


@dataclass(frozen=True, kw_only=True)
class CertificationRun(JudgedSubject):
    """Everything that a certification run depends on, beside its subject.

    The noise level sigma is that of the smoothing, in [0, 1] units, and the strength of the
    purifier with it; t means nothing here.

    Attributes:
        sigmas: Several noise levels, numbers or text such as ``0.25,0.5,1.0``, instead of one
            sigma; 0.25 unless one of them is given.
        procedure: ``fixed`` (Cohen), ``anytime``, ``cascade``, ``predict`` or ``composed``
            (selection between two classifiers; needs a core).
        core: Weights of the accurate classifier of a composition, see `composition`.
        select_entropy: Of a composition: the largest entropy, nats, that chooses the certified
            classifier.
        selector: Of a composition: weights of a trained selector, which chooses instead of the
            entropy.
        samples: Samples N per image and noise level; of ``anytime``, at most.
        selection: Samples n0 that select the class.
        alpha: Probability of error per image and noise level.
        joint: Per image: alpha divided by the number of noise levels, so that all hold at once.
        radii: Radii asked for, [0, 1] units, numbers or text.
        futility: Of ``anytime``: gives up on a radius later if smaller.
        block: Samples per row of the records; by default 64 of ``anytime``, else 1,000, or the
            most below that of which N is a multiple.
        shard: ``i/k``: compute the i-th of k parts, i from 1 to k.
        seed: Base seed of all noise.
        scheme: Keys of the noise; ``counter`` never repeats any.
        tile: Compute tile; None for four times the data set's.
    """

    sigmas: str | float | Sequence[str | float] | None = None
    procedure: ProcedureName = "fixed"
    core: str | None = None
    select_entropy: float = 0.5
    selector: str | None = None
    samples: Natural = 10_000
    selection: Natural = 100
    alpha: float = 0.001
    joint: bool = False
    radii: str | float | Sequence[str | float] = RADII
    futility: Share = FUTILITY
    block: Natural | None = None
    shard: str | None = None
    seed: Seed = 0
    scheme: Scheme = "counter"

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others."""
        super().__post_init__()
        check_credible(self.alpha)
        levels = self.levels()
        read_radii(self.radii)
        self.part()
        if self.joint and len(levels) == 1 and self.procedure != "cascade":
            raise BadInput("joint", "means nothing to one noise level", "leave it out")
        if self.procedure != "anytime":
            refuse_idle(
                self, ["futility"], f"means nothing to {self.procedure}, which gives up on nothing",
                "leave it out, or use procedure anytime",
            )  # fmt: skip
        if self.core is None:
            names = ("selector", "select_entropy")
            refuse_idle(self, names, "chooses between two classifiers", "pass a core")
        elif self.selector is not None:
            refuse_idle(self, ["select_entropy"], "means nothing beside a trained selector")

    def levels(self) -> tuple[float, ...]:
        """Return the noise levels, increasing.

        Raises:
            BadInput: for levels out of range, or given in both ways.
        """
        if self.sigma is not None and self.sigmas is not None:
            raise BadInput(
                f"sigma {self.sigma:g} beside sigmas", "names noise levels twice", "give one"
            )
        given = self.sigma if self.sigmas is None else self.sigmas
        return read_sigmas(0.25 if given is None else given)

    def reading(self, levels: Sequence[float] | None = None, classes: int = 2) -> Reading:
        """Return what is asked of the counts.

        Args:
            levels: Noise levels instead of the run's own.
            classes: Number of classes.

        Raises:
            BadInput: for a setting out of range, or samples that cannot certify anything.
        """
        kind = find_procedure(self.procedure)
        return kind(
            sigmas=tuple(levels) if levels is not None else self.levels(),
            radii=read_radii(self.radii), alpha=self.alpha, samples=self.samples,
            selection=self.selection, block=self.block_size, joint=self.joint, classes=classes,
            futility=self.futility,
        )  # fmt: skip

    @property
    def block_size(self) -> int:
        """Samples per row of the records."""
        if self.block is not None:
            return self.block
        return _ANYTIME_BLOCK if self.procedure == "anytime" else _block_of(self.samples)

    def part(self) -> tuple[int, int]:
        """Return the shard as (i, k), i from 0.

        Raises:
            BadInput: for text that is no i/k with 1 <= i <= k.
        """
        if self.shard is None:
            return 0, 1
        i, k = read_shard(self.shard)
        return i - 1, k


def _block_of(samples: int) -> int:
    """Return the largest block of up to 1,000 samples that divides N, if it is no tiny one."""
    if samples <= _FIXED_BLOCK:
        return samples
    divisors = range(_FIXED_BLOCK, _LEAST_BLOCK - 1, -1)
    return next((block for block in divisors if samples % block == 0), _FIXED_BLOCK)


@dataclass(frozen=True, kw_only=True)
class PreparedCertification:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        defense: Classifier, policy and tile; its purifier has the first noise level's strength.
        chains: Noise level to the steps that follow the smoothing noise.
        evaluations: Noise level to network evaluations per sample.
        images: Images, labels, ids.
        reading: What is asked of the counts.
        xi: Base configuration of all noise.
        settings: Everything that identifies the run, JSON values. What its counts depend on is
            `counts_identity` of it: neither the procedure nor its alpha, N or noise levels.
        selector: Of a composition.
    """

    defense: Defense
    chains: dict[float, Chain]
    evaluations: dict[float, int]
    images: Images
    reading: Reading
    xi: RandomnessConfig
    settings: dict[str, Any]
    selector: Selector | None = None

    def classify(self, sigma: float, stage: str) -> Classify:
        """Return the base classifier of a noise level, for the samples of a stage."""
        pack = None if self.selector is None else self.selector.pack
        return base_classifier(self.defense, self.chains[sigma], stage_xi(self.xi, stage), pack)


def prepare_certification(run: CertificationRun) -> PreparedCertification:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    reading = run.reading(classes=len(dataset_info(run.dataset).classes))
    run.part()
    if run.t is not None:
        raise BadInput(f"t {run.t}", "is not a strength of its own here", "leave it out: sigma is")
    kind = PURIFIERS.get(run.defense)
    has_level = "sigma" in {each.name for each in dataclasses.fields(kind)}
    xi = RandomnessConfig(run.seed, run.scheme)
    first = dataclasses.replace(
        run, sigmas=None, sigma=reading.sigmas[0] if has_level else None, joint=False,
        tile=_TILES * dataset_info(run.dataset).tile if run.tile is None else run.tile,
    )  # fmt: skip
    defense = first.load_defense(xi)
    purifier = defense.purifier
    name = (purifier.settings.get("denoiser") or {}).get("name", "network")
    chains = {}
    for sigma in reading.sigmas:
        check_covered(purifier.denoiser, name, sigma)
        whole = purifier.chain
        if has_level:
            assert purifier.recipe is not None
            recipe: Any = dataclasses.replace(purifier.recipe, sigma=sigma)  # type: ignore[call-arg]
            whole = recipe.chain(purifier.denoiser)
        chains[sigma] = chain_on_noisy(whole, sigma)
    images = run.load_images()
    images = Images(images.images.cpu(), images.labels.cpu(), images.ids)
    described = {
        key: value
        for key, value in describe(defense).items()
        if key not in ("sigma", "t", "evaluations", "gradient")
    }
    selector = None
    if run.core is not None:
        selector, told = make_selector(
            run.core, run.select_entropy, run.dataset, images, defense, run.selector
        )
        described |= told
    settings = {
        **run.identity("certify", images),
        "defense": described,
        "randomness": {"seed": run.seed, "scheme": run.scheme, "chunk": CHUNK},
        "reading": reading_json(reading),
    }
    check_composed(settings, reading.name)
    _refuse_idle(run, defense, chains)
    draws = defense.policy.draws
    return PreparedCertification(
        defense=defense, chains=chains, images=images, reading=reading, xi=xi, settings=settings,
        selector=selector,
        evaluations={s: draws * (chain.evaluations + 1) for s, chain in chains.items()},
    )  # fmt: skip


def _refuse_idle(run: CertificationRun, defense: Defense, chains: Mapping[float, Chain]) -> None:
    """Refuse settings that would cost something or mislead, and change nothing."""
    if run.policy is not None and defense.policy.draws > 1:
        idle = [sigma for sigma, chain in chains.items() if not any(s.noisy for s in chain)]
        if idle:
            raise BadInput(
                f"policy {run.policy}",
                f"has nothing to choose from: at sigma {idle[0]:g} the purifier draws no noise "
                "beside the smoothing noise",
                "leave it out",
            )


def counts_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row of counts depends on, beside its key: where it is equal, rows agree."""
    reading = settings["reading"]
    return {
        **{key: settings[key] for key in ("verb", "dataset", "subset", "defense", "randomness")},
        "selection": reading["selection"],
        "block": reading["block"],
    }


def clean_images(images: Images) -> dict[int, torch.Tensor]:
    """Return the images by id."""
    return dict(zip(images.ids.tolist(), images.images, strict=True))
