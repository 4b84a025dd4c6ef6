"""The picture of a robustness run, from its records alone: how sure the right answers are.

The margin of a decision is the logit of the right class minus the largest other logit: below 0 the
decision is wrong, and how far it lies from 0 says how much an attack achieved beside flipping it.
"""

from pathlib import Path

import torch

from advpure.analysis.robustness.protocol import DECISIONS, Decisions
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.core.defense import Defense
from advpure.data import Images
from advpure.plots.figures import Caption, histogram, image_grid
from advpure.runs.records import RecordStore

_STAGES = {"clean": "clean", "noise": "noise in the ball", "adversarial": "attacked"}


def robustness_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the distribution of the margins of clean, noisy and attacked images.

    Args:
        store: The run's records, complete or not.
        path: The file; .png, .svg or .pdf.

    Returns:
        The path written.

    Raises:
        BadInput: for a run without records, or another ending.
        StorageFull: when there is no room.
    """
    report = Robustness.report(store)
    s = report.settings
    groups = {}
    for stage, name in _STAGES.items():
        margins = [row["margin"] for row in store.rows(DECISIONS.table, {"stage": stage})]
        share = 100 * report.headline(stage).value
        groups[f"{name}, {share:.1f} % right"] = margins
    draws = s["decisions"]["draws"]
    return histogram(
        groups,
        Path(path),
        xlabel="margin of a decision (logits); below 0 it is wrong",
        title=f"{strength_text(s['defense'])} on {s['dataset']}, attack {s['attack']['name']}",
        caption=f"{report.n} images, {draws} decision{'s' if draws > 1 else ''} each, "
        f"{s['threat_model']['norm']} {s['threat_model']['eps']:.4g}, attack {attack_text(s)}, "
        f"{s['decisions']['randomness']} randomness, seed {s['randomness']['seed']}",
    )


def attacked_images(
    store: RecordStore, defense: Defense, images: Images, decisions: Decisions, columns: int = 8
) -> Path:
    """Draw the first images clean, attacked and purified, into the run folder.

    Args:
        store: The records of a run that kept its images.
        defense: The defense, which purifies them.
        images: Its images.
        decisions: How it decides; the first decision is drawn.
        columns: Images, at most.

    Returns:
        The path written.
    """
    ids = images.ids[:columns]
    attacked = torch.stack([store.get_blob(f"adversarial/{i}") for i in ids.tolist()])
    view = decisions.views(defense, ids)[0]
    purifier = (
        view.purifier.at(ids=ids) if view.xi is None else view.purifier.at(ids=ids, xi=view.xi)
    )
    moved = attacked.to(images.images.device)
    with torch.no_grad():  # a picture, not a gradient
        purified, answers = purifier(moved).cpu().clamp(0, 1), view(moved).argmax(1).tolist()
    captions = [
        Caption(f"{label} -> {answer}", correct=label == answer)
        for label, answer in zip(images.labels[: len(ids)].tolist(), answers, strict=True)
    ]
    clean = images.images[: len(ids)].cpu()
    rows = {"clean": clean, "adversarial": attacked, "purified": purified}
    path = store.folder / "images.png"
    image_grid(rows, path, captions=captions)
    return path
