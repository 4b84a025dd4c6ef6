"""YAML that says what it looks like: the scalars of YAML 1.2's core schema, no key twice.

ruamel.yaml parses; the plain data are built here from its events, since its own loaders read
`0x10`, `1_000` and `2001-01-01` as numbers and a date, follow aliases and tags, and nest without a
limit. Here `10:50` is a text, `010` is ten, only `true` and `false` are truth values, `1e-3` is a
number; a repeated key, an alias or a tag is an error. A file is small and flat, or it is none of
ours: `MOST_BYTES`, `MOST_LEVELS`.
"""

import math
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    DocumentStartEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from advpure.base.errors import BadInput
from advpure.base.validation import LARGEST, shown

MOST_BYTES = 2**18
MOST_LEVELS = 20

_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_BREAKS = re.compile("[\x85\u2028\u2029]")
# What ruamel.yaml raises for escapes beyond Unicode and for versions other than 1.1 and 1.2.
_OUT_OF_RANGE = (ValueError, OverflowError, AssertionError)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def read_yaml(text: str, name: str) -> dict[str, Any]:
    r"""Read a mapping.

    Args:
        text: The text of a file.
        name: What to call it in messages.

    Raises:
        BadInput: for a text that is no YAML (naming line and column), or no mapping.

    Example:
        >>> read_yaml("subset: 10:50\neps: 1e-3\ndefense: none", "a text")
        {'subset': '10:50', 'eps': 0.001, 'defense': 'none'}
    """
    if len(text) > MOST_BYTES:
        raise BadInput(name, f"is longer than {MOST_BYTES:,} characters", "write less")
    if _BREAKS.search(text):
        rule = "holds U+0085, U+2028 or U+2029, line breaks to some readers only"
        raise BadInput(name, rule, "write ordinary line breaks")
    try:
        settings = _document(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        problem = error.problem or error.context
        raise BadInput(where, f"is no usable YAML ({problem})", "mend that line") from None
    except (YAMLError, *_OUT_OF_RANGE) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadInput(name, f"is no usable YAML ({reason})", "mend it") from None
    if not isinstance(settings, dict):
        raise BadInput(name, "holds no settings", "write KEY: VALUE lines, such as verb: cr")
    return settings


def read_yaml_file(path: Path) -> dict[str, Any]:
    """Read a mapping from a file.

    Raises:
        BadInput: as `read_yaml`, and for a file that cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadInput(str(path), "is no file", "name a YAML file")
        with path.open("rb") as handle:
            data = handle.read(4 * MOST_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", "name a file") from None
    except UnicodeDecodeError:
        raise BadInput(str(path), "is no text", "name a YAML file") from None
    return read_yaml(text, path.name)


def _document(text: str) -> Any:
    """Return the value of the only document of a text, None for none."""
    events = YAML(typ="safe", pure=True).parse(text)
    values: list[Any] = []
    for event in events:
        if isinstance(event, DocumentStartEvent):
            if values:
                raise _refusal("a second document", event)
            values.append(_value(events, next(events), 0))
    return values[0] if values else None


def _value(events: Iterator[Any], event: Any, level: int) -> Any:
    """Return the value that starts with an event, and take its other events."""
    if event.anchor is not None:  # an alias has one too
        raise _refusal("an anchor or alias; write its value", event)
    if event.tag is not None:
        raise _refusal(f"the tag {shown(event.tag)}; write a plain value", event)
    if level > MOST_LEVELS:
        raise _refusal(f"nested more than {MOST_LEVELS} levels deep", event)
    if isinstance(event, ScalarEvent):
        return _scalar(event) if event.implicit[0] else event.value
    if isinstance(event, SequenceStartEvent):
        items = takewhile(lambda each: not isinstance(each, SequenceEndEvent), events)
        return [_value(events, item, level + 1) for item in items]
    mapping: dict[str, Any] = {}
    for event in takewhile(lambda each: not isinstance(each, MappingEndEvent), events):
        key = _value(events, event, level + 1)
        if not isinstance(key, str):
            raise _refusal(f"key {shown(key)} is no text", event)
        if key in mapping:
            raise _refusal(f"key {shown(key)} stands twice", event)
        if not key.strip():
            raise _refusal(f"key {shown(key)} is empty", event)
        mapping[key] = _value(events, next(events), level + 1)
    return mapping


def _scalar(event: Any) -> Any:
    """Return the value of a scalar without quotes."""
    text = event.value
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        # Python refuses to read thousands of digits.
        if len(text) > 100 or abs(int(text)) > LARGEST:
            raise _refusal(f"{shown(text)} is too large for 64 bits", event)
        return int(text)
    if _FLOAT.fullmatch(text):
        if not math.isfinite(float(text)):
            raise _refusal(f"{shown(text)} is not finite", event)
        return float(text)
    return text


def _refusal(problem: str, at: Any) -> MarkedYAMLError:
    """Return the error for an event that is refused."""
    return MarkedYAMLError(problem=problem, problem_mark=at.start_mark)
