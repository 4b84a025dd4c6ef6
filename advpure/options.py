"""Options given as values or as text, checked against a settings class."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from advpure.errors import BadInput
from advpure.units import parse_number

S = TypeVar("S")


def read_options(kind: type[S], options: Mapping[str, Any], owner: str) -> S:
    """Fill a settings dataclass, converting text such as "true", "40" or "8/255".

    Args:
        kind: The dataclass.
        options: Field names and values.
        owner: Whose options these are, for the messages.

    Raises:
        BadInput: for an unknown option (with the nearest name), a value of the wrong kind, or as
            the class itself refuses.

    Example:
        >>> from advpure.purifiers.ddpm import DDPM
        >>> read_options(DDPM, {"t": "50", "clip_x0": "true"}, "ddpm").clip_x0
        True
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            listed = ", ".join(known) or "none"
            raise BadInput(
                f"option {option!r} of {owner}", "is not known", f"{hint}known: {listed}"
            )
    values = {
        name: parse_number(value, name) if isinstance(value, str) and "/" in value else value
        for name, value in options.items()
    }
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, BadInput):
            raise cause from None
        place = ".".join(str(part) for part in first["loc"]) or "options"
        raise BadInput(
            f"{place} {first['input']!r} of {owner}",
            "is not usable",
            first["msg"][0].lower() + first["msg"][1:],
        ) from None
