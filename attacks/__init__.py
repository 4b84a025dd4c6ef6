"""Attacks on purifiers: a callable, images, labels and settings in; adversarial images out."""

if __name__ != "advpure.attacks":
    raise ImportError(f"this package is advpure.attacks, not {__name__}")

from advpure.attacks.autopgd import APGDSettings, apgd
from advpure.attacks.crossing import transfer
from advpure.attacks.engines.contract import EngineSettings, engine
from advpure.attacks.hard_label import RaySSettings, rays
from advpure.attacks.lanes import APGDTargetedSettings, apgd_targeted
from advpure.attacks.low_frequency import LowFrequencySettings, low_frequency
from advpure.attacks.noise import NoiseSettings, uniform_noise
from advpure.attacks.outcome import AttackResult, Claims, ZeroGradientWarning
from advpure.attacks.projected import PGDSettings, pgd
from advpure.attacks.registry import ATTACKS, settings_type
from advpure.attacks.square import SquareSettings, square
from advpure.attacks.standard import StandardSettings, standard
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
    "APGDTargetedSettings",
    "AttackResult",
    "BPDAEOTSettings",
    "BPDASettings",
    "Claims",
    "EngineSettings",
    "LowFrequencySettings",
    "NoiseSettings",
    "PGDEOTSettings",
    "PGDSettings",
    "RaySSettings",
    "SquareSettings",
    "StandardSettings",
    "ZeroGradientWarning",
    "apgd",
    "apgd_targeted",
    "bpda",
    "bpda_eot",
    "engine",
    "low_frequency",
    "pgd",
    "pgd_eot",
    "rays",
    "settings_type",
    "square",
    "standard",
    "transfer",
    "uniform_noise",
]
