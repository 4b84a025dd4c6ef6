"""Names for things that are imported only when somebody asks for them.

One line registers a defense, an attack or a data set; listing names and their descriptions
imports nothing, so `--help` stays fast and an optional package is missed only by its users.
"""

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from advpure.base.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    target: str | T
    about: str


class Registry(Generic[T]):
    """Map names to objects, or to the text "module:attribute" that finds them on first use.

    Args:
        kind: What the entries are, in the singular, for the messages.

    Example:
        >>> roots: Registry[object] = Registry("function")
        >>> roots.register("sqrt", "math:sqrt", about="the square root")
        >>> roots.about("sqrt"), roots.get("sqrt")(9.0)
        ('the square root', 3.0)
        >>> roots.get("sqr")
        Traceback (most recent call last):
        ...
        advpure.BadInput: function 'sqr' is not known; did you mean sqrt? known: sqrt
    """

    def __init__(self, kind: str) -> None:
        """Start with no entries."""
        self.kind = kind
        self._entries: dict[str, _Entry[T]] = {}

    def register(self, name: str, target: str | T, *, about: str = "") -> None:
        """Add an entry.

        Args:
            name: What users type: no blanks, unique within the registry.
            target: The object, or "module:attribute" to import it when it is asked for.
            about: One line that describes it, read without importing the target.

        Raises:
            ValueError: when the name is taken or unusable, or the target is malformed.
        """
        if not name or any(letter.isspace() for letter in name):
            raise ValueError(f"{self.kind} name {name!r} is empty or contains a blank")
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        if isinstance(target, str):
            module, colon, attribute = target.partition(":")
            if not (module and colon and attribute):
                raise ValueError(f"target {target!r} of {self.kind} {name!r} is not module:name")
        self._entries[name] = _Entry(target, about)

    def get(self, name: str) -> T:
        """Return the object behind a name, importing it if need be.

        Raises:
            BadInput: when the name is not known (the message names the nearest known ones), or its
                line names a module or an attribute that does not exist.
            ImportError: from the target's own imports, for instance a missing extra.
        """
        target = self._entry(name).target
        if not isinstance(target, str):
            return target
        module, _, attribute = target.partition(":")
        try:
            value: object = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # the module is there; it is one of its own imports that is missing
            raise self._stale(name, error.name) from None
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise self._stale(name, target)
            value = getattr(value, part)
        return cast(T, value)

    def _stale(self, name: str, missing: str) -> BadInput:
        return BadInput(
            f"{self.kind} {name!r}",
            f"names {missing}, which does not exist",
            "check its registry line",
        )

    def about(self, name: str) -> str:
        """Return the description of a name; nothing is imported.

        Raises:
            BadInput: when the name is not known.
        """
        return self._entry(name).about

    def names(self) -> tuple[str, ...]:
        """Return the known names in the order they were registered."""
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        """Return True if a name is known."""
        return isinstance(name, str) and name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the known names."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Count the known names."""
        return len(self._entries)

    def _entry(self, name: str) -> _Entry[T]:
        if isinstance(name, str) and name in self._entries:
            return self._entries[name]
        from advpure.base.validation import shown  # which needs numpy, and `--help` does not

        lowered = {known.lower(): known for known in self._entries}
        near = difflib.get_close_matches(str(name).lower(), lowered, n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(lowered[match] for match in near)}? " if near else ""
        known = ", ".join(self._entries) or "none"
        raise BadInput(f"{self.kind} {shown(name)}", "is not known", f"{hint}known: {known}")
