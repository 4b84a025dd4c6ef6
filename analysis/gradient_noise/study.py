"""The noise of a random defense's gradient as a study."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Gt, Lt

from advpure.analysis.gradient_noise.draws import (
    GRADIENT_BLOCKS,
    GRADIENT_DRAWS,
    GRADIENT_MEANS,
    DrawSettings,
    batch_images,
    gradient_progress,
)
from advpure.analysis.gradient_noise.result import (
    CurvePoint,
    Enough,
    GradientResult,
    image_gradients,
)
from advpure.analysis.robustness.protocol import sampled
from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.study import Columns, DefenseStudy, LoadedModel, Report, Session
from advpure.analysis.subject import Ball
from advpure.attacks.oracle import Batch, Oracle, check_batch
from advpure.attacks.projected import first_iterates
from advpure.attacks.settings import GradientSettings
from advpure.base.display import Display, Table, number, written
from advpure.base.errors import BadInput
from advpure.base.flags import Beside
from advpure.base.kinds import Share
from advpure.base.validation import fields_of
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.loading import describe
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.quantiles import Quantile

_RARE = 0.2  # share of all squared norms in one gradient, from which the closed form is doubtful
_CURVES = ("cosine", "gain", "agreement", "single")
_HEADS = (
    "draws",
    "cosine to mean",
    "closed form",
    "sign-step gain",
    "sign agreement",
    "closed form",
    "cosine to one draw",
    "n",
)


@dataclass(frozen=True, kw_only=True)
class GradientReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        result: Signal, noise and curves of the images that are finished.
        target: The cosine that is enough.
        agreement: The share of equal signs that is enough.
    """

    result: GradientResult
    target: float
    agreement: float

    @property
    def answers(self) -> tuple[Enough, Enough]:
        """How many draws are enough, for the cosine and for the signs."""
        result = self.result
        return result.enough(self.target), result.enough(self.agreement, "agreement")

    def tree(self) -> dict[str, Any]:
        """Return signal-to-noise ratios, answers, and one flat row for each number of draws."""
        result = self.result
        return {
            "n": len(result.images),
            "snr": Estimate.of(result.snr(), result.snrs, style="beside"),
            "snr_median": Estimate.of(result.median_snr(), style="beside"),
            "largest_share": Estimate.of(result.largest(), style="alone"),
            "zero_gradient": result.zero,
            "constant": result.constant,
            "unresolved": result.unresolved,
            "enough": [_answer(each) for each in self.answers],
            "rows": [self._row(point) for point in result.curve()],
            "images": [
                {
                    "sample": image.sample,
                    "snr": image.moments.snr,
                    "signal": image.moments.signal,
                    "variance": image.moments.variance,
                    "resolved": image.moments.is_resolved,
                }
                for image in result.images
            ],
        }

    def _row(self, point: CurvePoint) -> dict[str, Any]:
        """Return a point of the curves; what no image has is None."""
        row: dict[str, Any] = {"draws": point.draws}
        for name in _CURVES:
            values = self.result.of_images(name, point.draws)
            row[name] = Estimate.of(getattr(point, name), values, style="beside")
        row["expected_cosine"] = point.expected_cosine
        row["expected_agreement"] = point.expected_agreement
        return row

    def display(self) -> Display:
        """Return the curves, and how many draws are enough."""
        s, result = self.settings, self.result
        where = "clean images" if s["point"] == "clean" else "random starts"
        median, ratio = result.median_snr(), "absent"
        if median is not None:
            ends = ", ".join(number(end, ".3g") or "-" for end in (median.low, median.high))
            known = median.low is not None or median.high is not None
            within = f"95 % [{ends}], n = {median.n}" if known else f"n = {median.n}, no interval"
            ratio = f"{median.value:.3g} (median, {within})"
        headline = (
            f"{s['dataset']}, defense {strength_text(s['defense'])}, gradients of loss {s['loss']} "
            f"at {where}, {len(result.images)} images x {s['draws'] + s['reference']} draws "
            f"(seeds from {s['randomness']['seed']}): "
            f"signal-to-noise ratio {ratio}"
        )
        rows = [
            [
                str(point.draws),
                written(point.cosine, ".3f"),
                number(point.expected_cosine, ".3f"),
                written(point.gain, ".3f"),
                written(point.agreement, ".3f"),
                number(point.expected_agreement, ".3f"),
                written(point.single, ".3f"),
                str(point.cosine.n if point.cosine else 0),
            ]
            for point in result.curve()
        ]
        most = result.sizes[-1] if result.sizes else 0
        return Display(
            headline, (Table(_HEADS, rows), *(_sentence(each, most) for each in self.answers))
        )


