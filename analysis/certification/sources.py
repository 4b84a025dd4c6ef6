"""Certificates from where they lie: run folders, shards of runs, and logs of anybody.

Run folders of one run (its shards, computed apart) are read together, as if one process had
counted. A run is read as it was asked, or otherwise: at another alpha, by another procedure, with
fewer samples; a log holds what its program decided.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.curves import (
    PLANNED,
    easy_first,
    make_curves,
    plan_of,
    procedure_json,
    procedure_of,
)
from advpure.analysis.certification.logs import near_threshold, read_log
from advpure.analysis.certification.naming import names_of
from advpure.analysis.certification.procedures import (
    Anytime,
    Cascade,
    Predict,
    Procedure,
    Sequential,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.base.errors import BadInput
from advpure.base.validation import shown
from advpure.runs.records import RecordStore

FILE_NAME = "records.sqlite"


class Sources(NamedTuple):
    """What was read.

    Attributes:
        curves: Certificates per run and noise level, and per log, in the order of the paths; their
            names are distinct.
        radii: The radii that the first run was asked for; None where there are logs only.
        notes: What a careful reader should know, in sentences.
        logs: The names of those curves that are of logs.
        joint: Of each run whose certificates hold for all noise levels at once: its name and the
            names of its curves.
    """

    curves: tuple[CertifiedImages, ...]
    radii: tuple[float, ...] | None
    notes: tuple[str, ...]
    logs: frozenset[str] = frozenset()
    joint: tuple[tuple[str, tuple[str, ...]], ...] = ()


def read_sources(
    paths: Sequence[str | Path],
    *,
    sigmas: Sequence[float] = (),
    log_alpha: float | None = None,
    **changes: Any,
) -> Sources:
    """Read run folders and logs.

    Args:
        paths: Run folders of `certify`, and certification logs, in any order.
        sigmas: Noise levels of the logs, in their order; by default what their paths say.
        log_alpha: Probability of error of the logs' certificates, if known.
        changes: Of runs another `procedure`, or `alpha`, `samples`, `joint`, `radii` of theirs.

    Returns:
        The certificates.

    Raises:
        BadInput: for a path that is neither, or runs that cannot be read in that way.
    """
    if not paths:
        raise BadInput("the list of runs and logs", "is empty", "name at least one")
    folders = [Path(path) for path in paths if _is_run(Path(path))]
    files = [Path(path) for path in paths if Path(path) not in folders]
    if sigmas and len(sigmas) != len(files):
        what = f"{len(sigmas)} noise level" + ("s" if len(sigmas) > 1 else "")
        if not files:
            raise BadInput(what, "is for logs, and runs say their own", "leave out sigma")
        raise BadInput(what, f"does not match {len(files)} logs", "give one each")
    _refuse_twice(files, "log")
    _refuse_twice(folders, "run")
    runs = _by_run(folders)
    procedures = [procedure_of(run.settings, **changes) for run in runs]
    single = all(len(procedure.sigmas) == 1 for procedure in procedures)
    if changes.get("joint") and procedures and single:
        raise BadInput("joint", "means nothing to one noise level", "leave it out")
    names = names_of(
        [
            {**run.settings, "procedure": procedure_json(procedure)}
            for run, procedure in zip(runs, procedures, strict=True)
        ]
    )
    read = {
        run.folders[0]: (name, run, procedure)
        for name, run, procedure in zip(names, runs, procedures, strict=True)
    }
    levels = iter(sigmas)
    curves: list[CertifiedImages] = []
    notes: list[str] = []
    logs: list[int] = []
    joint: list[tuple[str, range]] = []
    for path in map(Path, paths):
        if path in read:
            name, run, procedure = read.pop(path)
            own, own_notes = _read_run(name, run.settings, procedure, run.folders)
            if procedure.joint:
                joint.append((name, range(len(curves), len(curves) + len(own))))
            curves += own
            notes += [*own_notes, *(procedure.notes() if changes else [])]
            own_plan = plan_of(run.settings["procedure"])
            if isinstance(procedure, Sequential) and plan_of(procedure_json(procedure)) != own_plan:
                notes.append(f"{name}: {PLANNED}")
        elif path not in folders:
            if path.is_dir():
                raise BadInput(str(path), "is no run folder of certify", f"it lacks {FILE_NAME}")
            logs.append(len(curves))
            curves.append(read_log(path, sigma=next(levels, None), alpha=log_alpha))
            notes += curves[-1].notes
    _refuse_contradictions([curves[k] for k in logs])
    named = _distinct(curves)
    counts = {curve.name: len(curve) for curve in named}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        notes.append(f"the numbers of images differ ({listed}); compare with care")
    return Sources(
        named,
        procedures[0].radii if procedures else None,
        tuple(dict.fromkeys(notes)),
        frozenset(named[k].name for k in logs),
        tuple((name, tuple(named[k].name for k in indices)) for name, indices in joint),
    )


def threshold_notes(curves: Sequence[CertifiedImages], radii: tuple[float, ...]) -> list[str]:
    """Return for which radii asked for the rounding of a log's radii could matter."""
    notes = []
    for curve in curves:
        for radius, count in near_threshold(curve, radii).items():
            notes.append(
                f"{curve.name}: {count} radii are {radius:g} as written, to 3 digits; their true "
                "values may be just below"
            )
    return notes


