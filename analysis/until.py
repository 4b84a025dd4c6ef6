"""Images are added until an interval answers the question: the rule that stops a run.

A study whose main number is a mean over images of values in [0, 1] inherits `Adaptive`. Its images
come in a random order that their ids alone determine, the same for every run, never the easy ones
first. After each image, with all its draws, the interval of `advpure.statistics.sequences` is
looked at, and the run is over with the first image that answers. Images that were computed beyond
it, since batches are larger than one, stay in the records and out of every reported number. So
neither batch size nor interruptions show.
"""

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from advpure.analysis.subject import Subject
from advpure.base.display import percent_ends
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, shown, words
from advpure.data import Images, dataset_info
from advpure.data.registry import find_dataset
from advpure.runs.header import changed_images, flatten, image_digests
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Schema, Share
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Rate
from advpure.statistics.sequences import METHOD, BettingSequence, DifferenceSequence, rate_of

OTHER = Schema("other_run", {"sample": Count}, {"value": Share})
"""What the run that is to be beaten has of each image."""
_MOST = 2000  # images held of a data set that does not fit in memory
_FORMS = 'write "width 5" (points of a per cent) or "better than RUN" (a run folder)'
_AT_FORM = 'write "width 5 at 0.25" (a radius in [0, 1] units, 0 or more)'
_AT = re.compile(r"(width\s.*?)\s+at\s+(?:radius\s+)?(\S+)")

