"""YAML that says what it looks like: the scalars of YAML 1.2's core schema, no key twice.

YAML 1.1, which PyYAML reads by default, takes `10:50` for 650 (base 60), `010` for 8, `no` for
false and `1e-3` for a text, and keeps the last of two equal keys. Here `10:50` is a text, `010` is
ten, only `true` and `false` are truth values, `1e-3` is a number; a repeated key or an alias is an
error.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from advpure.errors import BadInput

_SCALARS = (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", "~n"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars above, which builds plain data only."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to begin with none

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="an alias; write its value", problem_mark=self.get_mark()
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is no text", problem_mark=node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _integer(loader: yaml.SafeLoader, node: Any) -> int:
    return int(loader.construct_scalar(node))


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), [*_first, ""]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


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
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", "name a file") from None
    except UnicodeDecodeError:
        raise BadInput(str(path), "is no text", "name a YAML file") from None
    return read_yaml(text, path.name)
