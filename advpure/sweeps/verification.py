"""Whether the run folder of a point holds that point's run, whole and as it was written."""

from pathlib import Path
from typing import Literal, NamedTuple

from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.sweeps.points import Point


class Verdict(NamedTuple):
    """What was found in a run folder.

    Attributes:
        state: ``whole``; ``incomplete``, so that its verb can go on; ``broken``, so that it cannot.
        error: What is wrong and what to do, in one line; empty where nothing is.
    """

    state: Literal["whole", "incomplete", "broken"]
    error: str = ""


def verify(root: Path, point: Point) -> Verdict:
    """Check a point's records as its verb would before it goes on with them.

    Args:
        root: The folder of run folders.
        point: The point; its run folder is there.

    Returns:
        The verdict. Checked are the settings, which must be those of the point, the checksum of
        everything that the records hold, and that nothing is missing.
    """
    folder = root / point.run
    try:
        with RecordStore.read(folder) as store:
            if not point.run.endswith(store.run):
                fix = "delete the folder and run its command again"
                raise BadInput(str(folder), f"holds another run ({store.run})", fix)
            store.check()
            if not store.finished:
                error = f"run folder {folder} is incomplete; run the sweep again"
                return Verdict("incomplete", error)
    except BadInput as error:
        return Verdict("broken", str(error))
    return Verdict("whole")
