"""What counts as the weights in a file: one rule for denoisers, classifiers and feature networks.

A file holds tensors by name, directly or in sets, which may lie in one another:

* raw sets are called ``state_dict``, ``model_state_dict``, ``model``, ``net``, ``network`` or
  ``params``; averaged ones ``ema``, ``state_dict_ema``, ``model_ema``, ``ema_state_dict``,
  ``ema_model`` or ``params_ema``. Where a file holds both, the averaged weights are read, unless a
  checkpoint is known to be evaluated with raw ones, and a note says so; ``raw`` or ``ema`` chooses.
  Two different sets of one kind are refused.
* In front of a name, ``module.``, ``model.`` and ``_orig_mod.`` go, also several of them, until
  the name is one that the network has.
* Counters that change no answer (``num_batches_tracked``, ``n_averaged``) may be there or not.

Weights are dense tensors of real numbers: float16, bfloat16, float32 or float64, and int32 or int64
for positions and counters, each number with memory of its own.
"""

import re
import warnings
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.validation import shown

Weights = Literal["ema", "raw"]
AVERAGED = ("ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema")
RAW = ("state_dict", "model_state_dict", "model", "net", "network", "params")
PREFIXES = ("module.", "model.", "_orig_mod.")
COUNTERS = re.compile(r"(?:^|\.)(?:num_batches_tracked|n_averaged)$")
_DEEPEST = 4
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_WHOLE = (torch.int32, torch.int64)


class NamedTensors(NamedTuple):
    """The weights of a file.

    Attributes:
        tensors: By name.
        weights: Which set it is, where the file holds averaged and raw ones; None where not.
    """

    tensors: dict[str, Tensor]
    weights: Weights | None


class _Set(NamedTuple):
    key: str
    weights: Weights
    tensors: Mapping[Any, Any]


def choose_set(
    content: Any, path: Path, choice: Weights | None = None, default: Weights = "ema"
) -> NamedTensors:
    """Find the weights in what a file holds; see the module for the rule.

    Args:
        content: What was read.
        path: The file, for messages.
        choice: Which set is wanted; None for the default.
        default: Which set to read where both are there.

    Raises:
        BadInput: when there are no named tensors, not the chosen ones, or several sets of a kind.

    Warns:
        UserWarning: when both kinds are there and none was chosen.

    Example:
        >>> one = {"w": torch.zeros(1)}
        >>> choose_set({"state_dict": {"model": one}, "epoch": 3}, Path("a.pt")).tensors
        {'w': tensor([0.])}
    """
    sets = list(_sets(content)) if isinstance(content, dict) else []
    kinds: dict[Weights, _Set] = {}
    for each in sets:
        other = kinds.setdefault(each.weights, each)
        if other.tensors is not each.tensors:
            raise BadInput(
                f"weights file {path}",
                f"holds weights under {other.key!r} and {each.key!r}",
                "store the ones you mean alone",
            )
    if choice is not None and choice not in kinds:
        held = f"holds no {_word(choice)} weights" if sets else "holds one set of weights"
        raise BadInput(f"weights file {path}", held, f"leave out {choice}")
    if not sets:
        return NamedTensors(_named(content, path), None)
    if len(kinds) == 1:
        return NamedTensors(_named(sets[0].tensors, path), None)
    wanted: Weights = choice or default
    if choice is None:
        others: Weights = "raw" if wanted == "ema" else "ema"
        warnings.warn(
            f"{path} holds averaged weights ({kinds['ema'].key}) and raw ones "
            f"({kinds['raw'].key}): the {_word(wanted)} ones are read; "
            f"{path.name}@{others} chooses the others",
            stacklevel=2,
        )
    return NamedTensors(_named(kinds[wanted].tensors, path), wanted)


