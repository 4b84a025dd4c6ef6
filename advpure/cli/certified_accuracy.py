"""``advpure certified-accuracy``: what runs and logs of certificates say, read again."""

from pathlib import Path
from typing import Any

from advpure.cli import output
from advpure.cli.studies import Option, command_from, show

_PANEL = "Results"
_RESULTS = (
    Option(
        "log",
        str | None,
        None,
        (),
        "Write the certificates as logs, a .tsv file a sigma.",
        _PANEL,
        "log",
    ),
    Option(
        "plot",
        str | None,
        None,
        (),
        "Draw accuracy over the radius: a .png, .svg or .pdf file.",
        _PANEL,
        "plot",
    ),
    Option(
        "as_json",
        bool,
        False,
        ("--json",),
        "Print one JSON object and nothing else.",
        _PANEL,
        "as_json",
    ),
)


def command() -> Any:
    """Return the command, made from its settings."""
    from advpure.analysis.certification.evaluation import CertifiedAccuracy

    return command_from("certified-accuracy", CertifiedAccuracy, _RESULTS, _run)


def _run(settings: Any, *, log: str | None, plot: str | None, as_json: bool) -> None:
    """Read the sources, draw, write logs and print."""
    from advpure.plots.figures import check_ending

    if plot is not None:
        check_ending(plot)
    if log is not None:
        from advpure.analysis.certification.logs import check_log_path

        check_log_path(log)
    evaluated = settings.evaluate()
    written: dict[str, Any] = {}
    if log is not None:
        from advpure.analysis.certification.logs import write_logs

        logs = write_logs(evaluated.curves, log, settings.sources)
        written["logs"] = [str(path) for path in logs]
    if plot is not None:
        from advpure.analysis.certification.figure import draw_curves

        written["plot"] = str(draw_curves(evaluated.curves, Path(plot)))
    if as_json:
        output.print_json(evaluated.to_json() | written)
        return
    show(evaluated.display())
    for text in evaluated.notes:
        output.note(text)
    for path in (*written.get("logs", ()), *([written["plot"]] if plot is not None else ())):
        print(f"written: {path}")
