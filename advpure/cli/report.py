"""``advpure report``: runs on one self-contained page."""

from typing import Any

from advpure.cli import output
from advpure.cli.studies import command_from, running_options


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.report.page import Reporting

    return command_from("report", Reporting, running_options("as_json"), _run)


def _run(settings: Any, *, as_json: bool) -> None:
    """Write the page and name it."""
    path = settings.write()
    if as_json:
        output.print_json({"report": str(path)})
    else:
        print(f"report: {path}")
