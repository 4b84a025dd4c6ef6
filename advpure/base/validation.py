"""The rules that settings obey, declared once beside the field and checked where a value enters.

A settings class writes the range of a field into its annotation, ``Annotated[int, Ge(1)]``, and
calls `validate` in ``__post_init__``: every field is then checked by its annotation and stored as
the plain Python value (NumPy numbers become ``int`` and ``float``; ``True`` is no number). The
functions below are the same rules for single values. Every refusal is a `BadInput`: the value, the
rule, the fix.
"""

import dataclasses
import difflib
import functools
import math
import operator
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Le, Lt

from advpure.base.errors import BadInput

LARGEST = 2**63 - 1
"""The largest whole number that int64 tensors and SQLite hold."""

_SHOWN = 60

S = TypeVar("S")


class Range(NamedTuple):
    """The values that a number may have; None leaves an end open.

    Attributes:
        least: Smallest allowed value.
        most: Largest allowed value; where it is infinity itself, that is one of the values.
        above: Every value is larger.
        below: Every value is smaller.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Return whether a value is in the range."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Return the range in words.

        Example:
            >>> str(Range(least=2)), str(Range(above=0, below=1))
            ('2 or more', 'above 0 and below 1')
        """
        ends = [
            "" if self.least is None else f"{self.least:g} or more",
            "" if self.above is None else f"above {self.above:g}",
            "" if self.most is None else f"{self.most:g} or less",
            "" if self.below is None else f"below {self.below:g}",
        ]
        return " and ".join(end for end in ends if end) or "finite"


ANY = Range()
"""Every finite number."""


