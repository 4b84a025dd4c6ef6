"""Merge the shards that several machines computed: the whole run, and its report."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from advpure.analysis.study import Report
from advpure.base.errors import BadInput
from advpure.base.flags import Positional, Repeats
from advpure.base.imports import untrusted
from advpure.report.runs import study_of
from advpure.runs.merge import check_shards, join_shards
from advpure.runs.records import RecordStore, default_run_folder


@dataclass(frozen=True, kw_only=True)
class Merging:
    """Make one run of its shards: refuses holes, overlaps that disagree, and other settings.

    The rows are those of a run that was never split, and the shards stay as they are.

    Example: advpure merge runs/attack-0a1b2c3d4e5f.1-of-2 runs/attack-0a1b2c3d4e5f.2-of-2

    Attributes:
        runs: Folders of all shards of one run.
        to: Folder of the whole run. Default: the one where the unsplit command would keep it.
    """

    runs: Annotated[Sequence[str | Path], Positional(), Repeats()]
    to: str | None = None

    def merge(self) -> Report:
        """Merge, and report the whole run from its records.

        Raises:
            BadInput: for shards that do not make one run, or a folder of another run.
            StorageFull: when there is no room.
        """
        with ExitStack() as stack:
            stack.enter_context(untrusted())
            stores = [stack.enter_context(RecordStore.read(folder)) for folder in self.runs]
            for store in stores:
                study_of(store)
            notes = check_shards(stores)
            study, settings = study_of(stores[0]), stores[0].settings
            folder = Path(self.to or default_run_folder("runs", settings["verb"], settings))
            try:
                join_shards(stores, folder, study.missing)
            except BadInput as error:
                fix = error.fix.replace("--out", "--to")
                raise BadInput(error.subject, error.rule, fix) from None
            with RecordStore.read(folder) as whole:
                report: Report = study.report(whole)
        made = f"made of the rows of {len(stores)} shards: nothing was computed"
        return report.with_notes(made, *notes)
