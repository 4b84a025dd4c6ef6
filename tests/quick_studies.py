"""Settings of every study at which it runs in about a second, on digits where it needs images."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

from advpure.analysis.study import Report, Study
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
    "predict": {
        **DIGITS,
        "defense": "onestep-ddpm",
        "t": [60],
        "attack_options": {"steps": 2},
        "bisections": 1,
        "perturbations": 2,
    },
    "randomness": {
        **DIGITS,
        "defense": "onestep-edm",
        "attack_options": {"steps": 2},
        "seeds": [0, 1],
        "eot": 2,
        "draws": 2,
    },
    "timesteps": {
        **DIGITS,
        "times": [1, 3],
        "attack_times": [3],
        "attack_options": {"steps": 2},
        "perturbations": 2,
    },
    "cr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "seeds": [0, 1]},
    "distances": {
        **DIGITS,
        "defense": "onestep-edm",
        "perturb": ["none", "sign:8/255"],
        "metrics": ["ssim", "frechet-classifier"],
    },
    "certify": {
        **DIGITS,
        "defense": "cm",
        "sigmas": "0.1,0.25",
        "samples": 40,
        "selection": 10,
        "tile": 8,
        "radii": "0,0.1",
    },
    "snr": {**DIGITS, "defense": "onestep-edm", "perturbations": 2, "configurations": 2},
    "transport": {**DIGITS, "sigmas": "0.25,0.5", "draws": 2},
    "field": {"dimension": 60, "draws": 2, "steps": 5},
    "two-point": {"noise": "0.5,1", "draws": 20},
    "steps": {
        **DIGITS,
        "t": 2,
        "perturbations": 1,
        "probes": 1,
        "directions": 1,
        "singular": 1,
        "singular_basis": 6,
        "singular_tolerance": 0.5,
    },
    "gradients": {**DIGITS, "defense": "onestep-edm", "draws": 2, "reference": 2},
    "check-grad": {**DIGITS, "defense": ["none", "onestep-edm"], "directions": 2},
    "audit": {**DIGITS, "defense": "none", "randomness": "fixed", "budget": 60, "passes": 60},
    "measure": {**DIGITS, "metric": "distance", "defense": "onestep-edm"},
    "boost": {
        "dataset": "digits",
        "n": 5,
        "weights": "digits-cm",
        "boost": "digits-gaussian-050",
        "boost_options": {"loss": "ce", "steps": 2, "step_size": 0.1},
        "metrics": ["frechet-classifier", "classifier-score", "precision-recall-classifier"],
        "reference": "train/first-40",
    },
    "representation": {**DIGITS, "perturbations": 2, "levels": 2},
    "generate": {**DIGITS, "model": "cm", "steps": [1, 2]},
}


def quick(verb: str, **changes: Any) -> Study[Any, Any]:
    """Return a study at its quick settings, some of them changed."""
    return STUDIES.get(verb)(**{**QUICK[verb], **changes})


def finished(verb: str, folder: Path) -> Report:
    """Put a finished run of a study at its quick settings into a folder.

    Each is computed once a process: what tests do with a finished run costs a copy.
    """
    source, report = _computed(verb)
    shutil.copytree(source, folder)
    return report


@functools.cache
def _computed(verb: str) -> tuple[Path, Report]:
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root / "run", quick(verb).run(out=root / "run")
