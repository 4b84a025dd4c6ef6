"""Attacks on purifiers: a callable, images, labels and settings in; adversarial images out."""

if __name__ != "advpure.attacks":
    raise ImportError(f"this package is advpure.attacks, not {__name__}")

from advpure.attacks.autopgd import APGDSettings, apgd
from advpure.attacks.crossing import transfer
from advpure.attacks.noise import NoiseSettings, uniform_noise
from advpure.attacks.outcome import AttackResult, ZeroGradientWarning
from advpure.attacks.projected import PGDSettings, pgd
from advpure.attacks.registry import ATTACKS, settings_type
from advpure.attacks.variants import (
    BPDAEOTSettings,
    BPDASettings,
    PGDEOTSettings,
    bpda,
    bpda_eot,
    pgd_eot,
)

__all__ = [
    "ATTACKS",
    "APGDSettings",
    "AttackResult",
    "BPDAEOTSettings",
    "BPDASettings",
    "NoiseSettings",
    "PGDEOTSettings",
    "PGDSettings",
    "ZeroGradientWarning",
    "apgd",
    "bpda",
    "bpda_eot",
    "pgd",
    "pgd_eot",
    "settings_type",
    "transfer",
    "uniform_noise",
]
