"""Pictures inside a page: charts and images as data, so that nothing is fetched."""

import base64
import io
import tempfile
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from advpure.analysis.robustness.protocol import ADVERSARIAL, CLEAN, DECISIONS, PURIFIED, latest
from advpure.base.errors import BadInput
from advpure.base.imports import untrusted
from advpure.data import dataset_info
from advpure.runs.records import RecordStore


class Fate(NamedTuple):
    """What became of an image.

    Attributes:
        name: ``held``, ``fooled`` or ``wrong``.
        words: The same in words.
    """

    name: str
    words: str


HELD = Fate("held", "right, and still right after the attack")
FOOLED = Fate("fooled", "right, and fooled by the attack")
WRONG = Fate("wrong", "wrong before the attack")


class Judged(NamedTuple):
    """The decisions on one image.

    Attributes:
        sample: Its id.
        label: Its class.
        fate: What became of it, by half of the decisions or more.
        clean: Answers on the clean image.
        attacked: Answers on the attacked one.
    """

    sample: int
    label: int
    fate: Fate
    clean: tuple[int, ...]
    attacked: tuple[int, ...]


class Card(NamedTuple):
    """An image in its stages.

    Attributes:
        sample: Its id.
        label: Name of its class.
        fate: What became of it.
        answers: Clean and attacked answers in words.
        pictures: Name to data URI: clean, adversarial, perturbation, purified.
    """

    sample: int
    label: str
    fate: Fate
    answers: str
    pictures: Mapping[str, str]


def chart(draw: Callable[[Path], object]) -> str:
    """Return what a function draws into a file, as the data URI of an SVG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.svg"
        draw(path)
        return _data("image/svg+xml", path.read_bytes())


def judge(store: RecordStore, samples: Container[int]) -> list[Judged]:
    """Return the decisions on those of the samples that have all of them, by id."""
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for row in latest(store, DECISIONS.table):
        stages = found.setdefault(row["sample"], {})
        stages.setdefault(row["stage"], []).append(row)
    judged = []
    for sample, stages in sorted(found.items()):
        clean, attacked = stages.get(CLEAN, []), stages.get(ADVERSARIAL, [])
        if not clean or not attacked or sample not in samples:
            continue
        fate = WRONG if not _mostly(clean) else HELD if _mostly(attacked) else FOOLED
        answers = [tuple(row["prediction"] for row in rows) for rows in (clean, attacked)]
        judged.append(Judged(sample, clean[0]["label"], fate, *answers))
    return judged


def _mostly(rows: list[dict[str, Any]]) -> bool:
    """Return whether more than half of the decisions are right."""
    right: int = sum(row["correct"] for row in rows)
    return 2 * right > len(rows)


def cards(store: RecordStore, most: int, samples: Container[int]) -> list[Card]:
    """Return the first of the samples in their stages; none where no images are kept."""
    kept = set(store.blobs())
    kinds = {CLEAN: "clean", ADVERSARIAL: "adversarial", PURIFIED[ADVERSARIAL]: "purified"}
    eps = store.settings["threat_model"]["eps"]
    names = class_names(store.settings)
    found: list[Card] = []
    for each in judge(store, samples):
        if len(found) == most or not all(f"{kind}/{each.sample}" in kept for kind in kinds):
            continue
        images = {word: store.get_blob(f"{k}/{each.sample}") for k, word in kinds.items()}
        delta = images["adversarial"] - images["clean"]
        reach = (
            eps if store.settings["threat_model"]["norm"] == "linf" else float(delta.abs().max())
        )
        images["perturbation"] = 0.5 + delta / (2 * (reach or 1.0))
        order = ("clean", "adversarial", "perturbation", "purified")
        found.append(
            Card(
                sample=each.sample,
                label=names(each.label),
                fate=each.fate,
                answers=f"{_answers(each.clean, names)} → {_answers(each.attacked, names)}",
                pictures={word: png(images[word]) for word in order},
            )
        )
    return found


def class_names(settings: Mapping[str, Any]) -> Callable[[int], str]:
    """Return how the classes of a run's data set are called; by number where it is not known."""
    try:
        with untrusted():
            classes = dataset_info(settings["dataset"]).classes
    except BadInput:
        classes = ()
    return lambda label: classes[label] if label < len(classes) else f"class {label}"


def _answers(given: tuple[int, ...], names: Callable[[int], str]) -> str:
    """Write the answers of the draws: one name, or every name with how often it was given."""
    counts = {answer: given.count(answer) for answer in dict.fromkeys(given)}
    if len(counts) == 1:
        return names(given[0])
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{names(answer)} {count}/{len(given)}" for answer, count in ordered)


def png(image: Tensor) -> str:
    """Return an image [1 or 3, H, W] in [0, 1] as the data URI of a PNG.

    Example:
        >>> png(torch.zeros(1, 2, 2))[:22]
        'data:image/png;base64,'
    """
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(
        buffer, "PNG", optimize=True
    )
    return _data("image/png", buffer.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
