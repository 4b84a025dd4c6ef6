"""The picture of a compression run, from its records alone: the rates of its images."""

from pathlib import Path

from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.wording import strength_text
from advpure.plots.figures import histogram
from advpure.runs.records import RecordStore


def compression_figure(store: RecordStore, path: str | Path) -> Path:
    """Draw the distribution over images of the compression rate, one group a strength.

    Raises:
        BadInput: for a run without records, or another ending.
        StorageFull: when there is no room.
    """
    report = Compression.report(store)
    result, s = report.result, report.settings
    groups = {f"{255 * e:.3g}/255": list(result.image_means(e).values()) for e in result.eps}
    return histogram(
        groups,
        Path(path),
        xlabel="compression rate of an image",
        title=f"{strength_text(s)} on {s['dataset']}",
        caption=f"{s['distribution']} noise, {s['perturbations']} perturbations an image, "
        f"seeds {', '.join(map(str, s['seeds']))}",
    )
