"""What no option of any verb may be: blank text, and numbers that are none or do not fit 64 bits.

The parser below the command line reads single values; what it lets through is checked here, in one
place, before a verb sees it.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer

Result = TypeVar("Result")
_MOST = 2**64 - 1  # a seed


class Verbs(typer.Typer):
    """A command line whose verbs are `checked`."""

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a verb, as typer does."""
        register = super().command(name, **options)

        def register_checked(verb: Callable[..., Any]) -> Callable[..., Any]:
            register(checked(verb))
            return verb

        return register_checked


def checked(verb: Callable[..., Result]) -> Callable[..., Result]:
    """Let a verb refuse values that mean nothing to any option.

    Example:
        >>> checked(lambda alpha: alpha)(alpha=float("nan"))
        Traceback (most recent call last):
        ...
        advpure.BadInput: alpha nan is not finite; write 0.03 or 8/255
    """

    @functools.wraps(verb)
    def call(*arguments: Any, **given: Any) -> Result:
        bound = inspect.signature(verb).bind(*arguments, **given)
        for name, value in bound.arguments.items():
            for each in value if isinstance(value, list | tuple) else [value]:
                if not isinstance(each, typer.Context):
                    _check(each, name.replace("_", " "))
        return verb(*arguments, **given)

    return call


def _check(value: Any, name: str) -> None:
    if value is None or isinstance(value, bool):
        return
    from advpure.base import validation
    from advpure.base.errors import BadInput

    if isinstance(value, str):
        validation.words(value, name)
    elif isinstance(value, int) and abs(value) > _MOST:
        raise BadInput(f"{name} {validation.shown(value)}", "does not fit 64 bits", "lower it")
    elif isinstance(value, float):
        validation.number(value, name)
