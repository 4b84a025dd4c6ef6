"""How good a trained network is, with its sample size and interval.

A classifier: accuracy on all test images, and under the noise or attack that it was trained for,
the latter by 20 steps of projected gradient descent: a bound from above, no verdict. A denoiser:
accuracy of the shipped classifier on test images that got Gaussian noise and were denoised in one
call; for an EDM denoiser, also after the probability-flow ODE from the same noisy images. The noise
is a fixed function of the image ids.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from advpure.attacks.projected import pgd
from advpure.base.units import Norm, to_model, to_unit
from advpure.core.chain import Noise
from advpure.core.denoisers import ConsistencyDenoiser, Denoiser, EDMDenoiser
from advpure.core.levelled import LEVELLED, LevelledClassifier, NoiseLevels
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import karras_grid, nearest_node
from advpure.data import Images, dataset_info, load_images
from advpure.models import list_models, model_path
from advpure.networks.joint import realness
from advpure.networks.weights import load_network
from advpure.purifiers.pf_ode import PFODE
from advpure.training.neighbours import Memory, neighbour_classes

SIGMAS = (0.17, 0.25, 0.5, 1.0)
LEVELS_OF_CERTIFICATES = SIGMAS[1:]
_MEMORY = 5000
_ODE_SIGMAS = (0.5, 1.0)
_ODE_NODES = 9
_LIMIT = 1000
_CHUNK = 250
_NOISE_SEED = 2026
_STEPS = 20


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
    """Measure a network on test images.

    Args:
        network: In evaluation mode.
        metadata: task, dataset and, for denoisers, the noise range.

    Returns:
        For a joint model its rates as a classifier, and how often it takes real and generated
        images for real. For a selector how often it chooses, and the certified classifier's rates
        there and elsewhere. For a classifier its rate on all test images; one that was trained
        behind a denoiser, under noise or against attacks also has its rates there. For one that
        receives the noise level its rates at its levels, for a representation how often the
        nearest training image has the right class, and for a denoiser the rates of the shipped
        classifier behind it, each on the first 1,000 images, one per noise level; none where no
        classifier ships.
    """
    data = load_images(metadata["dataset"])
    first = Images(*(part[:_LIMIT] for part in data))
    if metadata["task"] == "classifier":
        rates = [_count("test accuracy", network, data.images, data.labels)]
        if "denoiser" in metadata:
            from advpure.loading import load_denoiser

            rates += _behind(load_denoiser(metadata["denoiser"]), 0, network, first)
        for sigma in metadata.get("noise_sigmas", ()):
            noisy = _noised(first, sigma, lambda x: x)
            rates.append(_count(f"accuracy under noise {sigma:g}", network, noisy, first.labels))
        if "trained_eps" in metadata:
            rates.append(
                _attacked(network, metadata["trained_norm"], metadata["trained_eps"], first)
            )
        return rates
    if metadata["task"] == "joint":
        return _joint(network, metadata, data, first)
    if metadata["task"] == "selector":
        return _selected(network, metadata, first)
    if metadata["task"] == LEVELLED:
        return _at_levels(network, metadata, first)
    if metadata["task"] == "representation":
        return _neighbours(network, metadata, first)
    classifier_name = dataset_info(metadata["dataset"]).classifier
    if classifier_name is None or classifier_name not in list_models():
        return []
    classifier = load_network(model_path(classifier_name)).network
    names = ("sigma_data", "sigma_min", "sigma_max")
    span = {name: float(metadata[name]) for name in names}
    if metadata["task"] == "consistency":
        nodes = int(metadata["nodes"])
        return _behind(ConsistencyDenoiser(network, **span), nodes, classifier, first)
    denoiser = EDMDenoiser(network, **span)
    return _behind(denoiser, 0, classifier, first) + _after_ode(denoiser, classifier, first)


def _attacked(network: nn.Module, norm: Norm, eps: float, data: Images) -> Rate:
    """Measure a classifier under the attack of the radius that it was trained for."""
    right = 0
    for start in range(0, len(data.ids), _CHUNK):
        images, labels, ids = (part[start : start + _CHUNK] for part in data)
        result = pgd(
            network, images, labels, ids=ids, eps=eps, norm=norm, steps=_STEPS, step_size=eps / 8
        )
        right += int((~result.success).sum())
    what = f"accuracy under PGD of {_STEPS} steps, {norm} {eps:.4g}"
    return _rate(what, right, len(data.ids))


def _joint(
    network: nn.Module, metadata: Mapping[str, Any], data: Images, first: Images
) -> list[Rate]:
    """Measure a joint model: as a classifier, and by what it takes for real, unattacked."""
    from advpure.training.generated import OneStepGenerator
    from advpure.training.randomness import step_generator
    from advpure.training.tasks import fixed_classifier

    dataset, labeller = metadata["dataset"], metadata["labeller"]
    says = fixed_classifier(labeller or metadata["teacher"], dataset)
    generator = OneStepGenerator(metadata["generator"], dataset, says)
    rates = [_count("test accuracy", network, data.images, data.labels)]
    if metadata["attacked"]:
        rates.append(_attacked(network, "l2", metadata["real_eps"], first))
    draws = step_generator(_NOISE_SEED, "generated")
    count = len(first.labels)
    chunks = [min(_CHUNK, count - start) for start in range(0, count, _CHUNK)]
    fakes = [generator(size, draws, torch.device("cpu")) for size in chunks]
    with torch.no_grad():  # a measurement: nothing differentiates it
        ours = realness(
            torch.cat([network(x) for x in torch.split(first.images, _CHUNK)]), first.labels
        )
        theirs = torch.cat([realness(network(each.images), each.labels) for each in fakes])
    rates.append(_rate("test images more likely real than not", int((ours > 0).sum()), count))
    what = f"images of {metadata['generator']} more likely real than not"
    rates.append(_rate(what, int((theirs > 0).sum()), count))
    return rates


def _selected(selector: nn.Module, metadata: Mapping[str, Any], data: Images) -> list[Rate]:
    """Measure how often a selector chooses the certified classifier, and that one's answers."""
    from advpure.loading import load_judge

    certified = load_judge(metadata["dataset"], metadata["certified"])[0]
    rates = []
    for sigma in metadata["noise_sigmas"]:
        noisy = _noised(data, sigma, lambda x: x)
        with torch.no_grad():  # a measurement: nothing differentiates it
            chosen = selector(noisy).argmax(dim=1) == 1
        under = f"under noise {sigma:g}"
        rates.append(_rate(f"certified classifier chosen {under}", int(chosen.sum()), len(chosen)))
        for where, rows in (("it is chosen", chosen), ("the core is chosen", ~chosen)):
            if bool(rows.any()):
                what = f"certified classifier right {under} where {where}"
                rates.append(_count(what, certified, noisy[rows], data.labels[rows]))
    return rates


