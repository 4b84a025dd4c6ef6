"""Perturbations by name: none, random ones of a strength, and the registered attacks.

``none``; ``uniform:8/255``, ``gaussian:8/255`` (the same root mean square), ``sign:8/255``;
``attack:pgd``, at the data set's radius, or ``attack:pgd:4/255``. Random ones are those that `cr`
draws first with the same seed. They are not clipped to [0, 1] unless asked for.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from advpure.analysis.perturbations import Distribution, directions
from advpure.attacks.engines.contract import is_engine
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import AttackSettings
from advpure.base.errors import BadInput
from advpure.base.text import alike, several
from advpure.base.units import Norm, check_radius, parse_eps
from advpure.base.validation import check_choice, words
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.options import read_options

Kind = Literal["none", "uniform", "gaussian", "sign", "attack"]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """A perturbation.

    Attributes:
        kind: ``none``, a distribution, or ``attack``.
        eps: Strength in [0, 1] units; 0 for none.
        attack: Name of the attack, "" for others.
    """

    kind: Kind
    eps: float = 0.0
    attack: str = ""

    @property
    def label(self) -> str:
        """Its name in records: the same for the same perturbation.

        Example:
            >>> Perturbation(kind="uniform", eps=8 / 255).label
            'uniform:8/255'
        """
        if self.kind == "none":
            return "none"
        middle = (self.attack,) if self.attack else ()
        return ":".join([self.kind, *middle, write_eps(self.eps)])


def write_eps(eps: float) -> str:
    """Write a strength as a fraction of 255 where it is one, else as a number.

    Example:
        >>> write_eps(parse_eps("16/255")), write_eps(0.15)
        ('16/255', '0.15')
    """
    near = Fraction(eps * 255).limit_denominator(8)
    fraction = near.numerator / (255 * near.denominator)
    if near > 0 and abs(fraction - eps) <= 1e-15 and near.denominator == 1:
        return f"{near.numerator}/255"
    return repr(eps)


def parse_perturbations(
    given: str | Sequence[str], eps: float, norm: Norm = "linf"
) -> tuple[Perturbation, ...]:
    """Read a list of perturbations.

    Args:
        given: Names as in the module, in a list or joined by commas.
        eps: Radius of attacks that name none.
        norm: Norm of that radius.

    Raises:
        BadInput: for an unknown name, a missing or impossible strength, or one that repeats.

    Example:
        >>> [p.label for p in parse_perturbations("none,uniform:8/255,attack:pgd", 0.15)]
        ['none', 'uniform:8/255', 'attack:pgd:0.15']
    """
    perturbations = several(
        given,
        lambda text: _parse(words(text, "perturbation").strip(), eps, norm),
        "perturbations",
        "write for example uniform:8/255",
    )
    for k, each in enumerate(perturbations):
        for other in perturbations[:k]:
            if (each.kind, each.attack) == (other.kind, other.attack) and alike(
                each.eps, other.eps
            ):
                raise BadInput(f"perturbation {each.label}", "is given twice", "keep one of them")
    return perturbations


def _parse(text: str, eps: float, norm: Norm) -> Perturbation:
    kind, *rest = text.split(":")
    if kind == "attack" and is_engine(":".join(rest)):
        rest = [":".join(rest[:2]), *rest[2:]]
    check_choice(kind, get_args(Kind), "perturbation")
    most = {"none": 0, "attack": 2}.get(kind, 1)
    least = min(most, 1)
    if not least <= len([part for part in rest if part]) == len(rest) <= most:
        example = {"none": "none", "attack": "attack:pgd"}.get(kind, f"{kind}:8/255")
        raise BadInput(f"perturbation {text!r}", "is not complete", f"write {example}")
    if kind == "none":
        return Perturbation(kind="none")
    if kind == "attack":
        find(rest[0])
        name = rest[0] if is_engine(rest[0]) else rest[0].strip().lower().replace("_", "-")
        radius = parse_eps(rest[1], norm) if len(rest) > 1 else eps
        return Perturbation(kind="attack", eps=radius, attack=name)
    return Perturbation(kind=kind, eps=parse_eps(rest[0]))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Perturber:
    """A perturbation that is ready to be made.

    Attributes:
        perturbation: Which.
        seed: Base seed of random ones.
        clip: Clip random ones to [0, 1]; attacks stay there anyway.
        run: The attack, None for others.
        settings: The attack's resolved settings.
    """

    perturbation: Perturbation
    seed: int
    clip: bool
    run: Callable[..., AttackResult] | None = None
    settings: AttackSettings | None = None

    @property
    def label(self) -> str:
        """The perturbation's name."""
        return self.perturbation.label

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes through the defense on one image, at most."""
        return (0, 0) if self.settings is None else tuple(self.settings.most_passes)  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """Return what identifies it, JSON values."""
        settings = None if self.settings is None else dataclasses.asdict(self.settings)
        return {
            "label": self.label,
            "kind": self.perturbation.kind,
            "eps": self.perturbation.eps,
            "attack": self.perturbation.attack or None,
            "settings": settings,
        }

    def make(
        self,
        images: Tensor,
        labels: Tensor,
        ids: Tensor,
        defense: Defense | None,
        xi: RandomnessConfig,
    ) -> Tensor:
        """Perturb a batch.

        Args:
            images: [B, C, H, W] in [0, 1].
            labels: [B].
            ids: Sample ids [B].
            defense: What an attack attacks; None will do for others.
            xi: The randomness that it decides under.

        Returns:
            [B, C, H, W]; a row depends on its image, label and id alone.
        """
        kind, eps = self.perturbation.kind, self.perturbation.eps
        if kind == "none":
            return images
        if kind == "attack":
            assert self.run is not None
            assert defense is not None
            return self.run(
                defense.at(ids=ids, xi=xi), images, labels, self.settings, ids=ids
            ).images
        eta = directions(
            _distribution(kind), self.seed, ids.tolist(), [0] * len(ids), images.shape[1:]
        )
        moved = images + eps * eta.to(images)
        return moved.clamp(0.0, 1.0) if self.clip else moved


def _distribution(kind: Kind) -> Distribution:
    assert kind not in ("none", "attack")
    return kind  # type: ignore[return-value]


def perturbers(
    chosen: Sequence[Perturbation], options: Mapping[str, Any], *, norm: Norm, seed: int, clip: bool
) -> tuple[Perturber, ...]:
    """Make perturbations ready.

    Args:
        chosen: Which.
        options: Settings of the attacks; each takes those that it knows. ``pgd.eot`` is one of the
            attack ``pgd`` alone; ``eot`` without a name is one of the attacks that average.
        norm: Norm of the attacks' ball.
        seed: Base seed of random ones.
        clip: Clip random ones to [0, 1].

    Raises:
        BadInput: for an option that no attack knows, or a value that cannot be used.
    """
    options = {_option(name): value for name, value in options.items()}
    known: set[str] = set()
    made = []
    for each in chosen:
        if each.kind != "none":
            check_radius(each.eps, torch.float32)  # as the images of every data set
        if each.kind != "attack":
            made.append(Perturber(perturbation=each, seed=seed, clip=clip))
            continue
        run = find(each.attack)
        kind = settings_type(run)
        names = _settable(kind)
        own = {name: options[name] for name in names if name in options}
        prefix = f"{each.attack}."
        own |= {n.removeprefix(prefix): v for n, v in options.items() if n.startswith(prefix)}
        known |= names | {name for name in options if name.startswith(prefix)}
        # The published distances are those of attacks that take all their steps.
        steady = {"stop": "never"} if "stop" in names else {}
        settings = read_options(kind, {"eps": each.eps, "norm": norm, **steady, **own}, each.attack)
        made.append(Perturber(perturbation=each, seed=seed, clip=clip, run=run, settings=settings))
    for name in options.keys() - known:
        rule = "is known to no attack of this run"
        fix = f"known: {', '.join(sorted(known))}" if known else "add attack:pgd, or leave it out"
        raise BadInput(f"attack option {name!r}", rule, fix)
    return tuple(made)


def _option(name: str) -> str:
    """Spell an attack's name as it is registered, also where dashes became underscores."""
    attack, dot, setting = name.rpartition(".")
    return f"{attack.replace('_', '-')}{dot}{setting}"


def _settable(kind: type[AttackSettings]) -> set[str]:
    """Return the settings that all attacks of a run share.

    The number of draws of a gradient is one of the attacks that average gradients only: it would
    make plain PGD another attack.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    if fields.get("eot") == 1:
        del fields["eot"]
    return set(fields) - {"eps", "norm", "targeted"}
