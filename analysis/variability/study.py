"""Randomness against input as a study.

Beside one row an image, the records hold every distance to a centroid, `distances/ID`: vary input,
vary randomness, vary both, [3, S, K]; and the variances of every pixel, `variances/ID`: input and
internal (plain), [2, C, H, W]. What a session leaves of an image waits in the folder `unfinished`.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from advpure.analysis.compression.noising import default_strength
from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.study import Columns, LoadedModel, PurifierStudy, Report, Session
from advpure.analysis.variability.cells import rows_path
from advpure.analysis.variability.result import SNR_SCHEMA, SnrResult, SnrRow
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.tables import describe_snr, snr_tables
from advpure.analysis.variability.two_way import TwoWay, table_statistics
from advpure.base.display import Display, Table, ends, number, written
from advpure.base.kinds import Strength
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.row_file import remove_leftover
from advpure.runs.schema import Schema

# Label, quantity, the factor that is printed, and the quantity without bias.
_SHOWN = (
    ("total variance per pixel, 1e-3", "total", 1e3, "total_unbiased"),
    ("input variance per pixel, 1e-3", "input", 1e3, "input_unbiased"),
    ("internal variance per pixel, 1e-3", "internal", 1e3, "internal_unbiased"),
    ("interaction (within input), 1e-3", None, 1e3, "interaction_unbiased"),
    ("input variance, sum over pixels", "input_summed", 1.0, None),
    ("internal variance, sum over pixels", "internal_summed", 1.0, None),
    ("SNR, mean of ratios", "snr_mean_of_ratios", 1.0, "snr_mean_of_ratios_unbiased"),
    ("SNR, ratio of means", "snr_ratio_of_means", 1.0, "snr_ratio_of_means_unbiased"),
    ("internal / input variance", "internal_to_input", 1.0, "internal_to_input_unbiased"),
    ("L2 of the perturbation", "initial", 1.0, None),
    ("L2 to centroid, inputs", "initial_centroid", 1.0, None),
    ("L2 to centroid, vary input", "centroid_vary_input", 1.0, None),
    ("L2 to centroid, vary randomness", "centroid_vary_randomness", 1.0, None),
    ("L2 to centroid, vary both", "centroid_vary_both", 1.0, None),
    ("correlation of directions, vary randomness", "correlation_vary_randomness", 1.0, None),
    ("correlation of directions, vary input", "correlation_vary_input", 1.0, None),
)
_HEADS = ("", "plain", "std over images", "95 % of it", "unbiased", "95 % of it", "images")


@dataclass(frozen=True, kw_only=True)
class SnrReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows and summaries.
    """

    result: SnrResult

    def tree(self) -> dict[str, Any]:
        """Return every quantity by name, and the rows."""
        return {**self.result.tree(), "rows": [row._asdict() for row in self.result.rows]}

    def display(self) -> Display:
        """Return the variances, distances and correlations, plain and without bias."""
        s, first = self.settings, self.result.rows[0]
        shown = self.result.tree()
        ratio, times = shown["snr_mean_of_ratios"], shown["internal_to_input"]
        headline = (
            f"{s['dataset']}, {s['distribution']} noise {s['eps']:.4g}, defense "
            f"{strength_text(s)}, {self.result.n} images x {first.perturbations} perturbations x "
            f"{first.configurations} configurations (seeds from {s['seed']}): SNR "
            f"{written(ratio) or 'absent'}"
        )
        if times is not None:
            headline += f", internal variance {times.value:.4g} times the input variance"
        rows = []
        for label, name, scale, without_bias in _SHOWN:
            plain, unbiased = (shown.get(each) if each else None for each in (name, without_bias))
            one = plain or unbiased
            rows.append(
                [
                    label,
                    number(plain and plain.value, scale=scale),
                    number(plain and plain.std, scale=scale),
                    ends(plain, scale=scale),
                    number(unbiased and unbiased.value, scale=scale),
                    ends(unbiased, scale=scale),
                    str(one.n if one else 0),
                ]
            )
        bias = (
            f"plain: averages over the table, as published; input is low by "
            f"1/{first.perturbations} of itself, internal by 1/{first.configurations} of itself "
            f"but high by 1/{first.perturbations} of the interaction; unbiased are the variances, "
            "and ratios are of those"
        )
        return Display(headline, (Table(_HEADS, rows), bias))


