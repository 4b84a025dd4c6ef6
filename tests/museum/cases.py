"""The museum's catalogue: of every room what is wrong with it, and which check has to say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from museum.rooms import EPS, SHIFTS

HERE = Path(__file__).parent / "rooms.py"
LINEAR = 100 * 14 / 24
"""Of the linear classifier at 0.1: the images whose shift is larger."""
PIXELS: Literal["pixels"] = "pixels"
"""Instead of a number: found by a search of every pixel on its own, `museum.truth`."""
Truth = float | Literal["pixels"] | None


def under_noise(sigma: float, shifts: Sequence[float]) -> float:
    """Return the mean share in per cent of right decisions at the optimum, under fresh noise.

    The shift of normal noise along 16 signs has a standard deviation of a quarter of sigma, and the
    attack takes the whole radius from the shift of an image.
    """
    return 100 * float(np.mean([norm.cdf((each - EPS) / (sigma / 4)) for each in shifts]))


FRESH = under_noise(0.05, SHIFTS.tolist())
"""Of noise of 0.05 in front of the linear classifier."""
PGD = {"steps": 30, "step_size": 0.02, "loss": "margin"}


def named(name: str) -> str:
    """Return the name of a thing in the rooms."""
    return f"{HERE}:{name}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """An evaluation.

    Attributes:
        name: What it is.
        settings: Settings of the attack run, or of the audit that makes it.
        check: The check that has to fail; empty for a sound one.
        truth: True robust accuracy in per cent of the images, in closed form, or `PIXELS`; None
            where nobody knows it, or no one function decides.
    """

    name: str
    settings: dict[str, Any]
    check: str = ""
    truth: Truth = None


def case(name: str, check: str = "", truth: Truth = LINEAR, **changes: Any) -> Case:
    """Return a case of linf, fixed randomness and PGD, with changes."""
    attack = changes.pop("attack_options", PGD)
    settings = {
        "dataset": named(changes.pop("images", "points")),
        "classifier": named(changes.pop("judge", "linear")),
        "defense": named(changes.pop("purifier", "same")),
        "eps": changes.pop("eps", 0.1),
        "norm": "linf",
        "n": 24,
        "attack": "pgd",
        "randomness": "fixed",
        "attack_options": attack,
        "passes": 800,
        **changes,
    }
    return Case(name=name, settings=settings, check=check, truth=truth)


PLANTED = [
    case("rounding to 64 levels", "zero-gradient", PIXELS, purifier="rounding"),
    case("rounded cosine coefficients", "finite-differences", None, purifier="jpeg"),
    case("a fast ripple", "transfer", PIXELS, purifier="ripple"),
    case("logits times 1000", "saturated-loss", judge="sharp"),
    case("softmax output", "logits", judge="probabilities"),
    case("noise not replayed", "finite-differences", PIXELS, purifier="unreplayed"),
    case("adjoint drift", "finite-differences", PIXELS, purifier="drifting"),
    case("states of two grids", "finite-differences", PIXELS, purifier="two_grids"),
    case(
        "surrogate too short", "gradient-mode", PIXELS, purifier="surrogate", gradient="surrogate"
    ),
    case("detached step", "finite-differences", PIXELS, purifier="detached"),
    case("one step of five is cut off", "chain-gradients", PIXELS, purifier="cut_step"),
    case(
        "BPDA where exact is possible",
        "gradient-mode",
        purifier="turning",
        judge="turned",
        normalize="0/1",
        gradient="bpda",
    ),
    case(
        "l2 projection to nothing",
        "known-optimum",
        LINEAR,
        attack=named("broken"),
        norm="l2",
        eps=0.4,
        attack_options={"steps": 30, "step_size": 0.05, "fault": "projection"},
    ),
    case(
        "clipped to another box",
        "ball-used",
        attack=named("broken"),
        attack_options={**PGD, "fault": "box"},
    ),
    case(
        "descends instead of ascends",
        "known-optimum",
        attack=named("broken"),
        attack_options={**PGD, "fault": "sign"},
    ),
    case(
        "half the radius, as in [-1, 1] units",
        "ball-used",
        attack=named("broken"),
        attack_options={**PGD, "fault": "scale"},
    ),
    case("uniform noise of a stated sigma", "noise-law", PIXELS, purifier="uniform"),
    case(
        "one draw decides",
        "decision-draws",
        FRESH,
        purifier="noisy",
        randomness="fresh",
        draws=1,
        attack_options={**PGD, "eot": 8},
    ),
    case(
        "one draw a gradient",
        "gradient-draws",
        FRESH,
        purifier="noisy",
        randomness="fresh",
        draws=5,
        attack_options={**PGD, "eot": 1},
    ),
    case(
        "chosen by the draws that decide",
        "fresh-decisions",
        under_noise(0.3, [0.06]),
        images="bright",
        purifier="tossing",
        randomness="fresh",
        draws=5,
        attack=named("peeking"),
        attack_options={},
    ),
    case("three steps", "step-budget", attack_options={"steps": 3}),
    case("a step too small", "step-sizes", attack_options={"steps": 12, "step_size": 0.004}),
    case(
        "twelve steps that do not arrive",
        "more-steps",
        attack_options={"steps": 12, "step_size": 0.006, "random_start": False},
    ),
    case(
        "no restart out of a trap",
        "restarts",
        0.0,
        images="trapped",
        judge="trap",
        attack_options={**PGD, "random_start": False},
    ),
    case(
        "last iterate",
        "silent-success",
        100 * float((SHIFTS >= 1.4 * EPS).double().mean()),
        judge="valley",
        attack_options={"steps": 30, "step_size": 0.06, "stop": "never", "loss": "margin"},
    ),
    case(
        "8/255 divided by 255 again",
        "epsilon-unit",
        100 * 23 / 24,
        eps=8 / 255 / 255,
        attack_options={"steps": 40},
    ),
    case("training mode", "train-mode", None, judge="training"),
    case("normalised by the batch", "train-mode", None, judge="batch_statistics"),
    case("statistics that move", "moving-statistics", judge="counting"),
    case("compared with the other images", "batch-dependence", None, judge="among_others"),
    case("optimises while it answers", "test-time-optimization", PIXELS, purifier="optimising"),
    case("labels shifted", "labels", images="shifted", normalize="0/1"),
    case("images counted twice", "distinct-images", PIXELS, images="doubled"),
    case(
        "images counted twice, with faint noise", "distinct-images", PIXELS, images="nearly_doubled"
    ),
    case("images of one class", "several-classes", PIXELS, images="one_class"),
    case(
        "training images",
        "training-images",
        None,
        dataset="digits",
        classifier=None,
        defense="none",
        subset="train",
        passes=100,
    ),
    case("the easy images of a data set", "other-images", 100.0, images="easy_first"),
    case("a memory of earlier queries", "reproducible", purifier="remembering"),
    case("the clean image looked up by its number", "identity", purifier="looked_up"),
    case(
        "a projection onto the images of the test", "memorised-images", None, purifier="projecting"
    ),
    case(
        "noise that is seeded by the clock",
        "clock",
        under_noise(0.1, SHIFTS.tolist()),
        purifier="by_the_clock",
        randomness="fresh",
        draws=5,
        attack_options={**PGD, "eot": 8},
    ),
    case("another function each hour", "clock", PIXELS, purifier="by_the_hour"),
    case("test images known by their bytes", "tiny-changes", PIXELS, purifier="recognising"),
    case(
        "another function where a gradient is wanted",
        "answers-under-gradient",
        purifier="two_faced",
    ),
    case("a gradient that turns at the border", "path-gradients", judge="turning_back"),
    case(
        "a seed that is set within the model",
        "decision-draws",
        PIXELS,
        purifier="seeding",
        randomness="fresh",
        draws=5,
        attack_options={**PGD, "eot": 8},
    ),
    case(
        "a radius of linf used for l2",
        "epsilon-unit",
        100.0,
        norm="l2",
        eps=8 / 255,
        attack_options={"steps": 40, "step_size": 0.005, "loss": "margin"},
    ),
    case(
        "corners of linf in a ball of l2",
        "known-optimum",
        LINEAR,
        attack=named("broken"),
        norm="l2",
        eps=0.4,
        attack_options={"steps": 40, "step_size": 0.05, "loss": "margin", "fault": "corner"},
    ),
    case(
        "a third of the images is not attacked",
        "ball-used",
        attack=named("broken"),
        attack_options={**PGD, "fault": "skipped"},
    ),
]
"""Evaluations with one flaw."""

SOUND = [
    case("linear, PGD"),
    case("linear, 100 steps from the image", attack_options={**PGD, "steps": 100}),
    case("linear, standard", attack="standard", attack_options={"budget": 200}),
    case("linear, APGD", attack="apgd", attack_options={"steps": 40}),
    case(
        "linear, l2",
        "",
        LINEAR,
        norm="l2",
        eps=0.4,
        attack_options={"steps": 40, "step_size": 0.05, "loss": "margin"},
    ),
    case("pixels permuted", purifier="permuted"),
    case("a flow of twenty steps", "", PIXELS, purifier="flow"),
    case("the same flow as a chain of five steps", "", PIXELS, purifier="five_steps"),
    case("low-pass filter", "", PIXELS, purifier="blurred"),
    case("close to the border", "", 0.0, images="bright"),
    case("keyed noise, fixed", "", PIXELS, purifier="noisy"),
    case(
        "keyed noise, fixed, standard",
        "",
        PIXELS,
        purifier="noisy",
        attack="standard",
        attack_options={"budget": 200},
    ),
    case(
        "keyed noise, fresh, 16 draws a gradient",
        "",
        FRESH,
        purifier="noisy",
        randomness="fresh",
        draws=10,
        attack_options={"steps": 20, "step_size": 0.03, "loss": "margin", "eot": 16},
    ),
    case("normal noise of a stated sigma, fixed", "", PIXELS, purifier="gaussian"),
    case("a whole defense", "", PIXELS, purifier="whole", classifier=None),
    case(
        "a whole defense that draws, fresh",
        "",
        FRESH,
        purifier="whole_noisy",
        classifier=None,
        randomness="fresh",
        draws=10,
        attack_options={"steps": 20, "step_size": 0.03, "loss": "margin", "eot": 16},
    ),
    case("three images", "", PIXELS, n=3),
    case(
        "a small radius, almost all robust",
        "",
        100.0,
        eps=0.02,
        attack_options={"steps": 30, "step_size": 0.004, "loss": "margin"},
    ),
]
"""Evaluations without one."""
