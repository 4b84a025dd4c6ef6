"""Classifiers by the names of timm and torchvision: ``timm:NAME`` and ``torchvision:NAME``.

The network is the library's. Its weights are a file, or what the library has stored on this
machine; nothing is fetched, and no file that would run code is read.
"""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.imports import seeded
from advpure.base.validation import shown
from advpure.checkpoints.vision import VisionConfig, build
from advpure.networks.weights import load_state, state_sha256

LIBRARIES = ("timm", "torchvision")
CACHED, RANDOM = "cached", "random"


class HubNetwork(NamedTuple):
    """A network and what identifies it in records."""

    module: nn.Module
    identity: dict[str, Any]


def is_hub(name: object) -> bool:
    """Return whether a text names a network of one of the libraries.

    Example:
        >>> is_hub("timm:resnet18"), is_hub("digits-classifier"), is_hub("mine.py:make")
        (True, False, False)
    """
    return isinstance(name, str) and ":" in name and name.partition(":")[0] in LIBRARIES


def hub_network(name: str, *, classes: int, weights: str = CACHED) -> HubNetwork:
    """Build a classifier of timm or torchvision, with weights that are on this machine.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        classes: Number of classes, where the weights are a file or random. Those in the cache of
            the library have the number they were trained for.
        weights: ``cached``: the library's own, from its cache; a file of a state dict, safetensors
            or PyTorch; or ``random``, drawn under seed 0, to try something out.

    Raises:
        BadInput: for an unknown name, or weights that are not there or do not fit.
        MissingExtra: when the library is not installed.
    """
    library, _, model = name.partition(":")
    check, cached = _LIBRARIES[library]
    check(model)
    if weights == CACHED:
        path, classes = cached(model)
    else:
        path = Path(weights)
    config = VisionConfig(library=library, model=model, classes=classes)  # type: ignore[arg-type]
    try:
        with seeded():
            network = build(config)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadInput(
            f"classifier {name}", f"cannot be built ({reason})", "name another"
        ) from error
    if weights != RANDOM:
        state = {key.removeprefix("module."): value for key, value in load_state(path).items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            fix = "give the file of this network, and --classifier-option classes=N"
            raise BadInput(f"weights {path}", f"do not fit {name} ({reason})", fix) from None
    network.eval()
    return HubNetwork(network, {"name": name, "weights": weights, "sha256": state_sha256(network)})


def _unknown(library: str, model: str, known: list[str]) -> BadInput:
    near = difflib.get_close_matches(model, known, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{library} lists {len(known)} names"
    return BadInput(
        f"classifier {shown(f'{library}:{model}')}", f"is no network of {library}", hint
    )


def _check_timm(model: str) -> None:
    with optional("timm", "hub"):
        import timm
    if not timm.is_model(model.partition(".")[0]):
        raise _unknown("timm", model, timm.list_models())


def _cached_timm(model: str) -> tuple[Path, int]:
    with optional("timm", "hub"):
        from timm.models import get_pretrained_cfg
    with optional("huggingface_hub", "hub"):
        from huggingface_hub import try_to_load_from_cache
    about = get_pretrained_cfg(model)
    repository = getattr(about, "hf_hub_id", None)
    found = None
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = found or (try_to_load_from_cache(repository, file) if repository else None)
    if about is None or not isinstance(found, str):
        raise _absent(f"timm:{model}", f"the cache of the model hub, as {repository or model}")
    return Path(found), int(about.num_classes)


def _check_torchvision(model: str) -> None:
    with optional("torchvision", "hub"):
        from torchvision.models import list_models
    known = [each for each in list_models() if "/" not in each]
    if model not in known:
        raise _unknown("torchvision", model, known)


def _cached_torchvision(model: str) -> tuple[Path, int]:
    with optional("torchvision", "hub"):
        from torchvision.models import get_model_weights
    best = get_model_weights(model).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / best.url.rpartition("/")[2]
    if not path.is_file():
        raise _absent(f"torchvision:{model}", str(path))
    return path, len(best.meta["categories"])


def _absent(name: str, where: str) -> BadInput:
    fix = "store them there, or give --classifier-option weights=FILE"
    return BadInput(f"weights of {name}", f"are not in {where}", fix)


_LIBRARIES: dict[str, tuple[Callable[[str], None], Callable[[str], tuple[Path, int]]]] = {
    "timm": (_check_timm, _cached_timm),
    "torchvision": (_check_torchvision, _cached_torchvision),
}
