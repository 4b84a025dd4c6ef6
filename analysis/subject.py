"""What a run is about: a purifier by name, its strength and weights, and the images it meets.

Every recorded verb starts from these settings, so that a sweep can set any of them by name and two
verbs cannot mean different things by one of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import check_device
from advpure.base.validation import validate
from advpure.core.defense import Defense, Policy
from advpure.core.gradients import GradientMode
from advpure.core.outputs import Outputs
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import Images, load_images
from advpure.loading import load_defense, load_purifier
from advpure.options import purifier_options
from advpure.purifiers import PURIFIERS
from advpure.runs.records import collect_context, source_digests


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A purifier and images, by name.

    Attributes:
        defense: Name of the purifier.
        dataset: Name of the data set.
        subset: Which images, such as ``test``, ``first-1000``, ``every-20th``, ``100:200``.
        n: How many of them; None for all.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        options: The purifier's own options.
        weights: Weights of the denoiser.
        scheme: Keys of the noise: ``hash`` (the paper's) or ``counter``.
        tile: Compute tile; None for the data set's.
        device: Where networks compute.
    """

    defense: str = "cm"
    dataset: str = DEFAULT_DATASET
    subset: str = "test"
    n: int | None = None
    t: int | None = None
    sigma: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    scheme: Scheme = "hash"
    tile: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Check every field, those of the run that inherits them too, by its annotation."""
        validate(self)

    def load_purifier(
        self, xi: RandomnessConfig, *, gradient: GradientMode | None = None
    ) -> Purifier:
        """Load the purifier onto the device.

        Raises:
            BadInput: for a name, option, file or device that cannot be used.
        """
        return load_purifier(
            self.defense, self.dataset, xi=xi, gradient=gradient, weights=self.weights,
            tile=self.tile, **self._options(),
        ).to(check_device(self.device))  # fmt: skip

    def load_images(self) -> Images:
        """Load images and labels onto the device; the ids stay on the CPU.

        Raises:
            BadInput: for a data set or subset that is not there.
        """
        device = check_device(self.device)
        images = load_images(self.dataset, n=self.n, subset=self.subset)
        return images._replace(images=images.images.to(device), labels=images.labels.to(device))

    def identity(self, verb: str, images: Images) -> dict[str, Any]:
        """Return what every record says of its images: verb, data set, subset, count, device."""
        return {
            "verb": verb, "dataset": self.dataset, "subset": self.subset, "n": len(images.ids),
            "device": self.device,
        }  # fmt: skip

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
            for part in ("denoiser", "classifier")
            if "sha256" in (described.get(part) or {})
        }
        purifier = model.purifier if isinstance(model, Defense) else model
        digests = source_digests(PURIFIERS.get(self.defense), type(purifier.denoiser), *sources)
        return collect_context(
            device=self.device, tile=model.tile, weights=weights, sources=digests
        )

    def _options(self) -> dict[str, Any]:
        return purifier_options(self.defense, self.options, t=self.t, sigma=self.sigma)


@dataclass(frozen=True, kw_only=True)
class JudgedSubject(Subject):
    """A purifier in front of a classifier, and images, by name.

    Attributes:
        classifier: Weights of the classifier; None for the data set's.
        outputs: What the classifier answers with: ``logits``, ``probabilities`` or ``labels``, see
            `advpure.core.outputs`.
        gradient: Gradient mode; exact by default.
        policy: ``single``, ``eot:K`` or ``majority:K``.
    """

    classifier: str | None = None
    outputs: Outputs = "logits"
    gradient: GradientMode | None = None
    policy: Policy | str | None = None

    def load_defense(self, xi: RandomnessConfig) -> Defense:
        """Load purifier and classifier onto the device.

        Raises:
            BadInput: for a name, option, file or device that cannot be used.
        """
        return load_defense(
            self.defense, self.dataset, xi=xi, gradient=self.gradient, policy=self.policy,
            tile=self.tile, weights=self.weights, classifier=self.classifier, outputs=self.outputs,
            **self._options(),
        ).to(check_device(self.device))  # fmt: skip
