"""Certificates from where they lie: run folders, shards of runs, and logs of anybody.

Run folders of one run (its shards, computed apart) are read together, as if one process had
counted. A run is read as it was asked, or otherwise: at another alpha, by another procedure, with
fewer samples; a log holds what its program decided.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.logs import near_threshold, read_log
from advpure.analysis.certification.naming import names_of
from advpure.analysis.certification.procedures import Fixed, Predict, Reading
from advpure.analysis.certification.report import make_curves, reading_json, reading_of
from advpure.analysis.certification.tallies import Tallies
from advpure.errors import BadInput
from advpure.records import RecordStore

FILE_NAME = "records.sqlite"


class Sources(NamedTuple):
    """What was read.

    Attributes:
        curves: Certificates per run and noise level, and per log; their names are distinct.
        radii: The radii that the first run was asked for; None where there are logs only.
        notes: What a careful reader should know, in sentences.
        logs: How many of the curves, the last ones, are of logs.
    """

    curves: tuple[CertifiedImages, ...]
    radii: tuple[float, ...] | None
    notes: tuple[str, ...]
    logs: int = 0


def read_sources(
    paths: Sequence[str | Path], *, sigmas: Sequence[float] = (),
    log_alpha: float | None = None, **changes: Any,
) -> Sources:  # fmt: skip
    """Read run folders and logs.

    Args:
        paths: Run folders of `certify`, and certification logs, in any order.
        sigmas: Noise levels of the logs, in their order; by default what their paths say.
        log_alpha: Probability of error of the logs' certificates, if known.
        changes: How to read runs otherwise: `alpha`, `procedure`, `samples`, `joint`, `radii`.

    Returns:
        The certificates.

    Raises:
        BadInput: for a path that is neither, or runs that cannot be read in that way.
    """
    folders = [Path(path) for path in paths if (Path(path) / FILE_NAME).is_file()]
    files = [Path(path) for path in paths if Path(path) not in folders]
    if sigmas and len(sigmas) != len(files):
        raise BadInput(
            f"{len(sigmas)} noise levels", f"do not match {len(files)} logs", "give one each"
        )
    curves: list[CertifiedImages] = []
    notes: list[str] = []
    radii = None
    runs = _by_run(folders)
    readings = [reading_of(settings, **changes) for settings, _ in runs]
    names = names_of(
        [
            {**run, "reading": reading_json(reading)}
            for (run, _), reading in zip(runs, readings, strict=True)
        ]
    )
    for name, (settings, stores), reading in zip(names, runs, readings, strict=True):
        radii = radii or reading.radii
        found, told = _read_run(name, settings, reading, stores)
        curves += found
        notes += [*told, *(reading.notes() if changes else [])]
    for k, path in enumerate(files):
        if path.is_dir():
            raise BadInput(str(path), "is no run folder of certify", f"it lacks {FILE_NAME}")
        curves.append(read_log(path, sigma=sigmas[k] if sigmas else None, alpha=log_alpha))
        notes += curves[-1].notes
    named = _distinct(curves)
    counts = {curve.name: len(curve) for curve in named}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        notes.append(f"the numbers of images differ ({listed}); compare with care")
    return Sources(named, radii, tuple(dict.fromkeys(notes)), len(files))


def threshold_notes(curves: Sequence[CertifiedImages], radii: tuple[float, ...]) -> list[str]:
    """Say for which radii asked for the rounding of a log's radii could matter."""
    notes = []
    for curve in curves:
        for radius, count in near_threshold(curve, radii).items():
            notes.append(
                f"{curve.name}: {count} radii are {radius:g} as written, to 3 digits; their true "
                "values may be just below"
            )
    return notes


def _by_run(folders: Sequence[Path]) -> list[tuple[dict[str, Any], list[Path]]]:
    """Group folders by the run that they hold."""
    groups: dict[str, tuple[dict[str, Any], list[Path]]] = {}
    for folder in folders:
        with RecordStore.read(folder) as store:
            verb = store.settings.get("verb")
            if verb != "certify":
                raise BadInput(
                    f"run {folder}", f"is one of {verb}, not of certify", "name one of certify"
                )
            groups.setdefault(store.run, (store.settings, []))[1].append(folder)
    return list(groups.values())


def _read_run(
    name: str, settings: dict[str, Any], reading: Reading, folders: Sequence[Path]
) -> tuple[list[CertifiedImages], list[str]]:
    tallies = Tallies()
    for folder in folders:
        with RecordStore.read(folder) as store:
            tallies.read([store])
    n = settings["n"]
    curves = [
        curve.images for curve in make_curves(name, reading, tallies, asked=reading_of(settings))
    ]
    done = min((len(curve) for curve in curves), default=0)
    adaptive = settings["reading"]["procedure"] in ("anytime", "cascade")
    if adaptive and isinstance(reading, Fixed | Predict) and done < n:
        raise BadInput(
            f"run {folders[0]}",
            f"has {reading.samples:,} samples of {done} of {n} images only, and which ones its "
            "counts decided",
            f"read it with --procedure {settings['reading']['procedure']}",
        )
    if not curves:
        raise BadInput(
            f"run {folders[0]}",
            f"has no image with {reading.samples:,} samples",
            "let it go on, or read fewer samples",
        )
    notes = [f"{name}: {done} of {n} images are done"] if done < n else []
    return curves, notes


def _distinct(curves: Sequence[CertifiedImages]) -> tuple[CertifiedImages, ...]:
    """Number the curves whose name is taken: logs of one name, runs that differ in nothing."""
    from dataclasses import replace

    found: dict[str, CertifiedImages] = {}
    for curve in curves:
        name, k = curve.name, 2
        while name in found:
            name, k = f"{curve.name} ({k})", k + 1
        found[name] = replace(curve, name=name)
    return tuple(found.values())
