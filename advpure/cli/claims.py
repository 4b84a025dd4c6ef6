"""``advpure claims``: published robustness, and what was measured of it later."""

from pathlib import Path
from typing import Any

from advpure.cli import output
from advpure.cli.studies import command_from, running_options, show


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.sweeps.claims import Claims

    return command_from("claims", Claims, running_options("plot", "as_json"), _run)


def _run(settings: Any, *, plot: str | None, as_json: bool) -> None:
    """Print the claims, and draw them where that is asked for."""
    drawn = None if plot is None else settings.draw(Path(plot))
    if as_json:
        output.print_json(settings.to_json() | ({} if drawn is None else {"plot": str(drawn)}))
        return
    show(settings.display())
    if drawn is not None:
        print(f"picture: {drawn}")
