"""``advpure measure``: values of a metric for every image, recorded."""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli.flatten import flattened, without

if TYPE_CHECKING:
    from advpure.analysis.metrics.measure import Measurements


@flattened
def measure(
    *,
    metric: Annotated[str, typer.Argument(help="Metric; `advpure models` lists them.")],
    subject: g.Subject,
    running: Annotated[g.Running, without("plot", "dry_run")],
) -> None:
    """Measure a purifier on every image; print the mean of every value.

    Example: advpure measure distance --defense ddim --t 100
    """
    from advpure.analysis.metrics.measure import measure as run
    from advpure.analysis.subject import Subject
    from advpure.cli import output
    from advpure.core.randomness import RandomnessConfig

    told = subject.settings()
    xi = RandomnessConfig(told.pop("seed"), told["scheme"])
    about = Subject(**told)
    purifier, images = about.load_purifier(xi), about.load_images()
    batch = 64 if running.batch_size is None else running.batch_size
    with output.progress("measuring", len(images.ids), running.shown) as bar:
        found = run(metric, purifier, images, out=running.out, batch_size=batch, progress=bar)
    title = f"{about.dataset}, metric {metric}, defense {about.defense}, seed {xi.seed}"
    output.print_report(found, lambda: _print(found, title), running.as_json)


def _print(found: "Measurements", title: str) -> None:
    from advpure.cli import output

    print(title)
    rows = [
        [
            str(place), f"{mean.value:.4f}", "" if mean.std is None else f"{mean.std:.4f}",
            "" if mean.interval is None
            else f"[{mean.interval.low:.4f}, {mean.interval.high:.4f}]", str(mean.n),
        ]
        for place, mean in found.means().items()
    ]  # fmt: skip
    output.print_table(["place", "mean", "std over images", "95 % interval", "n"], rows)
