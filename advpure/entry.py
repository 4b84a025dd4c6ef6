"""The console command from its first moment: it can be stopped while it still imports."""

from collections.abc import Sequence

from advpure.base.stopping import leave_at_once, leave_in_peace


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit; see `advpure.cli.main`."""
    leave_at_once()
    from advpure.cli import main as run

    try:
        run(arguments)
    finally:
        leave_in_peace()
