"""How good a trained network is, with its sample size and interval.

A classifier: accuracy on all test images. A denoiser: accuracy of the shipped classifier on test
images that got Gaussian noise and were denoised in one call. The noise is a fixed function of the
image ids.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from advpure.data import Images, dataset_info, load_images
from advpure.denoisers import ConsistencyDenoiser, Denoiser, EDMDenoiser
from advpure.models import list_models, model_path
from advpure.randomness import RandomnessConfig
from advpure.schedules import karras_grid
from advpure.units import to_model, to_unit
from advpure.weights import load_network

SIGMAS = (0.17, 0.25, 0.5)
_LIMIT = 1000
_CHUNK = 250
_NOISE_SEED = 2026


class Rate(NamedTuple):
    """A measured rate.

    Attributes:
        what: What was counted.
        correct: How often it held.
        n: How many were tried.
        low: Lower end of the 95 % Wilson interval.
        high: Upper end.
    """

    what: str
    correct: int
    n: int
    low: float
    high: float

    def __str__(self) -> str:
        """Return the rate as per cent with n and interval."""
        rate, low, high = (f"{100 * v:.1f}" for v in (self.correct / self.n, self.low, self.high))
        return f"{self.what}: {rate} % (n={self.n}, 95 % interval {low}-{high} %)"


def measure_quality(network: nn.Module, metadata: Mapping[str, Any]) -> list[Rate]:
    """Measure a network on test images: a classifier on all, a denoiser on the first 1,000.

    Args:
        network: In evaluation mode.
        metadata: task, dataset and, for denoisers, the noise range.

    Returns:
        One rate for a classifier, one per noise level for a denoiser; none for a denoiser of a
        data set that has no shipped classifier.
    """
    data = load_images(metadata["dataset"])
    if metadata["task"] == "classifier":
        return [_count("test accuracy", network, data.images, data.labels)]
    data = Images(*(part[:_LIMIT] for part in data))
    judge = dataset_info(metadata["dataset"]).classifier
    if judge is None or judge not in list_models():
        return []
    classifier = load_network(model_path(judge)).network
    names = ("sigma_data", "sigma_min", "sigma_max")
    span = {name: float(metadata[name]) for name in names}
    denoiser: Denoiser
    if metadata["task"] == "consistency":
        denoiser = ConsistencyDenoiser(network, **span)
        grid = karras_grid(int(metadata["nodes"]), span["sigma_min"], span["sigma_max"])
        nodes = [float(min(grid, key=lambda node: abs(node - 2 * s))) for s in SIGMAS]
    else:
        denoiser = EDMDenoiser(network, **span)
        nodes = [2 * sigma for sigma in SIGMAS]
    rates = []
    for sigma, node in zip(SIGMAS, nodes, strict=True):
        denoised = one_shot(denoiser, data, sigma, node)
        what = f"accuracy after one-shot denoising of sigma {sigma} (network level {node:.4g})"
        rates.append(_count(what, classifier, denoised, data.labels))
    return rates


def one_shot(denoiser: Denoiser, data: Images, sigma: float, node: float) -> Tensor:
    """Add noise of standard deviation sigma ([0, 1] units) and denoise once at a network level.

    Args:
        denoiser: The denoiser.
        data: Clean images and their ids.
        sigma: Standard deviation of the noise, [0, 1] units.
        node: Noise level that the network is told, model units.

    Returns:
        Denoised images [n, C, H, W], [0, 1] units, not clipped.
    """
    xi = RandomnessConfig(_NOISE_SEED)
    noise = xi.normal(data.ids, "forward", 0, tuple(data.images.shape[1:]))
    with torch.no_grad():  # a measurement: nothing differentiates it
        return to_unit(denoiser(to_model(data.images) + 2 * sigma * noise, node))


def _count(what: str, classifier: nn.Module, images: Tensor, labels: Tensor) -> Rate:
    """Count correct decisions."""
    correct = 0
    with torch.no_grad():  # a measurement: nothing differentiates it
        for start in range(0, len(labels), _CHUNK):
            predicted = classifier(images[start : start + _CHUNK]).argmax(dim=1)
            correct += int((predicted == labels[start : start + _CHUNK]).sum())
    interval = binomtest(correct, len(labels)).proportion_ci(0.95, method="wilson")
    return Rate(what, correct, len(labels), float(interval.low), float(interval.high))
