"""The metrics before and after purification by name: what each is, and which network it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from advpure.analysis.metrics.networks import NETWORKS, FeatureNetwork, MetricContext
from advpure.analysis.metrics.ssim import ssim, ssim_window
from advpure.base.errors import BadInput, MissingExtra
from advpure.base.validation import check_choice

Kind = Literal["pair", "response", "cosine", "frechet", "precision-recall", "score"]
Pair = Callable[[Tensor, Tensor], Tensor]


class Metric(NamedTuple):
    """One metric.

    Attributes:
        kind: ``pair``: a value of every image and its original, computed from pixels. ``cosine``:
            1 - cos of their features. ``response``: what the purifier makes of the difference of
            an image and its original, against that difference; 1 before purification. The others
            compare the set of images with the originals'.
        network: The feature network that it needs, or None.
        features: Which of its outputs.
        about: One line.
    """

    kind: Kind
    network: str | None
    features: str
    about: str


METRICS: dict[str, Metric] = {
    "compression": Metric(
        "response", None, "", "compression rate along the perturbation, ratio of l2 norms"
    ),
    "compression-linf": Metric("response", None, "", "the same of l-inf norms"),
    "ssim": Metric("pair", None, "", "structural similarity, 1 for equal images"),
    "lpips": Metric("pair", "vgg", "", "LPIPS (VGG16, v0.1)"),
    "clip": Metric("cosine", "clip", "clip", "1 - cos of CLIP embeddings"),
    "fid-768": Metric("frechet", "inception", "inception-768", "FID, 768 features"),
    "fid-2048": Metric("frechet", "inception", "inception-2048", "FID"),
    "frechet-classifier": Metric(
        "frechet", "classifier", "classifier", "Frechet distance, classifier features (no FID)"
    ),
    "frechet-vgg": Metric("frechet", "vgg", "vgg", "Frechet distance, VGG16 features (no FID)"),
    "inception-score": Metric("score", "inception", "inception-classes", "inception score"),
    "classifier-score": Metric(
        "score", "classifier", "classifier-classes", "the same over our classifier's classes"
    ),
    "precision-recall": Metric(
        "precision-recall", "inception", "inception-2048", "precision and recall, k = 3"
    ),
    "precision-recall-classifier": Metric(
        "precision-recall", "classifier", "classifier", "the same over classifier features"
    ),
    "precision-recall-vgg": Metric(
        "precision-recall", "vgg", "vgg", "the same over VGG16 features"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The metrics of a run, loaded.

    Attributes:
        metrics: Names, in the order of `METRICS`.
        pairs: The functions of the metrics of kind ``pair``, images against originals to [B].
        responses: Those of kind ``response``: f(x + eta) - f(x) and eta to [B], NaN for a zero eta.
        networks: The feature networks that the others need.
        identity: What all values depend on, JSON values.
        missing: Metric to the reason why it is left out.
    """

    metrics: tuple[str, ...]
    pairs: dict[str, Pair]
    responses: dict[str, Pair]
    networks: dict[str, FeatureNetwork]
    identity: dict[str, Any]
    missing: dict[str, str]

    @property
    def notes(self) -> list[str]:
        """One sentence for every reason, with the metrics that it concerns."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.missing.items():
            reasons.setdefault(reason, []).append(name)
        return [f"without {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def parse_metrics(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Read a list of metrics, such as "ssim,lpips"; "all" or None is all, "none" none.

    Raises:
        BadInput: for an unknown name, with the nearest known one.

    Example:
        >>> parse_metrics("lpips,ssim")
        ('ssim', 'lpips')
    """
    if names is None or names == "all":
        return tuple(METRICS)
    listed = names.split(",") if isinstance(names, str) else list(names)
    wanted = [name.strip().lower().replace("_", "-") for name in listed]
    if wanted == ["none"] or not wanted:
        return ()
    for name in wanted:
        check_choice(name, tuple(METRICS), "metric")
    if len(set(wanted)) < len(wanted):
        raise BadInput(f"metrics {','.join(wanted)}", "repeat a name", "give each name once")
    return tuple(name for name in METRICS if name in wanted)


def load_metrics(names: str | Sequence[str] | None, context: MetricContext) -> Chosen:
    """Load what metrics need, leaving out those whose network cannot be had here.

    Args:
        names: See `parse_metrics`.
        context: Classifier, image shape, device.

    Raises:
        BadInput: for an unknown name, or when every metric that was asked for by name is missing.
    """
    wanted = parse_metrics(names)
    networks: dict[str, FeatureNetwork] = {}
    failed: dict[str, str] = {}
    for network in dict.fromkeys(METRICS[name].network for name in wanted):
        if network is None:
            continue
        try:
            networks[network] = NETWORKS.get(network)(context)
        except (BadInput, MissingExtra) as error:
            failed[network] = str(error)
    missing = {n: failed[need] for n in wanted if (need := METRICS[n].network or "") in failed}
    kept = tuple(name for name in wanted if name not in missing)
    sets = {METRICS[name].network for name in kept if METRICS[name].kind != "pair"}
    chosen = Chosen(
        metrics=kept,
        pairs=_pairs(kept, context),
        responses={name: how for name, how in _RESPONSES.items() if name in kept},
        networks={name: network for name, network in networks.items() if name in sets},
        identity=_identity(kept, networks, context),
        missing=missing,
    )
    if names not in (None, "all") and missing and not kept:
        raise BadInput(f"metrics {', '.join(wanted)}", "cannot be had here", chosen.notes[0])
    return chosen


def _pairs(names: Sequence[str], context: MetricContext) -> dict[str, Pair]:
    pairs: dict[str, Pair] = {}
    if "ssim" in names:
        pairs["ssim"] = _similarity
    if "lpips" in names:
        from advpure.analysis.metrics.vgg_features import perceptual_distance
        from advpure.networks.lpips import load_lpips

        network = load_lpips().to(context.device)
        pairs["lpips"] = lambda a, b: perceptual_distance(network, a, b)
    return pairs


def _norm_ratio(change: Tensor, eta: Tensor, *, order: float) -> Tensor:
    """Divide the norms of two differences [B, C, H, W], in float64 on the CPU."""
    size, base = (
        torch.linalg.vector_norm(x.cpu().double().flatten(1), order, dim=1) for x in (change, eta)
    )
    return torch.where(base > 0, size / base, torch.nan)


_RESPONSES: dict[str, Pair] = {
    "compression": partial(_norm_ratio, order=2),
    "compression-linf": partial(_norm_ratio, order=torch.inf),
}


def _similarity(a: Tensor, b: Tensor) -> Tensor:
    """Compare as in image files; on the CPU, since not every device has float64."""
    return ssim(a.cpu().clamp(0.0, 1.0), b.cpu().clamp(0.0, 1.0))


def _identity(
    names: Sequence[str], networks: dict[str, FeatureNetwork], context: MetricContext
) -> dict[str, Any]:
    identity: dict[str, Any] = {
        name: dict(network.identity)
        for name, network in networks.items()
        if any(METRICS[metric].network == name for metric in names)
    }
    if "ssim" in names:
        identity["ssim"] = {"window": ssim_window(*context.shape[1:])}
    return {"metrics": list(names), "networks": identity}
