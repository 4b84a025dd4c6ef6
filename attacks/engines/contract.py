"""The contract of attacks of other libraries: images, labels, budget in; adversarial images out.

``LIBRARY:NAME`` names an attack of a library, such as ``foolbox:LinfPGD``. Threat model,
randomness, seed and budget are ours; the parameters of the library's attack are its options. What
comes back is pulled into ball and box and decided again by us, on our draws, like the images of any
other attack. What the library itself says of its images is kept beside it (`Claims`).

A library attacks each image alone (`advpure.attacks.engines.lockstep`), so its subsets and orders
of a batch never arise, and an image's result does not depend on the others.
"""

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union, cast, get_args, get_origin

import torch
from annotated_types import Ge
from torch import Tensor

from advpure.attacks.balls import distances, project, row_radii
from advpure.attacks.engines.lockstep import MOST_LANES, Finding, Lockstep, Outcome, Task
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult, Claims, Tally, conclude
from advpure.attacks.settings import AttackSettings, Count, Passes, resolve
from advpure.base.errors import BadInput
from advpure.base.factories import read_factory
from advpure.base.imports import Code, explain
from advpure.base.registry import Registry
from advpure.base.validation import words
from advpure.core.given import takes_pairs
from advpure.core.gradients import GradientMode
from advpure.core.randomness import Ids, RandomnessConfig, row_seed
from advpure.core.tiling import tiled

OURS = (
    *("eps", "norm", "targeted", "randomness", "seed", "budget", "gradient", "library"),
    *("own", "name", "norms"),
)
"""Fields of ours, which no parameter of a library replaces."""
_LAST = 10**7
"""Number of the pass that decides at the end; no round of a library gets there."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings(AttackSettings):
    """Settings of an attack of a library; its own parameters are added to them.

    Args:
        budget: Evaluations an image, at most: forward passes through the whole defense. An attack
            that reaches it is ended, and the best point counts that it asked about.
        gradient: Gradient mode of the defense during the attack; None keeps the defense's own.
        library: Name and version of the library, which are part of what was run; leave it out.
    """

    budget: Count = 10_000
    gradient: GradientMode | None = None
    library: str = "none"
    own: ClassVar[tuple[str, ...]] = ()
    """Names of the library's own parameters."""
    name: ClassVar[str] = "of a library"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    """Norms whose balls it can be held in."""

    def __post_init__(self) -> None:
        """Check, and refuse what no library is asked for."""
        super().__post_init__()
        if self.loss != "ce" and "loss" not in self.own:
            raise BadInput(f"loss {self.loss}", "is no parameter of this attack", "leave it out")
        if self.norm not in self.norms:
            fix = f"use --norm {' or '.join(self.norms)}, or another attack"
            raise BadInput(f"attack {self.name}", f"has no ball of norm {self.norm}", fix)
        if self.targeted:
            raise BadInput("targeted", "is not what a library is asked for", "use apgd")

    @property
    def most_passes(self) -> Passes:
        """The budget, each pass with a gradient, and the tests before and after."""
        return Passes(self.budget + 2, self.budget)


@dataclass(frozen=True, kw_only=True)
class Library:
    """A library of attacks: one module of this package.

    Attributes:
        distribution: What is installed, whose version is recorded.
        names: Lists the attacks that can be run, importing the library.
        make: From a name to the class or function whose parameters are the options.
        norms: From a name to the norms whose balls the attack can be held in.
        attack: Attacks one image: name, what `make` returned, options, task.
        taken: Parameters that are filled otherwise.
        changed: Parameters whose default is not the library's: to type and default.
    """

    distribution: str
    names: Callable[[], list[str]]
    make: Callable[[str], Any]
    norms: Callable[[str], tuple[str, ...]]
    attack: Callable[[str, Any, Mapping[str, Any], Task], Finding]
    taken: tuple[str, ...] = ()
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


_HERE = "advpure.attacks.engines"
LIBRARIES: Registry[Library] = Registry("attack library")
for _name, _example in (
    ("foolbox", "LinfPGD"),
    ("torchattacks", "APGD"),
    ("art", "SquareAttack"),
    ("autoattack", "standard"),
):
    LIBRARIES.register(
        _name, f"{_HERE}.{_name}:LIBRARY", about=f"its attacks by name, as {_name}:{_example}"
    )


