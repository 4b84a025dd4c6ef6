"""The options that verbs without settings share, and how lists and KEY=VALUE are read."""

from collections.abc import Sequence
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or mps.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def parse_options(pairs: Sequence[str] | None, example: str = "-o clip_x0=true") -> dict[str, str]:
    """Split KEY=VALUE options.

    Args:
        pairs: The options.
        example: One that is right, for the message.

    Raises:
        BadInput: for an option without '=', or one that is given twice.

    Example:
        >>> parse_options(["clip_x0=true"])
        {'clip_x0': 'true'}
    """
    from advpure.base.errors import BadInput

    parsed = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise BadInput(f"option {pair!r}", "is not KEY=VALUE", f"write {example}")
        name = key.strip().replace("-", "_")
        if name in parsed:
            raise BadInput(f"option {name!r}", "is given twice", "keep one of them")
        parsed[name] = value.strip()
    return parsed


def given(**options: object) -> dict[str, object]:
    """Keep the options that were given.

    Example:
        >>> given(steps=3, loss=None)
        {'steps': 3}
    """
    return {name: value for name, value in options.items() if value is not None}


def parse_integers(text: str, what: str) -> list[int]:
    """Read a comma-separated list of different whole numbers.

    Raises:
        BadInput: naming the entry that is none, or the list that repeats one.

    Example:
        >>> parse_integers("0,123,295", "seed")
        [0, 123, 295]
    """
    from advpure.base.text import read_whole, several

    fix = "write 0,1,2"
    return list(several(text, lambda one: read_whole(one, what, fix=fix), f"{what}s", fix))
