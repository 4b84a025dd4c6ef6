"""The picture of a generate run: its first images, one row for each number of steps."""

from pathlib import Path

from advpure.analysis.generation.study import stored_images
from advpure.data import dataset_info
from advpure.plots.figures import image_grid
from advpure.runs.records import RecordStore

_COLUMNS = 16


def generated_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the first images of a run, with their classes above where they have labels.

    Raises:
        BadInput: for a run without images, or another ending.
        StorageFull: when there is no room.
    """
    classes = dataset_info(store.settings["dataset"]).classes
    sets = {steps: stored_images(store, steps)[1] for steps in store.settings["steps"]}
    count = min(_COLUMNS, *(len(each.images) for each in sets.values()))
    labels = next(iter(sets.values())).labels
    captions = None if labels is None else [classes[k] for k in labels[:count].tolist()]
    rows = {
        f"{steps} step{'s' if steps > 1 else ''}": each.images[:count]
        for steps, each in sets.items()
    }
    return image_grid(rows, path, captions)
