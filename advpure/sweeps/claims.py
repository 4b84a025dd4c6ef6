"""Published robustness, what was measured of it later, and the flaw that explains the difference.

The numbers stand in experiments/published/claims.json, as printed, in per cent unless a note says
otherwise. A flaw has a toy whose audit shows its mechanism, and commands on the shipped networks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from advpure.base.display import Display, Table, number
from advpure.base.flags import Repeats
from advpure.base.validation import check_choice, validate
from advpure.plots.charts import Points, Words, dots


class Later(BaseModel):
    """A number that was measured later, and by whom."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    value: float
    by: str


class Claim(BaseModel):
    """A published claim.

    Attributes:
        defense: The defense.
        setting: Images and threat model.
        claimed: The claimed robust accuracy in per cent; None where our source does not have it.
        later: What was measured later.
        flaws: Codes of what explains the difference.
        source: Where that stands.
        note: What else has to be known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    defense: str
    setting: str
    claimed: float | None
    later: list[Later]
    flaws: list[str]
    source: str
    note: str = ""

    @property
    def lowest(self) -> float | None:
        """The lowest number that was measured later."""
        return min((each.value for each in self.later), default=None)

    @property
    def drop(self) -> float | None:
        """By how many points the lowest later number is below the claim."""
        if self.claimed is None or self.lowest is None:
            return None
        return self.claimed - self.lowest


class Flaw(BaseModel):
    """A flaw of evaluations, and how to see it.

    Attributes:
        about: What it is.
        toy: Command of a toy that shows its mechanism, in a checkout of the sources.
        shipped: Commands that show it with the shipped networks: with the flaw, without it, and
            both compared image by image. What names `tests` needs a checkout.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    about: str
    toy: str
    shipped: tuple[str, ...]


class Statistics(BaseModel):
    """How many entries of a leaderboard lost how many points against a better attack."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    entries: int
    gap_above_5: int
    gap_above_2: int
    gap_above_1: int
    median_gap: float


class Published(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    flaws: dict[str, Flaw]
    claims: list[Claim]
    robustbench: Statistics


@cache
def published_claims() -> Published:
    """Return the claims that are known.

    Example:
        >>> published_claims().claims[0].drop > 50
        True
    """
    text = (files("advpure.experiments.published") / "claims.json").read_text()
    return Published.model_validate_json(text)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """List published claims of robustness, what was measured later, and the flaw between them.

    Example: advpure claims --flaw EOT --flaw ADJ

    Attributes:
        flaw: Only claims with this flaw; repeats.
    """

    flaw: Annotated[tuple[str, ...], Repeats()] = ()

    def __post_init__(self) -> None:
        """Check the codes."""
        validate(self)
        for code in self.flaw:
            check_choice(code, tuple(published_claims().flaws), "flaw")

    @property
    def chosen(self) -> list[Claim]:
        """The claims that are asked for."""
        known = published_claims().claims
        return [each for each in known if not self.flaw or set(self.flaw) & set(each.flaws)]

    def to_json(self) -> dict[str, Any]:
        """Return claims and flaws as JSON values."""
        known = published_claims()
        codes = sorted({code for each in self.chosen for code in each.flaws})
        return {
            "claims": [{**each.model_dump(), "drop": each.drop} for each in self.chosen],
            "flaws": {code: known.flaws[code].model_dump() for code in codes},
            "robustbench": known.robustbench.model_dump(),
        }

    def display(self) -> Display:
        """Return the claims by flaw, and the commands that show each."""
        known, rows = published_claims(), []
        codes = list(known.flaws)
        for each in sorted(self.chosen, key=lambda each: codes.index(each.flaws[0])):
            later = "; ".join(f"{one.value:g} ({one.by})" for one in each.later)
            rows.append(
                [
                    each.defense,
                    each.setting,
                    number(each.claimed, "g"),
                    later or each.note,
                    ", ".join(each.flaws),
                    each.source,
                ]
            )
        heads = ("defense", "setting", "claimed", "later", "flaw", "source")
        parts: list[Table | str] = [Table(heads, rows)]
        for code in dict.fromkeys(code for each in self.chosen for code in each.flaws):
            flaw = known.flaws[code]
            parts.append(f"{code}: {flaw.about}")
            parts += [f"  {line}" for line in (flaw.toy, *flaw.shipped) if line]
        counted = known.robustbench
        headline = (
            f"{len(self.chosen)} of {len(known.claims)} claims; of {counted.entries} RobustBench "
            f"entries {counted.gap_above_5} lost more than 5 points"
        )
        return Display(headline, parts)

    def draw(self, path: Path) -> Path:
        """Draw by how many points each claim fell, flaw by flaw, one colour each.

        Raises:
            BadInput: for claims without two numbers, or another ending than .png, .svg and .pdf.
            StorageFull: when there is no room.
        """
        return _drawn([each for each in self.chosen if is_in_percent(each)], path)


def is_in_percent(claim: Claim) -> bool:
    """Return whether both numbers of a claim are there, and are rates."""
    return claim.drop is not None and "radii" not in claim.note


def _largest(code: str, claims: Sequence[Claim]) -> float:
    """Return the largest drop of the claims whose first flaw this is."""
    return max(each.drop or 0.0 for each in claims if each.flaws[0] == code)


def _drawn(claims: Sequence[Claim], path: Path) -> Path:
    known = dict.fromkeys(each.flaws[0] for each in claims)
    codes = sorted(known, key=lambda code: -_largest(code, claims))
    ordered = sorted(claims, key=lambda each: (codes.index(each.flaws[0]), -(each.drop or 0.0)))
    groups: dict[str, Points] = {}
    for code in codes:
        mine = [(row, each) for row, each in enumerate(ordered) if each.flaws[0] == code]
        groups[code] = Points(
            x=[each.lowest or 0.0 for _, each in mine],
            y=[row for row, _ in mine],
            x_low=[min(each.lowest or 0.0, each.claimed or 0.0) for _, each in mine],
            x_high=[max(each.lowest or 0.0, each.claimed or 0.0) for _, each in mine],
        )
    words = Words(
        x="robust accuracy %: lowest measured later, and the claim",
        y="defense",
        title="Published claims and what was measured later",
        caption="colour: the first flaw that explains the difference; lines end at the claim",
    )
    return dots(groups, [each.defense for each in ordered], path, words)
