"""The line that makes a study again, from its fields: the opposite of `advpure.cli.studies`."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from advpure.base.flags import Flag, Positional, Repeats

_ALWAYS = ("dataset", "defense")
"""Written even where they are the defaults, which the environment can change."""


def command_line(study: Any) -> str:
    """Return a line of the shell that runs a study, what is as by default left out.

    Args:
        study: A study, which is a dataclass.

    Example:
        >>> from advpure.analysis.compression.study import Compression
        >>> command_line(Compression(dataset="digits", defense="none", n=4, eps="8/255"))
        'advpure cr --defense none --dataset digits --n 4 --eps 8/255'
    """
    hints = get_type_hints(type(study), include_extras=True)
    options: list[str] = []
    positional: list[str] = []
    for each in fields(study):
        value = getattr(study, each.name)
        usual = each.default
        if usual is MISSING and each.default_factory is not MISSING:
            usual = each.default_factory()
        if value is None or (value == usual and each.name not in _ALWAYS):
            continue
        marks = getattr(hints[each.name], "__metadata__", ())
        if any(isinstance(mark, Positional) for mark in marks):
            positional += [str(one) for one in value] if _is_list(value) else [str(value)]
        else:
            options += _words(each.name, value, hints[each.name], marks)
    return shlex.join(["advpure", study.verb, *positional, *options])


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
        yield from (flag, ",".join(map(str, value)) if _is_list(value) else str(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)
