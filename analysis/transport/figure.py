"""Figures of transport runs: transport against sigma (figure 2), purified images (4 and 5)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.transport.result import PICTURES, TRANSPORT
from advpure.analysis.transport.study import TransportReport
from advpure.base.errors import BadInput
from advpure.plots.charts import Points, Words, lines
from advpure.plots.figures import image_grid
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate


def draw_transport(reports: Sequence[TransportReport], path: str | Path) -> Path:
    """Draw transport against the noise level, one curve a run, with 95 % bands.

    Raises:
        BadInput: for no report, or a file that is no picture.
    """
    if not reports:
        raise BadInput("no transport run", "can be drawn", "name at least one")
    groups: dict[str, Points] = {}
    for report in reports:
        means = [level.transport for level in report.levels]
        name = _name(report.settings)
        groups[name if name not in groups else f"{name} ({report.run.name})"] = Points(
            x=[level.sigma for level in report.levels],
            y=[math.nan if mean.value is None else mean.value for mean in means],
            y_low=[_end(mean, 0) for mean in means],
            y_high=[_end(mean, 1) for mean in means],
        )
    s = reports[0].settings
    words = Words(
        x="noise level sigma, [0, 1] units",
        y="transport: mean l2 distance, [0, 1] units",
        title=f"Transport on {s['dataset']}",
        caption=f"n = {s['n']} images, draws of each: {s['draws']}, seed "
        f"{s['randomness']['seed']}. Bands: 95 % intervals.",
    )
    return lines(groups, Path(path), words)


def draw_purified(
    stores: Mapping[str, RecordStore],
    path: str | Path,
    *,
    sigma: float | None = None,
    columns: int = 16,
) -> Path:
    """Draw purified images of several runs below the clean and the noisy ones.

    A solid green border means that the classifier is right, a dashed red one that it is wrong.
    All runs saw the same noise.

    Args:
        stores: Name of each row to the records of a transport run.
        path: The file; .png, .svg or .pdf.
        sigma: The noise level, [0, 1] units; the smallest that all runs have, by default.
        columns: Images at most, the first ones.

    Raises:
        BadInput: for runs without a common level or common pictures, or of other images.
        StorageFull: when there is no room.
    """
    levels = [{level for (level,) in s.done(PICTURES.table, "sigma")} for s in stores.values()]
    common = sorted(set.intersection(*levels)) if levels else []
    if not common or (sigma is not None and sigma not in common):
        known = ", ".join(f"{each:g}" for each in common) or "none"
        asked = "these runs" if sigma is None else f"sigma {sigma:g}"
        raise BadInput(asked, "have no pictures in all runs", f"levels with pictures: {known}")
    level = common[0] if sigma is None else sigma
    rows = {
        name: {row["sample"]: row for row in store.rows(PICTURES.table, {"sigma": level})}
        for name, store in stores.items()
    }
    ids = sorted(set.intersection(*(set(own) for own in rows.values())))[:columns]
    if not ids:
        raise BadInput("these runs", "have no picture in common", "use one data set and subset")
    first = next(iter(rows.values()))
    for name, own in rows.items():
        for part in ("clean", "noisy"):
            if any(own[i][part] != first[i][part] for i in ids):
                raise BadInput(f"run {name}", f"has other {part} images", "use one seed and subset")
    pictures = {part: _images(first, ids, part) for part in ("clean", "noisy")}
    borders: dict[str, list[bool | None]] = {}
    for name, own in rows.items():
        pictures[name] = _images(own, ids, "purified")
        borders[name] = _right(stores[name], level, ids)
    return image_grid(pictures, path, borders=borders)


def named(stores: Sequence[RecordStore]) -> dict[str, RecordStore]:
    """Return the records of several runs by the names of their purifiers, which stay apart."""
    rows: dict[str, RecordStore] = {}
    for store in stores:
        name = _name(store.settings)
        rows[name if name not in rows else f"{name} {store.folder.name[-6:]}"] = store
    return rows


def _images(rows: Mapping[int, dict[str, object]], ids: Sequence[int], part: str) -> Tensor:
    shape = [int(each) for each in str(rows[ids[0]]["shape"]).split("x")]
    arrays = [np.frombuffer(rows[i][part], "<f4").reshape(shape) for i in ids]  # type: ignore[call-overload]
    return torch.from_numpy(np.stack(arrays).copy())


def _right(store: RecordStore, level: float, ids: Sequence[int]) -> list[bool | None]:
    rows = store.rows(TRANSPORT.table, {"sigma": level, "draw": 0})
    right = {
        row["sample"]: None if row["predicted"] is None else row["predicted"] == row["label"]
        for row in rows
    }
    return [right[i] for i in ids]


def _name(settings: Mapping[str, object]) -> str:
    defense = settings["defense"]
    assert isinstance(defense, Mapping)
    return str(defense["purifier"])


def _end(mean: Estimate, end: int) -> float:
    return math.nan if mean.interval is None else mean.interval[end]
