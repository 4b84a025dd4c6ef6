"""How a run's attack reads in a headline, and what a careful reader should know of it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from advpure.analysis.robustness.protocol import RUNGS
from advpure.attacks.engines.contract import OURS, is_engine
from advpure.attacks.standard import StandardSettings
from advpure.base.display import counted
from advpure.core.recipe import DEFAULT_SIGMA, DEFAULT_T

ROUNDING = 1e-5
"""How far outside of its ball an image of another library may lie by the rounding of float32."""
DECISIONS_ALONE = "rays"
"""The attack that asks for decisions alone, and has no loss."""
FEW_DRAWS = 8
"""Passes per gradient below which the noise of a random defense hides much of the direction."""


class Claim(NamedTuple):
    """What another library says of one image.

    Attributes:
        fooled: Whether its image fools.
        excess: How far that lay outside of ball or box.
        ended: Whether the budget ended the attack.
    """

    fooled: bool
    excess: float
    ended: bool

    @property
    def is_moved(self) -> bool:
        """Whether it lay outside by more than rounding."""
        return self.excess > ROUNDING


def attack_text(settings: Mapping[str, Any]) -> str:
    """Return the attack of a run with what decides its strength, from the run's settings.

    Example:
        >>> own = {"name": "pgd", "steps": 40, "step_size": None, "eps": 0.3, "loss": "ce"}
        >>> attack_text({"attack": own, "protocol": "paper"})
        "pgd, the paper's protocol (40 steps of 0.01, loss ce)"
    """
    attack = settings["attack"]
    if is_engine(attack["name"]):
        return _library_text(attack)
    name, parts = attack["name"], []
    if "steps" in attack:
        size = step_of(attack)
        steps = counted(attack["steps"], "step")
        parts.append(steps + ("" if size is None else f" of {size:.4g}"))
    parts += [
        f"{attack[key]} {key}"
        for key in ("targets", "restarts", "queries", "draws")
        if attack.get(key, 1) > 1
    ]
    if "budget" in attack:
        most = " then ".join(map(str, settings.get(RUNGS, (attack["budget"],))))
        parts.append(f"{most} evaluations an image: {_standard(attack).plan.text}")
    elif name != DECISIONS_ALONE:
        parts.append(f"loss {attack['loss']}")
    if "eot" in attack and (attack["eot"] > 1 and attack.get("randomness") == "fresh"):
        parts.append(f"EOT {attack['eot']}")
    if settings.get("protocol") == "paper":
        name += ", the paper's protocol"
    return f"{name} ({', '.join(parts)})"


def strength_text(defense: Mapping[str, Any]) -> str:
    """Return a purifier's name with its strength, also where that is the default.

    Example:
        >>> strength_text({"purifier": "ddpm", "t": 50, "sigma": None})
        'ddpm t=50'
        >>> strength_text({"purifier": "cm", "t": None, "sigma": None}), strength_text(
        ...     {"purifier": "none"}
        ... )
        ('cm sigma=0.25', 'none')
    """
    if {"t", "sigma"} <= defense.keys() and defense["t"] is None and defense["sigma"] is None:
        is_discrete = "schedule" in defense
        own = {"t": DEFAULT_T} if is_discrete else {"sigma": DEFAULT_SIGMA}
        defense = {**defense, **own}
    parts = [f"{key}={defense[key]:.4g}" for key in ("t", "sigma") if defense.get(key) is not None]
    if defense.get("boost"):
        parts.append(f"boosted by {defense['boost']['name']}")
    return " ".join([str(defense["purifier"]), *parts])


def randomness_text(settings: Mapping[str, Any]) -> str:
    """Return under which randomness a run decides, from the run's settings.

    Example:
        >>> randomness_text({"decisions": {"randomness": "fixed"}, "randomness": {"seed": 3}})
        'fixed randomness (seed 3)'
        >>> fresh = {"decisions": {"randomness": "fresh", "draws": 10}, "randomness": {"seed": 0}}
        >>> randomness_text(fresh), randomness_text({**fresh, "is_random": False})
        ('fresh randomness (seed 0, 10 decisions an image)', 'no randomness')
    """
    decisions, seed = settings["decisions"], settings["randomness"]["seed"]
    if not settings.get("is_random", True):
        return "no randomness"
    if decisions["randomness"] == "fixed":
        return f"fixed randomness (seed {seed})"
    return f"fresh randomness (seed {seed}, {counted(decisions['draws'], 'decision')} an image)"


def conditions(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield purifier with strength, attack and randomness of any run, as far as it has them.

    Example:
        >>> list(conditions({"purifier": "cm", "sigma": 0.5, "seed": 3}))
        ['cm sigma=0.5', 'seed 3']
    """
    defense = settings.get("defense", settings)
    if isinstance(defense, Mapping) and "purifier" in defense:
        yield strength_text(defense)
    if settings.get("attack"):
        yield f"attack {attack_text(settings)}"
    randomness = settings.get("randomness") or {}
    if "decisions" in settings:
        yield randomness_text(settings)
    elif (seed := settings.get("seed", randomness.get("seed"))) is not None:
        yield f"seed {seed}"
    elif settings.get("seeds"):
        yield f"seeds {', '.join(map(str, settings['seeds']))}"


