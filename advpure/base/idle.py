"""Settings that change nothing beside the others: refused, lest they seem to act."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.validation import shown


def changed(settings: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a dataclass instance that differ from their defaults, by name.

    Example:
        >>> @dataclasses.dataclass
        ... class Settings:
        ...     steps: int = 3
        ...     eps: float = 0.1
        >>> changed(Settings(steps=4), ("steps", "eps"))
        {'steps': 4}
    """
    fields = {field.name: field for field in dataclasses.fields(settings)}
    values = {}
    for name in names:
        field, value = fields[name], getattr(settings, name)
        makes = field.default_factory
        default = field.default if makes is dataclasses.MISSING else makes()
        if value != default and not (value is None or value == ()):
            values[name] = value
    return values


def refuse_idle(settings: Any, names: Iterable[str], why: str, fix: str = "leave it out") -> None:
    """Refuse fields that are set although nothing depends on them.

    Args:
        settings: A dataclass instance.
        names: Fields that have no effect beside the others.
        why: The rule, as a verb phrase.
        fix: What to do instead.

    Raises:
        BadInput: for the first that differs from its default.
    """
    for name, value in changed(settings, names).items():
        said = name.replace("_", " ")
        raise BadInput(said if value is True else f"{said} {shown(value)}", why, fix)
