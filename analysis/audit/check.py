"""A check as a declaration: what it asks of an evaluation, what that costs, and how it is judged.

A check measures numbers and judges them later, from records alone. Its verdict is ``pass``,
``fail`` or ``inconclusive``, never without the number behind it, and with a command that settles
what is open. A flaw of the model fails even where the attack gets over it; too few images are
inconclusive.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from advpure.base.display import written
from advpure.statistics.rates import Difference, Interval, Mean, Rate

if TYPE_CHECKING:
    from advpure.analysis.audit.evaluation import Evaluation

Status = Literal["pass", "fail", "inconclusive"]
Needs = Literal["records", "model", "gradient", "attack"]
"""What is asked beside the records: the model's answers, its gradient, or attacks on it."""
ONE = -1
"""In place of a sample id, for a number that belongs to no image."""


class Value(NamedTuple):
    """A number that a check measured: its name, the sample it belongs to or `ONE`, the number."""

    name: str
    sample: int
    value: float


class Measured:
    """The numbers of one check, by name and sample.

    Example:
        >>> numbers = Measured([Value("lost", 3, 1.0), Value("lost", 4, 0.0)])
        >>> numbers.by_image("lost"), numbers.mean("lost"), numbers.has("other")
        ({3: 1.0, 4: 0.0}, 0.5, False)
    """

    def __init__(self, values: Iterable[Value]) -> None:
        """Sort the numbers by name."""
        self._values: dict[str, dict[int, float]] = {}
        for name, sample, value in values:
            self._values.setdefault(name, {})[sample] = value

    def has(self, name: str) -> bool:
        """Return whether a number of this name was measured."""
        return name in self._values

    def names(self, start: str) -> list[str]:
        """Return the names that begin with a text, as they were measured."""
        return [name for name in self._values if name.startswith(start)]

    def by_image(self, name: str) -> dict[int, float]:
        """Return the numbers of a name by sample id; none where it was not measured."""
        return dict(self._values.get(name, {}))

    def values(self, name: str) -> list[float]:
        """Return the numbers of a name, in the order of their samples."""
        return [value for _, value in sorted(self._values.get(name, {}).items())]

    def one(self, name: str) -> float:
        """Return a number that belongs to no image."""
        return self._values[name][ONE]

    def mean(self, name: str) -> float:
        """Return the mean over images."""
        values = self.values(name)
        return sum(values) / len(values)

    def total(self, name: str) -> float:
        """Return the sum over images."""
        return sum(self.values(name))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict of a check.

    Attributes:
        status: The verdict.
        words: What was seen, the number in it.
        number: The number behind it; None where nothing was measured.
        n: Of how many cases it is; None for a number of settings.
        interval: Its 95 % interval; None where there is none.
        settle: The command that settles what is open, or what to do about a failure.
    """

    status: Status
    words: str
    number: float | None = None
    n: int | None = None
    interval: Interval | None = None
    settle: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "verdict": self.status,
            "number": self.number,
            "n": self.n,
            "interval": None if self.interval is None else list(self.interval),
            "words": self.words,
            "settle": self.settle,
        }


Settings = Mapping[str, Any]
"""The settings of the evaluation that is audited."""


def _always(settings: Settings) -> bool:
    return True


def _free(settings: Settings) -> int:
    return 0


@dataclass(frozen=True, kw_only=True)
class Check:
    """A guideline that can be checked.

    Attributes:
        name: Its name, also that of its page.
        about: What holds where it passes.
        source: Where it is from, keys of the bibliography.
        threshold: When it fails, in words; marked * where the number is a proposal of ours.
        verb: Whose runs it is about.
        needs: What it asks beside the records.
        applies: Whether it means something for an evaluation of these settings.
        cost: Passes through the defense for one image, at most.
        images: How many images it looks at, at most; 0 for all that probes are made on.
        thorough: Whether it costs too much for the default tier.
        measure: What it asks of an evaluation.
        judge: The verdict on its numbers, with the settings of the evaluation.
        settle: Command or advice that goes with a verdict that is no pass.
    """

    name: str
    about: str
    source: str
    threshold: str
    verb: str = "attack"
    needs: Needs = "records"
    applies: Callable[[Settings], bool] = _always
    cost: Callable[[Settings], int] = _free
    images: int = 0
    thorough: bool = False
    measure: Callable[["Evaluation"], Iterator[Value]]
    judge: Callable[[Measured, Settings], Finding]
    settle: str = ""

    @property
    def is_free(self) -> bool:
        """Whether records alone decide."""
        return self.needs == "records"

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"docs/audit.md#{self.name}"

    def price(self, settings: Settings, count: int) -> int:
        """Return passes for each of `count` images that cost as much as those of its own."""
        own = min(self.images or count, count)
        return -(-self.cost(settings) * own // max(count, 1))

    def finding(self, numbers: Measured, settings: Settings) -> Finding:
        """Return the verdict, with the check's own way to settle it where it says none."""
        found = self.judge(numbers, settings)
        if found.status == "pass" or found.settle or not self.settle:
            return found
        return Finding(**{**vars(found), "settle": self.settle})


