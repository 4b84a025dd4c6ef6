"""What a study is about: a purifier by name, its strength and weights, and the images it meets.

Studies start from these settings, so that a sweep can set any of them by name and two studies
cannot mean different things by one of them.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from advpure.attacks.registry import attack_digest, find
from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import check_device
from advpure.base.errors import BadInput
from advpure.base.flags import Flag, Keys
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Seed, Strength
from advpure.base.units import Norm, parse_eps, refuse_l1
from advpure.base.validation import validate, words
from advpure.core.chain import Chain
from advpure.core.defense import Defense, Policy
from advpure.core.gradients import GradientMode
from advpure.core.outputs import Outputs
from advpure.core.precision import Precision, check_precision, is_emulated
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import Images, Source, dataset_info, find_dataset, load_images
from advpure.loading import load_defense, load_purifier
from advpure.options import purifier_options
from advpure.purifiers import PURIFIERS
from advpure.runs.records import collect_context, source_digests

Model = str | Callable[..., Any]
"""A model by name, or an object."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A purifier and images, by name or as objects.

    Attributes:
        defense: Purifier; `advpure models` lists them. Your own: file.py:NAME, package.module:NAME.
        dataset: Data set; `advpure data` lists them, $ADVPURE_DATASET changes the default. Your
            own: an .npz, .npy, .pt or .parquet file, a folder, or file.py:NAME.
        n: Images, 1 or more, from the front; 0 for all. Default: all of a subset that is given,
            else as many of the test images as the data set says.
        subset: Which images: test, train, first-100, every-20th, 100:200, or a file. Default: the
            first of test.
        t: Strength in time steps, 1 to 1000, e.g. 100.
        sigma: Strength as noise level in [0, 1] units, instead of t, e.g. 0.25.
        options: Option of the purifier, e.g. -o clip_x0=true.
        weights: Weights of the denoiser: a file, a shipped name, or official NAME:FILE.
        denoiser: Denoiser of your own instead: file.py:NAME, a function of (state, sigma).
        boost: Booster behind the purifier: joint or robust-l2 of the data set; another shipped
            name, a file, or file.py:NAME. Default: none.
        boost_options: Setting of the booster, KEY=VALUE, e.g. steps=10.
        scheme: Noise keys: ``hash`` (the published ones) or ``counter`` (without collisions).
        tile: Images per network call, 1 or more; 0: batches as they come. Default: the data set's.
        precision: What networks are computed in: ``float32``, ``bfloat16`` or ``float16``, states
            between steps in float32. Every answer, success and certificate is about the networks
            in it.
        device: cpu, cuda, cuda:1 or mps.
    """

    panel: ClassVar[str] = "Purifier and images"
    unused: ClassVar[Mapping[str, str]] = {}
    """Fields that mean nothing to a question, to what to do instead: no flags, and refused."""
    first: ClassVar[int] = 0
    """Images of a whole split where `n` is not given; 0 for as many as the data set says."""

    defense: Annotated[Model, Flag("--defense", "-d")] = "cm"
    dataset: Source = DEFAULT_DATASET
    n: Annotated[int | None, Flag("--n", "-n")] = None
    subset: str | None = None
    t: int | None = None
    sigma: float | None = None
    options: Annotated[Mapping[str, Any], Flag("--option", "-o")] = field(default_factory=dict)
    weights: str | None = None
    denoiser: Model | None = None
    boost: Model | None = None
    boost_options: Annotated[Mapping[str, Any], Flag("--boost-option")] = field(
        default_factory=dict
    )
    scheme: Scheme = "hash"
    tile: int | None = None
    precision: Precision = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check every field, those of the run that inherits them too, by its annotation."""
        validate(self)
        if not isinstance(self.dataset, str):  # read once, and named in records by what it holds
            object.__setattr__(self, "dataset", find_dataset(self.dataset))
        for name in ("defense", "denoiser", "classifier", "boost"):
            value = getattr(self, name, None)
            if not (value is None or callable(value) or isinstance(value, tuple | list | Chain)):
                words(value, name)
        for name, instead in self.unused.items():
            refuse_idle(self, (name,), "means nothing here", instead)

    def load_purifier(
        self, xi: RandomnessConfig, *, gradient: GradientMode | None = None
    ) -> Purifier:
        """Load the purifier onto the device.

        Raises:
            BadInput: for a name, option, file or device that cannot be used.
        """
        return load_purifier(
            self.defense,
            self.dataset,
            xi=xi,
            gradient=gradient,
            weights=self.weights,
            denoiser=self.denoiser,
            boost=self.boost,
            boost_options=self.boost_options,
            tile=self.tile,
            precision=self._precision(),
            **self._options(),
        ).to(check_device(self.device))

    @property
    def count(self) -> int | None:
        """How many images are meant; None for all.

        Example:
            >>> Subject(dataset="digits").count, Subject(dataset="digits", n=0).count
            (100, None)
            >>> Subject(dataset="digits", subset="test").count is None
            True
        """
        if self.n is not None:
            return self.n or None
        if self.subset is not None:
            return None
        return self.first or dataset_info(self.dataset).first

    def load_images(self) -> Images:
        """Load images and labels onto the device; the ids stay on the CPU.

        Raises:
            BadInput: for a data set or subset that is not there.
        """
        device = check_device(self.device)
        images = load_images(self.dataset, n=self.count, subset=self.subset or "test")
        return images._replace(images=images.images.to(device), labels=images.labels.to(device))

    def identity(self, verb: str, images: Images) -> dict[str, Any]:
        """Return what every record says of its images: verb, data set, subset, count, device."""
        content = dataset_info(self.dataset).digest
        return {
            "verb": verb,
            "dataset": str(self.dataset),
            "subset": self.subset or "test",
            "n": len(images.ids),
            "device": self.device,
            **({} if content is None else {"images": content}),
        }

    def context(
        self, model: Purifier | Defense, described: Mapping[str, Any], *sources: object
    ) -> dict[str, Any]:
        """Return where a session computes, for the records.

        Args:
            model: What was loaded.
            described: What the records say of it, with the sha256 of its networks.
            sources: Functions and classes whose files count, beside the purifier's.
        """
        weights = {
            part: described[part]["sha256"]
            for part in ("denoiser", "classifier", "boost")
            if "sha256" in (described.get(part) or {})
        }
        purifier = model.purifier if isinstance(model, Defense) else model
        digests = source_digests(PURIFIERS.get(self.defense), type(purifier.denoiser), *sources)
        return collect_context(
            device=self.device, tile=model.tile, weights=weights, sources=digests
        )

    def _precision(self) -> Precision:
        check_precision(self.precision, check_device(self.device))
        if self.device == "cpu" and is_emulated(self.precision):
            warnings.warn(
                f"this processor has no instructions for {self.precision}: the numbers are those "
                "of the precision, float32 is faster",
                stacklevel=2,
            )
        return self.precision

    def _options(self) -> dict[str, Any]:
        return purifier_options(self.defense, self.options, t=self.t, sigma=self.sigma)


