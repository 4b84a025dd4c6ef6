"""Parse small foreign texts, JSON and TOML, within limits: one line for everything wrong.

Nesting is bounded before the recursive parsers start, numbers are those that 64 bits hold.
"""

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

from advpure.base.budget import MAX_NESTING, MAX_TEXT
from advpure.base.errors import BadInput
from advpure.base.validation import LARGEST, shown

_QUOTED = re.compile(r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")


def kind_of(path: str | Path) -> Literal["file", "folder"] | None:
    """Return what a path names; None for nothing, and for what can be no path."""
    try:
        return "file" if Path(path).is_file() else "folder" if Path(path).is_dir() else None
    except (OSError, ValueError):  # too long, or with a zero byte
        return None


def read_text(path: str | Path, what: str) -> str:
    """Read a small file of UTF-8 text.

    Args:
        path: The file.
        what: What it is, with its path, for messages.

    Raises:
        BadInput: when it is missing, a folder, too large, unreadable or no UTF-8.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind != "file":
        rule = "is a folder" if kind == "folder" else "is missing"
        raise BadInput(what, rule, "name the file" if kind == "folder" else "check the path")
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TEXT + 1)
        if len(content) > MAX_TEXT:
            raise BadInput(what, f"has more than {MAX_TEXT:,} bytes", "name a smaller file")
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput(what, "is no UTF-8 text", "mend the file") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInput(what, f"cannot be read ({reason})", "check the file") from None


def parse_json(text: str | bytes, what: str) -> Any:
    """Parse JSON.

    Args:
        text: The text.
        what: Where it comes from, for messages.

    Raises:
        BadInput: when it is no JSON, too deep, or holds a number beyond 64 bits or none at all.

    Example:
        >>> parse_json('{"a": [1]}', "header")
        {'a': [1]}
        >>> parse_json("[" * 2000 + "]" * 2000, "header")
        Traceback (most recent call last):
        ...
        advpure.BadInput: header is nested deeper than 64; flatten it
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        _check_depth(text, what)
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(what, f"is not JSON ({_first_line(error)})", "mend it") from None
    check_plain(value, what)
    return value


def parse_toml(text: str, what: str) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: The text.
        what: Where it comes from, for messages.

    Raises:
        BadInput: when it is no TOML, too deep, or holds a number beyond 64 bits or none at all.
    """
    try:
        _check_depth(text, what)
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(what, f"is not TOML ({_first_line(error)})", "mend the file") from None
    check_plain(value, what)
    return value


def check_plain(value: Any, what: str, depth: int = 0) -> None:
    """Refuse whole numbers beyond 64 bits, numbers that are not finite, and deep nesting.

    Raises:
        BadInput: for the first of them.
    """
    if depth > MAX_NESTING:
        raise _too_deep(what)
    if isinstance(value, dict):
        for name, inner in value.items():
            check_plain(inner, f"{what}: {shown(name)}" if depth == 0 else what, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_plain(inner, what, depth + 1)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise BadInput(f"{what}, {shown(value)},", "is too large for 64 bits", "lower it")
    elif isinstance(value, float) and value - value != 0.0:
        raise BadInput(f"{what}, {value},", "is not finite", "write a number such as 0.1")


def _check_depth(text: str, what: str) -> None:
    """Count open brackets, and the parts of dotted names, outside quotes."""
    bare = _QUOTED.sub("", text)
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_NESTING:
            raise _too_deep(what)
    # A dotted name nests too, and costs its parser the square of its parts.
    if any(name.count(".") >= MAX_NESTING for name in re.findall(r"[\w.\- \t]+", bare)):
        raise _too_deep(what)


def _too_deep(what: str) -> BadInput:
    return BadInput(what, f"is nested deeper than {MAX_NESTING}", "flatten it")


def _first_line(error: Exception) -> str:
    """Return the first line of a parser's message, cut where it is long."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."
