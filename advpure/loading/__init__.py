"""From names to working objects: denoisers, classifiers, purifiers, defenses.

Everything that a result depends on ends up in `describe`: options with their defaults, gradient,
policy, tile, and the SHA-256 of every weights file.
"""

from advpure.loading.boosters import load_booster
from advpure.loading.classifiers import (
    is_code,
    load_classifier,
    load_joint,
    load_judge,
    load_selector,
)
from advpure.loading.defenses import describe, load_defense
from advpure.loading.denoisers import load_denoiser, own_denoiser
from advpure.loading.levelled import load_levelled
from advpure.loading.purifiers import load_purifier, make_recipe
from advpure.loading.weights import lineage

__all__ = [
    "describe",
    "is_code",
    "lineage",
    "load_booster",
    "load_classifier",
    "load_defense",
    "load_denoiser",
    "load_joint",
    "load_judge",
    "load_levelled",
    "load_purifier",
    "load_selector",
    "make_recipe",
    "own_denoiser",
]
