"""The checkpoint of a training: a stored state is checked in every member before any is used.

A checkpoint is a dictionary: recipe (JSON), network and average (tensors by name), optimizer (its
state dictionary), task (tensors by name), step, begun, teacher, seconds, loss (sum and count) and
rows of the log. Ones from before task, begun and teacher existed do without them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor

from advpure.base.documents import parse_json
from advpure.base.errors import BadInput
from advpure.base.validation import check_value, shown, whole
from advpure.networks.named_tensors import check_kinds, check_tensors
from advpure.networks.weights import read_torch

_ADDED: Mapping[str, Any] = {"task": {}, "begun": 0}
_NUMBERS: Mapping[str, Any] = {
    "step": Annotated[int, Ge(0)],
    "begun": Annotated[int, Ge(0)],
    "seconds": Annotated[float, Ge(0)],
    "loss": tuple[float, ...],
    "teacher": str | None,
}
_MOMENTS: Mapping[str, set[str]] = {
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "RAdam": {"step", "exp_avg", "exp_avg_sq"},
    "SGD": {"momentum_buffer"},
}
"""What every optimiser keeps for a parameter."""
_FIX = "delete it, or choose another folder"


def read_checkpoint(path: Path, own: Mapping[str, Any]) -> dict[str, Any]:
    """Read a checkpoint: every member is there, and its recipe is one.

    Args:
        path: The file.
        own: The state of the training that goes on from it.

    Returns:
        The stored state, with its recipe as a dictionary, which the caller compares first;
        `check_members` checks the rest.

    Raises:
        BadInput: when the file cannot be read or lacks a member.
    """
    where = f"checkpoint {path}"
    try:
        stored = read_torch(path)
    except BadInput:
        raise BadInput(where, "cannot be read", _FIX) from None
    if not isinstance(stored, dict):
        raise BadInput(where, "is no checkpoint of a training", _FIX)
    state = {"teacher": own["teacher"], **_ADDED, **stored}
    missing = [name for name in own if name not in state]
    if missing:
        raise BadInput(where, f"has no {missing[0]!r}", _FIX)
    unknown = [name for name in state if name not in own]
    if unknown:
        raise BadInput(where, f"has {shown(unknown[0])}, which no training stores", _FIX)
    recipe = state["recipe"]
    if isinstance(recipe, str):
        recipe = parse_json(recipe, f"recipe of {where}")
    if not isinstance(recipe, dict):
        raise BadInput(where, "has no recipe in its 'recipe'", _FIX)
    return {**state, "recipe": recipe}


def check_members(
    path: Path, state: Mapping[str, Any], own: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> None:
    """Refuse a stored state whose members do not fit the training.

    Args:
        path: The file, for messages.
        state: What `read_checkpoint` returned.
        own: The state of the training that goes on from it, which says names and shapes.
        optimizer: Its optimiser.

    Raises:
        BadInput: naming the member.
    """
    where = f"checkpoint {path}"
    for name in ("network", "average", "task"):
        check_same_names(state[name], own[name], f"{name} of {where}")
    for name, hint in _NUMBERS.items():
        check_value(state[name], hint, f"{name} of {where}")
    loss, rows = state["loss"], state["rows"]
    if len(loss) != 2:
        raise BadInput(f"loss of {where}", "is no sum and count", _FIX)
    whole(loss[1], f"count of the loss of {where}")
    if not isinstance(rows, list) or not all(map(_is_row, rows)):
        raise BadInput(f"rows of {where}", "are no rows of the log", _FIX)
    _check_progress(state, where)
    _check_optimizer(state["optimizer"], optimizer, f"optimizer of {where}")
    taken = state["step"] - state["begun"]
    if taken and not state["optimizer"]["state"]:
        raise BadInput(f"optimizer of {where}", f"keeps nothing of {taken} steps", _FIX)


def _check_progress(state: Mapping[str, Any], where: str) -> None:
    """Refuse counts that contradict each other: a beginning after the end, rows of later steps."""
    step, begun, rows = state["step"], state["begun"], state["rows"]
    if begun > step:
        raise BadInput(f"begun {begun} of {where}", f"is after its step {step}", _FIX)
    late = [row[0] for row in rows if not 0 <= row[0] <= step]
    if late:
        raise BadInput(f"a row of step {late[0]:g} of {where}", f"is not within {step} steps", _FIX)


def _is_row(row: Any) -> bool:
    """Return whether a value is four numbers, also ones that are not finite."""
    return isinstance(row, list) and len(row) == 4 and {type(one) for one in row} <= {int, float}


def check_same_names(stored: Any, own: Mapping[str, Tensor], what: str) -> None:
    """Refuse tensors of other names, shapes or kinds.

    Args:
        stored: What a file holds.
        own: What it is meant for.
        what: How to call it in a message.

    Raises:
        BadInput: naming the first tensor that differs.
    """
    if not isinstance(stored, dict) or not all(isinstance(v, Tensor) for v in stored.values()):
        raise BadInput(what, "holds no named tensors", _FIX)
    for name in [*own, *stored]:
        if name not in stored or name not in own:
            rule = "is missing" if name not in stored else "is unknown"
            raise BadInput(f"tensor {shown(name)} of {what}", rule, _FIX)
        if stored[name].shape != own[name].shape:
            raise BadInput(
                f"tensor {name!r} of {what}",
                f"has shape {tuple(stored[name].shape)}, not {tuple(own[name].shape)}",
                _FIX,
            )
    check_tensors(stored, Path(what))
    check_kinds(stored, own, what)


def _check_optimizer(stored: Any, optimizer: torch.optim.Optimizer, what: str) -> None:
    """Refuse the state of another optimiser: other groups or settings, moments of other shapes."""
    own = optimizer.state_dict()["param_groups"]
    groups = stored.get("param_groups") if isinstance(stored, dict) else None
    moments = stored.get("state") if isinstance(stored, dict) else None
    if not isinstance(groups, list) or not isinstance(moments, dict) or len(groups) != len(own):
        raise BadInput(what, f"has no {len(own)} groups of parameters and their state", _FIX)
    for group, expected in zip(groups, own, strict=True):
        if not isinstance(group, dict) or not {"lr", "params"} <= group.keys():
            raise BadInput(what, "has a group without lr and params", _FIX)
        check_value(group["lr"], Annotated[float, Ge(0)], f"lr in the {what}")
        # The rest follows from the recipe; another version of torch may know more or less of it.
        for name in sorted((group.keys() & expected.keys()) - {"lr"}):
            if shown(group[name]) != shown(expected[name]):
                raise BadInput(f"{name} {shown(group[name])} in the {what}", "is another", _FIX)
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    names = _MOMENTS[type(optimizer).__name__]
    for index, entry in moments.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise BadInput(f"parameter {shown(index)} in the {what}", "is unknown", _FIX)
        fitting = {name for name, value in _entries(entry) if _fits(value, parameters[index])}
        if entry != {} and (fitting != names or entry.keys() - names):
            raise BadInput(f"moments of parameter {index} in the {what}", "do not fit it", _FIX)


def _entries(entry: Any) -> list[tuple[Any, Any]]:
    return list(entry.items()) if isinstance(entry, dict) else []


def _fits(value: Any, parameter: Tensor) -> bool:
    """Return whether a value can be a moment of a parameter, or its count of steps."""
    if value is None:  # momentum that no step has filled
        return True
    if not isinstance(value, Tensor) or value.dtype not in (torch.float32, parameter.dtype):
        return False
    fits = value.ndim == 0 or value.shape == parameter.shape
    return fits and bool(value.isfinite().all())
