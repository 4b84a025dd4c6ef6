"""The trained networks that ship with the package, each with a card that says how it was made."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from advpure.base.errors import BadInput
from advpure.base.validation import shown

_SUFFIX = ".safetensors"


def list_models() -> list[str]:
    """Return the names of the shipped networks, sorted.

    Example:
        >>> "digits-cm" in list_models()
        True
    """
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def model_path(name: str, suggest: Callable[[], Sequence[str]] = list_models) -> Path:
    """Return the file of a shipped network.

    Args:
        name: A name from `list_models`.
        suggest: Returns the names that an error may suggest.

    Raises:
        BadInput: for an unknown name, with the nearest known one.
    """
    if name not in list_models():
        known = suggest()
        near = get_close_matches(str(name), known, n=1)
        names = f"use one of {', '.join(known)}" if known else "name a file"
        hint = f"did you mean {near[0]!r}?" if near else names
        raise BadInput(f"model {shown(name)}", "is not shipped", hint)
    return Path(str(resources.files(__name__))) / f"{name}{_SUFFIX}"
