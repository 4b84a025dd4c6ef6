"""YAML that says what it looks like: the scalars of YAML 1.2's core schema, no key twice.

YAML 1.1, which PyYAML reads by default, takes `10:50` for 650 (base 60), `010` for 8, `no` for
false and `1e-3` for a text, and keeps the last of two equal keys. Here `10:50` is a text, `010` is
ten, only `true` and `false` are truth values, `1e-3` is a number; a repeated key, an alias or a tag
is an error. A file is small and flat, or it is none of ours: `MOST_BYTES`, `MOST_LEVELS`.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from advpure.base.errors import BadInput
from advpure.base.validation import LARGEST, shown

MOST_BYTES = 2**18
MOST_LEVELS = 20

_SCALARS = (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", "~n"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars above, which builds plain data only."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to begin with none

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("an alias; write its value", event)
        if event.tag is not None:
            raise _refusal(f"the tag {shown(event.tag)}; write a plain value", event)
        if self._level > MOST_LEVELS:
            raise _refusal(f"nested more than {MOST_LEVELS} levels deep", event)
        self._level += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(f"key {shown(key)} is no text", node)
            if key in seen:
                raise _refusal(f"key {shown(key)} stands twice", key_node)
            if not key.strip():
                raise _refusal(f"key {shown(key)} is empty", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _refusal(problem: str, at: Any) -> yaml.MarkedYAMLError:
    """Return the error for an event or node that is refused."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


def _integer(loader: yaml.SafeLoader, node: Any) -> int:
    text = str(loader.construct_scalar(node))
    # Python refuses to read thousands of digits.
    if len(text) > 100 or abs(int(text)) > LARGEST:
        raise _refusal(f"{shown(text)} is too large for 64 bits", node)
    return int(text)


def _float(loader: yaml.SafeLoader, node: Any) -> float:
    text = str(loader.construct_scalar(node))
    if not math.isfinite(float(text)):
        raise _refusal(f"{shown(text)} is not finite", node)
    return float(text)


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_first, ""]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


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
    try:
        found = yaml.load(text, Loader=_Loader)  # plain data only, see _Loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}, line {mark.line + 1}, column {mark.column + 1}" if mark else name
        raise BadInput(where, f"is no usable YAML ({error.problem})", "mend that line") from None
    except yaml.YAMLError as error:
        raise BadInput(
            name, f"is no usable YAML ({str(error).splitlines()[0]})", "mend it"
        ) from None
    if not isinstance(found, dict):
        raise BadInput(name, "holds no settings", "write KEY: VALUE lines, such as verb: cr")
    return found


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
