"""PGD under other defaults: averaged over randomness, or through an approximated purifier.

* `pgd_eot`: fresh randomness and the mean gradient of 15 passes [Wei2025].
* `bpda`: the purifier runs forward as it is, its backward pass is replaced by the defense's
  surrogate, the identity by default [Athalye2018].
* `bpda_eot`: both.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from advpure.attacks.oracle import Model
from advpure.attacks.outcome import AttackResult
from advpure.attacks.projected import PGDSettings, pgd
from advpure.attacks.settings import Count, resolve
from advpure.base.errors import BadInput
from advpure.core.given import takes_pairs
from advpure.core.gradients import GradientMode
from advpure.core.randomness import Ids


@dataclass(frozen=True, kw_only=True)
class PGDEOTSettings(PGDSettings):
    """Settings of PGD-EOT: those of PGD, with fresh randomness and 15 passes per gradient."""

    randomness: Literal["fixed", "fresh"] = "fresh"
    eot: Count = 15


@dataclass(frozen=True, kw_only=True)
class BPDASettings(PGDSettings):
    """Settings of BPDA: those of PGD, with the gradient mode bpda."""

    gradient: GradientMode | None = "bpda"

    def __post_init__(self) -> None:
        """Check, and refuse another gradient than the one that makes it BPDA."""
        super().__post_init__()
        if self.gradient != "bpda":
            raise BadInput(
                f"gradient {self.gradient!r}",
                "contradicts the attack, which replaces the purifier's gradient",
                "leave it out, or use pgd",
            )


@dataclass(frozen=True, kw_only=True)
class BPDAEOTSettings(BPDASettings):
    """Settings of BPDA-EOT: those of BPDA, with fresh randomness and 15 passes per gradient."""

    randomness: Literal["fixed", "fresh"] = "fresh"
    eot: Count = 15


@takes_pairs
def pgd_eot(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: PGDEOTSettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with PGD on the expectation over randomness; otherwise like `pgd`."""
    chosen = resolve(PGDEOTSettings, settings, overrides)
    return pgd(model, images, labels, chosen, ids=ids, start=start, radii=radii)


@takes_pairs
def bpda(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: BPDASettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with PGD through the defense's backward approximation; otherwise like `pgd`.

    Raises:
        BadInput: also for a plain callable, whose backward pass cannot be replaced from outside.
    """
    chosen = resolve(BPDASettings, settings, overrides)
    return pgd(model, images, labels, chosen, ids=ids, start=start, radii=radii)


@takes_pairs
def bpda_eot(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: BPDAEOTSettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with `bpda` on the expectation over randomness."""
    chosen = resolve(BPDAEOTSettings, settings, overrides)
    return bpda(model, images, labels, chosen, ids=ids, start=start, radii=radii)
