"""The verbs of the command line: those of studies are made when they are asked for.

So `advpure --help` imports no study, and no network.
"""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from advpure.studies import STUDIES


class StudyGroup(TyperGroup):
    """A group that has the studies' commands first, each imported on its first use."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        return [*STUDIES.names(), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, name: str) -> Any:
        """Return a verb; in a list of all of them, of a study its description alone."""
        if name not in STUDIES:
            return super().get_command(ctx, name)
        if self._listing:
            return TyperCommand(name, help=STUDIES.about(name))
        from advpure.cli.studies import command_of

        return command_of(name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of all verbs."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False
