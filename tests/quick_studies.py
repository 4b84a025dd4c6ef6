"""Settings of every study at which it runs in about a second, on digits where it needs images."""

from typing import Any

from advpure.analysis.study import Study
from advpure.studies import STUDIES

DIGITS: dict[str, Any] = {"dataset": "digits", "n": 3}
QUICK: dict[str, dict[str, Any]] = {
    "attack": {**DIGITS, "defense": "cm", "attack_options": {"steps": 2}, "draws": 2},
    "check-grad": {**DIGITS, "defense": ["none", "onestep-edm"], "directions": 2},
    "cr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "seeds": [0, 1]},
    "distances": {
        **DIGITS,
        "defense": "onestep-edm",
        "perturb": ["none", "sign:8/255"],
        "metrics": ["ssim", "frechet-classifier"],
    },
    "measure": {**DIGITS, "metric": "distance", "defense": "onestep-edm"},
    "snr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "configurations": 2},
    "transport": {**DIGITS, "sigmas": "0.25,0.5", "draws": 2},
}


def quick(verb: str, **changes: Any) -> Study[Any, Any]:
    """Return a study at its quick settings, some of them changed."""
    return STUDIES.get(verb)(**{**QUICK[verb], **changes})
