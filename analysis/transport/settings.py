"""What a transport run depends on, checked and loaded: purifier, noise levels, draws, images."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from advpure.analysis.certification.base_classifier import chain_on_noisy, check_covered
from advpure.analysis.certification.radius import read_radii, read_sigmas
from advpure.analysis.subject import JudgedSubject
from advpure.base.budget import check_repeats
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Seed, Whole
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import Images, dataset_info
from advpure.loading import describe
from advpure.purifiers import PURIFIERS

_TILES = 4  # of the data set's: there are rows enough, and larger calls cost less each


@dataclass(frozen=True, kw_only=True)
class TransportRun(JudgedSubject):
    """Everything that a transport run depends on, beside its subject.

    sigma is the noise of randomized smoothing, in [0, 1] units, and the strength of the purifier
    with it; t means nothing here.

    Attributes:
        sigmas: Noise levels, numbers or text such as ``0.25,0.5,1.0``, instead of one sigma.
        draws: Noisy versions of every image, at every level.
        multiples: Radii of the Markov bound, in multiples of the transport measured.
        pictures: Images, the first ones, whose first purified version is kept.
        seed: Base seed of all noise.
        scheme: Keys of the noise; ``counter`` never repeats any.
        tile: Compute tile; None for four times the data set's.
    """

    sigmas: str | float | Sequence[str | float] | None = None
    draws: Natural = 1
    multiples: str | float | Sequence[str | float] = (1.0, 1.25, 1.5, 2.0)
    pictures: Whole = 16
    seed: Seed = 0
    scheme: Scheme = "counter"

    def __post_init__(self) -> None:
        """Check every field, and that the lists can be read."""
        super().__post_init__()
        check_repeats(self.draws * len(self.levels()), "draws of an image")
        multiples = read_radii(self.multiples)
        if multiples[0] <= 0.0:
            raise BadInput(f"multiples {self.multiples}", "are not all above 0", "write 1,1.5,2")

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
        return read_sigmas("0.25,0.5,0.75,1.0" if given is None else given)


@dataclass(frozen=True, kw_only=True)
class PreparedTransport:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        model: The defense, or the purifier alone where the data set has no classifier.
        chains: Noise level to the steps that follow the noise.
        images: Images, labels, ids; on the CPU.
        draws: Noisy versions of every image.
        pictures: Images whose first purified version is kept.
        xi: Base configuration of all noise.
        settings: Everything that identifies the run, JSON values.
    """

    model: Defense | Purifier
    chains: dict[float, Chain]
    images: Images
    draws: int
    pictures: int
    xi: RandomnessConfig
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Purifications of the whole run."""
        return len(self.chains) * len(self.images.ids) * self.draws


def prepare_transport(run: TransportRun) -> PreparedTransport:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    levels = run.levels()
    multiples = read_radii(run.multiples)
    if run.t is not None:
        raise BadInput(f"t {run.t}", "is not a strength of its own here", "leave it out: sigma is")
    info = dataset_info(run.dataset)
    kind = PURIFIERS.get(run.defense)
    has_level = "sigma" in {each.name for each in dataclasses.fields(kind)}
    xi = RandomnessConfig(run.seed, run.scheme)
    first = dataclasses.replace(
        run, sigmas=None, sigma=levels[0] if has_level else None, policy=run.policy or "single",
        tile=_TILES * info.tile if run.tile is None else run.tile,
    )  # fmt: skip
    judged = bool(run.classifier or info.classifier)
    model = first.load_defense(xi) if judged else first.load_purifier(xi, gradient=run.gradient)
    if isinstance(model, Defense) and model.policy.draws > 1:
        raise BadInput(
            f"policy {run.policy}", "has several purified images an answer", "use single"
        )
    purifier = model.purifier if isinstance(model, Defense) else model
    images = run.load_images()
    images = Images(images.images.cpu(), images.labels.cpu(), images.ids)
    described = describe(model) if isinstance(model, Defense) else dict(purifier.settings)
    left_out = ("sigma", "t", "evaluations", "gradient")
    settings = {
        **run.identity("transport", images),
        "defense": {key: value for key, value in described.items() if key not in left_out},
        "sigmas": list(levels),
        "draws": run.draws,
        "multiples": list(multiples),
        "pictures": run.pictures,
        "randomness": {"seed": run.seed, "scheme": run.scheme},
    }
    return PreparedTransport(
        model=model, chains=chains_at(purifier, levels), images=images, draws=run.draws,
        pictures=run.pictures, xi=xi, settings=settings,
    )  # fmt: skip


def chains_at(purifier: Purifier, levels: Sequence[float]) -> dict[float, Chain]:
    """Return the steps of a purifier that follow the smoothing noise, for every noise level.

    Args:
        purifier: A purifier; one whose recipe has no noise level is the same at all of them.
        levels: Standard deviations of the noise, [0, 1] units.

    Raises:
        BadInput: for a level that its denoiser does not cover.
    """
    name = (purifier.settings.get("denoiser") or {}).get("name", "network")
    recipe: Any = purifier.recipe
    names = {each.name for each in dataclasses.fields(recipe)} if recipe is not None else set()
    found = {}
    for sigma in levels:
        check_covered(purifier.denoiser, name, sigma)
        whole = purifier.chain
        if "sigma" in names:
            whole = dataclasses.replace(recipe, sigma=sigma).chain(purifier.denoiser)
        found[sigma] = chain_on_noisy(whole, sigma)
    return found
