"""The figure of a two-point run: simulated transports beside the curves of their closed forms."""

from pathlib import Path

import numpy as np

from advpure.analysis.closed_forms.two_point import two_point_law
from advpure.analysis.closed_forms.two_point_study import TwoPoint
from advpure.plots.charts import Points, Words, scatter
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Mean

_CURVE = 60


def two_point_figure(store: RecordStore, path: Path) -> Path:
    """Draw both transports against the noise: closed forms as curves, the simulation as points."""
    levels = TwoPoint.report(store).levels
    grid: list[float] = np.geomspace(levels[0].t / 1.2, levels[-1].t * 1.2, _CURVE).tolist()
    laws = [two_point_law(t) for t in grid]
    names = {"one_shot": "one-shot, posterior mean", "ode": "PF-ODE, consistency model"}
    curves = {
        f"{text}, closed form": Points(x=grid, y=[getattr(law, name) for law in laws])
        for name, text in names.items()
    }
    simulated = {}
    for name, text in names.items():
        means: list[Mean] = [getattr(level, name) for level in levels]
        simulated[f"{text}, simulated"] = Points(
            x=[level.t for level in levels],
            y=[mean.value for mean in means],
            y_low=[mean.interval.low if mean.interval else mean.value for mean in means],
            y_high=[mean.interval.high if mean.interval else mean.value for mean in means],
        )
    words = Words(
        x="noise t, in units of the points",
        y="transport: mean distance |x - pi(x + t z)|",
        title="Two points at -1 and 1",
        caption=f"Curves: closed forms. Bars: 95 % intervals of {levels[0].ode.n} simulated draws.",
    )
    return scatter(simulated, path, words, curves=curves)
