"""The compression rate as a study."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from advpure.analysis.compression.infinitesimal import infinitesimal_compression_rate
from advpure.analysis.compression.noising import default_strength
from advpure.analysis.compression.rates import (
    CompressionSettings,
    compression_evaluations,
    compression_rows,
    describe_compression,
)
from advpure.analysis.compression.result import (
    COMPRESSION_SCHEMA,
    CompressionKey,
    CompressionResult,
)
from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.study import Columns, LoadedModel, ModelStudy, Report, Session
from advpure.base.display import Display, Table, ends, number
from advpure.base.flags import Beside
from advpure.base.kinds import Strength
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Mean

_HEADS = ("epsilon", "seed", "mean", "std over images", "95 % of the mean", "images", "rates")


@dataclass(frozen=True, kw_only=True)
class CompressionReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows and summaries.
        is_random: Whether the purifier draws noise.
        limit: The rate in the limit of vanishing perturbations, where that was asked for.
    """

    result: CompressionResult
    is_random: bool = True
    limit: Mean | None = None

    def tree(self) -> dict[str, Any]:
        """Return the rates; mean, std and n on top are those of the first strength."""
        rows = [self._estimate(eps) for eps in self.result.eps]
        by_seed = [self._estimate(e, s) for e in self.result.eps for s in self.result.seeds]
        limit = {} if self.limit is None else {"limit": self.limit._asdict()}
        return {**rows[0].to_json(), "rows": rows, "by_seed": by_seed, **limit}

    def _estimate(self, eps: float, seed: int | None = None) -> Estimate:
        summary = self.result.summary(eps, seed)
        return Estimate(
            value=summary.mean,
            n=summary.n,
            interval=summary.interval,
            std=summary.std,
            by_image=self.result.image_means(eps, seed),
            key="mean",
            is_mean=True,
            extra={
                "eps": summary.eps,
                "seed": seed,
                "rates": summary.rates,
                "absent": summary.absent,
            },
        )

    def display(self) -> Display:
        """Return the rate at every strength."""
        s, result = self.settings, self.result
        seeds = ", ".join(map(str, s["seeds"]))
        how = f"fixed randomness (seeds {seeds})" if self.is_random else "no randomness"
        first = self._estimate(result.eps[0])
        headline = (
            f"{s['dataset']}, {s['distribution']} noise {result.eps[0]:.4g}, defense "
            f"{strength_text(s)}, {how}: compression rate {first.value:.4f} "
            f"{ends(first, '.4f')} over {first.n} images"
        )
        keys: list[tuple[float, int | None]] = [(eps, None) for eps in result.eps]
        if len(result.seeds) > 1:
            keys = [*((e, s) for e in result.eps for s in result.seeds), *keys]
        rows = []
        for eps, seed in keys:
            rate = self._estimate(eps, seed)
            rows.append(
                [
                    f"{eps:.5f} ({255 * eps:.3g}/255)",
                    seeds if seed is None else str(seed),
                    *_cells(rate),
                    str(rate.extra["rates"]),
                ]
            )
        if self.limit is not None:
            rows.append(["limit 0", "all", *_cells(self.limit), ""])
        return Display(headline, (Table(_HEADS, rows),))


def _cells(rate: Estimate | Mean) -> list[str]:
    return [number(rate.value, ".4f"), number(rate.std, ".4f"), ends(rate, ".4f"), str(rate.n)]


@dataclass(frozen=True, kw_only=True)
class Compression(CompressionSettings, ModelStudy[CompressionReport]):
    """Print the expected compression rate ||f(x+e) - f(x)|| / ||e|| under fixed randomness.

    Example: advpure cr --defense ddim --t 100 --eps 2/255,8/255,32/255 --plot cr.png

    Attributes:
        eps: Strengths in [0, 1] units, one or a list such as 2/255,8/255. Default: the data set's
            radius.
        limit: Also the limit of vanishing strength, by derivatives.
    """

    verb: ClassVar[str] = "cr"
    doing: ClassVar[str] = "purifying"
    shorter: ClassVar[str] = "-n or --perturbations"
    tables: ClassVar[tuple[Schema, ...]] = (COMPRESSION_SCHEMA,)
    figure: ClassVar[str] = "advpure.analysis.compression.figure:compression_figure"
    columns: ClassVar[Columns] = {"compression rate": {"at": "rows.0"}}

    eps: Strength | Sequence[Strength] | None = None  # type: ignore[assignment]
    limit: Annotated[bool, Beside()] = False

    def __post_init__(self) -> None:
        """Fill in the strength of the data set; check what is measured, and purifier and images."""
        if self.eps is None:
            object.__setattr__(self, "eps", default_strength(self.dataset))
        CompressionSettings.__post_init__(self)
        ModelStudy.__post_init__(self)

    @property
    def xi(self) -> RandomnessConfig:
        """The randomness of the first seed."""
        return RandomnessConfig(self.base_seeds[0], self.scheme)

    def describe(self, model: Purifier, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what the rows depend on, as JSON values."""
        own = describe_compression(model, images.images, self, xi)
        return {**own, "is_random": model.is_random}

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of perturbations."""
        each = len(self.strengths) * len(self.base_seeds) * self.perturbations
        return len(loaded.images.ids) * each

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of all purifications."""
        count, view = len(loaded.images.ids), loaded.purifier.at(xi=loaded.xi)
        total = compression_evaluations(loaded.purifier, count, self)
        each = max(loaded.purifier.chain.evaluations, 1) * count
        return estimate(view, loaded.images.images[:8], count, -(-total // each), 0)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Purify batch after batch."""
        loaded, store = session.loaded, session.store
        done: set[CompressionKey] = store.done(COMPRESSION_SCHEMA.table)
        count = len(done)
        session.progress(count)
        for batch in compression_rows(
            loaded.purifier,
            loaded.images.images,
            loaded.images.ids,
            self,
            xi=loaded.xi,
            batch_size=session.batch_size,
            skip=done,
        ):
            store.append(COMPRESSION_SCHEMA.table, [row._asdict() for row in batch])
            count += len(batch)
            session.progress(count)

    @classmethod
    def report(cls, store: RecordStore) -> CompressionReport:
        """Compute the report of a run from its records alone."""
        rows = store.rows(COMPRESSION_SCHEMA.table)
        result = CompressionResult.from_records(rows, store.settings)
        absent = sum(row.rate is None for row in result.rows)
        notes = [f"{absent} perturbations were clipped away whole and have no rate"]
        return CompressionReport(
            run=store.folder,
            settings=store.settings,
            result=result,
            is_random=store.settings.get("is_random", True),
            notes=tuple(notes) if absent else (),
        )

    def after(self, report: CompressionReport, loaded: LoadedModel) -> CompressionReport:
        """Add the limit of vanishing perturbations: a derivative an image, seed and draw."""
        if not self.limit:
            return report
        limit = infinitesimal_compression_rate(
            loaded.purifier,
            loaded.images.images,
            ids=loaded.images.ids,
            xi=loaded.xi,
            probes=self.perturbations,
            seeds=self.seeds,
            distribution=self.distribution,
        )
        return replace(report, limit=limit.summary())
