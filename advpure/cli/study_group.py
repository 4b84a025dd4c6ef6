"""The verbs of the command line: those made from settings are made when they are asked for.

So `advpure --help` imports no study, and no network.
"""

import difflib
from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand, TyperGroup

from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.studies import STUDIES

MADE: Registry[Callable[[], Any]] = Registry("verb")
"""Other verbs that are made from settings, by functions that return their commands."""
MADE.register(
    "certified-accuracy",
    "advpure.cli.certified_accuracy:command",
    about="certified accuracy at any radius, from runs or from published logs",
)
MADE.register("sweep", "advpure.cli.sweep:command", about="studies over grids of their settings")
MADE.register(
    "reproduce", "advpure.cli.reproduce:command", about="published beside measured, and claims"
)
MADE.register(
    "compare", "advpure.cli.compare:command", about="differences of two runs, image by image"
)
MADE.register("verify", "advpure.cli.verify:command", about="one image of a run, computed again")
MADE.register("merge", "advpure.cli.merge:command", about="the shards of a run become one run")
MADE.register(
    "claims", "advpure.cli.claims:command", about="published claims and what was measured later"
)
MADE.register("report", "advpure.cli.report:command", about="runs on one page, a .html file")


class StudyGroup(TyperGroup):
    """A group that has the commands made from settings first, each imported on its first use."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        return [*STUDIES.names(), *MADE.names(), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, name: str) -> Any:
        """Return a verb; in a list of all of them, of one that is made its description alone."""
        if name not in STUDIES and name not in MADE:
            return super().get_command(ctx, name)
        if self._listing:
            return TyperCommand(name, help=(STUDIES if name in STUDIES else MADE).about(name))
        if name in MADE:
            return MADE.get(name)()
        from advpure.cli.studies import command_of

        return command_of(name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the verb that the first word names.

        Raises:
            BadInput: for a word that names none, with the nearest one.
        """
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise BadInput(f"verb {args[0]!r}", "is not known", f"{hint}see advpure --help")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the list of all verbs."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False
