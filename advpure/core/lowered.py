"""Views of denoisers and classifiers whose networks are computed in a lower precision."""

import copy
from typing import Any

import torch
from torch import nn

from advpure.base.errors import BadInput
from advpure.base.imports import seeded
from advpure.core.chain import Noise
from advpure.core.denoisers import Denoiser
from advpure.core.levelled import LevelledClassifier
from advpure.core.own import JUDGE, OwnModel, keys_of
from advpure.core.precision import InPrecision, Precision
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import is_trusted, trust, trusted_shape


def denoiser_in(denoiser: Denoiser, precision: Precision) -> Denoiser:
    """Return a view of a denoiser whose network is computed in a precision.

    What turns the answer of a network into an estimate, such as c_skip x + c_out F, is float32.

    Raises:
        BadInput: for a denoiser that holds no network.
    """
    name = next((name for name in ("network", "function") if hasattr(denoiser, name)), None)
    if name is None:
        rule = f"means nothing to a {type(denoiser).__name__}, which holds no `network`"
        raise BadInput(f"precision {precision}", rule, "leave it out")
    view: Denoiser = _view(denoiser)
    setattr(view, name, InPrecision(getattr(denoiser, name), precision))
    return trust(view, trusted_shape(denoiser)) if is_trusted(denoiser) else view


def classifier_in(classifier: nn.Module, precision: Precision) -> nn.Module:
    """Return a view of a classifier that is computed in a precision; its logits are float32."""
    if isinstance(classifier, LevelledClassifier):
        view: LevelledClassifier = _view(classifier)
        view.networks = nn.ModuleList(InPrecision(each, precision) for each in view.networks)
        return view
    wrapped = InPrecision(classifier, precision)
    return trust(wrapped, trusted_shape(classifier)) if is_trusted(classifier) else wrapped


def lower(model: OwnModel, precision: Precision, shape: tuple[int, ...], tile: int) -> None:
    """Let a model of a user's be computed in a precision from now on.

    Args:
        model: The wrapper, changed in place; what it wraps stays as it is.
        precision: See `Precision`.
        shape: Images, [C, H, W].
        tile: How many of them it is asked about, twice.

    Raises:
        BadInput: for a model that fails in it, or has weights and answers in it bit for bit as in
            float32, so that the records would name a precision in which nothing was computed.
    """
    images = torch.rand((tile, *shape), generator=torch.Generator().manual_seed(0), device="cpu")
    weight = next((each for each in model.parameters() if each.is_floating_point()), None)
    images = images if weight is None else images.to(weight.device)
    noise = Noise(RandomnessConfig(0), torch.arange(tile, dtype=torch.int64, device="cpu"))
    keys = keys_of(model, noise, JUDGE, tile)
    with torch.no_grad():  # two answers are compared
        with seeded():
            before = model.keyed(images, keys)
        model.precision = precision
        try:
            with seeded():
                after = model.keyed(images, keys)
        except BadInput as error:
            rule = f"cannot be computed by it: {error}"
            raise BadInput(f"precision {precision} of {model.name}", rule, "use float32") from error
    if weight is not None and torch.equal(before, after):
        rule = "changes no bit of its answers, so it computes in a precision of its own"
        raise BadInput(f"precision {precision} of {model.name}", rule, "use float32")


def _view(module: Any) -> Any:
    """Return a copy of a module that shares its parts, whose attributes can be set alone."""
    view = copy.copy(module)
    view._modules = module._modules.copy()
    return view