class EngineAttack(Protocol):
    """An attack of a library, called like one of ours."""

    __name__: str

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        settings: EngineSettings | None = None,
        *,
        ids: Ids | None = None,
        radii: Tensor | None = None,
        **overrides: Any,
    ) -> AttackResult:
        """Attack."""


def is_engine(name: object) -> bool:
    """Return whether a text names an attack of a library; the library is not imported.

    Example:
        >>> is_engine("foolbox:LinfPGD"), is_engine("pgd"), is_engine("mine.py:attack")
        (True, False, False)
    """
    return isinstance(name, str) and _parts(name)[0] in LIBRARIES and ":" in name


def _parts(text: str) -> tuple[str, str]:
    library, _, name = text.strip().partition(":")
    return library.strip().lower(), name.strip()


_MADE: dict[str, EngineAttack] = {}


def engine(name: str) -> EngineAttack:
    """Return an attack of another library as a function like those of ours.

    Args:
        name: ``LIBRARY:NAME``, such as ``foolbox:LinfPGD`` or ``autoattack:standard``. The
            libraries are foolbox, torchattacks, art and autoattack.

    Returns:
        A function of model, images, labels and settings, as `pgd`: its settings are those of
        `EngineSettings` and the parameters of the library's attack.

    Raises:
        BadInput: for an unknown library or attack.
        MissingExtra: when the library is not installed.

    Example:
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5)
        >>> result = engine("foolbox:LinfPGD")(towards_white, gray, torch.tensor([1]), eps=0.25)
        >>> result.success.item(), result.claims.fooled.item()
        (True, True)
    """
    place, own = _parts(words(name, "attack"))
    library = LIBRARIES.get(place)
    spelt = f"{place}:{own}"
    if spelt in _MADE:
        return _MADE[spelt]
    known = library.names()
    if own not in known:
        lowered = {each.lower(): each for each in known}
        near = difflib.get_close_matches(own.lower(), lowered, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(lowered[each] for each in near)}? " if near else ""
        raise BadInput(
            f"attack {spelt}", f"is none of {place}'s", f"{hint}known: {', '.join(known)}"
        )
    made = library.make(own)
    kind = _settings_of(spelt, library, made, library.norms(own))

    @takes_pairs
    def attack(
        model: Model,
        images: Tensor,
        labels: Tensor,
        settings: EngineSettings | None = None,
        *,
        ids: Ids | None = None,
        radii: Tensor | None = None,
        **overrides: Any,
    ) -> AttackResult:
        """Attack with another library; arguments and result are those of `pgd`."""
        chosen = resolve(kind, settings, overrides)
        given = {each: getattr(chosen, each) for each in kind.own}

        def job(task: Task) -> Finding:
            return library.attack(own, made, given, task)

        return _attack(spelt, job, model, images, labels, chosen, ids, radii)

    attack.__name__ = spelt
    attack.__annotations__["settings"] = kind | None
    _MADE[spelt] = attack
    return attack


def _settings_of(
    spelt: str, library: Library, made: Any, norms: tuple[str, ...]
) -> type[EngineSettings]:
    """Return settings with the parameters of a library's attack as further fields."""
    taken = (*OURS, *library.taken)
    parameters = {**read_factory(Code(spelt, made, "", "")).options, **library.changed}
    own = {
        each.name: parameters[each.name]
        for each in inspect.signature(made).parameters.values()
        if each.name in parameters and each.name not in taken
    }
    fields: list[Any] = [
        (name, _in_range(_one_choice(hint), default), field(default=default))
        for name, (hint, default) in own.items()
    ]
    version = f"{library.distribution} {metadata.version(library.distribution)}"
    fields.append(("library", str, field(default=version)))
    kind = dataclasses.make_dataclass(
        "EngineSettings",
        fields,
        bases=(EngineSettings,),
        namespace={"own": tuple(own), "name": spelt, "norms": norms},
        frozen=True,
        kw_only=True,
    )
    kind.__module__ = __name__
    return cast(type[EngineSettings], kind)