Verdict = Literal["answered", "better", "worse", "undecided", "open"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a run is to find out; one of the two.

    Attributes:
        width: The width of the interval that is narrow enough, a share.
        run: The run folder that is to be beaten.
        radius: Of a width, the radius at which images are certified, [0, 1] units.
    """

    width: float | None = None
    run: str | None = None
    radius: float | None = None

    @classmethod
    def read(cls, text: str) -> "Goal":
        """Read the words of a goal.

        Raises:
            BadInput: for other words, or a width that is none.

        Example:
            >>> Goal.read("width 5").width, Goal.read("better than runs/attack-1").run
            (0.05, 'runs/attack-1')
            >>> Goal.read("width 5 at radius 0.25").radius
            0.25
        """
        text, radius = words(text, "until").strip(), None
        if (at := _AT.fullmatch(text)) is not None:
            text, radius = at[1], number(at[2], "radius", Range(least=0.0), _AT_FORM)
        head, _, rest = text.partition(" ")
        rest = rest.strip()
        if head == "width" and rest:
            points = number(
                rest.removesuffix("%").strip(), "width", Range(above=0.0, below=100.0), _FORMS
            )
            return cls(width=points / 100.0, radius=radius)
        than, _, run = rest.partition(" ")
        if head == "better" and than == "than" and run.strip():
            return cls(run=run.strip())
        raise BadInput(f"until {shown(text)}", "is not understood", _FORMS)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands with its question.

    Attributes:
        goal: The question as it was asked.
        width: The width that is asked for, None for a comparison.
        used: Ids of the images behind every reported number, in the order in which they came.
        available: Images that there are.
        computed: Images that were computed, some perhaps beyond the last one used.
        verdict: ``answered``, ``better``, ``worse``; ``undecided`` where the images ended without
            an answer, ``open`` where the run was interrupted before.
        rate: The mean over the images with its interval.
        difference: This run minus the other one.
    """

    goal: str
    width: float | None
    used: tuple[int, ...]
    available: int
    computed: int
    verdict: Verdict
    rate: Rate
    difference: Estimate | None = None

    def estimate(self, values: Sequence[float]) -> Rate:
        """Return the mean of other values of the used images, in their order, as a rate."""
        return _estimate(self.width, self.available, tuple(map(float, values)))

    def tree(self) -> dict[str, Any]:
        """Return the standing as part of a report."""
        more = {} if self.difference is None else {"difference": self.difference}
        return {
            "goal": self.goal,
            "verdict": self.verdict,
            "used": len(self.used),
            "available": self.available,
            "computed": self.computed,
            "method": METHOD,
            **more,
        }

    @property
    def words(self) -> str:
        """The standing in a sentence."""
        count = f"{len(self.used):,} of {self.available:,} images"
        how = "at any time valid 95 % intervals"
        if self.verdict == "open":
            return f"{self.goal}: open after {count}; the same command goes on"
        if self.verdict == "undecided":
            end = f"{self.goal}: undecided, the {self.available:,} images ended without an answer"
            return f"{end}; {how}{self._difference}"
        found = "" if self.verdict == "answered" else f" {self.verdict},"
        return f"{self.goal}:{found} answered after {count}; {how}{self._difference}"

    @property
    def _difference(self) -> str:
        if self.difference is None:
            return ""
        return f"; difference {100 * self.difference.value:+.1f} {percent_ends(self.difference)}"


def keyed_order(ids: Iterable[int]) -> list[int]:
    """Return sample ids in a random order that depends on nothing but the ids.

    The order of a part is the order of the whole, so that two runs meet the same images first.

    Example:
        >>> keyed_order(range(6)) == [i for i in keyed_order(range(9)) if i < 6]
        True
    """

    def key(sample: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"advpure until {sample}".encode()).digest(), sample

    return sorted(ids, key=key)


class Follower:
    """Follows a run image by image until its question is answered.

    Args:
        goal: Words and width, see `Standing`.
        order: Ids of the images that there are, in their order.
        others: What the run to be beaten has of each image; None for a width.
    """

    def __init__(
        self,
        goal: str,
        width: float | None,
        order: Sequence[int],
        others: Mapping[int, float] | None = None,
    ) -> None:
        """Begin before the first image."""
        self._goal, self._width, self._order, self._others = goal, width, order, others
        self._rate = _of_rate(width, len(order))
        self._difference = None if others is None else DifferenceSequence(horizon=len(order))
        self._used = 0
        self.is_answered = False

    def read(self, values: Mapping[int, float]) -> None:
        """Add the images that are done, up to the first that is not or the one that answers."""
        while not self.is_answered and self._used < len(self._order):
            sample = self._order[self._used]
            if sample not in values:
                return
            interval = self._rate.add(values[sample])
            self._used += 1
            if self._difference is not None and self._others is not None:
                low, high = self._difference.add(values[sample] - self._others[sample])
                self.is_answered = low > 0.0 or high < 0.0
            elif self._width is not None:
                self.is_answered = interval.high - interval.low <= self._width

    def standing(self, values: Mapping[int, float]) -> Standing | None:
        """Return where the run stands with the images that are done; None before the first."""
        self.read(values)
        if not self._used:
            return None
        used = tuple(self._order[: self._used])
        difference, others = None, self._others
        if self._difference is not None and others is not None:
            difference = Estimate(
                value=self._difference.mean,
                n=self._used,
                interval=self._difference.interval,
                by_image={i: values[i] - others[i] for i in used},
                anytime=True,
            )
        return Standing(
            goal=self._goal,
            width=self._width,
            used=used,
            available=len(self._order),
            computed=len(values),
            verdict=self._verdict(),
            rate=rate_of(self._rate),
            difference=difference,
        )

    def _verdict(self) -> Verdict:
        if not self.is_answered:
            return "undecided" if self._used == len(self._order) else "open"
        if self._difference is None:
            return "answered"
        return "better" if self._difference.interval.low > 0.0 else "worse"


def _of_rate(width: float | None, available: int, cells: int = 4000) -> BettingSequence:
    if width is None:
        return BettingSequence(horizon=available, cells=cells)
    return BettingSequence(width=width, cells=cells)


@lru_cache(maxsize=64)
def _estimate(width: float | None, available: int, values: tuple[float, ...]) -> Rate:
    sequence = _of_rate(width, available, cells=1000)
    for value in values:
        sequence.add(value)
    return rate_of(sequence)


@dataclass(frozen=True, kw_only=True)
class Adaptive(Subject, ABC):
    """A study that may stop with the image that answers its question.

    Attributes:
        until: Stop with the image that answers: "width 5", a 95 % interval 5 points wide, or
            "better than RUN". Images come in a random order; default of n: all.
    """

    panel: ClassVar[str] = "Until when"
    may_differ: ClassVar[frozenset[str]] = frozenset(
        {
            *("defense", "randomness", "is_random", "decisions.draws"),
            *("n", "subset", "until", "device"),
        }
    )
    """Settings in which a run that is to be beaten may differ from this one."""
    has_radius: ClassVar[bool] = False
    """Whether the value of an image is of a radius."""

    until: str | None = None

    def __post_init__(self) -> None:
        """Check the words of the goal beside the other fields."""
        super().__post_init__()
        if (
            self.until is not None
            and not self.has_radius
            and Goal.read(self.until).radius is not None
        ):
            rule = "names a radius, which means nothing here"
            raise BadInput(f"until {shown(self.until)}", rule, "leave it out")

    @classmethod
    @abstractmethod
    def outcomes(cls, store: RecordStore) -> dict[int, float]:
        """Return the value in [0, 1] of every image that is done, from the records."""

    @property
    def count(self) -> int | None:
        """How many images are meant; None for all, which a goal asks for where `n` is not given."""
        if self.until is None or self.n is not None or self.subset is not None:
            return super().count
        source = find_dataset(self.dataset)
        return None if source.pick is None else min(_MOST, _size(self.dataset))

    def share(self, loaded: Any, shard: tuple[int, int]) -> Any:
        """Return a part of a run without a goal.

        Raises:
            BadInput: for a run with one, which stops at an image of the order of all.
        """
        if self.until is not None:
            rule = "does not split a run that stops when it has its answer"
            raise BadInput(f"shard {shard[0]}/{shard[1]}", rule, "leave out one of the two")
        above: Any = super()
        return above.share(loaded, shard)

    def reference(self, images: Images, settings: Mapping[str, Any]) -> dict[int, float] | None:
        """Return what the run to be beaten has of each image that both have.

        Args:
            images: This run's images.
            settings: This run's settings.

        Raises:
            BadInput: for a run that is not finished, is of another verb or of other settings than
                those of the defense, or has none of the images or other bytes of one.
        """
        folder = None if self.until is None else Goal.read(self.until).run
        if folder is None:
            return None
        kind: Any = type(self)
        with kind.records(folder) as store:
            self._check_comparable(store, folder, images, settings)
            standing = standing_of(store, self.outcomes(store))
            values = self.outcomes(store)
        own = set(images.ids.tolist())
        used = values if standing is None else {i: values[i] for i in standing.used}
        common = {i: value for i, value in used.items() if i in own}
        if not common:
            raise BadInput(folder, "has none of these images", "compare runs of the same images")
        return common

    def _check_comparable(
        self, store: RecordStore, folder: str, images: Images, settings: Mapping[str, Any]
    ) -> None:
        if not store.finished:
            raise BadInput(folder, "is not finished", "run its command to the end first")
        random = store.settings.get("is_random", True) and settings.get("is_random", True)
        free = self.may_differ if random else self.may_differ | {"decisions", "attack.randomness"}
        here, there = (
            {
                name: value
                for name, value in flatten(json.loads(json.dumps(side)))
                if name not in free and name.partition(".")[0] not in free
            }
            for side in (settings, store.settings)
        )
        for name in sorted(here.keys() | there.keys()):
            if here.get(name) != there.get(name):
                raise BadInput(
                    f"{name} {here.get(name)}",
                    f"is {there.get(name)} in {folder}, so that the two are not comparable",
                    "let them differ in the defense alone",
                )
        if _split(self.subset or "test") != _split(store.settings["subset"]):
            rule = f"is of another split than {folder}"
            raise BadInput(f"subset {self.subset}", rule, "compare runs of the same images")
        if others := changed_images(store.context, {"images": image_digests(*images)}):
            rule = f"has other pixels or another label than in {folder}"
            raise BadInput(f"image {others[0]}", rule, "compare runs of the same images")

    def in_order(self, images: Images, others: Mapping[int, float] | None) -> Images:
        """Return the images in the order in which they come, those alone that can be compared."""
        if self.until is None:
            return images
        place = {i: k for k, i in enumerate(images.ids.tolist()) if others is None or i in others}
        rows = images.ids.new_tensor([place[i] for i in keyed_order(place)])
        return Images(*(part[rows.to(part.device)] for part in images))

    def asked(self, others: Mapping[int, float] | None) -> dict[str, Any]:
        """Return what identifies the goal of a run, for its settings; nothing without one."""
        if self.until is None:
            return {}
        goal = Goal.read(self.until)
        if others is None or goal.run is None:
            at = {} if goal.radius is None else {"radius": goal.radius}
            return {"until": {"width": goal.width, **at}}
        listed = json.dumps(sorted(others.items())).encode()
        digest = hashlib.sha256(listed).hexdigest()[:16]
        return {"until": {"better_than": Path(goal.run).name, "values": digest}}


def stopping(
    store: RecordStore,
    outcomes: Callable[[], Mapping[int, float]],
    others: Mapping[int, float] | None,
) -> Callable[[], bool]:
    """Return whether a run may stop, as a function that looks at its records.

    Args:
        store: The run's records, to which is added what another run has of each image.
        outcomes: Reads the value of every image that is done.
        others: What the run that is to be beaten has of each image.
    """
    if others is not None:
        rows = [{"sample": i, "value": value} for i, value in others.items()]
        store.append(OTHER.table, rows)
    follower = _follower(store)
    if follower is None:
        return lambda: False

    def enough() -> bool:
        follower.read(outcomes())
        return follower.is_answered

    return enough


def standing_of(store: RecordStore, values: Mapping[int, float]) -> Standing | None:
    """Return where a run stands with its question; None for a run without one.

    Args:
        store: The run's records.
        values: The value of every image that is done.
    """
    follower = _follower(store)
    return None if follower is None else follower.standing(values)


def _follower(store: RecordStore) -> Follower | None:
    asked = store.settings.get("until")
    if not asked:
        return None
    order = keyed_order(store.samples or ())
    if (width := asked.get("width")) is not None:
        at = f" at radius {asked['radius']:g}" if "radius" in asked else ""
        return Follower(f"width {100 * width:.4g}{at}", width, order)
    others = {row["sample"]: row["value"] for row in store.rows(OTHER.table)}
    return Follower(f"better than {asked['better_than']}", None, order, others)


def _size(dataset: str) -> int:
    source = find_dataset(dataset)
    sizes = source.sizes() if source.sizes is not None else dataset_info(dataset).splits
    return int(sizes["test"])


def _split(subset: str) -> Literal["train", "test"]:
    return "train" if subset.partition("/")[0] == "train" else "test"
