"""From a finished training to the two files that ship: weights and a model card."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advpure.base.storage import atomic_path
from advpure.data import dataset_info
from advpure.networks.weights import load_network, load_state, save_network
from advpure.training.quality import Rate, measure_quality
from advpure.training.recipe import Recipe

_CURVE = 12
"""The most lines of a validation curve in a card."""


class Curve(NamedTuple):
    """How a training went.

    Attributes:
        metric_name: What the last column is.
        rows: Step, mean training loss since the row before, seconds, validation metric.
    """

    metric_name: str
    rows: list[list[float]]


def export_network(
    recipe: Recipe,
    network: nn.Module,
    folder: Path,
    *,
    config: dict[str, Any],
    facts: dict[str, Any],
    steps: int,
    curve: Curve,
    base: str | None = None,
) -> tuple[Path, list[Rate]]:
    """Store a trained network as `NAME.safetensors` with a card `NAME.md` beside it.

    The quality is measured on the stored (float16) parameters.

    Args:
        recipe: How it was trained.
        network: The averaged network.
        folder: Where both files go.
        config: Settings that rebuild the architecture.
        facts: What the task says users must know.
        steps: Steps done so far.
        curve: The validation curve.
        base: The shipped network of which it repeats what was not trained.

    Returns:
        The path of the weights, and the measured quality.
    """
    path = folder / f"{recipe.name}.safetensors"
    metadata = {
        "name": recipe.name,
        "task": recipe.task,
        "dataset": recipe.dataset,
        **facts,
        "steps": steps,
        "images_seen": steps * recipe.batch,
        "recipe": dataclasses.asdict(recipe),
        "torch": torch.__version__,
    }

    def store() -> None:
        save_network(
            path,
            network,
            architecture=recipe.architecture,
            config=config,
            metadata=metadata,
            base=base,
        )

    store()
    stored = sum(value.numel() for value in load_state(path).values())
    rates = measure_quality(load_network(path).network, metadata)
    metadata["quality"] = [rate._asdict() for rate in rates]
    store()
    with atomic_path(path.with_suffix(".md")) as scratch:
        kept = f"{stored:,} of them stored as float16, the others those of `{base}`"
        where = "stored as float16" if base is None else kept
        scratch.write_text(_card(recipe, network, metadata, rates, curve, where))
    return path, rates


def _card(
    recipe: Recipe,
    network: nn.Module,
    metadata: dict[str, Any],
    rates: list[Rate],
    curve: Curve,
    where: str,
) -> str:
    """Write the model card; `where` says where the parameters are."""
    count = sum(parameter.numel() for parameter in network.parameters())
    info = dataset_info(recipe.dataset)
    lines = [
        f"# {recipe.name}",
        "",
        f"{recipe.about}.",
        "",
        f"- Rebuild: `advpure train {recipe.name}` (seed {recipe.seed})",
        f"- Network: {recipe.architecture}, {count:,} parameters, {where}",
        f"- Data: {info.description}; training split, {info.splits['train']:,} images",
        f"- Training: {_progress(metadata['steps'], recipe.steps)} of {recipe.batch}, "
        f"{metadata['images_seen']:,} images seen",
    ]
    names = (
        "sigma_data",
        "sigma_min",
        "sigma_max",
        "nodes",
        "distance",
        "trained_sigma",
        "trained_norm",
        "trained_eps",
        "trained_against",
        "held_back",
        "l0",
        "l0_form",
        "attacked",
        "real_eps",
        "fake_eps",
        "fake_steps_at_the_end",
        "generator",
        "generator_sha256",
        "labeller",
        "teacher",
        "teacher_sha256",
        "images_seen_before",
        "denoiser",
        "denoiser_sha256",
        "guide",
        "guide_sha256",
        "certified",
        "certified_sha256",
        "derivation",
        "optimizer_restarted_at_step",
    )
    lines += [f"- {name}: {metadata[name]}" for name in names if name in metadata]
    lines += ["", "Measured on the test split, 95 % Wilson intervals:", ""]
    lines += [f"- {rate}" for rate in rates] or ["- nothing: no classifier ships for this data set"]
    if metadata["task"] not in ("classifier", "selector", "joint"):
        lines += ["", "sigma is in [0, 1] units; a network level of 2 sigma is the same noise."]
    return "\n".join([*lines, *_table(recipe, curve)]) + "\n"


def _progress(done: int, planned: int) -> str:
    """Say how far a training came."""
    return f"{done:,} steps" if done == planned else f"{done:,} of {planned:,} steps (unfinished)"


def _table(recipe: Recipe, curve: Curve) -> list[str]:
    """Write the validation curve in at most a dozen lines."""
    if not curve.rows:
        return []
    count = min(len(curve.rows), _CURVE)
    chosen = {round((k + 1) * len(curve.rows) / count) - 1 for k in range(count)}
    head = ["", f"| images seen | training loss | {curve.metric_name} |", "| --- | --- | --- |"]
    rows = [curve.rows[k] for k in sorted(chosen)]
    return head + [
        f"| {int(row[0]) * recipe.batch:,} | {row[1]:.4g} | {row[3]:.4g} |" for row in rows
    ]
