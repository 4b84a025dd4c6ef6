"""How a field of a settings class is written on the command line, where its name does not say.

A field has its name, type, range and default where it is declared, and its help in the docstring of
its class. These marks stand in its annotation, ``Annotated[int | None, Flag("--t")]``, and
`advpure.cli.studies` makes the option from all of it.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

from advpure.base.errors import BadInput

_ENTRY = re.compile(r"^(\w+): (.*)$")


@dataclass(frozen=True, init=False)
class Flag:
    """The names of an option, such as ``--defense`` and ``-d``; ``--on/--off`` for a truth."""

    names: tuple[str, ...]

    def __init__(self, *names: str) -> None:
        """Take the names, the longest first."""
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class Positional:
    """The values are written without a flag."""


@dataclass(frozen=True)
class Repeats:
    """The option may be given several times, once for each value."""


@dataclass(frozen=True)
class Beside:
    """No record depends on the field: it says what to show or to keep of a run."""


@dataclass(frozen=True)
class Keys:
    """Of a mapping of options: those that have a flag of their own.

    Attributes:
        kind: "module:class" of the settings that the options belong to.
        flags: Flag to the name of the option.
        owner: Whose defaults they have.
    """

    kind: str
    flags: Mapping[str, str] = field(default_factory=dict)
    owner: str = "attack"


def is_beside(annotation: Any) -> bool:
    """Return whether no record depends on a field of this annotation.

    Example:
        >>> from typing import Annotated
        >>> is_beside(Annotated[bool, Beside()]), is_beside(bool)
        (True, False)
    """
    return any(isinstance(mark, Beside) for mark in get_args(annotation))


def by_field(kind: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the names of a settings class, where the command line's may stand.

    Dashes may stand for underscores. A name is a field's, else that of a flag: of a field, of a key
    of a mapping, or of one of the two words of a field, such as ``fix-random: true``. What is none
    of these stays as it is.

    Args:
        kind: The settings class.
        options: Names, dotted or not, to values.

    Raises:
        BadInput: for one option under two names.
    """
    named = _flags(kind)
    result: dict[str, Any] = {}
    for name, value in options.items():
        outer, dot, inner = name.partition(".")
        plain = outer.replace("-", "_")
        owner, key, words = named.get(plain, (plain, None, None))
        if key is not None:
            dot, inner = ".", key
        if words is not None and isinstance(value, bool):
            value = words[0] if value else words[1]
        target = f"{owner}{dot}{inner}"
        if target in result:
            raise BadInput(f"option {name!r}", "is given twice", f"keep {target} or {name}")
        result[target] = value
    return result


def _flags(kind: type[Any]) -> dict[str, tuple[str, str | None, tuple[Any, Any] | None]]:
    """Return by the name of a flag its field, the key of a mapping, and the words of a switch."""
    hints = get_type_hints(kind, include_extras=True)
    unused = getattr(kind, "unused", {})
    fields = [each.name for each in dataclasses.fields(kind) if each.name not in unused]
    named: dict[str, tuple[str, str | None, tuple[Any, Any] | None]] = {}
    for owner in fields:
        for mark in get_args(hints[owner]):
            if isinstance(mark, Keys):
                named |= {flag: (owner, key, None) for flag, key in mark.flags.items()}
            for flag in mark.names if isinstance(mark, Flag) else ():
                sides = [side.lstrip("-").replace("-", "_") for side in flag.split("/")]
                words = get_args(get_args(hints[owner])[0]) if len(sides) == 2 else None
                named[sides[0]] = (owner, None, words)
                if words:
                    named[sides[1]] = (owner, None, (words[1], words[0]))
    return {name: where for name, where in named.items() if name not in fields}


def documented(kind: type[Any]) -> dict[str, str]:
    """Return what the docstrings of a class and of its bases say of each field.

    The sections ``Attributes:`` and ``Args:`` of Google docstrings are read; of two entries for
    one field the one of the nearer class counts.

    Example:
        >>> class Settings:
        ...     '''Settings.
        ...
        ...     Attributes:
        ...         steps: Gradient steps,
        ...             in their order.
        ...     '''
        >>> documented(Settings)
        {'steps': 'Gradient steps, in their order.'}
    """
    helps: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        name, within = "", False
        for line in inspect.cleandoc(each.__dict__.get("__doc__") or "").splitlines():
            if not line.startswith("    "):
                within = line.rstrip() in ("Attributes:", "Args:") or (within and not line)
                continue
            entry = _ENTRY.match(line[4:])
            if within and entry is not None:
                name = entry[1]
                helps[name] = entry[2]
            elif within and name:
                helps[name] += " " + line.strip()
    return {name: text.replace("``", "") for name, text in helps.items()}
