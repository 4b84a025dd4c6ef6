"""Settings of every study at which it runs in about a second, on digits where it needs images."""

from typing import Any

from advpure.analysis.study import Study
from advpure.studies import STUDIES

DIGITS: dict[str, Any] = {"dataset": "digits", "n": 3}
QUICK: dict[str, dict[str, Any]] = {
    "attack": {**DIGITS, "defense": "cm", "attack_options": {"steps": 2}, "draws": 2},
    "survival": {
        **DIGITS,
        "defense": "onestep-edm",
        "attack": "pgd",
        "attack_options": {"steps": 2},
        "bisections": 2,
    },
    "timesteps": {
        **DIGITS,
        "times": [1, 3],
        "attack_times": [3],
        "attack_options": {"steps": 2},
        "perturbations": 2,
    },
    "cr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "seeds": [0, 1]},
    "snr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "configurations": 2},
}


def quick(verb: str, **changes: Any) -> Study[Any, Any]:
    """Return a study at its quick settings, some of them changed."""
    return STUDIES.get(verb)(**{**QUICK[verb], **changes})
