"""Certification logs: ``idx label predict radius correct time``, in and out.

What is understood, beside the form of the first published code [Cohen2019]:

* no header, and no column idx (rRCM): images are numbered by line;
* the column ``correct`` as 0 and 1 or as True and False, which is compared with label and
  prediction; a running total there (diffusion denoised smoothing), or anything else that is not
  label = predict, makes a note, and label and prediction count;
* an image that is not certified at any radius, be it right or wrong: prediction -1 (abstains) or
  -2, or radius -1;
* the position in the data set in a column ``original_idx``, where idx counts lines;
* tabs, commas, or any blanks; other orders of the columns, under a header; blank and repeated
  header lines, as resumed runs leave them; lines that are there twice;
* a last line that was cut off before its end: it is left out, and a note says so.

Radii are read as they stand. Most programs print three digits, rounded to nearest; an image whose
true radius is just below a threshold may then count as certified there, and a note says how many
could. Files written here hold radii with all digits, rounded down.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.radius import ABSTAIN
from advpure.base.budget import read_text
from advpure.base.errors import BadInput
from advpure.base.storage import atomic_path, refuse_source
from advpure.base.validation import shown

HEADER = ("idx", "label", "predict", "radius", "correct", "time")
_NEEDED = ("label", "predict", "radius")
_ENDINGS = (".tsv", ".txt", ".log")
_NO_TIME = "-"
_ORIGINAL = "original_idx"
_ELSE = -2  # the prediction of programs that tell "not certified" from "abstains"
_NO_RADIUS = -1.0
_TRUTHS = {"true": 1, "false": 0}
_TIME = re.compile(
    r"-?|[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?|([0-9]+ days?, )?[0-9]+:[0-9]{2}:[0-9]{2}(\.[0-9]*)?"
)
_FARTHEST = 8.3  # noise levels; 10**15 samples that all agree, at alpha 0.5, certify 8.0 of them
_MOST = 2**53  # above it, a floating-point number is no longer every whole number
_FORM = "a log has the columns idx label predict radius correct time"
_SIGMA = re.compile(r"(?:sigma|noise)[_=-]?(\d+(?:\.\d+)?)", re.IGNORECASE)


def read_log(
    path: str | Path, *, sigma: float | None = None, alpha: float | None = None
) -> CertifiedImages:
    """Read a certification log.

    Args:
        path: The file.
        sigma: Noise level of the certificates; by default what the path says, as in
            ``noise_0.25`` or ``sigma_0.50``.
        alpha: Probability of error of its certificates, which no log says.

    Raises:
        BadInput: for a file that is no such log, naming the line.
    """
    path = Path(path)
    rows, notes, by_line = _parse(path, _read_text(path))
    label, predict, radius = (rows[name] for name in _NEEDED)
    ids, first = np.unique(np.array(rows["idx"], dtype=np.int64), return_index=True)
    columns = [np.array(each, dtype=np.int64) for each in (label, predict)]
    radii = np.array(radius, dtype=np.float64)
    for k, image in enumerate(rows["idx"]):
        index = first[np.searchsorted(ids, image)]
        if any(column[k] != column[index] for column in (*columns, radii)):
            raise BadInput(
                f"image {image} of {path.name}", "is there twice, with other results", "keep one"
            )
    if len(ids) < len(radii):
        notes.append(f"{path.name}: {len(radii) - len(ids)} lines are there twice; read once")
    notes += _contradictions(path, rows)
    certified = (columns[1] >= 0) & (radii >= 0.0)
    foreign = int(((columns[1] < ABSTAIN) | (radii < 0.0))[first].sum())
    if foreign:
        notes.append(
            f"{path.name}: {foreign} images with prediction {_ELSE} or radius {_NO_RADIUS:g} are "
            "not certified at any radius; read as abstentions"
        )
    undecided = int(((columns[1] == ABSTAIN) & (radii > 0.0))[first].sum())
    if undecided:
        notes.append(
            f"{path.name}: {undecided} abstentions have a radius above 0; read as abstentions"
        )
    columns[1] = np.where(certified, columns[1], ABSTAIN)
    radii = np.maximum(radii, 0.0)
    level = _sigma_of(path) if sigma is None else sigma
    _check_reach(path, radii, level)
    return CertifiedImages(
        name=path.stem if path.suffix in (".tsv", ".txt", ".csv", ".log") else path.name,
        ids=ids,
        labels=columns[0][first],
        predictions=columns[1][first],
        radii=radii[first],
        sigma=level,
        alpha=alpha,
        times=tuple(str(rows["time"][k]) for k in first) if "time" in rows else (),
        by_line=by_line,
        notes=tuple(notes),
    )


def _check_reach(path: Path, radii: npt.NDArray[np.float64], sigma: float | None) -> None:
    """Refuse radii that no number of samples certifies at a noise level."""
    farthest = float(radii.max(initial=0.0))
    if sigma is not None and farthest > _FARTHEST * sigma:
        raise BadInput(
            f"radius {farthest:g} of {path.name} at sigma {sigma:g}",
            f"is {farthest / sigma:.3g} sigma, which no number of samples certifies",
            "the sigma must be wrong: give that of the log with --sigma",
        )


def _contradictions(path: Path, rows: Mapping[str, Sequence[str | int | float]]) -> list[str]:
    """Compare the column correct with what label, prediction and radius say; a note, or none."""
    said = rows.get("correct")
    if not said:
        return []
    right = [a == b for a, b in zip(rows["label"], rows["predict"], strict=True)]
    certified = [a and float(r) >= 0.0 for a, r in zip(right, rows["radius"], strict=True)]
    wrong = [k for k, c in enumerate(said) if int(c) != right[k]]
    if not wrong or all(int(c) == own for c, own in zip(said, certified, strict=True)):
        return []
    return [
        f"{path.name}: its column correct is not label = predict for {len(wrong)} of {len(said)} "
        f"images, the first of them {rows['idx'][wrong[0]]} (some programs keep a running total "
        "there); computed from label and predict"
    ]


def check_log_path(path: str | Path) -> Path:
    """Return where a log goes, if its name is that of a text with tabs.

    Raises:
        BadInput: for the ending of another format, such as .csv, or the path of a folder.

    Example:
        >>> check_log_path("sigma_0.25").name
        'sigma_0.25'
        >>> check_log_path("logs/cm.csv")
        Traceback (most recent call last):
        ...
        advpure.BadInput: log logs/cm.csv is written with tabs, not as .csv; write logs/cm.tsv
    """
    target = Path(path)
    if not target.name or target.is_dir():
        raise BadInput(f"log {shown(str(path))}", "names no file", "write cm.tsv")
    ending = target.suffix.lower()
    if ending not in ("", *_ENDINGS) and not ending[1:].isdigit():  # of sigma_0.25
        fix = f"write {target.with_suffix('.tsv')}"
        raise BadInput(f"log {path}", f"is written with tabs, not as {target.suffix}", fix)
    return target


def write_log(images: CertifiedImages, path: str | Path) -> Path:
    """Write a certification log; the file appears whole or not at all.

    Args:
        images: The certificates, whose radii are rounded down already.
        path: The file, of no ending or .tsv, .txt or .log.

    Returns:
        The path. A time that was never measured is written as ``-``.

    Raises:
        BadInput: for the ending of another format.
        StorageFull: when there is no room.
    """
    target = check_log_path(path)
    times = images.times or (_NO_TIME,) * len(images)
    columns = (images.ids, images.labels, images.predictions, images.radii, images.correct)
    with atomic_path(target) as scratch, scratch.open("w", encoding="utf-8") as handle:
        handle.write("\t".join(HEADER) + "\n")
        for *row, time in zip(*(column.tolist() for column in columns), times, strict=True):
            image, label, answer, radius, correct = row
            handle.write(f"{image}\t{label}\t{answer}\t{radius!r}\t{int(correct)}\t{time}\n")
    return target


def write_logs(
    curves: Sequence[CertifiedImages], path: str | Path, sources: Sequence[str | Path] = ()
) -> list[Path]:
    """Write each of several sets of certificates as a log.

    Args:
        curves: The certificates.
        path: The file; of several, ``sigma_0.25`` or ``cascade`` goes before the ending.
        sources: What the certificates were read from, which stays as it is.

    Returns:
        The files.

    Raises:
        BadInput: for the ending of another format, or the path of a source.
        StorageFull: when there is no room.
    """
    target = check_log_path(path)
    files = [target] if len(curves) == 1 else []
    for curve in curves if not files else ():
        label = f"sigma_{curve.sigma:g}" if curve.sigma is not None else "cascade"
        file = target.with_name(f"{target.stem}_{label}{target.suffix}")
        if file in files:
            file = target.with_name(f"{target.stem}_{len(files)}_{label}{target.suffix}")
        files.append(file)
    for file in files:
        refuse_source(file, sources)
    return [write_log(curve, file) for curve, file in zip(curves, files, strict=True)]


def near_threshold(images: CertifiedImages, radii: tuple[float, ...]) -> dict[float, int]:
    """Count, per radius above 0, the images whose radius, if rounded to 3 digits, may be below it.

    Example:
        >>> columns = {name: np.arange(2) for name in ("ids", "labels", "predictions")}
        >>> images = CertifiedImages(name="", **columns, radii=np.array([0.25, 0.3]))
        >>> near_threshold(images, (0.0, 0.25, 0.5))
        {0.25: 1}
    """
    own = images.radii[images.correct]
    coarse = own[[float(f"{radius:.3g}") == radius for radius in own.tolist()]]
    step = np.power(10.0, np.floor(np.log10(np.maximum(coarse, 1e-9))) - 2)
    counts = {
        radius: int(((coarse >= radius) & (coarse - step / 2 < radius)).sum())
        for radius in radii
        if radius > 0.0
    }
    return {radius: count for radius, count in counts.items() if count}


def _read_text(path: Path) -> str:
    try:
        is_there, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # no name of any file
        is_there = is_folder = False
    if not is_there:
        rule = "is a folder" if is_folder else "is not there"
        raise BadInput(f"log {shown(str(path))}", rule, "name a file or a run folder")
    return read_text(path, "log")


def _parse(path: Path, text: str) -> tuple[dict[str, list[str | int | float]], list[str], bool]:
    """Return the columns of a log, notes about what was mended, and whether idx is the line."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise BadInput(f"log {path}", "is empty", _FORM)
    commas = "," in lines[0][1] and "\t" not in lines[0][1]
    names = _header(lines[0][1], commas) or _guess(path, _fields(lines[0][1], commas))
    if _ORIGINAL in names:
        names = tuple({"idx": "line", _ORIGINAL: "idx"}.get(name, name) for name in names)
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise BadInput(f"log {path}", f"has two columns {shown(twice[0])}", _FORM)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        more = ", such as the output of predict" if "radius" in missing else ""
        raise BadInput(f"log {path}", f"has no column {missing[0]}{more}", _FORM)
    rows: dict[str, list[str | int | float]] = {name: [] for name in names}
    notes = []
    if "idx" not in names:
        rows["idx"] = []
        notes.append(f"{path.name}: no column idx; images are numbered by line, from 0")
    for index, (number, line) in enumerate(lines):
        if _header(line, commas):
            continue
        fields = _fields(line, commas)
        is_cut = index == len(lines) - 1 and not text.endswith("\n")
        broken = _broken(names, fields, is_cut)
        if broken is None:
            if "idx" not in names:
                rows["idx"].append(len(rows["idx"]))
            for name, field in zip(names, [*fields, _NO_TIME], strict=False):
                rows[name].append(_value(name, field))
        elif is_cut and rows["label"]:
            notes.append(f"{path.name}: its last line is cut off, and left out")
        else:
            raise BadInput(f"line {number} of {path}", broken, _FORM)
    if not rows["label"]:
        raise BadInput(f"log {path}", "holds a header and no image", "let the run go on")
    if names[-1] != "time" and not text.endswith("\n"):
        notes.append(f"{path.name}: its last line has no end; its {names[-1]} may be cut off")
    return rows, notes, "idx" not in names