def untested_notes(curves: Sequence[CertifiedImages], radii: tuple[float, ...]) -> list[str]:
    """Return which radii asked for were not tested, where certificates have tested radii alone."""
    notes = []
    for curve in curves:
        between = [] if curve.tested is None else [r for r in radii if r not in curve.tested]
        if between:
            tested = ", ".join(f"{radius:g}" for radius in curve.tested or ())
            notes.append(
                f"{curve.name}: the radii {tested} alone were tested; at "
                f"{', '.join(f'{radius:g}' for radius in between)} stands what reaches the next one"
            )
    return notes


def _refuse_twice(paths: Sequence[Path], what: str) -> None:
    """Refuse one log under two names, which would count as two classifiers, and one run."""
    seen: set[str] = set()
    for path in paths:
        target = os.path.realpath(path)
        if target in seen:
            raise BadInput(f"{what} {shown(str(path))}", "is given twice", f"name each {what} once")
        seen.add(target)


def _refuse_contradictions(logs: Sequence[CertifiedImages]) -> None:
    """Refuse logs that give one image two labels: they are of different data, or one is wrong."""
    known: dict[int, tuple[int, str]] = {}
    for log in logs:
        if log.by_line:
            continue
        for image, label in zip(log.ids.tolist(), log.labels.tolist(), strict=True):
            other, name = known.setdefault(image, (label, log.name))
            if other != label:
                raise BadInput(
                    f"image {image}",
                    f"has label {other} in {name} and {label} in {log.name}",
                    "read logs of one data set together",
                )


def _is_run(path: Path) -> bool:
    try:
        return (path / FILE_NAME).is_file()
    except (OSError, ValueError):  # no name of any file
        return False


class _Run(NamedTuple):
    """A run and the folders that its parts lie in."""

    settings: dict[str, Any]
    folders: list[Path]


def _by_run(folders: Sequence[Path]) -> list[_Run]:
    """Group folders by the run that they hold."""
    groups: dict[str, _Run] = {}
    for folder in dict.fromkeys(folders):
        with RecordStore.read(folder) as store:
            verb = store.settings.get("verb")
            if verb != "certify":
                raise BadInput(
                    f"run {folder}", f"is one of {verb}, not of certify", "name one of certify"
                )
            if store.settings.get("until"):
                rule = "stopped with its answer, which holds for the question that was asked"
                fix = "run its command again for its report"
                raise BadInput(f"run {folder}", rule, fix)
            groups.setdefault(store.run, _Run(store.settings, [])).folders.append(folder)
    return list(groups.values())


def _read_run(
    name: str, settings: dict[str, Any], procedure: Procedure, folders: Sequence[Path]
) -> tuple[list[CertifiedImages], list[str]]:
    tallies = Tallies()
    for folder in folders:
        with RecordStore.read(folder) as store:
            tallies.read([store])
    n, asked = settings["n"], procedure_of(settings)
    before = isinstance(asked, Anytime) and "prior" not in settings["procedure"]
    made = make_curves(name, procedure, tallies, asked=asked, any_count=before)
    curves = [curve.images for curve in made]
    done = min((len(curve) for curve in curves), default=0)
    levels = 1 if isinstance(procedure, Cascade) else len(procedure.sigmas)
    if (done < n or len(curves) < levels) and _chosen_by_counts(asked, procedure):
        raise BadInput(
            f"run {folders[0]}",
            "took as many samples of each image as their counts asked for, so they chose which "
            "images are complete for this procedure",
            f"read it with --procedure {asked.name} as it was made",
        )
    if not curves and isinstance(asked, Predict) and not isinstance(procedure, Predict):
        raise BadInput(
            f"run {folders[0]}",
            "has predictions, whose class was not selected by samples of its own",
            "certify anew, or read it with --procedure predict",
        )
    if not curves:
        stops = isinstance(procedure, Anytime | Cascade)
        raise BadInput(
            f"run {folders[0]}",
            f"has no image {'that is decided' if stops else f'with {procedure.samples:,} samples'}",
            "let it go on, name its other shards too, or read fewer samples",
        )
    notes = []
    if done < n:
        notes.append(f"{name}: {done} of {n} images are done{easy_first(asked, tallies, done)}")
    return curves, notes


def _chosen_by_counts(asked: Procedure, procedure: Procedure) -> bool:
    """Return whether the counts of a run decided what another procedure finds complete.

    `anytime` always takes the samples that its own run stopped at, and the radii asked for
    change nothing of a cascade.
    """
    if isinstance(asked, Anytime):
        return not isinstance(procedure, Anytime)
    return isinstance(asked, Cascade) and replace(procedure, radii=asked.radii) != asked


def _distinct(curves: Sequence[CertifiedImages]) -> tuple[CertifiedImages, ...]:
    """Number the curves whose name is taken: logs of one name, runs that differ in nothing."""
    distinct: dict[str, CertifiedImages] = {}
    for curve in curves:
        name, k = curve.name, 2
        while name in distinct:
            name, k = f"{curve.name} ({k})", k + 1
        distinct[name] = replace(curve, name=name)
    return tuple(distinct.values())
