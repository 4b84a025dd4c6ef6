"""The picture of a robustness run, from its records alone: how sure the right answers are.

The margin of a decision is the logit of the right class minus the largest other logit: below 0 the
decision is wrong, and how far it lies from 0 says how much an attack achieved beside flipping it.
"""

from pathlib import Path

import torch

from advpure.analysis.robustness.protocol import ADVERSARIAL, CLEAN, DECISIONS, PURIFIED, latest
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.robustness.wording import attack_text, randomness_text, strength_text
from advpure.base.errors import BadInput
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
        margins = [
            row["margin"]
            for row in latest(store, DECISIONS.table, stage)
            if row["sample"] in report.right[stage]  # no image beyond the answer to a goal
        ]
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
        f"{randomness_text(s)}",
    )


def attacked_images(store: RecordStore, columns: int = 8) -> Path:
    """Draw the first images clean, attacked and purified, into the run folder.

    Args:
        store: The records of a run that kept its images; the first decision is drawn.
        columns: Images, at most.

    Returns:
        The path written.
    """
    first, kept = {"stage": ADVERSARIAL, "draw": 0}, set(store.blobs())
    decided = [
        row
        for row in store.rows(DECISIONS.table, first)
        if f"{PURIFIED[ADVERSARIAL]}/{row['sample']}" in kept
    ][:columns]
    if not decided:
        raise BadInput(str(store.folder), "holds no picture yet", "run its command again")
    captions = [
        Caption(f"{row['label']} -> {row['prediction']}", correct=row["correct"]) for row in decided
    ]
    rows = {
        kind: torch.stack([store.get_blob(f"{kind}/{row['sample']}") for row in decided])
        for kind in (CLEAN, ADVERSARIAL, PURIFIED[ADVERSARIAL])
    }
    path = store.folder / "images.png"
    image_grid(rows, path, captions=captions)
    return path
