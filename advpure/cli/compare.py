"""``advpure compare``: what two runs report, and how far it differs."""

from typing import Any

from advpure.cli import output
from advpure.cli.studies import command_from, running_options, show


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.report.compare import Comparing

    return command_from("compare", Comparing, running_options("as_json"), _run)


def _run(settings: Any, *, as_json: bool) -> None:
    """Compare and print."""
    comparisons = settings.compare()
    if as_json:
        first = comparisons[0].first
        told = [each.to_json() for each in comparisons]
        output.print_json({"first": str(first.folder), "verb": first.verb, "comparisons": told})
        return
    for each in comparisons:
        show(each.display())
        for text in each.notes:
            output.note(text)
