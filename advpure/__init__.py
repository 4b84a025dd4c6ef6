"""advpure: how robust is a purifier really?

A purifier (diffusion model, consistency model) cleans an image before a classifier sees it. This
package attacks the pair with exact gradients and controlled randomness, and measures why it is or
is not robust. Names are imported when they are first used.
"""

import importlib
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from advpure.analysis.robustness.call import evaluate
    from advpure.base.errors import BadInput, MissingExtra
    from advpure.core.defense import Defense, Policy
    from advpure.core.purifier import Purifier
    from advpure.core.randomness import RandomnessConfig
    from advpure.data import load_images
    from advpure.loading import (
        load_booster,
        load_classifier,
        load_defense,
        load_denoiser,
        load_purifier,
    )

__version__ = "0.1.0"

__all__ = [
    "BadInput",
    "Defense",
    "MissingExtra",
    "Policy",
    "Purifier",
    "RandomnessConfig",
    "evaluate",
    "load_booster",
    "load_classifier",
    "load_defense",
    "load_denoiser",
    "load_images",
    "load_purifier",
]

_HOME = {
    "BadInput": "base.errors",
    "Defense": "core.defense",
    "MissingExtra": "base.errors",
    "Policy": "core.defense",
    "Purifier": "core.purifier",
    "RandomnessConfig": "core.randomness",
    "evaluate": "analysis.robustness.call",
    "load_booster": "loading",
    "load_classifier": "loading",
    "load_defense": "loading",
    "load_denoiser": "loading",
    "load_images": "data",
    "load_purifier": "loading",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import advpure` costs nothing."""
    if name in _HOME:
        value = getattr(importlib.import_module(f"advpure.{_HOME[name]}"), name)
        if inspect.isfunction(value):
            from advpure.base.arguments import checked

            value = globals()[name] = checked(value)
        return value
    if name in ("attacks", "analysis"):
        return importlib.import_module(f"advpure.{name}")
    raise AttributeError(f"module 'advpure' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, "__version__", "analysis", "attacks"])
