"""``advpure verify``: one image of a run, computed again from its records."""

from typing import Any

import typer

from advpure.cli import output
from advpure.cli.studies import command_from, running_options, show


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.report.verify import Verification

    return command_from("verify", Verification, running_options("as_json"), _run)


def _run(settings: Any, *, as_json: bool) -> None:
    """Compute again, print, and end with 1 where something differs."""
    verdict = settings.verify()
    if as_json:
        output.print_json(verdict.to_json())
    else:
        show(verdict.display())
        for text in verdict.notes:
            output.note(text)
    if not verdict.passed:
        raise typer.Exit(1)