@dataclass(frozen=True, kw_only=True)
class Snr(SnrSettings, PurifierStudy[SnrReport]):
    """Print the variance that inputs cause over the variance that the purifier's noise causes.

    Example: advpure snr --defense ddpm --t 100 -n 50 --plot snr.png

    Attributes:
        eps: Strength of the perturbations in [0, 1] units, e.g. 8/255. Default: the data set's
            radius.
    """

    verb: ClassVar[str] = "snr"
    doing: ClassVar[str] = "purifying"
    shorter: ClassVar[str] = "-n, --perturbations or --configurations"
    tables: ClassVar[tuple[Schema, ...]] = (SNR_SCHEMA,)
    figure: ClassVar[str] = "advpure.analysis.variability.figure:snr_figure"
    columns: ClassVar[Columns] = {"internal / input": {"at": "internal_to_input_unbiased"}}
    sources: ClassVar[tuple[object, ...]] = (snr_tables, table_statistics)

    eps: Strength | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Fill in the strength of the data set; check what is measured, and purifier and images."""
        if self.eps is None:
            object.__setattr__(self, "eps", default_strength(self.dataset))
        SnrSettings.__post_init__(self)
        PurifierStudy.__post_init__(self)

    def describe(self, model: Purifier, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what the rows depend on, as JSON values."""
        return describe_snr(model, images.images, self, xi)

    def total(self, loaded: LoadedModel) -> int:
        """Return the purifications of the whole run."""
        return len(loaded.images.ids) * self.cells

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of all purifications, in whole tiles."""
        tile, total = loaded.purifier.tile or 1, self.total(loaded)
        view = loaded.purifier.at(xi=loaded.xi)
        cost = estimate(view, loaded.images.images[:8], -(-total // tile) * tile, 1, 0)
        return replace(cost, images=len(loaded.images.ids))

    def measure(self, session: Session[LoadedModel]) -> None:
        """Purify cell after cell, and store image after image."""
        loaded, store = session.loaded, session.store
        done = {i for (i,) in store.done(SNR_SCHEMA.table)}
        session.progress(len(done) * self.cells)
        unfinished = store.folder / "unfinished"
        for i in done:  # left by a process that was killed after it had stored the image
            remove_leftover(rows_path(unfinished, i))
        for i, table in snr_tables(
            loaded.purifier,
            loaded.images.images,
            loaded.images.ids,
            self,
            xi=loaded.xi,
            batch_size=session.batch_size,
            skip=done,
            scratch=unfinished,
            progress=session.progress,
        ):
            _record(store, i, table, loaded.images.images.shape[1:])
        with suppress(OSError):  # absent, or another session's images are in it
            unfinished.rmdir()

    @classmethod
    def report(cls, store: RecordStore) -> SnrReport:
        """Compute the report of a run from its records alone."""
        result = SnrResult.from_records(store.rows(SNR_SCHEMA.table), store.settings)
        return SnrReport(
            run=store.folder, settings=store.settings, result=result, notes=_notes(result)
        )


def _record(store: RecordStore, sample: int, table: TwoWay, shape: torch.Size) -> None:
    """Store all of an image, or nothing."""
    cells = table.sums.perturbations * table.sums.configurations
    _, columns, within = table.maps / cells
    with store.batch():
        store.append(SNR_SCHEMA.table, [SnrRow.of(sample, table)._asdict()])
        store.put_blob(f"distances/{sample}", torch.from_numpy(table.distances))
        maps = torch.stack([torch.from_numpy(each).reshape(shape) for each in (within, columns)])
        store.put_blob(f"variances/{sample}", maps.float())


def _notes(result: SnrResult) -> tuple[str, ...]:
    absent = sum(row.plain.snr is None for row in result.rows)
    lost = sum(row.unbiased.snr is None for row in result.rows) - absent
    notes = []
    if absent:
        notes.append(
            f"{absent} of {result.n} images have no internal variance, so no signal-to-noise ratio"
        )
    if lost:
        notes.append(
            f"the unbiased internal variance of {lost} of {result.n} images is not above 0: it is "
            "lost among too few perturbations and configurations, and these images are left out of "
            "the unbiased mean of ratios"
        )
    return tuple(notes)
