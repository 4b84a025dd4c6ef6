"""Proof of wiring: the official code's outputs, reproduced from the same random weights.

A stored proof holds a recipe for the weights (every official tensor is drawn from a generator of
its own, seeded by its name), inputs, and what the official code answered to them. Nothing but the
names, shapes, orders and formulas of our network can make its answers equal.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from advpure.base.devices import plain_defaults
from advpure.base.errors import BadInput
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.layout import Shape, assemble


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the official code answered.

    Attributes:
        case: ``small`` (a narrower network of the family) or ``full`` (the published shape).
        official: Repository and commit of the code that ran, or library and version.
        config: Settings in which this case differs from the entry's network.
        shape: Shape of the input, [B, C, H, W], standard normal from generator `seed`.
        seed: Seed of weights and input.
        time: What the official network took for time, per row; empty for classifiers.
        labels: Class per row; empty for none.
        scale: Factor from our network's time to the official one.
        stride: Every how manieth number of the flattened output is stored.
        output: Those numbers.
    """

    case: str
    official: str
    config: Mapping[str, Any]
    shape: tuple[int, ...]
    seed: int
    time: tuple[float, ...]
    labels: tuple[int, ...]
    scale: float
    stride: int
    output: tuple[float, ...]


def load_proofs(name: str) -> dict[str, Proof]:
    """Return the stored proofs of a network by case.

    Raises:
        BadInput: when there are none.
    """
    file = resources.files("advpure.checkpoints") / "proofs" / f"{name}.json"
    if not file.is_file():
        raise BadInput(f"proof {name!r}", "is not stored", "use a registered checkpoint")
    cases = json.loads(file.read_text())
    lists = ("shape", "time", "labels", "output")
    proofs = []
    for case in cases:
        fields: dict[str, Any] = {k: tuple(v) if k in lists else v for k, v in case.items()}
        proofs.append(Proof(**fields))
    return {proof.case: proof for proof in proofs}


def recipe_weights(shapes: Mapping[str, Shape], seed: int) -> dict[str, Tensor]:
    """Draw official tensors so that signals keep their size and no branch is silent.

    Args:
        shapes: Official names and shapes.
        seed: Of the recipe.

    Returns:
        float32 tensors: matrices and kernels with variance 1 / fan-in, scales about 1, biases of
        0.1, positive running variances, Fourier frequencies of 16.
    """
    return {name: _draw(name, shape, seed) for name, shape in shapes.items()}


def _draw(name: str, shape: Shape, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long, device="cpu")
    if leaf == "resample_filter":
        return torch.zeros(shape, dtype=torch.float32, device="cpu")
    values = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    if leaf == "running_var":
        return (0.2 * values).exp()
    if len(shape) <= 1:
        if leaf in ("W", "freqs"):
            return 16 * values
        return 1 + 0.1 * values if leaf in ("weight", "scale") else 0.1 * values
    # flax keeps the outputs last, everybody else first.
    last = leaf in ("kernel", "W") or (leaf == "weight" and "Downsample_" in name)
    outputs = shape[-1] if last else shape[0]
    return values / math.sqrt(values.numel() / outputs)


@plain_defaults()
def deviation(entry: Checkpoint, proof: Proof) -> float:
    """Return how far our network is from the official code.

    Args:
        entry: The entry whose network is built.
        proof: What the official code answered.

    Returns:
        The largest difference over the stored numbers, relative to their largest magnitude.
    """
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in proof.config.items()}
    entry = replace(entry, config=replace(entry.config, **settings))
    _, layout = entry.skeleton()
    state = recipe_weights(layout.official(), proof.seed)
    network = entry.network(assemble(layout, state, entry.name))
    generator = torch.Generator().manual_seed(proof.seed)
    inputs: list[Tensor] = [
        torch.randn(proof.shape, generator=generator, dtype=torch.float32, device="cpu")
    ]
    if proof.time:
        inputs.append(torch.tensor(proof.time, dtype=torch.float32, device="cpu") / proof.scale)
    if proof.labels:
        inputs.append(torch.tensor(proof.labels, dtype=torch.int64, device="cpu"))
    expected = torch.tensor(proof.output, dtype=torch.float32, device="cpu")
    answer = network(*inputs).flatten()[:: proof.stride]
    if answer.shape != expected.shape:
        raise BadInput(f"output of {entry.name}", f"has {len(answer)} numbers", "reinstall advpure")
    return float((answer - expected).abs().max() / expected.abs().max())