def shown(value: object) -> str:
    """Return the text of a value for a message, on one line and cut where it is long.

    Example:
        >>> shown("a" * 100)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
            text = f"a whole number of {value.bit_length()} bits"
        else:
            text = repr(value)
    except Exception:  # repr of a foreign object may do anything
        text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def check_choice(value: object, allowed: Sequence[object], what: str) -> None:
    """Refuse a value that is not among the allowed ones, naming the nearest.

    Raises:
        BadInput: with the allowed values.

    Example:
        >>> check_choice("l1", ("linf", "l2"), "norm")
        Traceback (most recent call last):
        ...
        advpure.BadInput: norm 'l1' is not known; did you mean l2? known: linf, l2
    """
    if any(type(value) is type(one) and value == one for one in allowed):
        return
    words = [str(one) for one in allowed]
    near = difflib.get_close_matches(str(shown(value)).strip("'\"").lower(), words, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise BadInput(f"{what} {shown(value)}", "is not known", f"{hint}known: {', '.join(words)}")


def whole(value: object, what: str, least: int = 0, most: int = LARGEST) -> int:
    """Return a whole number of Python, NumPy or torch as an int.

    Raises:
        BadInput: for anything else, for truth values, and outside [least, most].

    Example:
        >>> whole(np.int32(3), "steps", 1)
        3
        >>> whole(True, "steps", 1)
        Traceback (most recent call last):
        ...
        advpure.BadInput: steps True is not a whole number of 1 or more; use 1
    """
    number = as_integer(value)
    if number is None or not least <= number <= most:
        rule = f"is not a whole number of {least} or more"
        if number is None and least == -LARGEST:
            raise BadInput(f"{what} {shown(value)}", "is not a whole number", "use 1")
        if most != LARGEST:
            rule = f"is not a whole number from {least} to {_written(most)}"
        elif number is not None and number > most:
            rule = "is too large for 64 bits"
        raise BadInput(f"{what} {shown(value)}", rule, f"use {least}")
    return number


def _written(most: int) -> str:
    """Return a largest number, 2**64 - 1 as a power."""
    bits = most.bit_length()
    return f"2**{bits} - 1" if bits > 31 and most == 2**bits - 1 else str(most)


def number(value: object, what: str, within: Range = ANY, fix: str = "") -> float:
    """Return a finite number of Python, NumPy or torch, or a text such as 8/255, as a float.

    Raises:
        BadInput: for anything else, for truth values, and outside the range.

    Example:
        >>> number("1/4", "alpha", Range(above=0, below=1))
        0.25
        >>> number(float("nan"), "alpha")
        Traceback (most recent call last):
        ...
        advpure.BadInput: alpha nan is not finite; write 0.03 or 8/255
    """
    example = fix or "write 0.03 or 8/255"
    result = _read_number(value)
    if result is None:
        raise BadInput(f"{what} {shown(value)}", "is not a number", example)
    said = value if isinstance(value, str) else f"{result:g}"
    if math.isnan(result) or (math.isinf(result) and result != within.most):
        raise BadInput(f"{what} {said}", "is not finite", example)
    if not within.holds(result):
        raise BadInput(f"{what} {said}", f"is not {within}", fix or "choose one in that range")
    return result


def truth(value: object, what: str) -> bool:
    """Return a truth value of Python or NumPy as a bool.

    Raises:
        BadInput: for anything else; 0 and 1 are numbers.
    """
    if not _is_truth(value):
        raise BadInput(f"{what} {shown(value)}", "is neither true nor false", "use true or false")
    return bool(value)


def words(value: object, what: str) -> str:
    """Return a text that is not blank and has no control characters.

    Raises:
        BadInput: for anything else.
    """
    if not isinstance(value, str):
        raise BadInput(f"{what} {shown(value)}", "is not a text", "write it in quotes")
    if not value.strip():
        raise BadInput(f"{what} {value!r}", "is empty", "name one")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise BadInput(f"{what} {shown(value)}", "has control characters", "remove them")
    return value


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def name(value: object, what: str) -> str:
    """Return a text that can name a file in a folder, and nothing outside it.

    Raises:
        BadInput: for anything but up to 100 letters, digits, and ``_ . + -`` (not first).

    Example:
        >>> name("../../escaped", "name")
        Traceback (most recent call last):
        ...
        advpure.BadInput: name '../../escaped' is not a name; use letters, digits, _ . + -
    """
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadInput(f"{what} {shown(value)}", "is not a name", "use letters, digits, _ . + -")
    return value


def instance(value: object, kinds: type | tuple[type, ...], what: str, fix: str) -> None:
    """Refuse a value that is of none of some classes.

    Raises:
        BadInput: naming the class that it has.

    Example:
        >>> instance(3, str, "settings", "pass a text")
        Traceback (most recent call last):
        ...
        advpure.BadInput: settings 3 of type int cannot be used; pass a text
    """
    if not isinstance(value, kinds):
        subject = f"{what} {shown(value)} of type {type(value).__name__}"
        raise BadInput(subject, "cannot be used", fix)


def floats(value: Any, what: str) -> npt.NDArray[np.float64]:
    """Return real numbers in any nesting as a float64 array.

    Raises:
        BadInput: for anything else; lists of unlike lengths included.

    Example:
        >>> floats([[1, 2], [3, 4]], "features").shape
        (2, 2)
    """
    try:
        if isinstance(value, str | bytes | bool) or np.iscomplexobj(value):
            raise TypeError
        return np.asarray(value, dtype=np.float64)
    except Exception:  # foreign objects fail in many ways
        raise BadInput(f"{what} {shown(value)}", "are no array of numbers", "give one") from None


def listed(value: Any) -> list[Any]:
    """Return one value, or several of a sequence or an array, as a list.

    Example:
        >>> listed("8/255"), listed((1, 2)), len(listed(np.arange(2))), listed(0.5)
        (['8/255'], [1, 2], 2, [0.5])
    """
    if isinstance(value, str | bytes | Mapping):
        return [value]
    try:
        return list(value)
    except TypeError:  # a number, also one of NumPy without axes
        return [value]


def validate(settings: Any) -> None:
    """Check every field of a frozen settings dataclass by its annotation, and store plain values.

    Understood are ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``X | None`` and unions of
    these, with ``annotated_types`` bounds inside ``Annotated``, and ``tuple[X, ...]`` of any of
    them, which takes lists. Fields of other types are left to their class. A number stays the kind
    that its annotation names: ``float`` takes whole numbers and texts such as ``8/255``, unless the
    annotation admits texts, which then stay texts.

    Args:
        settings: An instance; called from its ``__post_init__``.

    Raises:
        BadInput: for the first field that breaks its rule.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Settings:
        ...     probes: Annotated[int, Ge(1)] = 8
        ...     def __post_init__(self): validate(self)
        >>> Settings(probes=0)
        Traceback (most recent call last):
        ...
        advpure.BadInput: probes 0 is not a whole number of 1 or more; use 1
    """
    kind: Any = type(settings)
    hints = _hints(kind)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        plain = check_value(value, hints[field.name], field.name.replace("_", " "))
        if plain is not value:
            object.__setattr__(settings, field.name, plain)


def fields_of(kind: type[Any], settings: Any) -> dict[str, Any]:
    """Return the fields that a settings class has, of an instance of it or of a class below it."""
    return {field.name: getattr(settings, field.name) for field in dataclasses.fields(kind)}


def resolved(kind: type[S], settings: S | None, changes: Mapping[str, Any], **defaults: Any) -> S:
    """Return settings with some fields replaced.

    Args:
        kind: The settings class.
        settings: An instance; None for the defaults of the class.
        changes: Fields to replace.
        defaults: Other defaults than those of the class.

    Raises:
        BadInput: for a name that is no field, settings of another class, and as the class does.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Settings:
        ...     probes: int = 8
        >>> resolved(Settings, None, {"probes": 2})
        Settings(probes=2)
        >>> resolved(Settings, Settings(), {"probe": 2})
        Traceback (most recent call last):
        ...
        advpure.BadInput: setting 'probe' is not known; did you mean probes? known: probes
    """
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in changes:
        check_choice(name, names, "setting")
    if settings is None:
        return kind(**{**defaults, **changes})
    instance(settings, kind, "settings", f"pass {kind.__name__}(...)")
    return dataclasses.replace(settings, **changes)  # type: ignore[type-var]


@functools.lru_cache(maxsize=256)
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def check_value(value: Any, hint: Any, what: str) -> Any:
    """Return the plain value of a field, checked by its annotation; see `validate`.

    Raises:
        BadInput: when it breaks the rule.
    """
    within = Range()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        within = range_of(extras)
    if get_origin(hint) in (Union, types.UnionType):
        return _check_union(value, get_args(hint), within, what)
    if get_origin(hint) is Literal:
        check_choice(value, get_args(hint), what)
        return value
    if get_origin(hint) is tuple and len(get_args(hint)) == 2 and get_args(hint)[1] is Ellipsis:
        return tuple(
            check_value(one, get_args(hint)[0], f"{what}[{index}]")
            for index, one in enumerate(_listed(value, what))
        )
    if hint is bool:
        return truth(value, what)
    if hint is int:
        return whole(value, what, *_whole_ends(within))
    if hint is float:
        return number(value, what, within)
    if hint is str:
        return words(value, what)
    return value


def _listed(value: object, what: str) -> Sequence[object]:
    """Return the elements of a list, a tuple or an array of one dimension."""
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = list(value)
    if not isinstance(value, list | tuple):
        raise BadInput(f"{what} {shown(value)}", "is no list", "write [ ] around its values")
    return value


def _check_union(value: Any, kinds: Sequence[Any], within: Range, what: str) -> Any:
    """Check a field that may be of several kinds by the one that its value is of."""
    if value is None and type(None) in kinds:
        return None
    by_kind = {_kind(hint): hint for hint in kinds if hint is not type(None)}
    literal = by_kind.get(Literal)
    if len(by_kind) == 1:
        wanted = next(iter(by_kind.values()))
    elif not by_kind.keys() <= {bool, int, float, str, Literal}:
        return value
    elif isinstance(value, str) and (str in by_kind or literal is not None):
        wanted = by_kind.get(str, literal)
    elif _is_truth(value) and bool in by_kind:
        wanted = bool
    elif int in by_kind and (float not in by_kind or as_integer(value) is not None):
        wanted = by_kind[int]
    else:
        wanted = by_kind.get(float) or by_kind.get(str) or literal
    return check_value(
        value, wanted if within == ANY else Annotated[wanted, *bounds_of(within)], what
    )


def _kind(hint: Any) -> Any:
    """Return int of ``Annotated[int, ...]``, Literal of ``Literal[...]``, else the hint itself."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return Literal if get_origin(hint) is Literal else hint


