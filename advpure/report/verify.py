"""One image of a run computed again from its records alone, and compared row by row.

The settings that the run keeps make the study again, for one image. What comes out must be what is
stored, to the last bit: the bytes of the image, the sha256 of the weights, every setting and every
row.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import torch
from annotated_types import Ge, Le

from advpure.analysis.study import Study
from advpure.base.display import Display
from advpure.base.errors import BadInput
from advpure.base.flags import Positional, is_beside
from advpure.base.imports import untrusted
from advpure.base.kinds import Whole
from advpure.base.validation import validate
from advpure.report.runs import sample_key, samples_of, study_of
from advpure.runs.export import check_run
from advpure.runs.header import NUMERIC_CONTEXT, canonical_json, changed_images, flatten
from advpure.runs.records import RecordStore, Row

_CLOCK = "seconds"
"""A column that no second run repeats."""


class Check(NamedTuple):
    """One thing that has to come out.

    Attributes:
        what: What was looked at.
        words: What was seen.
        passed: Whether it is as recorded; None for what the records do not say.
    """

    what: str
    words: str
    passed: bool | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came out of computing an image again.

    Attributes:
        run: The run folder.
        sample: Id of the image; None for a run without images.
        checks: What was looked at, in order; after one that failed nothing is computed.
        rows: Rows that were compared.
        seconds: Wall time.
        notes: What may explain a difference.
    """

    run: Path
    sample: int | None
    checks: tuple[Check, ...]
    rows: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything came out."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {
            "run": str(self.run),
            "sample": self.sample,
            "passed": self.passed,
            "rows": self.rows,
            "checks": [check._asdict() for check in self.checks],
            "seconds": self.seconds,
            "notes": list(self.notes),
        }

    def display(self) -> Display:
        """Return what the command line prints."""
        which = "the run" if self.sample is None else f"image {self.sample}"
        words = "comes out as recorded" if self.passed else "does not come out as recorded"
        marks = {True: "as recorded", False: "differs", None: "not recorded"}
        lines = [
            f"{check.what:<11}  {marks[check.passed]:<12}  {check.words}" for check in self.checks
        ]
        return Display(
            f"{self.run}: {which} {words} ({self.rows} rows, {self.seconds:.2g} s)", lines
        )


@dataclass(frozen=True, kw_only=True)
class Verification:
    """Compute one image of a run again from its records, and compare every row with what is stored.

    The exit code is 1 when an image, weights, a setting or a row is not what the run recorded.

    Example: advpure verify runs/attack-0123456789ab --sample 17

    Attributes:
        run: Run folder.
        sample: Id of the image. Default: one that the name of the run picks.
        tolerance: Relative difference of numbers that passes, at most 1; 0 asks for the same bits.
        trust: Run code that the records name, such as file.py:Purifier; its hash is compared.
    """

    run: Annotated[str, Positional()]
    sample: Whole | None = None
    tolerance: Annotated[float, Ge(0), Le(1)] = 0.0
    trust: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)

    def verify(self) -> Verdict:
        """Compute the image again.

        Returns:
            The verdict. Cost: what the study costs for one image.

        Raises:
            BadInput: for a folder that holds no run, a sample that it has no rows of, or a run
                that does not say how it was made.
        """
        start = time.perf_counter()
        integrity = check_run(self.run)
        checks = [Check("records", integrity.words, integrity.intact)]
        sample, rows, notes = self.sample, 0, list[str]()
        if integrity.intact:
            with RecordStore.read(self.run) as store, tempfile.TemporaryDirectory() as scratch:
                sample = self._sample(store)
                with untrusted(self.trust):
                    rest, rows = _compute(store, sample, Path(scratch), self.tolerance)
                checks += rest.checks
                notes = rest.notes
        return Verdict(
            run=Path(self.run),
            sample=sample,
            checks=tuple(checks),
            rows=rows,
            seconds=time.perf_counter() - start,
            notes=tuple(notes),
        )

    def _sample(self, store: RecordStore) -> int | None:
        """Return the image to compute."""
        done = samples_of(store)
        if not done:
            if sample_key(store.schemas[0].keys) is not None:
                raise BadInput(self.run, "has no rows yet", "run its command again")
            if self.sample is not None:
                raise BadInput(
                    f"sample {self.sample}", "is of a run without images", "leave it out"
                )
            return None
        if self.sample is None:
            return done[int(store.run, 16) % len(done)]
        if self.sample not in done:
            listed = ", ".join(map(str, done[:8])) + (", ..." if len(done) > 8 else "")
            raise BadInput(
                f"sample {self.sample}", f"has no rows in {self.run}", f"known: {listed}"
            )
        return self.sample