def _header(line: str, commas: bool) -> tuple[str, ...] | None:
    fields = tuple(field.strip().lower() for field in _fields(line, commas))
    return fields if "label" in fields or "predict" in fields else None


def _guess(path: Path, fields: list[str]) -> tuple[str, ...]:
    """Name the columns of a log without a header by their number."""
    if len(fields) == 6:
        return HEADER
    if len(fields) in (4, 5):
        return HEADER[1 : 1 + len(fields)]
    raise BadInput(f"log {path}", f"has {len(fields)} columns and no header", _FORM)


def _fields(line: str, commas: bool) -> list[str]:
    if "\t" in line or commas:
        return line.split("\t" if "\t" in line else ",")
    return line.split()


def _broken(names: tuple[str, ...], fields: list[str], is_cut: bool) -> str | None:
    """Return what is wrong with a line, if anything; the time of a cut line is not looked at."""
    least = max(names.index(name) for name in _NEEDED) + 1
    most = len(names)
    whole = most - 1 if names[-1] == "time" else most  # nothing depends on a missing time
    if not max(least, whole) <= len(fields) <= most:
        return f"has {len(fields)} of {len(names)} columns"
    for name, field in zip(names, fields, strict=False):
        try:
            value = _value(name, field)
        except ValueError:
            return f"has no number in column {name} ({field.strip()!r:.40})"
        if name == "idx" and int(value) < 0:
            return f"has idx {value}, which is no position in a data set"
        if name == "time" and not is_cut and not _TIME.fullmatch(str(value)):
            return f"has time {shown(value)}, which is neither seconds, h:mm:ss nor -"
        if name == "label" and int(value) < 0:
            return f"has label {value}, which is no class: -1 means that a classifier abstains"
        if name == "predict" and int(value) < _ELSE:
            return f"has prediction {value}, which is neither a class nor -1 (abstains)"
        if name == "radius" and value != _NO_RADIUS and not 0.0 <= float(value) < float("inf"):
            return f"has radius {value}, which is negative or not finite"
    return None


def _value(name: str, field: str) -> str | int | float:
    text = field.strip()
    if name == "correct" and text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    if name in ("idx", "label", "predict", "correct", "radius"):
        if not text.isascii() or "_" in text:  # Python would read more than any program writes
            raise ValueError(text)
        number = float(text)
        if name == "radius":
            return number
        if not number.is_integer() or abs(number) >= _MOST:
            raise ValueError(text)
        return int(number)
    return text


def _sigma_of(path: Path) -> float | None:
    """Read the noise level from the last part of a path that names one."""
    for part in reversed(path.parts[-4:]):
        if levels := _SIGMA.findall(part):
            return float(levels[-1])
    return None
