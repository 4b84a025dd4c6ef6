"""What users write as text: whole numbers in ASCII digits, and lists joined by commas.

Python's own tests know more digits than a file or a command line means: ``"²".isdigit()`` holds
and ``int`` fails there, ``int("١٢")`` is 12, and ``int`` of 5,000 digits is an error of its own.
"""

import math
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from advpure.base.errors import BadInput
from advpure.base.validation import LARGEST, shown, whole

V = TypeVar("V")
_DIGITS = re.compile(r"[0-9]+")
_LONGEST = 20  # digits of 2**64


def digits(text: str) -> int | None:
    """Return the whole number that a text of ASCII digits is; None for any other text.

    Numbers of more than 20 digits, which no 64 bits hold, come back as 10**20.

    Example:
        >>> digits("042"), digits("²"), digits("-1"), digits("")
        (42, None, None, None)
    """
    if not _DIGITS.fullmatch(text):
        return None
    short = text.lstrip("0") or "0"
    return int(short) if len(short) <= _LONGEST else 10**_LONGEST


def read_whole(text: str, what: str, least: int = 0, most: int = LARGEST, fix: str = "") -> int:
    """Read a whole number from text, blanks around it allowed.

    Args:
        text: ASCII digits.
        what: The name used in the error.
        least: The smallest allowed.
        most: The largest allowed.
        fix: What to write instead.

    Raises:
        BadInput: for anything else, and outside [least, most].

    Example:
        >>> read_whole(" 7 ", "seed")
        7
        >>> read_whole("²", "seed")
        Traceback (most recent call last):
        ...
        advpure.BadInput: seed '²' is not a whole number; write 0
    """
    number = digits(text.strip())
    if number is None and digits(text.strip().removeprefix("-")) is not None:
        rule = f"is not a whole number of {least} or more"
        raise BadInput(f"{what} {shown(text)}", rule, fix or f"write {least}")
    if number is None:
        raise BadInput(f"{what} {shown(text)}", "is not a whole number", fix or f"write {least}")
    if number > most and most >= LARGEST:
        raise BadInput(f"{what} {shown(text)}", "is too large for 64 bits", fix or f"use {least}")
    return whole(number, what, least, most)


def read_shard(text: str) -> tuple[int, int]:
    """Read ``i/k``, the i-th of k parts; i counts from 1.

    Raises:
        BadInput: for anything but i/k with 1 <= i <= k.

    Example:
        >>> read_shard("2/4")
        (2, 4)
    """
    index, _, count = text.partition("/")
    i, k = digits(index.strip()), digits(count.strip())
    if i is None or k is None:
        raise BadInput(f"shard {shown(text)}", "is not i/k", "write 1/4 for the first of four")
    if not 1 <= i <= k <= LARGEST:
        raise BadInput(f"shard {text}", "counts from 1 to k", "write 1/4 for the first of four")
    return i, k


def read_natural(given: Any, what: str) -> int:
    """Read a whole number of 1 or more, a number or its text.

    Raises:
        BadInput: for anything else.
    """
    return read_whole(given, what, 1) if isinstance(given, str) else whole(given, what, 1)


def read_seed(given: Any) -> int:
    """Read a base seed of 64 bits, a number or its text.

    Raises:
        BadInput: for anything else.
    """
    if isinstance(given, str):
        return read_whole(given, "seed", 0, 2**64 - 1, "write 0,1,2")
    return whole(given, "seed", 0, 2**64 - 1)


def several(given: Any, read: Callable[[Any], V], what: str, fix: str) -> tuple[V, ...]:
    """Read one value, several, or text that joins them by commas; in the order given.

    Args:
        given: A value, an iterable of values, or text.
        read: Reads one of them; raises `BadInput` for one that cannot be used.
        what: Their name in the plural, used in the error.
        fix: An example.

    Raises:
        BadInput: for none, an empty entry, and one that is given twice, of sizes one like another.

    Example:
        >>> several("0, 5", lambda one: read_whole(one, "seed"), "seeds", "write 0,1,2")
        (0, 5)
        >>> several([1, 1], lambda one: whole(one, "seed"), "seeds", "write 0,1,2")
        Traceback (most recent call last):
        ...
        advpure.BadInput: seeds 1,1 repeat a value; give each value once
    """
    entries = _entries(given)
    written = ",".join(str(each).strip() for each in entries)
    if not entries:
        raise BadInput(f"the list of {what}", "is empty", fix)
    if any(isinstance(each, str) and not each.strip() for each in entries):
        raise BadInput(f"{what} {shown(written)}", "have an empty entry", fix)
    values = tuple(read(each) for each in entries)
    equal = len(set(values)) != len(values)
    sizes = sorted(each for each in values if isinstance(each, float))
    if equal or any(map(alike, sizes, sizes[1:])):
        short = written if len(written) <= 60 else f"{written[:57]}..."
        rule = "repeat a value" if equal else "repeat a value, as float32 images tell none apart"
        raise BadInput(f"{what} {short}", rule, "give each value once")
    return values


def alike(one: float, other: float) -> bool:
    """Return True for sizes nearer to each other than two neighbours in float32, relatively 2^-23.

    Images are float32, so that results at both are the same but for what rounding leaves to chance.

    Example:
        >>> alike(0.1, 0.10000000001), alike(0.1, 0.1001), alike(1, 1)
        (True, False, True)
    """
    return math.isclose(one, other, rel_tol=2.0**-23)


def _entries(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [part.strip() for part in given.split(",")]
    if isinstance(given, Iterable):
        try:
            return list(given)
        except TypeError:  # arrays and tensors of no dimension are one value
            return [given]
    return [given]
