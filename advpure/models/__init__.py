"""The trained networks that ship with the package, each with a card that says how it was made."""

from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from advpure.errors import BadInput

_SUFFIX = ".safetensors"


def list_models() -> list[str]:
    """Return the names of the shipped networks, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX))


def model_path(name: str) -> Path:
    """Return the file of a shipped network.

    Args:
        name: A name from `list_models`.

    Raises:
        BadInput: for an unknown name, with the nearest known one.
    """
    path = Path(str(resources.files(__name__))) / f"{name}{_SUFFIX}"
    if not path.is_file():
        near = get_close_matches(name, list_models(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(list_models())}"
        raise BadInput(f"model {name!r}", "is not shipped", hint)
    return path
