"""What a certification run is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le

from advpure.analysis.certification.anytime import FUTILITY
from advpure.analysis.certification.prior import read_prior
from advpure.analysis.certification.procedures import (
    Anytime,
    Procedure,
    ProcedureName,
    find_procedure,
)
from advpure.analysis.certification.radius import ALPHA, check_alpha, read_radii, read_sigmas
from advpure.analysis.subject import DefenseSubject, Seeded
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Share
from advpure.base.text import read_shard
from advpure.core.randomness import Scheme

RADII = "0,0.25,0.5,0.75,1.0"
"""Radii asked for by default, [0, 1] units."""
_FIXED_BLOCK, _STOPPING_BLOCK = 1000, 64
_LEAST_BLOCK = 100  # smaller ones would make more rows of records than they are worth


@dataclass(frozen=True, kw_only=True)
class CertificationSettings(Seeded, DefenseSubject):
    """What a run of certificates asks.

    Attributes:
        sigmas: Smoothing noise in [0, 1] units, above 0, a list such as 0.25,0.5,1.0; also the
            purifier's strength.
        samples: Noise samples per image and sigma; of anytime and sequential, at most,
            in whole blocks.
        selection: Noise samples that select the class; predict selects none.
        alpha: Probability of a wrong certificate, above 0, at most 1/2.
        procedure: ``fixed`` (Cohen), ``anytime`` (stops when decided), ``sequential`` (stops
            sooner, if nothing is chosen after a look), ``cascade`` (largest sigma first) or
            ``predict`` (no radius). With --core: ``composed``.
        core: Accurate classifier that answers where a selector does not choose the certified one:
            shipped name or weights file.
        select_entropy: Of --core: entropy, 0 or more nats, up to which the selector chooses.
        selector: Of --core: trained selector instead of entropy: shipped name or file.
        joint: The alpha is for all sigmas of an image together.
        radii: Radii asked for, l2, in [0, 1] units, such as 0,0.25,0.5.
        shard: Compute part i of k only: 1/4, 2/4, ... in any order.
        block: Samples per row of the records. Default: up to 1000 that divide N; 64 for anytime
            and sequential.
        futility: Of anytime and sequential: gives up on a radius whose chance is below this for
            every fifth of N.
        prior: Of the same: run folder of certify on training images (--subset train), or ``flat``.
            Default: the data set's shipped one.
        noise: ``normal``, or ``grid``: multiples of a grey level, so that the certificate holds in
            floating point too.
        policy: Votes per sample: single, eot:K or majority:K. Default: the defense's.
        scheme: Noise keys: ``hash`` (the published ones) or ``counter`` (without collisions).
        tile: Images per network call, 1 or more; 0: batches as they come. Default: four times the
            data set's.
    """

    unused: ClassVar[Mapping[str, str]] = {
        "t": "leave it out: sigma is the strength",
        "sigma": "give sigmas",
        "gradient": "leave it out: nothing attacks",
    }

    sigmas: Annotated[str | float | Sequence[str | float], Flag("--sigma")] = "0.25"
    samples: Annotated[Natural, Flag("--samples", "-N")] = 10_000
    selection: Annotated[int, Ge(1), Le(10**6)] = 100
    alpha: float = ALPHA
    procedure: Annotated[ProcedureName, Flag("--procedure", "-p")] = "fixed"
    core: str | None = None
    select_entropy: float = 0.5
    selector: str | None = None
    joint: bool = False
    radii: str | float | Sequence[str | float] = RADII
    shard: str | None = None
    block: Natural | None = None
    futility: Share = FUTILITY
    prior: str | None = None
    noise: Literal["normal", "grid"] = "normal"
    scheme: Scheme = "counter"

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others."""
        super().__post_init__()
        check_alpha(self.alpha)
        read_radii(self.radii)
        levels = read_sigmas(self.sigmas)
        _ = self.part
        if self.core is not None and self.procedure == "fixed":
            object.__setattr__(self, "procedure", "composed")
        if self.joint and len(levels) == 1:
            raise BadInput("joint", "means nothing to one noise level", "leave it out")
        if not self._stops:
            rule = f"means nothing to {self.procedure}, which gives up on nothing"
            fix = "leave it out, or use procedure anytime or sequential"
            refuse_idle(self, ["futility", "prior"], rule, fix)
        if self.procedure == "predict":
            refuse_idle(self, ["selection"], "means nothing to predict, which selects no class")
            if read_radii(self.radii) != (0.0,):
                refuse_idle(self, ["radii"], "mean nothing to predict, which certifies none")
        if self.core is None:
            names = ("selector", "select_entropy")
            refuse_idle(self, names, "chooses between two classifiers", "pass a core")
        else:
            refuse_idle(self, ["precision"], "is not that of a core, which is float32")
        if self.core is not None and self.selector is not None:
            refuse_idle(self, ["select_entropy"], "means nothing beside a trained selector")

    def resolved_procedure(self, classes: int = 2) -> Procedure:
        """Return the procedure with all its settings.

        Args:
            classes: Number of classes.

        Raises:
            BadInput: for a setting out of range, or samples that cannot certify anything.
        """
        sigmas = read_sigmas(self.sigmas)
        prior = read_prior(self.prior, self.dataset, sigmas) if self._stops else None
        return find_procedure(self.procedure)(
            sigmas=sigmas,
            radii=read_radii(self.radii),
            alpha=self.alpha,
            samples=self.samples,
            selection=self.selection,
            block=self.block_size,
            joint=self.joint,
            classes=classes,
            futility=self.futility,
            prior=prior,
        )

    @property
    def _stops(self) -> bool:
        """Whether an image takes only as many samples as its radii need."""
        return issubclass(find_procedure(self.procedure), Anytime)

    @property
    def block_size(self) -> int:
        """Samples per row of the records; of a fixed number N, a divisor up to 1,000."""
        if self.block is not None:
            return self.block
        if self._stops:
            return _STOPPING_BLOCK
        if self.samples <= _FIXED_BLOCK:
            return self.samples
        divisors = range(_FIXED_BLOCK, _LEAST_BLOCK - 1, -1)
        return next((block for block in divisors if self.samples % block == 0), _FIXED_BLOCK)

    @property
    def part(self) -> tuple[int, int]:
        """The shard as (i, k), i from 0.

        Raises:
            BadInput: for text that is no i/k with 1 <= i <= k.
        """
        if self.shard is None:
            return 0, 1
        i, k = read_shard(self.shard)
        return i - 1, k
