"""Do two attacks move an image the same way? Correlation of adversarial perturbations.

For the perturbations a and b of one image, flattened over pixels and channels: the cosine
a . b / (||a|| ||b||), and Pearson's coefficient, the cosine after each mean over pixels is taken
away. Two unrelated directions in d dimensions have either within about 1 / sqrt(d) of 0.

Attacks that begin at the same random start share it: with 40 steps of epsilon / 30 much of the
start survives, and correlates two perturbations that have nothing else in common. Compare runs with
different attack seeds, or without a random start.

Source: [Wei2025], table S5; which of the two coefficients the paper means, and whether
its starts were shared, it does not say.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.imports import untrusted
from advpure.base.validation import instance
from advpure.data import load_images
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Mean, mean_interval

ADVERSARIAL = "adversarial/"


class Correlation(NamedTuple):
    """Correlations of two perturbations of one image; None where one of them is no direction.

    Attributes:
        pearson: Pearson's coefficient over pixels and channels.
        cosine: The cosine, nothing taken away.
    """

    pearson: float | None
    cosine: float | None


def correlate(first: Tensor, second: Tensor) -> list[Correlation]:
    """Correlate perturbations row by row, in float64.

    Args:
        first: Perturbations [B, C, H, W].
        second: Perturbations of the same images.

    Returns:
        One entry a row. A zero perturbation has no direction; a constant one has no Pearson
        coefficient.

    Raises:
        BadInput: for unlike shapes.

    Example:
        >>> a = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
        >>> pairs = correlate(a, torch.tensor([[[[2.0, 1.0]]], [[[1.0, 2.0]]]]))
        >>> round(pairs[0].pearson, 6), round(pairs[0].cosine, 6), pairs[1].cosine
        (-1.0, 0.8, None)
    """
    if first.shape != second.shape or first.ndim < 2:
        raise BadInput(
            f"perturbations of shape {list(first.shape)} and {list(second.shape)}",
            "are not pairs",
            "give two perturbations of each image",
        )
    pairs = zip(first.detach().cpu().double(), second.detach().cpu().double(), strict=True)
    return [
        Correlation(_cosine(a - a.mean(), b - b.mean()), _cosine(a, b))
        for a, b in ((a.flatten(), b.flatten()) for a, b in pairs)
    ]


def _cosine(a: Tensor, b: Tensor) -> float | None:
    size = float(a.norm() * b.norm())
    # What is left of a constant image after its mean is rounding, not a direction.
    floor = 1e-12 * len(a)
    if float(a.abs().max()) <= floor or float(b.abs().max()) <= floor:
        return None
    return max(-1.0, min(1.0, float((a * b).sum()) / size))


@dataclass(frozen=True)
class PerturbationCorrelations:
    """Correlations of the perturbations of two attack runs.

    Attributes:
        by_sample: Correlation by sample id of the images that both runs hold.
        notes: What a careful reader should know, in sentences.
    """

    by_sample: dict[int, Correlation]
    notes: tuple[str, ...] = ()

    @property
    def absent(self) -> int:
        """Images without a correlation: an attack left them unchanged."""
        return sum(each.cosine is None for each in self.by_sample.values())

    def pearson(self) -> Mean | None:
        """Return the mean over images, None where no image has one."""
        return _mean([each.pearson for each in self.by_sample.values()])

    def cosine(self) -> Mean | None:
        """Return the mean over images, None where no image has one."""
        return _mean([each.cosine for each in self.by_sample.values()])


def _mean(values: list[float | None]) -> Mean | None:
    known = [value for value in values if value is not None]
    return mean_interval(known, within=(-1.0, 1.0)) if known else None


def perturbation_correlations(first: str | Path, second: str | Path) -> PerturbationCorrelations:
    """Correlate the perturbations of two runs of `advpure attack --save-images`.

    Args:
        first: A run folder.
        second: Another, on the same images.

    Returns:
        Correlations of the images that both runs have stored.

    Raises:
        BadInput: for folders that are no attack runs with stored images, or hold no common image.
    """
    for folder in (first, second):
        instance(folder, (str, Path), "run", "name a run folder")
    runs = [_read(folder) for folder in (first, second)]
    for key in ("dataset", "subset"):
        left, right = (settings.get(key) for settings, _ in runs)
        if left != right:
            raise BadInput(
                f"runs of {key} {left} and {right}", "are not pairs", "attack the same images"
            )
    (settings, left), (others, right) = runs
    common = sorted(left.keys() & right.keys())
    if not common:
        raise BadInput(f"runs {first} and {second}", "share no image", "attack the same images")
    with untrusted():
        data = load_images(settings["dataset"], subset=settings["subset"])
    indices = {i: k for k, i in enumerate(data.ids.tolist())}
    missing = [i for i in common if i not in indices]
    if missing:
        raise BadInput(f"sample {missing[0]}", "is not in the data set", "bring the images back")
    clean = data.images[[indices[i] for i in common]]
    pairs = correlate(*(torch.stack([run[i] for i in common]) - clean for run in (left, right)))
    return PerturbationCorrelations(
        dict(zip(common, pairs, strict=True)), tuple(_notes(settings, others))
    )


def _read(folder: str | Path) -> tuple[dict[str, Any], dict[int, Tensor]]:
    with RecordStore.read(folder) as store:
        settings = store.settings
        if settings.get("verb") != "attack":
            verb = settings.get("verb", "another verb")
            raise BadInput(f"run {folder} of {verb}", "is no attack", "use advpure attack")
        names = [name for name in store.blobs() if name.startswith(ADVERSARIAL)]
        if not names:
            raise BadInput(
                f"run {folder}", "holds no images", "attack with --save-images, which completes it"
            )
        return settings, {int(name[len(ADVERSARIAL) :]): store.get_blob(name) for name in names}


def _notes(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    attacks = first["attack"], second["attack"]
    starts = [attack.get("seed") for attack in attacks if attack.get("random_start")]
    notes = []
    if len(starts) == 2 and starts[0] == starts[1]:
        notes.append(
            f"both attacks began at the same random starts (attack seed {starts[0]}), which "
            "correlates them; use another --attack-seed for one of them"
        )
    if any(attack.get("stop") == "success" for attack in attacks):
        notes.append(
            "an attack stopped at success, so that perturbations are of unlike length; the paper's "
            "took all steps (--stop never)"
        )
    return notes
