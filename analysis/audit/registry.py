"""The checks by name, in the order in which they are made and shown: what costs nothing first."""

from collections.abc import Collection, Iterator

from advpure.analysis.audit.check import Check, Settings
from advpure.base.errors import BadInput
from advpure.base.registry import Registry

CHECKS: Registry[Check] = Registry("check")
"""A new check is one file and one line here."""
_HERE = "advpure.analysis.audit.checks"
_FILES = (
    "train-mode",
    "moving-statistics",
    "repeatable",
    "logits",
    "better-than-chance",
    "threat-model",
    "epsilon-unit",
    "every-image",
    "training-images",
    "several-classes",
    "distinct-images",
    "labels",
    "clean-accuracy",
    "sample-size",
    "zero-gradient",
    "silent-success",
    "claimed-success",
    "margin-falls",
    "ball-used",
    "noise-baseline",
    "step-budget",
    "gradient-draws",
    "decision-draws",
    "attack-kinds",
    "loss-tracks-success",
    "test-time-optimization",
    "noise-law",
    "clock",
    "reproducible",
    "identity",
    "tiny-changes",
    "memorised-images",
    "batch-dependence",
    "gradient-mode",
    "gradient-size",
    "chain-gradients",
    "saturated-loss",
    "finite-differences",
    "answers-under-gradient",
    "path-gradients",
    "gradient-noise",
    "known-optimum",
    "other-images",
    "one-step",
    "transfer",
    "noise-search",
    "fresh-decisions",
    "unbounded",
    "undefended",
    "unstable-loss",
    "stronger-attack",
    "black-box",
    "restarts",
    "more-steps",
    "step-sizes",
    "incomplete",
    "radius-ladder",
    "fixed-first",
    "binarization",
    "noise-search-long",
    "doubled-restarts",
    "decisions-alone",
    "certificate-alpha",
    "certificate-samples",
    "certificate-sigma",
    "certificate-subset",
    "certificate-arithmetic",
)
for _name in _FILES:
    CHECKS.register(_name, f"{_HERE}.{_name.replace('-', '_')}:CHECK")


def checks(settings: Settings, *, verb: str, only: Collection[str] = ()) -> Iterator[Check]:
    """Yield the checks that mean something for runs of a verb with these settings.

    Args:
        settings: Of the evaluation.
        verb: ``attack`` or ``certify``.
        only: Names of those that are asked for; none for all.

    Raises:
        BadInput: for one that is asked for and means nothing.
    """
    for name in only or CHECKS.names():
        check = CHECKS.get(name)
        if check.verb == verb and check.applies(settings):
            yield check
        elif only:
            rule = f"means nothing to this run of {verb}"
            raise BadInput(f"check {name}", rule, "ask for another, or for all")