def _sets(content: Mapping[Any, Any], key: str = "", depth: int = 0) -> Iterator[_Set]:
    """Iterate over the sets of a file, outermost names first."""
    for name in (*AVERAGED, *RAW):
        inner = content.get(name)
        if not isinstance(inner, dict) or depth == _DEEPEST:
            continue
        where = f"{key}.{name}" if key else name
        nested = list(_sets(inner, where, depth + 1))
        if nested:
            yield from nested
        elif any(isinstance(value, Tensor) for value in inner.values()) or "shadow_params" in inner:
            averaged = any(part in AVERAGED for part in where.split("."))
            yield _Set(where, "ema" if averaged else "raw", inner)


def _word(weights: Weights) -> str:
    return "averaged" if weights == "ema" else "raw"


def _named(content: Any, path: Path) -> dict[str, Tensor]:
    """Return a dictionary of tensors by name."""
    if not isinstance(content, dict) or not content:
        raise BadInput(f"weights file {path}", "holds no named tensors", "save a state_dict")
    if "shadow_params" in content:
        raise BadInput(
            f"weights file {path}",
            "averages parameters without their names",
            f"save their state_dict, or choose the others: {path.name}@raw",
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BadInput(
                f"entry {shown(name)} of {path}", "is no named tensor", "save a state_dict"
            )
    return dict(content)


def plain_names(
    state: Mapping[str, Tensor], known: Container[str], path: Path
) -> dict[str, Tensor]:
    """Remove what stands in front of names, and counters that the network does not have.

    Args:
        state: Tensors by the names of a file.
        known: The names that the network has.
        path: The file, for messages.

    Raises:
        BadInput: when two tensors get one name.

    Example:
        >>> state = {"_orig_mod.module.w": torch.zeros(1), "module.n_averaged": torch.ones(())}
        >>> list(plain_names(state, {"w"}, Path("a.pt")))
        ['w']
    """
    plain: dict[str, Tensor] = {}
    for given, value in state.items():
        name = given
        while name not in known and (prefix := _prefix(name)):
            name = name.removeprefix(prefix)
        if name not in known and COUNTERS.search(name):
            continue
        if name in plain:
            raise BadInput(f"tensor {name!r} of {path}", "is there twice", "store one of them")
        plain[name] = value
    return plain


def _prefix(name: str) -> str:
    return next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")


def check_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are no weights, before their numbers are read.

    Raises:
        BadInput: for the first that is not dense, shares memory among its numbers, has another
            type than the module names, or holds a number that is not finite.
    """
    for name, value in state.items():
        subject = f"tensor {name!r} of {path}"
        if value.layout != torch.strided or value.is_meta:
            raise BadInput(subject, "is not dense", "store numbers for all of it")
        if value.dtype not in (*_FLOATS, *_WHOLE):
            raise BadInput(
                subject,
                f"has the type {str(value.dtype).removeprefix('torch.')}",
                "store float16, bfloat16, float32 or float64",
            )
        if _shares(value):
            raise BadInput(
                subject,
                "has several numbers in one place of memory, as expand() makes them",
                "store .contiguous()",
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BadInput(subject, "is not finite", "obtain the file again")


def check_kinds(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str) -> None:
    """Refuse whole numbers where a network has real ones, and the other way round.

    Args:
        state: Tensors for the network.
        expected: The network's own, of the same names.
        where: What holds them, for messages.

    Raises:
        BadInput: for the first that differs.
    """
    for name, value in state.items():
        if value.is_floating_point() != expected[name].is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            wanted = str(expected[name].dtype).removeprefix("torch.")
            raise BadInput(f"tensor {name!r} of {where}", f"has the type {kind}", f"store {wanted}")


def _shares(value: Tensor) -> bool:
    """Return whether two elements of a tensor may lie in one place of memory."""
    reached = 0
    sides = zip(value.stride(), value.shape, strict=True)
    for stride, size in sorted((stride, size) for stride, size in sides if size > 1):
        if stride <= reached:
            return value.numel() > 0
        reached += stride * (size - 1)
    return False