def range_of(extras: Sequence[object]) -> Range:
    """Return the range that the bounds of an annotation span."""
    ends: dict[str, Any] = {}
    for one in extras:
        match one:
            case Ge():
                ends["least"] = one.ge
            case Gt():
                ends["above"] = one.gt
            case Le():
                ends["most"] = one.le
            case Lt():
                ends["below"] = one.lt
    return Range(**ends)


def bounds_of(within: Range) -> tuple[object, ...]:
    """Return the bounds that stand in an annotation for a range; the opposite of `range_of`."""
    pairs = ((Ge, within.least), (Gt, within.above), (Le, within.most), (Lt, within.below))
    return tuple(bound(end) for bound, end in pairs if end is not None)


def _whole_ends(within: Range) -> tuple[int, int]:
    """Return the smallest and largest whole number of a range."""
    least = -LARGEST if within.least is None else math.ceil(within.least)
    if within.above is not None:
        least = max(least, math.floor(within.above) + 1)
    ends = [] if within.most is None else [math.floor(within.most)]
    if within.below is not None:
        ends.append(math.ceil(within.below) - 1)
    return least, min(ends, default=LARGEST)


def _is_truth(value: object) -> bool:
    dtype = getattr(value, "dtype", None)
    return isinstance(value, bool | np.bool_) or str(dtype) in ("bool", "torch.bool")


def as_integer(value: object) -> int | None:
    """Return a whole number of Python, NumPy or torch as an int; None for anything else.

    Example:
        >>> as_integer(np.uint8(3)), as_integer(True), as_integer(3.0)
        (3, None, None)
    """
    try:
        return None if _is_truth(value) else operator.index(value)  # type: ignore[arg-type]
    except Exception:  # tensors of several values and foreign objects fail in many ways
        return None


def _is_plain(text: str) -> bool:
    """Return True if a text can be a number: Python alone reads other digits, and 1_0 as 10."""
    return text.isascii() and "_" not in text


def _read_number(value: object) -> float | None:
    """Return a real number, or what a text such as 8/255 says; None for anything else."""
    if _is_truth(value) or isinstance(value, complex | np.complexfloating):
        return None
    try:
        if not isinstance(value, str):
            plain: Any = value.detach() if hasattr(value, "detach") else value
            return float(plain)
        parts = [float(part) for part in value.split("/")] if _is_plain(value) else []
        if not 1 <= len(parts) <= 2:
            return None
        return parts[0] / parts[1] if len(parts) == 2 else parts[0]
    except Exception:  # overflow, no number, division by zero, foreign objects
        return None