def passed(words: str, number: float | None = None, **more: Any) -> Finding:
    """Return a verdict that something holds."""
    return Finding(status="pass", words=words, number=number, **more)


def failed(words: str, number: float | None = None, **more: Any) -> Finding:
    """Return a verdict that something is wrong."""
    return Finding(status="fail", words=words, number=number, **more)


def open_question(words: str, number: float | None = None, **more: Any) -> Finding:
    """Return a verdict that the numbers do not say."""
    return Finding(status="inconclusive", words=words, number=number, **more)


def is_random(settings: Settings) -> bool:
    """Return whether the defense draws noise."""
    return bool(settings.get("is_random", True))


def is_fixed(settings: Settings) -> bool:
    """Return whether one function decides: the randomness is fixed, or there is none."""
    return settings["decisions"]["randomness"] == "fixed" or not is_random(settings)


def compared(
    after: Mapping[int, float], before: Mapping[int, float], what: str, settings: Settings
) -> Finding:
    """Judge whether something fools images that the evaluation's attack did not.

    Args:
        after: Share of right decisions of each image under what was tried.
        before: The same as the evaluation has it.
        what: What was tried.
        settings: Of the evaluation.

    Returns:
        Under fixed randomness each image is a fact, and the worse of the two counts: it fails where
        the paired difference is beyond 0 (Tango's interval), is open with one image, and passes
        with none. Under fresh randomness the mean difference has Student's interval; it fails where
        that is below 0 by more than 2 points*, so that a tie does not fail.
    """
    from advpure.statistics.rates import mean_interval, paired_difference

    ids = sorted(after)
    n = len(ids)
    if not n:
        return open_question(f"{what}: no image was tried")
    if is_fixed(settings):
        lost = [i for i in ids if before[i] > after[i]]
        kept = [before[i] * (i not in lost) for i in ids]
        drop: Difference = paired_difference([before[i] for i in ids], kept)
        told = f"{what} fools {len(lost)} of {n} images that the attack leaves"
        more = {"n": n, "interval": Interval(max(drop.low, 0.0), drop.high)}
        number = len(lost) / n
        if drop.low > 0:
            return failed(told, number, **more)
        return open_question(told, number, **more) if lost else passed(told, number, **more)
    gaps = [before[i] - after[i] for i in ids]
    mean: Mean = mean_interval(gaps, within=(-1, 1))
    told = f"{what} leaves {100 * mean.value:+.1f} points less than the attack, on {n} images"
    low = -1.0 if mean.interval is None else mean.interval.low
    more = {"n": n, "interval": mean.interval}
    if low > _TIE:
        return failed(told, mean.value, **more)
    return passed(told, mean.value, **more)


_TIE = 0.02
"""Difference of two accuracies under fresh randomness that is none."""


def share(count: float, n: int, what: str) -> str:
    """Write a count of images.

    Example:
        >>> share(3, 24, "images are lost")
        '3 of 24 images are lost'
    """
    return f"{count:g} of {n} {what}"


def failed_by_any(numbers: Measured, name: str, what: str) -> Finding:
    """Judge marks of 0 and 1 by image: a single image that is marked fails.

    Args:
        numbers: The numbers of a check.
        name: Those of the marks.
        what: What a marked image is, after its count.

    Example:
        >>> failed_by_any(Measured([Value("lost", 3, 1.0), Value("lost", 4, 0.0)]), "lost", "lost")
        Finding(status='fail', words='1 of 2 lost', number=0.5, n=2, interval=None, settle='')
    """
    count, n = numbers.total(name), len(numbers.values(name))
    return (failed if count else passed)(share(count, n, what), count / n, n=n)


def rate_words(rate: Rate) -> str:
    """Write a rate in per cent with its interval."""
    return f"{written(rate, '.1f', scale=100)} %"
