"""``advpure measure``: values of a metric for every image, recorded."""

from typing import Annotated

import typer

from advpure.cli import options as o


def measure(
    metric: Annotated[str, typer.Argument(help="Metric; `advpure models` lists them.")],
    defense: o.Defense = "cm",
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    t: o.Strength = None,
    sigma: o.Sigma = None,
    option: o.Options = None,
    seed: o.Seed = 0,
    scheme: o.Scheme = "hash",
    weights: o.Weights = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure a purifier on every image; print the mean of every value.

    Example: advpure measure distance --defense ddim --t 100
    """
    from advpure.analysis.metrics import measure as run
    from advpure.cli import output
    from advpure.data import load_images
    from advpure.loading import load_purifier
    from advpure.randomness import RandomnessConfig

    purifier = load_purifier(
        defense, dataset, t=t, sigma=sigma, xi=RandomnessConfig(seed, scheme),  # type: ignore[arg-type]
        weights=weights, tile=tile, **o.parse_options(option),  # type: ignore[arg-type]
    ).to(device)  # fmt: skip
    images = load_images(dataset, n=o.count(n, dataset), subset=subset)
    images = images._replace(images=images.images.to(device))
    with output.progress("measuring", len(images.ids), not (quiet or as_json)) as bar:
        found = run(metric, purifier, images, out=out, batch_size=batch_size or 64, progress=bar)
    if as_json:
        output.print_json(found.to_json())
        return
    print(f"{dataset}, metric {metric}, defense {defense}, seed {seed}")
    rows = [
        [
            str(place), f"{mean.value:.4f}", "" if mean.std is None else f"{mean.std:.4f}",
            "" if mean.interval is None
            else f"[{mean.interval.low:.4f}, {mean.interval.high:.4f}]", str(mean.n),
        ]
        for place, mean in found.means().items()
    ]  # fmt: skip
    output.print_table(["place", "mean", "std over images", "95 % interval", "n"], rows)
    for text in found.notes:
        output.note(text)
    print(f"records: {found.run}")