def step_of(attack: Mapping[str, Any]) -> float | None:
    """Return the size of a step, of an attack whose steps have one."""
    if "step_size" not in attack:
        return None
    return float(attack["eps"] / 30 if attack["step_size"] is None else attack["step_size"])


def attack_notes(settings: Mapping[str, Any], lost: int, robust: int) -> Iterator[str]:
    """Yield what weakens the attack of a run.

    Args:
        settings: The run's settings.
        lost: Images with a successful iterate before one that is returned and does not succeed.
        robust: Images that the attack did not fool in its own test.
    """
    attack = settings["attack"]
    if is_engine(attack["name"]):
        return
    size = step_of(attack)
    if size is not None and attack["steps"] * size < 2 * attack["eps"] * (1 - 1e-9):
        crossed = attack["steps"] * size / attack["eps"]
        yield (
            f"{counted(attack['steps'], 'step')} of {size:.4g} travel {crossed:.3g} epsilon and "
            "cannot cross the ball, which is 2 wide: a weak attack; use --attack standard, or "
            f"--step-size {2.5 * attack['eps'] / attack['steps']:.2g}"
        )
    if lost:
        yield (
            f"{lost} images were fooled by an earlier iterate and count as robust because the last "
            "one does not fool: silent success; use --iterate best, or --stop success"
        )
    if "budget" in attack and robust:
        own = _standard(attack)
        default = StandardSettings(eps=own.eps, norm=own.norm, randomness=own.randomness)
        if own.budget < default.budget:
            yield (
                f"the budget of {own.budget} evaluations an image ended the attack on "
                f"{counted(robust, 'image')} that it had not fooled; it paid for {own.plan.text}, "
                f"the default {default.budget} pays for {default.plan.text}"
            )


def few_draws_note(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note where a random defense is attacked on few draws a gradient."""
    attack, random = settings["attack"], settings.get("is_random", True)
    if is_engine(attack.get("name")):
        return
    if random and attack.get("randomness") == "fresh" and attack.get("eot", FEW_DRAWS) < FEW_DRAWS:
        yield (
            f"{counted(attack['eot'], 'EOT draw')} a gradient under fresh randomness: noise hides "
            f"much of the direction; use --eot {FEW_DRAWS} or more, or --attack standard"
        )


def idle_note(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a note where a run sets what its defense has no use for.

    Seed, noise keys, gradient mode and draws a gradient are often shared by a comparison of many
    defenses, one of which draws nothing or is none. They change no result there, so the run is not
    refused: what would claim something of the result is, such as several draws of a decision.
    """
    if settings.get("is_random", True):
        return
    attack, defense, randomness = (settings[k] for k in ("attack", "defense", "randomness"))
    idle = []
    if defense["purifier"] == "none" and defense["gradient"] in ("bpda", "surrogate"):
        idle.append(f"gradient {defense['gradient']}")
    if attack.get("eot", 1) > 1 and "budget" not in attack:
        idle.append(f"EOT {attack['eot']}")
    idle += [f"seed {randomness['seed']}"] if randomness["seed"] else []
    idle += [f"scheme {randomness['scheme']}"] if randomness["scheme"] != "hash" else []
    if idle:
        purifier = f"{defense['purifier']}, which draws no noise"
        verb = "change" if len(idle) > 1 else "changes"
        yield f"{', '.join(idle)} {verb} nothing for {purifier}"


def _library_text(attack: Mapping[str, Any]) -> str:
    """Return an attack of another library with all parameters that are not ours."""
    own = [
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in attack.items()
        if key not in (*OURS, "name") and value is not None and (key, value) != ("loss", "ce")
    ]
    most = f"at most {attack['budget']} evaluations an image"
    return f"{attack['name']} ({', '.join([attack['library'], *own, most])})"


def library_notes(
    settings: Mapping[str, Any], claims: Mapping[int, Claim], right: Mapping[int, float]
) -> Iterator[str]:
    """Yield how another library's images and verdicts fare when we decide.

    Args:
        settings: The run's settings.
        claims: What the library says of each image.
        right: Share of right decisions of each image, by us.
    """
    name, budget = settings["attack"]["name"], settings["attack"]["budget"]
    moved = [claim.excess for claim in claims.values() if claim.is_moved]
    if moved:
        yield (
            f"{len(moved)} of {len(claims)} images of {name} lay outside of ball or box, by up to "
            f"{max(moved):.2g}, and were pulled in before they were decided"
        )
    ended = sum(claim.ended for claim in claims.values())
    if ended:
        yield (
            f"the budget of {budget} evaluations ended {name} on {ended} of {len(claims)} images, "
            "of which the best point counts that it had asked about"
        )
    for fooled, words in ((True, "fools"), (False, "does not fool")):
        other = [
            i
            for i in claims.keys() & right
            if claims[i].fooled == fooled and (right[i] < 1) != fooled
        ]
        if other:
            yield (
                f"{name} says of {len(other)} images that its image {words}, which the decisions "
                f"here do not confirm: {', '.join(map(str, sorted(other)[:5]))}"
                + (", ..." if len(other) > 5 else "")
            )


def _standard(attack: Mapping[str, Any]) -> StandardSettings:
    return StandardSettings(**{key: value for key, value in attack.items() if key != "name"})
