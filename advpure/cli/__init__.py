"""The command line: a thin layer over public functions, one file a verb, lazy imports."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

import typer

from advpure.base.stopping import STOPPED, stoppable
from advpure.cli.data import data
from advpure.cli.export import export
from advpure.cli.models import models
from advpure.cli.plot import plot
from advpure.cli.study_group import StudyGroup
from advpure.cli.train import train
from advpure.cli.values import Verbs

DONE, BROKEN, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_told: set[str] = set()

app = Verbs(
    name="advpure",
    help="Measure how robust a purifier really is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    cls=StudyGroup,
)
app.command()(train)
app.add_typer(models, name="models")
app.command()(data)
app.command()(plot)
app.command()(export)


def _version(asked: bool) -> None:
    if asked:
        import advpure

        print(f"advpure {advpure.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
    trust: bool = typer.Option(False, "--trust", help="Run code that somebody's records name."),
) -> None:
    """Measure how robust a purifier really is."""
    if trust:
        from advpure.base.imports import trust_records

        trust_records()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 a check failed, 2 bad input (one line), 130 interrupted by Ctrl-C and 143
    by SIGTERM, with everything so far kept.
    """
    from advpure.base.heap import keep_freed_memory
    from advpure.base.memory import give_steps_memory

    keep_freed_memory()
    give_steps_memory()
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; errors that users can mend are one line."""
    with warnings.catch_warnings(), stoppable() as asked:
        # Forward-mode derivatives compile helpers with an interface that torch calls deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        warnings.showwarning = _note
        _told.clear()
        try:
            code = app(args=arguments, prog_name="advpure", standalone_mode=False)
            sys.stdout.flush()
        except (KeyboardInterrupt, typer.Abort):
            code = asked.code
        except (BrokenPipeError, SystemExit) as error:
            pipe = error if isinstance(error, OSError) else error.__context__
            if not isinstance(pipe, OSError):
                rule = "ends the program (sys.exit)"
                print(f"advpure: code that was named {rule}; raise an error", file=sys.stderr)
                return BAD_INPUT
            # The parser exits when nobody reads on.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except Exception as error:
            if asked.number is None:
                line = _one_line(error)
                if line is None:
                    raise
                print(f"advpure: {line}", file=sys.stderr)
                return BAD_INPUT
            code = asked.code  # an import in C, for one, makes another error of the interruption
    if code == INTERRUPTED:  # the parser makes this code of any interruption
        code = asked.code
    if code in (INTERRUPTED, TERMINATED):
        print(f"advpure: {STOPPED}", file=sys.stderr)
    return int(code or DONE)


def _note(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning once, as a remark, without the place in the code that tells users nothing."""
    if str(message) not in _told:
        _told.add(str(message))
        print(f"note: {message}", file=sys.stderr)


def _one_line(error: Exception) -> str | None:
    """Return the line for an error that a user can mend, None for a defect of ours."""
    if hasattr(error, "format_message"):
        return _shortened(_wrong_usage(error))
    from advpure.base.errors import BadInput, MissingExtra
    from advpure.runs.records import RecordConflict, StorageFull

    if isinstance(error, BadInput | MissingExtra | RecordConflict | StorageFull):
        return _shortened(str(error))
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "this needs more memory than there is; use smaller numbers, or --batch-size"
    if isinstance(error, OSError) and error.filename is not None:
        reason = (error.strerror or type(error).__name__).lower()
        return _shortened(f"file {error.filename} cannot be used ({reason}); check the path")
    return None


def _shortened(text: str, most: int = 600) -> str:
    """Return a text on one line, without the middle where an absurd value made it long."""
    line = text.replace("\n", " ")
    half = most // 2
    return line if len(line) <= most else f"{line[:half]} ... {line[-half:]}"


def _wrong_usage(error: Any) -> str:
    """Name the option, its value and the help page, for what the argument parser refuses."""
    context = getattr(error, "ctx", None)
    page = f"see {context.command_path if context else 'advpure'} --help"
    refused = getattr(error.__cause__ or error.__context__, "errors", None)
    if refused is None or getattr(error, "param", None) is None:
        return f"{error.format_message().rstrip('.') or 'a verb is missing'}; {page}"
    first = refused()[0]
    rule = first["msg"][0].lower() + first["msg"][1:]
    return f"{error.param.opts[0]} {first['input']!r} is not usable, {rule}; {page}"
