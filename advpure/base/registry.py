"""Names for things that are imported only when somebody asks for them.

One line registers a defense, an attack or a data set; listing names and their descriptions
imports nothing, so `--help` stays fast and an optional package is missed only by its users.

Other packages register through entry points, which are read when a name is not one of ours, or when
all are listed. A registry with an adapter also takes code by name (`advpure.base.imports`) and
objects.
"""

import difflib
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from advpure.base.errors import BadInput

if TYPE_CHECKING:
    from advpure.base.imports import Code

T = TypeVar("T")
_FILE = re.compile(r"\.(py|pt|pth|pt2|ckpt|safetensors|onnx|pkl)$")
"""How files end that hold code or weights, but are no name of a model."""


@dataclass(frozen=True)
class _Entry(Generic[T]):
    target: str | T
    about: str
    is_foreign: bool = False


class Registry(Generic[T]):
    """Map names to objects, or to the text "module:attribute" that finds them on first use.

    Args:
        kind: What the entries are, in the singular, for the messages.
        group: Entry points of other packages that are entries too.
        adapt: "module:function" that turns foreign code (`Code`) into an entry.

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

    def __init__(self, kind: str, *, group: str | None = None, adapt: str | None = None) -> None:
        """Start with no entries."""
        self.kind, self.group, self.adapt = kind, group, adapt
        self._entries: dict[str, _Entry[T]] = {}
        self._adapted: dict[tuple[str, str], tuple[object, T]] = {}
        self._is_complete = group is None

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

    def get(self, name: Any) -> T:
        """Return the object behind a name, importing it if need be.

        With an adapter also that of ``file.py:attribute``, ``package.module:attribute`` and of an
        object itself.

        Raises:
            BadInput: when the name is not known (the message names the nearest known ones), or its
                line names a module or an attribute that does not exist.
            ImportError: from the target's own imports, for instance a missing extra.
        """
        if self.takes(name):
            from advpure.base.imports import code_of, load_code

            code = load_code(name, self.kind) if isinstance(name, str) else code_of(name)
            return self._adapt(code)
        entry = self._entry(name)
        target = entry.target
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
        if entry.is_foreign and self.adapt is not None:
            from advpure.base.imports import Code, source_sha256

            digest = source_sha256(importlib.import_module(module))
            return self._adapt(Code(name, value, digest, module))
        return cast(T, value)

    def takes(self, name: object) -> bool:
        """Return whether a name is foreign code, or is no name but an object."""
        if self.adapt is None or name is None:
            return False
        if not isinstance(name, str):
            return True
        if ":" not in name or name in self._entries:
            return False
        from advpure.base.imports import names_code

        return names_code(name)

    def is_ours(self, name: object) -> bool:
        """Return whether a name was registered here, and is neither foreign code nor an object."""
        entry = self._entries.get(name) if isinstance(name, str) else None
        return entry is not None and not entry.is_foreign

    def digest(self, name: Any) -> str | None:
        """Return the SHA-256 of the source of foreign code, None for what was registered here.

        Raises:
            BadInput: as `get`.
        """
        if self.is_ours(name):
            return None
        from advpure.base.imports import code_of, load_code, source_sha256

        if self.takes(name):
            return (load_code(name, self.kind) if isinstance(name, str) else code_of(name)).sha256
        module, _, _ = str(self._entry(name).target).partition(":")
        return source_sha256(importlib.import_module(module))

    def _adapt(self, code: "Code") -> T:
        """Turn foreign code into an entry, of named code once for each import of its source."""
        assert self.adapt is not None
        key, origin = (code.name, code.sha256), sys.modules.get(code.module)
        is_named = ":" in code.name or code.name in self._entries
        if is_named and key in self._adapted and self._adapted[key][0] is origin:
            return self._adapted[key][1]
        module, _, function = self.adapt.partition(":")
        make: Callable[[Code], T] = getattr(importlib.import_module(module), function)
        made = make(code)
        if is_named:
            self._adapted[key] = (origin, made)
        return made

    def _complete(self) -> None:
        """Read the entry points of other packages, once."""
        if self._is_complete or self.group is None:
            return
        self._is_complete = True
        from importlib.metadata import entry_points

        for point in entry_points(group=self.group):
            package = getattr(point.dist, "name", None) or point.value.partition(".")[0]
            if point.name in self._entries:
                text = f"{self.kind} {point.name!r} of {package} is ignored, the name is taken"
                warnings.warn(text, UserWarning, stacklevel=3)
            else:
                self._entries[point.name] = _Entry(point.value, f"from {package}", is_foreign=True)

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
        self._complete()
        return tuple(self._entries)

    def __contains__(self, name: object) -> bool:
        """Return True if a name is known."""
        if not isinstance(name, str):
            return False
        if name not in self._entries:
            self._complete()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the known names."""
        return iter(self.names())

    def __len__(self) -> int:
        """Count the known names."""
        return len(self.names())

    def _entry(self, name: str) -> _Entry[T]:
        if name in self:
            return self._entries[name]
        from advpure.base.validation import shown  # which needs numpy, and `--help` does not

        lowered = {known.lower(): known for known in self._entries}
        near = difflib.get_close_matches(str(name).lower(), lowered, n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(lowered[match] for match in near)}? " if near else ""
        known = ", ".join(self._entries) or "none"
        if self.adapt is not None and (ending := _FILE.search(str(name))) is not None:
            way = f"write {shown(name)[1:-1]}:NAME" if ending[0] == ".py" else "write file.py:make"
            rule = "is a file, and no name"
            raise BadInput(f"{self.kind} {shown(name)}", rule, f"{way}, code that makes it")
        raise BadInput(f"{self.kind} {shown(name)}", "is not known", f"{hint}known: {known}")
