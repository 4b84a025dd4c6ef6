"""Pictures of a boost run: distances over steps, and images before and after."""

from pathlib import Path

import torch

from advpure.analysis.boosting.result import BoostReport, BoostResult, no_images
from advpure.base.display import written
from advpure.data import dataset_info
from advpure.plots.charts import Points, Words, lines
from advpure.plots.figures import check_ending, image_grid
from advpure.runs.records import RecordStore

_COLUMNS = 12


def curve_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the Frechet distance over steps, with the band of its interval.

    Distances of several networks have scales of their own, so each is divided by its first value.
    Bands are those of the distances alone, and the paired change is written below.

    Raises:
        BadInput: for a run without images, or another ending.
        StorageFull: when there is no room.
    """
    check_ending(path)
    report = BoostReport.of(store)
    if not report.measured:
        raise no_images(store.folder)
    curves, first = {}, report.measured[0]
    for metric in dict.fromkeys(each.metric for each in report.curve):
        own = [each for each in report.curve if each.metric == metric]
        sides = [own[0].change.before, *(each.change.after for each in own)]
        scale = 1.0 / (sides[0].value or 1.0)
        intervals = [each.interval or (each.value, each.value) for each in sides]
        curves[metric] = Points(
            x=[0, *(each.step or 0 for each in own)],
            y=[scale * each.value for each in sides],
            y_low=[scale * low for low, _ in intervals],
            y_high=[scale * high for _, high in intervals],
        )
    if not curves:
        steps = (0, store.settings["boost"]["steps"])
        values = [each.value for each in first.change[:2]]
        curves[first.metric] = Points(x=steps, y=values)
    how = store.settings["boost"]
    change = f"{first.metric} after - before, paired: {written(first.change.difference)}"
    seed = store.settings["randomness"]["seed"]
    words = Words(
        x=f"steps of {how['step_size']:g} ({how.get('norm', 'l2')}, [0, 1] units), each one "
        "gradient of the booster",
        y="distance to real images / before",
        title=f"{store.settings['dataset']}, boosted by {how['name']}",
        caption=f"{report.n} images, seed {seed}; 95 % bands of each distance alone; {change}",
    )
    return lines(curves, path, words)


def grid_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the first images before and after, and their difference around grey, eight times.

    Raises:
        BadInput: for a run without images, or another ending.
        StorageFull: when there is no room.
    """
    result = BoostResult(store)
    ids = list(result.rows)[:_COLUMNS]
    if not ids:
        raise no_images(store.folder)
    before, after = result.pictures(ids)
    names = dataset_info(store.settings["dataset"]).classes
    captions = [names[result.rows[i]["aimed"]] for i in ids]
    rows = {
        "before": before,
        "after": after,
        "8 x difference": torch.clamp(0.5 + 8 * (after - before), 0.0, 1.0),
    }
    return image_grid(rows, path, captions)