class _Found(NamedTuple):
    checks: list[Check]
    notes: list[str]


def _compute(
    store: RecordStore, sample: int | None, scratch: Path, tolerance: float
) -> tuple[_Found, int]:
    """Check what the study loads, then compute its rows again unless that differs."""
    study = _for_one(study_of(store).recorded(store), store, sample, scratch)
    recorded = store.context
    with _threads(recorded.get("threads")):
        loaded = study.load()
        if sample is not None and not _has_subset(study):
            loaded = study.share(loaded, (sample + 1, store.settings["n"]))
        now = {**loaded.context, **study.origin(loaded)}
        checks = [
            _weights(recorded, now),
            _settings(store.settings, loaded.settings, study.of_the_images),
        ]
        if sample is not None:
            checks.insert(0, _image(recorded, now, sample))
        found = _Found(checks, list(_elsewhere(recorded, now)))
        if any(check.passed is False for check in found.checks):
            return found, 0
        study.run(out=scratch / "run", loaded=study.as_recorded(loaded, store, sample))
    with RecordStore.read(scratch / "run") as again:
        check, rows = _rows(store, again, sample, tolerance)
    found.checks.append(check)
    return found, rows


def _for_one(study: Any, store: RecordStore, sample: int | None, scratch: Path) -> Study[Any, Any]:
    """Return the study of one image, without what says only what to show."""
    hints = get_type_hints(type(study), include_extras=True)
    beside = (each for each in fields(study) if is_beside(hints[each.name]))
    changes: dict[str, Any] = {each.name: each.default for each in beside}
    names = {each.name for each in fields(study)}
    if "keep_images" in names:
        changes["keep_images"] = bool(store.blobs())
    changes |= {name: None for name in ("shard", "until") if name in names}
    if sample is not None and _has_subset(study):
        listed = scratch / "sample"
        listed.write_text(f"{sample}\n")
        split = "train/" if str(study.subset or "test").partition("/")[0] == "train" else ""
        changes |= {"subset": f"{split}{listed}", "n": None}
    one: Study[Any, Any] = replace(study, **changes)
    return one


def _has_subset(study: Any) -> bool:
    """Return whether images are chosen by a subset; generated ones are a part of a run instead."""
    return "subset" in {each.name for each in fields(study)}


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with as many threads as the run did: sums of other pieces round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _image(recorded: Mapping[str, Any], now: Mapping[str, Any], sample: int) -> Check:
    before = (recorded.get("images") or {}).get(str(sample))
    here = (now.get("images") or {}).get(str(sample))
    if before is None or here is None:
        return Check("image bytes", "the records keep no digest of them", None)
    return Check("image bytes", f"sha256 {here}...", not changed_images(recorded, now))