@dataclass(frozen=True, kw_only=True)
class DefenseSubject(Subject):
    """A purifier in front of a classifier, and images, by name.

    Attributes:
        classifier: Weights of the classifier: a file, a shipped name, or official NAME:FILE. Your
            own: file.py:NAME, timm:NAME, torchvision:NAME, a TorchScript or torch.export file.
        normalize: MEAN/STD of the images that your classifier takes, e.g. 0.5,0.5,0.5/0.5,0.5,0.5.
        classifier_options: Argument of your classifier, KEY=VALUE.
        outputs: What the classifier answers with: ``logits``, ``probabilities`` or ``labels``.
        gradient: ``full``, ``checkpoint``, ``bpda`` or ``surrogate``. Default: exact.
        policy: ``single``, ``eot:K`` or ``majority:K`` purifications per answer.
    """

    panel: ClassVar[str] = "Defense and images"

    classifier: Model | None = None
    normalize: str | None = None
    classifier_options: Annotated[Mapping[str, Any], Flag("--classifier-option")] = field(
        default_factory=dict
    )
    outputs: Outputs = "logits"
    gradient: GradientMode | None = None
    policy: Policy | str | None = None

    @property
    def has_classifier(self) -> bool:
        """Whether there is a classifier, given or of the data set."""
        return bool(self.classifier or dataset_info(self.dataset).classifier)

    def load_defense(self, xi: RandomnessConfig) -> Defense:
        """Load purifier and classifier onto the device.

        Raises:
            BadInput: for a name, option, file or device that cannot be used.
        """
        return load_defense(
            self.defense,
            self.dataset,
            xi=xi,
            gradient=self.gradient,
            policy=self.policy,
            tile=self.tile,
            weights=self.weights,
            denoiser=self.denoiser,
            boost=self.boost,
            boost_options=self.boost_options,
            precision=self._precision(),
            **self.judging(),
            **self._options(),
        ).to(check_device(self.device))

    def judging(self) -> dict[str, Any]:
        """Return what `load_defense` is told of the classifier."""
        names = ("classifier", "outputs", "normalize", "classifier_options")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """One configuration of the defense's randomness.

    Attributes:
        seed: Base seed of the defense's randomness.
    """

    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class Ball(Subject):
    """Where perturbed images may lie.

    Attributes:
        eps: Radius in [0, 1] units, above 0, e.g. 8/255. Default: the data set's.
        norm: linf or l2. Default: the data set's.
    """

    panel: ClassVar[str] = "Attack"
    eps: Strength | None = None
    norm: Norm | None = None

    def __post_init__(self) -> None:
        """Check, and refuse l1 with its reason."""
        refuse_l1(self.norm)
        super().__post_init__()

    def threat_model(self) -> tuple[Norm, float]:
        """Return the norm and the radius of the ball, those of the data set where not given.

        Raises:
            BadInput: for a radius that cannot be used, or a norm without a default radius.
        """
        info = dataset_info(self.dataset)
        norm = self.norm or info.norm
        if self.eps is None and norm != info.norm:
            raise BadInput(
                f"norm {norm}",
                f"has no default radius on {self.dataset}",
                "give one with --eps, such as 0.5",
            )
        return norm, info.radius() if self.eps is None else parse_eps(self.eps, norm)


