"""Options given as values or as text, checked against a settings class."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import TypeAdapter, ValidationError

from advpure.base.arguments import admit
from advpure.base.errors import BadInput
from advpure.base.units import parse_number
from advpure.base.validation import check_value, shown
from advpure.purifiers import PURIFIERS

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
    check_names(kind, options, owner)
    hints = get_type_hints(kind, include_extras=True)
    values = {name: _read(name, value, hints[name], owner) for name, value in options.items()}
    for name, value in values.items():
        if isinstance(value, bool):  # which pydantic takes for 0 or 1
            check_value(value, hints[name], f"{name} of {owner}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, BadInput):
            raise cause from None
        field = str(first["loc"][0]) if first["loc"] else "options"
        if first["type"] == "missing":
            raise BadInput(f"{field} of {owner}", "is missing", "give it") from None
        given = values.get(field, first["input"])
        if field in hints:  # our words where the rule is one of ours
            _check(_as_number(given), hints[field], field, owner)
            _refuse_kind(given, hints[field], field, owner)
        raise BadInput(
            f"{field} {shown(given)} of {owner}",
            "is not usable",
            first["msg"][0].lower() + first["msg"][1:],
        ) from None


def _refuse_kind(value: Any, hint: Any, name: str, owner: str) -> None:
    """Refuse what none of the kinds of a field admits; lists written in a text are shown as lists.

    Raises:
        BadInput: unless the value is of one of them.
    """
    lists = {get_origin(kind) for kind in _kinds(hint)} & {tuple, list, Sequence}
    if lists and isinstance(value, str) and "," in value:
        fix = f"write [{', '.join(part.strip() for part in value.split(','))}]"
        raise BadInput(f"{name} {shown(value)} of {owner}", "is a text, and no list", fix)
    try:
        admit(value, hint, name)
    except BadInput as error:
        raise BadInput(f"{error.subject} of {owner}", error.rule, error.fix) from None


def _as_number(value: Any) -> Any:
    """Return the number that a text is, or what was given."""
    for kind in (int, float):
        with suppress(ValueError, TypeError):
            return kind(value) if isinstance(value, str) else value
    return value


def read_values(
    fields: Mapping[str, tuple[Any, Any]], options: Mapping[str, Any], owner: str
) -> dict[str, Any]:
    """Read options by their types and defaults alone; see `read_options`.

    Args:
        fields: Name to type and default.
        options: Names and values.
        owner: Whose options these are, for the messages.

    Raises:
        BadInput: as `read_options`.

    Example:
        >>> read_values({"width": (int, 8)}, {"width": "16"}, "classifier mine.py:make")
        {'width': 16}
    """
    given = [(name, hint, dataclasses.field(default=at)) for name, (hint, at) in fields.items()]
    kind = dataclasses.make_dataclass("Options", given, frozen=True, kw_only=True)
    return dataclasses.asdict(read_options(kind, options, owner))


def check_names(kind: type[Any], options: Mapping[str, Any], owner: str) -> None:
    """Refuse options that are no field of a settings dataclass.

    Raises:
        BadInput: for the first unknown option, with the nearest name.
    """
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            listed = ", ".join(known) or "none"
            raise BadInput(
                f"option {option!r} of {owner}", "is not known", f"{hint}known: {listed}"
            )


def purifier_options(
    name: Any, options: Mapping[str, Any], **strengths: float | None
) -> dict[str, Any]:
    """Join a purifier's options with its strength, so that no other keyword slips in.

    Args:
        name: The purifier's name.
        options: Its own options.
        strengths: t and sigma, None where not given.

    Returns:
        Keyword arguments for `advpure.loading.load_purifier` and `load_defense`.

    Raises:
        BadInput: for an unknown name or option, or a strength that is given twice.

    Example:
        >>> purifier_options("ddpm", {"clip_x0": "true"}, t=50, sigma=None)
        {'clip_x0': 'true', 't': 50}
    """
    check_names(PURIFIERS.get(name), options, name if isinstance(name, str) else "the defense")
    given = {key: value for key, value in strengths.items() if value is not None}
    for key in given.keys() & options.keys():
        raise BadInput(
            f"{key} {given[key]} beside option {key}={options[key]}",
            "sets one strength twice",
            "leave one of them out",
        )
    return {**options, **given}


def _check(value: Any, hint: Any, name: str, owner: str) -> Any:
    """Return what a field takes of a value, refused in the name of its owner."""
    try:
        return check_value(value, hint, name)
    except BadInput as error:
        raise BadInput(f"{error.subject} of {owner}", error.rule, error.fix) from None


def _read(name: str, value: Any, hint: Any, owner: str) -> Any:
    """Return what a field takes: text read as what it is, other values checked as they are.

    The parser below would take True for a number and 1 for a truth.
    """
    if isinstance(value, str):
        return _read_text(name, value, hint)
    return _check(value, hint, name, owner)


def _read_text(name: str, value: str, hint: Any) -> Any:
    """Turn "8/255" into a number, and "none" into None where the option may be absent.

    Where a text is wanted and no number, as for the path of a file, "/" is no fraction. Numbers and
    truths are those that the command line reads: no ``1_0``, no ``yes``.
    """
    kinds = list(_kinds(hint))
    if value.lower() == "none" and NoneType in kinds:
        return None
    for one in kinds:
        if not isinstance(one, type) and str(one) == value:  # a choice, be it a number
            return one.value
    if str in kinds:
        return value if "/" not in value or float not in kinds else parse_number(value, name)
    if bool in kinds and len(kinds) <= 2:
        if value.lower() not in ("true", "false"):
            check_value(value, bool, name)
        return value.lower() == "true"
    if "/" in value:
        return parse_number(value, name)
    if "_" in value and {int, float} & set(kinds):
        fix = f"write {value.replace('_', '')}"
        raise BadInput(f"{name} {shown(value)}", "is not written in digits", fix)
    return value


class _Choice(NamedTuple):
    """One of the values of a Literal."""

    value: Any

    def __str__(self) -> str:
        return str(self.value)


def _kinds(hint: Any) -> Iterator[Any]:
    """Yield the types that a field may have, choices one by one, without their ranges."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _kinds(get_args(hint)[0])
    elif origin in (Union, UnionType):
        for one in get_args(hint):
            yield from _kinds(one)
    elif origin is Literal:
        yield from map(_Choice, get_args(hint))
    else:
        yield hint
