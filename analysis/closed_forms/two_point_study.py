"""Two points under noise as a study: example 3.1 of [Li2024] beside its closed forms."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from advpure.analysis.closed_forms.two_point import TwoPointLaw, simulate_two_points, two_point_law
from advpure.analysis.study import Columns, Loaded, Report, Session, Study
from advpure.base.budget import PATH_NODES, check_repeats
from advpure.base.display import Display, Table, written
from advpure.base.errors import BadInput
from advpure.base.kinds import Seed, Several
from advpure.base.text import several
from advpure.base.validation import Range, number, validate
from advpure.core.randomness import RandomnessConfig
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, Mean, Rate, mean_interval, wilson

_LEVELS = Range(least=1e-6, most=1e6)  # of points at distance 2: beyond, nothing or all is noise
TWO_POINT = Schema(
    "two_point", {"t": float, "draw": Count}, {"x": float, "one_shot": float, "ode": float}
)
"""A point and what the two purifiers make of it."""


class TwoPointLevel(NamedTuple):
    """One noise level: simulated values and closed forms.

    Attributes:
        t: The noise.
        one_shot: Transport of the one-shot purifier, simulated.
        ode: Transport of the ODE, simulated.
        off_one_shot: Distance of the one-shot answer from the nearer point, simulated.
        off_ode: The ODE's, simulated.
        wrong: Share of one-shot answers with the wrong sign.
        law: The closed forms.
    """

    t: float
    one_shot: Mean
    ode: Mean
    off_one_shot: Mean
    off_ode: Mean
    wrong: Rate
    law: TwoPointLaw

    @classmethod
    def of(cls, t: float, rows: Sequence[Row]) -> "TwoPointLevel":
        """Summarise the rows of a level."""
        x, one_shot, ode = (np.array([row[k] for row in rows]) for k in ("x", "one_shot", "ode"))
        return cls(
            t,
            one_shot=mean_interval(np.abs(x - one_shot), within=NOT_NEGATIVE),
            ode=mean_interval(np.abs(x - ode), within=NOT_NEGATIVE),
            off_one_shot=mean_interval(np.abs(1.0 - np.abs(one_shot)), within=NOT_NEGATIVE),
            off_ode=mean_interval(np.abs(1.0 - np.abs(ode)), within=NOT_NEGATIVE),
            wrong=wilson(int((np.sign(one_shot) != x).sum()), len(x)),
            law=two_point_law(t),
        )


@dataclass(frozen=True, kw_only=True)
class TwoPointReport(Report):
    """The result of a simulation, computed from its records.

    Attributes:
        levels: Noise levels, increasing.
    """

    levels: tuple[TwoPointLevel, ...]

    def tree(self) -> dict[str, Any]:
        """Return one entry of `rows` for each noise level, `exact` its closed forms."""
        simulated = ("one_shot", "ode", "off_one_shot", "off_ode", "wrong")
        return {
            "rows": [
                {
                    "t": level.t,
                    "n": level.ode.n,
                    **{name: Estimate.of(getattr(level, name)) for name in simulated},
                    "exact": level.law._asdict(),
                }
                for level in self.levels
            ]
        }

    def display(self) -> Display:
        """Return the simulated values beside the closed forms."""
        rows = [
            [f"{level.t:g}", name, written(simulated, ".4f"), f"{exact:.4f}"]
            for level in self.levels
            for name, simulated, exact in (
                ("one-shot", level.one_shot, level.law.one_shot),
                ("PF-ODE", level.ode, level.law.ode),
                ("one-shot, to the nearer point", level.off_one_shot, level.law.off_manifold),
                ("PF-ODE, to the nearer point", level.off_ode, 0.0),
                ("wrong sign, both", level.wrong, level.law.wrong),
            )
        ]
        return Display(
            f"two points at -1 and 1, {self.settings['draws']} draws: mean distances in units of "
            "the points",
            (Table(("t", "quantity", "simulated", "closed form"), rows),),
        )


@dataclass(frozen=True, kw_only=True)
class TwoPoint(Study[Loaded, TwoPointReport]):
    """Print the transport of one-shot denoising and of the ODE: simulated and exact.

    Example: advpure two-point --noise 0.5,1,2 --plot two-point.png

    Attributes:
        noise: Noise t in units of the points, above 0, a list such as 0.5,1,2.
        draws: Noisy points at every level, half of them at -1 and half at 1.
        nodes: Nodes of the ODE's grid.
        seed: Seed of the noise.
    """

    verb: ClassVar[str] = "two-point"
    doing: ClassVar[str] = "purifying points"
    tables: ClassVar[tuple[Schema, ...]] = (TWO_POINT,)
    figure: ClassVar[str] = "advpure.analysis.closed_forms.two_point_figure:two_point_figure"
    columns: ClassVar[Columns] = {
        "one-shot": {"at": "rows.0.one_shot"},
        "PF-ODE": {"at": "rows.0.ode"},
    }

    noise: str | float | Sequence[str | float] = "0.25,0.5,1,2"
    draws: Several = 10_000
    nodes: Several = 18
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check the numbers, and that the noise is a list of levels."""
        validate(self)
        self.levels()
        check_repeats(self.draws * self.nodes, "nodes of all paths", PATH_NODES)

    def levels(self) -> tuple[float, ...]:
        """Return the noise levels, increasing.

        Raises:
            BadInput: for none, or one that is not positive or given twice.
        """
        levels = several(
            self.noise, lambda one: number(one, "noise", _LEVELS), "noise levels", "write 0.5,1,2"
        )
        return tuple(sorted(levels))

    def load(self) -> Loaded:
        """Resolve the settings."""
        return Loaded(
            settings={"verb": self.verb, **asdict(self), "noise": list(self.levels())},
            context=collect_context(dtype="float64", sources=source_digests(simulate_two_points)),
        )

    def total(self, loaded: Loaded) -> int:
        """Return the number of points."""
        return self.draws * len(self.levels())

    def cost(self, loaded: Loaded) -> Cost:
        """Return the cost: no network is evaluated."""
        points = self.total(loaded)
        return Cost(points, 0, 0, 1e-6 * points * self.nodes, 0)

    def measure(self, session: Session[Loaded]) -> None:
        """Purify all points of a level together, and record every answer."""
        done = {t for (t,) in session.store.done(TWO_POINT.table, "t")}
        session.progress(len(done) * self.draws)
        for t in self.levels():
            if t in done:
                continue
            answers = simulate_two_points(
                t, self.draws, RandomnessConfig(self.seed), nodes=self.nodes
            )
            columns = zip(*(each.tolist() for each in answers), strict=True)
            rows = [
                {"t": t, "draw": k, "x": x, "one_shot": one, "ode": ode}
                for k, (x, one, ode) in enumerate(columns)
            ]
            session.store.append(TWO_POINT.table, rows)
            done.add(t)
            session.progress(len(done) * self.draws)

    @classmethod
    def report(cls, store: RecordStore) -> TwoPointReport:
        """Compute the report of a run from its records alone."""
        grouped: dict[float, list[Row]] = {}
        for row in store.rows(TWO_POINT.table):
            grouped.setdefault(row["t"], []).append(row)
        if not grouped:
            raise BadInput(str(store.folder), "has no rows yet", "run it first")
        levels = tuple(TwoPointLevel.of(t, grouped[t]) for t in sorted(grouped))
        return TwoPointReport(run=store.folder, settings=store.settings, levels=levels)