def _answer(answer: Enough) -> dict[str, Any]:
    """Return an answer as a flat row; more draws than any number are None."""
    row = answer._asdict()
    for name in ("median", "most"):
        quantile: Quantile | None = row[name]
        row[name] = quantile and _finite(quantile.value)
        row[f"{name}_interval"] = quantile and [_finite(quantile.low), _finite(quantile.high)]
    return row


def _finite(value: float | None) -> float | None:
    return None if value == float("inf") else value


def _sentence(answer: Enough, most: int) -> str:
    name = "cosine" if answer.measure == "cosine" else "sign agreement"
    measured = f"more than {most}" if answer.measured is None else f"{answer.measured}"
    closed = "absent" if answer.expected is None else str(answer.expected)
    if answer.low is not None:
        closed += f" [{answer.low}, {answer.high if answer.high is not None else 'unbounded'}]"
    halves = ""
    if answer.median is not None and answer.most is not None:
        half, most_images = (
            "more than can be estimated" if each.value == float("inf") else f"{each.value:.0f}"
            for each in (answer.median, answer.most)
        )
        halves = f"; half of the images need at most {half}, 90 % at most {most_images}"
    return (
        f"enough for a mean {name} of {answer.target:g}: {measured} as measured (powers of two), "
        f"{closed} by the closed form{halves}"
    )


