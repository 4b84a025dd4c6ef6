"""Names of curves: what was smoothed, and what tells it from the others beside it.

A name begins with the purifier. Without one (`none`) the classifier is the whole defense and stands
beside it, and so does a core that answers with it. Where several runs would have one name, each of
them gets the first setting in which they differ, then the next, until all differ: no name says more
than it must, and none depends on the order of the runs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

_FIRST = (
    "defense.classifier.name",
    "defense.denoiser.name",
    "defense.selector.name",
    "defense.policy.kind",
)
_LAST = ("procedure", "randomness", "device", "n")
_NAMED_APART = (
    "verb",
    *(f"procedure.{each}" for each in ("sigmas", "radii", "block", "classes", "prior")),
)
"""What makes no other curve, or is in the name anyway."""


def subject(settings: Mapping[str, Any]) -> str:
    """Return what a run of certificates smooths, in words.

    Args:
        settings: The run's.

    Example:
        >>> subject({"defense": {"purifier": "cm", "classifier": {"name": "digits-classifier"}}})
        'cm'
        >>> subject({"defense": {"purifier": "none", "classifier": {"name": "gaussian"}}})
        'none gaussian'
    """
    defense = settings["defense"]
    words = [defense["purifier"]]
    if words[0] == "none" and defense.get("classifier"):
        words.append(defense["classifier"]["name"])
    if defense.get("core"):
        words += ["core", defense["core"]["name"]]
    return " ".join(map(str, words))


def names_of(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the shortest names that tell runs of certificates apart.

    Args:
        runs: The settings of each, with the procedure that is shown.

    Returns:
        A name each, in their order; equal ones only where nothing that a name says differs.

    Example:
        >>> settings = {"purifier": "cm", "steps": 1}, {"purifier": "cm", "steps": 2}
        >>> names_of([{"defense": each} for each in (*settings, {"purifier": "cm-ft"})])
        ['cm steps=1', 'cm steps=2', 'cm-ft']
    """
    words = [subject(run) for run in runs]
    facts = [_facts(run) for run in runs]
    order = sorted({key for each in facts for key in each}, key=_rank)
    names = [""] * len(runs)
    groups = [[k for k in range(len(runs)) if words[k] == word] for word in dict.fromkeys(words)]
    while groups:
        members = groups.pop()
        values = {key: [facts[k].get(key) for k in members] for key in order}
        differs = next((key for key in order if len(set(values[key])) > 1), None)
        if differs is None:
            for k in members:
                names[k] = words[k]
            continue
        parts: dict[str | None, list[int]] = {}
        for k, value in zip(members, values[differs], strict=True):
            parts.setdefault(value, []).append(k)
        for value, part in parts.items():
            for k in part:
                words[k] += _word(differs, value)
        groups += parts.values()
    return names


def _facts(settings: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Return settings by dotted name, as text."""
    facts: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{above}{key}"
        if name in _NAMED_APART:
            continue
        if isinstance(value, Mapping):
            facts |= _facts(value, f"{name}.")
        elif isinstance(value, list | tuple):
            facts[name] = ",".join(map(str, value))
        else:
            facts[name] = f"{value:g}" if isinstance(value, float) else str(value)
    return facts


def _rank(key: str) -> tuple[int, str]:
    """Order settings by what they mean to a reader."""
    if key in _FIRST:
        return _FIRST.index(key), ""
    if key.endswith("sha256"):
        return len(_FIRST) + 2, key
    return len(_FIRST) + (key.split(".")[0] in _LAST), key


def _word(key: str, value: str | None) -> str:
    """Write a setting behind a name; nothing where a run lacks it."""
    if value is None:
        return ""
    if key.endswith("sha256"):
        return f" {value[:8]}"
    return (
        f" {value}"
        if key in _FIRST or key.endswith(".name")
        else f" {key.rpartition('.')[2]}={value}"
    )
