"""``advpure merge``: the shards of a run become one run."""

from typing import Any

from advpure.cli import output
from advpure.cli.studies import command_from, print_report, running_options


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.report.merge import Merging

    return command_from("merge", Merging, running_options("as_json"), _run)


def _run(settings: Any, *, as_json: bool) -> None:
    """Merge, and print what the whole run says."""
    report = settings.merge()
    if as_json:
        output.print_json(report.to_json())
    else:
        print_report(report)