def _at_levels(network: nn.Module, metadata: Mapping[str, Any], data: Images) -> list[Rate]:
    """Measure a classifier that receives the noise level, under noise of its levels."""
    classifier = LevelledClassifier([network], [NoiseLevels.of(metadata, metadata["name"])])
    rates = []
    for sigma in metadata["noise_sigmas"] or LEVELS_OF_CERTIFICATES:
        view = classifier.at(sigma)
        noisy = _noised(data, sigma, lambda x: x)
        what = f"accuracy under noise {sigma:g} (network level {view.node:.4g})"
        rates.append(_count(what, view, noisy, data.labels))
    return rates


def _neighbours(network: nn.Module, metadata: Mapping[str, Any], data: Images) -> list[Rate]:
    """Measure how often the nearest clean training image has the class of a noisy image."""
    memory = Memory.first(metadata["dataset"], _MEMORY)
    lowest, sigma_data = float(metadata["sigma_min"]), float(metadata["sigma_data"])
    rates = []
    for sigma in (0.0, *LEVELS_OF_CERTIFICATES):
        level = max(2 * sigma, lowest)

        def classes(x: Tensor, level: float = level) -> Tensor:
            return neighbour_classes(network, memory, x, level, lowest, sigma_data)

        xi = RandomnessConfig(_NOISE_SEED)
        noise = xi.normal(data.ids, "forward", 0, tuple(data.images.shape[1:]))
        right = int((classes(to_model(data.images) + 2 * sigma * noise) == data.labels).sum())
        what = (
            f"class of the nearest of {len(memory.labels):,} training images under noise {sigma:g}"
        )
        rates.append(_rate(what, right, len(data.labels)))
    return rates


