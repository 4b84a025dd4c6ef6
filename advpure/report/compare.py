"""Two runs, image by image: every estimate that both report, and how far it differs.

Estimates of the same images are compared with the images in common, others by their intervals, see
`advpure.sweeps.comparisons`. Paths are those of the reports; entries of lists are matched by what
names them, such as ``eps``, not by their place.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

from advpure.analysis.certification import largest_radius
from advpure.base.display import Display, Table, written
from advpure.base.errors import BadInput
from advpure.base.flags import Positional, Repeats
from advpure.base.validation import validate
from advpure.report.runs import Run, check_apart
from advpure.runs.header import changed_images, flatten
from advpure.statistics.estimates import Estimate, plain
from advpure.sweeps.comparisons import FAILS, HOLDS, Difference, shares_cases, subtract

LEVEL = 0.95
_NAMES = (
    "eps",
    "radius",
    "t",
    "step",
    "rank",
    "draws",
    "multiple",
    "randomness",
    "pair",
    "what",
    "perturbation",
    "purifier",
    "place",
    "measure",
    "defense",
    "seed",
    "sigma",
    "name",
    "metric",
    "class",
)
"""What names the entries of a list, what a reader looks for first."""
_SIGNS = {HOLDS: "higher", FAILS: "lower"}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One estimate of two runs.

    Attributes:
        at: Its path in the reports.
        first: That of the first run.
        second: That of the other.
        difference: The other minus the first.
        paired: Whether it is one of the images in common.
    """

    at: str
    first: Estimate
    second: Estimate
    difference: Difference
    paired: bool

    @property
    def verdict(self) -> str:
        """Whether the other run's is ``higher`` or ``lower``, or that is ``undecided``."""
        return _SIGNS.get(self.difference.verdict, "undecided")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        value, interval, n = self.difference
        return {
            "at": self.at,
            "first": _bare(self.first),
            "second": _bare(self.second),
            "difference": {
                "value": value,
                "n": n,
                "interval": None if interval is None else list(interval),
            },
            "paired": self.paired,
            "verdict": self.verdict,
        }


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A run beside the first one.

    Attributes:
        first: The first run.
        second: The other.
        common: Images in common.
        settings: Settings that differ, dotted name to both values.
        estimates: What both report, compared.
        notes: What a careful reader should know.
    """

    first: Run
    second: Run
    common: int
    settings: Mapping[str, tuple[Any, Any]]
    estimates: tuple[Compared, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "run": str(self.second.folder),
            "images": self.common,
            "settings": {name: list(both) for name, both in self.settings.items()},
            "estimates": [each.to_json() for each in self.estimates],
            "notes": list(self.notes),
        }

    def display(self) -> Display:
        """Return the differences as a table."""
        rows = [
            [
                each.at,
                written(each.first),
                written(each.second),
                written(each.difference),
                "" if each.difference.n is None else str(each.difference.n),
                "by image" if each.paired else "as independent",
                each.verdict,
            ]
            for each in self.estimates
        ]
        heads = ("estimate", "first", "second", "second - first", "n", "compared", "second is")
        differ = "; ".join(f"{name} {a} -> {b}" for name, (a, b) in self.settings.items())
        images = f" on {self.common} images in common" if self.common else ""
        return Display(
            f"{self.first.verb}: {self.second.folder} against {self.first.folder}{images}",
            (f"settings that differ: {differ or 'none'}", Table(heads, rows)),
        )


@dataclass(frozen=True, kw_only=True)
class Comparing:
    """Compare runs: every estimate that they share, as a difference with a 95 % interval.

    Estimates that are means over images are compared image by image on the images in common; rates
    by Tango's score interval, other means by Student's t; distances between boosted sets by the
    jackknife. Of more than two runs each is compared with the first.

    Example: advpure compare runs/attack-0123456789ab runs/attack-ba9876543210

    Attributes:
        runs: Run folders of one verb, two or more; the first is what the others are compared with.
    """

    runs: Annotated[tuple[str | Path, ...], Positional(), Repeats()] = ()

    def __post_init__(self) -> None:
        """Check that there is something to compare, and no run with itself."""
        validate(self)
        if len(self.runs) < 2:
            listed = ", ".join(map(str, self.runs)) or "no run"
            raise BadInput(listed, "is nothing to compare", "name two run folders or more")
        check_apart(self.runs)

    def compare(self) -> tuple[Comparison, ...]:
        """Compare each of the runs with the first, from their records alone.

        Raises:
            BadInput: for runs of different verbs, or of images none of which is in common.
        """
        first, *others = (Run.read(folder) for folder in self.runs)
        return tuple(compare(first, other) for other in others)


def compare(first: Run, second: Run) -> Comparison:
    """Compare two runs; see `Comparing`.

    Raises:
        BadInput: where they are of different verbs, of other images, or share no estimate.
    """
    common = _check(first, second)
    pairs: dict[tuple[int, int], tuple[str, Estimate, Estimate]] = {}
    for at, one, two in _shared(first.report.tree(), second.report.tree()):
        pairs.setdefault((id(one), id(two)), (at, one, two))
    estimates = tuple(_compared(*each) for each in pairs.values())
    if not estimates:
        rule = f"shares no estimate with {first.folder}"
        raise BadInput(str(second.folder), rule, "compare runs of the same axes")
    here, there = (dict(flatten(run.settings)) for run in (first, second))
    settings = {
        name: (here.get(name), there.get(name))
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name) and name != "n"
    }
    return Comparison(
        first=first,
        second=second,
        common=common,
        settings=settings,
        estimates=estimates,
        notes=tuple(_notes(first, second, common, estimates)),
    )


def _check(first: Run, second: Run) -> int:
    """Return the number of images in common; refuse runs that cannot be compared."""
    name = str(second.folder)
    if first.verb != second.verb:
        raise BadInput(name, f"is a run of {second.verb}, not of {first.verb}", "compare one verb")
    if not first.samples or not second.samples:
        return 0
    sets = [(run.settings.get("dataset"), _split(run)) for run in (first, second)]
    if sets[0] != sets[1]:
        (data, split), (others, other) = sets
        raise BadInput(
            name, f"is of {others} ({other}), not of {data} ({split})", "compare the same images"
        )
    common = set(first.samples) & set(second.samples)
    if not common:
        rule = f"has no image in common with {first.folder}"
        raise BadInput(name, rule, "compare runs of the same images")
    changed = set(map(int, changed_images(first.context, second.context))) & common
    if changed:
        rule = f"has other pixels or another label than in {first.folder}"
        raise BadInput(f"image {min(changed)} of {name}", rule, "compare the same images")
    return len(common)


def _split(run: Run) -> str:
    head = str(run.settings.get("subset", "")).partition("/")[0]
    return "train" if head == "train" else "test"


def _compared(at: str, one: Estimate, two: Estimate) -> Compared:
    paired = shares_cases(one, two)
    return Compared(
        at=at, first=one, second=two, difference=subtract(two, one, LEVEL), paired=paired
    )


def _notes(first: Run, second: Run, common: int, estimates: Sequence[Compared]) -> Iterator[str]:
    """Yield what limits the comparison."""
    for run in (first, second):
        if not run.finished:
            yield f"{run.folder} is not finished: it is compared as far as it got"
    if common and (common < len(first.samples) or common < len(second.samples)):
        yield (
            f"differences are those of the {common} images in common, of {len(first.samples)} and "
            f"{len(second.samples)}; the values beside them are those of each run"
        )
    if not all(each.paired for each in estimates):
        yield "what is no mean over images is compared as if the two runs were independent"
    if len(estimates) > 1:
        yield (
            f"{len(estimates)} differences, each at 95 %: of many that are none, one in twenty "
            "looks like one"
        )
    if first.verb == "certify":
        yield from _caps(first, second)


def _caps(first: Run, second: Run) -> Iterator[str]:
    """Yield how far certificates of different sample numbers can reach at all."""
    asked = [run.settings["procedure"] for run in (first, second)]
    caps = [(each["samples"], each["alpha"]) for each in asked]
    if caps[0] == caps[1]:
        return
    for sigma in sorted(set(asked[0]["sigmas"]) & set(asked[1]["sigmas"])):
        one, two = (largest_radius(samples, alpha, sigma) for samples, alpha in caps)
        yield (
            f"at sigma {sigma:g} no radius is above {one:.4f} with N = {caps[0][0]:,} and alpha "
            f"{caps[0][1]:g}, nor above {two:.4f} with N = {caps[1][0]:,} and alpha "
            f"{caps[1][1]:g}: beyond the smaller cap the difference is one of the budget"
        )


def _shared(first: Any, second: Any, path: str = "") -> Iterator[tuple[str, Estimate, Estimate]]:
    """Yield the estimates that two trees have at the same path."""
    if isinstance(first, Estimate) and isinstance(second, Estimate):
        yield path, first, second
    elif isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in first:
            if name in second:
                yield from _shared(first[name], second[name], f"{path}.{name}" if path else name)
    elif _is_list(first) and _is_list(second):
        for label, one, two in _matched(first, second):
            yield from _shared(one, two, f"{path}[{label}]")


def _is_list(tree: Any) -> bool:
    return isinstance(tree, Sequence) and not isinstance(tree, str)


def _matched(first: Sequence[Any], second: Sequence[Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the entries of two lists that have the same name, by the fewest words that tell them.

    Example:
        >>> a, b = [{"t": 1, "s": 2}, {"t": 5, "s": 2}], [{"t": 5, "s": 2}]
        >>> [(label, two) for label, _, two in _matched(a, b)]
        [('t=5', {'t': 5, 's': 2})]
    """
    sides = [[_fields(entry) for entry in side] for side in (first, second)]
    every = [*sides[0], *sides[1]]
    known = [name for name in _NAMES if every and all(name in fields for fields in every)]
    for count in range(1, len(known) + 1):
        for names in combinations(known, count):
            keys = [[json.dumps([f[name] for name in names]) for f in side] for side in sides]
            if all(len(set(side)) == len(side) for side in keys):
                places = {key: place for place, key in enumerate(keys[1])}
                for one, key, fields in zip(first, keys[0], sides[0], strict=True):
                    if key in places:
                        label = ",".join(f"{name}={_short(fields[name])}" for name in names)
                        yield label, one, second[places[key]]
                return
    if len(first) == len(second):
        yield from (
            (str(place), *pair) for place, pair in enumerate(zip(first, second, strict=True))
        )


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _fields(entry: Any) -> Mapping[str, Any]:
    fields = entry.extra if isinstance(entry, Estimate) else entry
    if not isinstance(fields, Mapping):
        return {}
    return {k: v for k, v in fields.items() if v is None or isinstance(v, str | int | float)}


def _bare(estimate: Estimate) -> dict[str, Any]:
    """Return value, n and interval alone."""
    interval = plain(None if estimate.interval is None else list(estimate.interval))
    return {"value": estimate.value, "n": estimate.n, "interval": interval}