@dataclass(frozen=True, kw_only=True)
class GradientNoise(DrawSettings, Ball, DefenseStudy[GradientReport]):
    """Print the signal-to-noise ratio of the loss gradient, and how many draws are enough.

    Example: advpure gradients --defense ddpm --t 100 -n 20 --plot gradients.png

    Attributes:
        point: Where: at clean images, or at a random start of an attack, uniform in the ball.
        target: Cosine to the exact mean that is enough.
        agreement: Share of equal signs that is enough.
        eps: Radius of the start's ball, e.g. 8/255. Default: the data set's.
        norm: Its norm, linf or l2. Default: the data set's.
    """

    verb: ClassVar[str] = "gradients"
    doing: ClassVar[str] = "gradients"
    shorter: ClassVar[str] = "-n, --draws or --reference"
    tables: ClassVar[tuple[Schema, ...]] = (GRADIENT_DRAWS, GRADIENT_BLOCKS, GRADIENT_MEANS)
    figure: ClassVar[str] = "advpure.analysis.gradient_noise.figure:gradients_figure"
    columns: ClassVar[Columns] = {"gradient SNR": {"at": "snr"}}

    point: Literal["clean", "start"] = "clean"
    target: Annotated[Share, Beside()] = 0.9
    agreement: Annotated[float, Gt(0.5), Lt(1), Beside()] = 0.85

    def __post_init__(self) -> None:
        """Check every field, and that a ball is asked for where there is one."""
        super().__post_init__()
        self.start()

    def start(self) -> GradientSettings | None:
        """Return the ball of the random start, None where gradients are taken at the images."""
        if self.point == "start":
            norm, eps = self.threat_model()
            return GradientSettings(eps=eps, norm=norm, steps=1)
        for name in ("eps", "norm"):
            if getattr(self, name) is not None:
                raise BadInput(
                    f"{name} {getattr(self, name)}",
                    "means nothing to gradients at clean images",
                    f"use point start, or leave {name} out",
                )
        return None

    def describe(self, model: Defense, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what the gradients depend on, as JSON values."""
        start = self.start()
        return {
            "defense": describe(model),
            "randomness": {"seed": self.seed, "scheme": self.scheme},
            **fields_of(DrawSettings, self),
            "point": self.point,
            "threat_model": start and {"norm": start.norm, "eps": start.eps},
        }

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of gradients."""
        return len(loaded.images.ids) * self.gradients

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of all gradients."""
        view, count = loaded.defense.at(xi=sampled(loaded.xi)), len(loaded.images.ids)
        return estimate(view, loaded.images.images[:8], count, self.gradients, self.gradients)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Take gradients chunk by chunk, and keep their sums."""
        loaded, store, defense = session.loaded, session.store, session.loaded.defense
        finished: dict[int, int] = {}
        for sample, _ in store.done(GRADIENT_DRAWS.table):
            finished[sample] = finished.get(sample, 0) + 1
        count = sum(finished.values())
        session.progress(count)
        images, labels, ids = loaded.images
        batch = starting_points(defense, check_batch(defense, images, labels, ids), self.start())
        for each in gradient_progress(
            defense,
            batch,
            self,
            loaded.xi,
            rows=batch_images(session.batch_size, defense.tile),
            finished=finished,
            kept=store.get_blob,
        ):
            with store.batch():
                for name, tensor in each.sums.items():
                    store.put_blob(name, tensor)
                store.append(GRADIENT_DRAWS.table, each.draws)
                store.append(GRADIENT_BLOCKS.table, each.blocks)
                store.append(GRADIENT_MEANS.table, each.means)
            count += len(each.draws)
            session.progress(count)

    @classmethod
    def report(cls, store: RecordStore) -> GradientReport:
        """Compute the report of a run from its records alone, one image in memory at a time."""
        images = []
        for (sample,) in sorted(store.done(GRADIENT_MEANS.table)):
            draws, blocks, means = (store.rows(t.table, {"sample": sample}) for t in cls.tables)
            images.append(image_gradients(sample, draws, blocks, means[0]))
        report = GradientReport(
            run=store.folder,
            settings=store.settings,
            result=GradientResult(tuple(images)),
            target=cls.target,
            agreement=cls.agreement,
        )
        return report.with_notes(*_notes(report))

    def after(self, report: GradientReport, loaded: LoadedModel) -> GradientReport:
        """Ask for the draws that reach other targets."""
        return replace(report, target=self.target, agreement=self.agreement)

    def pictures(
        self, report: GradientReport, loaded: LoadedModel, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the figure with the targets of this command."""
        from advpure.analysis.gradient_noise.figure import draw_gradients

        return {} if plot is None else {"plot": str(draw_gradients(report, plot))}


def starting_points(defense: Defense, batch: Batch, start: GradientSettings | None) -> Batch:
    """Return the points at which gradients are taken: the images, or random starts."""
    if start is None:
        return batch
    everything = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    return batch._replace(images=first_iterates(Oracle(defense, start), batch, None, everything))


def _notes(report: GradientReport) -> Iterator[str]:
    result, n = report.result, len(report.result.images)
    draws = report.settings["draws"] + report.settings["reference"]
    if result.zero:
        yield (
            f"the gradient of {result.zero} of {n} images was exactly zero in all {draws} draws: "
            "an attack is blind there, which is no robustness; they are left out of every mean"
        )
    if result.constant:
        yield (
            f"the gradient of {result.constant} of {n} images does not depend on the randomness: "
            "it has no signal-to-noise ratio, and one draw is enough"
        )
    if result.unresolved:
        yield (
            f"the mean gradient of {result.unresolved} of {n} images is lost in the noise of "
            f"{draws} draws: they have no cosine, are left out of the curves, and count as needing "
            "more draws than any number"
        )
    largest = result.largest()
    if largest is not None and largest.value > _RARE:
        yield (
            f"a single gradient holds {100 * largest.value:.0f} % of the squared norms of {draws} "
            "draws (median over images): with such rare large gradients trust the measured curve, "
            "not the closed form, or try loss margin"
        )
    yield from report.to_do(n)