def _weights(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Check:
    before, here = dict(recorded.get("weights") or {}), dict(now.get("weights") or {})
    words = ", ".join(f"{part} sha256 {digest[:16]}..." for part, digest in here.items())
    return Check("weights", words or "none", before == here)


def _settings(
    recorded: Mapping[str, Any], now: Mapping[str, Any], of_the_images: Sequence[str]
) -> Check:
    before, here = (
        {key: value for key, value in flatten(side) if key.split(".")[0] not in of_the_images}
        for side in (recorded, json.loads(canonical_json(now)))
    )
    other = sorted(key for key in before.keys() | here.keys() if before.get(key) != here.get(key))
    words = ", ".join(f"{key} {before.get(key)} -> {here.get(key)}" for key in other[:3])
    return Check("settings", words or f"{len(here)} settings", not other)


def _elsewhere(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not as it was where the run began, and may round otherwise."""
    other = [
        f"{key} {recorded.get(key)} -> {now.get(key)}"
        for key in NUMERIC_CONTEXT
        if recorded.get(key) != now.get(key)
    ]
    if other:
        yield f"the run was computed elsewhere ({', '.join(other)}): last bits may differ"
    before, after = recorded.get("sources") or {}, now.get("sources") or {}
    edited = sorted(k for k in before.keys() & after.keys() if before[k] != after[k])
    if edited:
        yield f"the code of {', '.join(edited)} changed since the run began"


def _rows(
    store: RecordStore, again: RecordStore, sample: int | None, tolerance: float
) -> tuple[Check, int]:
    """Compare what is stored of the image with what came out."""
    compared, worst, wrong = 0, 0.0, []
    known = {schema.table for schema in again.schemas}
    for schema in (each for each in store.schemas if each.table in known):
        key = sample_key(schema.keys)
        where = {} if sample is None or key is None else {key: sample}
        before, after = (
            _by_key(each.rows(schema.table, where), schema.keys) for each in (store, again)
        )
        if not store.finished:  # what is missing there is still to be computed
            after = {name: row for name, row in after.items() if name in before}
        for name in sorted(before.keys() | after.keys(), key=str):
            compared += 1
            distance, column = _distance(before.get(name), after.get(name))
            worst = max(worst, distance)
            if distance > tolerance:
                wrong.append(f"{schema.table} {_words(name)}: {column}")
    for blob in set(store.blobs()) & set(again.blobs()):
        compared += 1
        gap = float((store.get_blob(blob) - again.get_blob(blob)).abs().max())
        worst = max(worst, gap)
        if gap > tolerance:
            wrong.append(f"{blob}: differs by up to {gap:.3g}")
    if wrong:
        words = f"{len(wrong)} of {compared} differ: {'; '.join(wrong[:3])}"
    else:
        words = f"{compared} of {compared}" + (
            ", to the last bit" if worst == 0.0 else f", within {worst:.2g}"
        )
    return Check("rows", words, not wrong and compared > 0), compared


def _by_key(rows: Sequence[Row], keys: Mapping[str, Any]) -> dict[tuple[Any, ...], Row]:
    return {tuple(row[key] for key in keys): row for row in rows}


def _words(key: tuple[Any, ...]) -> str:
    return " ".join(map(str, key))


def _distance(before: Row | None, after: Row | None) -> tuple[float, str]:
    """Return the largest relative difference between two rows, and where it is."""
    if before is None or after is None:
        return math.inf, "is not stored" if before is None else "did not come out"
    worst, where = 0.0, ""
    for name in before.keys() - {_CLOCK}:
        one, two = before[name], after[name]
        gap = _gap(one, two)
        if gap > worst:
            worst, where = gap, f"{name} {one!r:.40} -> {two!r:.40}"
    return worst, where


def _gap(one: Any, two: Any) -> float:
    """Return the relative difference of two values, infinite where they are no two floats.

    Example:
        >>> _gap(1.0, 1.0), _gap(math.nan, math.nan), _gap(1.0, 0.5), _gap(True, False)
        (0.0, 0.0, 0.5, inf)
    """
    if one == two or (one != one and two != two):
        return 0.0
    if type(one) is float and type(two) is float and math.isfinite(one) and math.isfinite(two):
        return abs(one - two) / max(abs(one), abs(two))
    return math.inf