def _one_choice(hint: Any) -> Any:
    """Return a union of several literals as one literal of all their values."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    if len(kinds) > 1 and all(get_origin(each) is Literal for each in kinds):
        return Literal.__getitem__(tuple(value for each in kinds for value in get_args(each)))
    return hint


def _in_range(hint: Any, default: Any) -> Any:
    """Return the kind of a number with the range that its default is in, since libraries say none.

    None of theirs is negative but by its default; a count that is 1 or more is one everywhere.

    Example:
        >>> _in_range(int, 40), _in_range(float | None, None), _in_range(bool, False)
        (typing.Annotated[int, Ge(ge=1)], typing.Annotated[float | None, Ge(ge=0)], <class 'bool'>)
    """
    kinds = set(get_args(hint) or [hint])
    if not kinds & {int, float} or kinds - {int, float, NoneType} or (default or 0) < 0:
        return hint
    return Annotated[hint, Ge(1 if isinstance(default, int) and default > 0 else 0)]


_BASE = {each.name for each in dataclasses.fields(EngineSettings)} - {"loss"}
"""What the threat model, the oracle and the contract read of the settings."""


def _attack(
    spelt: str,
    job: Callable[[Task], Finding],
    model: Model,
    images: Tensor,
    labels: Tensor,
    chosen: EngineSettings,
    ids: Ids | None,
    radii: Tensor | None,
) -> AttackResult:
    plain = EngineSettings(**{name: getattr(chosen, name) for name in _BASE})
    batch = check_batch(model, images, labels, ids, plain)
    sizes = row_radii(radii, chosen.eps, len(batch.images))
    oracle, tally = Oracle(model, plain), Tally(batch)
    logits = oracle.logits(*batch, step=0)
    rows = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    tally.count(rows, 1)
    if plain.randomness == "fixed":
        rows = rows[(logits.argmax(dim=1) == batch.labels).cpu()]
    wrong = torch.ones(len(batch.images), dtype=torch.bool, device="cpu")
    claims = Claims(wrong, torch.zeros(len(wrong), dtype=torch.float64, device="cpu"), ~wrong)
    xi = RandomnessConfig(chosen.seed, "counter").fold("attack", "engine")
    lanes = oracle.tile or MOST_LANES
    for start in range(0, len(rows), lanes):
        part = rows[start : start + lanes]
        own = Batch(*(each[part] for each in batch))
        steps = Lockstep(oracle, own, sizes[part], budget=chosen.budget, classes=logits.shape[1])
        try:
            outcomes = steps.run(job, [row_seed(xi, i) for i in own.ids.tolist()])
        except BadInput:
            raise
        except Exception as error:
            rule, fix = f"fails ({explain(error)})", "check its options, or use another attack"
            raise BadInput(f"attack {spelt}", rule, fix) from error
        for row, outcome in zip(part.tolist(), outcomes, strict=True):
            _take(spelt, row, outcome, batch, sizes, tally, claims, plain)
    result = conclude(tally, batch, oracle, _LAST, sizes)
    return dataclasses.replace(result, settings=chosen, claims=claims)


def _take(
    spelt: str,
    row: int,
    outcome: Outcome,
    batch: Batch,
    sizes: Tensor,
    tally: Tally,
    claims: Claims,
    chosen: EngineSettings,
) -> None:
    """Take over what a library made of one image, and how far it lies outside."""
    centre, found = batch.images[row : row + 1].cpu(), outcome.image.detach().cpu()
    if found.shape != centre.shape or not bool(found.isfinite().all()):
        rule = f"returns {[*found.shape]} for an image {[*centre.shape]}"
        if found.shape == centre.shape:
            rule = f"returns an image with NaN or infinite values for sample {int(batch.ids[row])}"
        raise BadInput(f"attack {spelt}", rule, "use another attack, or other options")
    found, size = found.to(centre), float(sizes[row])
    inside = tiled(lambda x, c: project(x, c, size, chosen.norm), None)(found, centre)
    linf, l2 = distances(found, centre)
    outside = float(linf if chosen.norm == "linf" else l2) - size
    box = float((found - found.clamp(0.0, 1.0)).abs().max())
    claims.fooled[row] = outcome.fooled
    claims.excess[row] = max(outside, box, 0.0)
    claims.ended[row] = outcome.is_ended
    tally.images[row] = inside[0].to(tally.images)
    tally.forwards[row] += outcome.forwards
    tally.backwards[row] += outcome.backwards
    tally.iterations[row] = outcome.backwards
    tally.zero_gradient[row] = outcome.is_blind is True and not outcome.is_found
    tally.succeeded[row] = outcome.is_found
