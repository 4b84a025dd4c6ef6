"""What a user's attribute is: the thing itself, or what makes it from KEY=VALUE options.

A class is called, and a function whose parameters the options or their defaults fill. A function
that lacks one argument is a function of one batch; one of ``(images, ids, randomness)`` too.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from advpure.base.errors import BadInput
from advpure.base.imports import Code, contained, explain, seeded

KEYED = ("ids", "randomness")
"""Names of the arguments, after the images, of a function whose randomness is keyed."""
_PLAIN = (bool, int, float, str)
_UNKNOWN = int | float | str


@dataclass(frozen=True)
class Factory:
    """An attribute and the options that it takes.

    Attributes:
        code: The attribute.
        options: Name to type and default, of the parameters that text can fill; None is the
            default of those without.
        required: Names of the positional parameters without default.
        given: Names of parameters that are filled otherwise, such as ``denoiser``.
    """

    code: Code
    options: Mapping[str, tuple[Any, Any]]
    required: tuple[str, ...]
    given: tuple[str, ...] = ()

    @property
    def is_called(self) -> bool:
        """Whether it is a class or a function, not an object that stands there already."""
        return _is_callable_source(self.code.value)

    def build(self, options: Mapping[str, Any], **given: Any) -> Any:
        """Return the thing: the object, what the factory makes, or the function of one batch.

        Args:
            options: Values by name; None for those that are not given.
            given: Arguments that are no options.

        Raises:
            BadInput: for options that an object cannot take or that are missing, and for a factory
                that fails.
        """
        value = self.code.value
        filled = {
            name: _guessed(each, self.options.get(name, (None, None))[0])
            for name, each in options.items()
            if each is not None
        }
        filled |= {name: each for name, each in given.items() if name in self.given}
        if not self.is_called:
            if filled:
                rule = "is an object and takes no options"
                raise BadInput(self.code.name, rule, "name its class, or a function that makes it")
            return value
        missing = [name for name in self.required if name not in filled]
        if not inspect.isclass(value) and (len(missing) == 1 or tuple(missing[1:]) == KEYED):
            return functools.partial(value, **filled) if filled else value
        if missing:
            rule = f"needs {', '.join(missing)}"
            pairs = " ".join(f"-o {name}=VALUE" for name in missing)
            raise BadInput(self.code.name, rule, f"give {pairs}, or defaults in the code")
        try:
            with seeded(), contained(self.code.module):
                return value(**filled)
        except BadInput:
            raise
        except Exception as error:
            raise BadInput(self.code.name, f"fails ({explain(error)})", "mend it") from error


def read_factory(code: Code, given: tuple[str, ...] = ()) -> Factory:
    """Read the signature of an attribute.

    Args:
        code: The attribute.
        given: Names of parameters that are filled otherwise.

    Example:
        >>> from advpure.base.imports import code_of
        >>> def blur(images, sigma=0.5): return images
        >>> factory = read_factory(code_of(blur))
        >>> factory.required, factory.options["sigma"][1]
        (('images',), 0.5)
        >>> factory.build({"sigma": 2.0})(3)
        3
    """
    value = code.value
    if not _is_callable_source(value):
        return Factory(code, {}, ())
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # compiled functions do not say
        return Factory(code, {}, ("images",))
    hints = _hints(value)
    options: dict[str, tuple[Any, Any]] = {}
    required: list[str] = []
    taken: list[str] = []
    for each in parameters:
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if each.name in given:
            taken.append(each.name)
            continue
        if each.default is each.empty:
            required.append(each.name)
        if each.kind is not each.POSITIONAL_ONLY and each.name not in KEYED:
            option = _option(hints.get(each.name), each)
            if option is not None:
                options[each.name] = option
    return Factory(code, options, tuple(required), tuple(taken))


def keyed_arguments(function: Callable[..., Any]) -> bool:
    """Return whether a callable takes ``(images, ids, randomness)``.

    Example:
        >>> keyed_arguments(lambda images, ids, randomness: images), keyed_arguments(abs)
        (True, False)
    """
    target = getattr(function, "forward", function)
    try:
        names = list(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return False
    return set(KEYED) <= set(names)


def _is_callable_source(value: Any) -> bool:
    return (
        inspect.isclass(value) or inspect.isroutine(value) or isinstance(value, functools.partial)
    )


def _hints(value: Any) -> Mapping[str, Any]:
    target = value.__init__ if inspect.isclass(value) else value
    try:
        return get_type_hints(target)
    except Exception:  # names that are imported for type checkers alone
        return {}


def _option(hint: Any, parameter: inspect.Parameter) -> tuple[Any, Any] | None:
    """Return type and default of a parameter that text can fill, None for another."""
    default = parameter.default
    if default is parameter.empty:
        kind = _UNKNOWN if hint is None else hint
        return (kind | None, None) if _is_plain(kind) else None
    if default is not None and not isinstance(default, _PLAIN):
        return None
    if hint is None or not _is_plain(hint):
        if hint is not None and default is None:
            return None
        kind = {int: int | float, NoneType: _UNKNOWN}.get(type(default), type(default))
        hint = kind | None if default is None else kind
    return hint, default


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return all(_is_plain(each) for each in get_args(hint))
    return hint in (*_PLAIN, NoneType) or get_origin(hint) is Literal


def _guessed(value: Any, hint: Any) -> Any:
    """Return the number that a text is, where a parameter does not say its type."""
    if isinstance(value, str) and hint == _UNKNOWN | None:
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return kind(value)
    return value