@dataclass(frozen=True, kw_only=True)
class Attacked(Ball):
    """An attack and its threat model.

    Attributes:
        attack: Attack; `advpure models` lists them, also of other libraries: foolbox:LinfPGD.
        attack_options: Other setting of the attack, KEY=VALUE.
    """

    panel: ClassVar[str] = "Attack"
    attack: Annotated[str, Flag("--attack", "-a")] = "pgd"
    attack_options: Annotated[
        Mapping[str, Any],
        Flag("--attack-option"),
        Keys(
            "advpure.attacks.projected:PGDSettings",
            {
                "steps": "steps",
                "step_size": "step_size",
                "loss": "loss",
                "eot": "eot",
                "iterate": "iterate",
                "stop": "stop",
                "attack_seed": "seed",
            },
        ),
    ] = field(default_factory=dict)

    def identity(self, verb: str, images: Images) -> dict[str, Any]:
        """Return what every record says of its images, and the digest of an attack from outside."""
        code = attack_digest(self.attack_name)
        return super().identity(verb, images) | ({} if code is None else {"attack_code": code})

    @property
    def attack_name(self) -> str:
        """The attack that is run."""
        return self.attack

    def context(
        self, model: Purifier | Defense, described: Mapping[str, Any], *sources: object
    ) -> dict[str, Any]:
        """Return where a session computes, the file of the attack too."""
        return super().context(model, described, find(self.attack_name), *sources)
