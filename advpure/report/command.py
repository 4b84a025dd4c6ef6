"""The line that makes a study again, from its fields: the opposite of `advpure.cli.studies`."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from advpure.analysis.perturbed import write_eps
from advpure.base.flags import Flag, Positional, Repeats

_SHORT = 6  # characters of a number that reads better than a fraction
_ALWAYS = ("dataset", "defense")
"""Written even where they are the defaults, which the environment can change."""


def command_line(study: Any) -> str:
    """Return a line of the shell that runs a study, what is as by default left out.

    Args:
        study: A study, which is a dataclass.

    Example:
        >>> from advpure.analysis.compression.study import Compression
        >>> command_line(Compression(dataset="digits", defense="none", n=4, eps="4/255"))
        'advpure cr --defense none --dataset digits --n 4 --eps 4/255'
    """
    hints = get_type_hints(type(study), include_extras=True)
    usual = _defaults(type(study))
    options: list[str] = []
    positional: list[str] = []
    for each in fields(study):
        value = getattr(study, each.name)
        if value is None or (value == usual.get(each.name, MISSING) and each.name not in _ALWAYS):
            continue
        marks = getattr(hints[each.name], "__metadata__", ())
        if any(isinstance(mark, Positional) for mark in marks):
            positional += [str(one) for one in value] if _is_list(value) else [str(value)]
        else:
            options += _words(each.name, value, hints[each.name], marks)
    return shlex.join(["advpure", study.verb, *positional, *options])


def _defaults(kind: type[Any]) -> dict[str, Any]:
    """Return the defaults of a class as its instances hold them, which read texts as numbers."""
    needed = [each for each in fields(kind) if each.default is each.default_factory is MISSING]
    if needed:
        return {each.name: each.default for each in fields(kind)}
    study = kind()
    return {each.name: getattr(study, each.name) for each in fields(kind)}


def _text(value: Any) -> str:
    """Write a value; a size that is a whole number of 255ths as such."""
    return size_words(value) if isinstance(value, float) else str(value)


def _words(name: str, value: Any, hint: Any, marks: tuple[Any, ...]) -> Iterator[str]:
    """Yield the words of one option."""
    names = next((mark.names for mark in marks if isinstance(mark, Flag)), ())
    flag = names[0] if names else "--" + name.replace("_", "-")
    either = next((each for each in names if "/" in each), None)
    if either is not None:
        plain = get_args(hint)[0] if marks else hint
        first = get_args(plain)[0] if get_origin(plain) is Literal else True
        yield either.split("/")[value != first]
    elif isinstance(value, bool):
        yield flag
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (flag, f"{key}={each}")
    elif _is_list(value) and any(isinstance(mark, Repeats) for mark in marks):
        for each in value:
            yield from (flag, str(each))
    else:
        yield from (flag, ",".join(map(_text, value)) if _is_list(value) else _text(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def size_words(size: float) -> str:
    """Write a size in [0, 1] units: short numbers as they are, others as parts of 255 if they are.

    Example:
        >>> size_words(0.2), size_words(8 / 255), size_words(1 / 7)
        ('0.2', '8/255', '0.14285714285714285')
    """
    plain = repr(size)
    return plain if len(plain) <= _SHORT or not 0 < size <= 1 else write_eps(size)
