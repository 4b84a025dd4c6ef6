"""The museum's catalogue: of every room what is wrong with it, and which check has to say so."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "rooms.py"
LINEAR = 100 * 14 / 24
"""Of the linear classifier at 0.1: the images whose shift is larger."""
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
        truth: True robust accuracy in per cent of the images, in closed form; None without one.
    """

    name: str
    settings: dict[str, Any]
    check: str = ""
    truth: float | None = None


def case(name: str, check: str = "", truth: float | None = LINEAR, **changes: Any) -> Case:
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
    case("rounding to 64 levels", "zero-gradient", None, purifier="rounding"),
    case("rounded cosine coefficients", "finite-differences", None, purifier="jpeg"),
    case("a fast ripple", "transfer", None, purifier="ripple"),
    case("logits times 1000", "saturated-loss", judge="sharp"),
    case("softmax output", "logits", judge="probabilities"),
    case("noise not replayed", "finite-differences", None, purifier="unreplayed"),
    case("adjoint drift", "finite-differences", None, purifier="drifting"),
    case("states of two grids", "finite-differences", None, purifier="two_grids"),
    case("surrogate too short", "gradient-mode", None, purifier="surrogate", gradient="surrogate"),
    case("detached step", "finite-differences", None, purifier="detached"),
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
    case("uniform noise of a stated sigma", "noise-law", None, purifier="uniform"),
    case(
        "one draw decides",
        "decision-draws",
        None,
        purifier="noisy",
        randomness="fresh",
        draws=1,
        attack_options={**PGD, "eot": 8},
    ),
    case(
        "one draw a gradient",
        "gradient-draws",
        None,
        purifier="noisy",
        randomness="fresh",
        draws=5,
        attack_options={**PGD, "eot": 1},
    ),
    case(
        "chosen by the draws that decide",
        "fresh-decisions",
        None,
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
        None,
        images="trapped",
        judge="trap",
        attack_options={**PGD, "random_start": False},
    ),
    case(
        "last iterate",
        "silent-success",
        None,
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
    case("optimises while it answers", "test-time-optimization", None, purifier="optimising"),
    case("labels shifted", "labels", None, images="shifted", normalize="0/1"),
    case("images counted twice", "distinct-images", None, images="doubled"),
    case(
        "images counted twice, with faint noise", "distinct-images", None, images="nearly_doubled"
    ),
    case("images of one class", "several-classes", None, images="one_class"),
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
        None,
        purifier="by_the_clock",
        randomness="fresh",
        draws=5,
        attack_options={**PGD, "eot": 8},
    ),
    case("another function each hour", "clock", None, purifier="by_the_hour"),
    case("test images known by their bytes", "tiny-changes", None, purifier="recognising"),
    case(
        "another function where a gradient is wanted",
        "answers-under-gradient",
        purifier="two_faced",
    ),
    case("a gradient that turns at the border", "path-gradients", judge="turning_back"),
    case(
        "a seed that is set within the model",
        "decision-draws",
        None,
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
        None,
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
    case("a flow of twenty steps", "", None, purifier="flow"),
    case("low-pass filter", "", None, purifier="blurred"),
    case("close to the border", "", 0.0, images="bright"),
    case("keyed noise, fixed", "", None, purifier="noisy"),
    case(
        "keyed noise, fixed, standard",
        "",
        None,
        purifier="noisy",
        attack="standard",
        attack_options={"budget": 200},
    ),
    case(
        "keyed noise, fresh, 16 draws a gradient",
        "",
        None,
        purifier="noisy",
        randomness="fresh",
        draws=10,
        attack_options={"steps": 20, "step_size": 0.03, "loss": "margin", "eot": 16},
    ),
    case("normal noise of a stated sigma, fixed", "", None, purifier="gaussian"),
    case("a whole defense", "", None, purifier="whole", classifier=None),
    case(
        "a whole defense that draws, fresh",
        "",
        None,
        purifier="whole_noisy",
        classifier=None,
        randomness="fresh",
        draws=10,
        attack_options={"steps": 20, "step_size": 0.03, "loss": "margin", "eot": 16},
    ),
    case("three images", "", None, n=3),
    case(
        "a small radius, almost all robust",
        "",
        100.0,
        eps=0.02,
        attack_options={"steps": 30, "step_size": 0.004, "loss": "margin"},
    ),
]
"""Evaluations without one."""