def _behind(denoiser: Denoiser, nodes: int, classifier: nn.Module, data: Images) -> list[Rate]:
    """Measure a classifier behind a denoiser, asked at the nearest of so many nodes, 0 for any."""
    rates = []
    for sigma in SIGMAS:
        level = 2 * sigma
        if nodes:
            grid = karras_grid(nodes, denoiser.sigma_min, denoiser.sigma_max)
            level = float(grid[nearest_node(grid, level)])
        denoised = one_shot(denoiser, data, sigma, level)
        what = f"accuracy after one-shot denoising of sigma {sigma} (network level {level:.4g})"
        rates.append(_count(what, classifier, denoised, data.labels))
    return rates


def _after_ode(denoiser: Denoiser, classifier: nn.Module, data: Images) -> list[Rate]:
    """Measure a classifier behind the probability-flow ODE."""
    rates = []
    for sigma in _ODE_SIGMAS:
        chain = PFODE(sigma=sigma, nodes=_ODE_NODES).chain(denoiser)[1:]
        ended = _noised(data, sigma, partial(chain.run, noise=Noise(None, None)))
        what = f"accuracy after the ODE from sigma {sigma} ({chain.evaluations} evaluations)"
        rates.append(_count(what, classifier, ended, data.labels))
    return rates


def one_shot(denoiser: Denoiser, data: Images, sigma: float, node: float) -> Tensor:
    """Add noise of standard deviation sigma ([0, 1] units) and denoise once at a network level.

    Args:
        denoiser: The denoiser.
        data: Clean images and their ids.
        sigma: Standard deviation of the noise, [0, 1] units.
        node: Noise level that the network receives, model units.

    Returns:
        Denoised images [n, C, H, W], [0, 1] units, not clipped.
    """
    return _noised(data, sigma, lambda x: denoiser(x, node))


def _noised(data: Images, sigma: float, clean: Callable[[Tensor], Tensor]) -> Tensor:
    """Add noise and clean it again in model units; return images in [0, 1] units."""
    xi = RandomnessConfig(_NOISE_SEED)
    parts = []
    with torch.no_grad():  # a measurement: nothing differentiates it
        for start in range(0, len(data.ids), _CHUNK):
            images, ids = data.images[start : start + _CHUNK], data.ids[start : start + _CHUNK]
            noise = xi.normal(ids, "forward", 0, tuple(images.shape[1:]))
            parts.append(to_unit(clean(to_model(images) + 2 * sigma * noise)))
    return torch.cat(parts)


def _count(what: str, classifier: nn.Module, images: Tensor, labels: Tensor) -> Rate:
    """Count correct decisions."""
    correct = 0
    with torch.no_grad():  # a measurement: nothing differentiates it
        for start in range(0, len(labels), _CHUNK):
            predicted = classifier(images[start : start + _CHUNK]).argmax(dim=1)
            correct += int((predicted == labels[start : start + _CHUNK]).sum())
    return _rate(what, correct, len(labels))


def _rate(what: str, correct: int, n: int) -> Rate:
    interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return Rate(what, correct, n, float(interval.low), float(interval.high))
