"""``composed``: certificates of a composition, read from counts of joint answers.

Two selectors: s = 1 where the entropy of the softmax of f at the noisy image is at most a
threshold, the entropy selector of ACES, which needs no network call of its own; or where a network
that was trained to choose says so (`advpure.training.selector`). The counts hold the answers of f,
s and the core in one number,

    code = class + K chosen + 2 K core,

so records need nothing else, and a run is split over shards, resumed and read at another alpha or
number of samples like any other.

Source: see `advpure.analysis.certification.composition`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from advpure.analysis.certification.composition import certify_composition
from advpure.analysis.certification.procedures import (
    PROCEDURES,
    ByLevel,
    Fixed,
    Named,
    ProcedureName,
)
from advpure.analysis.certification.two_stage import Certificate
from advpure.base.errors import BadInput
from advpure.base.validation import number
from advpure.core.defense import Defense
from advpure.core.tiling import tiled
from advpure.data import Images, Source, dataset_info
from advpure.loading import load_judge, load_selector


class Parts(NamedTuple):
    """Counts of joint answers, taken apart.

    Attributes:
        classes: Counts of the base classifier.
        choices: Counts of the selector, 1 for the certified classifier.
        core: The core's class of the clean image.
    """

    classes: dict[int, int]
    choices: dict[int, int]
    core: int


def take_apart(counts: Mapping[int, int], classes: int) -> Parts:
    """Take counts of codes apart.

    Args:
        counts: Code to samples.
        classes: Number of classes K.

    Raises:
        BadInput: for codes that name several classes of the core, or none of K.

    Example:
        >>> take_apart({3: 5, 13: 80, 14: 15}, 10)
        Parts(classes={3: 85, 4: 15}, choices={0: 5, 1: 95}, core=0)
    """
    labels: Counter[int] = Counter()
    choices: Counter[int] = Counter()
    cores = set()
    for code, count in counts.items():
        core, rest = divmod(code, 2 * classes)
        chosen, label = divmod(rest, classes)
        cores.add(core)
        labels[label] += count
        choices[chosen] += count
    if len(cores) != 1 or max(cores) >= classes:
        raise BadInput(f"classes {sorted(cores)} of a core", "are not one class", "count anew")
    return Parts(dict(labels), dict(choices), cores.pop())


@dataclass(frozen=True, kw_only=True)
class Selector:
    """The selector, and the core's answers.

    Attributes:
        threshold: Largest entropy, nats, that chooses the certified classifier.
        classes: Number of classes K.
        cores: Image id to the core's class.
        network: Chooses instead of the entropy: noisy images to logits [B, 2].
    """

    threshold: float
    classes: int
    cores: Mapping[int, int]
    network: nn.Module | None = None

    def pack(self, logits: Tensor, noisy: Tensor, rows: Tensor) -> Tensor:
        """Return the codes of answers [B, K] to noisy images, int64 [B].

        Args:
            logits: The base classifier's.
            noisy: The noisy images, [0, 1] units plus noise.
            rows: Image and sample number of every row, int64 [B, 2].

        Raises:
            BadInput: for another number of classes, or a selector whose answer is no choice.
        """
        if logits.shape[1] != self.classes:
            raise BadInput(
                f"a classifier of {logits.shape[1]} classes",
                f"does not fit {self.classes}",
                "use one of the data set",
            )
        chosen = self._chosen(logits, noisy)
        core = torch.tensor(
            [self.cores[i] for i in rows[:, 0].tolist()], device=logits.device, dtype=torch.int64
        )
        return logits.argmax(1) + self.classes * (chosen.long() + 2 * core)

    def _chosen(self, logits: Tensor, noisy: Tensor) -> Tensor:
        if self.network is None:
            log_p = logits.log_softmax(1)
            return -(log_p.exp() * log_p).sum(1) <= self.threshold
        choice: Tensor = self.network(noisy)
        if choice.shape != (len(noisy), 2) or not bool(torch.isfinite(choice).all()):
            raise BadInput(
                f"a selector's answer of shape {list(choice.shape)}",
                "is no choice between two",
                "use a network that advpure train made, and check its weights",
            )
        return choice.argmax(1) == 1


def check_threshold(threshold: float, classes: int) -> float:
    """Refuse an entropy that no answer has, or that every answer is below.

    Raises:
        BadInput: outside [0, log K).

    Example:
        >>> check_threshold(0.5, 10)
        0.5
    """
    most, value = math.log(classes), number(threshold, "entropy", fix="use for example 0.5")
    if not 0.0 <= value < most:
        raise BadInput(
            f"entropy {value:g}", f"is outside [0, {most:.4g}), in nats", "use for example 0.5"
        )
    return value


def make_selector(
    core: str,
    threshold: float,
    dataset: Source,
    images: Images,
    defense: Defense,
    trained: str | None = None,
) -> tuple[Selector, dict[str, Any]]:
    """Load the core and let it answer for the clean images.

    Args:
        core: Its weights, a shipped name or a file.
        threshold: Largest entropy, nats, that chooses the certified classifier.
        dataset: Name of the data set.
        images: Clean images.
        defense: Purifier and base classifier.
        trained: A trained selector instead of the entropy, a shipped name or a file.

    Returns:
        The selector, and what the records say of it.

    Raises:
        BadInput: for weights or a threshold that cannot be used, or a defense that votes.
    """
    classes = len(dataset_info(dataset).classes)
    check_threshold(threshold, classes)
    if defense.policy.draws > 1:
        raise BadInput(
            f"policy {defense.policy.kind}", "has no entropy of one answer", "use single"
        )
    classifier, identity = load_judge(dataset, core)
    with torch.no_grad():  # answers, not gradients
        answers = tiled(classifier, defense.tile)(images.images).argmax(1)
    cores = dict(zip(images.ids.tolist(), answers.tolist(), strict=True))
    if trained is None:
        described = {"core": identity, "select_entropy": float(threshold)}
        return Selector(threshold=threshold, classes=classes, cores=cores), described
    network, chooser = load_selector(dataset, trained)
    device = next((each.device for each in defense.parameters()), torch.device("cpu"))
    selector = Selector(
        threshold=threshold, classes=classes, cores=cores, network=network.to(device)
    )
    return selector, {"core": identity, "selector": chooser}


def check_composed(settings: Mapping[str, Any], procedure: str, fix: str) -> None:
    """Refuse joint answers for other procedures, and other counts for ``composed``.

    Args:
        settings: Those of a run.
        procedure: Name of the procedure that is to read it.
        fix: What to do where a core is missing.

    Raises:
        BadInput: where exactly one of the run and the procedure has a core.
    """
    has_core = "core" in settings["defense"]
    if has_core and procedure != Composed.name:
        raise BadInput(f"procedure {procedure}", "cannot read counts beside a core", "use composed")
    if not has_core and procedure == Composed.name:
        raise BadInput("procedure composed", "needs a core beside the certified classifier", fix)


@dataclass(frozen=True, kw_only=True)
class Composed(Fixed):
    """The composition's certificate at every noise level, with a fixed number of samples."""

    name: ClassVar[ProcedureName] = "composed"

    @property
    def answers(self) -> int:
        """Number of codes."""
        return 2 * self.classes**2

    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Certify the noise levels whose samples are complete."""
        certificates = []
        for sigma, tally in tallies.items():
            counts = tally.total(self.blocks)
            if tally.selection is None or counts is None:
                continue
            first, second = (take_apart(each, self.classes) for each in (tally.selection, counts))
            result = certify_composition(
                (first.classes, second.classes),
                (first.choices, second.choices),
                second.core,
                alpha=self.share,
                sigma=sigma,
            )
            answer = Certificate(result.prediction, result.radius, None, result.samples)
            certificates.append(Named(sigma, answer))
        return certificates


PROCEDURES[Composed.name] = Composed
