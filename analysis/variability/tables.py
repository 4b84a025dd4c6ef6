"""Randomness against input: K perturbed inputs x_k = x0 + eta_k, each under S configurations.

The signal-to-noise ratio of a purifier is the variance of its output over inputs at a fixed
configuration over the variance that its own randomness causes (`variance` has the equations,
`two_way` distances and correlations). In [Wei2025], figure 2 and tables S12 and S13: 50 images, K =
S = 50, uniform noise of 8/255 and a ratio of 0.006, so fixing the randomness is what makes
robustness visible.

Perturbations are the same under every configuration and those of `cr` with the same seed. Outputs
pass through a file, so memory holds one batch and a few blocks, and a run that was killed goes on
within an image.
"""

from collections.abc import Callable, Container, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from advpure.analysis.perturbations import check_strength
from advpure.analysis.target import Given, as_target, batch_rows, choose_ids, refuse_fresh
from advpure.analysis.variability.cells import Cells, stream_tables
from advpure.analysis.variability.mixed import purify_rows
from advpure.analysis.variability.result import SnrResult, SnrRow
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.two_way import TwoWay
from advpure.base.units import check_images
from advpure.base.validation import fields_of, resolved
from advpure.core.given import as_purifier
from advpure.core.randomness import Ids, RandomnessConfig


def signal_to_noise(
    purifier: Given,
    images: Tensor,
    settings: SnrSettings | None = None,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> SnrResult:
    """Measure how much of a purifier's variability is randomness.

    Args:
        purifier: A purifier, a defense (its purifier is measured), a chain, a map with
            `at(ids=, xi=)`, or one that draws from the global generators or takes
            ``(images, ids, randomness)``.
        images: [B, C, H, W] in [0, 1].
        settings: Which inputs and configurations; None for the defaults, with the seed of `xi`.
        ids: Sample ids [B], all different; None for those the purifier is bound to, else
            0 .. B-1. They key noise and perturbations.
        xi: Scheme of the randomness; its seed is replaced. None for the purifier's own, else
            RandomnessConfig(0).
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        changes: Fields of `SnrSettings` to replace, such as ``perturbations=20``.

    Returns:
        Rows and summaries. Neither batch size, order nor the other images of the batch change a
        row: to the last bit for a tiled purifier, to rounding for others.
        Cost: B K S purifications.

    Raises:
        BadInput: for settings, images or results that cannot be used, or a callable that takes
            no randomness.

    Example:
        >>> import torch
        >>> from advpure.loading import load_purifier
        >>> x = torch.full((2, 1, 8, 8), 0.5)
        >>> purifier = load_purifier("onestep-edm", "digits")
        >>> snr = signal_to_noise(purifier, x, perturbations=4, configurations=4)
        >>> snr.n, snr.mean("snr_mean_of_ratios").value < 1
        (2, True)
    """
    xi = xi or as_target(purifier).xi or RandomnessConfig(0)
    refuse_fresh(xi)
    chosen = resolved(SnrSettings, settings, changes, seed=xi.seed)
    tables = snr_tables(purifier, images, ids, chosen, xi=xi, batch_size=batch_size)
    rows = tuple(SnrRow.of(i, table) for i, table in tables)
    return SnrResult(rows, describe_snr(purifier, images, chosen, xi))


def snr_tables(
    purifier: Given,
    images: Tensor,
    ids: Ids | None,
    settings: SnrSettings,
    *,
    xi: RandomnessConfig | None = None,
    batch_size: Annotated[int, Ge(1)] | None = None,
    skip: Container[int] = (),
    scratch: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[int, TwoWay]]:
    """Measure image by image, leaving out what is done: the resumable form.

    Args:
        purifier: A purifier, a defense (its purifier is measured), a chain, a map with
            `at(ids=, xi=)`, or one that draws from the global generators or takes
            ``(images, ids, randomness)``.
        images: [B, C, H, W] in [0, 1].
        ids: Sample ids [B], all different; None as in `signal_to_noise`.
        settings: Which inputs and configurations.
        xi: Scheme of the randomness; None as in `signal_to_noise`.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        skip: Sample ids that need no table; a set is fast.
        scratch: Folder where outputs of unfinished images wait for another session, 4 K S d bytes
            an image (8 for float64 images); None for files that vanish. An image's file is deleted
            when the next table is asked for.
        progress: Called with the number of finished purifications of these images, skipped and
            waiting ones included.

    Yields:
        (sample id, statistics) of each image, in the order of the images. Inputs are checked
        before the first.

    Raises:
        BadInput: for settings, images or results that cannot be used.
        StorageFull: when the outputs find no room.
    """
    check_images(images)
    if not hasattr(purifier, "at") and (own := as_purifier(purifier, images)).is_random:
        purifier = own
    target = as_target(purifier)
    samples = choose_ids(target, images, ids, unique=True)
    xi = xi or target.xi or RandomnessConfig(0)
    refuse_fresh(xi)
    check_strength(settings.strength, images.dtype, "use float64 images and purifier")
    run, batch = purify_rows(purifier), batch_rows(target, batch_size)
    configurations = [replace(xi, seed=seed) for seed in settings.seeds]
    todo = [(image, i) for image, i in zip(images, samples, strict=True) if i not in skip]
    done = (len(samples) - len(todo)) * settings.cells
    cells = (Cells(image, i, settings, scratch) for image, i in todo)
    return stream_tables(run, cells, configurations, batch, lambda more: progress(done + more))


def describe_snr(
    purifier: Given,
    images: Tensor,
    settings: SnrSettings,
    xi: RandomnessConfig,
) -> dict[str, Any]:
    """Return what the rows depend on beside the images, as JSON values."""
    randomness = asdict(replace(xi, seed=0))
    del randomness["seed"]
    return {
        **as_target(purifier).settings,
        **fields_of(SnrSettings, settings),
        "randomness": {**randomness, "path": list(xi.path)},
        "dtype": str(images.dtype).removeprefix("torch."),
    }
