"""What no option of any verb may be: blank text, and numbers that are none or do not fit 64 bits.

The parser below the command line reads single values; what it lets through is checked here, in one
place, before a verb sees it.
"""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

Result = TypeVar("Result")
_MOST = 2**64 - 1  # a seed
_SPACED = re.compile(r"[+-]?[0-9][0-9_]*(\.[0-9_]*)?(e[+-]?[0-9]+)?", re.IGNORECASE)


class Verbs(typer.Typer):
    """A command line whose verbs are `checked`, and whose numbers are written without ``_``."""

    def command(  # type: ignore[override]
        self, name: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a verb, as typer does."""
        register = super().command(name, **{"cls": _Verb, **options})

        def register_checked(verb: Callable[..., Any]) -> Callable[..., Any]:
            register(checked(verb))
            return verb

        return register_checked


class _Verb(TyperCommand):
    """A verb that refuses what parsers let through: ``1_0`` for 10, and all but the last of two."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and refuse an option that is given twice, or a text with ``_`` for a number.

        Raises:
            BadInput: naming it.
        """
        given = list(args)
        texts = [text for text in (each.rpartition("=")[2] for each in args) if "_" in text]
        rest = super().parse_args(ctx, args)
        self._refuse_twice(ctx, given)
        numbers = [each for each in ctx.params.values() if type(each) in (int, float)]
        for text in texts:
            if _SPACED.fullmatch(text) and float(text.replace("_", "")) in numbers:
                from advpure.base.errors import BadInput

                plain = text.replace("_", "")
                raise BadInput(f"number {text!r}", "is not written in digits", f"write {plain}")
        return rest

    def _refuse_twice(self, ctx: Any, args: list[str]) -> None:
        """Refuse an option that takes one value and is given two, of which the first has no use."""
        _, _, order = self.make_parser(ctx).parse_args(args=args)
        seen: set[Any] = set()
        for option in order:
            if option in seen and not getattr(option, "multiple", False):
                from advpure.base.errors import BadInput

                names = "/".join((*option.opts[:1], *option.secondary_opts[:1]))
                raise BadInput(f"option {names}", "is given twice", "keep one of them")
            seen.add(option)


def read_number(text: Any, what: str) -> float:
    """Read a finite number or a fraction such as 8/255; its range is checked later.

    Raises:
        BadInput: for other text.
    """
    from advpure.base import validation

    return validation.number(text, what)


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
