"""The procedures by name: which samples an image needs next, and what its counts certify.

``fixed``: Cohen's two stages. ``anytime``: stops as soon as the radii asked for are decided.
``sequential``: the same with fewer samples, where all settings are fixed beforehand.
``cascade``: the largest noise first. ``predict``: the top-two test, no radius. ``composed``:
selection between two classifiers (`advpure.analysis.certification.composed`). Each is a pure
function of counts, so one can be applied to the counts of another: ``anytime``, ``sequential`` and
``predict`` to those of a fixed run. The other way round it takes as many samples of every image as
``fixed`` asks for, since a number of samples that the counts decided would break its guarantee.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

from advpure.analysis.certification.anytime import (
    FUTILITY,
    AnytimeRule,
    Followed,
    follow,
    followed_bound,
    next_samples,
    unreachable,
)
from advpure.analysis.certification.cascade import certify_cascade
from advpure.analysis.certification.counting import ESTIMATION, SELECTION, Unit
from advpure.analysis.certification.prior import FLAT, Prior, check_prior
from advpure.analysis.certification.radius import check_alpha, read_radii, read_sigmas
from advpure.analysis.certification.tallies import Tally
from advpure.analysis.certification.two_stage import (
    Certificate,
    certify,
    check_useful,
    check_useful_prediction,
    claim,
    predict,
    reach_notes,
    top_class,
)
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Share
from advpure.base.validation import check_choice, validate

ProcedureName = Literal["fixed", "anytime", "sequential", "cascade", "predict", "composed"]
ByLevel = Mapping[float, Tally]
_MOST_BLOCKS = 10**5


class Named(NamedTuple):
    """A certificate and the curve that it belongs to: a noise level, or None for several."""

    sigma: float | None
    certificate: Certificate


@dataclass(frozen=True, kw_only=True)
class Procedure(ABC):
    """A certification procedure: what is asked of an image's counts.

    Attributes:
        sigmas: Noise levels, [0, 1] units, increasing.
        radii: Radii asked for, [0, 1] units, increasing.
        alpha: Probability of error.
        samples: Samples of the estimation stage; of those that stop when decided, at most.
        selection: Samples of the selection stage.
        block: Samples per block of the estimation stage.
        joint: All noise levels of an image together are wrong with probability at most alpha:
            each gets alpha divided by their number.
        classes: Number of classes.
        futility: See `AnytimeRule`.
        prior: Of those that stop when decided, one a noise level; None for flat, and elsewhere.
    """

    sigmas: tuple[float, ...]
    radii: tuple[float, ...]
    alpha: float
    samples: Natural
    selection: Natural
    block: Natural
    joint: bool = False
    classes: Natural
    futility: Share = FUTILITY
    prior: tuple[Prior, ...] | None = None
    name: ClassVar[ProcedureName]

    def __post_init__(self) -> None:
        """Check what every procedure needs."""
        object.__setattr__(self, "sigmas", read_sigmas(self.sigmas))
        object.__setattr__(self, "radii", read_radii(self.radii))
        check_alpha(self.alpha)
        validate(self)
        if self.blocks > _MOST_BLOCKS:
            raise BadInput(
                f"{self.samples} samples in blocks of {self.block}",
                f"are more than {_MOST_BLOCKS:,} rows an image",
                "use larger blocks",
            )

    @property
    def share(self) -> float:
        """Probability of error of one noise level."""
        return self.alpha / len(self.sigmas) if self.joint else self.alpha

    @property
    def answers(self) -> int:
        """Number of different answers of a base classifier."""
        return self.classes

    @property
    def blocks(self) -> int:
        """Blocks of the estimation stage, at most."""
        return self.samples // self.block

    def notes(self) -> list[str]:
        """Return what cannot be certified, whatever the images."""
        return reach_notes(self.samples, self.share, self.sigmas, self.radii)

    @abstractmethod
    def needs(self, sample: int, tallies: ByLevel) -> list[Unit]:
        """Return the units that an image needs next; none if it is decided."""

    @abstractmethod
    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Return what an image's counts certify, as far as they are complete.

        Args:
            tallies: The image's counts.
            partial: Whether `anytime` and `sequential` certify from the samples that there are,
                also where more of them would be drawn; their guarantees allow that.
        """

    def _stage_units(
        self, sample: int, sigma: float, tally: Tally | None, samples: int
    ) -> list[Unit]:
        """Return the missing units of a selection stage and of `samples` more."""
        units = []
        if tally is None or tally.selection is None:
            units.append(Unit(sample, sigma, SELECTION, 0, 0, self.selection))
        blocks = tally.blocks if tally is not None else {}
        return units + [
            Unit(sample, sigma, ESTIMATION, b, b * self.block, self.block)
            for b in range(samples // self.block)
            if b not in blocks
        ]

    def _check_whole(self) -> None:
        if self.samples % self.block:
            near = max(self.samples // self.block, 1) * self.block
            raise BadInput(
                f"{self.samples} samples",
                f"are no whole number of blocks of {self.block}",
                f"use {near} samples, or counts in blocks of another size",
            )


@dataclass(frozen=True, kw_only=True)
class Fixed(Procedure):
    """Cohen's two-stage procedure at every noise level."""

    name: ClassVar[ProcedureName] = "fixed"

    def __post_init__(self) -> None:
        """Refuse a number of samples that is useless, or no whole number of blocks."""
        super().__post_init__()
        check_useful(self.samples, self.share)
        self._check_whole()

    def needs(self, sample: int, tallies: ByLevel) -> list[Unit]:
        """Return everything that is missing, at once."""
        return [
            unit
            for sigma in self.sigmas
            for unit in self._stage_units(sample, sigma, tallies.get(sigma), self.samples)
        ]

    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Certify the noise levels whose samples are complete."""
        certificates = []
        for sigma, tally in tallies.items():
            counts = tally.total(self.blocks)
            if tally.selection is not None and counts is not None:
                result = certify(tally.selection, counts, alpha=self.share, sigma=sigma)
                certificates.append(Named(sigma, result))
        return certificates


@dataclass(frozen=True, kw_only=True)
class Anytime(Procedure):
    """The anytime procedure at every noise level."""

    name: ClassVar[ProcedureName] = "anytime"
    planned: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a budget that reaches nothing."""
        super().__post_init__()
        given = (FLAT,) * len(self.sigmas) if self.prior is None else self.prior
        if len(given) != len(self.sigmas):
            rule = f"do not match {len(self.sigmas)} noise levels"
            raise BadInput(f"{len(given)} priors", rule, "give one each")
        object.__setattr__(self, "prior", tuple(map(check_prior, given)))
        if self.blocks < 1:
            raise BadInput(
                f"{self.samples} samples",
                f"hold no block of {self.block}",
                f"use {self.block} samples or more, or smaller blocks",
            )
        if all(len(self._beyond(sigma)) == len(self.radii) for sigma in self.sigmas):
            raise BadInput(
                f"{self.samples} samples at alpha {self.share:g}",
                "can certify none of the radii, even if all of them agree",
                "use more samples, or ask for smaller radii",
            )

    def rule(self, sigma: float) -> AnytimeRule:
        """Return what an image is asked at a noise level."""
        assert self.prior is not None
        return AnytimeRule(
            radii=self.radii,
            sigma=sigma,
            alpha=self.share,
            futility=self.futility,
            budget=self.blocks * self.block,
            prior=self.prior[self.sigmas.index(sigma)],
            planned=self.planned,
        )

    def notes(self) -> list[str]:
        """Return which radii the budget cannot reach."""
        notes = []
        for sigma in self.sigmas:
            if beyond := self._beyond(sigma):
                notes.append(
                    f"sigma {sigma:g} cannot reach radius {beyond[0]:g} with {self.samples:,} "
                    f"samples at alpha {self.share:g}; it is given up at once"
                )
        return notes

    def needs(self, sample: int, tallies: ByLevel) -> list[Unit]:
        """Return what the next look at every undecided noise level needs; first, its selection."""
        units = []
        for sigma in self.sigmas:
            tally, rule = tallies.get(sigma), self.rule(sigma)
            if tally is None or tally.selection is None:
                units += self._stage_units(sample, sigma, tally, 0)
                continue
            state = self._follow(tally)
            if not state.decided:
                more = next_samples(rule, state.samples, self.block)
                units += self._stage_units(sample, sigma, tally, more)
        return units

    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Certify the noise levels that are decided."""
        certificates = []
        for sigma, tally in tallies.items():
            if tally.selection is None:
                continue
            state = self._follow(tally, stops=not partial)
            if state.decided or (partial and state.samples):
                certificates.append(Named(sigma, self._claim(tally, state)))
        return certificates

    def _claim(self, tally: Tally, state: Followed) -> Certificate:
        bound = followed_bound(self.rule(tally.sigma), self._hits(tally), self.block, state)
        used = state.samples + self.selection
        return claim(self._candidate(tally), bound, tally.sigma, used)

    def _beyond(self, sigma: float) -> tuple[float, ...]:
        return unreachable(self.rule(sigma), self.block)

    def _follow(self, tally: Tally, *, stops: bool = True) -> Followed:
        assert tally.selection is not None
        agree = tally.selection[self._candidate(tally)]
        selected = agree, sum(tally.selection.values()) - agree
        rule, hits = self.rule(tally.sigma), self._hits(tally)
        return follow(rule, hits, self.block, selected, stops=stops)

    @staticmethod
    def _candidate(tally: Tally) -> int:
        assert tally.selection is not None
        return top_class(tally.selection)

    def _hits(self, tally: Tally) -> list[int]:
        candidate = self._candidate(tally)
        return [block.get(candidate, 0) for block in tally.first_blocks(self.blocks)]


@dataclass(frozen=True, kw_only=True)
class Sequential(Anytime):
    """The planned test of `AnytimeRule` at every noise level: fewer samples, these radii alone."""

    name: ClassVar[ProcedureName] = "sequential"
    planned: ClassVar[bool] = True

    def _claim(self, tally: Tally, state: Followed) -> Certificate:
        """Certify a radius that was asked for, exactly."""
        found = super()._claim(tally, state)
        reached = self.rule(tally.sigma).radii[: state.certified]
        return found._replace(radius=reached[-1]) if reached else found


@dataclass(frozen=True, kw_only=True)
class Cascade(Procedure):
    """The cascade over all noise levels, the largest first."""

    name: ClassVar[ProcedureName] = "cascade"

    def __post_init__(self) -> None:
        """Refuse one level, and samples that are useless, or no whole number of blocks."""
        super().__post_init__()
        if len(self.sigmas) == 1:
            rule = "has nothing to pass on to, so it is the fixed procedure"
            fix = "use procedure fixed, or give several sigmas"
            raise BadInput("a cascade of one noise level", rule, fix)
        if self.joint:
            raise BadInput(
                "joint", "means nothing to cascade", "its alpha is for all levels anyway"
            )
        check_useful(self.samples, self.alpha / len(self.sigmas) / 2)
        self._check_whole()

    def notes(self) -> list[str]:
        """Return what no level can certify, with the part of alpha for its own class."""
        share = self.alpha / len(self.sigmas)
        last = min(self.sigmas)
        return [
            text
            for sigma in self.sigmas
            for text in reach_notes(
                self.samples, share if sigma == last else share / 2, [sigma], self.radii
            )
        ]

    def needs(self, sample: int, tallies: ByLevel) -> list[Unit]:
        """Return what is missing at the largest noise level that is not passed yet."""
        if self._decide(tallies) is not None:
            return []
        for sigma in reversed(self.sigmas):
            if units := self._stage_units(sample, sigma, tallies.get(sigma), self.samples):
                return units
        return []

    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Certify the cascade, if it is decided."""
        decided = self._decide(tallies)
        return [] if decided is None else [Named(None, decided)]

    def _decide(self, tallies: ByLevel) -> Certificate | None:
        stages = {}
        for sigma, tally in tallies.items():
            counts = tally.total(self.blocks)
            if tally.selection is not None and counts is not None:
                stages[sigma] = (tally.selection, counts)
        result = certify_cascade(stages, sigmas=self.sigmas, classes=self.classes, alpha=self.alpha)
        if result is None:
            return None
        return Certificate(result.prediction, result.radius, None, result.samples)


@dataclass(frozen=True, kw_only=True)
class Predict(Procedure):
    """The prediction of the smoothed classifier at every noise level; it certifies no radius."""

    name: ClassVar[ProcedureName] = "predict"

    def __post_init__(self) -> None:
        """Refuse a number of samples that is useless, or no whole number of blocks."""
        super().__post_init__()
        object.__setattr__(self, "radii", (0.0,))  # whatever was asked: there is no radius
        check_useful_prediction(self.samples, self.share)
        self._check_whole()

    def notes(self) -> list[str]:
        """Return that there is no radius."""
        return ["a prediction has no radius: only radius 0 means something"]

    def needs(self, sample: int, tallies: ByLevel) -> list[Unit]:
        """Return the blocks that are missing; nothing is selected."""
        return [
            unit
            for sigma in self.sigmas
            for unit in self._stage_units(sample, sigma, tallies.get(sigma), self.samples)
            if unit.stage == ESTIMATION
        ]

    def certificates(self, tallies: ByLevel, *, partial: bool = False) -> list[Named]:
        """Predict at the noise levels whose samples are complete."""
        certificates = []
        for sigma, tally in tallies.items():
            counts = tally.total(self.blocks)
            if counts is not None:
                result = predict(counts, alpha=self.share)
                answer = Certificate(result.prediction, 0.0, None, result.samples)
                certificates.append(Named(sigma, answer))
        return certificates


PROCEDURES: dict[str, type[Procedure]] = {
    kind.name: kind for kind in (Fixed, Anytime, Sequential, Cascade, Predict)
}


def find_procedure(name: str) -> type[Procedure]:
    """Return a procedure by name.

    Raises:
        BadInput: for an unknown name.
    """
    check_choice(name, get_args(ProcedureName), "procedure")
    return PROCEDURES[name]
